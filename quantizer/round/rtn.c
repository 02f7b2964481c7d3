// See rtn.h. The exponent 2.4 and the idea of the grid are GPTQ's and QuaRot's weight quantizers'; rounding the scale
// first and the least-squares refit are ours. The search is the quantizer's hot loop, so its power function is a cheap
// one.
#include "quantizer/round/rtn.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 16 };

// |d|^2.4 within 0.5 %, monotone, without a call: log2 and exp2 by quadratics that meet at powers of two.
static inline float power_2_4(float d)
{
    const uint32_t u = gyre_f32_bits(d);
    const float m = gyre_f32_from_bits((u & 0x7FFFFFu) | 0x3F800000u);
    const float log2 = (float)((int32_t)(u >> 23) - 127) + (2.0f - m * (1.0f / 3.0f)) * m - 5.0f / 3.0f;
    const float y = 0.4f * log2 + 127.0f; // positive: d = 0 gives 76
    const int32_t whole = (int32_t)y;
    const float f = y - (float)whole;
    return d * d * gyre_f32_from_bits((uint32_t)whole << 23) * (1.0f + f * (0.6565f + 0.3435f * f));
}

// Sum of |error / s|^2.4 over n elements in LANES partial sums, so that it vectorises without reordering anything.
GYRE_CLONES static float distortion(const float *w, uint64_t n, float s, float lo, float hi)
{
    const float inverse = 1.0f / s, magic = 0x1.8p23f; // adding and subtracting 1.5 * 2^23 rounds half to even
    float sum[LANES] = {0};
    uint64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (uint64_t l = 0; l < LANES; l++) {
            const float t = w[i + l] * inverse;
            const float low = t < lo ? lo : t, c = low > hi ? hi : low;
            sum[l] += power_2_4(fabsf(t - ((c + magic) - magic)));
        }
    for (uint64_t l = 0; i < n; i++, l++) {
        const float t = w[i] * inverse;
        sum[l] += power_2_4(fabsf(t - ((fminf(fmaxf(t, lo), hi) + magic) - magic)));
    }
    float total = 0;
    for (int l = 0; l < LANES; l++) total += sum[l];
    return total;
}

GYRE_CLONES static void round_group(const float *w, uint64_t n, float s, float lo, float hi, int8_t *code)
{
    const float inverse = s > 0 ? 1.0f / s : 0, magic = 0x1.8p23f;
    for (uint64_t i = 0; i < n; i++) {
        const float t = w[i] * inverse, low = t < lo ? lo : t, c = low > hi ? hi : low;
        code[i] = (int8_t)((c + magic) - magic);
    }
}

GYRE_CLONES static float least_squares_scale(const float *w, const int8_t *code, uint64_t n)
{
    double wq[LANES] = {0}, qq[LANES] = {0}, w_sum = 0, q_sum = 0;
    for (uint64_t i = 0; i < n; i += LANES)
        for (uint64_t l = 0; l < LANES && i + l < n; l++) {
            wq[l] += (double)w[i + l] * code[i + l];
            qq[l] += (double)code[i + l] * code[i + l];
        }
    for (int l = 0; l < LANES; l++) {
        w_sum += wq[l];
        q_sum += qq[l];
    }
    return q_sum > 0 ? (float)(w_sum / q_sum) : 0;
}

// Sum of importance * error^2, in LANES partial sums.
GYRE_CLONES static float weighted_squares(const float *w, const float *importance, uint64_t n, float s, float lo,
                                          float hi)
{
    const float inverse = 1.0f / s, magic = 0x1.8p23f;
    float sum[LANES] = {0}, total = 0;
    for (uint64_t i = 0; i < n; i += LANES)
        for (uint64_t l = 0; l < LANES && i + l < n; l++) {
            const float t = w[i + l] * inverse, low = t < lo ? lo : t, c = low > hi ? hi : low,
                        e = t - ((c + magic) - magic);
            sum[l] += importance[i + l] * e * e;
        }
    for (int l = 0; l < LANES; l++) total += sum[l];
    return s * s * total;
}

