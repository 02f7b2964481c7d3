// Continuing a text: the same tokens as by hand, every way of choosing and of stopping, cancelling and going on, and
// sessions that are saved and loaded.
#include "runtime/session.h"
#include "runtime/util/base.h"
#include "tests/common/device.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include <gyre/gyre.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <omp.h>

enum { VOCAB = 304, N = 24 };
static const char *device_id = "cpu";
static char directory[] = "test-generate-XXXXXX";
static char path[128], other_path[128], saved_path[128];
static uint32_t prompt[45];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(directory)) return 1;
    snprintf(path, sizeof path, "%s/q4.gguf", directory);
    snprintf(other_path, sizeof other_path, "%s/other.gguf", directory);
    snprintf(saved_path, sizeof saved_path, "%s/saved", directory);
    tiny_tokens(prompt, 45, 5, VOCAB);
    struct tiny_options o = tiny_defaults();
    o.type = GYRE_DTYPE_Q4_0;
    if (tiny_write_gguf(path, &o)) return 1;
    o.seed = 2;
    return tiny_write_gguf(other_path, &o);
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    unlink(other_path);
    unlink(saved_path);
    return rmdir(directory);
}

struct pair {
    gyre_engine *engine;
    gyre_session *session;
};

// kv of two widths: keys' + 256 values'.
static struct pair open_pair(const char *model, uint32_t kv, uint32_t context)
{
    const gyre_engine_params p = {.size = sizeof p,
                                  .device = device_id,
                                  .cache_dir = "",
                                  .act = 16,
                                  .kv = kv % 256,
                                  .kv_v = kv / 256,
                                  .sequences = 2,
                                  .max_rows = 16,
                                  .context = context};
    struct pair x = {0};
    OK(gyre_engine_open(model, &p, &x.engine, err));
    OK(gyre_session_create(x.engine, &x.session, err));
    return x;
}

static void close_pair(struct pair x)
{
    gyre_session_destroy(x.session);
    OK(gyre_engine_close(x.engine, err));
}

// ---- what on_text heard ---------------------------------------------------------------------------------------------

struct heard {
    char text[4096];
    size_t n, pieces;
    size_t stop_at;       // piece after which the callback says stop; 0: never
    gyre_session *cancel; // ... or cancels this session
};

static int hear(void *user, const char *text, size_t bytes)
{
    struct heard *h = user;
    assert_int_equal(text[bytes], 0);
    assert_true(bytes > 0 && h->n + bytes < sizeof h->text);
    memcpy(h->text + h->n, text, bytes + 1);
    h->n += bytes;
    if (++h->pieces != h->stop_at) return 0;
    if (!h->cancel) return 1;
    gyre_session_cancel(h->cancel);
    return 0;
}

static gyre_generate_params settings(uint32_t *tokens, uint32_t n)
{
    return (gyre_generate_params){.size = sizeof(gyre_generate_params),
                                  .prompt = prompt,
                                  .n_prompt = 45,
                                  .max_tokens = n,
                                  .ignore_end = true,
                                  .tokens = tokens};
}

// ---- choosing -------------------------------------------------------------------------------------------------------

static void test_as_by_hand(void **state)
{
    (void)state;
    struct pair x = open_pair(path, 8, 128);
    const gyre_sampling modes[] = {{0}, {1.5f, 0, 1.0f, 3}, {2.0f, 12, 0.7f, 4}, {0.8f, 300, 0.9f, 5}};
    const gyre_logit_bias nothing = {7, 0.0f};
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        uint32_t want[N], got[N];
        OK(gyre_session_sync(x.session, prompt, 45, &modes[m], &want[0], err));
        for (int i = 1; i < N; i++) OK(gyre_session_decode(x.session, want[i - 1], &want[i], err));
        gyre_generate_params p = settings(got, N);
        gyre_generate_result r;
        p.sampling = modes[m];
        OK(gyre_generate(x.session, &p, NULL, NULL, &r, err));
        assert_memory_equal(want, got, sizeof want);
        assert_true(r.why == GYRE_STOP_LENGTH && r.n_tokens == N && r.prompt_tokens == 45 && r.reused_tokens == 44);
        assert_int_equal(gyre_session_length(x.session), 45 + N - 1);
        assert_memory_equal(gyre_session_tokens(x.session) + 45, got, (N - 1) * sizeof *got);
        p.bias = &nothing; // the host chooses: the same draw
        p.n_bias = 1;
        memset(got, 0, sizeof got);
        OK(gyre_generate(x.session, &p, NULL, NULL, NULL, err));
        assert_memory_equal(want, got, sizeof want);
    }
    close_pair(x);
}

