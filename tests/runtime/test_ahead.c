// Several tokens a submission: the device goes on to tokens that it chose itself. No token, no logit and no cached bit
// may differ from steps one by one, wherever the text ends or turns.
#include "runtime/session.h"
#include "tests/common/device.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { VOCAB = 304, CONTEXT = 128, PROMPT = 21, MOST = 90, MODELS = 3 };
static const char *const archs[MODELS] = {"llama", "gemma3", "mistral-window"};
static const char *device = "cpu";
static char path[MODELS][64];
static uint32_t prompt[PROMPT];

// NULL where there is no such device and none is demanded.
static gyre_engine *open_engine(const char *model, uint32_t context, uint32_t ahead, uint32_t max_rows,
                                bool as_hardware)
{
    const gyre_engine_params p = {.size = sizeof p,
                                  .device = device,
                                  .cache_dir = "",
                                  .act = 16,
                                  .kv = 8,
                                  .context = context,
                                  .sequences = 2,
                                  .max_rows = max_rows,
                                  .as_hardware = as_hardware,
                                  .ahead = ahead};
    gyre_engine *engine = NULL;
    gyre_error why = {0};
    return device_opened(device, gyre_engine_open(model, &p, &engine, &why), &why) ? engine : NULL;
}

static gyre_session *session_of(gyre_engine *e)
{
    gyre_session *s = NULL;
    OK(gyre_session_create(e, &s, err));
    return s;
}

struct said {
    size_t n;
    uint32_t token[MOST];
    gyre_stop why;
    uint64_t submissions;
    float logits[VOCAB]; // behind it
};

// Generates with these settings and says what came; `in_between`: looks at logits after every third token.
struct look {
    gyre_session *session;
    bool in_between;
    uint32_t pieces, hash;
};

static uint32_t hash_of(const float *logits)
{
    uint32_t hash = 2166136261u;
    for (uint32_t i = 0; i < VOCAB; i++) hash = (hash ^ gyre_f32_bits(logits[i])) * 16777619u;
    return hash;
}

static int on_text(void *user, const char *text, size_t bytes)
{
    (void)text, (void)bytes;
    struct look *l = user;
    if (!l->in_between || ++l->pieces % 3) return 0;
    float logits[VOCAB];
    OK(gyre_session_logits(l->session, logits, err));
    l->hash = l->hash * 31 + hash_of(logits);
    return 0;
}

static uint32_t generate(gyre_engine *e, gyre_session *s, gyre_generate_params p, bool in_between, struct said *out)
{
    gyre_generate_result result;
    struct look look = {s, in_between, 0, 0};
    *out = (struct said){0};
    p.size = sizeof p;
    p.tokens = out->token;
    const uint64_t before = gyre_engine_count(e).submissions;
    OK(gyre_generate(s, &p, on_text, &look, &result, err));
    out->submissions = gyre_engine_count(e).submissions - before;
    out->n = result.n_tokens, out->why = result.why;
    OK(gyre_session_logits(s, out->logits, err));
    return look.hash;
}

static void same(const struct said *a, const struct said *b, const char *what)
{
    if (a->n != b->n || a->why != b->why)
        fail_msg("%s: %zu and %zu tokens, ends %d, %d", what, a->n, b->n, a->why, b->why);
    for (size_t i = 0; i < a->n; i++)
        if (a->token[i] != b->token[i]) fail_msg("%s: token %zu is %u and %u", what, i, a->token[i], b->token[i]);
    if (memcmp(a->logits, b->logits, sizeof a->logits) != 0) fail_msg("%s: other logits behind it", what);
}

