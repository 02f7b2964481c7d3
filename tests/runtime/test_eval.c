// Evaluation: stored reference logits against a reference model, standard errors against their formula, several texts
// against each alone, and files that do not fit or are damaged. Tiny models, the cpu device (and the others for the
// bound).
#include "runtime/eval.h"
#include "runtime/util/file.h"
#include "tests/common/device.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { VOCAB = 304, CTX = 37, TOKENS = 380 }; // 10 windows and a rest
static char directory[] = "test-eval-XXXXXX";
static char float_path[128], q4_path[128], other_path[128], ref_path[128], cut_path[128];
static uint32_t tokens[TOKENS];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(directory)) return 1;
    snprintf(float_path, sizeof float_path, "%s/f32.gguf", directory);
    snprintf(q4_path, sizeof q4_path, "%s/q4.gguf", directory);
    snprintf(other_path, sizeof other_path, "%s/other.gguf", directory);
    snprintf(ref_path, sizeof ref_path, "%s/logits", directory);
    snprintf(cut_path, sizeof cut_path, "%s/cut", directory);
    for (uint32_t i = 0; i < TOKENS; i++) tokens[i] = (i * 7919u + i / 3 * 31u) % VOCAB;
    struct tiny_options o = tiny_defaults();
    if (tiny_write_gguf(float_path, &o)) return 1;
    o.type = GYRE_DTYPE_Q4_0;
    if (tiny_write_gguf(q4_path, &o)) return 1;
    o.vocab = 320;
    return tiny_write_gguf(other_path, &o);
}

static int teardown(void **state)
{
    (void)state;
    const char *const paths[] = {float_path, q4_path, other_path, ref_path, cut_path};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) unlink(paths[i]);
    return rmdir(directory);
}

static gyre_engine *open_on(const char *device, const char *path)
{
    gyre_engine *e = NULL;
    gyre_error err = {0};
    const gyre_engine_params p = {.device = device, .act = 16, .kv = 16, .max_rows = 24, .cache_dir = ""};
    const gyre_status st = gyre_engine_open(path, &p, &e, &err);
    return device_opened(device, st, &err) ? e : NULL;
}

static void save(gyre_engine *e, uint32_t k)
{
    const gyre_eval_text texts[] = {{tokens, 300, "a"}, {tokens + 111, 200, "b"}};
    const gyre_eval_params p = {.ctx = CTX, .save = ref_path, .save_k = k};
    gyre_eval_result all;
    OK(gyre_eval_texts(e, texts, 2, &p, NULL, &all, err));
}

static void test_stored_against_model(void **state)
{
    (void)state;
    static const char *const devices[] = {"cpu", "vulkan:0", "opencl:0"};
    static const uint32_t ks[] = {1, 5, 64, 303, VOCAB};
    for (int d = 0; d < 3; d++) {
        gyre_engine *e = open_on(devices[d], q4_path), *reference = NULL;
        if (!e) continue;
        const gyre_engine_params p = {.act = 16, .kv = 16, .max_rows = 24, .cache_dir = ""};
        const gyre_eval_text text = {tokens + 111, 200, "b"};
        gyre_eval_result exact, all;
        double before = 0;
        OK(gyre_engine_open_beside(e, float_path, &p, &reference, err));
        OK(gyre_eval(e, reference, text.tokens, text.n, CTX, 0, NULL, NULL, &exact, err));
        assert_true(exact.kl > 0.01 && exact.kl_stderr > 0 && !exact.kl_is_bound);
        for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
            gyre_reference *stored;
            save(reference, ks[i]);
            OK(gyre_reference_open(ref_path, &stored, err));
            const gyre_eval_params q = {.ctx = CTX, .stored = stored};
            OK(gyre_eval_texts(e, &text, 1, &q, NULL, &all, err));
            assert_true(all.has_reference && all.kl_is_bound == (ks[i] < VOCAB));
            assert_true(all.nll == exact.nll && all.top1_agreement == exact.top1_agreement);
            assert_true(all.kl > before - 1e-9 && all.kl < exact.kl + 1e-5); // a finer partition never has less
            if (ks[i] == VOCAB)
                assert_true(fabs(all.kl - exact.kl) < 1e-5 && fabs(all.kl_stderr - exact.kl_stderr) < 1e-5);
            if (ks[i] == 64) assert_true(all.kl < 0.9 * exact.kl); // random weights: much lies in the rest
            before = all.kl;
            gyre_reference_close(stored);
        }
        gyre_engine_close(reference, NULL);
        gyre_engine_close(e, NULL);
    }
}

