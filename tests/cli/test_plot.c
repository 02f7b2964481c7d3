// The canvas and the picture of gyre compare: what is drawn lies where it should, nothing is drawn outside, and the PNG
// has the size and the pixels it claims.
#include "cli/compare/compare.h"
#include "cli/compare/canvas.h"
#include "runtime/util/file.h"
#include "tests/common/ok.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#include <stb/stb_image.h>

static char directory[] = "test-plot-XXXXXX";
static char path[128];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(directory)) return 1;
    snprintf(path, sizeof path, "%s/plot.png", directory);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory);
}

static cli_colour at(const struct cli_canvas *c, int x, int y)
{
    const uint8_t *p = c->rgb + ((size_t)y * (size_t)c->width + (size_t)x) * 3;
    return (cli_colour)p[0] << 16 | (cli_colour)p[1] << 8 | p[2];
}

static int count(const struct cli_canvas *c, cli_colour colour)
{
    int n = 0;
    for (int y = 0; y < c->height; y++)
        for (int x = 0; x < c->width; x++) n += at(c, x, y) == colour;
    return n;
}

static void test_shapes(void **state)
{
    (void)state;
    struct cli_canvas c;
    OK(cli_canvas_create(53, 31, &c, err));
    assert_int_equal(count(&c, 0xFFFFFF), 53 * 31);
    cli_draw_rect(&c, 3, 4, 5, 6, 0x123456);
    assert_int_equal(count(&c, 0x123456), 30);
    assert_true(at(&c, 3, 4) == 0x123456 && at(&c, 7, 9) == 0x123456 && at(&c, 8, 9) == 0xFFFFFF);
    cli_draw_rect(&c, 20.5, 10, 1, 1, 0); // half a pixel each
    assert_true(at(&c, 20, 10) == at(&c, 21, 10) && abs((int)(at(&c, 20, 10) & 255) - 127) <= 1);
    cli_draw_line(&c, 30, 20.5, 50, 20.5, 1, 0xFF0000);
    assert_true(at(&c, 40, 20) == 0xFF0000 && at(&c, 40, 22) == 0xFFFFFF);
    cli_draw_line(&c, 45, 7, 45, 7, 8, 0x00FF00); // a disc
    assert_true(at(&c, 45, 7) == 0x00FF00 && at(&c, 47, 7) == 0x00FF00 && at(&c, 48, 10) != 0x00FF00);
    // Outside, huge, empty and impossible: nothing happens to memory.
    cli_draw_line(&c, -1e9, -1e9, 1e9, 1e9, 3, 0);
    cli_draw_rect(&c, -50, -50, 20, 20, 0);
    cli_draw_rect(&c, 40, 20, -5, 3, 0);
    cli_draw_dashed(&c, 5, 5, 5, 5, 1, 3, 0);
    cli_draw_dashed(&c, 5, 5, 9, 5, 1, 0, 0);
    cli_draw_line(&c, NAN, 3, 5, NAN, 2, 0);
    cli_draw_text(&c, 50, 30, -1, 9, 0, "beyond the edge");
    cli_canvas_free(&c);
    gyre_error why = {0};
    assert_int_equal(cli_canvas_create(0, 5, &c, &why), GYRE_E_INVALID);
    assert_int_equal(cli_canvas_create(20000, 5, &c, &why), GYRE_E_INVALID);
}

// The box of everything that is not white.
static void box(const struct cli_canvas *c, int out[4])
{
    out[0] = out[1] = 1 << 20;
    out[2] = out[3] = -1;
    for (int y = 0; y < c->height; y++)
        for (int x = 0; x < c->width; x++) {
            if (at(c, x, y) == 0xFFFFFF) continue;
            out[0] = x < out[0] ? x : out[0];
            out[1] = y < out[1] ? y : out[1];
            out[2] = x > out[2] ? x : out[2];
            out[3] = y > out[3] ? y : out[3];
        }
}

static void test_text(void **state)
{
    (void)state;
    const double width = cli_text_width("HELLO", 14);
    assert_true(fabs(cli_text_width("HELLO", 28) - 2 * width) < 1e-6 && width > 30);
    assert_true(cli_text_width("\xC3\xA9", 14) == cli_text_width("?", 14));
    for (int align = -1; align <= 1; align++) {
        for (int upright = 0; upright < 2; upright++) {
            struct cli_canvas c;
            int b[4];
            OK(cli_canvas_create(301, 301, &c, err));
            (upright ? cli_draw_text_upright : cli_draw_text)(&c, 150, 150, align, 14, 0, "HELLO");
            box(&c, b);
            const int length = upright ? b[3] - b[1] + 1 : b[2] - b[0] + 1,
                      height = upright ? b[2] - b[0] + 1 : b[3] - b[1] + 1;
            assert_true(fabs(length - width) < 6 && abs(height - 14) <= 2);
            const double middle = upright ? (b[1] + b[3]) / 2.0 : (b[0] + b[2]) / 2.0,
                         across = upright ? (b[0] + b[2]) / 2.0 : (b[1] + b[3]) / 2.0;
            assert_true(fabs(middle - (150 + (upright ? 1 : -1) * align * width / 2)) < 4 && fabs(across - 150) < 3);
            cli_canvas_free(&c);
        }
    }
}

