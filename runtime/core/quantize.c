// See quantize.h. The f32 steps of the shaders.
#include "runtime/core/quantize.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>

GYRE_CLONES static void quantize_groups(float *row, uint32_t width, float clip, uint32_t span)
{
    const float scale = gyre_grouped_scale(row, width, span, clip);
    for (float *end = row + width; row < end; row += span) {
        const struct gyre_row_quantizer q = gyre_group_quantizer(row, span, clip, scale);
        for (uint32_t i = 0; i < span; i++) row[i] = scale * (q.times * (gyre_row_code(&q, row[i]) - q.zero));
    }
}

GYRE_CLONES static void quantize_row(float *row, uint32_t width, uint32_t bits, float clip)
{
    const struct gyre_row_quantizer q = gyre_row_quantizer(row, width, bits, clip);
    for (uint32_t i = 0; i < width; i++) row[i] = q.scale * (gyre_row_code(&q, row[i]) - q.zero);
}

void gyre_quantize_rows(float *x, uint64_t rows, uint32_t width, uint32_t bits, float clip, uint32_t span)
{
    if (bits == 16) return;
#pragma omp parallel for schedule(static) if (rows * width > 65536)
    for (int64_t r = 0; r < (int64_t)rows; r++)
        if (span) quantize_groups(x + (uint64_t)r * width, width, clip, span);
        else quantize_row(x + (uint64_t)r * width, width, bits, clip);
}

// Statistics go on where a cache has no room for a number (shaders/kv.k.h).
static float saturated(float x) { return x > 65504 ? 65504 : x < -65504 ? -65504 : x; }

static void quantize_vector(float *x, uint32_t hd, uint32_t bits, float clip)
{
    const float most = bits == 8 ? 255 : 15;
    float lo = 0, hi = 0;
    for (uint32_t i = 0; i < hd; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    const float scale = gyre_round_to_f16(saturated((hi - lo) * clip / most)),
                zero = scale > 0 ? fminf(rintf(-lo * clip / scale), most) : 0;
    for (uint32_t i = 0; i < hd; i++)
        x[i] = scale > 0 ? scale * (fminf(fmaxf(rintf(x[i] / scale) + zero, 0), most) - zero) : 0;
}

void gyre_quantize_cache(float *x, uint64_t vectors, uint32_t hd, uint32_t bits, float clip)
{
#pragma omp parallel for schedule(static) if (vectors * hd > 65536)
    for (int64_t v = 0; v < (int64_t)vectors; v++) {
        float *at = x + (uint64_t)v * hd;
        if (bits != 16) quantize_vector(at, hd, bits, clip);
        else
            for (uint32_t i = 0; i < hd; i++) at[i] = gyre_round_to_f16(saturated(at[i]));
    }
}
