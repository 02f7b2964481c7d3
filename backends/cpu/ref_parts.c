// See ref_parts.h.
#include "backends/cpu/ref_parts.h"
#include "backends/cpu/ref.h"
#include "runtime/util/half.h"
#include "shaders/params.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

// ---- Hadamard -----------------------------------------------------------------------------------------

// Entry (i, j) of a base matrix, +1 or -1.
static double entry(const uint32_t *base, int32_t k, int32_t i, int32_t j)
{
    return base[i * ((k + 31) / 32) + j / 32] >> (j % 32) & 1 ? -1.0 : 1.0;
}

// One axis of k elements at distance `stride`: row vector times matrix.
static void dense_axis(double *x, int32_t n, int32_t k, int32_t stride, const uint32_t *base, bool transposed)
{
    double column[512];
    for (int32_t start = 0; start < n; start++) {
        if (start / stride % k) continue; // not the first element of a column
        for (int32_t i = 0; i < k; i++) column[i] = x[start + i * stride];
        for (int32_t i = 0; i < k; i++) {
            double sum = 0;
            for (int32_t j = 0; j < k; j++)
                sum += column[j] * (transposed ? entry(base, k, i, j) : entry(base, k, j, i));
            x[start + i * stride] = sum;
        }
    }
}

void gyre_ref_hadamard(double *x, const struct gyre_ref_had *had, const uint32_t *base)
{
    const int32_t k[3] = {had->k1, had->k2, had->k3};
    for (int32_t s = 0; s < had->segs; s++, x += had->n) {
        const uint32_t *words = base;
        int32_t stride = had->n;
        for (int axis = 0; axis < 3; axis++) {
            stride /= k[axis];
            if (k[axis] == 1) continue;
            dense_axis(x, had->n, k[axis], stride, words, had->transposed);
            words += k[axis] * ((k[axis] + 31) / 32);
        }
        for (int32_t h = 1; h < 1 << had->p; h *= 2)
            for (int32_t i = 0; i < had->n; i++) {
                if (i & h) continue;
                const double a = x[i], b = x[i + h];
                x[i] = a + b;
                x[i + h] = a - b;
            }
        for (int32_t i = 0; i < had->n; i++) x[i] /= sqrt(had->n);
    }
}

// ---- quantizer ----------------------------------------------------------------------------------------

// f32 scale of n values, NaN where they or it are not finite, and the least of them (with 0 among them).
static float row_scale(const float *x, int32_t n, int32_t bits, float clip, float *least)
{
    float lo = 0, hi = 0;
    bool finite = true;
    for (int32_t i = 0; i < n; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
        finite = finite && isfinite(x[i]);
    }
    float scale = (bits == 8 ? fmaxf(-lo, hi) : hi - lo) * clip;
    scale *= bits == 8 ? 1.0f / 127 : 1.0f / 15;
    *least = lo;
    if (!finite || !isfinite(scale)) return NAN;
    return scale > 0 ? scale : 0; // never -0
}

static void put_code(uint32_t *codes, int32_t i, int32_t code)
{
    codes[i / 4] |= ((uint32_t)code & 0xFF) << (8 * (i % 4));
}

static float inverse_of(float scale) { return scale > 0 ? 1.0f / scale : 0; }

static void quantize_groups(const float *x, int32_t width, float clip, int32_t span, uint32_t *codes, uint32_t meta[2])
{
    float top = 0, lo;
    bool finite = true;
    for (int32_t g = 0; g < width; g += span) {
        const float step = row_scale(x + g, span, 4, clip, &lo);
        top = fmaxf(top, step);
        finite = finite && isfinite(step);
    }
    const float scale = finite ? top * 0.125f : NAN;
    for (int32_t g = 0; g < width; g += span) {
        const float step = row_scale(x + g, span, 4, clip, &lo);
        const float times = fminf(fmaxf(rintf(step * inverse_of(scale)), 1), 8);
        const float inverse = inverse_of(times * scale), zero = fminf(rintf(-lo * clip * inverse), 15);
        for (int32_t i = g; i < g + span; i++)
            put_code(codes, i, (int32_t)((fminf(fmaxf(rintf(x[i] * inverse) + zero, 0), 15) - zero) * times));
    }
    meta[0] = gyre_f32_bits(scale);
    meta[1] = 0;
}

void gyre_ref_quantize_row(const float *x, int32_t width, int32_t bits, float clip, int32_t span, uint32_t *codes,
                           uint32_t meta[2])
{
    float lo;
    memset(codes, 0, (size_t)width);
    if (span) {
        quantize_groups(x, width, clip, span, codes, meta);
        return;
    }
    const float scale = row_scale(x, width, bits, clip, &lo), inverse = inverse_of(scale);
    const float zero = bits == 8 ? 0 : fminf(rintf(-lo * clip * inverse), 15);
    const float least = bits == 8 ? -128 : 0, most = bits == 8 ? 127 : 15;
    for (int32_t i = 0; i < width; i++)
        put_code(codes, i, (int32_t)fminf(fmaxf(rintf(x[i] * inverse) + zero, least), most));
    meta[0] = gyre_f32_bits(scale);
    meta[1] = (uint32_t)zero;
}

