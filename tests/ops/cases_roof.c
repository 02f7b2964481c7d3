// Cases of the benchmark ceilings: they must do the work they claim.
#include "tests/ops/check.h"
#include "runtime/util/base.h"

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

// Rounds are odd: of an even number nothing is left.
void cases_roof_matrix(struct check *check)
{
    const struct gyre_device_info *info = gyre_device_info(check->device);
    static const struct gyre_matrix_shape none = {8, 8, 8, 8}; // check_run leaves the case out
    static const int counts[] = {1000, 7, 64}, loops[] = {1, 5, 3};
    for (int f16 = 0; f16 < 2; f16++)
        for (size_t i = 0; i < GYRE_COUNT(counts); i++) {
            const struct gyre_matrix_shape *own = f16 ? &info->matrix_f16 : &info->matrix_s8, *m = own->m ? own : &none;
            const uint32_t subgroups = i ? 4 : 1, group = m->lanes * subgroups, threads = 3 * group - 2 * (uint32_t)i;
            const struct gyre_roof_params p = {(int32_t)threads, counts[i], loops[i]};
            const struct check_case c = {
                .kernel = f16 ? "roof_matrix_f16" : "roof_matrix_s8",
                .params = &p,
                .n_spec = 6,
                .spec = {m->lanes, subgroups, 1, m->m, m->n, m->k},
                .groups = {3},
                .bind = {{.size = 4 * (size_t)threads, .rule = f16 ? CHECK_NMSE : CHECK_BITS, .bound = 1e-10},
                         {.data = check_words(check, 4 * (size_t)counts[i], ~0u), .size = 16 * (size_t)counts[i]}},
            };
            check_run(check, &c, "threads %u count %d loops %d", threads, counts[i], loops[i]);
        }
}
