// A text that is longer than its context: the oldest tokens leave, those that are kept stay first, and what is said
// then is what a text of the tokens that are left would say. By sessions and by tasks, also beside others.
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

static const char *const device_names[] = {"cpu", "vulkan:0", "opencl:0"};
enum { DEVICES = 3, VOCAB = 304, CONTEXT = 96, PROMPT = 70, KEEP = 37, N = 150 };
static const char path[] = "test-shift.gguf";
static uint32_t prompt[PROMPT], want[N];

static int setup(void **state)
{
    (void)state;
    struct tiny_options o = tiny_defaults();
    o.type = GYRE_DTYPE_Q4_0;
    tiny_tokens(prompt, PROMPT, 3, VOCAB);
    return tiny_write_gguf(path, &o);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static gyre_engine *open_engine(const char *device)
{
    gyre_engine *engine = NULL;
    gyre_error err = {0};
    const gyre_engine_params p = {
        .size = sizeof p, .device = device, .act = 16, .kv = 8, .context = CONTEXT, .sequences = 3, .cache_dir = ""};
    const gyre_status st = gyre_engine_open(path, &p, &engine, &err);
    return device_opened(device, st, &err) ? engine : NULL;
}

static void test_how_many(void **state)
{
    (void)state;
    assert_int_equal(gyre_context_shift(95, 0, 96), 0); // there is room for one
    assert_int_equal(gyre_context_shift(96, 0, 96), 48);
    assert_int_equal(gyre_context_shift(143, 0, 96), 48);
    assert_int_equal(gyre_context_shift(144, 0, 96), 96);
    assert_int_equal(gyre_context_shift(96, 37, 96), 29);
    assert_int_equal(gyre_context_shift(96, 72, 96), 12); // a quarter is left
    assert_int_equal(gyre_context_shift(96, 73, 96), 0);
    assert_int_equal(gyre_context_shift(500, 200, 96), 0);
    assert_int_equal(gyre_context_shift(2, 0, 2), 1);
    assert_int_equal(gyre_context_shift(1, 0, 1), 0);
    for (size_t context = 8; context < 40; context++) // what stays fits, is more than what is kept, and not too much
        for (size_t keep = 0; keep <= context * 3 / 4; keep++)
            for (size_t n = context; n < 5 * context; n++) {
                const size_t stays = n - gyre_context_shift(n, keep, context);
                if (stays >= context || stays < keep + (context - keep) / 2)
                    fail_msg("%zu of %zu tokens stay in %zu, %zu kept", stays, n, context, keep);
            }
}

// What is said when `most` tokens are a full text, each from a text of the tokens that are left, anew.
static void expect(gyre_engine *e, uint32_t most)
{
    uint32_t text[CONTEXT + 1], n = PROMPT;
    gyre_session *s = NULL;
    OK(gyre_session_create(e, &s, err));
    memcpy(text, prompt, sizeof prompt);
    for (int i = 0; i < N; i++) {
        if (n == most) {
            const uint32_t leave = (CONTEXT - KEEP) / 2;
            memmove(text + KEEP, text + KEEP + leave, (n - KEEP - leave) * sizeof *text);
            n -= leave;
        }
        OK(gyre_session_sync(s, text, n, NULL, &want[i], err));
        text[n++] = want[i];
    }
    gyre_session_destroy(s);
}

static void test_session(void **state)
{
    (void)state;
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e = open_engine(device_names[d]);
        if (!e) continue;
        uint32_t said[2][N];
        gyre_generate_result r;
        gyre_session *s = NULL;
        OK(gyre_session_create(e, &s, err));
        gyre_generate_params p = {.size = sizeof p,
                                  .prompt = prompt,
                                  .n_prompt = PROMPT,
                                  .max_tokens = N,
                                  .ignore_end = true,
                                  .tokens = said[0],
                                  .shift = true,
                                  .keep = KEEP};
        expect(e, CONTEXT + 1); // the last token of a full session has no place yet
        OK(gyre_generate(s, &p, NULL, NULL, &r, err));
        assert_int_equal(r.why, GYRE_STOP_LENGTH);
        assert_int_equal(r.n_tokens, N);
        assert_memory_equal(said[0], want, sizeof want);
        p.presence_penalty = 1e-6f; // the host chooses, the same
        OK(gyre_generate(s, &p, NULL, NULL, &r, err));
        assert_memory_equal(said[0], want, sizeof want);
        // Places come again and draws do not: the next stretch is no repetition, on the device and on the host alike.
        for (int host = 0; host < 2; host++) {
            p.sampling = (gyre_sampling){.temperature = 100, .seed = 5};
            p.presence_penalty = host ? 1e-6f : 0;
            p.tokens = said[host];
            OK(gyre_generate(s, &p, NULL, NULL, &r, err));
        }
        assert_memory_equal(said[0], said[1], sizeof said[0]);
        const int first = CONTEXT + 1 - PROMPT, stretch = (CONTEXT - KEEP) / 2;
        for (int i = first; i + 2 * stretch < N; i += stretch) {
            int same = 0;
            for (int k = 0; k < stretch; k++) same += said[0][i + k] == said[0][i + stretch + k];
            if (same > stretch / 2) fail_msg("%s: %d of %d tokens come again", device_names[d], same, stretch);
        }
        p.keep = CONTEXT; // nothing could leave: it ends as ever
        OK(gyre_generate(s, &p, NULL, NULL, &r, err));
        assert_int_equal(r.why, GYRE_STOP_CONTEXT);
        gyre_session_destroy(s);
        OK(gyre_engine_close(e, err));
    }
}

