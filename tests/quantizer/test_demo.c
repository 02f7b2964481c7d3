// A real model (GYRE_DEMO_MODEL, SmolLM2-135M-Instruct as Q4_1): size, errors and divergence are those measured with an
// independent implementation, within its scatter over seeds. Skipped where the variable is not set.
#include "tests/common/files.h"

#include <gyre/gyre_quantize.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static const char *model;

static void figures_are_those_of_the_oracle(void **state)
{
    (void)state;
    gyre_quantize_summary s;
    gyre_error err = {0};
    const gyre_quantize_params p = {
        .source = model, .output = files_path("demo.gguf"), .recipe = "quarot-rtn", .wgroup = GYRE_WGROUP_ROW};
    if (gyre_quantize(&p, &s, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_int_equal(s.layers, 30);
    assert_true(s.output_bytes < s.source_bytes && fabs(s.bits_per_weight - 4.023) < 0.001);
    assert_true(s.recipe_weight_error > 0.0117 &&
                s.recipe_weight_error < 0.0121);             // a normal distribution, clipped: .0118
    assert_true(s.rtn_weight_error > s.recipe_weight_error); // per channel, rotation helps
    assert_true(s.summary_tokens > 200);
    assert_true(s.rtn_kl > 0.6 && s.rtn_kl < 1.6 && s.recipe_kl > 0.5 && s.recipe_kl < 1.5);
    gyre_quantize_summary_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(figures_are_those_of_the_oracle)};
    model = getenv("GYRE_DEMO_MODEL");
    if (!model || !*model) {
        puts("GYRE_DEMO_MODEL is not set");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
