// Text that the model writes itself: drawn from its own distribution, the same for the same seed, and named in the
// manifest so that a run on it is resumed and reproduced without a file.
#include "quantizer/pass/own_text.h"
#include "backends/cpu/fast.h"
#include "quantizer/gradient/draw.h"
#include "quantizer/gradient/teacher.h"
#include "tests/common/files.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { WINDOWS = 40, TOKENS = 64, START = 4 }; // more windows than run together

static const char *in, *out, *recipe;
static int calls, stop_at;

static int on_progress(void *user, double fraction, double eta, const char *what)
{
    (void)user, (void)eta;
    assert_true(fraction >= 0 && fraction <= 1 && what && *what);
    return ++calls == stop_at;
}

static int setup(void **state)
{
    (void)state;
    struct tiny_options o = tiny_defaults();
    o.tied = true;
    in = files_path("in.gguf");
    out = files_path("out.gguf");
    recipe = files_path("recipe.yaml");
    files_write(recipe, "name: short\nrotate: true\nseeds: 2\ncalibration: {windows: 6, tokens: 24}\n"
                        "rounding: [gptq]\ndistill: {steps: 4, windows: 11}\n");
    return tiny_write_gguf(in, &o);
}

static int cleanup(void **state)
{
    (void)state;
    files_remove();
    return 0;
}

static void write_windows(const gyre_source *source, gyre_device *device, uint64_t seed, struct gyre_own_text *text)
{
    const gyre_quantize_params p = {.output = out, .seed = seed};
    OK(gyre_own_text_write(&p, source, device, WINDOWS, 0, TOKENS, NULL, text, err));
    assert_int_equal(text->windows, WINDOWS);
    assert_int_equal(text->tokens, TOKENS);
}

// Over all positions, the surprise of what was drawn is what the model expects it to be, to within its own error; and
// far below that of a draw of any token. What is asked of the model there later is drawn anew.
static void draws_follow_the_model(void **state)
{
    (void)state;
    gyre_source *source;
    gyre_device *device;
    gyre_teacher *teacher;
    struct gyre_own_text text;
    double surprise = 0, expected = 0, variance = 0;
    uint32_t again = 0;
    const uint32_t vocab = tiny_defaults().vocab;
    OK(gyre_source_open(in, &source, err));
    OK(gyre_fast_device_create(NULL, &device, err));
    write_windows(source, device, 7, &text);
    OK(gyre_teacher_open(device, source, text.token, WINDOWS, TOKENS, NULL, &teacher, err));
    for (uint32_t w = 0; w < WINDOWS; w++) {
        const float *logit;
        OK(gyre_teacher_logits(teacher, w, 0, TOKENS, &logit, err));
        for (uint32_t t = START; t + 1 < TOKENS; t++) {
            const float *l = logit + (uint64_t)t * vocab;
            double sum = 0, mean = 0, square = 0;
            for (uint32_t i = 0; i < vocab; i++) sum += exp((double)l[i]);
            for (uint32_t i = 0; i < vocab; i++) {
                const double log_p = (double)l[i] - log(sum), p = exp(log_p);
                mean -= p * log_p;
                square += p * log_p * log_p;
            }
            surprise += log(sum) - (double)l[text.token[w * TOKENS + t + 1]];
            const double where = gyre_draw(GYRE_DRAWN_LABELS, 7, w, t + 1);
            again += gyre_draw_token(l, vocab, where, NULL) == text.token[w * TOKENS + t + 1];
            expected += mean;
            variance += square - mean * mean;
        }
    }
    const double n = WINDOWS * (TOKENS - START - 1), error = sqrt(variance) / n;
    print_message("%.4f nats drawn, %.4f expected, +-%.4f; %.4f of any token\n", surprise / n, expected / n, error,
                  log(vocab));
    assert_true(fabs(surprise - expected) / n < 4 * error);
    assert_true(surprise / n + 10 * error < log(vocab));
    assert_true(again < n / 2);
    gyre_teacher_close(teacher);
    free(text.token);
    gyre_device_close(device);
    gyre_source_close(source);
}

static void the_seed_decides(void **state)
{
    (void)state;
    gyre_source *source;
    gyre_device *device;
    struct gyre_own_text text[3];
    OK(gyre_source_open(in, &source, err));
    OK(gyre_fast_device_create(NULL, &device, err));
    for (uint64_t i = 0; i < 3; i++) write_windows(source, device, i / 2, &text[i]);
    const size_t bytes = (size_t)WINDOWS * TOKENS * sizeof *text->token;
    assert_memory_equal(text[0].token, text[1].token, bytes);
    assert_memory_not_equal(text[0].token, text[2].token, bytes);
    for (uint32_t w = 0; w < WINDOWS; w++) assert_true(text[0].token[w * TOKENS] > 2); // it puts no BOS before texts
    for (uint32_t w = 1; w < WINDOWS; w++) // no two windows are alike behind their starts
        assert_memory_not_equal(text[0].token + START, text[0].token + w * TOKENS + START,
                                (TOKENS - START) * sizeof *text->token);
    for (int i = 0; i < 3; i++) free(text[i].token);
    assert_int_equal(gyre_device_counters(device).live_objects, 0);
    gyre_device_close(device);
    gyre_source_close(source);
}

