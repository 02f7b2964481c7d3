// Codes in 32-bit words, as checkpoints of other tools have them. A word holds 32 / bits codes of neighbouring inputs
// (compressed-tensors, GPTQ) or outputs (AutoAWQ), unsigned; zero points lie in words of neighbouring outputs. Three
// conventions, one row each below: which tensor, along which side, in which order.
//
//                       codes                        zero points                         scales
//   compressed-tensors  weight_packed [out, in/8]    weight_zero_point [out/8, in/g]     weight_scale [out, in/g]
//   GPTQ                qweight [in/8, out]          qzeros [in/g, out/8]                scales [in/g, out]
//   AutoAWQ             qweight [in, out/8]          qzeros [in/g, out/8]                scales [in/g, out]
//
// number = (code - zero) * scale. Both lose half their range here (8 of 16), so that int4 is -8..7 everywhere in
// gyre. GPTQ's version 1 stores zero points less one, modulo 16. g_idx, where it is not 0 0 .. 1 1 .., names each
// input's group.
#include "runtime/model/pack.h"
#include "runtime/source/quantization.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <string.h>

// Where code (row, col), zero point and scale (row, group) lie. rows, cols: of them in a word, the other is 1.
struct places {
    uint64_t row, col, zero_row, zero_group, scale_row, scale_group; // strides
    uint32_t rows, cols;
    const uint8_t *order; // of the outputs in a word
};

static const uint8_t plain[8] = {0, 1, 2, 3, 4, 5, 6, 7}, awq[8] = {0, 4, 1, 5, 2, 6, 3, 7};

typedef enum convention { COMPRESSED, GPTQ, AWQ } convention;

// AWQ alone has its codes packed along the outputs, so that the shapes tell.
static convention convention_of(const struct gyre_linear *l)
{
    if (l->pack == &gyre_pack_compressed) return COMPRESSED;
    return l->weight->rows == l->cols ? AWQ : GPTQ;
}

static struct places places_of(const struct gyre_linear *l)
{
    const uint32_t n = 32 / l->bits;
    const uint64_t groups = l->cols / l->group, out_words = gyre_div_up(l->whole, n);
    switch (convention_of(l)) {
    case COMPRESSED:
        return (struct places){gyre_div_up(l->cols, n), 1, groups, 1, groups, 1, 1, n, plain};
    case GPTQ:
        return (struct places){1, l->whole, 1, out_words, 1, l->whole, 1, n, plain};
    case AWQ:
        break;
    }
    return (struct places){1, out_words, 1, out_words, 1, l->whole, n, 1, awq};
}

static uint32_t word(const struct gyre_tensor *t, uint64_t index)
{
    uint32_t v; // a mapped tensor may be unaligned
    memcpy(&v, (const char *)t->data + index * sizeof v, sizeof v);
    return v;
}

static uint64_t group_of(const struct gyre_linear *l, uint64_t col)
{
    return l->ordered ? word(l->index, col) : col / l->group;
}

static int zero(const struct gyre_linear *l, uint64_t row, uint64_t group)
{
    const struct places p = places_of(l);
    const uint32_t n = 32 / l->bits, mask = (1u << l->bits) - 1, half = 1u << (l->bits - 1);
    if (!l->zero) return 0;
    if (l->zero->type == GYRE_DTYPE_I8) // older compressed-tensors: [out, in/g], signed
        return ((const int8_t *)l->zero->data)[row * (l->cols / l->group) + group];
    const uint32_t w = word(l->zero, row / n * p.zero_row + group * p.zero_group);
    return (int)(((w >> l->bits * p.order[row % n]) + l->less) & mask) - (int)half;
}

static float scale(const struct gyre_linear *l, uint64_t row, uint64_t group)
{
    const struct places p = places_of(l);
    return gyre_float_at(l->scale, row * p.scale_row + group * p.scale_group);
}

// Columns col .. col+n-1 of a row.
static void codes_at(const struct gyre_linear *l, uint64_t row, uint64_t col, uint64_t n, int8_t *out)
{
    const struct places p = places_of(l);
    const uint32_t mask = (1u << l->bits) - 1, half = 1u << (l->bits - 1), own = l->bits * p.order[row % p.rows];
    const uint64_t base = row / p.rows * p.row;
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t c = col + i;
        const uint32_t w = word(l->weight, base + c / p.cols * p.col) >> (own + l->bits * (uint32_t)(c % p.cols));
        out[i] = (int8_t)((int)(w & mask) - (int)half);
    }
}

static void codes(const struct gyre_linear *l, uint64_t row, int8_t *out) { codes_at(l, row, 0, l->cols, out); }

