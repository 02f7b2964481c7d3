// RoPE, R3 and the cache on the quick host. Codes and scales of the cache follow the f32 steps of shaders/kv.k.h.
#include "backends/cpu/fast_parts.h"
#include "runtime/core/quantize.h"
#include "shaders/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t f16_clamped(float x)
{
    return gyre_f16_from_f32(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
}

// How many of x's numbers the cache has no room for (shaders/kv.k.h).
GYRE_INLINE int32_t lost_of(const float *x, int32_t hd, int32_t bits)
{
    const float most = bits == 16 ? 65520.0f : bits == 8 ? 0x1p22f : 0x1p18f;
    int32_t n = 0;
    for (int32_t i = 0; i < hd; i++) n += !(fabsf(x[i]) < most);
    return bits == 32 ? 0 : n;
}

// A key or a value as shaders/kv.k.h has it where some of the position's numbers, of either, are lost.
static void write_lost(const float *x, const float *v, int32_t hd, int32_t bits, int32_t v_bits, uint32_t *words,
                       uint32_t *meta)
{
    const uint32_t lost = x == v ? 0 : 0x7E00; // a NaN
    memset(words, 0, (size_t)(hd * bits / 8));
    if (bits < 16) *meta = lost;
    for (int32_t i = 0; i < hd && bits == 16; i++) {
        const bool there = !lost_of(x + i, 1, bits) && !lost_of(v + i, 1, v_bits);
        words[i / 2] |= (there ? f16_clamped(x[i]) : lost) << 16 * (i % 2);
    }
}

// One head vector x [hd] (already less its centre) as words and meta.
GYRE_INLINE void quantize_vector(const float *x, int32_t hd, int32_t bits, float clip, uint32_t *words, uint32_t *meta)
{
    float lo = 0, hi = 0;
    if (bits == 32) {
        memcpy(words, x, (size_t)hd * sizeof *x);
        return;
    }
    if (bits == 16) {
        for (int32_t i = 0; i < hd; i += 2) words[i / 2] = f16_clamped(x[i]) | f16_clamped(x[i + 1]) << 16;
        return;
    }
    for (int32_t i = 0; i < hd; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    const float most = bits == 8 ? 255.0f : 15.0f;
    const uint32_t scale_bits = f16_clamped((hi - lo) * clip / most);
    const float scale = gyre_f32_from_f16((uint16_t)scale_bits), by = scale > 0 ? scale : INFINITY, // codes 0
        ratio = scale > 0 ? gyre_round_even((0.0f - lo) * clip / scale) : 0, zero = ratio < most ? ratio : most;
    memset(words, 0, (size_t)(hd * bits / 8));
    for (int32_t i = 0; i < hd; i++) {
        const float code = gyre_round_even(x[i] / by) + zero, low = code > 0 ? code : 0;
        words[i * bits / 32] |= (uint32_t)(int32_t)(low < most ? low : most) << i * bits % 32;
    }
    *meta = scale_bits | f16_clamped(zero) << 16;
}

struct writer {
    const struct gyre_ref_args *args;
    const struct gyre_rope_kv_params *p;
    const struct gyre_fast_had *had; // NULL: none
    int32_t k_bits, v_bits;
};

GYRE_CLONES static void rope_row(const struct writer *w, float *x, const float *cosine, const float *sine)
{
    const int32_t hd = w->p->hd, half = w->p->split, heads = w->p->heads + w->p->kv_heads;
    for (int32_t h = 0; h < heads; h++, x += hd) {
        for (int32_t i = 0; i < half; i++) {
            const float a = x[i], b = x[i + half];
            x[i] = a * cosine[i] - b * sine[i];
            x[i + half] = a * sine[i] + b * cosine[i];
        }
        for (int32_t i = half; i < hd / 2; i++) {
            const float a = x[2 * i], b = x[2 * i + 1];
            x[2 * i] = a * cosine[i] - b * sine[i];
            x[2 * i + 1] = a * sine[i] + b * cosine[i];
        }
    }
}

// RMS norms of q and k heads, each with its gains.
GYRE_CLONES static void norm_heads(const struct writer *w, float *x, const float *gains)
{
    const int32_t hd = w->p->hd, heads = w->p->heads + w->p->kv_heads;
    for (int32_t h = 0; h < heads; h++, x += hd) {
        double sum = 0;
        for (int32_t i = 0; i < hd; i++) sum += (double)x[i] * (double)x[i];
        const float factor = (float)(1 / sqrt(sum / hd + (double)w->p->eps)),
                    *gain = gains + (h < w->p->heads ? 0 : hd);
        for (int32_t i = 0; i < hd; i++) x[i] = x[i] * factor * gain[i];
    }
}

// All q and k heads of a row as the vectors of panels.
GYRE_CLONES static void turn_heads(const struct writer *w, float *x, float *panel, float *scratch)
{
    const int32_t hd = w->p->hd, heads = w->p->heads + w->p->kv_heads;
    for (int32_t first = 0; first < heads; first += GYRE_FAST_LANES, x += GYRE_FAST_LANES * hd) {
        const int32_t lanes = GYRE_MIN(heads - first, (int32_t)GYRE_FAST_LANES);
        for (int32_t i = 0; i < hd; i++)
            for (int32_t l = 0; l < GYRE_FAST_LANES; l++)
                panel[i * GYRE_FAST_LANES + l] = l < lanes ? x[l * hd + i] : 0;
        gyre_fast_had_panel(w->had, panel, scratch);
        for (int32_t l = 0; l < lanes; l++)
            for (int32_t i = 0; i < hd; i++) x[l * hd + i] = panel[i * GYRE_FAST_LANES + l];
    }
}

// The k and v heads of row r, roped and turned, into the cache. `x` is at the first k head.
GYRE_CLONES static void write_row(const struct writer *w, const int32_t row[4], float *x)
{
    const struct gyre_rope_kv_params *p = w->p;
    const int32_t G = p->kv_heads, hd = p->hd;
    const int32_t page = ((const int32_t *)w->args->bind[7])[row[1] * p->page_stride + row[2] / 32];
    const float *centre = w->args->bind[10];
    for (int32_t i = 0; p->centred && i < 2 * G * hd; i++) x[i] -= centre[i];
    for (int32_t head = 0; head < 2 * G; head++) {
        const size_t slot = (size_t)((page * G + head % G) * 32 + row[2] % 32);
        const float *const own = x + head * hd, *const value = x + (G + head % G) * hd;
        const int32_t bits = head < G ? w->k_bits : w->v_bits;
        uint32_t *const words = (uint32_t *)w->args->bind[head < G ? 1 : 3] + slot * (size_t)(hd * bits / 32),
                        *const meta = (uint32_t *)w->args->bind[head < G ? 2 : 4] + slot;
        if (bits < 32 && lost_of(own, hd, bits) + lost_of(value, hd, w->v_bits))
            write_lost(own, value, hd, bits, w->v_bits, words, meta);
        else quantize_vector(own, hd, bits, head < G ? p->clip : p->clip_v, words, meta);
    }
}

static void one_row(const struct writer *w, int32_t r, float *memory)
{
    const struct gyre_rope_kv_params *p = w->p;
    const int32_t half = p->hd / 2, *row = (const int32_t *)w->args->bind[6] + 4 * (size_t)r;
    const float *freqs = w->args->bind[8];
    const size_t n_q = (size_t)(p->heads * p->hd), width = n_q + 2 * (size_t)(p->kv_heads * p->hd);
    float *const cosine = memory, *const sine = memory + half, *const x = sine + half;
    for (int32_t i = 0; i < half; i++) {
        const double t = (double)row[2] * (double)freqs[i];
        cosine[i] = (freqs[i] != 0 ? p->mscale : 1) * (float)cos(t);
        sine[i] = p->mscale * (float)sin(t);
    }
    memcpy(x, (const float *)w->args->bind[5] + (size_t)r * width, width * sizeof *x);
    if (p->normed) norm_heads(w, x, w->args->bind[11]);
    rope_row(w, x, cosine, sine);
    const float grow = p->q_beta != 0 ? 1 + p->q_beta * log1pf((float)(row[2] / p->q_span)) : 1;
    for (size_t i = 0; i < n_q && p->q_beta != 0; i++) x[i] *= grow;
    if (w->had) turn_heads(w, x, x + width, x + width + (size_t)p->hd * GYRE_FAST_LANES);
    memcpy((float *)w->args->bind[0] + (size_t)r * n_q, x, n_q * sizeof *x);
    if (row[3] & 1) write_row(w, row, x + n_q);
}

static void run(const struct writer *w)
{
    const struct gyre_rope_kv_params *p = w->p;
    const size_t floats = (size_t)(p->hd * (1 + p->heads + 2 * p->kv_heads)) +
                          (w->had ? (size_t)p->hd * GYRE_FAST_LANES + gyre_fast_had_scratch(w->had) : 0);
    bool good = true;
#pragma omp parallel reduction(&& : good) if ((int64_t)p->rows * p->hd * p->heads > 1 << 14)
    {
        float *memory = malloc(floats * sizeof *memory);
        good = memory != NULL;
#pragma omp for schedule(dynamic, 16)
        for (int32_t r = 0; r < p->rows; r++)
            if (memory) one_row(w, r, memory);
        free(memory);
    }
    if (!good) memset(w->args->bind[0], 0xFF, w->args->size[0]); // NaN
}

void gyre_fast_rope_kv(const struct gyre_ref_args *args)
{
    run(&(struct writer){args, args->params, NULL, (int32_t)args->spec[3], (int32_t)args->spec[4]});
}

void gyre_fast_rope_had_kv(const struct gyre_ref_args *args)
{
    const struct gyre_rope_kv_params *p = args->params;
    struct gyre_fast_had had;
    if (gyre_fast_had_open(&had, p->hd, 1, p->k1, p->k2, p->k3, p->p, p->had_t, args->bind[9]))
        run(&(struct writer){args, p, &had, (int32_t)args->spec[3], (int32_t)args->spec[4]});
    else memset(args->bind[0], 0xFF, args->size[0]);
    gyre_fast_had_close(&had);
}
