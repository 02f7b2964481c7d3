// Weights from file layout to device layout: the repack_* kernels, run at load time in bounded pieces.
//
// A weight range may hold several tensors side by side (q, k, v; gate, up): each is uploaded to its own columns.
// Layouts: shaders/params.h. The caller owns the range's buffers; what to allocate: gyre_weight_plane_bytes.
#pragma once
#include "runtime/graph/graph.h"

// How the source lies in host memory, row-major [n][k], one row per output column of the device weight.
typedef enum gyre_repack_format {
    GYRE_REPACK_I4,   // -> W4: nibbles, element j of a row in bits 4(j%2) of byte j/2, code + 8; scales separate
    GYRE_REPACK_I8,   // -> W8: signed bytes; scales separate
    GYRE_REPACK_Q4_0, // -> W4: GGUF blocks of 18 bytes
    GYRE_REPACK_Q8_0, // -> W8: GGUF blocks of 34 bytes
    GYRE_REPACK_F16,  // -> F16
    GYRE_REPACK_F32,  // -> F32
} gyre_repack_format;

gyre_weight_kind gyre_repack_kind(gyre_repack_format format);

// Columns that a range of n takes: a multiple of GYRE_TILE, of 8 for floats.
uint32_t gyre_weight_pad(gyre_weight_kind kind, uint32_t n);

// Bytes of the planes of one range of n columns: bytes[0] weight, [1] scale (W4Z: and zero points), [2] sums.
// Scale and sums are 0 for f16 and f32: their bindings repeat the weight's.
void gyre_weight_plane_bytes(gyre_weight_kind kind, uint32_t n, uint32_t k, uint32_t group, uint64_t bytes[3]);

// The most columns (a multiple of what they are padded to) one range may have on this device, so that no plane exceeds
// its limits; 0 where not even that many fit.
uint32_t gyre_weight_max_columns(const struct gyre_device_info *info, gyre_weight_kind kind, uint32_t k,
                                 uint32_t group);

// Holds the staging buffer and the kernels of a series of uploads. One device, one thread.
typedef struct gyre_repacker gyre_repacker;
gyre_status gyre_repacker_create(gyre_device *device, gyre_repacker **out, gyre_error *err) GYRE_MUST_USE;
void gyre_repacker_destroy(gyre_repacker *repacker);

// Fills columns n_dst0 .. n_dst0+n-1 of `dst` (counted within the range) from n source rows of k elements, and the
// padding up to the next multiple of 8. n_dst0 is a multiple of 8, and n too unless these are the last columns of the
// range. scales: f16 [n][k/group] for I4 and I8, else NULL; zeros: of I4, for a range of W4Z, [n][k/group] from -8 to 7
// as its codes, else NULL. group divides k (k: per channel) and is a multiple of 8
// (I4), 4 (I8) or 32 (Q4_0, Q8_0: above 32 only where the blocks of a group repeat one scale; the first is taken);
// ignored for floats. Returns when the source may be reused.
gyre_status gyre_repack_upload(gyre_repacker *repacker, gyre_repack_format format, const void *rows,
                               const uint16_t *scales, const int8_t *zeros, uint32_t n, uint32_t k, uint32_t group,
                               uint32_t n_dst0, const struct gyre_weight_range *dst, gyre_error *err) GYRE_MUST_USE;

// Fills all columns of `dst` with uniform codes that the repack kernels spread from noise in device memory, uploaded
// once for all of a repacker's weights, and with one scale (bits of f16): for measuring. kind: W4 or W8.
gyre_status gyre_repack_noise(gyre_repacker *repacker, gyre_weight_kind kind, uint32_t k, uint32_t group,
                              uint16_t scale, const struct gyre_weight_range *dst, gyre_error *err) GYRE_MUST_USE;
