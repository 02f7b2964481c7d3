// Contract: kernels, recordings, hazards between dispatches, replays. The kernel is `add`, whose results on
// small integers are exact, so every comparison is for equality.
#include "runtime/util/base.h"
#include "tests/backend/contract.h"

#include <stdlib.h>
#include <string.h>

#define AT(buffer, offset) ((struct contract_span){buffer, offset})

// A buffer of `count` floats, all `value`.
static gyre_buffer *filled(uint32_t count, float value)
{
    float *data = malloc(count * sizeof *data);
    assert_non_null(data);
    for (uint32_t i = 0; i < count; i++) data[i] = value;
    gyre_buffer *buffer = contract_buffer(contract.device, count * sizeof *data);
    contract_write(buffer, 0, data, count * sizeof *data);
    free(data);
    return buffer;
}

static void fill(gyre_buffer *buffer, float value)
{
    const size_t count = gyre_buffer_size(buffer) / sizeof value;
    float *data = malloc(count * sizeof *data);
    assert_non_null(data);
    for (size_t i = 0; i < count; i++) data[i] = value;
    contract_write(buffer, 0, data, count * sizeof *data);
    free(data);
}

static void expect_all(gyre_buffer *buffer, float value)
{
    const size_t count = gyre_buffer_size(buffer) / sizeof value;
    float *data = malloc(count * sizeof *data);
    assert_non_null(data);
    contract_read(buffer, 0, data, count * sizeof *data);
    for (size_t i = 0; contract.computes && i < count; i++)
        if (data[i] != value) fail_msg("element %zu is %g, not %g", i, (double)data[i], (double)value);
    free(data);
}

static void run(const struct gyre_dispatch *dispatches, uint32_t n)
{
    gyre_error err = {0};
    contract_ok(gyre_run_once(contract.device, dispatches, n, &err), &err);
}

static gyre_recording *record(const struct gyre_dispatch *dispatches, uint32_t n)
{
    gyre_error err = {0};
    gyre_recording *recording;
    contract_ok(gyre_recording_create(contract.device, dispatches, n, &recording, &err), &err);
    return recording;
}

static void submit(gyre_recording *recording)
{
    gyre_error err = {0};
    contract_ok(gyre_submit(contract.device, recording, &err), &err);
}

// ---- kernels ----------------------------------------------------------------------------------------

static void kernel_refusals(void **state)
{
    (void)state;
    const struct gyre_device_info *info = gyre_device_info(contract.device);
    const struct {
        struct gyre_kernel_params params;
        gyre_status status;
    } cases[] = {
        {{.name = "no_such_kernel", .n_spec = 3, .spec = {64, 1, 1}}, GYRE_E_INVALID},
        {{.name = NULL, .n_spec = 3, .spec = {64, 1, 1}}, GYRE_E_INVALID},
        {{.name = "add", .n_spec = 1, .spec = {64}}, GYRE_E_INVALID},
        {{.name = "add", .n_spec = 2, .spec = {64, 1}}, GYRE_E_INVALID},
        {{.name = "add", .n_spec = 4, .spec = {64, 1, 1, 1}}, GYRE_E_INVALID}, // it declares no constant of its own
        {{.name = "add", .n_spec = GYRE_MAX_SPEC + 1, .spec = {64, 1, 1}}, GYRE_E_INVALID},
        {{.name = "add", .n_spec = 3, .spec = {64, 0, 1}}, GYRE_E_INVALID},
        {{.name = "add", .n_spec = 3, .spec = {info->max_group_size[0] + 1, 1, 1}}, GYRE_E_UNSUPPORTED},
        {{.name = "add", .n_spec = 3, .spec = {1, 1, UINT32_MAX}}, GYRE_E_UNSUPPORTED},
        {{.name = "add", .n_spec = 3, .spec = {info->max_group_size[0], info->max_group_size[1], 1}},
         GYRE_E_UNSUPPORTED},
    };
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        gyre_error err = {0};
        gyre_kernel *kernel;
        contract_refused(gyre_kernel_create(contract.device, &cases[i].params, &kernel, &err), cases[i].status, &err);
        assert_null(kernel);
    }
}

