// Record, replay, profile. A recording is a list of kernel objects with every argument set: a replay is one enqueue
// per dispatch and no host work besides. The queue is in order, so dependencies need no barriers here.
#include "backends/opencl/ocl.h"

#include <stdlib.h>
#include <string.h>

// Makes the kernel object of one dispatch. Its arguments: the buffers, where in them the bindings begin, the
// parameters.
static cl_int make_launch(struct ocl_launch *launch, const struct gyre_dispatch *dispatch)
{
    const struct ocl_kernel *const k = ocl_kernel_of(dispatch->kernel);
    const struct gyre_kernel_source *const source = k->base.source;
    cl_ulong at[GYRE_MAX_BINDINGS] = {0};
    _Static_assert(GYRE_MAX_BINDINGS == 12, "gyre_at_t of shaders/dialect.h");
    cl_int code;
    launch->kernel = gyre_ocl.CreateKernel(k->program, k->entry, &code);
    for (uint32_t b = 0; b < source->n_bindings && code == CL_SUCCESS; b++) {
        code =
            gyre_ocl.SetKernelArg(launch->kernel, b, sizeof(cl_mem), &ocl_buffer_of(dispatch->bind[b].buffer)->memory);
        at[b] = dispatch->bind[b].offset;
    }
    if (code == CL_SUCCESS) code = gyre_ocl.SetKernelArg(launch->kernel, source->n_bindings, sizeof at, at);
    if (code == CL_SUCCESS)
        code = gyre_ocl.SetKernelArg(launch->kernel, source->n_bindings + 1, source->params_size, dispatch->params);
    for (uint32_t i = 0; i < 3; i++) {
        launch->local[i] = k->base.params.spec[i];
        launch->global[i] = launch->local[i] * dispatch->groups[i];
    }
    return code;
}

// Hands the list to the driver. A driver that refuses keeps us on plain enqueues: both mean the same.
static void make_commands(struct ocl_device *d, struct ocl_recording *r)
{
    const cl_command_buffer_properties_khr properties[] = {CL_COMMAND_BUFFER_FLAGS_KHR,
                                                           CL_COMMAND_BUFFER_SIMULTANEOUS_USE_KHR, 0};
    cl_int code;
    cl_command_buffer_khr commands = d->commands.create(1, &d->queue, properties, &code);
    for (uint32_t i = 0; i < r->base.n_dispatches && code == CL_SUCCESS; i++) {
        const struct ocl_launch *const l = &r->launches[i];
        code = d->commands.launch(commands, NULL, NULL, l->kernel, 3, NULL, l->global, l->local, 0, NULL, NULL, NULL);
    }
    if (code == CL_SUCCESS) code = d->commands.finalize(commands);
    if (code == CL_SUCCESS) {
        r->commands = commands;
        return;
    }
    if (commands) (void)d->commands.release(commands);
    gyre_logf(d->base.options.log, GYRE_LOG_INFO, "opencl: no command buffer for a recording of %u: %s",
              r->base.n_dispatches, gyre_ocl_error_name(code));
}

gyre_status gyre_ocl_record(gyre_device *device, const struct gyre_dispatch *dispatches, uint32_t n,
                            gyre_recording **out, gyre_error *err)
{
    struct ocl_device *const d = ocl_device_of(device);
    gyre_status st = GYRE_OK;
    struct ocl_recording *const r = calloc(1, sizeof *r);
    if (r) r->base.n_dispatches = n;
    if (r) r->launches = calloc(n, sizeof *r->launches);
    if (!r || !r->launches) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot record %u dispatches (%s): out of host memory", n, device->info.id);
        goto done;
    }
    for (uint32_t i = 0; i < n && st == GYRE_OK; i++) {
        const cl_int code = make_launch(&r->launches[i], &dispatches[i]);
        if (code != CL_SUCCESS)
            st = gyre_ocl_fail(err, code, "cannot record kernel (%s)", dispatches[i].kernel->source->name);
    }
    if (st == GYRE_OK && d->use_commands && d->commands.create) make_commands(d, r);
done:
    if (st == GYRE_OK) *out = &r->base;
    else gyre_ocl_recording_destroy(device, r ? &r->base : NULL);
    return st;
}

