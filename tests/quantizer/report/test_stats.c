// Statistics of activations where they are known by hand, and heat maps.
#include "quantizer/report/stats.h"
#include "runtime/util/base.h"
#include "runtime/util/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

static struct gyre_tap_stats measure(const float *x, uint64_t rows, uint64_t width)
{
    struct gyre_tap_stats s;
    gyre_error err = {0};
    if (gyre_tap_measure(x, rows, width, &s, &err)) fail_msg("%s", err.message);
    return s;
}

static void near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance)) fail_msg("%g is not %g +- %g", got, want, tolerance);
}

static void constant_rows(void **state)
{
    (void)state;
    float x[3 * 7];
    for (int i = 0; i < 21; i++) x[i] = 2.5f;
    const struct gyre_tap_stats s = measure(x, 3, 7);
    near(s.max_rms_median, 1, 1e-12);
    near(s.max_rms_max, 1, 1e-12);
    near(s.int4_error, 0, 1e-12);   // the greatest code is exact
    assert_true(isnan(s.kurtosis)); // nothing varies
    for (int i = 0; i < 21; i++) x[i] = i % 2 ? 3 : -3;
    near(measure(x, 3, 6).kurtosis, 1, 1e-12);
}

static void one_spike_a_row(void **state)
{
    (void)state;
    enum { ROWS = 5, N = 101 };
    float x[ROWS * N] = {0};
    for (int r = 0; r < ROWS; r++) x[r * N + 7 * r] = r % 2 ? -40 : 9;
    const struct gyre_tap_stats s = measure(x, ROWS, N);
    near(s.max_rms_median, sqrt(N), 1e-9);
    near(s.max_rms_max, sqrt(N), 1e-9);
    near(s.int4_error, 0, 1e-12);
}

// The median is of tokens; the first token is among them, but not in the kurtosis; rows of zeros are in neither ratio.
static void tokens_count_as_said(void **state)
{
    (void)state;
    enum { N = 16 };
    float x[4 * N] = {0};
    x[3] = 1000;                                                                          // the sink: sqrt(16)
    for (int i = 0; i < N; i++) x[N + i] = i % 2 ? 1 : -1, x[3 * N + i] = i % 2 ? -1 : 1; // row 2 stays 0
    struct gyre_tap_stats s = measure(x, 4, N);
    near(s.max_rms_median, 1, 1e-12); // of 1, 1, 4
    near(s.max_rms_max, 4, 1e-12);
    near(s.kurtosis, 1.5, 1e-12); // a third zeros: m2 = 2/3, m4 = 2/3
    s = measure(x, 2, N);
    near(s.max_rms_median, 2.5, 1e-12); // an even number: the middle two
    s = measure(x, 1, N);
    near(s.max_rms_median, 4, 1e-12);
    assert_true(isnan(s.kurtosis));
}

static void known_distributions(void **state)
{
    (void)state;
    enum { ROWS = 257, N = 1000 };
    float *x = malloc(sizeof(float) * ROWS * N);
    assert_non_null(x);
    struct gyre_rng rng = gyre_rng_seed(1);
    for (int i = 0; i < ROWS * N; i++) // Box and Muller
        x[i] = (float)(sqrt(-2 * log(1 - gyre_rng_unit(&rng))) * cos(6.283185307179586 * gyre_rng_unit(&rng)));
    struct gyre_tap_stats s = measure(x, ROWS, N);
    near(s.kurtosis, 3, 0.05);
    near(s.max_rms_median, sqrt(2 * log(N)), 0.6);
    assert_true(s.max_rms_max > s.max_rms_median && s.max_rms_max < 6);
    // scale^2 / 12 with scale = about 2 * 3.24 / 15, the expected range of 1000 draws
    near(s.int4_error, 0.0156, 0.002);
    for (int i = 0; i < ROWS * N; i++) x[i] = (float)(2 * gyre_rng_unit(&rng) - 1);
    s = measure(x, ROWS, N);
    near(s.kurtosis, 1.8, 0.02);
    near(s.max_rms_median, sqrt(3), 0.01);
    near(s.int4_error, 4.0 / (15 * 15 * 12) * 3, 3e-4); // step 2/15, power 1/3
    free(x);
}

static void what_cannot_be_measured(void **state)
{
    (void)state;
    const float odd[6] = {1, 2, 3, 4, NAN, 6}, zeros[6] = {0};
    struct gyre_tap_stats s = measure(odd, 2, 3);
    assert_true(isnan(s.max_rms_median) && isnan(s.max_rms_max) && isnan(s.kurtosis) && isnan(s.int4_error));
    s = measure(zeros, 2, 3);
    assert_true(isnan(s.max_rms_median) && isnan(s.max_rms_max) && isnan(s.kurtosis) && isnan(s.int4_error));
    s = measure(zeros, 0, 3);
    assert_true(isnan(s.max_rms_median));
}

static void heat_maps(void **state)
{
    (void)state;
    enum { T = 5, N = 1000 };
    static float x[T * N];
    static struct gyre_heat_map whole, pieces;
    for (int i = 0; i < T * N; i++) x[i] = 0.5f;
    x[2 * N + 777] = -30; // one outlier survives down-sampling
    gyre_heat_begin(&whole, T, N);
    assert_int_equal(whole.rows, T);
    assert_int_equal(whole.cols, GYRE_HEAT_SIDE);
    gyre_heat_add(&whole, 0, T, x);
    for (uint32_t r = 0; r < T; r++)
        for (uint32_t c = 0; c < whole.cols; c++)
            assert_true(whole.cell[r * whole.cols + c] == (r == 2 && c == 777 * GYRE_HEAT_SIDE / N ? 30 : 0.5f));
    gyre_heat_begin(&pieces, T, N);
    gyre_heat_add(&pieces, 3, 2, x + 3 * N);
    gyre_heat_add(&pieces, 0, 3, x);
    gyre_heat_add(&pieces, T - 1, 3, x + 2 * N); // rows 5 and 6 are not there; row 4 gets the outlier
    assert_true(pieces.cell[4 * pieces.cols + 777 * GYRE_HEAT_SIDE / N] == 30);
    pieces.cell[4 * pieces.cols + 777 * GYRE_HEAT_SIDE / N] = 0.5f;
    assert_memory_equal(&whole, &pieces, sizeof whole);

    unsigned char *png, *again, colour[3], dark[3];
    size_t bytes, more;
    assert_int_equal(gyre_heat_png(&whole, 30, &png, &bytes, NULL), GYRE_OK);
    assert_int_equal(gyre_heat_png(&whole, 30, &again, &more, NULL), GYRE_OK);
    assert_int_equal(bytes, more);
    assert_memory_equal(png, again, bytes);
    assert_memory_equal(png, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x60\0\0\0\x05\x08\x02", 26);
    free(png);
    free(again);
    gyre_heat_colour(1, colour);
    gyre_heat_colour(-1, dark);
    assert_int_equal(colour[0], 252);
    assert_int_equal(dark[2], 4);
    whole.cell[0] = INFINITY;
    assert_int_equal(gyre_heat_png(&whole, (double)NAN, &png, &bytes, NULL), GYRE_OK);
    free(png);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constant_rows),           cmocka_unit_test(one_spike_a_row),
        cmocka_unit_test(tokens_count_as_said),    cmocka_unit_test(known_distributions),
        cmocka_unit_test(what_cannot_be_measured), cmocka_unit_test(heat_maps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
