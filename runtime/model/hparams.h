// The named hyper-parameters of a model, read from any source and checked for sense, and the online rotations that
// gyre's own files declare. What an architecture adds is read by its file (arch.h).
#pragma once
#include "runtime/core/hadamard.h"
#include "runtime/source/source.h"

enum {
    GYRE_MAX_LAYERS = 512,
    GYRE_MAX_HEAD_DIM = 256,
    GYRE_FILE_VERSION = 2 // of gyre.version: 1 knows llama alone
};

struct gyre_rotations {
    bool r3;                     // q and k heads are transformed after RoPE when the KV cache is quantized
    struct gyre_hadamard r3_had; // n = head size
    struct gyre_hadamard r4;     // at the input of ffn_down; n divides the ffn width; n = 0: none
    // One table for embedding and head (design: T-B): the head applies, to the normalised residual z (gain 1),
    //   z := had( gain * had_t(z) ), `gain` = the original final norm gain. n = 0: the head reads z * output_norm.
    struct gyre_hadamard head;
    const float *head_gain; // [D]
};

typedef enum gyre_rope_scaling { GYRE_ROPE_NONE, GYRE_ROPE_LINEAR, GYRE_ROPE_LLAMA3, GYRE_ROPE_YARN } gyre_rope_scaling;

struct gyre_arch;

struct gyre_hparams {
    char arch[32];                  // general.architecture, the prefix of the file's keys: "llama", "gyre-llama"
    const struct gyre_arch *family; // what it is
    bool full;                      // gyre's own: integers beside scales, online rotations
    uint32_t n_layers, width /* D */, heads, kv_heads, head_dim, ffn, vocab, context;
    uint32_t window; // the sliding window that `context` was cut to; 0: it is the model's own
    float norm_eps;
    double rope_base;
    gyre_rope_scaling rope_scaling;
    double rope_factor, rope_original_context;
    double rope_low_freq, rope_high_freq; // llama3; yarn: its beta_slow and beta_fast
    float rope_mscale;                    // factor of q and k after RoPE: yarn's attention factor, else 1
    bool rope_interleaved;                // pairs (2i, 2i+1), as in GGUF llama files; else (i, i + hd/2), as in HF
    bool tied;                            // no output.weight: the head uses token_embd
    bool has_rope_freqs;                  // tensor rope_freqs.weight holds divisors of the inverse frequencies
    uint32_t act_bits, kv_bits;           // run-time defaults: 16 unless the file says otherwise
    float act_clip, kv_clip;              // clip ratios, 1 unless the file says otherwise
    uint32_t wgroup;                      // gyre files: group of the int4 weights, 0 = per channel; else 0
    bool wgroup_declared;                 // the file declared gyre.wgroup (portable: Q4_0 with repeated scales)
    bool kv_centre; // full: every block has vectors that are subtracted from its KV cache below 16 bits
    struct gyre_rotations rot;
};

// Fills and checks `hp`; allocates only for rot (free with gyre_hparams_free). Refuses other architectures and
// values outside what the graph can do by name.
gyre_status gyre_hparams_read(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err) GYRE_MUST_USE;
void gyre_hparams_free(struct gyre_hparams *hp);

// Inverse frequencies [hd/2] including scaling (formulas: rope types default, linear, llama3 and yarn of transformers).
void gyre_rope_freqs(const struct gyre_hparams *hp, const float *divisors /* may be NULL */, float *out);

// Checks that every tensor of the model is there with the right shape and a readable type, and that no F32/F16/BF16
// tensor or scale holds NaN or infinity (cheap scan; the tensor is named).
gyre_status gyre_model_check(const gyre_source *source, const struct gyre_hparams *hp, gyre_error *err) GYRE_MUST_USE;
