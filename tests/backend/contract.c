// See contract.h. The fixture, and the tests of devices as wholes: limits, counters, faults, leak reports.
#include "tests/backend/contract.h"
#include "tests/common/device.h"
#include "runtime/util/base.h"
#include "shaders/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct contract contract;

static void keep_line(void *user, gyre_log_level level, const char *line)
{
    struct contract *c = user;
    if (!strncmp(line, "vulkan validation:", 18)) c->n_validation++;
    if (!strncmp(line, "vulkan: no validation", 21) && device_required("validation")) c->n_validation++;
    if (level == GYRE_LOG_ERROR) {
        c->n_errors++;
        snprintf(c->last_error, sizeof c->last_error, "%s", line);
    }
    fprintf(stderr, "%s\n", line);
}

void contract_ok(gyre_status status, const gyre_error *err)
{
    if (status != GYRE_OK) fail_msg("%s: %s", gyre_status_text(status), err->message);
}

void contract_refused(gyre_status status, gyre_status want, const gyre_error *err)
{
    if (status != want)
        fail_msg("expected \"%s\", got \"%s\": %s", gyre_status_text(want), gyre_status_text(status), err->message);
    const size_t n = strlen(err->message);
    assert_int_equal(err->code, want);
    assert_true(n > 10 && n + 1 < sizeof err->message);
    assert_null(strchr(err->message, '\n'));
    assert_true(err->message[n - 1] != '.' && err->message[0] >= 'a' && err->message[0] <= 'z');
}

gyre_device *contract_open(const struct gyre_device_options *options)
{
    gyre_error err = {0};
    gyre_device *device;
    contract_ok(gyre_device_open(contract.id, options, &device, &err), &err);
    return device;
}

gyre_buffer *contract_buffer(gyre_device *device, uint64_t size)
{
    gyre_error err = {0};
    gyre_buffer *buffer;
    contract_ok(gyre_buffer_create(device, size, "test", &buffer, &err), &err);
    assert_int_equal(gyre_buffer_size(buffer), size);
    return buffer;
}

void contract_write(gyre_buffer *buffer, uint64_t offset, const void *data, uint64_t size)
{
    gyre_error err = {0};
    contract_ok(gyre_buffer_write(contract.device, buffer, offset, data, size, &err), &err);
}

void contract_read(gyre_buffer *buffer, uint64_t offset, void *data, uint64_t size)
{
    gyre_error err = {0};
    contract_ok(gyre_buffer_read(contract.device, buffer, offset, data, size, &err), &err);
}

gyre_kernel *contract_add_kernel(gyre_device *device)
{
    gyre_error err = {0};
    gyre_kernel *kernel;
    const struct gyre_kernel_params params = {.name = "add", .n_spec = 3, .spec = {64, 1, 1}};
    contract_ok(gyre_kernel_create(device, &params, &kernel, &err), &err);
    return kernel;
}

struct gyre_dispatch contract_add(gyre_kernel *kernel, struct contract_span y, struct contract_span a,
                                  struct contract_span b, uint32_t count)
{
    const uint64_t size = 4 * (uint64_t)count;
    const struct gyre_add_params params = {.count = (int32_t)count};
    struct gyre_dispatch d = {
        .kernel = kernel,
        .bind = {{y.buffer, y.offset, size}, {a.buffer, a.offset, size}, {b.buffer, b.offset, size}},
        .groups = {(uint32_t)gyre_div_up(count, 64), 1, 1},
    };
    memcpy(d.params, &params, sizeof params);
    return d;
}

// ---- devices ----------------------------------------------------------------------------------------

static void info_is_sensible(void **state)
{
    (void)state;
    const struct gyre_device_info *info = gyre_device_info(contract.device);
    assert_string_equal(info->id, contract.id);
    assert_true(info->name[0] && info->driver[0]);
    assert_true(info->memory_bytes >= 1 << 20);
    assert_true(info->max_buffer >= 1 << 20 && info->max_binding >= 1 << 20); // the standards promise 128 MiB
    assert_true(info->max_workgroup >= 128 && info->shared_bytes >= 16384);
    for (int d = 0; d < 3; d++) assert_true(info->max_group_size[d] >= 1 && info->max_groups[d] >= 65535);
    assert_true(info->max_group_size[0] >= 128);
    assert_true(info->subgroup_min <= info->subgroup_max);
}

static void destroy_accepts_null(void **state)
{
    (void)state;
    gyre_buffer_destroy(contract.device, NULL);
    gyre_kernel_destroy(contract.device, NULL);
    gyre_recording_destroy(contract.device, NULL);
    gyre_device_close(NULL);
}

