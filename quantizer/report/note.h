// What the journal keeps of a block for people: how each linear was rounded, and what its taps looked like. A resumed
// run reads back what an earlier one found out.
#pragma once
#include "quantizer/round/ladder.h"
#include "quantizer/report/report.h"

#include <jansson.h>

// "linears" of a block's note: [{"stages": [n_stages], "damp", "dead", "alpha", "residual"}], one per site; a number
// that is not finite is null. False when out of memory.
bool gyre_note_add_linears(json_t *note, const struct gyre_ladder_note linear[GYRE_LINEARS], uint32_t n_stages);
// False (and *out all NaN and 0) where the note says nothing of it.
bool gyre_note_linear(const json_t *note, gyre_role site, struct gyre_ladder_note *out);

// "taps": [[before: median and largest max/rms, kurtosis, int4 error; after: the same]], one per tap; null as above.
bool gyre_note_add_taps(json_t *note, const struct gyre_report_tap tap[GYRE_PRODUCTS]);
bool gyre_note_tap(const json_t *note, gyre_product tap, struct gyre_report_tap *out);

// A figure by its name: left out unless finite (JSON has no NaN); reading gives NaN for what is not there.
bool gyre_note_add(json_t *note, const char *key, double value);
double gyre_note_figure(const json_t *note, const char *key);
