// See tune.h. The conventions of each kernel (what a workgroup covers, limits of its constants) stand in the comment
// that opens its .k file; this file follows them.
#include "runtime/graph/tune.h"
#include "runtime/graph/tune_parts.h"

// ---- Hadamard transforms --------------------------------------------------------------------------------

struct had {
    uint32_t length, k1, k2, k3, p; // length: floats of a row that are transformed
    bool transposed;
};

static struct had had_of(const struct gyre_node *node)
{
    const union gyre_params *p = &node->params;
#define HAD(params)                                                                                                    \
    return (struct had)                                                                                                \
    {                                                                                                                  \
        (uint32_t)(params.n * params.segs), (uint32_t)params.k1, (uint32_t)params.k2, (uint32_t)params.k3,             \
            (uint32_t)params.p, params.had_t != 0                                                                      \
    }
    if (node->op == GYRE_OP_hadamard) HAD(p->hadamard);
    if (node->op == GYRE_OP_rope_had_kv) HAD(p->rope_kv);
    if (node->op == GYRE_OP_rms_norm_had || node->op == GYRE_OP_rms_norm_had_quant) HAD(p->rms_norm_had);
    HAD(p->act_mul);
#undef HAD
}

// As constants the factors unroll the dense axes; with large ones a driver would compile for a minute: those stay in
// pc.
static bool had_unrolls(struct had had)
{
    return GYRE_MAX(had.k1, GYRE_MAX(had.k2, had.k3)) <= 32 && (uint64_t)had.k1 * had.k2 * had.k3 <= 144;
}

static void set_had(struct gyre_launch *launch, struct had had)
{
    if (!had_unrolls(had)) return;
    set(launch, "K1", had.k1);
    set(launch, "K2", had.k2);
    set(launch, "K3", had.k3);
    set(launch, "P", had.p);
}

// Rounds of one of n invocations, as hadamard.k.h and the kernels that use it say.
static uint64_t had_loops(struct had had, uint32_t n)
{
    const uint32_t k[] = {had.k1, had.k2, had.k3};
    uint64_t loops = (uint64_t)had.length * (had.p + 3) / 4 / 16 / n + 2ull * had.length / n;
    for (int i = 0; i < 3; i++) {
        const uint64_t columns = had.length / k[i];
        if (k[i] > 1 && had_unrolls(had)) loops += gyre_div_up(columns, n) + k[i];
        else if (k[i] > 1)
            loops += gyre_div_up(columns, n / ((k[i] + 15) / 16)) * (k[i] * (had.transposed ? 17ull : 1ull) + 1);
    }
    return loops;
}

static uint32_t had_lanes(const struct gyre_device_info *info, struct had had)
{
    uint32_t n = lanes(info, had.length / 16);
    while (n * 16 < GYRE_MAX(had.k1, GYRE_MAX(had.k2, had.k3)))
        n *= 2; // hadamard.k.h: a dense axis takes 16 outputs per invocation
    while (!runs(info, had_loops(had, n)) && 2 * n <= GYRE_MIN(info->max_workgroup, info->max_group_size[0])) n *= 2;
    return n;
}

// Whether the row and the reductions beside it fit shared memory.
static bool had_is_shared(const struct gyre_device_info *info, struct had had)
{
    return 4 * (uint64_t)had.length + 8 * (uint64_t)had_lanes(info, had) + 64 <= info->shared_bytes;
}

// Groups of a quantizer ("span" in shaders/params.h).
static uint32_t span_of(const struct gyre_node *node)
{
    const union gyre_params *p = &node->params;
    switch (node->op) {
    case GYRE_OP_quantize:
        return (uint32_t)p->quantize.span;
    case GYRE_OP_quantize_back:
        return (uint32_t)p->quantize_back.span;
    case GYRE_OP_rms_norm_quant:
        return (uint32_t)p->rms_norm.span;
    case GYRE_OP_rms_norm_had_quant:
        return (uint32_t)p->rms_norm_had.span;
    case GYRE_OP_act_mul_quant:
    case GYRE_OP_act_mul_had_quant:
        return (uint32_t)p->act_mul.span;
    default:
        return 0;
    }
}

