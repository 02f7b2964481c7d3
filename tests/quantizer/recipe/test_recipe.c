// Recipes: the built-in texts, defaults, both written forms, every kind of bad text by line and column, mutations.
#include "quantizer/recipe/builtin.h"
#include "quantizer/recipe/fields.h"
#include "runtime/util/base.h"
#include "runtime/util/rng.h"
#include "tests/common/comma.h"
#include "tests/common/files.h"

#include <gyre/gyre_quantize.h>

#include <glob.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static gyre_status parse(const char *text, struct gyre_recipe *r, gyre_error *err)
{
    *err = (gyre_error){0};
    return gyre_recipe_parse(text, strlen(text), "my.yaml", r, err);
}

static void parse_good(const char *text, struct gyre_recipe *r)
{
    gyre_error err;
    if (parse(text, r, &err) != GYRE_OK) fail_msg("%s: %s", text, err.message);
}

// The written form reads as the same recipe and is written the same again.
static void assert_round_trip(const struct gyre_recipe *r)
{
    struct gyre_recipe again;
    char *text = gyre_recipe_text(r);
    assert_non_null(text);
    parse_good(text, &again);
    assert_memory_equal(r, &again, sizeof again);
    char *twice = gyre_recipe_text(&again);
    assert_string_equal(text, twice);
    free(text);
    free(twice);
}

// ---- good texts -------------------------------------------------------------------------------------------

static void built_in_recipes_are_what_they_say(void **state)
{
    (void)state;
    static const char *const names[] = {"rtn",       "smoothquant", "awq",  "quarot-rtn", "quarot-gptq",
                                        "spinquant", "ostquant",    "fast", "best"};
    static const bool reads_text[] = {false, true, true, false, true, true, true, true, true};
    struct gyre_recipe r;
    gyre_error err = {0};
    for (uint32_t i = 0; i < GYRE_COUNT(names); i++) {
        assert_string_equal(gyre_recipe_name(i), names[i]);
        assert_int_equal(gyre_recipe_find(names[i], &r, &err), GYRE_OK);
        assert_string_equal(r.name, names[i]);
        assert_string_equal(r.about, gyre_recipe_about(i));
        assert_string_equal(r.source, gyre_recipe_source(i));
        assert_true(r.about[0] && r.source[0]);
        assert_int_equal(gyre_recipe_calibrates(&r), reads_text[i]);
        assert_int_equal(r.rotate, i > 2);
        assert_round_trip(&r);
        // Keys stand in any order, however many there are.
        char *text = gyre_recipe_text(&r), *turned = NULL;
        assert_non_null(text);
        const size_t name = strcspn(text, "\n") + 1, bytes = strlen(text);
        turned = malloc(bytes + 64);
        const int n = snprintf(turned, bytes + 64, "%sbudget: {bits: 0, act: 0}\n%.*s", text + name, (int)name, text);
        assert_true(n > 0 && !strncmp(text, "name: ", 6));
        struct gyre_recipe other;
        parse_good(turned, &other);
        assert_memory_equal(&other, &r, sizeof r);
        free(text);
        free(turned);
    }
    assert_null(gyre_recipe_name(GYRE_COUNT(names)));
    assert_null(gyre_recipe_about(GYRE_COUNT(names)));
    assert_null(gyre_recipe_source(UINT32_MAX));

    assert_int_equal(gyre_recipe_find("quarot-gptq", &r, &err), GYRE_OK);
    const struct gyre_stage *s = &r.stage[0];
    assert_true(r.n_stages == 1 && s->kind == GYRE_STAGE_GPTQ && s->clip == GYRE_CLIP_WEIGHTS && s->act_order);
    assert_true(s->damp == 0.01 && s->scales == 1 && r.calibration.windows == 32 && r.calibration.tokens == 512);
    assert_true(r.act_clip == 1 && r.kv_clip == 1 && r.seeds == 1 && r.learn.method == GYRE_LEARN_NONE);
    assert_int_equal(gyre_recipe_find("awq", &r, &err), GYRE_OK);
    assert_true(r.diagonals.by == GYRE_DIAGONAL_INPUTS && r.diagonals.norm == GYRE_AUTO && r.diagonals.qk == 0);
    assert_int_equal(gyre_recipe_find("smoothquant", &r, &err), GYRE_OK);
    assert_true(r.diagonals.by == GYRE_DIAGONAL_LARGEST && r.diagonals.norm == 0.5 && r.diagonals.up_down == 0);
    assert_int_equal(gyre_recipe_find("spinquant", &r, &err), GYRE_OK);
    assert_true(r.learn.method == GYRE_LEARN_SPINQUANT && r.learn.steps == 100 && r.learn.rate == 1.5);
    assert_true(r.learn.act == 4 && r.learn.kv == 4 && r.n_stages == 1 && r.stage[0].kind == GYRE_STAGE_GPTQ);
    struct gyre_recipe fast;
    assert_int_equal(gyre_recipe_find("fast", &fast, &err), GYRE_OK);
    assert_int_equal(gyre_recipe_find("best", &r, &err), GYRE_OK);
    static const gyre_stage_kind ladder[] = {GYRE_STAGE_CORRECT, GYRE_STAGE_GPTQ, GYRE_STAGE_DESCENT, GYRE_STAGE_REFIT,
                                             GYRE_STAGE_DESCENT};
    assert_int_equal(r.n_stages, GYRE_COUNT(ladder));
    for (uint32_t i = 0; i < GYRE_COUNT(ladder); i++) assert_int_equal(r.stage[i].kind, ladder[i]);
    assert_true(r.seeds == 16 && r.act_clip == GYRE_AUTO && r.kv_clip == GYRE_AUTO && !r.kv_centre);
    assert_int_equal(r.act_group, 32);
    assert_true(r.stage[0].alpha == GYRE_AUTO && r.stage[0].residual == GYRE_AUTO && r.stage[1].scales == 3);
    assert_true(r.stage[1].clip == GYRE_CLIP_HESSIAN && r.stage[2].iterations == 4 && r.stage[4].iterations == 2);
    // The same without what takes long.
    assert_true(fast.n_stages == 2 && fast.seeds == 1 && fast.learn.method == GYRE_LEARN_NONE);
    assert_true(fast.calibration.windows == 32 && fast.calibration.tokens == 512 && r.calibration.windows == 128);
    assert_true(fast.act_clip == r.act_clip && fast.kv_clip == r.kv_clip && fast.act_group == r.act_group);
    assert_memory_equal(&fast.stage[0], &r.stage[0], sizeof *r.stage);
    r.stage[1].scales = 1;
    assert_memory_equal(&fast.stage[1], &r.stage[1], sizeof *r.stage);
}

