// Sessions as bytes: a header, the tokens, and of every page the keys and values of every layer. See gyre.h.
//
// Layout, little-endian: struct header; uint32 tokens[length]; then per page, per layer: K, V, scales of K, scales of V
// as they lie in the pools (shaders/params.h). Positions beyond the length are zero: other sessions wrote there. Of
// layers with a window only pages that the next position sees, whatever else the cache still has.
#include "runtime/session.h"

#include "runtime/util/base.h"
#include "runtime/util/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char magic[8] = "gyreses1";
enum { PLANES = 4, SAMPLE = 4096 };

struct header {
    char magic[8];
    char model[GYRE_SHA256_HEX + 3];
    uint16_t kv_bits, kv_bits_v; // of keys, of values; 0: the same, as files of one width have always had it
    uint32_t layers, kv_heads, head_dim, length;
    uint16_t has_pending, long_text; // long_text: keys were turned by LongRoPE's divisors for long contexts
    uint32_t pending;
    uint64_t bytes; // of the whole
};

// The names, types, shapes and up to three samples of every tensor: cheap, and no two models share them.
static const char *identity(gyre_engine *e)
{
    if (e->identity[0]) return e->identity;
    struct gyre_sha256 sha;
    gyre_sha256_init(&sha);
    if (!e->source) { // a shape: its weights follow from its sizes
        const struct gyre_hparams *hp = &e->model.hp;
        const uint32_t facts[] = {hp->n_layers, hp->width, hp->heads, hp->kv_heads, hp->head_dim,
                                  hp->ffn,      hp->vocab, hp->tied,  hp->wgroup};
        gyre_sha256_add(&sha, hp->arch, strlen(hp->arch) + 1);
        gyre_sha256_add(&sha, facts, sizeof facts);
    }
    for (uint64_t i = 0; e->source && i < gyre_source_tensor_count(e->source); i++) {
        const struct gyre_tensor *t = gyre_source_tensor_at(e->source, i);
        const uint64_t facts[3] = {t->type, t->rows, t->cols}, n = GYRE_MIN(t->bytes, (uint64_t)SAMPLE);
        gyre_sha256_add(&sha, t->name, strlen(t->name) + 1);
        gyre_sha256_add(&sha, facts, sizeof facts);
        for (uint64_t k = 0; k < 3; k++) {
            const unsigned char *data = t->data;
            gyre_sha256_add(&sha, data + k * (t->bytes - n) / 2, n);
        }
    }
    gyre_sha256_end(&sha, e->identity);
    return e->identity;
}

// Plane p of a layer's pool, and the bytes of one position of one head in it; 0: the plane holds nothing.
static struct gyre_buffer *plane(const gyre_session *s, uint32_t layer, uint32_t p, uint64_t *cell)
{
    const struct gyre_kv_pool *pool = &s->engine->kv.pool[layer];
    const struct gyre_binding *all[PLANES] = {&pool->k, &pool->v, &pool->k_meta, &pool->v_meta};
    const uint32_t bits = p % 2 ? pool->bits_v : pool->bits;
    *cell = p < 2 ? gyre_kv_cell(s->engine->model.hp.head_dim, bits) : gyre_kv_scale(bits);
    return all[p]->buffer;
}

// The first page of a layer that is saved of a session of that length.
static uint32_t first_page(const gyre_session *s, uint32_t layer, uint32_t length)
{
    const struct gyre_hparams *hp = &s->engine->model.hp;
    return !hp->kind[layer].windowed || length < hp->window ? 0 : (length - hp->window + 1) / GYRE_PAGE;
}

static uint64_t saved_bytes(const gyre_session *s, uint32_t length)
{
    uint64_t page = 0, pages = 0, cell;
    for (uint32_t p = 0; p < PLANES; p++) {
        plane(s, 0, p, &cell);
        page += cell * s->engine->model.hp.kv_heads * GYRE_PAGE;
    }
    for (uint32_t i = 0; i < s->engine->model.hp.n_layers; i++)
        pages += gyre_div_up(length, GYRE_PAGE) - first_page(s, i, length);
    return sizeof(struct header) + (uint64_t)length * 4 + pages * page;
}

