// SentencePiece's alphabet and merges by scores; pre-tokenizers by name; GGUF's keys that lie; and bounds: whatever a
// vocabulary is like, a text costs what it should.
#include "tests/text/model.h"

#include "tests/common/bytes.h"

#include "runtime/util/base.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// A GGUF file of three tokens. `merge` and `scores` are left out where they are NULL; `n_scores` counts them.
struct small_file {
    const char *model, *pre, *override;
    uint32_t tokens, types;
    const char *merge;
    const float *scores;
    uint32_t n_scores;
};

static gyre_status open_small(const struct small_file *f, const char *const names[3], const uint32_t types[3],
                              struct model *m, gyre_error *err)
{
    struct bytes b = {0};
    *m = (struct model){0};
    put_text(&b, "GGUF");
    put_u32(&b, 3);
    put_u64(&b, 0);
    put_u64(&b, 2u + (f->model != NULL) + (f->pre != NULL) + (f->merge != NULL) + (f->scores != NULL));
    if (f->model) put_meta_string(&b, "tokenizer.ggml.model", f->model);
    if (f->pre) put_meta_string(&b, "tokenizer.ggml.pre", f->pre);
    put_meta_array(&b, "tokenizer.ggml.tokens", GYRE_META_STRING, f->tokens);
    for (uint32_t k = 0; k < f->tokens; k++) put_string(&b, names[k]);
    put_meta_array(&b, "tokenizer.ggml.token_type", GYRE_META_I32, f->types);
    for (uint32_t k = 0; k < f->types; k++) put_u32(&b, types[k]);
    if (f->merge) {
        put_meta_array(&b, "tokenizer.ggml.merges", GYRE_META_STRING, 1);
        put_string(&b, f->merge);
    }
    if (f->scores) {
        put_meta_array(&b, "tokenizer.ggml.scores", GYRE_META_F32, f->n_scores);
        put(&b, f->scores, 4 * f->n_scores);
    }
    assert_int_equal(save_bytes(&b, "tokenizer_bad.gguf"), 0);
    free(b.data);
    gyre_status st = gyre_source_open("tokenizer_bad.gguf", &m->source, err);
    remove("tokenizer_bad.gguf");
    return st == GYRE_OK ? gyre_tokenizer_create(m->source, f->override, NULL, &m->tokenizer, err) : st;
}

static void bad_gguf_is_refused(void **state)
{
    (void)state;
    static const float scores[3] = {0, 0, -1}, odd[3] = {0, 0, NAN};
    static const struct {
        struct small_file file;
        const char *says;
    } cases[] = {
        {{"bert", "default", NULL, 3, 3, "a b", NULL, 0}, "bert"},
        {{"t5", "default", NULL, 3, 3, NULL, scores, 3}, "t5"},
        {{"gpt2", "martian", NULL, 3, 3, "a b", NULL, 0}, "martian"},
        {{"gpt2", "martian", NULL, 3, 3, "a b", NULL, 0}, "llama-bpe"}, // what is known is named
        {{"gpt2", "martian", "gpt-2", 3, 3, "a b", NULL, 0}, NULL},
        {{"gpt2", "gpt-2", "venusian", 3, 3, "a b", NULL, 0}, "venusian"},
        {{"gpt2", "default", NULL, 3, 2, "a b", NULL, 0}, "2 token types"},
        {{"gpt2", "default", NULL, 0, 0, "a b", NULL, 0}, "tokens"},
        {{"gpt2", "default", NULL, 3, 3, NULL, NULL, 0}, "merges"},
        {{"gpt2", "default", NULL, 3, 3, "ab", NULL, 0}, "two tokens"},
        {{"gpt2", "default", NULL, 3, 3, "a c", NULL, 0}, "vocabulary"},
        {{NULL, NULL, NULL, 3, 3, "a b", NULL, 0}, "none"},
        {{"gpt2", NULL, NULL, 3, 3, "a b", NULL, 0}, NULL},
        {{"llama", "default", NULL, 3, 3, NULL, scores, 3}, NULL},
        {{"llama", "martian", NULL, 3, 3, NULL, scores, 3}, NULL}, // it has no pre-tokenizer
        {{"llama", "default", "gpt-2", 3, 3, NULL, scores, 3}, "--pre"},
        {{"llama", "default", NULL, 3, 3, NULL, scores, 2}, "2 scores"},
        {{"llama", "default", NULL, 3, 3, "a b", NULL, 0}, "0 scores"},
        {{"llama", "default", NULL, 3, 3, NULL, odd, 3}, "no number"},
        {{"gemma4", "default", NULL, 3, 3, "a b", NULL, 0}, NULL},
        {{"gemma4", NULL, NULL, 3, 3, NULL, NULL, 0}, "merges"},
    };
    static const char *const names[] = {"a", "b", "ab"};
    static const uint32_t types[] = {1, 1, 1};
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        struct model m;
        gyre_error err = {0};
        const gyre_status st = open_small(&cases[i].file, names, types, &m, &err);
        if (cases[i].says ? st == GYRE_OK || !strstr(err.message, cases[i].says) : st != GYRE_OK)
            fail_msg("case %zu: status %d, \"%s\"", i, st, err.message);
        close_model(&m);
    }
}

