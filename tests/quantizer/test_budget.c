// What parts of a model cost when they alone are rounded: the estimate ranks them as measured runs do; a budget is
// spent where it spares most, becomes plain exceptions that reproduce, and is refused where it cannot be met.
#include "quantizer/pass/budget.h"
#include "tests/common/files.h"
#include "tests/common/ok.h"
#include "tests/quantizer/run.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char in[256], text[256], out[256];
static const char *texts[] = {text};

static int setup(void **state)
{
    (void)state;
    snprintf(in, sizeof in, "%s", files_path("in.gguf"));
    snprintf(text, sizeof text, "%s", files_path("text.txt"));
    snprintf(out, sizeof out, "%s", files_path("out.gguf"));
    run_base(in, text, "llama", true);
    return 0;
}

static int cleanup(void **state)
{
    (void)state;
    files_remove();
    return 0;
}

static gyre_quantize_params params(const char *rest)
{
    char yaml[2048];
    const char *file = files_path("recipe.yaml");
    snprintf(yaml, sizeof yaml, "name: spent\nrotate: true\n%s", rest);
    files_write(file, yaml);
    return run_params(in, out, file, texts);
}

static void what_spares_most_for_its_bits_comes_first(void **state)
{
    (void)state;
    const double nats[] = {3, 1, 9, 0, NAN, 2}, bits[] = {2, 1, 8, 1, 1, 4};
    static const struct {
        double left;
        const char *chosen;
    } cases[] = {{0, "000000"}, {1, "010000"},    {2, "100000"}, {3, "110000"},
                 {7, "110001"}, {10.5, "101000"}, {99, "111001"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool chosen[6];
        gyre_budget_choose(nats, bits, 6, cases[i].left, chosen);
        for (int k = 0; k < 6; k++)
            if (chosen[k] != (cases[i].chosen[k] == '1')) fail_msg("%g bits: part %d", cases[i].left, k);
    }
}

// ---- estimates against runs -------------------------------------------------------------------------------------

static const char *const products[] = {"qkv", "o", "gate_up", "down"}, *const patterns[] = {"blk.%d.attn_?.weight",
                                                                                            "blk.%d.attn_output.weight",
                                                                                            "blk.%d.ffn_?*",
                                                                                            "blk.%d.ffn_down.weight"};

static json_t *estimate(gyre_quantize_params p, uint32_t windows)
{
    char *doc = NULL;
    OK(gyre_sensitivity(&p, windows, &doc, err));
    json_t *json = json_loads(doc, 0, NULL);
    free(doc);
    assert_non_null(json);
    return json;
}

static double nats(const json_t *cost)
{
    assert_true(json_array_size(cost) == 2 && json_real_value(json_array_get(cost, 1)) >= 0);
    return json_real_value(json_array_get(cost, 0));
}

static double run(const char *rest, uint32_t wbits, uint32_t act, uint32_t kv, uint32_t kv_v)
{
    gyre_quantize_params p = params(rest);
    p.wbits = wbits;
    p.act = act;
    p.kv = kv;
    p.kv_v = kv_v;
    OK(run_until(p, 0, NULL, err));
    return run_divergence(in, out, text, 0, 0);
}

static double rank(const double *x, uint32_t n, uint32_t i)
{
    double r = 0;
    for (uint32_t k = 0; k < n; k++) r += x[k] < x[i];
    return r;
}

// Spearman's, of values that are all different.
static double rank_correlation(const double *a, const double *b, uint32_t n)
{
    double square = 0;
    for (uint32_t i = 0; i < n; i++) square += pow(rank(a, n, i) - rank(b, n, i), 2);
    return 1 - 6 * square / ((double)n * ((double)n * n - 1));
}

static void estimates_rank_as_runs_do(void **state)
{
    (void)state;
    enum { PARTS = 2 * 8 + 2 };
    double said[PARTS], seen[PARTS];
    uint32_t n = 0;
    char rest[256], tensors[64];
    gyre_quantize_params p = params("rounding: [rtn]\n");
    json_t *doc = estimate(p, 64), *block;
    const double base = run("rounding: [rtn]\n", 8, 8, 8, 8);
    for (uint32_t l = 0; l < 2; l++) {
        block = json_array_get(json_object_get(doc, "blocks"), l);
        for (int i = 0; i < 4; i++)
            for (int inputs = 0; inputs < 2; inputs++) {
                snprintf(tensors, sizeof tensors, patterns[i], (int)l);
                snprintf(rest, sizeof rest, "rounding: [rtn]\nexceptions:\n  - {tensors: \"%s\", %s: 4}\n%s", tensors,
                         inputs ? "act" : "wbits", "");
                if (i == 2) // the pattern is of down too
                    snprintf(rest + strlen(rest), sizeof rest - strlen(rest),
                             "  - {tensors: \"blk.%d.ffn_down.weight\", %s: 8}\n", (int)l, inputs ? "act" : "wbits");
                said[n] = nats(json_object_get(json_object_get(block, products[i]), inputs ? "a4" : "w4"));
                seen[n++] = run(rest, 8, 8, 8, 8) - base;
            }
    }
    for (int values = 0; values < 2; values++) {
        said[n] = nats(json_object_get(json_object_get(doc, "total"), values ? "v4" : "k4"));
        seen[n++] = run("rounding: [rtn]\n", 8, 8, values ? 8 : 4, values ? 4 : 8) - base;
    }
    for (uint32_t i = 0; i < n; i++) print_message("estimated %.3g, measured %.3g\n", said[i], seen[i]);
    const double r = rank_correlation(said, seen, n);
    print_message("rank correlation %.3f\n", r);
    json_decref(doc);
    assert_true(r > 0.8);
    for (uint32_t i = 0; i < n; i++) assert_true(said[i] > seen[i] / 3 && said[i] < seen[i] * 3);
}

static void estimates_are_of_the_seed_and_write_nothing(void **state)
{
    (void)state;
    static const char *const self[] = {GYRE_CALIB_SELF, text};
    gyre_quantize_params p = params("rounding: [rtn]\n");
    p.output = NULL;
    json_t *a = estimate(p, 3), *b = estimate(p, 3);
    p.calib = self; // what the model would write itself is left out
    p.n_calib = 2;
    json_t *c = estimate(p, 3);
    p.seed = 1;
    json_t *d = estimate(p, 3);
    assert_true(json_equal(a, b) && json_equal(a, c) && !json_equal(a, d));
    assert_int_equal(json_integer_value(json_object_get(a, "windows")), 3);
    json_decref(a);
    json_decref(b);
    json_decref(c);
    json_decref(d);
    gyre_error why = {0};
    char *doc = NULL;
    p.wbits = 16;
    assert_int_equal(gyre_sensitivity(&p, 0, &doc, &why), GYRE_E_INVALID);
    assert_null(doc);
    assert_string_equal(why.message, "cannot measure sensitivity: at --wbits 16 nothing is rounded; give 4 or 8");
}

static void every_family_has_costs(void **state)
{
    (void)state;
    static const char *const families[] = {"qwen2", "qwen3", "gemma3", "granite", "phi3", "smollm3"};
    for (int f = 0; f < 6; f++) {
        run_base(in, text, families[f], f % 2);
        gyre_quantize_params p = params("r1: online\nrounding: [rtn]\n");
        json_t *doc = estimate(p, 2), *total = json_object_get(doc, "total");
        for (int i = 0; i < 4; i++) {
            const json_t *product = json_object_get(total, products[i]);
            const double a8 = nats(json_object_get(product, "a8")), a4 = nats(json_object_get(product, "a4"));
            assert_true(a8 > 0 && a4 > 20 * a8 && nats(json_object_get(product, "w4")) > 0);
        }
        assert_true(nats(json_object_get(total, "k4")) > 20 * nats(json_object_get(total, "k8")));
        assert_true(nats(json_object_get(total, "v4")) > 20 * nats(json_object_get(total, "v8")));
        json_decref(doc);
    }
    run_base(in, text, "llama", true);
}

// A clip that the recipe says is there at 8 bits, too, and costs more than the levels do.
static void clips_are_the_recipes(void **state)
{
    (void)state;
    static const char *const at8[] = {"k8", "v8"};
    json_t *whole = estimate(params("rounding: [rtn]\n"), 2),
           *cut = estimate(params("rounding: [rtn]\nactivations: {clip: 0.7}\ncache: {clip: 0.7}\n"), 2);
    json_t *a = json_object_get(whole, "total"), *b = json_object_get(cut, "total");
    for (int i = 0; i < 4; i++)
        assert_true(nats(json_object_get(json_object_get(b, products[i]), "a8")) >
                    2 * nats(json_object_get(json_object_get(a, products[i]), "a8")));
    for (int i = 0; i < 2; i++) assert_true(nats(json_object_get(b, at8[i])) > 2 * nats(json_object_get(a, at8[i])));
    json_decref(whole);
    json_decref(cut);
}

// ---- budgets ----------------------------------------------------------------------------------------------------

static json_t *manifest_of(void)
{
    char path[320];
    snprintf(path, sizeof path, "%s.manifest.json", out);
    json_t *manifest = json_load_file(path, 0, NULL);
    assert_non_null(manifest);
    return manifest;
}

static void a_budget_becomes_exceptions(void **state)
{
    (void)state;
    static const char format[] = "seeds: 2\ncalibration: {windows: 9, tokens: 32}\nactivations: {clip: auto}\n"
                                 "rounding:\n  - gptq\n%s";
    char rest[512];
    snprintf(rest, sizeof rest, format, "budget: {bits: 6, act: 5.5}\n");
    gyre_quantize_summary summary = {0};
    gyre_quantize_params p = params(rest);
    OK(run_until(p, 0, &summary, err));
    assert_true(summary.bits_per_weight <= 6 && summary.bits_per_weight > 5);
    gyre_quantize_summary_free(&summary);
    const int all = run_calls();
    const double spent = run_divergence(in, out, text, 0, 0);
    json_t *manifest = manifest_of();
    const char *recipe = json_string_value(json_object_get(manifest, "recipe_text"));
    if (!recipe) recipe = json_string_value(json_object_get(json_object_get(manifest, "settings"), "recipe_text"));
    assert_non_null(recipe);
    assert_null(strstr(recipe, "budget"));
    assert_non_null(strstr(recipe, "wbits: 8"));
    assert_non_null(strstr(recipe, "act: 8"));

    gyre_error why = {0};
    gyre_verify_result verified;
    gyre_reproduce_result again;
    const gyre_verify_params v = {.size = sizeof v, .file = out, .base = in};
    OK(gyre_verify(&v, &verified, err));
    const gyre_reproduce_params r = {
        .size = sizeof r, .manifest = files_path("out.gguf.manifest.json"), .base = in, .calib = texts, .n_calib = 1};
    OK(gyre_reproduce(&r, &again, err));
    assert_true(!again.differing && !again.metadata_differs);

    uint64_t bytes, n;
    char *want = files_read(out, &bytes);
    for (int at = 2; at < all; at += all / 3) { // while it is spent, and later
        assert_int_equal(run_until(p, at, NULL, &why), GYRE_E_CANCELLED);
        gyre_quantize_params on = p;
        on.resume = true;
        OK(run_until(on, 0, NULL, err));
        char *got = files_read(out, &n);
        assert_int_equal(n, bytes);
        assert_memory_equal(got, want, n);
        free(got);
    }
    free(want);
    json_decref(manifest);

    snprintf(rest, sizeof rest, format, "");
    OK(run_until(params(rest), 0, NULL, err));
    const double without = run_divergence(in, out, text, 0, 0);
    print_message("KL at 4 bits %.5f, with the budget %.5f\n", without, spent);
    assert_true(spent < without);
}

static void budgets_that_cannot_be_met_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *budget;
        uint32_t wbits, act;
        const char *format, *line;
    } cases[] = {
        {"bits: 4", 4, 4, NULL,
         "cannot meet the recipe's budget (bits: 4): with these settings weights take, with their scales, "},
        {"bits: 6", 8, 4, NULL,
         "cannot meet the recipe's budget (bits: 6): with these settings weights take, with their "},
        {"act: 6", 4, 8, NULL,
         "cannot meet the recipe's budget (act: 6): with these settings activations have 8.000 bits before it is "
         "spent; "
         "give that or more, or --act 4"},
        {"act: 17", 4, 4, NULL, "cannot read recipe ("},
        {"bits: -1", 4, 4, NULL, "cannot read recipe ("},
        {"head: 8", 4, 4, NULL, "cannot read recipe ("},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char rest[256];
        gyre_error why = {0};
        snprintf(rest, sizeof rest, "rounding: [rtn]\nbudget: {%s}\n", cases[i].budget);
        gyre_quantize_params p = params(rest);
        p.wbits = cases[i].wbits;
        p.act = cases[i].act;
        const gyre_status st = gyre_quantize(&p, NULL, &why);
        if (st == GYRE_OK || strncmp(why.message, cases[i].line, strlen(cases[i].line)))
            fail_msg("%s: %s", cases[i].budget, why.message);
        assert_int_not_equal(gyre_quantize_check(&p, &why), GYRE_OK); // known before any work
    }
    // What the line says it takes is enough.
    const char *before = "weights take, with their scales, ";
    gyre_error why = {0};
    char rest[256];
    gyre_quantize_params p = params("rounding: [rtn]\nbudget: {bits: 4}\n");
    assert_int_equal(gyre_quantize_check(&p, &why), GYRE_E_INVALID);
    assert_non_null(strstr(why.message, before));
    const double least = strtod(strstr(why.message, before) + strlen(before), NULL);
    snprintf(rest, sizeof rest, "rounding: [rtn]\nbudget: {bits: %.3f}\n", least);
    p = params(rest);
    OK(gyre_quantize_check(&p, err));
    p = params("rounding: [rtn]\nbudget: {act: 5}\n"); // nothing is rounded there
    p.act = 16;
    OK(gyre_quantize(&p, NULL, err));
    gyre_recipe_info info;
    OK(gyre_recipe_inspect(p.recipe, &info, err));
    assert_true(info.calibrates); // its budget reads a text, though no stage does
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_spares_most_for_its_bits_comes_first),
        cmocka_unit_test(estimates_rank_as_runs_do),
        cmocka_unit_test(estimates_are_of_the_seed_and_write_nothing),
        cmocka_unit_test(every_family_has_costs),
        cmocka_unit_test(clips_are_the_recipes),
        cmocka_unit_test(a_budget_becomes_exceptions),
        cmocka_unit_test(budgets_that_cannot_be_met_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, cleanup);
}
