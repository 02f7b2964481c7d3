// The rule of products. The weight is expanded to floats a piece of its columns at a time, as the product itself does
// (backends/cpu/fast_matmul.c); tiles do not depend on the number of threads.
#include "quantizer/gradient/rules.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 2048, TILE = 64 }; // columns; rows of one BLAS call

// Row k of columns first..first+n-1 of a range (first a multiple of 8), less the zero points of its group, eight a word
// (NULL: 8); w has room for n rounded up to 8.
GYRE_CLONES static void expand_codes(const uint32_t *words, uint32_t bits, uint32_t rows4, uint32_t k, uint32_t first,
                                     uint32_t n, const uint32_t *zeros, float *w)
{
    const uint32_t byte = 8 * (k % 4);
    for (uint32_t c = 0; c < n; c += 8) {
        const uint32_t *block = words + (uint64_t)GYRE_BLOCK((uint64_t)rows4, k / 4, (first + c) / 8) * bits;
        const uint32_t zero = zeros ? zeros[(first + c) / 8] : 0x88888888u;
        for (uint32_t j = 0; j < 8; j++)
            w[c + j] =
                bits == 4
                    ? (float)((int32_t)(block[j / 2] >> (byte + 4 * (j % 2)) & 15) - (int32_t)(zero >> 4 * j & 15))
                    : (float)(int8_t)(block[j] >> byte);
    }
}

GYRE_CLONES static void scale_by(float *w, const uint16_t *scale, uint32_t n)
{
    for (uint32_t c = 0; c < n; c++) w[c] *= gyre_f32_from_f16(scale[c]);
}

static void expand_row(const struct gyre_weight *weight, uint32_t range, uint32_t k, uint32_t first, uint32_t n,
                       float *w)
{
    const struct gyre_weight_range *at = &weight->range[range];
    const uint32_t *words = gyre_back_memory(at->weight);
    const uint64_t pad = at->n_pad;
    if (weight->kind == GYRE_WEIGHT_F32) {
        memcpy(w, words + k * pad + first, n * sizeof *w);
    } else if (weight->kind == GYRE_WEIGHT_F16) {
        const uint16_t *half = (const uint16_t *)(const void *)words + k * pad + first;
        for (uint32_t c = 0; c < n; c++) w[c] = gyre_f32_from_f16(half[c]);
    } else {
        const uint16_t *scale = gyre_back_memory(at->scale);
        const uint64_t g = k / weight->group, groups = weight->k / weight->group;
        const uint32_t *zeros = weight->kind != GYRE_WEIGHT_W4Z
                                    ? NULL
                                    : (const uint32_t *)(const void *)(scale + groups * pad) + g * (pad / 8);
        expand_codes(words, gyre_weight_is_int4(weight->kind) ? 4 : 8, weight->k / 4, k, first, n, zeros, w);
        scale_by(w, scale + g * pad + first, n);
    }
}

// What the product read, as floats: itself, or what its codes mean (malloc'd into *made).
static const float *operand(const struct gyre_back *b, float **made)
{
    const struct gyre_value_info *x = gyre_back_info(b, b->node->in[0]);
    const void *plane = gyre_back_plane(b->graph, b->node->in[0], 0);
    *made = NULL;
    if (x->kind == GYRE_VALUE_F32) return plane;
    const int8_t *code = plane;
    const uint32_t *meta = gyre_back_plane(b->graph, b->node->in[0], 1);
    float *out = *made = malloc((uint64_t)x->rows * x->width * sizeof *out);
#pragma omp parallel for schedule(static)
    for (uint32_t r = 0; r < (out ? x->rows : 0); r++) {
        const float scale = gyre_f32_from_bits(meta[2 * r]), zero = (float)(int32_t)meta[2 * r + 1];
        for (uint32_t i = 0; i < x->width; i++)
            out[(uint64_t)r * x->width + i] = scale * ((float)code[(uint64_t)r * x->width + i] - zero);
    }
    return out;
}

struct piece {
    uint32_t rows, k, n; // n: columns of the piece
    uint64_t n0, ldy;    // its first column of the output; the output's width
    const float *x, *dy; // [rows][k]; [rows][ldy], at column n0
    const float *w;      // [k][PIECE]
};

static void add_inputs(const struct piece *p, float *dx)
{
#pragma omp parallel for schedule(dynamic)
    for (uint32_t r = 0; r < p->rows; r += TILE)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)GYRE_MIN((uint32_t)TILE, p->rows - r), (int)p->k,
                    (int)p->n, 1, p->dy + r * p->ldy, (int)p->ldy, p->w, PIECE, 1, dx + (uint64_t)r * p->k, (int)p->k);
}