static void test_png(void **state)
{
    (void)state;
    struct cli_canvas c;
    gyre_error why = {0};
    OK(cli_canvas_create(37, 23, &c, err));
    cli_draw_rect(&c, 5, 6, 7, 8, 0x0072B2);
    OK(cli_canvas_write(&c, path, err));
    int w, h, n;
    uint8_t *pixels = stbi_load(path, &w, &h, &n, 3);
    assert_non_null(pixels);
    assert_true(w == 37 && h == 23 && n == 3);
    assert_memory_equal(pixels, c.rgb, 37 * 23 * 3);
    free(pixels);
    assert_int_equal(cli_canvas_write(&c, "no-such-folder/x.png", &why), GYRE_E_IO);
    cli_canvas_free(&c);
}

enum { CELLS = 17 };
static struct cli_cell cells[CELLS];

static void fill(struct cli_cell *c, const char *recipe, const char *setting, double ppl, double kl)
{
    assert_true(cli_cell_create(1, 1, c));
    snprintf(c->recipe, sizeof c->recipe, "%s", recipe);
    snprintf(c->setting, sizeof c->setting, "%s", setting);
    c->widths = (struct cli_setting){4, 32, 8, 8, 8};
    c->bits_per_weight = 4.5;
    c->bytes = 1e6;
    c->quantize_seconds = 2;
    c->eval_seconds = 3;
    c->all = (gyre_eval_result){.tokens = 5000,
                                .windows = 20,
                                .nll = log(ppl),
                                .ppl = ppl,
                                .ppl_stderr = ppl / 30,
                                .has_reference = kl > 0,
                                .kl = kl,
                                .kl_stderr = kl / 20,
                                .kl_is_bound = kl > 0,
                                .top1_agreement = 0.75,
                                .stderr_from_windows = true};
    c->text[0] = (struct cli_cell_text){strdup("some, \"odd\" | text"), c->all, {.ctx = 130}};
    // Nine windows of three blocks; KL grows from window to window, and by `kl` from cell to cell.
    for (uint32_t w = 0; w < 9; w++)
        for (uint32_t seen = 1; seen < 130; seen++)
            assert_true(cli_blocks_add(&c->text[0].blocks,
                                       &(gyre_eval_token){.window = w, .seen = seen, .nll = 2, .kl = kl + 0.01 * w}));
    c->task[0] =
        (struct cli_answers){.name = "quiz", .item = calloc(4, sizeof *c->task[0].item), .n = 4, .requests = 8};
    assert_non_null(c->task[0].item);
    for (uint32_t i = 0; i < 4; i++) c->task[0].item[i] = (struct cli_answer){i % 2, i > 0 || kl > 0};
}

static struct cli_comparison example(void)
{
    static const char *const recipes[] = {"rtn", "quarot-rtn", "quarot-gptq", "a recipe with a very long name indeed",
                                          "best"},
                             *const settings[] = {"W4g32A8KV8", "W4g0A8KV8", "W4g32A4KV4"};
    uint32_t n = 0;
    fill(&cells[n++], "float", "A16KV16", 16.2, 0);
    cells[0].widths = (struct cli_setting){.act = 16, .kv = 16, .kv_v = 16};
    cells[0].quantize_seconds = NAN;
    for (int s = 0; s < 3; s++)
        for (int r = 0; r < 5; r++)
            fill(&cells[n++], recipes[r], settings[s], 16.2 + (s + 1) * 11.0 / (r + 1), (s + 1) * 0.4 / (r + 1));
    assert_true(cli_cell_create(1, 0, &cells[n]));
    snprintf(cells[n].recipe, sizeof cells[n].recipe, "best");
    snprintf(cells[n].setting, sizeof cells[n].setting, "W4g128A8KV8");
    snprintf(cells[n].failed, sizeof cells[n].failed, "rows of 576 are no multiple | of 128");
    return (struct cli_comparison){.model = "SmolLM2-135M-Instruct.gguf",
                                   .model_sha256 = "0",
                                   .profile = "full",
                                   .ctx = 512,
                                   .reference_k = 1024,
                                   .base = "quarot-rtn",
                                   .by_position = true,
                                   .cell = cells,
                                   .n_cells = n + 1};
}

static void done(void)
{
    for (int i = 0; i < CELLS; i++) cli_cell_free(&cells[i]);
}

