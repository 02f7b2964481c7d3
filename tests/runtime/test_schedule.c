// The scheduler through its public face, on a tiny random model: many texts in one batch are each one's solo text,
// common beginnings are computed and held once, scores are the logits', embeddings are the model's, and no long prompt
// keeps a short one waiting. How tokens are chosen: test_schedule_draws.c.
#include "runtime/source/source.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"
#include "tests/runtime/heard.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// Five texts of different lengths over three sequences, prompts in small chunks beside others' answers.
static void test_batch_equals_solo(void **state)
{
    (void)state;
    enum { TEXTS = 5, N = 8 };
    static const size_t length[TEXTS] = {70, 1, 33, 9, 64};
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e = heard_engine(device_names[d], 3);
        if (!e) continue;
        uint32_t prompt[TEXTS][70], want[TEXTS][N];
        static struct heard heard[TEXTS];
        memset(heard, 0, sizeof heard);
        for (int i = 0; i < TEXTS; i++) {
            tiny_tokens(prompt[i], length[i], 10 + (uint32_t)i, VOCAB);
            heard_greedy(e, prompt[i], length[i], want[i], N);
        }
        gyre_scheduler *s = heard_scheduler(e, 12, false);
        gyre_task *live[3] = {NULL};
        for (int next = 0, done = 0, steps = 0; done < TEXTS; steps++) {
            assert_true(steps < 200);
            for (int i = 0; i < 3; i++) {
                if (live[i] && gyre_task_ended(live[i], NULL)) {
                    gyre_scheduler_remove(s, live[i]);
                    live[i] = NULL;
                    done++;
                }
                if (live[i] || next == TEXTS) continue;
                const gyre_task_params p = heard_task(prompt[next], length[next], N, &heard[next]);
                live[i] = heard_add(s, &p);
                next++;
            }
            OK(gyre_scheduler_step(s, err));
        }
        for (int i = 0; i < TEXTS; i++) {
            assert_int_equal(heard[i].n, N);
            for (int k = 0; k < N; k++) assert_int_equal(heard[i].token[k].token, want[i][k]);
        }
        gyre_scheduler_destroy(s);
        OK(gyre_engine_close(e, err));
    }
}

static void test_common_beginnings(void **state)
{
    (void)state;
    enum { N = 4 };
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e = heard_engine(device_names[d], 4);
        if (!e) continue;
        uint32_t a[100], b[100], want_a[N], want_b[N];
        tiny_tokens(a, 100, 1, VOCAB);
        tiny_tokens(b, 100, 2, VOCAB);
        memcpy(b, a, 80 * sizeof *a); // two pages and a half
        heard_greedy(e, a, 100, want_a, N);
        heard_greedy(e, b, 100, want_b, N);
        gyre_scheduler *s = heard_scheduler(e, 16, false);
        static struct heard h[4];
        memset(h, 0, sizeof h);
        const gyre_task_params p[4] = {heard_task(a, 100, N, &h[0]), heard_task(b, 100, N, &h[1]),
                                       heard_task(a, 100, N, &h[2]), heard_task(a, 96, N, &h[3])};
        gyre_task *t[4];
        for (int i = 0; i < 3; i++) t[i] = heard_add(s, &p[i]); // at the same time
        heard_run(s, t, 3);
        assert_int_equal(gyre_task_cached(t[0]) + gyre_task_cached(t[1]) + gyre_task_cached(t[2]), 64 + 96);
        const gyre_scheduler_counters c = gyre_scheduler_count(s);
        assert_int_equal(c.pages_shared, 3); // two of all, one of a and a
        assert_int_equal(c.pages_held, 3 + 3 * 1 + 1);
        for (int k = 0; k < N; k++) {
            assert_int_equal(h[0].token[k].token, want_a[k]);
            assert_int_equal(h[1].token[k].token, want_b[k]);
            assert_int_equal(h[2].token[k].token, want_a[k]);
        }
        for (int i = 0; i < 3; i++) gyre_scheduler_remove(s, t[i]);
        assert_int_equal(gyre_scheduler_count(s).pages_held, 0);
        assert_int_equal(gyre_scheduler_count(s).pages_cached, 4);
        t[3] = heard_add(s, &p[3]); // 96 tokens: three pages, but the last token is always computed
        heard_run(s, &t[3], 1);
        assert_int_equal(gyre_task_cached(t[3]), 64);
        gyre_scheduler_remove(s, t[3]);
        // Texts until every page has been used again: the oldest go, answers stay right.
        for (uint32_t i = 0; i < 12; i++) {
            uint32_t other[100], want[N];
            tiny_tokens(other, 100, 100 + i, VOCAB);
            heard_greedy(e, other, 100, want, N);
            struct heard x = {.n = 0};
            const gyre_task_params q = heard_task(other, 100, N, &x);
            heard_solo(s, &q);
            for (int k = 0; k < N; k++) assert_int_equal(x.token[k].token, want[k]);
        }
        struct heard last = {.n = 0};
        const gyre_task_params q = heard_task(a, 100, N, &last);
        t[0] = heard_add(s, &q);
        heard_run(s, t, 1);
        assert_int_equal(gyre_task_cached(t[0]), 0);
        for (int k = 0; k < N; k++) assert_int_equal(last.token[k].token, want_a[k]);
        gyre_scheduler_destroy(s);
        OK(gyre_engine_close(e, err));
    }
}

