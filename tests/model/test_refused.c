// Files that are almost a model of an architecture: a role too few or too many or of another shape, a bias where none
// is due, keys and versions of another layout. Each ends in the right status and one line that names the thing.
#include "quantizer/file/gguf_write.h"
#include "runtime/model/hparams.h"
#include "runtime/util/base.h"
#include "tests/common/files.h"
#include "tests/common/tiny.h"

#include <gyre/gyre_quantize.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

// What is done to a file: a tensor and a key that go, then those that come. Both may have the same name.
struct change {
    const char *drop, *add; // add: zeros, F32
    uint32_t n_dims;        // of `add`
    uint64_t dims[2];
    const char *key, *text; // the key gets the text, or the list, or (both NULL) the number; NULL: no change
    uint32_t number;
    const uint32_t *list; // [number]
};

static void write_changed(const char *from, const char *to, const struct change *c)
{
    static const char zeros[65536];
    struct gyre_gguf g = {0};
    gyre_source *s = NULL;
    gyre_error err = {0};
    unsigned char *front;
    uint64_t front_bytes, file_bytes;
    if (gyre_source_open(from, &s, &err) != GYRE_OK) fail_msg("%s", err.message);
    if (c->key && c->text) gyre_gguf_string(&g, c->key, c->text);
    else if (c->key && c->list) gyre_gguf_u32_array(&g, c->key, c->list, c->number);
    else if (c->key) gyre_gguf_u32(&g, c->key, c->number);
    for (uint64_t i = 0; i < gyre_source_meta_count(s); i++) { // a key that is there already is left alone
        const struct gyre_meta m = gyre_source_meta_at(s, i);
        gyre_gguf_encoded(&g, m.key, m.type, m.raw, m.raw_bytes);
    }
    bool dropped = !c->drop;
    const void *data[128];
    for (uint64_t i = 0; i < gyre_source_tensor_count(s); i++) {
        const struct gyre_tensor *t = gyre_source_tensor_at(s, i);
        const bool goes = c->drop && !strcmp(c->drop, t->name);
        dropped |= goes;
        if (!goes) data[gyre_gguf_add_tensor(&g, t->name, t->type, t->n_dims, t->dims)] = t->data;
    }
    if (!dropped) fail_msg("%s: no tensor %s", from, c->drop);
    if (c->add) data[gyre_gguf_add_tensor(&g, c->add, GYRE_DTYPE_F32, c->n_dims, c->dims)] = zeros;
    assert_true(g.n_tensors <= GYRE_COUNT(data));
    if (gyre_gguf_finish(&g, &front, &front_bytes, &file_bytes, &err) != GYRE_OK) fail_msg("%s", err.message);
    FILE *f = fopen(to, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(front, 1, front_bytes, f), front_bytes);
    for (uint64_t i = 0; i < g.n_tensors; i++) {
        const struct gyre_gguf_tensor *t = &g.tensors[i];
        assert_true(data[i] != zeros || t->bytes <= sizeof zeros);
        fseek(f, (long)t->offset, SEEK_SET);
        assert_int_equal(fwrite(data[i], 1, t->bytes, f), t->bytes);
    }
    for (uint64_t at = (uint64_t)ftell(f); at < file_bytes; at++) fputc(0, f);
    fclose(f);
    gyre_gguf_free(&g);
    gyre_source_close(s);
    free(front);
}

static gyre_status open_all(const char *path, gyre_error *err)
{
    gyre_source *s = NULL;
    struct gyre_hparams hp = {0};
    gyre_status st = gyre_source_open(path, &s, err);
    if (st == GYRE_OK) st = gyre_hparams_read(s, &hp, err);
    if (st == GYRE_OK) st = gyre_model_check(s, &hp, err);
    gyre_hparams_free(&hp);
    gyre_source_close(s);
    return st;
}

// `from` opens, and changed it does not (`says` NULL: it still does).
static void expect(const char *from, const struct change *c, gyre_status due, const char *says)
{
    gyre_error err = {0};
    if (open_all(from, &err) != GYRE_OK) fail_msg("%s: %s", from, err.message);
    write_changed(from, files_path("changed.gguf"), c);
    const gyre_status st = open_all(files_path("changed.gguf"), &err);
    if (st != due || (says && (!strstr(err.message, says) || strchr(err.message, '\n'))))
        fail_msg("%s: status %d (due %d), \"%s\" (due: %s)", says ? says : "good", st, due, err.message,
                 says ? says : "");
}