// What docs/methods.md and docs/quality.md measure with.
static void rungs_are_recipes(void **state)
{
    (void)state;
    glob_t rungs;
    assert_int_equal(glob(GYRE_TEST_DATA "/../../docs/rungs/*.yaml", 0, NULL, &rungs), 0);
    assert_true(rungs.gl_pathc > 10);
    for (size_t i = 0; i < rungs.gl_pathc; i++) {
        struct gyre_recipe r;
        gyre_error err = {0};
        const char *path = rungs.gl_pathv[i], *name = strrchr(path, '/') + 1;
        if (gyre_recipe_find(path, &r, &err) != GYRE_OK) fail_msg("%s", err.message);
        if (strncmp(name, r.name, strlen(r.name)) || strcmp(name + strlen(r.name), ".yaml"))
            fail_msg("%s has the name %s", path, r.name);
        assert_round_trip(&r);
    }
    globfree(&rungs);
}

static void absent_keys_have_defaults(void **state)
{
    (void)state;
    struct gyre_recipe r;
    parse_good("name: a\ndistill: {steps: 3}", &r);
    assert_int_equal(r.n_stages, 0);
    assert_true(r.calibration.windows == 32 && r.distill.batch == 1 && r.distill.windows == 0);
    assert_round_trip(&r);
    parse_good("name: a\nrounding: [rtn]", &r);
    assert_true(!r.rotate && r.seeds == 1 && r.act_clip == 1 && r.kv_clip == 1 && !r.kv_centre && !r.about[0]);
    assert_int_equal(r.act_group, 0);
    assert_true(r.diagonals.norm == 0 && r.diagonals.up_down == 0 && r.diagonals.qk == 0 && r.diagonals.value == 0);
    assert_true(r.calibration.windows == 0 && r.calibration.tokens == 0 && r.n_exceptions == 0 && r.n_stages == 1);
    assert_true(r.stage[0].kind == GYRE_STAGE_RTN && r.stage[0].clip == GYRE_CLIP_WEIGHTS && r.stage[0].damp == 0);

    parse_good("name: a\nrounding: [correct, gptq: , descent, {descent: {}}]", &r);
    assert_true(r.stage[0].alpha == GYRE_AUTO && r.stage[0].residual == GYRE_AUTO && r.stage[0].damp == 0.01);
    assert_true(r.stage[1].clip == GYRE_CLIP_WEIGHTS && r.stage[1].damp == 0.01 && r.stage[1].act_order);
    assert_true(r.stage[1].scales == 1 && r.stage[1].iterations == 0 && r.stage[2].iterations == 4);
    assert_true(r.stage[3].iterations == 4 && r.calibration.windows == 32 && r.calibration.tokens == 512);
    parse_good("name: a\nrounding:\n- admm\n", &r);
    assert_true(r.stage[0].iterations == 30 && r.stage[0].damp == 0.01 && r.stage[0].clip == GYRE_CLIP_WEIGHTS);

    // Whatever needs statistics brings a calibration; sizes that are given stay.
    static const char *const needs[] = {
        "name: a\nrounding: [rtn: {clip: hessian}]",
        "name: a\nrounding: [rtn, descent]",
        "name: a\nrounding: [rtn, refit]",
        "name: a\nrounding: [rtn]\nactivations: {clip: auto}",
        "name: a\nrounding: [rtn]\ncache: {clip: auto}",
        "name: a\nrounding: [rtn]\ncache: {centre: true}",
        "name: a\nrounding: [rtn]\nrotate: true\nseeds: 2",
        "name: a\nrounding: [rtn]\nrotate: true\ndiagonals: {qk: 0.5}",
    };
    for (size_t i = 0; i < GYRE_COUNT(needs); i++) {
        parse_good(needs[i], &r);
        assert_true(gyre_recipe_calibrates(&r) && r.calibration.windows == 32 && r.calibration.tokens == 512);
    }
    parse_good("name: a\nrounding: [gptq]\ncalibration: {tokens: 77}", &r);
    assert_true(r.calibration.windows == 32 && r.calibration.tokens == 77);
    parse_good("name: a\nrounding: [gptq]\ncalibration: {windows: 3}", &r);
    assert_true(r.calibration.windows == 3 && r.calibration.tokens == 512);
    parse_good("name: a\nrounding: [rtn]\ncalibration: {windows: 0, tokens: 77}", &r);
    assert_true(!gyre_recipe_calibrates(&r) && r.calibration.tokens == 0);
    struct gyre_recipe marked; // a byte order mark and the line ends of other systems are no text
    parse_good("\xEF\xBB\xBFname: a\r\nrounding: [rtn]\r\n", &marked);
    assert_string_equal(marked.name, "a");
}

