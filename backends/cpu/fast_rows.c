// The ops that work on whole rows on the quick host: rms_norm, quantize, hadamard, act_mul and their fusions. Rows go
// through in panels; a transform sees a panel with its rows interleaved.
#include "backends/cpu/fast_parts.h"
#include "runtime/core/quantize.h"
#include "shaders/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- Hadamard -----------------------------------------------------------------------------------------------

bool gyre_fast_had_open(struct gyre_fast_had *had, int32_t n, int32_t segs, int32_t k1, int32_t k2, int32_t k3,
                        int32_t p, bool transposed, const uint32_t *base)
{
    *had = (struct gyre_fast_had){.n = n, .segs = segs, .k = {k1, k2, k3}, .p = p};
    for (int f = 0; f < 3; f++) {
        const int32_t k = had->k[f], words = (k + 31) / 32;
        if (k == 1) continue;
        float *to = had->entries[f] = malloc((size_t)k * (size_t)k * sizeof *to);
        if (!to) return false;
        for (int32_t i = 0; i < k; i++)
            for (int32_t j = 0; j < k; j++)
                to[transposed ? j * k + i : i * k + j] = base[i * words + j / 32] >> (j % 32) & 1 ? -1.0f : 1.0f;
        base += k * words;
    }
    return true;
}

void gyre_fast_had_close(struct gyre_fast_had *had)
{
    for (int f = 0; f < 3; f++) free(had->entries[f]);
}

uint64_t gyre_fast_had_scratch(const struct gyre_fast_had *had)
{
    return (uint64_t)GYRE_FAST_LANES * (uint64_t)GYRE_MAX(had->k[0], GYRE_MAX(had->k[1], had->k[2]));
}

enum { L = GYRE_FAST_LANES };

// One axis of length k between `outer` slower and `inner` faster elements: y_j = sum_i x_i entries[i][j].
GYRE_INLINE void dense_axis(const float *entries, int64_t k, int64_t outer, int64_t inner, float *x, float *column)
{
    for (int64_t o = 0; o < outer; o++)
        for (int64_t c = 0; c < inner; c++) {
            float *const at = x + (o * k * inner + c) * L;
            for (int64_t i = 0; i < k; i++) memcpy(column + i * L, at + i * inner * L, sizeof(float) * L);
            for (int64_t j = 0; j < k; j++) {
                float sum[L] = {0};
                for (int64_t i = 0; i < k; i++)
                    for (int l = 0; l < L; l++) sum[l] += entries[i * k + j] * column[i * L + l];
                memcpy(at + j * inner * L, sum, sizeof sum);
            }
        }
}

GYRE_INLINE void axis(int64_t half, int64_t count, float *x)
{
    for (int64_t start = 0; start < count; start += 2 * half) {
        float *const a = x + start * L, *const b = a + half * L;
        for (int64_t i = 0; i < half * L; i++) {
            const float u = a[i], v = b[i];
            a[i] = u + v;
            b[i] = u - v;
        }
    }
}

GYRE_INLINE void two_axes(int64_t half, int64_t count, float *x)
{
    const int64_t n = half * L;
    for (int64_t start = 0; start < count; start += 4 * half) {
        float *const at = x + start * L;
        for (int64_t i = 0; i < n; i++) {
            const float a = at[i] + at[i + n], b = at[i] - at[i + n], c = at[i + 2 * n] + at[i + 3 * n],
                        d = at[i + 2 * n] - at[i + 3 * n];
            at[i] = a + c;
            at[i + n] = b + d;
            at[i + 2 * n] = a - c;
            at[i + 3 * n] = b - d;
        }
    }
}

