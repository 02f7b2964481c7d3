// After rounding: what a finished file holds besides codes (scales, gains, clips) is learned end to end, by the
// divergence of its logits from the float model's (gradient/student.h). Codes stay as they are.
//
// A step is the mean of one or several windows of the calibration text, in an order that lies evenly over it at any
// step, again and again; of a text with many more windows than the steps take some are read, 64 at least. Windows that
// are read for this alone come first. The windows that calibration holds out are held out here, too, every eighth
// (gradient/steps.h); their divergence is measured now and then, and the parameters of the lowest are what is written.
// A loss that is not finite takes the step back and halves the rate, three times at most. On the host, or on the device
// that is named for it, whatever the rest ran on.
#pragma once
#include "quantizer/file/output.h"
#include "quantizer/pass/text.h"
#include "runtime/util/ticker.h"

struct gyre_distilled {
    uint32_t steps, best;  // taken; behind which the parameters were best, 0: nothing helped
    uint32_t held, halved; // windows held out; how often the rate was halved
    double before, after;  // mean divergence per token of the held-out windows, in nats
};

// All of `out` is written. A text that gives one window has none to hold out: nothing is learned then, which is logged,
// or (GYRE_E_INVALID) refused where nothing else is done. Keeps its state in the journal from time to time, and ends
// with the new tensors in OUT.part. Ticks weights, gyre_distill_work in all, by the same
// `model_weights`, those of the blocks.
gyre_status gyre_distill(const gyre_quantize_params *params, const struct gyre_plan *plan,
                         const struct gyre_calib_text *text, uint64_t model_weights, struct gyre_output *out,
                         const struct gyre_ticker *ticker, struct gyre_distilled *result,
                         gyre_error *err) GYRE_MUST_USE;
// text NULL: none is read.
uint64_t gyre_distill_work(const struct gyre_plan *plan, const struct gyre_calib_text *text, uint64_t model_weights);

// For the manifest; a new reference, NULL when out of memory.
json_t *gyre_distilled_json(const struct gyre_distilled *distilled);
