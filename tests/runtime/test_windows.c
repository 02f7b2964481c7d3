// Layers with a window keep only that in the cache: a long text takes no more memory than a short one, every bit of its
// logits is what it is where all positions are kept, and stepping back, saved sessions, shared beginnings and failures
// end in the same texts.
#include "runtime/session.h"
#include "tests/common/device.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include "runtime/util/base.h"
#include "runtime/util/rng.h"

#include <gyre/gyre_schedule.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { VOCAB = 304, CONTEXT = 512, ROWS = 32, LAYERS = 6, LONG = 400 };
static const struct {
    const char *arch;
    uint32_t window, layers, windowed, head_dim;
} models[] = {
    {"gemma3", 5, LAYERS, LAYERS - 1, 32}, {"gemma3", 40, LAYERS, LAYERS - 1, 32}, {"mistral-window", 40, 2, 2, 16}};
enum { MODELS = 3, GEMMAS = 2 };
static const char *device = "cpu";
static char path[MODELS][64];
static uint32_t text[CONTEXT];
static bool quick; // fewer cases: the cpu device computes in double

// kv of two widths: keys' + 256 values'.
static gyre_engine_params params(uint32_t kv, uint32_t sequences, uint32_t rows)
{
    return (gyre_engine_params){.size = sizeof(gyre_engine_params),
                                .device = device,
                                .cache_dir = "",
                                .act = 16,
                                .kv = kv % 256,
                                .kv_v = kv / 256,
                                .context = CONTEXT,
                                .sequences = sequences,
                                .max_rows = rows};
}

