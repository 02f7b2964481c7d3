// Builds a tokenizer from what the readers found, and answers questions about it; encode.c uses it.
#include "runtime/text/tokenizer_impl.h"
#include "runtime/util/utf8.h"

#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_ADDED_BYTES = 1024 }; // of an added token: text that looks like many of them costs that much a byte

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
    gyre_normal_free(&tokenizer->normalizer);
    gyre_pre_free(&tokenizer->pre);
    gyre_added_free(&tokenizer->raw);
    gyre_added_free(&tokenizer->normalized);
    gyre_arena_free(&tokenizer->arena);
    free(tokenizer);
}

void gyre_byte_alphabet(uint16_t code_of[256])
{
    uint16_t next = 256;
    for (unsigned b = 0; b < 256; b++) {
        const bool own = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        code_of[b] = own ? (uint16_t)b : next++;
    }
}

void gyre_byte_name(unsigned char byte, char name[8]) { snprintf(name, 8, "<0x%02X>", byte); }

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

// A name with blanks where its stand-ins are. *n: not more than the name's length.
static void name_to_text(struct gyre_string name, const char *blank, char *out, uint64_t *n)
{
    const uint64_t length = strlen(blank);
    uint64_t written = 0;
    for (uint64_t i = 0; i < name.length;) {
        const bool here = length && name.length - i >= length && !memcmp(name.data + i, blank, length);
        out[written++] = here ? ' ' : name.data[i];
        i += here ? length : 1;
    }
    *n = written;
}

// Copies names into the arena, decodes them, and enters them into the vocabulary.
static bool add_tokens(gyre_tokenizer *t, const struct tokenizer_parts *parts)
{
    uint16_t code_of[256];
    int16_t byte_of[512];
    uint64_t total = 0, used = 0;
    gyre_byte_alphabet(code_of);
    memset(byte_of, -1, sizeof byte_of);
    for (int b = 0; b < 256; b++) byte_of[code_of[b]] = (int16_t)b;
    for (uint32_t i = 0; i < parts->n_tokens; i++) total += 2 * parts->names[i].length;
    t->n_tokens = parts->n_tokens;
    t->names = gyre_arena_array(&t->arena, parts->n_tokens + 1ull, sizeof *t->names);
    t->bytes = gyre_arena_array(&t->arena, parts->n_tokens + 1ull, sizeof *t->bytes);
    t->kinds = gyre_arena_array(&t->arena, parts->n_tokens + 1ull, sizeof *t->kinds);
    t->modelled = gyre_arena_array(&t->arena, parts->n_tokens + 1ull, sizeof *t->modelled);
    t->ends = gyre_arena_array(&t->arena, parts->n_tokens + 1ull, sizeof *t->ends);
    char *text = gyre_arena_alloc(&t->arena, total + 1);
    if (!t->names || !t->bytes || !t->kinds || !t->modelled || !t->ends || !text) return false;
    for (uint32_t i = 0; i < parts->n_tokens; i++) {
        const struct gyre_string name = parts->names[i];
        const uint8_t kind = t->kinds[i] = parts->kinds[i];
        t->modelled[i] = parts->modelled ? parts->modelled[i] : kind != TOKEN_SPECIAL;
        t->bytes[i].data = text;
        if (!name.data) continue;
        memcpy(text + used, name.data, name.length);
        t->names[i] = t->bytes[i] = (struct gyre_string){text + used, name.length};
        used += name.length;
        bool decoded = false;
        if (t->characters && kind != TOKEN_SPECIAL) {
            name_to_text(name, t->blank, text + used, &t->bytes[i].length);
            decoded = true;
        } else if (kind != TOKEN_SPECIAL && kind != TOKEN_ADDED) {
            decoded = name_to_bytes(name, byte_of, text + used, &t->bytes[i].length);
        }
        if (decoded) {
            t->bytes[i].data = text + used;
            used += t->bytes[i].length;
        }
        if (!gyre_strmap_add(&t->vocab, t->names[i].data, (uint32_t)name.length, i, NULL)) return false;
    }
    return true;
}

