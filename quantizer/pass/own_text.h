// Text that the float model writes itself, at temperature 1: calibration in the model's own mixture of kinds and
// languages, for models whose texts nobody knows. Windows begin with four tokens from somewhere in the bundled mixture,
// every third one with BOS where the model puts that before its texts. The same seed, model, device and machine write
// the same.
#pragma once
#include "quantizer/file/journal.h"
#include "quantizer/pass/text.h"
#include "backends/backend.h"
#include "runtime/util/ticker.h"

// How many windows of `windows` such texts get in the run; 0: it asks for none.
uint32_t gyre_own_text_windows(const gyre_quantize_params *params, uint32_t windows);

// Writes so many windows of `tokens` tokens into out (token malloc'd), and `more` behind them which the first ones do
// not depend on; or takes them from the journal of the run that is resumed. Runs on `device`; the float model is in
// memory meanwhile. Ticks 0 after every position.
gyre_status gyre_own_text_write(const gyre_quantize_params *params, const gyre_source *source, gyre_device *device,
                                uint32_t windows, uint32_t more, uint32_t tokens, const struct gyre_ticker *ticker,
                                struct gyre_own_text *out, gyre_error *err) GYRE_MUST_USE;
// Keeps it for a run that resumes.
gyre_status gyre_own_text_keep(const struct gyre_journal *journal, const struct gyre_own_text *text,
                               gyre_error *err) GYRE_MUST_USE;
