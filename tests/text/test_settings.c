// BOS, EOS and the tokens that end a text, from every place where a model may name them: GGUF's keys, and the three
// files of a Hugging Face directory. What is named is used; what cannot be read is refused by name.
#include "tests/common/bytes.h"
#include "tests/common/tiny.h"

#include "runtime/text/tokenizer.h"
#include "runtime/util/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const file = "settings.gguf", *const dir = "settings_dir";

enum { BOS, EOS, EOT, OTHER, A, B, AB, TOKENS }; // the tokens of all models here

static char warnings[2048];
static void keep_warning(void *user, gyre_log_level level, const char *line)
{
    (void)user;
    if (level == GYRE_LOG_WARN) snprintf(warnings + strlen(warnings), sizeof warnings - strlen(warnings), "%s\n", line);
}
static const gyre_log log_to_buffer = {.write = keep_warning, .level = GYRE_LOG_TRACE};

static gyre_tokenizer *tokenizer;
static gyre_status create(const char *path, const char *pre, gyre_error *err)
{
    gyre_source *source = NULL;
    *err = (gyre_error){0};
    warnings[0] = 0;
    gyre_tokenizer_destroy(tokenizer);
    tokenizer = NULL;
    gyre_status st = gyre_source_open(path, &source, err);
    if (st == GYRE_OK) st = gyre_tokenizer_create(source, pre, &log_to_buffer, &tokenizer, err);
    gyre_source_close(source);
    return st;
}

// The tokens of a text as digits: "045" is BOS, A, B. NULL text: "ab", which is the token AB.
static const char *encoded(const char *text, uint32_t flags)
{
    static char out[64];
    uint32_t *ids;
    uint64_t n;
    gyre_error err = {0};
    if (!text) text = "ab";
    if (gyre_tokenizer_encode(tokenizer, text, strlen(text), flags | GYRE_ENCODE_SPECIAL, &ids, &n, &err) != GYRE_OK)
        fail_msg("%s", err.message);
    assert_true(n < sizeof out);
    for (uint64_t i = 0; i < n; i++) out[i] = (char)('0' + ids[i]);
    out[n] = 0;
    free(ids);
    return out;
}

// Which tokens end a text, in order.
static const char *ends(void)
{
    static char out[TOKENS + 1];
    size_t n = 0;
    for (uint32_t i = 0; i < TOKENS; i++)
        if (gyre_tokenizer_is_end(tokenizer, i)) out[n++] = (char)('0' + i);
    out[n] = 0;
    return out;
}

// ---- GGUF ---------------------------------------------------------------------------------------------

static struct bytes keys;
static uint64_t n_keys;

static void key_u32(const char *key, uint32_t v)
{
    put_meta_u32(&keys, key, v);
    n_keys++;
}

static void key_bool(const char *key, int v)
{
    put_meta_bool(&keys, key, v);
    n_keys++;
}

static void key_text(const char *key, const char *text)
{
    put_meta_string(&keys, key, text);
    n_keys++;
}

static void key_list(const char *key, uint32_t n, const uint32_t *v)
{
    put_meta_array(&keys, key, GYRE_META_I32, n);
    for (uint32_t i = 0; i < n; i++) put_u32(&keys, v[i]);
    n_keys++;
}

// A file with the tokens above and the keys put since the last one; `pre` NULL: none is named.
static gyre_status open_keys(const char *pre, const char *override, gyre_error *err)
{
    static const char *const names[] = {"<bos>", "<eos>", "<eot>", "<other>", "a", "b", "ab"};
    struct bytes b = {0};
    put_text(&b, "GGUF");
    put_u32(&b, 3);
    put_u64(&b, 0);
    put_u64(&b, n_keys + 4 + (pre != NULL));
    put_meta_string(&b, "tokenizer.ggml.model", "gpt2");
    if (pre) put_meta_string(&b, "tokenizer.ggml.pre", pre);
    put_meta_array(&b, "tokenizer.ggml.tokens", GYRE_META_STRING, TOKENS);
    for (int i = 0; i < TOKENS; i++) put_string(&b, names[i]);
    put_meta_array(&b, "tokenizer.ggml.token_type", GYRE_META_I32, TOKENS);
    for (int i = 0; i < TOKENS; i++) put_u32(&b, i < A ? 3 : 1);
    put_meta_array(&b, "tokenizer.ggml.merges", GYRE_META_STRING, 1);
    put_string(&b, "a b");
    put(&b, keys.data, keys.size);
    free(keys.data);
    keys = (struct bytes){0};
    n_keys = 0;
    assert_int_equal(save_bytes(&b, file), 0);
    free(b.data);
    return create(file, override, err);
}

