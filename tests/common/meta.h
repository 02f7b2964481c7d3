// A tiny checkpoint as Meta publishes it, INT4_EO8: width 48, feed-forward 128, 1 block, 2 heads of 24, 512 tokens,
// groups of 16. The integers depend on tensor and place alone.
#pragma once
#include "tests/common/bytes.h"

struct meta_options {
    const char *params;         // in place of the honest params.json
    const struct bytes *pickle; // in place of the honest data.pkl
    const char *left_out;       // a record, "data/3"
    uint16_t method;            // of compression, as the zip says
    bool strided, past;         // of wq: strides that are none of a contiguous matrix; reaches past its storage
    bool zip64;                 // sizes and places in extra fields
};

// 0 on success.
int meta_write(const char *directory, const struct meta_options *options);
int meta_code(unsigned tensor, uint64_t index);    // of tensor number `tensor` in file order; 4 bits
float meta_scale(unsigned tensor, uint64_t index); // of the tensor that it scales
