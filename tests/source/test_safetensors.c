// Hugging Face directories that lie: safetensors headers, shard indexes, config.json. Right status, one line, no crash.
#include "tests/common/bytes.h"
#include "tests/common/tiny.h"

#include "runtime/util/base.h"
#include "runtime/util/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const dir = "lying_hf";

static gyre_status open_all(struct gyre_hparams *hp, gyre_error *err)
{
    gyre_source *source = NULL;
    *hp = (struct gyre_hparams){0};
    gyre_status st = gyre_source_open(dir, &source, err);
    if (st == GYRE_OK) st = gyre_hparams_read(source, hp, err);
    if (st == GYRE_OK) st = gyre_model_check(source, hp, err);
    gyre_source_close(source);
    return st;
}

static void expect(const char *what, gyre_status due, const char *says)
{
    struct gyre_hparams hp;
    gyre_error err = {0};
    const gyre_status st = open_all(&hp, &err);
    if (st != due || (says && !strstr(err.message, says)) || strchr(err.message, '\n'))
        fail_msg("%s: status %d (due %d), \"%s\" (due: %s)", what, st, due, err.message, says ? says : "");
}

static void in_dir(const char *name, char out[128]) { snprintf(out, 128, "%s/%s", dir, name); }

static void write_text(const char *name, const char *text)
{
    char path[128];
    struct bytes b = {0};
    in_dir(name, path);
    put_text(&b, text);
    assert_int_equal(save_bytes(&b, path), 0);
    free(b.data);
}

static void read_text(const char *name, struct bytes *b)
{
    char path[128];
    char *data = NULL;
    gyre_error err = {0};
    in_dir(name, path);
    if (gyre_file_read(path, 64 << 20, &data, &b->size, &err) != GYRE_OK) fail_msg("%s", err.message);
    b->data = (unsigned char *)data;
    b->cap = b->size;
}

