// Patterns of tokenizer.json match as in the library that they are written for (tests/data/make_patterns.py).
#include "runtime/text/pattern.h"
#include "runtime/util/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/data/patterns.inc"

static void match(const char *pattern, const char *text, char *out, size_t size)
{
    struct gyre_pattern compiled;
    struct gyre_matcher matcher;
    gyre_error err = {0};
    const uint64_t bytes = strlen(text);
    uint64_t at = 0, begin, end;
    size_t n = 0;
    char *shadow;
    bool found;
    assert_true(gyre_pattern_shadow(text, bytes, &shadow));
    if (gyre_pattern_compile(&compiled, pattern, false, &err) != GYRE_OK) fail_msg("%s: %s", pattern, err.message);
    assert_true(gyre_matcher_init(&matcher));
    out[0] = 0;
    for (;; at = end) {
        assert_int_equal(
            gyre_pattern_find(&compiled, &matcher, shadow ? shadow : text, bytes, at, &begin, &end, &found, &err),
            GYRE_OK);
        if (!found || n >= size) break;
        n += (size_t)snprintf(out + n, size - n, "%s%d-%d", n ? " " : "", (int)begin, (int)end);
    }
    free(shadow);
    gyre_matcher_free(&matcher);
    gyre_pattern_free(&compiled);
}

static void check(const char *text, const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char got[4096];
        match(rows[i].pattern, text, got, sizeof got);
        if (strcmp(got, rows[i].matches))
            fail_msg("%s matches at %s, not at %s", rows[i].pattern, got, rows[i].matches);
    }
}

static void as_in_the_library(void **state)
{
    (void)state;
    check(pattern_text, patterns, GYRE_COUNT(patterns));
}

// Whatever Unicode the PCRE2 at hand knows.
static void young_characters_too(void **state)
{
    (void)state;
    check(young_pattern_text, young_patterns, GYRE_COUNT(young_patterns));
}

// What has no words is refused by its own, not read as something else.
static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *named;
    } cases[] = {
        {"\\X", "\\X"},
        {"a\\Gb", "\\G"},
        {"\\Qa\\E", "\\Q"},
        {"(a)\\1", "\\1"},
        {"(?<a>.)\\k<a>", "\\k"},
        {"(?s:.)", "(?s"},
        {"(?x: a)", "(?x"},
        {"(?~a)", "(?~"},
        {"(?P<a>b)", "(?P"},
        {"a|(?i)b|c", "(?i)"},
        {"\\xC3\\xA9", "\\xC3"},
        {"[[:alpha:]]", "[:alpha"},
        {"[a&&]", "&&"},
        {"[&&a]", "&&"},
        {"[x[b]-z]", "-z"},
        {"[a-[b]]", "-["},
        {"[[^a]-c]", "-c"},
        {"[\\W-[b]]", "-["},
        {"a{2}?", "{2}?"},
        {"a{3,2}", "{3,2}"},
        {"[a", "["},
        {"(a", "missing"},
        {"a)", ")"},
        {"a\\", "\\"},
        {"\\p{Nothing}", "unknown property"},
        {"\\pL", "\\p"},
        {"(?i)a[\\p{Lu}\\d]", "\\p{Lu}\" where (?i)"},
        {"(?-i:b(?i)[^\\P{upper}])", "(?i)"},
        {"(?i:x(?:y)\\p{^Ll})", "\\p{^Ll}\" where (?i)"},
        {"\\u12", "\\u12"},
        {"[\\X]", "\\X"},
        {"(?", "(?"},
        {"(?<", "(?<"},
        {"(?#", "(?#"},
        {"[a[b[c[d[e[f[g[h[i]]]]]]]]]", "["},
    };
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        struct gyre_pattern compiled;
        gyre_error err = {0};
        if (gyre_pattern_compile(&compiled, cases[i].pattern, false, &err) != GYRE_E_UNSUPPORTED ||
            !strstr(err.message, cases[i].named))
            fail_msg("%s: \"%s\"", cases[i].pattern, err.message);
    }
    // As plain text everything is itself.
    struct gyre_pattern plain;
    assert_int_equal(gyre_pattern_compile(&plain, "(?s\\X[", true, NULL), GYRE_OK);
    gyre_pattern_free(&plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_in_the_library), cmocka_unit_test(young_characters_too),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
