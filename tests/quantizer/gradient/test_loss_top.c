// The divergence over the likeliest tokens: against sorting, of all tokens the whole divergence, its gradient by
// differences, and where numbers are alike or none.
#include "quantizer/gradient/rules.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { ROWS = 3, N = 61 };

static uint64_t state = 5;
static float uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(state >> 11) * 0x1p-53 * 8 - 4);
}

static const float *sorted;
static int by_size(const void *a, const void *b)
{
    const int i = *(const int *)a, j = *(const int *)b;
    return sorted[i] > sorted[j] ? -1 : sorted[i] < sorted[j] ? 1 : i - j;
}

static double slow(const float *t, const float *s, uint64_t top)
{
    double sum = 0;
    for (int r = 0; r < ROWS; r++, t += N, s += N) {
        int order[N];
        double t_sum = 0, s_sum = 0;
        for (int i = 0; i < N; i++) {
            order[i] = i;
            t_sum += exp((double)t[i]);
            s_sum += exp((double)s[i]);
        }
        sorted = t;
        qsort(order, N, sizeof *order, by_size);
        for (uint64_t k = 0; k < top && k < N; k++) {
            const double p = exp((double)t[order[k]]) / t_sum, q = exp((double)s[order[k]]) / s_sum;
            sum += p * log(p / q);
        }
    }
    return sum;
}

static void against_sorting(void **unused)
{
    (void)unused;
    static const uint64_t tops[] = {1, 2, 17, N - 1, N, 1000};
    float t[ROWS * N], s[ROWS * N], g[ROWS * N];
    for (int trial = 0; trial < 12; trial++) {
        for (int i = 0; i < ROWS * N; i++) {
            t[i] = trial % 2 ? floorf(uniform()) : uniform(); // with many alike
            s[i] = uniform();
        }
        const uint64_t top = tops[trial / 2];
        const double want = slow(t, s, top), have = gyre_back_kl_top(t, s, ROWS, N, top, 0.5, g);
        assert_true(fabs(want - have) < 1e-9);
        assert_true(gyre_back_kl_top(t, s, ROWS, N, top, 0.5, NULL) == have);
        if (top >= N) assert_true(fabs(have - gyre_back_divergence(t, s, ROWS, N)) < 1e-5);
        for (int i = 0; i < ROWS * N; i += 7) {
            const float was = s[i];
            double y[2];
            for (int side = 0; side < 2; side++) {
                s[i] = was + (side ? 0x1p-10f : -0x1p-10f);
                y[side] = slow(t, s, top);
            }
            s[i] = was;
            assert_true(fabs(0.5 * (y[1] - y[0]) / 0x1p-9 - (double)g[i]) < 1e-6);
        }
    }
}

static void what_is_no_number_stays_none(void **unused)
{
    (void)unused;
    for (int side = 0; side < 2; side++) {
        float t[ROWS * N], s[ROWS * N];
        for (int i = 0; i < ROWS * N; i++) t[i] = uniform(), s[i] = uniform();
        (side ? s : t)[5] = NAN;
        assert_true(isnan(gyre_back_kl_top(t, s, ROWS, N, 9, 1, NULL)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_sorting),
                                       cmocka_unit_test(what_is_no_number_stays_none)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