static int clean(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

// A fresh tiny model; sharded into `shards`.
static void fresh(uint32_t shards)
{
    struct tiny_options o = tiny_defaults();
    o.shards = shards;
    assert_int_equal(clean(NULL), 0);
    assert_int_equal(tiny_write_hf(dir, &o), 0);
}

static void lying_headers(void **state)
{
    (void)state;
#define T(name, type, shape, begin, end)                                                                               \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"
    static const struct {
        const char *header;
        uint32_t data;
        gyre_status status;
        const char *says;
    } cases[] = {
        {"{" T("a", "F32", "[2,2]", "0", "16") "}", 15, GYRE_E_FORMAT, "past the end"},
        {"{" T("a", "F32", "[2,2]", "0", "16") "}", 17, GYRE_E_FORMAT, "after the last tensor"},
        {"{" T("a", "F32", "[2,2]", "0", "12") "}", 12, GYRE_E_FORMAT, "12 bytes where its shape needs 16"},
        {"{" T("a", "F32", "[2,2]", "4", "20") "}", 20, GYRE_E_FORMAT, "hole"},
        {"{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[2]", "4", "12") "}", 12, GYRE_E_FORMAT, "overlaps"},
        {"{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[2]", "12", "20") "}", 20, GYRE_E_FORMAT, "hole"},
        {"{" T("a", "F32", "[2]", "0", "8") "," T("a", "F32", "[2]", "8", "16") "}", 16, GYRE_E_FORMAT, "duplicate"},
        {"{" T("a", "F32", "[2]", "8", "0") "}", 8, GYRE_E_FORMAT, "data_offsets"},
        {"{" T("a", "F32", "[2]", "-8", "0") "}", 8, GYRE_E_FORMAT, "data_offsets"},
        {"{" T("a", "F32", "[2]", "0", "8.0") "}", 8, GYRE_E_FORMAT, "data_offsets"},
        {"{" T("a", "F32", "[2]", "0", "99999999999999999999999") "}", 8, GYRE_E_FORMAT, "line 1"},
        {"{" T("a", "F32", "[4294967296,4294967296]", "0", "8") "}", 8, GYRE_E_FORMAT, "shape"},
        {"{" T("a", "F32", "[0,2]", "0", "0") "}", 0, GYRE_E_FORMAT, "shape"},
        {"{" T("a", "F32", "[-1]", "0", "8") "}", 8, GYRE_E_FORMAT, "shape"},
        {"{" T("a", "F32", "[1,1,1,1,2]", "0", "8") "}", 8, GYRE_E_UNSUPPORTED, "4 dimensions"},
        {"{" T("a", "F8_E4M3", "[8]", "0", "8") "}", 8, GYRE_E_UNSUPPORTED, "F8_E4M3"},
        {"{" T("a", "F8_E4M3", "[8]", "0", "8") "}", 8, GYRE_E_UNSUPPORTED, "F8_E4M3"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, GYRE_E_FORMAT, "no shape"},
        {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, GYRE_E_FORMAT, "no dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, GYRE_E_FORMAT, "data_offsets"},
        {"{\"a\":7}", 8, GYRE_E_FORMAT, "data_offsets"},
        {"{\"\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, GYRE_E_FORMAT, "impossible tensor name"},
        {"{\"a", 8, GYRE_E_FORMAT, "line 1"},
        {"{} {}", 0, GYRE_E_FORMAT, "line 1"},
        {"[1]", 0, GYRE_E_FORMAT, "no JSON object"},
        {" {}", 0, GYRE_E_FORMAT, "no JSON object"},
        {"{}", 0, GYRE_E_FORMAT, "lm_head.weight is missing"},
        {"{" T("a", "F32", "[]", "0", "4") "}", 4, GYRE_E_FORMAT, "lm_head.weight is missing"}, // rank 0 is legal
    };
    fresh(1);
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        char path[128];
        struct bytes b = {0};
        put_u64(&b, strlen(cases[i].header));
        put_text(&b, cases[i].header);
        put_zeros(&b, cases[i].data);
        in_dir("model.safetensors", path);
        assert_int_equal(save_bytes(&b, path), 0);
        expect(cases[i].header, cases[i].status, cases[i].says);
        // The same with a header length that lies.
        static const uint64_t lengths[] = {0, 1, 7, 100000001, 1ull << 40, UINT64_MAX, UINT64_MAX - 7};
        for (size_t k = 0; k < GYRE_COUNT(lengths); k++) {
            memcpy(b.data, &lengths[k], 8);
            assert_int_equal(save_bytes(&b, path), 0);
            expect("header length", GYRE_E_FORMAT, NULL);
        }
        free(b.data);
    }
}

static void every_truncation(void **state)
{
    (void)state;
    char path[128];
    struct bytes b = {0};
    fresh(1);
    in_dir("model.safetensors", path);
    read_text("model.safetensors", &b);
    uint64_t header;
    memcpy(&header, b.data, 8);
    for (uint64_t n = b.size - 1; n > 0; n -= GYRE_MIN(n, n > header + 8 ? 1009u : 1u)) {
        assert_int_equal(truncate(path, (off_t)n), 0);
        expect("truncated", GYRE_E_FORMAT, "model.safetensors");
    }
    free(b.data);
}

