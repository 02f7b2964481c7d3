// The page of a run: well-formed, escaped, complete in itself, the same bytes each time; sections come and go with what
// is known. With a folder as argument it leaves the page there for looking at.
#include "quantizer/report/chart.h"
#include "quantizer/report/report.h"
#include "runtime/util/base.h"
#include "tests/quantizer/report/fake_report.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

static char *page(const struct gyre_report *r)
{
    char *html;
    size_t bytes;
    gyre_error err = {0};
    if (gyre_report_html(r, &html, &bytes, &err)) fail_msg("%s", err.message);
    assert_int_equal(strlen(html), bytes);
    return html;
}

// Elements close in order, attributes are name="value", text holds no bare & or <. Style sheets are passed over.
static void well_formed(const char *html)
{
    static char open[64][16];
    int depth = 0;
    assert_memory_equal(html, "<!DOCTYPE html>", 15);
    for (const char *p = html + 15; *p;) {
        if (*p == '&') {
            const char *end = strchr(p, ';');
            assert_true(end && end - p < 8);
        }
        if (*p == '>') fail_msg("a bare > at: %.60s", p);
        if (*p != '<') {
            p++;
            continue;
        }
        const bool closing = p[1] == '/';
        const char *name = p + 1 + closing;
        const size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789");
        if (n == 0 || n > 15) fail_msg("no tag at: %.60s", p);
        const char *at = name + n;
        while (*at && *at != '>' && *at != '/') {
            if (*at++ != ' ' || closing) fail_msg("a tag ends in a strange way at: %.60s", p);
            at += strspn(at, "abcdefghijklmnopqrstuvwxyzB-");
            if (strncmp(at, "=\"", 2) != 0) fail_msg("an attribute without a value at: %.60s", p);
            for (at += 2; *at && *at != '"'; at++)
                if (*at == '<') fail_msg("a tag in an attribute at: %.60s", p);
            at++;
        }
        const bool empty = *at == '/';
        at += empty;
        assert_int_equal(*at, '>');
        p = at + 1;
        if (closing) {
            if (depth == 0 || strlen(open[depth - 1]) != n || memcmp(open[depth - 1], name, n) != 0)
                fail_msg("</%.*s> closes <%s>", (int)n, name, depth ? open[depth - 1] : "");
            depth--;
        } else if (!empty) {
            assert_true(depth < 64);
            snprintf(open[depth++], 16, "%.*s", (int)n, name);
            if (n == 5 && !memcmp(name, "style", 5)) p = strstr(p, "</style>");
        }
    }
    assert_int_equal(depth, 0);
}

// A word of its own, outside of base64: "nan" and "inf" occur in others.
static bool has_word(const char *html, const char *word)
{
    for (const char *p = html; (p = strstr(p, word)); p++)
        if (!isalnum((unsigned char)p[-1]) && !isalnum((unsigned char)p[strlen(word)]) && p[-1] != '/' && p[-1] != '+')
            return true;
    return false;
}

static void self_contained(const char *html)
{
    static const char *const never[] = {"http:", "https:", "://", "<script", "<link", "@import", "url(", "href", "<a "};
    for (size_t i = 0; i < GYRE_COUNT(never); i++)
        if (strstr(html, never[i])) fail_msg("the page has %s", never[i]);
    for (const char *p = html; (p = strstr(p, "src=\"")); p++)
        assert_memory_equal(p, "src=\"data:image/png;base64,", 27);
    assert_false(has_word(html, "nan") || has_word(html, "inf") || has_word(html, "-nan") || has_word(html, "null"));
}

static struct fake_report fake;

static void a_full_report(void **state)
{
    const char *folder = *state;
    fake_report(&fake);
    char *html = page(&fake.report), *again = page(&fake.report);
    assert_string_equal(html, again);
    well_formed(html);
    self_contained(html);
    static const char *const wanted[] = {">Good</div>",
                                         "0.0861",
                                         "Error through the model",
                                         "Outliers before and after",
                                         "Block 0, input of q, k, v",
                                         "The choice of a rotation",
                                         "after gptq",
                                         "<code>blk.29.ffn_down.weight</code> <span class=\"soft\">w8 g32",
                                         "94.0 MiB",
                                         "of 256.6 MiB before",
                                         "4.50",
                                         "  - correct: {alpha: auto}\n",
                                         "calibration"};
    for (size_t i = 0; i < GYRE_COUNT(wanted); i++)
        if (!strstr(html, wanted[i])) fail_msg("the page lacks %s", wanted[i]);
    assert_null(strstr(html, "Worse than"));
    size_t pictures = 0;
    for (const char *p = html; (p = strstr(p, "<img ")); p++) pictures++;
    assert_int_equal(pictures, 3);
    gyre_error err = {0};
    if (folder && gyre_report_save(folder, &fake.report, &err)) fail_msg("%s", err.message);
    free(html);
    free(again);
}

