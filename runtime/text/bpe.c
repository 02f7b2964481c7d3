// The merge loop of BPE: symbols in linked lists, candidate pairs in a binary heap ordered by rank, then position. A
// candidate is stale when either of its symbols has changed since; symbols only grow, so comparing both tokens
// suffices. A word is cut into lists where no merge of the table could join what stands on both sides, so that the heap
// stays small however long a word is: O(n log n) in the longest list.
#include "runtime/text/tokenizer_impl.h"
#include "runtime/util/array.h"
#include "runtime/util/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct bpe_symbol {
    uint32_t token, previous, next;
}; // indices; NO_TOKEN at the ends of a list, and as token of a dead symbol
struct bpe_candidate {
    uint32_t rank, at, left, right, token;
};

// ---- the table ----------------------------------------------------------------------------------------

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
    *table = (struct merge_table){.slots = malloc(size * sizeof *table->slots), .mask = size - 1};
    if (!table->slots) return false;
    for (uint64_t i = 0; i < size; i++) table->slots[i].left = NO_TOKEN;
    return true;
}

void gyre_merges_put(struct merge_table *table, struct merge merge)
{
    struct merge *slot = &table->slots[slot_of(table, merge.left, merge.right)];
    table->n += slot->left == NO_TOKEN;
    *slot = merge;
}

const struct merge *gyre_merges_get(const struct merge_table *table, uint32_t left, uint32_t right)
{
    const struct merge *m = &table->slots[slot_of(table, left, right)];
    return m->left == NO_TOKEN ? NULL : m;
}

void gyre_merges_join(struct merge_table *table, unsigned char last, unsigned char first)
{
    table->joins[last][first >> 6] |= 1ull << (first & 63);
}

void gyre_merges_join_all(struct merge_table *table) { memset(table->joins, 0xFF, sizeof table->joins); }

// ---- memory -------------------------------------------------------------------------------------------

void gyre_bpe_free(struct bpe_work *work)
{
    free(work->symbols);
    free(work->heap);
}

bool gyre_bpe_emit(struct bpe_work *work, uint32_t token)
{
    if (!GYRE_ROOM(work->out, work->n_out + 1, work->cap_out)) return false;
    work->out[work->n_out++] = token;
    return true;
}

// ---- first symbols ------------------------------------------------------------------------------------

// Symbols as they are found. `last`: the text's byte right before the next one; unknown text that waits is put when
// other text follows it, or the word ends.
struct beginning {
    const gyre_tokenizer *t;
    struct bpe_symbol *symbols;
    uint32_t n;
    unsigned char last;
    bool unknown_waits;
};

static void add_symbol(struct beginning *b, uint32_t token, unsigned char first, unsigned char last)
{
    const bool joined = b->n && b->t->merges.joins[b->last][first >> 6] >> (first & 63) & 1;
    b->symbols[b->n] = (struct bpe_symbol){token, joined ? b->n - 1 : NO_TOKEN, NO_TOKEN};
    if (joined) b->symbols[b->n - 1].next = b->n;
    b->n++;
    b->last = last;
}

static void put_unknown(struct beginning *b, unsigned char first, unsigned char last)
{
    if (b->unknown_waits) add_symbol(b, b->t->unknown, first, last);
    b->unknown_waits = false;
}

static void add_unknown(struct beginning *b, unsigned char first, unsigned char last)
{
    if (b->t->unknown == NO_TOKEN) return;
    if (!b->t->fuse_unknown) put_unknown(b, first, last);
    b->unknown_waits = true;
}

static uint32_t char_token(const gyre_tokenizer *t, const char *text, int bytes, uint32_t code)
{
    uint32_t token = NO_TOKEN;
    if (code < CHAR_TOKENS) return t->char_token[code];
    return gyre_strmap_get(&t->vocab, text, (uint32_t)bytes, &token) && t->modelled[token] ? token : NO_TOKEN;
}

// The bytes' own tokens, if all have one.
static bool add_bytes(struct beginning *b, const char *text, int bytes)
{
    for (int i = 0; i < bytes; i++)
        if (b->t->byte_token[(unsigned char)text[i]] == NO_TOKEN) return false;
    for (int i = 0; i < bytes; i++) {
        const unsigned char byte = (unsigned char)text[i];
        add_symbol(b, b->t->byte_token[byte], byte, byte);
    }
    return true;
}

