// Token-exact against the `tokenizers` library (ids committed by tests/data/make_tokenizers.py), through both readers;
// nothing lost on bytes that are no text; refusals by name; streaming.
#include "tests/common/bytes.h"
#include "tests/common/tiny.h"

#include "runtime/text/tokenizer.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const dir = "tokenizer_dir";

struct model {
    gyre_source *source;
    gyre_tokenizer *tokenizer;
};

static char *read_data(const char *name, uint64_t *bytes)
{
    struct bytes path = {0};
    char *text = NULL;
    gyre_error err = {0};
    put_text(&path, GYRE_TEST_DATA "/");
    put(&path, name, strlen(name) + 1);
    if (gyre_file_read((const char *)path.data, 1 << 20, &text, bytes, &err) != GYRE_OK) fail_msg("%s", err.message);
    free(path.data);
    return text;
}

// A directory with a tiny model of `vocab` rows and the given tokenizer.json.
static gyre_status open_json(const char *json, uint64_t bytes, uint32_t vocab, struct model *m, gyre_error *err)
{
    struct tiny_options o = tiny_defaults();
    char path[64];
    *m = (struct model){0};
    o.vocab = vocab;
    assert_int_equal(tiny_write_hf(dir, &o), 0);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    struct bytes b = {(unsigned char *)(uintptr_t)json, bytes, bytes};
    assert_int_equal(save_bytes(&b, path), 0);
    gyre_status st = gyre_source_open(dir, &m->source, err);
    return st == GYRE_OK ? gyre_tokenizer_create(m->source, NULL, NULL, &m->tokenizer, err) : st;
}

static void close_model(struct model *m)
{
    gyre_tokenizer_destroy(m->tokenizer);
    gyre_source_close(m->source);
}

static void expect_ids(const char *name, const char *line, const uint32_t *ids, uint64_t n, unsigned number)
{
    for (uint64_t i = 0;; i++) {
        while (*line == ' ') line++;
        const bool more = *line >= '0' && *line <= '9';
        if (more != (i < n))
            fail_msg("%s line %u: %s tokens than due at token %u", name, number, more ? "fewer" : "more", (unsigned)i);
        if (!more) return;
        const unsigned long due = strtoul(line, (char **)(uintptr_t)&line, 10);
        if (due != ids[i]) fail_msg("%s line %u token %u: %u, not %lu", name, number, (unsigned)i, ids[i], due);
    }
}

// Line 1 of the ids is the whole corpus, the others are its lines.
static void check_corpus(const char *name, const gyre_tokenizer *tokenizer)
{
    char file[64];
    uint64_t bytes, id_bytes, n, at = 0;
    uint32_t *ids;
    gyre_error err = {0};
    snprintf(file, sizeof file, "tokenizer_%s.ids", name);
    char *text = read_data("tokenizer_corpus.txt", &bytes), *lines = read_data(file, &id_bytes);
    const char *line = lines;
    for (unsigned number = 1; *line; number++) {
        uint64_t length = bytes;
        if (number > 1) {
            const char *end = memchr(text + at, '\n', bytes - at);
            length = end ? (uint64_t)(end - text) - at : bytes - at;
        }
        if (gyre_tokenizer_encode(tokenizer, text + at, length, GYRE_ENCODE_SPECIAL, &ids, &n, &err) != GYRE_OK)
            fail_msg("%s", err.message);
        expect_ids(name, line, ids, n, number);
        free(ids);
        if (number > 1) at += length + 1;
        line = strchr(line, '\n') + 1;
    }
    assert_true(at > bytes);
    free(text);
    free(lines);
}

// ---- the same tokenizer through GGUF's keys

struct entries {
    struct bytes data;
    uint64_t n;
};

static void put_entry(void *user, const struct gyre_meta *meta)
{
    struct entries *e = user;
    put_string(&e->data, meta->key);
    put_u32(&e->data, meta->type);
    put(&e->data, meta->raw, meta->raw_bytes);
    e->n++;
}

// A GGUF file without tensors that carries the tokenizer of `m`, opened in its place.
static gyre_status through_gguf(struct model *m, uint32_t vocab, bool plain, gyre_error *err)
{
    struct entries e = {0};
    struct bytes file = {0};
    gyre_status st = gyre_tokenizer_write(m->source, vocab, plain, put_entry, &e, err);
    gyre_tokenizer_destroy(m->tokenizer);
    gyre_source_close(m->source);
    *m = (struct model){0};
    put_text(&file, "GGUF");
    put_u32(&file, 3);
    put_u64(&file, 0);
    put_u64(&file, e.n);
    put(&file, e.data.data, e.data.size);
    assert_int_equal(save_bytes(&file, "tokenizer_written.gguf"), 0);
    free(e.data.data);
    free(file.data);
    if (st == GYRE_OK) st = gyre_source_open("tokenizer_written.gguf", &m->source, err);
    if (st == GYRE_OK) st = gyre_tokenizer_create(m->source, NULL, NULL, &m->tokenizer, err);
    remove("tokenizer_written.gguf");
    return st;
}

static const char *text_of(const gyre_source *source, const char *key)
{
    const char *text = NULL;
    assert_int_equal(gyre_source_string(source, key, &text, NULL), GYRE_OK);
    return text;
}

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

// Joins the tokens' bytes; malloc'd.
static char *decode(const gyre_tokenizer *tokenizer, const uint32_t *ids, uint64_t n, uint64_t *bytes)
{
    struct bytes b = {0};
    for (uint64_t i = 0; i < n; i++) {
        uint32_t length;
        const char *part = gyre_tokenizer_bytes(tokenizer, ids[i], &length);
        assert_non_null(part);
        put(&b, part, length);
    }
    put_u8(&b, 0);
    *bytes = b.size - 1;
    return (char *)b.data;
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

// Replaces the first `from` in a JSON text; malloc'd.
static char *changed(const char *json, const char *from, const char *to)
{
    const char *at = strstr(json, from);
    struct bytes b = {0};
    if (!at) fail_msg("no %s in the fixture", from);
    put(&b, json, (size_t)(at - json));
    put_text(&b, to);
    put_text(&b, at + strlen(from));
    put_u8(&b, 0);
    return (char *)b.data;
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
        if (st != cases[i].status || !strstr(err.message, cases[i].says) || strchr(err.message, '\n'))
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
        {"gpt2", "\"ignore_merges\":false,\"vocab\":{", "\"ignore_merges\":true,\"vocab\":{\"xqzx\":501,", NULL},
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
        cmocka_unit_test(special_tokens_are_a_choice),
        cmocka_unit_test(long_words_are_fast),
        cmocka_unit_test(bad_json_is_refused),
        cmocka_unit_test(cut_json_is_refused),
        cmocka_unit_test(bad_gguf_is_refused),
        cmocka_unit_test(streams_whole_characters),
        cmocka_unit_test(scores_merge_what_makes_a_token),
        cmocka_unit_test(bytes_without_text_become_byte_tokens),
        cmocka_unit_test(presets_cut_as_published),
        cmocka_unit_test(other_spellings_are_the_same),
        cmocka_unit_test(odd_vocabularies_stay_fast),
        cmocka_unit_test(absurd_tokens_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
