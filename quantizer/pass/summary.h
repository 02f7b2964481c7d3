// The closing summary: a few hundred tokens go through the float model, plainly rounded weights and the recipe's, block
// by block as each is made, with the runtime's own block and its activation and KV quantizers. Weight error alone would
// flatter rotation. Only the printed figures come from here, never a byte of the file.
#pragma once
#include "quantizer/pass/layer.h"
#include "quantizer/report/report.h"

typedef struct gyre_summary gyre_summary;

// Runs on `device`, which must outlive the summary. *out is NULL, and a log line says why, where the model has no
// tokenizer that gyre reads.
gyre_status gyre_summary_open(const gyre_quantize_params *params, const struct gyre_plan *plan, gyre_device *device,
                              gyre_summary **out, gyre_error *err) GYRE_MUST_USE;
void gyre_summary_close(gyre_summary *s);

uint32_t gyre_summary_tokens(const gyre_summary *s);

// Embeds the tokens; the tables before the first block must be in OUT.part.
gyre_status gyre_summary_begin(gyre_summary *s, const struct gyre_output *out, gyre_error *err) GYRE_MUST_USE;
// Runs one block; the errors are relative squared distances of the two streams to the float one after it. `taps` (may
// be NULL) get what the linears read, before it is quantized: of the float stream, and of the recipe's, behind its
// rotations.
gyre_status gyre_summary_block(gyre_summary *s, const struct gyre_layer *layer, gyre_quantize_layer *errors,
                               struct gyre_report_tap taps[GYRE_PRODUCTS], gyre_error *err) GYRE_MUST_USE;

// The tap of the float model with the worst outliers, and what the recipe made of it.
struct gyre_summary_heat {
    uint32_t blocks; // looked at so far, from the first on without a gap
    uint32_t layer, tap;
    double worst; // its median max/rms, the largest of all; 0: none yet
    struct gyre_heat_map before, after;
};
// It is kept with the streams, so that a resumed run has it too. NULL where not every block was run with `taps`.
const struct gyre_summary_heat *gyre_summary_heat(const gyre_summary *s);

// Final norm and head: mean KL(float || other) in nats.
gyre_status gyre_summary_end(gyre_summary *s, const struct gyre_output *out, double *rtn_kl, double *recipe_kl,
                             gyre_error *err) GYRE_MUST_USE;

// The streams between two blocks, for the journal. Restoring fails (false) where they are of other tokens or another
// width.
const void *gyre_summary_streams(const gyre_summary *s, uint64_t *bytes);
bool gyre_summary_restore(gyre_summary *s, const void *data, uint64_t bytes);
