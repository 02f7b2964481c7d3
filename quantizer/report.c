// The short text, the files, and what is known of a run without measuring more. See report.h; the page is report_html.c's.
#include "quantizer/report.h"
#include "runtime/util/file.h"

#include <math.h>
#include <stdarg.h>
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
    if (verdict && r->recipe_kl > r->rtn_kl) fprintf(f, " Worse than plain rounding (%.5f).", r->rtn_kl);
    fprintf(f, "%s| setting | value |\n|---|---|\n", verdict ? "\n\n" : "");
    rows(f, r->setting, r->n_settings);
    rows(f, r->rotation, r->n_rotations);
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

// ---- from a plan and a summary ------------------------------------------------------------------------------

struct filling {
    struct gyre_report_facts *facts;
    uint32_t n;
};

__attribute__((format(printf, 3, 4))) static void fact(struct filling *to, const char *name, const char *format, ...)
{
    if (to->n == GYRE_REPORT_ROWS) return;
    va_list args;
    va_start(args, format);
    vsnprintf(to->facts->value[to->n], sizeof to->facts->value[to->n], format, args);
    va_end(args);
    to->facts->row[to->n] = (struct gyre_report_row){name, to->facts->value[to->n]};
    to->n++;
}

// "Hadamard, 576 = 12·12·2^2"
static void transform(struct filling *to, const char *name, const struct gyre_hadamard *h)
{
    char factors[64] = "";
    if (!h->n) return;
    for (int i = 0; i < 3; i++)
        if (h->k[i] > 1)
            snprintf(factors + strlen(factors), sizeof factors - strlen(factors), "%s%u", *factors ? "·" : "", h->k[i]);
    if (h->p)
        snprintf(factors + strlen(factors), sizeof factors - strlen(factors), "%s2^%u", *factors ? "·" : "", h->p);
    fact(to, name, "Hadamard, %u = %s", h->n, factors);
}

void gyre_report_begin(const struct gyre_plan *p, const gyre_quantize_summary *s, struct gyre_report_facts *facts,
                       struct gyre_report *r)
{
    const struct gyre_settings *set = &p->set;
    struct filling to = {facts, 0};
    *r = (struct gyre_report){.model = gyre_source_string(p->source, "general.name"),
                              .recipe = set->recipe.name,
                              .setting = facts->row,
                              .source_bytes = s->source_bytes,
                              .output_bytes = s->output_bytes,
                              .bits_per_weight = s->bits_per_weight,
                              .rtn_kl = s->rtn_kl,
                              .recipe_kl = s->recipe_kl,
                              .rtn_weight_error = s->rtn_weight_error,
                              .recipe_weight_error = s->recipe_weight_error,
                              .summary_tokens = s->summary_tokens,
                              .chosen_seed = set->seed,
                              .layer = s->layer,
                              .layers = s->layers};
    if (set->wbits >= 16) fact(&to, "weights", "%u bits, unrounded", set->wbits);
    else if (set->wgroup) fact(&to, "weights", "%u bits, groups of %u", set->wbits, set->wgroup);
    else fact(&to, "weights", "%u bits, per channel", set->wbits);
    fact(&to, "activations", "%u bits", set->act);
    fact(&to, "KV cache", "%u bits", set->kv);
    fact(&to, "profile", "%s", set->full ? "full" : "portable");
    fact(&to, "seed", "%llu", (unsigned long long)set->seed);
    fact(&to, "size", "%.1f MiB of %.1f MiB; %.3f bits a weight in the blocks", (double)s->output_bytes / 1048576,
         (double)s->source_bytes / 1048576, s->bits_per_weight);
    r->n_settings = to.n;
    r->rotation = facts->row + to.n;
    transform(&to, "R1, residual stream, merged", &p->rotator.r1);
    transform(&to, "R2, values of each head, merged", &p->rotator.r2);
    if (p->online.r3) transform(&to, "R3, queries and keys, online", &p->r3);
    transform(&to, "R4, input of down, online", &p->online.r4);
    transform(&to, "head, online", &p->online.head);
    r->n_rotations = to.n - r->n_settings;
    if (!r->n_rotations) fact(&to, "rotations", "none"), r->n_settings = to.n;
}

gyre_status gyre_report_write(const char *folder, const struct gyre_plan *plan, const gyre_quantize_summary *summary,
                              gyre_error *err)
{
    struct gyre_report_facts facts;
    struct gyre_report report;
    gyre_report_begin(plan, summary, &facts, &report);
    return gyre_report_save(folder, &report, err);
}
