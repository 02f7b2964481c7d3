// The template language against Python's jinja2 (tests/data/make_templates.py), the marks of what a variable brought
// along, and the limits that a stranger's template meets.
#include "runtime/text/jinja/jinja.h"
#include "runtime/util/base.h"
#include "tests/common/comma.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static gyre_status render(const char *text, uint64_t bytes, const json_t *variables, int64_t now,
                          struct gyre_marked *out, gyre_error *err)
{
    gyre_jinja *jinja = NULL;
    struct gyre_jinja_variable v[32];
    uint64_t n = 0;
    const char *key;
    json_t *value, *none = json_null();
    *out = (struct gyre_marked){0};
    *err = (gyre_error){0};
    const gyre_status st = gyre_jinja_parse("test", text, bytes, &jinja, err);
    if (st != GYRE_OK) return st;
    if (!json_object_get(variables, "tools")) v[n++] = (struct gyre_jinja_variable){"tools", none, false};
    v[n++] = (struct gyre_jinja_variable){"documents", none, false};
    json_object_foreach((json_t *)(uintptr_t)variables, key, value) v[n++] =
        (struct gyre_jinja_variable){key, value, true};
    const gyre_status made = gyre_jinja_render(jinja, v, n, now, out, err);
    gyre_jinja_free(jinja);
    return made;
}

