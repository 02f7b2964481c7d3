// The kernels as data: a table generated at build time from shaders/kernels.def and the .k files.
#pragma once
#include <stddef.h>
#include <stdint.h>

// Which of an op's kernels one is: the column `form` of kernels.def. The first are the bits of a weight's elements.
enum gyre_form {
    GYRE_FORM_ONE = 0, // the only one, or the plain one
    GYRE_FORM_W4 = 4,
    GYRE_FORM_W8 = 8,
    GYRE_FORM_F16 = 16,
    GYRE_FORM_F32 = 32,
    GYRE_FORM_WEIGHT = 63,    // mask of the bits
    GYRE_FORM_QUANT = 64,     // x is quantized
    GYRE_FORM_MANY = 128,     // for many rows
    GYRE_FORM_GLOBAL = 256,   // works in a buffer instead of shared memory
    GYRE_FORM_SLICE = 512,    // reads by slices
    GYRE_FORM_SCALE = 1024,   // of scales
    GYRE_FORM_BLOCKS = 2048,  // from blocks that bring their scales
    GYRE_FORM_TILE = 4096,    // a workgroup takes a tile of the weight, for few rows on hardware
    GYRE_FORM_LINE = 8192,    // an invocation takes lines of a tile in vectors, for CPUs
    GYRE_FORM_BLOCK = 16384,  // a workgroup takes a block of rows and columns, for many rows on hardware
    GYRE_FORM_MATRIX = 32768, // the same on matrix units
    GYRE_FORM_ZERO = 65536,   // of zero points
    GYRE_FORM_BYTES = 131072, // to codes of 24 bits, three bytes
    GYRE_FORM_SHORT = 262144, // in short steps along K, for many rows on CPUs that load lane by lane
};

// What a device must have for a kernel to be worth taking: the column `needs`. GYRE_NEED_DOT is met by emulation in
// every test; the others compile nowhere else.
enum gyre_need {
    GYRE_NEED_DOT = 1,    // int8 dot products in hardware
    GYRE_NEED_CM_S8 = 2,  // matrices of int8 multiplied by a subgroup: gyre_device_info.matrix_s8
    GYRE_NEED_CM_F16 = 4, // the same of halves: matrix_f16
    GYRE_NEED_MATRICES = GYRE_NEED_CM_S8 | GYRE_NEED_CM_F16, // mask: constants 3, 4, 5 are m, n, k, and WGX the lanes
};

struct gyre_kernel_source {
    const char *name;              // unique, the row's first column
    const char *op;                // the row of runtime/core/ops.def that it computes; GPU backends ignore it
    uint32_t form;                 // of enum gyre_form; with op it is unique. GPU backends ignore it too
    uint32_t needs;                // of enum gyre_need
    uint32_t n_writes, n_bindings; // the first n_writes bindings are written
    uint32_t params_size;          // bytes of its parameter struct
    uint32_t n_spec;               // constants it declares beyond WGX, WGY, WGZ, plus 3
    const char *spec_names[16];    // "WGX", "WGY", "WGZ", then the kernel's own, by constant id
    uint32_t spec_defaults[16];
    const uint32_t *spirv, *spirv_dot; // without and with the SPV_KHR_integer_dot_product form; NULL: not built
    size_t spirv_bytes, spirv_dot_bytes;
    const char
        *opencl;   // complete OpenCL C text; its function is gyre_<name>, constants arrive as -DNAME=value. NULL: none
    uint64_t hash; // of the source text without comments and all it includes: the cache key
};

extern const struct gyre_kernel_source *const gyre_kernel_sources[];
extern const uint32_t gyre_kernel_source_count;

// NULL if there is no such kernel.
const struct gyre_kernel_source *gyre_kernel_source_find(const char *name);
const struct gyre_kernel_source *gyre_kernel_source_of(const char *op, uint32_t form);
