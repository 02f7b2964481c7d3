// Figures of gyre compare from known numbers: by position, paired differences, answers to tasks.
#include "cli/compare/paired.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>

#include <cmocka.h>

static struct cli_blocks blocks_of(const double *kl, uint32_t n, uint32_t ctx)
{
    struct cli_blocks b = {.ctx = ctx};
    for (uint32_t i = 0; i < n; i++)
        assert_true(cli_blocks_add(
            &b, &(gyre_eval_token){.window = i / (ctx - 1), .seen = i % (ctx - 1) + 1, .kl = kl[i], .nll = 1}));
    return b;
}

// Figures from known numbers: blocks of a window of 100 hold 64 and 35 tokens.
static void test_blocks(void **state)
{
    (void)state;
    static double kl[2 * 99];
    for (int i = 0; i < 198; i++) kl[i] = (i % 99 < 64 ? 1 : 3) + (i >= 99);
    struct cli_blocks b = blocks_of(kl, 198, 100);
    struct cli_position p[CLI_POSITIONS];
    assert_true(b.n == 4 && cli_blocks_windows(&b) == 2 && cli_block_tokens(&b, 0) == 64 &&
                cli_block_tokens(&b, 3) == 35);
    assert_int_equal(cli_positions(&b, 1, p), 2);
    assert_true(p[0].from == 1 && p[0].to == 64 && p[1].from == 65 && p[1].to == 99);
    assert_true(p[0].tokens == 128 && p[1].tokens == 70);
    assert_true(fabs(p[0].kl - 1.5) < 1e-12 && fabs(p[1].kl - 3.5) < 1e-12 && fabs(p[1].kl_stderr - 0.5) < 1e-12);
    cli_blocks_free(&b);
    // 8k: 1-64, -128, ..., -8191: one row a doubling.
    b = (struct cli_blocks){.ctx = 8192};
    for (uint32_t seen = 1; seen < 8192; seen++)
        assert_true(cli_blocks_add(&b, &(gyre_eval_token){.seen = seen, .kl = seen}));
    assert_int_equal(cli_positions(&b, 1, p), 8);
    assert_true(p[7].from == 4097 && p[7].to == 8191 && fabs(p[7].kl - (4097 + 8191) / 2.0) < 1e-6);
    cli_blocks_free(&b);
}

// Paired: what all windows have in common is no error. Student's t by a table.
static void test_differences(void **state)
{
    (void)state;
    static const double noise[9] = {1, -2, 3, 0, 5, -1, 2, 4, -3};
    static double one[9 * 63], two[9 * 63];
    struct cli_cell a, b;
    assert_true(cli_cell_create(1, 0, &a) && cli_cell_create(1, 0, &b));
    for (int i = 0; i < 9 * 63; i++) {
        one[i] = 100 * (i / 63) + 0.5 + 0.1 * noise[i / 63]; // windows are far apart, their differences are not
        two[i] = 100 * (i / 63);
    }
    a.text[0].blocks = blocks_of(one, 9 * 63, 64);
    b.text[0].blocks = blocks_of(two, 9 * 63, 64);
    struct cli_difference d = cli_cell_difference(&a, &b, 0);
    double spread = 0;
    for (int i = 0; i < 9; i++) spread += 0.01 * (noise[i] - 1) * (noise[i] - 1);
    assert_true(d.by_windows && d.units == 9 && fabs(d.mean - 0.6) < 1e-9);
    assert_true(fabs(d.high - d.mean - 2.3060 * sqrt(spread / 72)) < 1e-9 &&
                fabs(d.mean - d.low - (d.high - d.mean)) < 1e-9);
    assert_true(cli_difference_is_sure(&d));
    d = cli_cell_difference(&b, &a, -1); // one text: all is that text
    assert_true(fabs(d.mean + 0.6) < 1e-9 && d.high < 0);
    a.text[0].blocks.n = b.text[0].blocks.n = 2; // two windows: blocks, here as many; t of one degree is 12.7
    d = cli_cell_difference(&a, &b, 0);
    assert_true(!d.by_windows && d.units == 2 && fabs(d.mean - 0.45) < 1e-9);
    assert_true(fabs(d.high - d.mean - 12.7062 * 0.15) < 1e-6 && !cli_difference_is_sure(&d));
    a.text[0].blocks.n = b.text[0].blocks.n = 1;
    d = cli_cell_difference(&a, &b, 0);
    assert_true(isnan(d.low) && fabs(d.mean - 0.6) < 1e-9 && !cli_difference_is_sure(&d));
    a.text[0].blocks.n = 9;
    d = cli_cell_difference(&a, &b, 0); // other windows
    assert_true(isnan(d.mean));
    cli_cell_free(&a);
    cli_cell_free(&b);
}

static void test_answers(void **state)
{
    (void)state;
    struct cli_answer mine[] = {{0, true}, {1, true}, {2, false}, {0, false}},
                      theirs[] = {{0, true}, {2, false}, {1, false}, {1, true}};
    const struct cli_answers a = {.name = "quiz", .item = mine, .n = 4, .bits_per_byte = 0.5},
                             b = {.name = "quiz", .item = theirs, .n = 4},
                             few = {.name = "quiz", .item = theirs, .n = 3};
    struct cli_task_figures f = cli_answers_figures(&a, &b);
    assert_true(f.has_reference && f.accuracy == 0.5 && f.reference == 0.5 && f.flips == 3 && f.bits_per_byte == 0.5);
    assert_true(fabs(f.stderror - sqrt(0.25 / 3)) < 1e-12 && fabs(f.difference_stderr - sqrt(2.0 / 12)) < 1e-12);
    assert_false(cli_answers_figures(&a, &few).has_reference);
    assert_false(cli_answers_figures(&a, NULL).has_reference);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