static bool contains(const uint32_t *list, size_t n, uint32_t token)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == token) return true;
    return false;
}

static void test_choosing_on_the_host(void **state)
{
    (void)state;
    struct pair x = open_pair(path, 16, 128);
    uint32_t greedy[N], got[N];
    gyre_generate_params p = settings(greedy, N);
    OK(gyre_generate(x.session, &p, NULL, NULL, NULL, err));

    p = settings(got, N);
    const gyre_logit_bias forbid = {greedy[0], -INFINITY}, force = {11, 1e6f};
    p.bias = &forbid;
    p.n_bias = 1;
    OK(gyre_generate(x.session, &p, NULL, NULL, NULL, err));
    assert_false(contains(got, N, greedy[0]));
    p.bias = &force;
    OK(gyre_generate(x.session, &p, NULL, NULL, NULL, err));
    for (int i = 0; i < N; i++) assert_int_equal(got[i], 11);

    for (int kind = 0; kind < 3; kind++) { // each penalty alone, so strong that nothing comes twice
        p = settings(got, N);
        if (kind == 0) p.repeat_penalty = 1e6f;
        if (kind == 1) p.presence_penalty = 1e6f;
        if (kind == 2) p.frequency_penalty = 1e6f;
        p.penalty_window = 128;
        OK(gyre_generate(x.session, &p, NULL, NULL, NULL, err));
        for (int i = 0; i < N; i++) {
            if (kind > 0) assert_false(contains(got, (size_t)i, got[i]));
            if (kind > 0) assert_false(contains(prompt, 45, got[i])); // the prompt was seen too
        }
        if (kind == 0) assert_memory_not_equal(got, greedy, sizeof got);
        uint32_t all[N];
        memcpy(all, got, sizeof all);
        p.penalty_window = 1; // only the last one counts
        OK(gyre_generate(x.session, &p, NULL, NULL, NULL, err));
        for (int i = 1; i < N && kind > 0; i++) assert_int_not_equal(got[i], got[i - 1]);
        assert_memory_not_equal(got, all, sizeof got);
    }

    p = settings(got, N);
    p.sampling = (gyre_sampling){5.0f, 0, 1.0f, 9};
    OK(gyre_generate(x.session, &p, NULL, NULL, NULL, err));
    assert_memory_not_equal(got, greedy, sizeof got);
    p.min_p = 1.0f; // only what is as likely as the best
    OK(gyre_generate(x.session, &p, NULL, NULL, NULL, err));
    assert_memory_equal(got, greedy, sizeof got);
    close_pair(x);
}

// Two sessions in one step, each with settings of its own, chosen for on the device and on the host: as alone.
static void test_settings_of_each(void **state)
{
    (void)state;
    struct pair x = open_pair(path, 16, 128);
    gyre_session *second = NULL;
    uint32_t want[2][N], last[2];
    OK(gyre_session_create(x.engine, &second, err));
    gyre_session *const both[2] = {x.session, second};
    gyre_generate_params p[2] = {settings(want[0], N), settings(want[1], N)};
    p[0].sampling = (gyre_sampling){1.5f, 30, 0.9f, 21};
    p[1].sampling = (gyre_sampling){0.9f, 0, 1.0f, 22};
    p[1].frequency_penalty = 2.0f;
    p[1].min_p = 0.01f;
    for (int i = 0; i < 2; i++) {
        OK(gyre_generate(both[i], &p[i], NULL, NULL, NULL, err));
        OK(gyre_session_sync(both[i], prompt, 1, NULL, NULL, err)); // forget it
    }
    for (int n = 0; n < N; n++) {
        gyre_step_part parts[2];
        for (int i = 0; i < 2; i++)
            parts[i] = (gyre_step_part){both[i], n ? &last[i] : prompt + 1, n ? 1 : 44, 0, &p[i].sampling};
        OK(gyre_step(x.engine, parts, 2, err));
        last[0] = parts[0].next;
        OK(gyre_session_choose(second, &p[1], &last[1], err));
        for (int i = 0; i < 2; i++) assert_int_equal(last[i], want[i][n]);
        uint32_t again;
        OK(gyre_session_choose(x.session, &p[0], &again, err));
        assert_int_equal(again, last[0]);
    }
    gyre_session_destroy(second);
    close_pair(x);
}

