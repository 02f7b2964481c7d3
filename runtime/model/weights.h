// Weights on a device: which kind each file tensor becomes, memory for it within the device's limits, and the upload.
// A gyre_weight made here owns its buffers. Knows nothing about
// architectures.
#pragma once
#include "backends/backend.h"
#include "runtime/graph/repack.h"
#include "runtime/model/linear.h"

// Memory for a weight [n, k]; ranges are cut so that each binding fits the device. Contents undefined.
gyre_status gyre_weight_create(gyre_device *device, gyre_weight_kind kind, uint32_t n, uint32_t k, uint32_t group,
                               const char *label, struct gyre_weight *out, gyre_error *err) GYRE_MUST_USE;
void gyre_weight_destroy(gyre_device *device, struct gyre_weight *weight);
uint64_t gyre_weight_bytes(const struct gyre_weight *weight); // on the device, all planes

// What is asked of matrices that would run as floats, and what came of it: the sums of squares of all their numbers and
// of what rounding took from them. lost / whole is the square of the relative error.
struct gyre_load_rounding {
    uint32_t bits;    // 8: they run as int8 in groups of 32, as Q8_0 rounds; else: as floats
    uint32_t rounded; // matrices
    double lost, whole;
};

double gyre_load_rounding_error(const struct gyre_load_rounding *rounding); // relative; 0 where nothing was rounded

// The form that linears of the same columns get when they lie side by side along N (q,k,v; gate,up), before any number
// is seen. Kind: int4 and int8 tensors, Q4_0 and Q8_0 run as they are when all agree, int4 with zero points where one
// has them; everything else becomes f16, or f32 where one is F32 or has codes that could not stay, or, with `bits` 8
// and whole groups, int8. *group: columns that share a scale; floats: all.
gyre_weight_kind gyre_weight_form(const struct gyre_linear *parts, uint32_t n_parts, uint32_t bits, uint32_t *group);
// The bytes on a device of that form.
uint64_t gyre_weight_form_bytes(const struct gyre_linear *parts, uint32_t n_parts, uint32_t bits);

// Memory for it, with nothing in it.
gyre_status gyre_weight_layout(gyre_device *device, const struct gyre_linear *parts, uint32_t n_parts,
                               const char *label, uint32_t bits, struct gyre_weight *out,
                               gyre_error *err) GYRE_MUST_USE;

// Loads the parts as one weight of that form; as floats where rounded rows would need scales below f16's range, as f32
// where one does not fit f16 (half_range.h). Scales that Q4_0 parts declare to be repeated are verified bitwise and
// kept once. `rounding` (NULL: none is wanted) is added to.
gyre_status gyre_weight_load(gyre_device *device, gyre_repacker *repacker, const struct gyre_linear *parts,
                             uint32_t n_parts, const char *label, struct gyre_load_rounding *rounding,
                             struct gyre_weight *out, gyre_error *err) GYRE_MUST_USE;

// The same from host memory: fills rows n0..n0+n-1 of a weight that gyre_weight_create made.
// F32 and F16 kinds take `f32`; W4 and W8 take codes (int8, row-major) and scales (f16 bits, [n][k/group]).
gyre_status gyre_weight_fill(gyre_repacker *repacker, const struct gyre_weight *weight, uint32_t n0, uint32_t n,
                             const float *f32, const int8_t *codes, const uint16_t *scales,
                             gyre_error *err) GYRE_MUST_USE;

// A buffer holding `bytes` of `data`, as a binding of exactly that size rounded up to 4.
gyre_status gyre_upload(gyre_device *device, const void *data, uint64_t bytes, const char *label,
                        struct gyre_binding *out, gyre_error *err) GYRE_MUST_USE;
