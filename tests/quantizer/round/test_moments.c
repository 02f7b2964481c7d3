// Second moments against plain sums: the caps on a row's energy and on its difference, held-out rows apart, broken
// values named.
#include "quantizer/round/moments.h"
#include "runtime/util/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N = 13, W = 7, MOST = 120 };

// A batch, and what it should come to.
struct batch {
    uint64_t rows;
    float made[MOST * N], exact[MOST * N], difference[MOST * W];
};
struct sums {
    double weight, h[N * N], cross[N * N], stream[N * W];
};

static void fill(struct batch *b, uint64_t rows, uint64_t seed, bool sinks)
{
    struct gyre_rng rng = gyre_rng_seed(seed);
    b->rows = rows;
    for (uint64_t r = 0; r < rows; r++) {
        const double size = sinks && r % 11 == 3 ? 40 : 1;
        const double far = sinks && r % 13 == 5 ? 30 : 1;
        for (int i = 0; i < N; i++) {
            b->made[r * N + (uint64_t)i] = (float)(size * (gyre_rng_unit(&rng) - 0.4));
            b->exact[r * N + (uint64_t)i] =
                b->made[r * N + (uint64_t)i] + (float)(far * 0.1 * (gyre_rng_unit(&rng) - 0.3));
        }
        for (int i = 0; i < W; i++) b->difference[r * W + (uint64_t)i] = (float)(gyre_rng_unit(&rng) - 0.6);
    }
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// energy[r] of x - less (NULL: of x) [rows][cols]; returns what a row may have: 16 medians, or any where that is 0.
static double energies(const float *x, const float *less, uint64_t rows, uint64_t cols, double *energy)
{
    double sorted[MOST];
    for (uint64_t r = 0; r < rows; r++) {
        energy[r] = 0;
        for (uint64_t i = r * cols; i < (r + 1) * cols; i++)
            energy[r] += pow((double)x[i] - (less ? (double)less[i] : 0), 2);
        sorted[r] = energy[r];
    }
    qsort(sorted, rows, sizeof *sorted, ascending);
    return sorted[rows / 2] > 0 ? 16 * sorted[rows / 2] : INFINITY;
}

// How many rows counted less than they are: of the inputs, of the float inputs' differences.
struct capped {
    uint64_t input, cross;
};

// Adds the batch's weighted sums.
static void sum_up(const struct batch *b, struct sums *s, struct capped *capped)
{
    double input[MOST], cross[MOST];
    const double most = energies(b->made, NULL, b->rows, N, input);
    const double most_cross = energies(b->exact, b->made, b->rows, N, cross);
    for (uint64_t r = 0; r < b->rows; r++) {
        const double weight = input[r] > most ? most / input[r] : 1,
                     far = cross[r] > most_cross ? sqrt(most_cross / cross[r]) : 1;
        const float *x = b->made + r * N, *f = b->exact + r * N, *d = b->difference + r * W;
        capped->input += weight < 1;
        capped->cross += far < 1;
        s->weight += weight;
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < N; j++) {
                s->h[i * N + j] += weight * (double)x[i] * (double)x[j];
                s->cross[i * N + j] += weight * far * (double)x[i] * ((double)f[j] - (double)x[j]);
            }
            for (int j = 0; j < W; j++) s->stream[i * W + j] += weight * (double)x[i] * (double)d[j];
        }
    }
}

static void add(struct gyre_moments *m, bool held, struct batch b) // a copy: it is overwritten
{
    assert_int_equal(gyre_moments_add(m, held, b.made, b.exact, b.difference, NULL, b.rows, NULL), GYRE_OK);
}

static void same(const float *got, const double *want, double weight, int n)
{
    double size = 0;
    for (int i = 0; i < n; i++) size = fmax(size, fabs(want[i] / weight));
    for (int i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i] / weight) <= 1e-5 * size))
            fail_msg("%d: %g, not %g", i, (double)got[i], want[i] / weight);
}

static void same_set(const struct gyre_moment_set *set, const struct sums *s)
{
    assert_true(fabs(set->weight - s->weight) < 1e-9 * s->weight);
    same(set->h, s->h, s->weight, N * N);
    same(set->cross, s->cross, s->weight, N * N);
    same(set->stream, s->stream, s->weight, N * W);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < i; j++) assert_true(set->h[i * N + j] == set->h[j * N + i]);
}

