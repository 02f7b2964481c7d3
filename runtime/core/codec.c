// Block codecs of the plain types and of the 32-element blocks; codec_k.c has the super-blocks, codec_table.c what has
// a table of values.
//
// Layouts (GGUF): Q4_0 = f16 d, 16 bytes; Q4_1 = f16 d, f16 m, 16 bytes; Q5_0 = f16 d, u32 fifth bits, 16 bytes; Q5_1 =
// f16 d, f16 m, u32 fifth bits, 16 bytes; Q8_0 = f16 d, 32 signed bytes. In the nibble types byte j holds element j
// (low) and element j + 16 (high). Every product of a half and a code is exact in f32, so the results do not depend on
// the compiler's contraction.
#include "runtime/core/codec.h"

#include "runtime/core/codec_impl.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>

enum { BLOCK = 32, Q4_0_BYTES = 18, Q4_1_BYTES = 20, Q5_0_BYTES = 22, Q5_1_BYTES = 24, Q8_0_BYTES = 34 };

// A nibble holds code + 8.
static inline int low_code(uint8_t pair) { return (pair & 15) - 8; }
static inline int high_code(uint8_t pair) { return (pair >> 4) - 8; }

GYRE_CLONES static void decode_f16(const uint8_t *p, uint64_t n, float *out)
{
    for (uint64_t i = 0; i < n; i++) out[i] = gyre_f32_from_f16(load_u16(p + 2 * i));
}

GYRE_CLONES static void decode_bf16(const uint8_t *p, uint64_t n, float *out)
{
    for (uint64_t i = 0; i < n; i++) out[i] = gyre_f32_from_bf16(load_u16(p + 2 * i));
}

static void decode_i8(const uint8_t *p, uint64_t n, float *out)
{
    for (uint64_t i = 0; i < n; i++) out[i] = (float)(int8_t)p[i];
}

GYRE_CLONES static void decode_q4_0(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += Q4_0_BYTES, out += BLOCK) {
        const float d = gyre_f32_from_f16(load_u16(p));
        for (int j = 0; j < 16; j++) {
            out[j] = (float)low_code(p[2 + j]) * d;
            out[j + 16] = (float)high_code(p[2 + j]) * d;
        }
    }
}

GYRE_CLONES static void decode_q4_1(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += Q4_1_BYTES, out += BLOCK) {
        const float d = gyre_f32_from_f16(load_u16(p)), m = gyre_f32_from_f16(load_u16(p + 2));
        for (int j = 0; j < 16; j++) {
            out[j] = (float)(p[4 + j] & 15) * d + m;
            out[j + 16] = (float)(p[4 + j] >> 4) * d + m;
        }
    }
}

static void decode_q5_0(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += Q5_0_BYTES, out += BLOCK) {
        const float d = gyre_f32_from_f16(load_u16(p));
        const uint32_t fifth = load_u32(p + 2);
        for (int j = 0; j < 16; j++) {
            out[j] = (float)((int)((p[6 + j] & 15) | (fifth >> j & 1) << 4) - 16) * d;
            out[j + 16] = (float)((int)((uint32_t)(p[6 + j] >> 4) | (fifth >> (j + 16) & 1) << 4) - 16) * d;
        }
    }
}

static void decode_i32(const uint8_t *p, uint64_t n, float *out)
{
    for (uint64_t i = 0; i < n; i++) out[i] = (float)(int32_t)load_u32(p + 4 * i);
}

static void decode_i64(const uint8_t *p, uint64_t n, float *out)
{
    for (uint64_t i = 0; i < n; i++) {
        int64_t v;
        memcpy(&v, p + 8 * i, 8);
        out[i] = (float)v;
    }
}

static void decode_f64(const uint8_t *p, uint64_t n, float *out)
{
    for (uint64_t i = 0; i < n; i++) {
        double v;
        memcpy(&v, p + 8 * i, 8);
        out[i] = (float)v;
    }
}

static void decode_q5_1(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += Q5_1_BYTES, out += BLOCK) {
        const float d = gyre_f32_from_f16(load_u16(p)), m = gyre_f32_from_f16(load_u16(p + 2));
        const uint32_t fifth = load_u32(p + 4);
        for (int j = 0; j < 16; j++) {
            out[j] = (float)((p[8 + j] & 15) | (fifth >> j & 1) << 4) * d + m;
            out[j + 16] = (float)((uint32_t)(p[8 + j] >> 4) | (fifth >> (j + 16) & 1) << 4) * d + m;
        }
    }
}

GYRE_CLONES static void decode_q8_0(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += Q8_0_BYTES, out += BLOCK) {
        const float d = gyre_f32_from_f16(load_u16(p));
        for (int j = 0; j < BLOCK; j++) out[j] = (float)(int8_t)p[2 + j] * d;
    }
}

