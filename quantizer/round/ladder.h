// The rounding ladder: from a linear's float weights and the moments of what it reads to codes, stage by stage as a
// recipe says. What is minimised: problem.h.
#pragma once
#include "quantizer/round/problem.h"

// A linear as it is to be rounded; everything is the caller's.
struct gyre_ladder_linear {
    const float *w; // [rows, cols], in the file's order of columns
    uint64_t rows, cols;
    const struct gyre_moments *moments; // of what it reads; NULL where the recipe needs no statistics
    const struct gyre_outputs *outputs; // what its outputs count for; NULL: all alike
    bool writes_stream;                 // they are added to the residual stream, and moments->fit.stream is there
};

// Rounds a linear into codes (bits and group set, memory there). `cache` keeps the factor of the moments from one
// linear of a tap to the next: zero it for a new tap, release it with gyre_factor_release; it may be NULL without
// moments. GYRE_E_FORMAT names row and column of a weight that cannot be rounded.
gyre_status gyre_ladder(const struct gyre_recipe *recipe, const struct gyre_ladder_linear *linear,
                        struct gyre_factor *cache, struct gyre_codes *codes, struct gyre_ladder_note *note,
                        gyre_error *err) GYRE_MUST_USE;
