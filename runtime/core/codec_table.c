// Decoders of the types whose codes stand for the values of a table.
//
// IQ4_NL: f16 d, 16 bytes of nibbles as in Q4_0. IQ4_XS: f16 d, u16 of upper and 4 bytes of lower scale bits, 128 bytes
// of nibbles; a scale of 6 bits, less 32, for every 32 elements. MXFP4: one byte e of an exponent, 16 bytes of nibbles,
// each an e2m1 number; x = 2^(e-127) v, kept here as 2^(e-128) 2v. TQ1_0: five ternary digits a byte, as the upper end
// of b 3^n; TQ2_0: bit pairs; both with an f16 d, x = d (digit - 1).
#include "runtime/core/codec_impl.h"

#include "runtime/util/half.h"

enum {
    BLOCK = 32,
    SUPER = 256,
    IQ4_NL_BYTES = 18,
    IQ4_XS_BYTES = 136,
    MXFP4_BYTES = 17,
    TQ1_0_BYTES = 54,
    TQ2_0_BYTES = 66
};

static const int8_t iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// 32 elements of a scale: byte j holds element j (low) and element j + 16 (high).
static void decode_nibbles(const uint8_t *nibbles, const int8_t table[16], float scale, float *out)
{
    for (int j = 0; j < 16; j++) {
        out[j] = scale * (float)table[nibbles[j] & 15];
        out[j + 16] = scale * (float)table[nibbles[j] >> 4];
    }
}

void gyre_decode_iq4_nl(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += IQ4_NL_BYTES, out += BLOCK)
        decode_nibbles(p + 2, iq4, gyre_f32_from_f16(load_u16(p)), out);
}

void gyre_decode_iq4_xs(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += IQ4_XS_BYTES, out += SUPER) {
        const float d = gyre_f32_from_f16(load_u16(p));
        const int upper = load_u16(p + 2);
        for (int s = 0; s < 8; s++) {
            const int scale = (p[4 + s / 2] >> 4 * (s & 1) & 15) | (upper >> 2 * s & 3) << 4;
            decode_nibbles(p + 8 + 16 * s, iq4, d * (float)(scale - 32), out + 32 * s);
        }
    }
}

void gyre_decode_mxfp4(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += MXFP4_BYTES, out += BLOCK) {
        // 2^(e-128): below e = 2 it is subnormal.
        const uint32_t bits = p[0] < 2 ? 0x00200000u << p[0] : (uint32_t)(p[0] - 1) << 23;
        decode_nibbles(p + 1, e2m1_doubled, gyre_f32_from_bits(bits), out);
    }
}

// `digits` digits of n bytes each: digit k of byte i is element n k + i.
static float *decode_ternary(const uint8_t *bytes, int n, int digits, float d, float *out)
{
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    for (int k = 0; k < digits; k++)
        for (int i = 0; i < n; i++) *out++ = (float)(((uint8_t)(bytes[i] * powers[k]) * 3 >> 8) - 1) * d;
    return out;
}

void gyre_decode_tq1_0(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += TQ1_0_BYTES) {
        const float d = gyre_f32_from_f16(load_u16(p + 52));
        out = decode_ternary(p, 32, 5, d, out);
        out = decode_ternary(p + 32, 16, 5, d, out);
        out = decode_ternary(p + 48, 4, 4, d, out);
    }
}

void gyre_decode_tq2_0(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += TQ2_0_BYTES, out += SUPER) {
        const float d = gyre_f32_from_f16(load_u16(p + 64));
        for (int i = 0; i < SUPER; i++) out[i] = (float)((p[32 * (i / 128) + i % 32] >> 2 * (i / 32 % 4) & 3) - 1) * d;
    }
}
