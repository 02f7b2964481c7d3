// References of the ops that read weights: matmul and embed.
//
// Integer weights times a quantized x: integer sums, exact. Everything else: sums in double, a few columns at a time.
#include "backends/cpu/ref.h"
#include "backends/cpu/ref_parts.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"
#include "shaders/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 16, LANES = 8 }; // that are unpacked at a time; partial sums of a product in double

struct product {
    const struct gyre_matmul_params *p;
    struct gyre_ref_weight w;
    float *y;
    const float *x;      // float x
    const int8_t *codes; // quantized x
    bool split;          // to 24 bits: of each row the high bytes, the middle and the low ones
    const uint32_t *meta;
    const int32_t *sums;
    const float *addend;
};

static void store(const struct product *q, int32_t row, int32_t col, float value)
{
    const size_t at = (size_t)row * (size_t)q->p->ldy + (size_t)(q->p->n0 + col);
    const size_t from = q->p->add == 2 ? (size_t)(q->p->n0 + col) : at; // one addend for all rows
    q->y[at] = q->p->add ? value + q->addend[from] : value;
}

GYRE_CLONES static int32_t dot(const int8_t *a, const int8_t *b, int32_t n)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

// y = s_x * sum over groups of s_w * (sum of code_w * code_x - zero * sums): integers exact, then f32 in the order of
// the groups, as the kernels do it. Per channel there is one group: integers through all of K, one scaling. An x of
// three bytes has a sum of integers for each.
static void integer_column(const struct product *q, int32_t col, int8_t *w, float *scale)
{
    const int32_t k = q->p->k, group = q->p->group;
    for (int32_t i = 0; i < k; i++) w[i] = (int8_t)gyre_ref_weight_code(&q->w, i, col);
    for (int32_t g = 0; g < k / group; g++) scale[g] = gyre_ref_weight_scale(&q->w, g, col);
    for (int32_t row = 0; row < q->p->rows; row++) {
        const int8_t *x = q->codes + (size_t)row * (size_t)k * (q->split ? 3 : 1);
        const int32_t zero = (int32_t)q->meta[2 * row + 1];
        float y = 0;
        for (int32_t g = 0; g < k / group; g++) {
            const int32_t sum = dot(w + g * group, x + g * group, group) - zero * q->sums[g * q->p->n_pad + col];
            if (q->split) {
                const float middle = (float)dot(w + g * group, x + k + g * group, group),
                            low = (float)dot(w + g * group, x + 2 * k + g * group, group);
                y += scale[g] * (65536 * (float)sum + (256 * middle + low));
            } else y += scale[g] * (float)sum;
        }
        store(q, row, col, gyre_f32_from_bits(q->meta[2 * row]) * y);
    }
}

static void integer_product(const struct product *q)
{
#pragma omp parallel
    {
        int8_t *w = malloc((size_t)q->p->k);
        float *scale = malloc((size_t)(q->p->k / q->p->group) * sizeof *scale);
#pragma omp for
        for (int32_t col = 0; col < q->p->n; col++) {
            if (w && scale) integer_column(q, col, w, scale);
            else
                for (int32_t row = 0; row < q->p->rows; row++) store(q, row, col, NAN);
        }
        free(scale);
        free(w);
    }
}

// Row x [K] times column w [K] in double.
GYRE_CLONES static double dot_double(const double *x, const double *w, int32_t k)
{
    double sum[LANES] = {0}, rest = 0;
    int32_t i = 0;
    for (; i + LANES <= k; i += LANES)
        for (int l = 0; l < LANES; l++) sum[l] += x[i + l] * w[i + l];
    for (; i < k; i++) rest += x[i] * w[i];
    for (int l = 0; l < LANES; l++) rest += sum[l];
    return rest;
}

// A few columns: w [COLUMNS][K] in double against every row of x [rows][K]. For a quantized x its scale comes last.
static void float_columns(const struct product *q, int32_t first, int32_t n, const double *x, double *w)
{
    const int32_t k = q->p->k;
    for (int32_t i = 0; i < k; i++)
        for (int32_t c = 0; c < n; c++) w[c * k + i] = gyre_ref_weight_value(&q->w, i, first + c);
    for (int32_t row = 0; row < q->p->rows; row++, x += k)
        for (int32_t c = 0; c < n; c++) {
            const double y = dot_double(x, w + c * k, k);
            store(q, row, first + c, (float)(q->x ? y : y * (double)gyre_f32_from_bits(q->meta[2 * row])));
        }
}

static void float_product(const struct product *q)
{
    const int32_t rows = q->p->rows, k = q->p->k;
    double *x = malloc((size_t)rows * (size_t)k * sizeof *x);
    if (x)
        for (int32_t row = 0; row < rows; row++)
            for (int32_t i = 0; i < k; i++) {
                const size_t at = (size_t)row * (size_t)k + (size_t)i;
                x[at] = q->x ? (double)q->x[at] : q->codes[at] - (int32_t)q->meta[2 * row + 1];
            }
#pragma omp parallel
    {
        double *w = malloc((size_t)k * COLUMNS * sizeof *w);
#pragma omp for schedule(dynamic, 4)
        for (int32_t first = 0; first < q->p->n; first += COLUMNS) {
            const int32_t n = GYRE_MIN(COLUMNS, q->p->n - first);
            if (x && w) float_columns(q, first, n, x, w);
            for (int32_t row = 0; row < rows && !(x && w); row++)
                for (int32_t c = 0; c < n; c++) store(q, row, first + c, NAN);
        }
        free(w);
    }
    free(x);
}