static struct header header_of(const gyre_session *s)
{
    const struct gyre_hparams *hp = &s->engine->model.hp;
    const struct gyre_precision *p = &s->engine->precision;
    struct header h = {.kv_bits = (uint16_t)p->kv,
                       .kv_bits_v = (uint16_t)(p->kv_v == p->kv ? 0 : p->kv_v),
                       .layers = hp->n_layers,
                       .kv_heads = hp->kv_heads,
                       .head_dim = hp->head_dim,
                       .length = s->length,
                       .has_pending = s->has_pending,
                       .long_text = hp->long_text,
                       .pending = s->pending,
                       .bytes = saved_bytes(s, s->length)};
    memcpy(h.magic, magic, sizeof magic);
    memcpy(h.model, identity(s->engine), GYRE_SHA256_HEX);
    return h;
}

// Moves all pages between the device and `at`.
static gyre_status move(const gyre_session *s, uint32_t length, unsigned char *out, const unsigned char *in,
                        gyre_error *err)
{
    const struct gyre_kv *kv = &s->engine->kv;
    const uint32_t heads = s->engine->model.hp.kv_heads;
    uint64_t at = 0;
    for (uint32_t page = 0; page < gyre_div_up(length, GYRE_PAGE); page++) {
        const int32_t whole = kv->table[(uint64_t)s->slot * kv->page_stride + page];
        const uint32_t live = GYRE_MIN(length - page * GYRE_PAGE, (uint32_t)GYRE_PAGE);
        for (uint32_t i = 0; i < kv->n_layers * PLANES; i++) {
            uint64_t cell;
            gyre_buffer *buffer = plane(s, i / PLANES, i % PLANES, &cell);
            const uint64_t head = cell * GYRE_PAGE, n = head * heads;
            if (n == 0 || page < first_page(s, i / PLANES, length)) continue;
            const uint64_t where = (uint64_t)(kv->pool[i / PLANES].pages.buffer ? kv->window.place[whole] : whole);
            if (in) GYRE_TRY(gyre_buffer_write(kv->device, buffer, where * n, in + at, n, err));
            if (out) GYRE_TRY(gyre_buffer_read(kv->device, buffer, where * n, out + at, n, err));
            for (uint32_t h = 0; out && h < heads; h++)
                memset(out + at + h * head + live * cell, 0, head - live * cell);
            at += n;
        }
    }
    return GYRE_OK;
}

gyre_status gyre_session_store(const gyre_session *s, void **bytes, size_t *n, gyre_error *err)
{
    const struct header h = header_of(s);
    const size_t tokens = (size_t)s->length * sizeof *s->tokens;
    *bytes = NULL;
    *n = 0;
    unsigned char *out = malloc(h.bytes);
    if (!out) return gyre_fail(err, GYRE_E_NOMEM, "cannot save the session: out of memory");
    memcpy(out, &h, sizeof h);
    memcpy(out + sizeof h, s->tokens, tokens);
    const gyre_status st = move(s, s->length, out + sizeof h + tokens, NULL, err);
    if (st != GYRE_OK) {
        free(out);
        return st;
    }
    *bytes = out;
    *n = h.bytes;
    return GYRE_OK;
}

