// One block at a time from the source to the output: decode, fold and rotate in fp64, round, write. Also the tables and
// the other tensors outside the blocks.
#pragma once
#include "quantizer/pass/calibrate.h"
#include "quantizer/transform/diagonals.h"
#include "quantizer/round/ladder.h"
#include "quantizer/file/output.h"
#include "runtime/util/ticker.h"

// A rounded linear: codes (bits 4 and 8) or the floats that the file holds (16 and 32).
struct gyre_rounded {
    struct gyre_codes codes;
    float *f32;
    double error;   // relative squared, against what was rounded
    uint64_t faint; // rows that f16 scales cannot hold (gyre_codes_faint); the recipe's
};

// Plain rounding is another thing than the recipe, and kept beside it.
bool gyre_layer_has_plain(const struct gyre_plan *plan);

// The memory of one block, reused for all.
struct gyre_layer {
    uint32_t index;
    struct gyre_layer_kind kind;
    float *original[GYRE_LINEARS];            // as in the source (rows in the output's order)
    struct gyre_rounded recipe[GYRE_LINEARS]; // what is written
    struct gyre_rounded plain[GYRE_LINEARS];  // plain rounding of the original; empty where the recipe is just that
    float *exact[GYRE_LINEARS];               // what is rounded: folded and rotated; where the recipe calibrates,
    float *made[GYRE_LINEARS];                // ... and the values of what it became
    float *norm[GYRE_BLOCK_ROLES], *gain[GYRE_BLOCK_ROLES]; // vectors of the source; what the file holds of them
    float *source_bias[GYRE_LINEARS], *bias[GYRE_LINEARS];  // NULL where there is none; rotated
    float *centre[GYRE_LINEARS];                            // of keys and values where the recipe centres the cache
    struct gyre_diagonals diagonals;                        // where the recipe has some, or learned them
    struct gyre_ladder_note note[GYRE_LINEARS];             // where the recipe calibrates
    double *wide;                                           // scratch: the largest linear in fp64,
    float *narrow, *expanded;                               // in fp32, and rounded
    void *encoded;
};

gyre_status gyre_layer_create(const struct gyre_plan *plan, struct gyre_layer *out, gyre_error *err) GYRE_MUST_USE;
void gyre_layer_free(struct gyre_layer *layer);

// Reads, rounds and writes block `index`; `calibration` is NULL where the recipe needs none. Ticks the
// weights of every linear.
gyre_status gyre_layer_make(struct gyre_layer *layer, const struct gyre_plan *plan, uint32_t index,
                            gyre_calibration *calibration, struct gyre_output *out, const struct gyre_ticker *ticker,
                            gyre_error *err) GYRE_MUST_USE;

// One linear of block layer->index as it is rounded, in fp64 until the end: decoded, folded, scaled (`diagonals` may be
// NULL), rotated by `rotator`; layer->original gets the source's. exact [out, in].
gyre_status gyre_layer_load(struct gyre_layer *layer, const struct gyre_plan *plan, gyre_role role,
                            const struct gyre_rotator *rotator, const struct gyre_diagonals *diagonals, float *exact,
                            gyre_error *err) GYRE_MUST_USE;

// Reads norms and biases of block layer->index into `norm`, `gain` and `source_bias`; `out` (may be NULL) notes their
// tensors.
gyre_status gyre_layer_read_vectors(struct gyre_layer *layer, const struct gyre_plan *plan, struct gyre_output *out,
                                    gyre_error *err) GYRE_MUST_USE;
// The vectors of a block as its float (`made` false) or its recipe's weights have them: norms, biases, centres.
void gyre_layer_vectors(const struct gyre_layer *layer, bool made, struct gyre_block_weights *out);

// Plain rounding of linear `role`: layer->plain, or layer->recipe where the recipe does not rotate.
const struct gyre_rounded *gyre_layer_plain(const struct gyre_layer *layer, const struct gyre_plan *plan,
                                            gyre_role role);

// Rows of a table as they lie in the file: F32, F16, Q8_0, or Q4_0 with the scales that rtn.h's search finds.
// GYRE_E_FORMAT where a row cannot be that.
gyre_status gyre_encode_rows(gyre_dtype type, const float *x, uint64_t rows, uint64_t cols, unsigned char *out,
                             gyre_error *err) GYRE_MUST_USE;

// Writes everything before the first block: tables, norms, bases (tables.c). Ticks the weights of every table.
gyre_status gyre_write_globals(const struct gyre_plan *plan, struct gyre_output *out, const struct gyre_ticker *ticker,
                               gyre_error *err) GYRE_MUST_USE;
