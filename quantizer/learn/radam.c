// See radam.h.
#include "quantizer/learn/radam.h"
#include "quantizer/learn/cayley.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>

static const double keep_mean = 0.9, keep_square = 0.999, floor_of_square = 1e-8;

// How far a mean of squares is from its beginning, as the factor of a mean.
struct factors {
    double mean, square;
};

static double direction(const struct factors *f, double mean, double square)
{
    return mean * f->mean / (sqrt(square * f->square) + floor_of_square);
}

// W = R'G - G'R.
static void skew(const double *r, const double *g, uint32_t n, double *out)
{
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n, (int)n, (int)n, 1, r, (int)n, g, (int)n, 0, out,
                (int)n);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j <= i; j++) {
            const double w = out[(uint64_t)i * n + j] - out[(uint64_t)j * n + i];
            out[(uint64_t)i * n + j] = w;
            out[(uint64_t)j * n + i] = -w;
        }
}

static gyre_status turn(double *r, const double *g, double *mean, double *square, uint32_t n, const struct factors *f,
                        double rate, gyre_error *err)
{
    const uint64_t size = (uint64_t)n * n;
    double *x = malloc(size * sizeof *x);
    if (!x) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for a step of %u x %u", n, n);
    skew(r, g, n, x);
    const double half = cblas_ddot((int)size, x, 1, x, 1) / 2;
    square[0] = keep_square * square[0] + (1 - keep_square) * half;
    for (uint64_t i = 0; i < size; i++) {
        mean[i] = keep_mean * mean[i] + (1 - keep_mean) * x[i];
        x[i] = rate * direction(f, mean[i], square[0]);
    }
    const gyre_status st = gyre_cayley_turn(r, x, n, err);
    free(x);
    return st;
}

gyre_status gyre_radam_step(struct gyre_matrices *at, const struct gyre_matrices *gradient, double *mean,
                            double *square, uint64_t step, double rate, double diagonal_rate, gyre_error *err)
{
    const struct factors f = {1 / (1 - pow(keep_mean, (double)step + 1)), 1 / (1 - pow(keep_square, (double)step + 1))};
    double *x = gyre_matrices_data(at);
    const double *g = gyre_matrices_data(gradient);
    const uint64_t each = (uint64_t)at->head_dim * at->head_dim, turning = gyre_matrices_turning(at);
    uint64_t i = 0;
    if (at->r1) {
        GYRE_TRY(turn(x, g, mean, square, at->width, &f, rate, err));
        i = (uint64_t)at->width * at->width;
    }
    for (; i < turning; i += each) GYRE_TRY(turn(x + i, g + i, mean + i, square + i, at->head_dim, &f, rate, err));
    for (; i < gyre_matrices_count(at); i++) {
        mean[i] = keep_mean * mean[i] + (1 - keep_mean) * g[i];
        square[i] = keep_square * square[i] + (1 - keep_square) * g[i] * g[i];
        x[i] *= exp(-diagonal_rate * direction(&f, mean[i], square[i]));
    }
    return GYRE_OK;
}
