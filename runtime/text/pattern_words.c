// Patterns of tokenizer.json in PCRE2's words. They are written for Oniguruma with Ruby's syntax, which means other
// things by some of the same signs (its doc/RE):
//   ^ $          begin and end every line (PCRE2_MULTILINE says so), and (?m) lets a dot match line ends
//   \h \v        a hexadecimal digit, a vertical tab
//   \w \b        letters with marks, letter numbers, all connectors: PCRE2's have fewer
//   {2,3}+       two or three, and that again; only ?+ *+ ++ give nothing back
//   [a[bc]]      a class in a class; [a&&b] what both hold
//   \p{Han}      the script itself; to PCRE2 what other scripts share with it, too
// What gyre does not put into these words is refused by name.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "runtime/text/pattern.h"

#include "runtime/util/base.h"
#include "runtime/util/text.h"
#include "runtime/util/utf8.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define WORD                                                                                                           \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{"    \
    "1F189}"
#define LONE WORD "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}" // not in a class: Latin-1's numbers, too
#define HEX "0-9A-Fa-f"
#define BORDER(left, right) "(?:(?<=[" LONE "])(?" left "[" LONE "])|(?<![" LONE "])(?" right "[" LONE "]))"

enum { MAX_GROUPS = 64, MAX_CLASSES = 8, NONE = -1 };

struct text {
    char *data;
    size_t bytes, cap;
};

struct reader {
    const char *at; // 0 ends it
    struct text out;
    bool folds; // (?i) is on
    gyre_error *err;
};

static gyre_status put_bytes(struct reader *r, struct text *to, const char *data, size_t n)
{
    if (gyre_append(&to->data, &to->bytes, &to->cap, data, n)) return GYRE_OK;
    return gyre_fail(r->err, GYRE_E_NOMEM, "cannot use tokenizer: out of memory");
}

static gyre_status put(struct reader *r, struct text *to, const char *words)
{
    return put_bytes(r, to, words, strlen(words));
}

static gyre_status put_text(struct reader *r, struct text *to, const struct text *from)
{
    return from->bytes ? put_bytes(r, to, from->data, from->bytes) : GYRE_OK;
}

static gyre_status refuse(const struct reader *r, const char *from, size_t n)
{
    return gyre_fail(r->err, GYRE_E_UNSUPPORTED,
                     "cannot use tokenizer: its pattern has \"%s\", which gyre does not read", gyre_show(from, n).text);
}

// A character and what follows it in its UTF-8 form.
static size_t length_of(const char *p)
{
    uint32_t code;
    const int n = gyre_utf8_look(p, strlen(p), &code);
    return n > 0 ? (size_t)n : 1;
}

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

// ---- characters and properties ------------------------------------------------------------------------

static bool is_script(const char *name, size_t n)
{
    int code;
    PCRE2_SIZE at;
    char text[64];
    const int length = snprintf(text, sizeof text, "\\p{sc:%.*s}", (int)n, name);
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)text, (PCRE2_SIZE)length, PCRE2_UTF, &code, &at, NULL);
    pcre2_code_free(compiled);
    return compiled != NULL;
}

// What (?i) means by one of these Oniguruma says by where it stands, PCRE2 by its version.
static bool is_of_case(const char *name, size_t n)
{
    static const char *const names[] = {"Lu", "Ll", "Lt", "Upper", "Lower", "Uppercase", "Lowercase"};
    for (size_t i = 0; i < GYRE_COUNT(names); i++)
        if (strlen(names[i]) == n && !strncasecmp(name, names[i], n)) return true;
    return false;
}

// \p{Name}, \p{^Name}, \P{Name}; r->at stands behind the p.
static gyre_status put_property(struct reader *r, struct text *to, char p)
{
    const char *const begin = r->at, *end = *begin == '{' ? strchr(begin, '}') : NULL;
    const char *name = begin + 1 + (begin[0] == '{' && begin[1] == '^');
    char words[80];
    if (!end || end == name || end - name > 40) return refuse(r, begin - 2, 2);
    if (r->folds && is_of_case(name, (size_t)(end - name)))
        return gyre_fail(r->err, GYRE_E_UNSUPPORTED,
                         "cannot use tokenizer: its pattern has \"%s\" where (?i) is on, which gyre does not read",
                         gyre_show(begin - 2, (size_t)(end + 3 - begin)).text);
    snprintf(words, sizeof words, "\\%c{%s%s%.*s}", p, name[-1] == '^' ? "^" : "",
             is_script(name, (size_t)(end - name)) ? "sc:" : "", (int)(end - name), name);
    r->at = end + 1;
    return put(r, to, words);
}

