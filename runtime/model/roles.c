// See roles.h.
#include "runtime/model/roles.h"
#include "runtime/model/arch.h"

#include <stdio.h>

typedef enum size_name { ONE, WIDTH, FFN, VOCAB, QUERIES, KEYS, HEAD, HALF } size_name;

// ---- the table, column by column ---------------------------------------------------------------------------

const struct gyre_product_info gyre_products[GYRE_PRODUCTS] = {
#define PRODUCT(name, reads, norm, rotation, input)                                                                    \
    [GYRE_PRODUCT_##name] = {#name, input, GYRE_ROLE_##norm, GYRE_ROTATION_##rotation},
#include "runtime/model/roles.def"
};

const struct gyre_role_info gyre_roles[GYRE_ROLES] = {
#define LINEAR(name, gguf, hf, rows, product, writes, heads)                                                           \
    [GYRE_ROLE_##name] = {gguf, hf, GYRE_PRODUCT_##product, GYRE_ROTATION_##writes, GYRE_HEADS_##heads, true},
#define VECTOR(name, gguf, hf, elements)                                                                               \
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
#define VECTOR(name, gguf, hf, elements) [GYRE_ROLE_##name] = {ONE, elements},
#define GLOBAL(name, gguf, hf, rows, cols) [GYRE_ROLE_##name] = {rows, cols},
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
    case HALF:
        return hp->head_dim / 2;
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
    return hp->family->roles & GYRE_ROLE_BIT(role);
}

bool gyre_role_has_bias(const struct gyre_hparams *hp, gyre_role role, uint32_t layer)
{
    (void)layer;
    return hp->family->biases & GYRE_ROLE_BIT(role);
}

void gyre_role_name(gyre_role role, uint32_t layer, const char *part, char out[GYRE_ROLE_NAME])
{
    if (role < GYRE_BLOCK_ROLES) snprintf(out, GYRE_ROLE_NAME, "blk.%u.%s.%s", layer, gyre_roles[role].gguf, part);
    else snprintf(out, GYRE_ROLE_NAME, "%s.%s", gyre_roles[role].gguf, part);
}

const struct gyre_tensor *gyre_role_tensor(const gyre_source *source, gyre_role role, uint32_t layer, const char *part,
                                           char name[GYRE_ROLE_NAME])
{
    char own[GYRE_ROLE_NAME];
    if (!name) name = own;
    const struct gyre_role_info *info = &gyre_roles[role];
    if (gyre_source_container(source) == GYRE_CONTAINER_GGUF) gyre_role_name(role, layer, part, name);
    else if (!info->hf) return NULL;
    else if (role < GYRE_BLOCK_ROLES) snprintf(name, GYRE_ROLE_NAME, "model.layers.%u.%s.%s", layer, info->hf, part);
    else snprintf(name, GYRE_ROLE_NAME, "%s.%s", info->hf, part);
    return gyre_source_tensor(source, name);
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
