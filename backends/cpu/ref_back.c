// References of the ops that make gradients, but for those of the cache (ref_back_kv.c). What they are: the kernels'
// comments, and quantizer/gradient/rules.h for the quantizers.
#include "backends/cpu/ref.h"
#include "backends/cpu/ref_parts.h"
#include "runtime/core/activation.h"
#include "runtime/core/quantize.h"
#include "runtime/util/half.h"
#include "shaders/params.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

// dx[r][k] = sum_n dy[r][n] W[n][k]
void gyre_ref_op_matmul_back(const struct gyre_ref_args *args)
{
    const struct gyre_matmul_back_params *p = args->params;
    const struct gyre_ref_weight w = gyre_ref_weight(args, p->k, p->n_pad, p->group, args->bind[2], args->bind[3]);
    float *dx = args->bind[0];
    const float *dy = args->bind[1];
#pragma omp parallel for
    for (int32_t k = 0; k < p->k; k++) {
        double *row = malloc((size_t)p->n * sizeof *row);
        for (int32_t n = 0; row && n < p->n; n++) row[n] = gyre_ref_weight_value(&w, k, n);
        for (int32_t r = 0; r < p->rows; r++) {
            double sum = row ? 0 : NAN;
            const size_t at = (size_t)r * (size_t)p->k + (size_t)k;
            for (int32_t n = 0; row && n < p->n; n++) sum += (double)dy[r * p->ldy + p->n0 + n] * row[n];
            dx[at] = (float)(p->add ? (double)dx[at] + sum : sum);
        }
        free(row);
    }
}

// out[g][n] = sum_r dy[r][n] sum_{k in g} x[r][k] W[n][k]
void gyre_ref_op_scale_back(const struct gyre_ref_args *args)
{
    const struct gyre_scale_back_params *p = args->params;
    const struct gyre_ref_weight w = gyre_ref_weight(args, p->k, p->n_pad, p->group, args->bind[4], args->bind[5]);
    const bool quantized = (args->source->form & GYRE_FORM_QUANT) != 0;
    const float *dy = args->bind[1], *x = args->bind[2];
    const int8_t *codes = args->bind[2];
    const uint32_t *meta = args->bind[3];
    float *out = args->bind[0];
#pragma omp parallel for
    for (int32_t n = 0; n < p->n; n++)
        for (int32_t g = 0; g < p->k / p->group; g++) {
            double sum = 0;
            for (int32_t r = 0; r < p->rows; r++) {
                double y = 0;
                for (int32_t k = g * p->group; k < (g + 1) * p->group; k++) {
                    const double v = quantized ? (double)gyre_f32_from_bits(meta[2 * r]) *
                                                     (codes[r * p->k + k] - (int32_t)meta[2 * r + 1])
                                               : (double)x[r * p->k + k];
                    y += v * gyre_ref_weight_value(&w, k, n);
                }
                sum += y * (double)dy[r * p->ldy + p->n0 + n];
            }
            out[g * p->ldy + p->n0 + n] = (float)sum;
        }
}

void gyre_ref_op_columns(const struct gyre_ref_args *args)
{
    const struct gyre_columns_params *p = args->params;
    float *y = args->bind[0];
    const float *a = args->bind[1], *b = args->bind[2], *less = args->bind[3], *by = args->bind[4];
    for (int32_t i = 0; i < p->width; i++) {
        double sum = 0;
        for (int32_t r = 0; r < p->rows; r++)
            for (int32_t s = r * p->segs + p->first; s < r * p->segs + p->first + p->count; s++) {
                const int32_t at = s * p->width + i;
                double v = p->b ? (double)b[at] : 1;
                if (p->less) v -= (double)less[p->less == 2 ? i : at];
                sum += (double)a[at] * v * (p->by ? (double)by[s] : 1);
            }
        y[i] = (float)sum;
    }
}

// dx = r gain dy - x r^3 mean(x gain dy), r = 1 / sqrt(mean(x^2) + eps)
void gyre_ref_op_norm_back(const struct gyre_ref_args *args)
{
    const struct gyre_norm_back_params *p = args->params;
    float *dx = args->bind[0], *root = args->bind[1];
    const float *dy = args->bind[2], *x = args->bind[3], *gains = args->bind[4];
    for (int32_t s = 0; s < p->rows * p->segs; s++, dx += p->width, dy += p->width, x += p->width) {
        const int32_t head = s % p->segs;
        const bool normed = head < p->heads + p->kv_heads;
        const float *gain = gains + (normed && head >= p->heads ? p->width : 0);
        double square = 0, along = 0;
        for (int32_t i = 0; i < p->width; i++) {
            square += (double)x[i] * (double)x[i];
            along += (double)x[i] * (double)gain[i] * (double)dy[i];
        }
        const double r = 1 / sqrt(square / p->width + (double)p->eps), back = along * r * r * r / p->width;
        for (int32_t i = 0; i < p->width; i++)
            dx[i] = normed ? (float)((double)gain[i] * (double)dy[i] * r - (double)x[i] * back) : dy[i];
        root[s] = normed ? (float)r : 0;
    }
}

