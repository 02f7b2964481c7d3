// The scheduler where one text's numbers are not finite: that one ends and says so, whatever chooses its tokens, the
// others say what they say alone, and nothing of it is found again or left where others come to lie.
#include "runtime/schedule.h"
#include "runtime/util/base.h"
#include "tests/common/device.h"
#include "tests/common/files.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"
#include "tests/runtime/heard.h"

#include <gyre/gyre_eval.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { GOOD = 2, LATER = 12, TEXTS = GOOD + LATER, N = 8, LONG = 70, SHORT = 33, BAD = 50, AT = 20, PLAIN = 200 };

// Texts of the first PLAIN tokens, what they say alone, and one with a token whose embedding is no number.
struct scene {
    gyre_engine *engine;
    uint32_t prompt[TEXTS][LONG], want[TEXTS][N], bad[BAD];
};
static size_t length(int text) { return text == 1 ? SHORT : LONG; }

static void spoil(const gyre_engine *e, uint32_t token)
{
    const struct gyre_weight *table = &e->model.table;
    const float nan = NAN;
    assert_true(table->kind == GYRE_WEIGHT_F32 && table->n_ranges == 1);
    for (uint32_t k = 0; k < table->k; k++)
        OK(gyre_buffer_write(e->device, table->range->weight.buffer,
                             table->range->weight.offset + 4ull * (k * table->range->n_pad + token), &nan, 4, err));
}

static bool holds(const uint32_t *tokens, size_t n, uint32_t token)
{
    for (size_t i = 0; i < n; i++)
        if (tokens[i] == token) return true;
    return false;
}

static char windowed_path[128];

static gyre_engine *open_engine(const char *model, const char *device, uint32_t sequences, uint32_t act, uint32_t kv,
                                bool as_hardware)
{
    gyre_engine *engine = NULL;
    gyre_error err = {0};
    const gyre_engine_params p = {.size = sizeof p,
                                  .device = device,
                                  .act = act,
                                  .kv = kv,
                                  .context = 256,
                                  .sequences = sequences,
                                  .logit_rows = 16,
                                  .cache_dir = "",
                                  .as_hardware = as_hardware};
    const gyre_status st = gyre_engine_open(model, &p, &engine, &err);
    return device_opened(device, st, &err) ? engine : NULL;
}

// False where the device is not there.
static bool make(struct scene *s, const char *model, const char *device, uint32_t act, uint32_t kv, bool as_hardware)
{
    uint32_t odd = PLAIN;
    s->engine = open_engine(model, device, 4, act, kv, as_hardware);
    if (!s->engine) return false;
    for (int i = 0; i < TEXTS; i++) {
        tiny_tokens(s->prompt[i], length(i), 10 + (uint32_t)i, PLAIN);
        heard_greedy(s->engine, s->prompt[i], length(i), s->want[i], N);
    }
    while (holds(*s->want, (size_t)TEXTS * N, odd)) odd++;
    assert_true(odd < VOCAB);
    tiny_tokens(s->bad, BAD, 60, PLAIN);
    s->bad[AT] = odd;
    spoil(s->engine, odd);
    return true;
}

static void expect_said(const struct scene *x, int text, const struct heard *h)
{
    assert_int_equal(h->n, N);
    for (int k = 0; k < N; k++) assert_int_equal(h->token[k].token, x->want[text][k]);
}

static void expect_failed(const gyre_task *t, const char *what)
{
    gyre_stop why;
    assert_true(gyre_task_ended(t, &why));
    assert_int_equal(why, GYRE_STOP_FAILED);
    assert_non_null(gyre_task_error(t));
    assert_int_equal(gyre_task_error(t)->code, GYRE_E_FORMAT);
    if (!strstr(gyre_task_error(t)->message, what)) fail_msg("%s", gyre_task_error(t)->message);
}

// Ways to choose: the device alone, drawn by it, from its list, by the host, and with the prompt's scores.
static const gyre_logit_bias bias = {7, 1};
static void choose_by(int way, gyre_task_params *p)
{
    if (way == 1 || way == 2) p->temperature = 1;
    if (way == 2) p->top_p = 0.5f;
    if (way == 3) p->bias = &bias, p->n_bias = 1;
    if (way == 4) p->score_prompt = true, p->n_best = 2;
}

