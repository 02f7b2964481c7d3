// How the scheduler chooses tokens: by a task's settings, on the device or on the host alike, by its seed alone, and
// the same for twins.
#include "runtime/engine.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"
#include "tests/runtime/heard.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_choosing(void **state)
{
    (void)state;
    gyre_engine *e = heard_engine("cpu", 2);
    gyre_scheduler *s = heard_scheduler(e, 0, false);
    uint32_t a[9];
    tiny_tokens(a, 9, 6, VOCAB);
    struct heard plain = {.n = 0}, h = {.n = 0};
    gyre_task_params p = heard_task(a, 9, 6, &plain);
    heard_solo(s, &p);
    const gyre_task_params settings[] = {{.temperature = 1, .top_k = 1},
                                         {.temperature = 1, .top_p = 1e-6f},
                                         {.temperature = 1, .min_p = 1},
                                         {.temperature = 1e-4f}};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) { // all of them leave one token
        h.n = 0;
        p = heard_task(a, 9, 6, &h);
        p.temperature = settings[i].temperature;
        p.top_k = settings[i].top_k;
        p.top_p = settings[i].top_p;
        p.min_p = settings[i].min_p;
        p.seed = i;
        heard_solo(s, &p);
        for (uint32_t k = 0; k < 6; k++) assert_int_equal(h.token[k].token, plain.token[k].token);
    }
    // Bias and constraint.
    const gyre_logit_bias bias = {77, 100};
    h.n = 0;
    p = heard_task(a, 9, 6, &h);
    p.bias = &bias;
    p.n_bias = 1;
    heard_solo(s, &p);
    for (uint32_t k = 0; k < 6; k++) assert_int_equal(h.token[k].token, 77);
    h = (struct heard){.allow_from = 40, .allow_to = 44};
    p = heard_task(a, 9, 6, &h);
    p.allow = heard_allow;
    p.temperature = 2;
    heard_solo(s, &p);
    for (uint32_t k = 0; k < 6; k++) assert_in_range(h.token[k].token, 40, 43);
    h = (struct heard){.n = 0};
    p = heard_task(a, 9, 6, &h);
    p.allow = heard_allow; // nothing is allowed
    gyre_task *t = heard_add(s, &p);
    gyre_stop why = GYRE_STOP_LENGTH;
    heard_run(s, &t, 1);
    assert_true(gyre_task_ended(t, &why));
    assert_int_equal(why, GYRE_STOP_BOUND);
    gyre_scheduler_remove(s, t);
    // A draw depends on seed and stream alone.
    uint32_t drawn[4][6];
    for (uint32_t i = 0; i < 4; i++) {
        h.n = 0;
        p = heard_task(a, 9, 6, &h);
        p.temperature = 2;
        p.seed = i == 2 ? 8 : 7;
        p.stream = i == 3;
        heard_solo(s, &p);
        for (uint32_t k = 0; k < 6; k++) drawn[i][k] = h.token[k].token;
    }
    assert_memory_equal(drawn[0], drawn[1], sizeof drawn[0]);
    assert_memory_not_equal(drawn[0], drawn[2], sizeof drawn[0]);
    assert_memory_not_equal(drawn[0], drawn[3], sizeof drawn[0]);
    // Frequency and presence count what was generated, repetition the prompt too: with all weight against it no token
    // comes twice.
    h.n = 0;
    p = heard_task(a, 9, 20, &h);
    p.presence = 1000;
    heard_solo(s, &p);
    for (uint32_t i = 0; i < 20; i++)
        for (uint32_t k = 0; k < i; k++) assert_int_not_equal(h.token[i].token, h.token[k].token);
    gyre_scheduler_destroy(s);
    OK(gyre_engine_close(e, err));
}

