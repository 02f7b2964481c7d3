// A rotated, unrounded model is the model: logits of the quantizer's float output against the original's, through the
// engine (docs/numerics.md states the bound), on tiny models of awkward widths and on the demo model.
#include "tests/common/tiny.h"

#include <gyre/gyre_eval.h>
#include <gyre/gyre_quantize.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { TOKENS = 8 };

// Largest difference as a share of the largest logit; *same: the same top-1, or a gap too small to tell.
static double compare(const float *a, const float *b, uint32_t n, bool *same)
{
    double worst = 0, top = 0;
    uint32_t best_a = 0, best_b = 0;
    for (uint32_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)a[i] - b[i]));
        top = fmax(top, fabs((double)a[i]));
        if (a[i] > a[best_a]) best_a = i;
        if (b[i] > b[best_b]) best_b = i;
    }
    *same = best_a == best_b || (double)a[best_a] - (double)a[best_b] <= 2 * worst;
    return worst / top;
}

// On the cpu device with an f32 cache: nothing but the rotation tells the two models apart.
static float *logits(const char *path, const char *device, uint32_t seed, uint32_t *vocab)
{
    gyre_engine *engine = NULL;
    gyre_error err = {0};
    gyre_engine_info info;
    const gyre_engine_params p = {.device = device,
                                  .act = 16,
                                  .kv = strcmp(device, "cpu") == 0 ? 32 : 16,
                                  .context = 64,
                                  .max_rows = 64,
                                  .cache_dir = ""};
    if (gyre_engine_open(path, &p, &engine, &err) != GYRE_OK) fail_msg("%s", err.message);
    gyre_engine_describe(engine, &info);
    uint32_t tokens[TOKENS];
    for (uint32_t i = 0; i < TOKENS; i++) tokens[i] = 3 + (i * 7919 + seed * 104729) % (info.vocab - 3);
    float *out = malloc(info.vocab * sizeof *out);
    if (gyre_logits(engine, tokens, TOKENS, out, &err) != GYRE_OK) fail_msg("%s", err.message);
    gyre_engine_close(engine, NULL);
    *vocab = info.vocab;
    return out;
}

static void quantize(const char *model, const char *out, const char *recipe, const char *profile)
{
    gyre_error err = {0};
    gyre_quantize_summary summary = {0};
    const gyre_quantize_params p = {.source = model,
                                    .output = out,
                                    .recipe = recipe,
                                    .wbits = 32,
                                    .wgroup = 0,
                                    .profile = profile,
                                    .seed = 3,
                                    .device = "cpu",
                                    .force = true};
    if (gyre_quantize(&p, &summary, &err) != GYRE_OK) fail_msg("%s", err.message);
    gyre_quantize_summary_free(&summary);
}

// The rotated `model` against `original`: the same weights, not rotated.
static void rotated_equals(const char *model, const char *original, const char *profile, const char *device,
                           double bound, uint32_t seeds)
{
    const char *out = "rotated-test.gguf";
    quantize(model, out, "quarot-rtn", profile);
    for (uint32_t seed = 0; seed < seeds; seed++) {
        uint32_t n;
        bool same;
        float *a = logits(original, device, seed, &n), *b = logits(out, device, seed, &n);
        const double d = compare(a, b, n, &same);
        print_message("%s, %s, seed %u: %.2g of the largest logit\n", profile, device, seed, d);
        if (d > bound || !same)
            fail_msg("%s, %s: rotated logits differ by %g (bound %g)%s", profile, device, d, bound,
                     same ? "" : ", another best token");
        free(a);
        free(b);
    }
    unlink(out);
    unlink("rotated-test.gguf.manifest.json");
}

static void test_tiny(void **state)
{
    (void)state;
    struct tiny_options o = tiny_defaults();
    const uint32_t widths[][2] = {
        {64, 96}, {96, 80}, {144, 176}}; // D and F: 2^6, 12·2^3, 12·12; 12·2^3, 20·2^2, 44·2^2
    for (int i = 0; i < 3; i++) {
        o.width = widths[i][0];
        o.ffn = widths[i][1];
        o.tied = i != 1;
        assert_int_equal(tiny_write_gguf("rotated-tiny.gguf", &o), 0);
        rotated_equals("rotated-tiny.gguf", "rotated-tiny.gguf", "full", "cpu", 1e-5, 3);
        rotated_equals("rotated-tiny.gguf", "rotated-tiny.gguf", "portable", "cpu", 1e-5, 3);
    }
    unlink("rotated-tiny.gguf");
}

// The file's types are expanded to f16 at load; its exact values in f32 are what the rotation must preserve.
static void test_demo_model(void **state)
{
    (void)state;
    const char *model = getenv("GYRE_DEMO_MODEL"), *plain = "rotated-plain.gguf";
    if (!model) skip();
    quantize(model, plain, "rtn", "full");
    rotated_equals(model, plain, "full", "cpu", 1e-4, 1);
    unlink(plain);
    unlink("rotated-plain.gguf.manifest.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tiny), cmocka_unit_test(test_demo_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
