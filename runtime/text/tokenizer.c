// Builds a tokenizer from what the readers found (tokenizer_gguf.c, tokenizer_json.c), and encodes text with it.
#include "runtime/text/tokenizer_impl.h"
#include "runtime/util/utf8.h"

#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

// ---- building ---------------------------------------------------------------------------------------

gyre_tokenizer *gyre_tokenizer_new(void)
{
    gyre_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer) return NULL;
    tokenizer->bos = -1;
    tokenizer->unknown = NO_TOKEN;
    return tokenizer;
}

void gyre_tokenizer_destroy(gyre_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    gyre_strmap_free(&tokenizer->vocab);
    free(tokenizer->merges.slots);
    gyre_pre_free(&tokenizer->pre);
    gyre_added_free(&tokenizer->raw);
    gyre_added_free(&tokenizer->normalized);
    gyre_arena_free(&tokenizer->arena);
    free(tokenizer);
}

// The byte-level alphabet: a printable byte of Latin-1 is its own character, the n-th of the others is U+0100 + n.
static void make_alphabet(uint16_t code_of[256])
{
    uint16_t next = 256;
    for (unsigned b = 0; b < 256; b++) {
        const bool own = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        code_of[b] = own ? (uint16_t)b : next++;
    }
}

// The bytes that a name in the byte-level alphabet stands for; false if a character is not of the alphabet.
static bool name_to_bytes(struct gyre_string name, const int16_t byte_of[512], char *out, uint64_t *n)
{
    uint64_t written = 0;
    for (uint64_t i = 0; i < name.length;) {
        uint32_t code;
        const int k = gyre_utf8_look(name.data + i, name.length - i, &code);
        if (k <= 0 || code >= 512 || byte_of[code] < 0) return false;
        out[written++] = (char)byte_of[code];
        i += (uint64_t)k;
    }
    *n = written;
    return true;
}

// Copies names into the arena, decodes them, and enters them into the vocabulary.
static bool add_tokens(gyre_tokenizer *t, const struct tokenizer_parts *parts)
{
    uint16_t code_of[256];
    int16_t byte_of[512];
    uint64_t total = 0, used = 0;
    make_alphabet(code_of);
    memset(byte_of, -1, sizeof byte_of);
    for (int b = 0; b < 256; b++) byte_of[code_of[b]] = (int16_t)b;
    for (uint32_t i = 0; i < parts->n_tokens; i++) total += 2 * parts->names[i].length;
    t->n_tokens = parts->n_tokens;
    t->names = gyre_arena_array(&t->arena, parts->n_tokens + 1ull, sizeof *t->names);
    t->bytes = gyre_arena_array(&t->arena, parts->n_tokens + 1ull, sizeof *t->bytes);
    t->kinds = gyre_arena_array(&t->arena, parts->n_tokens + 1ull, sizeof *t->kinds);
    t->ends = gyre_arena_array(&t->arena, parts->n_tokens + 1ull, sizeof *t->ends);
    char *text = gyre_arena_alloc(&t->arena, total + 1);
    if (!t->names || !t->bytes || !t->kinds || !t->ends || !text) return false;
    for (uint32_t i = 0; i < parts->n_tokens; i++) {
        const struct gyre_string name = parts->names[i];
        t->kinds[i] = parts->kinds[i];
        t->bytes[i].data = text;
        if (!name.data) continue;
        memcpy(text + used, name.data, name.length);
        t->names[i] = t->bytes[i] = (struct gyre_string){text + used, name.length};
        used += name.length;
        const bool plain = parts->kinds[i] == TOKEN_SPECIAL || parts->kinds[i] == TOKEN_ADDED;
        if (!plain && name_to_bytes(name, byte_of, text + used, &t->bytes[i].length)) {
            t->bytes[i].data = text + used;
            used += t->bytes[i].length;
        }
        if (!gyre_strmap_add(&t->vocab, t->names[i].data, (uint32_t)name.length, i, NULL)) return false;
    }
    for (int b = 0; b < 256; b++) {
        const char two[2] = {(char)(0xC0 | code_of[b] >> 6), (char)(0x80 | (code_of[b] & 63))}, one = (char)b;
        const bool ascii = code_of[b] < 128;
        if (!gyre_strmap_get(&t->vocab, ascii ? &one : two, ascii ? 1 : 2, &t->byte_token[b]))
            t->byte_token[b] = NO_TOKEN;
    }
    return true;
}