struct search {
    const float *w, *importance;
    uint64_t n;
    float lo, hi, max; // the grid's ends; the largest |weight|
    float scale, error;
    int best; // try of `scale`; -1: none yet
};

// Try i keeps 1 - 0.02 i of the largest weight.
static void try_clip(struct search *s, int i)
{
    const float scale = gyre_round_to_f16(s->max * (1.0f - (float)i * 0.02f) / s->hi);
    if (isinf(scale) || scale == 0) return;
    const float e = s->importance ? weighted_squares(s->w, s->importance, s->n, scale, s->lo, s->hi)
                                  : power_2_4(scale) * distortion(s->w, s->n, scale, s->lo, s->hi);
    if (s->best >= 0 && !(e < s->error)) return; // nor for NaN
    s->error = e;
    s->scale = scale;
    s->best = i;
}

GYRE_CLONES static float largest(const float *w, uint64_t n, bool *finite)
{
    uint32_t max[LANES] = {0}, most = 0; // bits of |w| are ordered as |w| is, infinities and NaNs above all numbers
    for (uint64_t i = 0; i < n; i += LANES)
        for (uint64_t l = 0; l < LANES && i + l < n; l++) {
            const uint32_t a = gyre_f32_bits(w[i + l]) & 0x7FFFFFFFu;
            max[l] = a > max[l] ? a : max[l];
        }
    for (int l = 0; l < LANES; l++) most = max[l] > most ? max[l] : most;
    *finite = most < 0x7F800000u;
    return gyre_f32_from_bits(most);
}

bool gyre_search_scale(const float *w, const float *importance, uint64_t n, uint32_t bits, bool search, float *scale)
{
    const float hi = (float)((1 << (bits - 1)) - 1);
    const int tries = !search ? 1 : bits == 4 ? 30 : 5; // at 8 bits hardly anything is worth clipping
    const bool coarse =
        n >= 256 && bits == 4; // the error of long groups is smooth: every sixth try, then around the best
    struct search s = {.w = w, .importance = importance, .n = n, .lo = -hi - 1, .hi = hi, .best = -1};
    bool finite;
    s.max = largest(w, n, &finite);
    *scale = 0;
    if (!finite) return false;
    for (int i = 0; i < tries; i += coarse ? 6 : 1) try_clip(&s, i);
    for (int step = 3; coarse && s.best >= 0 && step > 0; step -= 2) {
        const int around = s.best;
        if (around >= step) try_clip(&s, around - step);
        if (around + step < tries) try_clip(&s, around + step);
    }
    if (s.best >= 0) *scale = s.scale;
    return s.max == 0 || s.best >= 0 || gyre_round_to_f16(s.max / hi) == 0; // else every scale overflowed
}

// Scale and codes of one group; false if a weight is not finite or no scale is.
static bool round_one(const float *w, uint64_t n, uint32_t bits, int8_t *code, uint16_t *scale)
{
    const float hi = (float)((1 << (bits - 1)) - 1), lo = -hi - 1;
    float best;
    if (!gyre_search_scale(w, NULL, n, bits, true, &best)) return false;
    round_group(w, n, best, lo, hi, code);
    const float refit = gyre_round_to_f16(least_squares_scale(w, code, n));
    if (best > 0 && refit > 0 && refit != best && !isinf(refit) &&
        power_2_4(refit) * distortion(w, n, refit, lo, hi) < power_2_4(best) * distortion(w, n, best, lo, hi)) {
        best = refit;
        round_group(w, n, best, lo, hi, code);
    }
    *scale = gyre_f16_from_f32(best);
    return true;
}

