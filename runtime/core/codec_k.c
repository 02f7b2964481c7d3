// Decoders of the 256-element super-block types Q2_K to Q6_K.
//
// Q2_K: 16 bytes of (scale, min) nibbles, 64 bytes of bit pairs, f16 d, f16 dmin; x = d sc q - dmin m.
// Q3_K: 32 bytes of third bits, 64 bytes of bit pairs, 12 bytes of sixteen 6-bit scales, f16 d; x = d (sc - 32) q,
//       where q is the pair, less 4 where the third bit is not set.
// Q4_K: f16 d, f16 dmin, 12 bytes of eight 6-bit (scale, min) pairs, 128 bytes of nibbles; x = d sc q - dmin m.
// Q5_K: the same with 32 bytes of fifth bits before the nibbles: bit c of byte l belongs to sub-block c, element l.
// Q6_K: 128 low nibbles, 64 bytes of upper bit pairs, 16 signed scales, f16 d; x = d sc (q - 32).
#include "runtime/core/codec_impl.h"

#include "runtime/util/half.h"

enum { SUPER = 256, Q2_K_BYTES = 84, Q3_K_BYTES = 110, Q4_K_BYTES = 144, Q5_K_BYTES = 176, Q6_K_BYTES = 210 };

// Scale and minimum of sub-block s (0..7) out of the 12 packed bytes.
static void scale_min(const uint8_t *b, int s, int *scale, int *min)
{
    if (s < 4) {
        *scale = b[s] & 63;
        *min = b[s + 4] & 63;
    } else {
        *scale = (b[s + 4] & 15) | (b[s - 4] >> 6) << 4;
        *min = (b[s + 4] >> 4) | (b[s] >> 6) << 4;
    }
}

// In Q2_K and Q3_K pair p of byte l of half h is element 128 h + 32 p + l, and every 16 elements have a scale.
void gyre_decode_q2_k(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += Q2_K_BYTES, out += SUPER) {
        const float d = gyre_f32_from_f16(load_u16(p + 80)), dmin = gyre_f32_from_f16(load_u16(p + 82));
        for (int s = 0; s < 16; s++) {
            const uint8_t *pairs = p + 16 + 32 * (s / 8) + 16 * (s & 1);
            const int shift = 2 * (s / 2 & 3);
            const float step = d * (float)(p[s] & 15), low = dmin * (float)(p[s] >> 4);
            for (int l = 0; l < 16; l++) out[16 * s + l] = step * (float)(pairs[l] >> shift & 3) - low;
        }
    }
}

void gyre_decode_q3_k(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += Q3_K_BYTES, out += SUPER) {
        const float d = gyre_f32_from_f16(load_u16(p + 108));
        const uint8_t *scales = p + 96;
        for (int s = 0; s < 16; s++) {
            const uint8_t *pairs = p + 32 + 32 * (s / 8) + 16 * (s & 1), *third = p + 16 * (s & 1);
            const int shift = 2 * (s / 2 & 3), bit = s / 2;
            const int low = scales[s & 7] >> (s < 8 ? 0 : 4) & 15, high = scales[8 + (s & 3)] >> 2 * (s / 4) & 3;
            const float step = d * (float)((low | high << 4) - 32);
            for (int l = 0; l < 16; l++)
                out[16 * s + l] = step * (float)((pairs[l] >> shift & 3) - (third[l] >> bit & 1 ? 0 : 4));
        }
    }
}

void gyre_decode_q4_k(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += Q4_K_BYTES, out += SUPER) {
        const float d = gyre_f32_from_f16(load_u16(p)), dmin = gyre_f32_from_f16(load_u16(p + 2));
        for (int s = 0; s < 8; s++) {
            const uint8_t *nibbles = p + 16 + 32 * (s / 2);
            const int shift = 4 * (s & 1);
            int scale, min;
            scale_min(p + 4, s, &scale, &min);
            const float step = d * (float)scale, low = dmin * (float)min;
            for (int l = 0; l < 32; l++) out[32 * s + l] = step * (float)(nibbles[l] >> shift & 15) - low;
        }
    }
}

void gyre_decode_q5_k(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += Q5_K_BYTES, out += SUPER) {
        const float d = gyre_f32_from_f16(load_u16(p)), dmin = gyre_f32_from_f16(load_u16(p + 2));
        const uint8_t *fifth = p + 16;
        for (int s = 0; s < 8; s++) {
            const uint8_t *nibbles = p + 48 + 32 * (s / 2);
            const int shift = 4 * (s & 1);
            int scale, min;
            scale_min(p + 4, s, &scale, &min);
            const float step = d * (float)scale, low = dmin * (float)min;
            for (int l = 0; l < 32; l++) {
                const int q = (nibbles[l] >> shift & 15) | (fifth[l] >> s & 1) << 4;
                out[32 * s + l] = step * (float)q - low;
            }
        }
    }
}

void gyre_decode_q6_k(const uint8_t *p, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, p += Q6_K_BYTES) {
        const float d = gyre_f32_from_f16(load_u16(p + 208));
        for (int half = 0; half < 2; half++, out += 128) {
            const uint8_t *low = p + 64 * half, *high = p + 128 + 32 * half, *scales = p + 192 + 8 * half;
            for (int quarter = 0; quarter < 4; quarter++) {
                const uint8_t *nibbles = low + 32 * (quarter & 1);
                const int shift = 4 * (quarter >> 1);
                for (int l = 0; l < 32; l++) {
                    const int q = (nibbles[l] >> shift & 15) | (high[l] >> (2 * quarter) & 3) << 4;
                    const float step = d * (float)(int8_t)scales[2 * quarter + l / 16];
                    out[32 * quarter + l] = step * (float)(q - 32);
                }
            }
        }
    }
}