GYRE_CLONES void gyre_fast_had_panel(const struct gyre_fast_had *had, float *panel, float *scratch)
{
    const int64_t width = (int64_t)had->n * had->segs, end = (int64_t)1 << had->p;
    int64_t outer = had->segs, inner = had->n, half = 1;
    for (int f = 0; f < 3; f++) {
        inner /= had->k[f];
        if (had->entries[f]) dense_axis(had->entries[f], had->k[f], outer, inner, panel, scratch);
        outer *= had->k[f];
    }
    for (; 4 * half <= end; half *= 4) two_axes(half, width, panel);
    if (half < end) axis(half, width, panel);
    const float scale = 1 / sqrtf((float)had->n);
    for (int64_t i = 0; i < width * L; i++) panel[i] *= scale;
}

// ---- where rows go ------------------------------------------------------------------------------------------

// f32 y[R][width], or codes and meta.
struct target {
    float *y;
    int8_t *codes;
    uint32_t *meta;
    int64_t width;
    int32_t bits;
    float clip;
    int64_t span;
};

// As the shaders.
GYRE_CLONES static void quantize_row(const float *x, int64_t n, int32_t bits, float clip, int8_t *codes,
                                     uint32_t meta[2])
{
    const struct gyre_row_quantizer q = gyre_row_quantizer(x, (uint64_t)n, (uint32_t)bits, clip);
    for (int64_t i = 0; i < n; i++) codes[i] = (int8_t)(int32_t)gyre_row_code(&q, x[i]);
    meta[0] = gyre_f32_bits(q.scale);
    meta[1] = (uint32_t)(int32_t)q.zero;
}

GYRE_CLONES static void quantize_groups(const float *x, int64_t n, float clip, int64_t span, int8_t *codes,
                                        uint32_t meta[2])
{
    const float scale = gyre_grouped_scale(x, (uint64_t)n, (uint64_t)span, clip);
    for (int64_t g = 0; g < n; g += span) {
        const struct gyre_row_quantizer q = gyre_group_quantizer(x + g, (uint64_t)span, clip, scale);
        for (int64_t i = g; i < g + span; i++)
            codes[i] = (int8_t)(int32_t)(q.times * (gyre_row_code(&q, x[i]) - q.zero));
    }
    meta[0] = gyre_f32_bits(scale);
    meta[1] = 0;
}

static void put(const struct target *t, int64_t r, const float *row)
{
    if (t->y) memmove(t->y + r * t->width, row, (size_t)t->width * sizeof *row);
    else if (t->span) quantize_groups(row, t->width, t->clip, t->span, t->codes + r * t->width, t->meta + 2 * r);
    else quantize_row(row, t->width, t->bits, t->clip, t->codes + r * t->width, t->meta + 2 * r);
}

// ---- panels of rows -----------------------------------------------------------------------------------------

// What makes a row of the target from the inputs, before a transform of it.
struct source {
    const float *x; // [rows][stride]
    int64_t stride;
    const float *gain; // rms_norm: one per column; hadamard: one per column, or NULL
    float eps;
    int32_t act;
    void (*row)(const struct source *, int64_t r, int64_t width, float *out);
};

// The first n columns of `lanes` rows, `stride` apart, as a panel and back.
GYRE_CLONES static void interleave(const float *rows, int64_t stride, int64_t n, int64_t lanes, float *panel)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t l = 0; l < L; l++) panel[i * L + l] = l < lanes ? rows[l * stride + i] : 0;
}

GYRE_CLONES static void separate(const float *panel, int64_t stride, int64_t n, int64_t lanes, float *rows)
{
    for (int64_t l = 0; l < lanes; l++)
        for (int64_t i = 0; i < n; i++) rows[l * stride + i] = panel[i * L + l];
}

static void out_of_memory(const struct target *t, int64_t rows)
{
    if (t->y) memset(t->y, 0xFF, (size_t)(rows * t->width) * sizeof *t->y);
    else memset(t->meta, 0xFF, (size_t)rows * 2 * sizeof *t->meta);
}

