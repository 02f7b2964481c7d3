// What a step of distillation costs: the plan of a large shape, and a step of a small one on the host.
#include "tests/common/ok.h"

#include <gyre/gyre_quantize.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

// 8B parameters over 2048 tokens fit 8 GiB; twice the tokens want more, and the weights stay.
static void test_plan(void **unused)
{
    (void)unused;
    gyre_train_params p = {.size = sizeof p, .shape = "llama-8b", .tokens = 512, .plan = true};
    gyre_train_result few = {.size = sizeof few}, many = {.size = sizeof many};
    OK(gyre_train_shape(&p, &few, err));
    p.tokens = 2048;
    OK(gyre_train_shape(&p, &many, err));
    printf("peak %.3f and %.3f GiB, streams %.3f\n", (double)few.peak / (1 << 30), (double)many.peak / (1 << 30),
           (double)many.streams / (1 << 30));
    assert_true(many.peak <= UINT64_C(8) << 30);
    assert_true(few.weights == many.weights && few.peak < many.peak);
    assert_true(many.streams == UINT64_C(33) * 2048 * 4096 * 4);
    assert_true(many.peak > many.weights + many.streams);
    assert_true(many.seconds == 0 && !many.device[0]);
}

static void test_step(void **unused)
{
    (void)unused;
    gyre_train_params p = {.size = sizeof p, .shape = "smollm2-135m", .tokens = 8};
    gyre_train_result r = {.size = sizeof r};
    gyre_error why = {0};
    OK(gyre_train_shape(&p, &r, err));
    assert_true(r.seconds > 0);
    assert_string_equal(r.device, "host");
    p.shape = "no-such-shape";
    assert_int_equal(gyre_train_shape(&p, &r, &why), GYRE_E_INVALID);
    p.shape = NULL;
    assert_int_equal(gyre_train_shape(&p, &r, &why), GYRE_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_plan), cmocka_unit_test(test_step)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