void gyre_ref_split_row(const float *x, int32_t width, int8_t *planes, size_t stride, uint32_t meta[2])
{
    uint32_t top = 0; // the bits of the greatest |x|
    for (int32_t i = 0; i < width; i++) {
        const uint32_t u = gyre_f32_bits(x[i]) & 0x7FFFFFFF;
        top = u > top ? u : top;
    }
    const int32_t exponent = (int32_t)((top + 0x10200) >> 23) - 127 - 22;
    const bool finite = top < 0x7F800000, none = exponent < 24 - 127 - 22;
    for (int32_t i = 0; i < width; i++) {
        const int32_t code = none || !finite ? 0 : (int32_t)rintf(ldexpf(x[i], -exponent)), above = (code + 128) >> 8;
        int8_t *const to = planes + i;
        to[0] = (int8_t)((above + 128) >> 8);
        to[stride] = (int8_t)(above - 256 * to[0]);
        to[2 * stride] = (int8_t)(code - 256 * above);
    }
    meta[0] = gyre_f32_bits(!finite ? NAN : none ? 0 : ldexpf(1, exponent));
    meta[1] = 0;
}

double gyre_ref_cached(const uint32_t *words, uint32_t meta, int i, int bits)
{
    const uint32_t code = words[i * bits / 32] >> i * bits % 32;
    if (bits == 16) return (double)gyre_f32_from_f16((uint16_t)code);
    if (bits == 32) return (double)gyre_f32_from_bits(code);
    const double scale = (double)gyre_f32_from_f16((uint16_t)meta),
                 zero = (double)gyre_f32_from_f16((uint16_t)(meta >> 16));
    return scale * ((double)(code & ((1u << bits) - 1)) - zero);
}

// ---- weights ------------------------------------------------------------------------------------------

struct gyre_ref_weight gyre_ref_weight(const struct gyre_ref_args *args, int32_t k, int32_t n_pad, int32_t group,
                                       const void *words, const void *scale)
{
    struct gyre_ref_weight w = {(int)(args->source->form & GYRE_FORM_WEIGHT), k, n_pad, group, words, scale, NULL};
    if (w.kind == 4 && gyre_ref_constant(args, "ZEROS")) w.zeros = w.scale + (size_t)(k / group) * (size_t)(n_pad / 2);
    return w;
}

static float half_of(uint32_t word, int32_t odd) { return gyre_f32_from_f16((uint16_t)(odd ? word >> 16 : word)); }

// The word of column n in row k / 4 of a weight whose blocks of 4 K x 8 N have `words` words.
static uint32_t block_word(const struct gyre_ref_weight *w, int32_t k, int32_t n, size_t words, size_t word)
{
    return w->words[GYRE_BLOCK((size_t)w->k / 4, (size_t)k / 4, (size_t)n / 8) * words + word];
}

int32_t gyre_ref_weight_zero(const struct gyre_ref_weight *w, int32_t g, int32_t n)
{
    return w->zeros ? (int32_t)(w->zeros[g * (w->n_pad / 8) + n / 8] >> 4 * (n % 8) & 15) : 8;
}

int32_t gyre_ref_weight_code(const struct gyre_ref_weight *w, int32_t k, int32_t n)
{
    if (w->kind == 4) { // a block of 4 K x 8 N: byte b of word j holds K = b, columns 2j (low) and 2j+1
        const uint32_t word = block_word(w, k, n, 4, (size_t)n % 8 / 2);
        return (int32_t)(word >> (8 * (k % 4) + 4 * (n % 2)) & 15) - gyre_ref_weight_zero(w, k / w->group, n);
    }
    return (int8_t)(block_word(w, k, n, 8, (size_t)n % 8) >> (8 * (k % 4)));
}

float gyre_ref_weight_scale(const struct gyre_ref_weight *w, int32_t g, int32_t n)
{
    return half_of(w->scale[g * (w->n_pad / 2) + n / 2], n % 2);
}

double gyre_ref_weight_value(const struct gyre_ref_weight *w, int32_t k, int32_t n)
{
    if (w->kind == 32) return (double)gyre_f32_from_bits(w->words[(size_t)k * (size_t)w->n_pad + (size_t)n]);
    if (w->kind == 16) return (double)half_of(w->words[(size_t)k * (size_t)(w->n_pad / 2) + (size_t)n / 2], n % 2);
    return gyre_ref_weight_code(w, k, n) * (double)gyre_ref_weight_scale(w, k / w->group, n);
}
