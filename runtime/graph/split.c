// Nodes that become two on hardware (tune.c decides). Attention of few rows, and the best of a row of logits: parts of
// the positions (of the columns) and their sum (the best of them), where that fills a chip that one workgroup a head (a
// row) would leave idle. A product of floats of many rows: a quantizer to 24 bits and a product of integers.
#include "runtime/graph/tune.h"

#include <string.h>

// Puts the last node of the graph behind node `at`.
static void move_last_behind(gyre_graph *g, uint32_t at)
{
    const struct gyre_node last = g->nodes[g->n_nodes - 1];
    memmove(&g->nodes[at + 2], &g->nodes[at + 1], (g->n_nodes - at - 2) * sizeof *g->nodes);
    g->nodes[at + 1] = last;
}

static bool split_attn(gyre_graph *g, uint32_t at, uint32_t splits)
{
    const struct gyre_node whole = g->nodes[at];
    const struct gyre_attn_params *p = &whole.params.attn;
    const uint32_t width = (uint32_t)p->heads * splits * (uint32_t)(p->hd + 2);
    const gyre_value parts = gyre_graph_new_value(g, GYRE_VALUE_F32, (uint32_t)p->rows, width, 0);
    if (!parts) return false;
    struct gyre_node first = {.op = GYRE_OP_attn_split, .out = {parts}};
    memcpy(first.in, whole.in, 4 * sizeof *first.in); // q, pool, rows, pages
    memcpy(&first.params.attn_split, p, sizeof *p);   // begins with all of attn's
    first.params.attn_split.splits = (int32_t)splits;
    const struct gyre_node second = {.op = GYRE_OP_attn_merge,
                                     .out = {whole.out[0]},
                                     .in = {parts, whole.in[4]},
                                     .params.attn_merge = {.rows = p->rows,
                                                           .heads = p->heads,
                                                           .kv_heads = p->kv_heads,
                                                           .hd = p->hd,
                                                           .splits = (int32_t)splits,
                                                           .centred = p->centred}};
    g->nodes[at] = first;
    if (!gyre_graph_append(g, &second)) return false;
    move_last_behind(g, at);
    return true;
}

static bool split_topk(gyre_graph *g, uint32_t at, uint32_t parts)
{
    const struct gyre_node whole = g->nodes[at];
    const uint32_t rows = (uint32_t)whole.params.topk.rows, width = parts * (uint32_t)whole.params.topk.k;
    const gyre_value vals = gyre_graph_new_value(g, GYRE_VALUE_F32, rows, width, 0),
                     ids = gyre_graph_new_value(g, GYRE_VALUE_U32, rows, width, 0);
    if (!vals || !ids) return false;
    struct gyre_node merge = {.op = GYRE_OP_topk_merge,
                              .out = {whole.out[0], whole.out[1]},
                              .in = {vals, ids},
                              .params.topk = whole.params.topk};
    merge.params.topk.width = (int32_t)width;
    g->nodes[at].out[0] = vals, g->nodes[at].out[1] = ids;
    g->nodes[at].params.topk.parts = (int32_t)parts;
    if (!gyre_graph_append(g, &merge)) return false;
    move_last_behind(g, at);
    return true;
}

// The quantizer to 24 bits of x before node `at`, if another product has one.
static gyre_value bytes_of(const gyre_graph *g, uint32_t at, gyre_value x)
{
    for (uint32_t i = 0; i < at; i++)
        if (g->nodes[i].op == GYRE_OP_quantize && g->nodes[i].in[0] == x && g->nodes[i].params.quantize.bits == 24)
            return g->nodes[i].out[0];
    return GYRE_NONE;
}

static bool split_product(gyre_graph *g, uint32_t at)
{
    const gyre_value x = g->nodes[at].in[0];
    const uint32_t rows = g->values[x].rows, width = g->values[x].width;
    struct gyre_node product = g->nodes[at];
    product.in[0] = bytes_of(g, at, x);
    if (product.in[0]) {
        g->nodes[at] = product;
        return true;
    }
    const gyre_value codes = product.in[0] = gyre_graph_new_value(g, GYRE_VALUE_QUANT, rows, width, 24);
    if (!codes || !gyre_graph_append(g, &product)) return false;
    g->nodes[at] =
        (struct gyre_node){.op = GYRE_OP_quantize,
                           .out = {codes},
                           .in = {x},
                           .params.quantize = {.rows = (int32_t)rows, .width = (int32_t)width, .bits = 24, .clip = 1}};
    move_last_behind(g, at);
    return true;
}

gyre_status gyre_graph_split(gyre_graph *g, gyre_error *err)
{
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == GYRE_OP_matmul && gyre_tune_takes_bytes(g, &g->nodes[i]) && !split_product(g, i)) break;
    for (uint32_t i = 0; i < g->n_nodes && !g->error.code; i++) {
        const uint32_t splits = gyre_tune_splits(g, &g->nodes[i]);
        const bool attention = g->nodes[i].op == GYRE_OP_attn;
        if (splits > 1 && !(attention ? split_attn(g, i, splits) : split_topk(g, i, splits))) break;
    }
    if (!g->error.code) return GYRE_OK;
    if (err) *err = g->error;
    return g->error.code;
}
