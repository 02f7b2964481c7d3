// The tiny models themselves: every type and option opens, passes the model check, and says the same in both
// containers.
#include "runtime/model/roles.h"
#include "tests/common/files.h"
#include "tests/common/ok.h"
#include "tests/common/tiny.h"

#include "runtime/util/base.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static gyre_source *open_checked(const char *path, struct gyre_hparams *hp)
{
    gyre_error err = {0};
    gyre_source *source = NULL;
    gyre_status st = gyre_source_open(path, &source, &err);
    if (st == GYRE_OK) st = gyre_hparams_read(source, hp, &err);
    if (st == GYRE_OK) st = gyre_model_check(source, hp, &err);
    if (st != GYRE_OK) fail_msg("%s: %s", path, err.message);
    return source;
}

static void every_type_opens(void **state)
{
    (void)state;
    for (int type = 0; type < GYRE_DTYPE_I8; type++) {
        struct tiny_options o = tiny_defaults();
        struct gyre_hparams hp;
        o.type = (gyre_dtype)type;
        o.tied = type % 2;
        if (gyre_dtype_info(o.type)->block_elements == 256) o.width = 256, o.head_dim = 64, o.ffn = 512;
        assert_int_equal(tiny_write_gguf("tiny_type.gguf", &o), 0);
        gyre_source *source = open_checked("tiny_type.gguf", &hp);
        assert_int_equal(gyre_source_tensor(source, "blk.1.ffn_down.weight")->type, type);
        assert_int_equal(hp.tied, o.tied);
        assert_true(hp.rope_interleaved);
        float row[512], largest = 0;
        gyre_tensor_rows_f32(gyre_source_tensor(source, "blk.1.ffn_up.weight"), 3, 1, row);
        for (uint32_t i = 0; i < o.width; i++) largest = GYRE_MAX(largest, row[i] < 0 ? -row[i] : row[i]);
        assert_true(largest > 0.05f && largest < 1.5f);
        gyre_hparams_free(&hp);
        gyre_source_close(source);
    }
    remove("tiny_type.gguf");
}

// Role by role: the same numbers, q and k in GGUF's row order of the architecture.
static void same_tensors(const gyre_source *gguf, const gyre_source *hf, const struct gyre_hparams *hp)
{
    uint64_t seen = 0;
    for (int r = 0; r < GYRE_ROLES; r++)
        for (uint32_t layer = 0; layer < (r < GYRE_BLOCK_ROLES ? hp->n_layers : 1); layer++)
            for (int bias = 0; bias < 2; bias++) {
                // A name of a checkpoint may belong to another role in another architecture.
                if (r < GYRE_BLOCK_ROLES && !gyre_role_present(hp, (gyre_role)r, layer)) continue;
                const char *part = bias ? "bias" : "weight";
                const struct gyre_tensor *a = gyre_role_tensor(gguf, (gyre_role)r, layer, part, NULL),
                                         *b = gyre_role_tensor(hf, (gyre_role)r, layer, part, NULL);
                assert_int_equal(a != NULL, b != NULL);
                if (!a) continue;
                seen++;
                assert_int_equal(a->bytes, b->bytes);
                const bool paired = hp->rope_interleaved && gyre_role_is_turned((gyre_role)r);
                const uint64_t rows = a->dims[0], row = a->bytes / rows, half = hp->head_dim / 2;
                for (uint64_t i = 0; i < rows; i++) {
                    const uint64_t j = i % hp->head_dim;
                    const uint64_t from = paired ? i - j + j / 2 + (j % 2) * half : i;
                    assert_memory_equal((const char *)a->data + i * row, (const char *)b->data + from * row, row);
                }
            }
    assert_int_equal(seen, gyre_source_tensor_count(gguf));
    assert_int_equal(seen, gyre_source_tensor_count(hf));
}

