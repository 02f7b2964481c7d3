// Token-exact against the `tokenizers` library (ids committed by tests/data/make_tokenizers.py), through both readers;
// nothing lost on bytes that are no text; refusals by name; streaming.
#include "tests/text/model.h"

#include "runtime/util/base.h"
#include "runtime/util/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void corpus_is_token_exact(void **state)
{
    (void)state;
    static const struct {
        const char *name, *pre;
    } fixtures[] = {
        {"llama3", "llama-bpe"}, {"qwen2", "qwen2"},   {"smollm", "smollm"}, {"gpt2", "gpt-2"}, {"odd", NULL},
        {"llama2", "default"},   {"gemma", "default"}, {"metaspace", NULL},  {"pieces", NULL},
    };
    for (size_t i = 0; i < GYRE_COUNT(fixtures); i++) {
        char file[64];
        uint64_t bytes;
        gyre_error err = {0};
        struct model m;
        snprintf(file, sizeof file, "tokenizer_%s.json", fixtures[i].name);
        char *json = read_data(file, &bytes);
        if (open_json(json, bytes, 259, &m, &err) != GYRE_OK) fail_msg("%s: %s", file, err.message);
        check_corpus(fixtures[i].name, m.tokenizer);
        const uint32_t vocab = gyre_tokenizer_vocab(m.tokenizer);
        // Fewer rows than tokens: GGUF's keys do not fit, the JSON's text is carried. As many, and more: through the
        // keys where those can say the same.
        for (uint32_t more = 0; more < 9; more += 4) {
            const bool fits = more > 0;
            if (more && open_json(json, bytes, 259, &m, &err) != GYRE_OK) fail_msg("%s: %s", file, err.message);
            if (through_gguf(&m, fits ? vocab + more - 4 : vocab - 1, false, &err) != GYRE_OK)
                fail_msg("%s: %s", file, err.message);
            const char *pre = text_of(m.source, "tokenizer.ggml.pre");
            if (fits && fixtures[i].pre) assert_string_equal(pre, fixtures[i].pre);
            else assert_true(!pre && text_of(m.source, "tokenizer.huggingface.json"));
            check_corpus(fixtures[i].name, m.tokenizer);
            close_model(&m);
        }
        // Other tools must not be given what they cannot read.
        assert_int_equal(open_json(json, bytes, 259, &m, &err), GYRE_OK);
        const gyre_status st = through_gguf(&m, vocab, true, &err);
        assert_int_equal(st, fixtures[i].pre ? GYRE_OK : GYRE_E_UNSUPPORTED);
        close_model(&m);
        free(json);
    }
}

static void demo_model_is_token_exact(void **state)
{
    (void)state;
    const char *path = getenv("GYRE_DEMO_MODEL");
    if (!path || !*path) skip();
    struct model m;
    gyre_error err = {0};
    if (gyre_source_open(path, &m.source, &err) != GYRE_OK ||
        gyre_tokenizer_create(m.source, NULL, NULL, &m.tokenizer, &err) != GYRE_OK)
        fail_msg("%s", err.message);
    check_corpus("demo", m.tokenizer);
    assert_int_equal(gyre_tokenizer_vocab(m.tokenizer), 49152);
    uint64_t n;
    uint32_t *ids;
    assert_int_equal(gyre_tokenizer_encode(m.tokenizer, "", 0, GYRE_ENCODE_AROUND, &ids, &n, &err), GYRE_OK);
    assert_int_equal(n, 0); // no BOS
    free(ids);
    assert_true(gyre_tokenizer_is_end(m.tokenizer, 2));
    close_model(&m);
}

