// Rotations as dense matrices, in double precision: what is learned, where a Hadamard transform and signs do not say
// it. Row vectors as everywhere: x' = x R1 for the residual stream, v' = v R2 for the values of a kv head.
#pragma once
#include "runtime/util/status.h"

#include <stdbool.h>
#include <stdint.h>

struct gyre_matrices {
    uint32_t width, layers, kv_heads, head_dim;
    double *r1; // [width][width]; NULL: the model has none
    double *r2; // [layers][kv_heads][head_dim][head_dim]
};

// Zeros. Release also after failure.
gyre_status gyre_matrices_create(uint32_t width, uint32_t layers, uint32_t kv_heads, uint32_t head_dim, bool has_r1,
                                 struct gyre_matrices *out, gyre_error *err) GYRE_MUST_USE;
void gyre_matrices_release(struct gyre_matrices *m);

// All numbers lie one behind the other from gyre_matrices_data on: R1, then R2.
double *gyre_matrices_data(const struct gyre_matrices *m);
uint64_t gyre_matrices_count(const struct gyre_matrices *m);
double *gyre_matrices_r2(const struct gyre_matrices *m, uint32_t layer, uint32_t kv_head);

#define GYRE_MOST_DRIFT 1e-6 // that a matrix may have to be merged

// The largest |R R' - I| over all of them; NaN where a number is none.
double gyre_matrices_drift(const struct gyre_matrices *m);
// To the precision of float, in which they are kept beside a file: what is merged is what is kept.
void gyre_matrices_narrow(struct gyre_matrices *m);

// Multiplies `count` vectors of n elements by R [n][n] (`transposed`: by R'), in place. Element i of vector v lies at
// x[i * stride + v * step], with one of stride and step 1. The result does not depend on the number of threads.
gyre_status gyre_dense_apply(const double *r, uint32_t n, double *x, uint64_t stride, uint64_t count, uint64_t step,
                             bool transposed, gyre_error *err) GYRE_MUST_USE;
