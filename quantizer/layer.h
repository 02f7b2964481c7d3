// One block at a time from the source to the output: decode, fold and rotate in fp64, round, write. Also the tables and the
// other tensors outside the blocks.
#pragma once
#include "quantizer/output.h"
#include "quantizer/rtn.h"

// A rounded linear: codes (bits 4 and 8) or the floats that the file holds (16 and 32).
struct gyre_rounded {
    struct gyre_codes codes;
    float *f32;
    double error; // relative squared, against what was rounded
};

// The memory of one block, reused for all.
struct gyre_layer {
    uint32_t index;
    float *original[GYRE_SITES];            // as in the source (rows in the output's order)
    struct gyre_rounded recipe[GYRE_SITES]; // what is written
    struct gyre_rounded plain[GYRE_SITES];  // plain rounding of the original; empty where the recipe is just that
    float *attn_norm, *ffn_norm;            // the source's gains
    double *wide;                           // scratch: the largest linear in fp64,
    float *narrow, *expanded;               // in fp32, and rounded
    void *encoded;
};

gyre_status gyre_layer_create(const struct gyre_plan *plan, struct gyre_layer *out, gyre_error *err) GYRE_MUST_USE;
void gyre_layer_free(struct gyre_layer *layer);

// Reads, rounds and writes block `index`. `tick` (may be NULL) is called after every linear; a status other than OK ends it.
gyre_status gyre_layer_make(struct gyre_layer *layer, const struct gyre_plan *plan, uint32_t index,
                            struct gyre_output *out, gyre_status (*tick)(void *user, uint64_t weights, gyre_error *err),
                            void *user, gyre_error *err) GYRE_MUST_USE;

// Plain rounding of linear `site`: layer->plain, or layer->recipe where the recipe does not rotate.
const struct gyre_rounded *gyre_layer_plain(const struct gyre_layer *layer, const struct gyre_plan *plan,
                                            gyre_site site);

// Writes everything before the first block: tables, norms, bases. `tick` as above.
gyre_status gyre_write_globals(const struct gyre_plan *plan, struct gyre_output *out,
                               gyre_status (*tick)(void *user, uint64_t weights, gyre_error *err), void *user,
                               gyre_error *err) GYRE_MUST_USE;
