// Values, nodes and the typed constructors. Knows shapes and operands (with check.c); nothing of how it is
// planned and lowered.
//
// A constructor that fails returns GYRE_NONE and leaves its message in the graph; operands that are GYRE_NONE because
// an earlier constructor failed pass through silently.
#include "runtime/core/quantize.h"
#include "runtime/graph/node.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- memory and errors ----------------------------------------------------------------------------------

void gyre_graph_fail(gyre_graph *g, gyre_status code, const char *format, ...)
{
    if (g->error.code) return;
    char text[sizeof g->error.message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)gyre_fail(&g->error, code, "%s", text);
}

// The array with room for one more element, moved if need be; NULL (and the graph's error) if there is no memory.
static void *grow(gyre_graph *g, void *array, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap) return array;
    const uint32_t wanted = *cap ? *cap * 2 : 64;
    void *bigger = realloc(array, wanted * size);
    if (!bigger)
        gyre_graph_fail(g, GYRE_E_NOMEM, "cannot build the graph (%u elements of %zu bytes): out of host memory",
                        wanted, size);
    else *cap = wanted;
    return bigger;
}

static gyre_value new_value(gyre_graph *g, const struct gyre_value_info *info)
{
    if (g->error.code) return GYRE_NONE;
    struct gyre_value_info *values = grow(g, g->values, g->n_values, &g->cap_values, sizeof *values);
    if (!values) return GYRE_NONE;
    g->values = values;
    values[g->n_values] = *info;
    return g->n_values++;
}

gyre_value gyre_graph_new_value(gyre_graph *g, gyre_value_kind kind, uint32_t rows, uint32_t width, uint32_t bits)
{
    struct gyre_value_info info = {.kind = kind, .rows = rows, .width = width, .bits = bits, .n_planes = 1};
    const uint64_t count = (uint64_t)rows * width;
    if (!count || count >= UINT64_C(1) << 40) {
        gyre_graph_fail(g, GYRE_E_INVALID, "cannot make a value of %u x %u elements", rows, width);
        return GYRE_NONE;
    }
    info.plane[0].bytes = 4 * count;
    if (kind == GYRE_VALUE_QUANT) {
        if (width % 4 || (bits != 24 && bits != 8 && bits != 4)) {
            gyre_graph_fail(
                g, GYRE_E_UNSUPPORTED,
                "cannot quantize rows of %u elements to %u bits: the width must be a multiple of 4, the bits 8 or 4",
                width, bits);
            return GYRE_NONE;
        }
        info.n_planes = 2;
        info.plane[0].bytes = gyre_round_up(bits == 24 ? 3 * count : count, 16); // kernels read 16 at a time
        info.plane[1].bytes = 8 * (uint64_t)rows;
    }
    return new_value(g, &info);
}

bool gyre_graph_append(gyre_graph *g, const struct gyre_node *node)
{
    if (g->error.code) return false;
    if (g->stage != GYRE_GRAPH_BUILD) {
        gyre_graph_fail(g, GYRE_E_INVALID, "cannot add %s: the graph is already planned", gyre_ops[node->op].name);
        return false;
    }
    gyre_error err = {0};
    if (gyre_node_check(g, node, &err)) {
        gyre_graph_fail(g, err.code, "%s", err.message);
        return false;
    }
    struct gyre_node *nodes = grow(g, g->nodes, g->n_nodes, &g->cap_nodes, sizeof *nodes);
    if (!nodes) return false;
    g->nodes = nodes;
    nodes[g->n_nodes++] = *node;
    return true;
}

