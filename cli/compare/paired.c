// See paired.h.
#include "cli/compare/paired.h"
#include "runtime/util/base.h"

#include <math.h>
#include <string.h>

enum { FEW_WINDOWS = 8 }; // as in gyre_eval.h

// The 97.5 % point of Student's t: known values, from 12 degrees on the expansion around the normal's (Abramowitz and
// Stegun 26.7.5), which is right to 1e-4 there.
static double student(uint32_t degrees)
{
    static const double known[] = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469,
                                   2.3646,  2.3060, 2.2622, 2.2281, 2.2010};
    if (degrees <= sizeof known / sizeof *known) return known[degrees - 1];
    const double z = 1.959964, v = degrees, z3 = z * z * z, z5 = z3 * z * z, z7 = z5 * z * z;
    return z + (z3 + z) / (4 * v) + (5 * z5 + 16 * z3 + 3 * z) / (96 * v * v) +
           (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * v * v * v);
}

// Units of all texts from first to end-1: blocks of one window each, or of 64 tokens. Called twice, with the mean.
struct sums {
    double tokens, difference, squares;
    uint32_t units;
};

static struct sums sum_units(const struct cli_cell *a, const struct cli_cell *b, uint32_t first, uint32_t end,
                             bool windows, double mean)
{
    struct sums s = {0};
    for (uint32_t t = first; t < end; t++) {
        const struct cli_blocks *x = &a->text[t].blocks, *y = &b->text[t].blocks;
        const size_t unit = windows ? cli_blocks_per_window(x) : 1;
        for (size_t at = 0; at < x->n; at += unit) {
            double tokens = 0, difference = 0;
            for (size_t i = at; i < at + unit; i++) {
                const double n = cli_block_tokens(x, i);
                tokens += n;
                difference += n * (x->block[i].kl - y->block[i].kl);
            }
            s.tokens += tokens;
            s.difference += difference;
            s.squares += (difference - tokens * mean) * (difference - tokens * mean);
            s.units++;
        }
    }
    return s;
}

struct cli_difference cli_cell_difference(const struct cli_cell *a, const struct cli_cell *b, int text)
{
    const struct cli_difference unknown = {NAN, NAN, NAN, 0, false};
    const uint32_t first = text < 0 ? 0 : (uint32_t)text, end = text < 0 ? a->n_texts : first + 1;
    uint32_t windows = 0;
    for (uint32_t t = first; t < end; t++) {
        const struct cli_blocks *x = &a->text[t].blocks, *y = &b->text[t].blocks;
        if (!x->n || x->n != y->n || x->ctx != y->ctx) return unknown;
        windows += cli_blocks_windows(x);
    }
    const bool by_windows = windows >= FEW_WINDOWS;
    const struct sums whole = sum_units(a, b, first, end, by_windows, 0);
    if (!(whole.tokens > 0)) return unknown;
    struct cli_difference d = {whole.difference / whole.tokens, NAN, NAN, whole.units, by_windows};
    if (d.units < 2) return d;
    const double squares = sum_units(a, b, first, end, by_windows, d.mean).squares, units = d.units;
    const double half = student(d.units - 1) * sqrt(units / (units - 1) * squares) / whole.tokens;
    d.low = d.mean - half;
    d.high = d.mean + half;
    return d;
}

bool cli_difference_is_sure(const struct cli_difference *d) { return d->low > 0 || d->high < 0; }

const struct cli_cell *cli_cell_base(const struct cli_comparison *c, const struct cli_cell *cell)
{
    if (!c->base || cell == c->cell || cell->failed[0] || strcmp(cell->recipe, c->base) == 0) return NULL;
    for (uint32_t i = 1; i < c->n_cells; i++) {
        const struct cli_cell *other = &c->cell[i];
        if (strcmp(other->recipe, c->base) == 0 && strcmp(other->setting, cell->setting) == 0 && !other->failed[0] &&
            other->n_texts == cell->n_texts)
            return other;
    }
    return NULL;
}

const struct cli_answers *cli_cell_task(const struct cli_cell *cell, uint32_t task)
{
    return task < cell->n_tasks ? &cell->task[task] : NULL;
}