// A token among the blanks that the one before it stripped: ids as the library has them. (At the last text it panics.)
static void tokens_among_stripped_blanks(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t n, ids[4];
    } cases[] = {
        {"<mask>\tx", 2, {504, 81}},        {"a\t<mask>\t", 3, {58, 508, 504}},
        {"<mask>  x", 3, {504, 507, 81}},   {"<mask>   x", 4, {504, 507, 162, 81}},
        {"<mask>\t\tx", 3, {504, 508, 81}},
    };
    uint64_t bytes;
    struct model m;
    char *json = read_data("tokenizer_odd.json", &bytes);
    assert_int_equal(open_json(json, bytes, 259, &m, NULL), GYRE_OK);
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        uint32_t *ids;
        uint64_t n;
        assert_int_equal(gyre_tokenizer_encode(m.tokenizer, cases[i].text, strlen(cases[i].text), GYRE_ENCODE_SPECIAL,
                                               &ids, &n, NULL),
                         GYRE_OK);
        assert_int_equal(n, cases[i].n);
        assert_memory_equal(ids, cases[i].ids, n * sizeof *ids);
        free(ids);
    }
    free(json);
    close_model(&m);
}

// What is cut out of a text and what the model knows are two things: where an added token is no word of its own the
// model takes its characters and words from the vocabulary alone. Ids as the library has them.
static void added_tokens_and_the_vocabulary(void **state)
{
    (void)state;
    static const char json[] =
        "{\"version\": \"1.0\", \"added_tokens\": ["
        "{\"id\": 3, \"content\": \"_\", \"single_word\": true, \"normalized\": false, \"special\": true},"
        "{\"id\": 4, \"content\": \"ab\", \"single_word\": true, \"normalized\": false, \"special\": false},"
        "{\"id\": 6, \"content\": \"\u00e9\", \"single_word\": true, \"normalized\": false, \"special\": false},"
        "{\"id\": 7, \"content\": \"\U0001d400\", \"single_word\": true, \"normalized\": false, \"special\": true},"
        "{\"id\": %d, \"content\": \"%s\", \"single_word\": true, \"normalized\": %s, \"special\": false}],"
        "\"normalizer\": {\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": true},"
        "\"pre_tokenizer\": {\"type\": \"Digits\", \"individual_digits\": true}, \"decoder\": {\"type\": \"Fuse\"},"
        "\"model\": {\"type\": \"BPE\", \"unk_token\": \"<unk>\", \"ignore_merges\": true, \"merges\": [],"
        "\"vocab\": {\"<unk>\": 0, \"a\": 1, \"b\": 2, \"_\": 3, \"ab\": 4, \"c\": 5}}}";
    static const struct {
        const char *text;
        uint32_t n, ids[3];
    } cases[] = {
        {"_", 1, {3}},          {"a_b", 3, {1, 3, 2}},          {"\u00e9", 1, {6}},     {"a\u00e9b", 3, {1, 0, 2}},
        {"\U0001d400", 1, {7}}, {"a\U0001d400b", 3, {1, 0, 2}}, {"1ab1", 3, {0, 4, 0}}, {"cab", 3, {5, 1, 2}},
        {"cc", 1, {8}},         {"cc1", 3, {5, 5, 0}},
    };
    char text[sizeof json + 16];
    struct model m;
    gyre_error err = {0};
    int length = snprintf(text, sizeof text, json, 8, "cc", "false");
    if (open_json(text, (uint64_t)length, 259, &m, &err) != GYRE_OK) fail_msg("%s", err.message);
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        uint32_t *ids;
        uint64_t n;
        assert_int_equal(gyre_tokenizer_encode(m.tokenizer, cases[i].text, strlen(cases[i].text), GYRE_ENCODE_SPECIAL,
                                               &ids, &n, NULL),
                         GYRE_OK);
        if (n != cases[i].n || memcmp(ids, cases[i].ids, n * sizeof *ids)) fail_msg("%s", cases[i].text);
        free(ids);
    }
    close_model(&m);
    length = snprintf(text, sizeof text, json, 9, "cc", "false"); // the library numbers them itself
    assert_int_equal(open_json(text, (uint64_t)length, 259, &m, &err), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "\"cc\" has the id 9"));
    length = snprintf(text, sizeof text, json, 8, "  ", "true");
    assert_int_equal(open_json(text, (uint64_t)length, 259, &m, &err), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "added token 8 nothing is left"));
}