// A value over the caller's memory. The same memory of the same kind is the same value, so that the readers and writers
// of a KV pool name one thing.
static gyre_value external(gyre_graph *g, gyre_value_kind kind, const char *name, const struct gyre_binding *at,
                           uint32_t n_planes, struct gyre_value_info info)
{
    for (gyre_value v = 1; kind >= GYRE_VALUE_DATA && v < g->n_values; v++) {
        const struct gyre_value_info *have = &g->values[v];
        bool same = have->kind == kind && have->n_planes == n_planes && have->weight == info.weight &&
                    have->bits == info.bits && have->bits_v == info.bits_v;
        for (uint32_t p = 0; same && p < n_planes; p++)
            same = have->plane[p].at.buffer == at[p].buffer && have->plane[p].at.offset == at[p].offset &&
                   have->plane[p].at.size == at[p].size;
        if (same) return v;
    }
    info.kind = kind;
    info.external = true;
    info.n_planes = n_planes;
    for (uint32_t p = 0; p < n_planes; p++) info.plane[p] = (struct gyre_plane){.bytes = at[p].size, .at = at[p]};
    snprintf(info.name, sizeof info.name, "%s", name);
    return new_value(g, &info);
}

gyre_value gyre_graph_import(gyre_graph *g, const gyre_graph *from, gyre_value v)
{
    struct gyre_value_info info = *gyre_graph_value(from, v);
    struct gyre_binding at[GYRE_MAX_PLANES];
    for (uint32_t p = 0; p < info.n_planes; p++) at[p] = gyre_graph_at(from, v, p);
    info.landed = false;
    info.root = GYRE_NONE;
    return external(g, info.kind, gyre_graph_value(from, v)->name, at, info.n_planes, info);
}

gyre_value gyre_graph_data(gyre_graph *g, const char *name, struct gyre_binding at)
{
    return external(g, GYRE_VALUE_DATA, name, &at, 1, (struct gyre_value_info){0});
}

static gyre_value weight_value(gyre_graph *g, const struct gyre_weight *w)
{
    if (!w || !w->n_ranges || !w->range) {
        gyre_graph_fail(g, GYRE_E_INVALID, "cannot use a weight without ranges");
        return GYRE_NONE;
    }
    return external(g, GYRE_VALUE_WEIGHT, "weight", NULL, 0,
                    (struct gyre_value_info){.weight = w, .rows = w->n, .width = w->k});
}

static gyre_value pool_value(gyre_graph *g, const struct gyre_kv_pool *kv)
{
    const struct gyre_binding at[] = {kv->k, kv->k_meta, kv->v, kv->v_meta};
    return external(g, GYRE_VALUE_POOL, "kv", at, 4,
                    (struct gyre_value_info){.bits = kv->bits, .bits_v = kv->bits_v ? kv->bits_v : kv->bits});
}

static gyre_value pages_value(gyre_graph *g, const struct gyre_kv_pool *kv)
{
    return kv->pages.buffer ? gyre_graph_data(g, "pages", kv->pages) : g->batch_pages;
}

static gyre_value centre_value(gyre_graph *g, const struct gyre_kv_pool *kv)
{
    return kv->centre.buffer ? gyre_graph_data(g, "centre", kv->centre) : GYRE_NONE;
}

void gyre_graph_destroy(gyre_graph *g)
{
    if (!g) return;
    if (g->recording) gyre_recording_destroy(g->device, g->recording);
    for (uint32_t i = 0; i < g->n_dispatches; i++) gyre_kernel_destroy(g->device, g->dispatches[i].kernel);
    for (uint32_t i = 0; g->chunks && !g->borrows && i < g->n_chunks; i++) gyre_buffer_destroy(g->device, g->chunks[i]);
    free(g->dispatches);
    free(g->dispatch_node);
    free(g->chunks);
    free(g->chunk_bytes);
    free(g->nodes);
    free(g->values);
    free(g);
}

gyre_status gyre_graph_create(gyre_device *device, uint32_t rows, const struct gyre_batch *batch, gyre_graph **out,
                              gyre_error *err)
{
    *out = NULL;
    if (!device || !rows || rows > INT32_MAX)
        return gyre_fail(err, GYRE_E_INVALID, "cannot create a graph of %u rows", rows);
    gyre_graph *g = calloc(1, sizeof *g);
    if (!g) return gyre_fail(err, GYRE_E_NOMEM, "cannot create a graph: out of host memory");
    g->device = device;
    g->rows = rows;
    new_value(g, &(struct gyre_value_info){0}); // GYRE_NONE
    if (batch) {
        g->page_stride = batch->page_stride;
        if (batch->rows.buffer) g->batch_rows = gyre_graph_data(g, "rows", batch->rows);
        if (batch->pages.buffer) g->batch_pages = gyre_graph_data(g, "pages", batch->pages);
    }
    if (g->error.code) {
        const gyre_status st = g->error.code;
        if (err) *err = g->error;
        gyre_graph_destroy(g);
        return st;
    }
    *out = g;
    return GYRE_OK;
}