static void lying_shards(void **state)
{
    (void)state;
    static const struct {
        const char *index;
        gyre_status status;
        const char *says;
    } cases[] = {
        {"{}", GYRE_E_FORMAT, "weight_map"},
        {"[]", GYRE_E_FORMAT, "no JSON object"},
        {"{\"weight_map\": {}}", GYRE_E_FORMAT, "lm_head.weight"},
        {"{\"weight_map\": {\"a\": 3}}", GYRE_E_FORMAT, "impossible file"},
        {"{\"weight_map\": {\"a\": \"../lying_hf/model-00001-of-00003.safetensors\"}}", GYRE_E_FORMAT,
         "impossible file"},
        {"{\"weight_map\": {\"a\": \"/dev/zero\"}}", GYRE_E_FORMAT, "impossible file"},
        {"{\"weight_map\": {\"a\": \"..\"}}", GYRE_E_FORMAT, "impossible file"},
        {"{\"weight_map\": {\"a\": \"missing.safetensors\"}}", GYRE_E_IO, "missing.safetensors"},
        {"{\"weight_map\": {\"nowhere\": \"model-00001-of-00003.safetensors\"}}", GYRE_E_FORMAT, "\"nowhere\""},
    };
    fresh(3);
    expect("honest", GYRE_OK, NULL);
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        write_text("model.safetensors.index.json", cases[i].index);
        expect(cases[i].index, cases[i].status, cases[i].says);
    }
    // The same shard under two names: every tensor comes twice.
    struct bytes b = {0};
    char path[128];
    read_text("model-00001-of-00003.safetensors", &b);
    in_dir("copy.safetensors", path);
    assert_int_equal(save_bytes(&b, path), 0);
    free(b.data);
    write_text("model.safetensors.index.json",
               "{\"weight_map\": {\"a\": \"model-00001-of-00003.safetensors\", \"b\": \"copy.safetensors\"}}");
    expect("a shard twice", GYRE_E_FORMAT, "two tensor entries");
}

// The first weight of the final norm: other for every seed.
static float first_weight(gyre_source *source)
{
    float row[64];
    const struct gyre_tensor *t = gyre_source_tensor(source, "model.norm.weight");
    assert_true(t && t->cols == 64);
    gyre_tensor_rows_f32(t, 0, 1, row);
    return row[0];
}

// A model that was saved again as one file may have its old shards and their index beside it: the file is the model.
static void one_file_goes_before_shards(void **state)
{
    (void)state;
    struct tiny_options o = tiny_defaults();
    char path[128];
    float single[2];
    for (uint64_t seed = 1; seed <= 2; seed++) { // the file is left, the shards of the other model come beside it
        gyre_source *source = NULL;
        gyre_error err = {0};
        o.seed = seed;
        o.shards = seed == 1 ? 1 : 3;
        if (seed == 1) assert_int_equal(clean(NULL), 0);
        assert_int_equal(tiny_write_hf(dir, &o), 0);
        if (gyre_source_open(dir, &source, &err) != GYRE_OK) fail_msg("%s", err.message);
        single[seed - 1] = first_weight(source);
        assert_true((gyre_source_note(source) != NULL) == (seed == 2));
        gyre_source_close(source);
    }
    assert_true(single[0] == single[1]);
    in_dir("model-00002-of-00003.safetensors", path); // a stale index is no fault
    assert_int_equal(remove(path), 0);
    expect("an index without shards", GYRE_OK, NULL);
    in_dir("model.safetensors", path);
    assert_int_equal(remove(path), 0);
    expect("a shard is missing", GYRE_E_IO, "model-00002-of-00003.safetensors");
}

// What is there and cannot be read is not taken as absent.
static void broken_links_are_no_absence(void **state)
{
    (void)state;
    static const char *const names[] = {"generation_config.json", "tokenizer_config.json", "tokenizer.json",
                                        "model.safetensors.index.json", "model.safetensors"};
    for (size_t i = 0; i < GYRE_COUNT(names); i++) {
        char path[128];
        fresh(i == 3 ? 3 : 1);
        in_dir(names[i], path);
        remove(path);
        assert_int_equal(symlink("nowhere", path), 0);
        expect(names[i], GYRE_E_IO, names[i]);
    }
}

// config.json with the first `from` replaced.
static void change_config(const struct bytes *config, const char *from, const char *to)
{
    struct bytes b = {0}, text = {0};
    put(&text, config->data, config->size);
    put_u8(&text, 0);
    const char *start = (const char *)text.data, *at = strstr(start, from);
    if (!at) fail_msg("no %s in config.json", from);
    put(&b, start, (size_t)(at - start));
    put_text(&b, to);
    put_text(&b, at + strlen(from));
    put_u8(&b, 0);
    write_text("config.json", (const char *)b.data);
    free(b.data);
    free(text.data);
}

