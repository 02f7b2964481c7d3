// A recipe on a model: what is automatic by the widths, and what becomes of exceptions.
#include "quantizer/recipe/recipe.h"
#include "runtime/model/arch.h"
#include "runtime/util/base.h"
#include "tests/common/files.h"

#include <gyre/gyre_quantize.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

// 64 wide, 3 heads of 32 on 1: rows of 64, o 96, down 160.
static const struct gyre_hparams hp = {.family = &gyre_arch_llama,
                                       .n_layers = 12,
                                       .width = 64,
                                       .context = 256,
                                       .heads = 3,
                                       .kv_heads = 1,
                                       .head_dim = 32,
                                       .ffn = 160,
                                       .vocab = 50};

static gyre_status resolve(const char *exceptions, gyre_quantize_params p, struct gyre_settings *s, gyre_error *err)
{
    char text[1024];
    const int n = snprintf(text, sizeof text, "name: a\nrounding: [rtn]\nexceptions: [%s]\n", exceptions);
    assert_true(n > 0 && (size_t)n < sizeof text);
    p.recipe = files_path("settings.yaml");
    files_write(p.recipe, text);
    *err = (gyre_error){0};
    return gyre_settings_resolve(&p, NULL, &hp, true, s, err);
}

static void assert_width(const struct gyre_settings *s, const char *tensor, uint32_t bits, uint32_t group)
{
    uint32_t b = 99, g = 99;
    gyre_settings_width(s, tensor, &b, &g);
    assert_int_equal(b, bits);
    assert_int_equal(g, group);
}

static void what_is_automatic_depends_on_the_widths(void **state)
{
    (void)state;
    struct gyre_settings s;
    gyre_error err = {0};
    gyre_quantize_params p = {.wgroup = 32, .recipe = "best", .act = 8, .kv = 4};
    assert_int_equal(gyre_settings_resolve(&p, NULL, &hp, true, &s, &err), GYRE_OK);
    assert_true(s.recipe.stage[0].alpha == GYRE_AUTO && s.recipe.stage[0].residual == GYRE_AUTO);
    assert_true(s.recipe.learn.method == GYRE_LEARN_OPTROT && s.recipe.act_group == 0);
    assert_int_equal(s.recipe.calibration.outputs, 32);
    assert_int_equal(s.recipe.calibration.tokens, 256); // the context: whole windows are differentiated
    assert_int_equal(s.recipe.distill.steps, 40);
    assert_true(s.recipe.distill.rate == 0.0003);
    assert_int_equal(gyre_settings_resolve(&p, NULL, &hp, false, &s, &err), GYRE_OK);
    assert_int_equal(s.recipe.distill.steps, 0); // a folder is no model before the run ends
    p.act = 4;
    assert_int_equal(gyre_settings_resolve(&p, NULL, &hp, true, &s, &err), GYRE_OK);
    assert_true(s.recipe.stage[0].alpha == 0.25 && s.recipe.stage[0].residual == GYRE_AUTO);
    assert_true(s.recipe.learn.method == GYRE_LEARN_NONE && s.recipe.act_group == 32);
    assert_int_equal(s.recipe.calibration.outputs, 0);
    assert_int_equal(s.recipe.calibration.tokens, 256);
    assert_int_equal(s.recipe.distill.steps, 24);
    assert_true(s.recipe.distill.rate == 0.0006);
    assert_int_equal(gyre_settings_resolve(&p, NULL, &hp, false, &s, &err), GYRE_OK);
    assert_int_equal(s.recipe.distill.steps, 0);
    assert_int_equal(s.recipe.calibration.tokens, 512); // nothing differentiates them
    p.act = 8, p.wbits = 16;
    assert_int_equal(gyre_settings_resolve(&p, NULL, &hp, true, &s, &err), GYRE_OK);
    assert_true(s.recipe.learn.method == GYRE_LEARN_NONE);
    assert_int_equal(s.recipe.calibration.outputs, 0);
    assert_int_equal(s.recipe.distill.steps, 0);

    // Windows that learning alone reads are read where it learns.
    const char *const path = files_path("few.yaml");
    files_write(path, "name: a\nrounding: [gptq]\ncalibration: {windows: 5}\ndistill: {steps: auto, windows: 9}\n");
    p = (gyre_quantize_params){.wgroup = 32, .recipe = path, .act = 8};
    assert_int_equal(gyre_settings_resolve(&p, NULL, &hp, true, &s, &err), GYRE_OK);
    assert_int_equal(gyre_recipe_more_windows(&s.recipe), 4);
    assert_int_equal(gyre_settings_resolve(&p, NULL, &hp, false, &s, &err), GYRE_OK);
    assert_int_equal(gyre_recipe_more_windows(&s.recipe), 0);
    p.wbits = 16;
    assert_int_equal(gyre_settings_resolve(&p, NULL, &hp, true, &s, &err), GYRE_OK);
    assert_int_equal(gyre_recipe_more_windows(&s.recipe), 0);
    s.recipe.distill.steps = 3, s.recipe.calibration.windows = 9;
    assert_int_equal(gyre_recipe_more_windows(&s.recipe), 0);

    // Few windows all weigh outputs.
    files_write(path, "name: a\nrounding: [gptq]\ncalibration: {windows: 5, outputs: auto}\n");
    p = (gyre_quantize_params){.wgroup = 32, .recipe = path, .act = 8};
    assert_int_equal(gyre_settings_resolve(&p, NULL, &hp, true, &s, &err), GYRE_OK);
    assert_int_equal(s.recipe.calibration.outputs, 5);
}