struct heard {
    uint32_t token[N], n;
};

static int on_token(void *user, const gyre_task_token *token)
{
    struct heard *h = user;
    assert_true(h->n < N);
    h->token[h->n++] = token->token;
    return 0;
}

static void test_tasks(void **state)
{
    (void)state;
    for (int d = 0; d < DEVICES; d++) {
        gyre_engine *e = open_engine(device_names[d]);
        if (!e) continue;
        expect(e, CONTEXT);
        for (int sharing = 0; sharing < 2; sharing++) {
            // Two alike, so that they share pages and then lose the same tokens, and one that ends at the context.
            static struct heard heard[3];
            memset(heard, 0, sizeof heard);
            gyre_scheduler *s = NULL;
            gyre_task *t[3] = {NULL};
            const gyre_scheduler_params params = {.size = sizeof params, .chunk = 16, .no_sharing = !sharing};
            OK(gyre_scheduler_create(e, &params, &s, err));
            for (int i = 0; i < 3; i++) {
                const gyre_task_params p = {.size = sizeof p,
                                            .prompt = prompt,
                                            .n_prompt = PROMPT,
                                            .max_tokens = N,
                                            .ignore_end = true,
                                            .scores = i == 1,
                                            .on_token = on_token,
                                            .user = &heard[i],
                                            .shift = i < 2,
                                            .keep = KEEP};
                OK(gyre_scheduler_add(s, &p, &t[i], err));
            }
            gyre_stop why;
            while (!gyre_task_ended(t[0], &why) || !gyre_task_ended(t[1], NULL) || !gyre_task_ended(t[2], NULL))
                OK(gyre_scheduler_step(s, err));
            assert_int_equal(why, GYRE_STOP_LENGTH);
            assert_true(gyre_task_ended(t[2], &why));
            assert_int_equal(why, GYRE_STOP_CONTEXT);
            for (int i = 0; i < 2; i++) {
                assert_int_equal(heard[i].n, N);
                assert_int_equal(gyre_task_generated(t[i]), N);
                assert_true(gyre_task_cached(t[i]) <= PROMPT);
                assert_memory_equal(heard[i].token, want, sizeof want);
            }
            assert_int_equal(heard[2].n, CONTEXT - PROMPT);
            assert_memory_equal(heard[2].token, want, (CONTEXT - PROMPT) * sizeof *want);
            gyre_scheduler_destroy(s);
        }
        OK(gyre_engine_close(e, err));
    }
}

