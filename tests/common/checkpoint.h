// Tiny Hugging Face directories whose linears are rounded as other tools do it: the integers depend on the tensor's
// name and place alone, so that a test knows every number.
#pragma once
#include "tests/common/tiny.h"

typedef enum checkpoint_form {
    CHECKPOINT_WORDS, // compressed-tensors, pack-quantized
    CHECKPOINT_BYTES, // compressed-tensors, int-quantized
    CHECKPOINT_GPTQ,
    CHECKPOINT_AWQ,
} checkpoint_form;

struct checkpoint {
    checkpoint_form form;
    uint32_t bits, group; // group 0: per channel
    bool asymmetric, act_order;
    bool version_2;         // GPTQ: zero points as they are
    bool byte_zeros;        // WORDS: zero points unpacked, as older writers have them
    gyre_dtype scale;       // F16, BF16 or F32; all the same numbers
    const char *float_part; // linears whose name has this stay floats; NULL: none
    // Lies:
    const char *config;   // quantization_config; NULL: the true one
    const char *left_out; // tensors whose name ends so are not there
    int32_t bad_index;    // not 0: the group of one input of down in block 0
    uint32_t cut_groups;  // scales of so many groups less
    uint32_t cut_words;   // rows of codes so many words shorter (WORDS)
};

// 0 on success. `options` as for tiny_write_hf, of type F32, F16 or BF16.
int checkpoint_write(const char *directory, const struct tiny_options *options, const struct checkpoint *c);

// What lies at (row, col) of the linear with this name ("model.layers.0.mlp.up_proj"), cols wide: its code and zero
// point in gyre's range, the scale, and the group.
int checkpoint_code(const struct checkpoint *c, const char *name, uint64_t row, uint64_t col);
int checkpoint_zero(const struct checkpoint *c, const char *name, uint64_t row, uint64_t group);
float checkpoint_scale(const char *name, uint64_t row, uint64_t group);
uint64_t checkpoint_group(const struct checkpoint *c, const char *name, uint64_t cols, uint64_t col);
