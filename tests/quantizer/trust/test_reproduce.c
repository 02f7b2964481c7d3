// Reproducing: the same settings give the same bytes, what differs is named, what cannot be the same run is refused
// before any work, and no folder stays behind.
#include "runtime/util/sha256.h"
#include "tests/quantizer/trust/forge.h"
#include "tests/common/files.h"
#include "tests/common/tiny.h"

#include <gyre/gyre_quantize.h>
#include <dirent.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static const char *in, *out, *manifest;
static json_t *whole;

static int setup(void **state)
{
    (void)state;
    omp_set_num_threads(1); // tiny matrices
    in = strdup(files_path("in.gguf"));
    out = strdup(files_path("out.gguf"));
    manifest = strdup(files_path("out.gguf.manifest.json"));
    const struct tiny_options plain = tiny_plain();
    assert_int_equal(tiny_write_gguf(in, &plain), 0);
    forge_make(&(gyre_quantize_params){
        .source = in, .output = out, .wgroup = GYRE_WGROUP_ROW, .seed = 1234567890123456789u, .act = 4, .kv = 16});
    whole = forge_manifest(manifest);
    return 0;
}

static int cleanup(void **state)
{
    (void)state;
    files_remove();
    json_decref(whole);
    free((char *)(uintptr_t)in);
    free((char *)(uintptr_t)out);
    free((char *)(uintptr_t)manifest);
    return 0;
}

static bool exists(const char *path) { return access(path, F_OK) == 0; }

static int leftovers(void)
{
    int n = 0;
    DIR *dir = opendir(files_path("."));
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) n += strstr(e->d_name, "reproduce") != NULL;
    closedir(dir);
    return n;
}

static char log_text[512];
static void on_log(void *user, gyre_log_level level, const char *line)
{
    (void)user;
    (void)level;
    if (strstr(line, "cannot use tokenizer")) return; // true of the tiny model, and not what these tests are about
    snprintf(log_text, sizeof log_text, "%s", line);
}

static gyre_reproduce_params params(void)
{
    return (gyre_reproduce_params){.manifest = manifest, .base = in, .log = {on_log, NULL, GYRE_LOG_WARN}};
}

static gyre_reproduce_result fails(gyre_reproduce_params p, gyre_status status, const char *word, const char *also)
{
    gyre_reproduce_result result;
    gyre_error err = {0};
    assert_int_equal(gyre_reproduce(&p, &result, &err), status);
    if (!strstr(err.message, word) || !strstr(err.message, also)) fail_msg("%s", err.message);
    assert_null(strchr(err.message, '\n'));
    assert_int_equal(leftovers(), 0);
    forge_save(manifest, json_deep_copy(whole));
    return result;
}

static void set(const char *key, json_t *value)
{
    json_t *m = forge_manifest(manifest);
    if (value) json_object_set_new(m, key, value);
    else json_object_del(m, key);
    forge_save(manifest, m);
}

