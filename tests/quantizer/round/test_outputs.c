// Rounding with what errors of outputs cost together: the factors of H_O, GPTQ's rows and columns, descent and refit,
// against dense definitions of tr(H_O E H E').
#include "quantizer/round/outputs.h"
#include "tests/common/ok.h"
#include "tests/quantizer/round/problem.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

// Rows below, at and beyond a chunk of GPTQ's (96) and a turn of descent's (48).
static const struct {
    uint64_t rows, cols;
    uint32_t group;
} shapes[] = {{7, 37, 0}, {5, 64, 32}, {49, 40, 0}, {130, 70, 0}, {100, 64, 64}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

// Gradients of neighbouring outputs are alike, and of uneven size; `alike` 0: all independent and of size 1.
static void outputs_make(uint32_t n, double alike, double shrink, uint64_t seed, struct gyre_outputs *out)
{
    struct gyre_rng rng = gyre_rng_seed(seed);
    struct gyre_output_moments m;
    const uint32_t tokens = 2 * n;
    float *d = malloc((uint64_t)tokens * n * sizeof *d);
    OK(gyre_output_moments_create(n, &m, err));
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t i = 0; i < n; i++)
            d[t * n + i] = (float)(test_normal(&rng) + (i ? alike * (double)d[t * n + i - 1] : 0));
    for (uint32_t i = 0; i < n; i++) {
        const float size = alike > 0 ? (float)exp(0.7 * test_normal(&rng)) : 1;
        for (uint32_t t = 0; t < tokens; t++) d[t * n + i] *= size;
    }
    OK(gyre_output_moments_add(&m, d, tokens, err));
    OK(gyre_outputs_create(&m, NULL, shrink, out, err));
    gyre_output_moments_release(&m);
    free(d);
}

static double h_of(const struct gyre_outputs *o, uint64_t i, uint64_t k)
{
    const uint64_t first = gyre_outputs_first(o, i);
    return k < first || k >= first + gyre_outputs_count(o, first) ? 0 : o->h[i * o->block + k - first];
}

static double error_of(const struct problem *p, uint64_t row, uint64_t i)
{
    return problem_scale(p, row, i) * p->codes.code[row * p->cols + i] - p->r.target[row * p->cols + i];
}

// tr(H_O E H E') by its definition.
static double weighted(const struct problem *p, const struct gyre_outputs *o)
{
    const uint64_t n = p->cols;
    double sum = 0, *eh = calloc(p->rows * n, sizeof *eh);
    for (uint64_t r = 0; r < p->rows; r++)
        for (uint64_t i = 0; i < n; i++)
            for (uint64_t j = 0; j < n; j++) eh[r * n + j] += error_of(p, r, i) * p->factor.h[i * n + j];
    for (uint64_t r = 0; r < p->rows; r++)
        for (uint64_t k = 0; k < p->rows; k++)
            for (uint64_t j = 0; j < n; j++) sum += h_of(o, r, k) * eh[k * n + j] * error_of(p, r, j);
    free(eh);
    return sum;
}

// ---- H_O ------------------------------------------------------------------------------------------------------

static void moments_are_sums_with_a_cap(void **state)
{
    (void)state;
    enum { N = 5, TOKENS = 9 };
    struct gyre_rng rng = gyre_rng_seed(4);
    struct gyre_output_moments m;
    gyre_error why = {0};
    float d[TOKENS * N], copy[TOKENS * N];
    for (int i = 0; i < TOKENS * N; i++) d[i] = (float)(i % N == 0 ? 1 : 0.1 * test_normal(&rng));
    for (int i = 0; i < N; i++) d[3 * N + i] *= 100;
    OK(gyre_output_moments_create(N, &m, err));
    memcpy(copy, d, sizeof d);
    OK(gyre_output_moments_add(&m, copy, TOKENS, err));
    memcpy(copy, d, sizeof d);
    OK(gyre_output_moments_add(&m, copy, TOKENS, err));
    assert_true(m.tokens == 2 * TOKENS && m.block == N);
    double plain = 0;
    for (int t = 0; t < TOKENS; t++) plain += (double)d[t * N] * (double)d[t * N];
    assert_true((double)m.sum[0] > 2 * (TOKENS - 1 + 12) && (double)m.sum[0] < 2 * (TOKENS - 1 + 20)); // not 10,000
    assert_true(plain > 10000);
    copy[7] = INFINITY;
    assert_int_equal(gyre_output_moments_add(&m, copy, TOKENS, &why), GYRE_E_FORMAT);
    assert_string_equal(why.message, "the gradient of token 1 overflows");
    gyre_output_moments_release(&m);
}