static void roles(void **state)
{
    (void)state;
    static const struct {
        const char *family;
        struct change change;
        gyre_status status;
        const char *says;
    } cases[] = {
        {"qwen2", {.drop = "blk.1.attn_k.bias"}, GYRE_E_FORMAT, "tensor blk.1.attn_k.bias is missing"},
        {"qwen2",
         {.drop = "blk.0.attn_q.bias", .add = "blk.0.attn_q.bias", .n_dims = 1, .dims = {32}},
         GYRE_E_FORMAT,
         "tensor blk.0.attn_q.bias has shape 1 x 32; 1 x 64 is due"},
        {"qwen2",
         {.drop = "blk.0.attn_v.bias", .add = "blk.0.attn_v.bias", .n_dims = 2, .dims = {32, 1}},
         GYRE_E_FORMAT,
         "tensor blk.0.attn_v.bias has shape"},
        {"qwen2",
         {.add = "blk.0.attn_output.bias", .n_dims = 1, .dims = {64}},
         GYRE_E_UNSUPPORTED,
         "tensor blk.0.attn_output.bias has no place in a qwen2 model"},
        {"qwen2",
         {.add = "blk.1.attn_q_norm.weight", .n_dims = 1, .dims = {16}},
         GYRE_E_UNSUPPORTED,
         "tensor blk.1.attn_q_norm.weight has no place in a qwen2 model"},
        {"llama",
         {.add = "blk.1.attn_q.bias", .n_dims = 1, .dims = {64}}, // the first block has none
         GYRE_E_UNSUPPORTED,
         "tensor blk.1.attn_q.bias has no place in a llama model"},
        {"llama",
         {.add = "blk.0.ffn_down.bias", .n_dims = 1, .dims = {64}}, // the first block has one
         GYRE_E_FORMAT,
         "tensor blk.1.ffn_down.bias is missing"},
        {"llama-bias",
         {.drop = "blk.0.ffn_up.bias", .add = "blk.0.ffn_up.bias", .n_dims = 1, .dims = {64}},
         GYRE_E_FORMAT,
         "tensor blk.0.ffn_up.bias has shape 1 x 64; 1 x 96 is due"},
        {"phi3",
         {.drop = "blk.1.attn_qkv.weight", .add = "blk.1.attn_qkv.weight", .n_dims = 2, .dims = {96, 64}},
         GYRE_E_FORMAT,
         "tensor blk.1.attn_q.weight is missing"},
        {"phi3",
         {.drop = "rope_factors_long.weight", .add = "rope_factors_long.weight", .n_dims = 1, .dims = {8}},
         GYRE_E_FORMAT,
         "tensor rope_factors_long.weight has shape 1 x 8; 1 x 6 is due"},
        {"phi3",
         {.drop = "rope_factors_short.weight", .add = "rope_factors_short.weight", .n_dims = 1, .dims = {6}},
         GYRE_E_FORMAT,
         "tensor rope_factors_short.weight holds 0, by which no frequency can be divided"},
        {"phi3", {.drop = "rope_factors_short.weight"}, GYRE_E_FORMAT, "rope.scaling.short_factor is no list of 6 div"},
        {"phi3", {.key = "phi3.rope.dimension_count", .number = 18}, GYRE_E_UNSUPPORTED, "rope.dimension_count is 18"},
        {"llama", {.key = "llama.rope.dimension_count", .number = 8}, GYRE_E_UNSUPPORTED, "llama turns whole heads"},
        {"gemma3", {.drop = "blk.5.post_ffw_norm.weight"}, GYRE_E_FORMAT, "blk.5.post_ffw_norm.weight is missing"},
        {"gemma3",
         {.key = "gemma3.final_logit_softcapping", .number = 30},
         GYRE_E_UNSUPPORTED,
         "final_logit_softcapping is 30"},
        {"granite", {.key = "granite.residual_scale", .number = 0}, GYRE_E_UNSUPPORTED, "residual_scale is 0"},
        {"llama",
         {.add = "blk.0.attn_qkv.weight", .n_dims = 2, .dims = {128, 64}},
         GYRE_E_UNSUPPORTED,
         "tensor blk.0.attn_qkv.weight has no place"},
        {"qwen3",
         {.add = "blk.0.ffn_up.bias", .n_dims = 1, .dims = {96}},
         GYRE_E_UNSUPPORTED,
         "tensor blk.0.ffn_up.bias has no place in a qwen3 model"},
        {"qwen3", {.drop = "blk.1.attn_q_norm.weight"}, GYRE_E_FORMAT, "tensor blk.1.attn_q_norm.weight is missing"},
        {"qwen3",
         {.drop = "blk.0.attn_k_norm.weight", .add = "blk.0.attn_k_norm.weight", .n_dims = 1, .dims = {16}},
         GYRE_E_FORMAT,
         "tensor blk.0.attn_k_norm.weight has shape 1 x 16; 1 x 32 is due"},
        {"qwen3",
         {.drop = "blk.0.attn_q.weight", .add = "blk.0.attn_q.weight", .n_dims = 2, .dims = {64, 64}},
         GYRE_E_FORMAT,
         "tensor blk.0.attn_q.weight has shape 64 x 64; 128 x 64 is due"},
        {"llama", {.key = "llama.attention.causal", .number = 0}, GYRE_E_UNSUPPORTED, "attention.causal is false"},
        {"qwen3", {.key = "qwen3.expert_count", .number = 8}, GYRE_E_UNSUPPORTED, "qwen3.expert_count is 8"},
        {"llama", {.add = "gyre.note", .n_dims = 1, .dims = {4}}, GYRE_E_UNSUPPORTED, "tensor gyre.note has no place"},
        {"llama",
         {.key = "general.architecture", .text = "qwen3moe"},
         GYRE_E_UNSUPPORTED,
         "architecture \"qwen3moe\"; gyre runs llama, "},
        {"llama", {.key = "gyre.odd", .number = 1}, GYRE_OK, NULL}, // not gyre's own: whose key that is nobody knows
    };
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        const struct tiny_options o = tiny_family(cases[i].family);
        const char *from = files_path("plain.gguf");
        assert_int_equal(tiny_write_gguf(from, &o), 0);
        expect(from, &cases[i].change, cases[i].status, cases[i].says);
    }
}