// \u00E9, \x{E9}, \x41; r->at stands behind the letter.
static gyre_status put_code(struct reader *r, struct text *to, char letter)
{
    const char *const begin = r->at - 2;
    const bool braces = letter == 'x' && *r->at == '{';
    const size_t most = braces ? 8 : letter == 'u' ? 4 : 2;
    char digits[16], words[32];
    size_t n = 0;
    for (r->at += braces; n < most && strchr("0123456789abcdefABCDEF", *r->at) && *r->at; r->at++) digits[n++] = *r->at;
    digits[n] = 0;
    // Two digits are a byte, of several perhaps that make a character.
    if (n == 0 || (braces && *r->at++ != '}') || (letter == 'u' && n < 4) || (!braces && n == 2 && digits[0] > '7'))
        return refuse(r, begin, (size_t)(r->at - begin));
    snprintf(words, sizeof words, "\\x{%s}", digits);
    return put(r, to, words);
}

// What stands for itself, in a class and outside of one; r->at stands behind the backslash. *done: it was that.
static gyre_status put_common(struct reader *r, struct text *to, bool *done)
{
    const char c = *r->at;
    const size_t n = length_of(r->at);
    *done = true;
    if (!c) return refuse(r, r->at - 1, 1);
    r->at += n;
    if (c == 'p' || c == 'P') return put_property(r, to, c);
    if (c == 'u' || c == 'x') return put_code(r, to, c);
    if (c == 'v') return put(r, to, "\\x0B");
    if (strchr("dDsSnrtfae", c)) return put_bytes(r, to, r->at - 2, 2);
    if (is_letter(c) || is_digit(c)) {
        r->at -= n;
        *done = false;
        return GYRE_OK;
    }
    return n > 1 ? put_bytes(r, to, r->at - n, n) : put_bytes(r, to, r->at - 2, 2);
}

// ---- classes ------------------------------------------------------------------------------------------

// One side of an && as it is read: what a class of PCRE2 can hold, and what stands beside it as alternatives.
struct part {
    struct text items, others;
    bool nested; // what was read last was a class in the class
};

static gyre_status end_part(struct reader *r, struct part *part, struct text *to)
{
    gyre_status st = GYRE_OK;
    if (!part->items.bytes && !part->others.bytes) return refuse(r, "&&", 2); // with nothing at a side
    GYRE_GO(put(r, to, "(?:"));
    if (part->items.bytes) {
        GYRE_GO(put(r, to, "["));
        GYRE_GO(put_text(r, to, &part->items));
        GYRE_GO(put(r, to, part->others.bytes ? "]|" : "]"));
    }
    GYRE_GO(put_text(r, to, &part->others));
    GYRE_GO(put(r, to, ")"));
done:
    free(part->items.data);
    free(part->others.data);
    *part = (struct part){0};
    return st;
}

static gyre_status put_other(struct reader *r, struct part *part, const struct text *other)
{
    if (part->others.bytes) GYRE_TRY(put(r, &part->others, "|"));
    return put_text(r, &part->others, other);
}

static gyre_status read_class(struct reader *r, int depth, struct text *items, struct text *whole);

static gyre_status read_item(struct reader *r, int depth, struct part *part)
{
    static const char not_word[] = "[^" WORD "]", not_hex[] = "[^" HEX "]";
    gyre_status st = GYRE_OK;
    const char c = *r->at;
    const bool nested = part->nested;
    bool done;
    part->nested = false;
    if (!c) return refuse(r, "[", 1);
    if (c == '[' && r->at[1] == ':') {
        if (strncmp(r->at, "[:space:]", 9) && strncmp(r->at, "[:digit:]", 9)) return refuse(r, r->at, 8);
        GYRE_TRY(put(r, &part->items, r->at[2] == 's' ? "\\s" : "\\d"));
        r->at += 9;
        return GYRE_OK;
    }
    if (c == '[') {
        struct text items = {0}, whole = {0};
        st = read_class(r, depth + 1, &items, &whole);
        if (st == GYRE_OK) st = whole.bytes ? put_other(r, part, &whole) : put_text(r, &part->items, &items);
        free(items.data);
        free(whole.data);
        part->nested = true;
        return st;
    }
    // Beside a class in a class Oniguruma takes a hyphen for itself, or for half a range of which it drops the other.
    if (c == '-' && (((part->items.bytes || part->others.bytes) && r->at[1] == '[') || (nested && r->at[1] != ']')))
        return refuse(r, r->at, 2);
    if (c == '-' && (part->items.bytes == 0 || strchr("[]&", r->at[1]))) return r->at++, put(r, &part->items, "\\-");
    if (c != '\\') {
        const size_t n = length_of(r->at);
        if (c == '^') GYRE_TRY(put(r, &part->items, "\\"));
        r->at += n;
        return put_bytes(r, &part->items, r->at - n, n);
    }
    r->at++;
    GYRE_TRY(put_common(r, &part->items, &done));
    if (done) return GYRE_OK;
    switch (*r->at++) {
    case 'h':
        return put(r, &part->items, HEX);
    case 'w':
        return put(r, &part->items, WORD);
    case 'b':
        return put(r, &part->items, "\\x08");
    case 'W':
        return put_other(r, part, &(struct text){.data = (char *)(uintptr_t)not_word, .bytes = sizeof not_word - 1});
    case 'H':
        return put_other(r, part, &(struct text){.data = (char *)(uintptr_t)not_hex, .bytes = sizeof not_hex - 1});
    default:
        return refuse(r, r->at - 2, 2);
    }
}