static const char full[] = "%YAML 1.1\n---\n# a comment\n"
                           "name: 'My.own-1_x'\n"
                           "about: \"says \\\"hi\\\" \\\\ caf\303\251: #1\"\n"
                           "source: measured\n  here\n" // folded
                           "rotate: true\n"
                           "seeds: 7\n"
                           "learn: {method: kl, steps: 7, rate: 0.5, act: 8, kv: 16}\n"
                           "diagonals: {by: largest, norm: 3e-1, up_down: 0.1234567890123456, qk: 1, value: 0}\n"
                           "calibration:\n  windows: 5\n  tokens: 100\n  outputs: 3\n"
                           "activations: {clip: 0.9, group: 64}\n"
                           "cache: {clip: 0.95, centre: true}\n"
                           "rounding:\n"
                           "  - correct: {alpha: 0.5, residual: 0, damp: 0.05}\n"
                           "  - admm: {clip: none, damp: 0.000001, iterations: 9}\n"
                           "  - refit: {}\n"
                           "  - descent: {sweeps: 1}\n"
                           "distill: {steps: 3, batch: 2, windows: 9}\n"
                           "exceptions:\n"
                           "  - {tensors: \"blk.*.ffn_down.weight\", wbits: 8, wgroup: 32}\n"
                           "  - {tensors: \"blk.?.attn_output.weight\", wgroup: 0}\n"
                           "  - {tensors: \"*ffn_up*\", act: 16}\n";

static void every_key_is_read_and_written(void **state)
{
    (void)state;
    struct gyre_recipe r;
    parse_good(full, &r);
    assert_string_equal(r.name, "My.own-1_x");
    assert_string_equal(r.about, "says \"hi\" \\ caf\303\251: #1");
    assert_string_equal(r.source, "measured here");
    assert_true(r.rotate && r.seeds == 7 && r.diagonals.norm == 0.3 && r.diagonals.up_down == 0.1234567890123456);
    assert_true(r.learn.method == GYRE_LEARN_KL && r.learn.steps == 7 && r.learn.rate == 0.5);
    assert_true(r.learn.act == 8 && r.learn.kv == 16);
    assert_true(r.diagonals.by == GYRE_DIAGONAL_LARGEST);
    assert_true(r.diagonals.qk == 1 && r.diagonals.value == 0);
    assert_true(r.calibration.outputs == 3 && !r.calibration.fisher);
    assert_true(r.calibration.windows == 5 && r.calibration.tokens == 100 && r.act_clip == 0.9 && r.kv_clip == 0.95);
    assert_int_equal(r.act_group, 64);
    assert_true(r.distill.steps == 3 && r.distill.batch == 2 && r.distill.windows == 9);
    assert_true(r.kv_centre && r.n_stages == 4 && r.stage[0].alpha == 0.5 && r.stage[0].residual == 0);
    assert_true(r.stage[0].damp == 0.05 && r.stage[1].kind == GYRE_STAGE_ADMM && r.stage[1].clip == GYRE_CLIP_NONE);
    assert_true(r.stage[1].damp == 1e-6 && r.stage[1].iterations == 9 && r.stage[3].iterations == 1);
    assert_string_equal(r.exception[0].tensors, "blk.*.ffn_down.weight");
    assert_true(r.n_exceptions == 3 && r.exception[0].wbits == 8 && r.exception[0].wgroup == 32);
    assert_true(r.exception[1].wbits == 0 && r.exception[1].wgroup == 0 && r.exception[1].act == 0);
    assert_true(r.exception[2].wbits == 0 && r.exception[2].wgroup == -1 && r.exception[2].act == 16);
    assert_round_trip(&r);

    char *text = gyre_recipe_json(&r);
    assert_non_null(text);
    json_t *doc = json_loads(text, 0, NULL);
    const json_t *rounding = json_object_get(doc, "rounding"), *ex = json_object_get(doc, "exceptions");
    assert_string_equal(json_string_value(json_object_get(doc, "about")), r.about);
    assert_true(json_real_value(json_object_get(json_object_get(doc, "diagonals"), "norm")) == 0.3);
    assert_int_equal(json_array_size(rounding), 4);
    assert_string_equal(json_string_value(json_object_get(json_array_get(rounding, 1), "stage")), "admm");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(rounding, 1), "iterations")), 9);
    assert_true(json_is_null(json_object_get(json_array_get(ex, 1), "wbits")));
    assert_int_equal(json_integer_value(json_object_get(json_array_get(ex, 0), "wgroup")), 32);
    assert_true(json_is_null(json_object_get(json_array_get(ex, 0), "act")));
    assert_int_equal(json_integer_value(json_object_get(json_array_get(ex, 2), "act")), 16);
    json_decref(doc);
    free(text);

    // The same recipe in another spelling is the same text.
    struct gyre_recipe a, b;
    parse_good("name: a\nrounding: [gptq]\n", &a);
    parse_good("{rounding: [{gptq: {order: descending, damp: 1.0e-2}}], seeds: 1, \"name\": \"a\"}", &b);
    char *x = gyre_recipe_text(&a), *y = gyre_recipe_text(&b);
    assert_string_equal(x, y);
    free(x);
    free(y);
}

