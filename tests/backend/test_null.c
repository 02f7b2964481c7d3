// The null device keeps what was recorded, word for word, and computes nothing.
#include "backends/null/null.h"
#include "tests/backend/contract.h"

#include <string.h>

static void keeps_dispatches(void **state)
{
    (void)state;
    gyre_error err = {0};
    gyre_device *device;
    gyre_recording *recording;
    contract_ok(gyre_device_open("null", NULL, &device, &err), &err);
    gyre_kernel *kernel = contract_add_kernel(device);
    gyre_buffer *buffer = contract_buffer(device, 4096);
    struct gyre_dispatch d[3], copy[3];
    for (uint32_t i = 0; i < 3; i++)
        d[i] = contract_add(kernel, (struct contract_span){buffer, 1024 * i}, (struct contract_span){buffer, 3072},
                            (struct contract_span){buffer, 3072}, 1 + i * 127);
    memcpy(copy, d, sizeof d);
    const float before[2] = {1, 2};
    contract_ok(gyre_buffer_write(device, buffer, 0, before, sizeof before, &err), &err);
    contract_ok(gyre_recording_create(device, d, 3, &recording, &err), &err);
    memset(d, 0, sizeof d);
    contract_ok(gyre_submit(device, recording, &err), &err);
    assert_int_equal(recording->n_dispatches, 3);
    assert_memory_equal(gyre_null_dispatches(recording), copy, sizeof copy);
    float after[2];
    contract_ok(gyre_buffer_read(device, buffer, 0, after, sizeof after, &err), &err);
    assert_memory_equal(after, before, sizeof after);
    gyre_recording_destroy(device, recording);
    gyre_buffer_destroy(device, buffer);
    gyre_kernel_destroy(device, kernel);
    gyre_device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(keeps_dispatches)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
