// Rotations that are learned before anything is merged: R1 and R2 start as the plan's Hadamard transforms with signs
// and go down a loss on the orthogonal matrices (cayley.h). How, and which loss: the recipe's `learn`.
//
//   optrot     the fourth powers of the rotated weights, from no data (local.c)
//   spinquant  the model's cross entropy with activations and cache quantized (spin.h), SpinQuant's straight-through
//              rule
//   whip, kurtosis  how unevenly rows of the float model's activations fill their range (taps.c)
//   kl         the same model's divergence from the float model, with the rule that knows scales (gradient/rules.h)
//   ostquant   the terms of that of the 1000 tokens that the float model finds likeliest, from where weights have the
//              fewest outliers (start.h), by Adam (radam.h), with a diagonal beside every rotation
//              (transform/diagonals.h)
//
// A step is one window of the calibration text, in turn; the rate falls linearly to zero. Every eighth window is held
// out: the loss on those is measured before, now and then and after, and the matrices of the lowest are kept. A loss
// or gradient that is not finite takes the step back and halves the rate, three times at most. Everything is in double
// but the model's own passes; on the host, whatever device the rest runs on.
#pragma once
#include "quantizer/file/output.h"
#include "quantizer/pass/text.h"
#include "quantizer/transform/matrices.h"
#include "runtime/util/ticker.h"

struct gyre_learned_rotations {
    uint32_t steps, best, held, halved; // taken; behind which the loss was lowest; windows held out; times halved
    double before, after;               // the loss on what is held out (optrot: the loss), at first and of the kept
    double drift;                       // the largest |R R' - I| of what is merged
    bool diagonals;                     // were learned with them
    double widest;                      // the largest number of those, or inverse of one
};

// The plan is finished and `out` open, with nothing written. Fills `matrices`, created here, to be released by the
// caller. `text` NULL: the loss needs none. Keeps its state in the journal from time to time. Ticks
// weights, gyre_learn_work in all.
gyre_status gyre_learn(const gyre_quantize_params *params, const struct gyre_plan *plan,
                       const struct gyre_calib_text *text, uint64_t model_weights, struct gyre_output *out,
                       const struct gyre_ticker *ticker, struct gyre_matrices *matrices,
                       struct gyre_learned_rotations *result, gyre_error *err) GYRE_MUST_USE;
uint64_t gyre_learn_work(const struct gyre_plan *plan, uint32_t text_windows, uint64_t model_weights);

// For the manifest; a new reference, NULL when out of memory.
json_t *gyre_learned_json(const struct gyre_learned_rotations *learned);
