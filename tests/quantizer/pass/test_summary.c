// The closing summary's own arithmetic: a block on the quick host against the cpu's, its divergence against the
// definition, and what a whole run reports.
#include "runtime/model/arch.h"
#include "backends/cpu/fast.h"
#include "runtime/model/block.h"
#include "quantizer/transform/rotate.h"
#include "quantizer/round/rtn.h"
#include "quantizer/pass/divergence.h"
#include "tests/common/tiny.h"
#include "tests/common/files.h"

#include <gyre/gyre_quantize.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { T = 19, D = 64, HD = 16, HEADS = 6, KV = 2, F = 96 };

static float unit(uint32_t *s) { return (float)((*s = *s * 1664525u + 1013904223u) >> 8) / (1 << 24) - 0.5f; }

static double difference(const float *a, const float *b, uint64_t n)
{
    double d = 0, norm = 0;
    for (uint64_t i = 0; i < n; i++) {
        d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)a[i] * a[i];
    }
    return d / norm;
}

static void the_quick_host_runs_the_same_block(void **state)
{
    (void)state;
    static const struct {
        uint32_t wbits, group, act, kv;
        bool interleaved, rotated;
        double limit;
    } run[] = {
        {32, 0, 16, 16, true, false, 1e-7}, {4, 32, 16, 16, false, true, 1e-7}, {4, 0, 8, 8, true, true, 1e-3},
        {8, 32, 8, 4, true, true, 1e-3},    {4, 32, 4, 4, false, true, 2e-2},   {4, 0, 8, 16, true, false, 1e-3},
    };
    gyre_device *device, *quick;
    assert_int_equal(gyre_device_open("cpu", &(struct gyre_device_options){0}, &device, NULL), GYRE_OK);
    assert_int_equal(gyre_fast_device_create(NULL, &quick, NULL), GYRE_OK);
    for (size_t i = 0; i < sizeof run / sizeof *run; i++) {
        struct gyre_hparams hp = {.arch = "llama",
                                  .family = &gyre_arch_llama,
                                  .rope_mscale = 1,
                                  .embed_scale = 1,
                                  .logit_divisor = 1,
                                  .rope_dims = HD,
                                  .n_layers = 1,
                                  .width = D,
                                  .heads = HEADS,
                                  .kv_heads = KV,
                                  .head_dim = HD,
                                  .ffn = F,
                                  .vocab = 9,
                                  .context = 64,
                                  .norm_eps = 1e-5f,
                                  .stream_eps = 1e-5f,
                                  .rope_base = 10000,
                                  .rope_factor = 1,
                                  .rope_interleaved = run[i].interleaved,
                                  .act_clip = 1,
                                  .kv_clip = 1};
        if (run[i].rotated) {
            assert_int_equal(gyre_hadamard_create(F, &hp.rot.r4, NULL), GYRE_OK);
            assert_int_equal(gyre_hadamard_create(HD, &hp.rot.r3_had, NULL), GYRE_OK);
            hp.rot.r3 = true;
        }
        uint32_t seed = 3;
        float norm[D], x[T * D], y[T * D], z[T * D];
        for (int j = 0; j < D; j++) norm[j] = 1 + unit(&seed);
        for (int j = 0; j < T * D; j++) x[j] = 2 * unit(&seed);
        struct gyre_block_weights w = {0};
        w.vector[GYRE_ROLE_attn_norm] = w.vector[GYRE_ROLE_ffn_norm] = norm;
        for (int s = 0; s < GYRE_LINEARS; s++) {
            uint64_t rows, cols;
            gyre_role_shape((gyre_role)s, &hp, &rows, &cols);
            float *f = malloc(rows * cols * sizeof *f);
            for (uint64_t j = 0; j < rows * cols; j++) f[j] = 0.4f * unit(&seed);
            if (run[i].wbits == 32) {
                w.linear[s].f32 = f;
                continue;
            }
            struct gyre_codes c = {.bits = run[i].wbits,
                                   .group = run[i].group ? run[i].group : (uint32_t)cols,
                                   .code = malloc(rows * cols),
                                   .scale = malloc(rows * cols * 2)};
            assert_int_equal(gyre_rtn(f, rows, cols, &c, NULL), GYRE_OK);
            w.linear[s] =
                (struct gyre_block_linear){.codes = c.code, .scales = c.scale, .bits = c.bits, .group = c.group};
            free(f);
        }
        const struct gyre_block_options options = {
            .act_bits = run[i].act, .kv_bits = run[i].kv, .max_rows = T, .act_clip = 1, .kv_clip = 1};
        gyre_block *block, *host;
        gyre_error err = {0};
        if (gyre_block_create(device, &hp, &options, &block, &err) != GYRE_OK ||
            gyre_block_load(block, &w, &err) != GYRE_OK || gyre_block_run(block, x, T, y, &err) != GYRE_OK)
            fail_msg("%s", err.message);
        assert_int_equal(gyre_block_create(quick, &hp, &options, &host, NULL), GYRE_OK);
        assert_int_equal(gyre_block_load(host, &w, NULL), GYRE_OK);
        assert_int_equal(gyre_block_run(host, x, T + 1, z, NULL), GYRE_E_INVALID);
        assert_int_equal(gyre_block_run(host, x, T, z, NULL), GYRE_OK);
        const double d = difference(y, z, T * D);
        if (!(d <= run[i].limit)) fail_msg("run %zu: %g, allowed %g", i, d, run[i].limit);
        gyre_block_destroy(block);
        gyre_block_destroy(host);
        for (int s = 0; s < GYRE_LINEARS; s++) {
            free((void *)(uintptr_t)w.linear[s].f32);
            free((void *)(uintptr_t)w.linear[s].codes);
            free((void *)(uintptr_t)w.linear[s].scales);
        }
        gyre_hadamard_release(&hp.rot.r4);
        gyre_hadamard_release(&hp.rot.r3_had);
    }
    assert_int_equal(gyre_device_counters(quick).live_objects, 0);
    gyre_device_close(quick);
    gyre_device_close(device);
}

