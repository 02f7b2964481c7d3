// Logits against outside implementations (tests/data/make_golden.py): tiny models against transformers, from both
// containers and on every kind of device; the demo model against its dequantized weights in PyTorch.
#include "tests/common/device.h"
#include "tests/common/tiny.h"

#include "runtime/util/base.h"
#include "runtime/util/rng.h"

#include <gyre/gyre_eval.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/data/golden_demo.inc"
#include "tests/data/golden_tiny.inc"

enum { TOKENS = 80, VOCAB = 304 };

// The first device of each kind: at most 3. A kind that GYRE_TEST_REQUIRE names and that is missing fails the test.
static int pick_devices(char ids[3][32])
{
    gyre_device_facts all[16];
    int absent, picked = 0;
    const int n = GYRE_MIN(gyre_list_devices(all, (int)GYRE_COUNT(all), NULL, 0, &absent), (int)GYRE_COUNT(all));
    static const char *const kinds[] = {"cpu", "vulkan:", "opencl:"};
    for (size_t k = 0; k < GYRE_COUNT(kinds); k++) {
        int i = 0;
        while (i < n && strncmp(all[i].id, kinds[k], strlen(kinds[k]))) i++;
        if (i < n) memcpy(ids[picked++], all[i].id, sizeof all[i].id);
        else if (device_required(kinds[k])) fail_msg("there is no %.6s, but GYRE_TEST_REQUIRE names it", kinds[k]);
    }
    return picked;
}

// as_gpu: with the kernels of hardware, and steps of few rows, which have kernels of their own there.
static gyre_engine *open_engine(const char *path, const char *device, uint32_t kv, uint32_t context, bool as_gpu)
{
    gyre_error err = {0};
    gyre_engine *engine = NULL;
    const gyre_engine_params params = {
        .device = device, .act = 16, .kv = kv, .context = context, .max_rows = as_gpu ? 8 : 32, .as_hardware = as_gpu};
    if (gyre_engine_open(path, &params, &engine, &err) != GYRE_OK) fail_msg("%s on %s: %s", path, device, err.message);
    return engine;
}

static void logits_of(gyre_engine *engine, const uint32_t *tokens, size_t n, float *out)
{
    gyre_error err = {0};
    if (gyre_logits(engine, tokens, n, out, &err) != GYRE_OK) fail_msg("%s", err.message);
}

// The largest distance, as a share of the largest logit. The KV cache at 16 is of halves (2^-11 of each value), which
// is all that may be left between two f32 models.
static double distance(const float *got, const float *due, uint32_t n)
{
    double worst = 0, largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)got[i] - (double)due[i]));
        largest = fmax(largest, fabs((double)due[i]));
    }
    return isfinite(worst) ? worst / largest : INFINITY;
}

