// What improves codes that are there (descent, refit), ADMM, and the target correction, against their definitions.
#include "runtime/util/half.h"
#include "tests/quantizer/round/problem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const struct {
    uint64_t rows, cols;
    uint32_t group;
} shapes[] = {{7, 37, 0}, {5, 64, 32}, {5, 64, 64}, {9, 150, 0}, {9, 160, 32}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void make(struct problem *p, int s, bool act_order)
{
    problem_make(p, shapes[s].rows, shapes[s].cols, shapes[s].group, 0.9, act_order, 100 + (uint64_t)s);
    const struct gyre_stage rtn = {.kind = GYRE_STAGE_RTN, .clip = GYRE_CLIP_HESSIAN};
    assert_int_equal(gyre_stage_rtn(&rtn, &p->r, NULL), GYRE_OK);
}

// ---- descent ------------------------------------------------------------------------------------------------

static void descent_ends_in_a_local_minimum(void **state)
{
    (void)state;
    const struct gyre_stage once = {.kind = GYRE_STAGE_DESCENT, .iterations = 1},
                            many = {.kind = GYRE_STAGE_DESCENT, .iterations = 200};
    for (int s = 0; s < SHAPES; s++) {
        struct problem p;
        make(&p, s, s % 2);
        const uint64_t n = p.rows * p.cols;
        double before[16];
        int8_t *codes = malloc(n);
        uint16_t *scales = malloc(n * sizeof *scales);
        memcpy(scales, p.codes.scale, n / p.group * sizeof *scales);
        for (uint64_t row = 0; row < p.rows; row++) before[row] = problem_row_error(&p, row);
        for (int pass = 0; pass < 3; pass++) {
            assert_int_equal(gyre_stage_descent(pass == 2 ? &many : &once, &p.r, NULL), GYRE_OK);
            for (uint64_t row = 0; row < p.rows; row++) {
                const double now = problem_row_error(&p, row);
                assert_true(pass ? now <= before[row] * (1 + 1e-12) : now < 0.9 * before[row]);
                before[row] = now;
            }
        }
        assert_memory_equal(scales, p.codes.scale, n / p.group * sizeof *scales);
        // No other value of any one code is better, with the gradient made afresh.
        for (uint64_t row = 0; row < p.rows; row++)
            for (uint64_t i = 0; i < p.cols; i++) {
                double gradient = 0;
                for (uint64_t j = 0; j < p.cols; j++)
                    gradient +=
                        p.factor.h[i * p.cols + j] *
                        (problem_scale(&p, row, j) * p.codes.code[row * p.cols + j] - p.r.target[row * p.cols + j]);
                for (int q = -8; q < 8; q++) {
                    const double d = (q - p.codes.code[row * p.cols + i]) * problem_scale(&p, row, i);
                    assert_true(2 * d * gradient + d * d * p.factor.h[i * p.cols + i] > -1e-9 * before[row]);
                }
            }
        memcpy(codes, p.codes.code, n);
        assert_int_equal(gyre_stage_descent(&many, &p.r, NULL), GYRE_OK);
        assert_memory_equal(codes, p.codes.code, n);
        free(codes);
        free(scales);
        problem_free(&p);
    }
}

// ---- refit --------------------------------------------------------------------------------------------------

// The least-squares scales of a row, zero-code groups 0, by elimination.
static void best_scales(const struct problem *p, uint64_t row, double *s)
{
    const uint64_t n = p->cols, groups = n / p->group;
    const int8_t *code = p->codes.code + row * n;
    double *a = calloc(groups * groups, sizeof *a);
    memset(s, 0, groups * sizeof *s);
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = 0; j < n; j++) {
            const double h = code[i] * p->factor.h[i * n + j];
            a[i / p->group * groups + j / p->group] += h * code[j];
            s[i / p->group] += h * p->r.target[row * n + j];
        }
    for (uint64_t g = 0; g < groups; g++)
        if (a[g * groups + g] == 0) a[g * groups + g] = 1;
    dense_solve(a, groups, s, 1);
    free(a);
}

static void refit_is_least_squares(void **state)
{
    (void)state;
    for (int s = 0; s < SHAPES; s++) {
        struct problem p;
        make(&p, s, false);
        const uint64_t groups = p.cols / p.group;
        double before[16], want[8];
        int8_t codes[9 * 160];
        memcpy(codes, p.codes.code, p.rows * p.cols);
        for (uint64_t row = 0; row < p.rows; row++) before[row] = problem_row_error(&p, row);
        assert_int_equal(gyre_stage_refit(&p.r, NULL), GYRE_OK);
        assert_memory_equal(codes, p.codes.code, p.rows * p.cols);
        int fitted = 0;
        for (uint64_t row = 0; row < p.rows; row++) {
            bool same = true;
            best_scales(&p, row, want);
            assert_true(problem_row_error(&p, row) <= before[row] * (1 + 1e-12));
            for (uint64_t g = 0; g < groups; g++) {
                const float scale = (float)problem_scale(&p, row, g * p.group);
                assert_true(scale >= 0 && isfinite(scale));
                same &= scale == gyre_round_to_f16((float)want[g]);
            }
            fitted += same;
            if (problem_row_error(&p, row) < 0.999 * before[row]) assert_true(same);
        }
        assert_true(fitted >= (int)p.rows / 2);
        problem_free(&p);
    }
}

