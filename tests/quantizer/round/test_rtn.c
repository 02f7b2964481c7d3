// Properties of rounding to nearest: bounds, the clip search, what happens to zeros, tiny, huge and broken weights.
#include "quantizer/round/rtn.h"
#include "runtime/util/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { ROWS = 9, COLS = 480 };
static float w[ROWS * COLS], v[ROWS * COLS];
static int8_t code[ROWS * COLS];
static uint16_t scale[ROWS * COLS];

static void fill_normal(float spread)
{
    uint32_t s = 1;
    for (int i = 0; i < ROWS * COLS; i++) {
        double sum = 0; // twelve uniforms: close to normal, no tails
        for (int j = 0; j < 12; j++) sum += (double)((s = s * 1664525u + 1013904223u) >> 8) / (1 << 24) - 0.5;
        w[i] = (float)(sum * spread);
    }
}

static struct gyre_codes grid(uint32_t bits, uint32_t group)
{
    return (struct gyre_codes){.bits = bits, .group = group, .code = code, .scale = scale};
}

static double error_of(uint32_t bits, uint32_t group)
{
    struct gyre_codes c = grid(bits, group);
    assert_int_equal(gyre_rtn(w, ROWS, COLS, &c, NULL), GYRE_OK);
    gyre_codes_expand(&c, ROWS, COLS, v);
    return gyre_relative_error(w, v, NULL, ROWS, COLS);
}

static void errors_are_those_of_a_normal_distribution(void **state)
{
    (void)state;
    fill_normal(0.02f);
    // Known figures for symmetric int4 with a searched clip: .0074, .0090, .0102 (g 32, 64, 128).
    const double e32 = error_of(4, 32), e96 = error_of(4, 96), all = error_of(4, COLS);
    assert_true(e32 > 0.006 && e32 < 0.0085);
    assert_true(e96 > e32 && e96 < 0.0110);
    assert_true(all > e96 && all < 0.0135);
    assert_true(error_of(8, COLS) < 1e-4);
    // An unsearched scale is worse.
    double plain = 0, norm = 0;
    for (int r = 0; r < ROWS; r++) {
        float max = 0;
        for (int i = 0; i < COLS; i++) max = fmaxf(max, fabsf(w[r * COLS + i]));
        for (int i = 0; i < COLS; i++) {
            const double x = w[r * COLS + i], s = max / 7, d = x - s * rint(x / s);
            plain += d * d;
            norm += x * x;
        }
    }
    assert_true(all < 0.8 * plain / norm);
}

static void codes_and_scales_stay_in_range(void **state)
{
    (void)state;
    fill_normal(3.0f);
    for (uint32_t bits = 4; bits <= 8; bits += 4) {
        error_of(bits, 40);
        for (int i = 0; i < ROWS * COLS; i++)
            assert_in_range(code[i] + 128, bits == 4 ? 120 : 0, bits == 4 ? 135 : 255);
        for (int g = 0; g < ROWS * COLS / 40; g++) {
            const float s = gyre_f32_from_f16(scale[g]);
            assert_true(s > 0 && isfinite(s));
        }
    }
}

static void values_on_the_grid_are_kept(void **state)
{
    (void)state;
    for (int i = 0; i < ROWS * COLS; i++) w[i] = 0.25f * (float)(i % 15 - 7);
    assert_true(error_of(4, 32) == 0);
    assert_true(error_of(4, COLS) == 0);
}

static void edges_are_defined(void **state)
{
    (void)state;
    fill_normal(1);
    memset(w + COLS, 0, COLS * sizeof *w);                                    // a row of zeros
    for (int i = 0; i < COLS; i++) w[2 * COLS + i] = i % 2 ? 1e-9f : -1e-9f;  // below f16's subnormals
    for (int i = 0; i < COLS; i++) w[3 * COLS + i] *= 1e-6f;                  // subnormal scales
    for (int i = 0; i < COLS; i++) w[4 * COLS + i] = i ? 0.0f : 60000.0f * 7; // the largest scales
    assert_true(error_of(4, COLS) > 0);
    for (int row = 1; row < 3; row++) {
        assert_int_equal(scale[row], 0);
        for (int i = 0; i < COLS; i++) assert_int_equal(code[row * COLS + i], 0);
    }
    assert_true(gyre_f32_from_f16(scale[3]) > 0 && isfinite(gyre_f32_from_f16(scale[4])));
    for (int i = 0; i < ROWS * COLS; i++) assert_true(isfinite(v[i]));
}

static void broken_weights_are_named(void **state)
{
    (void)state;
    static const float broken[] = {NAN, INFINITY, -INFINITY, 1e9f};
    for (int i = 0; i < 4; i++) {
        fill_normal(1);
        w[3 * COLS + 17] = broken[i];
        struct gyre_codes c = grid(4, 32);
        gyre_error err = {0};
        assert_int_equal(gyre_rtn(w, ROWS, COLS, &c, &err), GYRE_E_FORMAT);
        assert_non_null(strstr(err.message, "row 3, column 17"));
    }
    struct gyre_codes c = grid(4, 50);
    assert_int_equal(gyre_rtn(w, ROWS, COLS, &c, NULL), GYRE_E_INVALID);
}

// A relative error needs a size: zeros and what no f16 scale can hold have none.
static void zeros_have_another_measure(void **state)
{
    (void)state;
    static float zero[ROWS * COLS], off[ROWS * COLS];
    for (int i = 0; i < ROWS * COLS; i++) off[i] = 0.01f;
    assert_true(gyre_relative_error(zero, zero, NULL, ROWS, COLS) == 0);
    assert_true(fabs(gyre_relative_error(zero, off, NULL, ROWS, COLS) - 1e-4) < 1e-9); // mean squared
    fill_normal(1e-9f);
    assert_true(gyre_relative_error(w, zero, NULL, ROWS, COLS) < 1e-15);
    fill_normal(1e-5f); // still a size
    assert_true(fabs(gyre_relative_error(w, zero, NULL, ROWS, COLS) - 1) < 1e-6);
    assert_true(gyre_is_faint(0, 5) && !gyre_is_faint(1e-9, 5));
}

// Rows that scales cannot hold are counted; zeros are held.
static void faint_rows_are_counted(void **state)
{
    (void)state;
    struct gyre_codes c = grid(4, 32);
    fill_normal(0.02f);
    assert_int_equal(gyre_rtn(w, ROWS, COLS, &c, NULL), GYRE_OK);
    assert_int_equal(gyre_codes_faint(&c, w, ROWS, COLS), 0);
    for (int i = 0; i < COLS; i++) {
        w[i] = 0;
        w[COLS + i] *= 1e-6f;                  // every scale a few steps
        w[2 * COLS + i] *= 1e-12f;             // none
        if (i >= 32) w[3 * COLS + i] *= 1e-6f; // but one group
    }
    assert_int_equal(gyre_rtn(w, ROWS, COLS, &c, NULL), GYRE_OK);
    assert_int_equal(gyre_codes_faint(&c, w, ROWS, COLS), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zeros_have_another_measure),
        cmocka_unit_test(faint_rows_are_counted),
        cmocka_unit_test(errors_are_those_of_a_normal_distribution),
        cmocka_unit_test(codes_and_scales_stay_in_range),
        cmocka_unit_test(values_on_the_grid_are_kept),
        cmocka_unit_test(edges_are_defined),
        cmocka_unit_test(broken_weights_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
