// A step on the orthogonal matrices: stays there, goes down, is the closed form, and refuses what is no number.
#include "tests/common/ok.h"
#include "quantizer/learn/cayley.h"
#include "quantizer/transform/matrices.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N = 24 };
static uint64_t state = 7;
static double uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) * 0x1p-53 - 0.5;
}

static void identity(double *r)
{
    for (int i = 0; i < N * N; i++) r[i] = i / N == i % N;
}

static double drift(const double *r)
{
    double worst = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double dot = -(double)(i == j);
            for (int k = 0; k < N; k++) dot += r[i * N + k] * r[j * N + k];
            worst = fmax(worst, fabs(dot));
        }
    return worst;
}

// f(R) = sum of (A R)^4, whose gradient is 4 A' (A R)^3.
static double fourth(const double *a, const double *r, double *gradient)
{
    double sum = 0, y[N * N];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            y[i * N + j] = 0;
            for (int k = 0; k < N; k++) y[i * N + j] += a[i * N + k] * r[k * N + j];
            sum += pow(y[i * N + j], 4);
        }
    for (int k = 0; k < N; k++)
        for (int j = 0; j < N; j++) {
            gradient[k * N + j] = 0;
            for (int i = 0; i < N; i++) gradient[k * N + j] += 4 * a[i * N + k] * pow(y[i * N + j], 3);
        }
    return sum;
}

static void steps_go_down_and_stay_orthogonal(void **unused)
{
    (void)unused;
    double a[N * N], r[N * N], g[N * N];
    for (int i = 0; i < N * N; i++) a[i] = uniform() * (i % 5 ? 0.1 : 3);
    identity(r);
    const double first = fourth(a, r, g);
    double last = first, at = first;
    for (int s = 0; s < 200; s++) {
        OK(gyre_cayley_step(r, g, N, 0.05 * (1 - s / 200.0), err));
        last = at;
        at = fourth(a, r, g);
        assert_true(drift(r) < 1e-13);
    }
    printf("sum of fourth powers %.3f -> %.3f, drift %.1e\n", first, at, drift(r));
    assert_true(at < 0.7 * first && fabs(at - last) < 1e-3 * first);
}

// R (I - a/2 W) = R+ (I + a/2 W) with W = -(G'R - R'G) / 2: checked without solving anything.
static void the_step_is_cayleys(void **unused)
{
    (void)unused;
    double r[N * N], before[N * N], g[N * N], w[N * N], norm = 0;
    identity(r);
    for (int s = 0; s < 3; s++) {
        for (int i = 0; i < N * N; i++) g[i] = uniform();
        memcpy(before, r, sizeof r);
        OK(gyre_cayley_step(r, g, N, s ? 0.01 : 5, err)); // the cap, then the rate
        norm = 0;
        for (int i = 0; i < N; i++) {
            double sum = 0;
            for (int j = 0; j < N; j++) {
                w[i * N + j] = 0;
                for (int k = 0; k < N; k++)
                    w[i * N + j] -= 0.5 * (g[k * N + i] * before[k * N + j] - before[k * N + i] * g[k * N + j]);
                sum += fabs(w[i * N + j]);
            }
            norm = fmax(norm, sum);
        }
        const double half = 0.5 * fmin(s ? 0.01 : 5, 1 / (norm + 1e-8));
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                double left = before[i * N + j], right = r[i * N + j];
                for (int k = 0; k < N; k++) {
                    left -= half * before[i * N + k] * w[k * N + j];
                    right += half * r[i * N + k] * w[k * N + j];
                }
                assert_true(fabs(left - right) < 1e-12);
            }
    }
}

static void no_numbers_are_refused(void **unused)
{
    (void)unused;
    double r[N * N], before[N * N], g[N * N] = {0};
    gyre_error why = {0};
    identity(r);
    memcpy(before, r, sizeof r);
    OK(gyre_cayley_step(r, g, N, 1, err)); // nowhere to go
    assert_memory_equal(r, before, sizeof r);
    g[5] = NAN;
    assert_int_equal(gyre_cayley_step(r, g, N, 1, &why), GYRE_E_FORMAT);
    assert_non_null(strstr(why.message, "not finite"));
    assert_memory_equal(r, before, sizeof r);
}

// x R and R' w on both strides, and back.
static void dense_rotations_are_undone(void **unused)
{
    (void)unused;
    enum { COUNT = 150 };
    double r[N * N], g[N * N], *x = malloc(COUNT * N * sizeof *x), *y = malloc(COUNT * N * sizeof *y);
    identity(r);
    for (int s = 0; s < 5; s++) {
        for (int i = 0; i < N * N; i++) g[i] = uniform();
        OK(gyre_cayley_step(r, g, N, 1, err));
    }
    for (int columns = 0; columns < 2; columns++) {
        const uint64_t stride = columns ? COUNT : 1, step = columns ? 1 : N;
        for (int i = 0; i < COUNT * N; i++) y[i] = x[i] = uniform();
        OK(gyre_dense_apply(r, N, y, stride, COUNT, step, false, err));
        for (uint64_t v = 0; v < COUNT; v += 37)
            for (uint64_t i = 0; i < N; i++) {
                double want = 0;
                for (uint64_t k = 0; k < N; k++) want += x[k * stride + v * step] * r[k * N + i];
                assert_true(fabs(want - y[i * stride + v * step]) < 1e-13);
            }
        OK(gyre_dense_apply(r, N, y, stride, COUNT, step, true, err));
        for (int i = 0; i < COUNT * N; i++) assert_true(fabs(x[i] - y[i]) < 1e-13);
    }
    free(x);
    free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_go_down_and_stay_orthogonal),
        cmocka_unit_test(the_step_is_cayleys),
        cmocka_unit_test(no_numbers_are_refused),
        cmocka_unit_test(dense_rotations_are_undone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