// Where nothing but a temperature is asked for a step makes as many calls of the device as a greedy one, the first too:
// no logits are read.
static void test_device_draws(void **state)
{
    (void)state;
    enum { N = 6, ALIKE = 3 };
    uint64_t calls[2] = {0};
    gyre_engine *e = heard_engine("cpu", ALIKE);
    gyre_scheduler *s = heard_scheduler(e, 0, false);
    uint32_t a[5], b[5];
    tiny_tokens(a, 5, 7, VOCAB);
    tiny_tokens(b, 5, 8, VOCAB);
    struct heard h = {.n = 0};
    gyre_task_params p = heard_task(b, 5, N, &h);
    heard_solo(s, &p); // what is made at first use
    for (int warm = 0; warm < 2; warm++) {
        h.n = 0;
        p = heard_task(a, 5, N, &h);
        p.temperature = 1.5f * (float)warm;
        const uint64_t before = e->device->counters.calls;
        heard_solo(s, &p);
        calls[warm] = e->device->counters.calls - before;
    }
    assert_int_equal(calls[1], calls[0] + 1); // and one that tells the device of the temperature
    // Three alike choose from the same logits, each as it does alone: one takes the likeliest.
    struct heard alike[ALIKE], alone[ALIKE];
    gyre_task *t[ALIKE];
    memset(alike, 0, sizeof alike);
    memset(alone, 0, sizeof alone);
    for (uint32_t i = 0; i < ALIKE; i++) {
        p = heard_task(b, 5, N, &alone[i]);
        p.temperature = i == 1 ? 0 : 1.5f;
        p.stream = i;
        heard_solo(s, &p);
    }
    for (uint32_t i = 0; i < ALIKE; i++) {
        p.temperature = i == 1 ? 0 : 1.5f;
        p.stream = i;
        p.user = &alike[i];
        t[i] = heard_add(s, &p);
    }
    heard_run(s, t, ALIKE);
    for (uint32_t i = 0; i < ALIKE; i++)
        for (uint32_t k = 0; k < N; k++) assert_int_equal(alike[i].token[k].token, alone[i].token[k].token);
    gyre_scheduler_destroy(s);
    OK(gyre_engine_close(e, err));
}

// Most choices need the most likely tokens alone, which the device finds: they are those that all logits give, which a
// task that wants scores is chosen from, however many run beside it.
static void test_lists(void **state)
{
    (void)state;
    enum { ANSWER = 20, SETTINGS = 10 };
    static const gyre_task_params settings[SETTINGS] = {{.temperature = 1, .top_k = 40, .top_p = 0.95f},
                                                        {.temperature = 1.5f, .min_p = 0.1f},
                                                        {.temperature = 0, .presence = 0.5f},
                                                        {.temperature = 0, .repetition = 1.3f, .frequency = 0.2f},
                                                        {.temperature = 0.7f, .top_k = 64, .min_p = 0.01f},
                                                        {.temperature = 1, .top_k = 8},
                                                        {.temperature = 0.8f}, // the device draws
                                                        {.temperature = 0.1f, .top_p = 0.9f},
                                                        {.temperature = 1, .top_p = 0.9f},
                                                        {.temperature = 4, .top_p = 0.99f}}; // lists are given up
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e = heard_engine(device_names[d], SETTINGS);
        if (!e) continue;
        gyre_scheduler *s = heard_scheduler(e, 0, true);
        for (int bound = 0; bound < 2; bound++) {
            struct heard lists[SETTINGS], all = {.n = 0};
            gyre_task *tasks[SETTINGS];
            uint32_t a[SETTINGS][9];
            gyre_task_params p[SETTINGS];
            for (uint32_t i = 0; i < SETTINGS; i++) {
                tiny_tokens(a[i], 9, 20 + i, VOCAB);
                lists[i] = (struct heard){.allow_from = bound ? 30 : 0, .allow_to = bound ? 150 : 0};
                p[i] = settings[i];
                p[i].size = sizeof p[i];
                p[i].prompt = a[i];
                p[i].n_prompt = 9;
                p[i].max_tokens = ANSWER;
                p[i].seed = i;
                p[i].ignore_end = true;
                p[i].on_token = heard_token;
                p[i].allow = bound ? heard_allow : NULL;
                p[i].user = &lists[i];
                tasks[i] = heard_add(s, &p[i]);
            }
            heard_run(s, tasks, SETTINGS);
            for (uint32_t i = 0; i < SETTINGS; i++) gyre_scheduler_remove(s, tasks[i]);
            for (uint32_t i = 0; i < SETTINGS; i++) {
                all = (struct heard){.allow_from = lists[i].allow_from, .allow_to = lists[i].allow_to};
                p[i].user = &all;
                p[i].scores = true;
                heard_solo(s, &p[i]);
                for (uint32_t k = 0; k < ANSWER; k++) assert_int_equal(all.token[k].token, lists[i].token[k].token);
            }
        }
        gyre_scheduler_destroy(s);
        OK(gyre_engine_close(e, err));
    }
}

