// See gumbel.h. Every step is rounded to f32 by itself, as on the devices.
#include "runtime/core/gumbel.h"
#include "runtime/util/half.h"

#include <stdbool.h>

uint32_t gyre_gumbel_mix(uint32_t x)
{
    x = (x ^ x >> 16) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    return x ^ x >> 16;
}

uint32_t gyre_gumbel_stream(uint32_t seed, uint32_t position)
{
    return gyre_gumbel_mix(seed ^ gyre_gumbel_mix(position + 0x9E3779B9u));
}

// Natural logarithm of a normal number (the polynomial of Cephes' logf).
static float ln(float y)
{
    static const float c[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                              -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                              2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    const uint32_t bits = gyre_f32_bits(y), one = (bits & 0x007FFFFF) | 0x3F800000;
    const bool high = one > 0x3FB504F3; // the root of 2
    const float e = (float)((int32_t)(bits >> 23) - 127 + high);
    const float f = gyre_f32_from_bits(high ? one - 0x00800000 : one) - 1, z = f * f;
    float p = c[0];
    for (int i = 1; i < 9; i++) p = p * f + c[i];
    return (f + ((p * f * z + e * -2.12194440e-4f) - 0.5f * z)) + e * 0.693359375f;
}

// 1 - u is w, small ones with all their bits.
float gyre_gumbel(uint32_t stream, uint32_t column)
{
    const uint32_t h = gyre_gumbel_mix(stream ^ gyre_gumbel_mix(column)) | 1;
    const float w = h < 1 << 24 ? (float)h * 0x1p-32f : (float)(h >> 8) * 0x1p-24f;
    return w < 0x1p-12f ? -(ln(w) + 0.5f * w) : -ln(-ln(1 - w));
}