static void test_itself(void **state)
{
    (void)state;
    gyre_engine *e = open_on("cpu", float_path);
    gyre_reference *stored;
    gyre_reference_info info;
    gyre_eval_result each[2], all;
    const gyre_eval_text texts[] = {{tokens + 111, 200, "b"}, {tokens, 300, "a"}}; // in another order
    save(e, 0);
    assert_true(gyre_reference_is(ref_path) && !gyre_reference_is(float_path) && !gyre_reference_is(directory));
    OK(gyre_reference_open(ref_path, &stored, err));
    gyre_reference_describe(stored, &info);
    assert_true(info.k == 64 && info.texts == 2 && info.vocab == VOCAB && info.ctx == CTX && info.act == 16 &&
                info.kv == 16);
    assert_int_equal(info.tokens, (8 + 5) * (CTX - 1));
    assert_string_equal(info.model, "f32.gguf");
    const gyre_eval_params p = {.ctx = CTX, .stored = stored};
    OK(gyre_eval_texts(e, texts, 2, &p, each, &all, err));
    for (int i = 0; i < 2; i++) assert_true(each[i].kl >= 0 && each[i].kl < 1e-9 && each[i].top1_agreement == 1);
    gyre_reference_close(stored);
    gyre_engine_close(e, NULL);
}

static void test_texts_together(void **state)
{
    (void)state;
    gyre_engine *e = open_on("cpu", float_path);
    const gyre_eval_text texts[] = {{tokens, 9 * CTX + 3, "a"}, {tokens + 50, 2 * CTX, "b"}};
    const gyre_eval_params p = {.ctx = CTX};
    gyre_eval_result each[2], all, alone;
    OK(gyre_eval_texts(e, texts, 2, &p, each, &all, err));
    for (int i = 0; i < 2; i++) {
        OK(gyre_eval(e, NULL, texts[i].tokens, texts[i].n, CTX, 0, NULL, NULL, &alone, err));
        assert_true(alone.nll == each[i].nll && alone.nll_stderr == each[i].nll_stderr && !each[i].has_reference);
    }
    assert_int_equal(each[0].tokens, 9 * (CTX - 1));
    assert_true(each[0].stderr_from_windows && !each[1].stderr_from_windows && all.windows == 11);
    assert_true(fabs(all.nll - (9 * each[0].nll + 2 * each[1].nll) / 11) < 1e-12);
    // The error of the mean by its formula, from each window alone.
    double mean[9], sum = 0, spread = 0;
    for (int w = 0; w < 9; w++) {
        OK(gyre_eval(e, NULL, tokens + w * CTX, CTX, CTX, 1, NULL, NULL, &alone, err));
        sum += mean[w] = alone.nll;
        assert_false(alone.stderr_from_windows);
    }
    for (int w = 0; w < 9; w++) spread += (mean[w] - sum / 9) * (mean[w] - sum / 9);
    assert_true(fabs(each[0].nll_stderr - sqrt(spread / (9 * 8))) < 1e-9);
    assert_true(fabs(each[0].ppl_stderr - each[0].ppl * each[0].nll_stderr) < 1e-9 * each[0].ppl);
    gyre_engine_close(e, NULL);
}

static void test_token_errors(void **state)
{
    (void)state;
    struct gyre_eval_sums s = {0};
    gyre_eval_result r = {0};
    for (int i = 0; i < 6; i++) {
        gyre_eval_count(&s, &(gyre_eval_token){.nll = i, .reference_nll = i, .kl = 2 * i, .same_top = i % 2});
        if (i % 3 == 2) gyre_eval_window(&s);
    }
    gyre_eval_finish(&s, &r);
    assert_true(r.windows == 2 && r.tokens == 6 && !r.stderr_from_windows);
    assert_true(fabs(r.nll - 2.5) < 1e-12 && fabs(r.nll_stderr - sqrt(17.5 / 30)) < 1e-12);
    assert_true(fabs(r.kl_stderr - 2 * r.nll_stderr) < 1e-12 && r.top1_agreement == 0.5);
}

static void test_quantiles(void **state)
{
    (void)state;
    float kl[] = {7, 0, 3, 1, 2, 100, 5, 4, 6, 8, 9}; // eleven: tenths fall on values
    gyre_eval_result r = {0};
    gyre_eval_quantiles(kl, 11, &r);
    assert_true(r.kl_median == 5 && r.kl_p90 == 9 && r.kl_max == 100);
    assert_true(fabs(r.kl_p99 - (9 + 0.9 * 91)) < 1e-12); // 9.9 of 10 steps: nine tenths of the way to the last
    gyre_eval_quantiles(kl, 1, &r);
    assert_true(r.kl_median == 0 && r.kl_p99 == 0 && r.kl_max == 0);
    // The change of probability: .5 and -.25 of the right tokens'.
    struct gyre_eval_sums s = {0};
    gyre_eval_count(&s, &(gyre_eval_token){.nll = 0, .reference_nll = -log(0.5)});
    gyre_eval_count(&s, &(gyre_eval_token){.nll = -log(0.25), .reference_nll = -log(0.5)});
    gyre_eval_window(&s);
    gyre_eval_finish(&s, &r);
    assert_true(fabs(r.dp_rms - sqrt((0.25 + 0.0625) / 2)) < 1e-12);
    assert_true(fabs(r.dp_rms_stderr - 0.09375 / (2 * r.dp_rms)) < 1e-12); // half the difference of two squares
}

