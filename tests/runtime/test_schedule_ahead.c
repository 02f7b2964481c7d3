// The scheduler with one text alone, which takes several tokens a submission where the device chooses: the same tokens
// as one by one, whoever joins, wherever it ends, whichever call to the device fails.
#include "runtime/schedule.h"
#include "tests/common/device.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include <gyre/gyre_schedule.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { VOCAB = 304, MOST = 128, MODELS = 2 };
static const char *device = "cpu";
static char path[MODELS][64]; // the second has windows of 40 positions

static gyre_engine *open_engine(const char *model, uint32_t ahead)
{
    const gyre_engine_params p = {.size = sizeof p,
                                  .device = device,
                                  .act = 16,
                                  .kv = 8,
                                  .context = 256,
                                  .sequences = 3,
                                  .cache_dir = "",
                                  .ahead = ahead};
    gyre_engine *engine = NULL;
    gyre_error err = {0};
    const gyre_status st = gyre_engine_open(model, &p, &engine, &err);
    return device_opened(device, st, &err) ? engine : NULL;
}

struct heard { // what a task told
    uint32_t token[MOST], n, stop_after;
};

static int on_token(void *user, const gyre_task_token *token)
{
    struct heard *h = user;
    assert_true(h->n < MOST);
    h->token[h->n++] = token->token;
    return h->stop_after && h->n == h->stop_after;
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

static gyre_scheduler *scheduler(gyre_engine *e, bool no_sharing)
{
    gyre_scheduler *s = NULL;
    const gyre_scheduler_params p = {.size = sizeof p, .no_sharing = no_sharing};
    OK(gyre_scheduler_create(e, &p, &s, err));
    return s;
}

static gyre_task *add(gyre_scheduler *s, const gyre_task_params *p)
{
    gyre_task *t = NULL;
    OK(gyre_scheduler_add(s, p, &t, err));
    return t;
}

static void finish(gyre_scheduler *s, gyre_task *t)
{
    while (!gyre_task_ended(t, NULL)) OK(gyre_scheduler_step(s, err));
    gyre_scheduler_remove(s, t);
}

// One text, in turn with others: whole, ended while the device is ahead, going on in what was left of it, and then
// beside one that joins, which has its first token with the next step.
static void talk(gyre_engine *e, float temperature, struct heard h[4])
{
    enum { LENGTH = 21, N = 60, SOME = 30 };
    uint32_t prompt[LENGTH + N], other[9];
    gyre_scheduler *s = scheduler(e, false);
    memset(h, 0, 4 * sizeof *h);
    tiny_tokens(prompt, LENGTH, 5, VOCAB);
    tiny_tokens(other, 9, 6, VOCAB);
    gyre_task_params p = task(prompt, LENGTH, N, &h[0]);
    p.temperature = temperature, p.seed = 3;
    finish(s, add(s, &p));
    p.user = &h[1];
    h[1].stop_after = 14;
    finish(s, add(s, &p));
    for (uint32_t i = 0; i < h[0].n; i++) prompt[LENGTH + i] = h[0].token[i];
    p.user = &h[2], p.n_prompt = LENGTH + SOME, p.max_tokens = SOME;
    finish(s, add(s, &p));
    p.user = &h[2], p.n_prompt = LENGTH;
    gyre_task *first = add(s, &p);
    const uint32_t before = h[2].n;
    while (h[2].n < before + 12) OK(gyre_scheduler_step(s, err));
    p = task(other, 9, 8, &h[3]);
    gyre_task *second = add(s, &p);
    while (!gyre_task_ended(second, NULL)) {
        const uint32_t n = h[2].n, m = h[3].n;
        OK(gyre_scheduler_step(s, err));
        assert_true(h[2].n <= n + 1 && h[3].n == m + 1); // side by side, one each
    }
    gyre_scheduler_remove(s, second);
    finish(s, first);
    assert_int_equal(h[0].n, N);
    assert_int_equal(h[1].n, 14);
    assert_int_equal(h[2].n, 2 * SOME);
    gyre_scheduler_destroy(s);
}

static void test_same_tokens(void **state)
{
    (void)state;
    static struct heard one[4], many[4];
    for (int m = 0; m < MODELS; m++)
        for (int drawn = 0; drawn < 2; drawn++) {
            uint64_t submissions[2] = {0};
            for (int i = 0; i < 2; i++) {
                gyre_engine *e = open_engine(path[m], i ? 8 : 1);
                if (!e) return;
                talk(e, drawn ? 1.2f : 0, i ? many : one);
                submissions[i] = gyre_engine_count(e).submissions;
                OK(gyre_engine_close(e, err));
            }
            for (int k = 0; k < 4; k++) {
                assert_int_equal(one[k].n, many[k].n);
                for (uint32_t i = 0; i < one[k].n; i++)
                    if (one[k].token[i] != many[k].token[i])
                        fail_msg("model %d, drawn %d, text %d: token %u is %u and %u", m, drawn, k, i, one[k].token[i],
                                 many[k].token[i]);
            }
            assert_true(2 * submissions[1] < submissions[0]);
        }
}

// Each call to the device fails once: the step says so, tells nothing, and the next one goes on. Where texts share what
// they have in common, the device has the page that the answer fills already, and is told of it.
static void fail_each(bool sharing, uint32_t ahead)
{
    enum { LENGTH = 21, N = 24 };
    uint32_t prompt[LENGTH];
    static struct heard whole, now;
    uint64_t failures = 0;
    tiny_tokens(prompt, LENGTH, 5, VOCAB);
    gyre_engine *e = open_engine(path[1], ahead);
    if (!e) return;
    gyre_scheduler *s = scheduler(e, !sharing);
    whole = (struct heard){0};
    gyre_task_params p = task(prompt, LENGTH, N, &whole);
    finish(s, add(s, &p));
    for (uint64_t fail = 1, reached = 1; reached; fail++) {
        const uint64_t before = failures;
        now = (struct heard){0};
        p.user = &now;
        gyre_task *t = add(s, &p);
        e->device->options.fail_call = e->device->counters.calls + fail;
        while (!gyre_task_ended(t, NULL)) {
            gyre_error why = {0};
            const uint32_t n = now.n;
            if (gyre_scheduler_step(s, &why) == GYRE_OK) continue;
            if (!strstr(why.message, "a test wants") || now.n != n || failures++ != before) fail_msg("%s", why.message);
        }
        reached = e->device->counters.calls >= e->device->options.fail_call;
        e->device->options.fail_call = 0;
        gyre_scheduler_remove(s, t);
        assert_int_equal(now.n, N);
        for (uint32_t i = 0; i < N; i++) assert_int_equal(now.token[i], whole.token[i]);
    }
    assert_in_range(failures, 10, 200);
    gyre_scheduler_destroy(s);
    OK(gyre_engine_close(e, err));
}

static void test_failing_calls(void **state)
{
    (void)state;
    fail_each(false, 8);
    fail_each(true, 8);
    fail_each(true, 1);
}

// The same beside a text of which an embedding is wanted: a step that fails has moved neither.
static void test_failing_embedding(void **state)
{
    (void)state;
    enum { N = 6, LENGTH = 40, WIDTH = 64 };
    uint32_t prompt[9], text[LENGTH];
    static struct heard h;
    float whole[WIDTH];
    uint64_t failures = 0;
    tiny_tokens(prompt, 9, 5, VOCAB);
    tiny_tokens(text, LENGTH, 6, VOCAB);
    gyre_engine *e = open_engine(path[0], 1);
    if (!e) return;
    gyre_scheduler *s = NULL;
    const gyre_scheduler_params params = {.size = sizeof params, .no_sharing = true, .chunk = 16};
    OK(gyre_scheduler_create(e, &params, &s, err));
    assert_true(e->model.hp.width <= WIDTH);
    for (uint64_t fail = 0, reached = 1; reached; fail++) { // at first none does
        const uint64_t before = failures;
        h = (struct heard){0};
        const gyre_task_params p = task(prompt, 9, N, &h);
        gyre_task_params q = task(text, LENGTH, 0, NULL);
        q.on_token = NULL, q.pooling = GYRE_POOL_MEAN;
        gyre_task *t = add(s, &p), *embeds = add(s, &q);
        e->device->options.fail_call = fail ? e->device->counters.calls + fail : 0;
        while (!gyre_task_ended(t, NULL) || !gyre_task_ended(embeds, NULL)) {
            gyre_error why = {0};
            const uint32_t n = h.n, at = embeds->length;
            if (gyre_scheduler_step(s, &why) == GYRE_OK) continue;
            assert_non_null(strstr(why.message, "a test wants"));
            assert_int_equal(failures++, before);
            assert_int_equal(h.n, n);
            assert_int_equal(embeds->length, at);
        }
        reached = !fail || e->device->counters.calls >= e->device->options.fail_call;
        e->device->options.fail_call = 0;
        if (!fail) memcpy(whole, gyre_task_embedding(embeds), e->model.hp.width * sizeof *whole);
        assert_memory_equal(whole, gyre_task_embedding(embeds), e->model.hp.width * sizeof *whole);
        assert_int_equal(h.n, N);
        gyre_scheduler_remove(s, t);
        gyre_scheduler_remove(s, embeds);
    }
    assert_in_range(failures, 10, 200);
    gyre_scheduler_destroy(s);
    OK(gyre_engine_close(e, err));
}

// A submission holds no more tokens than the time of a step allows.
static void test_time_of_a_step(void **state)
{
    (void)state;
    enum { LENGTH = 21, N = 40 };
    uint32_t prompt[LENGTH], most[2] = {0};
    tiny_tokens(prompt, LENGTH, 5, VOCAB);
    gyre_engine *e = open_engine(path[0], 8);
    if (!e) return;
    for (int slow = 0; slow < 2; slow++) {
        static struct heard h;
        gyre_scheduler *s = NULL;
        const gyre_scheduler_params params = {.size = sizeof params, .step_ms = 1};
        OK(gyre_scheduler_create(e, &params, &s, err));
        h = (struct heard){0};
        const gyre_task_params p = task(prompt, LENGTH, N, &h);
        gyre_task *t = add(s, &p);
        while (!gyre_task_ended(t, NULL)) {
            const uint32_t n = h.n;
            s->one_ns = slow ? 0.3e6 : 1e3; // as if steps took so long
            OK(gyre_scheduler_step(s, err));
            most[slow] = h.n - n > most[slow] ? h.n - n : most[slow];
        }
        gyre_scheduler_remove(s, t);
        gyre_scheduler_destroy(s);
    }
    assert_true(most[0] > 3);
    assert_int_equal(most[1], 3);
    OK(gyre_engine_close(e, err));
}

// device: cpu unless told.
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_tokens), cmocka_unit_test(test_failing_calls),
                                       cmocka_unit_test(test_failing_embedding), cmocka_unit_test(test_time_of_a_step)};
    if (argc > 1) device = argv[1];
    for (int m = 0; m < MODELS; m++) {
        struct tiny_options o = tiny_family(m ? "gemma3" : "llama");
        if (m) o.window = 40;
        snprintf(path[m], sizeof path[m], "schedule-ahead-%d-%.3s.gguf", m, device); // devices' tests run side by side
        if (tiny_write_gguf(path[m], &o)) return 1;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int m = 0; m < MODELS; m++) unlink(path[m]);
    return failed;
}
