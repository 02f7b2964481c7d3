// The factor of the Hessian and the stages that choose first codes, held against dense definitions: H^-1 = U'U, and
// GPTQ as Babai's nearest plane.
#include "runtime/util/half.h"
#include "tests/quantizer/round/problem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

// Per channel, groups of 32 and 64, two blocks of 64 columns and more, odd everything.
static const struct {
    uint64_t rows, cols;
    uint32_t group;
} shapes[] = {{7, 37, 0}, {5, 64, 32}, {5, 64, 64}, {9, 150, 0}, {9, 160, 32}, {37, 192, 64}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

// ---- the factor ---------------------------------------------------------------------------------------------

static void factor_inverts_the_hessian(void **state)
{
    (void)state;
    for (int s = 0; s < SHAPES; s++)
        for (int act = 0; act < 2; act++) {
            struct problem p;
            const uint64_t n = shapes[s].cols;
            problem_make(&p, 1, n, 0, 0.9, act, 10 + (uint64_t)s);
            const struct gyre_factor *f = &p.factor;
            double mean = 0, worst = 0;
            for (uint64_t i = 0; i < n; i++) mean += (double)p.h[i * n + i] / (double)n;
            assert_true(f->damp == 0.01 && f->dead == 0 && f->n == n);
            for (uint64_t i = 0; i < n; i++)
                for (uint64_t j = 0; j < n; j++) {
                    const double h = (double)p.h[i * n + j] + (i == j ? 0.01 * mean : 0);
                    assert_true(fabs(f->h[i * n + j] - h) < 1e-12 * mean);
                    if (j < i) assert_true(f->u[i * n + j] == 0);
                }
            // (U'U) H = 1 in the factor's order
            double *inverse = calloc(n * n, sizeof *inverse);
            for (uint64_t k = 0; k < n; k++)
                for (uint64_t i = k; i < n; i++)
                    for (uint64_t j = k; j < n; j++) inverse[i * n + j] += f->u[k * n + i] * f->u[k * n + j];
            for (uint64_t i = 0; i < n; i++)
                for (uint64_t j = 0; j < n; j++) {
                    double sum = 0;
                    for (uint64_t k = 0; k < n; k++) sum += inverse[i * n + k] * f->h[f->order[k] * n + f->order[j]];
                    worst = fmax(worst, fabs(sum - (i == j)));
                }
            if (!(worst < 1e-10)) fail_msg("%llu inputs: off by %g", (unsigned long long)n, worst);
            free(inverse);
            problem_free(&p);
        }
}

static void order_is_descending_and_stable(void **state)
{
    (void)state;
    enum { N = 61 };
    float h[N * N] = {0};
    struct gyre_factor f;
    struct gyre_rng rng = gyre_rng_seed(2);
    for (uint32_t i = 0; i < N; i++) h[i * N + i] = (float)(1 + gyre_rng_below(&rng, 5)); // many ties
    for (int act = 0; act < 2; act++) {
        bool seen[N] = {false};
        assert_int_equal(gyre_factor_create(h, N, 0.01, act, &f, NULL), GYRE_OK);
        for (uint32_t k = 0; k < N; k++) {
            const uint32_t v = f.order[k], before = k ? f.order[k - 1] : 0;
            assert_true(v < N && !seen[v]);
            seen[v] = true;
            if (!act) assert_int_equal(v, k);
            else if (k)
                assert_true(h[v * N + v] < h[before * N + before] ||
                            (h[v * N + v] == h[before * N + before] && v > before));
        }
        gyre_factor_release(&f);
    }
}

static void solve_and_energy_are_their_definitions(void **state)
{
    (void)state;
    for (int act = 0; act < 2; act++) {
        struct problem p;
        problem_make(&p, 7, 37, 0, 0.8, act, 3);
        double x[7 * 37], b[37 * 7], a[37 * 37], scratch[7 * 37], row_error[7], total = 0;
        for (int r = 0; r < 7; r++)
            for (int i = 0; i < 37; i++) x[r * 37 + i] = b[i * 7 + r] = p.r.target[r * 37 + i];
        const double energy = gyre_factor_energy(&p.factor, 7, x, scratch, row_error);
        for (uint64_t r = 0; r < 7; r++) {
            memset(p.codes.code, 0, 7 * 37); // V = 0: the error is the target's energy
            const double want = problem_row_error(&p, r);
            assert_true(fabs(row_error[r] - want) < 1e-12 * want);
            total += want;
            for (int i = 0; i < 37; i++) {
                double sum = 0;
                for (int j = 0; j < 37; j++) sum += x[r * 37 + (uint64_t)j] * p.factor.h[i * 37 + j];
                assert_true(fabs(scratch[r * 37 + (uint64_t)i] - sum) < 1e-13);
            }
        }
        assert_true(fabs(energy - total) < 1e-12 * total);
        assert_true(gyre_factor_energy(&p.factor, 7, x, scratch, NULL) == energy);
        gyre_factor_solve(&p.factor, 7, x, scratch);
        memcpy(a, p.factor.h, sizeof a);
        dense_solve(a, 37, b, 7);
        for (int r = 0; r < 7; r++)
            for (int i = 0; i < 37; i++) assert_true(fabs(x[r * 37 + i] - b[i * 7 + r]) < 1e-10);
        problem_free(&p);
    }
}

static void dead_inputs_get_the_identity(void **state)
{
    (void)state;
    struct problem p;
    problem_make(&p, 5, 37, 0, 0.9, true, 4);
    struct gyre_factor f;
    float *h = p.h;
    const uint32_t dead[] = {0, 17, 36};
    double mean = 0;
    for (int k = 0; k < 3; k++)
        for (uint32_t j = 0; j < 37; j++) h[dead[k] * 37 + j] = h[j * 37 + dead[k]] = 0;
    for (uint32_t i = 0; i < 37; i++) mean += (double)h[i * 37 + i] / 37;
    assert_int_equal(gyre_factor_create(h, 37, 0.02, true, &f, NULL), GYRE_OK);
    assert_int_equal(f.dead, 3);
    for (int k = 0; k < 3; k++)
        for (uint32_t j = 0; j < 37; j++)
            assert_true(fabs(f.h[dead[k] * 37 + j] - (j == dead[k] ? 1.02 * mean : 0)) < 1e-12 * mean);
    // Nothing is carried to or from a dead input: its codes are plain rounding's.
    struct gyre_rounding r = p.r;
    r.factor = &f;
    const struct gyre_stage stage = {.kind = GYRE_STAGE_GPTQ, .clip = GYRE_CLIP_NONE, .act_order = true};
    assert_int_equal(gyre_stage_gptq(&stage, &r, NULL), GYRE_OK);
    int8_t codes[5 * 37];
    memcpy(codes, p.codes.code, sizeof codes);
    problem_round(&p);
    assert_memory_not_equal(codes, p.codes.code, sizeof codes);
    for (int row = 0; row < 5; row++)
        for (int k = 0; k < 3; k++)
            assert_int_equal(codes[row * 37 + (int)dead[k]], p.codes.code[row * 37 + (int)dead[k]]);
    gyre_factor_release(&f);
    // Nothing at all ever fired.
    memset(h, 0, 37 * 37 * sizeof *h);
    assert_int_equal(gyre_factor_create(h, 37, 0.01, true, &f, NULL), GYRE_OK);
    assert_int_equal(f.dead, 37);
    assert_true(fabs(f.h[0] - 1.01) < 1e-12 && isfinite(f.u[0]));
    gyre_factor_release(&f);
    problem_free(&p);
}

static void damping_escalates_and_gives_up(void **state)
{
    (void)state;
    enum { N = 23 };
    float h[N * N];
    struct gyre_factor f;
    gyre_error err = {0};
    // Singular: of rank 1, and its float rounding may lie below 0. The mean diagonal is 1.
    for (int i = 0; i < N * N; i++) h[i] = 1;
    assert_int_equal(gyre_factor_create(h, N, 1e-3, false, &f, &err), GYRE_OK);
    assert_true(f.damp == 1e-3);
    gyre_factor_release(&f);
    // Least eigenvalue -0.04: 0.01 is too little, 0.1 is enough. The next: -0.7, for which it takes 1.
    for (int k = 0; k < 2; k++) {
        memset(h, 0, sizeof h);
        for (int i = 0; i < N; i++) h[i * N + i] = 1;
        h[1] = h[N] = k ? 1.7f : 1.04f;
        assert_int_equal(gyre_factor_create(h, N, 0.01, k, &f, &err), GYRE_OK);
        assert_true(fabs(f.damp - (k ? 1 : 0.1)) < 1e-12);
        assert_true(fabs(f.h[0] - (k ? 2 : 1.1)) < 1e-12); // what stages compute with has the same damping
        gyre_factor_release(&f);
    }
    h[1] = h[N] = 2.5f; // -1.5: beyond saving
    for (int k = 0; k < 2; k++) {
        err = (gyre_error){0};
        assert_int_equal(gyre_factor_create(h, N, k ? 0.3 : 0.01, false, &f, &err), GYRE_E_FORMAT);
        assert_non_null(strstr(err.message, "23 inputs is not positive definite"));
        assert_null(f.h);
    }
    h[5 * N + 5] = NAN;
    assert_int_equal(gyre_factor_create(h, N, 0.01, true, &f, &err), GYRE_E_FORMAT);
}

// ---- GPTQ ---------------------------------------------------------------------------------------------------

// Column `k` (of the factor's order) of every row as it is when it comes: with the residuals of the columns done given,
// the rest of the row moves to where (V - T) H (V - T)' is least, w_R = t_R - H_RR^-1 H_RD d_D. Columns from k on into
// moved [cols - k][rows].
static void move_rest(const struct problem *p, uint64_t k, const double *d, double *moved)
{
    const uint64_t n = p->cols, rest = n - k, rows = p->rows;
    const uint32_t *order = p->factor.order;
    double *a = malloc(rest * rest * sizeof *a);
    for (uint64_t i = 0; i < rest; i++) {
        for (uint64_t j = 0; j < rest; j++) a[i * rest + j] = p->factor.h[order[k + i] * n + order[k + j]];
        for (uint64_t row = 0; row < rows; row++) {
            double sum = 0;
            for (uint64_t j = 0; j < k; j++) sum += p->factor.h[order[k + i] * n + order[j]] * d[row * n + order[j]];
            moved[i * rows + row] = sum;
        }
    }
    dense_solve(a, rest, moved, rows);
    for (uint64_t i = 0; i < rest; i++)
        for (uint64_t row = 0; row < rows; row++)
            moved[i * rows + row] = p->r.target[row * n + order[k + i]] - moved[i * rows + row];
    free(a);
}

// Codes (and, in the natural order with groups, scales) of the stage's result are those of the definition. Returns how
// many scales differ from those of the target.
static uint64_t check_definition(const struct problem *p, const struct gyre_stage *stage)
{
    const uint64_t n = p->cols, groups = n / p->group;
    const bool natural = !stage->act_order && groups > 1;
    double *d = calloc(p->rows * n, sizeof *d), *moved = malloc(n * p->rows * sizeof *moved);
    float *scale = malloc(p->rows * groups * sizeof *scale), *diagonal = malloc(n * sizeof *diagonal), group[64];
    uint64_t stale = 0;
    for (uint64_t i = 0; i < n; i++) diagonal[i] = (float)p->factor.h[i * n + i];
    assert_int_equal(gyre_stage_scales(&p->r, stage->clip, diagonal, scale, NULL), GYRE_OK);
    for (uint64_t k = 0; k < n; k++) {
        const uint64_t i = p->factor.order[k];
        // Columns are checked each for itself, from the codes before it; of long rows one in five and all that are
        // special.
        const bool checked = n < 100 || k % 5 == 0 || k % 64 < 2 || k + 1 == n || i % p->group == 0;
        for (uint64_t row = 0; row < p->rows; row++)
            d[row * n + i] = problem_scale(p, row, i) * p->codes.code[row * n + i] - p->r.target[row * n + i];
        if (!checked) continue;
        move_rest(p, k, d, moved);
        for (uint64_t row = 0; row < p->rows; row++) {
            float *s = &scale[row * groups + i / p->group];
            if (natural && i % p->group == 0) {
                const float before = *s;
                for (uint32_t j = 0; j < p->group; j++) group[j] = (float)moved[j * p->rows + row];
                assert_true(gyre_search_scale(group, stage->clip == GYRE_CLIP_HESSIAN ? diagonal + i : NULL, p->group,
                                              4, stage->clip != GYRE_CLIP_NONE, s));
                stale += *s != before;
            }
            assert_true(problem_scale(p, row, i) == (double)*s);
            const double x = moved[row] / (double)*s, q = fmin(fmax(rint(x), -8), 7);
            const int8_t got = p->codes.code[row * n + i];
            if (fabs(x - floor(x) - 0.5) > 1e-9 && q != got)
                fail_msg("row %llu, column %llu: %d, by definition %g", (unsigned long long)row, (unsigned long long)i,
                         got, q);
        }
    }
    free(d);
    free(moved);
    free(scale);
    free(diagonal);
    return stale;
}

static void gptq_is_babais_nearest_plane(void **state)
{
    (void)state;
    uint64_t stale = 0;
    for (int s = 0; s < SHAPES; s++)
        for (int act = 0; act < 2; act++) {
            struct problem p;
            const struct gyre_stage stage = {.kind = GYRE_STAGE_GPTQ,
                                             .clip = s % 2 ? GYRE_CLIP_WEIGHTS : GYRE_CLIP_HESSIAN,
                                             .act_order = act,
                                             .scales = 1};
            problem_make(&p, shapes[s].rows, shapes[s].cols, shapes[s].group, 0.9, act, 20 + (uint64_t)s);
            assert_int_equal(gyre_stage_gptq(&stage, &p.r, NULL), GYRE_OK);
            stale += check_definition(&p, &stage);
            problem_free(&p);
        }
    assert_true(stale > 100); // the working copy's scales are other ones than the target's
}

static void gptq_with_an_identity_is_plain_rounding(void **state)
{
    (void)state;
    for (int s = 0; s < SHAPES; s++)
        for (int clip = GYRE_CLIP_NONE; clip <= GYRE_CLIP_HESSIAN; clip++)
            for (int act = 0; act < 2; act++) {
                struct problem p;
                const uint64_t n = shapes[s].rows * shapes[s].cols;
                const struct gyre_stage gptq = {
                    .kind = GYRE_STAGE_GPTQ, .clip = (gyre_clip)clip, .act_order = act, .scales = 1};
                problem_make(&p, shapes[s].rows, shapes[s].cols, shapes[s].group, 0, act, 30 + (uint64_t)s);
                assert_int_equal(gyre_stage_gptq(&gptq, &p.r, NULL), GYRE_OK);
                int8_t *codes = malloc(n);
                uint16_t *scales = malloc(n / p.group * sizeof *scales);
                memcpy(codes, p.codes.code, n);
                memcpy(scales, p.codes.scale, n / p.group * sizeof *scales);
                problem_round(&p); // at the scales that it found
                assert_memory_equal(codes, p.codes.code, n);
                const struct gyre_stage rtn = {.kind = GYRE_STAGE_RTN, .clip = (gyre_clip)clip};
                if (clip != GYRE_CLIP_WEIGHTS) { // which fits the scale as well
                    assert_int_equal(gyre_stage_rtn(&rtn, &p.r, NULL), GYRE_OK);
                    assert_memory_equal(scales, p.codes.scale, n / p.group * sizeof *scales);
                    assert_memory_equal(codes, p.codes.code, n);
                }
                free(codes);
                free(scales);
                problem_free(&p);
            }
}

static void gptq_beats_plain_rounding_and_more_scales_never_hurt(void **state)
{
    (void)state;
    for (int s = 0; s < SHAPES; s++)
        for (int clip = GYRE_CLIP_NONE; clip <= GYRE_CLIP_HESSIAN; clip++)
            for (int act = 0; act < 2; act++) {
                struct problem p;
                struct gyre_stage stage = {
                    .kind = GYRE_STAGE_GPTQ, .clip = (gyre_clip)clip, .act_order = act, .scales = 1};
                double one[64], fewer = 0;
                problem_make(&p, shapes[s].rows, shapes[s].cols, shapes[s].group, 0.9, act, 40 + (uint64_t)s);
                assert_int_equal(gyre_stage_gptq(&stage, &p.r, NULL), GYRE_OK);
                const double gptq = problem_error(&p);
                for (uint64_t row = 0; row < p.rows; row++) one[row] = problem_row_error(&p, row);
                problem_round(&p);
                assert_true(gptq > 0 && gptq < 0.9 * problem_error(&p));
                stage.scales = 9;
                assert_int_equal(gyre_stage_gptq(&stage, &p.r, NULL), GYRE_OK);
                for (uint64_t row = 0; row < p.rows; row++) {
                    assert_true(problem_row_error(&p, row) <= one[row] * (1 + 1e-9));
                    fewer += problem_row_error(&p, row) < one[row] * 0.999;
                }
                if (act) assert_true(fewer > 0);
                problem_free(&p);
            }
}

static void extreme_rows_stay_finite(void **state)
{
    (void)state;
    struct problem p;
    problem_make(&p, 3, 37, 0, 0.9, true, 50);
    for (int i = 0; i < 37; i++) p.r.target[i] = i == 5 ? 7 * 65000.0 : 0; // a scale 4 % larger has no f16
    for (int i = 0; i < 37; i++) p.r.target[37 + i] = 0;
    for (int i = 0; i < 37; i++) p.r.target[74 + i] *= 1e-9; // no scale is as small
    const struct gyre_stage stage = {.kind = GYRE_STAGE_GPTQ, .clip = GYRE_CLIP_NONE, .act_order = true, .scales = 5};
    assert_int_equal(gyre_stage_gptq(&stage, &p.r, NULL), GYRE_OK);
    assert_true(isfinite(gyre_f32_from_f16(p.codes.scale[0])) && p.codes.scale[0] > 0);
    for (int row = 1; row < 3; row++) assert_int_equal(p.codes.scale[row], 0);
    for (int i = 37; i < 3 * 37; i++) assert_int_equal(p.codes.code[i], 0);
    gyre_error err = {0};
    p.r.target[2 * 37 + 11] = NAN;
    assert_int_equal(gyre_stage_gptq(&stage, &p.r, &err), GYRE_E_FORMAT);
    assert_non_null(strstr(err.message, "row 2, column 11"));
    problem_free(&p);
}

// ---- the whole ladder ---------------------------------------------------------------------------------------

static void plain_recipes_need_no_statistics(void **state)
{
    (void)state;
    struct problem p;
    problem_make(&p, 9, 160, 32, 0.9, false, 60);
    struct gyre_recipe recipe = {.n_stages = 1, .stage = {{.kind = GYRE_STAGE_RTN, .clip = GYRE_CLIP_WEIGHTS}}};
    struct gyre_ladder_note note;
    struct gyre_factor none = {0};
    int8_t code[9 * 160];
    uint16_t scale[45];
    struct gyre_codes want = {.bits = 4, .group = 32, .code = code, .scale = scale};
    const struct gyre_ladder_linear plain = {.w = p.w, .rows = 9, .cols = 160};
    assert_int_equal(gyre_ladder(&recipe, &plain, NULL, &p.codes, &note, NULL), GYRE_OK);
    assert_int_equal(gyre_rtn(p.w, 9, 160, &want, NULL), GYRE_OK);
    assert_memory_equal(p.codes.code, code, sizeof code);
    assert_memory_equal(p.codes.scale, scale, sizeof scale);
    assert_true(note.error[0] == 0 && note.damp == 0 && note.alpha == 0);
    for (uint32_t bits = 4; bits <= 8; bits += 4) {
        recipe.stage[0].clip = GYRE_CLIP_NONE;
        p.codes.bits = bits;
        assert_int_equal(gyre_ladder(&recipe, &plain, &none, &p.codes, &note, NULL), GYRE_OK);
        assert_null(none.h);
        const float hi = bits == 4 ? 7 : 127;
        for (int g = 0; g < 45; g++) {
            float max = 0;
            for (int i = 0; i < 32; i++) max = fmaxf(max, fabsf(p.w[g * 32 + i]));
            const double s = (double)gyre_round_to_f16(max / hi);
            assert_true((double)gyre_f32_from_f16(p.codes.scale[g]) == s);
            for (int i = g * 32; i < g * 32 + 32; i++)
                assert_int_equal(p.codes.code[i], (int)fmin(rint((double)p.w[i] / s), hi));
        }
    }
    p.w[3 * 160 + 70] = INFINITY;
    for (int clip = GYRE_CLIP_NONE; clip <= GYRE_CLIP_WEIGHTS; clip++) {
        gyre_error err = {0};
        recipe.stage[0].clip = (gyre_clip)clip;
        assert_int_equal(gyre_ladder(&recipe, &plain, NULL, &p.codes, &note, &err), GYRE_E_FORMAT);
        assert_non_null(strstr(err.message, "row 3, column 70"));
    }
    problem_free(&p);
}

static void every_rung_lowers_the_error(void **state)
{
    (void)state;
    for (int s = 0; s < SHAPES; s++) {
        struct problem p;
        problem_make(&p, shapes[s].rows, shapes[s].cols, shapes[s].group, 0.9, false, 70 + (uint64_t)s);
        const struct gyre_moments m = {.n = (uint32_t)p.cols, .fit = {.weight = 1, .h = p.h}};
        const struct gyre_recipe recipe = {
            .n_stages = 4,
            .stage = {
                {.kind = GYRE_STAGE_GPTQ, .clip = GYRE_CLIP_HESSIAN, .damp = 0.03, .act_order = true, .scales = 3},
                {.kind = GYRE_STAGE_DESCENT, .iterations = 3},
                {.kind = GYRE_STAGE_REFIT},
                {.kind = GYRE_STAGE_DESCENT, .iterations = 2}}};
        struct gyre_ladder_note note, again;
        struct gyre_factor cache = {0};
        gyre_error err = {0};
        const struct gyre_ladder_linear linear = {.w = p.w, .rows = p.rows, .cols = p.cols, .moments = &m};
        if (gyre_ladder(&recipe, &linear, &cache, &p.codes, &note, &err) != GYRE_OK) fail_msg("%s", err.message);
        assert_true(note.damp == 0.03 && note.dead == 0 && note.alpha == 0 && note.residual == 0);
        assert_true(note.error[1] < note.error[0] && note.error[2] < note.error[1] && note.error[3] <= note.error[2]);
        assert_true(note.error[3] > 0 && note.error[0] < 0.02);
        // The last is the error of the codes there are, against the weights' own energy.
        gyre_factor_release(&p.factor);
        p.factor = cache;
        const double error = problem_error(&p);
        int8_t *codes = malloc(p.rows * p.cols);
        memcpy(codes, p.codes.code, p.rows * p.cols);
        // A second linear of the tap has the same from the kept factor.
        assert_int_equal(gyre_ladder(&recipe, &linear, &cache, &p.codes, &again, NULL), GYRE_OK);
        assert_memory_equal(codes, p.codes.code, p.rows * p.cols);
        assert_memory_equal(&note, &again, sizeof note);
        memset(p.codes.code, 0, p.rows * p.cols);
        const double whole = problem_error(&p);
        assert_true(fabs(error / whole - note.error[3]) < 1e-9 * note.error[3]);
        free(codes);
        problem_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factor_inverts_the_hessian),
        cmocka_unit_test(order_is_descending_and_stable),
        cmocka_unit_test(solve_and_energy_are_their_definitions),
        cmocka_unit_test(dead_inputs_get_the_identity),
        cmocka_unit_test(damping_escalates_and_gives_up),
        cmocka_unit_test(gptq_is_babais_nearest_plane),
        cmocka_unit_test(gptq_with_an_identity_is_plain_rounding),
        cmocka_unit_test(gptq_beats_plain_rounding_and_more_scales_never_hurt),
        cmocka_unit_test(extreme_rows_stay_finite),
        cmocka_unit_test(plain_recipes_need_no_statistics),
        cmocka_unit_test(every_rung_lowers_the_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
