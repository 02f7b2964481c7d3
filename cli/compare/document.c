// The comparison as JSON: its cells, with what only their neighbours tell. See compare.h.
#include "cli/compare/compare.h"
#include "cli/compare/paired.h"
#include "cli/json.h"

#include <math.h>
#include <stdio.h>

static bool put_difference(json_t *out, const struct cli_difference *d)
{
    if (isnan(d->mean)) return true;
    const bool ends = isnan(d->low) || (!json_object_set_new(out, "low", json_real(d->low)) &&
                                        !json_object_set_new(out, "high", json_real(d->high)));
    return ends && !json_object_set_new(out, "kl", json_real(d->mean)) &&
           !json_object_set_new(out, "units", json_integer(d->units)) &&
           !json_object_set_new(out, "units_are", json_string(d->by_windows ? "windows" : "blocks"));
}

static json_t *difference_json(const struct cli_cell *cell, const struct cli_cell *base)
{
    json_t *out = json_pack("{s:{}, s:[]}", "all", "texts");
    struct cli_difference d = cli_cell_difference(cell, base, -1);
    bool good = out && put_difference(json_object_get(out, "all"), &d);
    for (uint32_t i = 0; i < cell->n_texts && good; i++) {
        json_t *text = json_pack("{s:o}", "text", cli_json_text(cell->text[i].name));
        d = cli_cell_difference(cell, base, (int)i);
        good = text && put_difference(text, &d) && !json_array_append(json_object_get(out, "texts"), text);
        json_decref(text);
    }
    if (good) return out;
    json_decref(out);
    return NULL;
}

// A cell with what only its neighbours tell.
static json_t *row_json(const struct cli_comparison *c, const struct cli_cell *cell)
{
    json_t *out = cli_cell_json(cell), *tasks = json_object_get(out, "tasks");
    const struct cli_cell *base = cli_cell_base(c, cell);
    bool good = out != NULL;
    if (good && base) good = !json_object_set_new(out, "difference", difference_json(cell, base));
    for (uint32_t i = 0; i < json_array_size(tasks) && cell != c->cell && good; i++) {
        const struct cli_task_figures f = cli_answers_figures(&cell->task[i], cli_cell_task(c->cell, i));
        json_t *figures = cli_task_json(&cell->task[i], &f);
        good = figures && !json_object_update(json_array_get(tasks, i), figures);
        json_decref(figures);
    }
    if (good) return out;
    json_decref(out);
    return NULL;
}

json_t *cli_comparison_json(const struct cli_comparison *c)
{
    char seed[24];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)c->seed); // a string: JSON numbers end at 2^53
    json_t *rows = json_array();
    bool good = rows != NULL;
    for (uint32_t i = 0; i < c->n_cells && good; i++) good = !json_array_append_new(rows, row_json(c, &c->cell[i]));
    json_t *calib = c->n_calib ? json_array() : NULL;
    for (uint32_t i = 0; i < c->n_calib && good; i++) good = !json_array_append_new(calib, cli_json_text(c->calib[i]));
    if (!good) {
        json_decref(rows);
        json_decref(calib);
        return NULL;
    }
    return json_pack("{s:o, s:s, s:s, s:i, s:i, s:i, s:s, s:s, s:o*, s:o, s:o}", "model", cli_json_text(c->model),
                     "model_sha256", c->model_sha256, "gyre", GYRE_VERSION, "ctx", (int)c->ctx, "windows",
                     (int)c->windows, "reference_k", (int)c->reference_k, "seed", seed, "profile", c->profile, "calib",
                     calib, "base", c->base ? cli_json_text(c->base) : json_null(), "rows", rows);
}
