// Tiny random models as GGUF files and as Hugging Face directories: the models of most tests.
//
// The same options give the same model in both containers (float types): weights depend on the seed and the tensor's
// name alone, as tests/data/make_golden.py computes them too. Block types hold random blocks.
#pragma once
#include "runtime/core/dtype.h"
#include "runtime/model/hparams.h"

struct tiny_options {
    const char *arch; // a family: "llama" (also NULL) and the others of tiny.c's table
    uint32_t layers, width, heads, kv_heads, head_dim, ffn, vocab, context;
    uint64_t seed;
    // Of the matrices; where its blocks do not fit a width: Q8_0, else F16. HF: F32, F16, BF16, F64 (vectors too).
    gyre_dtype type;
    bool tied;
    bool qkv_bias;      // a bias on q, k and v
    bool other_bias;    // and on o, gate, up and down
    uint32_t rope_dims; // of a head, that RoPE turns; 0: all
    uint32_t window;    // GGUF: of a family with windows; 0: its own, 5
    bool qk_norm;       // RMS norms per head of q and k, before RoPE
    bool half_tables;   // embedding and head are F16 whatever `type` says
    bool constant_gain; // all norm gains are 1
    bool no_tokenizer;  // then any `vocab` will do
    const char *nan_in; // GGUF name of a float tensor that gets a NaN
    float rope_base;
    gyre_rope_scaling scaling; // factor 8, original context 64; llama3: low 1, high 4; longrope: tiny_long_factor
    bool untruncated;          // yarn's blend
    float beta_fast;           // GGUF: yarn's; 0: not said
    bool rope_freqs;           // GGUF: a rope_freqs.weight tensor (1, 1.25, 1.5, ... as divisors)
    uint32_t shards;           // HF: 0 or 1: model.safetensors; else that many files and an index
};

// 2 layers, width 64, 4 heads and 2 kv heads of 16, ffn 96, vocabulary 304, context 512, F32, untied, seed 1.
struct tiny_options tiny_defaults(void);
// The same for a family by name, with the biases and norms that it has; qwen3 has heads of 32. Unknown: ends the
// program.
struct tiny_options tiny_family(const char *arch);
// For tests without text: 3 layers, width 64, 6 heads and 2 kv heads of 16, ffn 96, 50 tokens and no tokenizer, context
// 64, F32 with F16 tables, tied, seed 1.
struct tiny_options tiny_plain(void);

// Both return 0 on success; a nonzero return means that a file could not be written.
// The tokenizer: three control tokens (<|endoftext|> = 0 is BOS, <|im_start|> = 1, <|im_end|> = 2 is EOS), 256 bytes,
// a few English merges, then unused tokens up to `vocab` (at least 259); digits one by one, GPT-2 split.
int tiny_write_gguf(const char *path, const struct tiny_options *options);
int tiny_write_hf(const char *directory, const struct tiny_options *options); // created if missing

// LongRoPE's divisor of frequency i for short and long contexts.
float tiny_long_factor(bool long_context, uint32_t i);

// n tokens of the tiny vocabulary, none of them a control token.
void tiny_tokens(uint32_t *tokens, size_t n, uint32_t seed, uint32_t vocab);
