// The loop of learning rotations on an objective that is made up: it goes down, keeps the best, and where the loss is
// not finite takes the step back with half the rate, three times at most.
#include "tests/common/ok.h"
#include "quantizer/learn/descend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N = 6, HD = 4, LAYERS = 2, FFN = 3 };

// How far R1 and each R2 are from a permutation: sum |R - P|^2 / 2, of which the gradient is R - P; and the logarithms
// of diagonals from 1/4.
struct made_up {
    unsigned calls, bad_from, bad_to; // gradient calls whose loss is no number
    bool bad_gradient;                // ... or whose gradient is none
    unsigned seen[32];                // windows
};

static double distance(const double *r, uint32_t n, double *gradient)
{
    double sum = 0;
    for (uint32_t i = 0; i < n * n; i++) {
        const double d = r[i] - ((i / n + 1) % n == i % n ? i / n ? 1 : -1 : 0); // a rotation where n is even
        sum += d * d / 2;
        if (gradient) gradient[i] = d;
    }
    return sum;
}

static gyre_status at(void *self, const struct gyre_matrices *m, uint32_t window, double *loss,
                      struct gyre_matrices *gradient, gyre_error *err)
{
    struct made_up *o = self;
    (void)err;
    *loss = distance(m->r1, N, gradient ? gradient->r1 : NULL);
    for (uint32_t l = 0; l < LAYERS; l++)
        *loss += distance(gyre_matrices_r2(m, l, 0), HD, gradient ? gyre_matrices_r2(gradient, l, 0) : NULL);
    for (uint64_t i = gyre_matrices_turning(m); i < gyre_matrices_count(m); i++) {
        const double d = log(gyre_matrices_data(m)[i]) - 0.25;
        *loss += d * d / 2;
        if (gradient) gyre_matrices_data(gradient)[i] = d;
    }
    if (!gradient) return GYRE_OK;
    if (window < 32) o->seen[window]++;
    const bool bad = o->calls >= o->bad_from && o->calls < o->bad_to;
    o->calls++;
    if (bad && o->bad_gradient) gradient->r1[3] = NAN;
    else if (bad) *loss = INFINITY;
    return GYRE_OK;
}

static unsigned ticks, kept, warned;
static gyre_status tick(void *user, bool look, gyre_error *err)
{
    (void)user, (void)err;
    ticks += !look;
    return GYRE_OK;
}
static gyre_status keep(void *user, gyre_error *err)
{
    (void)user, (void)err;
    kept++;
    return GYRE_OK;
}
static void on_log(void *user, gyre_log_level level, const char *line)
{
    (void)user;
    warned += level == GYRE_LOG_WARN && strstr(line, "the rate halved");
}

static const gyre_log lines = {.write = on_log, .level = GYRE_LOG_DEBUG};

static void begin(struct gyre_descent *d, struct gyre_objective *objective, struct made_up *o, uint32_t windows,
                  bool diagonals)
{
    *objective = (struct gyre_objective){.at = at, .self = o};
    *d = (struct gyre_descent){.objective = objective,
                               .windows = windows,
                               .rate = 0.5,
                               .log = &lines,
                               .tick = tick,
                               .keep = keep,
                               .head = {.steps = 60, .rate = 1}};
    struct gyre_matrices *const all[] = {&d->at, &d->best, &d->before, &d->gradient};
    for (int i = 0; i < 4; i++) {
        OK(gyre_matrices_create(N, LAYERS, 1, HD, diagonals ? FFN : 0, true, all[i], err));
        for (int k = 0; k < N; k++) all[i]->r1[k * N + k] = 1;
        for (uint32_t l = 0; l < LAYERS; l++)
            for (int k = 0; k < HD; k++) gyre_matrices_r2(all[i], l, 0)[k * HD + k] = 1;
        for (uint64_t k = gyre_matrices_turning(all[i]); k < gyre_matrices_count(all[i]); k++)
            gyre_matrices_data(all[i])[k] = 1;
    }
    d->head.n = gyre_matrices_count(&d->at);
    d->moment = diagonals ? calloc(4 * d->head.n, sizeof *d->moment) : NULL;
    d->moment_before = diagonals ? d->moment + 2 * d->head.n : NULL;
    ticks = kept = warned = 0;
}

