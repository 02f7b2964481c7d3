// Matrices of other tools' checkpoints: every code, zero point and scale is the one that was written, whatever the
// packing; and what lies about itself is refused in one line that names it.
#include "runtime/model/linear.h"
#include "runtime/model/weights.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"
#include "tests/common/checkpoint.h"
#include "tests/common/files.h"

#include <gyre/gyre.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const stems[GYRE_LINEARS] = {
    [GYRE_ROLE_q] = "self_attn.q_proj", [GYRE_ROLE_k] = "self_attn.k_proj", [GYRE_ROLE_v] = "self_attn.v_proj",
    [GYRE_ROLE_o] = "self_attn.o_proj", [GYRE_ROLE_gate] = "mlp.gate_proj", [GYRE_ROLE_up] = "mlp.up_proj",
    [GYRE_ROLE_down] = "mlp.down_proj",
};

// Numbers, codes, scales and zero points of one linear against those that were written.
static void check_linear(const struct checkpoint *c, const struct gyre_linear *l, const char *name)
{
    const uint64_t n = l->rows * l->cols, groups = l->cols / l->group;
    float *x = malloc(n * sizeof *x);
    double *wide = malloc(n * sizeof *wide);
    int8_t *codes = malloc(n), *zeros = malloc(n);
    uint16_t *scales = malloc(n * sizeof *scales);
    uint32_t *order = malloc(l->cols * sizeof *order);
    assert_true(x && wide && codes && zeros && scales && order);
    assert_int_equal(l->bits, c->bits);
    assert_int_equal(l->group, c->group ? c->group : l->cols);
    assert_int_equal(l->ordered, c->act_order && groups > 1);
    assert_int_equal(l->zeros, c->asymmetric);
    assert_int_equal(l->whole != l->rows, strstr(name, "qkv") || strstr(name, "gate_up"));
    gyre_linear_rows_f32(l, 0, l->rows, x);
    gyre_linear_rows_f64(l, 0, l->rows, wide);
    assert_int_equal(gyre_linear_codes(l, 0, l->rows, codes, scales, zeros, NULL), GYRE_OK);
    gyre_linear_order(l, order);
    for (uint64_t r = 0; r < l->rows; r++)
        for (uint64_t k = 0; k < l->cols; k++) {
            const uint64_t g = checkpoint_group(c, name, l->cols, k), at = r * l->cols + k;
            const float due =
                (float)(checkpoint_code(c, name, l->first + r, k) - checkpoint_zero(c, name, l->first + r, g)) *
                checkpoint_scale(name, l->first + r, g);
            assert_true(x[at] == due && wide[at] == (double)due);
            const uint64_t col = order[k], mine = r * groups + k / l->group;
            assert_int_equal(checkpoint_group(c, name, l->cols, col), k / l->group);
            assert_int_equal(codes[at], checkpoint_code(c, name, l->first + r, col));
            assert_int_equal(zeros[mine], checkpoint_zero(c, name, l->first + r, k / l->group));
            assert_true(gyre_f32_from_f16(scales[mine]) == checkpoint_scale(name, l->first + r, k / l->group));
        }
    free(x);
    free(wide);
    free(codes);
    free(zeros);
    free(scales);
    free(order);
}