// What is kept of a cell is the cell.
static void test_cells(void **state)
{
    (void)state;
    struct cli_comparison c = example();
    for (uint32_t i = 0; i < c.n_cells; i++) {
        json_t *json = cli_cell_json(&cells[i]);
        struct cli_cell back;
        assert_non_null(json);
        assert_true(cli_cell_read(json, &back));
        json_t *again = cli_cell_json(&back);
        assert_true(json_equal(json, again));
        assert_string_equal(back.failed, cells[i].failed);
        if (!cells[i].failed[0]) assert_true(back.n_tasks == 1 && back.n_texts == 1);
        assert_true(back.all.ppl == cells[i].all.ppl && back.all.has_reference == cells[i].all.has_reference);
        assert_true(isnan(back.quantize_seconds) == isnan(cells[i].quantize_seconds));
        assert_int_equal(json_object_get(json, "wbits") != NULL, cells[i].widths.wbits != 0);
        cli_cell_free(&back);
        json_decref(json);
        json_decref(again);
    }
    struct cli_cell none;
    assert_false(cli_cell_read(NULL, &none));
    struct cli_weights w = {.file = "a.gguf", .bits_per_weight = 4.25, .bytes = 5, .quantize_seconds = 2}, v;
    json_t *json = cli_weights_json(&w);
    assert_true(cli_weights_read(json, &v) && v.bits_per_weight == 4.25 && !strcmp(v.file, "a.gguf"));
    json_object_set_new(json, "file", json_string("../a.gguf")); // a journal does not point out of its folder
    assert_false(cli_weights_read(json, &v));
    json_decref(json);
    done();
}

static void test_compare_plot(void **state)
{
    (void)state;
    struct cli_comparison comparison = example();
    OK(cli_compare_plot(&comparison, path, err));
    int w, h, n;
    uint8_t *pixels = stbi_load(path, &w, &h, &n, 3);
    assert_non_null(pixels);
    assert_true(w == 1000 && h == 600);
    struct cli_canvas c = {w, h, pixels};
    const int white = count(&c, 0xFFFFFF);
    assert_true(white > 1000 * 600 / 2 && white < 1000 * 600 * 98 / 100);
    assert_true(count(&c, 0x0072B2) > 6 * 40 &&
                count(&c, 0xE69F00) > 6 * 40); // discs of the first two recipes, both panels
    free(pixels);
    // Nothing but a float row, one without figures, and no row at all are drawn, too.
    comparison.n_cells = 1;
    OK(cli_compare_plot(&comparison, path, err));
    cells[0].all = (gyre_eval_result){0};
    OK(cli_compare_plot(&comparison, path, err));
    comparison.n_cells = 0;
    OK(cli_compare_plot(&comparison, path, err));
    done();
}

static void test_tables(void **state)
{
    (void)state;
    struct cli_comparison comparison = example();
    char *table = cli_compare_markdown(&comparison), prefix[128], csv[160], *text;
    const char *const endings[] = {".md", ".csv", ".json", ".png"};
    assert_non_null(table);
    size_t columns = 0;
    int rows = 0;
    for (char *line = table; *line == '|'; line = strchr(line, '\n') + 1, rows++) {
        size_t bars = 0;
        for (char *p = line; *p != '\n'; p++) bars += *p == '|' && (p == line || p[-1] != '\\');
        if (!columns) columns = bars;
        assert_int_equal(bars, columns);
    }
    assert_int_equal(rows, 2 + 1 + 15 + 1);
    // rtn less the base at the first setting: .4 and .2, surely, in all nine windows alike. The base is not its own
    // rival.
    assert_non_null(strstr(table, "KL less that of quarot-rtn"));
    assert_non_null(strstr(table, "| rtn | W4g32A8KV8 | **+0.2000** (+0.2000 to +0.2000) | **+0.2000**"));
    assert_non_null(strstr(table, "| best | W4g32A8KV8 | **-0.1200**"));
    assert_null(strstr(table, "| quarot-rtn | W4g32A8KV8 | **"));
    assert_non_null(strstr(table, "| 1 to 64 | 65 to 128 | 129 to 129 |"));
    assert_non_null(strstr(table, "| quiz | less than float, % | flips | bits a byte |"));
    assert_non_null(strstr(table, "| best | W4g32A8KV8 | 100.00 ± 0.00 | -25.00 ± 25.00 | 0 | 0.0000 |"));
    assert_non_null(strstr(table, "failed: rows of 576 are no multiple \\| of 128"));
    assert_non_null(strstr(table, "lower bound"));
    snprintf(prefix, sizeof prefix, "%s/out", directory);
    OK(cli_compare_write(&comparison, table, prefix, err));
    snprintf(csv, sizeof csv, "%s.csv", prefix);
    OK(gyre_file_read(csv, 1 << 20, &text, NULL, err));
    assert_non_null(strstr(text, "\"some, \"\"odd\"\" | text\""));
    free(text);
    for (int i = 0; i < 4; i++) {
        snprintf(csv, sizeof csv, "%s%s", prefix, endings[i]);
        assert_int_equal(unlink(csv), 0);
    }
    free(table);
    done();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes), cmocka_unit_test(test_text),
                                       cmocka_unit_test(test_png),    cmocka_unit_test(test_compare_plot),
                                       cmocka_unit_test(test_tables), cmocka_unit_test(test_cells)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