// What is not known is left out, and what is half known has dashes.
static void absent_sections(void **state)
{
    (void)state;
    const double nan = (double)NAN;
    const struct gyre_report nothing = {
        .bits_per_weight = nan, .rtn_kl = nan, .recipe_kl = nan, .rtn_weight_error = nan, .recipe_weight_error = nan};
    char *html = page(&nothing);
    well_formed(html);
    self_contained(html);
    assert_null(strstr(html, "<section"));
    assert_null(strstr(html, "<svg"));
    assert_null(strstr(html, "class=\"tile\""));
    free(html);

    fake_report(&fake);
    struct gyre_report *r = &fake.report;
    r->rtn_kl = nan;
    r->rtn_weight_error = (double)INFINITY;
    r->source_bytes = 0;
    r->heat_after = NULL;
    for (int i = 0; i < 30; i++) fake.layer[i] = (gyre_quantize_layer){nan, nan};
    for (int i = 0; i < 30 * GYRE_PRODUCTS; i++) fake.tap[i].before = (struct gyre_tap_stats){nan, nan, nan, nan};
    fake.linear[3].weight_error = nan;
    fake.linear[4].after[1] = (double)-INFINITY;
    fake.surrogate[2] = nan;
    r->stage[2] = NULL;
    for (int i = 0; i < 210; i++) fake.linear[i].before = nan;
    html = page(r);
    well_formed(html);
    self_contained(html);
    assert_null(strstr(html, "Error through the model"));
    assert_null(strstr(html, "<img "));
    assert_non_null(strstr(html, "Outliers before and after"));
    assert_non_null(strstr(html, "error; rtn – %"));
    assert_non_null(strstr(html, "<td class=\"n\">–</td>"));
    assert_null(strstr(html, "class=\"mark a\""));
    assert_null(strstr(html, "plain rounding</th>")); // a column that nobody filled
    assert_non_null(strstr(html, "weight error</th>"));
    free(html);

    r->n_stages = 0; // a recipe without statistics
    html = page(r);
    well_formed(html);
    assert_non_null(strstr(html, "Linears</h2>"));
    assert_null(strstr(html, "after gptq"));
    for (int i = 0; i < 210; i++) fake.linear[i].weight_error = nan;
    free(html);
    html = page(r);
    assert_null(strstr(html, "Linears"));
    free(html);
}

// One block, one token, one seed, no range of values.
static void small_reports(void **state)
{
    (void)state;
    fake_report(&fake);
    struct gyre_report *r = &fake.report;
    r->layers = r->n_seeds = r->n_linears = 1;
    r->n_stages = 0;
    fake.layer[0] = (gyre_quantize_layer){0, 0};
    fake.surrogate[0] = 0;
    fake.tap[0].before = fake.tap[0].after;
    static const float zero[1] = {0};
    gyre_heat_begin(&fake.before, 1, 1);
    gyre_heat_begin(&fake.after, 1, 1);
    gyre_heat_add(&fake.before, 0, 1, zero);
    char *html = page(r);
    well_formed(html);
    self_contained(html);
    free(html);
}

static void texts_are_escaped(void **state)
{
    (void)state;
    fake_report(&fake);
    struct gyre_report *r = &fake.report;
    r->model = "<script>alert(\"1\")</script> & 'co'";
    r->recipe = "a\"b\xff\x01<";
    r->recipe_text = "# <b> & \"\n";
    r->stage[1] = "<i>\"x\"";
    fake.setting[0] = (struct gyre_report_row){"<u>", "</td>&amp;"};
    snprintf(fake.name[5], sizeof fake.name[5], "blk.0.\"><img src=x>.weight");
    char *html = page(r);
    well_formed(html);
    self_contained(html);
    assert_non_null(strstr(html, "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;co&#39;"));
    assert_non_null(strstr(html, "a&quot;b\xEF\xBF\xBD\xEF\xBF\xBD&lt;"));
    assert_non_null(strstr(html, "<pre># &lt;b&gt; &amp; &quot;\n</pre>"));
    assert_non_null(strstr(html, "after &lt;i&gt;&quot;x&quot;"));
    assert_non_null(strstr(html, "&lt;/td&gt;&amp;amp;"));
    assert_null(strstr(html, "<img src=x"));
    free(html);
}