// ---- SentencePiece

static void expect_text(const gyre_tokenizer *tokenizer, const char *text, uint64_t bytes, const char *due)
{
    char got[256];
    size_t n_got = 0;
    uint64_t n;
    uint32_t *ids;
    gyre_error err = {0};
    assert_int_equal(gyre_tokenizer_encode(tokenizer, text, bytes, GYRE_ENCODE_SPECIAL, &ids, &n, &err), GYRE_OK);
    got[0] = 0;
    for (uint64_t i = 0; i < n; i++)
        n_got += (size_t)snprintf(got + n_got, sizeof got - n_got, "%s%u", i ? " " : "", ids[i]);
    if (strcmp(got, due)) fail_msg("\"%.*s\": %s, not %s", (int)bytes, text, got, due);
    free(ids);
}

// Characters that are no tokens take part in merges all the same; control tokens are never made of plain text; without
// a blank's token, a blank is unknown.
static void scores_merge_what_makes_a_token(void **state)
{
    (void)state;
    static const float scores[3] = {0, -3, 0};
    static const char *const names[] = {"<unk>",
                                        "\xC3\xA9"
                                        "b",
                                        "ab"};
    static const uint32_t types[] = {2, 1, 3};
    const struct small_file file = {"llama", NULL, NULL, 3, 3, NULL, scores, 3};
    struct model m;
    gyre_error err = {0};
    if (open_small(&file, names, types, &m, &err) != GYRE_OK) fail_msg("%s", err.message);
    expect_text(m.tokenizer,
                "\xC3\xA9"
                "bx",
                4, "0 1 0"); // the blank before it; x
    expect_text(m.tokenizer, "", 0, "");
    uint64_t n;
    uint32_t *ids;
    assert_int_equal(gyre_tokenizer_encode(m.tokenizer, "ab", 2, 0, &ids, &n, &err), GYRE_OK);
    for (uint64_t i = 0; i < n; i++) assert_int_equal(ids[i], 0);
    free(ids);
    close_model(&m);
}

