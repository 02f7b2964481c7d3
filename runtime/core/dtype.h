// The tensor types of model files, and what each one costs in bytes.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// X(enum suffix, name, GGUF type id (-1: not read from GGUF), elements per block, bytes per block) I8 is also the
// carrier of gyre's packed int4 nibbles (docs/model-format.md), I32 of the packed codes of others; I64 holds shapes.
#define GYRE_DTYPE_MAP(X)                                                                                              \
    X(F32, "F32", 0, 1, 4)                                                                                             \
    X(F16, "F16", 1, 1, 2)                                                                                             \
    X(BF16, "BF16", 30, 1, 2)                                                                                          \
    X(F64, "F64", 28, 1, 8)                                                                                            \
    X(Q4_0, "Q4_0", 2, 32, 18)                                                                                         \
    X(Q4_1, "Q4_1", 3, 32, 20)                                                                                         \
    X(Q5_0, "Q5_0", 6, 32, 22)                                                                                         \
    X(Q5_1, "Q5_1", 7, 32, 24)                                                                                         \
    X(Q8_0, "Q8_0", 8, 32, 34)                                                                                         \
    X(Q2_K, "Q2_K", 10, 256, 84)                                                                                       \
    X(Q3_K, "Q3_K", 11, 256, 110)                                                                                      \
    X(Q4_K, "Q4_K", 12, 256, 144)                                                                                      \
    X(Q5_K, "Q5_K", 13, 256, 176)                                                                                      \
    X(Q6_K, "Q6_K", 14, 256, 210)                                                                                      \
    X(IQ4_NL, "IQ4_NL", 20, 32, 18)                                                                                    \
    X(IQ4_XS, "IQ4_XS", 23, 256, 136)                                                                                  \
    X(MXFP4, "MXFP4", 39, 32, 17)                                                                                      \
    X(TQ1_0, "TQ1_0", 34, 256, 54)                                                                                     \
    X(TQ2_0, "TQ2_0", 35, 256, 66)                                                                                     \
    X(I8, "I8", 24, 1, 1)                                                                                              \
    X(I32, "I32", -1, 1, 4)                                                                                            \
    X(I64, "I64", -1, 1, 8)

typedef enum gyre_dtype {
#define X(id, name, gguf, elements, bytes) GYRE_DTYPE_##id,
    GYRE_DTYPE_MAP(X)
#undef X
        GYRE_DTYPE_COUNT
} gyre_dtype;

struct gyre_dtype_info {
    const char *name;
    int gguf;
    uint32_t block_elements, block_bytes;
};

const struct gyre_dtype_info *gyre_dtype_info(gyre_dtype type);

// The dtype of a GGUF type id; false if gyre does not read it.
bool gyre_dtype_from_gguf(uint32_t id, gyre_dtype *out);
// A name for any GGUF type id, also unsupported ones, for messages ("IQ4_NL"); "type 99" style is the caller's job:
// NULL.
const char *gyre_gguf_type_name(uint32_t id);

// "F32, F16 and BF16", all that are read from GGUF, for messages.
void gyre_gguf_type_list(char *out, size_t size);

// Bytes of a row of n elements; false if n is not a whole number of blocks.
bool gyre_dtype_row_bytes(gyre_dtype type, uint64_t n, uint64_t *bytes);
