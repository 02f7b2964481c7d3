// The table of roles (roles.def) as C: names, shapes and rotations of a model's tensors, and how to find one in a
// source.
#pragma once
#include "runtime/model/hparams.h"

typedef enum gyre_product {
#define PRODUCT(name, reads, norm, rotation, input) GYRE_PRODUCT_##name,
#include "runtime/model/roles.def"
    GYRE_PRODUCTS,
    GYRE_PRODUCT_none = GYRE_PRODUCTS
} gyre_product;

// Linears first, so that a loop over them ends at GYRE_LINEARS; then the other tensors of a block, up to
// GYRE_BLOCK_ROLES.
typedef enum gyre_role {
#define LINEAR(name, gguf, hf, rows, product, writes, heads) GYRE_ROLE_##name,
#include "runtime/model/roles.def"
    GYRE_LINEARS,
    GYRE_BEFORE_VECTORS = GYRE_LINEARS - 1,
#define VECTOR(name, gguf, hf, elements, behind) GYRE_ROLE_##name,
#include "runtime/model/roles.def"
    GYRE_BLOCK_ROLES,
    GYRE_BEFORE_GLOBALS = GYRE_BLOCK_ROLES - 1,
#define GLOBAL(name, gguf, hf, rows, cols) GYRE_ROLE_##name,
#include "runtime/model/roles.def"
    GYRE_ROLES,
    GYRE_ROLE_none = GYRE_ROLES
} gyre_role;

#define GYRE_ROLE_BIT(role) (UINT32_C(1) << (role))

typedef enum gyre_rotation { GYRE_ROTATION_NONE, GYRE_ROTATION_R1, GYRE_ROTATION_R2, GYRE_ROTATION_R4 } gyre_rotation;

struct gyre_product_info {
    const char *name, *input; // input: said of what it reads, for people
    gyre_role norm;           // what it reads comes from this norm; GYRE_ROLE_none
    gyre_rotation reads;      // the rotation of what it reads
};
extern const struct gyre_product_info gyre_products[GYRE_PRODUCTS];

typedef enum gyre_heads { GYRE_HEADS_OTHER, GYRE_HEADS_QUERY, GYRE_HEADS_KEY, GYRE_HEADS_VALUE } gyre_heads;

struct gyre_role_info {
    const char *gguf, *hf; // stems; hf NULL: no counterpart
    gyre_product product;  // linears; else GYRE_PRODUCTS
    gyre_rotation writes;  // linears: of what they compute
    gyre_heads heads;      // linears: which heads they compute
    bool matrix;
};
extern const struct gyre_role_info gyre_roles[GYRE_ROLES];

// Rows and columns of a tensor; a vector has one row.
void gyre_role_shape(gyre_role role, const struct gyre_hparams *hp, uint64_t *rows, uint64_t *cols);
uint32_t gyre_product_width(gyre_product product, const struct gyre_hparams *hp); // of what it reads
gyre_role gyre_product_first(gyre_product product);                               // of its linears
// The product of which `norm` makes the input; GYRE_PRODUCTS: none.
gyre_product gyre_norm_product(gyre_role norm);

// Rows are heads that RoPE turns; what is computed goes into the cache.
bool gyre_role_is_turned(gyre_role role);
bool gyre_role_is_cached(gyre_role role);
// A vector over heads, not over the stream.
bool gyre_role_is_of_heads(gyre_role role);
// What the linear computes is added to the residual stream as it is, with no norm between: a rotation of the stream can
// be merged into it.
bool gyre_role_adds(const struct gyre_hparams *hp, gyre_role role);
// So it is for all that writes the stream: R1 is merged everywhere. Else it can only run in front of what reads it.
bool gyre_roles_merge_r1(const struct gyre_hparams *hp);
// The linear that computes heads of this kind.
gyre_role gyre_heads_role(gyre_heads heads);

// Whether block `layer` has the tensor, and a bias for it: bits of the architecture.
bool gyre_role_present(const struct gyre_hparams *hp, gyre_role role, uint32_t layer);
bool gyre_role_has_bias(const struct gyre_hparams *hp, gyre_role role, uint32_t layer);

// GGUF's name, "blk.3.attn_q.PART" (globals: "output_norm.PART"); PART is "weight", "weight.scale", "bias" or
// "centre".
enum { GYRE_ROLE_NAME = 64 };
void gyre_role_name(gyre_role role, uint32_t layer, const char *part, char out[GYRE_ROLE_NAME]);

// The tensor under the name that the source's container has for it; NULL if absent. name (may be NULL) gets that
// name.
const struct gyre_tensor *gyre_role_tensor(const gyre_source *source, gyre_role role, uint32_t layer, const char *part,
                                           char name[GYRE_ROLE_NAME]);
// A tensor that holds the rows of several linears (roles.def: FUSED), if the file has one in place of this linear's
// own; else NULL. Its rows are those from *first on, of *whole.
const struct gyre_tensor *gyre_role_fused(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role,
                                          uint32_t layer, const char *part, uint64_t *first, uint64_t *whole);
// The same for what other tools store beside or in place of it (packed codes, scales, ...), whatever its shape.
const struct gyre_tensor *gyre_role_fused_part(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role,
                                               uint32_t layer, const char *part, uint64_t *first, uint64_t *whole);
// The numbers of a vector as the model means them (of norms some containers hold what is added to 1); out: as many as
// the tensor has.
void gyre_role_vector_f32(const struct gyre_hparams *hp, gyre_role role, const struct gyre_tensor *tensor, float *out);
// The other way: n numbers of a vector as a file of the container that `hp` was read from holds them, in place.
void gyre_role_vector_stored(const struct gyre_hparams *hp, gyre_role role, float *x, uint64_t n);

// The stem of a tensor's name in Hugging Face's files of this architecture: where the usual one is another role's, its
// other name.
const char *gyre_role_hf(const struct gyre_hparams *hp, gyre_role role);
// The tensor in which plain files of this architecture hold a linear with others, their rows one behind the other.
struct gyre_fused {
    gyre_role first, last; // the linears from the one to the other
    const char *stem;      // of the tensor's name; NULL: each has its own, and first and last are the linear itself
};
struct gyre_fused gyre_role_fusion(const struct gyre_hparams *hp, gyre_role role, gyre_container container);
// The bias of a linear: a vector of floats, and where in it the linear's own begin. GYRE_E_FORMAT where it is missing
// or of another shape, GYRE_E_UNSUPPORTED where it is no vector of floats.
struct gyre_bias {
    const struct gyre_tensor *tensor;
    uint64_t first, n;
};
gyre_status gyre_role_bias(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer,
                           struct gyre_bias *out, gyre_error *err) GYRE_MUST_USE;
void gyre_bias_f32(const struct gyre_bias *bias, float *out); // [n]
// Whether the source has one, in whatever tensor.
bool gyre_role_finds_bias(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer);
// GYRE_E_UNSUPPORTED unless its numbers are floats.
gyre_status gyre_role_floats(const gyre_source *source, const struct gyre_tensor *tensor, gyre_error *err);
// The same, which must be there: GYRE_E_FORMAT names it. And GYRE_E_FORMAT for one of another shape.
gyre_status gyre_role_need(const gyre_source *source, gyre_role role, uint32_t layer, const char *part,
                           const struct gyre_tensor **out, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_role_misshapen(const gyre_source *source, const struct gyre_tensor *tensor, uint64_t rows,
                                uint64_t cols, gyre_error *err);