static void bytes_without_text_become_byte_tokens(void **state)
{
    (void)state;
    uint64_t bytes, n, got;
    uint32_t *ids;
    gyre_error err = {0};
    struct model m;
    char *json = read_data("tokenizer_llama2.json", &bytes);
    static const char odd[] = "\xFF"
                              "a\xE2\x82"
                              "b \xC3";
    static const char due[] = " \xFF"
                              "a\xE2\x82"
                              "b \xC3"; // with the blank that begins a text
    assert_int_equal(open_json(json, bytes, 259, &m, &err), GYRE_OK);
    for (int written = 0; written < 2; written++) {
        assert_int_equal(gyre_tokenizer_encode(m.tokenizer, odd, sizeof odd - 1, 0, &ids, &n, &err), GYRE_OK);
        char *back = decode(m.tokenizer, ids, n, &got);
        assert_int_equal(got, sizeof due - 1);
        assert_memory_equal(back, due, got);
        free(back);
        free(ids);
        if (!written) assert_int_equal(through_gguf(&m, gyre_tokenizer_vocab(m.tokenizer), true, &err), GYRE_OK);
    }
    free(json);
    close_model(&m);
}

// ---- names of pre-tokenizers

static void presets_cut_as_published(void **state)
{
    (void)state;
    uint64_t bytes, text_bytes, lines_bytes, n;
    uint32_t *ids;
    gyre_error err = {0};
    struct model m;
    char *json = read_data("tokenizer_gpt2.json", &bytes), *text = read_data("tokenizer_corpus.txt", &text_bytes);
    char *lines = read_data("tokenizer_pre.txt", &lines_bytes), *rest = NULL;
    assert_int_equal(open_json(json, bytes, 259, &m, &err), GYRE_OK);
    assert_int_equal(through_gguf(&m, gyre_tokenizer_vocab(m.tokenizer), true, &err), GYRE_OK);
    unsigned seen = 0;
    for (char *line = strtok_r(lines, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), seen++) {
        char name[64];
        unsigned long long due, hash = 0xCBF29CE484222325u, due_n;
        assert_int_equal(sscanf(line, "%63s %llu %llx", name, &due_n, &due), 3);
        gyre_tokenizer_destroy(m.tokenizer);
        m.tokenizer = NULL;
        if (gyre_tokenizer_create(m.source, name, NULL, &m.tokenizer, &err) != GYRE_OK) fail_msg("%s", err.message);
        assert_int_equal(gyre_tokenizer_encode(m.tokenizer, text, text_bytes, GYRE_ENCODE_SPECIAL, &ids, &n, &err),
                         GYRE_OK);
        for (uint64_t i = 0; i < n; i++) hash = (hash ^ ids[i]) * 0x100000001B3u;
        if (n != due_n || hash != due)
            fail_msg("%s: %llu tokens, not %llu, or others", name, (unsigned long long)n, due_n);
        free(ids);
    }
    assert_true(seen > 50);
    free(json);
    free(text);
    free(lines);
    close_model(&m);
}

// Spellings of the same: line ends in a pattern as themselves or escaped, words looked up whole where merges make every
// word of the vocabulary anyway. A word that no merge makes is another matter.
static void other_spellings_are_the_same(void **state)
{
    (void)state;
    static const struct {
        const char *fixture, *from, *to, *pre;
    } cases[] = {
        {"qwen2", "[^\\\\r\\\\n\\\\p{L}", "[^\\r\\n\\\\p{L}", "qwen2"},
        {"gpt2", "\"ignore_merges\":false", "\"ignore_merges\":true", "gpt-2"},
        {"gpt2", "\"ignore_merges\":false,\"vocab\":{",
         "\"ignore_merges\":true,\"vocab\":{\"xqzx\":501,\"<|endoftext|>\":500,", NULL},
    };
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        char file[64];
        uint64_t bytes;
        struct model m;
        gyre_error err = {0};
        snprintf(file, sizeof file, "tokenizer_%s.json", cases[i].fixture);
        char *json = read_data(file, &bytes), *other = changed(json, cases[i].from, cases[i].to);
        if (open_json(other, strlen(other), 259, &m, &err) != GYRE_OK) fail_msg("%s", err.message);
        check_corpus(cases[i].fixture, m.tokenizer);
        const gyre_status st = through_gguf(&m, gyre_tokenizer_vocab(m.tokenizer) + 1, true, &err);
        assert_int_equal(st, cases[i].pre ? GYRE_OK : GYRE_E_UNSUPPORTED);
        if (cases[i].pre) assert_string_equal(text_of(m.source, "tokenizer.ggml.pre"), cases[i].pre);
        if (cases[i].pre) check_corpus(cases[i].fixture, m.tokenizer);
        free(json);
        free(other);
        close_model(&m);
    }
}