// Ids of added tokens beside a vocabulary with holes: as one version of the library numbers them or the other.
static void added_tokens_beside_holes(void **state)
{
    (void)state;
    static const char json[] =
        "{\"version\": \"1.0\", \"added_tokens\": ["
        "{\"id\": 4, \"content\": \"<e>\", \"special\": true}, {\"id\": 9, \"content\": \"<p>\", \"special\": true},"
        "{\"id\": %u, \"content\": \"<x>\", \"special\": true}, {\"id\": %u, \"content\": \"<y>\", \"special\": true}],"
        "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"model\": {\"type\": \"BPE\","
        "\"merges\": [], \"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2, \"<e>\": 4, \"<p>\": 9}}}";
    static const struct {
        uint32_t x, y;
        const char *wrong; // NULL: nothing
    } cases[] = {{10, 11, NULL},
                 {5, 6, NULL},
                 {7, 8, "\"<x>\" has the id 7; the tokenizers library, which numbers them itself, makes it 5"},
                 {10, 12, "\"<y>\" has the id 12; the tokenizers library, which numbers them itself, makes it 11"},
                 {10, 6, "\"<y>\" has the id 6"},
                 {5, 10, "\"<y>\" has the id 10"}};
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        char text[sizeof json + 16];
        struct model m;
        gyre_error err = {0};
        uint32_t *ids;
        uint64_t n;
        const int length = snprintf(text, sizeof text, json, cases[i].x, cases[i].y);
        const gyre_status st = open_json(text, (uint64_t)length, 64, &m, &err);
        if (cases[i].wrong) {
            assert_int_equal(st, GYRE_E_UNSUPPORTED);
            if (!strstr(err.message, cases[i].wrong)) fail_msg("%s", err.message);
            continue;
        }
        if (st != GYRE_OK) fail_msg("%s", err.message);
        assert_int_equal(gyre_tokenizer_encode(m.tokenizer, "<x>a<y>", 7, GYRE_ENCODE_SPECIAL, &ids, &n, NULL),
                         GYRE_OK);
        assert_true(n == 3 && ids[0] == cases[i].x && ids[1] == 0 && ids[2] == cases[i].y);
        free(ids);
        close_model(&m);
    }
}

static void no_byte_is_lost(void **state)
{
    (void)state;
    uint64_t bytes, n, got;
    gyre_error err = {0};
    struct model m;
    uint32_t *ids;
    struct gyre_rng rng = gyre_rng_seed(3);
    char *json = read_data("tokenizer_llama3.json", &bytes), text[300];
    assert_int_equal(open_json(json, bytes, 259, &m, &err), GYRE_OK);
    for (int round = 0; round < 3000; round++) {
        const uint64_t length = gyre_rng_below(&rng, sizeof text);
        // Bytes with many UTF-8 beginnings and blanks among them.
        for (uint64_t i = 0; i < length; i++)
            text[i] = "ab 1\n\xE1\xA0\x8E\xC3\xA9\xF0\x9F\x98\x80\xFF"[gyre_rng_below(&rng, 16)];
        assert_int_equal(gyre_tokenizer_encode(m.tokenizer, text, length, GYRE_ENCODE_SPECIAL, &ids, &n, &err),
                         GYRE_OK);
        char *back = decode(m.tokenizer, ids, n, &got);
        assert_int_equal(got, length);
        assert_memory_equal(back, text, length);
        free(back);
        free(ids);
    }
    free(json);
    close_model(&m);
}

