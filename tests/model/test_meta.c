// Meta's checkpoints: every integer is the one that was written, the rotation that must be run is declared, and a
// pickle that asks for anything but tensors is refused by name, with nothing executed.
#include "runtime/model/linear.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"
#include "tests/common/files.h"
#include "tests/common/meta.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static gyre_status opened(const struct meta_options *o, gyre_source **source, struct gyre_hparams *hp, gyre_error *err)
{
    const char *folder = files_path("meta");
    assert_int_equal(meta_write(folder, o), 0);
    gyre_status st = gyre_source_open(folder, source, err);
    if (st == GYRE_OK) st = gyre_hparams_read(*source, hp, err);
    if (st == GYRE_OK) st = gyre_model_check(*source, hp, err);
    return st;
}

// Tensor number `tensor` of the file is the linear.
static void check_linear(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, unsigned tensor,
                         uint32_t bits, uint32_t group)
{
    struct gyre_linear l;
    gyre_error err = {0};
    if (gyre_linear_find(source, hp, role, 0, &l, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_int_equal(l.bits, bits);
    assert_int_equal(l.group, group);
    int8_t *codes = malloc(l.rows * l.cols);
    uint16_t *scales = malloc(l.rows * l.cols / group * sizeof *scales);
    float *x = malloc(l.rows * l.cols * sizeof *x);
    assert_true(codes && scales && x);
    assert_int_equal(gyre_linear_codes(&l, 0, l.rows, codes, scales, NULL, &err), GYRE_OK);
    gyre_linear_rows_f32(&l, 0, l.rows, x);
    for (uint64_t i = 0; i < l.rows * l.cols; i++) {
        assert_int_equal(codes[i], meta_code(tensor, i));
        assert_true(gyre_f32_from_f16(scales[i / group]) == meta_scale(tensor, i / group));
        assert_true(x[i] == (float)meta_code(tensor, i) * meta_scale(tensor, i / group));
    }
    free(codes);
    free(scales);
    free(x);
}

// Llama 3.2 is narrower than 4096 and was made with 32, whether its weights are rounded or not; 3.1 with 8.
static void what_scaled_rope_means(void **state)
{
    (void)state;
    static const struct {
        const char *more;
        double factor;
    } cases[] = {{"", 32}, {", \"rope_scaling_factor\": 4", 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char params[512];
        gyre_source *source = NULL;
        struct gyre_hparams hp;
        gyre_error err = {0};
        snprintf(params, sizeof params,
                 "{\"dim\": 48, \"n_layers\": 1, \"n_heads\": 2, \"n_kv_heads\": 1, \"vocab_size\": 512, "
                 "\"multiple_of\": 32, \"norm_eps\": 1e-5, \"use_scaled_rope\": true%s}",
                 cases[i].more);
        assert_int_equal(meta_write(files_path("scaled"), &(struct meta_options){.params = params}), 0);
        if (gyre_source_open(files_path("scaled"), &source, &err)) fail_msg("%s", err.message);
        if (gyre_hparams_read(source, &hp, &err)) fail_msg("%s", err.message);
        assert_int_equal(hp.rope_scaling, GYRE_ROPE_LLAMA3);
        assert_true(hp.rope_factor == cases[i].factor);
        gyre_hparams_free(&hp);
        gyre_source_close(source);
    }
}

static void every_integer_is_the_one_that_was_written(void **state)
{
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        const struct meta_options o = {.zip64 = wide};
        gyre_source *source = NULL;
        struct gyre_hparams hp;
        gyre_error err = {0};
        if (opened(&o, &source, &hp, &err) != GYRE_OK) fail_msg("%s", err.message);
        assert_true(hp.rope_interleaved && !hp.tied && !hp.rot.r3);
        assert_int_equal(hp.rot.r4.n, 128);
        assert_int_equal(hp.rot.r4.p, 7);
        assert_int_equal(hp.act_bits, 8);
        assert_int_equal(hp.rope_scaling, GYRE_ROPE_LLAMA3);
        assert_true(hp.rope_factor == 32);
        check_linear(source, &hp, GYRE_ROLE_embedding, 0, 8, 48);
        check_linear(source, &hp, GYRE_ROLE_q, 1, 4, 16);
        check_linear(source, &hp, GYRE_ROLE_k, 2, 4, 16);
        check_linear(source, &hp, GYRE_ROLE_v, 3, 4, 16);
        check_linear(source, &hp, GYRE_ROLE_o, 4, 4, 16);
        check_linear(source, &hp, GYRE_ROLE_gate, 5, 4, 16);
        check_linear(source, &hp, GYRE_ROLE_down, 6, 4, 16);
        check_linear(source, &hp, GYRE_ROLE_up, 7, 4, 16);
        check_linear(source, &hp, GYRE_ROLE_head, 11, 8, 48);
        gyre_tokenizer *t = NULL;
        uint32_t *ids;
        uint64_t n;
        assert_int_equal(gyre_tokenizer_create(source, NULL, NULL, &t, &err), GYRE_OK);
        assert_int_equal(gyre_tokenizer_encode(t, "a\n\xFF<|eot_id|>", 13, GYRE_ENCODE_SPECIAL, &ids, &n, &err),
                         GYRE_OK);
        const uint32_t due[] = {'a', '\n', 0xFF, 256 + 9};
        assert_int_equal(n, 4);
        assert_memory_equal(ids, due, sizeof due);
        assert_true(gyre_tokenizer_is_end(t, 257) && gyre_tokenizer_is_end(t, 265) && !gyre_tokenizer_is_end(t, 256));
        assert_int_equal(gyre_tokenizer_bos(t), 256);
        free(ids);
        gyre_tokenizer_destroy(t);
        gyre_hparams_free(&hp);
        gyre_source_close(source);
    }
}

static void refused(const struct meta_options *o, const char *line)
{
    gyre_source *source = NULL;
    struct gyre_hparams hp = {0};
    gyre_error err = {0};
    const gyre_status st = opened(o, &source, &hp, &err);
    if (st == GYRE_OK || !strstr(err.message, line) || strchr(err.message, '\n'))
        fail_msg("status %d, \"%s\"; \"%s\" is due", (int)st, err.message, line);
    gyre_hparams_free(&hp);
    gyre_source_close(source);
}

static void a_pickle_runs_nothing(void **state)
{
    (void)state;
#define P(text) (text), sizeof(text) - 1
    static const struct {
        const char *pickle;
        size_t n;
        const char *line;
    } bad[] = {
        {P("\x80\x02"
           "cos\nsystem\nX\x04\0\0\0true\x85R."),
         "asks for os.system"},
        {P("\x80\x02"
           "c__builtin__\neval\nX\x04\0\0\0true\x85R."),
         "asks for __builtin__.eval"},
        {P("\x80\x04\x8c\x05posix\x8c\x06system\x93."), "asks for posix.system"},
        {P("\x80\x02"
           "ctorch\nload\n."),
         "asks for torch.load"},
        {P("\x80\x02(ios\nsystem\n."), "instruction 0x69 at byte 3"},
        {P("\x80\x02(X\x01\0\0\0xo."), "instruction 0x6f"},
        {P("\x80\x02})\x81."), "instruction 0x81"},
        {P("\x80\x02P1\n."), "instruction 0x50"},
        {P("\x80\x02\x82\x01."), "instruction 0x82"},
        {P("\x80\x02"
           "ccollections\nOrderedDict\n)Rb."),
         "gives a state"},
        {P("\x80\x02K\x01K\x02"
           "b."),
         "gives a state"},
        {P("\x80\x02"
           "ccollections\nOrderedDict\nK\x01\x85R."),
         "something else than it takes"},
        {P("\x80\x02K\x01)R."), "calls what is no function"},
        {P("\x80\x02K\x01."), "makes no dictionary"},
        {P("\x80\x02."), "takes more than it gave"},
        {P("\x80\x02}"), "has no end"},
        {P("\x80\x02}X\xFF\xFF\xFF\xFFx."), "middle of a text"},
        {P("\x80\x02}J\x01."), "middle of an instruction"},
        {P("\x80\x07}."), "protocol"},
        {P("\x80\x02}r\xFF\xFF\xFF\xFF."), "impossible place"},
        {P("\x80\x02h\x07."), "recalls"},
        {P("\x80\x02}K\x01u."), "ends what it did not begin"},
        {P("\x80\x02}(K\x01u."), "takes more than it gave"},
        {P("\x80\x02(t."), "makes no dictionary"},
        {P("\x80\x02((R."), "takes a mark"},
        {P("\x80\x02}(X\x01\0\0\0aK\x01u."), "entry a is no tensor"},
        {P("\x80\x02}K\x01Q."), "no storage"},
        {P("\x80\x02"
           "ctorch._utils\n_rebuild_tensor_v2\n)R."),
         "makes a tensor of something else"},
        {P("\x80\x02\x8a\x09."), "more than 64 bits"},
        {P("\x80\x02}."), "tensor model.embed_tokens.weight is missing"},
    };
    for (size_t i = 0; i < GYRE_COUNT(bad); i++) {
        struct bytes b = {0};
        put(&b, bad[i].pickle, bad[i].n);
        refused(&(struct meta_options){.pickle = &b}, bad[i].line);
        free(b.data);
    }
}

static void lies_are_named(void **state)
{
    (void)state;
#define PARAMS(rest) "{\"dim\": 48, \"n_layers\": 1, \"n_heads\": 2, \"n_kv_heads\": 1, \"vocab_size\": 512" rest "}"
    refused(&(struct meta_options){.method = 8}, "is compressed or encrypted");
    refused(&(struct meta_options){.strided = true}, "with strides");
    refused(&(struct meta_options){.past = true}, "past its storage");
    refused(&(struct meta_options){.left_out = "data/2"},
            "the numbers of tensor layers.0.attention.wq.weight are missing");
    refused(&(struct meta_options){.left_out = "data.pkl"}, "it has no data.pkl");
    refused(&(struct meta_options){.params = "{}"}, "dim is missing");
    refused(&(struct meta_options){.params = "[]"}, "no JSON object");
    refused(&(struct meta_options){.params = PARAMS(", \"multiple_of\": 32")}, "type I8");
    refused(&(struct meta_options){.params = PARAMS(", \"multiple_of\": 0")}, "absurd");
    refused(&(struct meta_options){.params = PARAMS(", \"norm_eps\": \"x\"")}, "norm_eps is no number");
    refused(&(struct meta_options){.params = PARAMS(", \"quantization_args\": {\"scheme\": \"zorb\"}")}, "zorb");
    refused(&(struct meta_options){.params = PARAMS(", \"quantization_args\": {}")},
            "scheme of quantization_args is missing");
    refused(
        &(struct meta_options){.params = PARAMS(", \"lora_args\": {\"rank\": 16}, \"quantization_args\": {\"scheme\": "
                                                "\"int4_weight_int8_dynamic_activation\"}")},
        "lora_args");
    refused(&(struct meta_options){.params = PARAMS(", \"multiple_of\": 96, \"quantization_args\": {\"scheme\": "
                                                    "\"int4_weight_int8_dynamic_activation\", \"spinquant\": true}")},
            "R4 of a feed-forward width of 192");
    refused(&(struct meta_options){.params = PARAMS(", \"multiple_of\": 32, \"quantization_args\": {\"scheme\": "
                                                    "\"int4_weight_int8_dynamic_activation\", \"group_size\": 8}")},
            "config.json declares");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_integer_is_the_one_that_was_written),
        cmocka_unit_test(what_scaled_rope_means),
        cmocka_unit_test(a_pickle_runs_nothing),
        cmocka_unit_test(lies_are_named),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    files_remove();
    return failed;
}
