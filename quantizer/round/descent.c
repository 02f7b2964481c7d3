// Polishing codes that are already there, row by row.
//
// DESCENT: with G = (V - T) H, moving weight i by d changes the row's error by 2 d G_i + d^2 H_ii; the best step on the
// grid is taken wherever that is negative, and G follows in O(cols). REFIT: with codes q fixed and a scale per group,
// the error is a quadratic in the scales: sum_k (q_g H_gk q_k) s_k = q_g (H T)_g.
#include "quantizer/round/problem.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static double value_of(const struct gyre_rounding *r, uint64_t row, uint64_t i)
{
    const struct gyre_codes *c = r->codes;
    return (double)gyre_f32_from_f16(c->scale[row * (r->cols / c->group) + i / c->group]) * c->code[row * r->cols + i];
}

// scratch = (V - T) H.
static gyre_status gradients(struct gyre_rounding *r, gyre_error *err)
{
    const uint64_t n = r->rows * r->cols;
    double *d = malloc(n * sizeof *d);
    if (!d) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for polishing");
    for (uint64_t row = 0; row < r->rows; row++)
        for (uint64_t i = 0; i < r->cols; i++)
            d[row * r->cols + i] = value_of(r, row, i) - r->target[row * r->cols + i];
    (void)gyre_factor_energy(r->factor, r->rows, d, r->scratch, NULL);
    free(d);
    return GYRE_OK;
}

// One pass over a row; returns the number of codes that moved.
static uint64_t descend(const struct gyre_rounding *r, uint64_t row)
{
    const struct gyre_codes *c = r->codes;
    const uint64_t cols = r->cols, groups = cols / c->group;
    const double hi = (double)((1 << (c->bits - 1)) - 1), lo = -hi - 1;
    double *gradient = r->scratch + row * cols;
    int8_t *code = c->code + row * cols;
    uint64_t moved = 0;
    for (uint64_t k = 0; k < cols; k++) {
        const uint64_t i = r->factor->order[k];
        const double scale = (double)gyre_f32_from_f16(c->scale[row * groups + i / c->group]),
                     *h = r->factor->h + i * cols;
        if (!(scale > 0)) continue;
        const double to = gyre_nearest(code[i] - gradient[i] / (h[i] * scale), lo, hi), d = (to - code[i]) * scale;
        if (d == 0 || 2 * d * gradient[i] + d * d * h[i] >= 0) continue;
        code[i] = (int8_t)to;
        moved++;
        for (uint64_t j = 0; j < cols; j++) gradient[j] += d * h[j];
    }
    return moved;
}

gyre_status gyre_stage_descent(const struct gyre_stage *stage, struct gyre_rounding *r, gyre_error *err)
{
    GYRE_TRY(gradients(r, err));
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t row = 0; row < (int64_t)r->rows; row++)
        for (uint32_t sweep = 0; sweep < stage->iterations; sweep++)
            if (descend(r, (uint64_t)row) == 0) break;
    return GYRE_OK;
}

// ---- scales -----------------------------------------------------------------------------------------------

struct refit {
    double *hq; // [groups][cols] H of one group's codes
    double *a;  // [groups][groups]
    double *b, *s, *before;
};

static double quadratic(const struct refit *f, uint64_t groups, const double *s)
{
    double sum = 0;
    for (uint64_t g = 0; g < groups; g++) {
        double as = 0;
        for (uint64_t k = 0; k < groups; k++) as += f->a[g * groups + k] * s[k];
        sum += s[g] * (as - 2 * f->b[g]);
    }
    return sum;
}

// New scales of a row where they lower its error after rounding to f16. ht = T H of the row.
static void refit_row(const struct gyre_rounding *r, uint64_t row, const double *ht, struct refit *f)
{
    const struct gyre_codes *c = r->codes;
    const uint64_t cols = r->cols, group = c->group, groups = cols / group;
    const int8_t *code = c->code + row * cols;
    uint16_t *scale = c->scale + row * groups;
    memset(f->hq, 0, groups * cols * sizeof *f->hq);
    for (uint64_t i = 0; i < cols; i++)
        for (uint64_t j = 0; code[i] && j < cols; j++)
            f->hq[i / group * cols + j] += code[i] * r->factor->h[i * cols + j];
    for (uint64_t g = 0; g < groups; g++) {
        f->b[g] = 0;
        for (uint64_t i = g * group; i < (g + 1) * group; i++) f->b[g] += code[i] * ht[i];
        for (uint64_t k = 0; k < groups; k++) {
            double sum = 0;
            for (uint64_t i = k * group; i < (k + 1) * group; i++) sum += f->hq[g * cols + i] * code[i];
            f->a[g * groups + k] = sum;
        }
        f->before[g] = (double)gyre_f32_from_f16(scale[g]);
    }
    // A group of zero codes has nothing to fit: an equation s = 0 in its place.
    for (uint64_t g = 0; g < groups; g++)
        if (f->a[g * groups + g] == 0) {
            f->a[g * groups + g] = 1;
            f->before[g] = 0; // its scale counts for nothing, before and after
        }
    const double before = quadratic(f, groups, f->before);
    double *a = f->hq; // its content is used up; groups <= cols
    memcpy(a, f->a, groups * groups * sizeof *a);
    memcpy(f->s, f->b, groups * sizeof *f->s);
    if (LAPACKE_dposv(LAPACK_ROW_MAJOR, 'U', (lapack_int)groups, 1, a, (lapack_int)groups, f->s, 1)) return;
    for (uint64_t g = 0; g < groups; g++) {
        f->s[g] = (double)gyre_round_to_f16((float)f->s[g]);
        if (!(f->s[g] >= 0) || isinf(f->s[g])) return;
    }
    if (quadratic(f, groups, f->s) >= before) return;
    for (uint64_t g = 0; g < groups; g++) scale[g] = gyre_f16_from_f32((float)f->s[g]);
}

gyre_status gyre_stage_refit(struct gyre_rounding *r, gyre_error *err)
{
    const uint64_t cols = r->cols, groups = cols / r->codes->group;
    bool out_of_memory = false;
    (void)gyre_factor_energy(r->factor, r->rows, r->target, r->scratch, NULL); // scratch = T H
#pragma omp parallel
    {
        struct refit f = {.hq = malloc((groups * cols + groups * groups + 3 * groups) * sizeof *f.hq)};
        if (f.hq) {
            f.a = f.hq + groups * cols;
            f.b = f.a + groups * groups;
            f.s = f.b + groups;
            f.before = f.s + groups;
        } else {
#pragma omp atomic write
            out_of_memory = true;
        }
#pragma omp for schedule(dynamic, 4)
        for (int64_t row = 0; row < (int64_t)r->rows; row++)
            if (f.hq) refit_row(r, (uint64_t)row, r->scratch + (uint64_t)row * cols, &f);
        free(f.hq);
    }
    return out_of_memory ? gyre_fail(err, GYRE_E_NOMEM, "out of memory for fitting scales") : GYRE_OK;
}