// ---- stopping -------------------------------------------------------------------------------------------------------

static void test_stop_texts(void **state)
{
    (void)state;
    struct pair x = open_pair(path, 16, 128);
    uint32_t tokens[N];
    struct heard all = {0};
    gyre_generate_params p = settings(tokens, N);
    gyre_generate_result r;
    OK(gyre_generate(x.session, &p, hear, &all, &r, err));
    assert_true(all.n > 20 && all.pieces > 5);
    int straddling = 0;
    for (size_t from = 0; from + 6 < all.n; from += 3) {
        for (size_t n = 1; n <= 6; n += 5) {
            char word[8] = "";
            memcpy(word, all.text + from, n);
            const char *const stops[] = {"never said \x01", word};
            const size_t first = (size_t)(strstr(all.text, word) - all.text);
            struct heard h = {0};
            p.stop = stops;
            p.n_stop = 2;
            OK(gyre_generate(x.session, &p, hear, &h, &r, err));
            assert_true(r.why == GYRE_STOP_TEXT && r.stop_index == 1);
            assert_int_equal(h.n, first);
            assert_memory_equal(h.text, all.text, first);
            straddling += n == 6;
        }
    }
    assert_true(straddling > 3);
    const char *const beginnings[] = {"\x01\x01", all.text + all.n - 1 + 0}; // the last byte: complete at the very end
    struct heard h = {0};
    p.stop = beginnings;
    p.n_stop = 1; // never completes: nothing is kept back at the end
    OK(gyre_generate(x.session, &p, hear, &h, &r, err));
    assert_true(r.why == GYRE_STOP_LENGTH && h.n == all.n && memcmp(h.text, all.text, h.n) == 0);
    const char *const empty[] = {""};
    gyre_error why = {0};
    p.stop = empty;
    assert_int_equal(gyre_generate(x.session, &p, hear, &h, &r, &why), GYRE_E_INVALID);
    assert_non_null(strstr(why.message, "stop text 0 is empty"));
    close_pair(x);
}

static void test_stop_tokens_and_ends(void **state)
{
    (void)state;
    struct pair x = open_pair(path, 16, 56);
    uint32_t tokens[N], got[N];
    gyre_generate_params p = settings(tokens, 8);
    gyre_generate_result r;
    OK(gyre_generate(x.session, &p, NULL, NULL, &r, err));
    size_t first = 0;
    while (tokens[first] != tokens[3]) first++;
    const uint32_t stops[] = {VOCAB + 5, tokens[3]};
    p = settings(got, 8);
    p.stop_tokens = stops;
    p.n_stop_tokens = 2;
    OK(gyre_generate(x.session, &p, NULL, NULL, &r, err));
    assert_true(r.why == GYRE_STOP_TOKEN && r.stop_index == 1 && r.n_tokens == first);

    uint32_t end = 0;
    while (end < VOCAB && !gyre_token_is_end(gyre_engine_tokenizer(x.engine), end)) end++;
    assert_true(end < VOCAB);
    const gyre_logit_bias force = {end, 1e6f};
    p = settings(got, 8);
    p.bias = &force;
    p.n_bias = 1;
    p.ignore_end = false;
    OK(gyre_generate(x.session, &p, NULL, NULL, &r, err));
    assert_true(r.why == GYRE_STOP_END && r.n_tokens == 0);
    p.special = true; // shown, and counted
    OK(gyre_generate(x.session, &p, NULL, NULL, &r, err));
    assert_true(r.why == GYRE_STOP_END && r.n_tokens == 1 && got[0] == end);

    p = settings(got, N);
    OK(gyre_generate(x.session, &p, NULL, NULL, &r, err));
    assert_true(r.why == GYRE_STOP_CONTEXT && r.n_tokens == 56 - 45 + 1 && gyre_session_length(x.session) == 56);
    p.max_tokens = 0;
    gyre_error why = {0};
    assert_int_equal(gyre_generate(x.session, &p, NULL, NULL, &r, &why), GYRE_E_INVALID);
    assert_non_null(strstr(why.message, "max_tokens"));
    close_pair(x);
}

