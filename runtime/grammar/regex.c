// See regex.h.
#include "runtime/grammar/regex.h"

#include "runtime/util/base.h"
#include "runtime/util/utf8.h"

#include <stdlib.h>
#include <string.h>

void gyre_re_free(struct gyre_re_maker *m) { gyre_arena_free(&m->arena); }

static struct gyre_re *make(struct gyre_re_maker *m, int kind)
{
    struct gyre_re *re = gyre_arena_alloc(&m->arena, sizeof *re);
    if (re) re->kind = kind;
    return re;
}

const struct gyre_re *gyre_re_none(struct gyre_re_maker *m) { return make(m, GYRE_RE_NONE); }
const struct gyre_re *gyre_re_empty(struct gyre_re_maker *m) { return make(m, GYRE_RE_EMPTY); }

static int by_first(const void *a, const void *b)
{
    const uint32_t x = ((const struct gyre_re_range *)a)->first, y = ((const struct gyre_re_range *)b)->first;
    return (x > y) - (x < y);
}

const struct gyre_re *gyre_re_chars(struct gyre_re_maker *m, const struct gyre_re_range *given, uint32_t n,
                                    bool negated)
{
    struct gyre_re_range *r = gyre_arena_array(&m->arena, n + 1, sizeof *r);
    struct gyre_re_range *out = gyre_arena_array(&m->arena, 2 * (size_t)n + 4, sizeof *out);
    struct gyre_re *re = make(m, GYRE_RE_CHARS);
    if (!r || !out || !re) return NULL;
    if (n) memcpy(r, given, n * sizeof *r);
    if (negated) r[n++] = (struct gyre_re_range){0xD800, 0xDFFF}; // surrogates are no characters
    qsort(r, n, sizeof *r, by_first);
    uint32_t kept = 0, next = 0; // `next`: the first code point not decided yet
    for (uint32_t i = 0; i < n; i++) {
        if (negated) {
            if (r[i].first > next) out[kept++] = (struct gyre_re_range){next, r[i].first - 1};
            next = GYRE_MAX(next, r[i].last + 1);
            continue;
        }
        uint32_t first = GYRE_MAX(r[i].first, next);
        const uint32_t last = r[i].last;
        if (first > last) continue;
        if (first < 0xD800 && last >= 0xD800) out[kept++] = (struct gyre_re_range){first, 0xD7FF}, first = 0xD800;
        if (first >= 0xD800 && first <= 0xDFFF) first = 0xE000;
        if (first <= last) out[kept++] = (struct gyre_re_range){first, last};
        next = last + 1;
    }
    if (negated && next <= GYRE_RE_LAST) out[kept++] = (struct gyre_re_range){next, GYRE_RE_LAST};
    if (kept == 0) re->kind = GYRE_RE_NONE;
    re->ranges = out;
    re->n = kept;
    return re;
}

const struct gyre_re *gyre_re_range_of(struct gyre_re_maker *m, uint32_t first, uint32_t last)
{
    const struct gyre_re_range r = {first, last};
    return first > last ? gyre_re_none(m) : gyre_re_chars(m, &r, 1, false);
}

const struct gyre_re *gyre_re_cat(struct gyre_re_maker *m, const struct gyre_re *a, const struct gyre_re *b)
{
    if (!a || !b) return NULL;
    if (a->kind == GYRE_RE_EMPTY || b->kind == GYRE_RE_NONE) return b;
    if (b->kind == GYRE_RE_EMPTY || a->kind == GYRE_RE_NONE) return a;
    struct gyre_re *re = make(m, GYRE_RE_CAT);
    if (re) re->a = a, re->b = b;
    return re;
}

const struct gyre_re *gyre_re_alt(struct gyre_re_maker *m, const struct gyre_re *a, const struct gyre_re *b)
{
    if (!a || !b) return NULL;
    if (a->kind == GYRE_RE_NONE) return b;
    if (b->kind == GYRE_RE_NONE) return a;
    struct gyre_re *re = make(m, GYRE_RE_ALT);
    if (re) re->a = a, re->b = b;
    return re;
}

const struct gyre_re *gyre_re_repeat(struct gyre_re_maker *m, const struct gyre_re *a, uint32_t min, uint32_t max)
{
    if (!a) return NULL;
    if (max == 0 || a->kind == GYRE_RE_EMPTY) return gyre_re_empty(m);
    if (a->kind == GYRE_RE_NONE) return min ? a : gyre_re_empty(m);
    struct gyre_re *re = make(m, GYRE_RE_REPEAT);
    if (re) re->a = a, re->min = min, re->max = max;
    return re;
}