// All of the vocabulary is drawn from, each token as often as it is likely: chi-squared over ten groups.
static void test_draws(void **state)
{
    (void)state;
    enum { DRAWS = 600, GROUPS = 10 };
    gyre_engine *e = heard_engine("cpu", 1);
    gyre_scheduler *s = heard_scheduler(e, 0, false);
    uint32_t a[5];
    tiny_tokens(a, 5, 7, VOCAB);
    float logits[VOCAB];
    OK(gyre_logits(e, a, 5, logits, err));
    for (int with_p = 0; with_p < 2; with_p++) {
        double share[GROUPS] = {0}, sum = 0, chi = 0;
        int seen[GROUPS] = {0};
        for (uint32_t i = 0; i < VOCAB; i++) sum += exp((double)logits[i]);
        for (uint32_t i = 0; i < VOCAB; i++) share[i % GROUPS] += exp((double)logits[i]) / sum;
        for (uint32_t i = 0; i < DRAWS; i++) {
            struct heard h = {.n = 0};
            gyre_task_params p = heard_task(a, 5, 1, &h);
            p.temperature = 1;
            p.top_p = with_p ? 0.9999999f : 0;
            p.seed = i;
            heard_solo(s, &p);
            seen[h.token[0].token % GROUPS]++;
        }
        for (int i = 0; i < GROUPS; i++) chi += pow(seen[i] - DRAWS * share[i], 2) / (DRAWS * share[i]);
        if (chi > 33.7) fail_msg("chi-squared of 9 degrees is %g: one in ten thousand is above 33.7", chi);
    }
    gyre_scheduler_destroy(s);
    OK(gyre_engine_close(e, err));
}

// Tasks with one prompt: it is computed once, all choose from its logits, and go on as if they were alone.
static void test_twins(void **state)
{
    (void)state;
    enum { N = 5, TWINS = 4 };
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e = heard_engine(device_names[d], TWINS);
        if (!e) continue;
        uint32_t a[45], want[N];
        tiny_tokens(a, 45, 20, VOCAB);
        heard_greedy(e, a, 45, want, N);
        for (int warm = 0; warm < 2; warm++) {
            gyre_scheduler *alone = heard_scheduler(e, 0, true), *s = heard_scheduler(e, 0, false);
            static struct heard h[TWINS], solos[TWINS];
            memset(h, 0, sizeof h);
            memset(solos, 0, sizeof solos);
            gyre_task *t[TWINS];
            for (int i = 0; i < TWINS; i++) {
                gyre_task_params p = heard_task(a, 45, N, &solos[i]);
                p.temperature = warm ? 2 : 0;
                p.stream = (uint32_t)i;
                p.scores = i == 3;
                heard_solo(alone, &p);
                p.user = &h[i];
                t[i] = heard_add(s, &p);
            }
            while (h[0].n == 0) OK(gyre_scheduler_step(s, err));
            assert_int_equal(h[1].n, 1); // in the same step
            assert_int_equal(h[2].n, 1);
            assert_int_equal(h[3].n, warm); // where logits were read anyway; else its score is not there yet
            assert_int_equal(gyre_scheduler_count(s).rows, warm ? 45 - 32 : 45); // a page is known from before
            heard_run(s, t, TWINS);
            for (int i = 0; i < TWINS; i++)
                for (int k = 0; k < N; k++) {
                    assert_int_equal(h[i].token[k].token, solos[i].token[k].token);
                    if (!warm) assert_int_equal(h[i].token[k].token, want[k]);
                    assert_int_equal(h[i].token[k].scored, i == 3);
                    if (i == 3) assert_true(fabsf(h[i].token[k].logprob - solos[i].token[k].logprob) < 1e-3f);
                }
            gyre_scheduler_destroy(s);
            gyre_scheduler_destroy(alone);
        }
        OK(gyre_engine_close(e, err));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choosing), cmocka_unit_test(test_device_draws), cmocka_unit_test(test_lists),
        cmocka_unit_test(test_draws),    cmocka_unit_test(test_twins),
    };
    return cmocka_run_group_tests(tests, heard_setup, heard_teardown);
}