// `had` NULL: none; else of the first segs * n columns.
static void run(const struct target *t, int64_t rows, const struct source *from, const struct gyre_fast_had *had)
{
    const int64_t width = t->width, turned = had ? (int64_t)had->n * had->segs : 0;
    const uint64_t floats = (uint64_t)(width + turned) * L + (had ? gyre_fast_had_scratch(had) : 0);
    bool good = true;
#pragma omp parallel reduction(&& : good) if (rows * width > 1 << 15)
    {
        float *row = malloc(floats * sizeof *row);
        good = row != NULL;
#pragma omp for schedule(dynamic, 4)
        for (int64_t first = 0; first < rows; first += L) {
            const int64_t lanes = GYRE_MIN(rows - first, (int64_t)L);
            for (int64_t l = 0; row && l < lanes; l++) from->row(from, first + l, width, row + l * width);
            if (row && had) {
                float *panel = row + width * L;
                interleave(row, width, turned, lanes, panel);
                gyre_fast_had_panel(had, panel, panel + turned * L);
                separate(panel, width, turned, lanes, row);
            }
            for (int64_t l = 0; row && l < lanes; l++) put(t, first + l, row + l * width);
        }
        free(row);
    }
    if (!good) out_of_memory(t, rows);
}

static struct target target_of(const struct gyre_ref_args *args, bool quantized, int32_t width, int32_t bits,
                               float clip, int32_t span)
{
    if (!quantized) return (struct target){.y = args->bind[0], .width = width};
    return (struct target){
        .codes = args->bind[0], .meta = args->bind[1], .width = width, .bits = bits, .clip = clip, .span = span};
}

// ---- the ops ------------------------------------------------------------------------------------------------

GYRE_CLONES static void norm_row(const struct source *s, int64_t r, int64_t width, float *out)
{
    const float *x = s->x + r * s->stride;
    double sums[8] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 8 <= width; i += 8)
        for (int l = 0; l < 8; l++) sums[l] += (double)x[i + l] * (double)x[i + l];
    for (; i < width; i++) sum += (double)x[i] * (double)x[i];
    for (int l = 0; l < 8; l++) sum += sums[l];
    const float scale = (float)(1 / sqrt(sum / (double)width + (double)s->eps));
    for (i = 0; i < width; i++) out[i] = x[i] * scale * s->gain[i];
}

// x and gain are bound from `first` on.
static void rms_norm(const struct gyre_ref_args *args, const struct gyre_rms_norm_params *p,
                     const struct gyre_fast_had *had, bool quantized, uint32_t first)
{
    const struct source from = {
        .x = args->bind[first], .stride = p->width, .gain = args->bind[first + 1], .eps = p->eps, .row = norm_row};
    const struct target t = target_of(args, quantized, p->width, p->bits, p->clip, p->span);
    run(&t, p->rows, &from, had);
}

void gyre_fast_rms_norm(const struct gyre_ref_args *args) { rms_norm(args, args->params, NULL, false, 1); }
void gyre_fast_rms_norm_quant(const struct gyre_ref_args *args) { rms_norm(args, args->params, NULL, true, 2); }

static void rms_norm_had(const struct gyre_ref_args *args, bool quantized)
{
    const struct gyre_rms_norm_had_params *p = args->params;
    const struct gyre_rms_norm_params norm = {p->rows, p->width, p->eps, p->bits, p->clip, p->span};
    const struct target t = target_of(args, quantized, p->width, p->bits, p->clip, p->span);
    const uint32_t *base = args->bind[args->source->n_writes + 2];
    struct gyre_fast_had had = {0};
    if (gyre_fast_had_open(&had, p->n, p->segs, p->k1, p->k2, p->k3, p->p, p->had_t, base))
        rms_norm(args, &norm, &had, quantized, args->source->n_writes);
    else out_of_memory(&t, p->rows);
    gyre_fast_had_close(&had);
}

