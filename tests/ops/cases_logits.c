// Cases of argmax, topk, sample, mass, loglik and kl.
#include "tests/ops/check.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// Logits with ties, infinities and NaN in the first row, ties at zero of both signs in the second.
static float *make_logits(struct check *check, int rows, int width, double sigma, bool odd)
{
    float *x = check_normal(check, (size_t)(rows * width), sigma);
    for (int i = 0; odd && i < width; i++) {
        if (i % 3 == 0) x[i] = floorf(x[i]);
        if (i % 97 == 5) x[i] = NAN;
        if (i % 97 == 6) x[i] = -INFINITY;
        if (rows > 1) x[width + i] = i % 2 ? 0.0f : -0.0f;
        if (rows > 2) x[2 * width + i] = NAN;
    }
    return x;
}

static void topk_case(struct check *check, const char *kernel, int rows, int width, int k, int parts, uint32_t wg)
{
    const struct gyre_topk_params p = {rows, width, k, parts};
    const size_t out = 4 * (size_t)(rows * k * parts), in = (size_t)(rows * width);
    int32_t(*row)[4] = check_alloc(check, (size_t)rows * sizeof *row);
    uint32_t(*state)[4] = check_alloc(check, (size_t)rows * sizeof *state);
    for (int r = 0; r < rows; r++) { // every third takes the largest, every fifth is truncated
        row[r][2] = (int32_t)(check_random(check) % 100000), state[r][2] = check_random(check);
        state[r][0] = gyre_f32_bits(r % 3 ? 0.4f * (float)(r % 4 + 1) : 0), state[r][3] = r % 5 == 4 ? 40 : 0;
        state[r][1] = gyre_f32_bits(1);
    }
    const bool draws = !strcmp(kernel, "draw");
    const struct check_case c = {
        .kernel = kernel,
        .params = &p,
        .n_spec = 3,
        .spec = {wg, 1, 1},
        .groups = {(uint32_t)rows, (uint32_t)parts},
        .bind = {{.size = out, .rule = CHECK_BITS},
                 {.size = out, .rule = CHECK_BITS},
                 {.data = make_logits(check, rows, width, 4, !draws), .size = 4 * in},
                 {.data = draws ? (void *)row : check_words(check, in, 0xFFFFFF),
                  .size = draws ? (size_t)rows * sizeof *row : 4 * in},
                 {.data = state, .size = (size_t)rows * sizeof *state}},
    };
    check_run(check, &c, "%d rows of %d, k %d, %d parts, workgroup %u", rows, width, k, parts, wg);
}

void cases_argmax(struct check *check)
{
    topk_case(check, "argmax", 3, 1, 1, 1, 8);
    topk_case(check, "argmax", 4, 255, 1, 1, 8);
    topk_case(check, "argmax", 5, 1003, 1, 1, 64);
    topk_case(check, "argmax", 3, 9001, 1, 1, 13);
    topk_case(check, "argmax", 5, 9001, 1, 7, 64);
}

void cases_topk(struct check *check)
{
    topk_case(check, "topk", 4, 1003, 40, 1, 8);
    topk_case(check, "topk", 4, 700, 7, 1, 64);
    topk_case(check, "topk", 3, 300, 256, 1, 32);
    topk_case(check, "topk", 2, 5, 8, 1, 8);
    topk_case(check, "topk", 3, 3001, 20, 1, 11);
    topk_case(check, "topk", 4, 1003, 40, 5, 8);
}

void cases_topk_merge(struct check *check)
{
    topk_case(check, "topk_merge", 5, 17, 1, 1, 8);
    topk_case(check, "topk_merge", 3, 1400, 40, 1, 64);
}

void cases_draw(struct check *check)
{
    topk_case(check, "draw", 1, 5, 1, 1, 8);
    topk_case(check, "draw", 17, 1003, 1, 1, 8);
    topk_case(check, "draw", 5, 9001, 1, 7, 64);
}

