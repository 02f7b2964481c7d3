// Attention of few rows on hardware: one node becomes two, parts of the positions and their sum, where that fills a
// chip that one workgroup a head would leave idle (tune.c decides).
#include "runtime/graph/tune.h"

#include <string.h>

// Puts the last node of the graph behind node `at`.
static void move_last_behind(gyre_graph *g, uint32_t at)
{
    const struct gyre_node last = g->nodes[g->n_nodes - 1];
    memmove(&g->nodes[at + 2], &g->nodes[at + 1], (g->n_nodes - at - 2) * sizeof *g->nodes);
    g->nodes[at + 1] = last;
}

static bool split(gyre_graph *g, uint32_t at, uint32_t splits)
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

gyre_status gyre_graph_split(gyre_graph *g, gyre_error *err)
{
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const uint32_t splits = gyre_tune_splits(g, &g->nodes[i]);
        if (splits > 1 && !split(g, i, splits)) break;
    }
    if (!g->error.code) return GYRE_OK;
    if (err) *err = g->error;
    return g->error.code;
}
