// The page of whole runs: a calibrated recipe fills every section; an interrupted run ends with the page of an
// uninterrupted one; what is not measured is not there.
#include "tests/common/tiny.h"
#include "tests/common/files.h"

#include <gyre/gyre_quantize.h>

#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char recipe_text[] = "name: small\n"
                                  "rotate: true\n"
                                  "seeds: 3\n"
                                  "calibration: {windows: 8, tokens: 32}\n"
                                  "diagonals: {up_down: 0.5}\n"
                                  "activations: {clip: 0.95}\n"
                                  "rounding:\n"
                                  "  - correct\n"
                                  "  - gptq\n"
                                  "  - descent: {sweeps: 1}\n"
                                  "  - refit\n";

enum { LAYERS = 3 };
static const char *in;

static int setup(void **state)
{
    (void)state;
    omp_set_num_threads(1); // so little work that threads would only wait for each other
    struct tiny_options options = tiny_defaults();
    options.layers = LAYERS;
    options.tied = true;
    in = strdup(files_path("in.gguf"));
    FILE *f = fopen(files_path("small.yaml"), "w");
    if (!in || !f || fputs(recipe_text, f) < 0 || fclose(f)) return -1;
    return tiny_write_gguf(in, &options);
}

static int cleanup(void **state)
{
    (void)state;
    files_remove();
    free((char *)(uintptr_t)in);
    return 0;
}

// ---- runs -----------------------------------------------------------------------------------------------------

static int calls, stop_at;
static char *journal; // as it was when the run stopped

static int on_progress(void *user, double fraction, double eta, const char *what)
{
    (void)user;
    (void)fraction;
    (void)eta;
    (void)what;
    return ++calls == stop_at;
}

// Quantizes into OUT with its report in FOLDER (NULL: none); stops at call `stop` (0: never).
static gyre_status run(const char *recipe, const char *folder, int stop, bool resume, gyre_quantize_summary *s)
{
    gyre_error err = {0};
    const gyre_quantize_params p = {.source = in,
                                    .output = files_path("out.gguf"),
                                    .recipe = recipe,
                                    .wgroup = 0,
                                    .act = 4,
                                    .seed = 40,
                                    .force = !resume,
                                    .resume = resume,
                                    .report_dir = folder,
                                    .progress = on_progress};
    calls = 0;
    stop_at = stop;
    const gyre_status st = gyre_quantize(&p, s, &err);
    if (st != GYRE_OK && st != GYRE_E_CANCELLED) fail_msg("%s", err.message);
    return st;
}

static char *page_of(const char *folder, const char *file)
{
    char name[96];
    uint64_t n;
    snprintf(name, sizeof name, "%s/%s", folder, file);
    char *text = files_read(name, &n);
    if (!text) fail_msg("%s is not there", name);
    return text;
}

static void wants(const char *html, const char *const *wanted, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strstr(html, wanted[i])) fail_msg("the page lacks %s", wanted[i]);
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)); p++) n++;
    return n;
}

// ---- tests ----------------------------------------------------------------------------------------------------

static void a_calibrated_run_fills_the_page(void **state)
{
    (void)state;
    gyre_quantize_summary s;
    const char *folder = files_path("full");
    assert_int_equal(run(files_path("small.yaml"), folder, 0, false, &s), GYRE_OK);
    assert_string_equal(s.recipe, "small");
    assert_int_equal(s.n_seeds, 3);
    assert_int_equal(s.first_seed, 40);
    assert_true(s.rotation_seed >= 40 && s.rotation_seed < 43);
    assert_true(fabs(s.act_clip - 0.95) < 1e-6 && s.kv_clip == 1);
    assert_int_equal(s.linears, LAYERS * 7);
    assert_true(s.raised_damping <= s.linears && (s.raised_damping > 0) == (s.worst_damping > 0));
    char seed[64];
    snprintf(seed, sizeof seed, "seed %llu was taken", (unsigned long long)s.rotation_seed);
    const char *const wanted[] = {"after correct</th>",
                                  "after gptq</th>",
                                  "after descent</th>",
                                  "after refit</th>",
                                  "The choice of a rotation",
                                  seed,
                                  "Outliers before and after",
                                  "<summary>Every block</summary>",
                                  "the bundled text",
                                  "8 of 32 tokens",
                                  "<td>0.95</td>",
                                  "name: small\n",
                                  "windows: 8",
                                  "<code>blk.2.ffn_down.weight</code>",
                                  "correct, mean alpha",
                                  "inputs that were always zero",
                                  "Error through the model"};
    char *html = page_of(folder, "report.html"), *md = page_of(folder, "report.md");
    wants(html, wanted, sizeof wanted / sizeof *wanted);
    assert_null(strstr(html, "plain rounding</th>")); // not known in this basis
    assert_int_equal(count(html, "<img "), 3);
    assert_true(strstr(html, "tr(E H Eᵀ)") && !strstr(html, "learned end to end"));
    // Every number of every linear and tap is there.
    const char *tables = strstr(html, "<summary>Every block</summary>");
    assert_null(strstr(tables, "<td class=\"n\">–</td>"));
    assert_null(strstr(tables, "best\">–</td>"));
    assert_non_null(strstr(md, "| calibration windows | 8 of 32 tokens |"));
    free(html);
    free(md);
    gyre_quantize_summary_free(&s);
}

