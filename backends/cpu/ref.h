// The references: one C function per row of runtime/core/ops.def, in double where a float kernel rounds.
// They are the definition of every op and the oracle of every test, so they are written to be read.
//
// A reference computes the whole dispatch. It tells variants apart by source->form, params and spec and
// must not depend on `groups` or on the workgroup size.
#pragma once
#include "backends/backend.h"
#include "backends/kernel_source.h"

#include <string.h>

struct gyre_ref_args {
    void *bind[GYRE_MAX_BINDINGS];    // in the order of the row in shaders/kernels.def, outputs first
    uint64_t size[GYRE_MAX_BINDINGS]; // bytes
    const void *params;               // the op's struct of shaders/params.h
    uint32_t groups[3];
    const struct gyre_kernel_source *source;
    const uint32_t *spec; // by constant id; complete
    uint32_t n_spec;
};

// A constant of the kernel by its name; 0 where it has none of that name.
static inline uint32_t gyre_ref_constant(const struct gyre_ref_args *args, const char *name)
{
    for (uint32_t i = 0; i < args->n_spec; i++)
        if (!strcmp(args->source->spec_names[i], name)) return args->spec[i];
    return 0;
}

#define OP(name, outputs, inputs, params, lower, tune, grad) void gyre_ref_op_##name(const struct gyre_ref_args *args);
#include "runtime/core/ops.def"
#undef OP