static void both_containers_agree(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "mistral", "qwen2", "qwen3"};
    for (int variant = 0; variant < 16; variant++) { // every scaling but longrope with every family
        struct tiny_options o = tiny_family(families[variant % 4]);
        struct gyre_hparams a, b;
        o.seed = 7 + (uint64_t)variant;
        o.layers = 3;
        o.ffn = 160;
        o.type = (gyre_dtype[]){GYRE_DTYPE_F32, GYRE_DTYPE_F16, GYRE_DTYPE_BF16}[variant % 3];
        o.tied = variant % 2;
        o.scaling = (gyre_rope_scaling)(variant / 4);
        o.shards = (uint32_t)variant % 4;
        o.rope_base = 50000;
        assert_int_equal(tiny_write_gguf("tiny_both.gguf", &o), 0);
        assert_int_equal(tiny_write_hf("tiny_both", &o), 0);
        gyre_source *gguf = open_checked("tiny_both.gguf", &a), *hf = open_checked("tiny_both", &b);
        same_tensors(gguf, hf, &a);
        assert_int_equal(a.n_layers, b.n_layers);
        assert_int_equal(a.width, b.width);
        assert_int_equal(a.heads, b.heads);
        assert_int_equal(a.kv_heads, b.kv_heads);
        assert_int_equal(a.head_dim, b.head_dim);
        assert_int_equal(a.ffn, b.ffn);
        assert_int_equal(a.vocab, b.vocab);
        assert_int_equal(a.context, b.context);
        assert_int_equal(a.tied, b.tied);
        assert_true(a.norm_eps == b.norm_eps);
        assert_true(a.rope_interleaved == (variant % 4 < 2) && !b.rope_interleaved);
        assert_true(a.rope_scaling == o.scaling && a.rope_mscale == b.rope_mscale);
        float fa[16], fb[16];
        gyre_rope_freqs(&a, GYRE_TURN_ROPE, fa);
        gyre_rope_freqs(&b, GYRE_TURN_ROPE, fb);
        assert_memory_equal(fa, fb, a.head_dim / 2 * sizeof *fa);
        assert_true(fa[1] < 1 && fa[1] > 0.01f);
        gyre_hparams_free(&a);
        gyre_hparams_free(&b);
        gyre_source_close(gguf);
        gyre_source_close(hf);
        char command[] = "rm -r tiny_both";
        assert_int_equal(system(command), 0);
    }
    remove("tiny_both.gguf");
}

// Writes a directory of the family whose config.json says `there` in place of `is`.
static void write_changed(const char *family, const char *is, const char *there)
{
    struct tiny_options o = tiny_family(family);
    uint64_t bytes;
    const char *config = files_path("left_out/config.json");
    o.context = 8192;
    assert_int_equal(tiny_write_hf(files_path("left_out"), &o), 0);
    char *text = files_read(config, &bytes), *at = text ? strstr(text, is) : NULL, made[4096];
    if (!at) fail_msg("%s: no %s in %s", family, is, text ? text : "no config.json");
    snprintf(made, sizeof made, "%.*s%s%s", (int)(at - text), text, there, at + strlen(is));
    files_write(config, made);
    free(text);
}

static struct gyre_hparams changed(const char *family, const char *is, const char *there)
{
    struct gyre_hparams hp;
    write_changed(family, is, there);
    gyre_source_close(open_checked(files_path("left_out"), &hp));
    return hp;
}

// What would be another model.
static void a_config_is_not_half_read(void **state)
{
    (void)state;
    static const struct {
        const char *family, *is, *there, *says;
    } cases[] = {
        {"llama", "\"mlp_bias\": false", "\"is_causal\": false", "is_causal is false"},
        {"llama", "\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", "hidden_act is gelu; llama has silu"},
        {"gemma3", "gelu_pytorch_tanh", "silu", "hidden_act is silu; gemma3_text has gelu_pytorch_tanh"},
        // Whose model it is comes before what of it is not read.
        {"llama", "\"llama\"", "\"zorblax\", \"attn_logit_softcapping\": 30", "architecture \"zorblax\""},
        {"llama", "\"llama\"", "\"zorblax\", \"layer_types\": [\"conv\"]", "architecture \"zorblax\""},
    };
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        gyre_source *source = NULL;
        struct gyre_hparams hp = {0};
        gyre_error err = {0};
        write_changed(cases[i].family, cases[i].is, cases[i].there);
        gyre_status st = gyre_model_open(files_path("left_out"), &source, &err);
        if (st == GYRE_OK) st = gyre_hparams_read(source, &hp, &err);
        gyre_hparams_free(&hp);
        gyre_source_close(source);
        assert_int_equal(st, GYRE_E_UNSUPPORTED);
        if (!strstr(err.message, cases[i].says)) fail_msg("%s", err.message);
    }
}