// What is read besides leaves the first windows as they are, whatever runs beside them, and is no copy of them.
static void more_windows_leave_the_first_as_they_are(void **state)
{
    (void)state;
    enum { FEW = 5, MORE = 37 };
    const gyre_quantize_params p = {.output = out, .seed = 7};
    gyre_source *source;
    gyre_device *device;
    struct gyre_own_text few, all;
    OK(gyre_source_open(in, &source, err));
    OK(gyre_fast_device_create(NULL, &device, err));
    OK(gyre_own_text_write(&p, source, device, FEW, 0, TOKENS, NULL, &few, err));
    OK(gyre_own_text_write(&p, source, device, FEW, MORE, TOKENS, NULL, &all, err));
    assert_true(few.more == 0 && all.windows == FEW && all.more == MORE);
    assert_memory_equal(few.token, all.token, (size_t)FEW * TOKENS * sizeof *few.token);
    for (size_t w = FEW; w < FEW + MORE; w++)
        for (size_t v = 0; v < w; v++)
            assert_memory_not_equal(all.token + w * TOKENS + START, all.token + v * TOKENS + START,
                                    (TOKENS - START) * sizeof *all.token);
    free(few.token);
    free(all.token);
    assert_int_equal(gyre_device_counters(device).live_objects, 0);
    gyre_device_close(device);
    gyre_source_close(source);
}

static void windows_beyond_the_context_are_refused(void **state)
{
    (void)state;
    gyre_source *source;
    gyre_device *device;
    struct gyre_own_text text;
    gyre_error why = {0};
    const gyre_quantize_params p = {.output = out};
    OK(gyre_source_open(in, &source, err));
    OK(gyre_fast_device_create(NULL, &device, err));
    assert_int_equal(gyre_own_text_write(&p, source, device, 1, 0, 513, NULL, &text, &why), GYRE_E_INVALID);
    assert_non_null(strstr(why.message, "context of 512"));
    free(text.token);
    assert_int_equal(gyre_device_counters(device).live_objects, 0);
    gyre_device_close(device);
    gyre_source_close(source);
}

// ---- whole runs -------------------------------------------------------------------------------------------------

static gyre_status run(int at, bool resume, uint64_t seed, gyre_error *err)
{
    static const char *const texts[] = {GYRE_CALIB_BUNDLED, GYRE_CALIB_SELF};
    calls = 0;
    stop_at = at;
    const gyre_quantize_params p = {.source = in,
                                    .output = out,
                                    .recipe = recipe,
                                    .calib = texts,
                                    .n_calib = 2,
                                    .seed = seed,
                                    .resume = resume,
                                    .force = true,
                                    .progress = on_progress};
    return gyre_quantize(&p, NULL, err);
}

static json_t *texts_of_manifest(void)
{
    json_t *m = json_load_file(files_path("out.gguf.manifest.json"), 0, NULL);
    json_t *texts = json_incref(json_object_get(json_object_get(m, "calibration"), "texts"));
    json_decref(m);
    assert_int_equal(json_array_size(texts), 2);
    return texts;
}

static void runs_name_it_resume_and_reproduce(void **state)
{
    (void)state;
    uint64_t n, m;
    gyre_error err = {0};
    if (run(0, false, 3, &err) != GYRE_OK) fail_msg("%s", err.message);
    const int all = calls;
    char *want = files_read(out, &n);
    json_t *texts = texts_of_manifest(), *own = json_array_get(texts, 1);
    assert_true(json_is_true(json_object_get(json_array_get(texts, 0), "bundled")));
    assert_true(json_is_true(json_object_get(own, "self")));
    assert_string_equal(json_string_value(json_object_get(own, "name")), "self");
    assert_int_equal(json_integer_value(json_object_get(own, "bytes")), (3 + 3) * 24 * 4); // half of the windows
    assert_int_equal(strlen(json_string_value(json_object_get(own, "sha256"))), 64);
    gyre_reproduce_result same = {0};
    const gyre_reproduce_params again = {.manifest = files_path("out.gguf.manifest.json"), .base = in};
    if (gyre_reproduce(&again, &same, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_int_equal(same.differing, 0);
    for (int at = 3; at < all; at += 9) {
        assert_int_equal(run(at, false, 3, &err), GYRE_E_CANCELLED);
        if (run(0, true, 3, &err) != GYRE_OK) fail_msg("after %d calls: %s", at, err.message);
        char *got = files_read(out, &m);
        assert_int_equal(m, n);
        assert_memory_equal(got, want, n);
        free(got);
    }
    // What was killed while it threw a journal away has left the text of another seed, without a state.
    assert_int_equal(run(all * 2 / 3, false, 4, &err), GYRE_E_CANCELLED);
    assert_int_equal(access(files_path("out.gguf.journal/kept-own-text"), F_OK), 0);
    assert_int_equal(unlink(files_path("out.gguf.journal/state.json")), 0);
    if (run(0, true, 3, &err) != GYRE_OK) fail_msg("%s", err.message);
    char *got = files_read(out, &m);
    assert_int_equal(m, n);
    assert_memory_equal(got, want, n);
    free(got);
    if (run(0, false, 4, &err) != GYRE_OK) fail_msg("%s", err.message);
    json_t *others = texts_of_manifest();
    assert_true(json_equal(json_array_get(texts, 0), json_array_get(others, 0)));
    assert_false(json_equal(own, json_array_get(others, 1)));
    json_decref(texts);
    json_decref(others);
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_follow_the_model),
        cmocka_unit_test(the_seed_decides),
        cmocka_unit_test(more_windows_leave_the_first_as_they_are),
        cmocka_unit_test(windows_beyond_the_context_are_refused),
        cmocka_unit_test(runs_name_it_resume_and_reproduce),
    };
    return cmocka_run_group_tests(tests, setup, cleanup);
}
