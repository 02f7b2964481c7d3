// Memory: lifetimes of internal values -> aligned offsets in scratch chunks. Nodes run in order, so a value lives from
// the node that writes it to the last one that reads it, both included: no output shares memory with an input of its
// node.
//
// Placement is greedy by size: the largest plane first, each at the lowest free offset of the first chunk that has room
// under the device's buffer limit. Knows nothing of kernels.
#include "runtime/graph/node.h"
#include "runtime/util/base.h"

#include <stdlib.h>

struct item {
    gyre_value value;
    uint32_t plane, begin, end;
    uint64_t bytes;
}; // begin..end: nodes, inclusive

static int larger_first(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->value != y->value ? (x->value < y->value ? -1 : 1) : (int)x->plane - (int)y->plane;
}

static int lower_first(const void *a, const void *b)
{
    const struct gyre_plane *x = *(const struct gyre_plane *const *)a, *y = *(const struct gyre_plane *const *)b;
    return x->offset == y->offset ? 0 : x->offset < y->offset ? -1 : 1;
}

// The planes of internal values that some node writes, with their lifetimes. `items` has room for all planes.
static uint32_t collect(const gyre_graph *g, uint32_t *begin, uint32_t *end, struct item *items)
{
    for (gyre_value v = 0; v < g->n_values; v++) begin[v] = UINT32_MAX;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct gyre_node *node = &g->nodes[i];
        for (uint32_t k = 0; k < GYRE_MAX_OUTS; k++) begin[node->out[k]] = end[node->out[k]] = i;
        if (node->temp) begin[node->temp] = end[node->temp] = i;
        for (uint32_t k = 0; k < GYRE_MAX_INS; k++) {
            const gyre_value root = g->values[node->in[k]].root;
            end[root ? root : node->in[k]] = i;
        }
    }
    uint32_t n = 0;
    for (gyre_value v = 1; v < g->n_values; v++)
        for (uint32_t p = 0; begin[v] != UINT32_MAX && !g->values[v].external && p < g->values[v].n_planes; p++)
            items[n++] = (struct item){v, p, begin[v], g->keep ? g->n_nodes : end[v],
                                       gyre_round_up(g->values[v].plane[p].bytes, GYRE_BIND_ALIGN)};
    return n;
}

// Lowest offset in `chunk` where the item overlaps no placed item that lives with it.
static uint64_t lowest_gap(const gyre_graph *g, const struct item *items, uint32_t placed, const struct item *item,
                           uint32_t chunk, const struct gyre_plane **by_offset)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < placed; i++) {
        const struct gyre_plane *p = &g->values[items[i].value].plane[items[i].plane];
        if (p->chunk == chunk && items[i].begin <= item->end && item->begin <= items[i].end) by_offset[n++] = p;
    }
    if (n) qsort(by_offset, n, sizeof *by_offset, lower_first);
    uint64_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (by_offset[i]->offset >= at + item->bytes) break;
        const uint64_t past = by_offset[i]->offset + gyre_round_up(by_offset[i]->bytes, GYRE_BIND_ALIGN);
        at = GYRE_MAX(at, past);
    }
    return at;
}

static gyre_status place(gyre_graph *g, const struct item *items, uint32_t i, const struct gyre_plane **by_offset,
                         gyre_error *err)
{
    const struct gyre_device_info *info = gyre_device_info(g->device);
    const struct item *item = &items[i];
    if (item->bytes > info->max_buffer || g->values[item->value].plane[item->plane].bytes > info->max_binding)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot plan the graph (%u x %u values): one needs %llu bytes, %s binds at most %llu; use "
                         "fewer rows at once",
                         g->values[item->value].rows, g->values[item->value].width, (unsigned long long)item->bytes,
                         info->id, (unsigned long long)GYRE_MIN(info->max_binding, info->max_buffer));
    for (uint32_t chunk = 0; chunk <= g->n_chunks; chunk++) {
        const uint64_t at = lowest_gap(g, items, i, item, chunk, by_offset);
        if (at + item->bytes > info->max_buffer) continue;
        struct gyre_plane *plane = &g->values[item->value].plane[item->plane];
        plane->chunk = chunk;
        plane->offset = at;
        if (chunk == g->n_chunks) {
            uint64_t *more = realloc(g->chunk_bytes, (g->n_chunks + 1) * sizeof *more);
            if (!more) return gyre_fail(err, GYRE_E_NOMEM, "cannot plan the graph: out of host memory");
            g->chunk_bytes = more;
            g->chunk_bytes[g->n_chunks++] = 0;
        }
        g->chunk_bytes[chunk] = GYRE_MAX(g->chunk_bytes[chunk], at + item->bytes);
        return GYRE_OK;
    }
    return gyre_fail(err, GYRE_E_DEVICE_MEM,
                     "cannot plan the graph: no scratch buffer has room"); // an empty chunk always has
}

gyre_status gyre_graph_layout(gyre_graph *g, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    uint32_t *begin = calloc(g->n_values, sizeof *begin), *end = calloc(g->n_values, sizeof *end);
    struct item *items = calloc((size_t)g->n_values * GYRE_MAX_PLANES, sizeof *items);
    const struct gyre_plane **by_offset = calloc((size_t)g->n_values * GYRE_MAX_PLANES, sizeof *by_offset);
    if (!begin || !end || !items || !by_offset)
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot plan the graph: out of host memory"));
    const uint32_t n = collect(g, begin, end, items);
    qsort(items, n, sizeof *items, larger_first);
    g->n_chunks = 0;
    for (uint32_t i = 0; i < n; i++) GYRE_GO(place(g, items, i, by_offset, err));
done:
    free(begin);
    free(end);
    free(items);
    free(by_offset);
    return st;
}