// Scales that are the best there are in f16 stay, whatever lies in the scales of groups without codes.
static void refit_ignores_empty_groups(void **state)
{
    (void)state;
    struct gyre_rng rng = gyre_rng_seed(9);
    struct problem p;
    int better = 0;
    problem_make(&p, 40, 128, 32, 0.98, false, 120);
    const struct gyre_stage rtn = {.kind = GYRE_STAGE_RTN, .clip = GYRE_CLIP_HESSIAN};
    assert_int_equal(gyre_stage_rtn(&rtn, &p.r, NULL), GYRE_OK);
    for (uint64_t row = 0; row < 40; row++) memset(p.codes.code + row * 128 + 32, 0, 32);
    assert_int_equal(gyre_stage_refit(&p.r, NULL), GYRE_OK);
    double before[40];
    for (uint64_t row = 0; row < 40; row++) { // a better point of the f16 lattice than the rounded solution
        uint16_t *scale = p.codes.scale + row * 4, kept[4];
        memcpy(kept, scale, sizeof kept);
        const double rounded = before[row] = problem_row_error(&p, row);
        for (int t = 0; t < 60; t++) {
            uint16_t last[4];
            memcpy(last, scale, sizeof last);
            for (int g = 0; g < 4; g++)
                scale[g] = (uint16_t)(kept[g] + (g == 1 ? 0 : gyre_rng_below(&rng, 3)) - (g != 1));
            if (problem_row_error(&p, row) < before[row]) before[row] = problem_row_error(&p, row);
            else memcpy(scale, last, sizeof last);
        }
        better += before[row] < rounded;
        scale[1] = gyre_f16_from_f32(3);
    }
    assert_true(better > 5);
    assert_int_equal(gyre_stage_refit(&p.r, NULL), GYRE_OK);
    for (uint64_t row = 0; row < 40; row++) assert_true(problem_row_error(&p, row) <= before[row] * (1 + 1e-12));
    problem_free(&p);
}

static void refit_keeps_what_it_cannot_fit(void **state)
{
    (void)state;
    struct problem p;
    make(&p, 0, false);
    memset(p.codes.code, 0, 37);                                                       // nothing to fit
    for (int i = 0; i < 37; i++) p.codes.code[37 + i] = (int8_t)-p.codes.code[37 + i]; // the best scale is negative
    for (int i = 0; i < 37; i++) p.r.target[74 + i] *= 1e9;                            // ... or has no f16
    uint16_t scale[7];
    memcpy(scale, p.codes.scale, sizeof scale);
    assert_int_equal(gyre_stage_refit(&p.r, NULL), GYRE_OK);
    for (int row = 1; row < 3; row++) assert_int_equal(scale[row], p.codes.scale[row]);
    assert_true(isfinite(gyre_f32_from_f16(p.codes.scale[0])));
    problem_free(&p);
}

// ---- ADMM ---------------------------------------------------------------------------------------------------

static void admm_is_no_worse_than_plain_rounding(void **state)
{
    (void)state;
    static const uint32_t iterations[] = {1, 5, 24, 31};
    double with = 0, without = 0;
    for (int s = 0; s < SHAPES; s++)
        for (int k = 0; k < 4; k++) {
            struct problem p;
            make(&p, s, k % 2);
            double plain[16], all = 0;
            uint16_t scales[64];
            memcpy(scales, p.codes.scale, p.rows * p.cols / p.group * sizeof *scales);
            for (uint64_t row = 0; row < p.rows; row++) all += plain[row] = problem_row_error(&p, row);
            const struct gyre_stage admm = {
                .kind = GYRE_STAGE_ADMM, .clip = GYRE_CLIP_HESSIAN, .iterations = iterations[k]};
            const struct gyre_stage descent = {.kind = GYRE_STAGE_DESCENT, .iterations = 20};
            assert_int_equal(gyre_stage_admm(&admm, &p.r, NULL), GYRE_OK);
            assert_memory_equal(scales, p.codes.scale, p.rows * p.cols / p.group * sizeof *scales);
            for (uint64_t row = 0; row < p.rows; row++)
                assert_true(problem_row_error(&p, row) <= plain[row] * (1 + 1e-9));
            const double alone = problem_error(&p);
            if (k > 1) assert_true(alone < 0.8 * all);
            for (uint64_t i = 0; i < p.rows * p.cols; i++) assert_true(p.codes.code[i] >= -8 && p.codes.code[i] <= 7);
            assert_int_equal(gyre_stage_descent(&descent, &p.r, NULL), GYRE_OK);
            const double polished = problem_error(&p);
            problem_round(&p);
            assert_int_equal(gyre_stage_descent(&descent, &p.r, NULL), GYRE_OK);
            const double other = problem_error(&p); // descent from plain rounding
            assert_true(polished <= alone && polished <= 1.05 * other);
            if (k > 1) {
                with += polished;
                without += other;
            }
            problem_free(&p);
        }
    assert_true(with < without);
}