// Does it fit the session's engine?
static gyre_status check(const gyre_session *s, const struct header *h, size_t n, const char *where, gyre_error *err)
{
    const gyre_engine *e = s->engine;
    const struct header want = header_of(s);
    if (strncmp(h->model, want.model, sizeof h->model) != 0 || h->layers != want.layers ||
        h->kv_heads != want.kv_heads || h->head_dim != want.head_dim)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot load session (%s): it was saved with another model; open that one, or start anew",
                         where);
    if (h->kv_bits != want.kv_bits || h->kv_bits_v != want.kv_bits_v)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot load session (%s): it was saved with keys and values of %u and %u bits, and here they "
                         "have %u and %u; open the model with those",
                         where, h->kv_bits, h->kv_bits_v ? h->kv_bits_v : h->kv_bits, e->precision.kv,
                         e->precision.kv_v);
    if (h->length > e->context)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot load session (%s): its %u tokens do not fit the context of %u; open the model with a "
                         "longer context",
                         where, h->length, e->context);
    if (h->long_text != want.long_text)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot load session (%s): it was saved with a context %s the %.0f tokens beyond which this "
                         "model turns keys otherwise (LongRoPE); open the model with such a context, or start anew",
                         where, h->long_text ? "beyond" : "within", e->model.hp.rope_original_context);
    if (h->bytes != n)
        return gyre_fail(
            err, GYRE_E_FORMAT,
            "cannot load session (%s): it has %zu bytes and says %llu, so it is cut short or damaged; take "
            "another copy, or start anew",
            where, n, (unsigned long long)h->bytes);
    if (h->bytes != saved_bytes(s, h->length))
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot load session (%s): %zu bytes where its %u tokens take %llu: another version of gyre "
                         "kept other positions of layers with a window; start anew with its text as the prompt",
                         where, n, h->length, (unsigned long long)saved_bytes(s, h->length));
    return GYRE_OK;
}

static gyre_status restore(gyre_session *s, const void *bytes, size_t n, const char *where, gyre_error *err)
{
    const unsigned char *in = bytes;
    struct header h;
    const gyre_engine *e = s->engine;
    s->length = 0;
    s->has_pending = false;
    gyre_kv_trim(&s->engine->kv, s->slot, 0);
    gyre_engine_forget_logits(s->engine, s->slot);
    s->ahead = (struct gyre_ahead){0};
    if (n < sizeof h || memcmp(in, magic, sizeof magic) != 0)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot load session (%s): this is no saved session", where);
    memcpy(&h, in, sizeof h);
    GYRE_TRY(check(s, &h, n, where, err));
    memcpy(s->tokens, in + sizeof h, (size_t)h.length * sizeof *s->tokens);
    for (uint32_t i = 0; i <= h.length; i++) {
        if (i == h.length && !h.has_pending) break;
        const uint32_t token = i < h.length ? s->tokens[i] : h.pending;
        if (token >= e->model.hp.vocab)
            return gyre_fail(err, GYRE_E_FORMAT, "cannot load session (%s): token %u is outside the vocabulary of %u",
                             where, token, e->model.hp.vocab);
    }
    gyre_status st = gyre_kv_reserve(&s->engine->kv, s->slot, h.length, err);
    if (st == GYRE_OK) {
        gyre_kv_want(&s->engine->kv, s->slot, h.length, 0);
        st = gyre_kv_enter(&s->engine->kv, err);
    }
    if (st == GYRE_OK) st = move(s, h.length, NULL, in + sizeof h + (size_t)h.length * 4, err);
    if (st != GYRE_OK) {
        gyre_kv_trim(&s->engine->kv, s->slot, 0);
        return st;
    }
    s->length = h.length;
    s->has_pending = h.has_pending != 0;
    s->pending = h.pending;
    return GYRE_OK;
}

gyre_status gyre_session_restore(gyre_session *s, const void *bytes, size_t n, gyre_error *err)
{
    return restore(s, bytes, n, "memory", err);
}

gyre_status gyre_session_save(const gyre_session *s, const char *path, gyre_error *err)
{
    void *bytes = NULL;
    size_t n;
    GYRE_TRY(gyre_session_store(s, &bytes, &n, err));
    const gyre_status st = gyre_file_write(path, bytes, n, err);
    free(bytes);
    return st;
}

gyre_status gyre_session_load(gyre_session *s, const char *path, gyre_error *err)
{
    struct gyre_file_map map = {0};
    GYRE_TRY(gyre_file_map(path, &map, err));
    const gyre_status st = restore(s, map.data, map.size, path, err);
    gyre_file_unmap(&map);
    return st;
}