static void expect_same(gyre_reproduce_params p)
{
    gyre_reproduce_result result;
    gyre_error err = {0};
    if (gyre_reproduce(&p, &result, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_int_equal(result.tensors, json_array_size(json_object_get(whole, "tensors")));
    assert_true(!result.differing && !*result.first && !result.metadata_differs);
    assert_int_equal(leftovers(), 0);
}

static void the_same_settings_give_the_same_bytes(void **state)
{
    (void)state;
    log_text[0] = 0;
    expect_same(params());
    assert_string_equal(log_text, "");
    assert_true(exists(out));
    set("front_sha256", NULL); // what an older manifest does not tell is not compared
    expect_same(params());
    forge_save(manifest, json_deep_copy(whole));
    set("calibration", json_pack("{s:b}", "bundled", 1));
    expect_same(params());
    forge_save(manifest, json_deep_copy(whole));
    const char *const profiles[] = {"full", "portable"}, *const recipes[] = {"rtn", "quarot-rtn", "best"};
    const uint32_t bits[] = {4, 8, 16, 32, 4, 8, 16, 32, 16, 32}; // best: without a text, which floats need not
    for (int i = 0; i < 10; i++) {
        gyre_reproduce_params p = params();
        gyre_reproduce_result result;
        gyre_error err = {0};
        forge_make(&(gyre_quantize_params){.source = in,
                                           .output = files_path("other.gguf"),
                                           .profile = profiles[i % 2],
                                           .recipe = recipes[i / 4],
                                           .wbits = bits[i],
                                           .wgroup = 32,
                                           .kv_v = i == 6 ? 4 : 0,
                                           .seed = 3,
                                           .force = true});
        p.manifest = files_path("other.gguf.manifest.json");
        if (gyre_reproduce(&p, &result, &err) != GYRE_OK) fail_msg("%d: %s", i, err.message);
        gyre_verify_result verified;
        const gyre_verify_params v = {.size = sizeof v, .file = files_path("other.gguf"), .base = in};
        if (gyre_verify(&v, &verified, &err) != GYRE_OK) fail_msg("%d: %s", i, err.message);
    }
}

static void what_differs_is_named(void **state)
{
    (void)state;
    char zeros[GYRE_SHA256_HEX];
    gyre_sha256_of("", 0, zeros);
    json_t *m = json_deep_copy(whole);
    json_object_set_new(forge_row(m, "tensors", "blk.1.attn_output.weight"), "sha256", json_string(zeros));
    json_object_set_new(forge_row(m, "tensors", "blk.2.ffn_down.weight"), "sha256", json_string(zeros));
    forge_save(manifest, m);
    gyre_reproduce_result r =
        fails(params(), GYRE_E_FORMAT, "tensor blk.1.attn_output.weight comes out different, the first of 2",
              "no difference of gyre or its arithmetic is known");
    assert_string_equal(r.first, "blk.1.attn_output.weight");
    assert_true(r.differing == 2 && !r.metadata_differs);
    set("front_sha256", json_string(zeros));
    r = fails(params(), GYRE_E_FORMAT, "metadata", "all tensors come out the same");
    assert_true(r.metadata_differs && r.differing == 0);
    m = json_deep_copy(whole); // a manifest of fewer tensors, of another gyre and another library
    json_array_remove(json_object_get(m, "tensors"), json_array_size(json_object_get(m, "tensors")) - 1);
    json_object_set_new(m, "gyre", json_string("0.0.1\n"));
    forge_save(manifest, m);
    r = fails(params(), GYRE_E_FORMAT, "tensor blk.2.ffn_down.weight.scale", "gyre \"0.0.1\\n\", here \"");
    assert_non_null(strstr(log_text, "made by gyre \"0.0.1"));
    set("seed", json_string("5"));
    fails(params(), GYRE_E_FORMAT, "tensor token_embd.weight comes out different", "");
}

static void other_bases_are_refused_before_work(void **state)
{
    (void)state;
    gyre_reproduce_params p = params();
    struct tiny_options other = tiny_plain();
    other.seed = 2;
    p.base = files_path("wrong.gguf");
    assert_int_equal(tiny_write_gguf(p.base, &other), 0);
    p.work = files_path("refused");
    fails(p, GYRE_E_FORMAT, "base model (", "SHA-256");
    assert_false(exists(files_path("refused")));
    p.base = files_path("none.gguf");
    fails(p, GYRE_E_IO, "none.gguf", "cannot");
    p.base = in;
    p.manifest = files_path("none.json");
    fails(p, GYRE_E_IO, "none.json", "cannot");
}

static void damaged_and_unknown_manifests_are_refused(void **state)
{
    (void)state;
    FILE *f = fopen(manifest, "w");
    fputs("{\"manifest\": 1,", f);
    fclose(f);
    fails(params(), GYRE_E_FORMAT, "cannot use manifest", "no JSON");
    set("wbits", NULL);
    fails(params(), GYRE_E_FORMAT, "cannot use manifest", "\"wbits\"");
    set("wbits", json_integer(5));
    fails(params(), GYRE_E_INVALID, "unknown weight width 5", "");
    set("recipe_text", NULL);
    set("recipe", json_string("magic"));
    fails(params(), GYRE_E_UNSUPPORTED, "no recipe \"magic\"", "does not carry its text");
    set("recipe_text", json_string("name: [")); // the text is what counts, and this one is none
    gyre_error err = {0};
    gyre_reproduce_result result;
    gyre_reproduce_params p = params();
    assert_true(gyre_reproduce(&p, &result, &err) != GYRE_OK && strstr(err.message, "recipe.yaml"));
    assert_int_equal(leftovers(), 0);
    forge_save(manifest, json_deep_copy(whole));
}

static void texts_must_be_the_manifests(void **state)
{
    (void)state;
    const char *text = files_path("calib.txt"), *other = files_path("other.txt");
    char hex[GYRE_SHA256_HEX];
    FILE *f = fopen(text, "w");
    fputs("a text", f);
    fclose(f);
    f = fopen(other, "w");
    fputs("another", f);
    fclose(f);
    gyre_sha256_of("a text", 6, hex);
    gyre_reproduce_params p = params();
    p.calib = &text;
    p.n_calib = 1;
    fails(p, GYRE_E_INVALID, "the manifest names none", "--calib");
    json_t *calibration = json_pack("{s:[{s:s, s:i, s:s}], s:i, s:i}", "texts", "name", "calib.txt", "bytes", 6,
                                    "sha256", hex, "windows", 1, "tokens", 32);
    set("calibration", json_incref(calibration));
    fails(params(), GYRE_E_INVALID, "calibrated on \"calib.txt\"", "--calib");
    set("calibration", json_incref(calibration));
    p.calib = &other;
    fails(p, GYRE_E_FORMAT, "other.txt", "\"calib.txt\"");
    set("calibration", json_incref(calibration));
    p.calib = &text;
    expect_same(p); // these recipes do not calibrate: the text is taken and changes nothing
    json_t *texts = json_object_get(calibration, "texts"); // named twice, it is one file
    json_array_append(texts, json_array_get(texts, 0));
    set("calibration", json_incref(calibration));
    expect_same(p);
    json_decref(calibration);
    forge_save(manifest, json_deep_copy(whole));
}

static int stop(void *user, double fraction, double eta, const char *what)
{
    (void)fraction;
    (void)eta;
    (void)what;
    int *left = user;
    return (*left)-- == 0;
}

static void folders_are_kept_or_removed_as_told(void **state)
{
    (void)state;
    gyre_reproduce_params p = params();
    int left = 9;
    p.progress = stop;
    p.user = &left;
    fails(p, GYRE_E_CANCELLED, "nothing is kept", "--work");
    p.work = files_path("work/deep");
    left = 12;
    fails(p, GYRE_E_CANCELLED, "goes on where it stopped", manifest);
    assert_true(exists(files_path("work/deep/out.gguf.journal")));
    left = 1000;
    expect_same(p);
    uint64_t n, m;
    char *a = files_read(out, &n), *b = files_read(files_path("work/deep/out.gguf"), &m);
    assert_true(a && b && n == m && !memcmp(a, b, n));
    free(a);
    free(b);
    left = 1000;
    fails(p, GYRE_E_IO, "it exists", "--work");
    p.work = in; // a file
    fails(p, GYRE_E_IO, in, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_settings_give_the_same_bytes),
        cmocka_unit_test(what_differs_is_named),
        cmocka_unit_test(other_bases_are_refused_before_work),
        cmocka_unit_test(damaged_and_unknown_manifests_are_refused),
        cmocka_unit_test(texts_must_be_the_manifests),
        cmocka_unit_test(folders_are_kept_or_removed_as_told),
    };
    return cmocka_run_group_tests(tests, setup, cleanup);
}