// What a caller sees of each token: in order, and the result's figures follow from it.
struct seen {
    gyre_eval_token token[2 * TOKENS];
    uint32_t n, stop;
};

static int see(void *user, const gyre_eval_token *t)
{
    struct seen *s = user;
    s->token[s->n++] = *t;
    return s->n == s->stop;
}

static void test_every_token(void **state)
{
    (void)state;
    static const char *const devices[] = {"cpu", "vulkan:0", "opencl:0"};
    static struct seen seen;
    for (int d = 0; d < 3; d++) {
        gyre_engine *e = open_on(devices[d], q4_path), *reference = NULL;
        if (!e) continue;
        const gyre_engine_params q = {.act = 16, .kv = 16, .max_rows = 24, .cache_dir = ""};
        const gyre_eval_text texts[] = {{tokens, 3 * CTX, "a"}, {tokens + 111, 2 * CTX, "b"}};
        gyre_eval_result each[2], all, alone;
        gyre_error why = {0};
        OK(gyre_engine_open_beside(e, float_path, &q, &reference, err));
        gyre_eval_params p = {.ctx = CTX, .reference = reference, .user = &seen, .token = see};
        seen = (struct seen){0};
        OK(gyre_eval_texts(e, texts, 2, &p, each, &all, err));
        assert_int_equal(seen.n, 5 * (CTX - 1));
        double squares = 0, largest = 0, own = 0;
        for (uint32_t i = 0; i < seen.n; i++) {
            const gyre_eval_token *t = &seen.token[i];
            const uint32_t text = i / (CTX - 1) >= 3, window = i / (CTX - 1) - 3 * text;
            assert_true(t->text == text && t->window == window && t->seen == i % (CTX - 1) + 1);
            assert_int_equal(t->token, texts[text].tokens[window * CTX + t->seen]);
            squares += (exp(-t->nll) - exp(-t->reference_nll)) * (exp(-t->nll) - exp(-t->reference_nll));
            largest = fmax(largest, t->kl);
            own += t->reference_nll / seen.n;
        }
        assert_true(all.dp_rms > 0 && fabs(all.dp_rms - sqrt(squares / seen.n)) < 1e-12);
        assert_true(fabs(all.kl_max - largest) < 1e-6 && all.kl_max == fmax(each[0].kl_max, each[1].kl_max));
        assert_true(0 < all.kl_median && all.kl_median < all.kl_p90 && all.kl_p90 < all.kl_p99 &&
                    all.kl_p99 < all.kl_max);
        // What it thought of the right tokens is what it says itself, beside another model and from a file.
        OK(gyre_eval_texts(reference, texts, 2, &(gyre_eval_params){.ctx = CTX, .save = ref_path, .save_k = 5}, NULL,
                           &alone, err));
        assert_true(fabs(own - alone.nll) < 1e-5 && alone.dp_rms == 0 && alone.kl_max == 0);
        gyre_reference *stored;
        OK(gyre_reference_open(ref_path, &stored, err));
        OK(gyre_eval_texts(e, texts, 2, &(gyre_eval_params){.ctx = CTX, .stored = stored}, NULL, &alone, err));
        assert_true(fabs(alone.dp_rms - all.dp_rms) < 1e-6 && alone.kl_max < all.kl_max + 1e-5);
        gyre_reference_close(stored);
        seen = (struct seen){.stop = 50};
        assert_int_equal(gyre_eval_texts(e, texts, 2, &p, NULL, &all, &why), GYRE_E_CANCELLED);
        assert_int_equal(seen.n, 50);
        gyre_engine_close(reference, NULL);
        gyre_engine_close(e, NULL);
    }
}

static void expect(gyre_status want, gyre_status got, const gyre_error *err, const char *word)
{
    if (want != got || !strstr(err->message, word))
        fail_msg("status %d, not %d with '%s': %s", got, want, word, err->message);
    assert_null(strchr(err->message, '\n'));
}

