// See moments.h. Products are in single precision over some thousand rows at a time.
#include "quantizer/round/moments.h"
#include "quantizer/round/gemm.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

gyre_status gyre_moments_create(uint32_t n, uint32_t width, bool cross, bool stream, struct gyre_moments *out,
                                gyre_error *err)
{
    const uint64_t nn = (uint64_t)n * n, nw = (uint64_t)n * width;
    *out = (struct gyre_moments){.n = n, .width = width};
    bool good = true;
    for (int i = 0; i < 2; i++) {
        struct gyre_moment_set *s = i ? &out->held : &out->fit;
        good &= (s->h = calloc(nn, sizeof(float))) != NULL;
        if (cross) good &= (s->cross = calloc(nn, sizeof(float))) != NULL;
        if (stream) good &= (s->stream = calloc(nw, sizeof(float))) != NULL;
    }
    if (good) return GYRE_OK;
    gyre_moments_release(out);
    return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the statistics of %u inputs", n);
}

void gyre_moments_release(struct gyre_moments *m)
{
    for (int i = 0; i < 2; i++) {
        struct gyre_moment_set *s = i ? &m->held : &m->fit;
        free(s->h);
        free(s->cross);
        free(s->stream);
    }
    *m = (struct gyre_moments){0};
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double gyre_row_energies(const float *x, uint64_t rows, uint64_t cols, double *energy, double *scratch)
{
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < (int64_t)rows; row++) {
        double sum = 0;
        for (uint64_t i = (uint64_t)row * cols; i < ((uint64_t)row + 1) * cols; i++) sum += (double)x[i] * (double)x[i];
        energy[row] = sum;
    }
    memcpy(scratch, energy, rows * sizeof *energy);
    qsort(scratch, rows, sizeof *scratch, ascending);
    return scratch[rows / 2];
}

// x [rows, n]; `what` names its columns.
static gyre_status check_finite(const char *what, const float *x, uint64_t rows, uint32_t n, gyre_error *err)
{
    int64_t bad = INT64_MAX;
#pragma omp parallel for schedule(static) reduction(min : bad)
    for (int64_t row = 0; row < (int64_t)rows; row++) {
        double sum = 0; // of zeros, unless a value is not finite
        for (uint64_t i = (uint64_t)row * n; i < ((uint64_t)row + 1) * n; i++) sum += 0.0 * (double)x[i];
        if (sum != 0) bad = GYRE_MIN(bad, row);
    }
    if (bad == INT64_MAX) return GYRE_OK;
    uint32_t i = 0;
    while (isfinite(x[(uint64_t)bad * n + i]) && i + 1 < n) i++;
    return gyre_fail(err, GYRE_E_FORMAT, "%s %u of calibration token %lld is %g", what, i, (long long)bad,
                     (double)x[(uint64_t)bad * n + i]);
}

void gyre_cap_rows(float *x, uint64_t rows, uint64_t cols, double *energy, double *scratch)
{
    const double most = GYRE_ENERGY_CAP * gyre_row_energies(x, rows, cols, energy, scratch);
    for (uint64_t r = 0; r < rows; r++) {
        const float scale = (float)sqrt(gyre_row_weight(energy[r], most));
        for (uint64_t i = r * cols; scale < 1 && i < (r + 1) * cols; i++) x[i] *= scale;
    }
}

gyre_status gyre_moments_add(struct gyre_moments *m, bool held, float *made, float *exact, float *difference,
                             const double *weight, uint64_t rows, gyre_error *err)
{
    struct gyre_moment_set *set = held ? &m->held : &m->fit;
    const uint32_t n = m->n, width = m->width;
    gyre_status st = GYRE_OK;
    double *energy = malloc(2 * rows * sizeof *energy);
    if (rows == 0 || !energy) {
        free(energy);
        return rows ? gyre_fail(err, GYRE_E_NOMEM, "out of memory for calibration statistics") : GYRE_OK;
    }
    GYRE_GO(check_finite("input", made, rows, n, err));
    if (set->cross) {
        GYRE_GO(check_finite("float input", exact, rows, n, err));
        for (uint64_t i = 0; i < rows * n; i++) exact[i] -= made[i];
        gyre_cap_rows(exact, rows, n, energy, energy + rows);
    }
    if (set->stream) GYRE_GO(check_finite("residual difference", difference, rows, width, err));
    const double most = GYRE_ENERGY_CAP * gyre_row_energies(made, rows, n, energy, energy + rows);
    for (uint64_t r = 0; r < rows; r++) {
        energy[r] = gyre_row_weight(energy[r], most) * (weight ? weight[r] : 1);
        set->weight += energy[r];
    }
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < (int64_t)rows; row++) {
        const uint64_t r = (uint64_t)row;
        const float scale = (float)sqrt(energy[r]);
        for (uint32_t i = 0; i < n; i++) made[r * n + i] *= scale;
        for (uint32_t i = 0; set->cross && i < n; i++) exact[r * n + i] *= scale;
        for (uint32_t i = 0; set->stream && i < width; i++) difference[r * width + i] *= scale;
    }
    gyre_gemm_square(made, rows, n, set->h);
    if (set->cross) gyre_gemm_cross(made, exact, rows, n, n, set->cross);
    if (set->stream) gyre_gemm_cross(made, difference, rows, n, width, set->stream);
done:
    free(energy);
    return st;
}

static void finish(const struct gyre_moments *m, struct gyre_moment_set *s)
{
    const float scale = (float)(1 / s->weight);
    const uint64_t n = m->n, width = m->width;
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = 0; j <= i; j++) {
            s->h[i * n + j] *= scale;
            s->h[j * n + i] = s->h[i * n + j];
        }
    for (uint64_t i = 0; s->cross && i < n * n; i++) s->cross[i] *= scale;
    for (uint64_t i = 0; s->stream && i < n * width; i++) s->stream[i] *= scale;
}

void gyre_moments_finish(struct gyre_moments *m)
{
    if (m->fit.weight > 0) finish(m, &m->fit);
    if (m->held.weight > 0) finish(m, &m->held);
}
