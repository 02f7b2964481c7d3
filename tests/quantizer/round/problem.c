// See problem.h.
#include "tests/quantizer/round/problem.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double test_normal(struct gyre_rng *rng)
{
    const double u = 1 - gyre_rng_unit(rng), v = gyre_rng_unit(rng);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static void fill_hessian(float *h, uint64_t n, double correlation, struct gyre_rng *rng)
{
    const uint64_t tokens = 3 * n;
    double *x = malloc(n * sizeof *x), *sum = calloc(n * n, sizeof *sum), *size = malloc(n * sizeof *size);
    for (uint64_t i = 0; i < n; i++) size[i] = exp(0.7 * test_normal(rng));
    for (uint64_t t = 0; t < tokens; t++) {
        for (uint64_t i = 0; i < n; i++)
            x[i] = test_normal(rng) * sqrt(1 - correlation * correlation) + (i ? correlation * x[i - 1] : 0);
        for (uint64_t i = 0; i < n; i++)
            for (uint64_t j = 0; j < n; j++) sum[i * n + j] += x[i] * size[i] * x[j] * size[j] / (double)tokens;
    }
    for (uint64_t i = 0; i < n * n; i++) h[i] = correlation > 0 ? (float)sum[i] : i % (n + 1) == 0;
    free(x);
    free(sum);
    free(size);
}

void problem_make(struct problem *p, uint64_t rows, uint64_t cols, uint32_t group, double correlation, bool act_order,
                  uint64_t seed)
{
    struct gyre_rng rng = gyre_rng_seed(seed);
    const uint64_t n = rows * cols;
    *p = (struct problem){.rows = rows,
                          .cols = cols,
                          .group = group ? group : (uint32_t)cols,
                          .w = malloc(n * sizeof(float)),
                          .h = malloc(cols * cols * sizeof(float))};
    fill_hessian(p->h, cols, correlation, &rng);
    if (gyre_factor_create(p->h, (uint32_t)cols, 0.01, act_order, &p->factor, NULL) != GYRE_OK) abort();
    p->codes = (struct gyre_codes){
        .bits = 4, .group = p->group, .code = calloc(n, 1), .scale = calloc(n / p->group, sizeof(uint16_t))};
    p->r = (struct gyre_rounding){.rows = rows,
                                  .cols = cols,
                                  .factor = &p->factor,
                                  .target = malloc(n * sizeof(double)),
                                  .scratch = malloc(n * sizeof(double)),
                                  .codes = &p->codes};
    for (uint64_t i = 0; i < n; i++) p->r.target[i] = p->w[i] = (float)(0.05 * test_normal(&rng));
}

void problem_free(struct problem *p)
{
    free(p->w);
    free(p->h);
    free(p->codes.code);
    free(p->codes.scale);
    free(p->r.target);
    free(p->r.scratch);
    gyre_factor_release(&p->factor);
}

double problem_scale(const struct problem *p, uint64_t row, uint64_t col)
{
    return (double)gyre_f32_from_f16(p->codes.scale[row * (p->cols / p->group) + col / p->group]);
}

double problem_row_error(const struct problem *p, uint64_t row)
{
    const uint64_t n = p->cols;
    double sum = 0, *d = malloc(n * sizeof *d);
    for (uint64_t i = 0; i < n; i++)
        d[i] = problem_scale(p, row, i) * p->codes.code[row * n + i] - p->r.target[row * n + i];
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = 0; j < n; j++) sum += d[i] * p->factor.h[i * n + j] * d[j];
    free(d);
    return sum;
}

double problem_error(const struct problem *p)
{
    double sum = 0;
    for (uint64_t row = 0; row < p->rows; row++) sum += problem_row_error(p, row);
    return sum;
}

void problem_round(struct problem *p)
{
    for (uint64_t row = 0; row < p->rows; row++)
        for (uint64_t i = 0; i < p->cols; i++) {
            const double s = problem_scale(p, row, i);
            p->codes.code[row * p->cols + i] =
                (int8_t)(s > 0 ? fmin(fmax(rint(p->r.target[row * p->cols + i] / s), -8), 7) : 0);
        }
}

void dense_solve(double *a, uint64_t n, double *b, uint64_t m)
{
    for (uint64_t c = 0; c < n; c++) {
        uint64_t best = c;
        for (uint64_t r = c; r < n; r++)
            if (fabs(a[r * n + c]) > fabs(a[best * n + c])) best = r;
        for (uint64_t k = 0; k < n && best != c; k++) {
            const double t = a[c * n + k];
            a[c * n + k] = a[best * n + k];
            a[best * n + k] = t;
        }
        for (uint64_t k = 0; k < m && best != c; k++) {
            const double t = b[c * m + k];
            b[c * m + k] = b[best * m + k];
            b[best * m + k] = t;
        }
        for (uint64_t r = c + 1; r < n; r++) {
            const double f = a[r * n + c] / a[c * n + c];
            for (uint64_t k = c; k < n && f != 0; k++) a[r * n + k] -= f * a[c * n + k];
            for (uint64_t k = 0; k < m && f != 0; k++) b[r * m + k] -= f * b[c * m + k];
        }
    }
    for (uint64_t c = n; c-- > 0;)
        for (uint64_t k = 0; k < m; k++) {
            for (uint64_t j = c + 1; j < n; j++) b[c * m + k] -= a[c * n + j] * b[j * m + k];
            b[c * m + k] /= a[c * n + c];
        }
}