static void numbers_do_not_depend_on_the_locale(void **state)
{
    (void)state;
    static const double some[] = {0, 1, 0.3, 0.1, 1e-6, 0.95, 1.0 / 3, 0.1234567890123456, 512, 123456.5};
    (void)comma_set(); // where one can be made
    for (size_t i = 0; i < GYRE_COUNT(some); i++) {
        char text[32];
        double back = -1;
        assert_true(gyre_real_text(some[i], text));
        assert_null(strchr(text, ','));
        assert_true(gyre_real_read(text, strlen(text), &back) && back == some[i]);
    }
    char text[32];
    assert_true(gyre_real_text(0.3, text));
    assert_string_equal(text, "0.3");
    comma_reset();
}

// ---- bad texts --------------------------------------------------------------------------------------------

#define ROOT "name: a\nrounding: [rtn]\n" // two good lines
static const struct {
    const char *text;
    int line, column;
    const char *word; // of the message: what is allowed
} bad[] = {
    // YAML
    {"", 1, 1, "empty"},
    {"# nothing\n\n", 1, 1, "empty"},
    {"name: a\nrounding: [rtn\n", 3, 1, "YAML"},
    {ROOT "about: \"open\n", 4, 1, "YAML"},
    {ROOT "seeds: 1\n\tseeds", 4, 1, "YAML"},
    {ROOT " seeds: 1\n", 3, 2, "YAML"},
    {ROOT "about: caf\351", 3, 11, "UTF-8"},
    {"\377\376n\0a", 1, 1, "UTF-8"},
    {ROOT "about: caf\303\251\001", 3, 12, "UTF-8"},
    {ROOT "---\nname: b\n", 3, 1, "one recipe"},
    {"--- {}\n", 1, 5, "name is missing"},
    {"- name: a\n", 1, 1, "mapping of name, about"},
    {"just words\n", 1, 1, "mapping of name, about"},
    {"---\n", 2, 1, "mapping of name, about"},
    {ROOT "cache: &c {clip: 1}\n", 3, 8, "anchor"},
    {ROOT "cache: {clip: *c}\n", 3, 15, "alias"},
    {ROOT "seeds: !!int 1\n", 3, 8, "tag"},
    {ROOT "<<: {seeds: 1}\n", 3, 1, "unknown key"},
    // keys
    {ROOT "colour: red\n", 3, 1, "takes name, about, source, rotate, r1"},
    {ROOT "seeds: 1\nseeds: 1\n", 4, 1, "once"},
    {ROOT "cache: {clip: 1, clip: 1}\n", 3, 18, "once"},
    {ROOT "cache: {center: true}\n", 3, 9, "clip and centre"},
    {ROOT "[a]: 1\n", 3, 1, "one word"},
    {ROOT "? {a: 1}\n: 1\n", 3, 3, "one word"},
    {ROOT "\"col\\nour\": red\n", 3, 1, "col?our"},
    {ROOT "a-key-that-goes-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on: 1\n", 3, 1, "..."},
    {"rounding: [rtn]\n", 1, 1, "name is missing"},
    {"name: a\n", 1, 1, "exactly one of rtn, gptq and admm"},
    {"name: a\ndistill: {steps: 3}\nrotate: true\n", 3, 1, "rounded before"}, // where distill is all there is
    {"name: a\ndistill: {steps: 3}\nseeds: 2\n", 3, 1, "rounded before"},
    {"name: a\ndistill: {steps: 3}\nlearn: {method: optrot}\n", 3, 9, "rounded before"},
    {"name: a\ndistill: {steps: 3}\ncache: {clip: 0.9}\n", 3, 9, "rounded before"},
    {"name: a\ndistill: {steps: 3}\nexceptions: [{tensors: a, act: 8}]\n", 3, 1, "rounded before"},
    {"name: a\ndistill: {steps: 3}\nrounding: []\nbudget: {bits: 5}\n", 4, 10, "rounded before"},
    {"name: a\ndistill: {steps: 3}\ndiagonals: {by: largest}\n", 3, 13, "rounded before"},
    {"name: a\ndistill: {steps: 3, batch: 0}\n", 2, 28, "batch"},
    {"name: a\ndistill: {steps: 3, windows: 1}\n", 2, 21, "one window leaves none to learn on"},
    {ROOT "distill: {steps: 3, windows: 4097}\n", 3, 30, "from 0 to 4096"},
    {ROOT "distill: {steps: 3, windows: auto}\n", 3, 30, "from 0 to 4096"},
    {ROOT "calibration: {windows: 0}\ndistill: {steps: 3, windows: 5}\n", 4, 11, "calibration has windows: 0"},
    // values
    {"name:\nrounding: [rtn]\n", 1, 6, "letters, digits"},
    {"name: a b\nrounding: [rtn]\n", 1, 7, "letters, digits"},
    {"name: .a\nrounding: [rtn]\n", 1, 7, "letters, digits"},
    {"name: a234567890123456789012345678901234567890123456789012345678901234\nrounding: [rtn]\n", 1, 7, "1 to 63"},
    {"name: \"a\\0\"\nrounding: [rtn]\n", 1, 7, "letters, digits"},
    {"name: {a: b}\nrounding: [rtn]\n", 1, 7, "is no mapping"},
    {ROOT "about: [a]\n", 3, 8, "is no list"},
    {ROOT "about: |\n  two\n  lines\n", 3, 8, "one line"},
    {ROOT "about: \"a\\Lb\"\n", 3, 8, "one line"},
    {ROOT "about: \"a\\x85b\"\n", 3, 8, "one line"},
    {ROOT "rotate: yes\n", 3, 9, "false or true"},
    {ROOT "rotate: \"true\"\n", 3, 9, "false or true"},
    {ROOT "rotate:\n", 3, 8, "no value"},
    {ROOT "rotate: True\n", 3, 9, "false or true"},
    {ROOT "seeds: 0\n", 3, 8, "from 1 to 1024"},
    {ROOT "seeds: 1025\n", 3, 8, "from 1 to 1024"},
    {ROOT "seeds: -1\n", 3, 8, "from 1 to 1024"},
    {ROOT "seeds: 1.5\n", 3, 8, "whole number"},
    {ROOT "seeds: 010\n", 3, 8, "whole number"},
    {ROOT "seeds: \"3\"\n", 3, 8, "\"3\""},
    {ROOT "seeds: 18446744073709551617\n", 3, 8, "whole number"},
    {ROOT "diagonals: {norm: 1.01}\n", 3, 19, "from 0 to 1"},
    {ROOT "diagonals: {norm: -0.1}\n", 3, 19, "from 0 to 1"},
    {ROOT "learn: {act: 5}\n", 3, 14, "4, 8"},
    {ROOT "learn: {method: wish}\n", 3, 17, "none, optrot, spinquant"},
    {ROOT "learn: {steps: 0}\n", 3, 16, "from 1 to 100000"},
    {ROOT "diagonals: {qk: auto}\n", 3, 17, "from 0 to 1"},
    {ROOT "diagonals: {by: size}\n", 3, 17, "inputs"},
    {ROOT "diagonals: {qk: .nan}\n", 3, 17, "from 0 to 1"},
    {ROOT "diagonals: {qk: 1e999}\n", 3, 17, "from 0 to 1"},
    {ROOT "diagonals: {qk: 0,5}\n", 3, 19, "unknown key"},
    {ROOT "diagonals: 0.5\n", 3, 12, "by, norm, up_down, qk and value"},
    {ROOT "calibration: {windows: 4097}\n", 3, 24, "from 0 to 4096"},
    {ROOT "calibration: {tokens: 15}\n", 3, 23, "from 16 to 65536"},
    {ROOT "activations: {clip: 0.4}\n", 3, 21, "from 0.5 to 1, or auto"},
    {ROOT "activations: {clip: Auto}\n", 3, 21, "or auto"},
    {ROOT "activations: {clip: }\n", 3, 21, "or auto"},
    {ROOT "activations: {group: 48}\n", 3, 22, "0, 16, 32, 64 or 128"},
    {ROOT "cache: {centre: 1}\n", 3, 17, "false or true"},
    // stages
    {"name: a\nrounding: rtn\n", 2, 11, "a list of"},
    {"name: a\nrounding: {rtn: {}}\n", 2, 11, "a list of"},
    {"name: a\nrounding: []\n", 2, 1, "exactly one of rtn, gptq and admm"},
    {"name: a\nrounding:\n", 2, 10, "a list of"},
    {"name: a\nrounding:\n  - magic\n", 3, 5, "correct, rtn, gptq, admm, descent and refit"},
    {"name: a\nrounding:\n  - magic: {}\n", 3, 5, "correct, rtn, gptq, admm, descent and refit"},
    {"name: a\nrounding:\n  -\n", 3, 4, "unknown stage"},
    {"name: a\nrounding:\n  - {}\n", 3, 6, "without a name"},
    {"name: a\nrounding:\n  - [rtn]\n", 3, 5, "begins with its name"},
    {"name: a\nrounding:\n  - rtn: none\n", 3, 10, "rtn: {KEY: VALUE}"},
    {"name: a\nrounding:\n  - gptq: {}\n    refit: {}\n", 4, 5, "own hyphen"},
    {"name: a\nrounding:\n  - rtn: {damp: 1}\n", 3, 11, "takes clip"},
    {"name: a\nrounding:\n  - rtn\n  - refit: {clip: none}\n", 4, 13, "takes none"},
    {"name: a\nrounding:\n  - gptq: {clip: hard}\n", 3, 18, "none, weights or hessian"},
    {"name: a\nrounding:\n  - gptq: {order: up}\n", 3, 19, "natural or descending"},
    {"name: a\nrounding:\n  - gptq: {damp: 0}\n", 3, 18, "from 1e-6 to 1"},
    {"name: a\nrounding:\n  - gptq: {scales: 50}\n", 3, 20, "from 1 to 49"},
    {"name: a\nrounding:\n  - gptq: {iterations: 2}\n", 3, 12, "clip, order, damp and scales"},
    {"name: a\nrounding:\n  - admm: {iterations: 0}\n", 3, 24, "from 1 to 1000"},
    {"name: a\nrounding:\n  - gptq\n  - descent: {sweeps: 101}\n", 4, 23, "from 1 to 100"},
    {"name: a\nrounding:\n  - correct: {alpha: 1.5}\n", 3, 22, "from 0 to 1, or auto"},
    {"name: a\nrounding: "
     "[gptq,refit,refit,refit,refit,refit,refit,refit,refit,refit,refit,refit,refit,refit,refit,refit,\n"
     "  refit]\n",
     3, 3, "too many stages; 16"},
    // the whole
    {"name: a\nrounding:\n  - correct\n", 2, 1, "exactly one of rtn, gptq and admm"},
    {"name: a\nrounding:\n  - rtn\n  - gptq: {damp: 0.1}\n", 4, 5, "rtn has chosen already"},
    {"name: a\nrounding:\n  - gptq\n  - correct\n", 4, 5, "before gptq"},
    {"name: a\nrounding: [correct, correct, gptq]\n", 2, 21, "one is allowed"},
    {"name: a\nrounding:\n  - descent\n  - gptq\n", 3, 5, "after rtn, gptq or admm"},
    {"name: a\nrounding: [refit, gptq]\n", 2, 12, "after rtn, gptq or admm"},
    {ROOT "learn: {rate: 2, steps: 5}\n", 3, 9, "rate changes nothing: nothing is learned without a method"},
    {ROOT "distill: {windows: 4}\n", 3, 11, "windows changes nothing: nothing is learned without steps"},
    {ROOT "distill: {batch: 4}\n", 3, 11, "batch changes nothing: nothing is learned without steps"},
    {ROOT "diagonals: {by: inputs}\n", 3, 13, "by changes nothing: there is no diagonal"},
    {ROOT "seeds: 2\n", 3, 1, "rotate: true"},
    {ROOT "r1: online\n", 3, 1, "rotate: true"},
    {ROOT "r1: never\n", 3, 5, "merged or online"},
    {ROOT "rotate: true\ndiagonals: {value: auto}\n", 4, 1, "rotate: false"},
    {"name: a\ncalibration: {windows: 0}\nrounding:\n  - rtn: {clip: hessian}\n", 4, 5, "rtn with clip: hessian"},
    {"name: a\ncalibration: {windows: 0}\nrounding:\n  - correct\n  - rtn\n", 4, 5, "stage correct needs statistics"},
    {"name: a\ncalibration: {windows: 0}\nrounding:\n  - gptq\n", 4, 5, "stage gptq needs statistics"},
    {"name: a\ncalibration: {windows: 0}\nrounding:\n  - admm\n", 4, 5, "stage admm needs statistics"},
    {"name: a\ncalibration: {windows: 0}\nrounding:\n  - rtn\n  - descent\n", 5, 5, "stage descent needs statistics"},
    {"name: a\ncalibration: {windows: 0}\nrounding:\n  - rtn\n  - refit\n", 5, 5, "stage refit needs statistics"},
    {ROOT "calibration: {windows: 0, fisher: true}\n", 3, 27, "fisher: true of the calibration"},
    {ROOT "calibration: {windows: 4, fisher: true}\n", 3, 27, "allowed with any but rtn, and with rtn's clip: hessian"},
    {ROOT "calibration: {windows: 0, outputs: 2}\n", 3, 27, "outputs of the calibration needs statistics"},
    {ROOT "calibration: {windows: 4, outputs: 5}\n", 3, 27, "5 of 4 windows weigh outputs"},
    {ROOT "calibration: {windows: 4, outputs: 2}\n", 3, 27, "allowed with gptq, descent or refit"},
    {"name: a\nrotate: true\ndiagonals: {value: 0.5}\ncalibration: {outputs: 2}\nrounding: [gptq]\n", 4, 15,
     "allowed with value: 0 or rotate: false"},
    {ROOT "calibration: {outputs: -1}\n", 3, 24, "from 0 to 4096, or auto"},
    {ROOT "calibration: {windows: 0}\nactivations: {clip: auto}\n", 4, 15, "clip: auto of activations"},
    {ROOT "calibration: {windows: 0}\ncache: {clip: auto}\n", 4, 9, "clip: auto of the cache"},
    {ROOT "calibration: {windows: 0}\ncache: {centre: true}\n", 4, 9, "centre: true"},
    {ROOT "calibration: {windows: 0}\nrotate: true\nlearn: {method: kl}\n", 5, 9, "learned on a text"},
    {ROOT "learn: {method: optrot}\n", 3, 9, "rotate: true"},
    {ROOT "calibration: {windows: 0}\nrotate: true\nseeds: 3\n", 5, 1, "3 rotations"},
    {ROOT "calibration: {windows: 0}\nrotate: true\ndiagonals: {norm: 1}\n", 5, 1, "diagonal"},
    // exceptions
    {ROOT "exceptions: {tensors: x}\n", 3, 13, "a list of"},
    {ROOT "exceptions: [x]\n", 3, 14, "tensors, wbits, wgroup and act"},
    {ROOT "exceptions:\n  - {wbits: 8}\n", 4, 5, "without tensors"},
    {ROOT "exceptions:\n  - {tensors: x}\n", 4, 5, "changes nothing"},
    {ROOT "exceptions:\n  - {tensors: x, wbits: 16}\n", 4, 25, "4 or 8"},
    {ROOT "exceptions:\n  - {tensors: x, wgroup: 48}\n", 4, 26, "0, 32, 64 or 128"},
    {ROOT "exceptions:\n  - {tensors: x, act: 6}\n", 4, 23, "4, 8 or 16"},
    {ROOT "exceptions:\n  - {tensors: x, bits: 8}\n", 4, 18, "tensors, wbits, wgroup and act"},
};

