// gyre's own integers: I8 [rows, cols] of bytes or [rows, cols/2] of nibbles, with F16 scales [rows, cols/group]
// beside.
#include "runtime/core/codec.h"
#include "runtime/model/pack.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <string.h>

static bool takes(gyre_dtype type) { return type == GYRE_DTYPE_I8; }

static gyre_status open_gyre(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer,
                             struct gyre_linear *l, gyre_error *err)
{
    const struct gyre_tensor *t = l->weight, *s;
    if (role >= GYRE_LINEARS || !hp->full)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): tensor %s has type I8, which has no scale there",
                         gyre_source_path(source), t->name);
    if (t->n_dims != 2 || t->rows != l->whole || (t->cols != l->cols && 2 * t->cols != l->cols))
        return gyre_role_misshapen(source, t, l->whole, l->cols, err);
    GYRE_TRY(gyre_role_need(source, role, layer, "weight.scale", &s, err));
    // Exceptions of a recipe have groups of their own; the rest has the file's.
    const uint64_t usual = hp->wgroup ? l->cols / hp->wgroup : 1, n = s->cols;
    if (s->n_dims != 2 || s->rows != l->whole ||
        (n != usual && n != 1 && n * 32 != l->cols && n * 64 != l->cols && n * 128 != l->cols))
        return gyre_role_misshapen(source, s, l->whole, usual, err);
    if (s->type != GYRE_DTYPE_F16)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): tensor %s has type %s; F16 is due",
                         gyre_source_path(source), s->name, gyre_dtype_info(s->type)->name);
    l->scale = s;
    l->bits = t->cols == l->cols ? 8 : 4;
    l->group = l->stored = (uint32_t)(l->cols / n);
    return GYRE_OK;
}

static const uint8_t *row_of(const struct gyre_linear *l, uint64_t row)
{
    return (const uint8_t *)l->weight->data + row * l->weight->cols;
}

static void codes(const struct gyre_linear *l, uint64_t row, int8_t *out)
{
    if (l->bits == 8) memcpy(out, row_of(l, row), l->cols);
    else gyre_unpack_i4(row_of(l, row), l->cols, out);
}

static float scale(const struct gyre_linear *l, uint64_t row, uint64_t index)
{
    uint16_t half; // a mapped tensor may be unaligned
    memcpy(&half, (const uint8_t *)l->scale->data + (row * l->scale->cols + index) * sizeof half, sizeof half);
    return gyre_f32_from_f16(half);
}

static void values(const struct gyre_linear *l, uint64_t row, uint64_t col, uint64_t n, float *out)
{
    enum { PIECE = 256 };
    const uint8_t *p = row_of(l, row);
    int8_t code[PIECE];
    for (uint64_t at = col, end = col + n, m; at < end; at += m, out += m) {
        m = GYRE_MIN(end - at, (uint64_t)PIECE);
        m = GYRE_MIN(m, l->group - at % l->group);
        if (l->bits == 8) memcpy(code, p + at, m);
        else gyre_unpack_i4(p + at / 2, m, code);
        const float d = scale(l, row, at / l->group);
        for (uint64_t i = 0; i < m; i++) out[i] = (float)code[i] * d;
    }
}

const struct gyre_pack gyre_pack_gyre = {0, "weight", takes, open_gyre, values, codes, scale, NULL};
