// Runs that begin with a finished file: the same bytes as when all is done at once, also when interrupted anywhere;
// what they make verifies and reproduces; what does not belong together is refused by one line.
#include "tests/common/files.h"
#include "tests/common/tiny.h"
#include "tests/quantizer/run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char in[256], base[256], out[256], recipe[256], text[256];

// All at once, or what comes before (steps 0), or (rounding NULL) what comes behind.
static unsigned learns; // windows to take the steps from; 0: those of the calibration

static void write_recipe(const char *rounding, unsigned steps)
{
    char yaml[512];
    snprintf(yaml, sizeof yaml,
             "name: learned\n%scalibration: {windows: 9, tokens: 32}\n%s%s\n"
             "distill: {steps: %u, windows: %u, rate: 0.005, clip_rate: 0.01, pull: 0.01}\n",
             rounding ? "rotate: true\nactivations: {clip: 0.9512345}\ncache: {clip: 0.98}\n" : "",
             rounding ? "rounding:\n  - " : "", rounding ? rounding : "", steps, learns);
    files_write(recipe, yaml);
}

static gyre_quantize_params params(const char *to)
{
    static const char *const texts[] = {text};
    gyre_quantize_params p = run_params(in, to, recipe, texts);
    p.size = sizeof p;
    return p;
}

static gyre_quantize_params behind(void)
{
    gyre_quantize_params p = params(out);
    p.from = base;
    return p;
}

static void make(gyre_quantize_params p, int stop_at)
{
    gyre_error err = {0};
    const gyre_status st = run_until(p, stop_at, NULL, &err);
    if (st != (stop_at ? GYRE_E_CANCELLED : GYRE_OK)) fail_msg("%d: %s", st, err.message);
}

static void make_base(const char *family, const char *rounding)
{
    run_base(in, text, family, strcmp(family, "qwen3") != 0);
    write_recipe(rounding, 0);
    make(params(base), 0);
}

