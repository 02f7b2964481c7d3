// Rows that count by the float model's sensitivity: measured the same for the same seed, and of the size that they
// should be; runs that weigh by them differ from those that do not, are resumed to the same bytes, and verify.
#include "quantizer/gradient/fisher.h"
#include "quantizer/gradient/teacher.h"
#include "backends/cpu/fast.h"
#include "tests/common/files.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"
#include "tests/quantizer/run.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { WINDOWS = 6, TOKENS = 48, ROWS = WINDOWS * TOKENS };

static const char *in, *out;

static void make_base(const char *family)
{
    struct tiny_options o = tiny_family(family);
    in = files_path("in.gguf");
    out = files_path("out.gguf");
    assert_int_equal(tiny_write_gguf(in, &o), 0);
}

static void measure(const uint32_t *token, uint64_t seed, struct gyre_fisher *f)
{
    gyre_device *device;
    gyre_source *source;
    OK(gyre_fast_device_create(NULL, &device, err));
    OK(gyre_source_open(in, &source, err));
    const struct gyre_fisher_params p = {device, source, token, WINDOWS, TOKENS, seed, .weighs = true};
    OK(gyre_fisher_measure(&p, f, err));
    assert_int_equal(gyre_device_counters(device).live_objects, 0);
    gyre_source_close(source);
    gyre_device_close(device);
}

static void weights_are_what_the_seed_draws(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "qwen2", "qwen3", "gemma3"};
    uint32_t token[ROWS];
    for (int i = 0; i < 4; i++) {
        struct gyre_fisher f[3];
        make_base(families[i]);
        tiny_tokens(token, ROWS, 5, tiny_family(families[i]).vocab);
        for (uint64_t k = 0; k < 3; k++) measure(token, k / 2, &f[k]);
        assert_int_equal(f[0].rows, ROWS);
        const size_t bytes = (size_t)f[0].layers * GYRE_PRODUCTS * ROWS * sizeof(float);
        assert_memory_equal(f[0].weight, f[1].weight, bytes);
        assert_memory_not_equal(f[0].weight, f[2].weight, bytes);
        for (uint32_t l = 0; l < f[0].layers; l++)
            for (int p = 0; p < GYRE_PRODUCTS; p++) {
                const float *w = gyre_fisher_rows(&f[0], l, (gyre_product)p);
                double sum = 0, square = 0;
                for (int r = 0; r < ROWS; r++) {
                    assert_true(w[r] > 0 && (double)w[r] <= GYRE_FISHER_CAP); // every row is behind a drawn token
                    sum += (double)w[r];
                    square += (double)w[r] * (double)w[r];
                }
                assert_true(sum / ROWS > 0.5 && sum / ROWS < 1 + 1e-5);      // the cap takes from the mean
                assert_true(square / ROWS > 1.01 * sum / ROWS * sum / ROWS); // rows differ
            }
        for (int k = 0; k < 3; k++) gyre_fisher_free(&f[k]);
    }
}

struct watching {
    gyre_device *device;
    uint64_t bytes;
    unsigned ticks;
};

static gyre_status watch(void *user, uint64_t blocks, gyre_error *err)
{
    struct watching *w = user;
    const uint64_t bytes = gyre_device_counters(w->device).bytes_live;
    (void)err;
    if (bytes > w->bytes) w->bytes = bytes;
    w->ticks += (unsigned)blocks;
    return GYRE_OK;
}

static gyre_status pass(struct watching *w, const gyre_source *source, const uint32_t *token, bool back,
                        gyre_error *err)
{
    struct gyre_fisher f;
    gyre_teacher *teacher;
    const struct gyre_ticker ticker = {watch, w};
    const struct gyre_fisher_params p = {w->device, source, token,          WINDOWS,
                                         TOKENS,    3,      .weighs = true, .ticker = &ticker};
    if (back) {
        GYRE_TRY(gyre_fisher_measure(&p, &f, err));
        gyre_fisher_free(&f);
        return GYRE_OK;
    }
    GYRE_TRY(gyre_teacher_open(w->device, source, token, WINDOWS, TOKENS, &ticker, &teacher, err));
    gyre_teacher_close(teacher);
    return GYRE_OK;
}

