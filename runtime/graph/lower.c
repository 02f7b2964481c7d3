// Nodes to dispatches. One function per lowering family of ops.def; a family says what its kernels bind and how far
// their grid extends. Which kernel and which constants: tune.c.
#include "backends/kernel_source.h"
#include "runtime/graph/choice.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

struct lowering {
    gyre_graph *g;
    const struct gyre_node *node;
    uint32_t index;
    gyre_error *err;
};

// Adds one dispatch; the grid covers `extent` in tiles of the launch.
static gyre_status emit(const struct lowering *l, const struct gyre_launch *launch, const struct gyre_binding *bind,
                        uint32_t n_bind, const void *params, const uint64_t extent[3])
{
    gyre_graph *g = l->g;
    const struct gyre_device_info *info = gyre_device_info(g->device);
    if (g->n_dispatches == g->cap_dispatches) {
        const uint32_t cap = g->cap_dispatches ? 2 * g->cap_dispatches : 64;
        struct gyre_dispatch *dispatches = realloc(g->dispatches, cap * sizeof *dispatches);
        if (dispatches) g->dispatches = dispatches;
        uint32_t *nodes = realloc(g->dispatch_node, cap * sizeof *nodes);
        if (nodes) g->dispatch_node = nodes;
        if (!dispatches || !nodes) return gyre_fail(l->err, GYRE_E_NOMEM, "cannot lower the graph: out of host memory");
        g->cap_dispatches = cap;
    }
    struct gyre_dispatch *d = &g->dispatches[g->n_dispatches];
    *d = (struct gyre_dispatch){0};
    for (int k = 0; k < 3; k++) {
        const uint64_t groups = gyre_div_up(extent[k], launch->tile[k]);
        if (groups > info->max_groups[k])
            return gyre_fail(l->err, GYRE_E_UNSUPPORTED,
                             "cannot lower %s: its grid needs %llu workgroups in one dimension, %s has at most %u; use "
                             "fewer rows at once",
                             launch->kernel.name, (unsigned long long)groups, info->id, info->max_groups[k]);
        d->groups[k] = (uint32_t)groups;
    }
    const struct gyre_kernel_source *source = gyre_kernel_source_find(launch->kernel.name);
    if (!source || source->n_bindings != n_bind || source->params_size > GYRE_MAX_PARAMS)
        return gyre_fail(l->err, GYRE_E_INVALID, "cannot lower %s: %s", launch->kernel.name,
                         source ? "its bindings are not those of its op" : "there is no such kernel");
    memcpy(d->bind, bind, n_bind * sizeof *bind);
    memcpy(d->params, params, source->params_size);
    GYRE_TRY(gyre_kernel_create(g->device, &launch->kernel, &d->kernel, l->err));
    g->dispatch_node[g->n_dispatches++] = l->index;
    return GYRE_OK;
}

// All planes of all operands in order, outputs first; what is absent is bound to the first input, which kernels then do
// not read.
static uint32_t bind_all(const struct lowering *l, struct gyre_binding *bind)
{
    const struct gyre_graph *g = l->g;
    const struct gyre_op_info *op = &gyre_ops[l->node->op];
    uint32_t n = 0;
    for (size_t i = 0; i < strlen(op->outputs); i++)
        for (uint32_t p = 0; p < g->values[l->node->out[i]].n_planes; p++)
            bind[n++] = gyre_graph_at(g, l->node->out[i], p);
    if (l->node->temp) bind[n++] = gyre_graph_at(g, l->node->temp, 0);
    for (size_t i = 0; i < strlen(op->inputs); i++) {
        const gyre_value v = l->node->in[i] ? l->node->in[i] : l->node->in[0];
        const uint32_t planes = l->node->in[i] ? g->values[v].n_planes : 1;
        for (uint32_t p = 0; p < planes; p++) bind[n++] = gyre_graph_at(g, v, p);
    }
    return n;
}

