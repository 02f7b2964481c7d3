// The merge loop of byte-level BPE: symbols in a linked list, candidate pairs in a binary heap ordered by rank, then
// position. A candidate is stale when either of its symbols has changed since; symbols only grow, so comparing both
// tokens suffices. O(n log n) in the word's length.
#include "runtime/text/tokenizer_impl.h"

#include <stdlib.h>

struct bpe_symbol {
    uint32_t token, previous, next;
}; // indices; NO_TOKEN at the ends, and as token of a dead symbol
struct bpe_candidate {
    uint32_t rank, at, left, right, token;
};

static uint64_t slot_of(const struct merge_table *table, uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    uint64_t i = (h ^ h >> 32) & table->mask;
    while (table->slots[i].left != NO_TOKEN && (table->slots[i].left != left || table->slots[i].right != right))
        i = (i + 1) & table->mask;
    return i;
}

bool gyre_merges_init(struct merge_table *table, uint64_t n)
{
    uint64_t size = 64;
    while (size < 2 * n) size *= 2;
    table->slots = malloc(size * sizeof *table->slots);
    if (!table->slots) return false;
    for (uint64_t i = 0; i < size; i++) table->slots[i].left = NO_TOKEN;
    table->mask = size - 1;
    return true;
}

void gyre_merges_put(struct merge_table *table, struct merge merge)
{
    table->slots[slot_of(table, merge.left, merge.right)] = merge;
}

// An array with room for `n`, or NULL: out of memory, and the old one stays.
static void *reserve(void *array, uint64_t n, uint64_t *cap, size_t size)
{
    if (n <= *cap) return array;
    const uint64_t larger = n < 128 ? 256 : 2 * n;
    void *moved = realloc(array, larger * size);
    if (moved) *cap = larger;
    return moved;
}

void gyre_bpe_free(struct bpe_work *work)
{
    free(work->symbols);
    free(work->heap);
}

bool gyre_bpe_emit(struct bpe_work *work, uint32_t token)
{
    uint32_t *out = reserve(work->out, work->n_out + 1, &work->cap_out, sizeof *out);
    if (!out) return false;
    work->out = out;
    out[work->n_out++] = token;
    return true;
}

static bool before(const struct bpe_candidate *a, const struct bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

// Enters the pair that begins at symbol `at` if it can merge. The heap has room (see gyre_bpe_word).
static void push(const gyre_tokenizer *tokenizer, struct bpe_work *work, uint32_t at)
{
    const struct bpe_symbol *s = &work->symbols[at];
    if (at == NO_TOKEN || s->next == NO_TOKEN) return;
    const uint32_t right = work->symbols[s->next].token;
    const struct merge *m = &tokenizer->merges.slots[slot_of(&tokenizer->merges, s->token, right)];
    if (m->left == NO_TOKEN) return;
    const struct bpe_candidate c = {m->rank, at, s->token, right, m->token};
    uint64_t i = work->n_heap++;
    for (; i && before(&c, &work->heap[(i - 1) / 2]); i = (i - 1) / 2) work->heap[i] = work->heap[(i - 1) / 2];
    work->heap[i] = c;
}

static struct bpe_candidate pop(struct bpe_work *work)
{
    struct bpe_candidate *h = work->heap;
    const struct bpe_candidate top = h[0], last = h[--work->n_heap];
    uint64_t i = 0;
    for (uint64_t child = 1; child < work->n_heap; i = child, child = 2 * i + 1) {
        if (child + 1 < work->n_heap && before(&h[child + 1], &h[child])) child++;
        if (!before(&h[child], &last)) break;
        h[i] = h[child];
    }
    h[i] = last;
    return top;
}

// One symbol per byte that has a token; returns their number.
static uint32_t first_symbols(const gyre_tokenizer *tokenizer, struct bpe_work *work, const char *word, uint64_t bytes)
{
    uint32_t n = 0;
    for (uint64_t i = 0; i < bytes; i++) {
        uint32_t token = tokenizer->byte_token[(unsigned char)word[i]];
        if (token == NO_TOKEN) {
            token = tokenizer->unknown;
            if (token == NO_TOKEN || (tokenizer->fuse_unknown && n && work->symbols[n - 1].token == token)) continue;
        }
        work->symbols[n] = (struct bpe_symbol){token, n ? n - 1 : NO_TOKEN, n + 1};
        n++;
    }
    if (n) work->symbols[n - 1].next = NO_TOKEN;
    return n;
}

bool gyre_bpe_word(const gyre_tokenizer *tokenizer, struct bpe_work *work, const char *word, uint64_t bytes)
{
    struct bpe_symbol *symbols = reserve(work->symbols, bytes, &work->cap_symbols, sizeof *symbols);
    if (!symbols) return false;
    work->symbols = symbols;
    // Every pair is entered once, and every merge (fewer than bytes) enters at most two more.
    struct bpe_candidate *heap = reserve(work->heap, 3 * bytes, &work->cap_heap, sizeof *heap);
    if (!heap) return false;
    work->heap = heap;
    work->n_heap = 0;
    const uint32_t n = first_symbols(tokenizer, work, word, bytes);
    for (uint32_t i = 0; i < n; i++) push(tokenizer, work, i);
    while (work->n_heap) {
        const struct bpe_candidate c = pop(work);
        struct bpe_symbol *left = &symbols[c.at];
        if (left->token != c.left || left->next == NO_TOKEN || symbols[left->next].token != c.right) continue;
        struct bpe_symbol *right = &symbols[left->next];
        left->token = c.token;
        left->next = right->next;
        right->token = NO_TOKEN;
        if (left->next != NO_TOKEN) symbols[left->next].previous = c.at;
        if (left->previous != NO_TOKEN) push(tokenizer, work, left->previous);
        push(tokenizer, work, c.at);
    }
    for (uint32_t i = n ? 0 : NO_TOKEN; i != NO_TOKEN; i = symbols[i].next)
        if (!gyre_bpe_emit(work, symbols[i].token)) return false;
    return true;
}