// Greedy, drawn from all, from the k best: a text, a shorter end of it, its continuation, a step back.
static void test_same_tokens(void **state)
{
    (void)state;
    static const gyre_sampling samplings[] = {{0}, {1.3f, 0, 0, 11}, {1.1f, 12, 0.9f, 5}};
    for (size_t m = 0; m < MODELS; m++) {
        gyre_engine *one = open_engine(path[m], CONTEXT, 1, 32, false),
                    *many = open_engine(path[m], CONTEXT, 8, 32, false);
        if (!one || !many) return;
        for (size_t k = 0; k < GYRE_COUNT(samplings); k++) {
            gyre_session *a = session_of(one), *b = session_of(many);
            struct said x, y;
            gyre_generate_params p = {
                .prompt = prompt, .n_prompt = PROMPT, .max_tokens = 60, .ignore_end = true, .sampling = samplings[k]};
            generate(one, a, p, false, &x);
            generate(many, b, p, false, &y);
            same(&x, &y, "a text");
            assert_int_equal(x.n, 60);
            if (2 * y.submissions >= x.submissions)
                fail_msg("%llu submissions in place of %llu", (unsigned long long)y.submissions,
                         (unsigned long long)x.submissions);
            // The same again, which ends where the device is ahead; logits are looked at on the way.
            const uint32_t end = x.token[29];
            p.stop_tokens = &end, p.n_stop_tokens = 1;
            const uint32_t want = generate(one, a, p, true, &x), have = generate(many, b, p, true, &y);
            same(&x, &y, "an end in between");
            assert_int_equal(want, have);
            assert_int_equal(x.why, GYRE_STOP_TOKEN);
            // It goes on from there, to the end of the context, beside another session of the engine.
            gyre_session *c = session_of(one), *d = session_of(many);
            OK(gyre_session_sync(c, prompt, 9, NULL, NULL, err));
            OK(gyre_session_sync(d, prompt, 9, NULL, NULL, err));
            p = (gyre_generate_params){.ignore_end = true, .max_tokens = MOST, .sampling = samplings[k]};
            generate(one, a, p, false, &x);
            generate(many, b, p, false, &y);
            same(&x, &y, "to the end of the context");
            assert_int_equal(gyre_session_length(a), gyre_session_length(b));
            gyre_session_destroy(a);
            gyre_session_destroy(b);
            gyre_session_destroy(c);
            gyre_session_destroy(d);
        }
        OK(gyre_engine_close(one, err));
        OK(gyre_engine_close(many, err));
    }
}

// Whoever appends another token than the device's, steps back, steps with others, saves or loads in between gets what
// he would have got.
static void test_other_turns(void **state)
{
    (void)state;
    for (size_t m = 0; m < MODELS; m++) {
        float logits[2][VOCAB], others[2][VOCAB];
        uint32_t said[2][40] = {{0}};
        for (uint32_t i = 0; i < 2; i++) {
            gyre_engine *e = open_engine(path[m], CONTEXT, i ? 8 : 1, 32, false);
            if (!e) return;
            gyre_session *s = session_of(e), *other = session_of(e);
            uint32_t next = 0, n = 0, *out = said[i], at = 0;
            void *bytes = NULL;
            size_t size = 0;
            gyre_error why = {0};
            OK(gyre_session_sync(other, prompt, 5, NULL, &at, err));
            OK(gyre_session_sync(s, prompt, PROMPT, NULL, &next, err));
            for (int k = 0; k < 3; k++, out[n++] = next) OK(gyre_session_decode_ahead(s, next, 20, &next, err));
            OK(gyre_session_decode_ahead(s, (next + 1) % VOCAB, 20, &next, err)); // not the device's
            out[n++] = next;
            for (int k = 0; k < 2; k++, out[n++] = next) OK(gyre_session_decode_ahead(s, next, 20, &next, err));
            gyre_step_part parts[] = {{other, &at, 1, 0, NULL}, {s, &next, 1, 0, NULL}}; // beside another
            const uint32_t token = next, seen = at;
            parts[0].tokens = &seen, parts[1].tokens = &token;
            OK(gyre_step(e, parts, 2, err));
            out[n++] = at = parts[0].next, out[n++] = next = parts[1].next;
            OK(gyre_session_logits(other, others[i], err));
            for (int k = 0; k < 2; k++, out[n++] = next) OK(gyre_session_decode_ahead(s, next, 20, &next, err));
            OK(gyre_session_store(s, &bytes, &size, err));
            for (int k = 0; k < 3; k++, out[n++] = next) OK(gyre_session_decode(s, next, &next, err)); // finds them too
            OK(gyre_session_decode_ahead(s, next, 3, &next, err));
            OK(gyre_session_restore(s, bytes, size, err));
            gyre_free(bytes);
            OK(gyre_session_decode_ahead(s, out[n - 4], 9, &next, err));
            out[n++] = next;
            assert_int_equal(gyre_session_decode_ahead(s, VOCAB, 9, &next, &why), GYRE_E_INVALID);
            const uint32_t *held = gyre_session_tokens(s); // back to a beginning, and another way from there
            uint32_t again[PROMPT + 4];
            memcpy(again, held, sizeof again);
            OK(gyre_session_sync(s, again, PROMPT + 4, NULL, &next, err));
            for (int k = 0; k < 5; k++, out[n++] = next) OK(gyre_session_decode_ahead(s, next, 20, &next, err));
            OK(gyre_session_logits(s, logits[i], err));
            assert_true(n <= 40);
            gyre_session_destroy(s);
            gyre_session_destroy(other);
            OK(gyre_engine_close(e, err));
        }
        assert_memory_equal(said[0], said[1], sizeof said[0]);
        assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
        assert_memory_equal(others[0], others[1], sizeof others[0]);
    }
}

