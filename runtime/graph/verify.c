// The invariants of a whole graph, checked after every pass: single assignment, definition before use, externals inside
// their buffers, and, once planned, that memory in use at the same time is disjoint.
#include "runtime/graph/node.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

static gyre_status broken(const gyre_graph *g, uint32_t node, gyre_error *err, const char *why)
{
    return gyre_fail(err, GYRE_E_INVALID, "the graph is broken (node %u, %s): %s", node,
                     gyre_ops[g->nodes[node].op].name, why);
}

static gyre_status binding_ok(const gyre_graph *g, const struct gyre_binding *at, const char *name, gyre_error *err)
{
    if (!at->buffer)
        return gyre_fail(err, GYRE_E_INVALID, "the graph is broken (external \"%s\"): it has no buffer", name);
    const uint64_t have = gyre_buffer_size(at->buffer);
    if (!at->size || at->size % 4 || at->offset % GYRE_BIND_ALIGN || at->offset > have || at->size > have - at->offset)
        return gyre_fail(
            err, GYRE_E_INVALID,
            "the graph is broken (external \"%s\"): %llu bytes at %llu do not lie aligned inside a buffer of %llu",
            name, (unsigned long long)at->size, (unsigned long long)at->offset, (unsigned long long)have);
    const uint64_t most = gyre_device_info(g->device)->max_binding;
    if (at->size > most)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot bind \"%s\": %llu bytes, the device binds at most %llu at once", name,
                         (unsigned long long)at->size, (unsigned long long)most);
    return GYRE_OK;
}

static gyre_status externals_ok(const gyre_graph *g, gyre_error *err)
{
    for (gyre_value v = 1; v < g->n_values; v++) {
        const struct gyre_value_info *info = &g->values[v];
        if (!info->external) continue;
        for (uint32_t p = 0; p < info->n_planes; p++) GYRE_TRY(binding_ok(g, &info->plane[p].at, info->name, err));
        for (uint32_t i = 0; info->weight && i < info->weight->n_ranges; i++) {
            const struct gyre_weight_range *r = &info->weight->range[i];
            GYRE_TRY(binding_ok(g, &r->weight, "weight", err));
            GYRE_TRY(binding_ok(g, &r->scale, "weight scale", err));
            GYRE_TRY(binding_ok(g, &r->sums, "weight sums", err));
        }
    }
    return GYRE_OK;
}

// Every value is written once, by one node, before it is read.
static gyre_status assignment_ok(const gyre_graph *g, gyre_error *err)
{
    bool *written = calloc(g->n_values, sizeof *written);
    if (!written) return gyre_fail(err, GYRE_E_NOMEM, "cannot verify the graph: out of host memory");
    gyre_status st = GYRE_OK;
    for (gyre_value v = 1; v < g->n_values; v++) written[v] = g->values[v].external && !g->values[v].landed;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct gyre_node *node = &g->nodes[i];
        GYRE_GO(gyre_node_check(g, node, err));
        for (uint32_t k = 0; k < GYRE_MAX_INS; k++) {
            const gyre_value v = node->in[k], root = v ? g->values[v].root : GYRE_NONE;
            if (v && !written[root ? root : v])
                GYRE_GO(broken(g, i, err, "it reads a value that nothing before it writes"));
        }
        for (uint32_t k = 0; k < GYRE_MAX_OUTS; k++) {
            const gyre_value v = node->out[k];
            if (!v || g->values[v].kind >= GYRE_VALUE_DATA)
                continue; // the declared exceptions change what the caller owns
            if (g->values[v].root) GYRE_GO(broken(g, i, err, "it writes a view"));
            if (written[v]) GYRE_GO(broken(g, i, err, "it writes a value that is written already"));
            written[v] = true;
        }
    }
    for (gyre_value v = 1; v < g->n_values; v++)
        if (g->values[v].landed && !written[v])
            GYRE_GO(gyre_fail(err, GYRE_E_INVALID, "the graph is broken (output %u): nothing computes it", v));
done:
    free(written);
    return st;
}

// ---- memory ---------------------------------------------------------------------------------------------

