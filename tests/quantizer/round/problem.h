// Small rounding problems with a known Hessian, and dense definitions to hold the rounding ladder against.
#pragma once
#include "quantizer/round/ladder.h"
#include "runtime/util/rng.h"

struct problem {
    uint64_t rows, cols;
    uint32_t group;
    float *w, *h; // weights [rows, cols], Hessian [cols, cols] before damping
    struct gyre_factor factor;
    struct gyre_codes codes; // room of its own
    struct gyre_rounding r;  // borrows from the rest; the target is w
};

double test_normal(struct gyre_rng *rng);
// [n, n] second moments of correlated inputs of uneven size (`correlation` 0: the identity), and weights of spread
// 0.05.
void problem_make(struct problem *p, uint64_t rows, uint64_t cols, uint32_t group, double correlation, bool act_order,
                  uint64_t seed);
void problem_free(struct problem *p);
double problem_scale(const struct problem *p, uint64_t row, uint64_t col); // of the codes there are
// (V - T) H (V - T)' of one row, and over all rows; plain loops over the factor's damped H.
double problem_row_error(const struct problem *p, uint64_t row);
double problem_error(const struct problem *p);
// Rounds the target to nearest at the scales that are there.
void problem_round(struct problem *p);

// Solves a x = b by Gaussian elimination with pivots; a [n, n] and b [n, m] are overwritten, b becomes x.
void dense_solve(double *a, uint64_t n, double *b, uint64_t m);
