// What a rotation is learned by, as learn.c sees it.
#pragma once
#include "backends/backend.h"
#include "quantizer/pass/text.h"
#include "quantizer/recipe/recipe.h"
#include "quantizer/transform/matrices.h"

struct gyre_plan;

struct gyre_objective_params {
    gyre_device *device; // a host's
    const struct gyre_plan *plan;
    const gyre_source *source;
    const struct gyre_calib_text *text; // NULL where it needs none
    const struct gyre_matrices *shape;
    uint32_t act, kv; // bits in the loop
    uint64_t seed;
};

struct gyre_objective {
    // The loss at the matrices on a window (step: which one it is of, for those that need no window); gradient NULL:
    // none, else overwritten; by the elements of rotations, by the logarithms of diagonals.
    gyre_status (*at)(void *self, const struct gyre_matrices *matrices, uint32_t window, double *loss,
                      struct gyre_matrices *gradient, gyre_error *err);
    void (*close)(void *self);
    void *self;
};

// Close also after failure (self NULL: nothing to close).
// `method`: spinquant, kl or ostquant.
gyre_status gyre_objective_spin(const struct gyre_objective_params *params, gyre_learn_method method,
                                struct gyre_objective *out, gyre_error *err) GYRE_MUST_USE;
// Of the float model's activations (taps.c); whip, else kurtosis.
gyre_status gyre_objective_taps(const struct gyre_objective_params *params, bool whip, struct gyre_objective *out,
                                gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_objective_optrot(const struct gyre_objective_params *params, struct gyre_objective *out,
                                  gyre_error *err) GYRE_MUST_USE;
