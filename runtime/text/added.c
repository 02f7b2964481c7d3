// Finds added tokens in a text: leftmost, then longest, with the blanks and word borders that a token may ask for.
// The rules are those of the `tokenizers` library (added_vocabulary).
#include "runtime/text/tokenizer_impl.h"
#include "runtime/util/utf8.h"

#include <stdlib.h>
#include <utf8proc.h>

bool gyre_added_init(struct added_set *set, const struct added_token *tokens, uint32_t n, bool normalized)
{
    uint32_t counts[256] = {0};
    *set = (struct added_set){.tokens = tokens};
    for (uint32_t i = 0; i < n; i++)
        if (tokens[i].normalized == normalized) counts[(unsigned char)tokens[i].text.data[0]]++;
    for (int b = 0; b < 256; b++) set->start[b + 1] = set->start[b] + counts[b];
    set->lengths = calloc(set->start[256] + 1, sizeof *set->lengths);
    if (!set->lengths) return false;
    for (uint32_t i = 0; i < n; i++) {
        const struct gyre_string text = tokens[i].text;
        if (tokens[i].normalized != normalized) continue;
        uint32_t *value = gyre_strmap_add(&set->index, text.data, (uint32_t)text.length, i, NULL);
        if (!value) return false;
        *value = i;
        // Insertion into the list of this first byte, longest first, equal lengths once (zeros at the end).
        const unsigned char b = (unsigned char)text.data[0];
        uint32_t carry = (uint32_t)text.length;
        for (uint32_t k = set->start[b]; k < set->start[b + 1] && carry && set->lengths[k] != carry; k++) {
            if (set->lengths[k] > carry) continue;
            const uint32_t moved = set->lengths[k];
            set->lengths[k] = carry;
            carry = moved;
        }
    }
    return true;
}

void gyre_added_free(struct added_set *set)
{
    free(set->lengths);
    gyre_strmap_free(&set->index);
}

// Unicode's White_Space.
static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
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

// The bounds that a token's flags give a match of [begin, end); false where it has no word borders but needs them.
static bool adjust(const struct added_token *token, const char *text, uint64_t bytes, uint64_t from,
                   struct added_match *m)
{
    uint32_t n, code;
    if (token->single_word) {
        if (m->begin && is_word(gyre_utf8_last(text, m->begin, &n)) && n) return false;
        if (m->end < bytes && gyre_utf8_look(text + m->end, bytes - m->end, &code) > 0 && is_word(code)) return false;
    }
    while (token->lstrip && m->begin > from && is_space(gyre_utf8_last(text, m->begin, &n)) && n &&
           n <= m->begin - from)
        m->begin -= n;
    for (int k; token->rstrip && m->end < bytes && (k = gyre_utf8_look(text + m->end, bytes - m->end, &code)) > 0 &&
                is_space(code);)
        m->end += (uint64_t)k;
    return true;
}

bool gyre_added_find(const struct added_set *set, const char *text, uint64_t bytes, uint64_t from, bool special,
                     struct added_match *out)
{
    for (uint64_t at = from; at < bytes; at++) {
        const unsigned char b = (unsigned char)text[at];
        for (uint32_t k = set->start[b]; k < set->start[b + 1] && set->lengths[k]; k++) {
            uint32_t index;
            const uint32_t length = set->lengths[k];
            if (length > bytes - at || !gyre_strmap_get(&set->index, text + at, length, &index)) continue;
            const struct added_token *token = &set->tokens[index];
            *out = (struct added_match){at, at + length, token->id};
            if ((special || !token->special) && adjust(token, text, bytes, from, out)) return true;
            at += length - 1; // as the library does: what was passed over is not searched again
            break;
        }
    }
    return false;
}