static void special_tokens_are_a_choice(void **state)
{
    (void)state;
    uint64_t bytes, n;
    uint32_t *ids, length;
    gyre_error err = {0};
    struct model m;
    char *json = read_data("tokenizer_qwen2.json", &bytes);
    const char *text = "<|im_end|><think>";
    assert_int_equal(open_json(json, bytes, 259, &m, &err), GYRE_OK);
    assert_int_equal(gyre_tokenizer_encode(m.tokenizer, text, strlen(text), GYRE_ENCODE_SPECIAL, &ids, &n, &err),
                     GYRE_OK);
    assert_int_equal(n, 2);
    const uint32_t end = ids[0], think = ids[1];
    assert_true(gyre_tokenizer_is_special(m.tokenizer, end) && gyre_tokenizer_is_end(m.tokenizer, end));
    assert_false(gyre_tokenizer_is_special(m.tokenizer, think) || gyre_tokenizer_is_end(m.tokenizer, think));
    free(ids);
    // Text of a user: special tokens are letters, added ones stay tokens.
    assert_int_equal(gyre_tokenizer_encode(m.tokenizer, text, strlen(text), 0, &ids, &n, &err), GYRE_OK);
    assert_true(n > 4 && ids[0] != end && ids[n - 1] == think);
    free(ids);
    assert_int_equal(gyre_tokenizer_encode(m.tokenizer, "", 0, GYRE_ENCODE_SPECIAL, &ids, &n, &err), GYRE_OK);
    assert_int_equal(n, 0);
    free(ids);
    assert_null(gyre_tokenizer_bytes(m.tokenizer, gyre_tokenizer_vocab(m.tokenizer), &length));
    free(json);
    close_model(&m);
    json = read_data("tokenizer_llama3.json", &bytes);
    for (uint32_t vocab = 259; vocab < 800; vocab += 450) { // both readers see the template's BOS
        assert_int_equal(open_json(json, bytes, 259, &m, &err), GYRE_OK);
        assert_int_equal(through_gguf(&m, vocab, false, &err), GYRE_OK);
        const int32_t bos = gyre_tokenizer_bos(m.tokenizer);
        assert_true(bos > 0); // not config.json's 0
        const char *name = gyre_tokenizer_bytes(m.tokenizer, (uint32_t)bos, &length);
        assert_int_equal(length, 13);
        assert_memory_equal(name, "<|endoftext|>", length);
        close_model(&m);
    }
    free(json);
}

static void long_words_are_fast(void **state)
{
    (void)state;
    enum { N = 400000 };
    uint64_t bytes, n, got;
    uint32_t *ids;
    gyre_error err = {0};
    struct model m;
    char *json = read_data("tokenizer_llama3.json", &bytes), *text = malloc(N);
    assert_non_null(text);
    for (int i = 0; i < N; i++) text[i] = "theinandon"[(i * 7 + i / 13) % 10];
    assert_int_equal(open_json(json, bytes, 259, &m, &err), GYRE_OK);
    assert_int_equal(gyre_tokenizer_encode(m.tokenizer, text, N, GYRE_ENCODE_SPECIAL, &ids, &n, &err),
                     GYRE_OK); // quadratic: minutes
    char *back = decode(m.tokenizer, ids, n, &got);
    assert_int_equal(got, N);
    assert_memory_equal(back, text, N);
    free(back);
    free(ids);
    free(text);
    free(json);
    close_model(&m);
}

