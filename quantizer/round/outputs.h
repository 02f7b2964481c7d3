// What errors of a linear's outputs cost together: the second moment H_O of the gradients that the model's loss has
// there. With E = V - T [rows, cols] the error of the weights and H the second moment of the inputs the divergence that
// rounding causes is, if the two are taken for independent (Kronecker's product in place of the joint moment),
//     tr(H_O E H E').
// Source: YAQA (arXiv 2505.22988); the identity in place of H_O is GPTQ's problem.
//
// With H_O = M' D M, M unit lower triangular, the cost is the sum over rows of D_i |(M E)_i|^2 in the metric of H: what
// is rounded row by row sees the errors of the rows before it as a shift of its own target. M comes from H_O = R R',
// R upper triangular, as M = diag(R)^-1 R'.
//
// Of a wide linear only diagonal blocks are kept, of GYRE_OUTPUT_BLOCK rows at most and of equal size: memory is rows *
// block / 2 floats a linear, and rows of different blocks do not see each other.
#pragma once
#include "runtime/util/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { GYRE_OUTPUT_BLOCK = 1024 };

// Sums over tokens; zero it, create, release.
struct gyre_output_moments {
    uint32_t n, block; // outputs; rows of a block, the last may have fewer
    double tokens;
    float *sum; // block by block the lower triangle, row by row
};

gyre_status gyre_output_moments_create(uint32_t n, struct gyre_output_moments *out, gyre_error *err) GYRE_MUST_USE;
void gyre_output_moments_release(struct gyre_output_moments *m);
// Adds `tokens` gradients [tokens][n] (overwritten). A token counts for 16 median ones at most, as inputs do
// (moments.h). GYRE_E_FORMAT where one is not finite.
gyre_status gyre_output_moments_add(struct gyre_output_moments *m, float *gradient, uint32_t tokens,
                                    gyre_error *err) GYRE_MUST_USE;

// H_O ready to round with, of one linear. Release also after failure.
struct gyre_outputs {
    uint32_t n, block;
    double *h, *m; // [n][block]: H_O, shrunk; M
};

// `scale` [n] (NULL: ones): the outputs were multiplied by it since. `shrink` (0 to 1) of H_O is taken away and as much
// of the mean of its diagonal put on the diagonal; more where it is not positive definite.
gyre_status gyre_outputs_create(const struct gyre_output_moments *m, const double *scale, double shrink,
                                struct gyre_outputs *out, gyre_error *err) GYRE_MUST_USE;
void gyre_outputs_release(struct gyre_outputs *o);

// The block that row i is in: rows first..first+count-1.
static inline uint64_t gyre_outputs_first(const struct gyre_outputs *o, uint64_t i) { return i / o->block * o->block; }
static inline uint64_t gyre_outputs_count(const struct gyre_outputs *o, uint64_t first)
{
    return o->n - first < o->block ? o->n - first : o->block;
}

// The sum of H_O[i][k] x_i . y_k: tr(H_O x y'); x, y [n, cols].
gyre_status gyre_outputs_energy(const struct gyre_outputs *o, const double *x, const double *y, uint64_t cols,
                                double *energy, gyre_error *err) GYRE_MUST_USE;