static void lying_configs(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
        gyre_status status;
        const char *says;
    } cases[] = {
        {"\"model_type\": \"llama\"", "\"model_type\": \"gpt_neox\"", GYRE_E_UNSUPPORTED,
         "architecture \"gpt_neox\"; gyre runs llama, "},
        {"\"model_type\": \"llama\"", "\"model_type\": \"qwen2\"", GYRE_E_FORMAT, "q_proj.bias is missing"},
        {"\"model_type\": \"llama\"", "\"model_type\": \"qwen3\"", GYRE_E_FORMAT, "q_norm.weight is missing"},
        {"\"model_type\": \"llama\",", "", GYRE_E_FORMAT, "model_type is missing"},
        {"\"model_type\": \"llama\"", "\"model_type\": 5", GYRE_E_FORMAT, "model_type is no text"},
        {"\"silu\"", "7", GYRE_E_FORMAT, "hidden_act is no text"},
        {"\"attention_bias\": false", "\"attention_bias\": 1", GYRE_E_FORMAT, "attention_bias is neither"},
        {"\"mlp_bias\": false", "\"mlp_bias\": \"true\"", GYRE_E_FORMAT, "mlp_bias is neither"},
        {"\"mlp_bias\": false", "\"mlp_bias\": null", GYRE_OK, NULL},
        {"\"mlp_bias\": false", "\"partial_rotary_factor\": \"0.5\"", GYRE_E_FORMAT, "partial_rotary_factor"},
        {"\"tie_word_embeddings\": false", "\"tie_word_embeddings\": \"no\"", GYRE_E_FORMAT,
         "tie_word_embeddings is neither"},
        {"\"hidden_size\": 64", "\"hidden_size\": 64.0", GYRE_OK, NULL},
        {"\"silu\"", "\"swish\"", GYRE_OK, NULL},
        {"\"silu\"", "\"gelu\"", GYRE_E_UNSUPPORTED, "hidden_act is gelu"},
        {"\"attention_bias\": false", "\"attention_bias\": true", GYRE_E_FORMAT, "self_attn.q_proj.bias is missing"},
        {"\"mlp_bias\": false", "\"mlp_bias\": true", GYRE_E_FORMAT, "mlp.gate_proj.bias is missing"},
        {"\"mlp_bias\": false", "\"quantization_config\": {\"quant_method\": \"awq\"}", GYRE_E_UNSUPPORTED,
         "the width of quantization_config is missing; gyre"},
        {"\"mlp_bias\": false", "\"quantization_config\": 4", GYRE_E_UNSUPPORTED,
         "quant_method of quantization_config is missing; gyre"},
        {"\"mlp_bias\": false", "\"quantization_config\": {\"quant_method\": \"gptq\", \"checkpoint_format\": \"v9\"}",
         GYRE_E_UNSUPPORTED, "checkpoint_format of quantization_config is v9; gyre"},
        {"\"mlp_bias\": false", "\"quantization_config\": {\"quant_method\": \"a\", \"format\": \"b\"}",
         GYRE_E_UNSUPPORTED, "quant_method of quantization_config is a; gyre"},
        {"\"mlp_bias\": false", "\"partial_rotary_factor\": 0.5", GYRE_E_UNSUPPORTED, "llama turns whole heads"},
        {"\"hidden_size\": 64", "\"hidden_size\": -64", GYRE_E_FORMAT, "hidden_size"},
        {"\"hidden_size\": 64", "\"hidden_size\": \"64\"", GYRE_E_FORMAT, "hidden_size"},
        {"\"hidden_size\": 64", "\"hidden_size\": 64.5", GYRE_E_FORMAT, "hidden_size"},
        {"\"hidden_size\": 64", "\"hidden_size\": 99999999999", GYRE_E_FORMAT, "hidden_size"},
        {"\"hidden_size\": 64", "\"hidden_size\": null", GYRE_E_FORMAT, "embedding_length is missing"},
        {"\"hidden_size\": 64", "\"hidden_size\": 72", GYRE_E_FORMAT, "has shape"},
        {"\"hidden_size\": 64", "\"hidden_size\": 64, \"hidden_size\": 64", GYRE_E_FORMAT, "duplicate"},
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", GYRE_E_FORMAT, "model.layers.2."},
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", GYRE_E_UNSUPPORTED, "model.layers.1."},
        {"\"vocab_size\": 304", "\"vocab_size\": 305", GYRE_E_FORMAT, "model.embed_tokens.weight"},
        {"\"head_dim\": 16", "\"head_dim\": 20", GYRE_E_UNSUPPORTED, "head size"},
        {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", GYRE_E_FORMAT, "multiple of 3"},
        {"\"rope_theta\": 10000", "\"rope_theta\": \"big\"", GYRE_E_FORMAT, "rope_theta"},
        {"\"rope_theta\": 10000", "\"rope_theta\": -1", GYRE_E_UNSUPPORTED, "freq_base"},
        {"\"rope_scaling\": null", "\"rope_scaling\": \"linear\"", GYRE_E_FORMAT, "no object"},
        {"\"rope_scaling\": null",
         "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2, \"original_max_position_embeddings\": \"64\"}",
         GYRE_E_FORMAT, "original_max_position_embeddings"},
        {"\"rope_scaling\": null", "\"rope_parameters\": {\"rope_type\": \"proportional\"}", GYRE_E_UNSUPPORTED,
         "proportional"},
        {"\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": 3}", GYRE_E_FORMAT, "rope type"},
        {"\"rope_scaling\": null", "\"rope_scaling\": {\"type\": \"linear\"}", GYRE_E_FORMAT,
         "scaling.factor is missing"},
        {"\"rope_scaling\": null",
         "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 4}, \"rope_parameters\": {\"rope_type\": \"default\"}",
         GYRE_E_UNSUPPORTED, "rope_parameters"},
        {"\"rope_scaling\": null", "\"rope_scaling\": {\"factor\": 4}", GYRE_E_UNSUPPORTED, "factor without a type"},
        {"\"rope_scaling\": null", "\"rope_scaling\": {\"type\": null, \"factor\": 4}", GYRE_E_UNSUPPORTED,
         "factor without a type"},
        {"\"rope_scaling\": null", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 4, \"attention_factor\": 0.5}",
         GYRE_E_UNSUPPORTED, "attention_factor"},
        {"\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}", GYRE_E_FORMAT,
         "low_freq_factor is missing"},
        {"\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true", GYRE_OK, NULL},
        {"{", "[", GYRE_E_FORMAT, "config.json"},
        {"\"hidden_act\": \"silu\"", "\"hidden_act\": \"si\nlu\"", GYRE_E_FORMAT, "config.json"},
    };
    struct bytes config = {0};
    fresh(1);
    read_text("config.json", &config);
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        change_config(&config, cases[i].from, cases[i].to);
        expect(cases[i].to, cases[i].status, cases[i].says);
    }
    for (size_t n = 0; n + 2 < config.size; n += 7) {
        struct bytes part = {config.data, n, n};
        char path[128];
        in_dir("config.json", path);
        assert_int_equal(save_bytes(&part, path), 0);
        expect("truncated config.json", GYRE_E_FORMAT, "config.json");
    }
    free(config.data);
}