// A class, at its bracket. Gives what may stand in another class (*items), or, where that is not all of it, the class
// in other words (*whole).
static gyre_status read_class(struct reader *r, int depth, struct text *items, struct text *whole)
{
    gyre_status st = GYRE_OK;
    struct part part = {0};
    struct text sides = {0}; // of && before the one that is read, each as what must hold here, too
    const char *const begin = r->at++;
    const bool negated = *r->at == '^';
    if (depth >= MAX_CLASSES) return refuse(r, begin, 1);
    r->at += negated;
    if (*r->at == ']') {
        GYRE_GO(put(r, &part.items, "\\]"));
        r->at++;
    }
    while (*r->at != ']') {
        if (r->at[0] == '&' && r->at[1] == '&') {
            r->at += 2;
            GYRE_GO(put(r, &sides, "(?="));
            GYRE_GO(end_part(r, &part, &sides));
            GYRE_GO(put(r, &sides, ")"));
        } else {
            GYRE_GO(read_item(r, depth, &part));
        }
    }
    r->at++;
    if (!negated && !sides.bytes && !part.others.bytes) {
        GYRE_GO(put_text(r, items, &part.items));
        goto done;
    }
    if (negated && !sides.bytes && !part.others.bytes) {
        GYRE_GO(put(r, whole, "[^"));
        GYRE_GO(put_text(r, whole, &part.items));
        GYRE_GO(put(r, whole, "]"));
        goto done;
    }
    GYRE_GO(put(r, whole, negated ? "(?:(?!" : "(?:"));
    GYRE_GO(put_text(r, whole, &sides));
    GYRE_GO(end_part(r, &part, whole));
    GYRE_GO(put(r, whole, negated ? ")(?s:.))" : ")"));
done:
    free(part.items.data);
    free(part.others.data);
    free(sides.data);
    return st;
}

static gyre_status put_class(struct reader *r)
{
    struct text items = {0}, whole = {0};
    gyre_status st = GYRE_OK;
    GYRE_GO(read_class(r, 0, &items, &whole));
    if (whole.bytes) {
        GYRE_GO(put_text(r, &r->out, &whole));
    } else {
        GYRE_GO(put(r, &r->out, "["));
        GYRE_GO(put_text(r, &r->out, &items));
        GYRE_GO(put(r, &r->out, "]"));
    }
done:
    free(items.data);
    free(whole.data);
    return st;
}

// ---- the rest -----------------------------------------------------------------------------------------

static gyre_status put_escape(struct reader *r)
{
    bool done;
    r->at++;
    GYRE_TRY(put_common(r, &r->out, &done));
    if (done) return GYRE_OK;
    const char c = *r->at++;
    if (c == 'h') return put(r, &r->out, "[" HEX "]");
    if (c == 'H') return put(r, &r->out, "[^" HEX "]");
    if (c == 'w') return put(r, &r->out, "[" LONE "]");
    if (c == 'W') return put(r, &r->out, "[^" LONE "]");
    if (c == 'b') return put(r, &r->out, BORDER("!", "="));
    if (c == 'B') return put(r, &r->out, BORDER("=", "!"));
    if (strchr("RNAzZK", c)) return put_bytes(r, &r->out, r->at - 2, 2);
    return refuse(r, r->at - 2, 2);
}

