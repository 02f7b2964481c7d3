// What is not given fits; what is given and does not is refused, with what would.
#include "cli/serve/fit.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char path[] = "test-fit.gguf";

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

// One layer's keys are 64 bytes a token: a binding of `tokens` of them.
static gyre_engine_params params(uint32_t sequences, uint32_t context, uint64_t tokens)
{
    return (gyre_engine_params){.size = sizeof(gyre_engine_params),
                                .device = "cpu",
                                .kv = 16,
                                .sequences = sequences,
                                .context = context,
                                .limit_binding = tokens * 64,
                                .cache_dir = ""};
}

static void expect(gyre_engine_params p, uint32_t sequences, uint32_t context)
{
    gyre_memory_plan plan;
    OK(serve_fit(path, &p, true, &plan, err));
    assert_true(plan.fits);
    assert_int_equal(p.sequences, sequences);
    assert_int_equal(p.context, context);
}

static void test_fits(void **state)
{
    (void)state;
    expect(params(0, 0, 1 << 20), 4, 512); // all of it
    expect(params(0, 0, 1024), 2, 512);    // fewer,
    expect(params(0, 0, 300), 1, 256);     // ... and then shorter
    expect(params(0, 256, 512), 2, 256);   // what is given stays
    expect(params(2, 0, 600), 2, 256);
}

static void test_refused(void **state)
{
    (void)state;
    gyre_memory_plan plan;
    gyre_error refused = {0};
    gyre_engine_params p = params(4, 512, 600);
    assert_int_equal(serve_fit(path, &p, true, &plan, &refused), GYRE_E_DEVICE_MEM);
    assert_non_null(strstr(refused.message, "--slots 1 --context 512 would fit"));
    p = params(4, 512, 600);
    OK(serve_fit(path, &p, false, &plan, err)); // told to try
    assert_false(plan.fits);
    assert_int_equal(p.sequences, 4);
    p = params(0, 0, 100);
    assert_int_equal(serve_fit(path, &p, true, &plan, &refused), GYRE_E_DEVICE_MEM);
    assert_non_null(strstr(refused.message, "even with one sequence"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fits), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