struct span {
    const void *in;
    uint64_t begin, end;
}; // `in`: the buffer, or for internal values the chunk's slot

static struct span span_of(const gyre_graph *g, gyre_value v, uint32_t plane)
{
    const struct gyre_value_info *info = &g->values[v];
    uint64_t first = 0;
    if (info->root) {
        first = (uint64_t)info->root_row * info->width * 4;
        v = info->root;
    }
    const struct gyre_plane *p = &g->values[v].plane[plane];
    const uint64_t begin = (g->values[v].external ? p->at.offset : p->offset) + first;
    const void *in = g->values[v].external ? (const void *)p->at.buffer : (const void *)&g->chunk_bytes[p->chunk];
    return (struct span){in, begin, begin + info->plane[plane].bytes};
}

static bool overlap(struct span a, struct span b) { return a.in == b.in && a.begin < b.end && b.begin < a.end; }

static bool values_overlap(const gyre_graph *g, gyre_value a, gyre_value b)
{
    for (uint32_t p = 0; p < g->values[a].n_planes; p++)
        for (uint32_t q = 0; q < g->values[b].n_planes; q++)
            if (overlap(span_of(g, a, p), span_of(g, b, q))) return true;
    return false;
}

// No output shares memory with another operand of its node; internal values that live at once share none.
static gyre_status memory_ok(const gyre_graph *g, gyre_error *err)
{
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct gyre_node *node = &g->nodes[i];
        gyre_value all[GYRE_MAX_OUTS + 1 + GYRE_MAX_INS];
        uint32_t n = 0, writes = 0;
        for (uint32_t k = 0; k < GYRE_MAX_OUTS; k++)
            if (node->out[k]) all[n++] = node->out[k];
        if (node->temp) all[n++] = node->temp;
        writes = n;
        for (uint32_t k = 0; k < GYRE_MAX_INS; k++)
            if (node->in[k]) all[n++] = node->in[k];
        for (uint32_t a = 0; a < writes; a++)
            for (uint32_t b = a + 1; b < n; b++)
                if (values_overlap(g, all[a], all[b]))
                    return broken(g, i, err, "an output shares memory with another operand");
    }
    return GYRE_OK;
}

// Walks the graph in order; whatever a node writes must not lie over anything that is still to be read.
static gyre_status lifetimes_ok(const gyre_graph *g, gyre_error *err)
{
    uint32_t *last = calloc(g->n_values, sizeof *last); // index + 1 of the last reader
    gyre_value *live = calloc(g->n_values, sizeof *live);
    gyre_status st =
        last && live ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot verify the graph: out of host memory");
    uint32_t n_live = 0;
    for (uint32_t i = 0; !st && i < g->n_nodes; i++)
        for (uint32_t k = 0; k < GYRE_MAX_INS; k++) {
            const gyre_value v = g->nodes[i].in[k];
            if (v) last[g->values[v].root ? g->values[v].root : v] = i + 1;
        }
    for (uint32_t i = 0; !st && i < g->n_nodes; i++) {
        uint32_t kept = 0;
        for (uint32_t k = 0; k < n_live; k++)
            if (last[live[k]] > i) live[kept++] = live[k];
        n_live = kept;
        for (uint32_t k = 0; k <= GYRE_MAX_OUTS; k++) {
            const gyre_value v = k < GYRE_MAX_OUTS ? g->nodes[i].out[k] : g->nodes[i].temp;
            if (!v || g->values[v].external) continue;
            for (uint32_t j = 0; j < n_live; j++)
                if (values_overlap(g, v, live[j]))
                    GYRE_GO(broken(g, i, err, "its output lies over a value that is still in use"));
            live[n_live++] = v;
        }
    }
done:
    free(last);
    free(live);
    return st;
}

gyre_status gyre_graph_verify(const gyre_graph *g, gyre_error *err)
{
    GYRE_TRY(externals_ok(g, err));
    GYRE_TRY(assignment_ok(g, err));
    if (g->stage < GYRE_GRAPH_PLANNED) return GYRE_OK;
    GYRE_TRY(memory_ok(g, err));
    return lifetimes_ok(g, err);
}