static void tiny_limits_are_honoured(void **state)
{
    (void)state;
    struct gyre_device_options options = contract.options;
    options.limit_binding = 1024;
    options.limit_buffer = 8192;
    gyre_device *device = contract_open(&options);
    gyre_error err = {0};
    gyre_buffer *buffer;
    gyre_recording *recording;
    assert_int_equal(gyre_device_info(device)->max_binding, 1024);
    assert_int_equal(gyre_device_info(device)->max_buffer, 8192);
    contract_refused(gyre_buffer_create(device, 8193, "large", &buffer, &err), GYRE_E_DEVICE_MEM, &err);
    assert_null(buffer);
    buffer = contract_buffer(device, 8192);
    gyre_kernel *kernel = contract_add_kernel(device);
    struct gyre_dispatch d =
        contract_add(kernel, (struct contract_span){buffer, 0}, (struct contract_span){buffer, 2048},
                     (struct contract_span){buffer, 4096}, 257);
    contract_refused(gyre_recording_create(device, &d, 1, &recording, &err), GYRE_E_UNSUPPORTED, &err);
    assert_null(recording);
    d = contract_add(kernel, (struct contract_span){buffer, 0}, (struct contract_span){buffer, 2048},
                     (struct contract_span){buffer, 4096}, 256);
    contract_ok(gyre_run_once(device, &d, 1, &err), &err);
    gyre_kernel_destroy(device, kernel);
    gyre_buffer_destroy(device, buffer);
    gyre_device_close(device);

    options.limit_binding = options.limit_buffer = UINT64_MAX; // a limit never raises what the device can do
    device = contract_open(&options);
    assert_int_equal(gyre_device_info(device)->max_binding, gyre_device_info(contract.device)->max_binding);
    assert_int_equal(gyre_device_info(device)->max_buffer, gyre_device_info(contract.device)->max_buffer);
    gyre_device_close(device);
}

static void counters_count(void **state)
{
    (void)state;
    gyre_device *device = contract_open(&contract.options);
    gyre_error err = {0};
    gyre_buffer *buffer = contract_buffer(device, 1001);
    gyre_kernel *kernel = contract_add_kernel(device), *same = contract_add_kernel(device);
    gyre_recording *recording;
    struct gyre_dispatch d[2];
    for (int i = 0; i < 2; i++)
        d[i] = contract_add(kernel, (struct contract_span){buffer, 0}, (struct contract_span){buffer, 256},
                            (struct contract_span){buffer, 512}, 33);
    contract_ok(gyre_recording_create(device, d, 2, &recording, &err), &err);
    for (int i = 0; i < 3; i++) contract_ok(gyre_submit(device, recording, &err), &err);
    contract_ok(gyre_wait(device, &err), &err);
    struct gyre_device_counters c = gyre_device_counters(device);
    assert_int_equal(c.buffers, 1);
    assert_int_equal(c.bytes_live, 1001);
    assert_int_equal(c.kernels, 1);
    assert_ptr_equal(kernel, same);
    assert_int_equal(c.recordings, 1);
    assert_int_equal(c.submissions, 3);
    assert_int_equal(c.dispatches, 6);
    assert_int_equal(c.live_objects, 3);
    assert_int_equal(c.calls, 8);
    gyre_recording_destroy(device, recording);
    gyre_kernel_destroy(device, same);
    assert_int_equal(gyre_device_counters(device).live_objects, 2);
    gyre_kernel_destroy(device, kernel);
    gyre_buffer_destroy(device, buffer);
    c = gyre_device_counters(device);
    assert_int_equal(c.live_objects, 0);
    assert_int_equal(c.bytes_live, 0);
    gyre_device_close(device);
}

// One use of every fallible function; leaves nothing behind whatever fails.
static gyre_status use_everything(gyre_device *device, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    const struct gyre_kernel_params params = {.name = "add"};
    float x[65] = {1};
    uint64_t ns;
    gyre_buffer *buffer = NULL;
    gyre_kernel *kernel = NULL;
    gyre_recording *recording = NULL;
    GYRE_GO(gyre_buffer_create(device, 1024, "faulty", &buffer, err));
    GYRE_GO(gyre_buffer_write(device, buffer, 512, x, sizeof x, err));
    GYRE_GO(gyre_kernel_create(device, &params, &kernel, err));
    const struct gyre_dispatch d =
        contract_add(kernel, (struct contract_span){buffer, 0}, (struct contract_span){buffer, 512},
                     (struct contract_span){buffer, 512}, 65);
    GYRE_GO(gyre_recording_create(device, &d, 1, &recording, err));
    GYRE_GO(gyre_submit(device, recording, err));
    GYRE_GO(gyre_wait(device, err));
    GYRE_GO(gyre_profile(device, recording, &ns, err));
    GYRE_GO(gyre_run_once(device, &d, 1, err));
    GYRE_GO(gyre_buffer_read(device, buffer, 0, x, sizeof x, err));
done:
    gyre_recording_destroy(device, recording);
    gyre_kernel_destroy(device, kernel);
    gyre_buffer_destroy(device, buffer);
    return st;
}

