// The picture of gyre compare: perplexity above, KL below, one group of marks per setting, one colour per recipe.
#include "cli/compare/compare.h"
#include "cli/compare/canvas.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 1000, HEIGHT = 600, MAX_NAMES = 40, LEFT = 78, RIGHT = 212, TOP = 56, GAP = 26, BOTTOM = 62 };
static const cli_colour ink = 0x222222, faint = 0xE4E4E4, grey = 0x777777;
// Okabe and Ito's palette: told apart with any colour vision.
static const cli_colour colours[] = {0x0072B2, 0xE69F00, 0x009E73, 0xD55E00, 0xCC79A7, 0x56B4E9, 0x7A6A00, 0x5D3A9B};
enum { COLOURS = sizeof colours / sizeof *colours };

struct names {
    const char *name[MAX_NAMES];
    int n;
};
struct panel {
    double left, top, width, height, low, high;
}; // low, high: logarithms of the axis's ends

// What a panel shows.
struct measure {
    const char *title;
    bool divergence; // else perplexity
};

// NaN where the cell has none.
static double value_of(const struct cli_cell *c, const struct measure *m)
{
    const bool known = c->all.tokens && (!m->divergence || c->all.has_reference);
    return !known ? (double)NAN : m->divergence ? c->all.kl : c->all.ppl;
}

static double error_of(const struct cli_cell *c, const struct measure *m)
{
    return m->divergence ? c->all.kl_stderr : c->all.ppl_stderr;
}

// The place of a name, which is added where it is new; -1 where there is no room for more.
static int place(struct names *names, const char *name)
{
    for (int i = 0; i < names->n; i++) {
        if (strcmp(names->name[i], name) == 0) return i;
    }
    if (names->n == MAX_NAMES) return -1;
    names->name[names->n] = name;
    return names->n++;
}

static void collect(const struct cli_comparison *c, struct names *recipes, struct names *settings)
{
    for (uint32_t i = 1; i < c->n_cells; i++) { // the float model is a line
        place(recipes, c->cell[i].recipe);
        place(settings, c->cell[i].setting);
    }
}

// The axis holds all marks and a little more; at least a factor of 1.5, so that noise does not look like a difference.
static void scale(const struct cli_comparison *c, const struct measure *m, struct panel *p)
{
    p->low = INFINITY;
    p->high = -INFINITY;
    for (uint32_t i = 0; i < c->n_cells; i++) {
        const double v = value_of(&c->cell[i], m);
        if (!(v > 0) || !isfinite(v)) continue;
        p->low = fmin(p->low, log10(v));
        p->high = fmax(p->high, log10(v));
    }
    if (p->low > p->high) p->low = p->high = 0;
    const double short_of = log10(1.5) - (p->high - p->low), margin = 0.07 * (p->high - p->low) + 0.01;
    p->low -= margin + fmax(0, short_of / 2);
    p->high += margin + fmax(0, short_of / 2);
}

static double at_y(const struct panel *p, double value)
{
    const double share = (log10(fmax(value, 1e-300)) - p->low) / (p->high - p->low);
    return p->top + p->height * (1 - fmin(1, fmax(0, share)));
}

static void tick(struct cli_canvas *c, const struct panel *p, double value)
{
    char label[32];
    const double y = at_y(p, value);
    snprintf(label, sizeof label, "%.4g", value);
    cli_draw_rect(c, p->left, floor(y), p->width, 1, faint);
    cli_draw_text(c, p->left - 8, floor(y) + 0.5, 1, 9, ink, label);
}

// Ticks of a logarithmic axis: the coarsest of these patterns that gives three or more.
static void ticks(struct cli_canvas *c, const struct panel *p)
{
    static const double one[] = {1}, some[] = {1, 2, 5}, more[] = {1, 1.5, 2, 3, 4, 5, 6, 8},
                        many[] = {1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2,   2.2, 2.4, 2.6, 2.8,
                                  3, 3.3, 3.6, 4,   4.5, 5,   5.5, 6,   6.5, 7,   7.5, 8,   8.5, 9,   9.5};
    static const struct {
        const double *at;
        int n;
    } patterns[] = {{one, 1}, {some, 3}, {more, 8}, {many, 30}};
    for (int k = 0; k < 4; k++) {
        for (int draw = 0; draw < 2; draw++) {
            int n = 0;
            for (int decade = (int)floor(p->low); decade <= (int)floor(p->high); decade++) {
                for (int i = 0; i < patterns[k].n; i++) {
                    const double value = patterns[k].at[i] * pow(10, decade);
                    if (log10(value) < p->low || log10(value) > p->high) continue;
                    n++;
                    if (draw) tick(c, p, value);
                }
            }
            if (draw) return;
            if (n < 3 && k < 3) break;
        }
    }
}

static void mark(struct cli_canvas *c, const struct panel *p, double x, const struct cli_cell *cell,
                 const struct measure *m, cli_colour colour)
{
    const double v = value_of(cell, m), e = error_of(cell, m);
    if (!(v >= 0)) { // it failed
        const double y = p->top + p->height - 10;
        cli_draw_line(c, x - 4, y - 4, x + 4, y + 4, 2, colour);
        cli_draw_line(c, x - 4, y + 4, x + 4, y - 4, 2, colour);
        return;
    }
    if (e > 0) {
        const double top = at_y(p, v + e), bottom = at_y(p, fmax(v - e, 0));
        cli_draw_line(c, x, top, x, bottom, 1.6, colour);
        cli_draw_line(c, x - 4, top, x + 4, top, 1.6, colour);
        cli_draw_line(c, x - 4, bottom, x + 4, bottom, 1.6, colour);
    }
    cli_draw_line(c, x, at_y(p, v), x, at_y(p, v), 11, 0xFFFFFF);
    cli_draw_line(c, x, at_y(p, v), x, at_y(p, v), 9, colour);
}

