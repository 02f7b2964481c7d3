// One transformer block on the host in float, its quantizers imitated: codes times scales, multiplied by OpenBLAS. For the
// closing summary where no GPU is: there a software GPU would take several times longer than the quantizing itself.
// tests/quantizer holds it against the runtime's own block.
#pragma once
#include "runtime/model/block.h"

typedef struct gyre_host_block gyre_host_block;

// As gyre_block_create; `hp` is copied, what its rotations point to is borrowed.
gyre_status gyre_host_block_create(const struct gyre_hparams *hp, const struct gyre_block_options *options,
                                   gyre_host_block **out, gyre_error *err) GYRE_MUST_USE;
void gyre_host_block_destroy(gyre_host_block *block);

// x = block(x), f32 [rows, D] in place, one sequence from position 0.
gyre_status gyre_host_block_run(gyre_host_block *block, const struct gyre_block_weights *weights, float *x,
                                uint32_t rows, gyre_error *err) GYRE_MUST_USE;
