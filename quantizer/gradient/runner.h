// A model on a device for passes over whole windows: rows of one sequence from position 0, one block's graph at a time.
// What teacher and student share.
#pragma once
#include "runtime/model/kv.h"
#include "runtime/model/model.h"

struct gyre_runner {
    gyre_device *device;
    const gyre_source *source;
    struct gyre_model model;
    struct gyre_kv kv; // of one layer: a block's graph fills it anew
    struct gyre_precision precision;
    struct gyre_binding rows; // int4[tokens]
    struct gyre_binding *x;   // [n_streams] residual streams [tokens][D]: before each block, and at the end
    uint32_t tokens, n_streams;
    uint32_t loaded; // the block that gyre_runner_load has brought; UINT32_MAX: none
};

enum {
    GYRE_RUNNER_KEEPS = 1, // all streams; else two, between which blocks alternate
    GYRE_RUNNER_LOADS = 2, // blocks one by one, by gyre_runner_load; else all are there from the beginning
};

// precision NULL: the file's. `how` is the sum of those. The device, like source, outlives it. Close also after
// failure.
gyre_status gyre_runner_open(gyre_device *device, const gyre_source *source, const struct gyre_precision *precision,
                             uint32_t tokens, uint32_t how, struct gyre_runner *out, gyre_error *err) GYRE_MUST_USE;
// The same of a shape without a file (runtime/model/synthetic.h), at 8-bit activations and cache: what runs is what
// runs for a file, and means nothing.
gyre_status gyre_runner_open_shape(gyre_device *device, const char *shape, uint32_t wgroup, uint32_t tokens,
                                   struct gyre_runner *out, gyre_error *err) GYRE_MUST_USE;
void gyre_runner_close(struct gyre_runner *runner);

// What lies at a binding, `bytes` of it: on a host where it lies, else a copy in `scratch`.
gyre_status gyre_runner_view(const struct gyre_runner *runner, struct gyre_binding at, uint64_t bytes, void *scratch,
                             const void **out, gyre_error *err) GYRE_MUST_USE;

// The weights of block `layer`, in the place of the one that was loaded before.
gyre_status gyre_runner_load(struct gyre_runner *runner, uint32_t layer, gyre_error *err) GYRE_MUST_USE;

// The rows of a window; embeds them into the first stream.
gyre_status gyre_runner_embed(struct gyre_runner *runner, const uint32_t *token, gyre_error *err) GYRE_MUST_USE;
// Block `layer` from its stream to the next, executed. `graph` (may be NULL) gets the graph, every value of it kept,
// and its ends.
struct gyre_runner_graph {
    gyre_graph *graph; // to be destroyed
    gyre_value in, out;
};
gyre_status gyre_runner_block(struct gyre_runner *runner, uint32_t layer, struct gyre_runner_graph *graph,
                              gyre_error *err) GYRE_MUST_USE;
// The head on n rows [n][D] at `x`, logits landed at `logits`.
gyre_status gyre_runner_head(struct gyre_runner *runner, struct gyre_binding x, uint32_t n, struct gyre_binding logits,
                             struct gyre_runner_graph *graph, gyre_error *err) GYRE_MUST_USE;
// Rows first.. of a stream; first a multiple of 64.
struct gyre_binding gyre_runner_rows(const struct gyre_runner *runner, uint32_t stream, uint32_t first, uint32_t n);