void gyre_decode_row(gyre_dtype type, const void *blocks, uint64_t n, float *out)
{
    const uint8_t *p = blocks;
    switch (type) {
    case GYRE_DTYPE_F32:
        memcpy(out, p, n * 4);
        return;
    case GYRE_DTYPE_F16:
        decode_f16(p, n, out);
        return;
    case GYRE_DTYPE_BF16:
        decode_bf16(p, n, out);
        return;
    case GYRE_DTYPE_F64:
        decode_f64(p, n, out);
        return;
    case GYRE_DTYPE_I8:
        decode_i8(p, n, out);
        return;
    case GYRE_DTYPE_I32:
        decode_i32(p, n, out);
        return;
    case GYRE_DTYPE_I64:
        decode_i64(p, n, out);
        return;
    case GYRE_DTYPE_Q4_0:
        decode_q4_0(p, n / 32, out);
        return;
    case GYRE_DTYPE_Q4_1:
        decode_q4_1(p, n / 32, out);
        return;
    case GYRE_DTYPE_Q5_0:
        decode_q5_0(p, n / 32, out);
        return;
    case GYRE_DTYPE_Q5_1:
        decode_q5_1(p, n / 32, out);
        return;
    case GYRE_DTYPE_Q8_0:
        decode_q8_0(p, n / 32, out);
        return;
    case GYRE_DTYPE_Q2_K:
        gyre_decode_q2_k(p, n / 256, out);
        return;
    case GYRE_DTYPE_Q3_K:
        gyre_decode_q3_k(p, n / 256, out);
        return;
    case GYRE_DTYPE_Q4_K:
        gyre_decode_q4_k(p, n / 256, out);
        return;
    case GYRE_DTYPE_Q5_K:
        gyre_decode_q5_k(p, n / 256, out);
        return;
    case GYRE_DTYPE_Q6_K:
        gyre_decode_q6_k(p, n / 256, out);
        return;
    case GYRE_DTYPE_IQ4_NL:
        gyre_decode_iq4_nl(p, n / 32, out);
        return;
    case GYRE_DTYPE_IQ4_XS:
        gyre_decode_iq4_xs(p, n / 256, out);
        return;
    case GYRE_DTYPE_MXFP4:
        gyre_decode_mxfp4(p, n / 32, out);
        return;
    case GYRE_DTYPE_TQ1_0:
        gyre_decode_tq1_0(p, n / 256, out);
        return;
    case GYRE_DTYPE_TQ2_0:
        gyre_decode_tq2_0(p, n / 256, out);
        return;
    case GYRE_DTYPE_COUNT:
        return;
    }
}

void gyre_encode_q4_0(const int8_t *codes, const uint16_t *scales, uint64_t n, void *blocks)
{
    uint8_t *p = blocks;
    for (uint64_t b = 0; b < n / BLOCK; b++, p += Q4_0_BYTES, codes += BLOCK) {
        memcpy(p, &scales[b], 2);
        for (int j = 0; j < 16; j++) p[2 + j] = (uint8_t)((codes[j] + 8) | (codes[j + 16] + 8) << 4);
    }
}

void gyre_encode_q8_0(const int8_t *codes, const uint16_t *scales, uint64_t n, void *blocks)
{
    uint8_t *p = blocks;
    for (uint64_t b = 0; b < n / BLOCK; b++, p += Q8_0_BYTES, codes += BLOCK) {
        memcpy(p, &scales[b], 2);
        memcpy(p + 2, codes, BLOCK);
    }
}

void gyre_codes_q4_0(const void *blocks, uint64_t n, int8_t *codes)
{
    const uint8_t *p = blocks;
    for (uint64_t b = 0; b < n / BLOCK; b++, p += Q4_0_BYTES, codes += BLOCK)
        for (int j = 0; j < 16; j++) {
            codes[j] = (int8_t)low_code(p[2 + j]);
            codes[j + 16] = (int8_t)high_code(p[2 + j]);
        }
}

void gyre_codes_q8_0(const void *blocks, uint64_t n, int8_t *codes)
{
    const uint8_t *p = blocks;
    for (uint64_t b = 0; b < n / BLOCK; b++, p += Q8_0_BYTES, codes += BLOCK) memcpy(codes, p + 2, BLOCK);
}

void gyre_quantize_q8_0(const float *x, uint64_t n, void *blocks)
{
    uint8_t *out = blocks;
    for (uint64_t b = 0; b < n / BLOCK; b++, x += BLOCK, out += Q8_0_BYTES) {
        float largest = 0;
        for (int j = 0; j < BLOCK; j++) largest = GYRE_MAX(largest, fabsf(x[j]));
        // The codes belong to the scale that is stored, not to the one before its rounding.
        const uint16_t scale = gyre_f16_from_f32(GYRE_MIN(largest / 127.0f, 65504.0f));
        const float d = gyre_f32_from_f16(scale);
        int8_t codes[BLOCK] = {0};
        for (int j = 0; d > 0 && j < BLOCK; j++) {
            const float q = rintf(x[j] / d);
            codes[j] = (int8_t)GYRE_MAX(-127.0f, GYRE_MIN(127.0f, q));
        }
        gyre_encode_q8_0(codes, &scale, BLOCK, out);
    }
}

void gyre_encode_floats(const float *x, uint64_t n, gyre_dtype type, void *out)
{
    if (type == GYRE_DTYPE_F32) memcpy(out, x, n * sizeof *x);
    else if (type == GYRE_DTYPE_F16)
        for (uint64_t i = 0; i < n; i++) ((uint16_t *)out)[i] = gyre_f16_from_f32(x[i]);
    else gyre_quantize_q8_0(x, n, out);
}

void gyre_narrow(const double *wide, uint64_t n, float *out)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < (int64_t)n; i++) out[i] = (float)wide[i];
}

void gyre_pack_i4(const int8_t *codes, uint64_t n, uint8_t *out)
{
    for (uint64_t i = 0; i < n / 2; i++) out[i] = (uint8_t)((codes[2 * i] + 8) | (codes[2 * i + 1] + 8) << 4);
}

void gyre_unpack_i4(const uint8_t *packed, uint64_t n, int8_t *codes)
{
    for (uint64_t i = 0; i < n / 2; i++) {
        codes[2 * i] = (int8_t)low_code(packed[i]);
        codes[2 * i + 1] = (int8_t)high_code(packed[i]);
    }
}
