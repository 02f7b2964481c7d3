// What several references are made of: the Hadamard transform, the row quantizer and the layout of weights.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct gyre_ref_args;

// x[n * segs] in place, every segment of n = k1*k2*k3*2^p by H / sqrt(n), or by its transpose. `base`: the bit masks of
// shaders/params.h.
struct gyre_ref_had {
    int32_t n, segs, k1, k2, k3, p, transposed;
};
void gyre_ref_hadamard(double *x, const struct gyre_ref_had *had, const uint32_t *base);

// One row to codes[width/4] and meta[2]; span: "span" in shaders/params.h. The same f32 steps as shaders/quantize.k.h:
// equal rows give equal codes everywhere.
void gyre_ref_quantize_row(const float *x, int32_t width, int32_t bits, float clip, int32_t span, uint32_t *codes,
                           uint32_t meta[2]);

// One row to planes of bytes, high, middle and low, each `stride` behind the one before: "bits 24" in
// shaders/quantize.k.h, the same codes.
void gyre_ref_split_row(const float *x, int32_t width, int8_t *planes, size_t stride, uint32_t meta[2]);

// Element i of a cached vector: `words` of its codes, its meta word, the pool's bits (32: floats).
double gyre_ref_cached(const uint32_t *words, uint32_t meta, int i, int bits);

// quant_matmul from its parts: `norm` is rms_norm_quant, the others have their own names; at 24 bits they are the
// references'. Where memory runs out y is NaN.
typedef void gyre_ref_part(const struct gyre_ref_args *args);
void gyre_ref_quant_matmul(const struct gyre_ref_args *args, gyre_ref_part *norm, gyre_ref_part *quantize,
                           gyre_ref_part *matmul);

// A device weight (shaders/params.h) by element; kind 4, 8, 16 or 32. Values of 4 and 8 include the scale, codes and
// values of 4 are less their zero point.
struct gyre_ref_weight {
    int kind;
    int32_t k, n_pad, group;
    const uint32_t *words, *scale;
    const uint32_t *zeros; // [k/group][n_pad/8]; NULL: 8 everywhere
};
// The weight of a kernel's arguments, of the kind that its form says, with zero points where its constant says so.
struct gyre_ref_weight gyre_ref_weight(const struct gyre_ref_args *args, int32_t k, int32_t n_pad, int32_t group,
                                       const void *words, const void *scale);
int32_t gyre_ref_weight_zero(const struct gyre_ref_weight *w, int32_t g, int32_t n); // kind 4: 0..15
int32_t gyre_ref_weight_code(const struct gyre_ref_weight *w, int32_t k, int32_t n); // kinds 4 and 8
float gyre_ref_weight_scale(const struct gyre_ref_weight *w, int32_t g, int32_t n);  // kinds 4 and 8
double gyre_ref_weight_value(const struct gyre_ref_weight *w, int32_t k, int32_t n);