static void sums_are_the_plain_ones(void **state)
{
    (void)state;
    static struct batch b;
    static struct sums fit, held;
    struct gyre_moments m;
    memset(&fit, 0, sizeof fit);
    memset(&held, 0, sizeof held);
    assert_int_equal(gyre_moments_create(N, W, true, true, &m, NULL), GYRE_OK);
    const uint64_t rows[] = {119, 1, 2, 40};
    struct capped capped = {0};
    for (int k = 0; k < 4; k++) {
        fill(&b, rows[k], 10 + (uint64_t)k, k != 3);
        add(&m, k == 1 || k == 3, b);
        sum_up(&b, k == 1 || k == 3 ? &held : &fit, &capped);
    }
    add(&m, false, (struct batch){.rows = 0}); // nothing
    assert_true(capped.input >= 10 && capped.cross >= 8);
    gyre_moments_finish(&m);
    same_set(&m.fit, &fit);
    same_set(&m.held, &held);
    gyre_moments_release(&m);
    assert_null(m.fit.h);
}

static void only_what_is_asked_for_is_kept(void **state)
{
    (void)state;
    static struct batch b, kept;
    static struct sums fit;
    struct capped capped = {0};
    struct gyre_moments m;
    memset(&fit, 0, sizeof fit);
    fill(&b, 30, 3, true);
    kept = b;
    assert_int_equal(gyre_moments_create(N, W, false, false, &m, NULL), GYRE_OK);
    assert_true(!m.fit.cross && !m.fit.stream && !m.held.cross && !m.held.stream);
    assert_int_equal(gyre_moments_add(&m, false, b.made, NULL, NULL, NULL, 30, NULL), GYRE_OK);
    gyre_moments_finish(&m);
    assert_true(m.held.weight == 0 && m.held.h[0] == 0); // no row: nothing to divide by
    sum_up(&kept, &fit, &capped);
    same(m.fit.h, fit.h, fit.weight, N * N);
    gyre_moments_release(&m);
}

// Where most rows are zero the median says nothing, and the others count whole.
static void mostly_zero_rows(void **state)
{
    (void)state;
    static struct batch b;
    static struct sums fit;
    struct capped capped = {0};
    struct gyre_moments m;
    memset(&fit, 0, sizeof fit);
    fill(&b, 9, 4, false);
    memset(b.made, 0, 6 * N * sizeof *b.made);
    sum_up(&b, &fit, &capped);
    assert_int_equal(capped.input, 0);
    assert_int_equal(gyre_moments_create(N, W, true, true, &m, NULL), GYRE_OK);
    add(&m, false, b);
    gyre_moments_finish(&m);
    assert_true(m.fit.h[0] > 0);
    same_set(&m.fit, &fit);
    gyre_moments_release(&m);
}

static void broken_values_are_named(void **state)
{
    (void)state;
    static struct batch b;
    static const float broken[] = {NAN, INFINITY, -INFINITY};
    static const char *const what[] = {"input 5 of calibration token 17 is", "float input 5 of calibration token 17 is",
                                       "residual difference 5 of calibration token 17 is"};
    struct gyre_moments m;
    assert_int_equal(gyre_moments_create(N, W, true, true, &m, NULL), GYRE_OK);
    for (int which = 0; which < 3; which++)
        for (int k = 0; k < 3; k++) {
            gyre_error err = {0};
            fill(&b, 23, 5, false);
            float *const to[] = {&b.made[17 * N + 5], &b.exact[17 * N + 5], &b.difference[17 * W + 5]};
            *to[which] = broken[k];
            assert_int_equal(gyre_moments_add(&m, k == 1, b.made, b.exact, b.difference, NULL, 23, &err),
                             GYRE_E_FORMAT);
            assert_memory_equal(err.message, what[which], strlen(what[which]));
        }
    assert_true(m.fit.weight == 0 && m.held.weight == 0);
    gyre_moments_release(&m);
}

static void energies_and_their_median(void **state)
{
    (void)state;
    const float x[5 * 2] = {3, 4, 0, 0, 1, 0, 0, 2, 1, 1};
    double energy[5], scratch[5];
    assert_true(gyre_row_energies(x, 5, 2, energy, scratch) == 2);
    assert_true(energy[0] == 25 && energy[1] == 0 && energy[2] == 1 && energy[3] == 4 && energy[4] == 2);
    assert_true(gyre_row_energies(x, 1, 2, energy, scratch) == 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_the_plain_ones),   cmocka_unit_test(only_what_is_asked_for_is_kept),
        cmocka_unit_test(mostly_zero_rows),          cmocka_unit_test(broken_values_are_named),
        cmocka_unit_test(energies_and_their_median),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
