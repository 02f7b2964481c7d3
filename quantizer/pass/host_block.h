// One transformer block on the host in float, its quantizers imitated: codes times scales, multiplied by OpenBLAS. For
// calibration and the closing summary where no GPU is: there a software GPU would take several times longer than the
// quantizing itself. tests/quantizer holds it against the runtime's own block.
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

// What a block does between two taps. Part p < GYRE_PRODUCTS ends at tap p: `in` is what tap p-1 read, quantized
// (gyre_quantize_rows), and out gets what tap p reads, not yet quantized. Part GYRE_PRODUCTS adds the last linear to x.
// Parts 2 and 4 change x [rows, D], the others read it at most. Rows are sequences of `sequence` rows from position 0
// each (the last may be shorter). Only the linears between the two taps are read from `weights`.
gyre_status gyre_host_block_part(gyre_host_block *block, const struct gyre_block_weights *weights, uint32_t part,
                                 float *x, const float *in, uint32_t rows, uint32_t sequence, float *out,
                                 gyre_error *err) GYRE_MUST_USE;

// Means over the rows of what the cache would hold before it is quantized, k_mean and v_mean [kv_heads * hd]: what `in`
// (as part GYRE_PRODUCT_o reads it) gives as keys, after RoPE and R3, and values.
gyre_status gyre_host_block_centre(gyre_host_block *block, const struct gyre_block_weights *weights, const float *in,
                                   uint32_t rows, uint32_t sequence, float *k_mean, float *v_mean,
                                   gyre_error *err) GYRE_MUST_USE;

// The run-time activation quantizer (shaders/quantize.k.h) and back, in place: bits 16 nothing, 8 symmetric, 4
// asymmetric, per row.
void gyre_quantize_rows(float *x, uint64_t rows, uint32_t width, uint32_t bits, float clip);
// The KV cache's (shaders/kv.k.h), per vector of hd: 16 rounds to f16, 8 and 4 are asymmetric with an f16 scale.
void gyre_quantize_cache(float *x, uint64_t vectors, uint32_t hd, uint32_t bits, float clip);