// ---- sampling -----------------------------------------------------------------------------------------

void cases_sample(struct check *check)
{
    enum { ROWS = 41, K = 13 };
    int32_t(*rows)[4] = check_alloc(check, ROWS * sizeof *rows);
    uint32_t(*state)[4] = check_alloc(check, ROWS * sizeof *state);
    float *vals = check_uniform(check, ROWS * K, 0, 0.7);
    for (int r = 0; r < ROWS; r++) {
        rows[r][0] = 77, rows[r][1] = r % 5, rows[r][2] = (int32_t)(check_random(check) % 100000),
        rows[r][3] = r % 4 == 3 ? 1 : 3;
        const float temperature = r % 5 ? 0.3f * (float)(r % 5) : 0.0f, top_p = r % 3 ? 1.0f : 0.4f + 0.02f * (float)r;
        state[r][0] = gyre_f32_bits(temperature), state[r][1] = gyre_f32_bits(top_p), state[r][2] = check_random(check);
        state[r][3] = (uint32_t)r % 4;
        for (int j = 0; j < K; j++) vals[r * K + j] = (j ? vals[r * K + j - 1] : 30) - vals[r * K + j]; // descending
    }
    for (int r = 0; r < 3; r++) vals[(5 + r) * K] = r == 0 ? NAN : r == 1 ? INFINITY : -INFINITY; // nothing to choose
    for (int k = 1; k <= K; k += 4) {
        const struct gyre_sample_params p = {ROWS * K / k > ROWS ? ROWS : ROWS * K / k, k, k % 8 == 5};
        const struct check_case c = {
            .kernel = "sample",
            .params = &p,
            .n_spec = 3,
            .spec = {8, 1, 1},
            .groups = {(ROWS + 7) / 8},
            .bind = {{.data = rows, .size = ROWS * sizeof *rows, .rule = CHECK_BITS},
                     {.data = check_words(check, ROWS * GYRE_HISTORY, UINT32_MAX),
                      .size = 4 * ROWS * GYRE_HISTORY,
                      .rule = CHECK_BITS},
                     {.data = vals, .size = 4 * ROWS * K},
                     {.data = check_words(check, ROWS * K, 0xFFFF), .size = 4 * ROWS * K},
                     {.data = check_words(check, ROWS, 0xFFFF), .size = 4 * ROWS},
                     {.data = state, .size = ROWS * sizeof *state}},
        };
        check_run(check, &c, "k %d", k);
    }
}

// A sum to 5e-6 relative: arguments down to -20 are rounded before their exponential.
static bool same_sums(const void *want, const void *got, size_t size, char why[200])
{
    const float *a = want, *b = got;
    for (size_t i = 0; i < size / 4; i++) {
        if (fabsf(a[i] - b[i]) <= 5e-6f * fabsf(a[i])) continue;
        snprintf(why, 200, "row %zu is %.9g, want %.9g", i, (double)b[i], (double)a[i]);
        return false;
    }
    return true;
}

static void mass_case(struct check *check, int rows, int width, int k, double sigma, uint32_t wg)
{
    const struct gyre_mass_params p = {rows, width, k};
    float *x = make_logits(check, rows, width, sigma, false), *vals = check_alloc(check, 4 * (size_t)(rows * k));
    uint32_t(*state)[4] = check_alloc(check, (size_t)rows * sizeof *state);
    for (int r = 0; r < rows; r++) { // every third has no temperature
        float *top = &vals[r * k];
        for (int i = 0; i < k; i++) top[i] = -100;
        for (int i = 0; i < width; i++) *top = fmaxf(*top, x[r * width + i]);
        state[r][0] = gyre_f32_bits(r % 3 == 2 ? 0 : 0.35f * (float)(r + 1));
    }
    if (width > 9) x[3] = -INFINITY;
    const struct check_case c = {
        .kernel = "mass",
        .params = &p,
        .n_spec = 3,
        .spec = {wg, 1, 1},
        .groups = {(uint32_t)rows},
        .bind = {{.size = 4 * (size_t)rows, .compare = same_sums},
                 {.data = x, .size = 4 * (size_t)(rows * width)},
                 {.data = vals, .size = 4 * (size_t)(rows * k)},
                 {.data = state, .size = (size_t)rows * sizeof *state}},
    };
    check_run(check, &c, "%d rows of %d, k %d, sigma %g, workgroup %u", rows, width, k, sigma, wg);
}