// What opens a group, at its parenthesis; `first`: nothing stands before it in the one around it. *opened: it is one,
// and no option for the rest of the one around.
static gyre_status put_group(struct reader *r, bool first, bool *opened)
{
    static const char *const heads[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    const char *const begin = r->at;
    *opened = true;
    if (begin[1] != '?') return r->at++, put(r, &r->out, "(");
    for (size_t i = 0; i < GYRE_COUNT(heads); i++)
        if (!strncmp(begin, heads[i], strlen(heads[i]))) {
            r->at += strlen(heads[i]);
            return put(r, &r->out, heads[i]);
        }
    if (begin[2] == '<' && is_letter(begin[3]) && strchr(begin, '>')) { // a name; nothing refers to it
        r->at = strchr(begin, '>') + 1;
        return put(r, &r->out, "(");
    }
    r->at += 2;
    GYRE_TRY(put(r, &r->out, "(?"));
    for (bool on = true; *r->at == 'i' || *r->at == 'm' || *r->at == '-'; r->at++) {
        if (*r->at == '-') on = false;
        if (*r->at == 'i') r->folds = on;
        GYRE_TRY(put_bytes(r, &r->out, *r->at == 'm' ? "s" : r->at, 1));
    }
    // In the midst of a group it reaches over the alternatives behind it, which PCRE2 has no words for.
    *opened = *r->at == ':';
    if (!*opened && (*r->at != ')' || !first)) return refuse(r, begin, (size_t)(r->at - begin) + (*r->at != 0));
    return put_bytes(r, &r->out, r->at++, 1);
}

// {2}, {2,}, {,3}, {2,3} at the brace, after what began at out[atom].
static gyre_status put_interval(struct reader *r, int64_t atom)
{
    char words[32];
    unsigned bound[2] = {0, UINT32_MAX};
    const char *p = r->at + 1;
    bool said[2] = {false, false}, comma = false;
    for (; *p && (is_digit(*p) || (*p == ',' && !comma)); p++) {
        if (*p == ',') comma = true;
        else if (!said[comma]) bound[comma] = (unsigned)(*p - '0'), said[comma] = true;
        else bound[comma] = GYRE_MIN(bound[comma] * 10 + (unsigned)(*p - '0'), 100000u); // PCRE2 takes 65535
    }
    if (!comma) bound[1] = bound[0];
    const size_t n = *p == '}' && (said[0] || said[1]) ? (size_t)(p + 1 - r->at) : 0;
    if (!n || atom == NONE) return r->at++, put(r, &r->out, "\\{");
    const char *const begin = r->at;
    r->at += n;
    if (bound[1] < bound[0] || (!comma && *r->at == '?')) return refuse(r, begin, n + (*r->at != 0));
    if (bound[1] == UINT32_MAX) snprintf(words, sizeof words, "{%u,}", bound[0]);
    else snprintf(words, sizeof words, "{%u,%u}", bound[0], bound[1]);
    GYRE_TRY(put(r, &r->out, words));
    if (*r->at != '+') return GYRE_OK;
    r->at++;
    GYRE_TRY(put(r, &r->out, "(?:)+")); // makes room
    char *const from = r->out.data + atom;
    memmove(from + 3, from, r->out.bytes - (size_t)atom - 5);
    memcpy(from, "(?:", 3);
    memcpy(r->out.data + r->out.bytes - 2, ")+", 2);
    return GYRE_OK;
}

static gyre_status read_all(struct reader *r)
{
    size_t open[MAX_GROUPS], n_open = 0, first = 0; // where groups begin; where nothing of the innermost stands yet
    bool outer[MAX_GROUPS];                         // whether (?i) was on before them
    int64_t atom = NONE;
    while (*r->at) {
        const char c = *r->at;
        const size_t here = r->out.bytes, n = length_of(r->at);
        if (c == '(' && r->at[1] == '?' && r->at[2] == '#') {
            if (!strchr(r->at, ')')) return refuse(r, r->at, 3);
            r->at = strchr(r->at, ')') + 1;
        } else if (c == '(') {
            bool opened, folds = r->folds;
            if (n_open == MAX_GROUPS) return refuse(r, r->at, 1);
            GYRE_TRY(put_group(r, here == first, &opened));
            if (opened) {
                outer[n_open] = folds;
                open[n_open++] = here;
            }
            first = r->out.bytes;
            atom = NONE;
        } else if (c == ')') {
            if (n_open == 0) return refuse(r, r->at, 1);
            atom = (int64_t)open[--n_open];
            r->folds = outer[n_open];
            first = SIZE_MAX;
            r->at++;
            GYRE_TRY(put(r, &r->out, ")"));
        } else if (c == '{') {
            GYRE_TRY(put_interval(r, atom));
            if (atom == NONE) atom = (int64_t)here;
        } else if (c == '[') {
            GYRE_TRY(put_class(r));
            atom = (int64_t)here;
        } else if (c == '\\') {
            GYRE_TRY(put_escape(r));
            atom = (int64_t)here;
        } else {
            r->at += n;
            GYRE_TRY(put_bytes(r, &r->out, r->at - n, n));
            if (strchr("|^$", c)) atom = NONE;
            else if (!strchr("*+?", c)) atom = (int64_t)here;
        }
    }
    return GYRE_OK;
}

gyre_status gyre_pattern_words(const char *source, char **out, gyre_error *err)
{
    struct reader r = {.at = source, .err = err};
    gyre_status st = put(&r, &r.out, "");
    if (st == GYRE_OK) st = read_all(&r);
    if (st == GYRE_OK) *out = r.out.data;
    else free(r.out.data);
    return st;
}
