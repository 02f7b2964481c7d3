// Regular expressions over valid UTF-8 (PCRE2 with Unicode properties, compiled just in time), for what cuts and
// rewrites text. A compiled pattern is immutable and may be shared between threads; a matcher belongs to one.
#pragma once
#include "runtime/util/status.h"

#include <stdbool.h>
#include <stdint.h>

struct gyre_pattern {
    void *code;   // pcre2_code
    char *source; // its text
};

// A pattern with Ruby's syntax for Oniguruma, as tokenizer.json has them, in the words of PCRE2 (with PCRE2_MULTILINE),
// malloc'd. UNSUPPORTED where it has what gyre does not put into those.
gyre_status gyre_pattern_words(const char *source, char **out, gyre_error *err) GYRE_MUST_USE;

// `literal`: the source is plain text; else a pattern as tokenizer.json has them. UNSUPPORTED where gyre or PCRE2 does
// not take it, or it is absurdly long.
gyre_status gyre_pattern_compile(struct gyre_pattern *pattern, const char *source, bool literal,
                                 gyre_error *err) GYRE_MUST_USE;
void gyre_pattern_free(struct gyre_pattern *pattern);
bool gyre_pattern_may_be_empty(const struct gyre_pattern *pattern); // it may match between two characters

struct gyre_matcher {
    void *match, *limits; // pcre2_match_data, pcre2_match_context
};
bool gyre_matcher_init(struct gyre_matcher *matcher); // false: out of memory; free it all the same
void gyre_matcher_free(struct gyre_matcher *matcher);

// What patterns must see in place of a text, where PCRE2 differs from the engines that they were written for:
// characters that are younger than its tables (to Unicode 16), and U+180E (since Unicode 6.3 no space). Old ones of the
// same length and category stand in their places. *out is malloc'd, or NULL where the text is its own shadow. False:
// out of memory.
bool gyre_pattern_shadow(const char *text, uint64_t bytes, char **out);

// The first match from `from` on in a shadow, [*begin, *end), but for an empty one at `from` itself; *found tells
// whether there is one. To go on: from its end. UNSUPPORTED where the pattern is too expensive for the text.
gyre_status gyre_pattern_find(const struct gyre_pattern *pattern, const struct gyre_matcher *matcher,
                              const char *shadow, uint64_t bytes, uint64_t from, uint64_t *begin, uint64_t *end,
                              bool *found, gyre_error *err) GYRE_MUST_USE;
