// Hadamard matrices of every usable width and their fast transforms in double precision.
//
// Convention (that of shaders/params.h "had"): on a row vector x of n columns
//     y = x (H_k1 (x) H_k2 (x) H_k3 (x) H_2^p) / sqrt(n),   H_2^p in Sylvester's natural order,
// and the same on each of the consecutive segments of n columns when a row is longer than n.
#pragma once
#include "runtime/util/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { GYRE_MAX_HAD_ORDER = 400 }; // of a dense factor

// y = x (H_k1 (x) H_k2 (x) H_k3 (x) H_2^p) / sqrt(n) on each of the consecutive segments of n columns.
// The k's are 1 when absent; base[i] is the k_i x k_i matrix of +1/-1, row-major, owned by the struct's holder.
struct gyre_hadamard {
    uint32_t n; // 0: no transform
    uint32_t k[3], p;
    const int8_t *base[3];
};

// Builds the k x k matrix of +1/-1 with H H^T = k I, row-major: 1, 2, Paley I and II over GF(p^1..3), Williamson.
// False if this order is none of them (Kronecker products are the factoriser's business). out may be NULL (a question).
bool gyre_hadamard_base(uint32_t k, int8_t *out);

// Writes n, k and p of the cheapest factorisation (adds per element: k1 + k2 + k3 + p, absent k's cost nothing) with at
// most three dense orders and a power of two; false if n has none. base stays NULL.
bool gyre_hadamard_factor(uint32_t n, struct gyre_hadamard *out);

// The largest n that divides `width` and has a transform: `width` itself where that exists.
uint32_t gyre_hadamard_segment(uint32_t width);

// Factors n and builds the base matrices; release with gyre_hadamard_release. GYRE_E_UNSUPPORTED if n has no transform.
gyre_status gyre_hadamard_create(uint32_t n, struct gyre_hadamard *out, gyre_error *err) GYRE_MUST_USE;
void gyre_hadamard_release(struct gyre_hadamard *h);

// Transforms, in place, `count` vectors of `width` (a multiple of h->n) elements each, segment by segment. Element i of
// vector v lies at x[i*stride + v*step]: (stride 1, step width) are the rows of a row-major matrix, (stride cols, step
// 1) its columns. `signs` (may be NULL) holds +1/-1 per element, applied first: x -> x diag(signs) H. `transposed` uses
// H^T. The result does not depend on the number of threads.
gyre_status gyre_hadamard_apply(const struct gyre_hadamard *h, double *x, uint64_t width, uint64_t stride,
                                uint64_t count, uint64_t step, const int8_t *signs, bool transposed,
                                gyre_error *err) GYRE_MUST_USE;
