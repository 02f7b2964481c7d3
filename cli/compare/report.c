// The table of gyre compare as Markdown, CSV and JSON. See compare.h.
#include "cli/compare/compare.h"

#include "runtime/util/file.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double cli_json_number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static const char *word(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

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
    if (n < 0 || b->failed) {
        b->failed = 1;
        return;
    }
    if (b->n + (size_t)n + 1 > b->cap) {
        const size_t cap = 2 * b->cap + (size_t)n + 256;
        char *grown = realloc(b->text, cap);
        if (!grown) {
            b->failed = 1;
            return;
        }
        b->text = grown;
        b->cap = cap;
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

static void put_measure(struct buffer *b, const json_t *figures, const char *value, const char *error, int digits)
{
    const double v = cli_json_number(figures, value);
    if (isnan(v)) put(b, " |");
    else put(b, " %.*f ± %.*f |", digits, v, digits, cli_json_number(figures, error));
}

static void put_head(struct buffer *b, const json_t *texts)
{
    size_t i;
    json_t *text;
    put(b, "| recipe | setting | bits a weight |");
    json_array_foreach(texts, i, text)
    {
        put(b, " perplexity, ");
        put_text(b, word(text, "text"));
        put(b, " | KL, ");
        put_text(b, word(text, "text"));
        put(b, " |");
    }
    put(b, " same token, %% | size, MiB | quantize, s | evaluate, s |\n|---|---|---:|");
    json_array_foreach(texts, i, text) put(b, "---:|---:|");
    put(b, "---:|---:|---:|---:|\n");
}

static void put_row(struct buffer *b, const json_t *row, size_t n_texts)
{
    size_t i;
    json_t *text;
    const json_t *all = json_object_get(row, "all"), *failed = json_object_get(row, "failed");
    put(b, "|");
    put_cell(b, word(row, "recipe"));
    put_cell(b, word(row, "setting"));
    if (failed) {
        char why[560];
        snprintf(why, sizeof why, "failed: %s", json_string_value(failed));
        put(b, " |");
        put_cell(b, why);
        for (i = 0; i < 2 * n_texts + 3; i++) put(b, " |");
        put(b, "\n");
        return;
    }
    put(b, " %.2f |", cli_json_number(row, "bits_per_weight"));
    json_array_foreach(json_object_get(row, "texts"), i, text)
    {
        put_measure(b, text, "ppl", "ppl_stderr", 3);
        put_measure(b, text, "kl", "kl_stderr", 4);
    }
    const double same = cli_json_number(all, "top1_agreement"), seconds = cli_json_number(row, "quantize_seconds");
    if (isnan(same)) put(b, " |");
    else put(b, " %.2f ± %.2f |", 100 * same, 100 * cli_json_number(all, "top1_stderr"));
    put(b, " %.1f |", cli_json_number(row, "bytes") / 1048576.0);
    if (isnan(seconds)) put(b, " |");
    else put(b, " %.1f |", seconds);
    put(b, " %.1f |\n", cli_json_number(row, "eval_seconds"));
}

char *cli_compare_markdown(const json_t *comparison)
{
    struct buffer b = {0};
    size_t i;
    json_t *row;
    const json_t *rows = json_object_get(comparison, "rows"), *first = json_array_get(rows, 0), *all = NULL;
    const json_t *texts = json_object_get(first, "texts");
    bool bound = false;
    put_head(&b, texts);
    json_array_foreach(rows, i, row)
    {
        put_row(&b, row, json_array_size(texts));
        bound |= strcmp(word(json_object_get(row, "all"), "kl_kind"), "top-k bound") == 0;
        if (!all) all = json_object_get(row, "all");
    }
    put(&b,
        "\n%s, windows of %.0f tokens, %.0f predicted tokens, %s, seed %s, gyre %s. Perplexity and KL (nats) ± "
        "standard error from %s.",
        word(comparison, "model"), cli_json_number(comparison, "ctx"), cli_json_number(all, "tokens"),
        word(first, "device"), word(comparison, "seed"), word(comparison, "gyre"), word(all, "stderr_from"));
    if (bound)
        put(&b, " KL is a lower bound: to the float model's %.0f largest logits and the rest as one.",
            cli_json_number(comparison, "reference_k"));
    put(&b, "\n");
    return finish(&b);
}

// ---- CSV --------------------------------------------------------------------------------------------------------

static const char *const row_columns[] = {"wbits", "wgroup",           "act",         "kv", "bits_per_weight",
                                          "bytes", "quantize_seconds", "eval_seconds"};
static const char *const text_columns[] = {"tokens",     "windows", "nll",       "nll_stderr",     "ppl",
                                           "ppl_stderr", "kl",      "kl_stderr", "top1_agreement", "top1_stderr"};
enum {
    ROW_COLUMNS = sizeof row_columns / sizeof *row_columns,
    TEXT_COLUMNS = sizeof text_columns / sizeof *text_columns
};

static void put_csv_text(struct buffer *b, const char *text)
{
    put(b, "\"");
    for (; *text; text++) put(b, *text == '"' ? "\"%c" : "%c", *text);
    put(b, "\"");
}

static void put_csv_numbers(struct buffer *b, const json_t *object, const char *const *columns, int n)
{
    for (int i = 0; i < n; i++) {
        const double v = cli_json_number(object, columns[i]);
        if (isnan(v)) put(b, ",");
        else put(b, ",%.10g", v);
    }
}

static void put_csv_row(struct buffer *b, const json_t *row, const json_t *text)
{
    put_csv_text(b, word(row, "recipe"));
    put(b, ",%s", word(row, "setting"));
    put_csv_numbers(b, row, row_columns, ROW_COLUMNS);
    put(b, ",");
    put_csv_text(b, word(text, "text"));
    put_csv_numbers(b, text, text_columns, TEXT_COLUMNS);
    put(b, ",%s,%s,", word(text, "kl_kind"), word(text, "stderr_from"));
    put_csv_text(b, word(row, "failed"));
    put(b, "\n");
}

// One line per row and text; a failed row has one line.
static char *csv(const json_t *comparison)
{
    struct buffer b = {0};
    size_t i, k;
    json_t *row, *text;
    put(&b, "recipe,setting");
    for (i = 0; i < ROW_COLUMNS; i++) put(&b, ",%s", row_columns[i]);
    put(&b, ",text");
    for (i = 0; i < TEXT_COLUMNS; i++) put(&b, ",%s", text_columns[i]);
    put(&b, ",kl_kind,stderr_from,failed\n");
    json_array_foreach(json_object_get(comparison, "rows"), i, row)
    {
        if (json_object_get(row, "failed")) put_csv_row(&b, row, NULL);
        json_array_foreach(json_object_get(row, "texts"), k, text) put_csv_row(&b, row, text);
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

gyre_status cli_compare_write(const json_t *comparison, const char *markdown, const char *prefix, gyre_error *err)
{
    char path[4096];
    char *table = csv(comparison), *json = json_dumps(comparison, JSON_INDENT(1) | JSON_REAL_PRECISION(12));
    gyre_status st = GYRE_OK;
    GYRE_GO(write_text(prefix, ".md", markdown, err));
    GYRE_GO(write_text(prefix, ".csv", table, err));
    GYRE_GO(write_text(prefix, ".json", json, err));
    snprintf(path, sizeof path, "%.4000s.png", prefix); // as long as the .csv before it
    GYRE_GO(cli_compare_plot(comparison, path, err));
done:
    free(table);
    free(json);
    return st;
}