static void verdicts(void **state)
{
    (void)state;
    assert_string_equal(gyre_report_verdict(0), "excellent");
    assert_string_equal(gyre_report_verdict(0.05), "excellent");
    assert_string_equal(gyre_report_verdict(0.0501), "good");
    assert_string_equal(gyre_report_verdict(0.15), "good");
    assert_string_equal(gyre_report_verdict(0.5), "usable");
    assert_string_equal(gyre_report_verdict(0.51), "poor");
    assert_string_equal(gyre_report_verdict((double)INFINITY), "poor");
    assert_null(gyre_report_verdict((double)NAN));
    fake_report(&fake);
    fake.report.recipe_kl = 0.3;
    fake.report.rtn_kl = 0.2;
    char *html = page(&fake.report), *text;
    size_t bytes;
    assert_non_null(strstr(html, ">Usable</div>"));
    assert_non_null(strstr(html, "Worse than plain rounding"));
    assert_int_equal(gyre_report_text(&fake.report, &text, &bytes, NULL), GYRE_OK);
    assert_non_null(strstr(text, "Usable: KL 0.30000 nats a token. Worse than plain rounding (0.20000)."));
    free(html);
    free(text);
    fake.report.recipe_kl = (double)INFINITY;
    html = page(&fake.report);
    assert_non_null(strstr(html, ">Poor</div>"));
    self_contained(html);
    free(html);
}

static void the_short_text(void **state)
{
    (void)state;
    fake_report(&fake);
    fake.setting[0].value = "a|b\nc";
    char *text;
    size_t bytes;
    assert_int_equal(gyre_report_text(&fake.report, &text, &bytes, NULL), GYRE_OK);
    assert_int_equal(strlen(text), bytes);
    assert_non_null(strstr(text, "Good: KL 0.08610 nats a token.\n"));
    assert_non_null(strstr(text, "| weights | a/b c |\n"));
    assert_non_null(strstr(text, "| KL to the float model, nats | 0.21400 | 0.08610 |\n"));
    assert_non_null(strstr(text, "| residual after block 29, relative squared error |"));
    free(text);
}

// base64 by its own test vectors (RFC 4648).
static void pictures_in_base64(void **state)
{
    (void)state;
    static const char *const vector[][2] = {{"", ""},
                                            {"f", "Zg=="},
                                            {"fo", "Zm8="},
                                            {"foo", "Zm9v"},
                                            {"foob", "Zm9vYg=="},
                                            {"fooba", "Zm9vYmE="},
                                            {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < GYRE_COUNT(vector); i++) {
        char *text, want[64];
        size_t bytes;
        FILE *f = open_memstream(&text, &bytes);
        assert_non_null(f);
        gyre_html_png(f, (const unsigned char *)vector[i][0], strlen(vector[i][0]));
        fclose(f);
        snprintf(want, sizeof want, "src=\"data:image/png;base64,%s\"", vector[i][1]);
        assert_string_equal(text, want);
        free(text);
    }
}

static void folders_that_cannot_be(void **state)
{
    (void)state;
    fake_report(&fake);
    gyre_error err = {0};
    assert_int_equal(gyre_report_save("/dev/null/report", &fake.report, &err), GYRE_E_IO);
    assert_non_null(strstr(err.message, "/dev/null/report"));
    static char longest[5000];
    memset(longest, 'a', sizeof longest - 1);
    assert_int_equal(gyre_report_save(longest, &fake.report, &err), GYRE_E_IO);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(a_full_report, argc > 1 ? argv[1] : NULL),
        cmocka_unit_test(absent_sections),
        cmocka_unit_test(small_reports),
        cmocka_unit_test(texts_are_escaped),
        cmocka_unit_test(verdicts),
        cmocka_unit_test(the_short_text),
        cmocka_unit_test(pictures_in_base64),
        cmocka_unit_test(folders_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