// Scores of a prompt and of an answer are the log-probabilities that a session gives at those places.
static void test_scores(void **state)
{
    (void)state;
    enum { LENGTH = 21, N = 3 };
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e = heard_engine(device_names[d], 2);
        if (!e) continue;
        uint32_t a[LENGTH];
        tiny_tokens(a, LENGTH, 5, VOCAB);
        gyre_scheduler *s = heard_scheduler(e, 0, false);
        static struct heard h;
        memset(&h, 0, sizeof h);
        gyre_task_params p = heard_task(a, LENGTH, N, &h);
        p.score_prompt = true;
        p.n_best = 3;
        p.repetition = 1.5f; // changes the choice and no score
        heard_solo(s, &p);
        assert_int_equal(h.n, LENGTH + N);
        assert_false(h.token[0].scored);
        gyre_session *session = NULL;
        OK(gyre_session_create(e, &session, err));
        for (uint32_t i = 1; i < h.n; i++) {
            gyre_candidate all[VOCAB];
            uint32_t text[LENGTH + N], found = 0;
            for (uint32_t k = 0; k < i; k++) text[k] = h.token[k].token;
            OK(gyre_session_sync(session, text, i, NULL, NULL, err));
            OK(gyre_session_top(session, all, VOCAB, &found, err));
            assert_int_equal(h.token[i].prompt, i < LENGTH);
            for (uint32_t k = 0; k < found; k++) {
                if (all[k].token != h.token[i].token) continue;
                if (fabsf(all[k].logprob - h.token[i].logprob) > 1e-3f)
                    fail_msg("%s: place %u: %g, not %g", device_names[d], i, (double)h.token[i].logprob,
                             (double)all[k].logprob);
            }
            assert_int_equal(h.token[i].n_best, 3);
            assert_true(fabsf(h.best_logprob[i][0] - all[0].logprob) < 1e-3f);
            for (int k = 0; k < 3; k++) // the same number in both lists
                if (h.best[i][k] == h.token[i].token) assert_true(h.best_logprob[i][k] == h.token[i].logprob);
        }
        memset(&h, 0, sizeof h);
        p.max_tokens = 0;
        heard_solo(s, &p);
        assert_int_equal(h.n, LENGTH);
        gyre_session_destroy(session);
        gyre_scheduler_destroy(s);
        OK(gyre_engine_close(e, err));
    }
}

static void embed(gyre_scheduler *s, const uint32_t *tokens, size_t n, gyre_pooling pooling, float *out)
{
    gyre_task_params p = heard_task(tokens, n, 0, NULL);
    p.on_token = NULL;
    p.pooling = pooling;
    gyre_task *t = heard_add(s, &p);
    heard_run(s, &t, 1);
    memcpy(out, gyre_task_embedding(t), WIDTH * sizeof *out);
    gyre_scheduler_remove(s, t);
}

// The head's rows times the last token's embedding are the logits but for one factor; the mean is the mean, up to its
// length; chunks and what else runs change nothing.
static void test_embeddings(void **state)
{
    (void)state;
    enum { LENGTH = 37 };
    uint32_t a[LENGTH];
    tiny_tokens(a, LENGTH, 12, VOCAB);
    gyre_source *source = NULL;
    OK(gyre_source_open(heard_f32_path, &source, err));
    const float *head = gyre_source_tensor(source, "output.weight")->data;
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e = heard_open(heard_f32_path, device_names[d], 2);
        if (!e) continue;
        float logits[VOCAB], last[WIDTH], mean[WIDTH], each[WIDTH], again[WIDTH];
        double dot = 0, xx = 0, yy = 0, sum[WIDTH] = {0}, length = 0, similar = 0;
        OK(gyre_logits(e, a, LENGTH, logits, err));
        gyre_scheduler *s = heard_scheduler(e, 16, false);
        embed(s, a, LENGTH, GYRE_POOL_LAST, last);
        for (int i = 0; i < VOCAB; i++) {
            double x = 0;
            for (int k = 0; k < WIDTH; k++) x += (double)head[i * WIDTH + k] * (double)last[k];
            dot += x * (double)logits[i];
            xx += x * x;
            yy += (double)logits[i] * (double)logits[i];
        }
        if (dot / sqrt(xx * yy) < 1 - 1e-6) fail_msg("%s: cosine %.9f", device_names[d], dot / sqrt(xx * yy));
        // One token: last and mean are the same.
        embed(s, a, 1, GYRE_POOL_LAST, each);
        embed(s, a, 1, GYRE_POOL_MEAN, mean);
        for (int k = 0; k < WIDTH; k++) assert_true(fabsf(each[k] - mean[k]) < 1e-6f);
        // Beside another text that generates, in one chunk, the mean is what it is alone in three.
        embed(s, a, LENGTH, GYRE_POOL_MEAN, mean);
        gyre_scheduler *whole = heard_scheduler(e, 64, false);
        struct heard h = {.n = 0};
        const gyre_task_params p = heard_task(a, 5, 20, &h);
        gyre_task *other = heard_add(whole, &p);
        embed(whole, a, LENGTH, GYRE_POOL_MEAN, again);
        heard_run(whole, &other, 1);
        assert_int_equal(h.n, 20);
        for (int k = 0; k < WIDTH; k++) {
            assert_true(fabsf(again[k] - mean[k]) < 1e-5f);
            length += (double)mean[k] * (double)mean[k];
            sum[k] = (double)mean[k] - (double)last[k];
            similar += sum[k] * sum[k];
        }
        assert_true(fabs(length - 1) < 1e-5 && similar > 1e-3);
        gyre_scheduler_destroy(whole);
        gyre_scheduler_destroy(s);
        OK(gyre_engine_close(e, err));
    }
    gyre_source_close(source);
}

