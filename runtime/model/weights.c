// See weights.h. File rows travel in bounded pieces: decoded or re-packed on the host where the file's type has no
// device form, then turned into the device layout by the repack kernels (runtime/graph/repack.h).
#include "runtime/model/weights.h"

#include "runtime/core/codec.h"
#include "runtime/graph/repack.h"
#include "runtime/model/half_range.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 8 << 20 }; // of decoded rows on the host at a time

static gyre_status plane_create(gyre_device *device, uint64_t bytes, const char *label, struct gyre_binding *out,
                                gyre_error *err)
{
    *out = (struct gyre_binding){.size = bytes};
    return gyre_buffer_create(device, bytes, label, &out->buffer, err);
}

gyre_status gyre_weight_create(gyre_device *device, gyre_weight_kind kind, uint32_t n, uint32_t k, uint32_t group,
                               const char *label, struct gyre_weight *out, gyre_error *err)
{
    const uint32_t most = gyre_weight_max_columns(gyre_device_info(device), kind, k, group); // of one range
    *out = (struct gyre_weight){.kind = kind, .n = n, .k = k, .group = group};
    if (most == 0) {
        return gyre_fail(
            err, GYRE_E_DEVICE_MEM,
            "cannot place weight (%s): %u columns of %u inputs exceed one binding of %s; use another device", label,
            gyre_weight_pad(kind, 1), k, gyre_device_info(device)->id);
    }
    out->n_ranges = (uint32_t)gyre_div_up(n, most);
    out->range = calloc(out->n_ranges, sizeof *out->range);
    if (!out->range) return gyre_fail(err, GYRE_E_NOMEM, "cannot place weight (%s): out of memory", label);
    gyre_status st = GYRE_OK;
    for (uint32_t i = 0; i < out->n_ranges; i++) {
        struct gyre_weight_range *r = &out->range[i];
        r->n0 = i * most;
        r->n = GYRE_MIN(most, n - r->n0);
        r->n_pad = gyre_weight_pad(kind, r->n);
        uint64_t bytes[3];
        gyre_weight_plane_bytes(kind, r->n, k, group, bytes);
        GYRE_GO(plane_create(device, bytes[0], label, &r->weight, err));
        r->scale = r->sums = r->weight;
        if (bytes[1]) {
            r->scale.buffer = r->sums.buffer = NULL;
            GYRE_GO(plane_create(device, bytes[1], label, &r->scale, err));
            GYRE_GO(plane_create(device, bytes[2], label, &r->sums, err));
        }
    }
done:
    if (st != GYRE_OK) gyre_weight_destroy(device, out);
    return st;
}

void gyre_weight_destroy(gyre_device *device, struct gyre_weight *weight)
{
    for (uint32_t i = 0; weight->range && i < weight->n_ranges; i++) {
        struct gyre_weight_range *r = &weight->range[i];
        if (r->scale.buffer != r->weight.buffer) {
            gyre_buffer_destroy(device, r->scale.buffer);
            gyre_buffer_destroy(device, r->sums.buffer);
        }
        gyre_buffer_destroy(device, r->weight.buffer);
    }
    gyre_buffer_destroy(device, weight->order.buffer);
    free(weight->range);
    *weight = (struct gyre_weight){0};
}

uint64_t gyre_weight_bytes(const struct gyre_weight *weight)
{
    uint64_t total = weight->order.size;
    for (uint32_t i = 0; i < weight->n_ranges; i++) {
        uint64_t bytes[3];
        gyre_weight_plane_bytes(weight->kind, weight->range[i].n, weight->k, weight->group, bytes);
        total += bytes[0] + bytes[1] + bytes[2];
    }
    return total;
}

// ---- filling ------------------------------------------------------------------------------------------

// Rows in file layout `format` go to columns n0.. of the weight, range by range.
static gyre_status fill_rows(gyre_repacker *repacker, const struct gyre_weight *w, gyre_repack_format format,
                             const unsigned char *rows, uint64_t row_bytes, const uint16_t *scales, const int8_t *zeros,
                             uint32_t n0, uint32_t n, gyre_error *err)
{
    const uint32_t groups = w->k / w->group;
    for (uint32_t i = 0; i < w->n_ranges; i++) {
        const struct gyre_weight_range *r = &w->range[i];
        const uint32_t first = GYRE_MAX(n0, r->n0), end = GYRE_MIN(n0 + n, r->n0 + r->n);
        if (first >= end) continue;
        const uint64_t skip = first - n0;
        GYRE_TRY(gyre_repack_upload(repacker, format, rows + skip * row_bytes, scales ? scales + skip * groups : NULL,
                                    zeros ? zeros + skip * groups : NULL, end - first, w->k, w->group, first - r->n0, r,
                                    err));
    }
    return GYRE_OK;
}