static gyre_status tune_had(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out, gyre_error *err)
{
    const struct gyre_device_info *info = gyre_device_info(g->device);
    const struct had had = had_of(node);
    if (!runs(info, had_loops(had, had_lanes(info, had))))
        return too_long(info, "a Hadamard transform", had.length, err);
    GYRE_TRY(start(out, gyre_ops[node->op].name, had_is_shared(info, had) ? GYRE_FORM_ONE : GYRE_FORM_GLOBAL,
                   had_lanes(info, had), 1, err));
    set(out, "SHARED_N", had_is_shared(info, had) ? had.length : 1);
    set(out, "SPAN", span_of(node));
    set_had(out, had);
    return GYRE_OK;
}

uint64_t gyre_tune_temp(const gyre_graph *g, const struct gyre_node *node)
{
    if ((node->op != GYRE_OP_act_mul_had_quant && node->op != GYRE_OP_rms_norm_had_quant) ||
        had_is_shared(gyre_device_info(g->device), had_of(node)))
        return 0;
    const struct gyre_value_info *y = &g->values[node->out[0]];
    return (uint64_t)y->rows * y->width;
}

// ---- heads and logits ------------------------------------------------------------------------------------

static gyre_status tune_heads(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                              gyre_error *err)
{
    const struct gyre_device_info *info = gyre_device_info(g->device);
    const uint32_t hd = (uint32_t)(node->op == GYRE_OP_rope       ? node->params.rope.hd
                                   : node->op == GYRE_OP_kv_write ? node->params.kv_write.hd
                                                                  : node->params.rope_kv.hd);
    GYRE_TRY(start(out, gyre_ops[node->op].name, GYRE_FORM_ONE, lanes(info, GYRE_MAX(hd / 2, 32)), 1, err));
    if (node->op != GYRE_OP_rope) set_pool(out, &g->values[node->out[node->op == GYRE_OP_kv_write ? 0 : 1]]);
    set(out, "HD", hd);
    if (node->op != GYRE_OP_kv_write)
        set(out, "NORMED",
            (uint32_t)(node->op == GYRE_OP_rope ? node->params.rope.normed : node->params.rope_kv.normed));
    if (node->op == GYRE_OP_rope_had_kv) set_had(out, had_of(node));
    return GYRE_OK;
}

// Parts of the columns of logits: 2048 for each, and no more candidates than one workgroup merges quickly.
static uint32_t topk_splits(const struct gyre_device_info *info, const struct gyre_topk_params *p)
{
    enum { EACH = 2048, MOST = 64, CANDIDATES = 4096 };
    if (info->lanes != GYRE_LANES_HARDWARE) return 1;
    const uint32_t most = GYRE_MIN((uint32_t)MOST, (uint32_t)CANDIDATES / (uint32_t)p->k);
    return GYRE_MAX(1u, GYRE_MIN(most, (uint32_t)p->width / EACH));
}

// One workgroup per row of logits.
static gyre_status tune_logits(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                               gyre_error *err)
{
    const struct gyre_device_info *info = gyre_device_info(g->device);
    uint64_t width = g->values[node->in[0]].width, loops = width * (node->op == GYRE_OP_kl ? 6 : 3);
    if (node->op != GYRE_OP_kl && node->op != GYRE_OP_loglik &&
        node->op != GYRE_OP_mass) { // 20 rounds of k have no share
        const uint64_t k = (uint64_t)node->params.topk.k;
        width = gyre_div_up(width, (uint64_t)node->params.topk.parts);
        loops = width + k * (width / 256 + 256 + 20 * 8);
    }
    uint32_t n = lanes(info, 256);
    GYRE_TRY(share(info, gyre_ops[node->op].name, loops, &n, err));
    return start(out, gyre_ops[node->op].name, GYRE_FORM_ONE, n, 1, err);
}

static gyre_status tune_sample(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                               gyre_error *err)
{
    (void)g, (void)node;
    GYRE_TRY(start(out, "sample", GYRE_FORM_ONE, 8, 1, err));
    out->tile[0] = 8;
    return GYRE_OK;
}

// ---- rows -----------------------------------------------------------------------------------------------