// ---- cancelling -----------------------------------------------------------------------------------------------------

// Stopped in the middle by the callback or by gyre_session_cancel, then gone on with: the same text in all.
static void test_cancel_and_go_on(void **state)
{
    (void)state;
    struct pair x = open_pair(path, 8, 128);
    uint32_t want[N], got[2][N];
    gyre_generate_params p = settings(want, N);
    gyre_generate_result r;
    p.sampling = (gyre_sampling){1.2f, 50, 0.95f, 3};
    struct heard all = {0};
    OK(gyre_generate(x.session, &p, hear, &all, &r, err));
    for (int way = 0; way < 2; way++) {
        struct heard h = {.stop_at = 4, .cancel = way ? x.session : NULL};
        gyre_error why = {0};
        p.prompt = prompt;
        p.n_prompt = 45;
        p.max_tokens = N;
        p.tokens = got[0];
        assert_int_equal(gyre_generate(x.session, &p, hear, &h, &r, &why), GYRE_E_CANCELLED);
        assert_null(strchr(why.message, '\n'));
        const size_t said = r.n_tokens;
        assert_true(said > 0 && said < N);
        assert_memory_equal(got[0], want, said * sizeof *want);
        assert_int_equal(gyre_session_length(x.session), 45 + said - 1);
        if (!way)
            continue; // the callback ended it before the token was behind the session; what follows is the caller's
        p.prompt = NULL;
        p.n_prompt = 0;
        p.tokens = got[1];
        p.max_tokens = (uint32_t)(N - said);
        OK(gyre_generate(x.session, &p, hear, &h, &r, err));
        assert_memory_equal(got[1], want + said, (N - said) * sizeof *want);
        assert_int_equal(h.n, all.n);
        assert_memory_equal(h.text, all.text, h.n);
    }
    gyre_session_cancel(x.session); // nothing is running: nothing happens
    OK(gyre_session_sync(x.session, prompt, 45, NULL, NULL, err));
    close_pair(x);
}

// The device's submissions, counted so that another thread may look.
static atomic_ullong submissions;
static const struct gyre_backend *counted;

static gyre_status count_submit(gyre_device *device, gyre_recording *recording, uint32_t times, uint64_t *ns,
                                gyre_error *why)
{
    const gyre_status st = counted->submit(device, recording, times, ns, why);
    atomic_fetch_add(&submissions, 1);
    return st;
}

struct canceller {
    gyre_session *session;
    unsigned long long at, seen;
    atomic_bool ready;
};

static void *cancel_later(void *user)
{
    struct canceller *c = user;
    atomic_store(&c->ready, true);
    while (atomic_load(&submissions) < c->at) continue;
    gyre_session_cancel(c->session);
    c->seen = atomic_load(&submissions);
    return NULL;
}

// A long prompt, cancelled from another thread: one chunk later it is over, and the session is as before.
static void test_cancel_a_prefill(void **state)
{
    (void)state;
    struct pair x = open_pair(path, 8, 512);
    uint32_t tokens[480], next[2];
    for (int i = 0; i < 480; i++) tokens[i] = prompt[i % 45];
    OK(gyre_session_sync(x.session, prompt, 45, NULL, &next[0], err));
    gyre_status st = GYRE_OK;
    counted = x.engine->device->backend;
    struct gyre_backend counting = *counted;
    counting.submit = count_submit;
    x.engine->device->backend = &counting;
    unsigned long long before = 0, seen = 0;
    for (int tries = 0; st == GYRE_OK && tries < 20; tries++) { // the thread may get no processor in time
        OK(gyre_session_sync(x.session, prompt, 45, NULL, NULL, err));
        before = atomic_load(&submissions);
        struct canceller c = {.session = x.session, .at = before + 5};
        pthread_t thread;
        gyre_error why = {0};
        assert_int_equal(pthread_create(&thread, NULL, cancel_later, &c), 0);
        while (!atomic_load(&c.ready)) sched_yield();
        st = gyre_session_sync(x.session, tokens, 480, NULL, &next[1], &why);
        pthread_join(thread, NULL);
        seen = c.seen;
    }
    x.engine->device->backend = counted;
    assert_int_equal(st, GYRE_E_CANCELLED);
    const unsigned long long done = atomic_load(&submissions) - before;
    if (done > seen - before + 1) fail_msg("cancelled after %llu chunks, seen after %llu", seen - before, done);
    assert_true(done < 480 / 16);
    assert_int_equal(gyre_session_length(x.session), 45);
    OK(gyre_session_sync(x.session, prompt, 45, NULL, &next[1], err));
    assert_int_equal(next[0], next[1]);
    close_pair(x);
}

