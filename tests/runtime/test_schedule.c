// The scheduler through its public face, on a tiny random model: many texts in one batch are each one's solo text,
// common beginnings are computed and held once, scores are the logits', choosing obeys its settings, and no long prompt
// keeps a short one waiting.
#include "runtime/engine.h"
#include "runtime/source/source.h"
#include "tests/common/device.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include <gyre/gyre_schedule.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const device_names[] = {"cpu", "vulkan:0", "opencl:0"};
enum { DEVICES = 3, VOCAB = 304, MOST = 128, WIDTH = 64 };
static char directory[] = "test-schedule-XXXXXX";
static char path[128], f32_path[128];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(directory)) return 1;
    snprintf(path, sizeof path, "%s/q4.gguf", directory);
    snprintf(f32_path, sizeof f32_path, "%s/f32.gguf", directory);
    struct tiny_options o = tiny_defaults();
    if (tiny_write_gguf(f32_path, &o)) return 1;
    o.type = GYRE_DTYPE_Q4_0;
    o.tied = true;
    return tiny_write_gguf(path, &o);
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    unlink(f32_path);
    return rmdir(directory);
}

static gyre_engine *open_model(const char *model, const char *device, uint32_t sequences)
{
    gyre_engine *engine = NULL;
    gyre_error err = {0};
    const gyre_engine_params p = {.size = sizeof p,
                                  .device = device,
                                  .act = 16,
                                  .kv = 16,
                                  .context = 256,
                                  .sequences = sequences,
                                  .logit_rows = 16,
                                  .cache_dir = ""};
    const gyre_status st = gyre_engine_open(model, &p, &engine, &err);
    return device_opened(device, st, &err) ? engine : NULL;
}

static gyre_engine *open_engine(const char *device, uint32_t sequences) { return open_model(path, device, sequences); }

// What a task told.
struct heard {
    gyre_task_token token[MOST];
    uint32_t best[MOST][4];
    float best_logprob[MOST][4];
    uint32_t n, stop_after;
    uint32_t allow_from, allow_to; // tokens that are allowed; 0, 0: no constraint
};

static int on_token(void *user, const gyre_task_token *token)
{
    struct heard *h = user;
    assert_true(h->n < MOST);
    for (uint32_t i = 0; i < token->n_best && i < 4; i++) {
        h->best[h->n][i] = token->best[i].token;
        h->best_logprob[h->n][i] = token->best[i].logprob;
    }
    h->token[h->n++] = *token;
    return h->stop_after && h->n == h->stop_after;
}

static bool allow(void *user, uint32_t *allowed, uint32_t words)
{
    const struct heard *h = user;
    assert_int_equal(words, (VOCAB + 31) / 32);
    for (uint32_t i = h->allow_from; i < h->allow_to; i++) allowed[i / 32] |= 1u << i % 32;
    return true;
}

static gyre_task_params task(const uint32_t *prompt, size_t n, uint32_t max_tokens, struct heard *h)
{
    return (gyre_task_params){.size = sizeof(gyre_task_params),
                              .prompt = prompt,
                              .n_prompt = n,
                              .max_tokens = max_tokens,
                              .ignore_end = true,
                              .on_token = on_token,
                              .user = h};
}

static gyre_scheduler *scheduler(gyre_engine *e, uint32_t chunk, bool no_sharing)
{
    gyre_scheduler *s = NULL;
    const gyre_scheduler_params p = {.size = sizeof p, .chunk = chunk, .no_sharing = no_sharing};
    OK(gyre_scheduler_create(e, &p, &s, err));
    return s;
}

static gyre_task *add(gyre_scheduler *s, const gyre_task_params *p)
{
    gyre_task *t = NULL;
    OK(gyre_scheduler_add(s, p, &t, err));
    return t;
}

static int run_to_end(gyre_scheduler *s, gyre_task *const *tasks, int n)
{
    int steps = 0;
    for (int open = 1; open && steps < 1000; steps += open) {
        open = 0;
        for (int i = 0; i < n; i++) open |= !gyre_task_ended(tasks[i], NULL);
        if (open) OK(gyre_scheduler_step(s, err));
    }
    assert_true(steps < 1000);
    return steps;
}

