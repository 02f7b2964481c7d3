// Runs that calibrate: interrupted anywhere they end with the same bytes, others' journals are refused, files verify
// and reproduce, and texts that cannot be used are named.
#include "tests/common/tiny.h"
#include "tests/common/files.h"
#include "tests/quantizer/run.h"
#include "runtime/model/hparams.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

// Every stage and option that statistics feed, on windows that a tiny model can have.
static const char recipe_text[] = "name: everything\n"
                                  "rotate: true\n"
                                  "seeds: 3\n"
                                  "diagonals: {norm: 0.5, up_down: 1, qk: 1, value: 1}\n"
                                  "calibration: {windows: 9, tokens: 32}\n"
                                  "activations: {clip: auto}\n"
                                  "cache: {clip: auto, centre: true}\n"
                                  "rounding:\n"
                                  "  - correct: {alpha: auto, residual: auto}\n"
                                  "  - gptq: {clip: hessian, order: descending, scales: 3}\n"
                                  "  - descent: {sweeps: 2}\n"
                                  "  - refit\n"
                                  "exceptions:\n"
                                  "  - {tensors: \"blk.1.ffn_down.weight\", wbits: 8, wgroup: 32}\n";

static const char *in, *out, *recipe, *text, *other_text;
static char *want, *want_manifest;
static uint64_t want_bytes;
static int all_calls;

static void write_file(const char *path, const char *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    assert_true(f && fwrite(data, 1, bytes, f) == bytes && !fclose(f));
}

static gyre_quantize_params params(void)
{
    gyre_quantize_params p = run_params(in, out, recipe, &text);
    p.seed = 5;
    p.force = false;
    return p;
}

static void forget(void)
{
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s' '%s.part' '%s.journal' '%s.manifest.json'", out, out, out, out);
    assert_int_equal(system(command), 0);
}

static void expect_complete(void)
{
    uint64_t n, m;
    char *got = files_read(out, &n), *manifest = files_read(files_path("out.gguf.manifest.json"), &m);
    assert_non_null(got);
    assert_non_null(manifest);
    assert_int_equal(n, want_bytes);
    assert_memory_equal(got, want, n);
    assert_string_equal(manifest, want_manifest);
    assert_int_not_equal(access(files_path("out.gguf.journal"), F_OK), 0);
    free(got);
    free(manifest);
}

static int setup(void **state)
{
    (void)state;
    struct tiny_options o = tiny_defaults();
    o.layers = 3;
    o.tied = true;
    in = strdup(files_path("in.gguf"));
    out = strdup(files_path("out.gguf"));
    recipe = strdup(files_path("everything.yaml"));
    text = strdup(files_path("text.txt"));
    other_text = strdup(files_path("other.txt"));
    write_file(recipe, recipe_text, sizeof recipe_text - 1);
    run_text(text, 1);
    run_text(other_text, 2);
    gyre_error err = {0};
    if (tiny_write_gguf(in, &o) || run_until(params(), 0, NULL, &err) != GYRE_OK) {
        print_error("%s\n", err.message);
        return -1;
    }
    uint64_t n;
    all_calls = run_calls();
    want = files_read(out, &want_bytes);
    want_manifest = files_read(files_path("out.gguf.manifest.json"), &n);
    return 0;
}

static int cleanup(void **state)
{
    (void)state;
    files_remove();
    const char *const all[] = {in, out, recipe, text, other_text, want, want_manifest};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free((char *)(uintptr_t)all[i]);
    return 0;
}

static void interrupted_anywhere_resumes_to_the_same_bytes(void **state)
{
    (void)state;
    forget();
    int shorter = 0;
    for (int at = 1; at <= all_calls; at += at < 12 ? 5 : 3) { // in the survey, in the tables, in every block
        gyre_quantize_params p = params();
        gyre_error err = {0};
        assert_int_equal(run_until(p, at, NULL, &err), GYRE_E_CANCELLED);
        assert_int_not_equal(access(out, F_OK), 0);
        p.resume = true;
        if (run_until(p, 0, NULL, &err) != GYRE_OK) fail_msg("after %d calls: %s", at, err.message);
        shorter += run_calls() < all_calls / 2;
        expect_complete();
        forget();
    }
    assert_true(shorter > 0); // it went on, and did not choose again
}