// What is learned afterwards is told, and that the figures are from before; the formula has what weighs outputs.
static void what_figures_are_of_is_said(void **state)
{
    (void)state;
    gyre_quantize_summary s;
    const char *folder = files_path("learned"), *recipe = files_path("learned.yaml");
    files_write(recipe, "name: learned\nrotate: true\ncalibration: {windows: 8, tokens: 32, outputs: 4}\n"
                        "rounding: [gptq]\ndistill: {steps: 2}\n");
    assert_int_equal(run(recipe, folder, 0, false, &s), GYRE_OK);
    assert_int_equal(s.distill_steps, 2);
    static const char *const wanted[] = {"before scales and gains were learned end to end", "tr(G E H Eᵀ)",
                                         "learned end to end</th>", "on 1 held-out windows; step "};
    char *html = page_of(folder, "report.html"), *md = page_of(folder, "report.md");
    wants(html, wanted, sizeof wanted / sizeof *wanted);
    assert_null(strstr(html, "tr(E H Eᵀ)"));
    assert_non_null(strstr(md, "That is before scales and gains were learned end to end."));
    assert_non_null(strstr(md, "| learned end to end | KL "));
    free(html);
    free(md);
    gyre_quantize_summary_free(&s);
}

// Stopped in the last block, with the others behind it.
static int late(const char *recipe)
{
    gyre_quantize_summary s;
    assert_int_equal(run(recipe, NULL, 0, false, &s), GYRE_OK);
    gyre_quantize_summary_free(&s);
    return calls - 1;
}

static void interrupted_runs_give_the_same_page(void **state)
{
    (void)state;
    const char *recipe = files_path("small.yaml");
    gyre_quantize_summary s;
    const int stop = late(recipe);
    assert_int_equal(run(recipe, files_path("whole"), 0, false, &s), GYRE_OK);
    gyre_quantize_summary_free(&s);
    remove(files_path("out.gguf"));
    assert_int_equal(run(recipe, files_path("parts"), stop, false, &s), GYRE_E_CANCELLED);
    uint64_t n;
    free(journal);
    journal = files_read(files_path("out.gguf.journal/state.json"), &n);
    assert_int_equal(run(recipe, files_path("parts"), 0, true, &s), GYRE_OK);
    assert_int_equal(s.resumed_layers, LAYERS - 1);
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "report.md" : "report.html";
        char *a = page_of(files_path("whole"), name), *b = page_of(files_path("parts"), name);
        assert_string_equal(a, b);
        free(a);
        free(b);
    }
    gyre_quantize_summary_free(&s);
}

static void finite_array(const json_t *list, size_t n)
{
    assert_int_equal(json_array_size(list), n);
    for (size_t i = 0; i < n; i++) assert_true(json_is_real(json_array_get(list, i)));
}