const struct gyre_re *gyre_re_text(struct gyre_re_maker *m, const char *utf8)
{
    const struct gyre_re *re = gyre_re_empty(m);
    for (size_t left = strlen(utf8); left;) {
        uint32_t code = 0;
        const int n = gyre_utf8_look(utf8, left, &code);
        if (n <= 0) return gyre_re_none(m);
        re = gyre_re_cat(m, re, gyre_re_range_of(m, code, code));
        utf8 += n;
        left -= (size_t)n;
    }
    return re;
}

// ---- numbers --------------------------------------------------------------------------------------------------------

// A decimal without its sign, cut at the point: 0012.50 is "12" and "5".
struct decimal {
    char whole[400], part[400];
    bool negative;
};

static struct decimal split(const char *text)
{
    struct decimal d = {.negative = *text == '-'};
    text += d.negative;
    while (*text == '0') text++;
    const size_t n = GYRE_MIN(strcspn(text, "."), sizeof d.whole - 1);
    memcpy(d.whole, text, n);
    text += n + (text[n] == '.');
    size_t k = GYRE_MIN(strlen(text), sizeof d.part - 1);
    while (k && text[k - 1] == '0') k--;
    memcpy(d.part, text, k);
    if (!d.whole[0] && !d.part[0]) d.negative = false;
    return d;
}

static const struct gyre_re *digit(struct gyre_re_maker *m, int first, int last)
{
    return gyre_re_range_of(m, '0' + (uint32_t)first, '0' + (uint32_t)last);
}

static const struct gyre_re *digits(struct gyre_re_maker *m, uint32_t min, uint32_t max)
{
    return gyre_re_repeat(m, digit(m, 0, 9), min, max);
}

enum side { AT_LEAST, AT_MOST };

// What may stand behind equal digits before the point: ".digits" or nothing, on its side of `part`. `out`: not `part`
// itself.
static const struct gyre_re *fraction(struct gyre_re_maker *m, const char *part, enum side side, bool out)
{
    const size_t n = strlen(part);
    // Digits from place i on, from the last place backwards; `rest` is what may follow equal ones.
    const struct gyre_re *rest = digits(m, 0, GYRE_RE_DIGITS - (uint32_t)n);
    if (side == AT_MOST || out) { // equal so far: zeros keep it equal, another digit makes it larger
        const struct gyre_re *zeros = gyre_re_repeat(m, digit(m, 0, 0), 0, GYRE_RE_DIGITS - (uint32_t)n);
        const struct gyre_re *more = gyre_re_none(m);
        for (uint32_t k = 0; k < GYRE_RE_DIGITS - n; k++)
            more = gyre_re_alt(
                m, more,
                gyre_re_cat(m, gyre_re_repeat(m, digit(m, 0, 0), k, k),
                            gyre_re_cat(m, digit(m, 1, 9), digits(m, 0, GYRE_RE_DIGITS - (uint32_t)n - k - 1))));
        rest = side == AT_MOST ? (out ? gyre_re_none(m) : zeros) : more;
    }
    for (size_t i = n; i-- > 0;) {
        const int at = part[i] - '0';
        const struct gyre_re *free = digits(m, 0, GYRE_RE_DIGITS - (uint32_t)i - 1);
        const struct gyre_re *beside = side == AT_MOST ? digit(m, 0, at - 1) : digit(m, at + 1, 9);
        rest = gyre_re_alt(m, gyre_re_cat(m, digit(m, at, at), rest), gyre_re_cat(m, beside, free));
        if (side == AT_MOST && i) rest = gyre_re_alt(m, rest, gyre_re_empty(m)); // what ends is smaller
    }
    const struct gyre_re *some = gyre_re_cat(m, gyre_re_text(m, "."), rest);
    if (n == 0) { // the digits of `rest` may be none there, but a point has digits behind it
        const struct gyre_re *zeros = gyre_re_repeat(m, digit(m, 0, 0), 1, GYRE_RE_DIGITS);
        if (side == AT_MOST) some = out ? gyre_re_none(m) : gyre_re_cat(m, gyre_re_text(m, "."), zeros);
        else if (!out) some = gyre_re_cat(m, gyre_re_text(m, "."), digits(m, 1, GYRE_RE_DIGITS));
    }
    const bool whole = side == AT_MOST ? n > 0 || !out : n == 0 && !out; // is the number without a fraction in?
    return whole ? gyre_re_alt(m, some, gyre_re_empty(m)) : some;
}

