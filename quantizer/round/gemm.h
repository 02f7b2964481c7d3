// Dense products for rounding and statistics. A BLAS call is one thread's work here: what runs beside it is cut into
// tiles and spread by OpenMP, since a second pool of threads, BLAS's own, spins where the first one wants to work.
// Tiles do not depend on the number of threads, and so neither do results. All matrices are row-major and dense.
#pragma once
#include <stdint.h>

// While it lasts (one run of the quantizer) a BLAS with a pool of its own uses one thread. The result goes to
// gyre_gemm_end. The count is the whole process's: a program that calls BLAS itself at the same time sees it
// change.
int gyre_gemm_begin(void);
void gyre_gemm_end(int before);

// y [rows, n] = x [rows, k] w', w [n, k].
void gyre_gemm_rows(const float *x, const float *w, uint64_t rows, uint64_t n, uint64_t k, float *y);
// sum [n, m] += a' b; a [rows, n], b [rows, m].
void gyre_gemm_cross(const float *a, const float *b, uint64_t rows, uint64_t n, uint64_t m, float *sum);
// The lower triangle of sum [n, n] += a' a; a [rows, n]. What lies above it is left undefined.
void gyre_gemm_square(const float *a, uint64_t rows, uint64_t n, float *sum);
// y [rows, n] = d h, h [n, n] symmetric, of which the upper triangle is read.
void gyre_gemm_symmetric(const double *d, const double *h, uint64_t rows, uint64_t n, double *y);
// x [rows, n] = x u' u in place, u [n, n] upper triangular.
void gyre_gemm_gram(const double *u, uint64_t rows, uint64_t n, double *x);