// ---- asking ---------------------------------------------------------------------------------------------

struct gyre_binding gyre_graph_at(const gyre_graph *g, gyre_value v, uint32_t plane)
{
    const struct gyre_value_info *info = &g->values[v];
    if (!info->root) return info->plane[plane].at;
    struct gyre_binding at = gyre_graph_at(g, info->root, plane);
    at.offset += (uint64_t)info->root_row * info->width * 4;
    at.size = info->plane[plane].bytes;
    return at;
}

uint32_t gyre_graph_uses(const gyre_graph *g, gyre_value v)
{
    uint32_t n = g->values[v].landed;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        for (uint32_t k = 0; k < GYRE_MAX_INS; k++) n += g->nodes[i].in[k] == v;
    for (gyre_value view = 1; view < g->n_values; view++)
        if (g->values[view].root == v) n += gyre_graph_uses(g, view);
    return n;
}

// ---- constructors ---------------------------------------------------------------------------------------

// Whether every operand exists; false silently when an error is already remembered.
static bool given(gyre_graph *g, gyre_op op, const gyre_value *v, uint32_t n)
{
    if (g->error.code) return false;
    for (uint32_t i = 0; i < n; i++)
        if (v[i] == GYRE_NONE || v[i] >= g->n_values) {
            gyre_graph_fail(g, GYRE_E_INVALID, "cannot add %s: operand %u does not exist", gyre_ops[op].name, i);
            return false;
        }
    return true;
}
#define GIVEN(g, op, ...)                                                                                              \
    given(g, op, (const gyre_value[]){__VA_ARGS__}, sizeof((const gyre_value[]){__VA_ARGS__}) / sizeof(gyre_value))

// Appends a node whose first output becomes its result.
static gyre_value finish(gyre_graph *g, const struct gyre_node *node)
{
    return gyre_graph_append(g, node) ? node->out[0] : GYRE_NONE;
}

uint32_t gyre_graph_rows(const gyre_graph *g) { return g->rows; }

gyre_value gyre_g_external(gyre_graph *g, const char *name, uint32_t rows, uint32_t width, struct gyre_binding at)
{
    if (at.size < (uint64_t)rows * width * 4 || !rows || !width) {
        gyre_graph_fail(g, GYRE_E_INVALID, "cannot use buffer \"%s\" as %u x %u floats: it has %llu bytes", name, rows,
                        width, (unsigned long long)at.size);
        return GYRE_NONE;
    }
    at.size = (uint64_t)rows * width * 4;
    return external(g, GYRE_VALUE_F32, name, &at, 1, (struct gyre_value_info){.rows = rows, .width = width});
}

gyre_value gyre_g_embed(gyre_graph *g, const struct gyre_weight *table, float scale)
{
    const gyre_value w = weight_value(g, table);
    if (!GIVEN(g, GYRE_OP_embed, g->batch_rows, w)) return GYRE_NONE;
    const struct gyre_embed_params p = {
        .rows = (int32_t)g->rows, .width = (int32_t)table->k, .group = (int32_t)table->group, .scale = scale};
    return finish(g, &(struct gyre_node){.op = GYRE_OP_embed,
                                         .out = {gyre_graph_new_value(g, GYRE_VALUE_F32, g->rows, table->k, 0)},
                                         .in = {g->batch_rows, w},
                                         .params.embed = p});
}

gyre_value gyre_g_rms_norm(gyre_graph *g, gyre_value x, struct gyre_binding gain, float eps)
{
    if (!GIVEN(g, GYRE_OP_rms_norm, x)) return GYRE_NONE;
    const uint32_t rows = g->values[x].rows, width = g->values[x].width;
    return finish(
        g, &(struct gyre_node){
               .op = GYRE_OP_rms_norm,
               .out = {gyre_graph_new_value(g, GYRE_VALUE_F32, rows, width, 0)},
               .in = {x, gyre_graph_data(g, "gain", gain)},
               .params.rms_norm = {.rows = (int32_t)rows, .width = (int32_t)width, .eps = eps, .bits = 16, .clip = 1}});
}

