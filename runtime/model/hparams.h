// The named hyper-parameters of a model, read from any source and checked for sense, and the online rotations that
// gyre's own files declare. What an architecture adds is read by its file (arch.h).
#pragma once
#include "runtime/core/hadamard.h"
#include "runtime/source/source.h"

enum {
    GYRE_MAX_LAYERS = 512,
    GYRE_MAX_HEAD_DIM = 256,
    GYRE_TAPS = 4,           // of a block: what its products (roles.def) read
    GYRE_FILE_VERSION = 7,   // of gyre.version: 1 knows llama alone, 2 qwen2 and qwen3, 3 the other families
    GYRE_MIX_VERSION = 4,    // knows gyre.head_mix and gyre.r1
    GYRE_WIDTHS_VERSION = 5, // knows values of another width than keys
    GYRE_TAPS_VERSION = 6,   // knows taps of another width than the file's activations
    GYRE_YARN_VERSION = 7    // knows rope.scaling.yarn_truncate
};

struct gyre_rotations {
    bool r3;                     // q and k heads are transformed after RoPE when the KV cache is quantized
    struct gyre_hadamard r3_had; // n = head size
    struct gyre_hadamard r1;     // behind the norms that linears read, where it is merged into nothing that writes the
                                 // stream; n divides the width; n = 0: none
    struct gyre_hadamard r4;     // at the input of ffn_down; n divides the ffn width; n = 0: none
    // One table for embedding and head (design: T-B): the head applies, to the normalised residual z (gain 1),
    //   z := had( gain * had_t(z) ), `gain` = the original final norm gain. n = 0: the head reads z * output_norm.
    struct gyre_hadamard head;
    const float *head_gain; // [D]
    // The same where R1 is no Hadamard transform but a matrix: z := z M with M = R1' diag(gain) R1, [D, D], in the
    // tensor gyre.head_mix.
    bool head_mix;
};

typedef enum gyre_rope_scaling {
    GYRE_ROPE_NONE,
    GYRE_ROPE_LINEAR,
    GYRE_ROPE_LLAMA3,
    GYRE_ROPE_YARN,
    GYRE_ROPE_LONG // longrope: a divisor per frequency, for short and for long contexts
} gyre_rope_scaling;

// How the heads of a block are turned: as the model's RoPE says, by another base without scaling, or not at all.
typedef enum gyre_turn { GYRE_TURN_ROPE, GYRE_TURN_LOCAL, GYRE_TURN_NONE, GYRE_TURNS } gyre_turn;

// What may differ between the blocks of a model.
struct gyre_layer_kind {
    uint8_t turn;           // gyre_turn
    uint8_t windowed;       // its queries see hp->window positions
    uint8_t act[GYRE_TAPS]; // bits of its taps that have others than the file's activations; 0: they have those
};

// How activations and the cache are quantized at run time: bits (16: not at all) and clip ratios, kv_v of values and kv
// of keys. tap_clip: of taps that the file gives bits of their own.
struct gyre_precision {
    uint32_t act, kv, kv_v;
    float act_clip, kv_clip, kv_clip_v, tap_clip;
};
#define GYRE_UNROUNDED ((struct gyre_precision){16, 16, 16, 1, 1, 1, 1})

struct gyre_arch;

