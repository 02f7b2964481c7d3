// The two op-test programs as one function: every op is a cmocka test over its cases.
#include "tests/ops/check.h"
#include "backends/kernel_source.h"
#include "tests/common/device.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct check check;
static int validation_messages;
bool check_dot_form;

static void keep_line(void *user, gyre_log_level level, const char *line)
{
    (void)user;
    if (!strncmp(line, "vulkan validation:", 18)) validation_messages++;
    if (level <= GYRE_LOG_WARN || !strncmp(line, "vulkan validation:", 18)) fprintf(stderr, "%s\n", line);
}

// Whether a test of this op tells anything that is not tested elsewhere.
static bool wanted(const char *op)
{
    for (uint32_t i = 0; i < gyre_kernel_source_count && check_dot_form; i++)
        if (!strcmp(gyre_kernel_sources[i]->op, op) && gyre_kernel_sources[i]->spirv_dot) return true;
    return !check_dot_form;
}

static void run_cases(const char *op, void (*cases)(struct check *))
{
    check.op = op;
    check.cases = check.failed = 0;
    check.random = 1;
    validation_messages = 0;
    cases(&check);
    check_release(&check);
    if (check.failed) fail_msg("%s: %u of %u cases failed", op, check.failed, check.cases);
    assert_true(check.cases > 0);
    assert_int_equal(validation_messages, 0);
    assert_int_equal(gyre_device_counters(check.device).live_objects, 0);
}

static const char *part; // what is tested: a lowering family, or what the names of ops contain; NULL: everything

static bool in_part(const char *op, const char *family)
{
    static const char *const families[] = {
#define OP(name, outputs, inputs, params, lower, tune, grad) #lower,
#include "runtime/core/ops.def"
#undef OP
    };
    for (size_t i = 0; part && i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i], part)) return !strcmp(family, part);
    return !part || strstr(op, part);
}

// Runs after the cases of an op, on every device: no kernel of it is left out.
static void every_kernel_has_a_case(const char *op)
{
    if (!check_dot_form) assert_int_equal(check_missing(op), 0); // there, a part of the kernels by intent
}

#define OP(name, outputs, inputs, params, lower, tune, grad)                                                           \
    static void test_##name(void **state)                                                                              \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        if (!wanted(#name) || !in_part(#name, #lower)) skip();                                                         \
        run_cases(#name, cases_##name);                                                                                \
        every_kernel_has_a_case(#name);                                                                                \
    }
#include "runtime/core/ops.def"
#undef OP

static const struct CMUnitTest tests[] = {
#define OP(name, outputs, inputs, params, lower, tune, grad) {#name, test_##name, NULL, NULL, NULL},
#include "runtime/core/ops.def"
#undef OP
};

int check_device(const char *name, gyre_device *device, int argc, char **argv)
{
    gyre_error err = {0};
    check.device = device;
    check.floats = !strcmp(name, "host");
    if (gyre_device_open("cpu", NULL, &check.reference, &err) != GYRE_OK) {
        fprintf(stderr, "%s\n", err.message);
        gyre_device_close(check.device);
        return 1;
    }
    part = argc > 1 ? argv[1] : NULL;
    const int failed = cmocka_run_group_tests_name(name, tests, NULL, NULL);
    gyre_device_close(check.reference);
    gyre_device_close(check.device);
    return failed ? 1 : 0;
}

int check_main(const char *backend, int argc, char **argv)
{
    char id[32];
    gyre_device *device;
    gyre_error err = {0};
    const gyre_log log = {.write = keep_line, .level = GYRE_LOG_WARN};
    const struct gyre_device_options options = {.log = &log, .validate = true, .emulated_dot = check_dot_form};
    snprintf(id, sizeof id, "%s:0", backend);
    const int missing = device_probe(id);
    if (missing) return missing;
    if (gyre_device_open(id, &options, &device, &err) != GYRE_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    return check_device(backend, device, argc, argv);
}
