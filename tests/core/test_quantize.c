// The run-time quantizers on floats are those of shaders/quantize.k.h and shaders/kv.k.h.
#include "runtime/core/quantize.h"
#include "runtime/util/half.h"
#include "runtime/util/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

enum { HD = 8 };

static float draw(struct gyre_rng *rng, double size) { return (float)(size * (gyre_rng_unit(rng) - 0.5)); }

static float within(float x, float lo, float hi) { return x < lo ? lo : x > hi ? hi : x; }

// shaders/quantize.k.h, line by line; `slack` is what one code is worth.
static void quantize_row(const float *x, uint32_t n, uint32_t bits, float clip, float *y, float *slack)
{
    float lo = 0, hi = 0;
    for (uint32_t i = 0; i < n; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    const float scale = (bits == 8 ? fmaxf(-lo, hi) : hi - lo) * clip * (bits == 8 ? 1.0f / 127 : 1.0f / 15),
                inverse = scale > 0 ? 1 / scale : 0, zero = bits == 8 ? 0 : fminf(rintf(-lo * clip * inverse), 15);
    for (uint32_t i = 0; i < n; i++)
        y[i] = (within(rintf(x[i] * inverse) + zero, bits == 8 ? -128 : 0, bits == 8 ? 127 : 15) - zero) * scale;
    *slack = scale;
}

static void row_quantizer_is_the_shaders(void **state)
{
    (void)state;
    enum { N = 77, R = 200 };
    static const float clips[] = {1, 0.9f};
    static float x[R * N], y[R * N], want[N];
    for (uint32_t bits = 4; bits <= 8; bits += 4)
        for (int c = 0; c < 2; c++) {
            struct gyre_rng rng = gyre_rng_seed(bits);
            uint64_t ties = 0;
            for (int i = 0; i < R * N; i++) x[i] = draw(&rng, 2) + (i / N % 5 == 1 ? 3 : i / N % 5 == 2 ? -3 : 0);
            memset(x + 9 * N, 0, N * sizeof *x);                      // nothing
            for (int i = 0; i < N; i++) x[10 * N + i] *= i ? 0 : 100; // one outlier
            for (int i = 0; i < N; i++) x[11 * N + i] *= 1e-20f;
            memcpy(y, x, sizeof x);
            gyre_quantize_rows(y, R, N, bits, clips[c], 0);
            for (int r = 0; r < R; r++) {
                float slack;
                quantize_row(x + r * N, N, bits, clips[c], want, &slack);
                for (int i = 0; i < N; i++) {
                    const double off = fabs((double)y[r * N + i] - (double)want[i]);
                    ties += off > 1e-4 * (double)slack;
                    assert_true(off <= 1.01 * (double)slack);
                    if (clips[c] == 1) // and no further from the value than half a code, at A4 plus the zero's rounding
                        assert_true(fabs((double)y[r * N + i] - (double)x[r * N + i]) <=
                                    (bits == 8 ? 0.501 : 1.001) * (double)slack);
                }
            }
            assert_true(ties <= 2);
            for (int i = 0; i < N; i++) assert_true(y[9 * N + i] == 0);
        }
    memcpy(y, x, sizeof x);
    gyre_quantize_rows(y, R, N, 16, 0.5f, 0);
    assert_memory_equal(x, y, sizeof x);
}

// From the definition in shaders/params.h, in double: of every group at most 16 levels, m times an eighth of the
// greatest step apart, the nearest of them to each value; m is nearest to the group's own step.
static void groups_have_levels_of_their_own(void **state)
{
    (void)state;
    enum { SPAN = 12, N = 7 * SPAN, R = 60 };
    static const float clips[] = {1, 0.9f};
    static float x[R * N], y[R * N];
    for (int c = 0; c < 2; c++) {
        struct gyre_rng rng = gyre_rng_seed(5);
        bool multiple[9] = {0};
        for (int i = 0; i < R * N; i++) // groups of very different size, some all above or below 0, some all 0
            x[i] = i / SPAN % 11 == 3 ? 0 : ldexpf(draw(&rng, 2), -(i / SPAN % 4)) + (i / SPAN % 5 == 1 ? 0.7f : 0);
        memset(x + 9 * N, 0, N * sizeof *x);
        memcpy(y, x, sizeof x);
        gyre_quantize_rows(y, R, N, 4, clips[c], SPAN);
        for (int r = 0; r < R; r++) {
            double step[N / SPAN], low[N / SPAN], top = 0;
            for (int g = 0; g < N / SPAN; g++) {
                double lo = 0, hi = 0;
                for (int i = g * SPAN; i < (g + 1) * SPAN; i++) {
                    lo = fmin(lo, (double)x[r * N + i]);
                    hi = fmax(hi, (double)x[r * N + i]);
                }
                step[g] = (hi - lo) * (double)clips[c] / 15;
                low[g] = lo * (double)clips[c];
                top = fmax(top, step[g]);
            }
            for (int g = 0; g < N / SPAN; g++) {
                const double times = top > 0 ? fmin(fmax(rint(8 * step[g] / top), 1), 8) : 1, by = times * top / 8,
                             zero = by > 0 ? fmin(rint(-low[g] / by), 15) : 0;
                multiple[(int)times] |= step[g] > 0;
                for (int i = r * N + g * SPAN; i < r * N + (g + 1) * SPAN; i++) {
                    const double level = by > 0 ? fmin(fmax(rint((double)x[i] / by) + zero, 0), 15) - zero : 0;
                    assert_true(fabs((double)y[i] - by * level) <= 1e-5 * by);
                    assert_true(x[i] != 0 || y[i] == 0);
                }
            }
        }
        assert_true(multiple[8] && multiple[4] && multiple[1]);
    }
    assert_int_equal(gyre_quantize_span(32, 4, 96), 32);
    assert_int_equal(gyre_quantize_span(32, 8, 96), 0);
    assert_int_equal(gyre_quantize_span(64, 4, 96), 0);
    assert_int_equal(gyre_quantize_span(0, 4, 96), 0);
}

static void cache_quantizer_is_the_shaders(void **state)
{
    (void)state;
    enum { R = 300 };
    static const float clips[] = {1, 0.9f};
    static float x[R * HD], y[R * HD];
    for (uint32_t bits = 4; bits <= 16; bits *= 2)
        for (int c = 0; c < 2; c++) {
            struct gyre_rng rng = gyre_rng_seed(bits);
            for (int i = 0; i < R * HD; i++) x[i] = draw(&rng, 2) + (i / HD % 5 == 1 ? 3 : i / HD % 5 == 2 ? -3 : 0);
            memset(x + 9 * HD, 0, HD * sizeof *x);
            for (int i = 0; i < HD; i++) x[11 * HD + i] *= 1e-12f; // a scale below f16's least
            memcpy(y, x, sizeof x);
            gyre_quantize_cache(y, R, HD, bits, clips[c]);
            for (int r = 0; r < R; r++) {
                float lo = 0, hi = 0;
                for (int i = 0; i < HD; i++) {
                    lo = fminf(lo, x[r * HD + i]);
                    hi = fmaxf(hi, x[r * HD + i]);
                }
                const float most = bits == 8 ? 255 : 15, scale = gyre_round_to_f16((hi - lo) * clips[c] / most),
                            zero = scale > 0 ? within(rintf((0 - lo) * clips[c] / scale), 0, most) : 0;
                for (int i = 0; i < HD; i++) {
                    const float v = x[r * HD + i],
                                want = bits == 16  ? gyre_round_to_f16(v)
                                       : scale > 0 ? (within(rintf(v / scale) + zero, 0, most) - zero) * scale
                                                   : 0;
                    assert_true(y[r * HD + i] == want);
                }
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(row_quantizer_is_the_shaders),
        cmocka_unit_test(groups_have_levels_of_their_own),
        cmocka_unit_test(cache_quantizer_is_the_shaders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