static void both_spellings_of_rope(void **state)
{
    (void)state;
    static const char *const spellings[] = {
        "\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4, "
        "\"original_max_position_embeddings\": 64}",
        "\"rope_parameters\": {\"rope_theta\": 10000.0, \"rope_type\": \"llama3\", \"factor\": 8.0, "
        "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
        "\"original_max_position_embeddings\": 64}",
        "\"rope_parameters\": {\"rope_theta\": 50000, \"rope_type\": \"default\"}",
    };
    struct bytes config = {0};
    fresh(1);
    read_text("config.json", &config);
    for (size_t i = 0; i < GYRE_COUNT(spellings); i++) {
        struct gyre_hparams hp;
        gyre_error err = {0};
        float f[8];
        change_config(&config, "\"rope_scaling\": null", spellings[i]);
        if (open_all(&hp, &err) != GYRE_OK) fail_msg("%s", err.message);
        gyre_rope_freqs(&hp, GYRE_TURN_ROPE, f);
        assert_int_equal(hp.rope_scaling, i < 2 ? GYRE_ROPE_LLAMA3 : GYRE_ROPE_NONE);
        assert_true(hp.rope_base == (i < 2 ? 10000 : 50000));
        assert_true(f[0] == 1);
        assert_true(i < 2 ? f[7] < 5e-5f : f[7] > 7e-5f); // 10000^(-7/8) / 8 and 50000^(-7/8)
        gyre_hparams_free(&hp);
    }
    free(config.data);
}

