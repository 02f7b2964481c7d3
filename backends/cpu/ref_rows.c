// References of the ops that work on whole rows: rms_norm, quantize, gather, hadamard, act_mul and their
// fusions.
#include "backends/cpu/ref.h"
#include "backends/cpu/ref_parts.h"
#include "shaders/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Where a row of doubles goes: f32 y[R][width], or codes and meta.
struct target {
    float *y;
    uint32_t *codes, *meta;
    int32_t width, bits;
    float clip;
    int32_t span;
};

static struct target target_of(const struct gyre_ref_args *args, bool quantized, int32_t width, int32_t bits,
                               float clip, int32_t span)
{
    if (!quantized) return (struct target){.y = args->bind[0], .width = width};
    return (struct target){
        .codes = args->bind[0], .meta = args->bind[1], .width = width, .bits = bits, .clip = clip, .span = span};
}

// `row` is NULL when memory ran out: the outputs say so.
static void put(const struct target *t, int32_t r, const double *row)
{
    float *y = t->y ? t->y + (size_t)r * (size_t)t->width : malloc((size_t)t->width * sizeof *y);
    if (y)
        for (int32_t i = 0; i < t->width; i++) y[i] = row ? (float)row[i] : NAN;
    if (t->y) return;
    uint32_t *codes = t->codes + (size_t)r * (size_t)(t->width / 4);
    if (y && row) gyre_ref_quantize_row(y, t->width, t->bits, t->clip, t->span, codes, t->meta + 2 * r);
    else memset(t->meta + 2 * r, 0xFF, 8);
    free(y);
}

// y = x / sqrt(mean(x^2) + eps) * gain      Zhang & Sennrich 2019, eq. 4
// `had` NULL: nothing behind it. x, gain and base are bound from `first` on.
static void rms_norm(const struct gyre_ref_args *args, const struct gyre_rms_norm_params *p,
                     const struct gyre_ref_had *had, bool quantized, uint32_t first)
{
    const float *x = args->bind[first], *gain = args->bind[first + 1];
    const struct target target = target_of(args, quantized, p->width, p->bits, p->clip, p->span);
    double *row = malloc((size_t)p->width * sizeof *row);
    for (int32_t r = 0; r < p->rows; r++, x += p->width) {
        double sum = 0;
        for (int32_t i = 0; i < p->width; i++) sum += (double)x[i] * (double)x[i];
        const double factor = 1 / sqrt(sum / p->width + (double)p->eps);
        for (int32_t i = 0; row && i < p->width; i++) row[i] = (double)x[i] * factor * (double)gain[i];
        if (row && had) gyre_ref_hadamard(row, had, args->bind[first + 2]);
        put(&target, r, row);
    }
    free(row);
}

void gyre_ref_op_rms_norm(const struct gyre_ref_args *args) { rms_norm(args, args->params, NULL, false, 1); }
void gyre_ref_op_rms_norm_quant(const struct gyre_ref_args *args) { rms_norm(args, args->params, NULL, true, 2); }

// The row, then its Hadamard transform.
static void rms_norm_had(const struct gyre_ref_args *args, bool quantized)
{
    const struct gyre_rms_norm_had_params *p = args->params;
    const struct gyre_rms_norm_params norm = {p->rows, p->width, p->eps, p->bits, p->clip, p->span};
    const struct gyre_ref_had had = {p->n, p->segs, p->k1, p->k2, p->k3, p->p, p->had_t};
    rms_norm(args, &norm, &had, quantized, args->source->n_writes);
}

void gyre_ref_op_rms_norm_had(const struct gyre_ref_args *args) { rms_norm_had(args, false); }
void gyre_ref_op_rms_norm_had_quant(const struct gyre_ref_args *args) { rms_norm_had(args, true); }

// Columns in another order, the same in every row.
void gyre_ref_op_gather(const struct gyre_ref_args *args)
{
    const struct gyre_gather_params *p = args->params;
    float *y = args->bind[0];
    const float *x = args->bind[1];
    const int32_t *order = args->bind[2];
    for (int32_t r = 0; r < p->rows; r++, x += p->width, y += p->width)
        for (int32_t j = 0; j < p->width; j++) y[j] = x[order[j]];
}

void gyre_ref_op_quantize(const struct gyre_ref_args *args)
{
    const struct gyre_quantize_params *p = args->params;
    uint32_t *codes = args->bind[0], *meta = args->bind[1];
    const float *x = args->bind[2];
    for (int32_t r = 0; r < p->rows && p->bits == 24; r++) {
        const size_t at = (size_t)r * (size_t)p->width;
        gyre_ref_split_row(x + at, p->width, (int8_t *)codes + 3 * at, (size_t)p->width, meta + 2 * r);
    }
    for (int32_t r = 0; r < p->rows && p->bits != 24; r++)
        gyre_ref_quantize_row(x + (size_t)r * (size_t)p->width, p->width, p->bits, p->clip, p->span,
                              codes + r * (p->width / 4), meta + 2 * r);
}

void gyre_ref_op_hadamard(const struct gyre_ref_args *args)
{
    const struct gyre_hadamard_params *p = args->params;
    const struct gyre_ref_had had = {p->n, p->segs, p->k1, p->k2, p->k3, p->p, p->had_t};
    const struct target target = target_of(args, false, p->width, 0, 0, 0);
    const float *x = args->bind[1], *scale = args->bind[3];
    double *row = malloc((size_t)p->width * sizeof *row);
    for (int32_t r = 0; r < p->rows; r++, x += p->width) {
        for (int32_t i = 0; row && i < p->width; i++) row[i] = (double)x[i] * (p->scaled ? (double)scale[i] : 1);
        if (row) gyre_ref_hadamard(row, &had, args->bind[2]);
        put(&target, r, row);
    }
    free(row);
}

// SiLU: g * sigmoid(g). GELU in its tanh form (Hendrycks & Gimpel 2016).
static double activation(int32_t act, double g)
{
    if (act == 0) return g / (1 + exp(-g));
    return 0.5 * g * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g)));
}

static void act_mul(const struct gyre_ref_args *args, const float *gate_up, const uint32_t *base, bool quantized)
{
    const struct gyre_act_mul_params *p = args->params;
    const struct gyre_ref_had had = {p->n, p->segs, p->k1, p->k2, p->k3, p->p, p->had_t};
    const struct target target = target_of(args, quantized, p->width, p->bits, p->clip, p->span);
    double *row = malloc((size_t)p->width * sizeof *row);
    for (int32_t r = 0; r < p->rows; r++, gate_up += 2 * p->width) {
        for (int32_t i = 0; row && i < p->width; i++)
            row[i] = activation(p->act, (double)gate_up[i]) * (double)gate_up[p->width + i];
        if (row && base) gyre_ref_hadamard(row, &had, base);
        put(&target, r, row);
    }
    free(row);
}

void gyre_ref_op_act_mul(const struct gyre_ref_args *args) { act_mul(args, args->bind[1], NULL, false); }
void gyre_ref_op_act_mul_quant(const struct gyre_ref_args *args) { act_mul(args, args->bind[2], NULL, true); }
void gyre_ref_op_act_mul_had(const struct gyre_ref_args *args) { act_mul(args, args->bind[1], args->bind[2], false); }

void gyre_ref_op_act_mul_had_quant(const struct gyre_ref_args *args)
{
    const uint32_t first =
        args->source->n_writes; // the variant that works in a buffer has one output more: its scratch
    act_mul(args, args->bind[first], args->bind[first + 1], true);
}