static void equal_kernels_are_shared(void **state)
{
    (void)state;
    gyre_error err = {0};
    const struct gyre_kernel_params small = {.name = "add", .n_spec = 3, .spec = {32, 1, 1}};
    gyre_kernel *a = contract_add_kernel(contract.device), *b = contract_add_kernel(contract.device), *c;
    contract_ok(gyre_kernel_create(contract.device, &small, &c, &err), &err);
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, c);
    gyre_kernel_destroy(contract.device, a); // b is still alive and must work
    gyre_buffer *y = filled(99, 0), *x = filled(99, 3);
    const struct gyre_dispatch d = contract_add(b, AT(y, 0), AT(x, 0), AT(x, 0), 99);
    run(&d, 1);
    expect_all(y, 6);
    gyre_kernel_destroy(contract.device, b);
    gyre_kernel_destroy(contract.device, c);
    gyre_buffer_destroy(contract.device, x);
    gyre_buffer_destroy(contract.device, y);
}

// ---- dispatches ---------------------------------------------------------------------------------------

static void odd_counts_at_offsets(void **state)
{
    (void)state;
    static const uint32_t counts[] = {1, 2, 63, 64, 65, 100, 1023};
    enum { SPAN = 8192, WORDS = 3 * SPAN / 4, SHIFT = 256 };
    gyre_kernel *kernel = contract_add_kernel(contract.device);
    gyre_buffer *buffer = contract_buffer(contract.device, 3 * SPAN);
    float data[WORDS], got[WORDS];
    for (size_t c = 0; c < GYRE_COUNT(counts); c++) {
        const uint32_t n = counts[c];
        for (int i = 0; i < WORDS; i++) data[i] = (float)(i % 511 - 100);
        contract_write(buffer, 0, data, sizeof data);
        // y in the middle, so that a write beyond its binding is seen.
        const struct gyre_dispatch d =
            contract_add(kernel, AT(buffer, SPAN), AT(buffer, 0), AT(buffer, 2 * SPAN + SHIFT), n);
        run(&d, 1);
        contract_read(buffer, 0, got, sizeof got);
        for (uint32_t i = 0; i < n; i++) data[SPAN / 4 + i] = data[i] + data[(2 * SPAN + SHIFT) / 4 + i];
        if (contract.computes) assert_memory_equal(got, data, sizeof data);
    }
    gyre_buffer_destroy(contract.device, buffer);
    gyre_kernel_destroy(contract.device, kernel);
}

static void refuse(struct gyre_dispatch d, gyre_status want)
{
    gyre_error err = {0};
    gyre_recording *recording;
    contract_refused(gyre_recording_create(contract.device, &d, 1, &recording, &err), want, &err);
    assert_null(recording);
    contract_refused(gyre_run_once(contract.device, &d, 1, &err), want, &err);
}

static void dispatch_refusals(void **state)
{
    (void)state;
    const struct gyre_device_info *info = gyre_device_info(contract.device);
    gyre_error err = {0};
    gyre_device *other;
    contract_ok(gyre_device_open("null", NULL, &other, &err), &err);
    gyre_kernel *kernel = contract_add_kernel(contract.device), *foreign_kernel = contract_add_kernel(other);
    gyre_buffer *a = contract_buffer(contract.device, 4096), *foreign = contract_buffer(other, 4096);
    const struct gyre_dispatch good = contract_add(kernel, AT(a, 0), AT(a, 1024), AT(a, 1024), 256);
    struct gyre_dispatch d;
    gyre_recording *recording;
    gyre_recording_destroy(contract.device, record(&good, 1)); // what is read may be bound twice

    contract_refused(gyre_recording_create(contract.device, &good, 0, &recording, &err), GYRE_E_INVALID, &err);
    d = good, d.kernel = NULL, refuse(d, GYRE_E_INVALID);
    d = good, d.kernel = foreign_kernel, refuse(d, GYRE_E_INVALID);
    d = good, d.bind[2].buffer = NULL, refuse(d, GYRE_E_INVALID);
    d = good, d.bind[1].buffer = foreign, refuse(d, GYRE_E_INVALID);
    d = good, d.bind[2].offset = 1024 + 128, refuse(d, GYRE_E_INVALID); // alignment
    d = good, d.bind[2].offset = 1025, refuse(d, GYRE_E_INVALID);
    d = good, d.bind[2].size = 1022, refuse(d, GYRE_E_INVALID);
    d = good, d.bind[2].size = 0, refuse(d, GYRE_E_INVALID);
    d = good, d.bind[2].offset = 4096, refuse(d, GYRE_E_INVALID); // bounds
    d = good, d.bind[2].size = 3076, refuse(d, GYRE_E_INVALID);
    d = good, d.bind[2].offset = UINT64_MAX - 255, refuse(d, GYRE_E_INVALID);
    d = good, d.bind[2].size = UINT64_MAX - 3, refuse(d, GYRE_E_INVALID);
    d = good, d.bind[1].offset = 0, refuse(d, GYRE_E_INVALID); // written and read
    d = good, d.bind[2].offset = 768, refuse(d, GYRE_E_INVALID);
    for (int i = 0; i < 3; i++) {
        d = good, d.groups[i] = 0, refuse(d, GYRE_E_INVALID);
        if (info->max_groups[i] < UINT32_MAX)
            d = good, d.groups[i] = info->max_groups[i] + 1, refuse(d, GYRE_E_UNSUPPORTED);
    }
    // Nothing is half done where the second of two dispatches is wrong.
    struct gyre_dispatch two[2] = {good, good};
    two[1].groups[0] = 0;
    const uint64_t before = gyre_device_counters(contract.device).live_objects;
    contract_refused(gyre_recording_create(contract.device, two, 2, &recording, &err), GYRE_E_INVALID, &err);
    assert_int_equal(gyre_device_counters(contract.device).live_objects, before);
    contract_refused(gyre_submit(contract.device, NULL, &err), GYRE_E_INVALID, &err);

    gyre_kernel_destroy(other, foreign_kernel);
    gyre_buffer_destroy(other, foreign);
    gyre_device_close(other);
    gyre_kernel_destroy(contract.device, kernel);
    gyre_buffer_destroy(contract.device, a);
}

