// Second moments of what the linears of a tap read, over calibration tokens: all that the rounding ladder needs to know
// of them.
//
// X [tokens, n] are the inputs on the path that is being made (quantized as at run time, through blocks that are
// already rounded), F those of the float path, and D = F - X. Every eighth window is held out: what is fitted on the
// others is chosen on it. A row counts with weight min(1, 16 * median energy / its energy), times what the caller
// gives: the few tokens that carry the attention sink have down inputs of a thousand times the energy of the rest and
// would otherwise be all that H sees. A row of D longer than sqrt(16) median ones is shortened to that: where a
// block takes the sink's stream back, what is left of it is the difference of two large numbers, and one token a window
// would be what CORRECT bends a linear for (docs/quality.md).
#pragma once
#include "runtime/util/status.h"

#include <stdbool.h>
#include <stdint.h>

struct gyre_moment_set {
    double weight; // sum of the rows' weights
    float *h;      // [n, n] X'X, the sum; lower triangle until gyre_moments_finish
    float *cross;  // [n, n] X'D; NULL where no correction is asked for
    float *stream; // [n, width] X'S, S [tokens, width] = float residual stream - made one, at a tap whose linear writes
                   // it; or NULL
};

struct gyre_moments {
    uint32_t n, width;
    struct gyre_moment_set fit, held; // held.weight == 0: no window was held out
};

// `cross`, `stream`: what is accumulated besides H. Release also after failure.
gyre_status gyre_moments_create(uint32_t n, uint32_t width, bool cross, bool stream, struct gyre_moments *out,
                                gyre_error *err) GYRE_MUST_USE;
void gyre_moments_release(struct gyre_moments *m);

// Adds `rows` rows: made [rows, n] (changed: scaled by the rows' weights), exact [rows, n] and difference [rows, width]
// (may be NULL where the set has no cross, no stream; both are overwritten), weight [rows] (NULL: ones). GYRE_E_FORMAT
// where a value is not finite (row and column).
gyre_status gyre_moments_add(struct gyre_moments *m, bool held, float *made, float *exact, float *difference,
                             const double *weight, uint64_t rows, gyre_error *err) GYRE_MUST_USE;
// energy[r] = sum of squares of row r; returns their median (scratch [rows]).
double gyre_row_energies(const float *x, uint64_t rows, uint64_t cols, double *energy, double *scratch);
// Rows count as this many median energies at most; as they are where most rows are zero.
#define GYRE_ENERGY_CAP 16.0
// What a row of this energy counts for, `most` being GYRE_ENERGY_CAP medians: 0 < it <= 1.
static inline double gyre_row_weight(double energy, double most)
{
    return most > 0 && energy > most ? most / energy : 1;
}
// Shortens the rows of x [rows, cols] that have more than GYRE_ENERGY_CAP median energies to that; energy [rows] is
// what they had. scratch [rows].
void gyre_cap_rows(float *x, uint64_t rows, uint64_t cols, double *energy, double *scratch);
// Divides by the weights and completes H. Without held-out rows the fit's are used for both.
void gyre_moments_finish(struct gyre_moments *m);
