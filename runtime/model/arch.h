// What an architecture is: which rows of the table of roles its blocks have, what its hyper-parameters are called
// beyond those that all share, and its block as a chain of builder calls. docs/add-an-architecture.md says how one is
// added.
#pragma once
#include "runtime/model/hparams.h"

struct gyre_builder; // builder.h

enum {
    GYRE_PLAIN_FUSED = 1,    // linears lie in the tensors of roles.def's FUSED, and have none of their own
    GYRE_PLAIN_DIVISORS = 2, // tensors of RoPE's divisors (rope_freqs, longrope's)
    GYRE_PLAIN_WINDOWS = 4,  // a window, and the period of the blocks that have none
    GYRE_PLAIN_FOURTHS = 8,  // no RoPE in each fourth block, whatever the file says
    GYRE_PLAIN_SCALE = 32,   // a scale of scores other than 1 / sqrt(head size)
    GYRE_PLAIN_BETAS = 64,   // YaRN's betas other than 32 and 1
    GYRE_PLAIN_FOLDER = 16   // Hugging Face directories, by the names of roles.def
};

struct gyre_arch {
    const char *name; // GGUF's general.architecture and the prefix of its keys; gyre's own files: "gyre-" before it
    const char *const *hf;  // model_type of config.json files that are this architecture; ends with NULL
    uint32_t roles, biases; // GYRE_ROLE_BITs of a block: tensors it has, linears with a bias
    uint32_t may_bias;      // linears that have one where config.json or, in GGUF, the first block says so
    const char *act;        // the activation of its gated unit as config.json calls it; NULL: silu
    bool paired_rows;       // GGUF files hold the rows of q and k so that RoPE turns neighbours (2i, 2i+1)
    bool partial_rope;      // RoPE may turn a part of each head
    uint32_t plain;         // GYRE_PLAIN_*: what other tools read in its plain files
    uint32_t plain_biases;  // linears whose bias they read
    uint32_t version;       // of gyre's own files (gyre.version) from which on they may hold it; beyond plain llama: 3
    // Reads and checks what hparams.c does not know; may be NULL. Keys: gyre_hparam_key.
    gyre_status (*read)(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err);
    void (*block)(struct gyre_builder *b); // reads and adds to b->stream
};

extern const struct gyre_arch gyre_arch_llama, gyre_arch_mistral3, gyre_arch_qwen2, gyre_arch_qwen3, gyre_arch_phi3,
    gyre_arch_smollm3, gyre_arch_granite, gyre_arch_minicpm, gyre_arch_gemma3;

// By general.architecture ("qwen3", "gyre-qwen3") or, for a Hugging Face directory, its model_type; NULL: unknown.
const struct gyre_arch *gyre_arch_find(const char *name, gyre_container container);
// "llama, qwen2 and qwen3", for messages.
void gyre_arch_list(char *out, size_t size);