static void factors_give_the_hessian_back(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 37, 130, GYRE_OUTPUT_BLOCK + 7}; // the last in two blocks
    for (int s = 0; s < 4; s++) {
        struct gyre_outputs o;
        const uint32_t n = sizes[s];
        outputs_make(n, 0.9, 0.05, 20 + (uint64_t)s, &o);
        double mean = 0, worst = 0;
        for (uint32_t i = 0; i < n; i++) mean += h_of(&o, i, i) / n;
        assert_true(fabs(mean - 1) < 1e-6 && o.block == (s == 3 ? (n + 1) / 2 : n));
        for (uint64_t first = 0; first < n; first += o.block) {
            const uint64_t count = gyre_outputs_count(&o, first), ld = o.block;
            const double *h = o.h + first * ld, *m = o.m + first * ld;
            double *d = malloc(count * sizeof *d); // from the last: h_ii less what rows behind put there
            for (uint64_t i = count; i-- > 0;) {
                d[i] = h[i * ld + i];
                for (uint64_t k = i + 1; k < count; k++) d[i] -= m[k * ld + i] * m[k * ld + i] * d[k];
                assert_true(d[i] > 0 && fabs(m[i * ld + i] - 1) < 1e-12);
                for (uint64_t k = i + 1; k < count; k++) assert_true(m[i * ld + k] == 0);
            }
            for (uint64_t i = 0; i<count; i += count> 200 ? 101 : 1) // M' D M
                for (uint64_t k = 0; k < count; k++) {
                    double sum = 0;
                    for (uint64_t a = 0; a < count; a++) sum += m[a * ld + i] * d[a] * m[a * ld + k];
                    worst = fmax(worst, fabs(sum - h[i * ld + k]));
                }
            free(d);
        }
        if (!(worst < 1e-9)) fail_msg("%u outputs: off by %g", n, worst);
        gyre_outputs_release(&o);
    }
}

static void scaled_outputs_cost_less(void **state)
{
    (void)state;
    struct gyre_output_moments m;
    struct gyre_outputs a, b;
    float d[8] = {1, 2, 3, 1, -1, 2, 1, 1};
    const double scale[2] = {2, 1};
    OK(gyre_output_moments_create(2, &m, err));
    OK(gyre_output_moments_add(&m, d, 4, err));
    OK(gyre_outputs_create(&m, NULL, 0, &a, err));
    OK(gyre_outputs_create(&m, scale, 0, &b, err));
    assert_true(fabs(h_of(&b, 0, 0) / h_of(&b, 1, 1) - h_of(&a, 0, 0) / h_of(&a, 1, 1) / 4) < 1e-12);
    assert_true(fabs(h_of(&b, 0, 1) / h_of(&b, 1, 1) - h_of(&a, 0, 1) / h_of(&a, 1, 1) / 2) < 1e-12);
    gyre_outputs_release(&a);
    gyre_outputs_release(&b);
    memset(m.sum, 0, 3 * sizeof *m.sum); // a triangle; outputs that nothing reads: any error is as good
    OK(gyre_outputs_create(&m, NULL, 0, &a, err));
    for (uint64_t i = 0; i < 2; i++) assert_true(isfinite(a.h[3 * i]) && a.h[3 * i] > 0 && a.m[3 * i] == 1);
    gyre_outputs_release(&a);
    gyre_output_moments_release(&m);
}

