// What only the OpenCL backend does when it records and replays: bindings inside one buffer, command buffers that must
// equal plain enqueues, and the ring of staged writes. The contract itself is tested in tests/backend.
#include "backends/opencl/ocl.h"
#include "runtime/util/base.h"
#include "shaders/params.h"
#include "tests/common/device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { COUNT = 333, SLICE = 2048 }; // floats in a slice, bytes between slices

static gyre_device *device;
static gyre_error err;

#define OK(call) assert_int_equal((call), GYRE_OK)

static int setup(void **state)
{
    (void)state;
    return gyre_device_open("opencl:0", NULL, &device, &err) == GYRE_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    gyre_device_close(device);
    return 0;
}

static struct gyre_binding slice(gyre_buffer *buffer, uint64_t i)
{
    return (struct gyre_binding){buffer, i * SLICE, COUNT * 4};
}

// slice y = slice a + slice b
static struct gyre_dispatch add(gyre_kernel *kernel, gyre_buffer *buffer, uint64_t y, uint64_t a, uint64_t b)
{
    struct gyre_dispatch d = {.kernel = kernel, .groups = {(COUNT + 63) / 64, 1, 1}};
    const struct gyre_add_params params = {.count = COUNT};
    d.bind[0] = slice(buffer, y);
    d.bind[1] = slice(buffer, a);
    d.bind[2] = slice(buffer, b);
    memcpy(d.params, &params, sizeof params);
    return d;
}

// Doubling three times over: s1 = s0+s0, s2 = s1+s1, s0 = s2+s1 (= 6 s0); each replay multiplies slice 0 by 6.
static void make_recording(gyre_kernel *kernel, gyre_buffer *buffer, gyre_recording **out)
{
    const struct gyre_dispatch list[] = {add(kernel, buffer, 1, 0, 0), add(kernel, buffer, 2, 1, 1),
                                         add(kernel, buffer, 0, 2, 1)};
    OK(gyre_recording_create(device, list, 3, out, &err));
}

static void run_replays(bool commands, float result[COUNT])
{
    struct ocl_device *const d = (struct ocl_device *)device;
    const struct gyre_kernel_params params = {.name = "add", .n_spec = 3, .spec = {64, 1, 1}};
    const bool before = d->use_commands;
    gyre_kernel *kernel;
    gyre_buffer *buffer;
    gyre_recording *recording;
    float start[COUNT];
    for (int i = 0; i < COUNT; i++) start[i] = (float)i - 100.25f;
    d->use_commands = commands;
    OK(gyre_kernel_create(device, &params, &kernel, &err));
    OK(gyre_buffer_create(device, 3 * SLICE, "slices", &buffer, &err));
    OK(gyre_buffer_write(device, buffer, 0, start, sizeof start, &err));
    make_recording(kernel, buffer, &recording);
    const struct ocl_recording *const r = (struct ocl_recording *)recording;
    assert_int_equal(r->commands != NULL, commands);
    for (int i = 0; i < 5; i++) OK(gyre_submit(device, recording, &err)); // all in flight at once
    OK(gyre_buffer_read(device, buffer, 0, result, sizeof start, &err));
    uint64_t ns[3] = {0, 0, 0};
    OK(gyre_profile(device, recording, ns, &err));
    assert_true(ns[0] > 0 && ns[1] > 0 && ns[2] > 0);
    gyre_recording_destroy(device, recording);
    gyre_buffer_destroy(device, buffer);
    gyre_kernel_destroy(device, kernel);
    d->use_commands = before;
}

static void plain_replays_in_order(void **state)
{
    (void)state;
    float result[COUNT];
    run_replays(false, result);
    for (int i = 0; i < COUNT; i++) assert_float_equal(result[i], ((float)i - 100.25f) * 7776.0f, 0.0);
}

static void command_buffers_equal_plain(void **state)
{
    (void)state;
    float plain[COUNT], recorded[COUNT];
    if (!((struct ocl_device *)device)->commands.create) skip();
    run_replays(false, plain);
    run_replays(true, recorded);
    assert_memory_equal(plain, recorded, sizeof plain);
}

// More small writes than the ring has slots, each of another odd size, over one another; none may be lost or late.
static void staged_writes_keep_order(void **state)
{
    (void)state;
    enum { BYTES = 4099, WRITES = 5 * OCL_STAGES };
    unsigned char want[BYTES] = {0}, got[BYTES], piece[OCL_STAGE_BYTES + 1];
    gyre_buffer *buffer;
    OK(gyre_buffer_create(device, BYTES, "staged", &buffer, &err));
    OK(gyre_buffer_write(device, buffer, 0, want, BYTES, &err));
    for (uint32_t i = 0; i < WRITES; i++) {
        const uint32_t offset = i * 37 % 1021, size = GYRE_MIN(BYTES - offset, i * i * 3 + 1);
        const uint32_t bytes = GYRE_MIN(size, (uint32_t)sizeof piece); // the last ones just above a slot
        memset(piece, (int)(i + 1), bytes);
        memset(want + offset, (int)(i + 1), bytes);
        OK(gyre_buffer_write(device, buffer, offset, piece, bytes, &err));
        memset(piece, 0xEE, bytes); // ours again as soon as write has returned
    }
    OK(gyre_buffer_read(device, buffer, 0, got, BYTES, &err));
    assert_memory_equal(want, got, BYTES);
    gyre_buffer_destroy(device, buffer);
}

// A size that no memory can hold fails at creation, not at first use, and leaves the device usable.
static void allocation_failure_is_device_memory(void **state)
{
    (void)state;
    gyre_buffer *buffer = NULL;
    assert_int_equal(device->backend->buffer_create(device, UINT64_C(1) << 60, "huge", &buffer, &err),
                     GYRE_E_DEVICE_MEM);
    assert_null(buffer);
    assert_non_null(strstr(err.message, "huge"));
    assert_null(strchr(err.message, '\n'));
    OK(gyre_wait(device, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_replays_in_order),
        cmocka_unit_test(command_buffers_equal_plain),
        cmocka_unit_test(staged_writes_keep_order),
        cmocka_unit_test(allocation_failure_is_device_memory),
    };
    const int missing = device_probe("opencl:0");
    if (missing) return missing;
    return cmocka_run_group_tests(tests, setup, teardown);
}
