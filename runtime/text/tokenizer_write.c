// tokenizer.json as GGUF metadata, so that a model made from a Hugging Face directory carries its tokenizer to every
// reader of GGUF. Where GGUF's keys cannot say the same, the file's text is carried instead (the key that the GGUF
// specification names for it) and other tools refuse rather than tokenize wrongly.
#include "runtime/text/template.h"
#include "runtime/text/tokenizer_impl.h"

#include "runtime/util/base.h"
#include "runtime/util/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PADDING = 1 << 16 };

// Values are built in an arena of their own; each is handed out as soon as it is whole.
struct writer {
    struct gyre_arena arena;
    gyre_meta_sink put;
    void *user;
    const char *path;
    gyre_error *err;
};

// A metadata value under construction; sizes are known before.
struct value {
    unsigned char *data;
    uint64_t size;
};

static void add(struct value *v, const void *data, uint64_t size)
{
    if (size) memcpy(v->data + v->size, data, size);
    v->size += size;
}

static void add_string(struct value *v, const char *data, uint64_t length)
{
    add(v, &length, 8);
    add(v, data, length);
}

static bool begin(struct writer *w, struct value *v, uint64_t size)
{
    *v = (struct value){gyre_arena_alloc(&w->arena, size), 0};
    return v->data;
}

static bool begin_array(struct writer *w, struct value *v, gyre_meta_type element, uint64_t count, uint64_t bytes)
{
    const uint32_t id = element;
    if (!begin(w, v, 12 + bytes)) return false;
    add(v, &id, 4);
    add(v, &count, 8);
    return true;
}

static void end(struct writer *w, const char *key, gyre_meta_type type, gyre_meta_type element, uint64_t count,
                const struct value *v)
{
    const struct gyre_meta meta = {
        .key = key, .type = type, .element = element, .count = count, .raw = v->data, .raw_bytes = v->size};
    w->put(w->user, &meta);
}

static gyre_status no_memory(const struct writer *w)
{
    return gyre_fail(w->err, GYRE_E_NOMEM, "cannot write tokenizer (%s): out of memory", w->path);
}

static gyre_status put_text(struct writer *w, const char *key, const char *text, uint64_t length)
{
    struct value v;
    if (!begin(w, &v, 8 + length)) return no_memory(w);
    add_string(&v, text, length);
    end(w, key, GYRE_META_STRING, GYRE_META_STRING, 1, &v);
    return GYRE_OK;
}

static gyre_status put_u32(struct writer *w, const char *key, uint32_t number)
{
    struct value v;
    if (!begin(w, &v, 4)) return no_memory(w);
    add(&v, &number, 4);
    end(w, key, GYRE_META_U32, GYRE_META_U32, 1, &v);
    return GYRE_OK;
}

static gyre_status put_bool(struct writer *w, const char *key, bool on)
{
    struct value v;
    if (!begin(w, &v, 1)) return no_memory(w);
    add(&v, &on, 1);
    end(w, key, GYRE_META_BOOL, GYRE_META_BOOL, 1, &v);
    return GYRE_OK;
}

// GGUF's type of a token.
static int32_t type_of(const gyre_tokenizer *t, uint32_t token)
{
    static const int32_t of_kind[] = {[TOKEN_NORMAL] = 1, [TOKEN_SPECIAL] = 3, [TOKEN_ADDED] = 4, [TOKEN_UNUSED] = 5};
    if (t->characters && token == t->unknown) return 2;
    if (t->byte_fallback && t->bytes[token].length == 1 &&
        t->byte_token[(unsigned char)t->bytes[token].data[0]] == token)
        return 6;
    return of_kind[t->kinds[token]];
}

// Holes and the rows that the model has beyond its tokens become unused tokens, as converters write them.
static gyre_status put_tokens(struct writer *w, const gyre_tokenizer *t, uint32_t n)
{
    static const char pad[] = "[PAD00000000]";
    struct value names, types;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        const bool known = i < t->n_tokens && t->names[i].data;
        bytes += 8 + (known ? t->names[i].length : sizeof pad - 1);
    }
    if (!begin_array(w, &names, GYRE_META_STRING, n, bytes) || !begin_array(w, &types, GYRE_META_I32, n, 4ull * n))
        return no_memory(w);
    for (uint32_t i = 0; i < n; i++) {
        const bool known = i < t->n_tokens && t->names[i].data;
        char filler[sizeof pad];
        uint32_t rest = i;
        memcpy(filler, pad, sizeof pad);
        for (int digit = 11; digit > 3; digit--, rest /= 10) filler[digit] = (char)('0' + rest % 10);
        if (known) add_string(&names, t->names[i].data, t->names[i].length);
        else add_string(&names, filler, sizeof pad - 1);
        const int32_t type = known ? type_of(t, i) : 5;
        add(&types, &type, 4);
    }
    end(w, "tokenizer.ggml.tokens", GYRE_META_ARRAY, GYRE_META_STRING, n, &names);
    end(w, "tokenizer.ggml.token_type", GYRE_META_ARRAY, GYRE_META_I32, n, &types);
    return GYRE_OK;
}

