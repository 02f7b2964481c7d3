// One transformer block, built and run alone on a device, whole or from tap to tap: what calibration, GPTQ and learned
// rotations stand on.
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
    struct gyre_layer_kind kind; // hp->kind of the block; its bits of taps count where act_bits is hp's
    struct gyre_block_linear linear[GYRE_LINEARS];
    const float *bias[GYRE_LINEARS];       // [out]; NULL: none
    const float *vector[GYRE_BLOCK_ROLES]; // norms; those that the architecture has
    // [kv_heads * hd] of the linears whose output is cached, subtracted (from keys after RoPE and R3) before that when
    // keys or values have fewer than 16 bits; the block computes the same but for the cache's rounding. NULL:
    // nothing is subtracted.
    const float *centre[GYRE_LINEARS];
};

struct gyre_block_options {
    uint32_t act_bits, kv_bits, max_rows; // 16 | 8 | 4; rows per call
    uint32_t sequence;                    // rows are sequences of this many from position 0 each; 0: one of max_rows
    float act_clip, kv_clip;              // 1 when unsure
    uint32_t kv_bits_v;                   // of values; 0: as of keys ...
    float kv_clip_v;                      // ... and 0: as theirs
    float tap_clip;                       // of taps to which the weights' kind gives bits of their own; 0: as act_clip
};

// `hp` gives shapes, RoPE and the online rotations (hp->rot) that the weights expect; it is copied as needed.
gyre_status gyre_block_create(gyre_device *device, const struct gyre_hparams *hp,
                              const struct gyre_block_options *options, gyre_block **out,
                              gyre_error *err) GYRE_MUST_USE;
void gyre_block_destroy(gyre_block *block);

// Uploads what is given of `weights`: the linears of a product together or not at all (neither f32 nor codes), with
// their biases; vectors that are not NULL; centres and norms of heads with the product that computes the cached heads,
// or alone. The rest stays. May be called again for the next layer (same shapes and kinds reuse all memory).
gyre_status gyre_block_load(gyre_block *block, const struct gyre_block_weights *weights, gyre_error *err) GYRE_MUST_USE;

// y = block(x) for `rows` rows; x and y are f32 [rows, D] in host memory. Of several sequences the last may be shorter.
gyre_status gyre_block_run(gyre_block *block, const float *x, uint32_t rows, float *y, gyre_error *err) GYRE_MUST_USE;

// What a block does between two taps. Part p < GYRE_PRODUCTS ends at tap p: `in` [rows, width of tap p-1] is what part
// p-1 gave, and out [rows, gyre_product_width] gets what the linears of product p read; both not yet quantized: that
// happens inside, where the options say so. x [rows, D] is the residual stream, changed by the parts that add to it;
// part GYRE_PRODUCTS ends the block and has no out, part 0 no in. out may be in. Only the weights between the two taps
// need to be loaded. Graphs are kept until another number of rows is asked for.
gyre_status gyre_block_part(gyre_block *block, uint32_t part, float *x, const float *in, uint32_t rows, float *out,
                            gyre_error *err) GYRE_MUST_USE;

// Means over the rows of what the cache would hold before it is centred and quantized, k_mean and v_mean [kv_heads *
// hd]: the keys, after RoPE and R3, and values of what the first tap gave.
gyre_status gyre_block_means(gyre_block *block, const float *in, uint32_t rows, float *k_mean, float *v_mean,
                             gyre_error *err) GYRE_MUST_USE;
