// Attention of few rows, and the best of a row of logits, on hardware: one node becomes two, parts of the positions (of
// the columns) and their sum (the best of them), where that fills a chip that one workgroup a head (a row) would leave
// idle (tune.c decides).
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

gyre_status gyre_graph_split(gyre_graph *g, gyre_error *err)
{
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const uint32_t splits = gyre_tune_splits(g, &g->nodes[i]);
        const bool attention = g->nodes[i].op == GYRE_OP_attn;
        if (splits > 1 && !(attention ? split_attn(g, i, splits) : split_topk(g, i, splits))) break;
    }
    if (!g->error.code) return GYRE_OK;
    if (err) *err = g->error;
    return g->error.code;
}