// A model that was saved without its head has names without "model.".
static void names_of_a_model_without_its_head(void **state)
{
    (void)state;
    static const char from[] = "\"model.", to[] = "      \"";
    struct bytes b = {0};
    char path[128];
    uint64_t length;
    unsigned n = 0;
    fresh(1);
    read_text("model.safetensors", &b);
    memcpy(&length, b.data, sizeof length);
    for (uint64_t i = 8; i + sizeof from - 1 < 8 + length; i++)
        if (!memcmp(b.data + i, from, sizeof from - 1)) memcpy(b.data + i, to, sizeof to - 1), n++;
    assert_true(n > 10);
    in_dir("model.safetensors", path);
    assert_int_equal(save_bytes(&b, path), 0);
    expect("bare names", GYRE_OK, NULL);
    free(b.data);
}

// config.json ties the head that the file holds: as the embedding once more it is left out, else it is the head.
static void a_tied_head_of_its_own(void **state)
{
    (void)state;
    struct bytes config = {0}, b = {0};
    char path[128];
    fresh(1);
    read_text("config.json", &config);
    read_text("model.safetensors", &b);
    change_config(&config, "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    in_dir("model.safetensors", path);
    for (int same = 0; same < 2; same++) {
        gyre_source *source = NULL;
        gyre_error err = {0};
        if (gyre_source_open(dir, &source, &err) != GYRE_OK) fail_msg("%s", err.message);
        const struct gyre_tensor *table = gyre_source_tensor(source, "model.embed_tokens.weight"),
                                 *head = gyre_source_tensor(source, "lm_head.weight");
        const char *note = gyre_source_note(source);
        assert_int_equal(!head, same);
        assert_int_equal(!note, same);
        if (!same) {
            assert_non_null(strstr(note, "lm_head.weight holds other numbers"));
            assert_true(head->bytes == table->bytes && memcmp(head->data, table->data, head->bytes));
            memcpy(b.data + b.size - head->bytes, table->data, table->bytes); // it is the last in the file
        }
        gyre_source_close(source);
        assert_int_equal(save_bytes(&b, path), 0);
    }
    free(config.data);
    free(b.data);
}

static void not_a_number(void **state)
{
    (void)state;
    struct bytes b = {0};
    char path[128];
    const uint32_t nan = 0xFFC00001;
    fresh(1);
    read_text("model.safetensors", &b);
    memcpy(b.data + b.size - 4, &nan, 4);
    in_dir("model.safetensors", path);
    assert_int_equal(save_bytes(&b, path), 0);
    expect("NaN at the end", GYRE_E_FORMAT, "lm_head.weight holds NaN");
    free(b.data);
    fresh(1);
    in_dir("config.json", path);
    assert_int_equal(remove(path), 0);
    expect("no config.json", GYRE_E_IO, "config.json");
    fresh(1);
    in_dir("model.safetensors", path);
    assert_int_equal(remove(path), 0);
    expect("no weights", GYRE_E_IO, "model.safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lying_headers),
        cmocka_unit_test(every_truncation),
        cmocka_unit_test(lying_shards),
        cmocka_unit_test(lying_configs),
        cmocka_unit_test(both_spellings_of_rope),
        cmocka_unit_test(names_of_a_model_without_its_head),
        cmocka_unit_test(a_tied_head_of_its_own),
        cmocka_unit_test(not_a_number),
        cmocka_unit_test(one_file_goes_before_shards),
        cmocka_unit_test(broken_links_are_no_absence),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