enum { VOCAB = 4300, W = 8, TOKENS = 5 }; // three pieces, the last one short

static void rows_of(const void *user, uint64_t first, uint64_t n, float *out)
{
    memcpy(out, (const float *)user + first * W, n * W * sizeof *out);
}

static void divergence_is_its_definition(void **state)
{
    (void)state;
    uint32_t seed = 11;
    float *table[3], z[3][TOKENS * W];
    struct gyre_summary_head head[3];
    for (int h = 0; h < 3; h++) {
        table[h] = malloc(VOCAB * W * sizeof(float));
        for (int i = 0; i < VOCAB * W; i++)
            table[h][i] = (h ? table[0][i] : 0) + unit(&seed) * (h == 2 ? 0 : h ? 0.3f : 3);
        for (int i = 0; i < TOKENS * W; i++) z[h][i] = h ? z[0][i] : 2 * unit(&seed);
        head[h] = (struct gyre_summary_head){z[h], rows_of, table[h]};
    }
    double kl[2], want = 0;
    assert_int_equal(gyre_summary_divergence(head, 3, TOKENS, W, VOCAB, kl, NULL), GYRE_OK);
    for (int t = 0; t < TOKENS; t++) {
        double l[2][VOCAB], sum[2] = {0};
        for (int h = 0; h < 2; h++)
            for (int v = 0; v < VOCAB; v++) {
                l[h][v] = 0;
                for (int i = 0; i < W; i++) l[h][v] += (double)z[h][t * W + i] * table[h][v * W + i];
                sum[h] += exp(l[h][v]);
            }
        for (int v = 0; v < VOCAB; v++)
            want += exp(l[0][v]) / sum[0] * (l[0][v] - log(sum[0]) - l[1][v] + log(sum[1])) / TOKENS;
    }
    assert_true(want > 0.01 && fabs(kl[0] - want) < 1e-5);
    assert_true(fabs(kl[1]) < 1e-9); // the same model
    for (int h = 0; h < 3; h++) free(table[h]);
}

