// Encodes text: added tokens are cut out, the rest is normalized, cut into words, and merged.
#include "runtime/text/tokenizer_impl.h"
#include "runtime/util/utf8.h"

#include "runtime/util/array.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

struct encoder {
    const gyre_tokenizer *tokenizer;
    bool special;
    const char *text;     // all of it, where its beginning matters
    const uint8_t *plain; // its marks, see gyre_tokenizer_encode_marked; NULL: none
    const char *base;     // the normalized stretch that is cut, which ...
    bool first;           // ... begins the text
    struct bpe_work work;
    char *name; // a word in the byte-level alphabet, to look it up whole
    size_t cap_name;
    uint16_t alphabet[256];
    gyre_error *err;
};

static gyre_status no_memory(const struct encoder *e)
{
    return gyre_fail(e->err, GYRE_E_NOMEM, "cannot tokenize: out of memory");
}

// A word as it is written in the vocabulary; NULL: out of memory.
static const char *name_of(struct encoder *e, const char *word, uint64_t bytes, uint64_t *length)
{
    *length = bytes;
    if (e->tokenizer->characters) return word;
    if (!GYRE_ROOM(e->name, 2 * bytes, e->cap_name)) return NULL;
    uint64_t n = 0;
    for (uint64_t i = 0; i < bytes; i++) {
        const uint16_t code = e->alphabet[(unsigned char)word[i]];
        if (code >= 128) e->name[n++] = (char)(0xC0 | code >> 6);
        e->name[n++] = code < 128 ? (char)code : (char)(0x80 | (code & 63));
    }
    *length = n;
    return e->name;
}

// Whether a word may be a token of its own without merges.
static bool may_be_whole(const gyre_tokenizer *t, const char *word, uint64_t bytes)
{
    uint64_t ends = 0;
    if (t->whole != WHOLE_LINE_ENDS) return t->whole == WHOLE_ALWAYS;
    while (ends < bytes && word[ends] == '\n') ends++;
    return ends == bytes;
}

static gyre_status encode_word(void *user, const char *word, uint64_t bytes)
{
    struct encoder *e = user;
    const gyre_tokenizer *t = e->tokenizer;
    if (may_be_whole(t, word, bytes)) {
        uint64_t length;
        uint32_t id;
        const char *name = name_of(e, word, bytes, &length);
        if (!name) return no_memory(e);
        if (gyre_strmap_get(&t->vocab, name, (uint32_t)length, &id) && t->modelled[id])
            return gyre_bpe_emit(&e->work, id) ? GYRE_OK : no_memory(e);
    }
    return gyre_bpe_word(t, &e->work, word, bytes) ? GYRE_OK : no_memory(e);
}

// Calls `between` for what lies between the added tokens of a set, and emits those. `plain`: the marks of this text.
static gyre_status cut_added(struct encoder *e, const struct added_set *set, const char *text, const uint8_t *plain,
                             uint64_t bytes, gyre_status (*between)(struct encoder *, const char *, uint64_t))
{
    uint64_t done = 0;
    struct added_match m = {0};
    while (gyre_added_find(set, text, plain, bytes, e->special, &m)) {
        if (m.begin > done) GYRE_TRY(between(e, text + done, m.begin - done));
        if (m.begin < m.end && !gyre_bpe_emit(&e->work, m.token)) return no_memory(e);
        done = m.end;
    }
    return done < bytes ? between(e, text + done, bytes - done) : GYRE_OK;
}

static gyre_status encode_normalized(struct encoder *e, const char *text, uint64_t bytes)
{
    return gyre_pre_split(&e->tokenizer->pre, text, bytes, e->first && text == e->base, encode_word, e, e->err);
}

// A run of valid UTF-8; `begins`: it begins a stretch between two added tokens.
static gyre_status encode_valid(struct encoder *e, const char *text, uint64_t bytes, bool begins)
{
    const uint8_t *marks = e->plain ? e->plain + (text - e->text) : NULL;
    const bool marked = marks && bytes && memchr(marks, 1, bytes);
    uint8_t *everywhere = NULL;
    char *made;
    GYRE_TRY(gyre_normalize(&e->tokenizer->normalizer, text, bytes, begins, &made, &bytes, e->err));
    if (made && marked) { // no byte is where it was: a mark anywhere is one everywhere
        everywhere = malloc(bytes + 1);
        if (everywhere) memset(everywhere, 1, bytes + 1);
    }
    e->first = begins && text == e->text;
    e->base = made ? made : text;
    const gyre_status st =
        made && marked && !everywhere
            ? no_memory(e)
            : cut_added(e, &e->tokenizer->normalized, e->base, made ? everywhere : marks, bytes, encode_normalized);
    free(made);
    free(everywhere);
    return st;
}