static char *file_text(const char *name)
{
    char path[1024], *text = calloc(1, 1 << 16);
    snprintf(path, sizeof path, GYRE_TEST_DATA "/templates/%s", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_non_null(text);
    fread(text, 1, (1 << 16) - 1, file);
    fclose(file);
    return text;
}

static void one_case(const json_t *all, const json_t *c)
{
    const char *name = json_string_value(json_object_get(c, "name")),
               *file = json_string_value(json_object_get(c, "file"));
    const char *raises = json_string_value(json_object_get(c, "raises"));
    const json_t *template = json_object_get(c, "template"), *text = json_object_get(c, "text"),
                 *own = json_object_get(c, "variables");
    char *read = file ? file_text(file) : NULL;
    struct gyre_marked out;
    gyre_error err;
    const gyre_status st = render(
        read ? read : json_string_value(template), read ? strlen(read) : json_string_length(template),
        own ? own : json_object_get(all, "variables"), json_integer_value(json_object_get(all, "now")), &out, &err);
    if (text) {
        if (st != GYRE_OK) fail_msg("%s: %s", name, err.message);
        if (out.bytes != json_string_length(text) || memcmp(out.text, json_string_value(text), out.bytes) != 0)
            fail_msg("%s: \"%s\", not \"%s\"", name, out.text, json_string_value(text));
    } else {
        if (st == GYRE_OK) fail_msg("%s: \"%s\", but jinja2 fails", name, out.text);
        if (!err.message[0] || strchr(err.message, '\n') || !strstr(err.message, "line "))
            fail_msg("%s: \"%s\"", name, err.message);
        if (raises && !strstr(err.message, raises)) fail_msg("%s: \"%s\" without \"%s\"", name, err.message, raises);
    }
    gyre_marked_free(&out);
    free(read);
}

static void test_as_jinja2(void **state)
{
    (void)state;
    size_t i;
    json_t *c, *all = json_load_file(GYRE_TEST_DATA "/templates.json", JSON_ALLOW_NUL, NULL),
               *cases = json_object_get(all, "cases");
    assert_true(json_array_size(cases) > 200);
    json_array_foreach(cases, i, c) one_case(all, c);
    json_decref(all);
}

// ---- marks --------------------------------------------------------------------------------------------

// What a template makes of x, y and messages, with the bytes of variables as capitals.
static void marked(const char *text, const char *want)
{
    json_t *v = json_pack("{s:s, s:[s,s], s:[{s:s, s:s}], s:{s:s}}", "x", "in<put", "y", "ab", "cd", "messages", "role",
                          "user", "content", " hi ", "d", "k", "v\"w");
    struct gyre_marked out;
    gyre_error err;
    if (render(text, strlen(text), v, 0, &out, &err) != GYRE_OK) fail_msg("%s: %s", text, err.message);
    for (uint64_t i = 0; i < out.bytes; i++)
        if (out.plain[i] && out.text[i] >= 'a' && out.text[i] <= 'z') out.text[i] = (char)(out.text[i] - 32);
        else if (out.plain[i] && out.text[i] == '<') out.text[i] = '!';
    if (strcmp(out.text, want) != 0) fail_msg("%s: \"%s\", not \"%s\"", text, out.text, want);
    gyre_marked_free(&out);
    json_decref(v);
}

static void test_marks(void **state)
{
    (void)state;
    marked("<a>{{ x }}<b>", "<a>IN!PUT<b>");
    marked("{{ 'p' ~ x ~ 'q' }}{{ 'p' + x }}", "pIN!PUTqpIN!PUT");
    marked("{{ ('p' ~ x)[::-1] }}{{ ('p' ~ x)[1:3] }}", "TUP!NIpIN");
    marked("{{ x | upper | lower }}{{ x | title }}", "IN!PUTIN!PUT");
    marked("{{ x.replace('n', '<z>') }}{{ 'a-b'.replace('-', x) }}", "I<z>!PUTaIN!PUTb");
    marked("{{ y | join('-') }}{{ '-'.join(y) }}{{ x.split('<') | join('<') }}", "AB-CDAB-CDIN<PUT");
    marked("{{ y }}{{ d }}", "['AB', 'CD']{'K': 'V\"W'}");
    marked("{{ d | tojson }}", "{\"K\": \"V\\\"W\"}");
    marked("{{ '%s|%4s' % (x, 'a') }}{{ '{}<{:>3}'.format(x, 'b') }}", "IN!PUT|   aIN!PUT<  b");
    marked("{{ (x | e) }}{{ x | center(8) | trim }}{{ x | indent }}", "IN&LT;PUTIN!PUTIN!PUT");
    marked("{% macro f(a) %}m{{ a }}{% endmacro %}{{ f(x) }}{{ f('q') }}", "mIN!PUTmq");
    marked("{% set s %}k{{ x }}{% endset %}{{ s }}{% set n = namespace(t='') %}{% set n.t = n.t ~ x %}{{ n.t }}",
           "kIN!PUTIN!PUT");
    marked("{% for c in 'z' ~ x %}{{ c }}.{% endfor %}", "z.I.N.!.P.U.T.");
    marked(
        "{% for k in d %}{{ k }}{% endfor %}{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{% endfor %}",
        "K<|user|>HI");
    marked("{{ x | length }}{{ x == 'in<put' }}{{ 'q' if x else 'r' }}", "6Trueq");
    marked("{% filter upper %}a{{ x }}{% endfilter %}", "AIN!PUT");
}

// ---- limits and faults ------------------------------------------------------------------------------------

static void fails(const char *text, gyre_status want, const char *word)
{
    json_t *v = json_pack("{s:s}", "x", "abc");
    struct gyre_marked out;
    gyre_error err;
    const gyre_status st = render(text, strlen(text), v, 0, &out, &err);
    if (st != want || !strstr(err.message, word) || strchr(err.message, '\n'))
        fail_msg("%.60s: status %d, \"%s\" (wanted %d, \"%s\")", text, st, err.message, want, word);
    assert_null(out.text);
    json_decref(v);
}

static char *repeated(const char *before, const char *middle, const char *after, size_t n)
{
    char *out = malloc(n * (strlen(before) + strlen(after)) + strlen(middle) + 1);
    assert_non_null(out);
    *out = 0;
    char *p = out;
    for (size_t i = 0; i < n; i++) p = stpcpy(p, before);
    p = stpcpy(p, middle);
    for (size_t i = 0; i < n; i++) p = stpcpy(p, after);
    return out;
}

static void test_limits(void **state)
{
    (void)state;
    static const char *const nests[][3] = {{"{{ ", "", ""},
                                           {"(", "1", ")"},
                                           {"[", "1", "]"},
                                           {"-", "1", ""},
                                           {"not ", "1", ""},
                                           {"{% if 1 %}", "x", "{% endif %}"},
                                           {"{% for a in x %}", "x", "{% endfor %}"},
                                           {"x.", "y", ""},
                                           {"1 + ", "1", ""},
                                           {"1 if 1 else ", "1", ""}};
    fails("{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}", GYRE_E_UNSUPPORTED,
          "limit");
    fails("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", GYRE_E_UNSUPPORTED, "nested");
    fails("{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}", GYRE_E_UNSUPPORTED, "nested");
    fails("{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
          GYRE_E_UNSUPPORTED, "memory");
    fails("{{ 'a' * 1000000000000 }}", GYRE_E_UNSUPPORTED, "limit");
    fails("{{ [1] * 100000000000 }}", GYRE_E_UNSUPPORTED, "limit");
    fails("{{ 9 ** 9 ** 9 ** 9 }}", GYRE_E_UNSUPPORTED, "128 bits");
    fails("{{ '%999999999d' % 1 }}", GYRE_E_UNSUPPORTED, "width");
    fails("{{ '{:999999999}'.format(1) }}", GYRE_E_UNSUPPORTED, "width");
    fails("{{ x | center(99999999999) }}", GYRE_E_UNSUPPORTED, "steps");
    fails("{{ [1] | tojson(indent=99999999) }}", GYRE_E_UNSUPPORTED, "indent");
    fails("{% for a in range(100001) %}{% endfor %}", GYRE_E_INVALID, "Range too big");
    for (size_t i = 0; i < GYRE_COUNT(nests); i++) {
        char *inner = repeated(nests[i][0], nests[i][1], nests[i][2], 100000);
        char *whole = *inner == '{' ? strdup(inner) : repeated("{{ ", inner, " }}", 1);
        gyre_jinja *jinja = NULL;
        gyre_error err = {0};
        assert_int_equal(gyre_jinja_parse("deep", whole, strlen(whole), &jinja, &err), GYRE_E_FORMAT);
        assert_null(jinja);
        free(whole);
        free(inner);
    }
}

static void test_faults(void **state)
{
    (void)state;
    fails("a\n  {{ x | nosuch }}", GYRE_E_FORMAT, "(test, line 2, column 10): No filter named 'nosuch'.");
    fails("{{ x is nosuch }}", GYRE_E_FORMAT, "No test named 'nosuch'.");
    fails("\n{% for a in x %}", GYRE_E_FORMAT, "'for' of line 2 has no 'endfor'");
    fails("{% frob %}", GYRE_E_FORMAT, "unknown tag 'frob'");
    fails("{{ 'a }}", GYRE_E_FORMAT, "a string does not end");
    fails("{{ 1", GYRE_E_FORMAT, "does not end");
    fails("{# a", GYRE_E_FORMAT, "end of comment");
    fails("{% raw %} a", GYRE_E_FORMAT, "end of raw");
    fails("{{ (1] }}", GYRE_E_FORMAT, "unexpected ']', expected ')'");
    fails("{% break %}", GYRE_E_FORMAT, "outside loop");
    fails("{{ '\\ud800' }}", GYRE_E_FORMAT, "no character");
    fails("{{ 99999999999999999999999999999999999999999 }}", GYRE_E_FORMAT, "too many digits");
    fails("caf\xE9", GYRE_E_FORMAT, "byte 3 is no UTF-8");
    fails("a\nb {{ x.y.z }}", GYRE_E_INVALID, "line 2, column 10): 'str object' has no attribute 'y'");
    fails("{{ y }}{{ y + 1 }}", GYRE_E_INVALID, "'y' is undefined");
    fails("{% include '/etc/passwd' %}", GYRE_E_INVALID, "cannot include another file");
    fails("{{ raise_exception('two\nlines') }}", GYRE_E_INVALID, "two lines");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_jinja2),
        cmocka_unit_test(test_marks),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_faults),
    };
    const struct CMUnitTest numbers[] = {cmocka_unit_test(test_as_jinja2)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (comma_set()) failed += cmocka_run_group_tests_name("with a comma", numbers, NULL, NULL);
    comma_reset();
    return failed;
}