// The device path, the host path and a resumed run report the same figures; wide weights report less error than narrow
// ones.
static gyre_quantize_summary summary_of(const char *in, const char *device, uint32_t wbits,
                                        int (*progress)(void *, double, double, const char *), bool resume)
{
    gyre_quantize_summary s = {0};
    gyre_error err = {0};
    const gyre_quantize_params p = {.source = in,
                                    .output = files_path("out.gguf"),
                                    .recipe = "quarot-rtn",
                                    .wgroup = 0,
                                    .wbits = wbits,
                                    .device = device,
                                    .force = !resume,
                                    .resume = resume,
                                    .progress = progress,
                                    .report_dir = files_path("reports/here")};
    const gyre_status st = gyre_quantize(&p, &s, &err);
    if (st != GYRE_OK && st != GYRE_E_CANCELLED) fail_msg("%s", err.message);
    return s;
}

static int calls;
static int stop_late(void *user, double fraction, double eta, const char *what)
{
    (void)user;
    (void)fraction;
    (void)eta;
    (void)what;
    return ++calls == 12;
}

static void close_to(const gyre_quantize_summary *a, const gyre_quantize_summary *b)
{
    assert_int_equal(a->summary_tokens, b->summary_tokens);
    assert_true(fabs(a->rtn_kl / b->rtn_kl - 1) < 0.05 && fabs(a->recipe_kl / b->recipe_kl - 1) < 0.05);
    for (uint32_t l = 0; l < a->layers; l++)
        assert_true(fabs(a->layer[l].rtn_error / b->layer[l].rtn_error - 1) < 0.05 &&
                    fabs(a->layer[l].recipe_error / b->layer[l].recipe_error - 1) < 0.05);
}

static void runs_report_the_same_everywhere(void **state)
{
    (void)state;
    struct tiny_options options = tiny_defaults();
    options.tied = true;
    const char *in = files_path("tok.gguf");
    assert_int_equal(tiny_write_gguf(in, &options), 0);
    gyre_quantize_summary host = summary_of(in, NULL, 4, NULL, false), cpu = summary_of(in, "cpu", 4, NULL, false),
                          wide = summary_of(in, NULL, 8, NULL, false);
    assert_true(host.summary_tokens > 200 && host.recipe_kl > 0 && host.layer[1].recipe_error > 0);
    close_to(&host, &cpu);
    assert_true(wide.rtn_kl < 0.1 * host.rtn_kl && wide.recipe_kl < 0.1 * host.recipe_kl &&
                wide.layer[0].rtn_error < host.layer[0].rtn_error);
    calls = 0;
    remove(files_path("out.gguf"));
    gyre_quantize_summary none = summary_of(in, NULL, 4, stop_late, true),
                          resumed = summary_of(in, NULL, 4, NULL, true);
    assert_null(none.layer);
    assert_int_equal(resumed.resumed_layers, 1);
    close_to(&host, &resumed);
    uint64_t n;
    char line[64], *report = files_read(files_path("reports/here/report.md"), &n);
    assert_non_null(report);
    snprintf(line, sizeof line, "| KL to the float model, nats | %.5f | %.5f |", resumed.rtn_kl, resumed.recipe_kl);
    assert_non_null(strstr(report, line));
    free(report);
    gyre_quantize_summary_free(&host);
    gyre_quantize_summary_free(&cpu);
    gyre_quantize_summary_free(&wide);
    gyre_quantize_summary_free(&resumed);
}

static void absent_devices_and_texts_are_refused_first(void **state)
{
    (void)state;
    struct tiny_options options = tiny_defaults();
    const char *in = files_path("tok.gguf");
    assert_int_equal(tiny_write_gguf(in, &options), 0);
    gyre_quantize_summary s;
    gyre_error err = {0};
    gyre_quantize_params p = {.source = in, .output = files_path("never.gguf"), .wgroup = 0, .device = "vulkan:77"};
    uint64_t n;
    assert_int_equal(gyre_quantize(&p, &s, &err), GYRE_E_NO_DEVICE);
    p.device = NULL;
    p.recipe = "quarot-gptq"; // only what calibrates reads a text
    p.calib = (const char *const[]){files_path("no-text.txt")};
    p.n_calib = 1;
    assert_int_equal(gyre_quantize(&p, &s, &err), GYRE_E_IO);
    assert_null(files_read(files_path("never.gguf.part"), &n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_quick_host_runs_the_same_block),
        cmocka_unit_test(divergence_is_its_definition),
        cmocka_unit_test(runs_report_the_same_everywhere),
        cmocka_unit_test(absent_devices_and_texts_are_refused_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