// A task waits at the end of its prompt, which is what another one keeps of its own when its first token fills the
// context: it is no twin of that one, and what follows is another text's.
static void test_no_twin(void **state)
{
    (void)state;
    enum { LONG = CONTEXT - 1, LEAVE = (CONTEXT - KEEP) / 2, SHORT = LONG - LEAVE, CHUNK = 48 };
    gyre_engine *e = open_engine("cpu");
    uint32_t text[LONG], alone[2];
    const size_t n[2] = {LONG, SHORT};
    struct heard heard[2] = {{{0}, 0}};
    gyre_session *session = NULL;
    gyre_scheduler *s = NULL;
    gyre_task *t[2] = {NULL};
    OK(gyre_session_create(e, &session, err));
    for (int from = 0; from == 0 || (alone[0] == alone[1] && from <= PROMPT - LEAVE); from++) {
        // What leaves is a period, so the rest looks the same.
        for (int i = 0; i < LONG; i++) text[i] = prompt[from + i % LEAVE];
        for (int i = 0; i < 2; i++) OK(gyre_session_sync(session, text, n[i], NULL, &alone[i], err));
    }
    assert_int_not_equal(alone[0], alone[1]);
    gyre_session_destroy(session);
    OK(gyre_scheduler_create(e, &(gyre_scheduler_params){.size = sizeof(gyre_scheduler_params), .chunk = CHUNK}, &s,
                             err));
    for (int i = 0; i < 2; i++) {
        const gyre_task_params p = {.size = sizeof p,
                                    .prompt = text,
                                    .n_prompt = n[i],
                                    .max_tokens = i ? 1 : 2,
                                    .ignore_end = true,
                                    .on_token = on_token,
                                    .user = &heard[i],
                                    .shift = true,
                                    .keep = KEEP};
        OK(gyre_scheduler_add(s, &p, &t[i], err));
        OK(gyre_scheduler_step(s, err)); // the second one waits for a page of the first
    }
    while (!gyre_task_ended(t[0], NULL) || !gyre_task_ended(t[1], NULL)) OK(gyre_scheduler_step(s, err));
    for (int i = 0; i < 2; i++) assert_int_equal(heard[i].token[0], alone[i]);
    gyre_scheduler_destroy(s);
    OK(gyre_engine_close(e, err));
}

// What was shared of a prompt stays said when its tokens leave and others are read anew.
static void test_cached(void **state)
{
    (void)state;
    gyre_engine *e = open_engine("cpu");
    gyre_scheduler *s = NULL;
    OK(gyre_scheduler_create(e, &(gyre_scheduler_params){.size = sizeof(gyre_scheduler_params), .chunk = 16}, &s, err));
    for (int i = 0; i < 2; i++) { // the second one finds what the first one computed
        gyre_task *t = NULL;
        const gyre_task_params p = {.size = sizeof p,
                                    .prompt = prompt,
                                    .n_prompt = PROMPT,
                                    .max_tokens = i ? N : 1,
                                    .ignore_end = true,
                                    .shift = true,
                                    .keep = KEEP};
        OK(gyre_scheduler_add(s, &p, &t, err));
        while (!gyre_task_ended(t, NULL)) OK(gyre_scheduler_step(s, err));
        assert_int_equal(gyre_task_cached(t), i ? 64 : 0);
        gyre_scheduler_remove(s, t);
    }
    gyre_scheduler_destroy(s);
    OK(gyre_engine_close(e, err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_how_many), cmocka_unit_test(test_session),
                                       cmocka_unit_test(test_tasks), cmocka_unit_test(test_no_twin),
                                       cmocka_unit_test(test_cached)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
