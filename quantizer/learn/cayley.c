// See cayley.h.
#include "quantizer/learn/cayley.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>

// c [n][n] = alpha op(a) b + beta c.
static void product(CBLAS_TRANSPOSE ta, const double *a, const double *b, uint32_t n, double alpha, double beta,
                    double *c)
{
    cblas_dgemm(CblasRowMajor, ta, CblasNoTrans, (int)n, (int)n, (int)n, alpha, a, (int)n, b, (int)n, beta, c, (int)n);
}

// The largest sum of a column's magnitudes; of a skew matrix also a row's.
static double norm_of(const double *w, uint32_t n)
{
    double most = 0;
    for (uint32_t i = 0; i < n; i++) {
        const double sum = cblas_dasum((int)n, w + (uint64_t)i * n, 1);
        if (!(sum <= most)) most = sum;
    }
    return most;
}

// R (3 I - R'R) / 2: the error of R'R - I is squared.
static void straighten(double *r, uint32_t n, double *scratch, double *out)
{
    const uint64_t size = (uint64_t)n * n;
    product(CblasTrans, r, r, n, -0.5, 0, scratch);
    for (uint32_t i = 0; i < n; i++) scratch[(uint64_t)i * n + i] += 1.5;
    product(CblasNoTrans, r, scratch, n, 1, 0, out);
    cblas_dcopy((int)size, out, 1, r, 1);
}

static gyre_status not_finite(gyre_error *err)
{
    return gyre_fail(err, GYRE_E_FORMAT, "cannot learn rotations: a gradient is not finite; lower learn's rate");
}

static gyre_status no_memory(uint32_t n, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_NOMEM, "out of memory for a step of %u x %u", n, n);
}

// R := R (I - half W) / (I + half W), W skew; scratch [2][n][n].
static gyre_status turn(double *r, const double *w, uint32_t n, double half, double *scratch, gyre_error *err)
{
    const uint64_t size = (uint64_t)n * n;
    double *left = scratch, *right = scratch + size;
    lapack_int *pivot = malloc(n * sizeof *pivot);
    if (!pivot) return no_memory(n, err);
    // X = R' goes to (I - half W)^-1 (I + half W) X. Row-major X read by columns is R: LAPACK solves for all of it.
    for (uint64_t i = 0; i < size; i++) left[i] = half * w[i];       // column-major this is (half W)' = -half W
    for (uint32_t i = 0; i < n; i++) left[(uint64_t)i * n + i] += 1; // I - half W
    product(CblasNoTrans, r, w, n, -half, 0, right);                 // rows of R W' half, as columns: half W X
    cblas_daxpy((int)size, 1, r, 1, right, 1);
    const lapack_int failed =
        LAPACKE_dgesv(LAPACK_COL_MAJOR, (lapack_int)n, (lapack_int)n, left, (lapack_int)n, pivot, right, (lapack_int)n);
    free(pivot);
    if (failed) // skew plus identity has an inverse wherever its numbers are any
        return gyre_fail(err, GYRE_E_FORMAT, "cannot learn rotations: a step cannot be solved; lower learn's rate");
    cblas_dcopy((int)size, right, 1, r, 1);
    straighten(r, n, left, right);
    return GYRE_OK;
}

gyre_status gyre_cayley_turn(double *r, const double *x, uint32_t n, gyre_error *err)
{
    if (!isfinite(norm_of(x, n))) return not_finite(err);
    double *scratch = malloc(2 * (uint64_t)n * n * sizeof *scratch);
    if (!scratch) return no_memory(n, err);
    const gyre_status st = turn(r, x, n, 1, scratch, err);
    free(scratch);
    return st;
}

gyre_status gyre_cayley_step(double *r, const double *g, uint32_t n, double rate, gyre_error *err)
{
    const uint64_t size = (uint64_t)n * n;
    gyre_status st = GYRE_OK;
    double *w = malloc(3 * size * sizeof *w);
    if (!w) return no_memory(n, err);
    double *scratch = w + size;
    product(CblasTrans, g, r, n, 1, 0, scratch); // G'R
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++)
            w[(uint64_t)i * n + j] = -0.5 * (scratch[(uint64_t)i * n + j] - scratch[(uint64_t)j * n + i]);
    const double norm = norm_of(w, n);
    if (!isfinite(norm)) st = not_finite(err);
    else if (norm > 0) st = turn(r, w, n, 0.5 * fmin(rate, 1 / (norm + 1e-8)), scratch, err);
    free(w);
    return st;
}