// Codes (int8) to the packed form that the repack kernel reads. zeros: where the kind has them.
static gyre_status fill_codes(gyre_repacker *repacker, const struct gyre_weight *w, uint32_t n0, uint32_t n,
                              const int8_t *codes, const uint16_t *scales, const int8_t *zeros, gyre_error *err)
{
    if (w->kind == GYRE_WEIGHT_W8)
        return fill_rows(repacker, w, GYRE_REPACK_I8, (const unsigned char *)codes, w->k, scales, NULL, n0, n, err);
    const uint64_t row_bytes = w->k / 2;
    unsigned char *packed = malloc(n * row_bytes);
    if (!packed) return gyre_fail(err, GYRE_E_NOMEM, "cannot pack weights: out of memory");
    for (uint64_t i = 0; i < n; i++) gyre_pack_i4(codes + i * w->k, w->k, packed + i * row_bytes);
    const gyre_status st = fill_rows(repacker, w, GYRE_REPACK_I4, packed, row_bytes, scales, zeros, n0, n, err);
    free(packed);
    return st;
}

gyre_status gyre_weight_fill(gyre_repacker *repacker, const struct gyre_weight *w, uint32_t n0, uint32_t n,
                             const float *f32, const int8_t *codes, const uint16_t *scales, gyre_error *err)
{
    if (w->kind == GYRE_WEIGHT_F32 && f32)
        return fill_rows(repacker, w, GYRE_REPACK_F32, (const unsigned char *)f32, (uint64_t)w->k * 4, NULL, NULL, n0,
                         n, err);
    if (w->kind == GYRE_WEIGHT_F16 && f32) {
        uint16_t *half = malloc((size_t)n * w->k * 2);
        if (!half) return gyre_fail(err, GYRE_E_NOMEM, "cannot convert weights: out of memory");
        for (uint64_t i = 0; i < (uint64_t)n * w->k; i++) half[i] = gyre_f16_from_f32(f32[i]);
        const gyre_status st = fill_rows(repacker, w, GYRE_REPACK_F16, (const unsigned char *)half, (uint64_t)w->k * 2,
                                         NULL, NULL, n0, n, err);
        free(half);
        return st;
    }
    if (!codes || !scales || w->kind == GYRE_WEIGHT_W4Z)
        return gyre_fail(err, GYRE_E_INVALID, "cannot fill weight: the kind asks for %s",
                         w->kind == GYRE_WEIGHT_W4Z ? "zero points" : "codes and scales");
    return fill_codes(repacker, w, n0, n, codes, scales, NULL, err);
}

// ---- from a file --------------------------------------------------------------------------------------

// Floats that f16 would cut.
static bool is_wide(const struct gyre_linear *p)
{
    return p->weight->type == GYRE_DTYPE_F32 || p->weight->type == GYRE_DTYPE_F64;
}

// The device form that one part asks for. Less its zero point a code of 8 bits no longer fits a byte; one of 4 takes
// one where groups are no whole words.
static gyre_weight_kind part_kind(const struct gyre_linear *p)
{
    if (p->bits == 4 && p->zeros) return p->group % 8 ? GYRE_WEIGHT_W8 : GYRE_WEIGHT_W4Z;
    if (p->bits && !p->zeros) return p->bits == 4 ? GYRE_WEIGHT_W4 : GYRE_WEIGHT_W8;
    return is_wide(p) ? GYRE_WEIGHT_F32 : GYRE_WEIGHT_F16;
}

// Blocks of bytes keep a scale each, repeated or not.
static uint32_t part_group(const struct gyre_linear *p)
{
    if (!p->bits) return (uint32_t)p->cols;
    return p->bits == 8 ? p->stored : p->group;
}

enum { ROUNDED_GROUP = 32 };

