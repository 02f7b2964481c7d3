// The string map: many keys of many lengths, growth, absence.
#include "runtime/util/strmap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { N = 5000 };
static char keys[N][24];

static void finds_what_was_added(void **state)
{
    (void)state;
    struct gyre_strmap map = {0};
    uint32_t value;
    bool added;
    assert_false(gyre_strmap_get(&map, "x", 1, &value));
    for (uint32_t i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "%.*s%u", (int)(i % 11), "abcdefghijkl", i);
        assert_non_null(gyre_strmap_add(&map, keys[i], (uint32_t)strlen(keys[i]), i, &added));
        assert_true(added);
    }
    assert_int_equal(map.count, N);
    for (uint32_t i = 0; i < N; i++) {
        char copy[24];
        strcpy(copy, keys[i]);
        assert_true(gyre_strmap_get(&map, copy, (uint32_t)strlen(copy), &value));
        assert_int_equal(value, i);
        uint32_t *held = gyre_strmap_add(&map, copy, (uint32_t)strlen(copy), 0, &added);
        assert_false(added);
        assert_int_equal(*held, i);
        copy[0] ^= 0x40;
        assert_false(gyre_strmap_get(&map, copy, (uint32_t)strlen(copy), &value));
    }
    gyre_strmap_free(&map);
    assert_null(map.slots);
}

static void keys_are_bytes(void **state)
{
    (void)state;
    struct gyre_strmap map = {0};
    uint32_t value;
    const char zeros[16] = {0};
    for (uint32_t n = 0; n <= 16; n++) assert_non_null(gyre_strmap_add(&map, zeros, n, n, NULL)); // the empty key too
    for (uint32_t n = 0; n <= 16; n++) assert_true(gyre_strmap_get(&map, zeros, n, &value) && value == n);
    gyre_strmap_free(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds_what_was_added), cmocka_unit_test(keys_are_bytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
