// See linear.h. The encodings are pack_*.c's; here are what they share: search, row order, repeated scales.
#include "runtime/model/linear.h"
#include "runtime/model/pack.h"
#include "runtime/source/quantization.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Of those whose tensor is there, the first that takes its type has it.
static const struct gyre_pack *const packs[] = {&gyre_pack_compressed, &gyre_pack_columns, &gyre_pack_bytes,
                                                &gyre_pack_gyre,       &gyre_pack_q4_0,    &gyre_pack_q8_0,
                                                &gyre_pack_float};

static const struct gyre_pack *find_pack(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role,
                                         uint32_t layer, struct gyre_linear *out)
{
    const struct gyre_quantization *q = gyre_source_quantization(source);
    for (size_t i = 0; i < GYRE_COUNT(packs); i++) {
        if (packs[i]->methods && !(q && packs[i]->methods & 1u << q->method)) continue;
        out->first = 0, out->whole = out->rows;
        out->weight = gyre_role_tensor(source, role, layer, packs[i]->part, NULL);
        if (role < GYRE_LINEARS && (!packs[i]->methods || !out->weight)) { // in its own tensor, or among others'
            const struct gyre_tensor *t =
                packs[i]->methods
                    ? gyre_role_fused_part(source, hp, role, layer, packs[i]->part, &out->first, &out->whole)
                    : gyre_role_fused(source, hp, role, layer, packs[i]->part, &out->first, &out->whole);
            if (t) out->weight = t;
        }
        if (out->weight && packs[i]->takes(out->weight->type)) return packs[i];
    }
    return NULL;
}

bool gyre_linear_there(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer)
{
    struct gyre_linear l = {0};
    return find_pack(source, hp, role, layer, &l) != NULL;
}

gyre_status gyre_linear_find(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer,
                             struct gyre_linear *out, gyre_error *err)
{
    *out = (struct gyre_linear){0};
    gyre_role_shape(role, hp, &out->rows, &out->cols);
    out->whole = out->rows;
    out->pack = find_pack(source, hp, role, layer, out);
    if (out->pack) return out->pack->open(source, hp, role, layer, out, err);
    GYRE_TRY(gyre_role_need(source, role, layer, "weight", &out->weight, err));
    return gyre_fail(err, GYRE_E_UNSUPPORTED,
                     "cannot use model (%s): tensor %s has type %s, of which gyre reads no matrix",
                     gyre_source_path(source), out->weight->name, gyre_dtype_info(out->weight->type)->name);
}

void gyre_linear_of(const struct gyre_tensor *t, struct gyre_linear *out)
{
    size_t i = 0;
    while (i + 1 < GYRE_COUNT(packs) && (packs[i]->methods || !packs[i]->takes(t->type))) i++;
    *out = (struct gyre_linear){.pack = packs[i], .weight = t, .rows = t->rows, .cols = t->cols, .whole = t->rows};
    if (!out->pack->codes) return;
    out->bits = t->type == GYRE_DTYPE_Q4_0 ? 4 : 8;
    out->group = out->stored = gyre_dtype_info(t->type)->block_elements;
}

gyre_status gyre_linear_product(const gyre_source *source, const struct gyre_hparams *hp, uint32_t layer,
                                gyre_product product, struct gyre_linear out[GYRE_LINEARS],
                                gyre_role role[GYRE_LINEARS], uint32_t *n, gyre_error *err)
{
    *n = 0;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        if (gyre_roles[r].product != product || !gyre_role_present(hp, (gyre_role)r, layer)) continue;
        GYRE_TRY(gyre_linear_find(source, hp, (gyre_role)r, layer, &out[*n], err));
        role[(*n)++] = (gyre_role)r;
    }
    return GYRE_OK;
}

uint64_t gyre_paired_row(uint32_t head_dim, uint64_t r)
{
    const uint64_t in_head = r % head_dim; // (head, i, j) of the interleaved order is (head, j, i) of the halves'
    return r - in_head + in_head % 2 * (head_dim / 2) + in_head / 2;
}

static uint64_t file_row(const struct gyre_linear *l, uint64_t r)
{
    return l->first + (l->paired ? gyre_paired_row(l->paired, r) : r);
}

void gyre_linear_rows_f32(const struct gyre_linear *l, uint64_t first, uint64_t n, float *out)
{
    for (uint64_t i = 0; i < n; i++) l->pack->values(l, file_row(l, first + i), 0, l->cols, out + i * l->cols);
}

void gyre_linear_rows_f64(const struct gyre_linear *l, uint64_t first, uint64_t n, double *out)
{
    enum { PIECE = 1024 }; // whole blocks of every encoding
    float piece[PIECE];
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t col = 0, m; col < l->cols; col += m, out += m) {
            m = GYRE_MIN(l->cols - col, (uint64_t)PIECE);
            l->pack->values(l, file_row(l, first + i), col, m, piece);
            for (uint64_t c = 0; c < m; c++) out[c] = (double)piece[c];
        }
}

