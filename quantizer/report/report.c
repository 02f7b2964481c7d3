// The short text and the files. See report.h; the page is html.c's.
#include "quantizer/report/report.h"
#include "runtime/util/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- the short text -----------------------------------------------------------------------------------------

// A text in a table of Markdown: one line, no bars.
static void cell_text(FILE *f, const char *text)
{
    for (; text && *text; text++) fputc(*text == '|' ? '/' : (unsigned char)*text < 32 ? ' ' : *text, f);
}

static void cell(FILE *f, double value)
{
    if (isfinite(value)) fprintf(f, " %.5f |", value);
    else fprintf(f, " - |");
}

static void rows(FILE *f, const struct gyre_report_row *row, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        fprintf(f, "| ");
        cell_text(f, row[i].name);
        fprintf(f, " | ");
        cell_text(f, row[i].value);
        fprintf(f, " |\n");
    }
}

static void text(FILE *f, const struct gyre_report *r)
{
    const char *verdict = gyre_report_verdict(r->recipe_kl);
    fprintf(f, "# ");
    cell_text(f, r->model ? r->model : "Quantized model");
    fprintf(f, ", ");
    cell_text(f, r->recipe ? r->recipe : "no recipe");
    fprintf(f, "\n\n");
    if (verdict) fprintf(f, "%c%s: KL %.5f nats a token.", verdict[0] - 'a' + 'A', verdict + 1, r->recipe_kl);
    if (verdict && r->learned) fprintf(f, " That is before scales and gains were learned end to end.");
    if (verdict && r->recipe_kl > r->rtn_kl) fprintf(f, " Worse than plain rounding (%.5f).", r->rtn_kl);
    fprintf(f, "%s| setting | value |\n|---|---|\n", verdict ? "\n\n" : "");
    rows(f, r->setting, r->n_settings);
    rows(f, r->rotation, r->n_rotations);
    rows(f, r->calibration, r->n_calibrations);
    fprintf(f,
            "\nPlain rounding (rtn) beside the recipe, on %u tokens: a first impression, not a measurement; `gyre "
            "eval` measures.\n\n",
            r->summary_tokens);
    fprintf(f, "| | rtn | recipe |\n|---|---|---|\n| relative squared weight error |");
    cell(f, r->rtn_weight_error);
    cell(f, r->recipe_weight_error);
    fprintf(f, "\n| KL to the float model, nats |");
    cell(f, r->rtn_kl);
    cell(f, r->recipe_kl);
    for (uint32_t l = 0; r->layer && l < r->layers; l++) {
        fprintf(f, "\n| residual after block %u, relative squared error |", l);
        cell(f, r->layer[l].rtn_error);
        cell(f, r->layer[l].recipe_error);
    }
    fprintf(f, "\n");
}

gyre_status gyre_report_text(const struct gyre_report *report, char **out, size_t *bytes, gyre_error *err)
{
    *out = NULL;
    FILE *f = open_memstream(out, bytes);
    if (!f) return gyre_fail(err, GYRE_E_NOMEM, "cannot make a report: out of memory");
    text(f, report);
    const bool bad = ferror(f) != 0;
    if (fclose(f) == 0 && !bad) return GYRE_OK;
    free(*out);
    *out = NULL;
    return gyre_fail(err, GYRE_E_NOMEM, "cannot make a report: out of memory");
}

// ---- files --------------------------------------------------------------------------------------------------

static gyre_status write_one(const char *folder, const char *name, const char *data, size_t bytes, gyre_error *err)
{
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
        return gyre_fail(err, GYRE_E_IO, "cannot write report (%s): the name is too long", folder);
    return gyre_file_write(path, data, bytes, err);
}

gyre_status gyre_report_save(const char *folder, const struct gyre_report *report, gyre_error *err)
{
    char *html = NULL, *md = NULL;
    size_t html_bytes, md_bytes;
    gyre_status st = GYRE_OK;
    GYRE_GO(gyre_make_dirs(folder, err));
    GYRE_GO(gyre_report_html(report, &html, &html_bytes, err));
    GYRE_GO(gyre_report_text(report, &md, &md_bytes, err));
    GYRE_GO(write_one(folder, "report.md", md, md_bytes, err));
    GYRE_GO(write_one(folder, "report.html", html, html_bytes, err));
done:
    free(html);
    free(md);
    return st;
}
