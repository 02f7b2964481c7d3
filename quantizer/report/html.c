// The page, section by section. See report.h.
#include "quantizer/report/chart.h"
#include "quantizer/report/report.h"
#include "quantizer/report/style.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct gyre_scale_zone zones[] = {
    {"excellent ≤ 0.05", 0.05}, {"good ≤ 0.15", 0.15}, {"usable ≤ 0.5", 0.5}, {"poor", 3}};
static const char *const verdicts[] = {"excellent", "good", "usable", "poor"};

static int zone_of(double kl)
{
    int i = 0;
    while (i < 3 && kl > zones[i].end) i++;
    return i;
}

const char *gyre_report_verdict(double kl) { return isnan(kl) ? NULL : verdicts[zone_of(kl)]; }

// ---- pieces -------------------------------------------------------------------------------------------------

static void number_cell(FILE *f, double value, int digits, bool best)
{
    fprintf(f, "<td class=\"n%s\">", best ? " best" : "");
    gyre_html_number(f, value, digits);
    fputs("</td>", f);
}

static void facts(FILE *f, const char *title, const struct gyre_report_row *row, uint32_t n)
{
    if (!n) return;
    fprintf(f, "<div><h2>%s</h2><table class=\"facts\"><tbody>", title);
    for (uint32_t i = 0; i < n; i++) {
        fputs("<tr><th scope=\"row\">", f);
        gyre_html_text(f, row[i].name);
        fputs("</th><td>", f);
        gyre_html_text(f, row[i].value);
        fputs("</td></tr>", f);
    }
    fputs("</tbody></table></div>\n", f);
}

static void head_cells(FILE *f, const char *first, const char *const *name, uint32_t n)
{
    fputs("<table><thead><tr><th scope=\"col\">", f);
    gyre_html_text(f, first);
    fputs("</th>", f);
    for (uint32_t i = 0; i < n; i++) {
        fputs("<th class=\"n\" scope=\"col\">", f);
        gyre_html_text(f, name[i]);
        fputs("</th>", f);
    }
    fputs("</tr></thead><tbody>\n", f);
}

// ---- the verdict --------------------------------------------------------------------------------------------

static void verdict(FILE *f, const struct gyre_report *r)
{
    const double kl = r->recipe_kl;
    if (isnan(kl)) return;
    fprintf(f, "<section><div class=\"hero\"><div><div class=\"verdict v%d\">%c%s</div><p class=\"soft\">KL ",
            zone_of(kl), verdicts[zone_of(kl)][0] - 'a' + 'A', verdicts[zone_of(kl)] + 1);
    gyre_html_number(f, kl, 3);
    fputs(" nats a token from the float model", f);
    if (r->summary_tokens) fprintf(f, ", on %u tokens", r->summary_tokens);
    if (r->learned) fputs(", before scales and gains were learned end to end", f);
    fputs("</p></div><div>", f);
    const struct gyre_scale_mark marks[2] = {{"plain rounding", "a", r->rtn_kl}, {"this recipe", "b", kl}};
    gyre_chart_scale(f, "KL divergence of plain rounding and of the recipe on the scale of verdicts", 0.005, zones, 4,
                     marks);
    fputs("</div></div>", f);
    if (!isnan(r->rtn_kl) && kl > r->rtn_kl)
        fputs("<p class=\"warn\"><b>Worse than plain rounding.</b> On this text the recipe is further from the float "
              "model than "
              "rounding every weight to nearest. Take the recipe rtn, or another seed or calibration text.</p>",
              f);
    fputs("<p class=\"soft\" style=\"margin:14px 0 0\">A first impression from a short text, not a measurement: "
          "<code>gyre eval</code> "
          "measures.</p></section>\n",
          f);
}

static void tile(FILE *f, const char *label)
{
    fprintf(f, "</b><span>%s", label);
    fputs("</span></div>", f);
}