// The tokens of single bytes, or of single characters; false: out of memory.
static bool add_symbols(gyre_tokenizer *t)
{
    uint16_t code_of[256];
    char *bytes = gyre_arena_alloc(&t->arena, 256), name[8];
    if (!bytes) return false;
    gyre_byte_alphabet(code_of);
    for (unsigned b = 0; b < 256; b++) {
        uint32_t *token = &t->byte_token[b], n = 1;
        bytes[b] = (char)b;
        name[0] = (char)b;
        if (t->characters) {
            gyre_byte_name((unsigned char)b, name);
            n = 6;
        } else if (code_of[b] >= 128) {
            name[0] = (char)(0xC0 | code_of[b] >> 6);
            name[1] = (char)(0x80 | (code_of[b] & 63));
            n = 2;
        }
        if (!gyre_strmap_get(&t->vocab, name, n, token) || !t->modelled[*token]) *token = NO_TOKEN;
        else if (t->characters && t->byte_fallback) t->bytes[*token] = (struct gyre_string){bytes + b, 1};
    }
    if (!t->characters) return true;
    t->char_token = gyre_arena_array(&t->arena, CHAR_TOKENS, sizeof *t->char_token);
    if (!t->char_token) return false;
    memset(t->char_token, 0xFF, CHAR_TOKENS * sizeof *t->char_token);
    for (uint32_t i = 0; i < t->n_tokens; i++) {
        const struct gyre_string of = t->names[i];
        uint32_t code;
        if (of.length == 0 || of.length > 3 || gyre_utf8_look(of.data, of.length, &code) != (int)of.length) continue;
        if (t->modelled[i] && t->char_token[code] == NO_TOKEN) t->char_token[code] = i;
    }
    return true;
}

// The first or last byte that a name in the byte-level alphabet stands for; false where its character is no byte's.
static bool named_byte(struct gyre_string name, bool last, char *out)
{
    uint16_t code_of[256];
    uint32_t code = UINT32_MAX, n;
    if (last) code = gyre_utf8_last(name.data, name.length, &n);
    else (void)gyre_utf8_look(name.data, name.length, &code);
    gyre_byte_alphabet(code_of);
    for (unsigned b = 0; b < 256; b++) {
        if (code_of[b] != code) continue;
        *out = (char)b;
        return true;
    }
    return false;
}

// Which bytes a symbol's text may begin and end with. A byte's token stands for its byte as well as for its name, and
// the unknown one for any text.
static void join(gyre_tokenizer *t, const struct merge *m)
{
    unsigned char last[2], first[2];
    unsigned n_last = 0, n_first = 0;
    for (int side = 0; side < 2; side++) {
        const uint32_t symbol = side ? m->right : m->left;
        unsigned char *edge = side ? first : last;
        unsigned *n = side ? &n_first : &n_last;
        char lone[4];
        struct gyre_string of = {lone, 0};
        if (symbol == t->unknown) gyre_merges_join_all(&t->merges);
        if (symbol & LONE_CHARACTER)
            of.length =
                (uint64_t)utf8proc_encode_char((utf8proc_int32_t)(symbol & ~LONE_CHARACTER), (utf8proc_uint8_t *)lone);
        else of = t->characters ? t->names[symbol] : t->bytes[symbol];
        // An added token stands for its name, also where merges take that for bytes.
        if (!t->characters && t->kinds[symbol] != TOKEN_NORMAL && named_byte(t->names[symbol], side == 0, lone))
            of = (struct gyre_string){lone, 1};
        if (of.length) edge[(*n)++] = (unsigned char)of.data[side ? 0 : of.length - 1];
        if (t->characters && !(symbol & LONE_CHARACTER) && t->bytes[symbol].length == 1)
            edge[(*n)++] = (unsigned char)t->bytes[symbol].data[0];
    }
    for (unsigned i = 0; i < n_last; i++)
        for (unsigned k = 0; k < n_first; k++) gyre_merges_join(&t->merges, last[i], first[k]);
}

// Joins two names in a buffer that grows.
struct joined {
    char *data;
    uint64_t cap;
};

static bool join_names(struct joined *j, struct gyre_string left, struct gyre_string right)
{
    if (left.length + right.length > j->cap) {
        free(j->data);
        j->cap = 2 * (left.length + right.length);
        if (!(j->data = malloc(j->cap))) return false;
    }
    memcpy(j->data, left.data, left.length);
    memcpy(j->data + left.length, right.data, right.length);
    return true;
}

