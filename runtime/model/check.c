// Is the model whole? Presence, shape and type of every tensor, and no NaN or infinity in floats and block scales.
// A tensor that has no place in the architecture (a bias, an expert) is refused: ignoring it would compute another
// model.
#include "runtime/model/clips.h"
#include "runtime/model/hparams_impl.h"
#include "runtime/model/linear.h"

#include "runtime/util/base.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct checker {
    const gyre_source *source;
    const struct gyre_hparams *hp;
    bool *known; // by tensor index
    gyre_error *err;
};

static void know(struct checker *c, const struct gyre_tensor *t) { c->known[t - c->source->tensors] = true; }

static gyre_status check_vector(struct checker *c, gyre_role role, uint32_t layer, const char *part, uint64_t n)
{
    const struct gyre_tensor *t;
    GYRE_TRY(gyre_role_need(c->source, role, layer, part, &t, c->err));
    if (c->known[t - c->source->tensors]) // one name's other meaning: the tensor that goes by its own is not there
        return gyre_fail(c->err, GYRE_E_FORMAT,
                         "cannot use model (%s): tensor %s would stand in two places of a block; another is missing",
                         c->source->path, t->name);
    know(c, t);
    if (t->n_dims != 1 || t->cols != n) return gyre_role_misshapen(c->source, t, 1, n, c->err);
    return gyre_role_floats(c->source, t, c->err);
}

static gyre_status check_bias(struct checker *c, gyre_role role, uint32_t layer)
{
    struct gyre_bias bias;
    GYRE_TRY(gyre_role_bias(c->source, c->hp, role, layer, &bias, c->err));
    know(c, bias.tensor);
    return GYRE_OK;
}

static gyre_status check_matrix(struct checker *c, gyre_role role, uint32_t layer)
{
    struct gyre_linear l;
    GYRE_TRY(gyre_linear_find(c->source, c->hp, role, layer, &l, c->err));
    const struct gyre_tensor *all[GYRE_LINEAR_TENSORS];
    for (uint32_t i = 0, n = gyre_linear_tensors(&l, all); i < n; i++) know(c, all[i]);
    return GYRE_OK;
}

static gyre_status check_block(struct checker *c, uint32_t layer)
{
    for (int r = 0; r < GYRE_BLOCK_ROLES; r++) {
        const gyre_role role = (gyre_role)r;
        uint64_t rows, cols;
        if (!gyre_role_present(c->hp, role, layer)) continue;
        gyre_role_shape(role, c->hp, &rows, &cols);
        if (c->hp->kv_centre && gyre_role_is_cached(role)) GYRE_TRY(check_vector(c, role, layer, "centre", rows));
        if (gyre_role_has_bias(c->hp, role, layer)) GYRE_TRY(check_bias(c, role, layer));
        if (gyre_roles[role].matrix) GYRE_TRY(check_matrix(c, role, layer));
        else GYRE_TRY(check_vector(c, role, layer, "weight", cols));
    }
    return GYRE_OK;
}

// How numbers that are not finite are found in a type's blocks.
struct rule {
    // True if one of `blocks` blocks of `stride` bytes holds one. NULL: integers, which cannot.
    bool (*odd)(const unsigned char *p, uint64_t blocks, uint64_t stride, const struct rule *rule);
    uint32_t n, at; // odd_halves: f16 numbers of a block, side by side; the byte of the first
};

static bool odd_exponents(const unsigned char *p, uint64_t count, uint64_t stride, uint16_t mask)
{
    unsigned odd = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint16_t v;
        memcpy(&v, p + i * stride, 2);
        odd |= (v & mask) == mask;
    }
    return odd;
}

static bool odd_halves(const unsigned char *p, uint64_t blocks, uint64_t stride, const struct rule *rule)
{
    for (uint32_t i = 0; i < rule->n; i++)
        if (odd_exponents(p + rule->at + 2 * i, blocks, stride, 0x7C00)) return true;
    return false;
}

static bool odd_bf16(const unsigned char *p, uint64_t count, uint64_t stride, const struct rule *rule)
{
    (void)stride, (void)rule; // known here, so that the loop is one of vectors; as in the others of floats
    return odd_exponents(p, count, 2, 0x7F80);
}

static bool odd_f16(const unsigned char *p, uint64_t count, uint64_t stride, const struct rule *rule)
{
    (void)stride, (void)rule;
    return odd_exponents(p, count, 2, 0x7C00);
}

static bool odd_f32(const unsigned char *p, uint64_t count, uint64_t stride, const struct rule *rule)
{
    unsigned odd = 0;
    (void)stride, (void)rule;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t v;
        memcpy(&v, p + 4 * i, 4);
        odd |= (v & 0x7F800000u) == 0x7F800000u;
    }
    return odd;
}

// An F64 tensor runs as f32, which a finite double may overflow.
static bool odd_f64(const unsigned char *p, uint64_t count, uint64_t stride, const struct rule *rule)
{
    unsigned odd = 0;
    (void)stride, (void)rule;
    for (uint64_t i = 0; i < count; i++) {
        double v;
        memcpy(&v, p + 8 * i, 8);
        odd |= isfinite((float)v) ? 0 : 1;
    }
    return odd;
}

