// The tables of gyre compare as Markdown. See compare.h.
#include "cli/args.h"
#include "cli/compare/compare.h"
#include "cli/compare/paired.h"
#include "cli/compare/table.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AFTER_TEXTS = 9 }; // columns of the first table behind those of the texts

// Text within a cell: '|' and line ends would end it.
static void put_text(struct cli_buffer *b, const char *text)
{
    for (; *text; text++) cli_put(b, *text == '|' ? "\\%c" : "%c", *text == '\n' ? ' ' : *text);
}

static void put_cell(struct cli_buffer *b, const char *text)
{
    cli_put(b, " ");
    put_text(b, text);
    cli_put(b, " |");
}

static void put_measure(struct cli_buffer *b, double v, double error, int digits)
{
    if (isnan(v)) cli_put(b, " |");
    else if (isnan(error)) cli_put(b, " %.*f |", digits, v); // it is not known
    else cli_put(b, " %.*f ± %.*f |", digits, v, digits, error);
}

static void put_number(struct cli_buffer *b, double v, int digits)
{
    if (isnan(v)) cli_put(b, " |");
    else cli_put(b, " %.*f |", digits, v);
}

static double only(bool known, double v) { return known ? v : (double)NAN; }

static void put_head(struct cli_buffer *b, const struct cli_cell *first)
{
    cli_put(b, "| recipe | setting | bits a weight |");
    for (uint32_t i = 0; i < first->n_texts; i++) {
        cli_put(b, " perplexity, ");
        put_text(b, first->text[i].name);
        cli_put(b, " | KL, ");
        put_text(b, first->text[i].name);
        cli_put(b, " |");
    }
    cli_put(b,
            " KL: median | 90 %% | 99 %% | largest | right token, RMS %% | same token, %% | size, MiB | quantize, s | "
            "evaluate, s |\n|---|---|---:|");
    for (uint32_t i = 0; i < first->n_texts; i++) cli_put(b, "---:|---:|");
    for (int i = 0; i < AFTER_TEXTS; i++) cli_put(b, "---:|");
    cli_put(b, "\n");
}

static void put_row(struct cli_buffer *b, const struct cli_cell *c, uint32_t n_texts)
{
    cli_put(b, "|");
    put_cell(b, c->recipe);
    put_cell(b, c->setting);
    if (c->failed[0]) {
        char why[sizeof c->failed + 16];
        snprintf(why, sizeof why, "failed: %s", c->failed);
        cli_put(b, " |");
        put_cell(b, why);
        for (uint32_t i = 0; i < 2 * n_texts + AFTER_TEXTS - 1; i++) cli_put(b, " |");
        cli_put(b, "\n");
        return;
    }
    put_number(b, c->bits_per_weight, 2);
    for (uint32_t i = 0; i < c->n_texts; i++) {
        const gyre_eval_result *r = &c->text[i].result;
        put_measure(b, r->ppl, r->ppl_stderr, 3);
        put_measure(b, only(r->has_reference, r->kl), r->kl_stderr, 4);
    }
    const bool known = c->all.has_reference;
    put_number(b, only(known, c->all.kl_median), 4);
    put_number(b, only(known, c->all.kl_p90), 3);
    put_number(b, only(known, c->all.kl_p99), 2);
    put_number(b, only(known, c->all.kl_max), 2);
    put_measure(b, only(known, 100 * c->all.dp_rms), 100 * c->all.dp_rms_stderr, 2);
    put_measure(b, only(known, 100 * c->all.top1_agreement), 100 * c->all.top1_stderr, 2);
    put_number(b, c->bytes / 1048576.0, 1);
    put_number(b, c->quantize_seconds, 1);
    put_number(b, c->eval_seconds, 1);
    cli_put(b, "\n");
}

// ---- differences ----------------------------------------------------------------------------------------------------

static void put_difference(struct cli_buffer *b, const struct cli_difference *d)
{
    const char *mark = cli_difference_is_sure(d) ? "**" : "";
    if (isnan(d->mean)) cli_put(b, " |");
    else if (isnan(d->low)) cli_put(b, " %+.4f |", d->mean);
    else cli_put(b, " %s%+.4f%s (%+.4f to %+.4f) |", mark, d->mean, mark, d->low, d->high);
}

static void put_difference_row(struct cli_buffer *b, const struct cli_cell *c, const struct cli_cell *base)
{
    uint32_t less = 0, more = 0;
    cli_put(b, "|");
    put_cell(b, c->recipe);
    put_cell(b, c->setting);
    for (uint32_t t = 0; t < c->n_texts; t++) {
        const struct cli_difference d = cli_cell_difference(c, base, (int)t);
        put_difference(b, &d);
        less += d.high < 0;
        more += d.low > 0;
    }
    const struct cli_difference all = cli_cell_difference(c, base, -1);
    put_difference(b, &all);
    cli_put(b, " %u | %u |\n", less, more);
}

static void put_differences(struct cli_buffer *b, const struct cli_comparison *c)
{
    bool begun = false;
    for (uint32_t i = 0; i < c->n_cells; i++) {
        const struct cli_cell *cell = &c->cell[i], *base = cli_cell_base(c, cell);
        if (!base) continue;
        if (!begun) {
            cli_put(b, "\nKL less that of ");
            put_text(b, c->base);
            cli_put(b,
                    " on the same windows, nats (95 %% interval; bold where it excludes 0):\n\n| recipe | setting |");
            for (uint32_t t = 0; t < cell->n_texts; t++) put_cell(b, cell->text[t].name);
            cli_put(b, " all | texts surely less | surely more |\n|---|---|");
            for (uint32_t t = 0; t < cell->n_texts + 3; t++) cli_put(b, "---:|");
            cli_put(b, "\n");
            begun = true;
        }
        put_difference_row(b, cell, base);
    }
}