static const struct checkpoint good[] = {
    {.form = CHECKPOINT_WORDS, .bits = 4, .group = 32, .scale = GYRE_DTYPE_BF16},
    {.form = CHECKPOINT_WORDS, .bits = 4, .scale = GYRE_DTYPE_F32},
    {.form = CHECKPOINT_WORDS, .bits = 4, .group = 16, .asymmetric = true, .scale = GYRE_DTYPE_F16},
    {.form = CHECKPOINT_WORDS, .bits = 4, .group = 32, .asymmetric = true, .byte_zeros = true, .scale = GYRE_DTYPE_F16},
    {.form = CHECKPOINT_WORDS, .bits = 8, .group = 32, .scale = GYRE_DTYPE_BF16},
    {.form = CHECKPOINT_WORDS, .bits = 8, .asymmetric = true, .scale = GYRE_DTYPE_BF16},
    {.form = CHECKPOINT_WORDS, .bits = 4, .group = 32, .act_order = true, .scale = GYRE_DTYPE_BF16},
    {.form = CHECKPOINT_WORDS, .bits = 4, .group = 32, .scale = GYRE_DTYPE_BF16, .float_part = "v_proj"},
    {.form = CHECKPOINT_BYTES, .bits = 8, .scale = GYRE_DTYPE_BF16},
    {.form = CHECKPOINT_BYTES, .bits = 8, .scale = GYRE_DTYPE_F16},
    {.form = CHECKPOINT_BYTES, .bits = 8, .group = 32, .asymmetric = true, .scale = GYRE_DTYPE_F32},
    {.form = CHECKPOINT_BYTES, .bits = 4, .scale = GYRE_DTYPE_F16},
    {.form = CHECKPOINT_GPTQ, .bits = 4, .group = 32, .scale = GYRE_DTYPE_F16},
    {.form = CHECKPOINT_GPTQ, .bits = 4, .asymmetric = true, .scale = GYRE_DTYPE_F16},
    {.form = CHECKPOINT_GPTQ, .bits = 4, .group = 32, .asymmetric = true, .version_2 = true, .scale = GYRE_DTYPE_F16},
    {.form = CHECKPOINT_GPTQ, .bits = 4, .group = 16, .asymmetric = true, .act_order = true, .scale = GYRE_DTYPE_BF16},
    {.form = CHECKPOINT_GPTQ, .bits = 8, .group = 32, .scale = GYRE_DTYPE_F16},
    {.form = CHECKPOINT_AWQ, .bits = 4, .group = 32, .asymmetric = true, .scale = GYRE_DTYPE_F16},
    {.form = CHECKPOINT_AWQ, .bits = 4, .scale = GYRE_DTYPE_F16},
};

static void check_all(const char *arch)
{
    const bool fused = !strcmp(arch, "phi3");
    for (size_t i = 0; i < GYRE_COUNT(good); i++) {
        const struct tiny_options o = fused ? tiny_family(arch) : tiny_defaults();
        const char *folder = files_path("good");
        gyre_source *source = NULL;
        struct gyre_hparams hp;
        gyre_error err = {0};
        assert_int_equal(checkpoint_write(folder, &o, &good[i]), 0);
        gyre_status st = gyre_source_open(folder, &source, &err);
        if (st == GYRE_OK) st = gyre_hparams_read(source, &hp, &err);
        if (st == GYRE_OK) st = gyre_model_check(source, &hp, &err);
        if (st != GYRE_OK) fail_msg("checkpoint %zu: %s", i, err.message);
        for (uint32_t j = 0; j < 2 * GYRE_LINEARS; j++) {
            struct gyre_linear l;
            char name[64];
            const gyre_role role = (gyre_role)(j % GYRE_LINEARS);
            assert_int_equal(gyre_linear_find(source, &hp, role, j / GYRE_LINEARS, &l, &err), GYRE_OK);
            snprintf(name, sizeof name, "model.layers.%u.%s", j / GYRE_LINEARS,
                     !fused                            ? stems[role]
                     : role <= GYRE_ROLE_v             ? "self_attn.qkv_proj"
                     : strstr(stems[role], "mlp.down") ? stems[role]
                     : strstr(stems[role], "mlp.")     ? "mlp.gate_up_proj"
                                                       : stems[role]);
            if (good[i].float_part && strstr(name, good[i].float_part)) assert_int_equal(l.bits, 0);
            else check_linear(&good[i], &l, name);
        }
        gyre_hparams_free(&hp);
        gyre_source_close(source);
    }
}

static void every_integer_is_the_one_that_was_written(void **state)
{
    (void)state;
    check_all("llama");
}

// q, k, v in one tensor, gate and up in another.
static void fused_tensors_have_their_rows(void **state)
{
    (void)state;
    check_all("phi3");
}