void gyre_ref_op_matmul(const struct gyre_ref_args *args)
{
    const struct gyre_matmul_params *p = args->params;
    const bool quantized = (args->source->form & GYRE_FORM_QUANT) != 0;
    const struct product q = {
        .p = p,
        .w = gyre_ref_weight(args, p->k, p->n_pad, p->group, args->bind[3], args->bind[4]),
        .y = args->bind[0],
        .x = quantized ? NULL : args->bind[1],
        .codes = quantized ? args->bind[1] : NULL,
        .split = gyre_ref_constant(args, "PLANES") == 3,
        .meta = args->bind[2],
        .sums = args->bind[5],
        .addend = args->bind[6],
    };
    if (quantized && q.w.kind <= 8) integer_product(&q);
    else float_product(&q);
}

static void fill_nan(const struct product *q)
{
    for (int32_t row = 0; row < q->p->rows; row++)
        for (int32_t col = 0; col < q->p->n; col++) store(q, row, col, NAN);
}

// At 24 bits: the row, its norm in f32 where there is one, three bytes of each number, integers.
static void split_product(const struct gyre_ref_args *args, const struct gyre_matmul_params *m)
{
    const struct gyre_quant_matmul_params *p = args->params;
    const size_t k = (size_t)p->k, count = (size_t)p->rows * k;
    const struct gyre_rms_norm_params n = {.rows = p->rows, .width = p->k, .eps = p->eps};
    float *normed = malloc(count * sizeof *normed);
    int8_t *codes = malloc(3 * count);
    uint32_t *meta = malloc((size_t)p->rows * 8);
    const struct product q = {.p = m,
                              .w = gyre_ref_weight(args, p->k, p->n_pad, p->group, args->bind[3], args->bind[4]),
                              .y = args->bind[0],
                              .codes = codes,
                              .split = true,
                              .meta = meta,
                              .sums = args->bind[5],
                              .addend = args->bind[6]};
    const struct gyre_ref_args norm = {
        .bind = {normed, args->bind[1], args->bind[2]}, .params = &n, .source = args->source};
    if (normed && codes && meta) {
        if (p->normed) gyre_ref_op_rms_norm(&norm);
        const float *x = p->normed ? normed : args->bind[1];
        for (size_t r = 0; r < (size_t)p->rows; r++)
            gyre_ref_split_row(x + r * k, p->k, codes + 3 * r * k, k, meta + 2 * r);
        integer_product(&q);
    } else fill_nan(&q);
    free(normed);
    free(codes);
    free(meta);
}

void gyre_ref_quant_matmul(const struct gyre_ref_args *args, gyre_ref_part *norm, gyre_ref_part *quantize,
                           gyre_ref_part *matmul)
{
    const struct gyre_quant_matmul_params *p = args->params;
    const size_t rows = (size_t)p->rows, k = (size_t)p->k;
    const struct gyre_rms_norm_params n = {p->rows, p->k, p->eps, p->bits, p->clip, 0};
    const struct gyre_quantize_params q = {p->rows, p->k, p->bits, p->clip, 0};
    const struct gyre_matmul_params m = {p->rows, p->k, p->n, p->n_pad, p->group, p->ldy, p->n0, p->add};
    if (p->bits == 24) {
        split_product(args, &m);
        return;
    }
    uint32_t *codes = malloc(rows * k), *meta = malloc(rows * 8);
    struct gyre_ref_args part = {.bind = {codes, meta, args->bind[1], args->bind[2]}, .source = args->source};
    part.params = p->normed ? (const void *)&n : (const void *)&q;
    if (codes && meta) (p->normed ? norm : quantize)(&part);
    part = *args;
    part.params = &m, part.bind[1] = codes, part.bind[2] = meta;
    if (codes && meta) matmul(&part);
    for (size_t r = 0; r < rows && !(codes && meta); r++)
        for (int32_t i = 0; i < p->n; i++) ((float *)args->bind[0])[r * (size_t)p->ldy + (size_t)(p->n0 + i)] = NAN;
    free(codes);
    free(meta);
}

void gyre_ref_op_quant_matmul(const struct gyre_ref_args *args)
{
    gyre_ref_quant_matmul(args, gyre_ref_op_rms_norm_quant, gyre_ref_op_quantize, gyre_ref_op_matmul);
}

// y = scale * row of the table, for tokens of this range of it.
void gyre_ref_op_embed(const struct gyre_ref_args *args)
{
    const struct gyre_embed_params *p = args->params;
    float *y = args->bind[0];
    const int32_t *rows = args->bind[1];
    const struct gyre_ref_weight w = gyre_ref_weight(args, p->width, p->n_pad, p->group, args->bind[2], args->bind[3]);
    for (int32_t r = 0; r < p->rows; r++) {
        const int32_t token = rows[4 * r] - p->n0;
        if (token < 0 || token >= p->n) continue;
        for (int32_t i = 0; i < p->width; i++)
            y[r * p->width + i] = (float)((double)p->scale * gyre_ref_weight_value(&w, i, token));
    }
}