gyre_status gyre_rtn(const float *w, uint64_t rows, uint64_t cols, struct gyre_codes *out, gyre_error *err)
{
    if ((out->bits != 4 && out->bits != 8) || out->group == 0 || cols % out->group)
        return gyre_fail(err, GYRE_E_INVALID, "cannot round to %u bits in groups of %u: %llu columns", out->bits,
                         out->group, (unsigned long long)cols);
    const int64_t groups = (int64_t)(rows * (cols / out->group));
    int64_t bad = INT64_MAX;
#pragma omp parallel for schedule(dynamic, 64) reduction(min : bad)
    for (int64_t g = 0; g < groups; g++) {
        const uint64_t at = (uint64_t)g * out->group;
        if (!round_one(w + at, out->group, out->bits, out->code + at, out->scale + g)) bad = GYRE_MIN(bad, g);
    }
    if (bad == INT64_MAX) return GYRE_OK;
    const uint64_t at = (uint64_t)bad * out->group;
    uint64_t worst = at;
    for (uint64_t i = at; i < at + out->group && isfinite(w[worst]); i++)
        if (!isfinite(w[i]) || fabsf(w[i]) > fabsf(w[worst])) worst = i;
    return gyre_fail(err, GYRE_E_FORMAT, "row %llu, column %llu: weight %g is not finite or too large for an f16 scale",
                     (unsigned long long)(worst / cols), (unsigned long long)(worst % cols), (double)w[worst]);
}

uint64_t gyre_codes_faint(const struct gyre_codes *codes, const float *w, uint64_t rows, uint64_t cols)
{
    const uint64_t groups = cols / codes->group;
    uint64_t faint = 0;
    for (uint64_t r = 0; r < rows; r++) {
        bool small = true, zero = true;
        for (uint64_t g = 0; g < groups && small; g++)
            small = gyre_f32_from_f16(codes->scale[r * groups + g]) < 0x1p-17f;
        for (uint64_t c = 0; c < cols && small && zero; c++) zero = w[r * cols + c] == 0;
        faint += small && !zero;
    }
    return faint;
}

GYRE_CLONES static void expand_group(const int8_t *code, uint64_t n, float scale, float *out)
{
    for (uint64_t i = 0; i < n; i++) out[i] = scale * (float)code[i];
}

void gyre_codes_expand(const struct gyre_codes *codes, uint64_t rows, uint64_t cols, float *out)
{
    const int64_t groups = (int64_t)(rows * (cols / codes->group));
#pragma omp parallel for schedule(static) if (rows * cols > 1 << 16)
    for (int64_t g = 0; g < groups; g++) {
        const uint64_t at = (uint64_t)g * codes->group;
        expand_group(codes->code + at, codes->group, gyre_f32_from_f16(codes->scale[g]), out + at);
    }
}

// One row's; LANES partial sums each.
GYRE_CLONES static void add_row(const float *w, const float *v, const float *gain, uint64_t n, double *error,
                                double *norm)
{
    double e[LANES] = {0}, s[LANES] = {0};
    for (uint64_t i = 0; i < n; i += LANES)
        for (uint64_t l = 0; l < LANES && i + l < n; l++) {
            const double g = gain ? (double)gain[i + l] : 1, a = g * (double)w[i + l], d = a - g * (double)v[i + l];
            e[l] += d * d;
            s[l] += a * a;
        }
    for (int l = 0; l < LANES; l++) {
        *error += e[l];
        *norm += s[l];
    }
}

void gyre_add_squares(const float *w, const float *v, const float *gain, uint64_t rows, uint64_t cols, double *error,
                      double *norm)
{
    enum { PARTS = 64 }; // however many threads there are
    double e[PARTS] = {0}, n[PARTS] = {0};
#pragma omp parallel for schedule(dynamic) if (rows * cols > 1 << 16)
    for (int part = 0; part < PARTS; part++)
        for (uint64_t r = rows * (uint64_t)part / PARTS; r < rows * (uint64_t)(part + 1) / PARTS; r++)
            add_row(w + r * cols, v + r * cols, gain, cols, &e[part], &n[part]);
    for (int part = 0; part < PARTS; part++) {
        *error += e[part];
        *norm += n[part];
    }
}

bool gyre_is_faint(double norm, uint64_t n) { return norm < 0x1p-40 * (double)n; }

double gyre_relative(double error, double norm, uint64_t n)
{
    return error / (gyre_is_faint(norm, n) ? (double)n : norm);
}

double gyre_relative_error(const float *w, const float *v, const float *gain, uint64_t rows, uint64_t cols)
{
    double error = 0, norm = 0;
    gyre_add_squares(w, v, gain, rows, cols, &error, &norm);
    return gyre_relative(error, norm, rows * cols);
}
