// Files whose rotations were learned: nearer to the float model than those with Hadamard transforms, exact where
// nothing is rounded, the same bytes when interrupted anywhere; they verify and reproduce; their heads are read and
// refused where damaged.
#include "tests/common/files.h"
#include "tests/common/ok.h"
#include "tests/quantizer/run.h"
#include "tests/quantizer/trust/forge.h"
#include "runtime/model/hparams.h"
#include "runtime/source/source.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char in[256], out[256], recipe[256], text[256], beside[300], manifest[300];
static int warned, said_none;

static void on_log(void *user, gyre_log_level level, const char *message)
{
    (void)user;
    warned += level == GYRE_LOG_WARN && strstr(message, "the rate halved");
    said_none += level == GYRE_LOG_INFO && strstr(message, "learn: none, auto is that");
}

static void write_recipe(const char *method, unsigned windows, unsigned steps, double rate)
{
    char yaml[512];
    snprintf(yaml, sizeof yaml,
             "name: turned\nrotate: true\nlearn: {method: %s, steps: %u, rate: %g}\n"
             "calibration: {windows: %u, tokens: 32}\nrounding:\n  - rtn\n",
             method, steps, rate, windows);
    files_write(recipe, yaml);
}

static void make_base(const char *family, bool tied) { run_base(in, text, family, tied); }

static gyre_quantize_params params(void)
{
    static const char *const texts[] = {text};
    gyre_quantize_params p = run_params(in, out, recipe, texts);
    p.log = (gyre_log){.write = on_log, .level = GYRE_LOG_INFO};
    return p;
}

