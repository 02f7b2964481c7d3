// Repacking on the quick host: tiles of the transpose instead of single elements. What the quantizer never uploads
// (blocks of Q4_0 and Q8_0) is left to the reference.
#include "backends/cpu/fast_parts.h"
#include "shaders/params.h"

#include <string.h>

enum { TILE = 32 };

// Columns that are written: a multiple of 8, those without a row as zero.
static int32_t columns(const struct gyre_repack_params *p) { return (p->n + 7) / 8 * 8; }

// y[k][first + row] = x[row][k], rows of `length`.
#define TRANSPOSE(name, type)                                                                                          \
    static void name(const struct gyre_repack_params *p, const type *x, type *y, int32_t length)                       \
    {                                                                                                                  \
        const int32_t cols = columns(p);                                                                               \
        _Pragma("omp parallel for schedule(static)") for (int32_t k0 = 0; k0 < length; k0 += TILE)                     \
        {                                                                                                              \
            const int32_t k1 = GYRE_MIN(k0 + TILE, length);                                                            \
            for (int32_t r0 = 0; r0 < cols; r0 += TILE)                                                                \
                for (int32_t k = k0; k < k1; k++)                                                                      \
                    for (int32_t r = r0; r < GYRE_MIN(r0 + TILE, cols); r++)                                           \
                        y[(size_t)k * (size_t)p->n_pad + (size_t)(p->first + r)] =                                     \
                            r < p->n ? x[(size_t)r * (size_t)length + (size_t)k] : 0;                                  \
        }                                                                                                              \
    }
TRANSPOSE(transpose_words, uint32_t)
TRANSPOSE(transpose_halves, uint16_t)

// Rows of words, four codes each, become columns first.. of a W8 weight.
static void place_words(const struct gyre_repack_params *p, const uint32_t *x, uint32_t *w)
{
    const int32_t rows4 = p->k / 4, cols = columns(p);
#pragma omp parallel for schedule(static)
    for (int32_t r0 = 0; r0 < cols; r0 += 8)
        for (int32_t k4 = 0; k4 < rows4; k4++) {
            uint32_t *const block = w + (size_t)GYRE_BLOCK(rows4, k4, (p->first + r0) / 8) * 8;
            for (int32_t c = 0; c < 8; c++)
                block[c] = r0 + c < p->n ? x[(size_t)(r0 + c) * (size_t)rows4 + (size_t)k4] : 0;
        }
}

// Sums of the signed bytes of every group of every row.
static void sum_bytes(const struct gyre_repack_params *p, const int8_t *x, int32_t *sums)
{
    const int32_t group = p->group, groups = p->k / group;
#pragma omp parallel for schedule(static)
    for (int32_t r = 0; r < columns(p); r++)
        for (int32_t g = 0; g < groups; g++) {
            int32_t sum = 0;
            for (int32_t k = 0; k < group && r < p->n; k++)
                sum += x[(size_t)r * (size_t)p->k + (size_t)(g * group + k)];
            sums[(size_t)g * (size_t)p->n_pad + (size_t)(p->first + r)] = sum;
        }
}

// Eight rows become columns n.. of the weight: byte b of word j holds k = b of rows 2j (low) and 2j + 1; a row that is
// not there is zero, code 8.
static void eight_rows(const struct gyre_repack_params *p, const uint8_t *x, int32_t row, uint8_t *w, int32_t *sums)
{
    const int32_t half = p->k / 2, group = p->group;
    const uint8_t *from[8];
    int32_t sum[8] = {0};
    for (int32_t c = 0; c < 8; c++) from[c] = row + c < p->n ? x + (size_t)(row + c) * (size_t)half : NULL;
    for (int32_t k = 0; k < p->k; k++) {
        uint8_t *const block = w + (size_t)GYRE_BLOCK(p->k / 4, k / 4, (p->first + row) / 8) * 16 + k % 4;
        int32_t code[8];
        for (int32_t c = 0; c < 8; c++) {
            code[c] = from[c] ? from[c][k / 2] >> 4 * (k % 2) & 15 : 8;
            sum[c] += code[c] - 8;
        }
        for (int32_t j = 0; j < 4; j++) block[4 * j] = (uint8_t)(code[2 * j] | code[2 * j + 1] << 4);
        if ((k + 1) % group) continue;
        memcpy(sums + (size_t)(k / group) * (size_t)p->n_pad + (size_t)(p->first + row), sum, sizeof sum);
        memset(sum, 0, sizeof sum);
    }
}

void gyre_fast_repack(const struct gyre_ref_args *args)
{
    const struct gyre_repack_params *p = args->params;
    const uint32_t form = args->source->form;
    if (form == GYRE_FORM_F32) transpose_words(p, args->bind[1], args->bind[0], p->k);
    else if (form == GYRE_FORM_F16) transpose_halves(p, args->bind[1], args->bind[0], p->k);
    else if (form == GYRE_FORM_SCALE) transpose_halves(p, args->bind[1], args->bind[0], p->k / p->group);
    else if (form == GYRE_FORM_W8) {
        place_words(p, args->bind[2], args->bind[0]);
        sum_bytes(p, args->bind[2], args->bind[1]);
    } else if (form == GYRE_FORM_W4) {
#pragma omp parallel for schedule(static)
        for (int32_t row = 0; row < columns(p); row += 8)
            eight_rows(p, args->bind[2], row, args->bind[0], args->bind[1]);
    } else gyre_ref_op_repack(args);
}
