// Activations of single taps, in runs that calibrate, choose and learn: a run whose every tap is an exception makes the
// tensors of the run of that width; what is rounded for a tap sees its bits and no other tap's; files verify and
// reproduce.
#include "tests/common/files.h"
#include "tests/quantizer/run.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char in[256], text[256];

static int setup(void **state)
{
    (void)state;
    snprintf(in, sizeof in, "%s", files_path("in.gguf"));
    snprintf(text, sizeof text, "%s", files_path("text.txt"));
    run_base(in, text, "llama", true);
    return 0;
}

static int cleanup(void **state)
{
    (void)state;
    files_remove();
    return 0;
}

// The manifest of a run of `recipe` with these exceptions at `act` bits.
static json_t *make(const char *name, const char *recipe, const char *exceptions, uint32_t act)
{
    static const char *texts[] = {text};
    char yaml[1024], path[320];
    gyre_error err = {0};
    const char *file = files_path("recipe.yaml"), *out = files_path(name);
    snprintf(yaml, sizeof yaml, "name: taps\nrotate: true\n%sexceptions: [%s]\n", recipe, exceptions);
    files_write(file, yaml);
    gyre_quantize_params p = run_params(in, out, file, texts);
    p.act = act;
    if (run_until(p, 0, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
    snprintf(path, sizeof path, "%s.manifest.json", out);
    json_t *manifest = json_load_file(path, 0, NULL);
    assert_non_null(manifest);
    return manifest;
}

// The hash of a tensor.
static const char *hash(const json_t *manifest, const char *name)
{
    const json_t *row;
    size_t i;
    json_array_foreach(json_object_get(manifest, "tensors"), i, row)
    {
        if (!strcmp(json_string_value(json_object_get(row, "name")), name))
            return json_string_value(json_object_get(row, "sha256"));
    }
    return "";
}

static void all_taps_are_a_run_of_that_width(void **state)
{
    (void)state;
    static const char format[] = "seeds: 3\n"
                                 "calibration: {windows: 9, tokens: 32}\n"
                                 "activations: {clip: auto, group: %u}\n"
                                 "cache: {clip: auto, centre: true}\n"
                                 "rounding:\n"
                                 "  - gptq: {clip: hessian}\n"
                                 "  - descent: {sweeps: 2}\n"
                                 "distill: {steps: 6, rate: 0.005, clip_rate: 0.01}\n";
    static const uint32_t run[][3] = {{4, 8, 0}, {4, 8, 16}, {8, 4, 16}, {16, 4, 0}};
    for (size_t i = 0; i < sizeof run / sizeof *run; i++) {
        char all[64], recipe[512];
        snprintf(recipe, sizeof recipe, format, run[i][2]);
        snprintf(all, sizeof all, "{tensors: '*', act: %u}", run[i][0]);
        json_t *plain = make("plain.gguf", recipe, "", run[i][0]), *taps = make("taps.gguf", recipe, all, run[i][1]);
        json_t *was = json_object_get(plain, "choice"), *is = json_object_get(taps, "choice");
        assert_true(json_equal(json_object_get(plain, "tensors"), json_object_get(taps, "tensors")));
        assert_true(json_equal(json_object_get(was, "surrogates"), json_object_get(is, "surrogates")));
        if (run[i][0] == 4) { // chosen for the only taps of 4 bits
            const double clip = json_real_value(json_object_get(was, "act_clip"));
            assert_true(run[i][2] || clip < 1);
            assert_true(clip == json_real_value(json_object_get(is, clip < 1 ? "tap_clip" : "act_clip")));
            assert_null(json_object_get(was, "tap_clip"));
        }
        assert_true(run_divergence(in, files_path("taps.gguf"), text, 0, 0) ==
                    run_divergence(in, files_path("plain.gguf"), text, 0, 0));
        json_decref(plain);
        json_decref(taps);
    }
}

static void what_is_rounded_sees_its_own_tap(void **state)
{
    (void)state;
    static const char recipe[] =
        "calibration: {windows: 9, tokens: 32}\nactivations: {clip: 0.95}\nrounding:\n  - gptq\n",
                      down[] = "{tensors: '*ffn_down*', act: 8}";
    static const char *const names[] = {"attn_q", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    json_t *plain = make("plain.gguf", recipe, "", 4), *taps = make("taps.gguf", recipe, down, 4);
    for (int i = 0; i < 10; i++) { // up to the first block's down all is as it was
        char name[64];
        snprintf(name, sizeof name, "blk.%d.%s.weight", i / 5, names[i % 5]);
        const char *was = hash(plain, name), *is = hash(taps, name);
        assert_true(*was && *is);
        if ((strcmp(was, is) == 0) != (i < 4)) fail_msg("%s: %s", name, i < 4 ? "other codes" : "the same codes");
    }
    const double before = run_divergence(in, files_path("plain.gguf"), text, 0, 0),
                 after = run_divergence(in, files_path("taps.gguf"), text, 0, 0);
    print_message("down at 4 bits %.5f, at 8 %.5f\n", before, after);
    assert_true(after < before);
    json_decref(plain);
    json_decref(taps);
}

// Clips are learned of taps that have 4 bits; those of the others stay what they were chosen.
static void clips_are_learned_of_taps_of_4_bits(void **state)
{
    (void)state;
    static const char recipe[] =
        "calibration: {windows: 64, tokens: 32}\nactivations: {clip: 0.9}\nrounding:\n  - gptq\n"
        "distill: {steps: 64, rate: 0.005, clip_rate: 0.01}\n",
                      down[] = "{tensors: '*ffn_down*', act: 8}";
    static const char *texts[] = {text};
    json_decref(make("taps.gguf", recipe, down, 4));
    uint64_t bytes, at = 0;
    char *file = files_read(files_path("taps.gguf"), &bytes);
    assert_non_null(file);
    float clip[8];
    uint32_t found = 0; // two blocks' clips: 0.9 at down, others elsewhere
    for (; at + sizeof clip <= bytes; at += 4) {
        memcpy(clip, file + at, sizeof clip);
        bool good = clip[3] == 0.9f && clip[7] == 0.9f;
        for (int i = 0; i < 8; i++) good &= i % 4 == 3 || (clip[i] > 0.5f && clip[i] < 1 && clip[i] != 0.9f);
        found += good;
    }
    free(file);
    assert_int_equal(found, 1);

    gyre_error err = {0};
    gyre_verify_result verified;
    gyre_reproduce_result again;
    const gyre_verify_params v = {.size = sizeof v, .file = files_path("taps.gguf"), .base = in};
    if (gyre_verify(&v, &verified, &err) != GYRE_OK) fail_msg("%s", err.message);
    const gyre_reproduce_params r = {
        .size = sizeof r, .manifest = files_path("taps.gguf.manifest.json"), .base = in, .calib = texts, .n_calib = 1};
    if (gyre_reproduce(&r, &again, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_true(!again.differing && !again.metadata_differs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_taps_are_a_run_of_that_width),
        cmocka_unit_test(what_is_rounded_sees_its_own_tap),
        cmocka_unit_test(clips_are_learned_of_taps_of_4_bits),
    };
    return cmocka_run_group_tests(tests, setup, cleanup);
}
