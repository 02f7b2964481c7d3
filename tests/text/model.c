// See model.h. Every program has files of its own name: they run side by side.
#define _GNU_SOURCE // program_invocation_short_name
#include "tests/text/model.h"

#include "tests/common/bytes.h"
#include "tests/common/tiny.h"

#include "runtime/util/base.h"
#include "runtime/util/file.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *dir(void)
{
    static char name[64];
    snprintf(name, sizeof name, "%.48s_dir", program_invocation_short_name);
    return name;
}

char *read_data(const char *name, uint64_t *bytes)
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
gyre_status open_json(const char *json, uint64_t bytes, uint32_t vocab, struct model *m, gyre_error *err)
{
    struct tiny_options o = tiny_defaults();
    char path[96];
    *m = (struct model){0};
    o.vocab = vocab;
    assert_int_equal(tiny_write_hf(dir(), &o), 0);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir());
    struct bytes b = {(unsigned char *)(uintptr_t)json, bytes, bytes};
    assert_int_equal(save_bytes(&b, path), 0);
    gyre_status st = gyre_source_open(dir(), &m->source, err);
    if (st == GYRE_OK) st = gyre_tokenizer_create(m->source, NULL, NULL, &m->tokenizer, err);
    if (st != GYRE_OK) close_model(m);
    return st;
}

void close_model(struct model *m)
{
    gyre_tokenizer_destroy(m->tokenizer);
    gyre_source_close(m->source);
    *m = (struct model){0};
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
void check_corpus(const char *name, const gyre_tokenizer *tokenizer)
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
gyre_status through_gguf(struct model *m, uint32_t vocab, bool plain, gyre_error *err)
{
    char path[96];
    struct entries e = {0};
    struct bytes file = {0};
    snprintf(path, sizeof path, "%s.gguf", dir());
    gyre_status st = gyre_tokenizer_write(m->source, vocab, plain, put_entry, &e, err);
    gyre_tokenizer_destroy(m->tokenizer);
    gyre_source_close(m->source);
    *m = (struct model){0};
    put_text(&file, "GGUF");
    put_u32(&file, 3);
    put_u64(&file, 0);
    put_u64(&file, e.n);
    put(&file, e.data.data, e.data.size);
    assert_int_equal(save_bytes(&file, path), 0);
    free(e.data.data);
    free(file.data);
    if (st == GYRE_OK) st = gyre_source_open(path, &m->source, err);
    if (st == GYRE_OK) st = gyre_tokenizer_create(m->source, NULL, NULL, &m->tokenizer, err);
    remove(path);
    return st;
}

const char *text_of(const gyre_source *source, const char *key)
{
    const char *text = NULL;
    assert_int_equal(gyre_source_string(source, key, &text, NULL), GYRE_OK);
    return text;
}
// Joins the tokens' bytes; malloc'd.
char *decode(const gyre_tokenizer *tokenizer, const uint32_t *ids, uint64_t n, uint64_t *bytes)
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
// Replaces the first `from` in a JSON text; malloc'd.
char *changed(const char *json, const char *from, const char *to)
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