static void exceptions_change_widths(void **state)
{
    (void)state;
    struct gyre_settings s;
    gyre_error err;
    gyre_quantize_params p = {.wgroup = 32};
    assert_int_equal(resolve("{tensors: 'blk.*.ffn_down.weight', wbits: 8}, {tensors: 'blk.1?.ffn_*n.*', wgroup: 0},"
                             "{tensors: '*attn_?.weight', wgroup: 64}, {tensors: 'blk.3.ffn_down.weight', wbits: 4}",
                             p, &s, &err),
                     GYRE_OK);
    assert_width(&s, "blk.0.ffn_down.weight", 8, 32);
    assert_width(&s, "blk.11.ffn_down.weight", 8, 0);
    assert_width(&s, "blk.1.ffn_down.weight", 8, 32);
    assert_width(&s, "blk.3.ffn_down.weight", 4, 32); // the later one wins
    assert_width(&s, "blk.3.attn_k.weight", 4, 64);
    assert_width(&s, "blk.3.attn_output.weight", 4, 32);
    assert_width(&s, "blk.3.ffn_down.weight.x", 4, 32); // the whole name or nothing
    p.wbits = 16;                                       // the float model is for checks: nothing is rounded
    assert_int_equal(resolve("{tensors: '*', wbits: 8}", p, &s, &err), GYRE_OK);
    assert_width(&s, "blk.0.ffn_down.weight", 16, 0);
    p = (gyre_quantize_params){.wgroup = GYRE_WGROUP_ROW, .wbits = 8, .recipe = "rtn"};
    assert_int_equal(gyre_settings_resolve(&p, NULL, &hp, true, &s, &err), GYRE_OK);
    assert_width(&s, "blk.0.ffn_up.weight", 8, 0);
    p.recipe = NULL;
    assert_int_equal(gyre_settings_resolve(&p, NULL, &hp, true, &s, &err), GYRE_OK);
    assert_string_equal(s.recipe.name, "quarot-rtn");
    files_remove();
}

static void exceptions_change_activations(void **state)
{
    (void)state;
    struct gyre_settings s;
    gyre_error err;
    gyre_quantize_params p = {.wgroup = 32, .act = 4};
    static const char down[] = "{tensors: '*.ffn_down.*', act: 8, wbits: 8}, {tensors: '*', wgroup: 0},"
                               "{tensors: 'blk.3.*', act: 16}, {tensors: 'blk.3.attn_output.*', act: 4}";
    assert_int_equal(resolve(down, p, &s, &err), GYRE_OK);
    assert_true(s.act == 4 && s.taps && s.act4);
    assert_int_equal(gyre_settings_act(&s, "blk.0.ffn_down.weight"), 8);
    assert_int_equal(gyre_settings_act(&s, "blk.0.ffn_up.weight"), 4);
    assert_int_equal(gyre_settings_act(&s, "blk.3.ffn_down.weight"), 16);
    assert_int_equal(gyre_settings_act(&s, "blk.3.attn_output.weight"), 4);
    assert_width(&s, "blk.0.ffn_down.weight", 8, 0);
    p.act = 16; // nothing is rounded there
    assert_int_equal(resolve(down, p, &s, &err), GYRE_OK);
    assert_true(!s.taps && !s.act4 && gyre_settings_act(&s, "blk.0.ffn_down.weight") == 16);
    p.act = 8; // only the exceptions are clipped by choice, and have groups
    assert_int_equal(resolve("{tensors: '*.ffn_down.*', act: 4}", p, &s, &err), GYRE_OK);
    assert_true(s.taps && s.act4 && s.act == 8);
    assert_int_equal(resolve("{tensors: '*.ffn_down.*', act: 8}", p, &s, &err), GYRE_OK); // as the rest
    assert_true(!s.taps && !s.act4);
    p.act = 4, p.wbits = 16;
    assert_int_equal(resolve(down, p, &s, &err), GYRE_OK);
    assert_true(!s.taps && s.act4 && gyre_settings_act(&s, "blk.0.ffn_down.weight") == 4);
    p.wbits = 0, p.recipe = files_path("settings.yaml");
    assert_int_equal(gyre_settings_resolve(&p, NULL, &hp, false, &s, &err), GYRE_E_UNSUPPORTED); // a directory
    assert_non_null(strstr(err.message, "blk.0.ffn_down.weight reads 8 bits"));
    files_remove();
}

