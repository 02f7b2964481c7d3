// The table of gyre compare as Markdown, CSV and JSON. See compare.h.
#include "cli/compare/compare.h"

#include "runtime/util/array.h"
#include "runtime/util/file.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct buffer {
    char *text;
    size_t n, cap;
    int failed;
};

__attribute__((format(printf, 2, 3))) static void put(struct buffer *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || b->failed || !GYRE_ROOM(b->text, b->n + (size_t)n + 1, b->cap)) {
        b->failed = 1;
        return;
    }
    va_start(args, format);
    b->n += (size_t)vsnprintf(b->text + b->n, b->cap - b->n, format, args);
    va_end(args);
}

static char *finish(struct buffer *b)
{
    if (!b->failed) return b->text;
    free(b->text);
    return NULL;
}

// ---- Markdown ---------------------------------------------------------------------------------------------------

// Text within a cell: '|' and line ends would end it.
static void put_text(struct buffer *b, const char *text)
{
    for (; *text; text++) put(b, *text == '|' ? "\\%c" : "%c", *text == '\n' ? ' ' : *text);
}

static void put_cell(struct buffer *b, const char *text)
{
    put(b, " ");
    put_text(b, text);
    put(b, " |");
}

static void put_measure(struct buffer *b, double v, double error, int digits)
{
    if (isnan(v)) put(b, " |");
    else put(b, " %.*f ± %.*f |", digits, v, digits, error);
}

static void put_number(struct buffer *b, double v, int digits)
{
    if (isnan(v)) put(b, " |");
    else put(b, " %.*f |", digits, v);
}

static double only(bool known, double v) { return known ? v : (double)NAN; }

static void put_head(struct buffer *b, const struct cli_cell *first)
{
    put(b, "| recipe | setting | bits a weight |");
    for (uint32_t i = 0; i < first->n_texts; i++) {
        put(b, " perplexity, ");
        put_text(b, first->text[i].name);
        put(b, " | KL, ");
        put_text(b, first->text[i].name);
        put(b, " |");
    }
    put(b, " same token, %% | size, MiB | quantize, s | evaluate, s |\n|---|---|---:|");
    for (uint32_t i = 0; i < first->n_texts; i++) put(b, "---:|---:|");
    put(b, "---:|---:|---:|---:|\n");
}

static void put_row(struct buffer *b, const struct cli_cell *c, uint32_t n_texts)
{
    put(b, "|");
    put_cell(b, c->recipe);
    put_cell(b, c->setting);
    if (c->failed[0]) {
        char why[sizeof c->failed + 16];
        snprintf(why, sizeof why, "failed: %s", c->failed);
        put(b, " |");
        put_cell(b, why);
        for (uint32_t i = 0; i < 2 * n_texts + 3; i++) put(b, " |");
        put(b, "\n");
        return;
    }
    put_number(b, c->bits_per_weight, 2);
    for (uint32_t i = 0; i < c->n_texts; i++) {
        const gyre_eval_result *r = &c->text[i].result;
        put_measure(b, r->ppl, r->ppl_stderr, 3);
        put_measure(b, only(r->has_reference, r->kl), r->kl_stderr, 4);
    }
    put_measure(b, only(c->all.has_reference, 100 * c->all.top1_agreement), 100 * c->all.top1_stderr, 2);
    put_number(b, c->bytes / 1048576.0, 1);
    put_number(b, c->quantize_seconds, 1);
    put_number(b, c->eval_seconds, 1);
    put(b, "\n");
}

char *cli_compare_markdown(const struct cli_comparison *comparison)
{
    struct buffer b = {0};
    const struct cli_cell none = {0}, *first = comparison->n_cells ? comparison->cell : &none;
    bool bound = false;
    put_head(&b, first);
    for (uint32_t i = 0; i < comparison->n_cells; i++) {
        put_row(&b, &comparison->cell[i], first->n_texts);
        bound |= comparison->cell[i].all.kl_is_bound;
    }
    put(&b,
        "\n%s, windows of %u tokens, %llu predicted tokens, %s, seed %llu, gyre %s. Perplexity and KL (nats) ± "
        "standard error from %s.",
        comparison->model, comparison->ctx, (unsigned long long)first->all.tokens, first->device,
        (unsigned long long)comparison->seed, GYRE_VERSION, first->all.stderr_from_windows ? "windows" : "tokens");
    if (bound)
        put(&b, " KL is a lower bound: to the float model's %u largest logits and the rest as one.",
            comparison->reference_k);
    put(&b, "\n");
    return finish(&b);
}

// ---- CSV --------------------------------------------------------------------------------------------------------

static void put_csv_text(struct buffer *b, const char *text)
{
    put(b, "\"");
    for (; *text; text++) put(b, *text == '"' ? "\"%c" : "%c", *text);
    put(b, "\"");
}

static void put_csv_number(struct buffer *b, double v)
{
    if (isnan(v)) put(b, ",");
    else put(b, ",%.10g", v);
}

static void put_csv_result(struct buffer *b, const char *name, const gyre_eval_result *r)
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
                        only(reference, r->top1_agreement),
                        only(reference, r->top1_stderr)};
    put(b, ",");
    put_csv_text(b, name);
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) put_csv_number(b, v[i]);
    put(b, ",%s,%s,",
        !reference       ? ""
        : r->kl_is_bound ? "top-k bound"
                         : "exact",
        r->stderr_from_windows ? "windows" : "tokens");
}

static void put_csv_row(struct buffer *b, const struct cli_cell *c, const struct cli_cell_text *text)
{
    const struct cli_setting *w = &c->widths;
    const double v[] = {only(w->wbits, w->wbits),
                        only(w->wbits, w->wgroup),
                        w->act,
                        w->kv,
                        c->bits_per_weight,
                        c->bytes,
                        c->quantize_seconds,
                        c->eval_seconds};
    put_csv_text(b, c->recipe);
    put(b, ",%s", c->setting);
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) put_csv_number(b, v[i]);
    if (text) put_csv_result(b, text->name, &text->result);
    else put(b, ",\"\",,,,,,,,,,,,,");
    put_csv_text(b, c->failed);
    put(b, "\n");
}

// One line per row and text; a failed row has one line.
static char *csv(const struct cli_comparison *comparison)
{
    struct buffer b = {0};
    put(&b,
        "recipe,setting,wbits,wgroup,act,kv,bits_per_weight,bytes,quantize_seconds,eval_seconds,text,tokens,windows,"
        "nll,nll_stderr,ppl,ppl_stderr,kl,kl_stderr,top1_agreement,top1_stderr,kl_kind,stderr_from,failed\n");
    for (uint32_t i = 0; i < comparison->n_cells; i++) {
        const struct cli_cell *c = &comparison->cell[i];
        if (c->failed[0]) put_csv_row(&b, c, NULL);
        for (uint32_t k = 0; !c->failed[0] && k < c->n_texts; k++) put_csv_row(&b, c, &c->text[k]);
    }
    return finish(&b);
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
