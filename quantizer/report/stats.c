// See stats.h.
#include "quantizer/report/stats.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double int4_error(const float *x, uint64_t n, double power)
{
    float lo = 0, hi = 0;
    for (uint64_t i = 0; i < n; i++) lo = fminf(lo, x[i]), hi = fmaxf(hi, x[i]);
    const float scale = (hi - lo) / 15, inverse = scale > 0 ? 1 / scale : 0, zero = fminf(rintf(-lo * inverse), 15);
    double error = 0;
    for (uint64_t i = 0; i < n; i++) {
        const float back = scale * (fminf(fmaxf(rintf(x[i] * inverse) + zero, 0), 15) - zero);
        error += ((double)back - (double)x[i]) * ((double)back - (double)x[i]);
    }
    return error / power;
}

static double kurtosis(const float *x, uint64_t n)
{
    double mean = 0, m2 = 0, m4 = 0;
    for (uint64_t i = 0; i < n; i++) mean += (double)x[i];
    mean /= (double)n;
    for (uint64_t i = 0; i < n; i++) {
        const double d = (double)x[i] - mean;
        m2 += d * d;
        m4 += d * d * d * d;
    }
    return m2 > 0 ? m4 * (double)n / (m2 * m2) : (double)NAN;
}

gyre_status gyre_tap_measure(const float *x, uint64_t rows, uint64_t width, struct gyre_tap_stats *out, gyre_error *err)
{
    *out = (struct gyre_tap_stats){(double)NAN, (double)NAN, (double)NAN, (double)NAN};
    for (uint64_t i = 0; i < rows * width; i++)
        if (!isfinite(x[i])) return GYRE_OK;
    double *ratio = calloc(GYRE_MAX(rows, 1), sizeof *ratio), error = 0;
    if (!ratio) return gyre_fail(err, GYRE_E_NOMEM, "cannot measure activations: out of memory");
    uint64_t n = 0;
    for (uint64_t r = 0; r < rows; r++) {
        const float *row = x + r * width;
        double power = 0, most = 0;
        for (uint64_t i = 0; i < width; i++) {
            power += (double)row[i] * (double)row[i];
            most = fmax(most, fabs((double)row[i]));
        }
        if (power == 0) continue;
        ratio[n++] = most / sqrt(power / (double)width);
        error += int4_error(row, width, power);
    }
    if (n) {
        qsort(ratio, n, sizeof *ratio, ascending);
        out->max_rms_median = (ratio[(n - 1) / 2] + ratio[n / 2]) / 2;
        out->max_rms_max = ratio[n - 1];
        out->int4_error = error / (double)n;
    }
    if (rows > 1) out->kurtosis = kurtosis(x + width, (rows - 1) * width);
    free(ratio);
    return GYRE_OK;
}

void gyre_heat_begin(struct gyre_heat_map *map, uint64_t tokens, uint64_t channels)
{
    *map = (struct gyre_heat_map){.tokens = tokens,
                                  .channels = channels,
                                  .rows = (uint32_t)GYRE_MIN(tokens, GYRE_HEAT_SIDE),
                                  .cols = (uint32_t)GYRE_MIN(channels, GYRE_HEAT_SIDE)};
}

void gyre_heat_add(struct gyre_heat_map *map, uint64_t first, uint64_t rows, const float *x)
{
    for (uint64_t r = 0; r < rows && first + r < map->tokens; r++) {
        float *cells = map->cell + (first + r) * map->rows / map->tokens * map->cols;
        for (uint64_t c = 0; c < map->channels; c++) {
            float *cell = &cells[c * map->cols / map->channels];
            *cell = fmaxf(*cell, fabsf(x[r * map->channels + c]));
        }
    }
}