static gyre_status add_listed_merges(gyre_tokenizer *t, const struct tokenizer_parts *parts, const char *where,
                                     gyre_error *err)
{
    struct joined joined = {0};
    gyre_status st = GYRE_OK;
    if (!gyre_merges_init(&t->merges, parts->n_merges)) goto no_memory;
    for (uint64_t i = 0; i < parts->n_merges; i++) {
        const struct gyre_string left = parts->merges[i][0], right = parts->merges[i][1];
        struct merge m = {.rank = (uint32_t)i};
        if (!join_names(&joined, left, right)) goto no_memory;
        if (!gyre_strmap_get(&t->vocab, left.data, (uint32_t)left.length, &m.left) ||
            !gyre_strmap_get(&t->vocab, right.data, (uint32_t)right.length, &m.right) ||
            !gyre_strmap_get(&t->vocab, joined.data, (uint32_t)(left.length + right.length), &m.token)) {
            st = gyre_fail(
                err, GYRE_E_FORMAT,
                "cannot use tokenizer (%s): merge %llu (\"%s\" + \"%s\") is not made of tokens of the vocabulary",
                where, (unsigned long long)i, gyre_show(left.data, left.length).text,
                gyre_show(right.data, right.length).text);
            goto done;
        }
        gyre_merges_put(&t->merges, m);
        join(t, &m);
    }
    goto done;
no_memory:
    st = gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer (%s): out of memory", where);
done:
    free(joined.data);
    return st;
}

static gyre_status add_scored_merges(gyre_tokenizer *t, const double *scores, const char *where, gyre_error *err)
{
    struct merge *list;
    uint64_t n;
    GYRE_TRY(gyre_merges_of_scores(t, scores, &list, &n, where, err));
    const bool good = gyre_merges_init(&t->merges, n);
    for (uint64_t i = 0; i < n && good; i++) {
        gyre_merges_put(&t->merges, list[i]);
        join(t, &list[i]);
    }
    free(list);
    return good ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer (%s): out of memory", where);
}

static gyre_status add_added(gyre_tokenizer *t, const struct tokenizer_parts *parts, const char *where, gyre_error *err)
{
    struct added_token *copy = gyre_arena_array(&t->arena, parts->n_added + 1ull, sizeof *copy);
    uint32_t n = 0;
    if (!copy) return gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer (%s): out of memory", where);
    for (uint32_t i = 0; i < parts->n_added; i++) {
        const struct added_token *from = &parts->added[i];
        if (from->text.length == 0) continue;
        if (from->text.length > MAX_ADDED_BYTES)
            return gyre_fail(err, GYRE_E_UNSUPPORTED,
                             "cannot use tokenizer (%s): added token %u has %llu bytes; gyre takes %d", where, from->id,
                             (unsigned long long)from->text.length, MAX_ADDED_BYTES);
        char *made = NULL;
        uint64_t length = from->text.length;
        // What is searched in normalized text must be normalized too.
        if (from->normalized)
            GYRE_TRY(gyre_normalize(&t->normalizer, from->text.data, from->text.length, true, &made, &length, err));
        if (length == 0) {
            free(made);
            return gyre_fail(err, GYRE_E_UNSUPPORTED,
                             "cannot use tokenizer (%s): of the added token %u nothing is left when it is normalized",
                             where, from->id);
        }
        char *text = gyre_arena_alloc(&t->arena, length + 1);
        if (text) memcpy(text, made ? made : from->text.data, length);
        free(made);
        if (!text) return gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer (%s): out of memory", where);
        copy[n] = *from;
        copy[n].text = (struct gyre_string){text, length};
        n++;
    }
    if (gyre_added_init(&t->raw, copy, n, false) && gyre_added_init(&t->normalized, copy, n, true)) return GYRE_OK;
    return gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer (%s): out of memory", where);
}

gyre_status gyre_tokenizer_build(gyre_tokenizer *t, const struct tokenizer_parts *parts, const char *where,
                                 gyre_error *err)
{
    if (!add_tokens(t, parts) || !add_symbols(t))
        return gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer (%s): out of memory", where);
    GYRE_TRY(parts->scores ? add_scored_merges(t, parts->scores, where, err) : add_listed_merges(t, parts, where, err));
    return add_added(t, parts, where, err);
}

// ---- asking -----------------------------------------------------------------------------------------

uint32_t gyre_tokenizer_vocab(const gyre_tokenizer *tokenizer) { return tokenizer->n_tokens; }
int32_t gyre_tokenizer_bos(const gyre_tokenizer *tokenizer) { return tokenizer->bos; }
int32_t gyre_tokenizer_eos(const gyre_tokenizer *t) { return t->eos; }

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