gyre_value gyre_g_quantize(gyre_graph *g, gyre_value x, uint32_t bits, float clip)
{
    return gyre_g_quantize_groups(g, x, bits, clip, 0);
}

gyre_value gyre_g_quantize_groups(gyre_graph *g, gyre_value x, uint32_t bits, float clip, uint32_t group)
{
    if (!GIVEN(g, GYRE_OP_quantize, x)) return GYRE_NONE;
    if (bits == 16) return x;
    if (bits == 24) { // no setting, but how a device computes a product of floats: split.c
        gyre_graph_fail(g, GYRE_E_UNSUPPORTED, "cannot quantize rows to 24 bits: the bits must be 16, 8 or 4");
        return GYRE_NONE;
    }
    const uint32_t rows = g->values[x].rows, width = g->values[x].width, span = gyre_quantize_span(group, bits, width);
    const gyre_value q = gyre_graph_new_value(g, GYRE_VALUE_QUANT, rows, width, bits);
    return finish(g, &(struct gyre_node){.op = GYRE_OP_quantize,
                                         .out = {q},
                                         .in = {x},
                                         .params.quantize = {.rows = (int32_t)rows,
                                                             .width = (int32_t)width,
                                                             .bits = (int32_t)bits,
                                                             .clip = clip,
                                                             .span = (int32_t)span}});
}

gyre_value gyre_g_matmul(gyre_graph *g, gyre_value x, const struct gyre_weight *w)
{
    return gyre_g_linear(g, x, w, (struct gyre_binding){0});
}

gyre_value gyre_g_linear(gyre_graph *g, gyre_value x, const struct gyre_weight *w, struct gyre_binding bias)
{
    const gyre_value weight = weight_value(g, w);
    if (!GIVEN(g, GYRE_OP_matmul, x, weight)) return GYRE_NONE;
    const uint32_t rows = g->values[x].rows;
    const struct gyre_matmul_params p = {.rows = (int32_t)rows,
                                         .k = (int32_t)w->k,
                                         .n = (int32_t)w->n,
                                         .group = (int32_t)w->group,
                                         .ldy = (int32_t)w->n,
                                         .add = bias.buffer ? 2 : 0};
    return finish(
        g, &(struct gyre_node){.op = GYRE_OP_matmul,
                               .out = {gyre_graph_new_value(g, GYRE_VALUE_F32, rows, w->n, 0)},
                               .in = {x, weight, bias.buffer ? gyre_g_external(g, "bias", 1, w->n, bias) : GYRE_NONE},
                               .params.matmul = p});
}

gyre_value gyre_g_gather(gyre_graph *g, gyre_value x, struct gyre_binding order)
{
    if (!order.buffer) return x;
    if (!GIVEN(g, GYRE_OP_gather, x)) return GYRE_NONE;
    const uint32_t rows = g->values[x].rows, width = g->values[x].width;
    return finish(g, &(struct gyre_node){.op = GYRE_OP_gather,
                                         .out = {gyre_graph_new_value(g, GYRE_VALUE_F32, rows, width, 0)},
                                         .in = {x, gyre_graph_data(g, "order", order)},
                                         .params.gather = {.rows = (int32_t)rows, .width = (int32_t)width}});
}

gyre_value gyre_g_add(gyre_graph *g, gyre_value a, gyre_value b)
{
    if (!GIVEN(g, GYRE_OP_add, a, b)) return GYRE_NONE;
    const uint32_t rows = g->values[a].rows, width = g->values[a].width;
    return finish(g, &(struct gyre_node){.op = GYRE_OP_add,
                                         .out = {gyre_graph_new_value(g, GYRE_VALUE_F32, rows, width, 0)},
                                         .in = {a, b},
                                         .params.add = {.count = (int32_t)(rows * width)}});
}

