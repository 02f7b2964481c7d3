// See linear.h. The encodings are pack_*.c's; here are what they share: search, row order, repeated scales.
#include "runtime/model/linear.h"
#include "runtime/model/pack.h"
#include "runtime/util/base.h"

// The first that takes a type has it.
static const struct gyre_pack *const packs[] = {&gyre_pack_gyre, &gyre_pack_q4_0, &gyre_pack_q8_0, &gyre_pack_float};

static const struct gyre_pack *pack_of(gyre_dtype type)
{
    size_t i = 0;
    while (i + 1 < GYRE_COUNT(packs) && !packs[i]->takes(type)) i++;
    return packs[i];
}

gyre_status gyre_linear_find(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer,
                             struct gyre_linear *out, gyre_error *err)
{
    *out = (struct gyre_linear){0};
    gyre_role_shape(role, hp, &out->rows, &out->cols);
    GYRE_TRY(gyre_role_need(source, role, layer, "weight", &out->weight, err));
    out->pack = pack_of(out->weight->type);
    return out->pack->open(source, hp, role, layer, out, err);
}

void gyre_linear_of(const struct gyre_tensor *t, struct gyre_linear *out)
{
    *out = (struct gyre_linear){.pack = pack_of(t->type), .weight = t, .rows = t->rows, .cols = t->cols};
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
    return l->paired ? gyre_paired_row(l->paired, r) : r;
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
    for (uint64_t i = 0; i < l->cols / l->stored; i++) out[i] = l->pack->scale(l, file_row(l, row), i);
}

// The scales of a row, one per group; false: the file has several in one.
static bool row_scales(const struct gyre_linear *l, uint64_t row, uint16_t *out)
{
    const uint32_t repeat = l->group / l->stored;
    for (uint64_t i = 0; i < l->cols / l->stored; i++) {
        const uint16_t half = l->pack->scale(l, row, i);
        if (i % repeat == 0) out[i / repeat] = half;
        else if (half != out[i / repeat]) return false;
    }
    return true;
}

gyre_status gyre_linear_codes(const struct gyre_linear *l, uint64_t first, uint64_t n, int8_t *codes, uint16_t *scales,
                              gyre_error *err)
{
    if (!l->bits)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot read codes (%s): %s has none", l->weight->name,
                         gyre_dtype_info(l->weight->type)->name);
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t row = file_row(l, first + i);
        l->pack->codes(l, row, codes + i * l->cols);
        if (!row_scales(l, row, scales + i * (l->cols / l->group)))
            return gyre_fail(err, GYRE_E_FORMAT,
                             "cannot load tensor (%s): row %llu has different scales inside a group of %u although "
                             "gyre.wgroup declares one; quantize the model again",
                             l->weight->name, (unsigned long long)row, l->group);
    }
    return GYRE_OK;
}

void gyre_linear_forget(const struct gyre_linear *l)
{
    gyre_tensor_forget(l->weight);
    if (l->scale) gyre_tensor_forget(l->scale);
}