static void bad_json_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
        gyre_status status;
    } cases[] = {
        {"\"type\":\"BPE\"", "\"type\":\"WordPiece\"", "WordPiece", GYRE_E_UNSUPPORTED},
        {"\"type\":\"Digits\"", "\"type\":\"Whitespace\"", "Whitespace", GYRE_E_UNSUPPORTED},
        {"\"normalizer\":null", "\"normalizer\":{\"type\":\"Lowercase\"}", "Lowercase", GYRE_E_UNSUPPORTED},
        {"\"normalizer\":null", "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nmt\"}]}", "Nmt",
         GYRE_E_UNSUPPORTED},
        {"\"normalizer\":null", "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"\"}",
         "pattern", GYRE_E_UNSUPPORTED},
        {"\"normalizer\":null", "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"}}", "Replace",
         GYRE_E_FORMAT},
        {"\"normalizer\":null",
         "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(?=a)\"},\"content\":\"x\"}",
         "that may be nothing ((?=a))", GYRE_E_UNSUPPORTED},
        {"\"normalizer\":null,\"pre_tokenizer\":",
         "\"normalizer\":{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":false},\"pre_tokenizer\":"
         "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"},\"other\":",
         "where a text begins", GYRE_E_UNSUPPORTED},
        {"\"normalizer\":null", "\"normalizer\":{\"type\":\"Prepend\",\"prepend\":7}", "Prepend", GYRE_E_FORMAT},
        {"\"post_processor\":null", "\"post_processor\":{\"type\":\"BertProcessing\"}", "BertProcessing",
         GYRE_E_UNSUPPORTED},
        {"\"byte_fallback\":false", "\"byte_fallback\":true", "byte_fallback", GYRE_E_UNSUPPORTED},
        {"\"dropout\":null", "\"dropout\":0.1", "dropout", GYRE_E_UNSUPPORTED},
        {"\"end_of_word_suffix\":null", "\"end_of_word_suffix\":\"</w>\"", "end_of_word_suffix", GYRE_E_UNSUPPORTED},
        {"{\"type\":\"Digits\",\"individual_digits\":true}",
         "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},\"behavior\":\"Isolated\"}", "pattern",
         GYRE_E_UNSUPPORTED},
        {"{\"type\":\"Digits\",\"individual_digits\":true}",
         "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Sideways\"}", "Sideways",
         GYRE_E_UNSUPPORTED},
        {"{\"type\":\"Digits\",\"individual_digits\":true}", "{\"type\":\"Split\",\"behavior\":\"Isolated\"}", "Split",
         GYRE_E_FORMAT},
        {"\"byte_fallback\":false", "\"byte_fallback\":\"yes\"", "byte_fallback", GYRE_E_FORMAT},
        {"\"dropout\":null", "\"dropout\":\"0.1\"", "dropout", GYRE_E_UNSUPPORTED},
        {"\"end_of_word_suffix\":null", "\"end_of_word_suffix\":7", "end_of_word_suffix", GYRE_E_FORMAT},
        {"\"unk_token\":null", "\"unk_token\":0", "unk_token", GYRE_E_FORMAT},
        {"\"special\":true", "\"special\":1", "special", GYRE_E_FORMAT},
        {"\"use_regex\":true", "\"use_regex\":0", "use_regex", GYRE_E_FORMAT},
        {"\"vocab\":{", "\"vocab\":{\"zz\":-1,", "vocabulary", GYRE_E_FORMAT},
        {"\"vocab\":{", "\"vocab\":{\"zz\":4000000000,", "vocabulary", GYRE_E_FORMAT},
        {"\"vocab\":{", "\"vocab\":{\"zz\":5,", "share an id", GYRE_E_FORMAT},
        {"\"vocab\":{", "\"vocab\":{\"zz\":0.5,", "vocabulary", GYRE_E_FORMAT},
        {"\"vocab\":{", "\"vocab\":{\"!\":5,", "duplicate", GYRE_E_FORMAT},
        {"\"merges\":[", "\"merges\":[\"qqq zzz\",", "qqq", GYRE_E_FORMAT},
        {"\"merges\":[", "\"merges\":[\"qqq\",", "merge", GYRE_E_FORMAT},
        {"\"merges\":[", "\"merges\":[[\"a\"],", "merge", GYRE_E_FORMAT},
        {"\"merges\":[", "\"merges\":[7,", "merge", GYRE_E_FORMAT},
        {"\"merges\":", "\"merge\":", "merges", GYRE_E_FORMAT},
        {"\"content\":", "\"contents\":", "content", GYRE_E_FORMAT},
        {"{\"type\":\"Digits\",\"individual_digits\":true}",
         "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"often\"}", "often", GYRE_E_UNSUPPORTED},
        {"{\"type\":\"Digits\",\"individual_digits\":true}", "{\"type\":\"Metaspace\"}", "Metaspace", GYRE_E_FORMAT},
        {"\"pre_tokenizer\":{\"type\":\"Sequence\"",
         "\"decoder\":{\"type\":\"CTC\"},\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"", "duplicate", GYRE_E_FORMAT},
    };
    uint64_t bytes;
    char *json = read_data("tokenizer_smollm.json", &bytes);
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        struct model m;
        gyre_error err = {0};
        char *bad = changed(json, cases[i].from, cases[i].to);
        const gyre_status st = open_json(bad, strlen(bad), 700, &m, &err);
        const bool names = strncmp(err.message, "cannot use tokenizer: ", 22) != 0; // the model
        if (st != cases[i].status || !names || !strstr(err.message, cases[i].says) || strchr(err.message, '\n'))
            fail_msg("%s: status %d, \"%s\"", cases[i].to, st, err.message);
        free(bad);
        close_model(&m);
    }
    free(json);
}

