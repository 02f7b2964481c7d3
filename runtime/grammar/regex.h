// Regular expressions over code points, as trees: what patterns, formats and ranges of numbers are made of.
#pragma once
#include "runtime/util/arena.h"
#include "runtime/util/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { GYRE_RE_LAST = 0x10FFFF };
#define GYRE_RE_MANY UINT32_MAX

struct gyre_re_range {
    uint32_t first, last; // code points
};
struct gyre_re {
    enum { GYRE_RE_NONE, GYRE_RE_EMPTY, GYRE_RE_CHARS, GYRE_RE_CAT, GYRE_RE_ALT, GYRE_RE_REPEAT } kind;
    uint32_t min, max, n;
    const struct gyre_re_range *ranges; // [n], ascending, apart, without surrogates
    const struct gyre_re *a, *b;
};

// Owns the trees. The constructors below return NULL where memory ran out, and for children that are NULL.
struct gyre_re_maker {
    struct gyre_arena arena;
};
void gyre_re_free(struct gyre_re_maker *maker);

const struct gyre_re *gyre_re_none(struct gyre_re_maker *maker);  // no text at all
const struct gyre_re *gyre_re_empty(struct gyre_re_maker *maker); // the empty text
// One character of any of the ranges, in any order; `negated`: of none of them.
const struct gyre_re *gyre_re_chars(struct gyre_re_maker *maker, const struct gyre_re_range *ranges, uint32_t n,
                                    bool negated);
const struct gyre_re *gyre_re_range_of(struct gyre_re_maker *maker, uint32_t first, uint32_t last); // empty: none
const struct gyre_re *gyre_re_text(struct gyre_re_maker *maker, const char *utf8);
const struct gyre_re *gyre_re_cat(struct gyre_re_maker *maker, const struct gyre_re *a, const struct gyre_re *b);
const struct gyre_re *gyre_re_alt(struct gyre_re_maker *maker, const struct gyre_re *a, const struct gyre_re *b);
// max: GYRE_RE_MANY for no limit.
const struct gyre_re *gyre_re_repeat(struct gyre_re_maker *maker, const struct gyre_re *a, uint32_t min, uint32_t max);

// A pattern as JSON Schema means it (ECMA 262, found anywhere unless anchored), as far as it is regular: characters,
// classes, escapes, groups, alternatives, quantifiers; ^ and $ at the ends of the whole or of its alternatives.
// GYRE_E_UNSUPPORTED names anything else. Where ECMA and Python disagree about a class, the characters that both take.
gyre_status gyre_re_parse(struct gyre_re_maker *maker, const char *pattern, size_t bytes, const struct gyre_re **out,
                          gyre_error *err) GYRE_MUST_USE;

// Numbers as JSON writes them, none with leading zeros. At most GYRE_RE_DIGITS digits before the point (one more than
// a bound has, where that is more) and behind it, so that each can end; two in an exponent.
enum { GYRE_RE_DIGITS = 15 };
const struct gyre_re *gyre_re_number(struct gyre_re_maker *maker, bool integer);
// Those, without exponents, that are at least (at most) a decimal text such as "-0.5" of up to 399 digits before the
// point and GYRE_RE_DIGITS behind it; `out`: the bound itself is out.
const struct gyre_re *gyre_re_at_least(struct gyre_re_maker *maker, const char *bound, bool out, bool integer);
const struct gyre_re *gyre_re_at_most(struct gyre_re_maker *maker, const char *bound, bool out, bool integer);