static void tiny_models(void **state)
{
    (void)state;
    static const struct {
        const char *family;
        uint32_t layers, kv_heads, ffn;
        bool tied;
        gyre_rope_scaling scaling;
        float base;
        const float *golden[2]; // after 7 and after 80 tokens
    } variants[] = {
        {"llama", 2, 2, 96, false, GYRE_ROPE_NONE, 10000, {tiny_0_7, tiny_0_80}},
        {"llama", 3, 1, 160, true, GYRE_ROPE_LINEAR, 10000, {tiny_1_7, tiny_1_80}},
        {"llama", 2, 4, 96, false, GYRE_ROPE_LLAMA3, 50000, {tiny_2_7, tiny_2_80}},
        {"mistral", 1, 2, 96, true, GYRE_ROPE_NONE, 10000, {tiny_3_7, tiny_3_80}},
        {"qwen2", 2, 2, 96, false, GYRE_ROPE_NONE, 10000, {tiny_4_7, tiny_4_80}},
        {"qwen2", 1, 1, 96, true, GYRE_ROPE_NONE, 1000000, {tiny_5_7, tiny_5_80}},
        {"qwen3", 2, 2, 96, false, GYRE_ROPE_NONE, 10000, {tiny_6_7, tiny_6_80}},
        {"qwen3", 1, 1, 96, true, GYRE_ROPE_YARN, 10000, {tiny_7_7, tiny_7_80}},
        {"llama-bias", 2, 2, 96, true, GYRE_ROPE_NONE, 10000, {tiny_8_7, tiny_8_80}},
        {"mistral-window", 2, 2, 96, false, GYRE_ROPE_NONE, 10000, {tiny_9_7, tiny_9_80}},
        {"ministral3", 2, 2, 96, true, GYRE_ROPE_YARN, 10000, {tiny_10_7, tiny_10_80}},
        {"phi3", 2, 2, 96, true, GYRE_ROPE_LONG, 10000, {tiny_11_7, tiny_11_80}}, // both of a text beyond 64 tokens
        {"smollm3", 5, 2, 96, true, GYRE_ROPE_NONE, 50000, {tiny_12_7, tiny_12_80}},
        {"granite", 2, 2, 96, true, GYRE_ROPE_NONE, 10000, {tiny_13_7, tiny_13_80}},
        {"gemma3", 6, 2, 96, true, GYRE_ROPE_NONE, 1000000, {tiny_14_7, tiny_14_80}},
        {"llama", 2, 2, 96, true, GYRE_ROPE_YARN, 500, {tiny_15_7, tiny_15_80}},
        {"llama", 2, 2, 96, true, GYRE_ROPE_YARN, 500, {tiny_15_7, tiny_15_80}},
    };
    enum { UNTRUNCATED = 15, DOUBLES = 16 }; // the same model as F64
    static const char *const paths[] = {"golden_tiny.gguf", "golden_tiny_hf"};
    char devices[3][32];
    const int n_devices = pick_devices(devices);
    assert_true(n_devices >= 1);
    for (uint32_t v = 0; v < GYRE_COUNT(variants); v++) {
        struct tiny_options o = tiny_family(variants[v].family);
        o.layers = variants[v].layers, o.kv_heads = variants[v].kv_heads, o.ffn = variants[v].ffn;
        o.tied = variants[v].tied, o.scaling = variants[v].scaling, o.rope_base = variants[v].base;
        o.untruncated = v >= UNTRUNCATED;
        if (v == DOUBLES) o.type = GYRE_DTYPE_F64;
        o.seed = GYRE_MIN(v, (uint32_t)UNTRUNCATED) + 1;
        assert_int_equal(tiny_write_gguf(paths[0], &o), 0);
        assert_int_equal(tiny_write_hf(paths[1], &o), 0);
        uint32_t tokens[TOKENS];
        struct gyre_rng rng = gyre_rng_seed(1000 + o.seed);
        for (int i = 0; i < TOKENS; i++) tokens[i] = (uint32_t)((gyre_rng_next(&rng) >> 40) % VOCAB);
        for (int d = 0; d <= n_devices; d++) { // at last Vulkan again, as a GPU
            const bool as_gpu = d == n_devices;
            const char *device = devices[as_gpu ? GYRE_MIN(1, n_devices - 1) : d];
            // The cpu keeps a cache of floats; of halves six blocks of large gains make more than the others do.
            const uint32_t kv = strcmp(device, "cpu") ? 16 : 32;
            const double bound = kv == 32 ? 1e-4 : o.layers == 6 ? 1e-2 : 1e-3;
            // The containers differ before the device does: both on the cpu, one on the others.
            for (size_t p = 0; p < (d ? 1 : GYRE_COUNT(paths)); p++) {
                float out[VOCAB];
                gyre_engine *engine = open_engine(paths[p], device, kv, 128, as_gpu);
                for (int k = 0; k < 2; k++) {
                    logits_of(engine, tokens, k ? 80 : 7, out);
                    const double off = distance(out, variants[v].golden[k], VOCAB);
                    if (!(off <= bound))
                        fail_msg("variant %u, %s, %s%s, %s, %d tokens: off by %g", v, variants[v].family, device,
                                 as_gpu ? " as a GPU" : "", paths[p], k ? 80 : 7, off);
                }
                gyre_engine_close(engine, NULL);
            }
        }
    }
    remove(paths[0]);
    assert_int_equal(system("rm -r golden_tiny_hf"), 0);
}

static void demo_model(void **state) // a state: as a GPU
{
    static const struct {
        size_t n;
        const uint32_t *top;
        const float *values, *fixed;
    } points[] = {
        {1, demo_1_top, demo_1_top_values, demo_1_fixed},
        {12, demo_12_top, demo_12_top_values, demo_12_fixed},
        {GYRE_COUNT(demo_tokens), demo_68_top, demo_68_top_values, demo_68_fixed},
    };
    const char *path = getenv("GYRE_DEMO_MODEL");
    char devices[3][32];
    if (!path || !*path) skip();
    const int n_devices = pick_devices(devices);
    const char *device = devices[n_devices > 1]; // the cpu device is a reference: slow
    gyre_engine *engine = open_engine(path, device, 16, 128, *state != NULL);
    gyre_engine_info info;
    gyre_engine_describe(engine, &info);
    float *out = malloc(info.vocab * sizeof *out), due[128], got[128];
    assert_non_null(out);
    for (size_t i = 0; i < GYRE_COUNT(points); i++) {
        logits_of(engine, demo_tokens, points[i].n, out);
        for (int k = 0; k < 64; k++) {
            due[k] = points[i].values[k], got[k] = out[points[i].top[k]];
            due[64 + k] = points[i].fixed[k], got[64 + k] = out[5 + 768 * k];
        }
        const double off = distance(got, due, 128);
        if (!(off <= 2e-3)) fail_msg("%zu tokens on %s: off by %g", points[i].n, device, off);
        float highest = -INFINITY;
        for (uint32_t k = 0; k < info.vocab; k++) highest = fmaxf(highest, out[k]);
        // The first is the first, unless the second is as close as the numerics.
        assert_true(out[points[i].top[0]] == highest || points[i].values[0] - points[i].values[1] < 0.05f);
    }
    free(out);
    gyre_engine_close(engine, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tiny_models), cmocka_unit_test(demo_model),
                                       cmocka_unit_test_prestate(demo_model, (void *)1)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
