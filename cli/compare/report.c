// The table of gyre compare as CSV, and all its files. See compare.h.
#include "cli/compare/compare.h"
#include "cli/compare/paired.h"
#include "cli/compare/table.h"

#include "runtime/util/file.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double only(bool known, double v) { return known ? v : (double)NAN; }

// ---- CSV --------------------------------------------------------------------------------------------------------

static void put_csv_text(struct cli_buffer *b, const char *text)
{
    cli_put(b, "\"");
    for (; *text; text++) cli_put(b, *text == '"' ? "\"%c" : "%c", *text);
    cli_put(b, "\"");
}

static void put_csv_number(struct cli_buffer *b, double v)
{
    if (isnan(v)) cli_put(b, ",");
    else cli_put(b, ",%.10g", v);
}

static void put_csv_result(struct cli_buffer *b, const char *name, const gyre_eval_result *r)
{
    const bool reference = r->has_reference;
    const double v[] = {(double)r->tokens,
                        r->windows,
                        r->nll,
                        r->nll_stderr,
                        r->ppl,
                        r->ppl_stderr,
                        only(reference, r->kl),
                        only(reference, r->kl_stderr),
                        only(reference, r->kl_median),
                        only(reference, r->kl_p90),
                        only(reference, r->kl_p99),
                        only(reference, r->kl_max),
                        only(reference, r->dp_rms),
                        only(reference, r->dp_rms_stderr),
                        only(reference, r->top1_agreement),
                        only(reference, r->top1_stderr)};
    cli_put(b, ",");
    put_csv_text(b, name);
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) put_csv_number(b, v[i]);
    cli_put(b, ",%s,%s",
            !reference       ? ""
            : r->kl_is_bound ? "top-k bound"
                             : "exact",
            r->stderr_from_windows ? "windows" : "tokens");
}

// text < 0: a failed row.
static void put_csv_row(struct cli_buffer *b, const struct cli_cell *c, const struct cli_cell *base, int text)
{
    const struct cli_setting *w = &c->widths;
    const double v[] = {only(w->wbits, w->wbits),
                        only(w->wbits, w->wgroup),
                        w->act,
                        w->kv,
                        w->kv_v,
                        c->bits_per_weight,
                        c->bytes,
                        c->quantize_seconds,
                        c->eval_seconds};
    put_csv_text(b, c->recipe);
    cli_put(b, ",%s", c->setting);
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) put_csv_number(b, v[i]);
    if (text < 0) {
        cli_put(b, ",\"\",,,,,,,,,,,,,,,,,,,,,,");
    } else {
        const struct cli_difference none = {NAN, NAN, NAN, 0, false},
                                    d = base ? cli_cell_difference(c, base, text) : none;
        put_csv_result(b, c->text[text].name, &c->text[text].result);
        const double v3[] = {d.mean, d.low, d.high};
        for (size_t i = 0; i < sizeof v3 / sizeof *v3; i++) put_csv_number(b, v3[i]);
        cli_put(b, ",");
    }
    put_csv_text(b, c->failed);
    cli_put(b, "\n");
}

// One line per row and text; a failed row has one line.
static char *csv(const struct cli_comparison *comparison)
{
    struct cli_buffer b = {0};
    cli_put(
        &b,
        "recipe,setting,wbits,wgroup,act,kv,kv_v,bits_per_weight,bytes,quantize_seconds,eval_seconds,text,tokens,"
        "windows,"
        "nll,nll_stderr,ppl,ppl_stderr,kl,kl_stderr,kl_median,kl_p90,kl_p99,kl_max,dp_rms,dp_rms_stderr,top1_agreement,"
        "top1_stderr,kl_kind,stderr_from,kl_difference,difference_low,difference_high,failed\n");
    for (uint32_t i = 0; i < comparison->n_cells; i++) {
        const struct cli_cell *c = &comparison->cell[i];
        const struct cli_cell *base = cli_cell_base(comparison, c);
        if (c->failed[0]) put_csv_row(&b, c, NULL, -1);
        for (uint32_t k = 0; !c->failed[0] && k < c->n_texts; k++) put_csv_row(&b, c, base, (int)k);
    }
    return cli_finish(&b);
}

// ---- files ------------------------------------------------------------------------------------------------------

static gyre_status write_text(const char *prefix, const char *ending, const char *text, gyre_error *err)
{
    char path[4096];
    if (!text) return gyre_fail(err, GYRE_E_NOMEM, "cannot write (%s%s): out of memory", prefix, ending);
    if ((size_t)snprintf(path, sizeof path, "%s%s", prefix, ending) >= sizeof path)
        return gyre_fail(err, GYRE_E_IO, "cannot write (%s%s): its name is too long", prefix, ending);
    return gyre_file_write(path, text, strlen(text), err);
}

gyre_status cli_compare_write(const struct cli_comparison *comparison, const char *markdown, const char *prefix,
                              gyre_error *err)
{
    char path[4096];
    json_t *document = cli_comparison_json(comparison);
    char *table = csv(comparison),
         *json = document ? json_dumps(document, JSON_INDENT(1) | JSON_REAL_PRECISION(12)) : NULL;
    gyre_status st = GYRE_OK;
    GYRE_GO(write_text(prefix, ".md", markdown, err));
    GYRE_GO(write_text(prefix, ".csv", table, err));
    GYRE_GO(write_text(prefix, ".json", json, err));
    snprintf(path, sizeof path, "%.4000s.png", prefix); // as long as the .csv before it
    GYRE_GO(cli_compare_plot(comparison, path, err));
done:
    free(table);
    free(json);
    json_decref(document);
    return st;
}