static gyre_status add_merges(gyre_tokenizer *t, const struct tokenizer_parts *parts, const char *where,
                              gyre_error *err)
{
    char *joined = NULL;
    uint64_t cap = 0;
    gyre_status st = GYRE_OK;
    if (!gyre_merges_init(&t->merges, parts->n_merges)) goto no_memory;
    for (uint64_t i = 0; i < parts->n_merges; i++) {
        const struct gyre_string left = parts->merges[i][0], right = parts->merges[i][1];
        struct merge m = {.rank = (uint32_t)i};
        if (left.length + right.length > cap) {
            free(joined);
            cap = 2 * (left.length + right.length);
            if (!(joined = malloc(cap))) goto no_memory;
        }
        memcpy(joined, left.data, left.length);
        memcpy(joined + left.length, right.data, right.length);
        if (!gyre_strmap_get(&t->vocab, left.data, (uint32_t)left.length, &m.left) ||
            !gyre_strmap_get(&t->vocab, right.data, (uint32_t)right.length, &m.right) ||
            !gyre_strmap_get(&t->vocab, joined, (uint32_t)(left.length + right.length), &m.token)) {
            st = gyre_fail(
                err, GYRE_E_FORMAT,
                "cannot use tokenizer (%s): merge %llu (\"%s\" + \"%s\") is not made of tokens of the vocabulary",
                where, (unsigned long long)i, gyre_show(left.data, left.length).text,
                gyre_show(right.data, right.length).text);
            goto done;
        }
        gyre_merges_put(&t->merges, m);
    }
    goto done;
no_memory:
    st = gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer (%s): out of memory", where);
done:
    free(joined);
    return st;
}

// NFC of valid UTF-8; *out is malloc'd.
static gyre_status normalize(const char *text, uint64_t bytes, char **out, uint64_t *n, gyre_error *err)
{
    utf8proc_uint8_t *made = NULL;
    const utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)bytes, &made,
                                                 UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (length < 0) return gyre_fail(err, GYRE_E_NOMEM, "cannot tokenize: %s", utf8proc_errmsg(length));
    *out = (char *)made;
    *n = (uint64_t)length;
    return GYRE_OK;
}

static gyre_status add_added(gyre_tokenizer *t, const struct tokenizer_parts *parts, gyre_error *err)
{
    struct added_token *copy = gyre_arena_array(&t->arena, parts->n_added + 1ull, sizeof *copy);
    uint32_t n = 0;
    if (!copy) return gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer: out of memory");
    for (uint32_t i = 0; i < parts->n_added; i++) {
        const struct added_token *from = &parts->added[i];
        if (from->text.length == 0) continue;
        char *made = NULL;
        uint64_t length = from->text.length;
        // What is searched in normalized text must be normalized too.
        if (from->normalized && t->nfc) GYRE_TRY(normalize(from->text.data, from->text.length, &made, &length, err));
        char *text = gyre_arena_alloc(&t->arena, length + 1);
        if (text) memcpy(text, made ? made : from->text.data, length);
        free(made);
        if (!text) return gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer: out of memory");
        copy[n] = *from;
        copy[n++].text = (struct gyre_string){text, length};
    }
    if (gyre_added_init(&t->raw, copy, n, false) && gyre_added_init(&t->normalized, copy, n, true)) return GYRE_OK;
    return gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer: out of memory");
}

gyre_status gyre_tokenizer_build(gyre_tokenizer *t, const struct tokenizer_parts *parts, const char *where,
                                 gyre_error *err)
{
    if (!add_tokens(t, parts)) return gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer (%s): out of memory", where);
    GYRE_TRY(add_merges(t, parts, where, err));
    return add_added(t, parts, err);
}

// ---- asking -----------------------------------------------------------------------------------------

uint32_t gyre_tokenizer_vocab(const gyre_tokenizer *tokenizer) { return tokenizer->n_tokens; }
int32_t gyre_tokenizer_bos(const gyre_tokenizer *tokenizer) { return tokenizer->bos; }

bool gyre_tokenizer_is_end(const gyre_tokenizer *tokenizer, uint32_t token)
{
    return token < tokenizer->n_tokens && tokenizer->ends[token];
}

bool gyre_tokenizer_is_special(const gyre_tokenizer *tokenizer, uint32_t token)
{
    return token < tokenizer->n_tokens && tokenizer->kinds[token] == TOKEN_SPECIAL;
}