static void end(struct gyre_descent *d)
{
    gyre_matrices_release(&d->at);
    gyre_matrices_release(&d->best);
    gyre_matrices_release(&d->before);
    gyre_matrices_release(&d->gradient);
    free(d->moment);
}

static void it_goes_down_and_keeps_the_best(void **unused)
{
    (void)unused;
    struct made_up o = {0};
    struct gyre_objective objective;
    struct gyre_descent d;
    double loss;
    begin(&d, &objective, &o, 20, false);
    OK(gyre_descend(&d, err));
    assert_true(d.head.done && d.head.step == 60 && d.head.halved == 0);
    assert_true(d.head.best < 0.5 * d.head.before);
    assert_int_equal(ticks, 60);
    assert_int_equal(kept, 12);
    OK(at(&o, &d.best, 0, &loss, NULL, err));
    assert_true(fabs(loss - d.head.best) < 1e-12 && gyre_matrices_drift(&d.best) < 1e-13);
    for (unsigned w = 0; w < 32; w++) // 7 and 15 are held out
        if ((o.seen[w] > 0) != (w < 20 && w % 8 != 7)) fail_msg("window %u: %u steps", w, o.seen[w]);
    end(&d);
}

// By Adam rotations and diagonals go down together: all of a diagonal's numbers by the same, as they are alike.
static void pairs_go_down(void **unused)
{
    (void)unused;
    struct made_up o = {0};
    struct gyre_objective objective;
    struct gyre_descent d;
    begin(&d, &objective, &o, 20, true);
    OK(gyre_descend(&d, err));
    assert_true(d.head.done && d.head.best < 0.3 * d.head.before);
    assert_true(gyre_matrices_drift(&d.best) < 1e-13);
    const double *x = gyre_matrices_data(&d.best);
    for (uint64_t i = gyre_matrices_turning(&d.at) + 1; i < d.head.n; i++)
        assert_true(fabs(x[i] - x[gyre_matrices_turning(&d.at)]) < 1e-12);
    assert_true(fabs(log(x[d.head.n - 1]) - 0.25) < 0.05);
    assert_true(fabs(gyre_matrices_widest(&d.best) - x[d.head.n - 1]) < 1e-12);
    end(&d);
}

static void what_is_not_finite_is_taken_back(void **unused)
{
    (void)unused;
    for (int way = 0; way < 4; way++) { // a loss or a gradient; plain steps or Adam's
        struct made_up o = {.bad_from = 10, .bad_to = 13, .bad_gradient = way % 2};
        struct gyre_objective objective;
        struct gyre_descent d;
        begin(&d, &objective, &o, 0, way > 1);
        OK(gyre_descend(&d, err));
        assert_int_equal(d.head.halved, 3);
        assert_true(d.head.rate == 0.125 && d.head.step == 60 && warned == 3);
        assert_true(d.head.best < d.head.before && gyre_matrices_drift(&d.at) < 1e-13);
        end(&d);
    }
}

static void a_fourth_time_and_the_first_step_are_refused(void **unused)
{
    (void)unused;
    for (int first = 0; first < 2; first++) {
        struct made_up o = {.bad_from = first ? 0 : 10, .bad_to = 99};
        struct gyre_objective objective;
        struct gyre_descent d;
        gyre_error why = {0};
        begin(&d, &objective, &o, 0, false);
        assert_int_equal(gyre_descend(&d, &why), GYRE_E_FORMAT);
        assert_non_null(strstr(why.message, first ? "(step 0): the loss is not finite"
                                                  : "(step 13): the loss is not finite, also at 0.125 of"));
        assert_int_equal(warned, first ? 0 : 3);
        end(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_goes_down_and_keeps_the_best),
        cmocka_unit_test(pairs_go_down),
        cmocka_unit_test(what_is_not_finite_is_taken_back),
        cmocka_unit_test(a_fourth_time_and_the_first_step_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