static void made(gyre_quantize_params p)
{
    gyre_error err = {0};
    if (run_until(p, 0, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_true(run_fraction() == 1);
}

static bool has_mix(void)
{
    gyre_source *source;
    struct gyre_hparams *hp = malloc(sizeof *hp);
    OK(gyre_source_open(out, &source, err));
    OK(gyre_hparams_read(source, hp, err));
    const bool mix = hp->rot.head_mix;
    assert_true(!mix || (hp->tied && !hp->rot.head.n));
    gyre_hparams_free(hp);
    free(hp);
    gyre_source_close(source);
    return mix;
}

static void verifies(const char *says)
{
    gyre_error err = {0};
    gyre_verify_result result = {0};
    const gyre_status st = gyre_verify(&(gyre_verify_params){.file = out, .base = in}, &result, &err);
    if (!says && st != GYRE_OK) fail_msg("%s", err.message);
    if (says && (st == GYRE_OK || !strstr(err.message, says))) fail_msg("%d, %s", st, err.message);
}

// Learned matrices are merged like any: the float model with them is the base.
static void merged_models_are_the_base(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "qwen2", "qwen3", "granite"};
    for (int i = 0; i < 8; i++) {
        gyre_quantize_params p = params();
        const bool tied = i % 2, full = i < 6;
        make_base(families[i / 2], tied);
        write_recipe("optrot", 0, 20, 1);
        if (!full) p.profile = "portable";
        p.wbits = 32;
        made(p);
        const double kl = run_divergence(in, out, text, 16, 16);
        printf("%s %s: KL %.1e\n", families[i / 2], full ? tied ? "full, tied" : "full" : "portable", kl);
        assert_true(kl < 1e-6);
        assert_int_equal(has_mix(), full && tied);
        verifies(NULL);
    }
}

static void learning_brings_files_nearer(void **state)
{
    (void)state;
    static const char *const method[] = {"spinquant", "kl", "whip", "kurtosis", "ostquant"};
    // Gentle where the loss is noisy: what is asserted must not hang on the last bits of a BLAS.
    static const double rate[] = {0.1, 1.5, 1.5, 1.5, 0.05};
    for (int i = 0; i < 5; i++) {
        double kl[2];
        make_base("llama", i);
        for (int learned = 0; learned < 2; learned++) {
            json_t *told;
            gyre_quantize_params p = params();
            p.wbits = 8; // what rotations are learned for is activations and the cache
            write_recipe(learned ? method[i] : "none", 33, 60, rate[i]);
            made(p);
            kl[learned] = run_divergence(in, out, text, 4, 4);
            if (!learned) continue;
            told = json_load_file(manifest, 0, NULL);
            json_t *rotations = json_object_get(told, "rotations");
            const double before = json_real_value(json_object_get(rotations, "loss_before")),
                         after = json_real_value(json_object_get(rotations, "loss_after"));
            printf("%s: loss %.5f -> %.5f, KL %.5f -> %.5f\n", method[i], before, after, kl[0], kl[1]);
            assert_true(after < before);
            json_decref(told);
            verifies(NULL);
        }
        if (i) assert_true(kl[1] < 0.97 * kl[0]); // a random model's tokens are not what it expects
    }
}

static void resumes_to_the_same_bytes(const char *method, double rate)
{
    gyre_error err = {0};
    uint64_t n, m;
    make_base("llama", true);
    write_recipe(method, 9, 13, rate);
    made(params());
    char *want = files_read(out, &n), *turned = files_read(beside, &m);
    const int all = run_calls();
    int late = 0;
    for (int at = 1; at <= all; at += 3) {
        gyre_quantize_params p = params();
        assert_int_equal(run_until(p, at, NULL, &err), GYRE_E_CANCELLED);
        p.force = false;
        p.resume = true;
        assert_int_equal(unlink(out), 0);
        if (run_until(p, 0, NULL, &err) != GYRE_OK) fail_msg("after %d of %d calls: %s", at, all, err.message);
        late += run_calls() < all - at + 12;
        for (int k = 0; k < 2; k++) {
            uint64_t have;
            char *got = files_read(k ? beside : out, &have);
            assert_int_equal(have, k ? m : n);
            assert_memory_equal(got, k ? turned : want, have);
            free(got);
        }
    }
    assert_true(late > 0); // it went on, and did not begin again
    free(want);
    free(turned);
}

static void interrupted_anywhere_resumes_to_the_same_bytes(void **state)
{
    (void)state;
    resumes_to_the_same_bytes("spinquant", 0.3);
    resumes_to_the_same_bytes("ostquant", 0.01); // with the moments of its steps
}

// A journal of other stages is not gone on with.
static void other_stages_do_not_resume(void **state)
{
    (void)state;
    gyre_error err = {0};
    gyre_quantize_params p = params();
    make_base("llama", true);
    write_recipe("spinquant", 9, 30, 1.5);
    unlink(out);
    assert_int_equal(run_until(p, 12, NULL, &err), GYRE_E_CANCELLED);
    p.resume = true;
    p.force = false;
    write_recipe("kl", 9, 30, 1.5);
    assert_int_equal(run_until(p, 0, NULL, &err), GYRE_E_IO);
    if (!strstr(err.message, "belongs to another run (recipe_text")) fail_msg("%s", err.message);
    write_recipe("spinquant", 9, 30, 1.5); // and the same one goes on
    if (run_until(p, 0, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
}

static void files_verify_and_reproduce(void **state)
{
    (void)state;
    static const char *texts[] = {text};
    static const char *const families[] = {"qwen2", "llama", "llama", "qwen2", "qwen3", "gemma3"},
                             *const methods[] = {"spinquant", "kl", "kl", "ostquant", "ostquant", "ostquant"};
    for (int i = 0; i < 6; i++) {
        gyre_error err = {0};
        gyre_reproduce_result again = {0};
        gyre_quantize_params p = params();
        uint64_t n;
        make_base(families[i], i != 1);
        const unsigned steps = i < 3 ? 10 : 30;
        write_recipe(methods[i], 16, steps, i < 3 ? 1.5 : 0.01);
        if (i == 2 || i == 4) p.profile = "portable", p.wgroup = 32;
        made(p);
        verifies(NULL);
        json_t *told = json_load_file(manifest, 0, NULL), *rotations = json_object_get(told, "rotations");
        assert_int_equal(json_integer_value(json_object_get(rotations, "steps")), steps);
        assert_true(json_real_value(json_object_get(rotations, "drift")) <= 1e-6);
        assert_int_equal(json_is_true(json_object_get(rotations, "diagonals")), i >= 3);
        assert_int_equal(json_real_value(json_object_get(rotations, "widest")) > 1.001, i >= 3);
        assert_null(json_object_get(told, "diagonals")); // those that were measured
        json_decref(told);
        const gyre_reproduce_params r = {.manifest = manifest, .base = in, .calib = texts, .n_calib = 1};
        if (gyre_reproduce(&r, &again, &err) != GYRE_OK) fail_msg("%s", err.message);
        char *bytes = files_read(beside, &n);
        bytes[n - 1] ^= 1; // the last number
        FILE *f = fopen(beside, "wb");
        assert_true(f && fwrite(bytes, 1, n, f) == n && !fclose(f));
        free(bytes);
        verifies("SHA-256 differs from the manifest");
        assert_int_equal(unlink(beside), 0);
        verifies("their file");
    }
}

// A gain of a norm that is not what was learned is found, though the linears behind it would excuse it.
static void a_learned_gain_is_held_to_what_was_learned(void **state)
{
    (void)state;
    make_base("llama", true);
    write_recipe("ostquant", 16, 10, 0.05);
    made(params());
    forge_tensor(out, "blk.1.ffn_norm.weight", 1, 0x10, true); // in the 9th digit
    verifies("tensor blk.1.ffn_norm.weight: value 0 is");
}

// Rotations depend on the linear algebra also where no text is read.
static void without_a_text_the_arithmetic_is_told(void **state)
{
    (void)state;
    gyre_error err = {0};
    gyre_reproduce_result again = {0};
    make_base("llama", true);
    write_recipe("optrot", 0, 5, 1);
    made(params());
    json_t *told = json_load_file(manifest, 0, NULL), *arithmetic = json_object_get(told, "arithmetic");
    assert_true(json_is_string(json_object_get(arithmetic, "blas")));
    assert_true(json_is_string(json_object_get(arithmetic, "core")));
    assert_null(json_object_get(arithmetic, "device"));
    assert_null(json_object_get(told, "calibration"));
    json_decref(told);
    const gyre_reproduce_params r = {.manifest = manifest, .base = in};
    if (gyre_reproduce(&r, &again, &err) != GYRE_OK) fail_msg("%s", err.message);
    write_recipe("none", 0, 5, 1);
    made(params());
    told = json_load_file(manifest, 0, NULL);
    assert_true(told && !json_object_get(told, "arithmetic"));
    json_decref(told);
}

// What `auto` became is said, also where it became none.
static void what_auto_became_is_told(void **state)
{
    (void)state;
    make_base("llama", true);
    write_recipe("auto", 0, 5, 1);
    for (uint32_t act = 4; act <= 8; act += 4) {
        gyre_quantize_params p = params();
        p.act = act;
        said_none = 0;
        made(p);
        assert_int_equal(said_none, act == 4);
        json_t *told = json_load_file(manifest, 0, NULL), *rotations = json_object_get(told, "rotations");
        const char *full = json_string_value(json_object_get(told, "recipe_text"));
        assert_int_equal(strstr(full, "optrot") != NULL, act == 8);
        assert_null(strstr(full, "auto"));
        if (act == 8) assert_string_equal(json_string_value(json_object_get(rotations, "method")), "optrot");
        else assert_null(rotations);
        json_decref(told);
    }
}

// What a run before left beside the file goes with that file.
static void rotations_of_an_older_file_go(void **state)
{
    (void)state;
    make_base("llama", true);
    write_recipe("optrot", 0, 5, 1);
    made(params());
    assert_int_equal(access(beside, F_OK), 0);
    write_recipe("none", 0, 5, 1);
    made(params());
    assert_int_not_equal(access(beside, F_OK), 0);
    verifies(NULL);
}

static int stand_in_the_way(void *user, double fraction, double eta, const char *what)
{
    (void)user;
    (void)eta;
    (void)what;
    if (fraction > 0.5) (void)!mkdir(out, 0777);
    return 0;
}

// What belongs to OUT does not stand without it: here its name is taken when all is done.
static void rotations_do_not_come_without_their_file(void **state)
{
    (void)state;
    gyre_quantize_params p = params();
    make_base("llama", true);
    write_recipe("optrot", 0, 5, 1);
    remove(out);
    remove(beside);
    p.progress = stand_in_the_way;
    gyre_error err = {0};
    assert_int_equal(gyre_quantize(&p, NULL, &err), GYRE_E_IO);
    assert_int_not_equal(access(beside, F_OK), 0);
    assert_int_not_equal(access(manifest, F_OK), 0);
    assert_int_equal(rmdir(out), 0);
    p.progress = NULL;
    p.resume = true; // all was done but this
    assert_int_equal(gyre_quantize(&p, NULL, NULL), GYRE_OK);
    assert_int_equal(access(beside, F_OK), 0);
    verifies(NULL);
}

static void impossible_runs_are_refused(void **state)
{
    (void)state;
    make_base("llama", true);
    write_recipe("magic", 9, 3, 1);
    run_refused(params(), "method cannot be magic");
    write_recipe("kl", 0, 3, 1);
    run_refused(params(), "this loss is learned on a text");
    write_recipe("kl", 1, 3, 1);
    run_refused(params(), "some must be held out");
    files_write(recipe, "name: a\nrotate: true\nrounding: [rtn]\nlearn: {method: ostquant}\ndiagonals: {qk: 0.5}\n");
    run_refused(params(), "ostquant learns diagonals for the same places");
    files_write(recipe, "name: a\nrotate: true\nrounding: [gptq]\nlearn: {method: ostquant}\n"
                        "calibration: {outputs: 2}\n");
    run_refused(params(), "outputs are measured before the values' diagonal that ostquant");
    files_write(recipe, "name: a\nrounding: [rtn]\nlearn: {method: optrot}\n");
    run_refused(params(), "rotations are learned that are not merged");
}

int main(void)
{
    snprintf(in, sizeof in, "%s", files_path("in.gguf"));
    snprintf(out, sizeof out, "%s", files_path("out.gguf"));
    snprintf(recipe, sizeof recipe, "%s", files_path("turned.yaml"));
    snprintf(text, sizeof text, "%s", files_path("text.txt"));
    snprintf(beside, sizeof beside, "%s.rotations.safetensors", out);
    snprintf(manifest, sizeof manifest, "%s.manifest.json", out);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merged_models_are_the_base),
        cmocka_unit_test(learning_brings_files_nearer),
        cmocka_unit_test(interrupted_anywhere_resumes_to_the_same_bytes),
        cmocka_unit_test(other_stages_do_not_resume),
        cmocka_unit_test(files_verify_and_reproduce),
        cmocka_unit_test(a_learned_gain_is_held_to_what_was_learned),
        cmocka_unit_test(without_a_text_the_arithmetic_is_told),
        cmocka_unit_test(what_auto_became_is_told),
        cmocka_unit_test(rotations_of_an_older_file_go),
        cmocka_unit_test(rotations_do_not_come_without_their_file),
        cmocka_unit_test(impossible_runs_are_refused),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    files_remove();
    return failed;
}