static void another_runs_journal_is_refused(void **state)
{
    (void)state;
    char line[sizeof recipe_text];
    const char *other_recipe = files_path("other.yaml");
    memcpy(line, recipe_text, sizeof line);
    memcpy(strstr(line, "sweeps: 2"), "sweeps: 3", 9); // the same name, another content
    write_file(other_recipe, line, strlen(line));
    forget();
    assert_int_equal(run_until(params(), all_calls - 8, NULL, NULL), GYRE_E_CANCELLED);
    for (int change = 0; change < 3; change++) {
        gyre_quantize_params p = params();
        gyre_error err = {0};
        p.resume = true;
        if (change == 0) p.calib = &other_text;
        if (change == 1) p.recipe = other_recipe;
        if (change == 2) p.seed = 6;
        static const char *const named[] = {"calibration", "recipe_text", "seed"};
        assert_int_not_equal(run_until(p, 0, NULL, &err), GYRE_OK);
        if (!strstr(err.message, named[change])) fail_msg("%s", err.message);
    }
    gyre_quantize_params p = params();
    p.resume = true;
    assert_int_equal(run_until(p, 0, NULL, NULL), GYRE_OK);
    expect_complete();
}

static void damaged_streams_are_refused(void **state)
{
    (void)state;
    forget();
    assert_int_equal(run_until(params(), all_calls - 8, NULL, NULL), GYRE_E_CANCELLED);
    char command[512];
    snprintf(command, sizeof command, "for f in '%s'.journal/stream-*; do truncate -s 100 \"$f\"; done", out);
    assert_int_equal(system(command), 0);
    gyre_quantize_params p = params();
    gyre_error err = {0};
    p.resume = true;
    assert_int_equal(run_until(p, 0, NULL, &err), GYRE_E_FORMAT);
    if (!strstr(err.message, "--force")) fail_msg("%s", err.message);
    p.resume = false;
    p.force = true;
    assert_int_equal(run_until(p, 0, NULL, NULL), GYRE_OK);
    expect_complete();
}

static void a_full_disk_while_journaling_loses_nothing(void **state)
{
    (void)state;
    struct rlimit all, little;
    gyre_error err = {0};
    forget();
    assert_int_equal(run_until(params(), all_calls - 8, NULL, NULL), GYRE_E_CANCELLED); // two blocks are journalled
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &all), 0);
    little = all;
    little.rlim_cur = 140000; // OUT.part is smaller, the streams of 288 tokens on two paths are not
    assert_true(want_bytes < little.rlim_cur);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    gyre_quantize_params p = params();
    p.resume = true;
    const gyre_status st = run_until(p, 0, NULL, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
    assert_int_equal(st, GYRE_E_IO);
    if (!strstr(err.message, "stream-")) fail_msg("%s", err.message);
    assert_int_not_equal(access(out, F_OK), 0);
    assert_int_equal(run_until(p, 0, NULL, NULL), GYRE_OK);
    expect_complete();
}