static void test_one_fails_alone(void **state)
{
    (void)state;
    enum { WAYS = 5 };
    static const struct {
        const char *model;
        uint32_t act, kv;
        bool as_hardware;
    } kinds[] = {{heard_f32_path, 16, 16, false},
                 {heard_f32_path, 16, 8, false},
                 {heard_f32_path, 16, 8, true},
                 {windowed_path, 16, 8, false},
                 {heard_f32_path, 8, 8, false}};
    for (size_t run = 0; run < GYRE_COUNT(kinds) * DEVICES; run++) {
        struct scene x;
        const size_t d = run % DEVICES, kind = run / DEVICES;
        if (kinds[kind].as_hardware && d == 0) continue;            // the cpu device has no kernels
        if (kinds[kind].model == windowed_path && d == 2) continue; // PoCL compiles for a minute what the others show
        if (!make(&x, kinds[kind].model, device_names[d], kinds[kind].act, kinds[kind].kv, kinds[kind].as_hardware))
            continue;
        gyre_scheduler *s = heard_scheduler(x.engine, 12, false);
        for (int way = 0; way < WAYS; way++) {
            static struct heard h[GOOD + 1];
            gyre_task *t[GOOD + 1];
            memset(h, 0, sizeof h);
            gyre_task_params p = heard_task(x.bad, BAD, N, &h[GOOD]);
            choose_by(way, &p);
            t[GOOD] = heard_add(s, &p);
            for (int i = 0; i < GOOD; i++) {
                p = heard_task(x.prompt[i], length(i), N, &h[i]);
                t[i] = heard_add(s, &p);
            }
            heard_run(s, t, GOOD + 1);
            expect_failed(t[GOOD], "the logits are not finite");
            assert_true(way == 4 ? h[GOOD].n <= AT + 1 : h[GOOD].n == 0);
            assert_int_equal(gyre_task_cached(t[GOOD]), 0); // of the one before, nothing was found
            for (int i = 0; i < GOOD; i++) {
                if (gyre_task_error(t[i]))
                    fail_msg("%s, way %d: %s", device_names[d], way, gyre_task_error(t[i])->message);
                expect_said(&x, i, &h[i]);
            }
            for (int i = 0; i < GOOD + 1; i++) gyre_scheduler_remove(s, t[i]);
            assert_int_equal(gyre_scheduler_count(s).pages_held, 0);
            assert_int_equal(gyre_scheduler_count(s).pages_cached, 3); // 2 of the long text, 1 of the short one
        }
        // Texts until every page has been used again, with what is no number beyond their ends.
        for (int i = GOOD; i < TEXTS; i++) {
            struct heard h = {.n = 0};
            const gyre_task_params p = heard_task(x.prompt[i], LONG, N, &h);
            heard_solo(s, &p);
            expect_said(&x, i, &h);
        }
        gyre_scheduler_destroy(s);
        OK(gyre_engine_close(x.engine, err));
    }
}

// Who is removed in the middle of its prompt leaves nothing for others to find from where it would have failed, and
// what lies before that.
static void test_gone_before_it_failed(void **state)
{
    (void)state;
    for (int d = 0; d < DEVICES; d++) {
        struct scene x;
        if (!make(&x, heard_f32_path, device_names[d], 16, 8, false)) continue;
        gyre_scheduler *s = heard_scheduler(x.engine, 5, false);
        for (int run = 0; run < 4; run++) {
            const bool late = run >= 2, again = run % 2; // late: no number only behind the first page of 32
            struct heard h = {.n = 0};
            if (run == 2) x.bad[BAD - 2] = x.bad[AT], x.bad[AT] = x.bad[0];
            const gyre_task_params p = heard_task(x.bad, BAD, N, &h);
            gyre_task *t = heard_add(s, &p);
            for (int steps = 0; steps < (late && again ? 2 : 8); steps++) OK(gyre_scheduler_step(s, err));
            assert_int_equal(gyre_task_cached(t), late && again ? 32 : 0);
            assert_int_equal(gyre_task_error(t) != NULL, !late); // as soon as its row has run
            gyre_scheduler_remove(s, t);
            assert_int_equal(h.n, 0);
            assert_int_equal(gyre_scheduler_count(s).pages_held, 0);
            assert_int_equal(gyre_scheduler_count(s).pages_cached, late);
        }
        gyre_scheduler_destroy(s);
        OK(gyre_engine_close(x.engine, err));
    }
}