// What a config.json leaves out, and what it carries along without meaning it.
static void a_config_means_what_transformers_means(void **state)
{
    (void)state;
    struct gyre_hparams hp = changed("gemma3", "\"sliding_window\": 5, \"sliding_window_pattern\": 6",
                                     "\"layer_types\": [\"sliding_attention\", \"sliding_attention\", "
                                     "\"sliding_attention\", \"sliding_attention\", \"sliding_attention\", "
                                     "\"full_attention\"]");
    assert_int_equal(hp.window, 4096);
    gyre_hparams_free(&hp);
    hp = changed("llama", "\"mlp_bias\": false", "\"mlp_bias\": false, \"sliding_window\": 8");
    assert_int_equal(hp.window, 0);
    gyre_hparams_free(&hp);
    hp = changed("minicpm", "\"scale_emb\": 3, \"scale_depth\": 1.1, \"dim_model_base\": 32", "\"mup\": 0");
    assert_true(fabsf(hp.embed_scale - sqrtf((float)hp.n_layers)) < 1e-5f); // 1 over the branches' 1 / sqrt(layers)
    assert_true(hp.logit_divisor == (float)hp.width);
    gyre_hparams_free(&hp);
    hp = changed("mistral", "\"sliding_window\": null", "\"mup\": 0"); // left out it is not none
    assert_int_equal(hp.window, 4096);
    gyre_hparams_free(&hp);
    hp = changed("mistral", "\"sliding_window\": null", "\"sliding_window\": 9, \"use_sliding_window\": false");
    assert_int_equal(hp.window, 9);
    gyre_hparams_free(&hp);
    hp = changed("phi3", "\"sliding_window\": null",
                 "\"sliding_window\": 9, \"layer_types\": [\"full_attention\", \"sliding_attention\"]");
    assert_true(hp.window == 9 && hp.kind[0].windowed && hp.kind[1].windowed);
    gyre_hparams_free(&hp);
    hp = changed("qwen2", "\"use_sliding_window\": false, \"sliding_window\": 131072",
                 "\"use_sliding_window\": true, \"max_window_layers\": 1");
    assert_int_equal(hp.window, 4096);
    assert_true(!hp.kind[0].windowed && hp.kind[1].windowed);
    gyre_hparams_free(&hp);
    // Of a smollm3 the layers that are not turned have it, which a list says, or each fourth.
    static const struct {
        const char *says;
        uint32_t window, unturned; // layers that are not turned, as bits
    } smollm3[] = {{"true, \"sliding_window\": 9", 9, 1 << 3},
                   {"true, \"sliding_window\": 9, \"layer_types\": null, \"no_rope_layers\": [0, 1, 0, 1, 1]", 9, 5},
                   {"true, \"sliding_window\": null", 0, 1 << 3},
                   {"false, \"sliding_window\": 9", 0, 1 << 3}};
    for (size_t k = 0; k < GYRE_COUNT(smollm3); k++) {
        char says[160];
        snprintf(says, sizeof says, "\"use_sliding_window\": %s", smollm3[k].says);
        hp = changed("smollm3", "\"use_sliding_window\": false", says);
        assert_int_equal(hp.window, smollm3[k].window);
        for (uint32_t i = 0; i < hp.n_layers; i++) {
            assert_int_equal(hp.kind[i].turn == GYRE_TURN_NONE, smollm3[k].unturned >> i & 1);
            assert_int_equal(hp.kind[i].windowed, hp.window && hp.kind[i].turn == GYRE_TURN_NONE);
        }
        gyre_hparams_free(&hp);
    }
    // The context that scaling starts from: what stands beside counts more than what stands inside, and a phi3 always
    // has one beside.
    hp = changed("ministral3", "\"sliding_window\": null", "\"original_max_position_embeddings\": 128");
    assert_true(hp.rope_original_context == 128);
    gyre_hparams_free(&hp);
    hp = changed("phi3", "\"original_max_position_embeddings\": 64, ", "");
    assert_true(hp.rope_original_context == 4096);
    gyre_hparams_free(&hp);
    hp = changed("ministral3", ", \"original_max_position_embeddings\": 64", "");
    assert_true(hp.rope_scaling == GYRE_ROPE_YARN && hp.rope_original_context == 8192);
    gyre_hparams_free(&hp);
    // Queries grow by what the RoPE says, whether it scales or not.
    hp = changed("ministral3", "\"rope_type\": \"yarn\", \"factor\": 8.0", "\"rope_type\": \"default\"");
    assert_true(hp.rope_scaling == GYRE_ROPE_NONE && hp.q_beta == 0.3f && hp.q_span == 64);
    gyre_hparams_free(&hp);
    // Another family's multipliers.
    hp = changed("ministral3", "\"sliding_window\": null", "\"logits_scaling\": 4, \"scale_emb\": 12");
    assert_true(hp.logit_divisor == 1 && hp.embed_scale == 1);
    gyre_hparams_free(&hp);
    // What a class has where nothing is said.
    hp = changed("llama", "\"max_position_embeddings\": 8192, \"rms_norm_eps\": 1e-05, ", "");
    assert_true(hp.context == 2048 && hp.norm_eps == 1e-6f);
    gyre_hparams_free(&hp);
    hp = changed("ministral3", "\"head_dim\": 16", "\"head_dim\": null"); // null is what the others give, not 128
    assert_int_equal(hp.head_dim, 16);
    gyre_hparams_free(&hp);
}

