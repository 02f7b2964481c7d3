// The product on the quick host: the weight as floats [K][columns], tile by tile one sgemm of one thread. Integers up
// to 2^24 are exact in float, and so is every partial sum that stays below: codes are multiplied as numbers and scaled
// afterwards where each channel has one scale.
#include "backends/cpu/fast_parts.h"
#include "backends/cpu/ref_parts.h"
#include "shaders/params.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 4096, SLAB = 32 };          // columns and k that are expanded at a time
enum { TILE_ROWS = 256, TILE_COLS = 256 }; // of y, that one sgemm makes

struct product {
    const struct gyre_matmul_params *p;
    struct gyre_ref_weight w;
    bool scale_last;      // per channel: s_w behind the product, else inside the expanded weight
    float *y;             // [rows][ldy]
    const float *x;       // [rows][k]
    const uint32_t *meta; // of a quantized x
    const float *addend;
};

// ---- operands -----------------------------------------------------------------------------------------------

GYRE_CLONES static void codes_to_floats(const int8_t *codes, float zero, int64_t n, float *x)
{
    for (int64_t i = 0; i < n; i++) x[i] = (float)codes[i] - zero;
}

// A quantized x as floats: code - zero, exact.
static float *expand_x(const int8_t *codes, const uint32_t *meta, int32_t rows, int32_t k)
{
    float *x = malloc((size_t)rows * (size_t)k * sizeof *x);
#pragma omp parallel for schedule(static) if ((int64_t)rows * k > 1 << 16)
    for (int32_t row = 0; row < (x ? rows : 0); row++)
        codes_to_floats(codes + (size_t)row * (size_t)k, (float)(int32_t)meta[2 * row + 1], k,
                        x + (size_t)row * (size_t)k);
    return x;
}

// Four k's of n columns (a multiple of 8) from their words, less their zero points; w [4][PIECE].
GYRE_CLONES static void expand_w4(const uint32_t *words, int32_t n, const float *zero, float *w)
{
    for (int32_t c = 0; c < n / 2; c++) // word c: byte b holds columns 2c (low) and 2c + 1 of k = b
        for (int32_t b = 0; b < 4; b++) {
            const uint32_t pair = words[c] >> 8 * b & 0xFF;
            w[b * PIECE + 2 * c] = (float)(int32_t)(pair & 15) - zero[2 * c];
            w[b * PIECE + 2 * c + 1] = (float)(int32_t)(pair >> 4) - zero[2 * c + 1];
        }
}

GYRE_CLONES static void expand_w8(const uint32_t *words, int32_t n, float *w)
{
    for (int32_t b = 0; b < 4; b++)
        for (int32_t c = 0; c < n; c++) w[b * PIECE + c] = (float)(int8_t)(words[c] >> 8 * b);
}

GYRE_CLONES static void expand_halves(const uint32_t *pairs, int32_t n, float *out)
{
    for (int32_t c = 0; c < n / 2; c++) {
        out[2 * c] = gyre_f32_from_f16((uint16_t)pairs[c]);
        out[2 * c + 1] = gyre_f32_from_f16((uint16_t)(pairs[c] >> 16));
    }
}

GYRE_CLONES static void scale_by(float *w, const float *scale, int32_t n)
{
    for (int32_t c = 0; c < n; c++) w[c] *= scale[c];
}

// Columns first..first+n-1 (multiples of 8) of a weight into w [k][PIECE]; codes without their scales when those come
// last.
static void expand_weight(const struct product *q, int32_t first, int32_t n, float *w)
{
    const struct gyre_ref_weight *from = &q->w;
    const int32_t k = q->p->k, n_pad = from->n_pad;
    if (from->kind == 16) {
#pragma omp parallel for schedule(static)
        for (int32_t i = 0; i < k; i++)
            expand_halves(from->words + ((size_t)i * (size_t)n_pad + (size_t)first) / 2, n, w + (size_t)i * PIECE);
        return;
    }
    const size_t words = from->kind == 4 ? 4 : 8; // of a block
#pragma omp parallel
    {
        float *scale = malloc((size_t)n * sizeof *scale); // without it weights are NaN
        int32_t group = -1;                               // whose scales they are
#pragma omp for schedule(static)
        for (int32_t i0 = 0; i0 < k; i0 += SLAB) { // a tile's piece of a slab is one run of memory
            const int32_t end = GYRE_MIN(i0 + SLAB, k);
            for (int32_t c = 0; c < n; c += GYRE_TILE) {
                float zero[GYRE_TILE];
                for (int32_t i = i0; i < end; i += 4) {
                    if (from->kind == 4 && (i == i0 || (from->zeros && i % from->group == 0)))
                        for (int32_t j = 0; j < GYRE_MIN(n - c, GYRE_TILE); j++)
                            zero[j] = (float)gyre_ref_weight_zero(from, i / from->group, first + c + j);
                    const uint32_t *const block =
                        from->words + (size_t)GYRE_BLOCK(k / 4, i / 4, (first + c) / 8) * words;
                    float *const to = w + (size_t)i * PIECE + (size_t)c;
                    if (from->kind == 4) expand_w4(block, GYRE_MIN(n - c, GYRE_TILE), zero, to);
                    else expand_w8(block, GYRE_MIN(n - c, GYRE_TILE), to);
                }
            }
            for (int32_t i = i0; i < end && !q->scale_last; i++) {
                float *const to = w + (size_t)i * PIECE;
                if (scale && i / from->group != group) {
                    group = i / from->group;
                    expand_halves(from->scale + ((size_t)group * (size_t)n_pad + (size_t)first) / 2, n, scale);
                }
                if (scale) scale_by(to, scale, n);
                else
                    for (int32_t c = 0; c < n; c++) to[c] = NAN;
            }
        }
        free(scale);
    }
}

