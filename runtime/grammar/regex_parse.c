// The patterns of JSON Schema as trees. See regex.h.
#include "runtime/grammar/regex.h"

#include "runtime/util/base.h"
#include "runtime/util/utf8.h"

#include <string.h>

enum { MAX_DEPTH = 50, MAX_RANGES = 200, MAX_REPEAT = 1000, MAX_BYTES = 4096 };

struct parser {
    struct gyre_re_maker *maker;
    const char *pattern, *at, *end;
    uint32_t depth;
    gyre_error *err;
    gyre_status st;
};

// Every failure of the parser goes through here; NULL, so that the caller can pass it on.
static const struct gyre_re *refuse(struct parser *p, const char *what)
{
    if (p->st != GYRE_OK) return NULL;
    const struct gyre_shown shown = gyre_show(p->pattern, (uint64_t)(p->end - p->pattern));
    p->st = gyre_fail(p->err, GYRE_E_UNSUPPORTED, "cannot use pattern (\"%s\", at byte %zu): %s; write it without",
                      shown.text, (size_t)(p->at - p->pattern), what);
    return NULL;
}

static bool next_is(const struct parser *p, const char *text)
{
    const size_t n = strlen(text);
    return (size_t)(p->end - p->at) >= n && memcmp(p->at, text, n) == 0;
}

static bool take(struct parser *p, const char *text)
{
    if (!next_is(p, text)) return false;
    p->at += strlen(text);
    return true;
}

static bool character(struct parser *p, uint32_t *code)
{
    const int n = p->at < p->end ? gyre_utf8_look(p->at, (uint64_t)(p->end - p->at), code) : 0;
    if (n <= 0) return refuse(p, "it ends too early"), false;
    p->at += n;
    return true;
}

// ---- classes --------------------------------------------------------------------------------------------------------

struct set {
    struct gyre_re_range range[MAX_RANGES];
    uint32_t n;
};

static bool put(struct parser *p, struct set *s, uint32_t first, uint32_t last)
{
    if (s->n == MAX_RANGES) return refuse(p, "a class of so many ranges is too large"), false;
    s->range[s->n++] = (struct gyre_re_range){first, last};
    return true;
}

