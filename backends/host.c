// See host.h.
#include "backends/host.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void gyre_host_info(struct gyre_device_info *info, const char *name)
{
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    const uint64_t memory = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    *info = (struct gyre_device_info){
        .software = true,
        .unified = true,
        .lanes = GYRE_LANES_SIMD, // kernels are chosen as for lavapipe
        .memory_bytes = memory,
        .max_buffer = UINT64_MAX / 4,
        .max_binding = UINT64_MAX / 4,
        .max_workgroup = 1024,
        .max_group_size = {1024, 1024, 1024},
        .max_groups = {INT32_MAX, INT32_MAX, INT32_MAX},
        .shared_bytes = 64 << 10, // so that kernels are chosen as for a GPU
    };
    snprintf(info->name, sizeof info->name, "%s", name);
    snprintf(info->driver, sizeof info->driver, "gyre");
}

gyre_status gyre_host_open(const char *name, gyre_device **out, gyre_error *err)
{
    gyre_device *device = calloc(1, sizeof *device);
    if (!device) return gyre_fail(err, GYRE_E_NOMEM, "cannot open device (%s): out of memory", name);
    gyre_host_info(&device->info, name);
    *out = device;
    return GYRE_OK;
}

void gyre_host_close(gyre_device *device) { free(device); }

gyre_status gyre_host_buffer_create(gyre_device *device, uint64_t size, const char *label, gyre_buffer **out,
                                    gyre_error *err)
{
    (void)device;
    struct host_buffer *buffer = calloc(1, sizeof *buffer);
    if (buffer) buffer->data = aligned_alloc(GYRE_BIND_ALIGN, (size_t)gyre_round_up(size, GYRE_BIND_ALIGN));
    if (!buffer || !buffer->data) {
        free(buffer);
        return gyre_fail(err, GYRE_E_DEVICE_MEM, "cannot create buffer (%s): out of memory for %llu bytes", label,
                         (unsigned long long)size);
    }
    *out = &buffer->base;
    return GYRE_OK;
}

void gyre_host_buffer_destroy(gyre_device *device, gyre_buffer *buffer)
{
    (void)device;
    free(((struct host_buffer *)buffer)->data);
    free(buffer);
}

gyre_status gyre_host_buffer_write(gyre_device *device, gyre_buffer *buffer, uint64_t offset, const void *source,
                                   uint64_t size, gyre_error *err)
{
    (void)device, (void)err;
    memcpy(((struct host_buffer *)buffer)->data + offset, source, size);
    return GYRE_OK;
}

gyre_status gyre_host_buffer_read(gyre_device *device, gyre_buffer *buffer, uint64_t offset, void *target,
                                  uint64_t size, gyre_error *err)
{
    (void)device, (void)err;
    memcpy(target, ((struct host_buffer *)buffer)->data + offset, size);
    return GYRE_OK;
}

gyre_status gyre_host_record(gyre_device *device, const struct gyre_dispatch *dispatches, uint32_t n,
                             gyre_recording **out, gyre_error *err)
{
    (void)device;
    struct host_recording *recording = malloc(sizeof *recording + n * sizeof *dispatches);
    if (!recording) return gyre_fail(err, GYRE_E_NOMEM, "cannot record %u dispatches: out of memory", n);
    recording->base = (gyre_recording){0};
    memcpy(recording->dispatches, dispatches, n * sizeof *dispatches);
    *out = &recording->base;
    return GYRE_OK;
}

void gyre_host_recording_destroy(gyre_device *device, gyre_recording *recording)
{
    (void)device;
    free(recording);
}

gyre_status gyre_host_wait(gyre_device *device, gyre_error *err)
{
    (void)device, (void)err;
    return GYRE_OK;
}
