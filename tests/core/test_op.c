// The op table: every row is found by its name, nothing else is.
#include "runtime/core/op.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void finds_every_row(void **state)
{
    (void)state;
    for (int i = 0; i < GYRE_OP_COUNT; i++) {
        assert_int_equal(gyre_op_find(gyre_ops[i].name), i);
        assert_true(gyre_ops[i].outputs[0] && gyre_ops[i].inputs[0]);
    }
    assert_int_equal(gyre_op_find("matmul"), GYRE_OP_matmul);
}

static void refuses_other_names(void **state)
{
    (void)state;
    const char *const names[] = {"", "rms", "rms_norm_", "Add", "matmul "};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) assert_int_equal(gyre_op_find(names[i]), GYRE_OP_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds_every_row), cmocka_unit_test(refuses_other_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
