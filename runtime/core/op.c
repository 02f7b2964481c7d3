// See op.h.
#include "runtime/core/op.h"

#include <string.h>

const struct gyre_op_info gyre_ops[GYRE_OP_COUNT] = {
#define OP(name, outputs, inputs, params, lower, tune, grad) [GYRE_OP_##name] = {#name, outputs, inputs},
#include "runtime/core/ops.def"
#undef OP
};

gyre_op gyre_op_find(const char *name)
{
    gyre_op op = 0;
    while (op < GYRE_OP_COUNT && strcmp(gyre_ops[op].name, name)) op++;
    return op;
}