static void nth_call_fails_cleanly(void **state)
{
    (void)state;
    gyre_error err = {0};
    gyre_device *device = contract_open(&contract.options);
    contract_ok(use_everything(device, &err), &err);
    const uint64_t calls = gyre_device_counters(device).calls;
    gyre_device_close(device);
    assert_true(calls >= 11);

    const int errors = contract.n_errors;
    for (uint64_t n = 1; n <= calls + 1; n++) {
        struct gyre_device_options options = contract.options;
        options.fail_call = n;
        device = contract_open(&options);
        const gyre_status st = use_everything(device, &err);
        if (n <= calls) contract_refused(st, GYRE_E_DEVICE, &err);
        else contract_ok(st, &err);
        assert_int_equal(gyre_device_counters(device).live_objects, 0);
        gyre_device_close(device);
    }
    assert_int_equal(contract.n_errors, errors);
}

static void leaks_are_reported(void **state)
{
    (void)state;
    static gyre_buffer *leaked; // static: still reachable for leak checkers
    gyre_error err = {0};
    gyre_device *device;
    const int errors = contract.n_errors;
    contract_ok(gyre_device_open("null", &contract.options, &device, &err), &err);
    contract_ok(gyre_buffer_create(device, 77, "forgotten", &leaked, &err), &err);
    gyre_device_close(device);
    assert_true(contract.n_errors > errors);
    contract.n_errors = errors;
}

// ---- the program --------------------------------------------------------------------------------------

static void find_device(const char *backend)
{
    static struct gyre_device_info list[32];
    struct gyre_absent absent[8];
    int n_absent;
    const char *why = "it is not compiled in";
    snprintf(contract.id, sizeof contract.id, "%s", backend);
    if (!strcmp(backend, "null") || !strcmp(backend, "cpu")) return; // always there: no driver need be woken
    const int n = GYRE_MIN(gyre_devices_list(list, 32, absent, 8, &n_absent), 32);
    for (int i = 0; i < n; i++) {
        const size_t length = strlen(backend);
        if (strncmp(list[i].id, backend, length) || (list[i].id[length] && list[i].id[length] != ':')) continue;
        memcpy(contract.id, list[i].id, sizeof contract.id);
        return;
    }
    for (int i = 0; i < GYRE_MIN(n_absent, 8); i++)
        if (!strcmp(absent[i].backend, backend)) why = absent[i].why;
    fprintf(stderr, "%s: no device of %s: %s\n", device_required(backend) ? "failed" : "skipped", backend, why);
    exit(device_required(backend) ? 1 : 77);
}

int contract_main(const char *backend)
{
    static const struct CMUnitTest device_tests[] = {
        cmocka_unit_test(info_is_sensible),         cmocka_unit_test(destroy_accepts_null),
        cmocka_unit_test(tiny_limits_are_honoured), cmocka_unit_test(counters_count),
        cmocka_unit_test(nth_call_fails_cleanly),   cmocka_unit_test(leaks_are_reported),
    };
    struct CMUnitTest tests[64];
    size_t n = 0;
    gyre_error err = {0};
    find_device(backend);
    contract.log = (gyre_log){keep_line, &contract, GYRE_LOG_WARN};
    contract.computes = strcmp(backend, "null") != 0;
    contract.options.log = &contract.log;
    contract.options.validate = true;
    if (gyre_device_open(contract.id, &contract.options, &contract.device, &err) != GYRE_OK) {
        fprintf(stderr, "cannot open %s: %s\n", contract.id, err.message);
        return 1;
    }
    for (size_t i = 0; i < contract_memory_count; i++) tests[n++] = contract_memory_tests[i];
    for (size_t i = 0; i < contract_work_count; i++) tests[n++] = contract_work_tests[i];
    for (size_t i = 0; i < GYRE_COUNT(device_tests); i++) tests[n++] = device_tests[i];
    // cmocka's macro counts an array's elements; this one is shorter than its array.
    const int failed = _cmocka_run_group_tests(backend, tests, n, NULL, NULL);
    gyre_device_close(contract.device); // reports what tests left behind, and lets validation have its last word
    if (contract.n_errors || contract.n_validation)
        fprintf(stderr, "failed: %d errors, %d validation messages in the log\n", contract.n_errors,
                contract.n_validation);
    return failed || contract.n_errors || contract.n_validation;
}
