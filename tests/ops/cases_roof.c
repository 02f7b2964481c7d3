// Cases of the benchmark ceilings: they must do the work they claim.
#include "tests/ops/check.h"

static void run(struct check *check, const char *kernel, enum check_rule rule, double bound, int threads, int count,
                int loops)
{
    const struct gyre_roof_params p = {threads, count, loops};
    const struct check_case c = {
        .kernel = kernel,
        .params = &p,
        .n_spec = 3,
        .spec = {8, 1, 1},
        .groups = {(uint32_t)(threads + 7) / 8},
        .bind = {{.size = 4 * (size_t)(threads + 3), .rule = rule, .bound = bound},
                 {.data = check_words(check, 4 * (size_t)count, 0xFFFFFFFFu), .size = 16 * (size_t)count}},
    };
    check_run(check, &c, "threads %d count %d loops %d", threads, count, loops);
}

void cases_roof_read(struct check *check)
{
    run(check, "roof_read", CHECK_BITS, 0, 7, 5, 0);
    run(check, "roof_read", CHECK_BITS, 0, 24, 1001, 0);
    run(check, "roof_read_slice", CHECK_BITS, 0, 24, 1001, 0);
    run(check, "roof_read_slice", CHECK_BITS, 0, 16, 3, 0);
}

void cases_roof_int8(struct check *check)
{
    run(check, "roof_int8", CHECK_BITS, 0, 13, 5, 9);
    run(check, "roof_int8", CHECK_BITS, 0, 40, 40, 100);
}

// Small whole numbers and halves: exact in f32, so the bits must agree although words past `threads` are floats too.
void cases_roof_f32(struct check *check)
{
    run(check, "roof_f32", CHECK_BITS, 0, 13, 5, 9);
    run(check, "roof_f32", CHECK_BITS, 0, 40, 40, 14);
}