static void tiles(FILE *f, const struct gyre_report *r)
{
    fputs("<div class=\"tiles\">", f);
    if (r->output_bytes) {
        fputs("<div class=\"tile\"><b>", f);
        gyre_html_size(f, r->output_bytes);
        tile(f, "the quantized file");
    }
    if (r->output_bytes && r->source_bytes) {
        fputs("<div class=\"tile\"><b>", f);
        gyre_html_number(f, 100 * (double)r->output_bytes / (double)r->source_bytes, 3);
        fputs(" %</b><span>of ", f);
        gyre_html_size(f, r->source_bytes);
        fputs(" before</span></div>", f);
    }
    if (!isnan(r->bits_per_weight) && r->bits_per_weight > 0) {
        fprintf(f, "<div class=\"tile\"><b>%.2f", r->bits_per_weight);
        tile(f, "bits a weight in the blocks");
    }
    if (!isnan(r->recipe_weight_error)) {
        fputs("<div class=\"tile\"><b>", f);
        gyre_html_number(f, 100 * r->recipe_weight_error, 3);
        fputs(" %</b><span>weight error; rtn ", f);
        gyre_html_number(f, 100 * r->rtn_weight_error, 3);
        fputs(" %</span></div>", f);
    }
    fputs("</div>\n", f);
}

// ---- rotations, layers --------------------------------------------------------------------------------------

static void seeds(FILE *f, const struct gyre_report *r)
{
    if (!r->n_seeds) return;
    uint32_t chosen = r->n_seeds;
    for (uint32_t i = 0; i < r->n_seeds; i++)
        if (r->seed[i] == r->chosen_seed) chosen = i;
    fprintf(f,
            "<section><h2>The choice of a rotation</h2><p class=\"soft\">Each seed gives another rotation; the "
            "surrogate says on real "
            "activations how much quantizing them would cost. Less is better; seed %llu was taken.</p>",
            (unsigned long long)r->chosen_seed);
    gyre_chart_bars(f, "surrogate of each seed tried", r->seed, r->surrogate, r->n_seeds, chosen);
    fputs("</section>\n", f);
}

static void layers(FILE *f, const struct gyre_report *r)
{
    if (!r->layers || !r->layer) return;
    struct gyre_chart chart = {
        .about = "relative error of the residual stream after each block, plain rounding and recipe",
        .x_name = "block",
        .n = r->layers,
        .width = 1000,
        .height = 300,
        .n_lines = 2,
        .line = {{"plain rounding", "a", &r->layer->rtn_error, 2}, {"this recipe", "b", &r->layer->recipe_error, 2}}};
    if (!gyre_chart_has_points(&chart)) return;
    fputs("<section><h2>Error through the model</h2><p class=\"soft\">Relative squared distance of the residual stream "
          "to the float "
          "model's after each block, activations and KV cache quantized as configured.</p><div class=\"key\">"
          "<span><i class=\"a\"></i>plain rounding</span><span><i class=\"b\"></i>this recipe</span></div>",
          f);
    gyre_chart_lines(f, &chart);
    fputs("</section>\n", f);
}

// ---- activations --------------------------------------------------------------------------------------------