// Whole numbers of n digits on one side of the digits `w` [n], themselves out; no leading zero.
static const struct gyre_re *beside(struct gyre_re_maker *m, const char *w, enum side side)
{
    const size_t n = strlen(w);
    const struct gyre_re *all = gyre_re_none(m), *same = gyre_re_empty(m);
    for (size_t i = 0; i < n; i++) {
        const int at = w[i] - '0';
        const struct gyre_re *other = side == AT_MOST ? digit(m, i == 0 ? 1 : 0, at - 1) : digit(m, at + 1, 9);
        all = gyre_re_alt(
            m, all,
            gyre_re_cat(m, same, gyre_re_cat(m, other, digits(m, (uint32_t)(n - i - 1), (uint32_t)(n - i - 1)))));
        same = gyre_re_cat(m, same, digit(m, at, at));
    }
    return all;
}

// Numbers >= 0 without a sign, on one side of d >= 0.
static const struct gyre_re *one_side(struct gyre_re_maker *m, const struct decimal *d, enum side side, bool out,
                                      bool integer)
{
    const uint32_t n = (uint32_t)strlen(d->whole); // 0: the whole part is 0
    const struct gyre_re *tail =
        integer ? gyre_re_empty(m)
                : gyre_re_repeat(m, gyre_re_cat(m, gyre_re_text(m, "."), digits(m, 1, GYRE_RE_DIGITS)), 0, 1);
    const struct gyre_re *equal = gyre_re_text(m, n ? d->whole : "0"), *others;
    if (!integer) equal = gyre_re_cat(m, equal, fraction(m, d->part, side, out));
    else if (side == AT_MOST ? out && !d->part[0] : out || d->part[0]) equal = gyre_re_none(m);
    if (side == AT_MOST) {
        others = n ? gyre_re_alt(m, gyre_re_text(m, "0"), beside(m, d->whole, side)) : gyre_re_none(m);
        if (n > 1) others = gyre_re_alt(m, others, gyre_re_cat(m, digit(m, 1, 9), digits(m, 0, n - 2)));
    } else {
        const uint32_t most = GYRE_MAX((uint32_t)GYRE_RE_DIGITS, n + 1);
        others = gyre_re_alt(m, n ? beside(m, d->whole, side) : gyre_re_none(m),
                             gyre_re_cat(m, digit(m, 1, 9), digits(m, n, most - 1)));
    }
    return gyre_re_alt(m, equal, gyre_re_cat(m, others, tail));
}

static const struct gyre_re *minus(struct gyre_re_maker *m, const struct gyre_re *re)
{
    return gyre_re_cat(m, gyre_re_text(m, "-"), re);
}

static const struct gyre_re *not_negative(struct gyre_re_maker *m, bool integer)
{
    const struct decimal zero = {.negative = false};
    return one_side(m, &zero, AT_LEAST, false, integer);
}

const struct gyre_re *gyre_re_at_least(struct gyre_re_maker *m, const char *bound, bool out, bool integer)
{
    const struct decimal d = split(bound);
    if (!d.negative) return one_side(m, &d, AT_LEAST, out, integer);
    return gyre_re_alt(m, not_negative(m, integer), minus(m, one_side(m, &d, AT_MOST, out, integer)));
}

const struct gyre_re *gyre_re_at_most(struct gyre_re_maker *m, const char *bound, bool out, bool integer)
{
    const struct decimal d = split(bound);
    if (d.negative) return minus(m, one_side(m, &d, AT_LEAST, out, integer));
    const bool zero = !d.whole[0] && !d.part[0]; // -0 is as large as 0
    const struct decimal none = {.negative = false};
    return gyre_re_alt(m, one_side(m, &d, AT_MOST, out, integer),
                       minus(m, one_side(m, &none, AT_LEAST, zero && out, integer)));
}

const struct gyre_re *gyre_re_number(struct gyre_re_maker *m, bool integer)
{
    const struct gyre_re *re = gyre_re_cat(m, gyre_re_repeat(m, gyre_re_text(m, "-"), 0, 1), not_negative(m, integer));
    if (integer) return re;
    static const struct gyre_re_range e[] = {{'e', 'e'}, {'E', 'E'}}, sign[] = {{'+', '+'}, {'-', '-'}};
    const struct gyre_re *power =
        gyre_re_cat(m, gyre_re_chars(m, e, 2, false),
                    gyre_re_cat(m, gyre_re_repeat(m, gyre_re_chars(m, sign, 2, false), 0, 1), digits(m, 1, 2)));
    return gyre_re_cat(m, re, gyre_re_repeat(m, power, 0, 1));
}
