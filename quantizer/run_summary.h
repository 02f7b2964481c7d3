// From a finished run to its summary.
#pragma once
#include "quantizer/file/output.h"
#include "quantizer/pass/distill.h"
#include "quantizer/pass/summary.h"

struct gyre_summary_run {
    const struct gyre_output *out;          // with its plan and writer, and the journal's notes of every block
    const struct gyre_distilled *distilled; // steps 0: nothing was learned
    gyre_summary *closing;                  // NULL: nothing was measured
    uint64_t weights;                       // of the blocks' linears
    bool rounded;                           // false: the run began with a finished file, of which nothing was measured
};

// All but the seconds. Free with gyre_quantize_summary_free, also after failure.
gyre_status gyre_summary_fill(const struct gyre_summary_run *run, gyre_quantize_summary *out,
                              gyre_error *err) GYRE_MUST_USE;
