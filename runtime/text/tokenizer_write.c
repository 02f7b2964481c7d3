// tokenizer.json as GGUF metadata, so that a model made from a Hugging Face directory carries its tokenizer to every
// reader of GGUF. Where GGUF's keys cannot say the same, the file's text is carried instead (the key that the GGUF
// specification names for it) and other tools refuse rather than tokenize wrongly.
#include "runtime/source/source_impl.h"
#include "runtime/text/tokenizer_impl.h"

#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PADDING = 1 << 16 };

// A metadata value under construction, in the source's arena; sizes are known before.
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

static bool begin(gyre_source *source, struct value *v, uint64_t size)
{
    *v = (struct value){gyre_arena_alloc(&source->arena, size), 0};
    return v->data;
}

static bool begin_array(gyre_source *source, struct value *v, gyre_meta_type element, uint64_t count, uint64_t bytes)
{
    const uint32_t id = element;
    if (!begin(source, v, 12 + bytes)) return false;
    add(v, &id, 4);
    add(v, &count, 8);
    return true;
}

static gyre_status end(gyre_source *source, const char *key, gyre_meta_type type, gyre_meta_type element,
                       uint64_t count, const struct value *v, gyre_error *err)
{
    const struct gyre_meta meta = {
        .type = type, .element = element, .count = count, .raw = v->data, .raw_bytes = v->size};
    return gyre_source_add_meta(source, &meta, (struct gyre_string){key, strlen(key)}, err);
}

static gyre_status no_memory(const gyre_source *source, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
}

static gyre_status put_text(gyre_source *source, const char *key, const char *text, uint64_t length, gyre_error *err)
{
    struct value v;
    if (!begin(source, &v, 8 + length)) return no_memory(source, err);
    add_string(&v, text, length);
    return end(source, key, GYRE_META_STRING, GYRE_META_STRING, 1, &v, err);
}

// Holes and the rows that the model has beyond its tokens become unused tokens, as converters write them.
static gyre_status put_tokens(gyre_source *source, const gyre_tokenizer *t, uint32_t n, gyre_error *err)
{
    static const char pad[] = "[PAD00000000]";
    static const int32_t type_of[] = {[TOKEN_NORMAL] = 1, [TOKEN_SPECIAL] = 3, [TOKEN_ADDED] = 4, [TOKEN_UNUSED] = 5};
    struct value names, types;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        const bool known = i < t->n_tokens && t->names[i].data;
        bytes += 8 + (known ? t->names[i].length : sizeof pad - 1);
    }
    if (!begin_array(source, &names, GYRE_META_STRING, n, bytes) ||
        !begin_array(source, &types, GYRE_META_I32, n, 4ull * n))
        return no_memory(source, err);
    for (uint32_t i = 0; i < n; i++) {
        const bool known = i < t->n_tokens && t->names[i].data;
        char filler[sizeof pad];
        uint32_t rest = i;
        memcpy(filler, pad, sizeof pad);
        for (int digit = 11; digit > 3; digit--, rest /= 10) filler[digit] = (char)('0' + rest % 10);
        if (known) add_string(&names, t->names[i].data, t->names[i].length);
        else add_string(&names, filler, sizeof pad - 1);
        add(&types, &type_of[known ? t->kinds[i] : TOKEN_UNUSED], 4);
    }
    GYRE_TRY(end(source, "tokenizer.ggml.tokens", GYRE_META_ARRAY, GYRE_META_STRING, n, &names, err));
    return end(source, "tokenizer.ggml.token_type", GYRE_META_ARRAY, GYRE_META_I32, n, &types, err);
}

static int by_rank(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static gyre_status put_merges(gyre_source *source, const gyre_tokenizer *t, gyre_error *err)
{
    uint64_t n = 0, bytes = 0;
    struct value v;
    struct merge *list = malloc((t->merges.mask + 1) * sizeof *list);
    if (!list) return no_memory(source, err);
    for (uint64_t i = 0; i <= t->merges.mask; i++) {
        const struct merge m = t->merges.slots[i];
        if (m.left == NO_TOKEN) continue;
        list[n++] = m;
        bytes += 8 + t->names[m.left].length + 1 + t->names[m.right].length;
    }
    qsort(list, n, sizeof *list, by_rank);
    const bool good = begin_array(source, &v, GYRE_META_STRING, n, bytes);
    for (uint64_t i = 0; i < n && good; i++) {
        const struct gyre_string left = t->names[list[i].left], right = t->names[list[i].right];
        const uint64_t length = left.length + 1 + right.length;
        add(&v, &length, 8);
        add(&v, left.data, left.length);
        add(&v, " ", 1);
        add(&v, right.data, right.length);
    }
    free(list);
    if (!good) return no_memory(source, err);
    return end(source, "tokenizer.ggml.merges", GYRE_META_ARRAY, GYRE_META_STRING, n, &v, err);
}

static gyre_status put_bos(gyre_source *source, int32_t bos, gyre_error *err)
{
    struct value v;
    if (bos < 0) return GYRE_OK;
    if (!begin(source, &v, 4)) return no_memory(source, err);
    add(&v, &bos, 4);
    return end(source, "tokenizer.ggml.bos_token_id", GYRE_META_U32, GYRE_META_U32, 1, &v, err);
}

static gyre_status put_all(gyre_source *source, const gyre_tokenizer *t, const char *pre, uint32_t n, gyre_error *err)
{
    struct value flag;
    if (!begin(source, &flag, 1)) return no_memory(source, err);
    add(&flag, &t->adds_bos, 1);
    GYRE_TRY(put_text(source, "tokenizer.ggml.model", "gpt2", 4, err));
    GYRE_TRY(put_text(source, "tokenizer.ggml.pre", pre, strlen(pre), err));
    GYRE_TRY(end(source, "tokenizer.ggml.add_bos_token", GYRE_META_BOOL, GYRE_META_BOOL, 1, &flag, err));
    GYRE_TRY(put_tokens(source, t, n, err));
    return put_merges(source, t, err);
}

gyre_status gyre_hf_add_tokenizer(gyre_source *source, const char *path, const char *text, uint64_t bytes,
                                  uint64_t vocab, int32_t bos, gyre_error *err)
{
    bool plain = false;
    gyre_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return no_memory(source, err);
    t->bos = bos;
    t->unknown = NO_TOKEN;
    gyre_status st = gyre_tokenizer_from_json(source, path, text, bytes, t, &plain, NULL);
    const char *pre = st == GYRE_OK && plain ? gyre_pre_name(&t->pre, t->nfc, t->ignore_merges) : NULL;
    const uint64_t n = GYRE_MAX(vocab, (uint64_t)t->n_tokens);
    if (st == GYRE_E_NOMEM) st = no_memory(source, err);
    else if (pre && n == vocab && n <= 2ull * t->n_tokens + MAX_PADDING) st = put_all(source, t, pre, (uint32_t)n, err);
    else st = put_text(source, "tokenizer.huggingface.json", text, bytes, err);
    if (st == GYRE_OK) st = put_bos(source, t->bos, err);
    gyre_tokenizer_destroy(t);
    return st;
}