gyre_value gyre_g_hadamard(gyre_graph *g, gyre_value x, const struct gyre_had_desc *had, uint32_t segs, bool transposed,
                           struct gyre_binding scale)
{
    if (!GIVEN(g, GYRE_OP_hadamard, x)) return GYRE_NONE;
    if (!had || !had->n) return x;
    const uint32_t rows = g->values[x].rows, width = g->values[x].width;
    const gyre_value base =
        had->base.buffer ? gyre_graph_data(g, "base", had->base) : GYRE_NONE; // a power of two needs none
    const struct gyre_hadamard_params p = {.n = (int32_t)had->n,
                                           .segs = (int32_t)segs,
                                           .k1 = (int32_t)GYRE_MAX(had->k1, 1u),
                                           .k2 = (int32_t)GYRE_MAX(had->k2, 1u),
                                           .k3 = (int32_t)GYRE_MAX(had->k3, 1u),
                                           .p = (int32_t)had->p,
                                           .had_t = transposed,
                                           .rows = (int32_t)rows,
                                           .width = (int32_t)width,
                                           .scaled = scale.buffer != NULL};
    return finish(g, &(struct gyre_node){.op = GYRE_OP_hadamard,
                                         .out = {gyre_graph_new_value(g, GYRE_VALUE_F32, rows, width, 0)},
                                         .in = {x, base, scale.buffer ? gyre_graph_data(g, "scale", scale) : GYRE_NONE},
                                         .params.hadamard = p});
}

gyre_value gyre_g_act_mul(gyre_graph *g, gyre_value gate_up, uint32_t act)
{
    if (!GIVEN(g, GYRE_OP_act_mul, gate_up)) return GYRE_NONE;
    const uint32_t rows = g->values[gate_up].rows, width = g->values[gate_up].width / 2;
    return finish(g,
                  &(struct gyre_node){
                      .op = GYRE_OP_act_mul,
                      .out = {gyre_graph_new_value(g, GYRE_VALUE_F32, rows, width, 0)},
                      .in = {gate_up},
                      .params.act_mul = {
                          .rows = (int32_t)rows, .width = (int32_t)width, .act = (int32_t)act, .bits = 16, .clip = 1}});
}

gyre_value gyre_g_rope(gyre_graph *g, gyre_value qkv, const struct gyre_attn_shape *s)
{
    if (!GIVEN(g, GYRE_OP_rope, qkv, g->batch_rows)) return GYRE_NONE;
    const uint32_t rows = g->values[qkv].rows, width = g->values[qkv].width;
    const struct gyre_rope_params p = {.rows = (int32_t)rows,
                                       .heads = (int32_t)s->heads,
                                       .kv_heads = (int32_t)s->kv_heads,
                                       .hd = (int32_t)s->head_dim,
                                       .split = (int32_t)s->split,
                                       .mscale = s->mscale,
                                       .q_beta = s->q_beta,
                                       .q_span = (int32_t)s->q_span,
                                       .normed = s->gains.buffer != NULL,
                                       .eps = s->eps};
    return finish(g, &(struct gyre_node){.op = GYRE_OP_rope,
                                         .out = {gyre_graph_new_value(g, GYRE_VALUE_F32, rows, width, 0)},
                                         .in = {qkv, g->batch_rows, gyre_graph_data(g, "freqs", s->freqs),
                                                s->gains.buffer ? gyre_graph_data(g, "gains", s->gains) : GYRE_NONE},
                                         .params.rope = p});
}

void gyre_g_kv_write(gyre_graph *g, gyre_value qkv, const struct gyre_attn_shape *s, const struct gyre_kv_pool *kv)
{
    if (!GIVEN(g, GYRE_OP_kv_write, qkv, g->batch_rows, g->batch_pages)) return;
    const struct gyre_kv_write_params p = {.rows = (int32_t)g->values[qkv].rows,
                                           .heads = (int32_t)s->heads,
                                           .kv_heads = (int32_t)s->kv_heads,
                                           .hd = (int32_t)s->head_dim,
                                           .page_stride = (int32_t)g->page_stride,
                                           .clip = kv->clip,
                                           .clip_v = kv->clip_v > 0 ? kv->clip_v : kv->clip,
                                           .centred = kv->centre.buffer != NULL};
    gyre_graph_append(g, &(struct gyre_node){.op = GYRE_OP_kv_write,
                                             .out = {pool_value(g, kv)},
                                             .in = {qkv, g->batch_rows, pages_value(g, kv), centre_value(g, kv)},
                                             .params.kv_write = p});
}

