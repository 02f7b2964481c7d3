// Learning by steps, on a loss that is written down: every window w pulls one number to w.
#include "quantizer/gradient/steps.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct toy {
    double x, before, best, gradient, rate;
    uint32_t seen[64], looks[64], saves, ticks, broken; // broken: the loss at this step's first window is no number
    struct gyre_steps_head head;
};

static gyre_status loss(void *self, uint32_t w, double *value, double *gradient, gyre_error *err)
{
    struct toy *t = self;
    (void)err;
    *value = (t->x - w) * (t->x - w) / 2;
    if (gradient) {
        t->seen[w]++;
        *gradient = t->x - w;
        if (t->broken && t->head.step + 1 == t->broken) *value = NAN;
    } else {
        t->looks[w]++;
    }
    return GYRE_OK;
}

static gyre_status down(void *self, gyre_error *err)
{
    struct toy *t = self;
    (void)err;
    t->before = t->x;
    t->x -= t->rate * t->gradient;
    return GYRE_OK;
}

static gyre_status back(void *self, gyre_error *err)
{
    struct toy *t = self;
    (void)err;
    t->x = t->before;
    return GYRE_OK;
}

static void best(void *self) { ((struct toy *)self)->best = ((struct toy *)self)->x; }

static gyre_status tick(void *self, bool look, gyre_error *err)
{
    (void)err;
    ((struct toy *)self)->ticks += !look;
    return GYRE_OK;
}

static gyre_status save(void *self, gyre_error *err)
{
    (void)err;
    ((struct toy *)self)->saves++;
    return GYRE_OK;
}

static void run(struct toy *t, uint32_t windows, uint32_t batch, uint32_t steps)
{
    static const gyre_log quiet = {0};
    gyre_error err = {0};
    t->head.n = 1;
    t->head.steps = steps;
    t->head.rate = 1;
    const struct gyre_steps s = {.name = "toy",
                                 .what = "learn",
                                 .look = 4,
                                 .keep = 4,
                                 .windows = windows,
                                 .batch = batch,
                                 .log = &quiet,
                                 .head = &t->head,
                                 .gradient = &t->gradient,
                                 .self = t,
                                 .loss = loss,
                                 .down = down,
                                 .back = back,
                                 .best = best,
                                 .tick = tick,
                                 .save = save};
    if (gyre_steps_run(&s, &err) != GYRE_OK) fail_msg("%s", err.message);
}

// A batch of all windows but the held-out ones goes to their mean at once, smaller ones take them in turn.
static void a_step_is_the_mean_of_its_batch(void **state)
{
    (void)state;
    struct toy t = {.rate = 1};
    run(&t, 16, 14, 1);
    assert_true(fabs(t.x - (120. - 7 - 15) / 14) < 1e-12);
    for (int w = 0; w < 16; w++) assert_int_equal(t.seen[w], w % 8 != 7);
    assert_int_equal(t.ticks, 14);

    struct toy two = {.rate = 1};
    run(&two, 16, 2, 2);
    assert_true(fabs(two.x - 2.5) < 1e-12); // the mean of 2 and 3, whatever came before
    for (int w = 0; w < 4; w++) assert_int_equal(two.seen[w], 1);

    struct toy one = {.rate = 1};
    run(&one, 16, 1, 15);
    assert_true(one.x == 0); // 14 windows, then from the first on
    assert_int_equal(one.seen[0], 2);
}

static void what_is_held_out_is_looked_at_and_nothing_else(void **state)
{
    (void)state;
    struct toy t = {.rate = 0.1};
    run(&t, 16, 3, 10);
    for (int w = 0; w < 16; w++) {
        assert_int_equal(t.looks[w], w % 8 == 7 ? 4 : 0); // before, behind 4, 8 and 10
        if (w % 8 == 7) assert_int_equal(t.seen[w], 0);
    }
    assert_true(t.head.best < t.head.before && t.head.best_step > 0);
    assert_int_equal(t.saves, 3);
}

static void a_loss_that_is_no_number_takes_the_step_back(void **state)
{
    (void)state;
    struct toy t = {.rate = 1, .broken = 3};
    run(&t, 16, 2, 3);
    assert_int_equal(t.head.halved, 1);
    assert_true(t.head.rate == 0.5);
    assert_true(fabs(t.x - 0.5) < 1e-12); // behind the first step: the second was taken back, the third not taken
}

// Every place has a window of its kind, none comes twice, and the first few lie all over the text.
static void the_order_keeps_apart_what_is_held_out(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{2, 2}, {7, 7}, {8, 8}, {58, 58}, {96, 64}, {128, 64}, {130, 127}, {4096, 65}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const uint32_t all = sizes[i][0], read = sizes[i][1];
        uint32_t of[128], first[4] = {0};
        bool taken[4096] = {false};
        gyre_steps_order(all, 0, read, of);
        for (uint32_t w = 0, n = 0; w < read; w++) {
            assert_true(of[w] < all && !taken[of[w]]);
            taken[of[w]] = true;
            assert_int_equal(gyre_steps_is_held(all, of[w]), gyre_steps_is_held(read, w));
            if (!gyre_steps_is_held(read, w) && n++ < 12) first[of[w] * 4 / all]++;
        }
        for (int q = 0; read > 16 && q < 4; q++) assert_in_range(first[q], 2, 4);
    }
}

// What rounding has not seen comes first in the steps, evenly; what is held out is nothing that rounding was fitted to.
static void steps_come_to_new_windows_first(void **state)
{
    (void)state;
    static const uint32_t sizes[][3] = {{128, 126, 183}, {128, 126, 254}, {128, 126, 64}, {128, 1, 129},
                                        {7, 2, 9},       {7, 1, 2},       {1, 9, 10},     {1, 1, 2},
                                        {15, 15, 30},    {9, 60, 68},     {8, 8, 15},     {16, 4000, 250}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const uint32_t old = sizes[i][0], more = sizes[i][1], read = sizes[i][2];
        uint32_t of[256], first[4] = {0}, n = 0, left = more, seen = 0, held = 0;
        bool taken[4096] = {false};
        gyre_steps_order(old, more, read, of);
        for (uint32_t w = 0; w < read; w++) {
            const bool is_held = gyre_steps_is_held(read, w), is_new = of[w] >= old;
            assert_true(of[w] < old + more && !taken[of[w]]);
            taken[of[w]] = true;
            held += is_held && !is_new;
            left -= is_new;
            if (is_held) {
                assert_true(is_new || (old >= GYRE_STEPS_HELD_OUT && gyre_steps_is_held(old, of[w])));
                continue;
            }
            seen += !is_new;
            if (is_new) assert_int_equal(seen, 0);
            else assert_true(old < GYRE_STEPS_HELD_OUT || !gyre_steps_is_held(old, of[w]));
            if (is_new && n++ < 12) first[(of[w] - old) * 4 / more]++;
        }
        if (seen) assert_int_equal(left, 0);
        if (old >= GYRE_STEPS_HELD_OUT && gyre_steps_held(read) >= gyre_steps_held(old))
            assert_int_equal(held, gyre_steps_held(old)); // all that calibration holds out
        for (int q = 0; more > 16 && q < 4; q++) assert_in_range(first[q], 2, 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_is_the_mean_of_its_batch),
        cmocka_unit_test(what_is_held_out_is_looked_at_and_nothing_else),
        cmocka_unit_test(a_loss_that_is_no_number_takes_the_step_back),
        cmocka_unit_test(the_order_keeps_apart_what_is_held_out),
        cmocka_unit_test(steps_come_to_new_windows_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