// ---- tiles --------------------------------------------------------------------------------------------------

struct tile {
    int32_t row, rows, col, cols;
};

GYRE_CLONES static void finish_row(float *y, const float *scale, float by, const float *addend, int32_t n)
{
    if (scale)
        for (int32_t c = 0; c < n; c++) y[c] = by * (scale[c] * y[c]);
    else if (by != 1)
        for (int32_t c = 0; c < n; c++) y[c] *= by;
    if (addend)
        for (int32_t c = 0; c < n; c++) y[c] += addend[c];
}

// Columns are counted within the range; w is at column `first`, ldw apart; scale (of the piece) NULL: in the weight.
static void multiply(const struct product *q, const struct tile *t, const float *w, int32_t first, int32_t ldw,
                     const float *scale)
{
    const struct gyre_matmul_params *p = q->p;
    const size_t at = (size_t)t->row * (size_t)p->ldy + (size_t)(p->n0 + t->col);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, t->rows, t->cols, p->k, 1,
                q->x + (size_t)t->row * (size_t)p->k, p->k, w + (t->col - first), ldw, 0, q->y + at, p->ldy);
    if (!q->meta && !p->add) return;
    for (int32_t r = 0; r < t->rows; r++) {
        const size_t row = at + (size_t)r * (size_t)p->ldy;
        finish_row(q->y + row, scale ? scale + (t->col - first) : NULL,
                   q->meta ? gyre_f32_from_bits(q->meta[2 * (t->row + r)]) : 1,
                   !p->add ? NULL : q->addend + (p->add == 2 ? (size_t)(p->n0 + t->col) : row), t->cols);
    }
}

// All rows times columns first..first+n-1. The last bits of an sgemm go by its shape: tiles go by the product alone,
// never by the number of threads, so that this does not change what a calibrated file holds. Every thread packs both
// operands for itself, and nobody waits for anybody until the end.
static void multiply_piece(const struct product *q, const float *w, int32_t first, int32_t n, int32_t ldw,
                           const float *scale)
{
    const int32_t rows = q->p->rows, down = (rows + TILE_ROWS - 1) / TILE_ROWS,
                  across = (n + TILE_COLS - 1) / TILE_COLS;
#pragma omp parallel for schedule(dynamic) if ((int64_t)rows * n * q->p->k > 1 << 20)
    for (int32_t i = 0; i < down * across; i++) {
        struct tile t = {.row = i / across * TILE_ROWS, .col = i % across * TILE_COLS};
        t.rows = GYRE_MIN(TILE_ROWS, rows - t.row);
        t.cols = GYRE_MIN(TILE_COLS, n - t.col);
        t.col += first;
        multiply(q, &t, w, first, ldw, scale);
    }
}

static void fill(const struct product *q, float value)
{
    for (int32_t r = 0; r < q->p->rows; r++)
        for (int32_t c = 0; c < q->p->n; c++) q->y[(size_t)r * (size_t)q->p->ldy + (size_t)(q->p->n0 + c)] = value;
}

static void run(const struct product *q)
{
    const int32_t n = q->p->n;
    if (q->w.kind == 32) {
        multiply_piece(q, (const float *)q->w.words, 0, n, q->w.n_pad, NULL);
        return;
    }
    float *w = malloc((size_t)gyre_round_up((uint64_t)q->p->k, 4) * PIECE * sizeof *w),
          *scale = malloc(PIECE * sizeof *scale);
    if (!w || !scale) fill(q, NAN);
    for (int32_t first = 0; first < n && w && scale; first += PIECE) {
        const int32_t cols = GYRE_MIN(PIECE, n - first), padded = (cols + 7) / 8 * 8;
        expand_weight(q, first, padded, w);
        if (q->scale_last) expand_halves(q->w.scale + first / 2, padded, scale);
        multiply_piece(q, w, first, cols, PIECE, q->scale_last ? scale : NULL);
    }
    free(scale);
    free(w);
}

void gyre_fast_matmul(const struct gyre_ref_args *args)
{
    const struct gyre_matmul_params *p = args->params;
    const bool quantized = (args->source->form & GYRE_FORM_QUANT) != 0;
    if (gyre_ref_constant(args, "PLANES") == 3) { // what no host asks for
        gyre_ref_op_matmul(args);
        return;
    }
    struct product q = {
        .p = p,
        .w = gyre_ref_weight(args, p->k, p->n_pad, p->group, args->bind[3], args->bind[4]),
        .y = args->bind[0],
        .x = args->bind[1],
        .meta = quantized ? args->bind[2] : NULL,
        .addend = args->bind[6],
    };
    q.scale_last = quantized && q.w.kind <= 8 && p->group == p->k;
    float *x = NULL;
    if (quantized) q.x = x = expand_x(args->bind[1], q.meta, p->rows, p->k);
    if (q.x) run(&q);
    else fill(&q, NAN);
    free(x);
}

void gyre_fast_quant_matmul(const struct gyre_ref_args *args)
{
    gyre_ref_quant_matmul(args, gyre_fast_rms_norm_quant, gyre_fast_quantize, gyre_fast_matmul);
}