static void begin_characters(struct beginning *b, const char *word, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes;) {
        uint32_t code;
        int k = gyre_utf8_look(word + i, bytes - i, &code);
        const bool valid = k > 0;
        if (!valid) k = 1;
        const unsigned char first = (unsigned char)word[i], last = (unsigned char)word[i + (uint64_t)k - 1];
        uint32_t token = valid ? char_token(b->t, word + i, k, code) : NO_TOKEN;
        if (token == NO_TOKEN && valid && b->t->lone_characters) token = LONE_CHARACTER | code;
        if (token != NO_TOKEN) {
            put_unknown(b, first, last);
            add_symbol(b, token, first, last);
        } else if (!b->t->byte_fallback || !add_bytes(b, word + i, k)) {
            add_unknown(b, first, last);
        }
        i += (uint64_t)k;
    }
    put_unknown(b, b->last, b->last);
}

static void begin_bytes(struct beginning *b, const char *word, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++) {
        const unsigned char byte = (unsigned char)word[i];
        const uint32_t token = b->t->byte_token[byte];
        if (token == NO_TOKEN) {
            add_unknown(b, byte, byte);
            continue;
        }
        put_unknown(b, byte, byte);
        add_symbol(b, token, byte, byte);
    }
    put_unknown(b, b->last, b->last);
}

// ---- merging ------------------------------------------------------------------------------------------

static bool before(const struct bpe_candidate *a, const struct bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

// Enters the pair that begins at symbol `at` if it can merge. The heap has room (see merge_list).
static void push(const gyre_tokenizer *tokenizer, struct bpe_work *work, uint32_t at)
{
    const struct bpe_symbol *s = &work->symbols[at];
    if (at == NO_TOKEN || s->next == NO_TOKEN) return;
    const struct merge *m = gyre_merges_get(&tokenizer->merges, s->token, work->symbols[s->next].token);
    if (!m) return;
    const struct bpe_candidate c = {m->rank, at, m->left, m->right, m->token};
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

// Merges the list of symbols [begin, end); false: out of memory.
static bool merge_list(const gyre_tokenizer *tokenizer, struct bpe_work *work, uint32_t begin, uint32_t end)
{
    struct bpe_symbol *symbols = work->symbols;
    // Every pair is entered once, and every merge (fewer than symbols) enters at most two more.
    if (!GYRE_ROOM(work->heap, 3 * (size_t)(end - begin), work->cap_heap)) return false;
    work->n_heap = 0;
    for (uint32_t i = begin; i < end; i++) push(tokenizer, work, i);
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
    return true;
}

// A character that found no token: the tokens of its bytes, or the unknown one.
static bool emit_lone(const gyre_tokenizer *t, struct bpe_work *work, uint32_t code)
{
    utf8proc_uint8_t text[4];
    const utf8proc_ssize_t n = utf8proc_encode_char((utf8proc_int32_t)code, text);
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        const uint32_t token = t->byte_fallback ? t->byte_token[text[i]] : NO_TOKEN;
        if (token == NO_TOKEN) return t->unknown == NO_TOKEN || gyre_bpe_emit(work, t->unknown);
        if (!gyre_bpe_emit(work, token)) return false;
    }
    return true;
}

static bool emit_symbol(const gyre_tokenizer *t, struct bpe_work *work, uint32_t token)
{
    if (token == NO_TOKEN) return true; // dead
    return token & LONE_CHARACTER ? emit_lone(t, work, token & ~LONE_CHARACTER) : gyre_bpe_emit(work, token);
}

bool gyre_bpe_word(const gyre_tokenizer *tokenizer, struct bpe_work *work, const char *word, uint64_t bytes)
{
    if (!GYRE_ROOM(work->symbols, bytes + 1, work->cap_symbols)) return false;
    struct beginning b = {.t = tokenizer, .symbols = work->symbols};
    if (tokenizer->characters) begin_characters(&b, word, bytes);
    else begin_bytes(&b, word, bytes);
    for (uint32_t begin = 0, end; begin < b.n; begin = end) {
        for (end = begin + 1; end < b.n && work->symbols[end].previous != NO_TOKEN; end++) {
        }
        if (end - begin > 1 && !merge_list(tokenizer, work, begin, end)) return false;
        for (uint32_t i = begin; i < end; i++)
            if (!emit_symbol(tokenizer, work, work->symbols[i].token)) return false;
    }
    return true;
}