// In the middle of an answer, one step after the other and several at once: what was told before is told.
static void test_in_an_answer(void **state)
{
    (void)state;
    for (int d = 0; d < DEVICES; d++)
        for (uint32_t ahead = 1; ahead <= 8; ahead *= 8) {
            gyre_engine *e = open_engine(heard_f32_path, device_names[d], 2, 16, 8, false);
            uint32_t prompt[SHORT], want[30], n = 6;
            if (!e) continue;
            tiny_tokens(prompt, SHORT, 11, VOCAB);
            heard_greedy(e, prompt, SHORT, want, 30);
            while (n < 29 && (holds(prompt, SHORT, want[n]) || holds(want, n, want[n]))) n++;
            assert_true(n < 29);
            spoil(e, want[n]);
            e->most_ahead = ahead;
            gyre_scheduler *s = heard_scheduler(e, 0, false);
            static struct heard h;
            h = (struct heard){0};
            const gyre_task_params p = heard_task(prompt, SHORT, 40, &h);
            gyre_task *t = heard_add(s, &p);
            heard_run(s, &t, 1);
            expect_failed(t, "the logits are not finite");
            assert_int_equal(h.n, n + 1);
            for (uint32_t i = 0; i <= n; i++) assert_int_equal(h.token[i].token, want[i]);
            gyre_scheduler_destroy(s);
            OK(gyre_engine_close(e, err));
        }
}

static void test_embeddings_and_requests(void **state)
{
    (void)state;
    struct scene x;
    assert_true(make(&x, heard_f32_path, "cpu", 16, 16, false));
    gyre_scheduler *s = heard_scheduler(x.engine, 0, false);
    gyre_task *t[2];
    const uint32_t *const prompt[2] = {x.bad, x.prompt[1]};
    for (int i = 0; i < 2; i++) {
        gyre_task_params p = {.size = sizeof p, .prompt = prompt[i], .n_prompt = i ? SHORT : BAD};
        p.pooling = GYRE_POOL_MEAN;
        t[i] = heard_add(s, &p);
    }
    heard_run(s, t, 2);
    expect_failed(t[0], "position 20): the embedding is not finite");
    assert_null(gyre_task_embedding(t[0]));
    assert_null(gyre_task_error(t[1]));
    assert_true(isfinite(gyre_task_embedding(t[1])[0]));
    gyre_scheduler_destroy(s);
    // Log-likelihoods are a measurement of all requests: that fails, and names the one.
    gyre_eval_request r[2] = {{.tokens = x.prompt[1], .n_context = 4, .n = SHORT},
                              {.tokens = x.bad, .n_context = 4, .n = BAD}};
    gyre_error why = {0};
    assert_int_equal(gyre_eval_requests(x.engine, r, 2, NULL, NULL, &why), GYRE_E_FORMAT);
    assert_non_null(strstr(why.message, "the log-likelihood of request 1 is not finite"));
    OK(gyre_engine_close(x.engine, err));
}

static int setup(void **state)
{
    struct tiny_options o = tiny_family("gemma3"); // five layers of six with a window
    o.window = 24;
    snprintf(windowed_path, sizeof windowed_path, "%s", files_path("windowed.gguf"));
    return heard_setup(state) || tiny_write_gguf(windowed_path, &o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_fails_alone),
        cmocka_unit_test(test_gone_before_it_failed),
        cmocka_unit_test(test_in_an_answer),
        cmocka_unit_test(test_embeddings_and_requests),
    };
    return cmocka_run_group_tests(tests, setup, heard_teardown);
}