void gyre_ocl_recording_destroy(gyre_device *device, gyre_recording *recording)
{
    struct ocl_recording *const r = ocl_recording_of(recording);
    if (!r) return;
    if (r->commands) {
        (void)gyre_ocl.Finish(ocl_device_of(device)->queue); // the extension does not say that a queued one is kept
        (void)ocl_device_of(device)->commands.release(r->commands);
    }
    for (uint32_t i = 0; r->launches && i < r->base.n_dispatches; i++)
        if (r->launches[i].kernel) (void)gyre_ocl.ReleaseKernel(r->launches[i].kernel);
    free(r->launches);
    free(r);
}

// Queues the list; `events`, when given, gets one event per dispatch.
static cl_int enqueue(cl_command_queue queue, const struct ocl_recording *r, cl_event *events)
{
    for (uint32_t i = 0; i < r->base.n_dispatches; i++) {
        const struct ocl_launch *const l = &r->launches[i];
        const cl_int code = gyre_ocl.EnqueueNDRangeKernel(queue, l->kernel, 3, NULL, l->global, l->local, 0, NULL,
                                                          events ? &events[i] : NULL);
        if (code != CL_SUCCESS) return code;
    }
    return CL_SUCCESS;
}

// Timestamps slow some drivers down, so they have a queue of their own that exists only for whoever asks.
static gyre_status profile(struct ocl_device *d, const struct ocl_recording *r, uint64_t *ns, gyre_error *err)
{
    cl_int code = CL_SUCCESS;
    if (!d->profile_queue)
        d->profile_queue = gyre_ocl.CreateCommandQueue(d->context, d->id, CL_QUEUE_PROFILING_ENABLE, &code);
    if (code != CL_SUCCESS) return gyre_ocl_fail(err, code, "cannot profile (%s)", d->base.info.id);
    cl_event *const events = calloc(r->base.n_dispatches, sizeof *events);
    if (!events) return gyre_fail(err, GYRE_E_NOMEM, "cannot profile (%s): out of host memory", d->base.info.id);
    code = gyre_ocl.Finish(d->queue);
    if (code == CL_SUCCESS) code = enqueue(d->profile_queue, r, events);
    const cl_int finished = gyre_ocl.Finish(d->profile_queue);
    if (code == CL_SUCCESS) code = finished;
    for (uint32_t i = 0; i < r->base.n_dispatches; i++) {
        cl_ulong begin = 0, end = 0;
        ns[i] = 0;
        if (!events[i]) continue;
        if (gyre_ocl.GetEventProfilingInfo(events[i], CL_PROFILING_COMMAND_START, sizeof begin, &begin, NULL) ==
                CL_SUCCESS &&
            gyre_ocl.GetEventProfilingInfo(events[i], CL_PROFILING_COMMAND_END, sizeof end, &end, NULL) == CL_SUCCESS)
            ns[i] = end - begin;
        (void)gyre_ocl.ReleaseEvent(events[i]);
    }
    free(events);
    return code == CL_SUCCESS ? GYRE_OK : gyre_ocl_fail(err, code, "cannot profile (%s)", d->base.info.id);
}

gyre_status gyre_ocl_submit(gyre_device *device, gyre_recording *recording, uint32_t times, uint64_t *ns,
                            gyre_error *err)
{
    struct ocl_device *const d = ocl_device_of(device);
    struct ocl_recording *const r = ocl_recording_of(recording);
    if (ns) return profile(d, r, ns, err);
    cl_int code = CL_SUCCESS;
    for (uint32_t t = 0; t < times && code == CL_SUCCESS; t++) {
        code = r->commands ? d->commands.enqueue(0, NULL, r->commands, 0, NULL, NULL) : enqueue(d->queue, r, NULL);
        if (code == CL_SUCCESS && ((t + 1) % r->base.at_once == 0 || t + 1 == times)) code = gyre_ocl.Flush(d->queue);
    }
    if (code == CL_SUCCESS) return GYRE_OK;
    return gyre_ocl_fail(err, code, "cannot run %u dispatches (%s)", r->base.n_dispatches, device->info.id);
}

gyre_status gyre_ocl_wait(gyre_device *device, gyre_error *err)
{
    const cl_int code = gyre_ocl.Finish(ocl_device_of(device)->queue);
    return code == CL_SUCCESS ? GYRE_OK : gyre_ocl_fail(err, code, "cannot finish queued work (%s)", device->info.id);
}