// Linears of a product that cannot lie side by side as integers keep their values: every code times its scale, which a
// half would round.
static void unlike_linears_keep_their_values(void **state)
{
    (void)state;
    static const struct checkpoint c = {.form = CHECKPOINT_GPTQ,
                                        .bits = 4,
                                        .group = 32,
                                        .asymmetric = true,
                                        .act_order = true,
                                        .scale = GYRE_DTYPE_F16};
    const struct tiny_options o = tiny_defaults();
    const char *folder = files_path("unlike");
    struct gyre_linear part[GYRE_LINEARS];
    gyre_role role[GYRE_LINEARS];
    uint32_t n, group;
    gyre_source *source = NULL;
    struct gyre_hparams hp = {0};
    gyre_error err = {0};
    assert_int_equal(checkpoint_write(folder, &o, &c), 0);
    assert_int_equal(gyre_source_open(folder, &source, &err), GYRE_OK);
    assert_int_equal(gyre_hparams_read(source, &hp, &err), GYRE_OK);
    assert_int_equal(gyre_linear_product(source, &hp, 0, GYRE_PRODUCT_gate_up, part, role, &n, &err), GYRE_OK);
    assert_int_equal(gyre_weight_form(part, n, 16, &group), GYRE_WEIGHT_W4Z);
    assert_int_equal(gyre_linear_product(source, &hp, 0, GYRE_PRODUCT_qkv, part, role, &n, &err), GYRE_OK);
    assert_int_equal(gyre_weight_form(part, n, 16, &group), GYRE_WEIGHT_F32); // q's order is its own
    assert_int_equal(gyre_weight_form(part + 1, n - 1, 16, &group), GYRE_WEIGHT_W4Z);
    assert_int_equal(gyre_weight_form(part, n, 8, &group), GYRE_WEIGHT_W8); // as the caller wants it
    part[1] = part[2], part[1].bits = 8;                                    // another width
    assert_int_equal(gyre_weight_form(part + 1, 2, 16, &group), GYRE_WEIGHT_F32);
    gyre_hparams_free(&hp);
    gyre_source_close(source);
}

// What old AutoGPTQ and AutoAWQ wrote beside a config.json that says nothing of it.
static void what_was_done_may_stand_in_a_file_of_its_own(void **state)
{
    (void)state;
    static const struct {
        struct checkpoint c;
        const char *file, *good, *bad, *says;
    } cases[] = {
        {{.form = CHECKPOINT_GPTQ, .bits = 4, .group = 32, .scale = GYRE_DTYPE_F16, .config = "null"},
         "quantize_config.json",
         "{\"bits\": 4, \"group_size\": 32, \"desc_act\": false}",
         "{\"bits\": 3, \"group_size\": 32}",
         "is 3"},
        {{.form = CHECKPOINT_AWQ,
          .bits = 4,
          .group = 32,
          .asymmetric = true,
          .scale = GYRE_DTYPE_F16,
          .config = "null"},
         "quant_config.json",
         "{\"zero_point\": true, \"q_group_size\": 32, \"w_bit\": 4, \"version\": \"GEMM\"}",
         "{\"q_group_size\": 32, \"w_bit\": 4",
         "quant_config.json"},
    };
    const struct tiny_options o = tiny_defaults();
    for (size_t i = 0; i < GYRE_COUNT(cases); i++)
        for (int step = 0; step < 3; step++) {
            const char *folder = files_path(i ? "old-awq" : "old-gptq");
            char beside[512];
            gyre_source *source = NULL;
            struct gyre_hparams hp = {0};
            struct gyre_linear l;
            gyre_error err = {0};
            snprintf(beside, sizeof beside, "%s/%s", folder, cases[i].file);
            assert_int_equal(checkpoint_write(folder, &o, &cases[i].c), 0);
            if (step) files_write(beside, step == 1 ? cases[i].good : cases[i].bad);
            gyre_status st = gyre_source_open(folder, &source, &err);
            if (st == GYRE_OK) st = gyre_hparams_read(source, &hp, &err);
            if (st == GYRE_OK) st = gyre_model_check(source, &hp, &err);
            if (step == 1) {
                if (st != GYRE_OK) fail_msg("%s", err.message);
                assert_int_equal(gyre_linear_find(source, &hp, GYRE_ROLE_down, 1, &l, &err), GYRE_OK);
                check_linear(&cases[i].c, &l, "model.layers.1.mlp.down_proj");
            } else if (st == GYRE_OK || !strstr(err.message, step ? cases[i].says : "q_proj.weight is missing")) {
                fail_msg("%s: %s", cases[i].file, err.message);
            }
            gyre_hparams_free(&hp);
            gyre_source_close(source);
        }
}

// ---- lies -------------------------------------------------------------------------------------------------------

// GYRE_OK, or the status and line with which the checkpoint is refused.
static gyre_status opened(const struct checkpoint *c, gyre_error *err)
{
    const struct tiny_options o = tiny_defaults();
    const char *folder = files_path("lie");
    gyre_source *source = NULL;
    struct gyre_hparams hp = {0};
    assert_int_equal(checkpoint_write(folder, &o, c), 0);
    gyre_status st = gyre_source_open(folder, &source, err);
    if (st == GYRE_OK) st = gyre_hparams_read(source, &hp, err);
    if (st == GYRE_OK) st = gyre_model_check(source, &hp, err);
    gyre_hparams_free(&hp);
    gyre_source_close(source);
    return st;
}