// ---- correct ------------------------------------------------------------------------------------------------

enum { N = 24, ROWS = 7, FIT = 400, HELD = 200 };

struct correction {
    struct gyre_moments m;
    struct gyre_factor factor;
    float w[ROWS * N];
    double target[ROWS * N], scratch[ROWS * N];
    double a[N * N], repair[ROWS * N]; // exact = made a, difference = made repair'
    struct gyre_ladder_note note;
};

// Inputs X; the float path's are X a plus `noise`, its stream has X repair' more.
static void correction_make(struct correction *c, double mixing, double noise, double stream, uint64_t fit,
                            uint64_t held)
{
    struct gyre_rng rng = gyre_rng_seed(200);
    memset(c, 0, sizeof *c);
    assert_int_equal(gyre_moments_create(N, ROWS, true, true, &c->m, NULL), GYRE_OK);
    for (int i = 0; i < ROWS * N; i++) c->w[i] = (float)(0.3 * test_normal(&rng));
    for (int i = 0; i < N * N; i++) c->a[i] = (i % (N + 1) == 0) + mixing * test_normal(&rng);
    for (int i = 0; i < ROWS * N; i++) c->repair[i] = stream * test_normal(&rng);
    for (int h = 0; h < 2; h++) {
        const uint64_t rows = h ? held : fit;
        float *made = malloc((rows + 1) * N * sizeof *made), *exact = malloc((rows + 1) * N * sizeof *exact),
              *difference = malloc((rows + 1) * ROWS * sizeof *difference);
        for (uint64_t r = 0; r < rows; r++) {
            float *x = made + r * N;
            for (int i = 0; i < N; i++) x[i] = (float)(test_normal(&rng) + (i ? 0.5 * (double)x[i - 1] : 0));
            for (int i = 0; i < N; i++) {
                double sum = 0;
                for (int j = 0; j < N; j++) sum += (double)x[j] * c->a[j * N + i];
                exact[r * N + (uint64_t)i] = mixing > 0 || noise > 0 ? (float)(sum + noise * test_normal(&rng)) : x[i];
            }
            for (int o = 0; o < ROWS; o++) {
                double sum = 0;
                for (int j = 0; j < N; j++) sum += (double)x[j] * c->repair[o * N + j];
                difference[r * ROWS + (uint64_t)o] = (float)sum;
            }
        }
        assert_int_equal(gyre_moments_add(&c->m, h, made, exact, difference, NULL, rows, NULL), GYRE_OK);
        free(made);
        free(exact);
        free(difference);
    }
    gyre_moments_finish(&c->m);
    assert_int_equal(gyre_factor_create(c->m.fit.h, N, 1e-6, true, &c->factor, NULL), GYRE_OK);
}

static void correction_run(struct correction *c, double alpha, double residual, bool writes)
{
    const struct gyre_stage stage = {.kind = GYRE_STAGE_CORRECT, .alpha = alpha, .residual = residual, .damp = 1e-6};
    struct gyre_rounding r = {
        .rows = ROWS, .cols = N, .factor = &c->factor, .target = c->target, .scratch = c->scratch};
    for (int i = 0; i < ROWS * N; i++) c->target[i] = 99; // all of it is to be set
    c->note = (struct gyre_ladder_note){0};
    assert_int_equal(gyre_stage_correct(&stage, &c->m, writes, c->w, &r, &c->note, NULL), GYRE_OK);
}

static void correction_free(struct correction *c)
{
    gyre_moments_release(&c->m);
    gyre_factor_release(&c->factor);
}

