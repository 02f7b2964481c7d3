// See pattern.h.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "runtime/text/pattern.h"

#include "runtime/util/base.h"
#include "runtime/util/utf8.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { MATCH_LIMIT = 10000000, HEAP_LIMIT_KIB = 256 << 10, MAX_PATTERN = 16384 };

gyre_status gyre_pattern_compile(struct gyre_pattern *pattern, const char *source, bool literal, gyre_error *err)
{
    int code;
    PCRE2_SIZE at;
    const size_t length = strlen(source);
    *pattern = (struct gyre_pattern){0};
    if (length > MAX_PATTERN)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot use tokenizer: a pattern of %zu bytes; gyre takes %d", length,
                         MAX_PATTERN);
    const uint32_t flags =
        PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C);
    char *words = NULL;
    if (!literal) GYRE_TRY(gyre_pattern_words(source, &words, err));
    char *text = strdup(source);
    if (!text) {
        free(words);
        return gyre_fail(err, GYRE_E_NOMEM, "cannot use tokenizer: out of memory");
    }
    const char *const read = words ? words : source;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)read, strlen(read), flags, &code, &at, NULL);
    free(words);
    if (!compiled) {
        PCRE2_UCHAR why[128];
        free(text);
        pcre2_get_error_message(code, why, sizeof why);
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use tokenizer: its pattern is not accepted at character %zu: %s", (size_t)at,
                         (const char *)why);
    }
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE); // where it fails, the interpreter matches
    *pattern = (struct gyre_pattern){compiled, text};
    return GYRE_OK;
}

void gyre_pattern_free(struct gyre_pattern *pattern)
{
    pcre2_code_free(pattern->code);
    free(pattern->source);
    *pattern = (struct gyre_pattern){0};
}

bool gyre_matcher_init(struct gyre_matcher *matcher)
{
    *matcher = (struct gyre_matcher){pcre2_match_data_create(1, NULL), pcre2_match_context_create(NULL)};
    if (!matcher->match || !matcher->limits) return false;
    pcre2_set_match_limit(matcher->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(matcher->limits, HEAP_LIMIT_KIB);
    return true;
}

void gyre_matcher_free(struct gyre_matcher *matcher)
{
    pcre2_match_data_free(matcher->match);
    pcre2_match_context_free(matcher->limits);
    *matcher = (struct gyre_matcher){0};
}

static int match(const struct gyre_pattern *pattern, const struct gyre_matcher *m, const char *shadow, uint64_t bytes,
                 uint64_t from)
{
    PCRE2_SPTR subject = (PCRE2_SPTR)shadow;
    const int found = pcre2_match(pattern->code, subject, bytes, from, PCRE2_NO_UTF_CHECK, m->match, m->limits);
    if (found != PCRE2_ERROR_JIT_STACKLIMIT) return found;
    return pcre2_match(pattern->code, subject, bytes, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->match, m->limits);
}

bool gyre_pattern_may_be_empty(const struct gyre_pattern *pattern)
{
    uint32_t empty = 0;
    return pcre2_pattern_info(pattern->code, PCRE2_INFO_MATCHEMPTY, &empty) != 0 || empty;
}

gyre_status gyre_pattern_find(const struct gyre_pattern *pattern, const struct gyre_matcher *matcher,
                              const char *shadow, uint64_t bytes, uint64_t from, uint64_t *begin, uint64_t *end,
                              bool *found, gyre_error *err)
{
    const uint64_t done = from;
    *found = false;
    while (from < bytes) {
        const int got = match(pattern, matcher, shadow, bytes, from);
        if (got == PCRE2_ERROR_NOMATCH) return GYRE_OK;
        if (got == PCRE2_ERROR_NOMEMORY) return gyre_fail(err, GYRE_E_NOMEM, "cannot tokenize: out of memory");
        if (got < 0)
            return gyre_fail(err, GYRE_E_UNSUPPORTED,
                             "cannot tokenize: the tokenizer's pattern is too expensive for this text");
        const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(matcher->match);
        if (bounds[1] > done && bounds[0] >= done) { // \K could give one that begins before
            *begin = bounds[0];
            *end = bounds[1];
            *found = true;
            return GYRE_OK;
        }
        uint32_t code;
        from = GYRE_MAX(from, bounds[1]);
        if (from < bytes) from += (uint64_t)gyre_utf8_look(shadow + from, bytes - from, &code);
    }
    return GYRE_OK;
}
