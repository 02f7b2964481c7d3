// Block codecs of model files: the definition that every kernel and writer is tested against.
// Layouts: GGUF specification as summarised in docs (Q4_0 .. Q6_K), little-endian.
#pragma once
#include "runtime/core/dtype.h"

// Expands n elements (whole blocks) of `type` to f32. I8, I32 and I64 give the plain integers.
void gyre_decode_row(gyre_dtype type, const void *blocks, uint64_t n, float *out);

// Writes n elements (whole blocks) with given codes and scale(s): the exact inverse for values on the grid.
// codes in -8..7 (Q4_0) or -128..127 (Q8_0), scales f16 bits, one per 32 elements.
void gyre_encode_q4_0(const int8_t *codes, const uint16_t *scales, uint64_t n, void *blocks);
void gyre_encode_q8_0(const int8_t *codes, const uint16_t *scales, uint64_t n, void *blocks);

// Their codes alone.
void gyre_codes_q4_0(const void *blocks, uint64_t n, int8_t *codes);
void gyre_codes_q8_0(const void *blocks, uint64_t n, int8_t *codes);

// Round-to-nearest Q8_0 of a float row: scale max|x|/127 rounded to f16, codes by round-half-even.
void gyre_quantize_q8_0(const float *x, uint64_t n, void *blocks);

// n floats as a type that whole tables are written in: F32, F16 or Q8_0 (n a multiple of 32).
void gyre_encode_floats(const float *x, uint64_t n, gyre_dtype type, void *out);
void gyre_narrow(const double *wide, uint64_t n, float *out); // to f32, on all threads

// gyre's packed int4: element j of a row in bits 4(j%2) of byte j/2, stored as code + 8; n even.
void gyre_pack_i4(const int8_t *codes, uint64_t n, uint8_t *out);
void gyre_unpack_i4(const uint8_t *packed, uint64_t n, int8_t *codes);
