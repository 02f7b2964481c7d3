// References of the ops that work element by element.
#include "backends/cpu/ref.h"
#include "shaders/params.h"

// y = a + b, in f32 as every device does it.
void gyre_ref_op_add(const struct gyre_ref_args *args)
{
    const struct gyre_add_params *p = args->params;
    float *y = args->bind[0];
    const float *a = args->bind[1], *b = args->bind[2];
    for (int32_t i = 0; i < p->count; i++) y[i] = a[i] + b[i];
}