double gyre_load_rounding_error(const struct gyre_load_rounding *r)
{
    return r->whole > 0 ? sqrt(r->lost / r->whole) : 0;
}

// Whether a part of the one kind may lie in a weight of the other: zero points may all be in the middle.
static bool shares(gyre_weight_kind part, gyre_weight_kind whole)
{
    return part == whole || (gyre_weight_is_int4(part) && gyre_weight_is_int4(whole));
}

// Whether all parts have one form, and one order of columns serves them.
static bool are_alike(const struct gyre_linear *parts, uint32_t n_parts)
{
    const uint64_t cols = parts[0].cols;
    bool same = true, ordered = false;
    for (uint32_t i = 0; i < n_parts; i++) {
        same = same && shares(part_kind(&parts[i]), part_kind(&parts[0])) &&
               part_group(&parts[i]) == part_group(&parts[0]);
        ordered |= parts[i].ordered;
    }
    if (!same || !ordered || n_parts == 1) return same;
    uint32_t *order = malloc(2 * cols * sizeof *order);
    if (!order) return false;
    gyre_linear_order(&parts[0], order);
    for (uint32_t i = 1; i < n_parts && same; i++) {
        gyre_linear_order(&parts[i], order + cols);
        same = !memcmp(order, order + cols, cols * sizeof *order);
    }
    free(order);
    return same;
}

// Whether a weight of this kind holds its columns in the order of the parts.
static bool keeps_order(const struct gyre_linear *parts, uint32_t n_parts, gyre_weight_kind kind)
{
    return parts[0].ordered && gyre_weight_is_coded(kind) && are_alike(parts, n_parts);
}

gyre_weight_kind gyre_weight_form(const struct gyre_linear *parts, uint32_t n_parts, uint32_t bits, uint32_t *group)
{
    gyre_weight_kind kind = part_kind(&parts[0]);
    const bool alike = are_alike(parts, n_parts);
    bool floats = false; // f16 would not do
    *group = part_group(&parts[0]);
    for (uint32_t i = 0; i < n_parts; i++) {
        // What is no integer for its company's sake only keeps its value: a code times a half fills an f32 at most.
        floats = floats || is_wide(&parts[i]) || (!alike && gyre_weight_is_coded(part_kind(&parts[i])));
        if (part_kind(&parts[i]) == GYRE_WEIGHT_W4Z) kind = GYRE_WEIGHT_W4Z;
    }
    if (!alike) kind = GYRE_WEIGHT_F16;
    if (kind == GYRE_WEIGHT_F16 && floats) kind = GYRE_WEIGHT_F32;
    if (kind != GYRE_WEIGHT_F16 && kind != GYRE_WEIGHT_F32) return kind;
    const bool rounded = bits == 8 && parts[0].cols % ROUNDED_GROUP == 0;
    *group = rounded ? ROUNDED_GROUP : (uint32_t)parts[0].cols;
    return rounded ? GYRE_WEIGHT_W8 : kind;
}

uint64_t gyre_weight_form_bytes(const struct gyre_linear *parts, uint32_t n_parts, uint32_t bits)
{
    uint32_t group;
    uint64_t n = 0, bytes[3];
    const gyre_weight_kind kind = gyre_weight_form(parts, n_parts, bits, &group);
    for (uint32_t i = 0; i < n_parts; i++) n += parts[i].rows;
    gyre_weight_plane_bytes(kind, (uint32_t)n, (uint32_t)parts[0].cols, group, bytes);
    return bytes[0] + bytes[1] + bytes[2] + (keeps_order(parts, n_parts, kind) ? 4 * parts[0].cols : 0);
}