// The launch of a node, `chosen` or (NULL) the rule's, and its kernel, which the caller destroys when its dispatches
// hold it: what fails here is the kernel and nothing else. Where the device may do without it, the next choice.
static gyre_status choose(const struct lowering *l, const struct gyre_launch *chosen, struct gyre_launch *launch,
                          gyre_kernel **kernel)
{
    gyre_device *const device = l->g->device;
    *kernel = NULL;
    if (chosen) *launch = *chosen;
    else GYRE_TRY(gyre_tune(l->g, l->node, launch, l->err));
    const gyre_status st = gyre_kernel_create(device, &launch->kernel, kernel, l->err);
    if (st == GYRE_OK) return GYRE_OK;
    if (!gyre_device_forgo(device, launch->kernel.name, st, l->err)) return st;
    return gyre_tune(l->g, l->node, launch, l->err);
}

static gyre_status emit_plain(const struct lowering *l, uint64_t x, uint64_t y)
{
    struct gyre_binding bind[GYRE_MAX_BINDINGS];
    gyre_kernel *kernel = NULL;
    struct gyre_launch launch;
    GYRE_TRY(choose(l, NULL, &launch, &kernel));
    const uint32_t n = bind_all(l, bind);
    const gyre_status st = emit(l, &launch, bind, n, &l->node->params, (const uint64_t[3]){x, y, 1});
    gyre_kernel_destroy(l->g->device, kernel);
    return st;
}

// ---- the families ---------------------------------------------------------------------------------------

// y | rows, table, scale: one dispatch per range of the table, each writing the rows whose token it holds.
static gyre_status lower_embed(const struct lowering *l)
{
    const struct gyre_weight *w = l->g->values[l->node->in[1]].weight;
    struct gyre_launch launch;
    GYRE_TRY(gyre_tune(l->g, l->node, &launch, l->err));
    for (uint32_t i = 0; i < w->n_ranges; i++) {
        const struct gyre_weight_range *r = &w->range[i];
        struct gyre_embed_params p = l->node->params.embed;
        p.n0 = (int32_t)r->n0, p.n = (int32_t)r->n, p.n_pad = (int32_t)r->n_pad;
        const struct gyre_binding bind[] = {gyre_graph_at(l->g, l->node->out[0], 0),
                                            gyre_graph_at(l->g, l->node->in[0], 0), r->weight, r->scale};
        GYRE_TRY(emit(l, &launch, bind, GYRE_COUNT(bind), &p,
                      (const uint64_t[3]){(uint64_t)p.width / 4, (uint64_t)p.rows, 1}));
    }
    return GYRE_OK;
}

// y | x, meta (quant_matmul: gain), weight, scale, sums, addend: one dispatch per range of columns.
static gyre_status emit_product(const struct lowering *l, const struct gyre_launch *launch)
{
    const struct gyre_graph *g = l->g;
    const struct gyre_weight *w = g->values[l->node->in[1]].weight;
    const gyre_value x = l->node->in[0], add = l->node->in[2], gain = l->node->in[3];
    const struct gyre_binding codes = gyre_graph_at(g, x, 0), meta = g->values[x].kind == GYRE_VALUE_QUANT
                                                                         ? gyre_graph_at(g, x, 1)
                                                                     : gain ? gyre_graph_at(g, gain, 0)
                                                                            : codes;
    for (uint32_t i = 0; i < w->n_ranges; i++) {
        const struct gyre_weight_range *r = &w->range[i];
        union gyre_params p = l->node->params; // quant_matmul's begin with all of matmul's
        p.matmul.n0 = (int32_t)r->n0, p.matmul.n = (int32_t)r->n, p.matmul.n_pad = (int32_t)r->n_pad;
        const struct gyre_binding bind[] = {
            gyre_graph_at(g, l->node->out[0], 0),  codes, meta, r->weight, r->scale, r->sums,
            add ? gyre_graph_at(g, add, 0) : codes};
        GYRE_TRY(emit(l, launch, bind, GYRE_COUNT(bind), &p, (const uint64_t[3]){r->n, (uint64_t)p.matmul.rows, 1}));
    }
    return GYRE_OK;
}

static gyre_status lower_matmul(const struct lowering *l)
{
    gyre_kernel *kernel = NULL;
    struct gyre_launch launch;
    GYRE_TRY(choose(l, gyre_choice_of(l->g, l->node), &launch, &kernel));
    const gyre_status st = emit_product(l, &launch);
    gyre_kernel_destroy(l->g->device, kernel);
    return st;
}

