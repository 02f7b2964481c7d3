// What an architecture is: which rows of the table of roles its blocks have, what its hyper-parameters are called
// beyond those that all share, and its block as a chain of builder calls. docs/add-an-architecture.md says how one is
// added.
#pragma once
#include "runtime/model/hparams.h"

struct gyre_builder; // builder.h

struct gyre_arch {
    const char *name; // GGUF's general.architecture and the prefix of its keys; gyre's own files: "gyre-" before it
    const char *const *hf;  // model_type of config.json files that are this architecture; ends with NULL
    uint32_t roles, biases; // GYRE_ROLE_BITs of a block: tensors it has, linears with a bias
    bool paired_rows;       // GGUF files hold the rows of q and k so that RoPE turns neighbours (2i, 2i+1)
    bool plain_divisors;    // other tools read a tensor of RoPE's divisors (rope_freqs) in its plain files
    uint32_t version;       // of gyre's own files (gyre.version) from which on they may hold it
    // Reads and checks what hparams.c does not know; may be NULL. Keys: gyre_hparam_key.
    gyre_status (*read)(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err);
    void (*block)(struct gyre_builder *b); // reads and adds to b->stream
};

extern const struct gyre_arch gyre_arch_llama, gyre_arch_qwen2, gyre_arch_qwen3;

// By general.architecture ("qwen3", "gyre-qwen3") or, for a Hugging Face directory, its model_type; NULL: unknown.
const struct gyre_arch *gyre_arch_find(const char *name, gyre_container container);
// "llama, qwen2 and qwen3", for messages.
void gyre_arch_list(char *out, size_t size);
