// One transformer block, built and run alone on a device: what calibration, GPTQ and learned rotations stand on.
#pragma once
#include "backends/backend.h"
#include "runtime/model/roles.h"

typedef struct gyre_block gyre_block;

// Weights of one block in host memory, by role. A linear [out, in] is given as exactly one of:
//   f32 (row-major)     or     codes (int8 in -8..7 / -128..127, row-major) + scales (f16 bits, [out][in/group]).
struct gyre_block_linear {
    const float *f32;
    const int8_t *codes;
    const uint16_t *scales;
    uint32_t bits, group; // 4 or 8; group = in when per channel
};
struct gyre_block_weights {
    struct gyre_block_linear linear[GYRE_LINEARS];
    const float *bias[GYRE_LINEARS];       // [out]; NULL: none
    const float *vector[GYRE_BLOCK_ROLES]; // norms; those that the architecture has
    // [kv_heads * hd] of the linears whose output is cached, subtracted (from keys after RoPE and R3) before that when
    // kv_bits < 16; the block computes the same but for the cache's rounding. NULL: nothing is subtracted.
    const float *centre[GYRE_LINEARS];
};

struct gyre_block_options {
    uint32_t act_bits, kv_bits, max_rows; // 16 | 8 | 4; rows per call
    float act_clip, kv_clip;              // 1 when unsure
    const float *rope_divisors;           // rope_freqs.weight [hd/2], or NULL; read at creation only
};

// `hp` gives shapes, RoPE and the online rotations (hp->rot) that the weights expect; it is copied as needed.
gyre_status gyre_block_create(gyre_device *device, const struct gyre_hparams *hp,
                              const struct gyre_block_options *options, gyre_block **out,
                              gyre_error *err) GYRE_MUST_USE;
void gyre_block_destroy(gyre_block *block);

// Uploads weights; may be called again for the next layer (same shapes and kinds reuse all memory).
gyre_status gyre_block_load(gyre_block *block, const struct gyre_block_weights *weights, gyre_error *err) GYRE_MUST_USE;

// y = block(x) for one sequence of `rows` positions starting at 0; x and y are f32 [rows, D] in host memory.
gyre_status gyre_block_run(gyre_block *block, const float *x, uint32_t rows, float *y, gyre_error *err) GYRE_MUST_USE;

// y = what the linears of `tap` read, before it is quantized, f32 [rows, gyre_product_width]; x as for gyre_block_run.
// Only what the tap needs is run, with the block's quantizers of activations and cache in all that lies before. The
// graph of each tap is kept until another number of rows is asked for.
gyre_status gyre_block_tap(gyre_block *block, const float *x, uint32_t rows, gyre_product tap, float *y,
                           gyre_error *err) GYRE_MUST_USE;