// ---- hazards ------------------------------------------------------------------------------------------

enum { N = 100003 }; // large enough that two dispatches would run at the same time were they not kept apart

// Fibonacci numbers: each dispatch reads what the two before it wrote and overwrites what they read.
static void chains_of_hazards(void **state)
{
    (void)state;
    enum { STEPS = 30 };
    gyre_kernel *kernel = contract_add_kernel(contract.device);
    gyre_buffer *f[3] = {filled(N, 1), filled(N, 1), filled(N, 0)};
    struct gyre_dispatch d[STEPS];
    float last[2] = {1, 1};
    for (int i = 0; i < STEPS; i++) {
        d[i] = contract_add(kernel, AT(f[(i + 2) % 3], 0), AT(f[i % 3], 0), AT(f[(i + 1) % 3], 0), N);
        const float next = last[0] + last[1];
        last[0] = last[1], last[1] = next;
    }
    run(d, STEPS);
    expect_all(f[(STEPS + 1) % 3], last[1]);
    expect_all(f[STEPS % 3], last[0]);
    for (int i = 0; i < 3; i++) gyre_buffer_destroy(contract.device, f[i]);
    gyre_kernel_destroy(contract.device, kernel);
}

static void single_hazards(void **state)
{
    (void)state;
    gyre_kernel *kernel = contract_add_kernel(contract.device);
    gyre_buffer *a = filled(N, 1), *b = filled(N, 2), *c = filled(N, 0), *d = filled(N, 0);
    const struct gyre_dispatch read_after_write[] = {
        contract_add(kernel, AT(c, 0), AT(a, 0), AT(b, 0), N), // c = 3
        contract_add(kernel, AT(d, 0), AT(c, 0), AT(b, 0), N), // d = 5
    };
    run(read_after_write, 2);
    expect_all(c, 3);
    expect_all(d, 5);
    const struct gyre_dispatch write_after_read[] = {
        contract_add(kernel, AT(c, 0), AT(a, 0), AT(d, 0), N), // c = 6
        contract_add(kernel, AT(a, 0), AT(b, 0), AT(b, 0), N), // a = 4
    };
    run(write_after_read, 2);
    expect_all(c, 6);
    expect_all(a, 4);
    const struct gyre_dispatch write_after_write[] = {
        contract_add(kernel, AT(c, 0), AT(a, 0), AT(d, 0), N), // c = 9
        contract_add(kernel, AT(c, 0), AT(b, 0), AT(b, 0), N), // c = 4
    };
    run(write_after_write, 2);
    expect_all(c, 4);
    gyre_buffer_destroy(contract.device, a);
    gyre_buffer_destroy(contract.device, b);
    gyre_buffer_destroy(contract.device, c);
    gyre_buffer_destroy(contract.device, d);
    gyre_kernel_destroy(contract.device, kernel);
}

