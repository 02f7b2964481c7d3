// Device memory: whole buffers, reads and writes in queue order.
#include "backends/opencl/ocl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

gyre_status gyre_ocl_buffer_create(gyre_device *device, uint64_t size, const char *label, gyre_buffer **out,
                                   gyre_error *err)
{
    struct ocl_device *const d = ocl_device_of(device);
    struct ocl_buffer *const b = calloc(1, sizeof *b);
    if (!b) return gyre_fail(err, GYRE_E_NOMEM, "cannot create buffer (%s): out of host memory", label);
    b->base.size = size;
    snprintf(b->base.label, sizeof b->base.label, "%s", label ? label : "");
    cl_int code;
    b->memory = gyre_ocl.CreateBuffer(d->context, CL_MEM_READ_WRITE, size, NULL, &code);
    // Drivers may put the allocation off until first use, where a failure would hit an innocent launch: ask for it now.
    if (code == CL_SUCCESS)
        code = gyre_ocl.EnqueueMigrateMemObjects(d->queue, 1, &b->memory, CL_MIGRATE_MEM_OBJECT_CONTENT_UNDEFINED, 0,
                                                 NULL, NULL);
    if (code != CL_SUCCESS) {
        const gyre_status st =
            gyre_ocl_fail(err, code, "cannot create buffer (%s, %llu bytes)", b->base.label, (unsigned long long)size);
        gyre_ocl_buffer_destroy(device, &b->base);
        return st;
    }
    *out = &b->base;
    return GYRE_OK;
}

void gyre_ocl_buffer_destroy(gyre_device *device, gyre_buffer *buffer)
{
    (void)device;
    struct ocl_buffer *const b = ocl_buffer_of(buffer);
    if (!b) return;
    if (b->memory) (void)gyre_ocl.ReleaseMemObject(b->memory); // the driver keeps it while queued work uses it
    free(b);
}

// Copies `source` into the next slot of the ring and queues the write; waits only when the ring has come round to a
// slot whose write is still queued.
static cl_int write_staged(struct ocl_device *d, struct ocl_buffer *b, size_t offset, const void *source, size_t size)
{
    struct ocl_stage *const stage = &d->stages[d->next_stage++ % OCL_STAGES];
    if (stage->done) {
        const cl_int code = gyre_ocl.WaitForEvents(1, &stage->done);
        (void)gyre_ocl.ReleaseEvent(stage->done);
        stage->done = NULL;
        if (code != CL_SUCCESS) return code;
    }
    memcpy(stage->bytes, source, size);
    return gyre_ocl.EnqueueWriteBuffer(d->queue, b->memory, CL_FALSE, offset, size, stage->bytes, 0, NULL,
                                       &stage->done);
}

gyre_status gyre_ocl_buffer_write(gyre_device *device, gyre_buffer *buffer, uint64_t offset, const void *source,
                                  uint64_t size, gyre_error *err)
{
    struct ocl_device *const d = ocl_device_of(device);
    struct ocl_buffer *const b = ocl_buffer_of(buffer);
    const cl_int code = size <= OCL_STAGE_BYTES ? write_staged(d, b, offset, source, size)
                                                : gyre_ocl.EnqueueWriteBuffer(d->queue, b->memory, CL_TRUE, offset,
                                                                              size, source, 0, NULL, NULL);
    if (code == CL_SUCCESS) return GYRE_OK;
    return gyre_ocl_fail(err, code, "cannot write buffer (%s, %llu bytes at %llu)", b->base.label,
                         (unsigned long long)size, (unsigned long long)offset);
}

gyre_status gyre_ocl_buffer_read(gyre_device *device, gyre_buffer *buffer, uint64_t offset, void *target, uint64_t size,
                                 gyre_error *err)
{
    struct ocl_buffer *const b = ocl_buffer_of(buffer);
    const cl_int code = gyre_ocl.EnqueueReadBuffer(ocl_device_of(device)->queue, b->memory, CL_TRUE, offset, size,
                                                   target, 0, NULL, NULL);
    if (code == CL_SUCCESS) return GYRE_OK;
    return gyre_ocl_fail(err, code, "cannot read buffer (%s, %llu bytes at %llu)", b->base.label,
                         (unsigned long long)size, (unsigned long long)offset);
}