static void exceptions_are_held_against_the_model(void **state)
{
    (void)state;
    static const struct {
        const char *exceptions;
        int32_t wgroup;
        gyre_status status;
        const char *where, *word;
    } run[] = {
        {"{tensors: 'blk.7.attn_k.weight', wbits: 8}", 32, GYRE_E_INVALID, "blk.7.attn_k.weight",
         "blk.7.attn_q.weight"},
        {"{tensors: 'blk.7.attn_q.weight', wgroup: 0}", 32, GYRE_E_INVALID, "blk.7.attn_k.weight",
         "give all of attn_q, attn_k, attn_v the same"},
        {"{tensors: '*ffn_up.*', wgroup: 0}", 32, GYRE_E_INVALID, "blk.0.ffn_up.weight", "blk.0.ffn_gate.weight"},
        {"{tensors: '*ffn_up.*', wbits: 8}, {tensors: '*ffn_gate.*', wbits: 8}", 32, GYRE_OK, "", ""},
        {"{tensors: 'blk.7.attn_v.weight', act: 4}", 32, GYRE_E_INVALID, "blk.7.attn_v.weight",
         "reads activations of 4 bits, but blk.7.attn_q.weight, which reads the same, 8; give all of attn_q, attn_k, "
         "attn_v the same act"},
        {"{tensors: '*ffn_gate.*', act: 16}", 32, GYRE_E_INVALID, "blk.0.ffn_up.weight",
         "give all of ffn_gate, ffn_up"},
        {"{tensors: 'blk.12.ffn_down.weight', act: 4}", 32, GYRE_E_INVALID, "blk.12.ffn_down.weight", "no linear"},
        {"{tensors: '*attn_output.*', wgroup: 64}", 32, GYRE_E_UNSUPPORTED, "blk.0.attn_output.weight",
         "use group 0 (per channel) or 32 in the recipe's exception"},
        {"{tensors: 'blk.11.ffn_down.weight', wgroup: 128}", 32, GYRE_E_UNSUPPORTED, "blk.11.ffn_down.weight", "or 32"},
        {"{tensors: '*ffn_down.*', wgroup: 32}", 64, GYRE_E_UNSUPPORTED, "blk.0.attn_output.weight",
         "use group 0 (per"},
        {"{tensors: '*ffn_down.*', wgroup: 32}, {tensors: '*output*', wgroup: 0}", 64, GYRE_OK, "", ""},
        {"{tensors: 'blk.12.ffn_down.weight', wbits: 8}", 32, GYRE_E_INVALID, "blk.12.ffn_down.weight", "no linear"},
        {"{tensors: 'output.weight', wbits: 8}", 32, GYRE_E_INVALID, "output.weight", "blk.11.ffn_down.weight"},
        {"{tensors: 'blk.[0-9].ffn_down.weight', wbits: 8}", 32, GYRE_E_INVALID, "blk.[0-9]", "no linear"},
    };
    for (size_t i = 0; i < GYRE_COUNT(run); i++) {
        static struct gyre_settings s;
        gyre_error err;
        const gyre_quantize_params p = {.wgroup = run[i].wgroup ? run[i].wgroup : GYRE_WGROUP_ROW};
        const gyre_status st = resolve(run[i].exceptions, p, &s, &err);
        if (st != run[i].status || !strstr(err.message, run[i].where) || !strstr(err.message, run[i].word))
            fail_msg("%s: %d, %s", run[i].exceptions, (int)st, err.message);
    }
    files_remove();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_automatic_depends_on_the_widths),
        cmocka_unit_test(exceptions_change_widths),
        cmocka_unit_test(exceptions_change_activations),
        cmocka_unit_test(exceptions_are_held_against_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
