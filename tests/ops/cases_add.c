// Cases of add.
#include "tests/ops/check.h"

void cases_add(struct check *check)
{
    const int counts[] = {1, 3, 63, 64, 65, 1000};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const size_t n = (size_t)counts[i];
        const struct gyre_add_params p = {.count = counts[i]};
        const struct check_case c = {
            .kernel = "add",
            .params = &p,
            .n_spec = 3,
            .spec = {32, 1, 1},
            .groups = {(uint32_t)(n + 31) / 32},
            .bind = {{.size = 4 * (n + 5), .rule = CHECK_BITS},
                     {.data = check_normal(check, n, 1), .size = 4 * n},
                     {.data = check_normal(check, n, 3), .size = 4 * n}},
        };
        check_run(check, &c, "count %d", counts[i]);
    }
}
