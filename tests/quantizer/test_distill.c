// Files whose scales, gains and clips were learned: nearer to the float model than before, by the engine too; the same
// bytes when interrupted anywhere, and on any number of threads; they verify and reproduce; portable ones hold nothing
// that other tools do not know.
#include "tests/common/files.h"
#include "tests/common/tiny.h"
#include "tests/quantizer/run.h"

#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static const char recipe_text[] =
    "name: learned\n"
    "rotate: true\n"
    "calibration: {windows: %u, tokens: 32}\n"
    "activations: {clip: 0.95}\n"
    "cache: {clip: 0.98}\n"
    "rounding:\n"
    "  - gptq\n"
    "distill: {steps: %u, batch: %u, windows: %u, rate: 0.005, clip_rate: 0.01, pull: 0.01}\n";

static char in[256], out[256], recipe[256], text[256];

// The windows to learn from are those of the calibration (learns 0), or so many.
static void write_learning(unsigned windows, unsigned steps, unsigned batch, unsigned learns)
{
    char yaml[512];
    snprintf(yaml, sizeof yaml, recipe_text, windows, steps, batch, learns);
    files_write(recipe, yaml);
}

static void write_batches(unsigned windows, unsigned steps, unsigned batch)
{
    write_learning(windows, steps, batch, 0);
}

static void write_recipe(unsigned windows, unsigned steps) { write_batches(windows, steps, 1); }

static void make_base(const char *family) { run_base(in, text, family, false); }

static gyre_quantize_params params(void)
{
    static const char *const texts[] = {text};
    return run_params(in, out, recipe, texts);
}