gyre_value gyre_g_attn(gyre_graph *g, gyre_value q, const struct gyre_attn_shape *s, const struct gyre_kv_pool *kv)
{
    if (!GIVEN(g, GYRE_OP_attn, q, g->batch_rows, g->batch_pages)) return GYRE_NONE;
    const uint32_t rows = g->values[q].rows;
    const struct gyre_attn_params p = {.rows = (int32_t)rows,
                                       .heads = (int32_t)s->heads,
                                       .kv_heads = (int32_t)s->kv_heads,
                                       .hd = (int32_t)s->head_dim,
                                       .ldq = (int32_t)g->values[q].width,
                                       .page_stride = (int32_t)g->page_stride,
                                       .scale = s->scale != 0 ? s->scale : 1 / sqrtf((float)s->head_dim),
                                       .centred = kv->centre.buffer != NULL,
                                       .window = s->window ? (int32_t)s->window : INT32_MAX};
    const gyre_value o = gyre_graph_new_value(g, GYRE_VALUE_F32, rows, s->heads * s->head_dim, 0);
    return finish(
        g, &(struct gyre_node){.op = GYRE_OP_attn,
                               .out = {o},
                               .in = {q, pool_value(g, kv), g->batch_rows, pages_value(g, kv), centre_value(g, kv)},
                               .params.attn = p});
}

gyre_value gyre_g_rows(gyre_graph *g, gyre_value x, uint32_t first, uint32_t n)
{
    if (!GIVEN(g, GYRE_OP_add, x)) return GYRE_NONE;
    const struct gyre_value_info *of = &g->values[x];
    if (of->kind != GYRE_VALUE_F32 || !n || (uint64_t)first + n > of->rows) {
        gyre_graph_fail(g, GYRE_E_INVALID,
                        "cannot view rows %u..%llu of a value of %u rows: only rows of a float value can be viewed",
                        first, (unsigned long long)first + n, of->rows);
        return GYRE_NONE;
    }
    if (!first && n == of->rows) return x;
    if ((uint64_t)first * of->width * 4 % GYRE_BIND_ALIGN) {
        gyre_graph_fail(g, GYRE_E_UNSUPPORTED,
                        "cannot view rows from %u of a value of width %u: they do not begin at a multiple of %d bytes",
                        first, of->width, GYRE_BIND_ALIGN);
        return GYRE_NONE;
    }
    struct gyre_value_info info = {.kind = GYRE_VALUE_F32, .rows = n, .width = of->width, .n_planes = 1};
    info.root = of->root ? of->root : x;
    info.root_row = of->root_row + first;
    info.plane[0].bytes = 4 * (uint64_t)n * of->width;
    return new_value(g, &info);
}

void gyre_g_topk(gyre_graph *g, gyre_value x, uint32_t k, gyre_value *vals, gyre_value *ids)
{
    *vals = *ids = GYRE_NONE;
    if (!GIVEN(g, GYRE_OP_topk, x)) return;
    const uint32_t rows = g->values[x].rows, width = g->values[x].width;
    const gyre_value v = gyre_graph_new_value(g, GYRE_VALUE_F32, rows, k, 0),
                     i = gyre_graph_new_value(g, GYRE_VALUE_U32, rows, k, 0);
    if (!gyre_graph_append(
            g, &(struct gyre_node){
                   .op = k == 1 ? GYRE_OP_argmax : GYRE_OP_topk,
                   .out = {v, i},
                   .in = {x},
                   .params.topk = {.rows = (int32_t)rows, .width = (int32_t)width, .k = (int32_t)k, .parts = 1}}))
        return;
    *vals = v;
    *ids = i;
}