// One block at a time, by what measures and by the teacher: a deeper model takes no more on the device.
static void one_block_is_in_memory(void **state)
{
    (void)state;
    for (int back = 0; back < 2; back++) {
        uint64_t bytes[2];
        for (int deep = 0; deep < 2; deep++) {
            struct tiny_options o = tiny_family("llama");
            struct watching w = {0};
            gyre_source *source;
            uint32_t token[ROWS];
            o.layers = deep ? 7 : 2;
            in = files_path("in.gguf");
            assert_int_equal(tiny_write_gguf(in, &o), 0);
            tiny_tokens(token, ROWS, 5, o.vocab);
            OK(gyre_fast_device_create(NULL, &w.device, err));
            OK(gyre_source_open(in, &source, err));
            OK(pass(&w, source, token, back, err));
            assert_int_equal(w.ticks,
                             (back ? 2u : 1u) * WINDOWS * o.layers); // each block of each window, there and back
            bytes[deep] = w.bytes;
            gyre_source_close(source);
            assert_int_equal(gyre_device_counters(w.device).live_objects, 0);
            gyre_device_close(w.device);
        }
        assert_int_equal(bytes[0], bytes[1]);
    }
}

struct looking {
    double square[8][GYRE_PRODUCTS][ROWS]; // [layers]: of the gradients of the windows that were seen
    uint32_t seen[8][GYRE_PRODUCTS], width[GYRE_PRODUCTS];
};

static gyre_status look(void *user, const struct gyre_fisher_look *at, gyre_error *err)
{
    struct looking *l = user;
    (void)err;
    double *square = l->square[at->layer][at->product] + l->seen[at->layer][at->product]++ * TOKENS;
    for (uint32_t i = 0; i < TOKENS * l->width[at->product]; i++)
        square[i / l->width[at->product]] += (double)at->gradient[i] * (double)at->gradient[i];
    return GYRE_OK;
}

// The gradients that are handed out are those whose squares the weights are, and as many windows are seen as asked for.
static void gradients_are_handed_out(void **state)
{
    (void)state;
    uint32_t token[ROWS];
    gyre_device *device;
    gyre_source *source;
    struct gyre_hparams hp;
    make_base("llama");
    tiny_tokens(token, ROWS, 5, tiny_family("llama").vocab);
    OK(gyre_fast_device_create(NULL, &device, err));
    OK(gyre_source_open(in, &source, err));
    OK(gyre_hparams_read(source, &hp, err));
    for (uint32_t looks = 0; looks <= WINDOWS + 3; looks += 3)
        for (int weighs = 0; weighs < 2; weighs++) {
            static struct looking l;
            memset(&l, 0, sizeof l);
            struct gyre_fisher f;
            for (int r = 0; r < GYRE_LINEARS; r++) {
                uint64_t rows, cols;
                gyre_role_shape((gyre_role)r, &hp, &rows, &cols);
                if (gyre_role_present(&hp, (gyre_role)r, 0)) l.width[gyre_roles[r].product] += (uint32_t)rows;
            }
            const struct gyre_fisher_params p = {device, source, token, WINDOWS, TOKENS,
                                                 3,      weighs, looks, look,    .user = &l};
            OK(gyre_fisher_measure(&p, &f, err));
            assert_true((f.weight != NULL) == weighs && f.layers <= 8);
            for (uint32_t k = 0; k < f.layers; k++)
                for (int product = 0; product < GYRE_PRODUCTS; product++) {
                    assert_int_equal(l.seen[k][product], looks < WINDOWS ? looks : WINDOWS);
                    if (looks < WINDOWS || !weighs) continue;
                    const float *w = gyre_fisher_rows(&f, k, (gyre_product)product);
                    double sum = 0;
                    for (int r = 0; r < ROWS; r++) sum += l.square[k][product][r] / ROWS;
                    for (int r = 0; r < ROWS; r++)
                        assert_true(fabs(fmin(l.square[k][product][r] / sum, GYRE_FISHER_CAP) - (double)w[r]) <
                                    1e-4 * (double)w[r]);
                }
            gyre_fisher_free(&f);
        }
    gyre_hparams_free(&hp);
    gyre_source_close(source);
    gyre_device_close(device);
}

static gyre_status run(const char *fisher, int at, bool resume, gyre_error *err)
{
    char yaml[300];
    const char *recipe = files_path("recipe.yaml");
    snprintf(yaml, sizeof yaml,
             "name: weighed\nrotate: true\ncalibration: {windows: 8, tokens: 32%s}\nrounding:\n"
             "  - correct\n  - gptq: {clip: hessian}\n",
             fisher);
    files_write(recipe, yaml);
    const gyre_quantize_params p = {.source = in, .output = out, .recipe = recipe, .resume = resume, .force = true};
    return run_until(p, at, NULL, err);
}

