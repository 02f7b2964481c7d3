// The rotations that are merged into weights, in double precision, one matrix at a time.
//
// Row vectors: the residual stream x becomes x' = x R1 with R1 = diag(signs) H_D / sqrt(D); each kv head's values v
// become v R2 (signs per layer and kv head, H of the head size); the input a of ffn_down becomes a H_F. What reads a
// stream (W [out, in]) becomes W R, what writes one becomes R^T W. Signs come from the seed alone. Which linear reads
// and writes what: runtime/model/roles.def. Proofs: docs/numerics.md. Where
// matrices were learned they stand in the place of R1 and R2 (matrices.h).
#pragma once
#include "quantizer/transform/matrices.h"
#include "runtime/core/hadamard.h"
#include "runtime/model/roles.h"

// Which rotations a model gets. A transform with n = 0 is off.
struct gyre_rotator {
    struct gyre_hadamard r1, r2, r4;
    bool online; // the stream itself is not turned: R1 is merged into what reads the norms alone and runs behind them;
                 // its signs are merged into the norms' gains, which stay where they are
    bool fold;   // norm gains go into the linears that read the norm
    uint32_t width, heads, kv_heads, head_dim, ffn;
    uint64_t seed;
    int8_t *r1_signs; // [width]
    // Borrowed; NULL: none. Of a model with r1 and r2, which then only say that there are such rotations.
    const struct gyre_matrices *learned;
};

// R1: where it can be merged into all that writes the stream. ONLINE_R1: where it cannot (gyre_roles_merge_r1).
enum { GYRE_ROTATE_R1 = 1, GYRE_ROTATE_R2 = 2, GYRE_ROTATE_R4 = 4, GYRE_ROTATE_ONLINE_R1 = 8 };

// Makes the transforms named in `which`, each as wide as the model allows (segments where a width has none of its own).
// Gains are folded (`fold`) only where R1 can be merged, which needs it: folded ones leave the input with the outliers
// of the stream and spread the columns of the weights (docs/quality.md).
gyre_status gyre_rotator_create(const struct gyre_hparams *hp, uint64_t seed, bool fold, unsigned which,
                                struct gyre_rotator *out, gyre_error *err) GYRE_MUST_USE;
void gyre_rotator_release(struct gyre_rotator *rotator);

// What it rotates by, as matrices: those that signs and transforms amount to, or the learned ones. `out` was created
// for as many layers as the model has, with R1 where the rotator has it.
gyre_status gyre_rotator_matrices(const struct gyre_rotator *rotator, struct gyre_matrices *out,
                                  gyre_error *err) GYRE_MUST_USE;
// What is merged into the gain of the norm that `product` reads, or into 1 where that is folded: the sign of an online
// R1 at column i, else 1.
float gyre_rotate_gain(const struct gyre_rotator *rotator, gyre_product product, uint32_t i);

// Folds and rotates one linear in place; w is [out, in]. `gain` [in] is the gain of the norm it reads (ignored without
// `fold`, and for the sites that read none).
gyre_status gyre_rotate_linear(const struct gyre_rotator *rotator, gyre_role role, uint32_t layer, const double *gain,
                               double *w, gyre_error *err) GYRE_MUST_USE;

// Takes off the online R4 that a source (hp) was made for, from rows of its linear: what they are without any.
gyre_status gyre_plain_rows(const struct gyre_hparams *hp, gyre_role role, double *w, uint64_t rows,
                            gyre_error *err) GYRE_MUST_USE;

// Rows of what it computes [rows, out], or of gradients there, in place.
gyre_status gyre_rotate_output(const struct gyre_rotator *rotator, gyre_role role, uint32_t layer, double *y,
                               uint64_t rows, gyre_error *err) GYRE_MUST_USE;

// Its bias [out], in place; no gain is ever folded into one.
gyre_status gyre_rotate_bias(const struct gyre_rotator *rotator, gyre_role role, uint32_t layer, double *bias,
                             gyre_error *err) GYRE_MUST_USE;

// Rotates rows of what the linears of `product` read, [rows, gyre_product_width], as the merged rotations do.
gyre_status gyre_rotate_input(const struct gyre_rotator *rotator, gyre_product product, uint32_t layer, double *x,
                              uint64_t rows, gyre_error *err) GYRE_MUST_USE;

// Rotates what o reads (rows [rows, heads * hd]) as R2 of block `layer` does.
gyre_status gyre_rotate_heads(const struct gyre_rotator *rotator, uint32_t layer, double *x, uint64_t rows,
                              gyre_error *err) GYRE_MUST_USE;

// Rotates `rows` rows of the embedding table (gain NULL) or of an untied head (gain: the final norm's, folded first).
gyre_status gyre_rotate_rows(const struct gyre_rotator *rotator, const double *gain, double *x, uint64_t rows,
                             gyre_error *err) GYRE_MUST_USE;

// A matrix [D, D] between two bases of the stream: m becomes R1' m R1.
gyre_status gyre_rotate_mix(const struct gyre_rotator *rotator, double *m, gyre_error *err) GYRE_MUST_USE;

// The inverses, in the reverse order (R4, R2, R1, fold), for whoever checks a file against its base. `gain` NULL leaves
// the gain folded in: the basis in which a manifest measures errors. A gain of exactly 0 hides its column, which comes
// back as 0.
gyre_status gyre_unrotate_linear(const struct gyre_rotator *rotator, gyre_role role, uint32_t layer, const double *gain,
                                 double *w, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_unrotate_rows(const struct gyre_rotator *rotator, const double *gain, double *x, uint64_t rows,
                               gyre_error *err) GYRE_MUST_USE;