static void draw_panel(struct cli_canvas *c, struct panel *p, const struct cli_comparison *all, struct names *recipes,
                       struct names *settings, const struct measure *m)
{
    const double group = p->width / (settings->n ? settings->n : 1),
                 step = fmin(34, 0.72 * group / (recipes->n ? recipes->n : 1));
    scale(all, m, p);
    ticks(c, p);
    for (int s = 1; s < settings->n; s++) cli_draw_rect(c, floor(p->left + s * group), p->top, 1, p->height, faint);
    const double reference = all->n_cells ? value_of(&all->cell[0], m) : 0;
    if (reference > 0) {
        const double y = floor(at_y(p, reference)) + 0.5;
        cli_draw_dashed(c, p->left, y, p->left + p->width, y, 1.5, 6, grey);
    }
    for (uint32_t i = 1; i < all->n_cells; i++) {
        const struct cli_cell *cell = &all->cell[i];
        const int r = place(recipes, cell->recipe), s = place(settings, cell->setting);
        if (r < 0 || s < 0) continue;
        mark(c, p, p->left + (s + 0.5) * group + (r - 0.5 * (recipes->n - 1)) * step, cell, m, colours[r % COLOURS]);
    }
    cli_draw_rect(c, p->left - 1, p->top, 1, p->height, ink);
    cli_draw_rect(c, p->left - 1, p->top + p->height, p->width + 1, 1, ink);
    cli_draw_text_upright(c, 18, p->top + p->height / 2, 0, 9, ink, m->title);
}

static void fit(char *out, size_t size, const char *text, double width, double letters)
{
    snprintf(out, size, "%s", text);
    for (size_t n = strlen(out); n > 3 && cli_text_width(out, letters) > width; n--) memcpy(out + n - 3, "..", 3);
}

static void legend(struct cli_canvas *c, const struct names *recipes, bool failed)
{
    const double x = WIDTH - RIGHT + 28;
    double y = TOP + 8;
    char label[64];
    for (int i = 0; i < recipes->n && y < HEIGHT - 80; i++, y += 22) {
        cli_draw_line(c, x, y, x, y, 9, colours[i % COLOURS]);
        fit(label, sizeof label, recipes->name[i], RIGHT - 48, 9);
        cli_draw_text(c, x + 14, y, -1, 9, ink, label);
    }
    cli_draw_dashed(c, x - 7, y, x + 8, y, 1.5, 3, grey);
    cli_draw_text(c, x + 14, y, -1, 9, ink, "float model");
    if (failed) {
        y += 22;
        cli_draw_line(c, x - 4, y - 4, x + 4, y + 4, 2, grey);
        cli_draw_line(c, x - 4, y + 4, x + 4, y - 4, 2, grey);
        cli_draw_text(c, x + 14, y, -1, 9, ink, "failed");
    }
    y += 30;
    cli_draw_text(c, x - 7, y, -1, 8, grey, "bars: one standard error");
}

gyre_status cli_compare_plot(const struct cli_comparison *comparison, const char *path, gyre_error *err)
{
    struct cli_canvas c;
    struct names recipes = {.n = 0}, settings = {.n = 0};
    char title[256], line[256];
    bool bound = false, failed = false;
    GYRE_TRY(cli_canvas_create(WIDTH, HEIGHT, &c, err));
    collect(comparison, &recipes, &settings);
    for (uint32_t i = 0; i < comparison->n_cells; i++) {
        bound |= comparison->cell[i].all.kl_is_bound;
        failed |= comparison->cell[i].failed[0] != 0;
    }
    const double height = (HEIGHT - TOP - GAP - BOTTOM) / 2.0;
    struct panel above = {.left = LEFT, .top = TOP, .width = WIDTH - LEFT - RIGHT, .height = height}, below = above;
    below.top += height + GAP;
    draw_panel(&c, &above, comparison, &recipes, &settings, &(struct measure){"perplexity (log axis)", false});
    draw_panel(&c, &below, comparison, &recipes, &settings,
               &(struct measure){bound ? "KL at least, nats (log)" : "KL to float, nats (log)", true});
    for (int s = 0; s < settings.n; s++) {
        const double group = below.width / settings.n;
        fit(line, sizeof line, settings.name[s], group - 6, 9);
        cli_draw_text(&c, below.left + (s + 0.5) * group, below.top + below.height + 17, 0, 9, ink, line);
    }
    cli_draw_text(&c, below.left + below.width / 2, HEIGHT - 18, 0, 9, ink, "weights, activations, KV cache");
    const uint32_t n_texts = comparison->n_cells ? comparison->cell[0].n_texts : 0;
    snprintf(title, sizeof title, "%.120s on %.80s%s", comparison->model,
             n_texts ? comparison->cell[0].text[0].name : "?", n_texts > 1 ? " and more" : "");
    fit(line, sizeof line, title, WIDTH - LEFT - 20, 12);
    cli_draw_text(&c, LEFT, 26, -1, 12, ink, line);
    legend(&c, &recipes, failed);
    const gyre_status st = cli_canvas_write(&c, path, err);
    cli_canvas_free(&c);
    return st;
}