static void runs_weigh_and_resume(void **state)
{
    const char *const weighed = *state;
    gyre_error why = {0};
    uint64_t n, m;
    make_base("llama");
    OK(run(", fisher: false", 0, false, err));
    char *plain = files_read(out, &m);
    OK(run("", 0, false, err));
    char *preset = files_read(out, &n);
    assert_int_equal(n, m);
    assert_memory_equal(plain, preset, n);
    assert_true(run_weighed() == 0 && run_fraction() == 1);
    OK(run(weighed, 0, false, err));
    assert_true(run_weighed() > 0 && run_weighed() < 1 && run_fraction() == 1);
    const int all = run_calls();
    char *want = files_read(out, &n);
    assert_memory_not_equal(want + n / 2, plain + m / 2, n / 2 < m / 2 ? n / 2 : m / 2);
    for (int at = 3; at < all; at += 7) {
        assert_int_equal(run(weighed, at, false, &why), GYRE_E_CANCELLED);
        OK(run(weighed, 0, true, err));
        char *got = files_read(out, &m);
        assert_int_equal(m, n);
        assert_memory_equal(got, want, n);
        free(got);
    }
    const gyre_verify_params v = {.file = out, .base = in};
    gyre_verify_result result = {0};
    OK(gyre_verify(&v, &result, err));
    free(plain);
    free(preset);
    free(want);
}

// A run that goes on behind its last block rounds nothing more: it measures nothing for that.
static void what_is_rounded_is_not_weighed_again(void **state)
{
    (void)state;
    int calls[2];
    gyre_error why = {0};
    make_base("llama");
    for (int weighs = 0; weighs < 2; weighs++) {
        char end[100];
        snprintf(end, sizeof end, "%s}\ndistill: {steps: 2", weighs ? ", outputs: 4, fisher: true" : "");
        OK(run(end, 0, false, err));
        assert_int_equal(run(end, run_calls() - 1, false, &why), GYRE_E_CANCELLED);
        OK(run(end, 0, true, err));
        calls[weighs] = run_calls();
    }
    assert_int_equal(calls[0], calls[1]);
}

// What differentiates whole windows takes windows of the context where the recipe's are longer; the manifest says so.
static void windows_are_no_longer_than_the_context(void **state)
{
    (void)state;
    static const char *const differentiates[] = {
        "calibration: {windows: 2, tokens: 513, fisher: true}\n",
        "calibration: {windows: 2, tokens: 513, outputs: 1}\n",
        "calibration: {windows: 3, tokens: 513}\ndistill: {steps: 1}\n",
        "rotate: true\ncalibration: {windows: 2, tokens: 513}\nlearn: {method: spinquant, steps: 1}\n",
    };
    make_base("llama");
    const char *recipe = files_path("long.yaml"), *told = files_path("out.gguf.manifest.json");
    for (size_t i = 0; i < sizeof differentiates / sizeof *differentiates; i++) {
        char text[256];
        snprintf(text, sizeof text, "name: long\n%srounding: [gptq]\n", differentiates[i]);
        files_write(recipe, text);
        const gyre_quantize_params p = {.source = in, .output = out, .recipe = recipe, .force = true};
        OK(gyre_quantize(&p, NULL, err));
        json_t *m = json_load_file(told, 0, NULL), *calibration = json_object_get(m, "calibration");
        assert_int_equal(json_integer_value(json_object_get(calibration, "tokens")), 512);
        json_decref(m);
    }
}

static int cleanup(void **state)
{
    (void)state;
    files_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_what_the_seed_draws),
        cmocka_unit_test(one_block_is_in_memory),
        cmocka_unit_test(gradients_are_handed_out),
        cmocka_unit_test_prestate(runs_weigh_and_resume, (char[]){", fisher: true"}),
        cmocka_unit_test_prestate(runs_weigh_and_resume, (char[]){", outputs: 4"}),
        cmocka_unit_test_prestate(runs_weigh_and_resume, (char[]){", outputs: 4, fisher: true"}),
        cmocka_unit_test(what_is_rounded_is_not_weighed_again),
        cmocka_unit_test(windows_are_no_longer_than_the_context),
    };
    return cmocka_run_group_tests(tests, NULL, cleanup);
}
