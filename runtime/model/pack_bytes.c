// Codes in bytes beside a scale per row or group, as checkpoints of other tools have them: compressed-tensors'
// int-quantized form, "weight" I8 [out, in] with "weight_scale" [out, in/g] or [1] and perhaps "weight_zero_point"
// I8 of its shape. The bytes hold 8 bits or, for checkpoints made for int4 products, 4.
#include "runtime/model/pack.h"
#include "runtime/source/quantization.h"
#include "runtime/util/base.h"

#include <string.h>

static bool takes(gyre_dtype type) { return type == GYRE_DTYPE_I8; }

static const int8_t *row_of(const struct gyre_linear *l, uint64_t row)
{
    return (const int8_t *)l->weight->data + row * l->cols;
}

// One scale for the whole tensor is every row's.
static uint64_t index_of(const struct gyre_linear *l, const struct gyre_tensor *t, uint64_t row, uint64_t group)
{
    return t->rows * t->cols == 1 ? 0 : row * (l->cols / l->group) + group;
}

static float scale(const struct gyre_linear *l, uint64_t row, uint64_t group)
{
    return gyre_float_at(l->scale, index_of(l, l->scale, row, group));
}

static int zero(const struct gyre_linear *l, uint64_t row, uint64_t group)
{
    return l->zero ? ((const int8_t *)l->zero->data)[index_of(l, l->zero, row, group)] : 0;
}

static void codes(const struct gyre_linear *l, uint64_t row, int8_t *out) { memcpy(out, row_of(l, row), l->cols); }

static void values(const struct gyre_linear *l, uint64_t row, uint64_t col, uint64_t n, float *out)
{
    const int8_t *p = row_of(l, row);
    for (uint64_t at = col, end = col + n, m; at < end; at += m, out += m) {
        m = GYRE_MIN(end - at, l->group - at % l->group);
        const float d = scale(l, row, at / l->group);
        const int z = zero(l, row, at / l->group);
        for (uint64_t i = 0; i < m; i++) out[i] = (float)(p[at + i] - z) * d;
    }
}

// 4 bits are what was declared for such groups, if nothing else was, and hold.
static gyre_status set_bits(const gyre_source *source, struct gyre_linear *l, gyre_error *err)
{
    const struct gyre_quantization *q = gyre_source_quantization(source);
    const int8_t *p = l->weight->data;
    uint32_t fitting = 0;
    l->bits = 4;
    for (uint32_t i = 0; i < q->n_schemes; i++) {
        if (q->scheme[i].group ? q->scheme[i].group != l->group : l->group != l->cols) continue;
        fitting++;
        if (q->scheme[i].bits != 4) l->bits = 8;
    }
    if (!fitting) l->bits = q->scheme[0].bits; // gyre_linear_declared says what is wrong
    for (uint64_t i = 0; l->bits == 4 && i < l->whole * l->cols; i++)
        if (p[i] < -8 || p[i] > 7)
            return gyre_fail(err, GYRE_E_FORMAT,
                             "cannot use model (%s): tensor %s holds %d, which is no code of 4 bits",
                             gyre_source_path(source), l->weight->name, p[i]);
    return GYRE_OK;
}

static gyre_status open_bytes(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer,
                              struct gyre_linear *l, gyre_error *err)
{
    const struct gyre_linear_place at = {source, hp, role, layer};
    const struct gyre_tensor *t = l->weight;
    if (t->n_dims != 2 || t->rows != l->whole || t->cols != l->cols)
        return gyre_role_misshapen(source, t, l->whole, l->cols, err);
    GYRE_TRY(gyre_linear_need(&at, l, "weight_scale", &l->scale, err));
    const struct gyre_tensor *s = l->scale;
    const bool one = s->rows * s->cols == 1;
    if (!one && (s->n_dims != 2 || s->rows != l->whole || l->cols % s->cols))
        return gyre_role_misshapen(source, s, l->whole, 1, err);
    if (s->type != GYRE_DTYPE_F16 && s->type != GYRE_DTYPE_BF16 && s->type != GYRE_DTYPE_F32)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): tensor %s has type %s; F16, BF16 or F32 is due",
                         gyre_source_path(source), s->name, gyre_dtype_info(s->type)->name);
    l->group = l->stored = (uint32_t)(one ? l->cols : l->cols / s->cols);
    l->zero = gyre_linear_part(&at, l, "weight_zero_point");
    if (l->zero && (l->zero->type != GYRE_DTYPE_I8 || l->zero->rows * l->zero->cols != s->rows * s->cols))
        return gyre_role_misshapen(source, l->zero, s->rows, s->cols, err);
    GYRE_TRY(set_bits(source, l, err));
    for (uint64_t i = 0; l->zero && i < l->zero->bytes; i++) {
        const int8_t z = ((const int8_t *)l->zero->data)[i];
        if (l->bits == 4 && (z < -8 || z > 7))
            return gyre_fail(err, GYRE_E_FORMAT,
                             "cannot use model (%s): tensor %s holds %d, which is no code of 4 bits",
                             gyre_source_path(source), l->zero->name, z);
        l->zeros |= z != 0;
    }
    return gyre_linear_declared(source, l, err);
}

const struct gyre_pack gyre_pack_bytes = {
    1u << GYRE_METHOD_COMPRESSED_TENSORS, "weight", takes, open_bytes, values, codes, scale, zero};