// A number of heads of keys and values that is null is that of queries; one that is left out is the class's own.
static void heads_that_are_null(void **state)
{
    (void)state;
    static const struct {
        const char *family, *there;
        uint32_t heads; // another number than the class's own
    } cases[] = {{"mistral", "\"num_attention_heads\": 4, \"num_key_value_heads\": null", 4},
                 {"ministral3", "\"num_attention_heads\": 4, \"num_key_value_heads\": null", 4},
                 {"smollm3", "\"num_attention_heads\": 8, \"num_key_value_heads\": null", 8}};
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        struct gyre_hparams hp = {0};
        gyre_source *source = NULL;
        write_changed(cases[i].family, "\"num_attention_heads\": 4, \"num_key_value_heads\": 2", cases[i].there);
        OK(gyre_source_open(files_path("left_out"), &source, err));
        OK(gyre_hparams_read(source, &hp, err));
        assert_int_equal(hp.kv_heads, cases[i].heads);
        gyre_hparams_free(&hp);
        gyre_source_close(source);
    }
}

// A text model inside another: the outer object says whether its head is the embedding; where it says nothing it is,
// if there is no other.
static void a_model_around_a_text_model_ties_it(void **state)
{
    (void)state;
    static const struct {
        const char *outer, *inner;
        bool fails;
    } cases[] = {{"true", "false", false}, {NULL, "false", false}, {"false", "true", true}};
    struct tiny_options o = tiny_family("ministral3");
    const char *folder = files_path("around"), *config = files_path("around/config.json");
    o.tied = true;
    assert_int_equal(tiny_write_hf(folder, &o), 0);
    uint64_t bytes;
    char *text = files_read(config, &bytes);
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        char made[4096], outer[64] = "", key[] = "\"tie_word_embeddings\": ";
        const char *at = strstr(text, key) + strlen(key);
        gyre_source *source = NULL;
        gyre_error err = {0};
        if (cases[i].outer) snprintf(outer, sizeof outer, "%s%s, ", key, cases[i].outer);
        snprintf(made, sizeof made, "{\"model_type\": \"mistral3\", %s\"text_config\": %.*s%s%s}", outer,
                 (int)(at - text), text, cases[i].inner, at + strcspn(at, ","));
        files_write(config, made);
        struct gyre_hparams hp = {0};
        gyre_status st = gyre_model_open(folder, &source, &err);
        if (st == GYRE_OK) st = gyre_hparams_read(source, &hp, &err);
        assert_int_equal(hp.tied, true);
        gyre_hparams_free(&hp);
        gyre_source_close(source);
        assert_int_equal(st, cases[i].fails ? GYRE_E_FORMAT : GYRE_OK);
        if (cases[i].fails) assert_non_null(strstr(err.message, "lm_head.weight is missing"));
    }
    free(text);
}

// transformers takes the numbers of one of its models then.
static void a_ministral3_says_its_rope(void **state)
{
    (void)state;
    struct tiny_options o = tiny_family("ministral3");
    const char *folder = files_path("mute");
    gyre_source *source = NULL;
    gyre_error err = {0};
    o.scaling = GYRE_ROPE_NONE;
    assert_int_equal(tiny_write_hf(folder, &o), 0);
    assert_int_equal(gyre_source_open(folder, &source, &err), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "rope_parameters is missing"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_config_means_what_transformers_means),
        cmocka_unit_test(a_config_is_not_half_read),
        cmocka_unit_test(heads_that_are_null),
        cmocka_unit_test(a_model_around_a_text_model_ties_it),
        cmocka_unit_test(a_ministral3_says_its_rope),
        cmocka_unit_test(every_type_opens),
        cmocka_unit_test(both_containers_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
