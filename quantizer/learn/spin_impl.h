// What spin.c (a window forwards and back) and spin_merge.c (weights, and what is merged into them) share.
#pragma once
#include "quantizer/gradient/reverse.h"
#include "quantizer/gradient/runner.h"
#include "quantizer/learn/spin.h"
#include "quantizer/transform/rotate.h"

struct gyre_spin {
    struct gyre_spin_options options;
    struct gyre_runner *runner; // without blocks of its own
    gyre_repacker *repacker;
    struct gyre_hparams hp; // the output's shapes and online rotations; borrows
    struct gyre_shared shared;
    struct gyre_layer_weights *layer; // [n_layers]: folded, with everything else merged that has no place of its own
    // By R1 with a diagonal and back, of what a product reads: that of the block which runs. Without diagonals those of
    // the first serve all.
    struct gyre_weight turn[GYRE_PRODUCTS], back[GYRE_PRODUCTS];
    float **own[GYRE_LINEARS];  // [n_layers] of a linear that something is merged into, without it; NULL: of none
    float **bias[GYRE_LINEARS]; // the same; an entry NULL: it has none
    struct gyre_rotator merge;  // R2 as it stands, R4; borrows
    struct gyre_matrices at;
    struct gyre_binding logits; // [GYRE_HEAD_ROWS][V]
    float *dx;                  // [tokens][D]
};

// Gradients of one block that its matrices' come from, by weights of products; NULL: not asked for.
struct gyre_spin_found {
    const float *weight[GYRE_PRODUCTS], *bias[GYRE_PRODUCTS], *turn[GYRE_PRODUCTS], *back[GYRE_PRODUCTS];
};

// The weights of all blocks, s->layer and what is kept of them. Close also after failure (gyre_spin_unload).
gyre_status gyre_spin_load(gyre_spin *s, const struct gyre_plan *plan, gyre_error *err) GYRE_MUST_USE;
void gyre_spin_unload(gyre_spin *s);

// Which turn and back stand at a product's input; NULL where its input is not turned.
struct gyre_weight *gyre_spin_turn(gyre_spin *s, gyre_product product);
// Before a block runs: its diagonals into turn and back.
gyre_status gyre_spin_enter(gyre_spin *s, uint32_t layer, gyre_error *err) GYRE_MUST_USE;

// Asks for what a block's matrices need, and adds to `gradient` what was found.
gyre_status gyre_spin_ask(gyre_spin *s, gyre_reverse *reverse, uint32_t layer, struct gyre_spin_found *out,
                          gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_spin_collect(gyre_spin *s, uint32_t layer, const struct gyre_spin_found *found,
                              struct gyre_matrices *gradient, gyre_error *err) GYRE_MUST_USE;