// ---- GPTQ -----------------------------------------------------------------------------------------------------

// Every weight from all the errors before it, with nothing kept: F = M E N', H = N' D N in the factor's order, and
// F_ij is E_ij plus what the errors of the columns and rows before it add.
static void round_by_definition(struct problem *p, const struct gyre_outputs *o, int8_t *code)
{
    const uint64_t n = p->cols;
    double *e = calloc(p->rows * n, sizeof *e), *nn = calloc(n * n, sizeof *nn), *unit = calloc(n * n, sizeof *unit);
    for (uint64_t i = 0; i < n; i++) {
        unit[i * n + i] = 1;
        for (uint64_t k = 0; k < n; k++) nn[i * n + k] = p->factor.u[k * n + i] / p->factor.u[k * n + k]; // (U/diag)'
    }
    dense_solve(nn, n, unit, n); // N = the inverse of U' / diag, unit lower
    for (uint64_t j = 0; j < n; j++)
        for (uint64_t i = 0; i < p->rows; i++) {
            const uint64_t column = p->factor.order[j], first = gyre_outputs_first(o, i);
            double f = 0;
            for (uint64_t a = first; a <= i; a++)
                for (uint64_t b = 0; b <= j; b++)
                    f += o->m[i * o->block + a - first] * unit[j * n + b] * e[a * n + b]; // e[i][j] is 0 so far
            const double s = problem_scale(p, i, column), t = p->r.target[i * n + column],
                         q = s > 0 ? fmin(fmax(rint((t - f) / s), -8), 7) : 0;
            code[i * n + column] = (int8_t)q;
            e[i * n + j] = q * s - t;
        }
    free(e);
    free(nn);
    free(unit);
}

static void gptq_sees_the_rows_before(void **state)
{
    (void)state;
    for (int s = 0; s < SHAPES; s++) {
        struct problem p;
        struct gyre_outputs o;
        const struct gyre_stage stage = {
            .kind = GYRE_STAGE_GPTQ, .clip = GYRE_CLIP_HESSIAN, .act_order = true, .scales = 1};
        problem_make(&p, shapes[s].rows, shapes[s].cols, shapes[s].group, 0.9, true, 300 + (uint64_t)s);
        outputs_make((uint32_t)p.rows, 0.9, 0.01, 400 + (uint64_t)s, &o);
        OK(gyre_stage_gptq(&stage, &p.r, err));
        const double plain = weighted(&p, &o), plain_inputs = problem_error(&p);
        p.r.outputs = &o;
        OK(gyre_stage_gptq(&stage, &p.r, err));
        const double both = weighted(&p, &o);
        if (p.rows > 40 && !(both < 0.8 * plain)) fail_msg("shape %d: %g, %g without outputs", s, both, plain);
        if (p.rows > 40) assert_true(problem_error(&p) > plain_inputs); // bought with the unweighted error
        const uint64_t size = p.rows * p.cols;
        int8_t *want = malloc(size);
        round_by_definition(&p, &o, want);
        assert_memory_equal(want, p.codes.code, size);
        free(want);
        gyre_outputs_release(&o);
        problem_free(&p);
    }
}

static void unrelated_outputs_change_nothing(void **state)
{
    (void)state;
    struct problem p;
    struct gyre_outputs o;
    const struct gyre_stage stages[] = {
        {.kind = GYRE_STAGE_GPTQ, .clip = GYRE_CLIP_HESSIAN, .act_order = true, .scales = 3},
        {.kind = GYRE_STAGE_DESCENT, .iterations = 4}};
    int8_t want[2][130 * 70];
    problem_make(&p, 130, 70, 0, 0.9, true, 7);
    outputs_make(130, 0, 1, 8, &o); // shrunk to the identity
    for (int weighs = 0; weighs < 2; weighs++) {
        p.r.outputs = weighs ? &o : NULL;
        OK(gyre_stage_gptq(&stages[0], &p.r, err));
        OK(gyre_stage_descent(&stages[1], &p.r, err));
        OK(gyre_stage_refit(&p.r, err));
        memcpy(want[weighs], p.codes.code, sizeof want[weighs]);
    }
    assert_memory_equal(want[0], want[1], sizeof want[0]);
    gyre_outputs_release(&o);
    problem_free(&p);
}