static void cut_json_is_refused(void **state)
{
    (void)state;
    uint64_t bytes;
    char *json = read_data("tokenizer_smollm.json", &bytes);
    for (uint64_t cut = 0; cut + 1 < bytes; cut += cut < 800 ? 37 : 631) {
        struct model m;
        gyre_error err = {0};
        assert_int_equal(open_json(json, cut, 700, &m, &err), GYRE_E_FORMAT);
        close_model(&m);
    }
    free(json);
}

static void streams_whole_characters(void **state)
{
    (void)state;
#define BAD "\xEF\xBF\xBD"
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "plain"},
        {"\xF0\x9F\x98\x80\xC3\xA9", "\xF0\x9F\x98\x80\xC3\xA9"},
        {"\xE2\x82", BAD},
        {"\xE2\x28\xA1", BAD "(" BAD},
        {"\xC0\xAF", BAD BAD},
        {"\xED\xA0\x80", BAD BAD BAD},
        {"\xF4\x90\x80\x80", BAD BAD BAD BAD},
        {"\xF0\x9F\x98x\xF0\x9Fy", BAD "x" BAD "y"},
        {"\xF0\xF0\x9F\x98\x80", BAD "\xF0\x9F\x98\x80"},
    };
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        for (uint64_t step = 1; step < 6; step++) {
            struct gyre_utf8_stream stream = {0};
            char out[64];
            uint64_t n = 0;
            const uint64_t length = strlen(cases[i].in);
            for (uint64_t at = 0; at < length; at += step) {
                n += gyre_utf8_stream_push(&stream, cases[i].in + at, GYRE_MIN(step, length - at), out + n);
                assert_true(stream.n < 4);
            }
            n += gyre_utf8_stream_flush(&stream, out + n);
            assert_int_equal(n, strlen(cases[i].out));
            assert_memory_equal(out, cases[i].out, n);
            assert_int_equal(stream.n, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(corpus_is_token_exact),
        cmocka_unit_test(demo_model_is_token_exact),
        cmocka_unit_test(no_byte_is_lost),
        cmocka_unit_test(tokens_among_stripped_blanks),
        cmocka_unit_test(added_tokens_and_the_vocabulary),
        cmocka_unit_test(added_tokens_beside_holes),
        cmocka_unit_test(special_tokens_are_a_choice),
        cmocka_unit_test(long_words_are_fast),
        cmocka_unit_test(bad_json_is_refused),
        cmocka_unit_test(cut_json_is_refused),
        cmocka_unit_test(streams_whole_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