void gyre_linear_scales(const struct gyre_linear *l, uint64_t row, uint16_t *out)
{
    for (uint64_t i = 0; i < l->cols / l->stored; i++)
        out[i] = gyre_f16_from_f32(l->pack->scale(l, file_row(l, row), i));
}

bool gyre_linear_fits_half(const struct gyre_linear *l, uint64_t first, uint64_t n)
{
    if (!l->scale || l->scale->type == GYRE_DTYPE_F16) return true;
    for (uint64_t row = first; row < first + n; row++)
        for (uint64_t i = 0; i < l->cols / l->stored; i++) {
            const float s = l->pack->scale(l, file_row(l, row), i);
            if (!(fabsf(gyre_round_to_f16(s) - s) <= fabsf(s) * 0x1p-11f)) return false;
        }
    return true;
}

// The scales of a row, one per group; false: the file has several in one.
static bool row_scales(const struct gyre_linear *l, uint64_t row, uint16_t *out)
{
    const uint32_t repeat = l->group / l->stored;
    for (uint64_t i = 0; i < l->cols / l->stored; i++) {
        const uint16_t half = gyre_f16_from_f32(l->pack->scale(l, row, i));
        if (i % repeat == 0) out[i / repeat] = half;
        else if (half != out[i / repeat]) return false;
    }
    return true;
}

static int32_t group_at(const struct gyre_linear *l, uint64_t col)
{
    int32_t group; // a mapped tensor may be unaligned
    memcpy(&group, (const char *)l->index->data + col * sizeof group, sizeof group);
    return group;
}

void gyre_linear_order(const struct gyre_linear *l, uint32_t *order)
{
    uint64_t n = 0;
    if (!l->ordered)
        for (uint64_t c = 0; c < l->cols; c++) order[c] = (uint32_t)c;
    for (int32_t g = 0; l->ordered && g < (int32_t)(l->cols / l->group); g++)
        for (uint64_t c = 0; c < l->cols; c++)
            if (group_at(l, c) == g) order[n++] = (uint32_t)c;
}

// Codes as they lie in the matrix, put into the order of the groups.
static void put_in_order(const uint32_t *order, uint64_t n, int8_t *codes, int8_t *scratch)
{
    memcpy(scratch, codes, n);
    for (uint64_t j = 0; j < n; j++) codes[j] = scratch[order[j]];
}

gyre_status gyre_linear_codes(const struct gyre_linear *l, uint64_t first, uint64_t n, int8_t *codes, uint16_t *scales,
                              int8_t *zeros, gyre_error *err)
{
    const uint64_t groups = l->bits ? l->cols / l->group : 0;
    if (!l->bits)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot read codes (%s): %s has none", l->weight->name,
                         gyre_dtype_info(l->weight->type)->name);
    uint32_t *order = l->ordered ? malloc(l->cols * (sizeof *order + 1)) : NULL;
    if (l->ordered && !order)
        return gyre_fail(err, GYRE_E_NOMEM, "cannot load tensor (%s): out of memory", l->weight->name);
    if (order) gyre_linear_order(l, order);
    uint64_t odd = n;
    for (uint64_t i = 0; i < n && odd == n; i++) {
        const uint64_t row = file_row(l, first + i);
        l->pack->codes(l, row, codes + i * l->cols);
        if (order) put_in_order(order, l->cols, codes + i * l->cols, (int8_t *)(order + l->cols));
        if (!row_scales(l, row, scales + i * groups)) odd = row;
        for (uint64_t g = 0; zeros && g < groups; g++)
            zeros[i * groups + g] = (int8_t)(l->zeros ? l->pack->zero(l, row, g) : 0);
    }
    free(order);
    if (odd == n) return GYRE_OK;
    return gyre_fail(err, GYRE_E_FORMAT,
                     "cannot load tensor (%s): row %llu has different scales inside a group of %u although "
                     "gyre.wgroup declares one; quantize the model again",
                     l->weight->name, (unsigned long long)odd, l->group);
}

uint32_t gyre_linear_tensors(const struct gyre_linear *l, const struct gyre_tensor *out[GYRE_LINEAR_TENSORS])
{
    const struct gyre_tensor *const all[GYRE_LINEAR_TENSORS] = {l->weight, l->scale, l->zero, l->index, l->shape};
    uint32_t n = 0;
    for (int i = 0; i < GYRE_LINEAR_TENSORS; i++)
        if (all[i]) out[n++] = all[i];
    return n;
}

void gyre_linear_forget(const struct gyre_linear *l)
{
    const struct gyre_tensor *all[GYRE_LINEAR_TENSORS];
    for (uint32_t i = 0, n = gyre_linear_tensors(l, all); i < n; i++) gyre_tensor_forget(all[i]);
}
