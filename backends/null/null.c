// See null.h.
#include "backends/null/null.h"
#include "backends/host.h"
#include "backends/kernel_source.h"

#include <stdlib.h>
#include <string.h>

static const char device_name[] = "records, computes nothing";

static int null_probe(struct gyre_device_info *out, int cap, char why[160])
{
    (void)why;
    if (cap > 0) gyre_host_info(out, device_name);
    return 1;
}

static gyre_status null_open(int index, const struct gyre_device_options *options, gyre_device **out, gyre_error *err)
{
    (void)index, (void)options;
    return gyre_host_open(device_name, out, err);
}

static gyre_status null_kernel_create(gyre_device *device, const struct gyre_kernel_source *source,
                                      const struct gyre_kernel_params *params, gyre_kernel **out, gyre_error *err)
{
    (void)device, (void)params;
    *out = calloc(1, sizeof **out);
    if (*out) return GYRE_OK;
    return gyre_fail(err, GYRE_E_NOMEM, "cannot create kernel (%s): out of memory", source->name);
}

static void null_kernel_destroy(gyre_device *device, gyre_kernel *kernel)
{
    (void)device;
    free(kernel);
}

static gyre_status null_submit(gyre_device *device, gyre_recording *recording, uint32_t times, uint64_t *ns,
                               gyre_error *err)
{
    (void)device, (void)times, (void)err;
    if (ns) memset(ns, 0, recording->n_dispatches * sizeof *ns);
    return GYRE_OK;
}

const struct gyre_dispatch *gyre_null_dispatches(const gyre_recording *recording)
{
    return ((const struct host_recording *)recording)->dispatches;
}

const struct gyre_backend gyre_backend_null = {
    .name = "null",
    .probe = null_probe,
    .open = null_open,
    .close = gyre_host_close,
    .buffer_create = gyre_host_buffer_create,
    .buffer_destroy = gyre_host_buffer_destroy,
    .buffer_write = gyre_host_buffer_write,
    .buffer_read = gyre_host_buffer_read,
    .kernel_create = null_kernel_create,
    .kernel_destroy = null_kernel_destroy,
    .record = gyre_host_record,
    .recording_destroy = gyre_host_recording_destroy,
    .submit = null_submit,
    .wait = gyre_host_wait,
};