// Ranges of one buffer that overlap only in part, so that comparing whole bindings would miss it.
static void hazards_in_parts_of_a_buffer(void **state)
{
    (void)state;
    enum { COUNT = 64 * 1024, STEP = 32 * 1024 };
    gyre_kernel *kernel = contract_add_kernel(contract.device);
    gyre_buffer *x = filled(4 * COUNT, 1), *one = filled(COUNT, 1);
    const struct gyre_dispatch d[] = {
        contract_add(kernel, AT(x, 4 * 2 * COUNT), AT(x, 0), AT(one, 0), COUNT),          // [2C, 3C) = 2
        contract_add(kernel, AT(x, 4 * STEP), AT(x, 4 * (2 * COUNT)), AT(one, 0), COUNT), // [S, S+C) = 3
        contract_add(kernel, AT(x, 4 * 3 * COUNT), AT(x, 0), AT(one, 0), COUNT),          // [3C, 4C) = 2, then 4
    };
    float *got = malloc(16 * COUNT);
    assert_non_null(got);
    run(d, 3);
    contract_read(x, 0, got, 16 * COUNT);
    for (int i = 0; contract.computes && i < 4 * COUNT; i++) {
        const float y = i < STEP               ? 1
                        : i < STEP + COUNT     ? 3
                        : i < 2 * COUNT        ? 1
                        : i < 3 * COUNT        ? 2
                        : i < 3 * COUNT + STEP ? 2
                                               : 4;
        if (got[i] != y) fail_msg("element %d is %g, not %g", i, (double)got[i], (double)y);
    }
    free(got);
    gyre_buffer_destroy(contract.device, x);
    gyre_buffer_destroy(contract.device, one);
    gyre_kernel_destroy(contract.device, kernel);
}

// ---- submissions ---------------------------------------------------------------------------------------

// A replay is cut where its predicted time passes the bound, not by the number of dispatches, and computes the same.
static void predicted_time_cuts_submissions(void **state)
{
    (void)state;
    enum { MANY = 130 };
    gyre_kernel *kernel = contract_add_kernel(contract.device);
    gyre_buffer *sum[] = {filled(N, 0), filled(N, 0)}, *x = filled(N, 1);
    struct gyre_dispatch d[MANY];
    for (int i = 0; i < MANY; i++) d[i] = contract_add(kernel, AT(sum[(i + 1) % 2], 0), AT(sum[i % 2], 0), AT(x, 0), N);
    static const struct {
        float ms;        // of the first five; the others cost next to nothing
        uint32_t pieces; // where predicted time cuts
    } cases[] = {{0.1f, 1}, {60, 5}, {30, 2}, {1000, 6}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint32_t pieces = 0;
        for (int i = 0; i < MANY; i++) d[i].ms = i < 5 ? cases[c].ms : 0.001f;
        for (uint32_t at = 0; at < MANY; at = gyre_submission_end(d, MANY, at)) pieces++;
        assert_int_equal(pieces, cases[c].pieces);
        gyre_recording *recording = record(d, MANY);
        const struct gyre_device_counters before = gyre_device_counters(contract.device);
        submit(recording);
        const uint64_t took = gyre_device_counters(contract.device).submissions - before.submissions;
        assert_int_equal(took, strncmp(gyre_device_info(contract.device)->id, "vulkan", 6) ? 1 : pieces);
        expect_all(sum[0], (float)(MANY * (c + 1)));
        gyre_recording_destroy(contract.device, recording);
    }
    for (int i = 0; i < 2; i++) gyre_buffer_destroy(contract.device, sum[i]);
    gyre_buffer_destroy(contract.device, x);
    gyre_kernel_destroy(contract.device, kernel);
}

// What a step writes and reads back is small: neither takes a submission of its own where the device is idle.
static void small_copies_take_no_submission(void **state)
{
    (void)state;
    int32_t in[1000], out[1000] = {0};
    for (int i = 0; i < 1000; i++) in[i] = 3 * i;
    gyre_buffer *x = filled(1000, 3);
    gyre_error err = {0};
    contract_ok(gyre_wait(contract.device, &err), &err);
    const struct gyre_device_counters before = gyre_device_counters(contract.device);
    contract_ok(gyre_buffer_write(contract.device, x, 0, in, sizeof in, &err), &err);
    contract_ok(gyre_buffer_read(contract.device, x, 0, out, sizeof out, &err), &err);
    assert_memory_equal(in, out, sizeof in);
    assert_int_equal(gyre_device_counters(contract.device).copies, before.copies);
    gyre_buffer_destroy(contract.device, x);
}