// Other sessions need all places of layers with a window while a session's device is ahead: what the session sees at
// its end stays, whether it goes on with other tokens, is stored, is asked for logits or follows.
static void test_windows_stay(void **state)
{
    (void)state;
    enum { LONG = 250, TURNS = 4 };
    static const uint32_t lengths[TURNS] = {69, 69, 60, 69}; // windows of 40, pages of 32: one ends on the way
    float logits[2][TURNS][VOCAB];
    uint32_t said[2][TURNS][24] = {0}, tokens[LONG];
    void *bytes[2];
    size_t size[2];
    for (uint32_t i = 0; i < 2; i++) {
        gyre_engine *e = open_engine(path[2], 256, i ? 16 : 1, 32, false);
        if (!e) return;
        gyre_session *s = session_of(e), *other = session_of(e);
        for (uint32_t turn = 0; turn < TURNS; turn++) {
            uint32_t next = 0, n = 0, *const out = said[i][turn];
            tiny_tokens(tokens, LONG, 3, VOCAB);
            OK(gyre_session_sync(s, tokens, lengths[turn], NULL, &next, err));
            OK(gyre_session_decode_ahead(s, next, 20, &next, err));
            if (turn == 2) OK(gyre_session_logits(s, logits[i][turn], err));
            tiny_tokens(tokens, LONG, 7 + turn, VOCAB);
            OK(gyre_session_sync(other, tokens, LONG, NULL, &out[n++], err));
            if (turn == 0) next = (next + 1) % VOCAB;
            if (turn == 1) OK(gyre_session_store(s, &bytes[i], &size[i], err));
            for (int k = 0; k < (turn == 3 ? 1 : 20); k++, out[n++] = next)
                OK(gyre_session_decode_ahead(s, next, 20, &next, err));
            OK(gyre_session_logits(s, logits[i][turn], err));
        }
        gyre_session_destroy(s);
        gyre_session_destroy(other);
        OK(gyre_engine_close(e, err));
    }
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(bytes[0], bytes[1], size[0]);
    for (uint32_t i = 0; i < 2; i++) gyre_free(bytes[i]);
    for (uint32_t turn = 0; turn < TURNS; turn++)
        if (memcmp(said[0][turn], said[1][turn], sizeof said[0][turn]) != 0) fail_msg("turn %u: other tokens", turn);
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
}

