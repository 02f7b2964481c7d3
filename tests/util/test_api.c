// The rules of the public face: versions, params structs that grow, memory.
#include "runtime/util/status.h"

#include <gyre/gyre_chat.h>
#include <gyre/gyre_eval.h>
#include <gyre/gyre_grammar.h>
#include <gyre/gyre_quantize.h>
#include <gyre/gyre_schedule.h>
#include <gyre/gyre_tools.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// A params struct as two libraries know it.
struct old {
    size_t size;
    int a;
};
struct grown {
    size_t size;
    int a, padding_of_old; // which may hold anything: new members stand behind it
    long long b;
    void *c;
};

static void test_params_grow(void **state)
{
    (void)state;
    struct grown out;
    gyre_error err = {0};
    memset(&out, 0xFF, sizeof out);
    assert_int_equal(gyre_params_take(NULL, &out, sizeof out, sizeof out, "p", &err), GYRE_OK); // all defaults
    assert_true(out.a == 0 && out.b == 0 && out.c == NULL);

    struct old small; // an old program
    memset(&small, 0xEE, sizeof small);
    small.size = sizeof small;
    small.a = 7;
    memset(&out, 0xFF, sizeof out);
    assert_int_equal(gyre_params_take(&small, &out, sizeof out, sizeof out, "p", &err), GYRE_OK);
    assert_true(out.a == 7 && out.b == 0 && out.c == NULL);

    const struct old unsaid = {0, 8}; // one that left the size out: as at level 2000, whatever came later
    assert_int_equal(gyre_params_take(&unsaid, &out, sizeof out, sizeof unsaid, "p", &err), GYRE_OK);
    assert_true(out.a == 8 && out.b == 0 && out.c == NULL);

    struct grown large = {sizeof large, 9, 0, 0, NULL}; // a new program, an old library
    struct old taken;
    assert_int_equal(gyre_params_take(&large, &taken, sizeof taken, sizeof taken, "p", &err), GYRE_OK);
    assert_int_equal(taken.a, 9);
    large.c = &large;
    assert_int_equal(gyre_params_take(&large, &taken, sizeof taken, sizeof taken, "gyre_x_params", &err),
                     GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "gyre_x_params"));
    assert_non_null(strstr(err.message, "newer library"));
    assert_null(strchr(err.message, '\n'));

    const struct old absurd = {3, 1};
    assert_int_equal(gyre_params_take(&absurd, &out, sizeof out, sizeof out, "p", &err), GYRE_E_INVALID);
}

static void test_levels(void **state)
{
    (void)state;
    gyre_error err = {0};
    assert_int_equal(gyre_api_level(), GYRE_API_LEVEL);
    assert_string_equal(gyre_version(), GYRE_VERSION);
    assert_int_equal(gyre_api_check(GYRE_API_LEVEL, &err), GYRE_OK);
    assert_int_equal(gyre_api_check(GYRE_API_MAJOR * 1000, &err), GYRE_OK); // older ones of the same major number
    const int wrong[] = {GYRE_API_LEVEL + 1, GYRE_API_LEVEL + 1000, (GYRE_API_MAJOR - 1) * 1000 + 999};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        err = (gyre_error){0};
        assert_int_equal(gyre_api_check(wrong[i], &err), GYRE_E_UNSUPPORTED);
        assert_non_null(strstr(err.message, "matching"));
        assert_null(strchr(err.message, '\n'));
    }
}

// X(struct, bytes at level 2000, where pointers have 8): those that do not begin with their size. Another number here
// is another major number of the interface.
#define SETTLED(X)                                                                                                     \
    X(gyre_error, 484)                                                                                                 \
    X(gyre_log, 24)                                                                                                    \
    X(gyre_device_facts, 456)                                                                                          \
    X(gyre_device_missing, 176)                                                                                        \
    X(gyre_engine_info, 272)                                                                                           \
    X(gyre_model_size, 32)                                                                                             \
    X(gyre_memory_plan, 88)                                                                                            \
    X(gyre_text_stream, 8)                                                                                             \
    X(gyre_sampling, 16)                                                                                               \
    X(gyre_timings, 48)                                                                                                \
    X(gyre_candidate, 12)                                                                                              \
    X(gyre_step_part, 32)                                                                                              \
    X(gyre_logit_bias, 8)                                                                                              \
    X(gyre_generate_result, 32)                                                                                        \
    X(gyre_engine_counters, 40)                                                                                        \
    X(gyre_rendering, 24)                                                                                              \
    X(gyre_eval_result, 144)                                                                                           \
    X(gyre_reference_info, 120)                                                                                        \
    X(gyre_eval_text, 24)                                                                                              \
    X(gyre_eval_token, 48)                                                                                             \
    X(gyre_eval_request, 32)                                                                                           \
    X(gyre_roofs, 200)                                                                                                 \
    X(gyre_profile_row, 48)                                                                                            \
    X(gyre_scored, 8)                                                                                                  \
    X(gyre_task_token, 32)                                                                                             \
    X(gyre_scheduler_counters, 48)                                                                                     \
    X(gyre_part, 24)                                                                                                   \
    X(gyre_quantize_layer, 16)                                                                                         \
    X(gyre_quantize_summary, 256)                                                                                      \
    X(gyre_recipe_info, 65)                                                                                            \
    X(gyre_verify_check, 496)                                                                                          \
    X(gyre_verify_result, 8040)                                                                                        \
    X(gyre_reproduce_result, 288)

// The same of params structs, which may grow: where size is 0 they are read as they were, so what takes them
// (gyre_params_take) needs this number in place of its sizeof once the struct is longer.
#define PARAMS(X)                                                                                                      \
    X(gyre_engine_params, 152)                                                                                         \
    X(gyre_generate_params, 144)                                                                                       \
    X(gyre_render_params, 24)                                                                                          \
    X(gyre_grammar_params, 16)                                                                                         \
    X(gyre_answer_params, 32)                                                                                          \
    X(gyre_tool_params, 32)                                                                                            \
    X(gyre_scheduler_params, 40)                                                                                       \
    X(gyre_task_params, 136)                                                                                           \
    X(gyre_eval_params, 72)                                                                                            \
    X(gyre_quantize_params, 184)                                                                                       \
    X(gyre_train_params, 64)                                                                                           \
    X(gyre_verify_params, 48)                                                                                          \
    X(gyre_reproduce_params, 96)

static void test_settled(void **state)
{
    (void)state;
    _Static_assert(GYRE_API_MAJOR == 2, "write down the sizes of this major number");
    if (sizeof(void *) != 8) skip();
#define X(name, bytes)                                                                                                 \
    if (sizeof(name) != bytes) fail_msg(#name " had %d bytes and has %zu", bytes, sizeof(name));
    SETTLED(X)
#undef X
#define X(name, bytes)                                                                                                 \
    if (sizeof(name) != bytes)                                                                                         \
        fail_msg(#name " had %d bytes and has %zu: give gyre_params_take the first, and write the second here", bytes, \
                 sizeof(name));
    PARAMS(X)
#undef X
}

static void test_memory(void **state)
{
    (void)state;
    gyre_free(NULL);
    gyre_free(malloc(3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_params_grow),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_settled),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