static void learning_brings_every_family_nearer(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "qwen2", "qwen3"};
    for (int i = 0; i < 6; i++) {
        gyre_error err = {0};
        gyre_quantize_summary s = {0};
        gyre_quantize_params p = params();
        make_base(families[i % 3]);
        if (i >= 3) p.profile = "portable", p.wgroup = 32;
        write_recipe(64, 0);
        if (run_until(p, 0, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
        const double before = run_divergence(in, out, text, 0, 0);
        write_recipe(64, 64);
        if (run_until(p, 0, &s, &err) != GYRE_OK) fail_msg("%s", err.message);
        const double after = run_divergence(in, out, text, 0, 0);
        print_message("%s: held out %.5f -> %.5f, engine %.5f -> %.5f\n", families[i % 3], s.distill_before,
                      s.distill_after, before, after);
        assert_int_equal(s.distill_steps, 64);
        assert_int_equal(s.distill_windows, 8);
        assert_true(s.distill_after < s.distill_before);
        assert_true(after < 0.97 * before);
        gyre_quantize_summary_free(&s);
    }
}

// What a file holds: codes stay, scales and gains move, and clips lie in tensors of their own.
static void only_what_is_continuous_moves(void **state)
{
    (void)state;
    gyre_error err = {0};
    make_base("llama");
    json_t *m[2];
    for (int i = 0; i < 2; i++) {
        write_recipe(9, i ? 8 : 0);
        if (run_until(params(), 0, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
        char path[300];
        snprintf(path, sizeof path, "%s.manifest.json", out);
        m[i] = json_load_file(path, 0, NULL);
        assert_non_null(m[i]);
    }
    assert_null(json_object_get(m[0], "distilled"));
    assert_int_equal(json_integer_value(json_object_get(json_object_get(m[1], "distilled"), "steps")), 8);
    size_t i, moved = 0, clips = 0;
    json_t *row;
    json_array_foreach(json_object_get(m[1], "tensors"), i, row)
    {
        const char *name = json_string_value(json_object_get(row, "name"));
        const json_t *was = NULL, *one;
        size_t k;
        json_array_foreach(json_object_get(m[0], "tensors"), k, one)
        {
            if (!strcmp(json_string_value(json_object_get(one, "name")), name)) was = one;
        }
        clips += !was;
        if (!was) assert_true(!strcmp(name, "gyre.act_clips") || !strcmp(name, "gyre.kv_clips"));
        const bool same = was && json_equal(json_object_get(was, "sha256"), json_object_get(row, "sha256"));
        const bool learns = strstr(name, ".scale") || strstr(name, "_norm") || strstr(name, "gain") || !was;
        if (same == learns) fail_msg("%s: %s", name, same ? "did not move" : "moved");
        moved += !same;
    }
    assert_int_equal(clips, 2);
    assert_true(moved > 10);
    json_decref(m[0]);
    json_decref(m[1]);
}

static void resumes_to_the_same_bytes(unsigned steps, unsigned batch, unsigned learns)
{
    gyre_error err = {0};
    uint64_t n, m;
    make_base("llama");
    write_learning(9, steps, batch, learns);
    if (run_until(params(), 0, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
    char *want = files_read(out, &n);
    const int all = run_calls();
    int early = 0, late = 0; // calls of runs that went on from before the first step, and from the last
    for (int at = all / 3; at <= all; at += 3) {
        gyre_quantize_params p = params();
        assert_int_equal(run_until(p, at, NULL, &err), GYRE_E_CANCELLED);
        p.force = false;
        p.resume = true;
        assert_int_equal(unlink(out), 0);
        if (run_until(p, 0, NULL, &err) != GYRE_OK) fail_msg("after %d of %d calls: %s", at, all, err.message);
        late = run_calls();
        if (!early) early = late;
        char *got = files_read(out, &m);
        assert_int_equal(n, m);
        assert_memory_equal(got, want, n);
        free(got);
    }
    if (late + (int)(steps * batch) / 2 > early) fail_msg("%d calls, %d from the start", late, early);
    free(want);
}

static void interrupted_anywhere_resumes_to_the_same_bytes(void **state)
{
    (void)state;
    resumes_to_the_same_bytes(20, 1, 0);
    resumes_to_the_same_bytes(7, 3, 30);
}

// Nor do other threads than those that a run began with, where it is resumed elsewhere or reproduced.
static void threads_change_no_byte(void **state)
{
    (void)state;
    const int before = omp_get_max_threads();
    char *want = NULL;
    uint64_t n, m;
    make_base("llama");
    write_batches(9, 7, 3);
    for (int threads = 1; threads <= 5; threads++) {
        gyre_error err = {0};
        omp_set_num_threads(threads);
        if (run_until(params(), 0, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
        char *got = files_read(out, &m);
        if (!want) want = got, n = m;
        if (n != m || memcmp(got, want, n)) fail_msg("%d threads make other bytes", threads);
        if (got != want) free(got);
    }
    omp_set_num_threads(before);
    free(want);
}

// Going on from what is damaged would learn on scales that are learned already.
static void damaged_states_are_refused(void **state)
{
    (void)state;
    gyre_error err = {0};
    char kept[300];
    uint64_t n, m;
    snprintf(kept, sizeof kept, "%s.journal/kept-distill", out);
    make_base("llama");
    write_recipe(9, 20);
    if (run_until(params(), 0, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
    char *want = files_read(out, &n);
    for (int damage = 0; damage < 2; damage++) {
        gyre_quantize_params p = params();
        assert_int_equal(run_until(p, run_calls() - 2, NULL, &err), GYRE_E_CANCELLED);
        char *whole = files_read(kept, &m);
        assert_non_null(whole);
        if (damage) whole[0]++; // of another version
        FILE *f = fopen(kept, "wb");
        assert_true(f && fwrite(whole, 1, m - (damage ? 0 : 8), f) == m - (damage ? 0 : 8));
        fclose(f);
        free(whole);
        p.force = false;
        p.resume = true;
        assert_int_equal(unlink(out), 0);
        assert_int_equal(run_until(p, 0, NULL, &err), GYRE_E_FORMAT);
        assert_non_null(strstr(err.message, "what distillation left there is damaged; start over with --force"));
        if (run_until(params(), 0, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
        char *got = files_read(out, &m);
        assert_true(n == m && !memcmp(got, want, n));
        free(got);
    }
    free(want);
}

// Where the file holds learned scales perhaps and what they were learned from is gone, nothing can go on.
static void learned_files_without_their_state_are_refused(void **state)
{
    (void)state;
    gyre_error err = {0};
    gyre_quantize_params p = params();
    char path[300];
    make_base("llama");
    write_recipe(9, 20);
    if (run_until(p, 0, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_int_equal(run_until(p, run_calls() - 2, NULL, &err), GYRE_E_CANCELLED);
    snprintf(path, sizeof path, "%s.journal/kept-distill", out);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s.journal/state.json", out);
    json_t *journal = json_load_file(path, 0, NULL);
    assert_int_equal(json_object_set_new(journal, "replacing", json_true()), 0);
    assert_int_equal(json_dump_file(journal, path, JSON_REAL_PRECISION(17)), 0);
    json_decref(journal);
    p.force = false;
    p.resume = true;
    assert_int_equal(unlink(out), 0);
    assert_int_equal(run_until(p, 0, NULL, &err), GYRE_E_FORMAT);
    assert_non_null(strstr(err.message, "what distillation left there is missing; start over with --force"));
}

// Of a long text no more than the steps need, and some to hold out.
static void few_steps_read_few_windows(void **state)
{
    (void)state;
    static const unsigned steps[] = {2, 80, 2}, windows[] = {96, 96, 4000}, held[] = {64 / 8, 91 / 8, 64 / 8};
    make_base("llama");
    for (int i = 0; i < 3; i++) {
        gyre_error err = {0};
        gyre_quantize_summary s = {0};
        write_recipe(windows[i], steps[i]);
        if (run_until(params(), 0, &s, &err) != GYRE_OK) fail_msg("%s", err.message);
        assert_true(run_fraction() == 1); // also where the text has not so many
        assert_int_equal(s.distill_steps, steps[i]);
        assert_int_equal(s.distill_windows, held[i]);
        gyre_quantize_summary_free(&s);
    }
}

// The tensors of a manifest that learning leaves alone, in order.
static json_t *fixed_of(const char *manifest)
{
    json_t *m = json_load_file(manifest, 0, NULL), *fixed = json_array(), *row;
    size_t i;
    json_array_foreach(json_object_get(m, "tensors"), i, row)
    {
        const char *name = json_string_value(json_object_get(row, "name"));
        if (!strstr(name, ".scale") && !strstr(name, "_norm") && !strstr(name, "gain") && !strstr(name, "_clips"))
            assert_int_equal(json_array_append(fixed, row), 0);
    }
    assert_true(json_array_size(fixed) >= 2 * 7 + 1);
    json_decref(m);
    return fixed;
}

static char told[256]; // the last line that begins with `distill: `, and is none of a step
static void on_windows(void *user, gyre_log_level level, const char *message)
{
    (void)user, (void)level;
    if (!strncmp(message, "distill: ", 9) && strncmp(message, "distill: step", 13))
        snprintf(told, sizeof told, "%s", message);
}

// Learning may read more windows than rounding, or fewer: the codes stay what they are, of every kind of text.
static void rounding_does_not_see_what_else_is_read(void **state)
{
    (void)state;
    static const struct {
        unsigned learns, held; // of 9 windows of rounding, and what is held out
        const char *says;
    } runs[] = {{0, 1, NULL}, {40, 5, NULL}, {4, 1, NULL}, {400, 0, "where the recipe has 400"}};
    static const char *const texts[] = {GYRE_CALIB_SELF, text};
    char manifest[300], *learned[4];
    uint64_t n[4];
    make_base("llama");
    snprintf(manifest, sizeof manifest, "%s.manifest.json", out);
    for (uint32_t own = 0; own < 2; own++) {
        json_t *codes = NULL;
        for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
            gyre_error err = {0};
            gyre_quantize_summary s = {0};
            gyre_quantize_params p = params();
            p.calib = texts + !own, p.n_calib = 1 + own;
            p.log = (gyre_log){.write = on_windows, .level = GYRE_LOG_INFO};
            *told = 0;
            write_learning(9, 64, 1, runs[i].learns);
            if (run_until(p, 0, &s, &err) != GYRE_OK) fail_msg("%s", err.message);
            assert_true(run_fraction() == 1);
            if (runs[i].held) assert_int_equal(s.distill_windows, runs[i].held);
            if (!runs[i].says) assert_string_equal(told, "");
            else if (!strstr(told, runs[i].says)) fail_msg("%s", told);
            gyre_quantize_summary_free(&s);
            json_t *mine = fixed_of(manifest);
            if (!codes) codes = json_incref(mine);
            assert_true(json_equal(codes, mine));
            json_decref(mine);
            learned[i] = files_read(out, &n[i]);
            for (size_t k = 0; k < i; k++)
                if (n[k] == n[i] && !memcmp(learned[k], learned[i], n[i])) fail_msg("%zu learns what %zu does", i, k);
        }
        for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) free(learned[i]);
        json_decref(codes);
    }
}

static void files_verify_and_reproduce(unsigned windows, unsigned learns)
{
    static const char *texts[] = {text};
    gyre_error err = {0};
    gyre_verify_result result = {0};
    gyre_reproduce_result made = {0};
    gyre_quantize_summary s = {0};
    make_base("qwen3");
    write_learning(windows, 64, 1, learns);
    if (run_until(params(), 0, &s, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_true(s.distill_best > 0);
    gyre_quantize_summary_free(&s);
    if (gyre_verify(&(gyre_verify_params){.file = out, .base = in}, &result, &err) != GYRE_OK)
        fail_msg("%s", err.message);
    char manifest[300];
    snprintf(manifest, sizeof manifest, "%s.manifest.json", out);
    const gyre_reproduce_params r = {.manifest = manifest, .base = in, .calib = texts, .n_calib = 1};
    if (gyre_reproduce(&r, &made, &err) != GYRE_OK) fail_msg("%s", err.message);
}

static void files_are_what_their_manifests_say(void **state)
{
    (void)state;
    files_verify_and_reproduce(64, 0);
    files_verify_and_reproduce(16, 64);
}

static char said[256]; // the line that tells what `auto` became where that is none
static int said_none;

static void on_log(void *user, gyre_log_level level, const char *message)
{
    (void)user;
    if (level != GYRE_LOG_INFO || strncmp(message, "distill: none", 13)) return;
    said_none++;
    snprintf(said, sizeof said, "%s", message);
}

// A run that leaves out what `auto` stands for elsewhere says so, once.
static void what_auto_became_is_told(void **state)
{
    (void)state;
    static const struct {
        uint32_t act, wbits, steps;
        bool folder;
        const char *says;
    } runs[] = {{8, 4, 40, false, NULL},
                {4, 4, 24, false, NULL},
                {8, 32, 0, false, "these widths"},
                {8, 4, 0, true, "a Hugging Face directory"}};
    const struct tiny_options o = tiny_family("llama");
    const char *folder = files_path("source"), *made = files_path("made");
    make_base("llama");
    assert_int_equal(tiny_write_hf(folder, &o), 0);
    files_write(recipe, "name: open\nrotate: true\ncalibration: {windows: 9, tokens: 32}\nrounding:\n  - gptq\n"
                        "distill: {steps: auto}\n");
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        gyre_error err = {0};
        gyre_quantize_summary s = {0};
        gyre_quantize_params p = params();
        p.act = runs[i].act, p.wbits = runs[i].wbits;
        p.log = (gyre_log){.write = on_log, .level = GYRE_LOG_INFO};
        if (runs[i].folder) p.source = folder, p.output = made;
        said_none = 0;
        if (run_until(p, 0, &s, &err) != GYRE_OK) fail_msg("run %zu: %s", i, err.message);
        assert_int_equal(s.distill_steps, runs[i].steps);
        assert_int_equal(said_none, runs[i].says != NULL);
        if (runs[i].says && !strstr(said, runs[i].says)) fail_msg("run %zu: %s", i, said);
        gyre_quantize_summary_free(&s);
    }
}

static void impossible_runs_are_refused(void **state)
{
    (void)state;
    make_base("llama");
    files_write(recipe, "name: a\ncalibration: {windows: 0}\nrounding: [rtn]\ndistill: {steps: 3}\n");
    run_refused(params(), "distill learns from a text");
    files_write(recipe, "name: a\ncalibration: {windows: 1, tokens: 32}\nrounding: [rtn]\ndistill: {steps: 3}\n");
    gyre_error err = {0};
    gyre_quantize_summary s = {0};
    if (run_until(params(), 0, &s, &err) != GYRE_OK) fail_msg("%s", err.message); // it is rounded, and says the rest
    assert_int_equal(s.distill_steps, 0);
    gyre_quantize_summary_free(&s);
    files_write(recipe, "name: a\nrounding: [rtn]\ndistill: {steps: 3, rate: 2}\n");
    run_refused(params(), "a number from");
}

int main(void)
{
    snprintf(in, sizeof in, "%s", files_path("in.gguf"));
    snprintf(out, sizeof out, "%s", files_path("out.gguf"));
    snprintf(recipe, sizeof recipe, "%s", files_path("learned.yaml"));
    snprintf(text, sizeof text, "%s", files_path("text.txt"));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learning_brings_every_family_nearer),
        cmocka_unit_test(only_what_is_continuous_moves),
        cmocka_unit_test(interrupted_anywhere_resumes_to_the_same_bytes),
        cmocka_unit_test(threads_change_no_byte),
        cmocka_unit_test(damaged_states_are_refused),
        cmocka_unit_test(learned_files_without_their_state_are_refused),
        cmocka_unit_test(few_steps_read_few_windows),
        cmocka_unit_test(rounding_does_not_see_what_else_is_read),
        cmocka_unit_test(files_are_what_their_manifests_say),
        cmocka_unit_test(what_auto_became_is_told),
        cmocka_unit_test(impossible_runs_are_refused),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    files_remove();
    return failed;
}