// One workgroup per row, which reads it at most three times, four floats at a time.
static gyre_status tune_rows(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                             gyre_error *err)
{
    const struct gyre_device_info *info = gyre_device_info(g->device);
    const uint32_t width = g->values[node->out[0]].width;
    uint32_t n = lanes(info, width / 4);
    GYRE_TRY(share(info, gyre_ops[node->op].name, 3ull * width / 4, &n, err));
    const bool bytes = node->op == GYRE_OP_quantize && node->params.quantize.bits == 24;
    GYRE_TRY(start(out, gyre_ops[node->op].name, bytes ? GYRE_FORM_BYTES : GYRE_FORM_ONE, n, 1, err));
    set(out, "SPAN", span_of(node));
    return GYRE_OK;
}

// An invocation takes four elements of a row.
static gyre_status tune_embed(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                              gyre_error *err)
{
    const gyre_weight_kind kind = g->values[node->in[1]].weight->kind;
    GYRE_TRY(start_weight(out, "embed", kind, 0, lanes(gyre_device_info(g->device), 64), 1, err));
    out->tile[0] = out->kernel.spec[0];
    return GYRE_OK;
}

static gyre_status tune_gather(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                               gyre_error *err)
{
    GYRE_TRY(start(out, gyre_ops[node->op].name, GYRE_FORM_ONE, lanes(gyre_device_info(g->device), 64), 1, err));
    out->tile[0] = out->kernel.spec[0];
    return GYRE_OK;
}

static gyre_status tune_add(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out, gyre_error *err)
{
    GYRE_TRY(start(out, gyre_ops[node->op].name, GYRE_FORM_ONE, lanes(gyre_device_info(g->device), 256), 1, err));
    out->tile[0] = out->kernel.spec[0];
    return GYRE_OK;
}

// ---- elsewhere: tune_product.c, tune_attn.c, tune_back.c ------------------------------------------------

#define tune_matmul gyre_tune_matmul
#define tune_attn gyre_tune_attn
#define tune_attn_split gyre_tune_attn_split
#define tune_attn_merge gyre_tune_attn_merge
#define tune_back gyre_tune_back

uint32_t gyre_tune_splits(const gyre_graph *g, const struct gyre_node *node)
{
    if (node->op == GYRE_OP_attn) return gyre_tune_attn_splits(g, node);
    if (node->op != GYRE_OP_argmax && node->op != GYRE_OP_topk && node->op != GYRE_OP_draw) return 1;
    return topk_splits(gyre_device_info(g->device), &node->params.topk);
}

// ---- all ops --------------------------------------------------------------------------------------------

static gyre_status tune_none(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                             gyre_error *err)
{
    (void)g, (void)out;
    return gyre_fail(err, GYRE_E_INVALID, "cannot choose a kernel: %s is no op of a graph", gyre_ops[node->op].name);
}

static gyre_status (*const choices[GYRE_OP_COUNT])(const gyre_graph *, const struct gyre_node *, struct gyre_launch *,
                                                   gyre_error *) = {
#define OP(name, outputs, inputs, params, lower, tune, grad) [GYRE_OP_##name] = tune_##tune,
#include "runtime/core/ops.def"
#undef OP
};

gyre_status gyre_tune(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out, gyre_error *err)
{
    return choices[node->op](g, node, out, err);
}

gyre_status gyre_tune_repack(const struct gyre_device_info *info, uint32_t form, uint32_t steps, uint32_t length,
                             struct gyre_launch *out, gyre_error *err)
{
    uint32_t wgx = lanes(info, 64), wgy = 1;
    while (gyre_div_up(steps, wgy) > info->max_groups[1] && wgx > 1) wgx /= 2, wgy *= 2;
    if (length > 1 &&
        !runs(info, length / 3)) { // the invocations of a column share its group: repack_int, repack_block
        for (wgx = 1, wgy = 1; !runs(info, length / 3 / wgy);) {
            if (2 * wgy > 256 || 2 * wgy > info->max_workgroup) return too_long(info, "repack", length, err);
            wgy *= 2;
        }
    }
    GYRE_TRY(start(out, "repack", form, wgx, wgy, err));
    out->tile[0] = 8 * wgx; // an invocation takes 8 columns
    out->tile[1] = length > 1 ? 1 : wgy;
    return GYRE_OK;
}
