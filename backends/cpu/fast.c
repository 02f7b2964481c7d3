// See fast.h.
#include "backends/cpu/fast.h"
#include "backends/cpu/cpu.h"
#include "backends/cpu/fast_parts.h"
#include "backends/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fast_device {
    gyre_device base;
    struct gyre_backend backend; // the cpu's, but for its name and kernels
};

// By op; every variant of its kernels is the same function.
static const struct override {
    const char *op;
    gyre_cpu_function *run;
} overrides[] = {
    {"matmul", gyre_fast_matmul},
    {"quant_matmul", gyre_fast_quant_matmul},
    {"rms_norm", gyre_fast_rms_norm},
    {"rms_norm_quant", gyre_fast_rms_norm_quant},
    {"quantize", gyre_fast_quantize},
    {"hadamard", gyre_fast_hadamard},
    {"act_mul", gyre_fast_act_mul},
    {"act_mul_quant", gyre_fast_act_mul_quant},
    {"rms_norm_had", gyre_fast_rms_norm_had},
    {"rms_norm_had_quant", gyre_fast_rms_norm_had_quant},
    {"act_mul_had", gyre_fast_act_mul_had},
    {"act_mul_had_quant", gyre_fast_act_mul_had_quant},
    {"rope_kv", gyre_fast_rope_kv},
    {"rope_had_kv", gyre_fast_rope_had_kv},
    {"attn", gyre_fast_attn},
    {"repack", gyre_fast_repack},
};

static gyre_status fast_kernel_create(gyre_device *device, const struct gyre_kernel_source *source,
                                      const struct gyre_kernel_params *params, gyre_kernel **out, gyre_error *err)
{
    (void)device, (void)params;
    gyre_cpu_function *run = NULL;
    for (size_t i = 0; i < GYRE_COUNT(overrides); i++)
        if (!strcmp(source->op, overrides[i].op)) run = overrides[i].run;
    return gyre_cpu_kernel_create(source, run, out, err);
}

gyre_status gyre_fast_device_create(const struct gyre_device_options *options, gyre_device **out, gyre_error *err)
{
    struct fast_device *d = calloc(1, sizeof *d);
    *out = NULL;
    if (!d) return gyre_fail(err, GYRE_E_NOMEM, "cannot open device (host): out of memory");
    gyre_host_info(&d->base.info, "BLAS and OpenMP");
    snprintf(d->base.info.id, sizeof d->base.info.id, "host");
    if (options) d->base.options.log = options->log;
    d->backend = gyre_backend_cpu;
    d->backend.name = "host";
    d->backend.kernel_create = fast_kernel_create;
    d->base.backend = &d->backend;
    *out = &d->base;
    return GYRE_OK;
}