// *fits: every number keeps its meaning in the weight's kind.
static gyre_status load_expanded(gyre_repacker *repacker, const struct gyre_weight *w, const struct gyre_linear *p,
                                 uint32_t n0, bool *fits, gyre_error *err)
{
    const bool look = w->kind == GYRE_WEIGHT_F16 && p->weight->type != GYRE_DTYPE_F16;
    struct gyre_half_range range = {0};
    const uint64_t piece = GYRE_MAX(8, PIECE_BYTES / (p->cols * 4) / 8 * 8);
    float *rows = malloc(GYRE_MIN(piece, p->rows) * p->cols * sizeof *rows);
    if (!rows) return gyre_fail(err, GYRE_E_NOMEM, "cannot load tensor (%s): out of memory", p->weight->name);
    gyre_status st = GYRE_OK;
    for (uint64_t first = 0; first < p->rows; first += piece) {
        const uint64_t n = GYRE_MIN(piece, p->rows - first);
#pragma omp parallel for schedule(static)
        for (uint64_t i = 0; i < n; i++) gyre_linear_rows_f32(p, first + i, 1, rows + i * p->cols);
        if (look && !gyre_half_range_add(&range, rows, n, (uint32_t)p->cols))
            GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot load tensor (%s): out of memory", p->weight->name));
        GYRE_GO(gyre_weight_fill(repacker, w, n0 + (uint32_t)first, (uint32_t)n, rows, NULL, NULL, err));
    }
done:
    *fits = gyre_half_range_end(&range, (uint32_t)p->cols) && *fits;
    free(rows);
    return st;
}

// A row as blocks of Q8_0, and what that takes from it; false where its scales would lie at the end of f16's range.
static bool round_row(const float *x, uint64_t n, unsigned char *blocks, double *lost, double *whole)
{
    float most = 0, block[ROUNDED_GROUP];
    const uint64_t bytes = gyre_dtype_info(GYRE_DTYPE_Q8_0)->block_bytes;
    gyre_quantize_q8_0(x, n, blocks);
    for (uint64_t at = 0; at < n; at += ROUNDED_GROUP) {
        gyre_decode_row(GYRE_DTYPE_Q8_0, blocks + at / ROUNDED_GROUP * bytes, ROUNDED_GROUP, block);
        for (uint64_t i = 0; i < ROUNDED_GROUP; i++) {
            const double v = x[at + i], off = v - block[i];
            *lost += off * off;
            *whole += v * v;
            most = GYRE_MAX(most, fabsf(x[at + i]));
        }
    }
    return most == 0 || (most >= 127 * 0x1p-20f && most <= 127 * 65504.0f);
}

// Rounds a part that is no int8 of such groups itself. *fits as in load_expanded.
static gyre_status load_rounded(gyre_repacker *repacker, const struct gyre_weight *w, const struct gyre_linear *p,
                                uint32_t n0, struct gyre_load_rounding *rounding, bool *fits, gyre_error *err)
{
    const uint64_t piece = GYRE_MAX(8, PIECE_BYTES / (p->cols * 4) / 8 * 8), most = GYRE_MIN(piece, p->rows);
    uint64_t row_bytes = 0;
    (void)gyre_dtype_row_bytes(GYRE_DTYPE_Q8_0, p->cols, &row_bytes);
    float *rows = malloc(most * p->cols * sizeof *rows);
    unsigned char *blocks = malloc(most * row_bytes);
    double lost = 0, whole = 0;
    bool good = true;
    gyre_status st = GYRE_OK;
    if (!rows || !blocks)
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot load tensor (%s): out of memory", p->weight->name));
    for (uint64_t first = 0; first < p->rows && good; first += piece) {
        const uint64_t n = GYRE_MIN(piece, p->rows - first);
#pragma omp parallel for schedule(static) reduction(&& : good) reduction(+ : lost, whole)
        for (int64_t i = 0; i < (int64_t)n; i++) {
            float *row = rows + (uint64_t)i * p->cols;
            gyre_linear_rows_f32(p, first + (uint64_t)i, 1, row);
            good = round_row(row, p->cols, blocks + (uint64_t)i * row_bytes, &lost, &whole) && good;
        }
        GYRE_GO(fill_rows(repacker, w, GYRE_REPACK_Q8_0, blocks, row_bytes, NULL, NULL, n0 + (uint32_t)first,
                          (uint32_t)n, err));
    }
    *fits = good && *fits;
    rounding->lost += lost;
    rounding->whole += whole;
    rounding->rounded++;
done:
    free(blocks);
    free(rows);
    return st;
}

// Codes less their zero points.
static void take_zeros_off(const struct gyre_linear *p, uint64_t n, const int8_t *zeros, int8_t *codes)
{
    for (uint64_t g = 0; g < n * (p->cols / p->group); g++)
        for (uint64_t i = g * p->group; i < (g + 1) * p->group; i++) codes[i] = (int8_t)(codes[i] - zeros[g]);
}

