// What tiny.c has for the two containers, tiny_gguf.c and tiny_hf.c.
#pragma once
#include "tests/common/tiny.h"

struct tiny_family {
    const char *name, *hf_class, *type; // model_type
    const char *gguf;                   // general.architecture and the prefix of its keys
    bool interleaved;                   // GGUF keeps rows j and j + head_dim/2 of a q or k head side by side
    bool says_head_dim;                 // else it is width / heads in both containers
    int bias;
    bool qk_norm;
    bool fused;         // q, k, v are one tensor, gate and up another
    bool sandwich;      // a norm behind each branch; HF keeps gains less 1; model_type ends with "_text"
    uint32_t layers;    // 0: the default
    uint32_t rope_dims; // 0: all of a head
    uint32_t window;    // 0: none
    gyre_rope_scaling scaling;
    const char *rope;  // of config.json's rope_scaling
    const char *extra; // of config.json
    struct {
        const char *key;
        float value;
        bool root; // divided by the square root of the number of blocks
    } real[4];     // GGUF
};
const struct tiny_family *tiny_family_of(const struct tiny_options *o); // unknown: ends the program

struct tiny_tensor {
    char gguf[64], hf[64];
    gyre_dtype type;
    uint32_t n_dims;
    uint64_t dims[2], rows, cols, bytes;
    uint32_t rope_heads; // > 0: q or k, whose rows GGUF keeps in interleaved order
    bool gain;           // of a norm
    unsigned char *data; // HF row order
};

// All tensors of the model, *n of them, without data; free the list.
struct tiny_tensor *tiny_describe(const struct tiny_options *o, uint32_t *n);
void tiny_fill(struct tiny_tensor *t, const struct tiny_options *o); // free its data

extern const char *const tiny_controls[3];
int tiny_token(uint32_t id, char out[40]); // token `id` of the vocabulary; returns its GGUF type
uint32_t tiny_merge_count(uint32_t vocab);
void tiny_merge(uint32_t i, int side, char out[16]); // of merge i, by rank, its left (0) or right (1) half