// Shares a node's predicted time among its dispatches, from `first` to the last of the graph.
static void predict(const struct lowering *l, uint32_t first)
{
    for (uint32_t d = first; d < l->g->n_dispatches; d++)
        l->g->dispatches[d].ms = gyre_predict_ms(l->g, l->node) / (float)(l->g->n_dispatches - first);
}

gyre_status gyre_graph_lower_product(gyre_graph *g, uint32_t node, const struct gyre_launch *launch, gyre_error *err)
{
    const struct lowering l = {g, &g->nodes[node], node, err};
    const uint32_t first = g->n_dispatches;
    GYRE_TRY(emit_product(&l, launch));
    predict(&l, first);
    return GYRE_OK;
}

// y | x, order: by columns and rows.
static gyre_status lower_gather(const struct lowering *l)
{
    const struct gyre_gather_params *p = &l->node->params.gather;
    return emit_plain(l, (uint64_t)p->width, (uint64_t)p->rows);
}

// y | a, b in pieces that the grid can hold.
static gyre_status lower_add(const struct lowering *l)
{
    struct gyre_binding bind[3];
    struct gyre_launch launch;
    GYRE_TRY(gyre_tune(l->g, l->node, &launch, l->err));
    (void)bind_all(l, bind);
    const uint64_t count = (uint64_t)l->node->params.add.count, align = GYRE_BIND_ALIGN / 4;
    const uint64_t most = (uint64_t)gyre_device_info(l->g->device)->max_groups[0] * launch.tile[0] / align * align;
    for (uint64_t done = 0; done < count; done += most) {
        const uint64_t n = GYRE_MIN(most, count - done);
        const struct gyre_add_params p = {.count = (int32_t)n};
        struct gyre_binding piece[3];
        for (int b = 0; b < 3; b++) piece[b] = (struct gyre_binding){bind[b].buffer, bind[b].offset + 4 * done, 4 * n};
        GYRE_TRY(emit(l, &launch, piece, 3, &p, (const uint64_t[3]){n, 1, 1}));
    }
    return GYRE_OK;
}

// Row by row: norms, quantizers, activations, Hadamard transforms.
static gyre_status lower_rows(const struct lowering *l) { return emit_plain(l, l->g->values[l->node->out[0]].rows, 1); }

// By heads and rows: those of q, k and v, of k and v, of q.
#define EVERY_HEAD(p) (uint64_t)(p).heads + 2 * (uint64_t)(p).kv_heads, (uint64_t)(p).rows
static gyre_status lower_rope(const struct lowering *l) { return emit_plain(l, EVERY_HEAD(l->node->params.rope)); }
static gyre_status lower_rope_kv(const struct lowering *l)
{
    return emit_plain(l, EVERY_HEAD(l->node->params.rope_kv));
}
static gyre_status lower_kv_write(const struct lowering *l)
{
    const struct gyre_kv_write_params *p = &l->node->params.kv_write;
    return emit_plain(l, 2 * (uint64_t)p->kv_heads, (uint64_t)p->rows);
}
static gyre_status lower_attn(const struct lowering *l)
{
    return emit_plain(l, (uint64_t)l->node->params.attn.heads, (uint64_t)l->node->params.attn.rows);
}

static gyre_status lower_attn_split(const struct lowering *l)
{
    const struct gyre_attn_split_params *p = &l->node->params.attn_split;
    struct gyre_binding bind[GYRE_MAX_BINDINGS];
    struct gyre_launch launch;
    GYRE_TRY(gyre_tune(l->g, l->node, &launch, l->err));
    const uint32_t n = bind_all(l, bind);
    return emit(l, &launch, bind, n, p,
                (const uint64_t[3]){(uint64_t)p->heads, (uint64_t)p->rows, (uint64_t)p->splits});
}
static gyre_status lower_attn_merge(const struct lowering *l)
{
    return emit_plain(l, (uint64_t)l->node->params.attn_merge.heads, (uint64_t)l->node->params.attn_merge.rows);
}

// One workgroup per part of a row of logits.
static gyre_status lower_topk(const struct lowering *l)
{
    const struct gyre_topk_params *p = &l->node->params.topk;
    return emit_plain(l, (uint64_t)p->rows, (uint64_t)p->parts);
}

