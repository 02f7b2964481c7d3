// The Hessian of the layer-wise problem min tr((V - W) H (V - W)') and its triangular factor, in double precision,
// shared by all linears of a tap.
#pragma once
#include "quantizer/round/moments.h"

struct gyre_factor {
    uint32_t n;
    double damp;     // share of mean(diag H) that was added to the diagonal in the end
    uint32_t dead;   // inputs that never fired: their row and column became that of the identity times mean(diag H)
    double *h;       // [n, n] damped H, in the inputs' own order
    double *u;       // [n, n] upper triangular, H^-1 = U'U with rows and columns in the order of `order`
    uint32_t *order; // [n] order[i] is the input at position i
};

// Damping starts at `damp` and grows tenfold, to 1 at most, until H is positive definite; GYRE_E_FORMAT where 1 is not
// enough. With `act_order` inputs go by descending diag(H), else as they lie. U comes from the Cholesky factor of H
// read backwards (H = R R', R upper, U = R^-1), which saves one inversion and its rounding against factoring H^-1.
gyre_status gyre_factor_create(const float *h, uint32_t n, double damp, bool act_order, struct gyre_factor *out,
                               gyre_error *err) GYRE_MUST_USE;
void gyre_factor_release(struct gyre_factor *f);

// x = x H^-1 for `rows` rows [rows, n] in the inputs' own order; scratch [rows, n].
void gyre_factor_solve(const struct gyre_factor *f, uint64_t rows, double *x, double *scratch);

// sum over rows of d H d', d [rows, n]; row_error (may be NULL) gets the terms; scratch [rows, n] gets d H.
double gyre_factor_energy(const struct gyre_factor *f, uint64_t rows, const double *d, double *scratch,
                          double *row_error);