// ---- data out -------------------------------------------------------------------------------------------------------

static void test_logits(void **state)
{
    (void)state;
    struct pair x = open_pair(path, 8, 128);
    gyre_session *second = NULL;
    gyre_error why = {0};
    float want[VOCAB], got[VOCAB];
    gyre_candidate top[5], all[VOCAB];
    uint32_t n = 0, next;
    OK(gyre_session_create(x.engine, &second, err));
    assert_int_equal(gyre_session_logits(x.session, got, &why), GYRE_E_INVALID); // nothing was run yet
    OK(gyre_session_sync(second, prompt, 45, NULL, NULL, err));
    OK(gyre_session_logits(second, want, err));
    OK(gyre_session_sync(x.session, prompt, 44, NULL, NULL, err));
    assert_int_equal(gyre_session_logits(second, got, &why), GYRE_E_INVALID);
    assert_non_null(strstr(why.message, "right after"));
    OK(gyre_session_decode(x.session, prompt[44], &next, err));
    OK(gyre_session_logits(x.session, got, err));
    for (int i = 0; i < VOCAB; i++) assert_true(fabsf(want[i] - got[i]) < 1e-4f * fabsf(want[next]) + 1e-3f);
    OK(gyre_session_top(x.session, top, 5, &n, err));
    assert_true(n == 5 && top[0].token == next && top[0].logprob < 0);
    OK(gyre_session_top(x.session, all, VOCAB, &n, err));
    assert_int_equal(n, VOCAB);
    double sum = 0;
    for (int i = 0; i < VOCAB; i++) {
        sum += exp((double)all[i].logprob);
        assert_true(i == 0 || all[i].logit <= all[i - 1].logit);
        assert_true(all[i].logit == got[all[i].token]);
    }
    assert_true(fabs(sum - 1) < 1e-5);
    assert_memory_equal(top, all, sizeof top);
    gyre_session_destroy(second);
    close_pair(x);
}

// ---- saving ---------------------------------------------------------------------------------------------------------

static void refuse(struct pair y, const void *bytes, size_t n, gyre_status want, const char *word)
{
    gyre_error why = {0};
    assert_int_equal(gyre_session_restore(y.session, bytes, n, &why), want);
    if (!strstr(why.message, word)) fail_msg("the message lacks '%s': %s", word, why.message);
    assert_null(strchr(why.message, '\n'));
    assert_int_equal(gyre_session_length(y.session), 0);
}

