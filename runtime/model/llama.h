// The Llama architecture: which tensors a model has on the device, and its block and head as a graph.
// One file per architecture; the graph layer below knows no model, the engine above no tensor name.
#pragma once
#include "runtime/model/block.h"
#include "runtime/model/hparams.h"
#include "runtime/model/weights.h"

struct gyre_llama_layer {
    struct gyre_weight qkv, o, gate_up, down; // q,k,v and gate,up side by side along N
    struct gyre_binding attn_norm, ffn_norm;  // f32[D]
    struct gyre_binding kv_centre;            // f32[2][kv_heads * hd], of keys, then of values; buffer NULL: none
};

// What every block shares.
struct gyre_llama_shared {
    struct gyre_binding freqs;         // f32[hd/2]
    struct gyre_had_desc r3, r4, head; // n = 0: none
};

struct gyre_llama {
    gyre_device *device;
    struct gyre_hparams hp; // owned
    struct gyre_llama_shared shared;
    struct gyre_llama_layer *layer;  // [hp.n_layers]
    struct gyre_weight table, head;  // head.n_ranges == 0: tied, the head reads the table
    struct gyre_binding output_norm; // f32[D]
    struct gyre_binding head_gain;   // f32[D], with a head rotation
    uint64_t weight_bytes;
};

// Loads a checked model (gyre_model_check). progress(user, fraction) may cancel by returning non-zero; may be NULL.
gyre_status gyre_llama_load(gyre_device *device, const gyre_source *source,
                            int (*progress)(void *user, double fraction), void *user, struct gyre_llama *out,
                            gyre_error *err) GYRE_MUST_USE;
void gyre_llama_free(struct gyre_llama *model);

// Device buffers of the online rotations and the RoPE table. `divisors` [hd/2]: rope_freqs.weight, or NULL.
gyre_status gyre_llama_shared_create(gyre_device *device, const struct gyre_hparams *hp, const float *divisors,
                                     struct gyre_llama_shared *out, gyre_error *err) GYRE_MUST_USE;
void gyre_llama_shared_free(gyre_device *device, struct gyre_llama_shared *shared);

// How activations and the cache are quantized at run time.
struct gyre_precision {
    uint32_t act, kv;
    float act_clip, kv_clip;
};

// x [R, D] -> x [R, D] through one block; writes this step's keys and values to `kv`, below 16 bits less the layer's
// centre (kv->centre is not read). `stop` GYRE_TAPS: the whole block; else the graph ends early and the value is what the
// linears of that tap read, [R, gyre_tap_width], not yet quantized.
gyre_value gyre_llama_block(gyre_graph *g, gyre_value x, const struct gyre_hparams *hp,
                            const struct gyre_llama_shared *shared, const struct gyre_llama_layer *layer,
                            const struct gyre_kv_pool *kv, const struct gyre_precision *precision, gyre_tap stop);
// Residual stream -> logits [rows, V].
gyre_value gyre_llama_head(gyre_graph *g, gyre_value x, const struct gyre_llama *model);