// ---- the quantizer ----------------------------------------------------------------------------------------

struct extremes {
    int32_t low, high; // places of the least and the greatest
};

static struct extremes extremes_of(const float *x, int32_t first, int32_t n)
{
    struct extremes e = {first, first};
    for (int32_t i = first; i < first + n; i++) {
        if (x[i] < x[e.low]) e.low = i;
        if (x[i] > x[e.high]) e.high = i;
    }
    return e;
}

// What passes of values first..first+n-1 of a row; returns their part of ds.
static double pass_through(const float *x, const int8_t *code, const float *dy, int32_t first, int32_t n, float scale,
                           float zero, const struct gyre_row_quantizer *q, float *dx)
{
    double ds = 0;
    for (int32_t i = first; i < first + n; i++) {
        const float nearest = rintf(x[i] * q->inverse) + q->zero;
        const bool inside = nearest >= q->least && nearest <= q->most;
        ds += (double)dy[i] * ((double)code[i] - (double)zero - (inside ? (double)x[i] / (double)scale : 0));
        dx[i] = inside ? dy[i] : 0;
    }
    return ds;
}

static float back_row(const struct gyre_quantize_back_params *p, const float *x, const int8_t *code,
                      const uint32_t meta[2], const float *dy, float *dx)
{
    const float scale = gyre_f32_from_bits(meta[0]), zero = (float)(int32_t)meta[1];
    struct extremes e = extremes_of(x, 0, p->width);
    double ds = 0;
    float top = -1;
    if (!(scale > 0)) {
        for (int32_t i = 0; i < p->width; i++) dx[i] = 0;
        return 0;
    }
    const struct gyre_row_quantizer whole = {
        scale, 1.0f / scale, zero, p->bits == 8 ? -128 : 0, p->bits == 8 ? 127 : 15, 0, 1};
    if (!p->span) ds = pass_through(x, code, dy, 0, p->width, scale, zero, &whole, dx);
    for (int32_t first = 0; p->span && first < p->width; first += p->span) {
        const struct gyre_row_quantizer q = gyre_group_quantizer(x + first, (uint64_t)p->span, p->clip, scale);
        const struct extremes one = extremes_of(x, first, p->span);
        const float range = fmaxf(x[one.high], 0) - fminf(x[one.low], 0);
        ds += pass_through(x, code, dy, first, p->span, scale, 0, &q, dx);
        if (range > top) top = range, e = one;
    }
    const double levels = p->span ? 15 * 8 : p->bits == 8 ? 127 : 15, each = ds * (double)p->clip / levels;
    const float lo = fminf(x[e.low], 0), hi = fmaxf(x[e.high], 0);
    if (lo < 0 && (p->bits != 8 || -lo > hi)) dx[e.low] -= (float)each;
    if (hi > 0 && (p->bits != 8 || -lo <= hi)) dx[e.high] += (float)each;
    return (float)(ds * (double)scale);
}

void gyre_ref_op_quantize_back(const struct gyre_ref_args *args)
{
    const struct gyre_quantize_back_params *p = args->params;
    const float *dy = args->bind[2], *x = args->bind[3];
    const int8_t *codes = args->bind[4];
    for (int32_t r = 0; r < p->rows; r++) {
        const int32_t at = r * p->width;
        ((float *)args->bind[1])[r] = back_row(p, x + at, codes + at, (const uint32_t *)args->bind[5] + 2 * r, dy + at,
                                               (float *)args->bind[0] + at);
    }
}

// ---- gated units --------------------------------------------------------------------------------------------

void gyre_ref_op_act_mul_back(const struct gyre_ref_args *args)
{
    const struct gyre_act_mul_back_params *p = args->params;
    float *dx = args->bind[0];
    const float *dy = args->bind[1], *x = args->bind[2];
    for (int32_t r = 0; r < p->rows; r++, x += 2 * p->width, dx += 2 * p->width, dy += p->width)
        for (int32_t i = 0; i < p->width; i++) {
            double slope;
            const double a = gyre_activation(p->act, (double)x[i], &slope);
            dx[i] = (float)((double)dy[i] * (double)x[p->width + i] * slope);
            dx[p->width + i] = (float)((double)dy[i] * a);
        }
}
