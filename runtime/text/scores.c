// Merges that a file does not list: SentencePiece's BPE joins whichever two symbols make the token of the highest
// score, tiktoken's those that make the token of the lowest rank. So every way to make a token of two others is a
// merge, with the rank of what it makes; equal ranks go from left to right in both. A token may be made of characters
// that are no tokens themselves, in which case they are LONE_CHARACTERs.
#include "runtime/text/tokenizer_impl.h"

#include "runtime/util/array.h"
#include "runtime/util/base.h"
#include "runtime/util/utf8.h"

#include <stdlib.h>
#include <string.h>

// All ways to cut all tokens in two are looked up, each at the cost of its length: what an honest vocabulary needs is
// thousands of times less.
enum { MAX_TOKEN_BYTES = 65536 };
static const uint64_t max_work = 1ull << 31;

struct list {
    const gyre_tokenizer *t;
    struct merge *merges;
    size_t n, cap;
};

struct scored {
    double score;
    uint32_t token;
};

static int by_score(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

// The symbol that a text can be: a token that may be made from plain text, or one character.
static bool symbol_of(const gyre_tokenizer *t, const char *text, uint64_t bytes, uint32_t *out)
{
    uint32_t code;
    if (gyre_strmap_get(&t->vocab, text, (uint32_t)bytes, out) && t->kinds[*out] != TOKEN_SPECIAL) return true;
    if (!t->lone_characters || gyre_utf8_look(text, bytes, &code) != (int)bytes) return false;
    *out = LONE_CHARACTER | code;
    return true;
}

static bool put(struct list *list, struct merge merge)
{
    if (!GYRE_ROOM(list->merges, list->n + 1, list->cap)) return false;
    list->merges[list->n++] = merge;
    return true;
}

// Every way to make one token.
static bool add_ways(struct list *list, uint32_t token, uint32_t rank)
{
    const struct gyre_string name = list->t->names[token];
    uint32_t code;
    int k;
    for (uint64_t cut = 0; (k = gyre_utf8_look(name.data + cut, name.length - cut, &code)) > 0;) {
        struct merge m = {.rank = rank, .token = token};
        cut += (uint64_t)k;
        if (cut == name.length) break;
        if (!symbol_of(list->t, name.data, cut, &m.left)) continue;
        if (!symbol_of(list->t, name.data + cut, name.length - cut, &m.right)) continue;
        if (!put(list, m)) return false;
    }
    return true;
}

gyre_status gyre_merges_of_scores(const gyre_tokenizer *t, const double *scores, struct merge **out, uint64_t *n,
                                  const char *where, gyre_error *err)
{
    struct list list = {.t = t};
    struct scored *order = malloc((t->n_tokens + 1ull) * sizeof *order);
    uint64_t work = 0, used = 0;
    uint32_t rank = 0;
    bool good = order != NULL;
    *out = NULL;
    *n = 0;
    for (uint32_t i = 0; i < t->n_tokens && good; i++) {
        const uint64_t length = t->names[i].length;
        if (t->kinds[i] == TOKEN_SPECIAL || length < 2) continue;
        work += length * length;
        if (length > MAX_TOKEN_BYTES || work > max_work || scores[i] != scores[i]) {
            free(order);
            if (scores[i] != scores[i])
                return gyre_fail(err, GYRE_E_FORMAT, "cannot use tokenizer (%s): the score of token %u is no number",
                                 where, i);
            return gyre_fail(err, GYRE_E_UNSUPPORTED,
                             "cannot use tokenizer (%s): its tokens are too long to be merged by scores", where);
        }
        order[used++] = (struct scored){scores[i], i};
    }
    if (good) qsort(order, used, sizeof *order, by_score);
    for (uint64_t i = 0; i < used && good; i++) {
        rank += i && order[i].score != order[i - 1].score;
        good = add_ways(&list, order[i].token, rank);
    }
    free(order);
    if (!good) {
        free(list.merges);
        return gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer (%s): out of memory", where);
    }
    *out = list.merges;
    *n = list.n;
    return GYRE_OK;
}
