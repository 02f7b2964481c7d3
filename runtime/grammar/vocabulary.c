// See vocabulary.h.
#include "runtime/grammar/vocabulary.h"

#include "runtime/grammar/dfa.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/array.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 4096 }; // bytes of a token; longer ones are never proposed

struct piece {
    const char *bytes;
    uint32_t n, token;
};

static int by_bytes(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    const int order = memcmp(x->bytes, y->bytes, GYRE_MIN(x->n, y->n));
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

// From pieces in order.
static bool make_trie(struct gyre_trie *t, const struct piece *piece, uint32_t n)
{
    size_t cap = 0;
    uint32_t open[DEEPEST] = {0}, depth = 0; // open[d]: the node at depth d + 1 that is being filled
    t->token = malloc((n + 1) * sizeof *t->token);
    if (!t->token) return false;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t same = 0;
        if (i)
            while (same < depth && same < piece[i].n && piece[i].bytes[same] == piece[i - 1].bytes[same]) same++;
        for (; depth > same; depth--) t->node[open[depth - 1]].skip = t->n - open[depth - 1];
        for (; depth < piece[i].n; depth++) {
            if (!GYRE_ROOM(t->node, t->n + 1u, cap)) return false;
            t->node[t->n] = (struct gyre_trie_node){0, i, (uint16_t)(depth + 1), 0, (uint8_t)piece[i].bytes[depth]};
            open[depth] = t->n++;
        }
        struct gyre_trie_node *at = &t->node[open[depth - 1]];
        if (at->tokens++ == 0) at->first = i;
        t->token[i] = piece[i].token;
        t->deepest = (uint16_t)GYRE_MAX(t->deepest, depth);
    }
    for (; depth > 0; depth--) t->node[open[depth - 1]].skip = t->n - open[depth - 1];
    return true;
}

static bool fill(struct gyre_vocabulary *v, struct piece *plain, struct piece *other)
{
    uint32_t n_plain = 0, n_other = 0;
    for (uint32_t k = 0; k <= GYRE_PLAIN_MOST; k++)
        if (!(v->plain_mask[k] = calloc(v->words, sizeof *v->plain_mask[k]))) return false;
    for (uint32_t token = 0; token < v->size; token++) {
        uint32_t n = 0;
        const char *bytes = gyre_tokenizer_bytes(v->tokenizer, token, &n);
        if (gyre_tokenizer_is_end(v->tokenizer, token)) {
            v->end[v->n_end++] = token;
        } else if (gyre_tokenizer_is_special(v->tokenizer, token)) {
            v->control[v->n_control++] = token;
        } else if (bytes && n && n < DEEPEST) {
            const uint32_t characters = gyre_dfa_plain(bytes, n);
            if (!characters) {
                other[n_other++] = (struct piece){bytes, n, token};
                continue;
            }
            plain[n_plain++] = (struct piece){bytes, n, token};
            for (uint32_t k = characters; k < GYRE_PLAIN_MOST; k++) v->plain_mask[k][token / 32] |= 1u << token % 32;
            v->plain_mask[GYRE_PLAIN_MOST][token / 32] |= 1u << token % 32;
            if (characters >= GYRE_PLAIN_MOST) v->longer[v->n_longer++] = (struct gyre_long_token){token, characters};
        }
    }
    qsort(plain, n_plain, sizeof *plain, by_bytes);
    qsort(other, n_other, sizeof *other, by_bytes);
    return make_trie(&v->plain, plain, n_plain) && make_trie(&v->other, other, n_other);
}

gyre_status gyre_vocabulary_create(const gyre_tokenizer *tokenizer, gyre_vocabulary **out, gyre_error *err)
{
    struct gyre_vocabulary *v = *out = calloc(1, sizeof *v);
    const uint32_t n = gyre_tokenizer_vocab(tokenizer);
    struct piece *plain = malloc((n + 1) * sizeof *plain), *other = malloc((n + 1) * sizeof *other);
    bool done = false;
    if (v && plain && other) {
        *v = (struct gyre_vocabulary){.tokenizer = tokenizer, .size = n, .words = (n + 31) / 32};
        v->longer = malloc((n + 1) * sizeof *v->longer);
        v->control = malloc((n + 1) * sizeof *v->control);
        v->end = malloc((n + 1) * sizeof *v->end);
        done = v->longer && v->control && v->end && fill(v, plain, other);
    }
    free(plain);
    free(other);
    if (done) return GYRE_OK;
    gyre_vocabulary_destroy(v);
    *out = NULL;
    return gyre_fail(err, GYRE_E_NOMEM, "cannot sort the vocabulary (%u tokens): out of memory", n);
}

void gyre_vocabulary_destroy(gyre_vocabulary *v)
{
    if (!v) return;
    for (uint32_t k = 0; k <= GYRE_PLAIN_MOST; k++) free(v->plain_mask[k]);
    free(v->plain.node);
    free(v->plain.token);
    free(v->other.node);
    free(v->other.token);
    free(v->longer);
    free(v->control);
    free(v->end);
    free(v);
}