// dw [k][PIECE] = x' dy.
static void cross(const struct piece *p, float *dw)
{
#pragma omp parallel for schedule(dynamic)
    for (uint32_t k = 0; k < p->k; k += TILE)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)GYRE_MIN((uint32_t)TILE, p->k - k), (int)p->n,
                    (int)p->rows, 1, p->x + k, (int)p->k, p->dy, (int)p->ldy, 0, dw + (uint64_t)k * PIECE, PIECE);
}

// Of the logarithms of the scales, [k / group][ldy]: sums over a group of what each weight's gradient times the weight
// is.
static void add_scales(const struct piece *p, const float *dw, uint32_t group, float *out)
{
#pragma omp parallel for schedule(static)
    for (uint32_t g = 0; g < p->k / group; g++) {
        double sum[PIECE] = {0};
        for (uint32_t k = g * group; k < (g + 1) * group; k++)
            for (uint32_t c = 0; c < p->n; c++)
                sum[c] += (double)dw[(uint64_t)k * PIECE + c] * (double)p->w[(uint64_t)k * PIECE + c];
        for (uint32_t c = 0; c < p->n; c++) out[g * p->ldy + p->n0 + c] += (float)sum[c];
    }
}

static void add_floats(const struct piece *p, const float *dw, float *out)
{
#pragma omp parallel for schedule(static)
    for (uint32_t c = 0; c < p->n; c++)
        for (uint32_t k = 0; k < p->k; k++) out[(p->n0 + c) * p->k + k] += dw[(uint64_t)k * PIECE + c];
}

// Per channel: y = s (codes . x), so that the gradient by log s is the column's dot product of dy and y.
static gyre_status add_channels(const struct gyre_back *b, float *out, gyre_error *err)
{
    const struct gyre_matmul_params *p = &b->node->params.matmul;
    const uint64_t rows = (uint64_t)p->rows, n = (uint64_t)p->ldy;
    const float *y = gyre_back_plane(b->graph, b->node->out[0], 0);
    float *own = NULL;
    if (p->add) { // y less what was added
        const float *addend = gyre_back_plane(b->graph, b->node->in[2], 0);
        own = malloc(rows * n * sizeof *own);
        if (!own) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for gradients");
        for (uint64_t r = 0; r < rows; r++)
            for (uint64_t c = 0; c < n; c++) own[r * n + c] = y[r * n + c] - addend[p->add == 2 ? c : r * n + c];
    }
    gyre_back_columns(b->dout, n, own ? own : y, n, NULL, rows, n, out);
    free(own);
    return GYRE_OK;
}

gyre_status gyre_back_matmul(const struct gyre_back *b, gyre_error *err)
{
    const struct gyre_matmul_params *p = &b->node->params.matmul;
    const struct gyre_weight *weight = gyre_back_info(b, b->node->in[1])->weight;
    const bool coded = gyre_weight_is_coded(weight->kind), channels = coded && weight->group == weight->k,
               crosses = b->din[1] && !channels;
    gyre_status st = GYRE_OK;
    float *made = NULL, *w = malloc((uint64_t)weight->k * PIECE * sizeof *w),
          *dw = crosses ? malloc((uint64_t)weight->k * PIECE * sizeof *dw) : NULL;
    const float *x = crosses ? operand(b, &made) : NULL;
    if (!w || (crosses && (!dw || !x))) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for gradients"));
    for (uint32_t i = 0; i < weight->n_ranges; i++)
        for (uint32_t first = 0; first < weight->range[i].n; first += PIECE) {
            const struct piece piece = {.rows = (uint32_t)p->rows,
                                        .k = weight->k,
                                        .n = GYRE_MIN((uint32_t)PIECE, weight->range[i].n - first),
                                        .n0 = weight->range[i].n0 + first,
                                        .ldy = (uint64_t)p->ldy,
                                        .x = x,
                                        .dy = b->dout + weight->range[i].n0 + first,
                                        .w = w};
#pragma omp parallel for schedule(static)
            for (uint32_t k = 0; k < weight->k; k++) expand_row(weight, i, k, first, piece.n, w + (uint64_t)k * PIECE);
            if (b->din[0]) add_inputs(&piece, b->din[0]);
            if (!crosses) continue;
            cross(&piece, dw);
            if (coded) add_scales(&piece, dw, weight->group, b->din[1]);
            else add_floats(&piece, dw, b->din[1]);
        }
    if (b->din[1] && channels) GYRE_GO(add_channels(b, b->din[1], err));
    if (b->din[2] && p->add == 2)
        gyre_back_columns(b->dout, (uint64_t)p->ldy, NULL, 0, NULL, (uint64_t)p->rows, (uint64_t)p->ldy, b->din[2]);
    for (uint64_t i = 0; b->din[2] && p->add == 1 && i < (uint64_t)p->rows * (uint64_t)p->ldy; i++)
        b->din[2][i] += b->dout[i];
done:
    free(made);
    free(w);
    free(dw);
    return st;
}