static void scales_are_chosen_before(void **state)
{
    (void)state;
    struct problem p;
    struct gyre_outputs o;
    struct gyre_stage stage = {.kind = GYRE_STAGE_GPTQ, .clip = GYRE_CLIP_WEIGHTS, .act_order = true, .scales = 5};
    uint16_t want[49];
    problem_make(&p, 49, 40, 0, 0.9, true, 17);
    outputs_make(49, 0.9, 0.01, 18, &o);
    OK(gyre_stage_gptq(&stage, &p.r, err));
    const double plain = weighted(&p, &o);
    memcpy(want, p.codes.scale, sizeof want);
    p.r.outputs = &o;
    OK(gyre_stage_gptq(&stage, &p.r, err));
    assert_memory_equal(want, p.codes.scale, sizeof want);
    assert_true(weighted(&p, &o) < 0.8 * plain);
    stage.scales = 1;
    OK(gyre_stage_gptq(&stage, &p.r, err));
    assert_memory_not_equal(want, p.codes.scale, sizeof want);
    gyre_outputs_release(&o);
    problem_free(&p);
}

// ---- polishing ------------------------------------------------------------------------------------------------

static void descent_and_refit_lower_the_weighted_error(void **state)
{
    (void)state;
    for (int s = 0; s < SHAPES; s++) {
        struct problem p;
        struct gyre_outputs o;
        const struct gyre_stage rtn = {.kind = GYRE_STAGE_RTN, .clip = GYRE_CLIP_HESSIAN},
                                once = {.kind = GYRE_STAGE_DESCENT, .iterations = 1},
                                many = {.kind = GYRE_STAGE_DESCENT, .iterations = 200};
        problem_make(&p, shapes[s].rows, shapes[s].cols, shapes[s].group, 0.9, s % 2, 500 + (uint64_t)s);
        outputs_make((uint32_t)p.rows, 0.9, 0.01, 600 + (uint64_t)s, &o);
        OK(gyre_stage_rtn(&rtn, &p.r, err));
        double before = weighted(&p, &o), now;
        p.r.outputs = &o;
        OK(gyre_stage_descent(&once, &p.r, err));
        now = weighted(&p, &o);
        if (!(now < 0.95 * before)) fail_msg("shape %d: %g, %g before descent", s, now, before);
        before = now;
        OK(gyre_stage_refit(&p.r, err));
        now = weighted(&p, &o);
        if (!(now < 0.999 * before)) fail_msg("shape %d: %g, %g before refit", s, now, before);
        before = now;
        OK(gyre_stage_descent(&many, &p.r, err));
        now = weighted(&p, &o);
        assert_true(now <= before * (1 + 1e-12));
        // No other value of any one code is better.
        const uint64_t n = p.cols;
        double *eh = calloc(p.rows * n, sizeof *eh);
        for (uint64_t r = 0; r < p.rows; r++)
            for (uint64_t i = 0; i < n; i++)
                for (uint64_t j = 0; j < n; j++) eh[r * n + j] += error_of(&p, r, i) * p.factor.h[i * n + j];
        for (uint64_t r = 0; r < p.rows; r++)
            for (uint64_t i = 0; i < n; i++) {
                double gradient = 0;
                for (uint64_t k = 0; k < p.rows; k++) gradient += h_of(&o, r, k) * eh[k * n + i];
                for (int q = -8; q < 8; q++) {
                    const double d = (q - p.codes.code[r * n + i]) * problem_scale(&p, r, i);
                    assert_true(2 * d * gradient + d * d * h_of(&o, r, r) * p.factor.h[i * n + i] > -1e-9 * now);
                }
            }
        free(eh);
        gyre_outputs_release(&o);
        problem_free(&p);
    }
}