void gyre_g_draw(gyre_graph *g, gyre_value x, struct gyre_binding rows, struct gyre_binding state, gyre_value *vals,
                 gyre_value *ids)
{
    gyre_g_topk(g, x, 1, vals, ids);
    if (!*vals) return;
    struct gyre_node *node = &g->nodes[g->n_nodes - 1];
    const gyre_value row_data = gyre_graph_data(g, "rows", rows), state_data = gyre_graph_data(g, "state", state);
    node->op = GYRE_OP_draw, node->in[1] = row_data, node->in[2] = state_data;
}

void gyre_g_sample(gyre_graph *g, gyre_value vals, gyre_value ids, gyre_value drawn, uint32_t k,
                   struct gyre_binding rows, struct gyre_binding history, struct gyre_binding state)
{
    if (!GIVEN(g, GYRE_OP_sample, vals, ids)) return;
    const struct gyre_sample_params p = {.rows = (int32_t)g->values[vals].rows, .k = (int32_t)k, .drawn = drawn != 0};
    gyre_graph_append(
        g, &(struct gyre_node){.op = GYRE_OP_sample,
                               .out = {gyre_graph_data(g, "rows", rows), gyre_graph_data(g, "history", history)},
                               .in = {vals, ids, drawn, gyre_graph_data(g, "state", state)},
                               .params.sample = p});
}

gyre_value gyre_g_mass(gyre_graph *g, gyre_value logits, gyre_value vals, struct gyre_binding state)
{
    if (!GIVEN(g, GYRE_OP_mass, logits, vals)) return GYRE_NONE;
    const uint32_t rows = g->values[logits].rows, width = g->values[logits].width, k = g->values[vals].width;
    return finish(
        g, &(struct gyre_node){.op = GYRE_OP_mass,
                               .out = {gyre_graph_new_value(g, GYRE_VALUE_F32, rows, 1, 0)},
                               .in = {logits, vals, gyre_graph_data(g, "state", state)},
                               .params.mass = {.rows = (int32_t)rows, .width = (int32_t)width, .k = (int32_t)k}});
}

gyre_value gyre_g_loglik(gyre_graph *g, gyre_value logits, struct gyre_binding targets)
{
    if (!GIVEN(g, GYRE_OP_loglik, logits)) return GYRE_NONE;
    const uint32_t rows = g->values[logits].rows, width = g->values[logits].width;
    return finish(g, &(struct gyre_node){.op = GYRE_OP_loglik,
                                         .out = {gyre_graph_new_value(g, GYRE_VALUE_F32, rows, 4, 0)},
                                         .in = {logits, gyre_graph_data(g, "targets", targets)},
                                         .params.loglik = {.rows = (int32_t)rows, .width = (int32_t)width}});
}

gyre_value gyre_g_kl(gyre_graph *g, gyre_value p_logits, gyre_value q_logits)
{
    if (!GIVEN(g, GYRE_OP_kl, p_logits, q_logits)) return GYRE_NONE;
    const uint32_t rows = g->values[p_logits].rows, width = g->values[p_logits].width;
    return finish(g, &(struct gyre_node){.op = GYRE_OP_kl,
                                         .out = {gyre_graph_new_value(g, GYRE_VALUE_F32, rows, 4, 0)},
                                         .in = {p_logits, q_logits},
                                         .params.kl = {.rows = (int32_t)rows, .width = (int32_t)width}});
}

void gyre_g_output(gyre_graph *g, gyre_value value, struct gyre_binding to)
{
    if (!GIVEN(g, GYRE_OP_add, value)) return;
    struct gyre_value_info *info = &g->values[value];
    if (info->external || info->root || info->n_planes != 1) {
        gyre_graph_fail(
            g, GYRE_E_INVALID,
            "cannot output value %u: only a float or id value that a node computes can be landed, and only once",
            value);
        return;
    }
    if (to.size < info->plane[0].bytes) {
        gyre_graph_fail(g, GYRE_E_INVALID, "cannot output value %u (%u x %u): it needs %llu bytes, the buffer has %llu",
                        value, info->rows, info->width, (unsigned long long)info->plane[0].bytes,
                        (unsigned long long)to.size);
        return;
    }
    to.size = info->plane[0].bytes;
    info->external = info->landed = true;
    info->plane[0].at = to;
}
