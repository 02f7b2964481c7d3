// The overrides of the quick host, one per op and by its name, and what they share. Bindings and parameters are the
// reference's.
#pragma once
#include "backends/cpu/ref.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <stdint.h>

void gyre_fast_matmul(const struct gyre_ref_args *args);
void gyre_fast_quant_matmul(const struct gyre_ref_args *args);
void gyre_fast_rms_norm(const struct gyre_ref_args *args);
void gyre_fast_rms_norm_quant(const struct gyre_ref_args *args);
void gyre_fast_quantize(const struct gyre_ref_args *args);
void gyre_fast_hadamard(const struct gyre_ref_args *args);
void gyre_fast_act_mul(const struct gyre_ref_args *args);
void gyre_fast_act_mul_quant(const struct gyre_ref_args *args);
void gyre_fast_rms_norm_had(const struct gyre_ref_args *args);
void gyre_fast_rms_norm_had_quant(const struct gyre_ref_args *args);
void gyre_fast_act_mul_had(const struct gyre_ref_args *args);
void gyre_fast_act_mul_had_quant(const struct gyre_ref_args *args);
void gyre_fast_rope_kv(const struct gyre_ref_args *args);
void gyre_fast_rope_had_kv(const struct gyre_ref_args *args);
void gyre_fast_attn(const struct gyre_ref_args *args);
void gyre_fast_repack(const struct gyre_ref_args *args);

// ---- Hadamard transforms --------------------------------------------------------------------------------

// Vectors are transformed this many at a time: element i of all of them is contiguous, so that every loop vectorises.
enum { GYRE_FAST_LANES = 16 };

struct gyre_fast_had {
    int32_t n, segs, k[3], p;
    float *entries[3]; // k x k, +1 or -1, [from][to]; NULL where k is 1
};

// Expands the bit masks of shaders/params.h; false when out of memory. Release also then.
bool gyre_fast_had_open(struct gyre_fast_had *had, int32_t n, int32_t segs, int32_t k1, int32_t k2, int32_t k3,
                        int32_t p, bool transposed, const uint32_t *base);
void gyre_fast_had_close(struct gyre_fast_had *had);
// panel [segs * n][LANES] in place; scratch [largest k][LANES].
void gyre_fast_had_panel(const struct gyre_fast_had *had, float *panel, float *scratch);
// Floats of scratch that a panel needs.
uint64_t gyre_fast_had_scratch(const struct gyre_fast_had *had);

// ---- scalars ----------------------------------------------------------------------------------------------

// e^x to a few units of the last place, in steps that vectorise; below -87 and above 88 the ends.
GYRE_INLINE float gyre_fast_exp(float x)
{
    const float magic = 0x1.8p23f, most = x > 88.0f ? 88.0f : x, y = most < -87.0f ? -87.0f : most;
    const float t = y * 1.44269504f + magic, n = t - magic; // the nearest integer to y / ln 2
    const float r = y - n * 0.693359375f - n * -2.12194440e-4f;
    const float poly =
        ((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r +
         1.6666665459e-1f) *
            r +
        5.0000001201e-1f;
    return (poly * r * r + r + 1) * gyre_f32_from_bits((uint32_t)((int32_t)n + 127) << 23);
}
