// See roles.h.
#include "runtime/model/roles.h"
#include "runtime/model/arch.h"
#include "runtime/core/codec.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <string.h>

typedef enum size_name { ONE, WIDTH, FFN, VOCAB, QUERIES, KEYS, HEAD, TURNED } size_name;

// ---- the table, column by column ---------------------------------------------------------------------------

const struct gyre_product_info gyre_products[GYRE_PRODUCTS] = {
#define PRODUCT(name, reads, norm, rotation, input)                                                                    \
    [GYRE_PRODUCT_##name] = {#name, input, GYRE_ROLE_##norm, GYRE_ROTATION_##rotation},
#include "runtime/model/roles.def"
};

const struct gyre_role_info gyre_roles[GYRE_ROLES] = {
#define LINEAR(name, gguf, hf, rows, product, writes, heads)                                                           \
    [GYRE_ROLE_##name] = {gguf, hf, GYRE_PRODUCT_##product, GYRE_ROTATION_##writes, GYRE_HEADS_##heads, true},
#define VECTOR(name, gguf, hf, elements, behind)                                                                       \
    [GYRE_ROLE_##name] = {gguf, hf, GYRE_PRODUCTS, GYRE_ROTATION_NONE, GYRE_HEADS_OTHER, false},
#define GLOBAL(name, gguf, hf, rows, cols)                                                                             \
    [GYRE_ROLE_##name] = {gguf, hf, GYRE_PRODUCTS, GYRE_ROTATION_NONE, GYRE_HEADS_OTHER, rows != ONE},
#include "runtime/model/roles.def"
};

static const size_name reads[GYRE_PRODUCTS] = {
#define PRODUCT(name, reads, norm, rotation, input) [GYRE_PRODUCT_##name] = reads,
#include "runtime/model/roles.def"
};

// Columns of linears are what their products read.
static const struct {
    size_name rows, cols;
} shapes[GYRE_ROLES] = {
#define LINEAR(name, gguf, hf, rows, product, writes, heads) [GYRE_ROLE_##name] = {rows, ONE},
#define VECTOR(name, gguf, hf, elements, behind) [GYRE_ROLE_##name] = {ONE, elements},
#define GLOBAL(name, gguf, hf, rows, cols) [GYRE_ROLE_##name] = {rows, cols},
#include "runtime/model/roles.def"
};

// Vectors that stand between a product and the stream.
static const gyre_product stands_behind[GYRE_BLOCK_ROLES] = {
#define LINEAR(name, gguf, hf, rows, product, writes, heads) [GYRE_ROLE_##name] = GYRE_PRODUCT_none,
#define VECTOR(name, gguf, hf, elements, behind) [GYRE_ROLE_##name] = GYRE_PRODUCT_##behind,
#include "runtime/model/roles.def"
};

// A name that stands for several linears, and other names of tensors.
static const struct fusion {
    gyre_role first, last;
    const char *gguf, *hf;
} fusions[] = {
#define FUSED(first, last, gguf, hf) {GYRE_ROLE_##first, GYRE_ROLE_##last, gguf, hf},
#include "runtime/model/roles.def"
};
static const struct {
    gyre_role role;
    const char *hf;
} aliases[] = {
#define ALIAS(role, hf) {GYRE_ROLE_##role, hf},
#include "runtime/model/roles.def"
};

// ---- shapes ------------------------------------------------------------------------------------------------

static uint64_t size_of(const struct gyre_hparams *hp, size_name name)
{
    switch (name) {
    case WIDTH:
        return hp->width;
    case FFN:
        return hp->ffn;
    case VOCAB:
        return hp->vocab;
    case QUERIES:
        return (uint64_t)hp->heads * hp->head_dim;
    case KEYS:
        return (uint64_t)hp->kv_heads * hp->head_dim;
    case HEAD:
        return hp->head_dim;
    case TURNED:
        return hp->rope_dims / 2;
    case ONE:
        break;
    }
    return 1;
}

void gyre_role_shape(gyre_role role, const struct gyre_hparams *hp, uint64_t *rows, uint64_t *cols)
{
    *rows = size_of(hp, shapes[role].rows);
    *cols = role < GYRE_LINEARS ? size_of(hp, reads[gyre_roles[role].product]) : size_of(hp, shapes[role].cols);
}

uint32_t gyre_product_width(gyre_product product, const struct gyre_hparams *hp)
{
    return (uint32_t)size_of(hp, reads[product]);
}

gyre_role gyre_product_first(gyre_product product)
{
    int role = 0;
    while (role < GYRE_LINEARS && gyre_roles[role].product != product) role++;
    return (gyre_role)role;
}

gyre_product gyre_norm_product(gyre_role norm)
{
    int product = 0;
    while (product < GYRE_PRODUCTS && gyre_products[product].norm != norm) product++;
    return (gyre_product)product;
}

bool gyre_role_is_turned(gyre_role role)
{
    return gyre_roles[role].heads == GYRE_HEADS_QUERY || gyre_roles[role].heads == GYRE_HEADS_KEY;
}

bool gyre_role_is_cached(gyre_role role)
{
    return gyre_roles[role].heads == GYRE_HEADS_KEY || gyre_roles[role].heads == GYRE_HEADS_VALUE;
}

bool gyre_role_is_of_heads(gyre_role role) { return shapes[role].cols == HEAD; }

bool gyre_role_adds(const struct gyre_hparams *hp, gyre_role role)
{
    if (gyre_roles[role].writes != GYRE_ROTATION_R1) return false;
    for (int r = GYRE_LINEARS; r < GYRE_BLOCK_ROLES; r++)
        if (stands_behind[r] == gyre_roles[role].product && hp->roles & GYRE_ROLE_BIT(r)) return false;
    return true;
}

bool gyre_roles_merge_r1(const struct gyre_hparams *hp)
{
    for (int r = 0; r < GYRE_LINEARS; r++)
        if (gyre_roles[r].writes == GYRE_ROTATION_R1 && !gyre_role_adds(hp, (gyre_role)r)) return false;
    return true;
}

gyre_role gyre_heads_role(gyre_heads heads)
{
    int role = 0;
    while (role < GYRE_LINEARS && gyre_roles[role].heads != heads) role++;
    return (gyre_role)role;
}

// ---- presence and names --------------------------------------------------------------------------------------

bool gyre_role_present(const struct gyre_hparams *hp, gyre_role role, uint32_t layer)
{
    (void)layer; // every block of the architectures so far is alike
    return hp->roles & GYRE_ROLE_BIT(role);
}

bool gyre_role_has_bias(const struct gyre_hparams *hp, gyre_role role, uint32_t layer)
{
    (void)layer;
    return hp->biases & GYRE_ROLE_BIT(role);
}

void gyre_role_name(gyre_role role, uint32_t layer, const char *part, char out[GYRE_ROLE_NAME])
{
    if (role < GYRE_BLOCK_ROLES) snprintf(out, GYRE_ROLE_NAME, "blk.%u.%s.%s", layer, gyre_roles[role].gguf, part);
    else snprintf(out, GYRE_ROLE_NAME, "%s.%s", gyre_roles[role].gguf, part);
}

static const struct gyre_tensor *hf_tensor(const gyre_source *source, const char *stem, gyre_role role, uint32_t layer,
                                           const char *part, char name[GYRE_ROLE_NAME])
{
    if (role < GYRE_BLOCK_ROLES) snprintf(name, GYRE_ROLE_NAME, "model.layers.%u.%s.%s", layer, stem, part);
    else snprintf(name, GYRE_ROLE_NAME, "%s.%s", stem, part);
    return gyre_source_tensor(source, name);
}

const struct gyre_tensor *gyre_role_tensor(const gyre_source *source, gyre_role role, uint32_t layer, const char *part,
                                           char name[GYRE_ROLE_NAME])
{
    char own[GYRE_ROLE_NAME];
    if (!name) name = own;
    const struct gyre_role_info *info = &gyre_roles[role];
    const struct gyre_tensor *t = NULL;
    if (gyre_source_container(source) == GYRE_CONTAINER_GGUF) {
        gyre_role_name(role, layer, part, name);
        return gyre_source_tensor(source, name);
    }
    for (size_t i = 0; i < GYRE_COUNT(aliases) && !t; i++)
        if (aliases[i].role == role) t = hf_tensor(source, aliases[i].hf, role, layer, part, name);
    return t || !info->hf ? t : hf_tensor(source, info->hf, role, layer, part, name);
}

// `whole_rows`: it must have a row for each of theirs.
static const struct gyre_tensor *find_fused(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role,
                                            uint32_t layer, const char *part, bool whole_rows, uint64_t *first,
                                            uint64_t *whole)
{
    const bool gguf = gyre_source_container(source) == GYRE_CONTAINER_GGUF;
    for (size_t i = 0; i < GYRE_COUNT(fusions); i++) {
        const struct fusion *f = &fusions[i];
        const char *stem = gguf ? f->gguf : f->hf;
        char name[GYRE_ROLE_NAME];
        uint64_t rows, cols;
        if (role < f->first || role > f->last || !stem) continue;
        if (gyre_role_tensor(source, f->first, layer, "weight", NULL)) continue;
        snprintf(name, sizeof name, gguf ? "blk.%u.%s.%s" : "model.layers.%u.%s.%s", layer, stem, part);
        const struct gyre_tensor *t = gyre_source_tensor(source, name);
        uint64_t at = 0, all = 0;
        for (gyre_role r = f->first; r <= f->last; r++) {
            gyre_role_shape(r, hp, &rows, &cols);
            if (r == role) at = all;
            all += rows;
        }
        if (!t || (whole_rows && (t->n_dims == 1 ? t->cols : t->rows) != all))
            continue; // by the last one's name, that one's own
        *first = at;
        *whole = all;
        return t;
    }
    return NULL;
}

const struct gyre_tensor *gyre_role_fused(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role,
                                          uint32_t layer, const char *part, uint64_t *first, uint64_t *whole)
{
    return find_fused(source, hp, role, layer, part, true, first, whole);
}

const struct gyre_tensor *gyre_role_fused_part(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role,
                                               uint32_t layer, const char *part, uint64_t *first, uint64_t *whole)
{
    return find_fused(source, hp, role, layer, part, false, first, whole);
}

gyre_status gyre_role_need(const gyre_source *source, gyre_role role, uint32_t layer, const char *part,
                           const struct gyre_tensor **out, gyre_error *err)
{
    char name[GYRE_ROLE_NAME];
    *out = gyre_role_tensor(source, role, layer, part, name);
    if (*out) return GYRE_OK;
    return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): tensor %s is missing", gyre_source_path(source), name);
}

gyre_status gyre_role_misshapen(const gyre_source *source, const struct gyre_tensor *t, uint64_t rows, uint64_t cols,
                                gyre_error *err)
{
    return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): tensor %s has shape %llu x %llu; %llu x %llu is due",
                     gyre_source_path(source), t->name, (unsigned long long)t->rows, (unsigned long long)t->cols,
                     (unsigned long long)rows, (unsigned long long)cols);
}

// ---- vectors ---------------------------------------------------------------------------------------------------

static bool lacks_one(const struct gyre_hparams *hp, gyre_role role)
{
    const bool norm = (role >= GYRE_LINEARS && role < GYRE_BLOCK_ROLES) || role == GYRE_ROLE_output_norm;
    return norm && hp->norms_less_one;
}

void gyre_role_vector_f32(const struct gyre_hparams *hp, gyre_role role, const struct gyre_tensor *t, float *out)
{
    gyre_tensor_rows_f32(t, 0, 1, out);
    for (uint64_t i = 0; i < t->cols && lacks_one(hp, role); i++) out[i] += 1;
}

void gyre_role_vector_stored(const struct gyre_hparams *hp, gyre_role role, float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n && lacks_one(hp, role); i++) x[i] -= 1;
}