// Threads share the work, and the bytes are those of one.
static void any_number_of_threads_rounds_the_same(void **state)
{
    (void)state;
    const struct gyre_stage gptq = {.kind = GYRE_STAGE_GPTQ,
                                    .clip = GYRE_CLIP_HESSIAN,
                                    .damp = 0.01,
                                    .act_order = true},
                            descent = {.kind = GYRE_STAGE_DESCENT, .iterations = 3};
    const int before = omp_get_max_threads();
    for (uint32_t group = 0; group <= 32; group += 32)
        for (int weighed = 0; weighed < 2; weighed++) {
            struct problem p[3];
            struct gyre_outputs o;
            outputs_make(230, 0.9, 0.1, 90, &o);
            for (int k = 0; k < 3; k++) {
                problem_make(&p[k], 230, 416, group, 0.9, true, 91);
                if (weighed) p[k].r.outputs = &o;
                omp_set_num_threads(2 * k + 1);
                OK(gyre_stage_gptq(&gptq, &p[k].r, err));
                OK(gyre_stage_descent(&descent, &p[k].r, err));
                OK(gyre_stage_refit(&p[k].r, err));
                OK(gyre_stage_descent(&descent, &p[k].r, err));
                const uint64_t n = p[k].rows * p[k].cols;
                assert_memory_equal(p[0].codes.code, p[k].codes.code, n);
                assert_memory_equal(p[0].codes.scale, p[k].codes.scale, n / p[k].group * sizeof(uint16_t));
                assert_memory_equal(p[0].r.scratch, p[k].r.scratch, n * sizeof(double));
            }
            for (int k = 0; k < 3; k++) problem_free(&p[k]);
            gyre_outputs_release(&o);
        }
    omp_set_num_threads(before);
}

// The ladder's note is the weighted error over that of the weights; blocks beyond one product's rows are in it.
static void the_ladder_notes_it(void **state)
{
    (void)state;
    struct problem p;
    struct gyre_outputs o;
    struct gyre_ladder_note note;
    struct gyre_factor cache = {0};
    struct gyre_recipe recipe = {.n_stages = 2};
    struct gyre_moments m = {.n = 30, .width = 30};
    recipe.stage[0] =
        (struct gyre_stage){.kind = GYRE_STAGE_GPTQ, .clip = GYRE_CLIP_HESSIAN, .damp = 0.01, .act_order = true};
    recipe.stage[1] = (struct gyre_stage){.kind = GYRE_STAGE_DESCENT, .iterations = 2};
    problem_make(&p, GYRE_OUTPUT_BLOCK + 40, 30, 0, 0.9, true, 77);
    outputs_make((uint32_t)p.rows, 0.5, 0.1, 78, &o);
    m.fit.h = p.h;
    const struct gyre_ladder_linear linear = {p.w, p.rows, p.cols, &m, &o, false};
    OK(gyre_ladder(&recipe, &linear, &cache, &p.codes, &note, err));
    const double error = weighted(&p, &o);
    memset(p.codes.code, 0, p.rows * p.cols);
    const double whole = weighted(&p, &o);
    assert_true(fabs(note.error[1] - error / whole) < 1e-9 && note.error[1] < note.error[0] && note.error[1] > 0);
    gyre_factor_release(&cache);
    gyre_outputs_release(&o);
    problem_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moments_are_sums_with_a_cap),
        cmocka_unit_test(factors_give_the_hessian_back),
        cmocka_unit_test(scaled_outputs_cost_less),
        cmocka_unit_test(gptq_sees_the_rows_before),
        cmocka_unit_test(unrelated_outputs_change_nothing),
        cmocka_unit_test(scales_are_chosen_before),
        cmocka_unit_test(descent_and_refit_lower_the_weighted_error),
        cmocka_unit_test(any_number_of_threads_rounds_the_same),
        cmocka_unit_test(the_ladder_notes_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