// Where the file repeats a scale over the blocks of a larger group, the device keeps it once. *fits: f16 holds the
// scales.
static gyre_status load_codes(gyre_repacker *repacker, const struct gyre_weight *w, const struct gyre_linear *p,
                              uint32_t n0, bool *fits, gyre_error *err)
{
    const uint64_t groups = p->cols / p->group, piece = GYRE_MAX(8, PIECE_BYTES / p->cols / 8 * 8),
                   most = GYRE_MIN(piece, p->rows);
    int8_t *codes = malloc(most * p->cols), *zeros = malloc(most * groups);
    uint16_t *scales = malloc(most * groups * sizeof *scales);
    gyre_status st = GYRE_OK;
    if (!codes || !scales || !zeros)
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot load tensor (%s): out of memory", p->weight->name));
    for (uint64_t first = 0; first < p->rows && *fits; first += piece) {
        const uint64_t n = GYRE_MIN(piece, p->rows - first);
        *fits = gyre_linear_fits_half(p, first, n);
        GYRE_GO(gyre_linear_codes(p, first, n, codes, scales, zeros, err));
        if (p->zeros && w->kind == GYRE_WEIGHT_W8) take_zeros_off(p, n, zeros, codes);
        GYRE_GO(fill_codes(repacker, w, n0 + (uint32_t)first, (uint32_t)n, codes, scales,
                           w->kind == GYRE_WEIGHT_W4Z ? zeros : NULL, err));
    }
done:
    free(scales);
    free(zeros);
    free(codes);
    return st;
}

// Whether the codes lie in the file as the repack kernels read them.
static bool lies_ready(const struct gyre_linear *p)
{
    return p->weight->type == GYRE_DTYPE_I8 && p->weight->bytes == p->rows * p->cols * p->bits / 8 && !p->zeros &&
           p->scale->type == GYRE_DTYPE_F16 && p->scale->rows * p->scale->cols == p->rows * (p->cols / p->group);
}

static gyre_status load_part(gyre_repacker *repacker, const struct gyre_weight *w, const struct gyre_linear *p,
                             uint32_t n0, struct gyre_load_rounding *rounding, bool *fits, gyre_error *err)
{
    const struct gyre_tensor *t = p->weight;
    uint64_t row_bytes = 0;
    if (!gyre_dtype_row_bytes(t->type, t->cols, &row_bytes))
        return gyre_fail(err, GYRE_E_FORMAT, "cannot load tensor (%s): rows of %llu elements are not whole %s blocks",
                         t->name, (unsigned long long)t->cols, gyre_dtype_info(t->type)->name);
    if (w->kind == GYRE_WEIGHT_F16 || w->kind == GYRE_WEIGHT_F32) return load_expanded(repacker, w, p, n0, fits, err);
    if (!shares(part_kind(p), w->kind) || part_group(p) != w->group || (p->ordered && !w->order.buffer))
        return load_rounded(repacker, w, p, n0, rounding, fits, err);
    const uint32_t n = (uint32_t)p->rows;
    const unsigned char *rows = (const unsigned char *)t->data + p->first * row_bytes;
    if (w->kind == GYRE_WEIGHT_W4Z) return load_codes(repacker, w, p, n0, fits, err);
    if (t->type == GYRE_DTYPE_Q8_0)
        return fill_rows(repacker, w, GYRE_REPACK_Q8_0, rows, row_bytes, NULL, NULL, n0, n, err);
    if (p->stored == w->group && t->type == GYRE_DTYPE_Q4_0)
        return fill_rows(repacker, w, GYRE_REPACK_Q4_0, rows, row_bytes, NULL, NULL, n0, n, err);
    if (p->stored != w->group || !lies_ready(p)) return load_codes(repacker, w, p, n0, fits, err);
    uint16_t *scales = malloc(p->scale->bytes); // a mapped tensor may be unaligned
    if (!scales) return gyre_fail(err, GYRE_E_NOMEM, "cannot load tensor (%s): out of memory", t->name);
    memcpy(scales, p->scale->data, p->scale->bytes);
    const gyre_status st = fill_rows(repacker, w, p->bits == 4 ? GYRE_REPACK_I4 : GYRE_REPACK_I8, rows, row_bytes,
                                     scales + p->first * p->scale->cols, NULL, n0, n, err);
    free(scales);
    return st;
}