// ---- bounds

// Text without blanks or words costs what other text does; so does any number of added tokens, alike in their first
// kilobyte. (What is quadratic takes minutes here.)
static void odd_vocabularies_stay_fast(void **state)
{
    (void)state;
    enum { N = 1 << 20, ADDED = 100000 };
    static const char *const files[] = {"tokenizer_llama2.json", "tokenizer_gemma.json"};
    uint64_t bytes, n, got;
    uint32_t *ids;
    gyre_error err = {0};
    struct model m;
    char *text = malloc(N);
    assert_non_null(text);
    for (size_t f = 0; f < GYRE_COUNT(files); f++) {
        char *json = read_data(files[f], &bytes);
        for (int i = 0; i < N; i++) text[i] = "theinandon"[(i * 7 + i / 13) % 10];
        assert_int_equal(open_json(json, bytes, 259, &m, &err), GYRE_OK);
        assert_int_equal(gyre_tokenizer_encode(m.tokenizer, text, N, 0, &ids, &n, &err), GYRE_OK);
        char *back = decode(m.tokenizer, ids, n, &got);
        assert_int_equal(got, N + (f == 0));
        assert_memory_equal(back + (f == 0), text, N);
        free(back);
        free(ids);
        free(json);
        close_model(&m);
    }
    struct bytes b = {0};
    put_text(&b, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\":0,\"a\":1,\"aa\":2},"
                 "\"merges\":[[\"\",\"a\"],[\"a\",\"\"],[\"a\",\"a\"],[\"a\",\"a\"]]},\"added_tokens\":[");
    for (int i = 0; i < ADDED; i++) {
        char item[160];
        snprintf(item, sizeof item, "%s{\"id\":%d,\"content\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa%d\"}",
                 i ? "," : "", i + 3, i);
        put_text(&b, item);
    }
    put_text(&b, "]}");
    memset(text, 'a', N);
    if (open_json((const char *)b.data, b.size, 259, &m, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_int_equal(gyre_tokenizer_encode(m.tokenizer, text, N, 0, &ids, &n, &err), GYRE_OK);
    assert_int_equal(n, N / 2);
    free(ids);
    close_model(&m);
    free(b.data);
    free(text);
}

static void absurd_tokens_are_refused(void **state)
{
    (void)state;
    static const float scores[3] = {0, 0, 0};
    static const uint32_t types[3] = {1, 1, 1}, added[3] = {1, 1, 4};
    enum { N = 70000 };
    char *name = malloc(N + 1);
    assert_non_null(name);
    memset(name, 'a', N);
    name[N] = 0;
    const char *const names[3] = {"a", "aa", name};
    struct model m;
    gyre_error err = {0};
    assert_int_equal(
        open_small(&(struct small_file){"llama", NULL, NULL, 3, 3, NULL, scores, 3}, names, types, &m, &err),
        GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "too long"));
    close_model(&m);
    assert_int_equal(
        open_small(&(struct small_file){"gpt2", "gpt-2", NULL, 3, 3, "a a", NULL, 0}, names, added, &m, &err),
        GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "70000 bytes"));
    close_model(&m);
    free(name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_gguf_is_refused),
        cmocka_unit_test(scores_merge_what_makes_a_token),
        cmocka_unit_test(bytes_without_text_become_byte_tokens),
        cmocka_unit_test(presets_cut_as_published),
        cmocka_unit_test(other_spellings_are_the_same),
        cmocka_unit_test(odd_vocabularies_stay_fast),
        cmocka_unit_test(absurd_tokens_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