// ---- replays ------------------------------------------------------------------------------------------

// sum += x, as two dispatches since a kernel may not write what it reads.
static void replays_see_new_inputs(void **state)
{
    (void)state;
    gyre_kernel *kernel = contract_add_kernel(contract.device);
    gyre_buffer *sum = filled(N, 0), *next = filled(N, 0), *x = filled(N, 0), *zero = filled(N, 0);
    struct gyre_dispatch d[] = {
        contract_add(kernel, AT(next, 0), AT(sum, 0), AT(x, 0), N),
        contract_add(kernel, AT(sum, 0), AT(next, 0), AT(zero, 0), N),
    };
    gyre_recording *recording = record(d, 2);
    memset(d, 0xFF, sizeof d); // the caller's array is the caller's again
    const struct gyre_device_counters before = gyre_device_counters(contract.device);
    for (int i = 1; i <= 9; i++) { // no wait: a write must not overtake the replay before it
        fill(x, (float)i);
        submit(recording);
    }
    for (int i = 0; i < 5; i++) submit(recording); // nor a replay the one before it
    expect_all(sum, 45 + 5 * 9);
    const struct gyre_device_counters after = gyre_device_counters(contract.device);
    assert_int_equal(after.recordings, before.recordings);
    assert_int_equal(after.buffers, before.buffers);
    assert_int_equal(after.submissions, before.submissions + 14);
    gyre_recording_destroy(contract.device, recording);
    gyre_buffer_destroy(contract.device, sum);
    gyre_buffer_destroy(contract.device, next);
    gyre_buffer_destroy(contract.device, x);
    gyre_buffer_destroy(contract.device, zero);
    gyre_kernel_destroy(contract.device, kernel);
}

// Replays of one call follow each other, as many a submission as its predicted time allows.
static void replays_of_one_call(void **state)
{
    (void)state;
    static const struct {
        float ms; // of each of the two dispatches
        uint32_t at_once;
    } cases[] = {{0.01f, GYRE_MAX_AT_ONCE}, {5, 10}, {20, 2}, {45, 1}, {60, 1}};
    gyre_error err = {0};
    gyre_kernel *kernel = contract_add_kernel(contract.device);
    gyre_buffer *sum = filled(N, 0), *next = filled(N, 0), *one = filled(N, 1), *zero = filled(N, 0);
    float want = 0;
    for (size_t c = 0; c < GYRE_COUNT(cases); c++) {
        struct gyre_dispatch d[] = {
            contract_add(kernel, AT(next, 0), AT(sum, 0), AT(one, 0), N),
            contract_add(kernel, AT(sum, 0), AT(next, 0), AT(zero, 0), N),
        };
        d[0].ms = d[1].ms = cases[c].ms;
        gyre_recording *recording = record(d, 2);
        const bool cuts = !strncmp(gyre_device_info(contract.device)->id, "vulkan", 6);
        assert_int_equal(gyre_recording_at_once(recording), cases[c].at_once);
        contract_refused(gyre_submit_times(contract.device, recording, 0, &err), GYRE_E_INVALID, &err);
        for (uint32_t times = 1; times <= 37; times += 12) { // no wait in between
            const struct gyre_device_counters before = gyre_device_counters(contract.device);
            err = (gyre_error){0};
            contract_ok(gyre_submit_times(contract.device, recording, times, &err), &err);
            const struct gyre_device_counters after = gyre_device_counters(contract.device);
            const uint32_t each = cuts && 2 * cases[c].ms > GYRE_SUBMISSION_MS ? 2 : 1;
            assert_int_equal(after.submissions - before.submissions, gyre_div_up(times, cases[c].at_once) * each);
            assert_int_equal(after.dispatches - before.dispatches, 2 * times);
            want += (float)times;
        }
        expect_all(sum, want);
        gyre_recording_destroy(contract.device, recording);
    }
    gyre_buffer_destroy(contract.device, sum);
    gyre_buffer_destroy(contract.device, next);
    gyre_buffer_destroy(contract.device, one);
    gyre_buffer_destroy(contract.device, zero);
    gyre_kernel_destroy(contract.device, kernel);
}