static void write_bytes(const char *path, const char *data, uint64_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void assert_same(const char *path, const char *want, uint64_t n)
{
    uint64_t m;
    char *got = files_read(path, &m);
    assert_int_equal(m, n);
    assert_memory_equal(got, want, n);
    free(got);
}

static void in_two_runs_as_in_one(void **state)
{
    (void)state;
    static const struct {
        const char *family, *rounding, *profile;
        uint32_t act, learns;
    } run[] = {{"llama", "gptq", NULL, 4, 0},
               {"llama", "gptq", NULL, 8, 30},
               {"llama", "gptq\nseeds: 2", NULL, 4, 0}, // a rotation was chosen, the clips are the recipe's
               {"qwen3", "gptq", NULL, 4, 0},
               {"qwen2", "gptq", "portable", 8, 0}};
    for (size_t i = 0; i < sizeof run / sizeof *run; i++) {
        uint64_t n;
        gyre_quantize_params p = params(out);
        run_base(in, text, run[i].family, strcmp(run[i].family, "qwen3") != 0);
        p.act = p.kv = run[i].act;
        p.profile = run[i].profile;
        if (p.profile) p.wgroup = 32;
        learns = run[i].learns;
        write_recipe(run[i].rounding, 8);
        make(p, 0);
        char *want = files_read(out, &n);
        write_recipe(run[i].rounding, 0);
        p.output = base;
        make(p, 0);
        write_recipe(NULL, 8);
        p.output = out;
        p.from = base;
        p.act = p.kv = 0; // as the file's
        p.wgroup = 0;
        p.profile = NULL;
        make(p, 0);
        assert_same(out, want, n);
        free(want);
    }
    learns = 0;
}

static void interrupted_anywhere_resumes_to_the_same_bytes(void **state)
{
    (void)state;
    uint64_t n;
    make_base("llama", "gptq");
    write_recipe(NULL, 20);
    make(behind(), 0);
    const int all = run_calls();
    char *want = files_read(out, &n);
    for (int at = 1; at <= all; at += 2) {
        gyre_quantize_params p = behind();
        make(p, at);
        p.force = false;
        p.resume = true;
        assert_int_equal(unlink(out), 0);
        make(p, 0);
        assert_same(out, want, n);
    }
    free(want);
}

static void verifies_and_reproduces(void **state)
{
    (void)state;
    static const char *texts[] = {text};
    static const char *const rounding[] = {
        "gptq", "rtn\nseeds: 3\nlearn: {method: optrot, steps: 2}\nexceptions: [{tensors: \"*down*\", wbits: 8}]",
        "gptq\ndiagonals: {up_down: 0.5, value: 0.5}"};
    char manifest[300], rotations[300];
    snprintf(manifest, sizeof manifest, "%s.manifest.json", out);
    snprintf(rotations, sizeof rotations, "%s.rotations.safetensors", base);
    for (int i = 0; i < 3; i++) {
        gyre_error err = {0};
        gyre_verify_result result = {0};
        gyre_reproduce_result made = {0};
        make_base("llama", rounding[i]);
        learns = i ? 0 : 30;
        write_recipe(NULL, 4);
        make(behind(), 0);
        if (gyre_verify(&(gyre_verify_params){.size = sizeof(gyre_verify_params), .file = out, .base = in}, &result,
                        &err) != GYRE_OK)
            fail_msg("%s", err.message);
        assert_true(result.rotated);
        gyre_reproduce_params r = {
            .size = sizeof r, .manifest = manifest, .base = in, .calib = texts, .n_calib = 1, .from = base};
        if (gyre_reproduce(&r, &made, &err) != GYRE_OK) fail_msg("%s", err.message);
        r.from = NULL;
        assert_int_equal(gyre_reproduce(&r, &made, &err), GYRE_E_INVALID);
        assert_non_null(strstr(err.message, "give that file with --from"));
        r.from = out;
        assert_int_equal(gyre_reproduce(&r, &made, &err), GYRE_E_FORMAT);
        assert_non_null(strstr(err.message, "finished file"));
        if (i != 1) continue;
        assert_int_equal(unlink(rotations), 0);
        run_refused(behind(), "their file");
    }
}

static void what_does_not_belong_together_is_refused(void **state)
{
    (void)state;
    gyre_error err = {0};
    char manifest[300], aside[300];
    snprintf(manifest, sizeof manifest, "%s.manifest.json", base);
    snprintf(aside, sizeof aside, "%s.aside", base);
    make_base("llama", "gptq");
    run_refused(behind(), "it is rounded already");
    write_recipe(NULL, 4);
    run_refused(params(out), "name that file with --from");
    assert_int_equal(
        gyre_quantize_check(
            &(gyre_quantize_params){.size = sizeof(gyre_quantize_params), .source = in, .recipe = recipe, .from = base},
            &err),
        GYRE_OK);
    gyre_quantize_params p = behind();
    p.act = 8;
    run_refused(p, "--act 4, not 8");
    p = behind(), p.kv_v = 8;
    run_refused(p, "--kv 4, not 8");
    p = behind(), p.wgroup = 32;
    run_refused(p, "--wgroup 0, not 32");
    p = behind(), p.wbits = 8;
    run_refused(p, "--wbits 4, not 8");
    p = behind(), p.head = 4;
    run_refused(p, "--head 8, not 4");
    p = behind(), p.profile = "portable";
    run_refused(p, "profile is \"full\", not portable");
    p = behind(), p.seed = 7;
    run_refused(p, "--seed 0, not 7");
    p = behind(), p.recipe = NULL;
    run_refused(p, "no recipe says what");
    p = behind(), p.output = base;
    run_refused(p, "the finished file");
    p = behind(), p.device = "cpu";
    run_refused(p, "leave --device out");
    p = behind(), p.format = "hf", p.output = files_path("folder");
    run_refused(p, "cannot write a Hugging Face directory");
    files_write(recipe, "name: a\ncalibration: {windows: 1, tokens: 32}\ndistill: {steps: 3}\n");
    run_refused(behind(), "some must be held out");
    write_recipe(NULL, 4);
    p = behind(), p.from = in;
    run_refused(p, "is missing; fetch it too");
    // The file and its manifest are one.
    uint64_t n, m;
    char *good = files_read(base, &n), *told = files_read(manifest, &m);
    for (uint64_t i = 1; i <= 4096; i++) good[n - i] ^= 1; // of the last tensors
    write_bytes(base, good, n);
    run_refused(behind(), "has another SHA-256 than its manifest says");
    free(good);
    make_base("llama", "rtn");
    write_recipe(NULL, 4);
    write_bytes(manifest, told, m); // of another recipe's file
    run_refused(behind(), "fetch file and manifest again");
    free(told);
    files_write(manifest, "{}");
    run_refused(behind(), "cannot use manifest");
    assert_int_equal(rename(manifest, aside), 0);
    run_refused(behind(), "is missing; fetch it too");
    // Floats, and another model.
    make_base("llama", "rtn");
    p = params(base), p.wbits = 16;
    make(p, 0);
    write_recipe(NULL, 4);
    run_refused(behind(), "its weights are floats of 16 bits");
    make_base("llama", "rtn");
    write_recipe(NULL, 4);
    struct tiny_options o = tiny_family("llama");
    o.layers = 2;
    assert_int_equal(tiny_write_gguf(in, &o), 0); // untied
    run_refused(behind(), "give the model that it was made from");
}

int main(void)
{
    snprintf(in, sizeof in, "%s", files_path("in.gguf"));
    snprintf(base, sizeof base, "%s", files_path("base.gguf"));
    snprintf(out, sizeof out, "%s", files_path("out.gguf"));
    snprintf(recipe, sizeof recipe, "%s", files_path("learned.yaml"));
    snprintf(text, sizeof text, "%s", files_path("text.txt"));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_two_runs_as_in_one),
        cmocka_unit_test(interrupted_anywhere_resumes_to_the_same_bytes),
        cmocka_unit_test(verifies_and_reproduces),
        cmocka_unit_test(what_does_not_belong_together_is_refused),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    files_remove();
    return failed;
}