static void values(const struct gyre_linear *l, uint64_t row, uint64_t col, uint64_t n, float *out)
{
    enum { PIECE = 256 };
    int8_t code[PIECE];
    uint64_t known = UINT64_MAX; // the group that z and d belong to
    int z = 0;
    float d = 0;
    for (uint64_t done = 0, m; done < n; done += m) {
        m = GYRE_MIN(n - done, (uint64_t)PIECE);
        codes_at(l, row, col + done, m, code);
        for (uint64_t i = 0; i < m; i++) {
            const uint64_t group = group_of(l, col + done + i);
            if (group != known) z = l->zeros ? zero(l, row, group) : 0, d = scale(l, row, group), known = group;
            out[done + i] = (float)(code[i] - z) * d;
        }
    }
}

// ---- opening --------------------------------------------------------------------------------------------------

static bool takes(gyre_dtype type) { return type == GYRE_DTYPE_I32; }

static gyre_status need(const struct gyre_linear_place *at, const struct gyre_linear *l, const char *part, bool integer,
                        uint64_t rows, uint64_t cols, const struct gyre_tensor **out, gyre_error *err)
{
    GYRE_TRY(gyre_linear_need(at, l, part, out, err));
    const struct gyre_tensor *t = *out;
    const bool real = t->type == GYRE_DTYPE_F16 || t->type == GYRE_DTYPE_BF16 || t->type == GYRE_DTYPE_F32;
    if (integer ? t->type != GYRE_DTYPE_I32 : !real)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot use model (%s): tensor %s has type %s; %s is due",
                         gyre_source_path(at->source), t->name, gyre_dtype_info(t->type)->name,
                         integer ? "I32" : "F16, BF16 or F32");
    if (t->n_dims != 2 || t->rows != rows || t->cols != cols)
        return gyre_role_misshapen(at->source, t, rows, cols, err);
    return GYRE_OK;
}

// Some writers store zero points although all are in the middle.
static bool any_zero(const struct gyre_linear *l)
{
    for (uint64_t row = l->first; l->zero && row < l->first + l->rows; row++)
        for (uint64_t g = 0; g < l->cols / l->group; g++)
            if (zero(l, row, g)) return true;
    return false;
}

// Every group must be named, and as often as it has columns; a list of -1 is none.
static gyre_status read_index(const gyre_source *source, struct gyre_linear *l, gyre_error *err)
{
    const uint64_t groups = l->cols / l->group;
    const struct gyre_tensor *t = l->index;
    bool straight = true, none = true;
    if (t->type != GYRE_DTYPE_I32 || t->n_dims != 1 || t->cols != l->cols)
        return gyre_role_misshapen(source, t, 1, l->cols, err);
    for (uint64_t c = 0; c < l->cols; c++) {
        none = none && word(t, c) == UINT32_MAX;
        straight = straight && word(t, c) == c / l->group;
    }
    for (uint64_t c = 0; c < l->cols; c++) {
        if (!none && word(t, c) >= groups)
            return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): tensor %s names group %d; there are %llu",
                             gyre_source_path(source), t->name, (int)word(t, c), (unsigned long long)groups);
    }
    l->ordered = !straight && !none;
    for (uint64_t g = 0; l->ordered && g < groups; g++) {
        uint64_t n = 0;
        for (uint64_t c = 0; c < l->cols; c++) n += word(t, c) == g;
        if (n != l->group)
            return gyre_fail(
                err, GYRE_E_UNSUPPORTED,
                "cannot use model (%s): tensor %s has %llu inputs in group %llu; gyre reads groups of one size",
                gyre_source_path(source), t->name, (unsigned long long)n, (unsigned long long)g);
    }
    return GYRE_OK;
}

static gyre_status finish(const struct gyre_linear_place *at, const char *index, struct gyre_linear *l, gyre_error *err)
{
    GYRE_TRY(gyre_linear_declared(at->source, l, err));
    l->index = gyre_linear_part(at, l, index);
    if (l->index) GYRE_TRY(read_index(at->source, l, err));
    l->zeros = any_zero(l);
    return GYRE_OK;
}

// Groups as their number says; they must divide the columns.
static gyre_status set_group(const gyre_source *source, const struct gyre_tensor *scale_tensor, uint64_t groups,
                             struct gyre_linear *l, gyre_error *err)
{
    if (groups == 0 || l->cols % groups)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot use model (%s): tensor %s has scales for %llu groups, which do not divide %llu inputs",
                         gyre_source_path(source), scale_tensor->name, (unsigned long long)groups,
                         (unsigned long long)l->cols);
    l->group = l->stored = (uint32_t)(l->cols / groups);
    return GYRE_OK;
}

static gyre_status set_bits(const gyre_source *source, uint64_t words, uint64_t numbers, struct gyre_linear *l,
                            gyre_error *err)
{
    l->bits = words == gyre_div_up(numbers, 8) ? 4 : words == gyre_div_up(numbers, 4) ? 8 : 0;
    if (l->bits) return GYRE_OK;
    return gyre_fail(
        err, GYRE_E_FORMAT,
        "cannot use model (%s): tensor %s packs %llu numbers into %llu words; 4 bits need %llu, 8 bits %llu",
        gyre_source_path(source), l->weight->name, (unsigned long long)numbers, (unsigned long long)words,
        (unsigned long long)gyre_div_up(numbers, 8), (unsigned long long)gyre_div_up(numbers, 4));
}