static void tap_charts(FILE *f, const struct gyre_report *r)
{
    enum { STRIDE = GYRE_PRODUCTS * sizeof(struct gyre_report_tap) / sizeof(double) };
    fputs("<div class=\"key\"><span><i class=\"a\"></i>before, median token</span><span><i class=\"a "
          "thin\"></i>before, largest</span>"
          "<span><i class=\"b\"></i>after, median token</span><span><i class=\"b thin\"></i>after, "
          "largest</span></div><div class=\"two\">",
          f);
    for (int t = 0; t < GYRE_PRODUCTS; t++) {
        const struct gyre_report_tap *at = &r->tap[t];
        const struct gyre_chart chart = {.about = gyre_products[t].input,
                                         .x_name = "block",
                                         .n = r->layers,
                                         .logarithmic = true,
                                         .width = 500,
                                         .height = 230,
                                         .n_lines = 4,
                                         .line = {{"before, largest", "a thin", &at->before.max_rms_max, STRIDE},
                                                  {"after, largest", "b thin", &at->after.max_rms_max, STRIDE},
                                                  {"before, median", "a", &at->before.max_rms_median, STRIDE},
                                                  {"after, median", "b", &at->after.max_rms_median, STRIDE}}};
        if (!gyre_chart_has_points(&chart)) continue;
        fprintf(f, "<figure><h3>%s</h3>", gyre_products[t].input);
        gyre_chart_lines(f, &chart);
        fputs("</figure>", f);
    }
    fputs("</div>\n", f);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The median over layers of one statistic of a tap; NaN where memory is short or none is known.
static double tap_median(const struct gyre_report *r, int tap, bool after, size_t offset)
{
    double *v = malloc(r->layers * sizeof *v), m = (double)NAN;
    uint32_t n = 0;
    for (uint32_t l = 0; v && l < r->layers; l++) {
        const struct gyre_report_tap *t = &r->tap[(size_t)l * GYRE_PRODUCTS + (size_t)tap];
        double one;
        memcpy(&one, (const char *)(after ? &t->after : &t->before) + offset, sizeof one);
        if (isfinite(one)) v[n++] = one;
    }
    if (n) {
        qsort(v, n, sizeof *v, ascending);
        m = (v[(n - 1) / 2] + v[n / 2]) / 2;
    }
    free(v);
    return m;
}

static const size_t stat_offset[] = {
    offsetof(struct gyre_tap_stats, max_rms_median), offsetof(struct gyre_tap_stats, max_rms_max),
    offsetof(struct gyre_tap_stats, kurtosis), offsetof(struct gyre_tap_stats, int4_error)};
enum { STATS = GYRE_COUNT(stat_offset) };

// Each statistic before and after, under one name.
static void stat_head(FILE *f)
{
    static const char *const names[STATS] = {"max/rms, median", "max/rms, largest", "kurtosis", "int4 error"};
    fputs("<table><thead><tr><th class=\"pair\"></th>", f);
    for (int i = 0; i < STATS; i++) fprintf(f, "<th class=\"pair\" colspan=\"2\" scope=\"colgroup\">%s</th>", names[i]);
    fputs("</tr><tr><th scope=\"col\">where</th>", f);
    for (int i = 0; i < STATS; i++)
        fputs("<th class=\"n\" scope=\"col\">before</th><th class=\"n\" scope=\"col\">after</th>", f);
    fputs("</tr></thead><tbody>\n", f);
}

static void tap_tables(FILE *f, const struct gyre_report *r)
{
    fputs("<h3 style=\"margin-top:18px\">Median over the blocks</h3><div class=\"scroll\">", f);
    stat_head(f);
    for (int t = 0; t < GYRE_PRODUCTS; t++) {
        fprintf(f, "<tr><th scope=\"row\">%s</th>", gyre_products[t].input);
        for (int i = 0; i < 2 * STATS; i++) number_cell(f, tap_median(r, t, i % 2, stat_offset[i / 2]), 3, i % 2);
        fputs("</tr>\n", f);
    }
    fputs("</tbody></table></div><details><summary>Every block</summary><div class=\"scroll\">", f);
    stat_head(f);
    for (uint32_t l = 0; l < r->layers; l++)
        for (int t = 0; t < GYRE_PRODUCTS; t++) {
            const struct gyre_report_tap *at = &r->tap[(size_t)l * GYRE_PRODUCTS + (size_t)t];
            fprintf(f, "<tr><th scope=\"row\">%u, %s</th>", l, gyre_products[t].input);
            for (int i = 0; i < 2 * STATS; i++) {
                double v;
                memcpy(&v, (const char *)(i % 2 ? &at->after : &at->before) + stat_offset[i / 2], sizeof v);
                number_cell(f, v, 3, i % 2);
            }
            fputs("</tr>\n", f);
        }
    fputs("</tbody></table></div></details>\n", f);
}

static void taps(FILE *f, const struct gyre_report *r)
{
    if (!r->tap || !r->layers) return;
    fputs(
        "<section class=\"long\"><h2>Outliers before and after</h2><p class=\"soft\">The largest channel of a token "
        "over "
        "the token's rms, where the linears read: before, in the float model; after, in the quantized one, behind its "
        "rotations. One large channel sets the step of all others: 1 is flat, about "
        "√(2 ln n) a Gaussian of n channels. Kurtosis (all tokens but the first) is 3 for a Gaussian; the int4 error "
        "is "
        "|Q(x) − x|²/|x|², the mean over tokens.</p>",
        f);
    tap_charts(f, r);
    tap_tables(f, r);
    fputs("</section>\n", f);
}

static double largest(const struct gyre_heat_map *m)
{
    double most = 0;
    for (uint32_t i = 0; i < m->rows * m->cols; i++)
        if (isfinite(m->cell[i])) most = fmax(most, (double)m->cell[i]);
    return most;
}

static gyre_status picture(FILE *f, const struct gyre_heat_map *m, double most, const char *about, gyre_error *err)
{
    unsigned char *png;
    size_t bytes;
    GYRE_TRY(gyre_heat_png(m, most, &png, &bytes, err));
    fprintf(f, "<img alt=\"%s\" ", about);
    gyre_html_png(f, png, bytes);
    fputs("/>", f);
    free(png);
    return GYRE_OK;
}

static gyre_status heat(FILE *f, const struct gyre_report *r, gyre_error *err)
{
    if (!r->heat_before || !r->heat_after || (uint32_t)r->heat_tap >= GYRE_PRODUCTS) return GYRE_OK;
    static const char *const names[2] = {"float model", "quantized model"};
    const struct gyre_heat_map *const maps[2] = {r->heat_before, r->heat_after};
    const double most = fmax(largest(maps[0]), largest(maps[1]));
    fprintf(f,
            "<section><h2>Block %u, %s</h2><p class=\"soft\">|x| where outliers are worst: tokens from top to bottom, "
            "channels from left to "
            "right, both on one logarithmic scale.</p><div class=\"two\">",
            r->heat_layer, gyre_products[r->heat_tap].input);
    for (int i = 0; i < 2; i++) {
        fputs("<figure>", f);
        GYRE_TRY(picture(f, maps[i], most, names[i], err));
        fprintf(f, "<figcaption>%s; largest ", names[i]);
        gyre_html_number(f, largest(maps[i]), 3);
        fputs("</figcaption></figure>", f);
    }
    struct gyre_heat_map ramp;
    gyre_heat_begin(&ramp, 1, 64);
    for (int i = 0; i < 64; i++) ramp.cell[i] = (float)pow(10, 3 * (i / 63.0 - 1));
    fputs("</div><div class=\"ramp\"><span>", f);
    gyre_html_number(f, most / 1000, 3);
    fputs("</span>", f);
    GYRE_TRY(picture(f, &ramp, 1, "colour scale", err));
    fputs("<span>", f);
    gyre_html_number(f, most, 3);
    fprintf(f, "</span><span>%llu tokens × %llu channels; a cell shows its largest</span></div></section>\n",
            (unsigned long long)maps[0]->tokens, (unsigned long long)maps[0]->channels);
    return GYRE_OK;
}

// ---- linears ------------------------------------------------------------------------------------------------

// "blk.3.attn_q.weight" -> "attn_q", its length.
static const char *kind_of(const char *name, size_t *length)
{
    if (!strncmp(name, "blk.", 4)) {
        const char *rest = name + 4 + strspn(name + 4, "0123456789");
        if (*rest == '.') name = rest + 1;
    }
    *length = strlen(name);
    if (*length > 7 && !strcmp(name + *length - 7, ".weight")) *length -= 7;
    return name;
}

static bool same_kind(const char *a, const char *b)
{
    size_t n, m;
    a = kind_of(a, &n);
    b = kind_of(b, &m);
    return n == m && !memcmp(a, b, n);
}

// Column `c` of a linear: 0 weight error, 1 plain rounding, 2.. after each stage.
static double linear_value(const struct gyre_report_linear *l, uint32_t c)
{
    return c == 0 ? l->weight_error : c == 1 ? l->before : l->after[c - 2];
}

// The columns that hold a number.
static uint32_t known_columns(const struct gyre_report *r, uint32_t column[2 + GYRE_MAX_STAGES])
{
    uint32_t n = 0;
    for (uint32_t c = 0; c < 2 + GYRE_MIN(r->n_stages, (uint32_t)GYRE_MAX_STAGES); c++) {
        bool known = false;
        for (uint32_t i = 0; i < r->n_linears && !known; i++) known = isfinite(linear_value(&r->linear[i], c));
        if (known) column[n++] = c;
    }
    return n;
}

static void mean_rows(FILE *f, const struct gyre_report *r, const uint32_t *column, uint32_t columns)
{
    for (uint32_t i = 0; i < r->n_linears; i++) {
        bool first = true;
        for (uint32_t j = 0; first && j < i; j++) first = !same_kind(r->linear[i].name, r->linear[j].name);
        if (!first) continue;
        size_t length;
        const char *kind = kind_of(r->linear[i].name, &length);
        char text[96];
        snprintf(text, sizeof text, "%.*s", (int)GYRE_MIN(length, sizeof text - 1), kind);
        fputs("<tr><th scope=\"row\"><code>", f);
        gyre_html_text(f, text);
        fputs("</code></th>", f);
        for (uint32_t c = 0; c < columns; c++) {
            double sum = 0;
            uint32_t n = 0;
            for (uint32_t j = i; j < r->n_linears; j++) {
                const double value = linear_value(&r->linear[j], column[c]);
                if (!isfinite(value) || !same_kind(r->linear[i].name, r->linear[j].name)) continue;
                sum += value;
                n++;
            }
            number_cell(f, n ? sum / n : (double)NAN, 3, c + 1 == columns);
        }
        fputs("</tr>\n", f);
    }
}

static void linears_intro(FILE *f, const struct gyre_report *r, bool staged)
{
    bool corrects = false;
    fputs("<section class=\"long\"><h2>Linears", f);
    if (!staged) {
        fputs("</h2><p class=\"soft\">The weight error, |E|²/|W|², of the codes written. Means over the blocks.</p>",
              f);
        return;
    }
    for (uint32_t i = 0; i < r->n_stages && i < GYRE_MAX_STAGES; i++)
        corrects |= r->stage[i] && !strcmp(r->stage[i], "correct");
    fputs(", stage by stage</h2><p class=\"soft\">Relative squared output error on the calibration text, ", f);
    fputs(r->weighs_outputs ? "tr(G E H Eᵀ) / tr(G W H Wᵀ) with H the second moments of the inputs and G those of the "
                              "loss's gradients at the outputs, after each stage of the recipe. "
                            : "tr(E H Eᵀ) / tr(W H Wᵀ) with H the second moments of the inputs, after each stage of "
                              "the recipe. ",
          f);
    if (corrects)
        fputs("The stage correct moves the target of the rounding, by so much; from there on errors are counted from "
              "the target. ",
              f);
    fputs("The weight error, |E|²/|W|², is that of the codes written. Means over the blocks.</p>", f);
}

static void linears(FILE *f, const struct gyre_report *r)
{
    uint32_t column[2 + GYRE_MAX_STAGES];
    const uint32_t columns = r->linear ? known_columns(r, column) : 0;
    if (!columns) return;
    const char *names[2 + GYRE_MAX_STAGES];
    char after[2 + GYRE_MAX_STAGES][48];
    for (uint32_t i = 0; i < columns; i++) {
        const uint32_t c = column[i];
        const char *stage = c < 2 || !r->stage[c - 2] ? "?" : r->stage[c - 2];
        snprintf(after[i], sizeof after[i], "after %s", stage);
        names[i] = c == 0 ? "weight error" : c == 1 ? "plain rounding" : after[i];
    }
    linears_intro(f, r, column[columns - 1] > 0);
    fputs("<div class=\"scroll\">", f);
    head_cells(f, "linear", names, columns);
    mean_rows(f, r, column, columns);
    fputs("</tbody></table></div><details><summary>Every linear</summary><div class=\"scroll\">", f);
    head_cells(f, "linear", names, columns);
    for (uint32_t i = 0; i < r->n_linears; i++) {
        const struct gyre_report_linear *l = &r->linear[i];
        fputs("<tr><th scope=\"row\"><code>", f);
        gyre_html_text(f, l->name);
        fputs("</code>", f);
        if (l->wbits) fprintf(f, " <span class=\"soft\">w%u", l->wbits);
        if (l->wbits && l->wgroup) fprintf(f, " g%u", l->wgroup);
        fputs(l->wbits ? "</span></th>" : "</th>", f);
        for (uint32_t c = 0; c < columns; c++) number_cell(f, linear_value(l, column[c]), 3, c + 1 == columns);
        fputs("</tr>\n", f);
    }
    fputs("</tbody></table></div></details></section>\n", f);
}

// ---- the page -----------------------------------------------------------------------------------------------

static void title(FILE *f, const struct gyre_report *r)
{
    gyre_html_text(f, r->model ? r->model : "A model");
    if (r->recipe) fputs(", ", f);
    gyre_html_text(f, r->recipe);
}

static gyre_status page(FILE *f, const struct gyre_report *r, gyre_error *err)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><meta name=\"viewport\" "
          "content=\"width=device-width, "
          "initial-scale=1\"/><meta name=\"color-scheme\" content=\"light dark\"/><title>",
          f);
    title(f, r);
    fputs("</title>\n<style>\n", f);
    for (size_t i = 0; i < GYRE_COUNT(gyre_report_style); i++) fprintf(f, "%s\n", gyre_report_style[i]);
    fputs("</style></head>\n<body><main><h1>", f);
    gyre_html_text(f, r->model ? r->model : "Quantized model");
    fputs("</h1><p class=\"lead\">", f);
    if (r->recipe) fputs("Quantized by gyre with the recipe <b>", f), gyre_html_text(f, r->recipe), fputs("</b>.", f);
    else fputs("Quantized by gyre.", f);
    fputs("</p>\n", f);
    verdict(f, r);
    tiles(f, r);
    layers(f, r);
    taps(f, r);
    GYRE_TRY(heat(f, r, err));
    seeds(f, r);
    linears(f, r);
    if (r->n_settings || r->n_rotations || r->n_calibrations) {
        fputs("<section><div class=\"two\">", f);
        facts(f, "Settings", r->setting, r->n_settings);
        facts(f, "Rotations", r->rotation, r->n_rotations);
        facts(f, "Calibration", r->calibration, r->n_calibrations);
        fputs("</div></section>\n", f);
    }
    if (r->recipe_text) {
        fputs("<section class=\"long\"><h2>The recipe</h2><pre>", f);
        gyre_html_text(f, r->recipe_text);
        fputs("</pre></section>\n", f);
    }
    fputs("<footer>Made by <code>gyre quantize --report</code>. The same model, recipe, seed and machine give the same "
          "page.</footer></main></body></html>\n",
          f);
    return GYRE_OK;
}

gyre_status gyre_report_html(const struct gyre_report *report, char **html, size_t *bytes, gyre_error *err)
{
    *html = NULL;
    FILE *f = open_memstream(html, bytes);
    if (!f) return gyre_fail(err, GYRE_E_NOMEM, "cannot make a report: out of memory");
    gyre_status st = page(f, report, err);
    const bool short_of_memory = ferror(f) != 0;
    if ((fclose(f) != 0 || short_of_memory) && st == GYRE_OK)
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot make a report: out of memory");
    if (st != GYRE_OK) {
        free(*html);
        *html = NULL;
    }
    return st;
}