static void test_short_beside_long(void **state)
{
    (void)state;
    gyre_engine *e = heard_engine("cpu", 2);
    gyre_scheduler *s = heard_scheduler(e, 16, false);
    uint32_t a[200], b[6];
    tiny_tokens(a, 200, 8, VOCAB);
    tiny_tokens(b, 6, 9, VOCAB);
    struct heard slow = {.n = 0}, quick = {.n = 0};
    const gyre_task_params p = heard_task(a, 200, 1, &slow), q = heard_task(b, 6, 1, &quick);
    gyre_task *t[2] = {heard_add(s, &p), NULL};
    OK(gyre_scheduler_step(s, err));
    t[1] = heard_add(s, &q);
    OK(gyre_scheduler_step(s, err));
    assert_int_equal(quick.n, 1); // in the step after it came
    assert_int_equal(slow.n, 0);
    assert_int_equal(heard_run(s, t, 1), (200 - 16 - 10 + 15) / 16);
    // Taken away in the middle: its sequence and pages are free again.
    gyre_scheduler_remove(s, t[0]);
    gyre_scheduler_remove(s, t[1]);
    assert_int_equal(gyre_scheduler_room(s), 2);
    tiny_tokens(a, 200, 18, VOCAB);
    t[0] = heard_add(s, &p);
    OK(gyre_scheduler_step(s, err));
    assert_int_equal(gyre_scheduler_room(s), 1);
    gyre_scheduler_remove(s, t[0]);
    assert_int_equal(gyre_scheduler_room(s), 2);
    assert_int_equal(gyre_scheduler_count(s).pages_held, 0);
    gyre_scheduler_destroy(s);
    OK(gyre_engine_close(e, err));
}

static void test_ends_and_refusals(void **state)
{
    (void)state;
    gyre_engine *e = heard_engine("cpu", 1);
    gyre_scheduler *s = heard_scheduler(e, 0, false);
    uint32_t a[256];
    tiny_tokens(a, 256, 11, VOCAB);
    gyre_stop why;
    struct heard h = {.stop_after = 3};
    gyre_task_params p = heard_task(a, 250, 100, &h);
    gyre_task *t = heard_add(s, &p), *other = NULL;
    gyre_error refused = {0};
    assert_int_equal(gyre_scheduler_add(s, &p, &other, &refused), GYRE_E_INVALID); // no sequence is free
    heard_run(s, &t, 1);
    assert_true(gyre_task_ended(t, &why));
    assert_int_equal(why, GYRE_STOP_TOKEN);
    assert_int_equal(h.n, 3);
    gyre_scheduler_remove(s, t);
    h = (struct heard){.n = 0};
    t = heard_add(s, &p);
    heard_run(s, &t, 1);
    assert_true(gyre_task_ended(t, &why));
    assert_int_equal(why, GYRE_STOP_CONTEXT);
    assert_int_equal(gyre_task_generated(t), 6);
    gyre_scheduler_remove(s, t);
    p.n_prompt = 256;
    assert_int_equal(gyre_scheduler_add(s, &p, &other, &refused), GYRE_E_INVALID);
    p.max_tokens = 0; // only read: it fits
    heard_solo(s, &p);
    p.n_prompt = 0;
    assert_int_equal(gyre_scheduler_add(s, &p, &other, &refused), GYRE_E_INVALID);
    p.n_prompt = 1;
    p.prompt = &(uint32_t){VOCAB};
    assert_int_equal(gyre_scheduler_add(s, &p, &other, &refused), GYRE_E_INVALID);
    p = heard_task(a, 5, 1, &h);
    p.bias = &(gyre_logit_bias){VOCAB, 1};
    p.n_bias = 1;
    assert_int_equal(gyre_scheduler_add(s, &p, &other, &refused), GYRE_E_INVALID);
    gyre_scheduler_destroy(s);
    OK(gyre_engine_close(e, err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch_equals_solo),
        cmocka_unit_test(test_common_beginnings),
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_embeddings),
        cmocka_unit_test(test_short_beside_long),
        cmocka_unit_test(test_ends_and_refusals),
    };
    return cmocka_run_group_tests(tests, heard_setup, heard_teardown);
}
