// See gemm.h.
#include "quantizer/round/gemm.h"
#include "runtime/util/base.h"

#include <cblas.h>

enum { TILE = 192, ROWS = 96 }; // of a sum's sides; rows of a product at least

int gyre_gemm_begin(void)
{
    const int before = openblas_get_num_threads();
    if (openblas_get_parallel() == OPENBLAS_THREAD) openblas_set_num_threads(1);
    return before;
}

void gyre_gemm_end(int before)
{
    if (openblas_get_parallel() == OPENBLAS_THREAD) openblas_set_num_threads(before);
}

void gyre_gemm_rows(const float *x, const float *w, uint64_t rows, uint64_t n, uint64_t k, float *y)
{
    const bool tall = rows >= n; // the longer side of y is cut
    const uint64_t length = tall ? rows : n, piece = GYRE_MAX((uint64_t)ROWS, gyre_div_up(length, 16));
#pragma omp parallel for schedule(dynamic) if (rows * n * k > 1 << 20)
    for (int64_t i = 0; i < (int64_t)gyre_div_up(length, piece); i++) {
        const uint64_t first = (uint64_t)i * piece, count = GYRE_MIN(piece, length - first);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)(tall ? count : rows), (int)(tall ? n : count),
                    (int)k, 1, x + (tall ? first * k : 0), (int)k, w + (tall ? 0 : first * k), (int)k, 0,
                    y + (tall ? first * n : first), (int)n);
    }
}

void gyre_gemm_cross(const float *a, const float *b, uint64_t rows, uint64_t n, uint64_t m, float *sum)
{
    const int64_t down = (int64_t)gyre_div_up(n, TILE), across = (int64_t)gyre_div_up(m, TILE);
#pragma omp parallel for schedule(dynamic) if (rows * n * m > 1 << 20)
    for (int64_t t = 0; t < down * across; t++) {
        const uint64_t i = (uint64_t)(t / across) * TILE, j = (uint64_t)(t % across) * TILE;
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)GYRE_MIN((uint64_t)TILE, n - i),
                    (int)GYRE_MIN((uint64_t)TILE, m - j), (int)rows, 1, a + i, (int)n, b + j, (int)m, 1,
                    sum + i * m + j, (int)m);
    }
}

void gyre_gemm_square(const float *a, uint64_t rows, uint64_t n, float *sum)
{
    const int64_t side = (int64_t)gyre_div_up(n, TILE);
#pragma omp parallel for schedule(dynamic) if (rows * n * n > 1 << 20)
    for (int64_t t = 0; t < side * side; t++) {
        const uint64_t i = (uint64_t)(t / side) * TILE, j = (uint64_t)(t % side) * TILE;
        const int height = (int)GYRE_MIN((uint64_t)TILE, n - i), width = (int)GYRE_MIN((uint64_t)TILE, n - j);
        if (i == j)
            cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, height, (int)rows, 1, a + i, (int)n, 1, sum + i * n + i,
                        (int)n);
        else if (i > j)
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, height, width, (int)rows, 1, a + i, (int)n, a + j,
                        (int)n, 1, sum + i * n + j, (int)n);
    }
}

void gyre_gemm_symmetric(const double *d, const double *h, uint64_t rows, uint64_t n, double *y)
{
#pragma omp parallel for schedule(dynamic) if (rows * n * n > 1 << 20)
    for (int64_t i = 0; i < (int64_t)gyre_div_up(rows, ROWS); i++) {
        const uint64_t first = (uint64_t)i * ROWS;
        cblas_dsymm(CblasRowMajor, CblasRight, CblasUpper, (int)GYRE_MIN((uint64_t)ROWS, rows - first), (int)n, 1, h,
                    (int)n, d + first * n, (int)n, 0, y + first * n, (int)n);
    }
}

void gyre_gemm_gram(const double *u, uint64_t rows, uint64_t n, double *x)
{
#pragma omp parallel for schedule(dynamic) if (rows * n * n > 1 << 20)
    for (int64_t i = 0; i < (int64_t)gyre_div_up(rows, ROWS); i++) {
        const int count = (int)GYRE_MIN((uint64_t)ROWS, rows - (uint64_t)i * ROWS);
        double *const at = x + (uint64_t)i * ROWS * n;
        cblas_dtrmm(CblasRowMajor, CblasRight, CblasUpper, CblasTrans, CblasNonUnit, count, (int)n, 1, u, (int)n, at,
                    (int)n);
        cblas_dtrmm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, count, (int)n, 1, u, (int)n, at,
                    (int)n);
    }
}