// NULL where there is no such device and none is demanded.
static gyre_engine *open_engine(const char *model, uint32_t kv, uint32_t sequences, uint32_t rows)
{
    const gyre_engine_params p = params(kv, sequences, rows);
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

static uint32_t step(gyre_session *s, const uint32_t *tokens, uint32_t n, float *logits)
{
    gyre_step_part part = {s, tokens, n, 0, NULL};
    OK(gyre_step(s->engine, &part, 1, err));
    if (logits) OK(gyre_session_logits(s, logits, err));
    return part.next;
}

static void sync_to(gyre_session *s, const uint32_t *tokens, size_t n, float *logits)
{
    OK(gyre_session_sync(s, tokens, n, NULL, NULL, err));
    OK(gyre_session_logits(s, logits, err));
}

// Differently cut steps round differently.
static void near(const float *a, const float *b, const char *what)
{
    float most = 0, off = 0;
    for (int i = 0; i < VOCAB; i++) {
        most = fmaxf(most, fabsf(b[i]));
        off = fmaxf(off, fabsf(a[i] - b[i]));
    }
    if (!(off <= 2e-3f * most)) fail_msg("%s: logits differ by %g of %g", what, (double)off, (double)most);
}

// ---- memory and bits ------------------------------------------------------------------------------------------------

// Bytes of a page of one layer: 2 kv heads, keys and values, with scale and zero below 16 bits.
static uint64_t page_bytes(size_t w, uint32_t kv)
{
    const uint32_t bits[] = {kv % 256, kv > 256 ? kv / 256 : kv};
    uint64_t cell = 0;
    for (int i = 0; i < 2; i++) cell += models[w].head_dim * bits[i] / 8 + (bits[i] < 16 ? 4 : 0);
    return 2 * GYRE_PAGE * cell;
}

static void test_bits_of_the_masked_form(void **state)
{
    (void)state;
    for (size_t w = 0; w < MODELS; w++) {
        static const uint32_t widths[] = {8, 8 + 256 * 4, 4 + 256 * 16, 16, 4};
        for (size_t i = 0; i < GYRE_COUNT(widths); i++) {
            const uint32_t kv = widths[i];
            const bool apart = i == 1 || i == 2;
            if (apart ? w != MODELS - 1 : quick && i) continue;
            gyre_engine *less = open_engine(path[w], kv, 1, ROWS), *all = open_engine(path[w], kv, 1, CONTEXT);
            if (!less || !all) return;
            // A page more than the two ends of what a window and a step's rows span, and one of zeros.
            const uint64_t places = (models[w].window + 29) / 32 + 2 + ROWS / 32 + 1, pages = CONTEXT / GYRE_PAGE,
                           windowed = models[w].windowed, whole = models[w].layers - windowed,
                           unused = models[w].layers * 4 * (kv == 16 ? 2 : kv / 256 == 16);
            assert_int_equal(less->kv.bytes, (windowed * places + whole * pages) * page_bytes(w, kv) + unused);
            assert_int_equal(all->kv.bytes, (windowed * (pages + 1) + whole * pages) * page_bytes(w, kv) + unused);
            gyre_session *a = session_of(less), *b = session_of(all);
            float have[VOCAB], want[VOCAB];
            uint32_t next = 0, taken = 0;
            static const uint32_t steps[] = {32, 17, 1, 1, 32, 5, 32, 32, 9};
            for (uint32_t k = 0; taken + 32 < LONG; k++) {
                const uint32_t n = taken < 320 ? steps[k % GYRE_COUNT(steps)] : 1; // a prompt, then an answer
                const uint32_t *tokens = taken < 320 ? text + taken : &next;
                const uint32_t other = step(b, tokens, n, want);
                next = step(a, tokens, n, have);
                taken += n;
                if (next != other || memcmp(have, want, sizeof have) != 0)
                    fail_msg("window %u, %u/%u bits: other logits at %u", models[w].window, kv % 256,
                             kv > 256 ? kv / 256 : kv, taken);
            }
            gyre_memory plan = {.size = sizeof plan};
            gyre_engine_params p = params(kv, 1, ROWS);
            p.device = NULL;
            OK(gyre_plan(path[w], &p, &plan, err));
            assert_int_equal(plan.kv, less->kv.bytes);
            gyre_session_destroy(a);
            gyre_session_destroy(b);
            OK(gyre_engine_close(less, err));
            OK(gyre_engine_close(all, err));
        }
    }
}

// ---- stepping back --------------------------------------------------------------------------------------------------

static void test_stepping_back(void **state)
{
    (void)state;
    static const uint32_t back[] = {399, 396, 380, 370, 340, 300, 250, 100, 33, 32, 31, 5, 1};
    for (size_t w = quick; w < GEMMAS; w++) {
        gyre_engine *e = open_engine(path[w], 8, 2, ROWS);
        if (!e) return;
        float have[VOCAB], want[VOCAB];
        uint32_t other[CONTEXT], kept = 0;
        for (size_t i = 0; i < GYRE_COUNT(back); i += 1 + 2 * (size_t)quick) {
            gyre_session *s = session_of(e), *fresh = session_of(e);
            sync_to(s, text, LONG, have);
            memcpy(other, text, sizeof other);
            for (uint32_t k = back[i]; k < CONTEXT; k++) other[k] = text[k] % 200 + 60; // and another end
            const uint32_t n = GYRE_MIN(back[i] + 20, (uint32_t)LONG);
            const uint64_t before = gyre_session_timings(s).prefill_tokens;
            sync_to(s, other, n, have);
            const uint64_t computed = gyre_session_timings(s).prefill_tokens - before;
            assert_true(computed >= n - back[i] && computed <= n);
            kept += computed == n - back[i];
            gyre_session_destroy(s);
            sync_to(fresh, other, n, want);
            gyre_session_destroy(fresh);
            near(have, want, "a step back");
        }
        assert_true(kept >= 2); // what is close by costs nothing
        assert_true(kept < GYRE_COUNT(back) / (quick ? 3 : 1));
        OK(gyre_engine_close(e, err));
    }
}

// ---- saved sessions -------------------------------------------------------------------------------------------------

enum { SAYS_BYTES = 104 }; // where a saved session's header says its length

static void test_saved_sessions(void **state)
{
    (void)state;
    for (size_t w = quick; w < GEMMAS; w++) {
        gyre_engine *e = open_engine(path[w], 8, 1, ROWS), *twin = open_engine(path[w], 8, 1, ROWS),
                    *all = open_engine(path[w], 8, 1, CONTEXT);
        if (!e || !twin || !all) return;
        gyre_session *s = session_of(e);
        gyre_session *into[] = {session_of(twin), session_of(all)};
        static const uint32_t lengths[] = {1, 31, 32, 33, 45, 64, 300, 321, LONG};
        for (size_t i = 0; i < GYRE_COUNT(lengths); i += 1 + 3 * (size_t)quick) {
            const uint32_t length = lengths[i];
            float have[VOCAB], want[VOCAB], back[VOCAB];
            void *bytes = NULL;
            size_t n, whole;
            sync_to(s, text, length, want);
            OK(gyre_session_store(s, &bytes, &n, err));
            whole = LAYERS * gyre_div_up(length, GYRE_PAGE) * page_bytes(w, 8);
            assert_true(length < 100 || n < whole / 2);
            const uint32_t next = step(s, text + length, 1, want);
            for (size_t k = 0; k < GYRE_COUNT(into); k++) {
                OK(gyre_session_restore(into[k], bytes, n, err));
                assert_int_equal(gyre_session_length(into[k]), length);
                assert_int_equal(step(into[k], text + length, 1, have), next);
                assert_memory_equal(have, want, sizeof have);
                // Nothing is there but what was saved, whatever there is room for.
                const uint32_t less = length / 2 + 1;
                sync_to(into[k], text, less, have);
                gyre_session *fresh = NULL;
                gyre_session_destroy(into[k]);
                fresh = into[k] = session_of(k ? all : twin);
                sync_to(fresh, text, less, back);
                near(have, back, "a step back in a loaded session");
            }
            gyre_error why = {0};
            assert_int_equal(gyre_session_restore(into[0], bytes, n - 1, &why), GYRE_E_FORMAT);
            assert_non_null(strstr(why.message, "damaged"));
            free(bytes);
            if (whole <= n) continue; // nothing was left out
            OK(gyre_session_store(s, &bytes, &n, err));
            unsigned char *const old = calloc(1, n + page_bytes(w, 8)); // a page more, as when all were kept
            assert_non_null(old);
            memcpy(old, bytes, n);
            n += page_bytes(w, 8);
            memcpy(old + SAYS_BYTES, &(uint64_t){n}, 8);
            assert_int_equal(gyre_session_restore(into[0], old, n, &why), GYRE_E_FORMAT);
            assert_non_null(strstr(why.message, "start anew with its text as the prompt"));
            free(old);
            free(bytes);
        }
        gyre_session_destroy(s);
        for (size_t k = 0; k < GYRE_COUNT(into); k++) gyre_session_destroy(into[k]);
        OK(gyre_engine_close(e, err));
        OK(gyre_engine_close(twin, err));
        OK(gyre_engine_close(all, err));
    }
}

// ---- shared beginnings ----------------------------------------------------------------------------------------------

enum { TEXTS = 4, ROUNDS = 6, ANSWER = 24 };

struct answer {
    uint32_t token[ANSWER], n;
};

static int on_token(void *user, const gyre_task_token *token)
{
    struct answer *a = user;
    assert_true(a->n < ANSWER);
    a->token[a->n++] = token->token;
    return 0;
}

static void solo(gyre_engine *e, const uint32_t *prompt, size_t n, uint32_t *out)
{
    gyre_session *s = session_of(e);
    OK(gyre_session_sync(s, prompt, n, NULL, &out[0], err));
    for (int i = 1; i < ANSWER; i++) OK(gyre_session_decode(s, out[i - 1], &out[i], err));
    gyre_session_destroy(s);
}

// Texts that begin alike, side by side and in turn, with fewer places than they would all like.
static void test_shared_beginnings(void **state)
{
    (void)state;
    struct gyre_rng rng = gyre_rng_seed(4);
    gyre_engine *e = open_engine(path[1], 16, TEXTS, ROWS), *alone = open_engine(path[1], 16, 1, CONTEXT);
    if (!e || !alone) return;
    gyre_scheduler *s = NULL;
    const gyre_scheduler_params how = {.size = sizeof how, .chunk = ROWS / 2};
    OK(gyre_scheduler_create(e, &how, &s, err));
    size_t cached = 0;
    for (int round = 0; round < (quick ? 2 : ROUNDS); round++) {
        static uint32_t prompt[TEXTS][CONTEXT];
        static struct answer said[TEXTS];
        gyre_task *task[TEXTS];
        uint32_t length[TEXTS];
        for (int i = 0; i < TEXTS; i++) {
            const uint32_t common = (uint32_t)gyre_rng_below(&rng, 200),
                           n = length[i] = common + 1 + (uint32_t)gyre_rng_below(&rng, 90);
            memcpy(prompt[i], text, sizeof prompt[i]);
            if (round % 2) tiny_tokens(prompt[i] + common, CONTEXT - common, (uint32_t)(10 * round + i + 2), VOCAB);
            said[i].n = 0;
            const gyre_task_params p = {.size = sizeof p,
                                        .prompt = prompt[i],
                                        .n_prompt = n,
                                        .max_tokens = ANSWER,
                                        .ignore_end = true,
                                        .on_token = on_token,
                                        .user = &said[i]};
            OK(gyre_scheduler_add(s, &p, &task[i], err));
            if (i % 2) // the next one comes later
                for (int k = 0; k < 8; k++) OK(gyre_scheduler_step(s, err));
        }
        for (int i = 0; i < TEXTS; i++) {
            while (!gyre_task_ended(task[i], NULL)) OK(gyre_scheduler_step(s, err));
            uint32_t want[ANSWER];
            cached += gyre_task_cached(task[i]);
            solo(alone, prompt[i], length[i], want);
            for (int k = 0; k < ANSWER; k++)
                if (said[i].token[k] != want[k]) fail_msg("round %d, text %d: another token %d", round, i, k);
        }
        for (int i = 0; i < TEXTS; i++) gyre_scheduler_remove(s, task[i]);
    }
    assert_true(cached > 0);
    gyre_scheduler_destroy(s);
    OK(gyre_engine_close(e, err));
    OK(gyre_engine_close(alone, err));
}

// ---- failures -------------------------------------------------------------------------------------------------------

// The same texts whose call number `fail` fails (0: none); the number of calls.
static uint64_t converse(uint64_t fail, uint32_t said[4])
{
    static const uint32_t lengths[4] = {150, 152, 90, 260};
    gyre_engine *e = open_engine(path[1], 8, 1, ROWS);
    gyre_session *s = session_of(e);
    const uint64_t before = e->device->counters.calls;
    if (fail) e->device->options.fail_call = before + fail;
    for (int i = 0; i < 4; i++) {
        gyre_error why = {0};
        if (gyre_session_sync(s, text, lengths[i], NULL, &said[i], &why) == GYRE_OK) continue;
        if (!strstr(why.message, "a test wants")) fail_msg("%s", why.message);
        assert_true(gyre_session_length(s) < lengths[i]);
        OK(gyre_session_sync(s, text, lengths[i], NULL, &said[i], err));
    }
    const uint64_t calls = e->device->counters.calls - before;
    gyre_session_destroy(s);
    OK(gyre_engine_close(e, err));
    return calls;
}

static void test_failures(void **state)
{
    (void)state;
    uint32_t want[4], got[4];
    if (strcmp(device, "cpu") != 0) return; // what is counted here is the same on all
    const uint64_t calls = converse(0, want);
    assert_true(calls > 50);
    for (uint64_t fail = 1; fail <= calls; fail += 1 + calls / 12) {
        converse(fail, got);
        assert_memory_equal(got, want, sizeof got);
    }
}

// A long prompt that is stopped halfway has taken what a step back would need.
static void test_a_cancelled_step(void **state)
{
    (void)state;
    gyre_engine *e = open_engine(path[1], 16, 2, ROWS);
    if (!e) return;
    gyre_session *s = session_of(e), *fresh = session_of(e);
    float have[VOCAB], want[VOCAB];
    sync_to(s, text, 100, have);
    e->device->options.fail_call = e->device->counters.calls + (strcmp(device, "cpu") == 0 ? 30 : 12);
    gyre_step_part part = {s, text + 100, 300, 0, NULL};
    gyre_error why = {0};
    assert_int_not_equal(gyre_step(e, &part, 1, &why), GYRE_OK);
    e->device->options.fail_call = 0;
    assert_true(gyre_session_length(s) <= 100);
    sync_to(s, text, 130, have);
    sync_to(fresh, text, 130, want);
    near(have, want, "behind a failure");
    gyre_session_destroy(s);
    gyre_session_destroy(fresh);
    OK(gyre_engine_close(e, err));
}

// What a profile repeats is live, whatever other sessions' steps have taken of the window.
static void test_a_profile_has_rows(void **state)
{
    (void)state;
    gyre_profile_row rows[16];
    size_t n;
    for (size_t w = quick; w < GEMMAS; w++) {
        gyre_engine *e = open_engine(path[w], 8, 2, ROWS);
        if (!e) return;
        gyre_session *s = session_of(e), *other = session_of(e);
        float have[VOCAB], want[VOCAB];
        sync_to(s, text, 70, have);
        for (uint32_t length = 71; length < 71 + GYRE_PAGE; length++) {
            (void)step(s, text + length - 1, 1, NULL);
            sync_to(other, text + length, 3, have); // all look away from what they no longer need
            for (uint32_t k = 1; k <= 8; k += 7) {
                OK(gyre_session_profile(s, k, rows, GYRE_COUNT(rows), &n, err));
                for (uint32_t i = 0; i < k; i++)
                    if (!e->row_data[4 * i + 3]) fail_msg("%u tokens, row %u of %u: dead", length, i, k);
            }
        }
        assert_int_equal(gyre_session_length(s), 70 + GYRE_PAGE);
        (void)step(s, text + 70 + GYRE_PAGE, 1, have);
        gyre_session_destroy(other);
        other = session_of(e);
        sync_to(other, text, 71 + GYRE_PAGE, want);
        near(have, want, "behind profiles");
        gyre_session_destroy(s);
        gyre_session_destroy(other);
        OK(gyre_engine_close(e, err));
    }
}

// More at once than was said when the cache was made is refused, and nothing is lost by it.
static void test_too_much_at_once(void **state)
{
    (void)state;
    gyre_engine *e = open_engine(path[0], 16, 1, ROWS);
    if (!e) return;
    gyre_error why = {0};
    OK(gyre_kv_reserve(&e->kv, 0, 300, err));
    gyre_kv_want(&e->kv, 0, 0, 300);
    assert_int_equal(gyre_kv_enter(&e->kv, &why), GYRE_E_INVALID);
    assert_non_null(strstr(why.message, "at once"));
    assert_int_equal(gyre_kv_trim(&e->kv, 0, 0), 0);
    gyre_kv_want(&e->kv, 0, 0, ROWS);
    OK(gyre_kv_reserve(&e->kv, 0, ROWS, err));
    OK(gyre_kv_enter(&e->kv, err));
    (void)gyre_kv_trim(&e->kv, 0, 0);
    OK(gyre_engine_close(e, err));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_of_the_masked_form),
        cmocka_unit_test(test_stepping_back),
        cmocka_unit_test(test_saved_sessions),
        cmocka_unit_test(test_shared_beginnings),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_a_cancelled_step),
        cmocka_unit_test(test_a_profile_has_rows),
        cmocka_unit_test(test_too_much_at_once),
    };
    if (argc > 1) device = argv[1];
    quick = argc < 2;
    tiny_tokens(text, CONTEXT, 1, VOCAB);
    for (size_t i = 0; i < MODELS; i++) {
        struct tiny_options o = tiny_family(models[i].arch);
        o.window = models[i].window;
        snprintf(path[i], sizeof path[i], "windows-%zu-%.3s.gguf", i, device); // the devices' tests run side by side
        if (tiny_write_gguf(path[i], &o)) return 1;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (size_t i = 0; i < MODELS; i++) unlink(path[i]);
    return failed;
}
