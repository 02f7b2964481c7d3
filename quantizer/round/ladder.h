// The rounding ladder: from a linear's float weights and the moments of what it reads to codes, stage by stage as a
// recipe says. What is minimised: problem.h.
#pragma once
#include "quantizer/round/problem.h"

// Rounds w [rows, cols] into codes (bits and group set, memory there). `moments` may be NULL where the recipe needs no
// statistics; `outputs` (NULL: alike) is what its outputs count for, `writes_stream`: they are added to the residual
// stream, moments->fit.stream is there.
// `cache` keeps the factor from one linear of a tap to the next; zero it for a new tap, release it with
// gyre_factor_release.
gyre_status gyre_ladder(const struct gyre_recipe *recipe, const struct gyre_moments *moments,
                        const struct gyre_outputs *outputs, bool writes_stream, const float *w, uint64_t rows,
                        uint64_t cols, struct gyre_factor *cache, struct gyre_codes *codes,
                        struct gyre_ladder_note *note, gyre_error *err) GYRE_MUST_USE;
