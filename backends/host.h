// What the devices without a driver (cpu, null) share: buffers in host memory and recordings that are
// copies of their dispatches. The functions fit the table of struct gyre_backend.
#pragma once
#include "backends/backend.h"

struct host_buffer {
    gyre_buffer base;
    unsigned char *data;
}; // aligned to GYRE_BIND_ALIGN
struct host_recording {
    gyre_recording base;
    struct gyre_dispatch dispatches[];
};

// Name, driver and limits that no reasonable request meets; memory is the machine's.
void gyre_host_info(struct gyre_device_info *info, const char *name);
gyre_status gyre_host_open(const char *name, gyre_device **out, gyre_error *err);
void gyre_host_close(gyre_device *device);
gyre_status gyre_host_buffer_create(gyre_device *device, uint64_t size, const char *label, gyre_buffer **out,
                                    gyre_error *err);
void gyre_host_buffer_destroy(gyre_device *device, gyre_buffer *buffer);
gyre_status gyre_host_buffer_write(gyre_device *device, gyre_buffer *buffer, uint64_t offset, const void *source,
                                   uint64_t size, gyre_error *err);
gyre_status gyre_host_buffer_read(gyre_device *device, gyre_buffer *buffer, uint64_t offset, void *target,
                                  uint64_t size, gyre_error *err);
gyre_status gyre_host_record(gyre_device *device, const struct gyre_dispatch *dispatches, uint32_t n,
                             gyre_recording **out, gyre_error *err);
void gyre_host_recording_destroy(gyre_device *device, gyre_recording *recording);
gyre_status gyre_host_wait(gyre_device *device, gyre_error *err);