static bool is_bad(const char *text, size_t bytes, int line, int column, const char *word)
{
    static struct gyre_recipe r;
    gyre_error err = {0};
    char where[64];
    snprintf(where, sizeof where, "cannot read recipe (my.yaml:%d:%d): ", line, column);
    if (gyre_recipe_parse(text, bytes, "my.yaml", &r, &err) != GYRE_E_FORMAT) strcpy(err.message, "accepted");
    if (!strncmp(err.message, where, strlen(where)) && strstr(err.message, word) && !strchr(err.message, '\n') &&
        strchr(err.message, ';'))
        return true;
    print_error("%.200s\nwanted %s... %s\n   got %s\n", text, where, word, err.message);
    return false;
}

static void bad_texts_are_refused_where_they_are_bad(void **state)
{
    (void)state;
    bool all = true;
    for (size_t i = 0; i < GYRE_COUNT(bad); i++)
        all &= is_bad(bad[i].text, strlen(bad[i].text), bad[i].line, bad[i].column, bad[i].word);
    assert_true(all);
    assert_true(is_bad(ROOT "a\0b", sizeof ROOT + 2, 3, 2, "UTF-8")); // NUL

    struct gyre_recipe r;
    gyre_error err;
    char *big = malloc(GYRE_RECIPE_BYTES + 2), many[16384] = ROOT "exceptions:\n";
    assert_non_null(big);
    memset(big, '\n', GYRE_RECIPE_BYTES + 1);
    memcpy(big, ROOT, sizeof ROOT - 1);
    assert_int_equal(gyre_recipe_parse(big, GYRE_RECIPE_BYTES, "my.yaml", &r, &err), GYRE_OK);
    assert_true(is_bad(big, GYRE_RECIPE_BYTES + 1, 1, 1, "allowed"));
    memset(big, '[', GYRE_RECIPE_BYTES); // neither deep nor slow
    assert_true(is_bad(big, GYRE_RECIPE_BYTES, 1, 1, "mapping"));
    free(big);
    for (int i = 0; i < GYRE_MAX_EXCEPTIONS; i++) strcat(many, "  - {tensors: x, wbits: 8}\n");
    parse_good(many, &r);
    assert_int_equal(r.n_exceptions, GYRE_MAX_EXCEPTIONS);
    assert_round_trip(&r);
    strcat(many, "  - {tensors: x, wbits: 8}\n");
    assert_true(is_bad(many, strlen(many), 4 + GYRE_MAX_EXCEPTIONS, 5, "too many exceptions; 256"));

    char path[600]; // the end of a long path and the reason both fit
    memset(path, 'd', sizeof path);
    strcpy(path + sizeof path - 12, "/long.yaml");
    assert_int_equal(gyre_recipe_parse("a: 1", 4, path, &r, &err), GYRE_E_FORMAT);
    assert_non_null(strstr(err.message, "/long.yaml:1:1): unknown key \"a\"; a recipe takes name"));
}