// The scale of a block of MXFP4 is a power of two in one byte: beyond 252, 2^125 times its largest code overflows.
static bool odd_mxfp4(const unsigned char *p, uint64_t blocks, uint64_t stride, const struct rule *rule)
{
    unsigned odd = 0;
    (void)rule;
    for (uint64_t i = 0; i < blocks; i++) odd |= p[stride * i] > 252;
    return odd;
}

// One for each type of dtype.h: a type that has none here does not compile.
#define RULE_F32 odd_f32, 0, 0
#define RULE_F64 odd_f64, 0, 0
#define RULE_BF16 odd_bf16, 0, 0
#define RULE_F16 odd_f16, 0, 0
#define RULE_Q4_0 odd_halves, 1, 0
#define RULE_Q4_1 odd_halves, 2, 0
#define RULE_Q5_0 odd_halves, 1, 0
#define RULE_Q5_1 odd_halves, 2, 0
#define RULE_Q8_0 odd_halves, 1, 0
#define RULE_Q2_K odd_halves, 2, 80
#define RULE_Q3_K odd_halves, 1, 108
#define RULE_Q4_K odd_halves, 2, 0
#define RULE_Q5_K odd_halves, 2, 0
#define RULE_Q6_K odd_halves, 1, 208
#define RULE_IQ4_NL odd_halves, 1, 0
#define RULE_IQ4_XS odd_halves, 1, 0
#define RULE_MXFP4 odd_mxfp4, 0, 0
#define RULE_TQ1_0 odd_halves, 1, 52
#define RULE_TQ2_0 odd_halves, 1, 64
#define RULE_I8 NULL, 0, 0
#define RULE_I32 NULL, 0, 0
#define RULE_I64 NULL, 0, 0
static const struct rule rules[GYRE_DTYPE_COUNT] = {
#define X(id, name, gguf, elements, bytes) [GYRE_DTYPE_##id] = {RULE_##id},
    GYRE_DTYPE_MAP(X)
#undef X
};

// NaN or infinity among what the floats of a tensor run as, or among the scales of its blocks.
static bool holds_nan(const struct gyre_tensor *t)
{
    const uint64_t stride = gyre_dtype_info(t->type)->block_bytes;
    const struct rule *const r = &rules[t->type];
    return r->odd && r->odd(t->data, t->bytes / stride, stride, r);
}

gyre_status gyre_model_check_finite(const gyre_source *source, const struct gyre_tensor *tensor, gyre_error *err)
{
    if (!holds_nan(tensor)) return GYRE_OK;
    if (tensor->type == GYRE_DTYPE_F64)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use model (%s): tensor %s holds NaN, infinity or what no f32 holds, and gyre runs F64 "
                         "as f32",
                         source->path, tensor->name);
    return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): tensor %s holds NaN or infinity; the file is damaged",
                     source->path, tensor->name);
}

gyre_status gyre_model_check_values(const gyre_source *source, gyre_error *err)
{
    const int64_t n = (int64_t)source->n_tensors;
    int64_t first = n;
#pragma omp parallel for schedule(dynamic) reduction(min : first)
    for (int64_t i = 0; i < n; i++) {
        if (holds_nan(&source->tensors[i])) first = GYRE_MIN(first, i);
        gyre_tensor_forget(&source->tensors[i]); // a model is larger than the work on one of its blocks
    }
    return first == n ? GYRE_OK : gyre_model_check_finite(source, &source->tensors[first], err);
}

gyre_status gyre_model_check_tensors(const gyre_source *source, const struct gyre_hparams *hp, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct checker c = {source, hp, calloc(source->n_tensors + 1, sizeof(bool)), err};
    if (!c.known) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot use model (%s): out of memory", source->path);
        goto done;
    }
    GYRE_GO(check_matrix(&c, GYRE_ROLE_embedding, 0));
    GYRE_GO(check_vector(&c, GYRE_ROLE_output_norm, 0, "weight", hp->width));
    if (!hp->tied) GYRE_GO(check_matrix(&c, GYRE_ROLE_head, 0));
    for (int r = GYRE_ROLE_rope_freqs; r <= GYRE_ROLE_rope_long; r++)
        if (gyre_role_tensor(source, (gyre_role)r, 0, "weight", NULL))
            GYRE_GO(check_vector(&c, (gyre_role)r, 0, "weight", hp->rope_dims / 2));
    for (uint32_t i = 0; i < hp->n_layers; i++) {
        float act[GYRE_PRODUCTS], kv[GYRE_CACHED];
        GYRE_GO(check_block(&c, i));
        GYRE_GO(gyre_clips_read(source, hp, i, act, kv, err));
    }
    for (uint64_t i = 0; i < source->n_tensors; i++) {
        if (c.known[i] || gyre_rotations_read_tensor(hp, source->tensors[i].name) ||
            gyre_clips_read_tensor(hp, source->tensors[i].name))
            continue;
        st =
            gyre_fail(err, GYRE_E_UNSUPPORTED,
                      "cannot use model (%s): tensor %s has no place in a %s model of %u layers", source->path,
                      gyre_show(source->tensors[i].name, strlen(source->tensors[i].name)).text, hp->arch, hp->n_layers);
        goto done;
    }
done:
    free(c.known);
    return st;
}

gyre_status gyre_model_check(const gyre_source *source, const struct gyre_hparams *hp, gyre_error *err)
{
    GYRE_TRY(gyre_model_check_tensors(source, hp, err));
    return gyre_model_check_values(source, err);
}
