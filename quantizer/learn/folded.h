// What a rotation is learned on: the blocks of a model in host memory as a plan merges them but for R1 and R2.
#pragma once
#include "quantizer/transform/matrices.h"
#include "runtime/model/roles.h"

struct gyre_plan;

// Numbers belong to the loader, and are of the block that was read last.
struct gyre_folded {
    struct gyre_layer_kind kind;
    float *linear[GYRE_LINEARS];     // [out, in], in double until here
    float *bias[GYRE_LINEARS];       // NULL where there is none
    float *vector[GYRE_BLOCK_ROLES]; // gains that are folded are ones; NULL where the architecture has none
};
typedef struct gyre_folder gyre_folder;

// The plan is finished and outlives it. NULL when out of memory.
gyre_status gyre_folder_open(const struct gyre_plan *plan, gyre_folder **out, gyre_error *err) GYRE_MUST_USE;
void gyre_folder_close(gyre_folder *folder);
gyre_status gyre_folder_block(gyre_folder *folder, uint32_t layer, struct gyre_folded *out,
                              gyre_error *err) GYRE_MUST_USE;
// The output's shapes, and of its online rotations those inside of blocks; borrows from the plan.
struct gyre_hparams gyre_folder_hparams(const struct gyre_plan *plan);

// Matrices of the plan's shapes, what its rotator merges as it stands; with diagonals (ones), where asked for.
gyre_status gyre_folder_matrices(const struct gyre_plan *plan, bool diagonals, struct gyre_matrices *out,
                                 gyre_error *err) GYRE_MUST_USE;