static void several_recordings_interleave(void **state)
{
    (void)state;
    gyre_error err = {0};
    gyre_kernel *kernel = contract_add_kernel(contract.device);
    gyre_buffer *a = filled(N, 1), *b = filled(N, 0);
    const struct gyre_dispatch double_a = contract_add(kernel, AT(b, 0), AT(a, 0), AT(a, 0), N);
    const struct gyre_dispatch double_b = contract_add(kernel, AT(a, 0), AT(b, 0), AT(b, 0), N);
    gyre_recording *r[2] = {record(&double_a, 1), record(&double_b, 1)};
    for (int i = 0; i < 20; i++) submit(r[i % 2]);
    contract_ok(gyre_wait(contract.device, &err), &err);
    contract_ok(gyre_wait(contract.device, &err), &err); // waiting for nothing is fine
    expect_all(a, 1 << 20);
    gyre_recording_destroy(contract.device, r[0]);
    gyre_recording_destroy(contract.device, r[1]);
    gyre_buffer_destroy(contract.device, a);
    gyre_buffer_destroy(contract.device, b);
    gyre_kernel_destroy(contract.device, kernel);
}

// An error path destroys in the order of ownership without waiting; what was queued still happens.
static void destroying_queued_work(void **state)
{
    (void)state;
    gyre_kernel *kernel = contract_add_kernel(contract.device);
    gyre_buffer *a = filled(N, 1), *b = filled(N, 2), *c = filled(N, 0);
    const struct gyre_dispatch d[] = {
        contract_add(kernel, AT(c, 0), AT(a, 0), AT(b, 0), N),
        contract_add(kernel, AT(a, 0), AT(c, 0), AT(b, 0), N),
    };
    gyre_recording *recording = record(d, 2);
    for (int i = 0; i < 3; i++) submit(recording);
    gyre_recording_destroy(contract.device, recording);
    gyre_kernel_destroy(contract.device, kernel);
    gyre_buffer_destroy(contract.device, b);
    expect_all(a, 13);
    gyre_buffer_destroy(contract.device, c);
    gyre_buffer_destroy(contract.device, a);
}

static void profile_reports_times(void **state)
{
    (void)state;
    enum { DISPATCHES = 5 };
    gyre_error err = {0};
    uint64_t ns[DISPATCHES + 1];
    gyre_kernel *kernel = contract_add_kernel(contract.device);
    gyre_buffer *a = filled(N, 1), *b = filled(N, 2), *c = filled(N, 0);
    struct gyre_dispatch d[DISPATCHES];
    for (int i = 0; i < DISPATCHES; i++) d[i] = contract_add(kernel, AT(c, 0), AT(a, 0), AT(b, 0), N);
    gyre_recording *recording = record(d, DISPATCHES);
    submit(recording); // profiling waits for what is queued
    for (int i = 0; i <= DISPATCHES; i++) ns[i] = UINT64_MAX;
    contract_ok(gyre_profile(contract.device, recording, ns, &err), &err);
    for (int i = 0; i < DISPATCHES; i++) assert_true(ns[i] < 10000000000u);
    assert_true(ns[DISPATCHES] == UINT64_MAX);
    contract_refused(gyre_profile(contract.device, recording, NULL, &err), GYRE_E_INVALID, &err);
    expect_all(c, 3);
    submit(recording); // and leaves the recording as it was
    expect_all(c, 3);
    gyre_recording_destroy(contract.device, recording);
    gyre_buffer_destroy(contract.device, a);
    gyre_buffer_destroy(contract.device, b);
    gyre_buffer_destroy(contract.device, c);
    gyre_kernel_destroy(contract.device, kernel);
}

const struct CMUnitTest contract_work_tests[] = {
    cmocka_unit_test(kernel_refusals),
    cmocka_unit_test(equal_kernels_are_shared),
    cmocka_unit_test(odd_counts_at_offsets),
    cmocka_unit_test(dispatch_refusals),
    cmocka_unit_test(chains_of_hazards),
    cmocka_unit_test(single_hazards),
    cmocka_unit_test(hazards_in_parts_of_a_buffer),
    cmocka_unit_test(predicted_time_cuts_submissions),
    cmocka_unit_test(small_copies_take_no_submission),
    cmocka_unit_test(replays_see_new_inputs),
    cmocka_unit_test(replays_of_one_call),
    cmocka_unit_test(several_recordings_interleave),
    cmocka_unit_test(destroying_queued_work),
    cmocka_unit_test(profile_reports_times),
};
const size_t contract_work_count = GYRE_COUNT(contract_work_tests);