static void layouts(void **state)
{
    (void)state;
    static const struct {
        const char *family, *profile;
        struct change change;
        gyre_status status;
        const char *says;
    } cases[] = {
        {"llama", "full", {.key = "gyre.version", .number = 2}, GYRE_OK, NULL},
        {"llama", "full", {.key = "gyre.version", .number = 8}, GYRE_E_UNSUPPORTED, "gyre.version is 8"},
        {"llama", "full", {.key = "gyre.version", .number = 0}, GYRE_E_UNSUPPORTED, "gyre.version is 0"},
        {"llama", "full", {.key = "gyre.head_mix", .number = 1}, GYRE_E_UNSUPPORTED, "1 knows no key gyre.head_mix"},
        {"llama", "full", {.key = "general.note", .number = 1}, GYRE_OK, NULL},
        {"llama", "portable", {.key = "gyre.version", .number = 8}, GYRE_E_UNSUPPORTED, "gyre.version is 8"},
        {"llama", "portable", {.key = "gyre.head_mix", .number = 1}, GYRE_E_UNSUPPORTED, "no key gyre.head_mix"},
        {"llama",
         "full",
         {.add = "gyre.head_mix", .n_dims = 2, .dims = {64, 64}},
         GYRE_E_UNSUPPORTED,
         "tensor gyre.head_mix has no place in a gyre-llama model"},
        {"llama", "full", {.add = "gyre.r3.base.0", .n_dims = 1, .dims = {4}}, GYRE_E_UNSUPPORTED, "gyre.r3.base.0"},
        {"qwen3",
         "full",
         {.key = "gyre.version", .number = 1},
         GYRE_E_FORMAT,
         "gyre.version is 1, which knows no gyre-qwen3; it is 2 there"},
        {"qwen2",
         "full",
         {.key = "gyre.version", .number = 1},
         GYRE_E_FORMAT,
         "gyre.version is 1, which knows no gyre-qwen2"},
        {"qwen3", "full", {.key = "gyre.odd", .number = 1}, GYRE_E_UNSUPPORTED, "gyre.version 2 knows no key gyre.odd"},
        {"qwen3", "full", {.drop = "blk.1.attn_k_norm.weight"}, GYRE_E_FORMAT, "blk.1.attn_k_norm.weight is missing"},
        {"qwen2", "full", {.drop = "blk.0.attn_v.bias"}, GYRE_E_FORMAT, "blk.0.attn_v.bias is missing"},
        // What an older gyre sees of an online R1, and a damaged one.
        {"gemma3", "full", {.key = "gyre.version", .number = 3}, GYRE_E_UNSUPPORTED, "gyre.version 3 knows no key"},
        {"gemma3",
         "full",
         {.key = "gyre.r1.factors", .number = 1},
         GYRE_E_FORMAT,
         "gyre.r1.factors does not describe a transform of a width that divides 64"},
        {"gemma3", "full", {.add = "gyre.r1.base.0", .n_dims = 1, .dims = {4}}, GYRE_E_UNSUPPORTED, "gyre.r1.base.0"},
        {"qwen2",
         "full",
         {.key = "general.architecture", .text = "gyre-mamba"},
         GYRE_E_UNSUPPORTED,
         "architecture \"gyre-mamba\"; gyre runs llama, "},
    };
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        const struct tiny_options o = tiny_family(cases[i].family);
        const char *from = files_path("plain.gguf");
        gyre_error err = {0};
        assert_int_equal(tiny_write_gguf(from, &o), 0);
        const gyre_quantize_params p = {.source = from,
                                        .output = files_path("made.gguf"),
                                        .recipe = "quarot-rtn",
                                        .profile = cases[i].profile,
                                        .wgroup = 32,
                                        .force = true};
        if (gyre_quantize(&p, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
        expect(p.output, &cases[i].change, cases[i].status, cases[i].says);
    }
}

// Bits of single taps: of two blocks with four each.
static void taps(void **state)
{
    (void)state;
    static const uint32_t odd[] = {4, 4, 4, 8, 4, 5, 4, 8}, same[] = {4, 4, 4, 4, 4, 4, 4, 4};
    static const struct {
        struct change change;
        gyre_status status;
        const char *says;
    } cases[] = {
        {{0}, GYRE_OK, NULL},
        {{.key = "gyre.tap_bits", .list = same, .number = 8}, GYRE_OK, NULL},
        {{.key = "gyre.version", .number = 5}, GYRE_E_UNSUPPORTED, "gyre.version 5 knows no key gyre.tap_bits"},
        {{.key = "gyre.tap_bits", .list = same, .number = 7},
         GYRE_E_FORMAT,
         "gyre.tap_bits has 7 values; 2 blocks have 8 taps"},
        {{.key = "gyre.tap_bits", .list = odd, .number = 8}, GYRE_E_UNSUPPORTED, "gyre.tap_bits has 5 in block 1;"},
        {{.key = "gyre.tap_bits", .number = 8}, GYRE_E_FORMAT, "gyre.tap_bits"},
        {{.key = "gyre.tap_clip", .number = 2}, GYRE_E_UNSUPPORTED, "gyre.tap_clip is 2"},
        {{.key = "gyre.act_bits", .number = 16}, GYRE_E_FORMAT, "gyre.tap_bits beside a gyre.act_bits of 16"},
    };
    for (size_t i = 0; i < 2 * GYRE_COUNT(cases); i++) {
        const struct tiny_options o = tiny_family("llama");
        const char *from = files_path("plain.gguf"), *recipe = files_path("taps.yaml");
        gyre_error err = {0};
        assert_int_equal(tiny_write_gguf(from, &o), 0);
        files_write(recipe, "name: taps\nrotate: true\nrounding:\n  - rtn\n"
                            "exceptions:\n  - {tensors: \"*ffn_down*\", act: 8}\n");
        const gyre_quantize_params p = {.source = from,
                                        .output = files_path("made.gguf"),
                                        .recipe = recipe,
                                        .act = 4,
                                        .profile = i % 2 ? "full" : "portable",
                                        .wgroup = 32,
                                        .force = true};
        if (gyre_quantize(&p, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
        expect(p.output, &cases[i / 2].change, cases[i / 2].status, cases[i / 2].says);
    }
}

// What a plain file of an architecture cannot say is not written; gyre's own can say it.
static void portable_files_without_a_place_for_it(void **state)
{
    (void)state;
    static const char *const families[] = {"qwen2", "qwen3"};
    for (size_t f = 0; f < GYRE_COUNT(families); f++)
        for (int divisors = 0; divisors < 2; divisors++) {
            struct tiny_options o = tiny_family(families[f]);
            gyre_error err = {0};
            o.scaling = divisors ? GYRE_ROPE_NONE : GYRE_ROPE_LLAMA3;
            o.rope_freqs = divisors;
            assert_int_equal(tiny_write_gguf(files_path("plain.gguf"), &o), 0);
            gyre_quantize_params p = {.source = files_path("plain.gguf"),
                                      .output = files_path("made.gguf"),
                                      .recipe = "quarot-rtn",
                                      .profile = "portable",
                                      .wgroup = 32,
                                      .force = true};
            assert_int_equal(gyre_quantize(&p, NULL, &err), GYRE_E_UNSUPPORTED);
            if (!strstr(err.message, divisors ? "rope_freqs.weight" : "llama3") || !strstr(err.message, families[f]))
                fail_msg("%s", err.message);
            p.profile = "full";
            if (gyre_quantize(&p, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roles),
        cmocka_unit_test(layouts),
        cmocka_unit_test(taps),
        cmocka_unit_test(portable_files_without_a_place_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
