// The run-time quantizers on rows of floats and back: what a device's codes mean, for statistics and for choosing
// clips.
#pragma once
#include "runtime/util/base.h"

#include <float.h>
#include <math.h>
#include <stdint.h>

// That of activations (shaders/quantize.k.h), in place: bits 16 nothing, 8 symmetric, 4 asymmetric, per row; span != 0:
// in groups of that many values ("span" in shaders/params.h).
void gyre_quantize_rows(float *x, uint64_t rows, uint32_t width, uint32_t bits, float clip, uint32_t span);
// The span of a row of `width` values where groups of `group` are asked for: 0, the whole row, at other widths than 4
// bits and where they do not divide it.
static inline uint32_t gyre_quantize_span(uint32_t group, uint32_t bits, uint64_t width)
{
    return group && bits == 4 && width % group == 0 ? group : 0;
}
// The KV cache's (shaders/kv.k.h), per vector of hd: 16 rounds to f16, 8 and 4 are asymmetric with an f16 scale.
void gyre_quantize_cache(float *x, uint64_t vectors, uint32_t hd, uint32_t bits, float clip);

// How a row, or a group of it, is quantized: code = round(x * inverse) + zero, at least `least` and at most `most`; x
// is then scale * (code - zero), a group's row_scale * (times * (code - zero)).
struct gyre_row_quantizer {
    float scale, inverse, zero, least, most;
    float lo, times; // the row's least value; a group's step in those of its row, 1..8
};

// Rounds half to even, for values well below 2^22.
GYRE_INLINE float gyre_round_even(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

// In the f32 steps of the shader. Of n values that are not all finite the scale is NaN, and the codes are the least.
GYRE_INLINE struct gyre_row_quantizer gyre_row_quantizer(const float *x, uint64_t n, uint32_t bits, float clip)
{
    float lows[16] = {0}, highs[16] = {0}, losses[16] = {0}, lo = 0, hi = 0, lost = 0; // lost: 0, or NaN
    uint64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++) {
            lows[l] = x[i + (uint64_t)l] < lows[l] ? x[i + (uint64_t)l] : lows[l];
            highs[l] = x[i + (uint64_t)l] > highs[l] ? x[i + (uint64_t)l] : highs[l];
            losses[l] += 0 * x[i + (uint64_t)l];
        }
    for (; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
        lost += 0 * x[i];
    }
    for (int l = 0; l < 16; l++) {
        lo = lows[l] < lo ? lows[l] : lo;
        hi = highs[l] > hi ? highs[l] : hi;
        lost += losses[l];
    }
    float scale = (bits == 8 ? (-lo > hi ? -lo : hi) : hi - lo) * clip;
    scale *= bits == 8 ? 1.0f / 127 : 1.0f / 15;
    if (!(scale > 0)) scale = 0; // never -0
    if (lost != 0 || scale > FLT_MAX) scale = NAN;
    const float inverse = scale > 0 ? 1.0f / scale : 0, least = gyre_round_even(-lo * clip * inverse);
    return (struct gyre_row_quantizer){
        scale, inverse, bits == 8 ? 0 : least < 15 ? least : 15, bits == 8 ? -128 : 0, bits == 8 ? 127 : 15, lo, 1};
}

// The scale of a row in groups of `span`: an eighth of their greatest step.
GYRE_INLINE float gyre_grouped_scale(const float *x, uint64_t n, uint64_t span, float clip)
{
    float top = 0, lost = 0;
    for (uint64_t i = 0; i < n; i += span) {
        const float step = gyre_row_quantizer(x + i, span, 4, clip).scale;
        top = step > top ? step : top;
        lost += 0 * step;
    }
    return 0.125f * top + lost;
}

// One group of such a row.
GYRE_INLINE struct gyre_row_quantizer gyre_group_quantizer(const float *x, uint64_t span, float clip, float row_scale)
{
    struct gyre_row_quantizer q = gyre_row_quantizer(x, span, 4, clip);
    const float times = gyre_round_even(q.scale * (row_scale > 0 ? 1.0f / row_scale : 0));
    q.times = times < 8 ? times > 1 ? times : 1 : 8;
    q.scale = q.times * row_scale;
    q.inverse = q.scale > 0 ? 1.0f / q.scale : 0;
    const float zero = gyre_round_even(-q.lo * clip * q.inverse);
    q.zero = zero < 15 ? zero : 15;
    return q;
}

GYRE_INLINE float gyre_row_code(const struct gyre_row_quantizer *q, float x)
{
    const float code = gyre_round_even(x * q->inverse) + q->zero, low = code > q->least ? code : q->least;
    return low < q->most ? low : q->most;
}
