// The ops by number: enum and facts, expanded from ops.def.
#pragma once
#include <stdint.h>

typedef enum gyre_op {
#define OP(name, outputs, inputs, params, lower, tune, grad) GYRE_OP_##name,
#include "runtime/core/ops.def"
#undef OP
    GYRE_OP_COUNT
} gyre_op;

// Operands as letters: see ops.def.
struct gyre_op_info {
    const char *name, *outputs, *inputs;
};

extern const struct gyre_op_info gyre_ops[GYRE_OP_COUNT];

// GYRE_OP_COUNT if there is no op of that name.
gyre_op gyre_op_find(const char *name);
