// What errors of every linear's outputs count for together (round/outputs.h), from gradients of the float model, in the
// basis and the order of rows of the file that is made. Memory: 2 bytes times the rows of every linear times the rows
// of one block of them, GYRE_OUTPUT_BLOCK at most.
#pragma once
#include "quantizer/file/plan.h"
#include "quantizer/round/outputs.h"
#include "quantizer/transform/diagonals.h"

struct gyre_output_side {
    const struct gyre_plan *plan; // borrowed
    uint32_t tokens;
    struct gyre_output_moments (*linear)[GYRE_LINEARS]; // [layers]; NULL: nothing is measured
    float *part;                                        // [tokens][the widest]
    double *wide;
};

// For windows of `tokens`. Release also after failure.
gyre_status gyre_output_side_create(const struct gyre_plan *plan, uint32_t tokens, struct gyre_output_side *out,
                                    gyre_error *err) GYRE_MUST_USE;
void gyre_output_side_release(struct gyre_output_side *side);

// Adds a window: gradient/fisher.h's `look`.
gyre_status gyre_output_side_add(struct gyre_output_side *side, uint32_t layer, gyre_product product,
                                 const float *gradient, gyre_error *err) GYRE_MUST_USE;

// Gradients at the outputs of one linear, double [tokens][rows], of those at its product's [tokens][width]: in the
// rotator's basis, in the file's order. `first`: the linear's first column of the product.
gyre_status gyre_output_gradient(const struct gyre_plan *plan, const struct gyre_rotator *rotator, uint32_t layer,
                                 gyre_role role, const float *gradient, uint64_t tokens, uint64_t width, uint64_t first,
                                 double *out, gyre_error *err) GYRE_MUST_USE;

// Of one linear, whose outputs `diagonals` (may be NULL) have scaled. *out is zeros where nothing was measured.
gyre_status gyre_output_side_get(const struct gyre_output_side *side, uint32_t layer, gyre_role role,
                                 const struct gyre_diagonals *diagonals, struct gyre_outputs *out,
                                 gyre_error *err) GYRE_MUST_USE;
