// The kernels as data: a table generated at build time from shaders/kernels.def and the .k files.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct gyre_kernel_source {
    const char *name;              // unique, the row's first column
    const char *op;                // the row of runtime/core/ops.def that it computes; GPU backends ignore it
    uint32_t n_writes, n_bindings; // the first n_writes bindings are written
    uint32_t params_size;          // bytes of its parameter struct
    uint32_t n_spec;               // constants it declares beyond WGX, WGY, WGZ, plus 3
    const char *spec_names[16];    // "WGX", "WGY", "WGZ", then the kernel's own, by constant id
    uint32_t spec_defaults[16];
    const uint32_t *spirv, *spirv_dot; // without and with the SPV_KHR_integer_dot_product form; NULL: not built
    size_t spirv_bytes, spirv_dot_bytes;
    const char *opencl; // complete OpenCL C text; its function is gyre_<name>, constants arrive as -DNAME=value
    uint64_t hash;      // of the source text without comments and all it includes: the cache key
};

extern const struct gyre_kernel_source *const gyre_kernel_sources[];
extern const uint32_t gyre_kernel_source_count;

// NULL if there is no such kernel.
const struct gyre_kernel_source *gyre_kernel_source_find(const char *name);
