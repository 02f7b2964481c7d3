// The rules of the public face: versions, params structs that grow, memory.
#include "runtime/util/status.h"

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
    int a, b;
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

    const struct old small = {sizeof small, 7}; // an old program
    memset(&out, 0xFF, sizeof out);
    assert_int_equal(gyre_params_take(&small, &out, sizeof out, sizeof out, "p", &err), GYRE_OK);
    assert_true(out.a == 7 && out.b == 0 && out.c == NULL);

    const struct old unsaid = {0, 8}; // one that left the size out: as at level 1000, whatever came later
    assert_int_equal(gyre_params_take(&unsaid, &out, sizeof out, sizeof unsaid, "p", &err), GYRE_OK);
    assert_true(out.a == 8 && out.b == 0 && out.c == NULL);

    struct grown large = {sizeof large, 9, 0, NULL}; // a new program, an old library
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
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