struct gyre_hparams {
    char arch[32];                  // general.architecture, the prefix of the file's keys: "llama", "gyre-llama"
    const struct gyre_arch *family; // what it is
    bool full;                      // gyre's own: integers beside scales, online rotations
    uint32_t n_layers, width /* D */, heads, kv_heads, head_dim, ffn, vocab, context;
    uint32_t window;        // of the blocks that have one; 0: none has
    uint32_t roles, biases; // GYRE_ROLE_BITs of a block: tensors that it has, linears with a bias
    float norm_eps;         // as the file says it, of norms over heads
    float stream_eps;       // of norms over the residual stream, which may lie in another unit than the file's
    float embed_scale;      // rows of the table become the stream's times this
    float logit_divisor;    // of the logits
    float attn_scale;       // of the scores; 0: 1 / sqrt(head size)
    float q_beta;           // queries grow with the position (shaders/params.h); 0: they do not
    uint32_t q_span;
    uint32_t rope_dims;                // of a head, the first ones, that RoPE turns
    double rope_base, rope_local_base; // local: of GYRE_TURN_LOCAL
    gyre_rope_scaling rope_scaling;
    double rope_factor, rope_original_context;
    double rope_low_freq, rope_high_freq; // llama3; yarn: its beta_slow and beta_fast
    bool rope_untruncated;                // yarn: its blend begins and ends between dimensions
    float rope_mscale;                    // factor of q and k where RoPE turns: yarn's and longrope's, else 1
    float rope_divisor[2][GYRE_MAX_HEAD_DIM /
                          2]; // of the frequencies, 0: none; rope_freqs, or longrope's short and long ones
    bool long_text;           // longrope: contexts beyond rope_original_context, which take the long divisors
    bool rope_interleaved;    // pairs (2i, 2i+1), as in GGUF llama files; else (i, i + hd/2), as in HF
    bool tied;                // no output.weight: the head uses token_embd
    bool norms_less_one;      // gains lie in the file less 1 (Gemma's at Hugging Face)
    bool has_rope_freqs;      // tensor rope_freqs.weight holds divisors of the inverse frequencies
    uint32_t act_bits, kv_bits, kv_bits_v; // run-time defaults: 16 unless the file says otherwise; of keys, of values
    float act_clip, kv_clip, kv_clip_v;    // clip ratios, 1 unless the file says otherwise
    float tap_clip;                        // of taps with bits of their own (kind[].act)
    uint32_t act_group;   // 4-bit activations have groups of so many values where these divide the row; 0: none
    bool learned_clips;   // full: they are of each tap and layer, in tensors gyre.act_clips, gyre.kv_clips
    uint32_t wgroup;      // gyre files: group of the int4 weights, 0 = per channel; else 0
    bool wgroup_declared; // the file declared gyre.wgroup (portable: Q4_0 with repeated scales)
    bool kv_centre;       // full: every block has vectors that are subtracted from its KV cache below 16 bits
    struct gyre_layer_kind kind[GYRE_MAX_LAYERS];
    struct gyre_rotations rot;
};

// What a file says that it is made for.
static inline struct gyre_precision gyre_made_for(const struct gyre_hparams *hp)
{
    return (struct gyre_precision){hp->act_bits, hp->kv_bits,   hp->kv_bits_v, hp->act_clip,
                                   hp->kv_clip,  hp->kv_clip_v, hp->tap_clip};
}

// How what a product of a block reads is rounded. Bits that the file gives a tap count while the model runs at the
// file's width of activations: another one is for all taps, and what runs unrounded runs so everywhere.
struct gyre_tap {
    uint32_t bits;
    float clip;
};
static inline struct gyre_tap gyre_tap_at(const struct gyre_hparams *hp, const struct gyre_layer_kind *kind,
                                          uint32_t product, const struct gyre_precision *p)
{
    const uint32_t own = p->act < 16 && p->act == hp->act_bits ? kind->act[product] : 0;
    return own ? (struct gyre_tap){own, p->tap_clip} : (struct gyre_tap){p->act, p->act_clip};
}

// Opens a model's file or directory (gyre_source_open). What a reader does not take of an architecture that there is
// none of is no reason of its own: the line names the architecture.
gyre_status gyre_model_open(const char *path, gyre_source **out, gyre_error *err) GYRE_MUST_USE;

// Fills and checks `hp`; allocates only for rot (free with gyre_hparams_free). Refuses other architectures and
// values outside what the graph can do by name.
gyre_status gyre_hparams_read(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err) GYRE_MUST_USE;
void gyre_hparams_free(struct gyre_hparams *hp);

// Inverse frequencies [hd/2] including scaling and divisors (formulas: rope types default, linear, llama3, yarn and
// longrope of transformers); 0 where a head is not turned.
void gyre_rope_freqs(const struct gyre_hparams *hp, gyre_turn turn, float *out);
// What llama3 scaling divides the model's unscaled frequencies by, [rope_dims / 2].
void gyre_rope_divisors(const struct gyre_hparams *hp, float *out);
// RoPE's pairs (i, i + split) of a head for i < split; behind them, and where it is 0, neighbours.
uint32_t gyre_rope_split(const struct gyre_hparams *hp);
// What a model is told of the longest text that it will see, before frequencies are asked for.
void gyre_hparams_set_context(struct gyre_hparams *hp, uint32_t context);

// Checks that every tensor of the model is there with the right shape and a readable type, and that no F32/F16/BF16
// tensor or scale holds NaN or infinity (cheap scan; the tensor is named).
gyre_status gyre_model_check(const gyre_source *source, const struct gyre_hparams *hp, gyre_error *err) GYRE_MUST_USE;
// Its two halves: what names, shapes and types tell, and the scan, which reads the whole file.
gyre_status gyre_model_check_tensors(const gyre_source *source, const struct gyre_hparams *hp,
                                     gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_model_check_values(const gyre_source *source, gyre_error *err) GYRE_MUST_USE;
// That of one tensor, for whoever reads the bytes anyway.
gyre_status gyre_model_check_finite(const gyre_source *source, const struct gyre_tensor *tensor,
                                    gyre_error *err) GYRE_MUST_USE;