// Runs `call`, which may fail once as a test wants it: then the session is as long as before, and it runs again.
#define AGAIN(session, call)                                                                                           \
    do {                                                                                                               \
        gyre_error err_ = {0};                                                                                         \
        gyre_error *err = &err_;                                                                                       \
        const size_t length_ = gyre_session_length(session);                                                           \
        if ((call) == GYRE_OK) break;                                                                                  \
        if (!strstr(err_.message, "a test wants")) fail_msg("%s", err_.message);                                       \
        assert_int_equal(gyre_session_length(session), length_);                                                       \
        if ((call) != GYRE_OK) fail_msg("%s", err_.message);                                                           \
    } while (0)

enum { HEARD = 64 };
struct talk {
    uint32_t heard[HEARD], n;
    float logits[3][VOCAB];
};

// A text with the device ahead, over the border of a page and of a window, beside another one that takes its places;
// call number `fail` to the device fails (0: none). Returns the number of calls.
static uint64_t converse(gyre_engine *e, uint64_t fail, struct talk *t)
{
    gyre_session *s = session_of(e), *other = session_of(e);
    uint32_t next = 0, at = 0;
    *t = (struct talk){0};
    OK(gyre_session_sync(other, prompt, 5, NULL, &at, err));
    OK(gyre_session_sync(s, prompt, PROMPT, NULL, &next, err));
    const uint64_t before = e->device->counters.calls;
    if (fail) e->device->options.fail_call = before + fail;
    for (int k = 0; k < 11; k++, t->heard[t->n++] = next) // the first submission, what it told, a part of the second
        AGAIN(s, gyre_session_decode_ahead(s, next, 20, &next, err));
    AGAIN(s, gyre_session_logits(s, t->logits[0], err));
    AGAIN(other, gyre_session_decode_ahead(other, at, 20, &at, err)); // both are ahead
    t->heard[t->n++] = at;
    for (int k = 0; k < 12; k++, t->heard[t->n++] = next) AGAIN(s, gyre_session_decode_ahead(s, next, 20, &next, err));
    AGAIN(other, gyre_session_decode_ahead(other, (at + 1) % VOCAB, 20, &at, err)); // not the device's choice
    t->heard[t->n++] = at;
    AGAIN(other, gyre_session_logits(other, t->logits[1], err));
    for (int k = 0; k < 9; k++, t->heard[t->n++] = next) AGAIN(s, gyre_session_decode_ahead(s, next, 20, &next, err));
    AGAIN(s, gyre_session_logits(s, t->logits[2], err));
    assert_true(t->n <= HEARD);
    const uint64_t calls = e->device->counters.calls - before;
    assert_int_equal(gyre_session_length(s), PROMPT + 32);
    e->device->options.fail_call = 0;
    gyre_session_destroy(s);
    gyre_session_destroy(other);
    return calls;
}

// Whichever call to the device fails, in a submission of several tokens or around it: nothing is lost, nothing is heard
// twice, and what follows is what would have followed.
static void test_failing_calls(void **state)
{
    (void)state;
    for (size_t m = 0; m < MODELS; m++) {
        struct talk whole, now;
        gyre_engine *e = open_engine(path[m], CONTEXT, 8, 32, false);
        if (!e) return;
        converse(e, 0, &whole); // records what there is to record
        const uint64_t calls = converse(e, 0, &whole);
        assert_in_range(calls, 20, 200);
        for (uint64_t fail = 1; fail <= calls; fail++) {
            converse(e, fail, &now);
            if (memcmp(whole.heard, now.heard, sizeof now.heard) != 0)
                fail_msg("call %llu of %llu: other tokens", (unsigned long long)fail, (unsigned long long)calls);
            if (memcmp(whole.logits, now.logits, sizeof now.logits) != 0)
                fail_msg("call %llu of %llu: other logits", (unsigned long long)fail, (unsigned long long)calls);
        }
        OK(gyre_engine_close(e, err));
    }
}

