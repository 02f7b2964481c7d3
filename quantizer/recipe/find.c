// Which recipes there are, by name and in files. See recipe.h.
#include "quantizer/recipe/recipe.h"
#include "quantizer/recipe/builtin.h"
#include "quantizer/recipe/fields.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct gyre_recipe_builtin *at(uint32_t index)
{
    for (uint32_t i = 0; gyre_recipe_builtins[i].name; i++)
        if (i == index) return &gyre_recipe_builtins[i];
    return NULL;
}

const char *gyre_recipe_name(uint32_t index) { return at(index) ? at(index)->name : NULL; }
const char *gyre_recipe_about(uint32_t index) { return at(index) ? at(index)->about : NULL; }
const char *gyre_recipe_source(uint32_t index) { return at(index) ? at(index)->source : NULL; }

static const struct gyre_recipe_builtin *built_in(const char *name)
{
    for (const struct gyre_recipe_builtin *b = gyre_recipe_builtins; b->name; b++)
        if (!strcmp(b->name, name)) return b;
    return NULL;
}

static bool named(const char *name, const char *end) { return strlen(name) > strlen(end) && gyre_ends(name, end); }

bool gyre_recipe_is_file(const char *name)
{
    return !built_in(name) && (strchr(name, '/') || named(name, ".yaml") || named(name, ".yml"));
}

static gyre_status unknown(const char *name, gyre_error *err)
{
    char names[160] = "";
    for (uint32_t i = 0; gyre_recipe_name(i); i++) {
        const size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", gyre_recipe_name(i));
    }
    return gyre_fail(err, GYRE_E_INVALID,
                     "unknown recipe (%.80s): the built-in ones are %s; the name of a file has a / or ends in .yaml",
                     name, names);
}

static gyre_status read_file(const char *path, struct gyre_recipe *out, gyre_error *err)
{
    char *text = NULL;
    uint64_t bytes = 0;
    gyre_status st = gyre_file_read(path, GYRE_RECIPE_BYTES, &text, &bytes, err);
    if (st == GYRE_E_FORMAT)
        return gyre_fail(err, st, "cannot read recipe (%s:1:1): the file is larger than the %d bytes that are allowed",
                         path, GYRE_RECIPE_BYTES);
    if (st == GYRE_OK) st = gyre_recipe_parse(text, (size_t)bytes, path, out, err);
    free(text);
    return st;
}

gyre_status gyre_recipe_find(const char *name, struct gyre_recipe *out, gyre_error *err)
{
    const struct gyre_recipe_builtin *b = built_in(name);
    if (b) return gyre_recipe_parse(b->text, b->bytes, b->name, out, err);
    return gyre_recipe_is_file(name) ? read_file(name, out, err) : unknown(name, err);
}

gyre_status gyre_recipe_describe(const char *name, gyre_recipe_form form, char **text, gyre_error *err)
{
    const struct gyre_recipe_builtin *b = built_in(name);
    *text = NULL;
    struct gyre_recipe *r = malloc(sizeof *r);
    if (!r) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for a recipe");
    gyre_status st = gyre_recipe_find(name, r, err);
    if (st == GYRE_OK) {
        const bool as_written = b && form == GYRE_RECIPE_YAML;
        *text = form == GYRE_RECIPE_JSON ? gyre_recipe_json(r) : as_written ? strdup(b->text) : gyre_recipe_text(r);
        if (!*text) st = gyre_fail(err, GYRE_E_NOMEM, "out of memory for the text of a recipe");
    }
    free(r);
    return st;
}

gyre_status gyre_recipe_inspect(const char *name, gyre_recipe_info *out, gyre_error *err)
{
    struct gyre_recipe *r = malloc(sizeof *r);
    if (!r) return gyre_fail(err, GYRE_E_NOMEM, "cannot read recipe (%s): out of memory", name);
    const gyre_status st = gyre_recipe_find(name, r, err);
    *out = (gyre_recipe_info){0};
    if (st == GYRE_OK) {
        snprintf(out->name, sizeof out->name, "%s", r->name);
        out->calibrates = gyre_recipe_calibrates(r) || r->budget.bits > 0 || r->budget.act > 0;
    }
    free(r);
    return st;
}

double gyre_recipe_damp(const struct gyre_recipe *recipe)
{
    double damp = 0;
    for (uint32_t s = 0; s < recipe->n_stages; s++) damp = GYRE_MAX(damp, recipe->stage[s].damp);
    return damp > 0 ? damp : 0.01;
}

uint32_t gyre_recipe_declared_group(const struct gyre_recipe *r, bool full, uint32_t wgroup)
{
    for (uint32_t i = 0; !full && i < r->n_exceptions; i++)
        if (r->exception[i].wgroup >= 0 && (uint32_t)r->exception[i].wgroup != wgroup) return 32;
    return wgroup;
}

bool gyre_recipe_corrects(const struct gyre_recipe *recipe)
{
    bool found = false;
    for (uint32_t s = 0; s < recipe->n_stages; s++) found |= recipe->stage[s].kind == GYRE_STAGE_CORRECT;
    return found;
}

bool gyre_recipe_calibrates(const struct gyre_recipe *r) { return r->calibration.windows > 0; }

uint32_t gyre_recipe_more_windows(const struct gyre_recipe *r)
{
    const uint32_t asked = r->distill.steps ? r->distill.windows : 0;
    return asked > r->calibration.windows ? asked - r->calibration.windows : 0;
}
