// Diagonal transforms that a model's function does not see and that cost nothing at run time: what a linear writes is
// scaled, and what reads it is scaled back.
//
//     up_down  s [F]               up rows * s,  down columns / s                     (the product with act(gate) is
//     linear in up)
//     value    t [kv_heads * hd]   v rows * t,   o columns / t of every query head of the group
//     qk       k [kv_heads * hd/2] k rows * k,   q rows / k, one number for both rows of a RoPE pair (a rotation
//     between them commutes)
//     norm[2]  l [D]               the norm's gain slot is l, its readers' columns / l, in the rotated basis (OSTQuant,
//     2501.13987)
//
// Behind each lies a Hadamard transform that spreads rounding errors evenly over all channels. With a_i the rms of
// channel i and w_i the norm of what reads it, errors of activations and of weights then both cost (sum a_i^2
// s_i^2)(sum w_i^2 / s_i^2), which Cauchy-Schwarz makes least at s_i = (w_i / a_i)^(1/2). A recipe names the exponent e
// of this balance, s_i = (w_i / a_i)^e. Without rotations no transform spreads anything, and the same places take the
// scales that were published for it (there as 1 / s):
//
//     largest  s_i = max|w_i|^(1 - e) / max|a_i|^e      (SmoothQuant, 2211.10438; its alpha is e)
//     inputs   s_i = mean|a_i|^-e                       (AWQ, 2306.00978)
//
// e may be searched in steps of 1/20, as AWQ does: the one whose weights, plainly rounded, make the least error in what
// the readers put out. All are divided by their geometric mean. Or the numbers were learned (learn/learn.h): then
// nothing is measured.
#pragma once
#include "quantizer/recipe/recipe.h"
#include "quantizer/transform/rotate.h"
#include "runtime/model/block.h"

#include <jansson.h>

// Of one block; NULL: ones. Measured numbers are 2^(c / 16) with integer c in -127..127 (as manifests hold them), of
// norm, and of learned ones, any float above 0.
struct gyre_diagonals {
    uint32_t width, ffn, heads, kv_heads, head_dim;
    uint32_t split; // RoPE pairs are rows i, i + split of a head for i < split, behind those 2i, 2i+1
    double *up_down, *value, *qk;
    float *norm[GYRE_PRODUCTS]; // of what the product reads, [width]; NULL where no norm makes it
};

// What the float path's taps of one block read on some tokens, with only R1 merged, and the linears as they stand then.
struct gyre_diagonal_sample {
    const float *tap[GYRE_PRODUCTS]; // [rows, gyre_product_width]
    uint64_t rows;
    float *const *weights;                            // [GYRE_LINEARS]
    float *const *bias;                               // [GYRE_LINEARS], NULL where there is none; or NULL
    uint32_t bits[GYRE_LINEARS], group[GYRE_LINEARS]; // what they are rounded to (struct gyre_codes); for a search
};

bool gyre_recipe_has_diagonals(const struct gyre_recipe *recipe);

// Release also after failure. All are ones until measured.
gyre_status gyre_diagonals_create(const struct gyre_hparams *hp, struct gyre_diagonals *out,
                                  gyre_error *err) GYRE_MUST_USE;
void gyre_diagonals_release(struct gyre_diagonals *d);
// The learned ones of a block; of the model's shapes.
void gyre_diagonals_take(const struct gyre_matrices *learned, uint32_t layer, struct gyre_diagonals *d);
gyre_status gyre_diagonals_measure(const struct gyre_recipe *recipe, const struct gyre_diagonal_sample *sample,
                                   struct gyre_diagonals *d, gyre_error *err) GYRE_MUST_USE;

// The RoPE pair of row i of a head: the place of its number in a head's part of qk.
uint32_t gyre_diagonals_pair(const struct gyre_diagonals *d, uint32_t i);

// Scales a linear w [out, in] in place: `before` it is rotated (up_down, value, qk), and after (norm). `undo` divides
// instead. A bias is scaled as what its linear writes.
void gyre_diagonals_before(const struct gyre_diagonals *d, gyre_role role, bool undo, double *w);
void gyre_diagonals_bias(const struct gyre_diagonals *d, gyre_role role, double *bias);
void gyre_diagonals_after(const struct gyre_diagonals *d, gyre_role role, bool undo, double *w);

// {"up_down": HEX, "value": HEX, "qk": HEX}, two digits a number (c as an 8-bit two's complement), for the manifest.
// NULL when out of memory. Reading fails (false) where a text is missing, no such number or not of the model's size;
// norms are not part of it.
json_t *gyre_diagonals_json(const struct gyre_diagonals *d);
bool gyre_diagonals_read(const json_t *json, struct gyre_diagonals *d);
