// The CPU as a device whose kernels are the references of ref.h. A submission runs before it returns.
#include "backends/cpu/cpu.h"
#include "backends/host.h"
#include "runtime/core/op.h"
#include "runtime/util/clock.h"

#include <stdlib.h>
#include <string.h>

static gyre_cpu_function *const references[GYRE_OP_COUNT] = {
#define OP(name, outputs, inputs, params, lower, tune, grad) [GYRE_OP_##name] = gyre_ref_op_##name,
#include "runtime/core/ops.def"
#undef OP
};

struct cpu_kernel {
    gyre_kernel base;
    gyre_cpu_function *run;
};

static const char device_name[] = "C references in double precision";

static int cpu_probe(struct gyre_device_info *out, int cap, char why[160])
{
    (void)why;
    if (cap > 0) gyre_host_info(out, device_name);
    return 1;
}

static gyre_status cpu_open(int index, const struct gyre_device_options *options, gyre_device **out, gyre_error *err)
{
    (void)index, (void)options;
    return gyre_host_open(device_name, out, err);
}

gyre_status gyre_cpu_kernel_create(const struct gyre_kernel_source *source, gyre_cpu_function *run, gyre_kernel **out,
                                   gyre_error *err)
{
    const gyre_op op = gyre_op_find(source->op);
    if (op == GYRE_OP_COUNT)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot create kernel (%s): the cpu has no op called %s",
                         source->name, source->op);
    struct cpu_kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel) return gyre_fail(err, GYRE_E_NOMEM, "cannot create kernel (%s): out of memory", source->name);
    kernel->run = run ? run : references[op];
    *out = &kernel->base;
    return GYRE_OK;
}

static gyre_status cpu_kernel_create(gyre_device *device, const struct gyre_kernel_source *source,
                                     const struct gyre_kernel_params *params, gyre_kernel **out, gyre_error *err)
{
    (void)device, (void)params;
    return gyre_cpu_kernel_create(source, NULL, out, err);
}

static void cpu_kernel_destroy(gyre_device *device, gyre_kernel *kernel)
{
    (void)device;
    free(kernel);
}

static void run(const struct gyre_dispatch *d)
{
    const struct gyre_kernel *kernel = d->kernel;
    struct gyre_ref_args args = {
        .params = d->params,
        .source = kernel->source,
        .spec = kernel->params.spec,
        .n_spec = kernel->params.n_spec,
    };
    memcpy(args.groups, d->groups, sizeof args.groups);
    for (uint32_t i = 0; i < kernel->source->n_bindings; i++) {
        args.bind[i] = ((struct host_buffer *)d->bind[i].buffer)->data + d->bind[i].offset;
        args.size[i] = d->bind[i].size;
    }
    ((const struct cpu_kernel *)kernel)->run(&args);
}

static gyre_status cpu_submit(gyre_device *device, gyre_recording *recording, uint32_t times, uint64_t *ns,
                              gyre_error *err)
{
    (void)device, (void)err;
    const struct host_recording *r = (const struct host_recording *)recording;
    for (uint32_t t = 0; t < times; t++)
        for (uint32_t i = 0; i < r->base.n_dispatches; i++) {
            const uint64_t start = gyre_clock_ns();
            run(&r->dispatches[i]);
            if (ns) ns[i] = gyre_clock_ns() - start;
        }
    return GYRE_OK;
}

const struct gyre_backend gyre_backend_cpu = {
    .name = "cpu",
    .probe = cpu_probe,
    .open = cpu_open,
    .close = gyre_host_close,
    .buffer_create = gyre_host_buffer_create,
    .buffer_destroy = gyre_host_buffer_destroy,
    .buffer_write = gyre_host_buffer_write,
    .buffer_read = gyre_host_buffer_read,
    .kernel_create = cpu_kernel_create,
    .kernel_destroy = cpu_kernel_destroy,
    .record = gyre_host_record,
    .recording_destroy = gyre_host_recording_destroy,
    .submit = cpu_submit,
    .wait = gyre_host_wait,
};