static void files_verify_and_reproduce(void **state)
{
    (void)state;
    gyre_error err = {0};
    gyre_verify_result result = {0};
    const gyre_verify_params v = {.file = out, .base = in};
    if (gyre_verify(&v, &result, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_int_equal(result.linears, 21);
    gyre_reproduce_result made = {0};
    const gyre_reproduce_params r = {
        .manifest = files_path("out.gguf.manifest.json"), .base = in, .calib = &text, .n_calib = 1};
    if (gyre_reproduce(&r, &made, &err) != GYRE_OK) fail_msg("%s", err.message);
    const gyre_reproduce_params wrong = {
        .manifest = files_path("out.gguf.manifest.json"), .base = in, .calib = &other_text, .n_calib = 1};
    assert_int_not_equal(gyre_reproduce(&wrong, &made, &err), GYRE_OK);
    assert_non_null(strstr(err.message, "SHA-256"));
}

// Mean weight error of all linears, as the manifest tells it.
static double mean_error(json_t **device)
{
    json_t *m = json_load_file(files_path("out.gguf.manifest.json"), 0, NULL), *row;
    double sum = 0;
    size_t i, n = 0;
    assert_non_null(m);
    json_array_foreach(json_object_get(m, "tensors"), i, row)
    {
        const json_t *error = json_object_get(row, "error");
        sum += json_number_value(error);
        n += error != NULL;
    }
    *device = json_incref(json_object_get(json_object_get(m, "arithmetic"), "device"));
    json_decref(m);
    return sum / (double)n;
}

// A file's bytes, and the group that it asks for; `manifest` says what the recipe was.
static char *grouped(uint32_t act, uint32_t group, uint64_t *bytes, uint32_t *asks)
{
    char yaml[256];
    const char *file = files_path("grouped.gguf"), *its = files_path("grouped.yaml");
    gyre_source *source;
    struct gyre_hparams hp;
    gyre_error err = {0};
    snprintf(
        yaml, sizeof yaml,
        "name: g\nrotate: true\nseeds: 2\ncalibration: {windows: 3, tokens: 32}\nactivations: {clip: auto, group: %u}\n"
        "rounding: [gptq]\n",
        group);
    write_file(its, yaml, strlen(yaml));
    gyre_quantize_params p = run_params(in, file, its, &text);
    p.act = act;
    if (run_until(p, 0, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
    if (gyre_source_open(file, &source, &err) || gyre_hparams_read(source, &hp, &err)) fail_msg("%s", err.message);
    *asks = hp.act_group;
    gyre_hparams_free(&hp);
    gyre_source_close(source);
    const gyre_verify_params v = {.file = file, .base = in};
    gyre_verify_result result = {0};
    if (gyre_verify(&v, &result, &err) != GYRE_OK) fail_msg("%s", err.message);
    return files_read(file, bytes);
}

// Groups of activations are the file's, and the Hessians', at 4 bits; at 8 the same bytes come out without.
static void groups_are_of_four_bits(void **state)
{
    (void)state;
    for (uint32_t act = 4; act <= 8; act += 4) {
        uint64_t n[2];
        uint32_t asks[2];
        char *file[2] = {grouped(act, 0, &n[0], &asks[0]), grouped(act, 32, &n[1], &asks[1])};
        assert_int_equal(asks[0], 0);
        assert_int_equal(asks[1], act == 4 ? 32 : 0);
        assert_int_equal(n[0] == n[1] && !memcmp(file[0], file[1], n[0]), act == 8);
        const double nats = run_divergence(in, files_path("grouped.gguf"), text, 0, 0),
                     eight = run_divergence(in, files_path("grouped.gguf"), text, 8, 0);
        assert_true(act == 8 ? nats == eight : nats > eight);
        free(file[0]);
        free(file[1]);
    }
}

// Plain rounding's figure in the closing summary is of the same format, and of the file where the recipe is that alone.
static void the_summary_is_in_groups_too(void **state)
{
    (void)state;
    double rtn[2];
    for (int i = 0; i < 2; i++) {
        char yaml[128];
        gyre_quantize_summary s;
        gyre_error err = {0};
        snprintf(yaml, sizeof yaml, "name: p\nactivations: {group: %u}\nrounding: [rtn]\n", i ? 16u : 0u);
        files_write(files_path("plain.yaml"), yaml);
        gyre_quantize_params p = run_params(in, files_path("plain.gguf"), files_path("plain.yaml"), &text);
        if (run_until(p, 0, &s, &err) != GYRE_OK) fail_msg("%s", err.message);
        assert_true(s.rtn_kl == s.recipe_kl && s.rtn_kl > 0);
        rtn[i] = s.rtn_kl;
        gyre_quantize_summary_free(&s);
    }
    assert_true(rtn[0] != rtn[1]);
}

static void a_device_calibrates_as_the_host_does(void **state)
{
    (void)state;
    json_t *device;
    gyre_error err = {0};
    forget();
    assert_int_equal(run_until(params(), 0, NULL, NULL), GYRE_OK);
    const double host = mean_error(&device);
    assert_string_equal(json_string_value(device), "host");
    json_decref(device);
    forget();
    gyre_quantize_params p = params();
    p.device = "host"; // by name, where there is a GPU
    if (run_until(p, 0, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
    const double named = mean_error(&device);
    assert_string_equal(json_string_value(device), "host");
    assert_true(named == host);
    json_decref(device);
    forget();
    p.device = "cpu";
    if (run_until(p, 0, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
    const double there = mean_error(&device);
    assert_string_equal(json_string_value(device), "cpu");
    json_decref(device);
    // 4-bit quantizers amplify last bits, and codes follow; the size of what is lost does not.
    if (!(fabs(there / host - 1) < 0.05)) fail_msg("host %g, cpu %g", host, there);
}

static void unusable_texts_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *name, *data, *says;
        size_t bytes;
    } bad[] = {{"empty.txt", "", "empty", 0},
               {"short.txt", "a few words", "one window is 32", 11},
               {"latin1.txt", "caf\xe9 au lait and more of it", "not UTF-8 at byte 3", 27},
               {"missing.txt", NULL, "missing.txt", 0}};
    forget();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *path = files_path(bad[i].name);
        gyre_quantize_params p = params();
        gyre_error err = {0};
        if (bad[i].data) write_file(path, bad[i].data, bad[i].bytes);
        p.calib = &path;
        assert_int_not_equal(run_until(p, 0, NULL, &err), GYRE_OK);
        if (!strstr(err.message, bad[i].says) || !strstr(err.message, bad[i].name)) fail_msg("%s", err.message);
        assert_int_not_equal(access(files_path("out.gguf.part"), F_OK), 0);
    }
}

// SmoothQuant's and AWQ's scales, without rotations: the function stays, and files of both profiles
// verify.
static void diagonals_without_rotations(void **state)
{
    (void)state;
    double plain = 0;
    static const char *const diagonals[] = {"{norm: 0}", "{by: largest, norm: 0.5}",
                                            "{by: inputs, norm: auto, up_down: auto, value: auto}",
                                            "{norm: 0.5, up_down: 0.5, qk: 0.5, value: 0.5}"};
    const char *path = files_path("plain.yaml"), *made = files_path("plain.gguf");
    for (size_t i = 0; i < 2 * sizeof diagonals / sizeof *diagonals; i++) {
        char yaml[400];
        gyre_error err = {0};
        snprintf(yaml, sizeof yaml,
                 "name: plain\ndiagonals: %s\ncalibration: {windows: 4, tokens: 32}\nrounding: [rtn]\n",
                 diagonals[i / 2]);
        write_file(path, yaml, strlen(yaml));
        gyre_quantize_params p = run_params(in, made, path, &text);
        p.profile = i % 2 ? "portable" : "full";
        p.wbits = 8;
        p.wgroup = 32;
        p.act = p.kv = 16;
        if (run_until(p, 0, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
        const double kl = run_divergence(in, made, text, 16, 16);
        if (i == 0) plain = kl;
        if (!(kl < 2 * plain)) fail_msg("%s: KL %g, without diagonals %g", diagonals[i / 2], kl, plain);
        gyre_verify_result result = {0};
        const gyre_verify_params v = {.file = made, .base = in};
        if (gyre_verify(&v, &result, &err) != GYRE_OK) fail_msg("%s: %s", diagonals[i / 2], err.message);
        assert_true(result.linears == 21 && !result.rotated && result.worst_error < 1e-3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interrupted_anywhere_resumes_to_the_same_bytes),
        cmocka_unit_test(another_runs_journal_is_refused),
        cmocka_unit_test(damaged_streams_are_refused),
        cmocka_unit_test(a_full_disk_while_journaling_loses_nothing),
        cmocka_unit_test(files_verify_and_reproduce),
        cmocka_unit_test(groups_are_of_four_bits),
        cmocka_unit_test(the_summary_is_in_groups_too),
        cmocka_unit_test(a_device_calibrates_as_the_host_does),
        cmocka_unit_test(unusable_texts_are_named),
        cmocka_unit_test(diagonals_without_rotations),
    };
    return cmocka_run_group_tests(tests, setup, cleanup);
}
