// What an engine would take is what it takes, and what would not fit is known before.
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include <gyre/gyre.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

static const char path[] = "test-plan.gguf";

static int setup(void **state)
{
    (void)state;
    struct tiny_options o = tiny_defaults();
    o.type = GYRE_DTYPE_Q4_0;
    o.tied = true;
    return tiny_write_gguf(path, &o);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static gyre_engine_params params(uint32_t sequences, uint64_t limit)
{
    return (gyre_engine_params){.size = sizeof(gyre_engine_params),
                                .device = "cpu",
                                .sequences = sequences,
                                .kv = 8,
                                .context = 128,
                                .limit_binding = limit,
                                .cache_dir = ""};
}

static void test_as_opened(void **state)
{
    (void)state;
    gyre_engine *e = NULL;
    gyre_engine_info info;
    gyre_memory_plan plan;
    const gyre_engine_params p = params(3, 0);
    OK(gyre_plan_memory(path, &p, &plan, err));
    OK(gyre_engine_open(path, &p, &e, err));
    gyre_engine_describe(e, &info);
    assert_true(plan.fits);
    assert_string_equal(plan.device, "cpu");
    assert_int_equal(plan.kv, info.kv_bytes);
    assert_int_equal(plan.context, info.context);
    assert_int_equal(plan.sequences, 3);
    assert_true(plan.weights <= info.weight_bytes &&
                plan.weights > info.weight_bytes / 2); // the rest: gains and tables
    assert_true(plan.memory > 0 && plan.work > 0);
    OK(gyre_engine_close(e, err));
}

// One layer's keys of three sequences do not fit a binding, those of two do.
static void test_bindings(void **state)
{
    (void)state;
    gyre_engine *e = NULL;
    gyre_memory_plan plan;
    gyre_error refused = {0};
    const uint64_t limit = 2 * 128 * 2 * 16 + 64;
    gyre_engine_params p = params(3, limit);
    OK(gyre_plan_memory(path, &p, &plan, err));
    assert_false(plan.fits);
    assert_int_equal(gyre_engine_open(path, &p, &e, &refused), GYRE_E_DEVICE_MEM);
    p.sequences = 2;
    OK(gyre_plan_memory(path, &p, &plan, err));
    assert_true(plan.fits);
    OK(gyre_engine_open(path, &p, &e, err));
    OK(gyre_engine_close(e, err));
    p.device = "vulkan:77";
    assert_int_equal(gyre_plan_memory(path, &p, &plan, &refused), GYRE_E_NO_DEVICE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_as_opened), cmocka_unit_test(test_bindings)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
