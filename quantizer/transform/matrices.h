// Rotations as dense matrices, in double precision: what is learned, where a Hadamard transform and signs do not say
// it. Row vectors as everywhere: x' = x R1 for the residual stream, v' = v R2 for the values of a kv head. With them,
// where they are learned in pairs, the diagonals of every block (diagonals.h says where each stands).
#pragma once
#include "runtime/model/roles.h"

#include <stdbool.h>
#include <stdint.h>

enum { GYRE_PAIRED_NORMS = 2 }; // norms of a block that products read

struct gyre_matrices {
    uint32_t width, layers, kv_heads, head_dim;
    uint32_t ffn;    // 0: there are no diagonals
    double *r1;      // [width][width]; NULL: the model has none
    double *r2;      // [layers][kv_heads][head_dim][head_dim]
    double *norm;    // [layers][GYRE_PAIRED_NORMS][width]; NULL as those below: none
    double *up_down; // [layers][ffn]
    double *value;   // [layers][kv_heads][head_dim]
    double *qk;      // [layers][kv_heads][head_dim / 2]
};

// Zeros. `ffn` 0: without diagonals. Release also after failure.
gyre_status gyre_matrices_create(uint32_t width, uint32_t layers, uint32_t kv_heads, uint32_t head_dim, uint32_t ffn,
                                 bool has_r1, struct gyre_matrices *out, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_matrices_create_as(const struct gyre_matrices *shape, struct gyre_matrices *out,
                                    gyre_error *err) GYRE_MUST_USE;
void gyre_matrices_release(struct gyre_matrices *m);

// All numbers lie one behind the other from gyre_matrices_data on, in the order of the struct.
double *gyre_matrices_data(const struct gyre_matrices *m);
uint64_t gyre_matrices_count(const struct gyre_matrices *m);
uint64_t gyre_matrices_turning(const struct gyre_matrices *m); // of them, those of R1 and R2
double *gyre_matrices_r2(const struct gyre_matrices *m, uint32_t layer, uint32_t kv_head);
// Behind the norm that `product` reads, [width]; NULL: there is none.
double *gyre_matrices_norm(const struct gyre_matrices *m, uint32_t layer, gyre_product product);

#define GYRE_MOST_DRIFT 1e-6 // that a matrix may have to be merged

// The largest |R R' - I| over all rotations; NaN where a number is none.
double gyre_matrices_drift(const struct gyre_matrices *m);
// The largest of all numbers of the diagonals and of their inverses; infinite where one is not above 0 or no number, 1
// where there are none.
double gyre_matrices_widest(const struct gyre_matrices *m);
// To the precision of float, in which they are kept beside a file: what is merged is what is kept.
void gyre_matrices_narrow(struct gyre_matrices *m);

// Multiplies `count` vectors of n elements by R [n][n] (`transposed`: by R'), in place. Element i of vector v lies at
// x[i * stride + v * step], with one of stride and step 1. The result does not depend on the number of threads.
gyre_status gyre_dense_apply(const double *r, uint32_t n, double *x, uint64_t stride, uint64_t count, uint64_t step,
                             bool transposed, gyre_error *err) GYRE_MUST_USE;
