// See outputs.h.
#include "quantizer/round/outputs.h"
#include "quantizer/round/gemm.h"
#include "quantizer/round/moments.h"
#include "runtime/util/base.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 96 }; // of one product

// ---- moments --------------------------------------------------------------------------------------------------

static uint64_t triangle(uint64_t n) { return n * (n + 1) / 2; }

// Row i of the block that begins at `first`, up to its diagonal.
static float *sums_of(const struct gyre_output_moments *m, uint64_t first, uint64_t i)
{
    return m->sum + first / m->block * triangle(m->block) + triangle(i);
}

gyre_status gyre_output_moments_create(uint32_t n, struct gyre_output_moments *out, gyre_error *err)
{
    const uint32_t blocks = (uint32_t)gyre_div_up(n, GYRE_OUTPUT_BLOCK);
    *out = (struct gyre_output_moments){.n = n, .block = (uint32_t)gyre_div_up(n, blocks)};
    const uint32_t whole = n / out->block, rest = n % out->block;
    out->sum = calloc(whole * triangle(out->block) + triangle(rest), sizeof *out->sum);
    return out->sum ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "out of memory for the statistics of %u outputs", n);
}

void gyre_output_moments_release(struct gyre_output_moments *m)
{
    free(m->sum);
    *m = (struct gyre_output_moments){0};
}

gyre_status gyre_output_moments_add(struct gyre_output_moments *m, float *gradient, uint32_t tokens, gyre_error *err)
{
    double *energy = malloc(2 * (uint64_t)tokens * sizeof *energy);
    float *part = malloc((uint64_t)tokens * m->block * sizeof *part), *sum = calloc((uint64_t)m->block * m->block, 4);
    gyre_status st = GYRE_OK;
    if (!energy || !part || !sum) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for statistics of outputs"));
    gyre_cap_rows(gradient, tokens, m->n, energy, energy + tokens);
    for (uint32_t t = 0; t < tokens; t++)
        if (!isfinite(energy[t])) GYRE_GO(gyre_fail(err, GYRE_E_FORMAT, "the gradient of token %u overflows", t));
    for (uint32_t first = 0; first < m->n; first += m->block) {
        const uint32_t count = GYRE_MIN(m->block, m->n - first);
        for (uint32_t t = 0; t < tokens; t++)
            memcpy(part + (uint64_t)t * count, gradient + (uint64_t)t * m->n + first, count * sizeof *part);
        memset(sum, 0, (uint64_t)count * count * sizeof *sum);
        gyre_gemm_square(part, tokens, count, sum);
        for (uint32_t i = 0; i < count; i++) {
            float *to = sums_of(m, first, i);
            for (uint32_t k = 0; k <= i; k++) to[k] += sum[(uint64_t)i * count + k];
        }
    }
    m->tokens += tokens;
done:
    free(energy);
    free(part);
    free(sum);
    return st;
}

// ---- what is rounded with -------------------------------------------------------------------------------------

// Rows first.. of M, from H_O with `more` on its diagonal; false if that is not positive definite. r [count, count].
static bool factor(const struct gyre_outputs *o, uint64_t first, double more, double *r)
{
    const uint64_t n = gyre_outputs_count(o, first), ld = o->block;
    const double *h = o->h + first * ld;
    double *m = o->m + first * ld;
    for (uint64_t i = 0; i < n; i++) // read backwards, so that the lower factor is R
        for (uint64_t k = 0; k <= i; k++) r[i * n + k] = h[(n - 1 - i) * ld + n - 1 - k] + (i == k ? more : 0);
    if (LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'L', (lapack_int)n, r, (lapack_int)n)) return false;
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t k = 0; k <= i; k++)
            m[i * ld + k] = r[(n - 1 - k) * n + n - 1 - i] / r[(n - 1 - i) * n + n - 1 - i];
    return true;
}

// H_O of the block that begins at `first`.
static void fill(const struct gyre_output_moments *m, const double *scale, double shrink, uint64_t first,
                 const struct gyre_outputs *o)
{
    const uint64_t n = gyre_outputs_count(o, first), ld = o->block;
    double *h = o->h + first * ld, mean = 0;
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t k = 0; k <= i; k++) {
            const double by = scale ? scale[first + i] * scale[first + k] : 1;
            h[i * ld + k] = h[k * ld + i] = (double)sums_of(m, first, i)[k] / by;
        }
    for (uint64_t i = 0; i < n; i++) mean += h[i * ld + i] / (double)n;
    if (!(mean > 0)) mean = 1; // nothing behind it matters: any rounding is as good
    for (uint64_t i = 0; i < n; i++) {
        for (uint64_t k = 0; k < n; k++) h[i * ld + k] *= (1 - shrink) / mean;
        h[i * ld + i] += shrink;
    }
}

gyre_status gyre_outputs_create(const struct gyre_output_moments *m, const double *scale, double shrink,
                                struct gyre_outputs *o, gyre_error *err)
{
    const uint64_t size = (uint64_t)m->n * m->block;
    gyre_status st = GYRE_OK;
    double *r = malloc((uint64_t)m->block * m->block * sizeof *r);
    *o = (struct gyre_outputs){
        .n = m->n, .block = m->block, .h = calloc(size, sizeof *o->h), .m = calloc(size, sizeof *o->m)};
    if (!r || !o->h || !o->m) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for the outputs' Hessian"));
    for (uint64_t first = 0; first < o->n; first += o->block) {
        double more = 0; // the mean of the diagonal is 1
        fill(m, scale, shrink, first, o);
        while (!factor(o, first, more, r)) {
            if (more >= 1) GYRE_GO(gyre_fail(err, GYRE_E_FORMAT, "the Hessian of %u outputs is not finite", o->n));
            more = more > 0 ? GYRE_MIN(10 * more, 1.0) : 1e-3;
        }
        for (uint64_t i = 0; i < gyre_outputs_count(o, first); i++) o->h[(first + i) * o->block + i] += more;
    }
done:
    free(r);
    return st;
}

void gyre_outputs_release(struct gyre_outputs *o)
{
    free(o->h);
    free(o->m);
    *o = (struct gyre_outputs){0};
}

gyre_status gyre_outputs_energy(const struct gyre_outputs *o, const double *x, const double *y, uint64_t cols,
                                double *energy, gyre_error *err)
{
    double *dot = malloc(ROWS * (uint64_t)o->block * sizeof *dot), total = 0;
    if (!dot) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the error of outputs");
    for (uint64_t row = 0, n; row < o->n; row += n) {
        const uint64_t first = gyre_outputs_first(o, row), count = gyre_outputs_count(o, first);
        n = GYRE_MIN((uint64_t)ROWS, first + count - row);
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)count, (int)cols, 1, x + row * cols,
                    (int)cols, y + first * cols, (int)cols, 0, dot, (int)count);
        for (uint64_t i = 0; i < n; i++)
            for (uint64_t k = 0; k < count; k++) total += o->h[(row + i) * o->block + k] * dot[i * count + k];
    }
    free(dot);
    *energy = total;
    return GYRE_OK;
}