#define CT(before, weights, after)                                                                                     \
    "{\"quant_method\":\"compressed-tensors\"," before "\"config_groups\":{\"group_0\":{\"targets\":[\"Linear\"],"     \
    "\"weights\":{\"num_bits\":4," weights "}" after "}}}"
#define GPTQ(more) "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32" more "}"
#define AWQ(more) "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32" more "}"

static void lies_are_named(void **state)
{
    (void)state;
    static const struct checkpoint ct = {.form = CHECKPOINT_WORDS, .bits = 4, .group = 32, .scale = GYRE_DTYPE_BF16},
                                   gptq = {.form = CHECKPOINT_GPTQ, .bits = 4, .group = 32, .scale = GYRE_DTYPE_F16},
                                   awq = {.form = CHECKPOINT_AWQ, .bits = 4, .group = 32, .scale = GYRE_DTYPE_F16},
                                   bytes = {.form = CHECKPOINT_BYTES, .bits = 8, .scale = GYRE_DTYPE_F16};
    static const struct {
        const struct checkpoint *base;
        struct checkpoint with; // fields that are not zero replace the base's
        const char *line;
    } lies[] = {
        {&ct, {.left_out = "weight_scale"}, "weight_scale is missing"},
        {&ct, {.left_out = "weight_packed"}, "q_proj.weight is missing"},
        {&ct, {.left_out = "q_proj.weight_zero_point", .asymmetric = true}, "without zero points"},
        {&gptq, {.left_out = "qzeros"}, "qzeros is missing"},
        {&gptq, {.left_out = "scales"}, "scales is missing"},
        {&awq, {.left_out = "qzeros"}, "qzeros is missing"},
        {&bytes, {.left_out = "weight_scale"}, "weight_scale is missing"},
        {&ct, {.cut_words = 1}, "packs 64 numbers into 7 words"},
        {&ct, {.cut_groups = 1}, "config.json declares 4 bits, group_size 32"},
        {&gptq, {.bad_index = 3, .act_order = true}, "down_proj.g_idx names group 3; there are 3"},
        {&gptq, {.bad_index = -1, .act_order = true}, "down_proj.g_idx names group -1"},
        {&gptq, {.bad_index = INT32_MIN, .act_order = true}, "names group -2147483648"},
        {&gptq, {.bad_index = 2}, "inputs in group"},
        {&ct, {.config = CT("", "\"group_size\":16", "")}, "group_size 16"},
        {&ct, {.config = CT("", "\"group_size\":0", "")}, "group_size of quantization_config is 0"},
        {&ct, {.config = CT("", "\"group_size\":-32", "")}, "group_size of quantization_config is -32"},
        {&ct, {.config = CT("", "\"group_size\":\"32\"", "")}, "group_size of quantization_config is 32"},
        {&ct, {.config = CT("", "\"group_size\":32,\"symmetric\":false", "")}, "not symmetric"},
        {&ct, {.config = CT("", "\"group_size\":32,\"symmetric\":1", "")}, "symmetric of quantization_config is 1"},
        {&ct,
         {.config = CT("", "\"group_size\":32,\"type\":\"float\"", "")},
         "the type of weights of quantization_config is float"},
        {&ct, {.config = CT("", "\"group_size\":32,\"dynamic\":true", "")}, "dynamic of weights"},
        {&ct,
         {.config = CT("", "\"group_size\":32,\"strategy\":\"block\"", "")},
         "strategy of weights of quantization_config is block"},
        {&ct, {.config = CT("\"format\":\"nvfp4-pack-quantized\",", "\"group_size\":32", "")}, "nvfp4-pack-quantized"},
        {&ct, {.config = CT("\"kv_cache_scheme\":{\"num_bits\":8},", "\"group_size\":32", "")}, "kv_cache_scheme"},
        {&ct, {.config = CT("\"sparsity_config\":{\"format\":\"sparse-24\"},", "\"group_size\":32", "")}, "sparse-24"},
        {&ct, {.config = CT("\"sparsity_config\":{\"format\":5},", "\"group_size\":32", "")}, "sparsity_config"},
        {&ct,
         {.config = CT("", "\"group_size\":32", ",\"output_activations\":{\"num_bits\":8}")},
         "output_activations"},
        {&ct,
         {.config = CT("", "\"group_size\":32",
                       ",\"input_activations\":{\"num_bits\":8,\"dynamic\":false,\"strategy\":\"token\"}")},
         "dynamic of input_activations"},
        {&ct,
         {.config = CT("", "\"group_size\":32",
                       ",\"input_activations\":{\"num_bits\":8,\"dynamic\":true,\"strategy\":\"tensor\"}")},
         "strategy of input_activations"},
        {&ct,
         {.config = CT("", "\"group_size\":32",
                       ",\"input_activations\":{\"num_bits\":8,\"dynamic\":true,\"strategy\":\"group\","
                       "\"group_size\":32}")},
         "strategy of 8-bit input_activations"},
        {&ct,
         {.config = CT("", "\"group_size\":32",
                       ",\"input_activations\":{\"num_bits\":4,\"dynamic\":true,\"strategy\":\"group\"}")},
         "group_size of input_activations of quantization_config is missing"},
        {&ct, // as other tools mean them
         {.config = CT("", "\"group_size\":32",
                       ",\"input_activations\":{\"num_bits\":4,\"dynamic\":true,\"strategy\":\"group\","
                       "\"group_size\":32}")},
         "the strategy of input_activations of quantization_config is group"},
        {&ct,
         {.config = CT("", "\"group_size\":32",
                       ",\"input_activations\":{\"num_bits\":6,\"dynamic\":true,\"strategy\":\"token\"}")},
         "the width of quantization_config is 6"},
        {&ct,
         {.config =
              CT("\"transform_config\":{\"config_groups\":{\"R9\":{\"type\":\"zorb\"}}},", "\"group_size\":32", "")},
         "zorb"},
        {&ct,
         {.config = "{\"quant_method\":\"compressed-tensors\"}"},
         "config_groups of quantization_config is missing"},
        {&ct,
         {.config = "{\"quant_method\":\"compressed-tensors\",\"config_groups\":[]}"},
         "config_groups of quantization_config is []"},
        {&ct, {.config = "{\"quant_method\":7}"}, "quant_method of quantization_config is 7"},
        {&ct, {.config = "[1]"}, "quant_method of quantization_config is missing"},
        {&ct, {.config = GPTQ("")}, "q_proj.weight is missing"},
        {&gptq, {.config = AWQ("")}, "q_proj.qweight has shape"},
        {&awq, {.config = GPTQ("")}, "q_proj.qweight has shape"},
        {&gptq, {.config = GPTQ(",\"pack_dtype\":\"int64\"")}, "pack_dtype of quantization_config is int64"},
        {&gptq, {.config = GPTQ(",\"is_marlin_format\":true")}, "is_marlin_format"},
        {&gptq, {.config = GPTQ(",\"checkpoint_format\":\"bitblas\"")}, "bitblas"},
        {&gptq, {.config = GPTQ(",\"rotation\":\"hadamard\"")}, "rotation of quantization_config is hadamard"},
        {&gptq,
         {.config = "{\"quant_method\":\"gptq\",\"bits\":3,\"group_size\":32}"},
         "the width of quantization_config is 3"},
        {&awq, {.config = AWQ(",\"version\":\"gemv\"")}, "version of quantization_config is gemv"},
        {&awq,
         {.config = "{\"quant_method\":\"awq\",\"bits\":8,\"group_size\":32}"},
         "bits of quantization_config is 8"},
    };
    for (size_t i = 0; i < GYRE_COUNT(lies); i++) {
        struct checkpoint c = *lies[i].base;
        const struct checkpoint *w = &lies[i].with;
        gyre_error err = {0};
        c.config = w->config, c.left_out = w->left_out, c.bad_index = w->bad_index;
        c.cut_groups = w->cut_groups, c.cut_words = w->cut_words;
        c.asymmetric |= w->asymmetric, c.act_order |= w->act_order;
        const gyre_status st = opened(&c, &err);
        if (st == GYRE_OK || !strstr(err.message, lies[i].line) || strchr(err.message, '\n'))
            fail_msg("lie %zu: status %d, \"%s\"; \"%s\" is due", i, (int)st, err.message, lies[i].line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_integer_is_the_one_that_was_written),
        cmocka_unit_test(fused_tensors_have_their_rows),
        cmocka_unit_test(unlike_linears_keep_their_values),
        cmocka_unit_test(what_was_done_may_stand_in_a_file_of_its_own),
        cmocka_unit_test(lies_are_named),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    files_remove();
    return failed;
}
