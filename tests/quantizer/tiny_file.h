// Tiny random Llama GGUF files for the quantizer's tests, and small helpers around files.
#pragma once
#include "runtime/source/source.h"

#include <gyre/gyre_quantize.h>

struct tiny_file { // zero fields: the defaults of tiny_file_defaults
    uint32_t width, heads, kv_heads, head_dim, ffn, layers, vocab;
    bool tied, constant_gain;
    const char *nan_in; // name of a tensor that gets a NaN
    uint32_t seed;
};
extern const struct tiny_file tiny_file_default; // 64 wide, 6 heads of 16 on 2, ffn 96, 3 layers, 50 tokens, tied

// Writes PATH; F32 weights, tables F16.
void tiny_file_write(const char *path, const struct tiny_file *shape);

// A fresh folder under the current one for this test program, removed by tiny_folder_remove; `name` is appended.
const char *tiny_path(const char *name); // one of 64 rotating static buffers
void tiny_folder_remove(void);

char *tiny_read(const char *path, uint64_t *bytes); // malloc'd, NUL-terminated; NULL if absent
