// Finds added tokens in a text: leftmost, then longest, with the blanks and word borders that a token may ask for.
// The rules are those of the `tokenizers` library (added_vocabulary). The tokens are sorted, and a search narrows their
// range byte by byte, so that it costs the length of the match whatever their number.
#include "runtime/text/tokenizer_impl.h"

#include "runtime/util/base.h"
#include "runtime/util/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct sorted {
    struct gyre_string text;
    uint32_t index;
};

static int by_text(const void *a, const void *b)
{
    const struct sorted *x = a, *y = b;
    const int order = memcmp(x->text.data, y->text.data, GYRE_MIN(x->text.length, y->text.length));
    if (order) return order;
    if (x->text.length != y->text.length) return x->text.length < y->text.length ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

bool gyre_added_init(struct added_set *set, const struct added_token *tokens, uint32_t n, bool normalized)
{
    uint32_t used = 0;
    *set = (struct added_set){.tokens = tokens, .order = malloc((n + 1ull) * sizeof *set->order)};
    struct sorted *list = malloc((n + 1ull) * sizeof *list);
    if (!list || !set->order) {
        free(list);
        return false;
    }
    for (uint32_t i = 0; i < n; i++)
        if (tokens[i].normalized == normalized) list[used++] = (struct sorted){tokens[i].text, i};
    qsort(list, used, sizeof *list, by_text);
    for (uint32_t i = 0; i < used; i++) {
        set->order[i] = list[i].index;
        set->start[(unsigned char)list[i].text.data[0] + 1]++;
    }
    for (int b = 0; b < 256; b++) set->start[b + 1] += set->start[b];
    free(list);
    return true;
}

void gyre_added_free(struct added_set *set)
{
    free(set->order);
    set->order = NULL;
}

// A character of \w (UTS 18): letters, marks, decimal digits, letter numbers, connectors, joiners.
static bool is_word(uint32_t c)
{
    if (c == 0x200C || c == 0x200D) return true;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

// The bounds that a token's flags give a match of [begin, end) after another; false where it has no word borders but
// needs them.
static bool adjust(const struct added_token *token, const char *text, uint64_t bytes, const struct added_match *before,
                   struct added_match *m)
{
    uint32_t n, code;
    if (token->single_word) {
        if (m->begin && is_word(gyre_utf8_last(text, m->begin, &n)) && n) return false;
        if (m->end < bytes && gyre_utf8_look(text + m->end, bytes - m->end, &code) > 0 && is_word(code)) return false;
    }
    while (token->lstrip && m->begin > before->end && gyre_is_blank(gyre_utf8_last(text, m->begin, &n)) && n &&
           n <= m->begin - before->end)
        m->begin -= n;
    if (token->lstrip) m->begin = GYRE_MAX(m->begin, before->end);   // those are the one's before
    if (token->rstrip && m->end < before->end) m->end = before->end; // blanks that were looked at already
    for (int k; token->rstrip && m->end < bytes && (k = gyre_utf8_look(text + m->end, bytes - m->end, &code)) > 0 &&
                gyre_is_blank(code);)
        m->end += (uint64_t)k;
    return true;
}

// The first of the tokens order[begin] .. order[end-1], which agree in `depth` bytes, whose next byte is not below c.
static uint32_t first_from(const struct added_set *set, uint32_t begin, uint32_t end, uint64_t depth, unsigned c)
{
    while (begin < end) {
        const uint32_t middle = begin + (end - begin) / 2;
        const struct gyre_string text = set->tokens[set->order[middle]].text;
        if (text.length > depth && (unsigned char)text.data[depth] >= c) end = middle;
        else begin = middle + 1;
    }
    return begin;
}

// The longest token that the text begins with, as an index into `tokens`; NO_TOKEN where there is none.
static uint32_t longest(const struct added_set *set, const char *text, uint64_t bytes)
{
    const unsigned char first = (unsigned char)text[0];
    uint32_t begin = set->start[first], end = set->start[first + 1], best = NO_TOKEN;
    for (uint64_t depth = 1; begin < end; depth++) {
        if (set->tokens[set->order[begin]].text.length == depth) best = set->order[begin];
        if (depth == bytes) break;
        const unsigned c = (unsigned char)text[depth];
        begin = first_from(set, begin, end, depth, c);
        end = first_from(set, begin, end, depth, c + 1);
    }
    return best;
}

// How many bytes at text[at], of `most`, have the mark of the first of them.
static uint64_t run_of(const uint8_t *plain, uint64_t at, uint64_t most)
{
    uint64_t end = at + 1;
    while (end < at + most && (plain[end] != 0) == (plain[at] != 0)) end++;
    return end - at;
}

bool gyre_added_find(const struct added_set *set, const char *text, const uint8_t *plain, uint64_t bytes, bool special,
                     struct added_match *match)
{
    const struct added_match before = *match;
    for (uint64_t at = before.next; at < bytes; at++) {
        const unsigned char b = (unsigned char)text[at];
        if (set->start[b] == set->start[b + 1]) continue;
        uint32_t index = longest(set, text + at, bytes - at);
        if (index == NO_TOKEN) continue;
        // A special token of two origins is none: there may be a shorter one of the first.
        const uint64_t length = set->tokens[index].text.length;
        const uint64_t run = plain ? run_of(plain, at, length) : length;
        if (set->tokens[index].special && length > run) index = longest(set, text + at, run);
        if (index == NO_TOKEN) continue;
        const struct added_token *token = &set->tokens[index];
        *match = (struct added_match){at, at + token->text.length, at + token->text.length, token->id};
        const bool may = special && !(plain && plain[at]);
        if ((may || !token->special) && adjust(token, text, bytes, &before, match)) return true;
        at += token->text.length - 1; // as the library does: what was passed over is not searched again
    }
    return false;
}
