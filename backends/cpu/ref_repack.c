// Reference of repack: every element of a file's rows, one by one, to its place in the device layout of
// shaders/params.h.
#include "backends/cpu/ref.h"
#include "shaders/params.h"

#include <string.h>

struct file_rows {
    const struct gyre_repack_params *p;
    const void *data;
};

static uint16_t u16_at(const void *data, size_t byte)
{
    uint16_t h;
    memcpy(&h, (const char *)data + byte, 2);
    return h;
}

// What a format says of element (row, k) of the file: its code, and the scale of its group (row, g).
struct format {
    uint32_t form;
    int bits;
    int (*code)(const struct file_rows *, size_t row, size_t k);
    uint16_t (*scale)(const struct file_rows *, size_t row, size_t g); // NULL: scales come from elsewhere
};

static int code_i4(const struct file_rows *f, size_t row, size_t k)
{
    const uint32_t word = ((const uint32_t *)f->data)[(row * (size_t)f->p->k + k) / 8];
    return (int)(word >> 4 * (k % 8) & 15) - 8;
}

static int code_i8(const struct file_rows *f, size_t row, size_t k)
{
    return ((const int8_t *)f->data)[row * (size_t)f->p->k + k];
}

static const uint8_t *block(const struct file_rows *f, size_t row, size_t k, size_t bytes)
{
    return (const uint8_t *)f->data + (row * (size_t)f->p->k + k) / 32 * bytes;
}

static int code_q4_0(const struct file_rows *f, size_t row, size_t k)
{
    const uint8_t pair = block(f, row, k, 18)[2 + k % 16];
    return (k % 32 < 16 ? pair & 15 : pair >> 4) - 8;
}

static int code_q8_0(const struct file_rows *f, size_t row, size_t k)
{
    return (int8_t)block(f, row, k, 34)[2 + k % 32];
}

static uint16_t scale_q4_0(const struct file_rows *f, size_t row, size_t g)
{
    return u16_at(block(f, row, g * (size_t)f->p->group, 18), 0);
}

static uint16_t scale_q8_0(const struct file_rows *f, size_t row, size_t g)
{
    return u16_at(block(f, row, g * (size_t)f->p->group, 34), 0);
}

static const struct format formats[] = {
    {GYRE_FORM_W4, 4, code_i4, NULL},
    {GYRE_FORM_W8, 8, code_i8, NULL},
    {GYRE_FORM_W4 | GYRE_FORM_BLOCKS, 4, code_q4_0, scale_q4_0},
    {GYRE_FORM_W8 | GYRE_FORM_BLOCKS, 8, code_q8_0, scale_q8_0},
};

// Columns that are written: a multiple of 8, those without a row as zero.
static size_t columns(const struct gyre_repack_params *p) { return ((size_t)p->n + 7) / 8 * 8; }

static void repack_codes(const struct gyre_ref_args *args, const struct format *format)
{
    const struct gyre_repack_params *p = args->params;
    const struct file_rows f = {p, args->bind[format->scale ? 3 : 2]};
    uint8_t *w = args->bind[0];
    uint16_t *scale = format->scale ? args->bind[1] : NULL;
    int32_t *sums = args->bind[format->scale ? 2 : 1];
    const size_t n_pad = (size_t)p->n_pad, group = (size_t)p->group, rows4 = (size_t)p->k / 4;
#pragma omp parallel for
    for (int32_t g = 0; g < p->k / p->group; g++) {
        for (size_t row = 0; row < columns(p); row++) {
            const bool real = row < (size_t)p->n;
            const size_t n = (size_t)p->first + row, at = (size_t)g * n_pad + n;
            sums[at] = 0;
            if (scale) scale[at] = real ? format->scale(&f, row, (size_t)g) : 0;
            for (size_t k = (size_t)g * group; k < (size_t)(g + 1) * group; k++) {
                const int code = real ? format->code(&f, row, k) : 0;
                sums[at] += code;
                if (format->bits == 8) {
                    w[GYRE_BLOCK(rows4, k / 4, n / 8) * 32 + n % 8 * 4 + k % 4] = (uint8_t)code;
                } else { // word n/2 % 4 of block (k/4, n/8), byte k % 4, low nibble for even n
                    uint8_t *byte = w + GYRE_BLOCK(rows4, k / 4, n / 8) * 16 + n % 8 / 2 * 4 + k % 4;
                    *byte = (uint8_t)(n % 2 ? (*byte & 15) | (code + 8) << 4 : code + 8);
                }
            }
        }
    }
}

// y[k][first + row] = x[row][k] for elements of `bytes` bytes, rows of `length`.
static void transpose(const struct gyre_ref_args *args, size_t length, size_t bytes)
{
    const struct gyre_repack_params *p = args->params;
    const char *x = args->bind[1];
    for (size_t k = 0; k < length; k++)
        for (size_t row = 0; row < columns(p); row++) {
            char *y = (char *)args->bind[0] + (k * (size_t)p->n_pad + (size_t)p->first + row) * bytes;
            if (row < (size_t)p->n) memcpy(y, x + (row * length + k) * bytes, bytes);
            else memset(y, 0, bytes);
        }
}

// Behind the scales; sums are of codes less 8 until then.
static void repack_zeros(const struct gyre_ref_args *args)
{
    const struct gyre_repack_params *p = args->params;
    const size_t n_pad = (size_t)p->n_pad, groups = (size_t)(p->k / p->group);
    uint32_t *zeros = (uint32_t *)args->bind[0] + groups * n_pad / 2;
    int32_t *sums = args->bind[1];
    for (size_t g = 0; g < groups; g++)
        for (size_t row = 0; row < columns(p); row++) {
            const size_t n = (size_t)p->first + row;
            const int zero = row < (size_t)p->n ? ((const int8_t *)args->bind[2])[row * groups + g] : 0;
            uint32_t *const eight = &zeros[g * (n_pad / 8) + n / 8];
            *eight = (*eight & ~(15u << 4 * (n % 8))) | ((uint32_t)(zero + 8) & 15) << 4 * (n % 8);
            sums[g * n_pad + n] -= zero * p->group;
        }
}

void gyre_ref_op_repack(const struct gyre_ref_args *args)
{
    const struct gyre_repack_params *p = args->params;
    const uint32_t form = args->source->form;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (form == formats[i].form) repack_codes(args, &formats[i]);
    if (form == GYRE_FORM_ZERO) repack_zeros(args);
    if (form == GYRE_FORM_SCALE) transpose(args, (size_t)(p->k / p->group), 2);
    if (form == GYRE_FORM_F16) transpose(args, (size_t)p->k, 2);
    if (form == GYRE_FORM_F32) transpose(args, (size_t)p->k, 4);
}
