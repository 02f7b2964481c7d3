// See half_range.h. Below 2^-14 a half keeps |x| to 2^-25: where a row's or column's largest number is at least 2^-14,
// that is less than a half's rounding of it, 2^-11 of its size.
#include "runtime/model/half_range.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>

#define LARGEST 65504.0f
#define SMALLEST 0x1p-14f

// What a half takes from a number below its normal range; 0 above it. In the binade of 3/4 a float counts in steps of
// 2^-24.
GYRE_INLINE float taken(float x)
{
    const float rounded = (x + 0.75f) - 0.75f, off = fabsf(x - rounded);
    return fabsf(x) < SMALLEST ? off : 0;
}

GYRE_CLONES static bool row_fits(const float *x, uint64_t n)
{
    float most = 0, lost = 0;
    for (uint64_t i = 0; i < n; i++) {
        const float a = fabsf(x[i]), t = taken(x[i]);
        most = a > most ? a : most;
        lost = t > lost ? t : lost;
    }
    return most <= LARGEST && (most >= SMALLEST || lost == 0);
}

GYRE_CLONES static void add_columns(float *most, float *lost, const float *rows, uint64_t n, uint64_t stride,
                                    uint64_t columns)
{
    for (uint64_t r = 0; r < n; r++, rows += stride)
        for (uint64_t i = 0; i < columns; i++) {
            const float a = fabsf(rows[i]), t = taken(rows[i]);
            most[i] = a > most[i] ? a : most[i];
            lost[i] = t > lost[i] ? t : lost[i];
        }
}

bool gyre_half_range_add(struct gyre_half_range *range, const float *rows, uint64_t n, uint64_t columns)
{
    enum { STRIP = 256 };
    if (!range->most) range->most = calloc(columns, sizeof(float));
    if (!range->lost) range->lost = calloc(columns, sizeof(float));
    if (!range->most || !range->lost) return false;
    bool bad = range->bad;
#pragma omp parallel for schedule(static) reduction(|| : bad)
    for (int64_t r = 0; r < (int64_t)n; r++) bad = bad || !row_fits(rows + (uint64_t)r * columns, columns);
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < (int64_t)gyre_div_up(columns, STRIP); s++) {
        const uint64_t at = (uint64_t)s * STRIP;
        add_columns(range->most + at, range->lost + at, rows + at, n, columns, GYRE_MIN((uint64_t)STRIP, columns - at));
    }
    range->bad = bad;
    return true;
}

bool gyre_half_range_end(struct gyre_half_range *range, uint64_t columns)
{
    bool good = !range->bad;
    for (uint64_t i = 0; range->most && i < columns; i++)
        good = good && (range->most[i] >= SMALLEST || range->lost[i] == 0);
    free(range->most);
    free(range->lost);
    *range = (struct gyre_half_range){0};
    return good;
}