static gyre_status check_stated_shape(const gyre_source *source, const struct gyre_linear *l, gyre_error *err)
{
    int64_t at[2] = {0, 0};
    if (l->shape->type == GYRE_DTYPE_I64 && l->shape->n_dims == 1 && l->shape->cols == 2)
        memcpy(at, l->shape->data, sizeof at);
    else if (l->shape->type == GYRE_DTYPE_I32 && l->shape->n_dims == 1 && l->shape->cols == 2)
        at[0] = (int32_t)word(l->shape, 0), at[1] = (int32_t)word(l->shape, 1);
    if (at[0] == (int64_t)l->whole && at[1] == (int64_t)l->cols) return GYRE_OK;
    return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): tensor %s says %lld x %lld; %llu x %llu is due",
                     gyre_source_path(source), l->shape->name, (long long)at[0], (long long)at[1],
                     (unsigned long long)l->whole, (unsigned long long)l->cols);
}

static gyre_status open_compressed(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role,
                                   uint32_t layer, struct gyre_linear *l, gyre_error *err)
{
    const struct gyre_linear_place at = {source, hp, role, layer};
    const struct gyre_tensor *t = l->weight;
    if (t->n_dims != 2 || t->rows != l->whole)
        return gyre_role_misshapen(source, t, l->whole, gyre_div_up(l->cols, 8), err);
    GYRE_TRY(set_bits(source, t->cols, l->cols, l, err));
    GYRE_TRY(gyre_linear_need(&at, l, "weight_scale", &l->scale, err));
    GYRE_TRY(set_group(source, l->scale, l->scale->cols, l, err));
    const uint64_t groups = l->cols / l->group;
    GYRE_TRY(need(&at, l, "weight_scale", false, l->whole, groups, &l->scale, err));
    l->zero = gyre_linear_part(&at, l, "weight_zero_point");
    if (l->zero && l->zero->type == GYRE_DTYPE_I8) {
        if (l->zero->n_dims != 2 || l->zero->rows != l->whole || l->zero->cols != groups)
            return gyre_role_misshapen(source, l->zero, l->whole, groups, err);
    } else if (l->zero) {
        GYRE_TRY(need(&at, l, "weight_zero_point", true, gyre_div_up(l->whole, 32 / l->bits), groups, &l->zero, err));
    }
    l->shape = gyre_linear_part(&at, l, "weight_shape");
    if (l->shape) GYRE_TRY(check_stated_shape(source, l, err));
    return finish(&at, "weight_g_idx", l, err);
}

static gyre_status open_columns(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role,
                                uint32_t layer, struct gyre_linear *l, gyre_error *err)
{
    const struct gyre_linear_place at = {source, hp, role, layer};
    const struct gyre_quantization *q = gyre_source_quantization(source);
    const struct gyre_tensor *t = l->weight;
    const bool gptq = q->method == GYRE_METHOD_GPTQ;
    if (t->n_dims != 2 || (gptq ? t->cols != l->whole : t->rows != l->cols))
        return gyre_role_misshapen(source, t, gptq ? gyre_div_up(l->cols, 8) : l->cols,
                                   gptq ? l->whole : gyre_div_up(l->whole, 8), err);
    GYRE_TRY(set_bits(source, gptq ? t->rows : t->cols, gptq ? l->cols : l->whole, l, err));
    if (l->whole % (32 / l->bits) || (!gptq && l->bits != 4))
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): tensor %s has %llu outputs of %u bits, which fill no whole words",
                         gyre_source_path(source), t->name, (unsigned long long)l->whole, l->bits);
    GYRE_TRY(gyre_linear_need(&at, l, "scales", &l->scale, err));
    GYRE_TRY(set_group(source, l->scale, l->scale->rows, l, err));
    const uint64_t groups = l->cols / l->group;
    GYRE_TRY(need(&at, l, "scales", false, groups, l->whole, &l->scale, err));
    GYRE_TRY(need(&at, l, "qzeros", true, groups, l->whole / (32 / l->bits), &l->zero, err));
    l->less = gptq && q->zeros_less_one;
    return finish(&at, "g_idx", l, err);
}

const struct gyre_pack gyre_pack_compressed = {
    1u << GYRE_METHOD_COMPRESSED_TENSORS, "weight_packed", takes, open_compressed, values, codes, scale, zero};
const struct gyre_pack gyre_pack_columns = {
    1u << GYRE_METHOD_AWQ | 1u << GYRE_METHOD_GPTQ, "qweight", takes, open_columns, values, codes, scale, zero};
