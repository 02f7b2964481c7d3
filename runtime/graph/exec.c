// The life of a compiled graph: plan, scratch buffers, recording, replays.
#include "runtime/graph/choice.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>

// Some kernels work in memory beside their outputs: a value of their own for one node.
static gyre_status add_temps(gyre_graph *g, gyre_error *err)
{
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const uint64_t floats = gyre_tune_temp(g, &g->nodes[i]);
        if (!floats) continue;
        const uint32_t rows = g->values[g->nodes[i].out[0]].rows;
        const gyre_value temp = gyre_graph_new_value(g, GYRE_VALUE_F32, rows, (uint32_t)(floats / rows), 0);
        if (!temp) return gyre_fail(err, g->error.code, "%s", g->error.message);
        g->nodes[i].temp = temp;
    }
    return GYRE_OK;
}

gyre_status gyre_graph_plan(gyre_graph *g, const struct gyre_graph_options *options, gyre_error *err)
{
    if (g->error.code) return gyre_fail(err, g->error.code, "%s", g->error.message);
    if (g->stage == GYRE_GRAPH_BUILD) {
        if (!g->n_nodes) return gyre_fail(err, GYRE_E_INVALID, "cannot plan the graph: it has no nodes");
        GYRE_TRY(gyre_graph_verify(g, err));
        if (!options || !options->no_fuse) {
            GYRE_TRY(gyre_graph_fuse(g, err));
            GYRE_TRY(gyre_graph_split(g, err));
            GYRE_TRY(gyre_graph_verify(g, err));
        }
        GYRE_TRY(add_temps(g, err));
        g->keep = options && options->keep;
        GYRE_TRY(gyre_graph_layout(g, err));
        g->stage = GYRE_GRAPH_PLANNED;
        GYRE_TRY(gyre_graph_verify(g, err));
    }
    return GYRE_OK;
}

// The first shared buffer that is large enough and not the graph's already; a new one where there is none.
static gyre_status borrow(struct gyre_scratch *s, gyre_graph *g, uint32_t chunk, gyre_error *err)
{
    for (uint32_t i = 0; i < s->n; i++) {
        bool free_ = gyre_buffer_size(s->buffer[i]) >= g->chunk_bytes[chunk];
        for (uint32_t c = 0; c < chunk; c++) free_ &= g->chunks[c] != s->buffer[i];
        if (!free_) continue;
        g->chunks[chunk] = s->buffer[i];
        return GYRE_OK;
    }
    gyre_buffer **more = realloc(s->buffer, (s->n + 1) * sizeof *more);
    if (!more) return gyre_fail(err, GYRE_E_NOMEM, "cannot compile the graph: out of host memory");
    s->buffer = more;
    GYRE_TRY(gyre_buffer_create(g->device, g->chunk_bytes[chunk], "graph scratch", &s->buffer[s->n], err));
    g->chunks[chunk] = s->buffer[s->n++];
    return GYRE_OK;
}

// Buffers for the chunks; `s` NULL: of the graph's own.
static gyre_status take_chunks(gyre_graph *g, struct gyre_scratch *s, gyre_error *err)
{
    if (!g->n_chunks) return GYRE_OK;
    g->chunks = calloc(g->n_chunks, sizeof *g->chunks);
    if (!g->chunks) return gyre_fail(err, GYRE_E_NOMEM, "cannot compile the graph: out of host memory");
    g->borrows = s != NULL;
    for (uint32_t i = 0; i < g->n_chunks; i++)
        GYRE_TRY(s ? borrow(s, g, i, err)
                   : gyre_buffer_create(g->device, g->chunk_bytes[i], "graph scratch", &g->chunks[i], err));
    return GYRE_OK;
}

gyre_status gyre_scratch_reserve(struct gyre_scratch *s, gyre_graph *g, gyre_error *err)
{
    return take_chunks(g, s, err);
}

void gyre_scratch_free(struct gyre_scratch *s, gyre_device *device)
{
    for (uint32_t i = 0; i < s->n; i++) gyre_buffer_destroy(device, s->buffer[i]);
    free(s->buffer);
    *s = (struct gyre_scratch){0};
}

// The chunks, and every internal plane's place in them.
static gyre_status make_scratch(gyre_graph *g, struct gyre_scratch *s, gyre_error *err)
{
    if (!g->n_chunks) return GYRE_OK;
    GYRE_TRY(take_chunks(g, s, err));
    for (gyre_value v = 1; v < g->n_values; v++) {
        struct gyre_value_info *info = &g->values[v];
        for (uint32_t p = 0; !info->external && !info->root && p < info->n_planes; p++)
            info->plane[p].at =
                (struct gyre_binding){g->chunks[info->plane[p].chunk], info->plane[p].offset, info->plane[p].bytes};
    }
    return GYRE_OK;
}

gyre_status gyre_graph_compile(gyre_graph *g, const struct gyre_graph_options *options, gyre_error *err)
{
    if (g->stage == GYRE_GRAPH_COMPILED)
        return gyre_fail(err, GYRE_E_INVALID, "cannot compile the graph: it is compiled already");
    GYRE_TRY(gyre_graph_plan(g, options, err));
    if (g->dispatches || g->chunks)
        return gyre_fail(err, GYRE_E_INVALID, "cannot compile the graph: an earlier attempt failed; build it again");
    GYRE_TRY(make_scratch(g, options && !options->keep ? options->scratch : NULL, err));
    g->tuner = options ? options->tuner : NULL;
    GYRE_TRY(gyre_graph_measure(g, err));
    GYRE_TRY(gyre_graph_lower(g, err));
    GYRE_TRY(gyre_recording_create(g->device, g->dispatches, g->n_dispatches, &g->recording, err));
    g->stage = GYRE_GRAPH_COMPILED;
    return GYRE_OK;
}

gyre_status gyre_graph_submit(gyre_graph *g, gyre_error *err)
{
    if (g->stage != GYRE_GRAPH_COMPILED)
        return gyre_fail(err, GYRE_E_INVALID, "cannot submit the graph: it is not compiled");
    return gyre_submit(g->device, g->recording, err);
}

gyre_status gyre_graph_submit_times(gyre_graph *g, uint32_t times, gyre_error *err)
{
    if (g->stage != GYRE_GRAPH_COMPILED)
        return gyre_fail(err, GYRE_E_INVALID, "cannot submit the graph: it is not compiled");
    return gyre_submit_times(g->device, g->recording, times, err);
}

uint32_t gyre_graph_at_once(const gyre_graph *g) { return gyre_recording_at_once(g->recording); }

gyre_status gyre_graph_profile(gyre_graph *g, uint64_t *ns, gyre_error *err)
{
    if (g->stage != GYRE_GRAPH_COMPILED)
        return gyre_fail(err, GYRE_E_INVALID, "cannot profile the graph: it is not compiled");
    return gyre_profile(g->device, g->recording, ns, err);
}