// One task alone, to its end and away.
static void solo(gyre_scheduler *s, const gyre_task_params *p)
{
    gyre_task *t = add(s, p);
    run_to_end(s, &t, 1);
    gyre_scheduler_remove(s, t);
}

static void greedy(gyre_engine *e, const uint32_t *prompt, size_t n, uint32_t *out, int count)
{
    gyre_session *s = NULL;
    OK(gyre_session_create(e, &s, err));
    OK(gyre_session_sync(s, prompt, n, NULL, &out[0], err));
    for (int i = 1; i < count; i++) OK(gyre_session_decode(s, out[i - 1], &out[i], err));
    gyre_session_destroy(s);
}

// Five texts of different lengths over three sequences, prompts in small chunks beside others' answers.
static void test_batch_equals_solo(void **state)
{
    (void)state;
    enum { TEXTS = 5, N = 8 };
    static const size_t length[TEXTS] = {70, 1, 33, 9, 64};
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e = open_engine(device_names[d], 3);
        if (!e) continue;
        uint32_t prompt[TEXTS][70], want[TEXTS][N];
        static struct heard heard[TEXTS];
        memset(heard, 0, sizeof heard);
        for (int i = 0; i < TEXTS; i++) {
            tiny_tokens(prompt[i], length[i], 10 + (uint32_t)i, VOCAB);
            greedy(e, prompt[i], length[i], want[i], N);
        }
        gyre_scheduler *s = scheduler(e, 12, false);
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
                const gyre_task_params p = task(prompt[next], length[next], N, &heard[next]);
                live[i] = add(s, &p);
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
        gyre_engine *e = open_engine(device_names[d], 4);
        if (!e) continue;
        uint32_t a[100], b[100], want_a[N], want_b[N];
        tiny_tokens(a, 100, 1, VOCAB);
        tiny_tokens(b, 100, 2, VOCAB);
        memcpy(b, a, 80 * sizeof *a); // two pages and a half
        greedy(e, a, 100, want_a, N);
        greedy(e, b, 100, want_b, N);
        gyre_scheduler *s = scheduler(e, 16, false);
        static struct heard h[4];
        memset(h, 0, sizeof h);
        const gyre_task_params p[4] = {task(a, 100, N, &h[0]), task(b, 100, N, &h[1]), task(a, 100, N, &h[2]),
                                       task(a, 96, N, &h[3])};
        gyre_task *t[4];
        for (int i = 0; i < 3; i++) t[i] = add(s, &p[i]); // at the same time
        run_to_end(s, t, 3);
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
        t[3] = add(s, &p[3]); // 96 tokens: three pages, but the last token is always computed
        run_to_end(s, &t[3], 1);
        assert_int_equal(gyre_task_cached(t[3]), 64);
        gyre_scheduler_remove(s, t[3]);
        // Texts until every page has been used again: the oldest go, answers stay right.
        for (uint32_t i = 0; i < 12; i++) {
            uint32_t other[100], want[N];
            tiny_tokens(other, 100, 100 + i, VOCAB);
            greedy(e, other, 100, want, N);
            struct heard x = {.n = 0};
            const gyre_task_params q = task(other, 100, N, &x);
            solo(s, &q);
            for (int k = 0; k < N; k++) assert_int_equal(x.token[k].token, want[k]);
        }
        struct heard last = {.n = 0};
        const gyre_task_params q = task(a, 100, N, &last);
        t[0] = add(s, &q);
        run_to_end(s, t, 1);
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
        gyre_engine *e = open_engine(device_names[d], 2);
        if (!e) continue;
        uint32_t a[LENGTH];
        tiny_tokens(a, LENGTH, 5, VOCAB);
        gyre_scheduler *s = scheduler(e, 0, false);
        static struct heard h;
        memset(&h, 0, sizeof h);
        gyre_task_params p = task(a, LENGTH, N, &h);
        p.score_prompt = true;
        p.n_best = 3;
        p.repetition = 1.5f; // changes the choice and no score
        solo(s, &p);
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
        solo(s, &p);
        assert_int_equal(h.n, LENGTH);
        gyre_session_destroy(session);
        gyre_scheduler_destroy(s);
        OK(gyre_engine_close(e, err));
    }
}

