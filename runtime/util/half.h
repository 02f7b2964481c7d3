// IEEE 754 binary16 and bfloat16 to and from binary32, exact and round-to-nearest-even.
#pragma once
#include <stdint.h>
#include <string.h>

static inline float gyre_f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint32_t gyre_f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static inline float gyre_f32_from_bf16(uint16_t h) { return gyre_f32_from_bits((uint32_t)h << 16); }

// Without branches, so that loops of it vectorise. Moved up as it lies, the exponent is 112 too small. A subnormal is
// made by taking the leading one off again: no binary32 subnormals, which a program around us may have told its
// processor to flush.
static inline float gyre_f32_from_f16(uint16_t h)
{
    const uint32_t moved = (uint32_t)(h & 0x7FFFu) << 13, number = moved + (112u << 23),
                   subnormal = gyre_f32_bits(gyre_f32_from_bits(moved + (113u << 23)) - 0x1p-14f),
                   finite = moved < 1u << 23 ? subnormal : number;
    return gyre_f32_from_bits((uint32_t)(h & 0x8000u) << 16 | (moved >= 31u << 23 ? moved | 0x7F800000u : finite));
}

// Round to nearest, ties to even; overflow gives infinity, NaN stays NaN.
static inline uint16_t gyre_f16_from_f32(float f)
{
    const uint32_t u = gyre_f32_bits(f), sign = (u >> 16) & 0x8000u, a = u & 0x7FFFFFFFu;
    if (a >= 0x7F800000u) return (uint16_t)(sign | (a > 0x7F800000u ? 0x7E00u : 0x7C00u));
    if (a >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); // >= 65520 rounds to infinity
    if (a < 0x33000001u) return (uint16_t)sign;              // <= 2^-25 rounds to zero
    if (a < 0x38800000u) {                                   // subnormal half: unit 2^-24
        const uint32_t mantissa = (a & 0x7FFFFFu) | 0x800000u, shift = 126u - (a >> 23);
        const uint32_t half = 1u << (shift - 1), rest = mantissa & ((1u << shift) - 1), q = mantissa >> shift;
        return (uint16_t)(sign | (q + (rest > half || (rest == half && (q & 1)))));
    }
    const uint32_t q = (a - 0x38000000u) >> 13, rest = a & 0x1FFFu;
    return (uint16_t)(sign | (q + (rest > 0x1000u || (rest == 0x1000u && (q & 1)))));
}

static inline float gyre_round_to_f16(float f) { return gyre_f32_from_f16(gyre_f16_from_f32(f)); }