// Gradients of a product: dx | dy, weight, scale, or of scales | dy, x, meta, weight, scale; one dispatch per range of
// columns, the further ones of dx add to it.
static gyre_status lower_product_back(const struct lowering *l)
{
    const struct gyre_graph *g = l->g;
    const bool of_x = l->node->op == GYRE_OP_matmul_back;
    const struct gyre_weight *w = g->values[l->node->in[of_x ? 1 : 2]].weight;
    const gyre_value x = l->node->in[1];
    struct gyre_launch launch;
    GYRE_TRY(gyre_tune(g, l->node, &launch, l->err));
    for (uint32_t i = 0; i < w->n_ranges; i++) {
        const struct gyre_weight_range *r = &w->range[i];
        const struct gyre_binding out = gyre_graph_at(g, l->node->out[0], 0), dy = gyre_graph_at(g, l->node->in[0], 0);
        struct gyre_matmul_back_params p = l->node->params.matmul_back; // scale_back's are the same
        p.n0 = (int32_t)r->n0, p.n = (int32_t)r->n, p.n_pad = (int32_t)r->n_pad, p.add = i > 0;
        if (of_x) {
            const struct gyre_binding bind[] = {out, dy, r->weight, r->scale};
            GYRE_TRY(emit(l, &launch, bind, GYRE_COUNT(bind), &p, (const uint64_t[3]){w->k / 4, (uint64_t)p.rows, 1}));
        } else {
            const struct gyre_binding codes = gyre_graph_at(g, x, 0),
                                      meta = g->values[x].kind == GYRE_VALUE_QUANT ? gyre_graph_at(g, x, 1) : codes;
            const struct gyre_binding bind[] = {out, dy, codes, meta, r->weight, r->scale};
            GYRE_TRY(emit(l, &launch, bind, GYRE_COUNT(bind), &p, (const uint64_t[3]){r->n, w->k / w->group, 1}));
        }
    }
    return GYRE_OK;
}

// By columns; by norms and rows; by columns and rows; by heads and rows; by queries, or keys, and rows.
static gyre_status lower_columns(const struct lowering *l)
{
    return emit_plain(l, (uint64_t)l->node->params.columns.width, 1);
}
static gyre_status lower_segments(const struct lowering *l)
{
    return emit_plain(l, (uint64_t)l->node->params.norm_back.segs, (uint64_t)l->node->params.norm_back.rows);
}
static gyre_status lower_act_back(const struct lowering *l)
{
    return emit_plain(l, (uint64_t)l->node->params.act_mul_back.width, (uint64_t)l->node->params.act_mul_back.rows);
}
static gyre_status lower_heads_back(const struct lowering *l)
{
    return emit_plain(l, EVERY_HEAD(l->node->params.kv_back));
}
static gyre_status lower_attn_back(const struct lowering *l)
{
    const struct gyre_attn_back_params *p = &l->node->params.attn_back;
    return emit_plain(l, (uint64_t)(l->node->op == GYRE_OP_attn_back_q ? p->heads : p->kv_heads), (uint64_t)p->rows);
}

// One workgroup per row of logits.
static gyre_status lower_head(const struct lowering *l) { return emit_plain(l, l->g->values[l->node->in[0]].rows, 1); }

// Ops that run outside graphs: repacking at load, the ceilings of `bench`.
static gyre_status lower_none(const struct lowering *l)
{
    return gyre_fail(l->err, GYRE_E_INVALID, "cannot lower a graph: %s is no op of a graph",
                     gyre_ops[l->node->op].name);
}

static gyre_status (*const lowerings[GYRE_OP_COUNT])(const struct lowering *) = {
#define OP(name, outputs, inputs, params, lower, tune, grad) [GYRE_OP_##name] = lower_##lower,
#include "runtime/core/ops.def"
#undef OP
};

gyre_status gyre_graph_lower(gyre_graph *g, gyre_error *err)
{
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct lowering l = {g, &g->nodes[i], i, err};
        const uint32_t first = g->n_dispatches;
        GYRE_TRY(lowerings[g->nodes[i].op](&l));
        predict(&l, first);
    }
    return GYRE_OK;
}
