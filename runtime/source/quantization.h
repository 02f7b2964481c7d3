// How the linears of a Hugging Face checkpoint were rounded, as quantization_config says: compressed-tensors,
// AutoAWQ or GPTQ. Where the codes lie and how a number comes out of them is runtime/model/pack_*.c's; what is not
// one of these schemes was refused when the source was opened.
#pragma once
#include <stdbool.h>
#include <stdint.h>

typedef enum gyre_method { GYRE_METHOD_COMPRESSED_TENSORS, GYRE_METHOD_AWQ, GYRE_METHOD_GPTQ } gyre_method;

// What one group of linears has in common. Which ones they are shows in their tensors.
struct gyre_scheme {
    uint32_t bits;  // 4 or 8
    uint32_t group; // inputs that share a scale; 0: all
    bool symmetric; // compressed-tensors: there are no zero points
};

enum { GYRE_MAX_SCHEMES = 16 };

struct gyre_quantization {
    gyre_method method;
    bool zeros_less_one; // GPTQ version 1: a zero point z is stored as z - 1
    bool exceptions;     // GPTQ: linears may have other bits and groups than declared
    struct gyre_scheme scheme[GYRE_MAX_SCHEMES];
    uint32_t n_schemes; // at least 1
};