static void the_journal_keeps_the_figures(void **state)
{
    (void)state;
    if (!journal) fail_msg("no journal: the test before failed");
    json_t *root = json_loads(journal, 0, NULL), *notes = json_object_get(root, "notes");
    assert_int_equal(json_array_size(notes), LAYERS); // the tables, and all blocks but the last
    for (size_t l = 1; l < LAYERS; l++) {
        const json_t *note = json_array_get(notes, l), *linears = json_object_get(note, "linears"),
                     *taps = json_object_get(note, "taps");
        assert_int_equal(json_array_size(linears), 7);
        for (size_t i = 0; i < 7; i++) {
            const json_t *row = json_array_get(linears, i), *stages = json_object_get(row, "stages");
            finite_array(stages, 4);
            const double gptq = json_real_value(json_array_get(stages, 1)),
                         refit = json_real_value(json_array_get(stages, 3));
            assert_true(gptq > 0 && gptq < 0.1 && refit > 0 && refit <= gptq * 1.001); // each stage lowers it
            assert_true(json_real_value(json_object_get(row, "damp")) >= 0.01);
            const double alpha = json_real_value(json_object_get(row, "alpha"));
            assert_true(alpha >= 0 && alpha <= 1);
        }
        assert_int_equal(json_array_size(taps), 4);
        for (size_t t = 0; t < 4; t++) {
            const json_t *row = json_array_get(taps, t);
            finite_array(row, 8);
            for (size_t side = 0; side < 8; side += 4) {
                const double median = json_real_value(json_array_get(row, side)),
                             most = json_real_value(json_array_get(row, side + 1));
                assert_true(median >= 1 && most >= median && most <= sqrt(96));
            }
        }
    }
    json_decref(root);
}

// The first part without a report: its blocks have dashes, and there is no picture, which would be of the others'
// worst.
static void late_reports_have_gaps(void **state)
{
    (void)state;
    gyre_quantize_summary s;
    remove(files_path("out.gguf"));
    const int stop = late("quarot-rtn");
    remove(files_path("out.gguf"));
    assert_int_equal(run("quarot-rtn", NULL, stop, false, &s), GYRE_E_CANCELLED);
    assert_int_equal(run("quarot-rtn", files_path("gaps"), 0, true, &s), GYRE_OK);
    char *html = page_of(files_path("gaps"), "report.html");
    assert_non_null(strstr(html, "Outliers before and after"));
    assert_non_null(strstr(strstr(html, "<summary>Every block</summary>"), "<td class=\"n\">–</td>"));
    assert_null(strstr(html, "<img "));
    assert_true(isfinite(s.recipe_kl));
    // A recipe without statistics, a search or a choice.
    assert_null(strstr(html, "stage by stage"));
    assert_non_null(strstr(html, "Linears</h2>"));
    assert_null(strstr(html, "The choice of a rotation"));
    assert_null(strstr(html, "Calibration</h2>"));
    assert_int_equal(s.n_seeds, 1);
    assert_true(s.dead_inputs == 0 && s.raised_damping == 0);
    free(html);
    gyre_quantize_summary_free(&s);
}

// The device's taps are the host's, and plain rounding has them as well.
static void devices_see_the_same(void **state)
{
    (void)state;
    double error[2][2];
    for (int device = 0; device < 2; device++) {
        gyre_quantize_summary s;
        gyre_error err = {0};
        const gyre_quantize_params p = {.source = in,
                                        .output = files_path("out.gguf"),
                                        .recipe = device ? "quarot-rtn" : "rtn",
                                        .wgroup = 0,
                                        .device = device ? "cpu" : NULL,
                                        .force = true,
                                        .report_dir = files_path(device ? "device" : "host")};
        if (gyre_quantize(&p, &s, &err) != GYRE_OK) fail_msg("%s", err.message);
        gyre_quantize_summary_free(&s);
        char *html = page_of(p.report_dir, "report.html");
        // The median table's first row: its int4 error before, and after.
        const char *row = strstr(strstr(html, "Median over the blocks"), "<th scope=\"row\">input of q, k, v</th>");
        assert_non_null(row);
        for (int i = 0; i < 8; i++) {
            row = strstr(row, "<td class=\"n") + 12;
            row = strchr(row, '>') + 1;
            if (i >= 6) error[device][i - 6] = strtod(row, NULL);
        }
        assert_int_equal(count(html, "<img "), 3);
        free(html);
    }
    assert_true(error[0][0] > 0.001 && error[0][0] < 0.2);
    assert_true(fabs(error[0][0] / error[1][0] - 1) < 0.02);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_calibrated_run_fills_the_page),
        cmocka_unit_test(what_figures_are_of_is_said),
        cmocka_unit_test(interrupted_runs_give_the_same_page),
        cmocka_unit_test(the_journal_keeps_the_figures),
        cmocka_unit_test(late_reports_have_gaps),
        cmocka_unit_test(devices_see_the_same),
    };
    const int failed = cmocka_run_group_tests(tests, setup, cleanup);
    free(journal);
    return failed;
}