static void opens(const char *pre)
{
    gyre_error err;
    if (open_keys(pre, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
}

static void refuses(const char *says)
{
    gyre_error err;
    const gyre_status st = open_keys("gpt-2", NULL, &err);
    if (st == GYRE_OK || !strstr(err.message, says) || !strstr(err.message, file) || strchr(err.message, '\n'))
        fail_msg("status %d, \"%s\" (due: %s)", st, err.message, says);
}

static void gguf_says_whether_bos_is_added(void **state)
{
    (void)state;
    static const char bos[] = "tokenizer.ggml.bos_token_id", add[] = "tokenizer.ggml.add_bos_token";
    key_u32(bos, BOS), opens("gpt-2"); // not where nothing says so
    assert_string_equal(encoded(NULL, GYRE_ENCODE_AROUND), "6");
    assert_string_equal(encoded(NULL, GYRE_ENCODE_BOS), "06");
    key_u32(bos, BOS), key_bool(add, 1), opens("gpt-2");
    assert_string_equal(encoded(NULL, GYRE_ENCODE_AROUND), "06");
    assert_string_equal(encoded("", GYRE_ENCODE_AROUND), "0");
    assert_string_equal(encoded(NULL, 0), "6");
    assert_string_equal(encoded(NULL, GYRE_ENCODE_AROUND | GYRE_ENCODE_NO_BOS), "6");
    assert_string_equal(encoded("<bos>ab", GYRE_ENCODE_AROUND), "06"); // never doubled
    assert_string_equal(encoded("<bos>ab", GYRE_ENCODE_AROUND | GYRE_ENCODE_BOS), "06");
    assert_string_equal(encoded("<eos>ab", GYRE_ENCODE_AROUND), "016");
    // Models of these kinds have one unless they say otherwise.
    key_u32(bos, BOS), opens("llama-bpe");
    assert_string_equal(encoded(NULL, GYRE_ENCODE_AROUND), "06");
    key_u32(bos, BOS), opens("tekken");
    assert_string_equal(encoded(NULL, GYRE_ENCODE_AROUND), "06");
    key_u32(bos, BOS), key_bool(add, 0), opens("llama-bpe");
    assert_string_equal(encoded(NULL, GYRE_ENCODE_AROUND), "6");
    assert_string_equal(warnings, "");
    opens("llama-bpe");
    assert_string_equal(encoded(NULL, GYRE_ENCODE_AROUND), "6");
    assert_non_null(strstr(warnings, "bos_token_id"));
    // A list of one, another width, "none" in every spelling.
    key_list(bos, 1, (const uint32_t[]){BOS}), key_u32(add, 1), opens("gpt-2");
    assert_string_equal(encoded(NULL, GYRE_ENCODE_AROUND), "06");
    key_u32(bos, UINT32_MAX), opens("gpt-2");
    assert_int_equal(gyre_tokenizer_bos(tokenizer), -1);
    gyre_error err = {0};
    uint32_t *ids;
    uint64_t n;
    assert_int_equal(gyre_tokenizer_encode(tokenizer, "ab", 2, GYRE_ENCODE_BOS, &ids, &n, &err), GYRE_E_INVALID);
    key_bool(add, 1), refuses("names no BOS");
    key_u32(bos, TOKENS), refuses("BOS is token 7 of 7");
    key_text(bos, "<bos>"), refuses(bos);
    key_text(add, "yes"), refuses(add);
    key_u32(add, 2), refuses(add);
}

static void gguf_says_whether_eos_is_added(void **state)
{
    (void)state;
    static const char eos[] = "tokenizer.ggml.eos_token_id", add[] = "tokenizer.ggml.add_eos_token";
    key_u32(eos, EOS), key_bool(add, 1), opens("gpt-2");
    assert_string_equal(encoded(NULL, GYRE_ENCODE_AROUND), "61");
    assert_string_equal(encoded("ab<eos>", GYRE_ENCODE_AROUND), "61");
    assert_string_equal(encoded(NULL, 0), "6");
    key_u32(eos, EOS), opens("gpt-2");
    assert_string_equal(encoded(NULL, GYRE_ENCODE_AROUND), "6");
    key_bool(add, 1), refuses("names no EOS");
    key_u32(add, 3), refuses(add);
}

static void gguf_names_ends_in_every_form(void **state)
{
    (void)state;
    static const char eos[] = "tokenizer.ggml.eos_token_id", eot[] = "tokenizer.ggml.eot_token_id";
    key_u32(eos, EOS), opens("gpt-2");
    assert_string_equal(ends(), "1");
    key_list(eos, 2, (const uint32_t[]){EOS, EOT}), opens("gpt-2");
    assert_string_equal(ends(), "12");
    key_u32(eos, EOS), key_u32(eot, EOT), key_u32("tokenizer.ggml.eom_token_id", OTHER), opens("gpt-2");
    assert_string_equal(ends(), "123");
    key_u32(eos, EOS), key_list("tokenizer.ggml.eos_token_ids", 2, (const uint32_t[]){EOS, OTHER}), opens("gpt-2");
    assert_string_equal(ends(), "13");
    key_u32(eos, EOS), key_list("tokenizer.ggml.end_token_ids", 2, (const uint32_t[]){EOS, EOT}), opens("gpt-2");
    assert_string_equal(ends(), "12");
    key_u32(eos, UINT32_MAX), key_u32(eot, EOT), opens("gpt-2");
    assert_string_equal(ends(), "2");
    key_list(eos, 1, (const uint32_t[]){UINT32_MAX}), opens("gpt-2"); // -1
    assert_string_equal(ends(), "");
    key_u32(eos, TOKENS), refuses("end of text is token 7 of 7");
    key_list(eos, 2, (const uint32_t[]){EOS, 0x80000000u}), refuses(eos);
    key_text(eot, "<eot>"), refuses(eot);
}

static void a_guess_is_said(void **state)
{
    (void)state;
    gyre_error err;
    opens(NULL);
    assert_true(strstr(warnings, "\"default\"") && strstr(warnings, "--pre") && strstr(warnings, file));
    assert_int_equal(open_keys(NULL, "llama-bpe", &err), GYRE_OK);
    assert_null(strstr(warnings, "guess"));
    assert_int_equal(open_keys("martian", "gpt-2", &err), GYRE_OK); // overrides what is named, too
    assert_string_equal(warnings, "");
    assert_int_equal(open_keys("gpt-2", "martian", &err), GYRE_E_UNSUPPORTED);
    assert_true(strstr(err.message, "\"martian\"") && strstr(err.message, "llama-bpe") &&
                strstr(err.message, "smollm"));
    key_u32("tokenizer.ggml.pre", 3);
    assert_int_equal(open_keys(NULL, NULL, &err), GYRE_E_FORMAT); // not taken as absent
    assert_non_null(strstr(err.message, "tokenizer.ggml.pre"));
}

// ---- Hugging Face -------------------------------------------------------------------------------------

static void write_text(const char *name, const char *text)
{
    char path[128];
    struct bytes b = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    remove(path);
    if (!text) return;
    put_text(&b, text);
    assert_int_equal(save_bytes(&b, path), 0);
    free(b.data);
}

// tokenizer.json with the tokens above; `post` is its post-processor.
static void write_tokenizer(const char *post)
{
    struct bytes b = {0};
    static const char *const names[] = {"<bos>", "<eos>", "<eot>", "<other>"};
    put_text(&b, "{\"added_tokens\": [");
    for (int i = 0; i < A; i++) {
        char item[160];
        snprintf(item, sizeof item, "%s{\"id\": %d, \"content\": \"%s\", \"special\": true, \"normalized\": false}",
                 i ? ", " : "", i, names[i]);
        put_text(&b, item);
    }
    put_text(&b, "], \"normalizer\": null, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, "
                 "\"post_processor\": ");
    put_text(&b, post);
    put_text(&b, ", \"model\": {\"type\": \"BPE\", \"vocab\": {\"<bos>\": 0, \"<eos>\": 1, \"<eot>\": 2, \"<other>\": "
                 "3, \"a\": 4, "
                 "\"b\": 5, \"ab\": 6}, "
                 "\"merges\": [[\"a\", \"b\"]]}}");
    put_u8(&b, 0);
    write_text("tokenizer.json", (const char *)b.data);
    free(b.data);
}

#define SPECIAL(name) "{\"SpecialToken\": {\"id\": \"" name "\", \"type_id\": 0}}"
#define TEXT "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}"
#define TEMPLATE(single)                                                                                               \
    "{\"type\": \"TemplateProcessing\", \"single\": [" single "], \"pair\": [], \"special_tokens\": {"                 \
    "\"<bos>\": {\"id\": \"<bos>\", \"ids\": [0]}, \"<eos>\": {\"id\": \"<eos>\", \"ids\": [1]}, "                     \
    "\"<other>\": {\"id\": \"<other>\", \"ids\": [3]}}}"

static void directories_say_the_same(void **state)
{
    (void)state;
    static const struct {
        const char *post, *tokenizer_config, *says; // says: the error; NULL: none
        const char *around, *bos; // tokens of "ab" and of "ab" with a BOS at any rate; NULL: not asked
    } cases[] = {
        {"null", NULL, NULL, "6", NULL},
        {TEMPLATE(SPECIAL("<bos>") ", " TEXT), NULL, NULL, "06", "06"},
        {TEMPLATE(SPECIAL("<other>") ", " SPECIAL("<bos>") ", " TEXT), NULL, NULL, "306", NULL},
        {TEMPLATE(SPECIAL("<bos>") ", " TEXT ", " SPECIAL("<eos>")), NULL, NULL, "061", "061"},
        {TEMPLATE(TEXT ", " SPECIAL("<eos>")), NULL, NULL, "61", NULL},
        {TEMPLATE(TEXT), NULL, NULL, "6", NULL},
        {"{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, " TEMPLATE(
             SPECIAL("<bos>") ", " TEXT) "]}",
         NULL, NULL, "06", "06"},
        // tokenizer_config.json goes before the template.
        {TEMPLATE(SPECIAL("<bos>") ", " TEXT), "{\"add_bos_token\": false}", NULL, "6", "06"},
        {"null", "{\"add_bos_token\": true, \"bos_token\": \"<bos>\"}", NULL, "06", "06"},
        {"null", "{\"add_bos_token\": true, \"bos_token\": {\"content\": \"<bos>\"}}", NULL, "06", "06"},
        {"null", "{\"add_eos_token\": true, \"eos_token\": \"<eos>\"}", NULL, "61", NULL},
        {"null", "{\"add_bos_token\": null, \"bos_token\": null}", NULL, "6", NULL},
        {"null", "{\"add_bos_token\": true}", "names no BOS", NULL, NULL},
        {"null", "{\"add_bos_token\": true, \"bos_token\": \"<none>\"}", "names no BOS", NULL, NULL},
        {"null", "{\"add_eos_token\": true}", "names no EOS", NULL, NULL},
        {"null", "{\"add_bos_token\": 1}", "add_bos_token", NULL, NULL},
        {"null", "{\"add_eos_token\": \"true\"}", "add_eos_token", NULL, NULL},
        {"null", "{\"bos_token\": 0}", "bos_token", NULL, NULL},
        {"null", "[]", "tokenizer_config.json", NULL, NULL},
        {TEMPLATE(SPECIAL("<none>") ", " TEXT), NULL, "special token", NULL, NULL},
        {TEMPLATE(SPECIAL("<bos>")), NULL, "template", NULL, NULL},
        {TEMPLATE(TEXT ", " TEXT), NULL, "template", NULL, NULL},
        {"{\"type\": \"TemplateProcessing\", \"single\": [" SPECIAL("x") ", " TEXT "], \"special_tokens\": {\"x\": "
                                                                         "{\"ids\": [99]}}}",
         NULL, "template", NULL, NULL},
    };
    write_text("config.json", "{\"model_type\": \"llama\"}");
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        gyre_error err;
        write_tokenizer(cases[i].post);
        write_text("tokenizer_config.json", cases[i].tokenizer_config);
        const gyre_status st = create(dir, NULL, &err);
        if (cases[i].says ? st == GYRE_OK || !strstr(err.message, cases[i].says) : st != GYRE_OK)
            fail_msg("case %zu: status %d, \"%s\"", i, st, err.message);
        if (cases[i].around) assert_string_equal(encoded(NULL, GYRE_ENCODE_AROUND), cases[i].around);
        if (cases[i].around) assert_string_equal(encoded(NULL, 0), "6");
        if (cases[i].bos) assert_string_equal(encoded(NULL, GYRE_ENCODE_AROUND | GYRE_ENCODE_BOS), cases[i].bos);
    }
    write_text("tokenizer_config.json", NULL);
}

static void directories_name_ends_in_three_files(void **state)
{
    (void)state;
    static const struct {
        const char *config, *generation, *tokenizer_config, *ends; // ends NULL: refused
    } cases[] = {
        {"\"eos_token_id\": 1", NULL, NULL, "1"},
        {"\"eos_token_id\": [1, 2]", NULL, NULL, "12"},
        {"\"eos_token_id\": 1", "{\"eos_token_id\": [1, 3]}", NULL, "13"},
        {"\"eos_token_id\": null", "{\"eos_token_id\": 2}", NULL, "2"},
        {"\"eos_token_id\": 3.0", NULL, NULL, "3"},
        {"\"x\": 0", NULL, "{\"eos_token\": \"<eot>\"}", "2"},
        {"\"eos_token_id\": 1", NULL, "{\"eos_token\": {\"content\": \"<eot>\"}}", "12"},
        {"\"eos_token_id\": -1", NULL, NULL, ""},
        {"\"eos_token_id\": \"1\"", NULL, NULL, NULL},
        {"\"eos_token_id\": [1, \"2\"]", NULL, NULL, NULL},
        {"\"eos_token_id\": 1.5", NULL, NULL, NULL},
        {"\"eos_token_id\": 7", NULL, NULL, NULL},
        {"\"eos_token_id\": 1", "{\"eos_token_id\": {}}", NULL, NULL},
        {"\"eos_token_id\": 1", "{", NULL, NULL},
        {"\"bos_token_id\": \"0\"", NULL, NULL, NULL},
    };
    write_tokenizer("null");
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        char config[128];
        gyre_error err;
        snprintf(config, sizeof config, "{\"model_type\": \"llama\", %s}", cases[i].config);
        write_text("config.json", config);
        write_text("generation_config.json", cases[i].generation);
        write_text("tokenizer_config.json", cases[i].tokenizer_config);
        const gyre_status st = create(dir, NULL, &err);
        if ((st == GYRE_OK) != (cases[i].ends != NULL)) fail_msg("case %zu: status %d, \"%s\"", i, st, err.message);
        if (cases[i].ends) assert_string_equal(ends(), cases[i].ends);
        else assert_true(strstr(err.message, dir) && !strchr(err.message, '\n'));
    }
    write_text("generation_config.json", NULL);
    write_text("tokenizer_config.json", NULL);
    write_text("config.json", "{\"model_type\": \"llama\"}");
    // A tokenizer.json has its pre-tokenizer.
    gyre_error err;
    assert_int_equal(create(dir, "gpt-2", &err), GYRE_E_INVALID);
}

static int setup(void **state)
{
    (void)state;
    struct tiny_options o = tiny_defaults();
    o.layers = 1, o.vocab = 259, o.width = o.ffn = o.head_dim = 8, o.heads = o.kv_heads = 1;
    return tiny_write_hf(dir, &o);
}

static int cleanup(void **state)
{
    (void)state;
    char command[64];
    gyre_tokenizer_destroy(tokenizer);
    snprintf(command, sizeof command, "rm -rf %s %s", dir, file);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_says_whether_bos_is_added), cmocka_unit_test(gguf_says_whether_eos_is_added),
        cmocka_unit_test(gguf_names_ends_in_every_form),  cmocka_unit_test(a_guess_is_said),
        cmocka_unit_test(directories_say_the_same),       cmocka_unit_test(directories_name_ends_in_three_files),
    };
    return cmocka_run_group_tests(tests, setup, cleanup);
}