// ---- positions ------------------------------------------------------------------------------------------------------

static uint32_t positions_of(const struct cli_cell *c, struct cli_position out[CLI_POSITIONS])
{
    struct cli_blocks blocks[CLI_LIST_MAX]; // borrowed
    for (uint32_t i = 0; i < c->n_texts; i++) blocks[i] = c->text[i].blocks;
    return c->failed[0] ? 0 : cli_positions(blocks, c->n_texts, out);
}

static void put_positions(struct cli_buffer *b, const struct cli_comparison *c)
{
    struct cli_position p[CLI_POSITIONS];
    const uint32_t n = positions_of(c->cell, p);
    cli_put(b, "\nKL by the tokens of the window that come before, nats:\n\n| recipe | setting |");
    for (uint32_t i = 0; i < n; i++) cli_put(b, " %u to %u |", p[i].from, p[i].to);
    cli_put(b, "\n|---|---|");
    for (uint32_t i = 0; i < n; i++) cli_put(b, "---:|");
    cli_put(b, "\n");
    for (uint32_t k = 1; k < c->n_cells; k++) {
        if (positions_of(&c->cell[k], p) != n) continue;
        cli_put(b, "|");
        put_cell(b, c->cell[k].recipe);
        put_cell(b, c->cell[k].setting);
        for (uint32_t i = 0; i < n; i++) put_measure(b, p[i].kl, p[i].kl_stderr, 4);
        cli_put(b, "\n");
    }
}

// ---- tasks ----------------------------------------------------------------------------------------------------------

static void put_tasks(struct cli_buffer *b, const struct cli_comparison *c)
{
    const struct cli_cell *first = c->cell;
    cli_put(b, "\nTasks:\n\n| recipe | setting |");
    for (uint32_t t = 0; t < first->n_tasks; t++) {
        put_cell(b, first->task[t].name);
        cli_put(b, " less than float, %% | flips | bits a byte |");
    }
    cli_put(b, "\n|---|---|");
    for (uint32_t t = 0; t < 4 * first->n_tasks; t++) cli_put(b, "---:|");
    cli_put(b, "\n");
    for (uint32_t i = 0; i < c->n_cells; i++) {
        const struct cli_cell *cell = &c->cell[i];
        if (cell->failed[0]) continue;
        cli_put(b, "|");
        put_cell(b, cell->recipe);
        put_cell(b, cell->setting);
        for (uint32_t t = 0; t < cell->n_tasks; t++) {
            const struct cli_task_figures f = cli_answers_figures(&cell->task[t], i ? cli_cell_task(first, t) : NULL);
            put_measure(b, 100 * f.accuracy, 100 * f.stderror, 2);
            put_measure(b, only(f.has_reference, 100 * (f.reference - f.accuracy)), 100 * f.difference_stderr, 2);
            if (f.has_reference) cli_put(b, " %u |", f.flips);
            else cli_put(b, " |");
            put_number(b, f.bits_per_byte, 4);
        }
        cli_put(b, "\n");
    }
}

// ---- all of it ------------------------------------------------------------------------------------------------------

char *cli_compare_markdown(const struct cli_comparison *comparison)
{
    struct cli_buffer b = {0};
    const struct cli_cell none = {0}, *first = comparison->n_cells ? comparison->cell : &none;
    bool bound = false;
    put_head(&b, first);
    for (uint32_t i = 0; i < comparison->n_cells; i++) {
        put_row(&b, &comparison->cell[i], first->n_texts);
        bound |= comparison->cell[i].all.kl_is_bound;
    }
    cli_put(&b,
            "\n%s, windows of %u tokens, %llu predicted tokens, %s, seed %llu, gyre %s. Perplexity and KL (nats) ± "
            "standard error from %s.",
            comparison->model, comparison->ctx, (unsigned long long)first->all.tokens, first->device,
            (unsigned long long)comparison->seed, GYRE_VERSION, first->all.stderr_from_windows ? "windows" : "tokens");
    for (uint32_t i = 0; i < comparison->n_calib; i++) {
        cli_put(&b, i ? ", " : " Calibrated on ");
        put_text(&b, comparison->calib[i]);
        if (i + 1 == comparison->n_calib) cli_put(&b, ".");
    }
    for (uint32_t i = 0; comparison->flattered && i < first->n_texts; i++) {
        if (!comparison->flattered[i]) continue;
        cli_put(&b, " **Figures on ");
        put_text(&b, first->text[i].name);
        cli_put(&b, " flatter what was calibrated on it.**");
    }
    if (bound)
        cli_put(&b, " KL is a lower bound: to the float model's %u largest logits and the rest as one.",
                comparison->reference_k);
    cli_put(&b, "\n");
    put_differences(&b, comparison);
    if (comparison->by_position && !first->failed[0]) put_positions(&b, comparison);
    if (first->n_tasks) put_tasks(&b, comparison);
    return cli_finish(&b);
}