// Kernels for hardware run ahead by default; their texts are those of one step a submission, too. Engines of few rows
// run no farther ahead than a step has rows.
static void test_on_hardware(void **state)
{
    (void)state;
    struct said x, y;
    for (uint32_t rows = 4; rows <= 32; rows *= 8) {
        gyre_engine *one = open_engine(path[1], CONTEXT, 1, rows, true),
                    *many = open_engine(path[1], CONTEXT, 0, rows, true);
        if (!one || !many) return;
        gyre_session *a = session_of(one), *b = session_of(many);
        const gyre_generate_params p = {.prompt = prompt, .n_prompt = PROMPT, .max_tokens = 40, .ignore_end = true};
        generate(one, a, p, false, &x);
        generate(many, b, p, false, &y);
        same(&x, &y, "as on hardware");
        const bool hardware = gyre_device_info(many->device)->lanes == GYRE_LANES_HARDWARE;
        assert_int_equal(y.submissions < x.submissions, hardware);
        gyre_session_destroy(a);
        gyre_session_destroy(b);
        OK(gyre_engine_close(one, err));
        OK(gyre_engine_close(many, err));
    }
}

// A token whose embedding is no number ends the text where it would have ended step by step, with the same line.
static void test_nothing_to_choose(void **state)
{
    (void)state;
    char line[2][sizeof((gyre_error *)0)->message];
    uint32_t said[2][12] = {{0}}, count[2] = {0}, bad = 0;
    for (int i = -1; i < 2; i++) { // the first time to learn what is said
        gyre_engine *e = open_engine(path[0], CONTEXT, i == 1 ? 8 : 1, 32, false);
        if (!e) return;
        const struct gyre_weight *table = &e->model.table;
        assert_true(table->kind == GYRE_WEIGHT_F32 && table->n_ranges == 1);
        const float nan = NAN;
        for (uint32_t k = 0; i >= 0 && k < table->k; k++)
            OK(gyre_buffer_write(e->device, table->range->weight.buffer,
                                 table->range->weight.offset + 4ull * (k * table->range->n_pad + bad), &nan, 4, err));
        gyre_session *s = session_of(e);
        gyre_error why = {0};
        uint32_t next = 0, n = 0, heard[12] = {0};
        OK(gyre_session_sync(s, prompt, PROMPT, NULL, &next, err));
        for (heard[n++] = next; n < 12; heard[n++] = next)
            if (gyre_session_decode_ahead(s, next, 20, &next, &why) != GYRE_OK) break;
        assert_int_equal(gyre_session_length(s), PROMPT + n - 1);
        if (i < 0) bad = heard[5];
        else snprintf(line[i], sizeof line[i], "%s", why.message), count[i] = n, memcpy(said[i], heard, sizeof heard);
        gyre_session_destroy(s);
        OK(gyre_engine_close(e, err));
    }
    assert_memory_equal(said[0], said[1], sizeof said[0]);
    assert_int_equal(count[0], count[1]);
    assert_in_range(count[0], 2, 6);
    assert_non_null(strstr(line[0], "not finite"));
    assert_string_equal(line[0], line[1]);
}

// device: cpu unless told.
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_tokens),       cmocka_unit_test(test_other_turns),
        cmocka_unit_test(test_windows_stay),      cmocka_unit_test(test_on_hardware),
        cmocka_unit_test(test_nothing_to_choose), cmocka_unit_test(test_failing_calls),
    };
    if (argc > 1) device = argv[1];
    tiny_tokens(prompt, PROMPT, 1, VOCAB);
    for (size_t i = 0; i < MODELS; i++) {
        struct tiny_options o = tiny_family(archs[i]);
        o.window = i == 1 ? 5 : 40;
        snprintf(path[i], sizeof path[i], "ahead-%zu-%.3s.gguf", i, device); // the devices' tests run side by side
        if (tiny_write_gguf(path[i], &o)) return 1;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (size_t i = 0; i < MODELS; i++) unlink(path[i]);
    return failed;
}