// max |T - (W (1 - alpha) + alpha W a' + residual repair)|; `swapped`: a in place of a'
static double off(const struct correction *c, double alpha, double residual, bool swapped)
{
    double worst = 0;
    for (int o = 0; o < ROWS; o++)
        for (int i = 0; i < N; i++) {
            double wa = 0;
            for (int j = 0; j < N; j++) wa += (double)c->w[o * N + j] * c->a[swapped ? j * N + i : i * N + j];
            const double want = (1 - alpha) * (double)c->w[o * N + i] + alpha * wa + residual * c->repair[o * N + i];
            worst = fmax(worst, fabs(c->target[o * N + i] - want));
        }
    return worst;
}

static void equal_paths_need_no_correction(void **state)
{
    (void)state;
    struct correction c;
    correction_make(&c, 0, 0, 0, FIT, HELD);
    for (int writes = 0; writes < 2; writes++)
        for (int fixed = 0; fixed < 2; fixed++) {
            correction_run(&c, fixed ? 1 : GYRE_AUTO, fixed ? 1 : GYRE_AUTO, writes);
            for (int i = 0; i < ROWS * N; i++) assert_true(fabs(c.target[i] - (double)c.w[i]) < 1e-8);
        }
    correction_free(&c);
}

static void linear_errors_are_undone(void **state)
{
    (void)state;
    struct correction c;
    for (int held = 0; held < 2; held++) { // without held-out rows the fit's decide
        correction_make(&c, 0.1, 0, 0, FIT, held ? HELD : 0);
        correction_run(&c, GYRE_AUTO, 0, false);
        assert_true(c.note.alpha > 0.999 && c.note.residual == 0);
        assert_true(off(&c, 1, 0, false) < 2e-4);
        assert_true(off(&c, 1, 0, true) > 0.05 && off(&c, 0, 0, false) > 0.05);
        correction_free(&c);
    }
}

static void given_shares_are_kept(void **state)
{
    (void)state;
    struct correction c;
    correction_make(&c, 0.1, 0, 0.05, FIT, HELD);
    correction_run(&c, 0.3, 0.6, true);
    assert_true(c.note.alpha == 0.3 && c.note.residual == 0.6);
    assert_true(off(&c, 0.3, 0.6, false) < 2e-4);
    correction_run(&c, 0, 0, true);
    assert_true(c.note.alpha == 0 && c.note.residual == 0);
    for (int i = 0; i < ROWS * N; i++) assert_true(c.target[i] == (double)c.w[i]);
    correction_run(&c, 0.5, 1, false); // not a linear that writes the stream
    assert_true(c.note.alpha == 0.5 && c.note.residual == 0 && off(&c, 0.5, 0, false) < 2e-4);
    correction_run(&c, 0, GYRE_AUTO, true);
    assert_true(c.note.alpha == 0 && c.note.residual > 0.9);
    correction_free(&c);
}

static void the_streams_error_is_repaired(void **state)
{
    (void)state;
    struct correction c;
    correction_make(&c, 0, 0, 0.05, FIT, HELD);
    correction_run(&c, GYRE_AUTO, GYRE_AUTO, true);
    assert_true(c.note.residual > 0.999 && off(&c, 0, 1, false) < 2e-4);
    correction_run(&c, GYRE_AUTO, GYRE_AUTO, false);
    assert_true(c.note.residual == 0 && off(&c, 0, 0, false) < 1e-8);
    correction_free(&c);
    correction_make(&c, 0.1, 0, 0.05, FIT, HELD); // both at once
    correction_run(&c, GYRE_AUTO, GYRE_AUTO, true);
    assert_true(c.note.alpha > 0.999 && c.note.residual > 0.999 && off(&c, 1, 1, false) < 3e-4);
    correction_free(&c);
}

static void noise_is_not_fitted(void **state)
{
    (void)state;
    struct correction c;
    correction_make(&c, 0, 0.5, 0, 40, 4000);
    correction_run(&c, 1, 0, false);
    const double all = off(&c, 0, 0, false);
    correction_run(&c, GYRE_AUTO, 0, false);
    assert_true(all > 0.05 && c.note.alpha < 0.1);
    correction_free(&c);
    correction_make(&c, 0, 0.5, 0, 40, 0); // nothing held out: the noise is all taken for an error
    correction_run(&c, GYRE_AUTO, 0, false);
    assert_true(c.note.alpha > 0.9);
    correction_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descent_ends_in_a_local_minimum),
        cmocka_unit_test(refit_is_least_squares),
        cmocka_unit_test(refit_ignores_empty_groups),
        cmocka_unit_test(refit_keeps_what_it_cannot_fit),
        cmocka_unit_test(admm_is_no_worse_than_plain_rounding),
        cmocka_unit_test(equal_paths_need_no_correction),
        cmocka_unit_test(linear_errors_are_undone),
        cmocka_unit_test(given_shares_are_kept),
        cmocka_unit_test(the_streams_error_is_repaired),
        cmocka_unit_test(noise_is_not_fitted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