const char *gyre_role_hf(const struct gyre_hparams *hp, gyre_role role)
{
    bool taken = false;
    for (int r = 0; r < GYRE_BLOCK_ROLES && role < GYRE_BLOCK_ROLES; r++)
        taken |= r != (int)role && hp->roles & GYRE_ROLE_BIT(r) && !strcmp(gyre_roles[r].hf, gyre_roles[role].hf);
    // Of two that share a name, the one that has another is called by that.
    for (size_t i = 0; taken && i < GYRE_COUNT(aliases); i++)
        if (aliases[i].role == role) return aliases[i].hf;
    return gyre_roles[role].hf;
}

struct gyre_fused gyre_role_fusion(const struct gyre_hparams *hp, gyre_role role, gyre_container container)
{
    for (size_t i = 0; i < GYRE_COUNT(fusions) && hp->family->plain & GYRE_PLAIN_FUSED; i++) {
        const struct fusion *f = &fusions[i];
        const char *stem = container == GYRE_CONTAINER_GGUF ? f->gguf : f->hf;
        if (role >= f->first && role <= f->last && stem) return (struct gyre_fused){f->first, f->last, stem};
    }
    return (struct gyre_fused){role, role, NULL};
}

gyre_status gyre_role_floats(const gyre_source *source, const struct gyre_tensor *t, gyre_error *err)
{
    if (t->type == GYRE_DTYPE_F32 || t->type == GYRE_DTYPE_F16 || t->type == GYRE_DTYPE_BF16 ||
        t->type == GYRE_DTYPE_F64)
        return GYRE_OK;
    return gyre_fail(err, GYRE_E_UNSUPPORTED,
                     "cannot use model (%s): tensor %s has type %s; gyre reads vectors of floats",
                     gyre_source_path(source), t->name, gyre_dtype_info(t->type)->name);
}

bool gyre_role_finds_bias(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer)
{
    uint64_t first, whole;
    return gyre_role_tensor(source, role, layer, "bias", NULL) ||
           gyre_role_fused(source, hp, role, layer, "bias", &first, &whole);
}

gyre_status gyre_role_bias(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer,
                           struct gyre_bias *out, gyre_error *err)
{
    uint64_t whole, cols;
    out->first = 0;
    gyre_role_shape(role, hp, &out->n, &cols);
    whole = out->n;
    out->tensor = gyre_role_fused(source, hp, role, layer, "bias", &out->first, &whole);
    if (!out->tensor) GYRE_TRY(gyre_role_need(source, role, layer, "bias", &out->tensor, err));
    if (out->tensor->n_dims != 1 || out->tensor->cols != whole)
        return gyre_role_misshapen(source, out->tensor, 1, whole, err);
    return gyre_role_floats(source, out->tensor, err);
}

void gyre_bias_f32(const struct gyre_bias *bias, float *out)
{
    const struct gyre_tensor *t = bias->tensor;
    const uint64_t bytes = gyre_dtype_info(t->type)->block_bytes;
    gyre_decode_row(t->type, (const unsigned char *)t->data + bias->first * bytes, bias->n, out);
}