static void test_choosing(void **state)
{
    (void)state;
    gyre_engine *e = open_engine("cpu", 2);
    gyre_scheduler *s = scheduler(e, 0, false);
    uint32_t a[9];
    tiny_tokens(a, 9, 6, VOCAB);
    struct heard plain = {.n = 0}, h = {.n = 0};
    gyre_task_params p = task(a, 9, 6, &plain);
    solo(s, &p);
    const gyre_task_params settings[] = {{.temperature = 1, .top_k = 1},
                                         {.temperature = 1, .top_p = 1e-6f},
                                         {.temperature = 1, .min_p = 1},
                                         {.temperature = 1e-4f}};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) { // all of them leave one token
        h.n = 0;
        p = task(a, 9, 6, &h);
        p.temperature = settings[i].temperature;
        p.top_k = settings[i].top_k;
        p.top_p = settings[i].top_p;
        p.min_p = settings[i].min_p;
        p.seed = i;
        solo(s, &p);
        for (uint32_t k = 0; k < 6; k++) assert_int_equal(h.token[k].token, plain.token[k].token);
    }
    // Bias and constraint.
    const gyre_logit_bias bias = {77, 100};
    h.n = 0;
    p = task(a, 9, 6, &h);
    p.bias = &bias;
    p.n_bias = 1;
    solo(s, &p);
    for (uint32_t k = 0; k < 6; k++) assert_int_equal(h.token[k].token, 77);
    h = (struct heard){.allow_from = 40, .allow_to = 44};
    p = task(a, 9, 6, &h);
    p.allow = allow;
    p.temperature = 2;
    solo(s, &p);
    for (uint32_t k = 0; k < 6; k++) assert_in_range(h.token[k].token, 40, 43);
    h = (struct heard){.n = 0};
    p = task(a, 9, 6, &h);
    p.allow = allow; // nothing is allowed
    gyre_task *t = add(s, &p);
    gyre_stop why = GYRE_STOP_LENGTH;
    run_to_end(s, &t, 1);
    assert_true(gyre_task_ended(t, &why));
    assert_int_equal(why, GYRE_STOP_BOUND);
    gyre_scheduler_remove(s, t);
    // A draw depends on seed and stream alone.
    uint32_t drawn[4][6];
    for (uint32_t i = 0; i < 4; i++) {
        h.n = 0;
        p = task(a, 9, 6, &h);
        p.temperature = 2;
        p.seed = i == 2 ? 8 : 7;
        p.stream = i == 3;
        solo(s, &p);
        for (uint32_t k = 0; k < 6; k++) drawn[i][k] = h.token[k].token;
    }
    assert_memory_equal(drawn[0], drawn[1], sizeof drawn[0]);
    assert_memory_not_equal(drawn[0], drawn[2], sizeof drawn[0]);
    assert_memory_not_equal(drawn[0], drawn[3], sizeof drawn[0]);
    // Frequency and presence count what was generated, repetition the prompt too: with all weight against it no token
    // comes twice.
    h.n = 0;
    p = task(a, 9, 20, &h);
    p.presence = 1000;
    solo(s, &p);
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
    gyre_engine *e = open_engine("cpu", ALIKE);
    gyre_scheduler *s = scheduler(e, 0, false);
    uint32_t a[5], b[5];
    tiny_tokens(a, 5, 7, VOCAB);
    tiny_tokens(b, 5, 8, VOCAB);
    struct heard h = {.n = 0};
    gyre_task_params p = task(b, 5, N, &h);
    solo(s, &p); // what is made at first use
    for (int warm = 0; warm < 2; warm++) {
        h.n = 0;
        p = task(a, 5, N, &h);
        p.temperature = 1.5f * (float)warm;
        const uint64_t before = e->device->counters.calls;
        solo(s, &p);
        calls[warm] = e->device->counters.calls - before;
    }
    assert_int_equal(calls[1], calls[0] + 1); // and one that tells the device of the temperature
    // Three alike choose from the same logits, each as it does alone: one takes the likeliest.
    struct heard alike[ALIKE], alone[ALIKE];
    gyre_task *t[ALIKE];
    memset(alike, 0, sizeof alike);
    memset(alone, 0, sizeof alone);
    for (uint32_t i = 0; i < ALIKE; i++) {
        p = task(b, 5, N, &alone[i]);
        p.temperature = i == 1 ? 0 : 1.5f;
        p.stream = i;
        solo(s, &p);
    }
    for (uint32_t i = 0; i < ALIKE; i++) {
        p.temperature = i == 1 ? 0 : 1.5f;
        p.stream = i;
        p.user = &alike[i];
        t[i] = add(s, &p);
    }
    run_to_end(s, t, ALIKE);
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
        gyre_engine *e = open_engine(device_names[d], SETTINGS);
        if (!e) continue;
        gyre_scheduler *s = scheduler(e, 0, true);
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
                p[i].on_token = on_token;
                p[i].allow = bound ? allow : NULL;
                p[i].user = &lists[i];
                tasks[i] = add(s, &p[i]);
            }
            run_to_end(s, tasks, SETTINGS);
            for (uint32_t i = 0; i < SETTINGS; i++) gyre_scheduler_remove(s, tasks[i]);
            for (uint32_t i = 0; i < SETTINGS; i++) {
                all = (struct heard){.allow_from = lists[i].allow_from, .allow_to = lists[i].allow_to};
                p[i].user = &all;
                p[i].scores = true;
                solo(s, &p[i]);
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
    gyre_engine *e = open_engine("cpu", 1);
    gyre_scheduler *s = scheduler(e, 0, false);
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
            gyre_task_params p = task(a, 5, 1, &h);
            p.temperature = 1;
            p.top_p = with_p ? 0.9999999f : 0;
            p.seed = i;
            solo(s, &p);
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
        gyre_engine *e = open_engine(device_names[d], TWINS);
        if (!e) continue;
        uint32_t a[45], want[N];
        tiny_tokens(a, 45, 20, VOCAB);
        greedy(e, a, 45, want, N);
        for (int warm = 0; warm < 2; warm++) {
            gyre_scheduler *alone = scheduler(e, 0, true), *s = scheduler(e, 0, false);
            static struct heard h[TWINS], solos[TWINS];
            memset(h, 0, sizeof h);
            memset(solos, 0, sizeof solos);
            gyre_task *t[TWINS];
            for (int i = 0; i < TWINS; i++) {
                gyre_task_params p = task(a, 45, N, &solos[i]);
                p.temperature = warm ? 2 : 0;
                p.stream = (uint32_t)i;
                p.scores = i == 3;
                solo(alone, &p);
                p.user = &h[i];
                t[i] = add(s, &p);
            }
            while (h[0].n == 0) OK(gyre_scheduler_step(s, err));
            assert_int_equal(h[1].n, 1); // in the same step
            assert_int_equal(h[2].n, 1);
            assert_int_equal(h[3].n, warm); // where logits were read anyway; else its score is not there yet
            assert_int_equal(gyre_scheduler_count(s).rows, warm ? 45 - 32 : 45); // a page is known from before
            run_to_end(s, t, TWINS);
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

static void embed(gyre_scheduler *s, const uint32_t *tokens, size_t n, gyre_pooling pooling, float *out)
{
    gyre_task_params p = task(tokens, n, 0, NULL);
    p.on_token = NULL;
    p.pooling = pooling;
    gyre_task *t = add(s, &p);
    run_to_end(s, &t, 1);
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
    OK(gyre_source_open(f32_path, &source, err));
    const float *head = gyre_source_tensor(source, "output.weight")->data;
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e = open_model(f32_path, device_names[d], 2);
        if (!e) continue;
        float logits[VOCAB], last[WIDTH], mean[WIDTH], each[WIDTH], again[WIDTH];
        double dot = 0, xx = 0, yy = 0, sum[WIDTH] = {0}, length = 0, similar = 0;
        OK(gyre_logits(e, a, LENGTH, logits, err));
        gyre_scheduler *s = scheduler(e, 16, false);
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
        gyre_scheduler *whole = scheduler(e, 64, false);
        struct heard h = {.n = 0};
        const gyre_task_params p = task(a, 5, 20, &h);
        gyre_task *other = add(whole, &p);
        embed(whole, a, LENGTH, GYRE_POOL_MEAN, again);
        run_to_end(whole, &other, 1);
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
    gyre_engine *e = open_engine("cpu", 2);
    gyre_scheduler *s = scheduler(e, 16, false);
    uint32_t a[200], b[6];
    tiny_tokens(a, 200, 8, VOCAB);
    tiny_tokens(b, 6, 9, VOCAB);
    struct heard slow = {.n = 0}, quick = {.n = 0};
    const gyre_task_params p = task(a, 200, 1, &slow), q = task(b, 6, 1, &quick);
    gyre_task *t[2] = {add(s, &p), NULL};
    OK(gyre_scheduler_step(s, err));
    t[1] = add(s, &q);
    OK(gyre_scheduler_step(s, err));
    assert_int_equal(quick.n, 1); // in the step after it came
    assert_int_equal(slow.n, 0);
    assert_int_equal(run_to_end(s, t, 1), (200 - 16 - 10 + 15) / 16);
    // Taken away in the middle: its sequence and pages are free again.
    gyre_scheduler_remove(s, t[0]);
    gyre_scheduler_remove(s, t[1]);
    assert_int_equal(gyre_scheduler_room(s), 2);
    tiny_tokens(a, 200, 18, VOCAB);
    t[0] = add(s, &p);
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
    gyre_engine *e = open_engine("cpu", 1);
    gyre_scheduler *s = scheduler(e, 0, false);
    uint32_t a[256];
    tiny_tokens(a, 256, 11, VOCAB);
    gyre_stop why;
    struct heard h = {.stop_after = 3};
    gyre_task_params p = task(a, 250, 100, &h);
    gyre_task *t = add(s, &p), *other = NULL;
    gyre_error refused = {0};
    assert_int_equal(gyre_scheduler_add(s, &p, &other, &refused), GYRE_E_INVALID); // no sequence is free
    run_to_end(s, &t, 1);
    assert_true(gyre_task_ended(t, &why));
    assert_int_equal(why, GYRE_STOP_TOKEN);
    assert_int_equal(h.n, 3);
    gyre_scheduler_remove(s, t);
    h = (struct heard){.n = 0};
    t = add(s, &p);
    run_to_end(s, &t, 1);
    assert_true(gyre_task_ended(t, &why));
    assert_int_equal(why, GYRE_STOP_CONTEXT);
    assert_int_equal(gyre_task_generated(t), 6);
    gyre_scheduler_remove(s, t);
    p.n_prompt = 256;
    assert_int_equal(gyre_scheduler_add(s, &p, &other, &refused), GYRE_E_INVALID);
    p.max_tokens = 0; // only read: it fits
    solo(s, &p);
    p.n_prompt = 0;
    assert_int_equal(gyre_scheduler_add(s, &p, &other, &refused), GYRE_E_INVALID);
    p.n_prompt = 1;
    p.prompt = &(uint32_t){VOCAB};
    assert_int_equal(gyre_scheduler_add(s, &p, &other, &refused), GYRE_E_INVALID);
    p = task(a, 5, 1, &h);
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
        cmocka_unit_test(test_choosing),
        cmocka_unit_test(test_device_draws),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_draws),
        cmocka_unit_test(test_embeddings),
        cmocka_unit_test(test_twins),
        cmocka_unit_test(test_short_beside_long),
        cmocka_unit_test(test_ends_and_refusals),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