void cases_mass(struct check *check)
{
    mass_case(check, 7, 1003, 64, 4, 8);
    mass_case(check, 2, 5, 1, 30, 8);
    mass_case(check, 3, 9001, 7, 0.01, 64);
    mass_case(check, 2, 700, 3, 3, 13);
}

// ---- likelihoods --------------------------------------------------------------------------------------

// float4 rows whose words 0, 1 and 3 are numbers to 2e-6 relative (1e-7 absolute), and whose word 2 is exact.
static bool same_rows(const void *want, const void *got, size_t size, char why[200])
{
    const float *a = want, *b = got;
    for (size_t i = 0; i < size / 4; i++) {
        const bool same =
            i % 4 == 2 ? gyre_f32_bits(a[i]) == gyre_f32_bits(b[i]) : fabsf(a[i] - b[i]) <= 2e-6f * fabsf(a[i]) + 1e-7f;
        if (same) continue;
        snprintf(why, 200, "row %zu word %zu is %.9g, want %.9g", i / 4, i % 4, (double)b[i], (double)a[i]);
        return false;
    }
    return true;
}

static void loglik_case(struct check *check, int rows, int width, double sigma, uint32_t wg)
{
    const struct gyre_loglik_params p = {rows, width};
    uint32_t *targets = check_words(check, (size_t)rows, 0xFFFFFF);
    for (int r = 1; r < rows; r++) targets[r] %= (uint32_t)width; // the first one lies beyond
    const struct check_case c = {
        .kernel = "loglik",
        .params = &p,
        .n_spec = 3,
        .spec = {wg, 1, 1},
        .groups = {(uint32_t)rows},
        .bind = {{.size = 16 * (size_t)rows, .compare = same_rows},
                 {.data = make_logits(check, rows, width, sigma, false), .size = 4 * (size_t)(rows * width)},
                 {.data = targets, .size = 4 * (size_t)rows}},
    };
    check_run(check, &c, "%d rows of %d, sigma %g, workgroup %u", rows, width, sigma, wg);
}

void cases_loglik(struct check *check)
{
    loglik_case(check, 5, 1003, 4, 8);
    loglik_case(check, 2, 5, 60, 8);
    loglik_case(check, 3, 9001, 0.01, 64);
    loglik_case(check, 2, 700, 30, 13);
}

static void kl_case(struct check *check, int rows, int width, double noise, uint32_t wg)
{
    const struct gyre_kl_params p = {rows, width};
    const size_t n = (size_t)(rows * width);
    float *x = check_normal(check, n, 4), *y = check_normal(check, n, noise);
    for (size_t i = 0; i < n; i++) y[i] += x[i] + 3; // a shift changes nothing
    const struct check_case c = {
        .kernel = "kl",
        .params = &p,
        .n_spec = 3,
        .spec = {wg, 1, 1},
        .groups = {(uint32_t)rows},
        .bind = {{.size = 16 * (size_t)rows, .compare = same_rows},
                 {.data = x, .size = 4 * n},
                 {.data = y, .size = 4 * n}},
    };
    check_run(check, &c, "%d rows of %d, noise %g, workgroup %u", rows, width, noise, wg);
}

void cases_kl(struct check *check)
{
    kl_case(check, 3, 1003, 1, 8);
    kl_case(check, 2, 7, 20, 8);
    kl_case(check, 2, 5001, 0.1, 64);
    kl_case(check, 3, 600, 0.001, 13);
}
