// Weights on a device: which kind each file tensor becomes, memory for it within the device's limits, and the upload.
// A gyre_weight made here owns its buffers. Knows nothing about architectures.
#pragma once
#include "backends/backend.h"
#include "runtime/graph/repack.h"
#include "runtime/source/source.h"

// A linear (or table) as it lies in a file: `weight` and, for gyre's own int4/int8 tensors, `scale` ([N, K/g] F16).
struct gyre_weight_part {
    const struct gyre_tensor *weight, *scale;
    uint32_t n, k; // logical shape [N, K]
};

// Memory for a weight [n, k]; ranges are cut so that each binding fits the device. Contents undefined.
gyre_status gyre_weight_create(gyre_device *device, gyre_weight_kind kind, uint32_t n, uint32_t k, uint32_t group,
                               const char *label, struct gyre_weight *out, gyre_error *err) GYRE_MUST_USE;
void gyre_weight_destroy(gyre_device *device, struct gyre_weight *weight);
uint64_t gyre_weight_bytes(const struct gyre_weight *weight); // on the device, all planes

// Loads the parts side by side along N (q,k,v; gate,up) as one weight. Kind: int4 and int8 tensors, Q4_0 and Q8_0 run
// as they are when all parts agree; everything else becomes f16, or f32 where a part is F32 or does not fit f16
// (half_range.h).
// `portable_group`: the group that Q4_0 parts declare by repeated scales (0: per channel), or 32; verified bitwise.
gyre_status gyre_weight_load(gyre_device *device, gyre_repacker *repacker, const struct gyre_weight_part *parts,
                             uint32_t n_parts, uint32_t portable_group, const char *label, struct gyre_weight *out,
                             gyre_error *err) GYRE_MUST_USE;

// The same from host memory: fills rows n0..n0+n-1 of a weight that gyre_weight_create made.
// F32 and F16 kinds take `f32`; W4 and W8 take codes (int8, row-major) and scales (f16 bits, [n][k/group]).
gyre_status gyre_weight_fill(gyre_repacker *repacker, const struct gyre_weight *weight, uint32_t n0, uint32_t n,
                             const float *f32, const int8_t *codes, const uint16_t *scales,
                             gyre_error *err) GYRE_MUST_USE;

// A buffer holding `bytes` of `data`, as a binding of exactly that size rounded up to 4.
gyre_status gyre_upload(gyre_device *device, const void *data, uint64_t bytes, const char *label,
                        struct gyre_binding *out, gyre_error *err) GYRE_MUST_USE;