// Any bytes: runs of valid UTF-8 go on as text, runs of other bytes are words of their own.
static gyre_status encode_plain(struct encoder *e, const char *text, uint64_t bytes)
{
    uint64_t begin = 0, at = 0;
    bool valid = true;
    while (begin < bytes) {
        uint32_t code;
        const int k = at < bytes ? gyre_utf8_look(text + at, bytes - at, &code) : 0;
        const uint64_t step = k > 0 ? (uint64_t)k : k < 0 ? (uint64_t)-k : bytes - at; // 0: cut off at the end
        if (at == bytes || (k > 0) != valid) {
            if (valid) GYRE_TRY(encode_valid(e, text + begin, at - begin, begin == 0)); // empty: gets its prefix
            else GYRE_TRY(encode_word(e, text + begin, at - begin));
            begin = at;
            valid = k > 0;
        }
        at += step;
    }
    return GYRE_OK;
}

// Puts the tokens before and after a text around what was encoded, unless it has them there already.
static gyre_status put_around(struct encoder *e, const uint32_t *before, uint64_t n_before, const uint32_t *after,
                              uint64_t n_after)
{
    struct bpe_work *w = &e->work;
    const uint64_t n = w->n_out;
    if (n >= n_before && !memcmp(w->out, before, n_before * sizeof *before)) n_before = 0;
    if (n >= n_after && !memcmp(w->out + n - n_after, after, n_after * sizeof *after)) n_after = 0;
    for (uint64_t i = 0; i < n_before + n_after; i++)
        if (!gyre_bpe_emit(w, 0)) return no_memory(e);
    memmove(w->out + n_before, w->out, n * sizeof *w->out);
    memcpy(w->out, before, n_before * sizeof *before);
    memcpy(w->out + n_before + n, after, n_after * sizeof *after);
    return GYRE_OK;
}

static gyre_status encode(const gyre_tokenizer *t, const char *text, const uint8_t *plain, uint64_t bytes,
                          uint32_t flags, uint32_t **out, uint64_t *n, gyre_error *err)
{
    struct encoder e = {
        .tokenizer = t, .special = flags & GYRE_ENCODE_SPECIAL, .text = text, .plain = plain, .err = err};
    const bool around = flags & GYRE_ENCODE_AROUND;
    const uint32_t bos = (uint32_t)t->bos, *before = t->before;
    uint64_t n_before = around && !(flags & GYRE_ENCODE_NO_BOS) ? t->n_before : 0;
    *out = NULL;
    *n = 0;
    if (flags & GYRE_ENCODE_BOS && n_before == 0) {
        if (t->bos < 0) return gyre_fail(err, GYRE_E_INVALID, "cannot add a BOS: the model names none");
        before = &bos;
        n_before = 1;
    }
    if (bytes > UINT32_MAX / 4)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot tokenize: a text of %llu bytes; gyre takes 1 GiB at a time",
                         (unsigned long long)bytes);
    gyre_byte_alphabet(e.alphabet);
    gyre_status st = cut_added(&e, &t->raw, text, plain, bytes, encode_plain);
    if (st == GYRE_OK && !e.work.out && !(e.work.out = calloc(1, sizeof *e.work.out))) st = no_memory(&e);
    if (st == GYRE_OK) st = put_around(&e, before, n_before, t->after, around ? t->n_after : 0);
    gyre_bpe_free(&e.work);
    free(e.name);
    if (st != GYRE_OK) {
        free(e.work.out);
        return st;
    }
    *out = e.work.out;
    *n = e.work.n_out;
    return GYRE_OK;
}

gyre_status gyre_tokenizer_encode(const gyre_tokenizer *t, const char *text, uint64_t bytes, uint32_t flags,
                                  uint32_t **out, uint64_t *n, gyre_error *err)
{
    return encode(t, text, NULL, bytes, flags, out, n, err);
}

gyre_status gyre_tokenizer_encode_marked(const gyre_tokenizer *t, const char *text, const uint8_t *plain,
                                         uint64_t bytes, uint32_t **out, uint64_t *n, gyre_error *err)
{
    return encode(t, text, plain, bytes, GYRE_ENCODE_SPECIAL, out, n, err);
}