const char *gyre_tokenizer_bytes(const gyre_tokenizer *tokenizer, uint32_t token, uint32_t *n)
{
    *n = 0;
    if (token >= tokenizer->n_tokens) return NULL;
    *n = (uint32_t)tokenizer->bytes[token].length;
    return tokenizer->bytes[token].data;
}

// ---- encoding ---------------------------------------------------------------------------------------

struct encoder {
    const gyre_tokenizer *tokenizer;
    bool special;
    struct bpe_work work;
    char *name; // a word in the byte-level alphabet, for ignore_merges
    uint64_t cap_name;
    gyre_error *err;
};

static gyre_status no_memory(const struct encoder *e)
{
    return gyre_fail(e->err, GYRE_E_NOMEM, "cannot tokenize: out of memory");
}

// The token that is exactly this word, if any. Sets *good = false when memory runs out.
static uint32_t whole_word(struct encoder *e, const char *word, uint64_t bytes, bool *good)
{
    uint16_t code_of[256];
    uint32_t id;
    if (2 * bytes > e->cap_name) {
        char *larger = realloc(e->name, 4 * bytes);
        if (!(*good = larger != NULL)) return NO_TOKEN;
        e->name = larger;
        e->cap_name = 4 * bytes;
    }
    uint32_t n = 0;
    make_alphabet(code_of);
    for (uint64_t i = 0; i < bytes; i++) {
        const uint16_t code = code_of[(unsigned char)word[i]];
        if (code >= 128) e->name[n++] = (char)(0xC0 | code >> 6);
        e->name[n++] = code < 128 ? (char)code : (char)(0x80 | (code & 63));
    }
    if (!gyre_strmap_get(&e->tokenizer->vocab, e->name, n, &id)) return NO_TOKEN;
    return e->tokenizer->kinds[id] == TOKEN_NORMAL ? id : NO_TOKEN;
}

static gyre_status encode_word(void *user, const char *word, uint64_t bytes)
{
    struct encoder *e = user;
    bool good = true;
    const uint32_t whole = e->tokenizer->ignore_merges ? whole_word(e, word, bytes, &good) : NO_TOKEN;
    if (whole != NO_TOKEN) good = gyre_bpe_emit(&e->work, whole);
    else if (good) good = gyre_bpe_word(e->tokenizer, &e->work, word, bytes);
    return good ? GYRE_OK : no_memory(e);
}

// Calls `plain` for what lies between the added tokens of a set, and emits those.
static gyre_status cut_added(struct encoder *e, const struct added_set *set, const char *text, uint64_t bytes,
                             gyre_status (*plain)(struct encoder *, const char *, uint64_t))
{
    uint64_t done = 0;
    struct added_match m;
    while (gyre_added_find(set, text, bytes, done, e->special, &m)) {
        if (m.begin > done) GYRE_TRY(plain(e, text + done, m.begin - done));
        if (!gyre_bpe_emit(&e->work, m.token)) return no_memory(e);
        done = m.end;
    }
    return done < bytes ? plain(e, text + done, bytes - done) : GYRE_OK;
}

static gyre_status encode_normalized(struct encoder *e, const char *text, uint64_t bytes)
{
    return gyre_pre_split(&e->tokenizer->pre, text, bytes, encode_word, e, e->err);
}

// A run of valid UTF-8.
static gyre_status encode_valid(struct encoder *e, const char *text, uint64_t bytes)
{
    char *made = NULL;
    bool ascii = true;
    for (uint64_t i = 0; i < bytes && ascii; i++) ascii = (unsigned char)text[i] < 128;
    if (e->tokenizer->nfc && !ascii) GYRE_TRY(normalize(text, bytes, &made, &bytes, e->err));
    gyre_status st = cut_added(e, &e->tokenizer->normalized, made ? made : text, bytes, encode_normalized);
    free(made);
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
            if (at > begin)
                GYRE_TRY(valid ? encode_valid(e, text + begin, at - begin) : encode_word(e, text + begin, at - begin));
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

gyre_status gyre_tokenizer_encode(const gyre_tokenizer *t, const char *text, uint64_t bytes, uint32_t flags,
                                  uint32_t **out, uint64_t *n, gyre_error *err)
{
    struct encoder e = {.tokenizer = t, .special = flags & GYRE_ENCODE_SPECIAL, .err = err};
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
    gyre_status st = cut_added(&e, &t->raw, text, bytes, encode_plain);
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