static gyre_status put_scores(struct writer *w, const double *scores, uint32_t n_tokens, uint32_t n)
{
    struct value v;
    if (!begin_array(w, &v, GYRE_META_F32, n, 4ull * n)) return no_memory(w);
    for (uint32_t i = 0; i < n; i++) {
        const float score = i < n_tokens ? (float)scores[i] : 0;
        add(&v, &score, 4);
    }
    end(w, "tokenizer.ggml.scores", GYRE_META_ARRAY, GYRE_META_F32, n, &v);
    return GYRE_OK;
}

static int by_rank(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static gyre_status put_merges(struct writer *w, const gyre_tokenizer *t)
{
    uint64_t n = 0, bytes = 0;
    struct value v;
    struct merge *list = malloc((t->merges.mask + 1) * sizeof *list);
    if (!list) return no_memory(w);
    for (uint64_t i = 0; i <= t->merges.mask; i++) {
        const struct merge m = t->merges.slots[i];
        if (m.left == NO_TOKEN) continue;
        list[n++] = m;
        bytes += 8 + t->names[m.left].length + 1 + t->names[m.right].length;
    }
    qsort(list, n, sizeof *list, by_rank);
    const bool good = begin_array(w, &v, GYRE_META_STRING, n, bytes);
    for (uint64_t i = 0; i < n && good; i++) {
        const struct gyre_string left = t->names[list[i].left], right = t->names[list[i].right];
        const uint64_t length = left.length + 1 + right.length;
        add(&v, &length, 8);
        add(&v, left.data, left.length);
        add(&v, " ", 1);
        add(&v, right.data, right.length);
    }
    free(list);
    if (!good) return no_memory(w);
    end(w, "tokenizer.ggml.merges", GYRE_META_ARRAY, GYRE_META_STRING, n, &v);
    return GYRE_OK;
}

static gyre_status put_ends(struct writer *w, const struct tokenizer_settings *settings)
{
    struct value v;
    const uint32_t n = settings->n_ends;
    if (n == 0) return GYRE_OK;
    if (!begin_array(w, &v, GYRE_META_U32, n, 4ull * n)) return no_memory(w);
    add(&v, settings->ends, 4ull * n);
    GYRE_TRY(put_u32(w, "tokenizer.ggml.eos_token_id", settings->ends[0]));
    end(w, "tokenizer.ggml.end_token_ids", GYRE_META_ARRAY, GYRE_META_U32, n, &v);
    return GYRE_OK;
}

// Whether GGUF's keys can say all of the tokenizer.
static bool expressible(const gyre_tokenizer *t, const struct tokenizer_settings *s, uint32_t vocab)
{
    return t->n_before <= 1 && t->n_after <= 1 && (t->n_before == 0 || t->before[0] == (uint32_t)t->bos) &&
           (t->n_after == 0 || t->after[0] == s->ends[0]) && vocab >= t->n_tokens &&
           vocab <= 2ull * t->n_tokens + MAX_PADDING;
}

// How GGUF's keys say a tokenizer: byte-level BPE by the name of its pre-tokenizer, SentencePiece's BPE by scores.
struct way {
    const char *pre;
    double *scores; // by token, malloc'd
    bool prefix;    // SentencePiece: a blank before every stretch of text
};

// Whether text is brought into SentencePiece's alphabet as GGUF's readers do it.
static bool reads_as_sentencepiece(const gyre_tokenizer *t, bool *prefix)
{
    static const char blank[] = "\xE2\x96\x81";
    bool replaced = false;
    *prefix = false;
    if (!t->characters || !t->byte_fallback || t->whole != WHOLE_NEVER || strcmp(t->blank, blank)) return false;
    for (int b = 0; b < 256; b++)
        if (t->byte_token[b] == NO_TOKEN) return false;
    for (uint32_t i = 0; i < t->normalizer.n; i++) {
        const struct gyre_normal_step *s = &t->normalizer.steps[i];
        const bool prefixes =
            s->kind == GYRE_NORMAL_PREFIX && !*prefix && (!strcmp(s->to, blank) || (!replaced && !strcmp(s->to, " ")));
        const bool replaces = s->kind == GYRE_NORMAL_REPLACE && !replaced && s->literal &&
                              !strcmp(s->pattern.source, " ") && !strcmp(s->to, blank);
        if (!prefixes && !replaces) return false;
        *prefix = *prefix || prefixes;
        replaced = replaced || replaces;
    }
    // What cuts at blanks cuts nothing where none is left.
    for (uint32_t i = 0; i < t->pre.n; i++)
        if (t->pre.steps[i].prefix || !t->pre.steps[i].literal || strcmp(t->pre.steps[i].pattern.source, " "))
            return false;
    return replaced;
}

static bool is_run(struct gyre_string name) // of one character
{
    uint32_t code;
    const int k = gyre_utf8_look(name.data, name.length, &code);
    for (uint64_t i = 0; k > 0 && i < name.length; i += (uint64_t)k)
        if (name.length - i < (uint64_t)k || memcmp(name.data, name.data + i, (uint64_t)k)) return false;
    return k > 0;
}

// Scores that follow the merges, sorted by rank: the lower the first rank that makes a token, the higher. False where
// the ranks of several tokens lie among each other, but for runs of one character, which grow from left to right
// whether their ranks say so or equal scores do.
static bool score_by_ranks(const gyre_tokenizer *t, const struct merge *list, uint64_t n, uint64_t *last,
                           double *scores)
{
    uint64_t begin = 0, end = 0;
    bool good = true;
    for (uint64_t i = 0; i < n; i++) last[list[i].token] = i;
    for (uint64_t i = 0; i < n && good; i++) {
        const uint32_t token = list[i].token, with = list[begin].token;
        if (i == 0 || i > end) {
            begin = i;
            end = last[token];
        } else if (token != with) {
            good = is_run(t->names[token]) && is_run(t->names[with]);
            end = GYRE_MAX(end, last[token]);
        }
        scores[token] = -1.0 - (double)begin;
    }
    return good;
}

// Scores that stand for the merges: every way to make a token must be among them. (Which of two ways to one token goes
// first, scores cannot say; they go from left to right.)
static gyre_status find_scores(struct writer *w, const gyre_tokenizer *t, double **out)
{
    struct merge *list = malloc((t->merges.mask + 1) * sizeof *list), *ways = NULL;
    double *scores = calloc(t->n_tokens + 1ull, sizeof *scores);
    uint64_t *last = calloc(t->n_tokens + 1ull, sizeof *last), n = 0, n_ways;
    gyre_status st = list && last && scores ? GYRE_OK : no_memory(w);
    bool same = true;
    *out = NULL;
    if (st != GYRE_OK) goto done;
    for (uint64_t i = 0; i <= t->merges.mask; i++)
        if (t->merges.slots[i].left != NO_TOKEN) list[n++] = t->merges.slots[i];
    qsort(list, n, sizeof *list, by_rank);
    same = score_by_ranks(t, list, n, last, scores);
    st = gyre_merges_of_scores(t, scores, &ways, &n_ways, w->path, w->err);
    if (st == GYRE_E_UNSUPPORTED) same = false, st = GYRE_OK;
    same = same && n_ways == n && n < 1u << 24; // whole numbers that f32 holds
    for (uint64_t i = 0; i < n && same && st == GYRE_OK; i++) {
        const struct merge *m = gyre_merges_get(&t->merges, ways[i].left, ways[i].right);
        same = m && m->token == ways[i].token;
    }
    if (same && st == GYRE_OK) {
        *out = scores;
        scores = NULL;
    }
done:
    free(scores);
    free(last);
    free(ways);
    free(list);
    return st;
}

// Whether merges alone make every token of its own text, so that looking words up first changes nothing.
static gyre_status whole_by_merges(struct writer *w, const gyre_tokenizer *t, bool *out)
{
    struct bpe_work work = {0};
    bool good = true;
    *out = true;
    for (uint32_t i = 0; i < t->n_tokens && *out && good; i++) {
        if (!t->names[i].data || t->kinds[i] != TOKEN_NORMAL) continue;
        work.n_out = 0;
        good = gyre_bpe_word(t, &work, t->bytes[i].data, t->bytes[i].length);
        *out = work.n_out == 1 && work.out[0] == i;
    }
    gyre_bpe_free(&work);
    free(work.out);
    return good ? GYRE_OK : no_memory(w);
}

// *way stays empty where GGUF's keys cannot say the tokenizer.
static gyre_status find_way(struct writer *w, const gyre_tokenizer *t, struct way *way)
{
    const bool nfc = gyre_normal_is_nfc(&t->normalizer);
    if (reads_as_sentencepiece(t, &way->prefix)) return find_scores(w, t, &way->scores);
    if (t->characters || (!nfc && t->normalizer.n)) return GYRE_OK;
    const bool whole = t->whole == WHOLE_ALWAYS;
    bool either = false;
    way->pre = gyre_pre_name(&t->pre, nfc, whole);
    if (!way->pre) GYRE_TRY(whole_by_merges(w, t, &either));
    if (either) way->pre = gyre_pre_name(&t->pre, nfc, !whole);
    return GYRE_OK;
}

static gyre_status put_keys(struct writer *w, const gyre_tokenizer *t, const struct way *way, uint32_t vocab)
{
    const char *model = way->scores ? "llama" : "gpt2", *pre = way->scores ? "default" : way->pre;
    GYRE_TRY(put_text(w, "tokenizer.ggml.model", model, strlen(model)));
    GYRE_TRY(put_text(w, "tokenizer.ggml.pre", pre, strlen(pre)));
    GYRE_TRY(put_bool(w, "tokenizer.ggml.add_bos_token", t->n_before != 0));
    if (t->n_after) GYRE_TRY(put_bool(w, "tokenizer.ggml.add_eos_token", true));
    GYRE_TRY(put_tokens(w, t, vocab));
    if (!way->scores) return put_merges(w, t);
    GYRE_TRY(put_bool(w, "tokenizer.ggml.add_space_prefix", way->prefix));
    if (t->unknown != NO_TOKEN) GYRE_TRY(put_u32(w, "tokenizer.ggml.unknown_token_id", t->unknown));
    return put_scores(w, way->scores, t->n_tokens, vocab);
}

// The text itself, and what the other files of the directory say beside it.
static gyre_status put_json(struct writer *w, const char *json, uint64_t bytes, const struct tokenizer_settings *s)
{
    GYRE_TRY(put_text(w, "tokenizer.huggingface.json", json, bytes));
    if (s->add_bos != UNSAID) GYRE_TRY(put_bool(w, "tokenizer.ggml.add_bos_token", s->add_bos == SAID_YES));
    if (s->add_eos != UNSAID) GYRE_TRY(put_bool(w, "tokenizer.ggml.add_eos_token", s->add_eos == SAID_YES));
    return GYRE_OK;
}

static gyre_status inexpressible(const struct writer *w)
{
    return gyre_fail(w->err, GYRE_E_UNSUPPORTED,
                     "cannot write profile portable (%s): GGUF's keys cannot express its tokenizer; use profile full",
                     w->path);
}

// The templates by which the model was taught to talk.
static gyre_status put_templates(struct writer *w, const gyre_source *source)
{
    char *text, *with_tools;
    gyre_status st = gyre_template_carried(source, &text, &with_tools, w->err);
    if (st == GYRE_OK && text) st = put_text(w, "tokenizer.chat_template", text, strlen(text));
    if (st == GYRE_OK && with_tools)
        st = put_text(w, "tokenizer.chat_template.tool_use", with_tools, strlen(with_tools));
    free(text);
    free(with_tools);
    return st;
}

gyre_status gyre_tokenizer_write(const gyre_source *source, uint32_t vocab, bool plain, gyre_meta_sink put, void *user,
                                 gyre_error *err)
{
    struct writer w = {.put = put, .user = user, .path = gyre_source_path(source), .err = err};
    gyre_status st = GYRE_OK;
    struct tokenizer_settings settings;
    uint64_t bytes;
    struct way way = {0};
    const char *json = gyre_source_file(source, "tokenizer.json", &bytes);
    if (gyre_source_container(source) == GYRE_CONTAINER_GGUF)
        return !plain || gyre_source_has(source, "tokenizer.ggml.model") ||
                       !gyre_source_has(source, "tokenizer.huggingface.json")
                   ? GYRE_OK
                   : inexpressible(&w);
    gyre_tokenizer *t = gyre_tokenizer_new();
    if (!t) return no_memory(&w);
    GYRE_GO(gyre_tokenizer_settings(source, &settings, err));
    if (json) {
        // What gyre does not understand is carried as it is; gyre_tokenizer_create says why it cannot be used.
        bool same = false;
        st = gyre_tokenizer_from_json(w.path, json, bytes, t, &same, NULL);
        if (st == GYRE_E_NOMEM) GYRE_GO(no_memory(&w));
        if (st == GYRE_OK) GYRE_GO(gyre_tokenizer_apply(t, &settings, w.path, err));
        if (st == GYRE_OK && same && expressible(t, &settings, vocab)) GYRE_GO(find_way(&w, t, &way));
        st = GYRE_OK;
    }
    const bool keys = way.pre || way.scores;
    if (json && !keys && plain) GYRE_GO(inexpressible(&w));
    GYRE_GO(put_ends(&w, &settings));
    if (keys) GYRE_GO(put_keys(&w, t, &way, vocab));
    else if (json) GYRE_GO(put_json(&w, json, bytes, &settings));
    if (settings.bos >= 0) GYRE_GO(put_u32(&w, "tokenizer.ggml.bos_token_id", (uint32_t)settings.bos));
    st = put_templates(&w, source);
done:
    free(way.scores);
    gyre_tokenizer_destroy(t);
    gyre_arena_free(&w.arena);
    return st;
}