static void test_files_that_do_not_fit(void **state)
{
    (void)state;
    gyre_engine *e = open_on("cpu", float_path), *other = open_on("cpu", other_path);
    gyre_reference *stored;
    gyre_error why = {0};
    gyre_eval_result all;
    const gyre_eval_text text = {tokens, 300, "a"}, changed = {tokens + 1, 300, "c"};
    save(e, 3);
    OK(gyre_reference_open(ref_path, &stored, err));
    gyre_eval_params p = {.ctx = CTX, .stored = stored};
    const gyre_eval_text twice[] = {{tokens, 300, "a"}, {tokens, 400, "longer"}}; // in other numbers of windows
    expect(GYRE_E_INVALID, gyre_eval_texts(e, twice, 2, &(gyre_eval_params){.ctx = CTX}, NULL, &all, &why), &why,
           "(longer): its windows are those of a");
    expect(GYRE_E_INVALID, gyre_eval_texts(other, &text, 1, &p, NULL, &all, &why), &why, "320");
    expect(GYRE_E_INVALID, gyre_eval_texts(e, &changed, 1, &p, NULL, &all, &why), &why, "tokens of c");
    p.windows = 7;
    expect(GYRE_E_INVALID, gyre_eval_texts(e, &text, 1, &p, NULL, &all, &why), &why, "8 windows of a, not 7");
    p = (gyre_eval_params){.ctx = CTX - 1, .stored = stored};
    expect(GYRE_E_INVALID, gyre_eval_texts(e, &text, 1, &p, NULL, &all, &why), &why, "--ctx 37");
    p = (gyre_eval_params){.ctx = CTX, .stored = stored, .reference = e};
    expect(GYRE_E_INVALID, gyre_eval_texts(e, &text, 1, &p, NULL, &all, &why), &why, "two references");
    gyre_reference_close(stored);
    p = (gyre_eval_params){.ctx = CTX, .save = cut_path, .save_k = VOCAB + 1};
    expect(GYRE_E_INVALID, gyre_eval_texts(e, &text, 1, &p, NULL, &all, &why), &why, "--reference-k");
    p = (gyre_eval_params){.ctx = CTX, .save = "no-such-folder/logits"};
    expect(GYRE_E_IO, gyre_eval_texts(e, &text, 1, &p, NULL, &all, &why), &why, "no-such-folder");
    assert_false(gyre_file_exists(cut_path));
    gyre_engine_close(other, NULL);
    gyre_engine_close(e, NULL);
}

static int stop(void *user, double fraction, double ppl)
{
    (void)user;
    (void)ppl;
    return fraction > 0.5;
}

static void test_cancelled_leaves_nothing(void **state)
{
    (void)state;
    gyre_engine *e = open_on("cpu", float_path);
    gyre_error why = {0};
    gyre_eval_result all;
    const gyre_eval_text text = {tokens, 300, "a"};
    const gyre_eval_params p = {.ctx = CTX, .save = cut_path, .progress = stop};
    unlink(cut_path);
    expect(GYRE_E_CANCELLED, gyre_eval_texts(e, &text, 1, &p, NULL, &all, &why), &why, "cancelled");
    assert_false(gyre_file_exists(cut_path));
    gyre_engine_close(e, NULL);
}

static void test_damaged_files(void **state)
{
    (void)state;
    gyre_engine *e = open_on("cpu", float_path);
    char *whole;
    uint64_t size;
    save(e, 3);
    gyre_engine_close(e, NULL);
    OK(gyre_file_read(ref_path, 1 << 20, &whole, &size, err));
    // Cut anywhere, the header's every field and a byte here and there: all refused, nothing read outside.
    for (uint64_t cut = 0; cut < size; cut += cut < 400 ? 1 : 997) {
        gyre_reference *r = NULL;
        gyre_error why = {0};
        OK(gyre_file_write(cut_path, whole, cut, err));
        assert_int_equal(gyre_reference_open(cut_path, &r, &why), GYRE_E_FORMAT);
        assert_null(r);
    }
    for (uint64_t at = 0; at < size; at += at < 400 ? 1 : 997) {
        gyre_reference *r = NULL;
        gyre_error why = {0};
        whole[at] ^= 0x41;
        OK(gyre_file_write(cut_path, whole, size, err));
        whole[at] ^= 0x41;
        const gyre_status st = gyre_reference_open(cut_path, &r, &why);
        if (st != (at >= 8 && at < 12 ? GYRE_E_UNSUPPORTED : GYRE_E_FORMAT))
            fail_msg("byte %d: %s", (int)at, why.message);
        assert_non_null(strstr(why.message, cut_path));
    }
    free(whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stored_against_model),  cmocka_unit_test(test_itself),
        cmocka_unit_test(test_texts_together),        cmocka_unit_test(test_token_errors),
        cmocka_unit_test(test_files_that_do_not_fit), cmocka_unit_test(test_cancelled_leaves_nothing),
        cmocka_unit_test(test_damaged_files),         cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_every_token),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