// \d \w \s and their opposites. Python counts digits, letters and spaces of all scripts, ECMA some of them; in a class
// what both count, in a negated one what either does.
static bool named(struct parser *p, struct set *s, char name, bool negated)
{
    enum { REST = 0x80 };
    static const struct gyre_re_range digits[] = {{'0', '9'}}, others[] = {{0, '/'}, {':', 0x7F}},
                                      words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                                      no_words[] = {{0, '/'}, {':', '@'}, {'[', '^'}, {'`', '`'}, {'{', 0x7F}},
                                      spaces[] = {{'\t', '\r'}, {' ', ' '}},
                                      no_space[] = {{0, 8}, {14, 0x1F}, {'!', 0x7F}},
                                      any_space[] = {{'\t', '\r'},     {0x1C, ' '},      {0x85, 0x85},
                                                     {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
                                                     {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                                                     {0x3000, 0x3000}, {0xFEFF, 0xFEFF}},
                                      no_spaces[] = {{0, 8},           {14, 0x1B},       {'!', 0x84},
                                                     {0x86, 0x9F},     {0xA1, 0x167F},   {0x1681, 0x1FFF},
                                                     {0x200B, 0x2027}, {0x202A, 0x202E}, {0x2030, 0x205E},
                                                     {0x2060, 0x2FFF}, {0x3001, 0xFEFE}, {0xFF00, GYRE_RE_LAST}};
    static const struct {
        char name;
        bool negated, rest; // rest: and all that is not ASCII
        uint32_t n;
        const struct gyre_re_range *range;
    } table[] = {{'d', false, false, 1, digits},
                 {'d', true, true, 1, digits},
                 {'D', false, false, 2, others},
                 {'D', true, true, 2, others},
                 {'w', false, false, 4, words},
                 {'w', true, true, 4, words},
                 {'W', false, false, 5, no_words},
                 {'W', true, true, 5, no_words},
                 {'s', false, false, 2, spaces},
                 {'s', true, false, GYRE_COUNT(any_space), any_space},
                 {'S', false, false, GYRE_COUNT(no_spaces), no_spaces},
                 {'S', true, true, 3, no_space}};
    for (size_t i = 0; i < GYRE_COUNT(table); i++) {
        if (table[i].name != name || table[i].negated != negated) continue;
        for (uint32_t k = 0; k < table[i].n; k++)
            if (!put(p, s, table[i].range[k].first, table[i].range[k].last)) return false;
        return !table[i].rest || put(p, s, REST, GYRE_RE_LAST);
    }
    return false;
}

static bool hex(struct parser *p, uint32_t n, uint32_t *code)
{
    *code = 0;
    for (uint32_t i = 0; i < n; i++) {
        const char c = p->at < p->end ? *p->at : 0;
        const int v = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
        if (v < 0) return refuse(p, "an escape lacks hexadecimal digits"), false;
        *code = *code * 16 + (uint32_t)v;
        p->at++;
    }
    return true;
}

// Behind a backslash. A class goes into `s` and gives true with *code NOT_A_CODE; else *code is the character.
#define NOT_A_CODE UINT32_MAX
static bool escape(struct parser *p, struct set *s, bool negated, uint32_t *code)
{
    static const char controls[][2] = {{'n', '\n'}, {'r', '\r'}, {'t', '\t'}, {'f', '\f'}, {'v', '\v'}};
    const char c = p->at < p->end ? *p->at : 0;
    if (c && strchr("dDwWsS", c)) {
        p->at++;
        *code = NOT_A_CODE;
        return named(p, s, c, negated);
    }
    for (size_t i = 0; i < GYRE_COUNT(controls); i++)
        if (c == controls[i][0]) return p->at++, *code = (uint32_t)controls[i][1], true;
    if (take(p, "x")) return hex(p, 2, code);
    if (take(p, "u")) {
        if (!hex(p, 4, code)) return false;
        return *code < 0xD800 || *code > 0xDFFF || (refuse(p, "a surrogate is no character"), false);
    }
    if (take(p, "0") && !(p->at < p->end && *p->at >= '0' && *p->at <= '9')) return *code = 0, true;
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return refuse(p, c == 'b' || c == 'B'   ? "a word boundary is outside of what gyre generates"
                         : c == 'p' || c == 'P' ? "a Unicode property is outside of what gyre generates"
                         : c >= '0' && c <= '9' ? "a reference to a group is outside of what gyre generates"
                                                : "it has an unknown escape"),
               false;
    return character(p, code);
}

static const struct gyre_re *bracket(struct parser *p)
{
    struct set s = {.n = 0};
    const bool negated = take(p, "^");
    while (!take(p, "]")) {
        uint32_t first, last;
        const uint32_t before = s.n;
        if (!(take(p, "\\") ? (take(p, "b") ? (first = 8, true) : escape(p, &s, negated, &first))
                            : character(p, &first)))
            return NULL;
        last = first;
        if (first != NOT_A_CODE && next_is(p, "-") && p->end - p->at > 1 && p->at[1] != ']') {
            p->at++;
            if (!(take(p, "\\") ? escape(p, &s, negated, &last) : character(p, &last))) return NULL;
            if (last == NOT_A_CODE || last < first) return refuse(p, "a range of a class runs backwards");
        }
        if (first != NOT_A_CODE && !put(p, &s, first, last)) return NULL;
        if (s.n == before) return refuse(p, "a class is empty");
    }
    return gyre_re_chars(p->maker, s.range, s.n, negated);
}

// ---- the tree -------------------------------------------------------------------------------------------------------

static const struct gyre_re *alternatives(struct parser *p, bool outer);

static const struct gyre_re *group(struct parser *p)
{
    if (take(p, "?")) {
        if (take(p, "<") && !next_is(p, "=") && !next_is(p, "!")) { // a name
            while (p->at < p->end && *p->at != '>') p->at++;
            if (!take(p, ">")) return refuse(p, "the name of a group has no end");
        } else if (!take(p, ":")) return refuse(p, "looking ahead or behind is outside of what gyre generates");
    }
    if (++p->depth > MAX_DEPTH) return refuse(p, "its groups are nested too deeply");
    const struct gyre_re *re = alternatives(p, false);
    p->depth--;
    if (!re) return NULL;
    return take(p, ")") ? re : refuse(p, "a group has no end");
}

static const struct gyre_re *atom(struct parser *p)
{
    static const struct gyre_re_range line_ends[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
    uint32_t code;
    if (take(p, "(")) return group(p);
    if (take(p, "[")) return bracket(p);
    if (take(p, ".")) return gyre_re_chars(p->maker, line_ends, GYRE_COUNT(line_ends), true);
    if (next_is(p, "^") || next_is(p, "$")) return refuse(p, "an anchor stands inside of it");
    if (next_is(p, "*") || next_is(p, "+") || next_is(p, "?") || next_is(p, "{"))
        return refuse(p, "a quantifier has nothing before it");
    if (take(p, "\\")) {
        struct set s = {.n = 0};
        if (!escape(p, &s, false, &code)) return NULL;
        return code == NOT_A_CODE ? gyre_re_chars(p->maker, s.range, s.n, false)
                                  : gyre_re_range_of(p->maker, code, code);
    }
    return character(p, &code) ? gyre_re_range_of(p->maker, code, code) : NULL;
}

static bool number(struct parser *p, uint32_t *out)
{
    if (p->at == p->end || *p->at < '0' || *p->at > '9') return false;
    for (*out = 0; p->at < p->end && *p->at >= '0' && *p->at <= '9'; p->at++)
        *out = GYRE_MIN(*out * 10 + (uint32_t)(*p->at - '0'), (uint32_t)MAX_REPEAT + 1);
    return true;
}

static const struct gyre_re *quantified(struct parser *p)
{
    const struct gyre_re *re = atom(p);
    uint32_t min, max;
    if (!re) return NULL;
    if (take(p, "*")) min = 0, max = GYRE_RE_MANY;
    else if (take(p, "+")) min = 1, max = GYRE_RE_MANY;
    else if (take(p, "?")) min = 0, max = 1;
    else if (take(p, "{")) {
        if (!number(p, &min)) return refuse(p, "a quantifier is no number");
        max = min;
        if (take(p, ",") && !number(p, &max)) max = GYRE_RE_MANY;
        if (!take(p, "}")) return refuse(p, "a quantifier has no end");
        if (min > MAX_REPEAT || (max != GYRE_RE_MANY && max > MAX_REPEAT))
            return refuse(p, "it repeats more than 1000 times");
        if (max < min) return refuse(p, "a quantifier runs backwards");
    } else return re;
    take(p, "?"); // lazy: the same texts
    if (next_is(p, "*") || next_is(p, "+") || next_is(p, "{")) return refuse(p, "two quantifiers follow each other");
    return gyre_re_repeat(p->maker, re, min, max);
}

// What is not anchored may have any characters around it.
static const struct gyre_re *around(struct parser *p)
{
    return gyre_re_repeat(p->maker, gyre_re_chars(p->maker, NULL, 0, true), 0, GYRE_RE_MANY);
}

static const struct gyre_re *alternatives(struct parser *p, bool outer)
{
    const struct gyre_re *all = gyre_re_none(p->maker);
    do {
        const struct gyre_re *one = gyre_re_empty(p->maker);
        if (outer && !take(p, "^")) one = around(p);
        while (p->at < p->end && *p->at != '|' && *p->at != ')') {
            if (outer && (next_is(p, "$|") || (next_is(p, "$") && p->end - p->at == 1))) break;
            const struct gyre_re *part = quantified(p);
            if (!part) return NULL;
            one = gyre_re_cat(p->maker, one, part);
        }
        if (outer && !take(p, "$")) one = gyre_re_cat(p->maker, one, around(p));
        all = gyre_re_alt(p->maker, all, one);
    } while (take(p, "|"));
    return all;
}

gyre_status gyre_re_parse(struct gyre_re_maker *maker, const char *pattern, size_t bytes, const struct gyre_re **out,
                          gyre_error *err)
{
    struct parser p = {maker, pattern, pattern, pattern + bytes, 0, err, GYRE_OK};
    if (bytes > MAX_BYTES) return refuse(&p, "it is longer than 4096 bytes"), p.st;
    *out = alternatives(&p, true);
    if (*out && p.at < p.end) *out = refuse(&p, "a group ends that has not begun");
    if (p.st == GYRE_OK && !*out) p.st = gyre_fail(err, GYRE_E_NOMEM, "cannot use pattern: out of memory");
    return p.st;
}