void gyre_fast_rms_norm_had(const struct gyre_ref_args *args) { rms_norm_had(args, false); }
void gyre_fast_rms_norm_had_quant(const struct gyre_ref_args *args) { rms_norm_had(args, true); }

GYRE_CLONES static void plain_row(const struct source *s, int64_t r, int64_t width, float *out)
{
    const float *x = s->x + r * s->stride;
    if (s->gain)
        for (int64_t i = 0; i < width; i++) out[i] = x[i] * s->gain[i];
    else memcpy(out, x, (size_t)width * sizeof *out);
}

void gyre_fast_quantize(const struct gyre_ref_args *args)
{
    const struct gyre_quantize_params *p = args->params;
    const struct target t = target_of(args, true, p->width, p->bits, p->clip, p->span);
    const float *x = args->bind[2];
    if (p->bits == 24) { // what no host asks for
        gyre_ref_op_quantize(args);
        return;
    }
#pragma omp parallel for schedule(static) if ((int64_t)p->rows * p->width > 1 << 15)
    for (int32_t r = 0; r < p->rows; r++) put(&t, r, x + (int64_t)r * p->width);
}

void gyre_fast_hadamard(const struct gyre_ref_args *args)
{
    const struct gyre_hadamard_params *p = args->params;
    const struct source from = {
        .x = args->bind[1], .stride = p->width, .gain = p->scaled ? args->bind[3] : NULL, .row = plain_row};
    const struct target t = target_of(args, false, p->width, 0, 0, 0);
    struct gyre_fast_had had;
    if (gyre_fast_had_open(&had, p->n, p->segs, p->k1, p->k2, p->k3, p->p, p->had_t, args->bind[2]))
        run(&t, p->rows, &from, &had);
    else out_of_memory(&t, p->rows);
    gyre_fast_had_close(&had);
}

// SiLU; GELU in its tanh form, where (1 + tanh u) / 2 = 1 / (1 + e^-2u).
GYRE_CLONES static void act_row(const struct source *s, int64_t r, int64_t width, float *out)
{
    const float *gate = s->x + r * s->stride, *up = gate + width;
    if (s->act == 0)
        for (int64_t i = 0; i < width; i++) out[i] = gate[i] / (1 + gyre_fast_exp(-gate[i])) * up[i];
    else
        for (int64_t i = 0; i < width; i++) {
            const float g = gate[i], u = 0.7978845608f * (g + 0.044715f * g * g * g);
            out[i] = g / (1 + gyre_fast_exp(-2 * u)) * up[i];
        }
}

static void act_mul(const struct gyre_ref_args *args, const float *gate_up, const uint32_t *base, bool quantized)
{
    const struct gyre_act_mul_params *p = args->params;
    const struct source from = {.x = gate_up, .stride = 2 * (int64_t)p->width, .act = p->act, .row = act_row};
    const struct target t = target_of(args, quantized, p->width, p->bits, p->clip, p->span);
    struct gyre_fast_had had = {0};
    if (!base) run(&t, p->rows, &from, NULL);
    else if (gyre_fast_had_open(&had, p->n, p->segs, p->k1, p->k2, p->k3, p->p, p->had_t, base))
        run(&t, p->rows, &from, &had);
    else out_of_memory(&t, p->rows);
    gyre_fast_had_close(&had);
}

void gyre_fast_act_mul(const struct gyre_ref_args *args) { act_mul(args, args->bind[1], NULL, false); }
void gyre_fast_act_mul_quant(const struct gyre_ref_args *args) { act_mul(args, args->bind[2], NULL, true); }
void gyre_fast_act_mul_had(const struct gyre_ref_args *args) { act_mul(args, args->bind[1], args->bind[2], false); }

void gyre_fast_act_mul_had_quant(const struct gyre_ref_args *args)
{
    const uint32_t first =
        args->source->n_writes; // the variant that works in a buffer has its scratch among the outputs
    act_mul(args, args->bind[first], args->bind[first + 1], true);
}
