// What a recipe leaves to be chosen on calibration data before anything is written: which of several random rotations,
// and the clip ratios of the run-time quantizers. The float model runs over a few windows once, in its own basis; of
// some of its blocks the taps' rows are kept and looked at under every candidate.
//
// The surrogate of a rotation is the mean over the sampled linears of
//     |X (Q(W) - W)'|^2 / |X W'|^2   plus, at 4-bit activations,   |(Q(X) - X) W'|^2 / |X W'|^2,
// X and W rotated, Q(W) plain rounding with the recipe's groups.
#pragma once
#include "backends/backend.h"
#include "quantizer/file/plan.h"
#include "quantizer/pass/text.h"
#include "runtime/util/ticker.h"

// Fills `out` (the settings' own values where nothing is left open). `plan` has been begun. Ticks 0 now and then.
// The float model runs on `device`.
gyre_status gyre_search(const gyre_quantize_params *params, const struct gyre_plan *plan,
                        const struct gyre_own_text *own, gyre_device *device, struct gyre_choice *out,
                        const struct gyre_ticker *ticker, gyre_error *err) GYRE_MUST_USE;