static void test_save_and_load(void **state)
{
    (void)state;
    static const uint32_t widths[] = {4, 8, 16, 8 + 256 * 4, 4 + 256 * 16};
    for (size_t w = 0; w < GYRE_COUNT(widths); w++) {
        const uint32_t kv = widths[w];
        struct pair x = open_pair(path, kv, 128), y = open_pair(path, kv, 200);
        uint32_t first[N], want[N], got[N];
        gyre_generate_params p = settings(first, N), on = settings(want, N);
        p.sampling = on.sampling = (gyre_sampling){1.2f, 50, 0.95f, 3};
        on.prompt = NULL;
        on.n_prompt = 0;
        OK(gyre_generate(x.session, &p, NULL, NULL, NULL, err));
        void *bytes = NULL, *again = NULL;
        size_t n = 0, n_again = 0;
        OK(gyre_session_save(x.session, saved_path, err));
        OK(gyre_session_store(x.session, &bytes, &n, err));
        OK(gyre_generate(x.session, &on, NULL, NULL, NULL, err));

        gyre_session *odd = NULL; // another slot, other pages, and something was there before
        OK(gyre_session_create(y.engine, &odd, err));
        OK(gyre_session_sync(odd, prompt, 33, NULL, NULL, err));
        OK(gyre_session_sync(y.session, prompt + 5, 40, NULL, NULL, err));
        OK(gyre_session_load(y.session, saved_path, err));
        assert_int_equal(gyre_session_length(y.session), 45 + N - 1);
        OK(gyre_session_store(y.session, &again, &n_again, err));
        assert_true(n == n_again && memcmp(bytes, again, n) == 0);
        on.tokens = got;
        gyre_generate_result r;
        OK(gyre_generate(y.session, &on, NULL, NULL, &r, err));
        assert_memory_equal(want, got, sizeof want);
        assert_true(r.reused_tokens == r.prompt_tokens - 1); // nothing of it was run again
        gyre_session_destroy(odd);

        struct pair other = open_pair(other_path, kv, 128), // and of one width too few
            narrow = open_pair(path,
                               kv > 256   ? kv % 256
                               : kv == 16 ? 8
                                          : 16,
                               128),
                    shorter = open_pair(path, kv, 50);
        refuse(other, bytes, n, GYRE_E_INVALID, "another model");
        refuse(narrow, bytes, n, GYRE_E_INVALID, "bits");
        refuse(shorter, bytes, n, GYRE_E_INVALID, "context of 50");
        refuse(y, bytes, n - 1, GYRE_E_FORMAT, "bytes");
        refuse(y, bytes, 20, GYRE_E_FORMAT, "no saved session");
        refuse(y, "", 0, GYRE_E_FORMAT, "no saved session");
        ((unsigned char *)bytes)[0] ^= 1;
        refuse(y, bytes, n, GYRE_E_FORMAT, "no saved session");
        OK(gyre_session_sync(y.session, prompt, 45, NULL, NULL, err)); // refused, and of use
        close_pair(other);
        close_pair(narrow);
        close_pair(shorter);
        gyre_free(bytes);
        gyre_free(again);
        close_pair(x);
        close_pair(y);
    }
}

// Of a model with LongRoPE the keys of an engine for long contexts are other ones.
static void test_saved_on_one_side_of_the_original_context(void **state)
{
    (void)state;
    const struct tiny_options o = tiny_family("phi3"); // original context 64
    assert_int_equal(tiny_write_gguf(other_path, &o), 0);
    static const uint32_t contexts[] = {64, 60, 65, 128};
    for (size_t i = 0; i < GYRE_COUNT(contexts); i++) {
        struct pair x = open_pair(other_path, 16, contexts[i]);
        void *bytes = NULL;
        size_t n = 0;
        OK(gyre_session_sync(x.session, prompt, 40, NULL, NULL, err));
        OK(gyre_session_store(x.session, &bytes, &n, err));
        for (size_t k = 0; k < GYRE_COUNT(contexts); k++) {
            struct pair y = open_pair(other_path, 16, contexts[k]);
            if ((i < 2) != (k < 2)) refuse(y, bytes, n, GYRE_E_INVALID, "LongRoPE");
            else OK(gyre_session_restore(y.session, bytes, n, err));
            close_pair(y);
        }
        gyre_free(bytes);
        close_pair(x);
    }
}

// device: cpu unless told.
int main(int argc, char **argv)
{
    if (argc > 1) device_id = argv[1];
    const int missing = device_probe(device_id);
    if (missing) return missing;
    omp_set_num_threads(1); // the model is tiny: threads would only wait for each other
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_by_hand),           cmocka_unit_test(test_choosing_on_the_host),
        cmocka_unit_test(test_settings_of_each),     cmocka_unit_test(test_stop_texts),
        cmocka_unit_test(test_stop_tokens_and_ends), cmocka_unit_test(test_cancel_and_go_on),
        cmocka_unit_test(test_cancel_a_prefill),     cmocka_unit_test(test_logits),
        cmocka_unit_test(test_save_and_load),        cmocka_unit_test(test_saved_on_one_side_of_the_original_context),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