static gyre_status load_order(gyre_device *device, const struct gyre_linear *p, struct gyre_weight *out,
                              gyre_error *err)
{
    uint32_t *order = malloc(p->cols * sizeof *order);
    if (!order) return gyre_fail(err, GYRE_E_NOMEM, "cannot load tensor (%s): out of memory", p->weight->name);
    gyre_linear_order(p, order);
    const gyre_status st = gyre_upload(device, order, p->cols * sizeof *order, "order", &out->order, err);
    free(order);
    return st;
}

// The parts in one kind; *fits as in load_expanded.
static gyre_status load_as(gyre_device *device, gyre_repacker *repacker, const struct gyre_linear *parts,
                           uint32_t n_parts, gyre_weight_kind kind, uint32_t group, const char *label,
                           struct gyre_load_rounding *rounding, bool *fits, struct gyre_weight *out, gyre_error *err)
{
    uint32_t n = 0, n0 = 0;
    gyre_status st = GYRE_OK;
    *fits = true;
    for (uint32_t i = 0; i < n_parts; i++) n += (uint32_t)parts[i].rows;
    GYRE_TRY(gyre_weight_create(device, kind, n, (uint32_t)parts[0].cols, group, label, out, err));
    if (keeps_order(parts, n_parts, kind)) st = load_order(device, &parts[0], out, err);
    for (uint32_t i = 0; i < n_parts && *fits && st == GYRE_OK; n0 += (uint32_t)parts[i].rows, i++)
        st = load_part(repacker, out, &parts[i], n0, rounding, fits, err);
    if (st != GYRE_OK || !*fits) gyre_weight_destroy(device, out);
    return st;
}

gyre_status gyre_weight_layout(gyre_device *device, const struct gyre_linear *parts, uint32_t n_parts,
                               const char *label, uint32_t bits, struct gyre_weight *out, gyre_error *err)
{
    uint32_t group, n = 0;
    const gyre_weight_kind kind = gyre_weight_form(parts, n_parts, bits, &group);
    for (uint32_t i = 0; i < n_parts; i++) n += (uint32_t)parts[i].rows;
    GYRE_TRY(gyre_weight_create(device, kind, n, (uint32_t)parts[0].cols, group, label, out, err));
    if (!keeps_order(parts, n_parts, kind)) return GYRE_OK;
    const gyre_status st = plane_create(device, 4 * parts[0].cols, label, &out->order, err);
    if (st != GYRE_OK) gyre_weight_destroy(device, out);
    return st;
}

gyre_status gyre_weight_load(gyre_device *device, gyre_repacker *repacker, const struct gyre_linear *parts,
                             uint32_t n_parts, const char *label, struct gyre_load_rounding *rounding,
                             struct gyre_weight *out, gyre_error *err)
{
    const uint32_t bits = rounding ? rounding->bits : 0, cols = (uint32_t)parts[0].cols;
    struct gyre_load_rounding sum = rounding ? *rounding : (struct gyre_load_rounding){0};
    uint32_t group = 0;
    bool fits;
    gyre_weight_kind kind = gyre_weight_form(parts, n_parts, bits, &group);
    GYRE_TRY(load_as(device, repacker, parts, n_parts, kind, group, label, &sum, &fits, out, err));
    if (fits) {
        if (rounding) *rounding = sum;
        return GYRE_OK;
    }
    // Rare: the next wider form that the numbers fit.
    const gyre_weight_kind plain = gyre_weight_form(parts, n_parts, 0, &group);
    if (plain != kind) GYRE_TRY(load_as(device, repacker, parts, n_parts, plain, group, label, &sum, &fits, out, err));
    if (fits) return GYRE_OK;
    return load_as(device, repacker, parts, n_parts, GYRE_WEIGHT_F32, cols, label, &sum, &fits, out, err);
}

gyre_status gyre_upload(gyre_device *device, const void *data, uint64_t bytes, const char *label,
                        struct gyre_binding *out, gyre_error *err)
{
    GYRE_TRY(plane_create(device, gyre_round_up(bytes, 4), label, out, err));
    const gyre_status st = gyre_buffer_write(device, out->buffer, 0, data, bytes, err);
    if (st != GYRE_OK) {
        gyre_buffer_destroy(device, out->buffer);
        *out = (struct gyre_binding){0};
    }
    return st;
}
