// ADMM-style rounding (ADMM-Q, 2605.11222, in the plain form): min 1/2 (w - t) H (w - t)' with w on the grid, as
//     w = (t H + rho (z - u)) (H + rho I)^-1,   z = the grid's nearest point to w + u,   u += w - z,
// with rho growing from mean(diag H) / 10 by powers of two. The codes are those of the z with the least error that was
// seen, row by row; a descent stage behind it makes them a local minimum. Scales stay as the clip search found them.
#include "quantizer/round/problem.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEVELS = 6 };

struct admm {
    double *inverse;        // [cols, cols] Cholesky factor of H + rho I
    double *w, *u, *ht, *d; // [rows, cols]
    double *error, *best;   // [rows]
    int8_t *code;           // [rows, cols]
};

static bool factor(const struct gyre_rounding *r, double rho, double *a)
{
    const uint64_t n = r->cols;
    memcpy(a, r->factor->h, n * n * sizeof *a);
    for (uint64_t i = 0; i < n; i++) a[i * n + i] += rho;
    return LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', (lapack_int)n, a, (lapack_int)n) == 0;
}

// z of all rows: codes, and d = z - t.
static void project(const struct gyre_rounding *r, const struct admm *m)
{
    const struct gyre_codes *c = r->codes;
    const uint64_t cols = r->cols, groups = cols / c->group;
    const double hi = (double)((1 << (c->bits - 1)) - 1), lo = -hi - 1;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < (int64_t)r->rows; row++)
        for (uint64_t i = 0, at = (uint64_t)row * cols; i < cols; i++, at++) {
            const double s = (double)gyre_f32_from_f16(c->scale[(uint64_t)row * groups + i / c->group]),
                         q = s > 0 ? gyre_nearest((m->w[at] + m->u[at]) / s, lo, hi) : 0;
            m->code[at] = (int8_t)q;
            m->d[at] = q * s - r->target[at];
        }
}

static gyre_status iterate(const struct gyre_stage *stage, struct gyre_rounding *r, struct admm *m, gyre_error *err)
{
    const uint64_t rows = r->rows, cols = r->cols, n = rows * cols;
    const uint32_t each = (uint32_t)gyre_div_up(stage->iterations, LEVELS);
    double mean = 0, rho = 0;
    for (uint64_t i = 0; i < cols; i++) mean += r->factor->h[i * cols + i] / (double)cols;
    (void)gyre_factor_energy(r->factor, rows, r->target, m->ht, NULL);
    memcpy(m->w, r->target, n * sizeof *m->w);
    memset(m->u, 0, n * sizeof *m->u);
    for (uint32_t k = 0; k <= stage->iterations; k++) { // the first projection is plain rounding
        project(r, m);
        (void)gyre_factor_energy(r->factor, rows, m->d, r->scratch, m->error);
        for (uint64_t row = 0; row < rows; row++)
            if (k == 0 || m->error[row] < m->best[row]) {
                m->best[row] = m->error[row];
                memcpy(r->codes->code + row * cols, m->code + row * cols, cols);
            }
        if (k == stage->iterations) break;
        if (k % each == 0) {
            const double next = 0.1 * mean * (double)(1u << k / each);
            for (uint64_t i = 0; rho > 0 && i < n; i++) m->u[i] *= rho / next; // u is the multiplier over rho
            rho = next;
            if (!factor(r, rho, m->inverse))
                return gyre_fail(err, GYRE_E_FORMAT, "the Hessian is not positive definite");
        }
        for (uint64_t i = 0; i < n; i++) {
            const double z = m->d[i] + r->target[i];
            m->u[i] += k ? m->w[i] - z : 0;
            m->w[i] = m->ht[i] + rho * (z - m->u[i]);
        }
        // w (H + rho I) = right-hand side, row by row: a column-major system with `rows` right-hand sides.
        if (LAPACKE_dpotrs(LAPACK_COL_MAJOR, 'L', (lapack_int)cols, (lapack_int)rows, m->inverse, (lapack_int)cols,
                           m->w, (lapack_int)cols))
            return gyre_fail(err, GYRE_E_FORMAT, "the Hessian is not positive definite");
    }
    return GYRE_OK;
}

gyre_status gyre_stage_admm(const struct gyre_stage *stage, struct gyre_rounding *r, gyre_error *err)
{
    const uint64_t n = r->rows * r->cols, groups = r->cols / r->codes->group;
    gyre_status st = GYRE_OK;
    float *diagonal = malloc(r->cols * sizeof *diagonal), *scale = malloc(r->rows * groups * sizeof *scale);
    struct admm m = {.inverse = malloc(r->cols * r->cols * sizeof *m.inverse),
                     .w = malloc(4 * n * sizeof *m.w),
                     .error = malloc(2 * r->rows * sizeof *m.error),
                     .code = malloc(n)};
    if (!diagonal || !scale || !m.inverse || !m.w || !m.error || !m.code)
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for ADMM"));
    m.u = m.w + n;
    m.ht = m.u + n;
    m.d = m.ht + n;
    m.best = m.error + r->rows;
    for (uint64_t i = 0; i < r->cols; i++) diagonal[i] = (float)r->factor->h[i * r->cols + i];
    GYRE_GO(gyre_stage_scales(r, stage->clip, diagonal, scale, err));
    for (uint64_t i = 0; i < r->rows * groups; i++) r->codes->scale[i] = gyre_f16_from_f32(scale[i]);
    GYRE_GO(iterate(stage, r, &m, err));
done:
    free(diagonal);
    free(scale);
    free(m.inverse);
    free(m.w);
    free(m.error);
    free(m.code);
    return st;
}