static void put_file(const char *path, const char *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static void files_are_found_and_named(void **state)
{
    (void)state;
    static char big[GYRE_RECIPE_BYTES + 1];
    struct gyre_recipe r;
    gyre_error err = {0};
    char *text, at[300];
    const char *path = files_path("mine.yml");
    put_file(path, ROOT, sizeof ROOT - 1);
    assert_int_equal(gyre_recipe_find(path, &r, &err), GYRE_OK);
    assert_string_equal(r.name, "a");
    assert_int_equal(gyre_recipe_describe(path, GYRE_RECIPE_YAML, &text, &err), GYRE_OK);
    assert_non_null(strstr(text, "calibration: {windows: 0}\n"));
    assert_non_null(strstr(text, "  - rtn: {clip: weights}\n"));
    free(text);
    assert_int_equal(gyre_recipe_describe("best", GYRE_RECIPE_YAML, &text, &err), GYRE_OK);
    uint32_t best = 0;
    while (strcmp(gyre_recipe_name(best), "best") != 0) best++;
    assert_string_equal(text, gyre_recipe_builtins[best].text);
    free(text);
    put_file(path, "name: a\nrounding: [magic]\n", 26);
    assert_int_equal(gyre_recipe_find(path, &r, &err), GYRE_E_FORMAT);
    snprintf(at, sizeof at, "(%s:2:12)", path);
    assert_non_null(strstr(err.message, at));
    assert_int_equal(gyre_recipe_describe(path, GYRE_RECIPE_JSON, &text, &err), GYRE_E_FORMAT);
    assert_null(text);
    put_file(path, "", 0);
    assert_int_equal(gyre_recipe_find(path, &r, &err), GYRE_E_FORMAT);
    put_file(path, big, sizeof big);
    assert_int_equal(gyre_recipe_find(path, &r, &err), GYRE_E_FORMAT);
    assert_non_null(strstr(err.message, ":1:1): the file is larger"));
    assert_int_equal(gyre_recipe_find(files_path("none"), &r, &err), GYRE_E_IO); // it has a '/'
    assert_int_equal(gyre_recipe_find("none.yaml", &r, &err), GYRE_E_IO);
    assert_int_equal(gyre_recipe_find("magic", &r, &err), GYRE_E_INVALID);
    assert_non_null(
        strstr(err.message, "rtn, smoothquant, awq, quarot-rtn, quarot-gptq, spinquant, ostquant, fast, best"));
    assert_int_equal(gyre_recipe_find("", &r, &err), GYRE_E_INVALID);
    assert_int_equal(gyre_recipe_find(".yaml", &r, &err), GYRE_E_INVALID);
    files_remove();
}

// Whatever the bytes: a status, one line, and what is accepted survives being written.
static void mutations_never_crash(void **state)
{
    (void)state;
    static const char *const pieces[] = {"{",   "}",    "[",      "]",     ": ", "- ",   "\n",   "\"",  "'",
                                         "&a ", "*a",   "!!int ", "|\n",   "#",  "\t",   "auto", "1e9", "-1",
                                         "rtn", "gptq", "---\n",  "...\n", "%",  "\303", "\0"};
    struct gyre_rng rng = gyre_rng_seed(11);
    struct gyre_recipe r;
    char text[4096];
    uint32_t good = 0;
    for (int round = 0; round < 2000; round++) {
        const char *from = round % 6 < 5 ? gyre_recipe_builtins[round % 6].text : full;
        size_t n = strlen(from);
        assert_true(n < sizeof text / 2);
        memcpy(text, from, n);
        for (uint64_t change = gyre_rng_next(&rng) % 4; change < 4; change++) {
            const size_t at = gyre_rng_next(&rng) % n, kind = gyre_rng_next(&rng) % 4;
            const size_t piece = gyre_rng_next(&rng) % GYRE_COUNT(pieces);
            const size_t extra = GYRE_MAX(strlen(pieces[piece]), 1u);
            if (kind == 0) text[at] = (char)gyre_rng_next(&rng);
            if (kind == 1) { // insert
                memmove(text + at + extra, text + at, n - at);
                memcpy(text + at, pieces[piece], extra);
                n += extra;
            }
            if (kind == 2 && n > 40) { // cut
                const size_t wish = gyre_rng_next(&rng) % 30, cut = GYRE_MIN(wish, n - at - 1);
                memmove(text + at, text + at + cut, n - at - cut);
                n -= cut;
            }
            if (kind == 3 && change == 3 && round % 3 == 0) n = at + 1;
        }
        char *exact = malloc(n); // reading past the end is seen by the sanitizers
        assert_non_null(exact);
        memcpy(exact, text, n);
        gyre_error err = {0};
        const gyre_status st = gyre_recipe_parse(exact, n, "x", &r, &err);
        free(exact);
        assert_true(st == GYRE_OK || st == GYRE_E_FORMAT);
        if (st == GYRE_OK) {
            assert_round_trip(&r);
            good++;
        } else {
            assert_true(!strncmp(err.message, "cannot read recipe (x:", 22) && !strchr(err.message, '\n'));
        }
    }
    assert_true(good > 50 && good < 1900);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(built_in_recipes_are_what_they_say),
        cmocka_unit_test(rungs_are_recipes),
        cmocka_unit_test(absent_keys_have_defaults),
        cmocka_unit_test(every_key_is_read_and_written),
        cmocka_unit_test(numbers_do_not_depend_on_the_locale),
        cmocka_unit_test(bad_texts_are_refused_where_they_are_bad),
        cmocka_unit_test(files_are_found_and_named),
        cmocka_unit_test(mutations_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
