// See fields.h.
#include "quantizer/recipe/fields.h"
#include "runtime/util/base.h"

#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const booleans[] = {"false", "true", NULL};
static const char *const stream_rotations[] = {"merged", "online", NULL};
static const char *const orders[] = {"natural", "descending", NULL};
static const char *const clips[] = {
    [GYRE_CLIP_NONE] = "none", [GYRE_CLIP_WEIGHTS] = "weights", [GYRE_CLIP_HESSIAN] = "hessian", NULL};
static const char *const methods[] = {[GYRE_LEARN_NONE] = "none",
                                      [GYRE_LEARN_OPTROT] = "optrot",
                                      [GYRE_LEARN_SPINQUANT] = "spinquant",
                                      [GYRE_LEARN_KL] = "kl",
                                      [GYRE_LEARN_AUTO] = "auto",
                                      [GYRE_LEARN_WHIP] = "whip",
                                      [GYRE_LEARN_KURTOSIS] = "kurtosis",
                                      [GYRE_LEARN_OSTQUANT] = "ostquant",
                                      NULL};
static const char *const diagonal_rules[] = {
    [GYRE_DIAGONAL_BALANCE] = "balance", [GYRE_DIAGONAL_LARGEST] = "largest", [GYRE_DIAGONAL_INPUTS] = "inputs", NULL};
static const int32_t runs_at[] = {4, 8, 16, -1};
static const int32_t widths[] = {4, 8, -1}, groups[] = {0, 32, 64, 128, -1}, spans[] = {0, 16, 32, 64, 128, -1};

// ---- rows -------------------------------------------------------------------------------------------------

#define AT(type, member) .at = offsetof(struct type, member)
#define TEXT(type, key_, member)                                                                                       \
    {                                                                                                                  \
        .key = key_, .kind = GYRE_FIELD_TEXT, AT(type, member), .size = sizeof(((struct type *)0)->member)             \
    }
#define SWITCH(type, key_, member, words_, preset_)                                                                    \
    {                                                                                                                  \
        .key = key_, .kind = GYRE_FIELD_SWITCH, AT(type, member), .words = words_, .preset = preset_                   \
    }
#define COUNT(type, key_, member, preset_, min_, max_)                                                                 \
    {                                                                                                                  \
        .key = key_, .kind = GYRE_FIELD_COUNT, AT(type, member), .preset = preset_, .min = min_, .max = max_           \
    }
#define LISTED(type, key_, member, preset_, list)                                                                      \
    {                                                                                                                  \
        .key = key_, .kind = GYRE_FIELD_LISTED, AT(type, member), .preset = preset_, .listed = list                    \
    }
#define REAL(type, key_, member, preset_, min_, max_)                                                                  \
    {                                                                                                                  \
        .key = key_, .kind = GYRE_FIELD_REAL, AT(type, member), .preset = preset_, .min = min_, .max = max_            \
    }
#define OR_AUTO(type, key_, member, preset_, min_, max_)                                                               \
    {                                                                                                                  \
        .key = key_, .kind = GYRE_FIELD_AUTO, AT(type, member), .preset = preset_, .min = min_, .max = max_            \
    }
#define COUNT_OR_AUTO(type, key_, member, preset_, min_, max_)                                                         \
    {                                                                                                                  \
        .key = key_, .kind = GYRE_FIELD_COUNT_AUTO, AT(type, member), .preset = preset_, .min = min_, .max = max_      \
    }
#define MAP(key_, map_)                                                                                                \
    {                                                                                                                  \
        .key = key_, .kind = GYRE_FIELD_MAP, .map = map_                                                               \
    }
#define FIELDS(what_, rows)                                                                                            \
    {                                                                                                                  \
        what_, GYRE_COUNT(rows), rows                                                                                  \
    }

static const struct gyre_field diagonals[] = {
    {.key = "by", .kind = GYRE_FIELD_CHOICE, AT(gyre_recipe, diagonals.by), .words = diagonal_rules},
    OR_AUTO(gyre_recipe, "norm", diagonals.norm, 0, 0, 1),
    OR_AUTO(gyre_recipe, "up_down", diagonals.up_down, 0, 0, 1),
    REAL(gyre_recipe, "qk", diagonals.qk, 0, 0, 1),
    OR_AUTO(gyre_recipe, "value", diagonals.value, 0, 0, 1),
};
static const struct gyre_field learn[] = {
    {.key = "method", .kind = GYRE_FIELD_CHOICE, AT(gyre_recipe, learn.method), .words = methods},
    COUNT(gyre_recipe, "steps", learn.steps, 100, 1, 100000),
    REAL(gyre_recipe, "rate", learn.rate, 1.5, 1e-6, 100),
    LISTED(gyre_recipe, "act", learn.act, 4, runs_at),
    LISTED(gyre_recipe, "kv", learn.kv, 4, runs_at),
};
static const struct gyre_field calibration[] = {
    // windows: 0 where nothing needs statistics
    COUNT(gyre_recipe, "windows", calibration.windows, 32, 0, 4096),
    COUNT(gyre_recipe, "tokens", calibration.tokens, 512, 16, 65536),
    SWITCH(gyre_recipe, "fisher", calibration.fisher, booleans, 0),
    COUNT_OR_AUTO(gyre_recipe, "outputs", calibration.outputs, 0, 0, 4096),
};
static const struct gyre_field activations[] = {
    OR_AUTO(gyre_recipe, "clip", act_clip, 1, 0.5, 1),
    LISTED(gyre_recipe, "group", act_group, 0, spans),
};
static const struct gyre_field cache[] = {
    OR_AUTO(gyre_recipe, "clip", kv_clip, 1, 0.5, 1),
    SWITCH(gyre_recipe, "centre", kv_centre, booleans, 0),
};
static const struct gyre_field distill[] = {
    COUNT_OR_AUTO(gyre_recipe, "steps", distill.steps, 0, 0, 100000),
    COUNT(gyre_recipe, "batch", distill.batch, 1, 1, 4096),
    COUNT(gyre_recipe, "windows", distill.windows, 0, 0, 4096),
    OR_AUTO(gyre_recipe, "rate", distill.rate, 0.0015, 1e-6, 0.1),
    REAL(gyre_recipe, "clip_rate", distill.clip_rate, 0.004, 0, 0.1),
    REAL(gyre_recipe, "pull", distill.pull, 0, 0, 10),
};
static const struct gyre_field budget[] = {
    REAL(gyre_recipe, "bits", budget.bits, 0, 0, 16),
    REAL(gyre_recipe, "act", budget.act, 0, 0, 16),
};
const struct gyre_fields gyre_recipe_calibration = FIELDS("calibration", calibration);
static const struct gyre_fields learn_map = FIELDS("learn", learn), diagonals_map = FIELDS("diagonals", diagonals),
                                activations_map = FIELDS("activations", activations),
                                cache_map = FIELDS("cache", cache), distill_map = FIELDS("distill", distill),
                                budget_map = FIELDS("budget", budget);

static const struct gyre_field recipe[] = {
    {.key = "name", .kind = GYRE_FIELD_NAME, AT(gyre_recipe, name), .size = GYRE_RECIPE_NAME},
    TEXT(gyre_recipe, "about", about),
    TEXT(gyre_recipe, "source", source),
    SWITCH(gyre_recipe, "rotate", rotate, booleans, 0),
    SWITCH(gyre_recipe, "r1", online_r1, stream_rotations, 0),
    COUNT(gyre_recipe, "seeds", seeds, 1, 1, 1024),
    MAP("learn", &learn_map),
    MAP("diagonals", &diagonals_map),
    MAP("calibration", &gyre_recipe_calibration),
    MAP("activations", &activations_map),
    MAP("cache", &cache_map),
    {.key = "rounding", .kind = GYRE_FIELD_STAGES},
    MAP("distill", &distill_map),
    {.key = "budget", .kind = GYRE_FIELD_MAP, .map = &budget_map, .quiet = true},
    {.key = "exceptions", .kind = GYRE_FIELD_EXCEPTIONS},
};
const struct gyre_fields gyre_recipe_fields = FIELDS("a recipe", recipe);

static const struct gyre_field exception[] = {
    TEXT(gyre_exception, "tensors", tensors),
    LISTED(gyre_exception, "wbits", wbits, 0, widths),
    LISTED(gyre_exception, "wgroup", wgroup, -1, groups),
    LISTED(gyre_exception, "act", act, 0, runs_at),
};
const struct gyre_fields gyre_exception_fields = FIELDS("an exception", exception);

#define CLIP                                                                                                           \
    {                                                                                                                  \
        .key = "clip", .kind = GYRE_FIELD_CHOICE, AT(gyre_stage, clip), .words = clips, .preset = GYRE_CLIP_WEIGHTS    \
    }
#define DAMP REAL(gyre_stage, "damp", damp, 0.01, 1e-6, 1)
static const struct gyre_field correct[] = {
    OR_AUTO(gyre_stage, "alpha", alpha, GYRE_AUTO, 0, 1),
    OR_AUTO(gyre_stage, "residual", residual, GYRE_AUTO, 0, 1),
    DAMP,
};
static const struct gyre_field rtn[] = {CLIP};
static const struct gyre_field gptq[] = {
    CLIP, SWITCH(gyre_stage, "order", act_order, orders, 1), DAMP,
    COUNT(gyre_stage, "scales", scales, 1, 1, 49), // the 50th would be 0 times the searched one (round/gptq.c)
};
static const struct gyre_field admm[] = {CLIP, DAMP, COUNT(gyre_stage, "iterations", iterations, 30, 1, 1000)};
static const struct gyre_field descent[] = {COUNT(gyre_stage, "sweeps", iterations, 4, 1, 100)};

static const struct {
    const char *name;
    struct gyre_fields fields;
} stages[GYRE_STAGES] = {
    [GYRE_STAGE_CORRECT] = {"correct", FIELDS("the stage correct", correct)},
    [GYRE_STAGE_RTN] = {"rtn", FIELDS("the stage rtn", rtn)},
    [GYRE_STAGE_GPTQ] = {"gptq", FIELDS("the stage gptq", gptq)},
    [GYRE_STAGE_ADMM] = {"admm", FIELDS("the stage admm", admm)},
    [GYRE_STAGE_DESCENT] = {"descent", FIELDS("the stage descent", descent)},
    [GYRE_STAGE_REFIT] = {"refit", {"the stage refit", 0, NULL}},
};

const struct gyre_fields *gyre_stage_fields(gyre_stage_kind kind) { return &stages[kind].fields; }
const char *gyre_stage_name(gyre_stage_kind kind) { return stages[kind].name; }

const char *gyre_learn_name(gyre_learn_method method) { return methods[method]; }

void gyre_fields_preset(const struct gyre_fields *fields, void *base)
{
    for (uint32_t i = 0; i < fields->n; i++) {
        const struct gyre_field *f = &fields->field[i];
        char *to = (char *)base + f->at;
        switch (f->kind) {
        case GYRE_FIELD_SWITCH:
            *(bool *)to = f->preset > 0;
            break;
        case GYRE_FIELD_CHOICE:
            *(gyre_clip *)(void *)to = (gyre_clip)f->preset;
            break;
        case GYRE_FIELD_COUNT:
        case GYRE_FIELD_COUNT_AUTO:
            *(uint32_t *)(void *)to = (uint32_t)f->preset;
            break;
        case GYRE_FIELD_LISTED:
            *(int32_t *)(void *)to = (int32_t)f->preset;
            break;
        case GYRE_FIELD_REAL:
        case GYRE_FIELD_AUTO:
            *(double *)(void *)to = f->preset;
            break;
        case GYRE_FIELD_MAP:
            gyre_fields_preset(f->map, base);
            break;
        default:
            break;
        }
    }
}

static bool same(const struct gyre_field *f, const void *a, const void *b)
{
    switch (f->kind) {
    case GYRE_FIELD_NAME:
    case GYRE_FIELD_TEXT:
        return strcmp(a, b) == 0;
    case GYRE_FIELD_SWITCH:
        return *(const bool *)a == *(const bool *)b;
    case GYRE_FIELD_CHOICE:
        return *(const gyre_clip *)a == *(const gyre_clip *)b;
    case GYRE_FIELD_COUNT:
    case GYRE_FIELD_COUNT_AUTO:
    case GYRE_FIELD_LISTED:
        return *(const uint32_t *)a == *(const uint32_t *)b;
    case GYRE_FIELD_REAL:
    case GYRE_FIELD_AUTO:
        return *(const double *)a == *(const double *)b;
    default:
        return true;
    }
}

bool gyre_fields_differ(const struct gyre_fields *fields, const void *a, const void *b, const char **map,
                        const char **key)
{
    for (uint32_t i = 0; i < fields->n; i++) {
        const struct gyre_field *f = &fields->field[i];
        if (f->kind == GYRE_FIELD_MAP && gyre_fields_differ(f->map, a, b, map, key)) {
            *map = f->key;
            return true;
        }
        if (!same(f, (const char *)a + f->at, (const char *)b + f->at)) {
            *map = NULL;
            *key = f->key;
            return true;
        }
    }
    return false;
}

// ---- what is allowed --------------------------------------------------------------------------------------

struct list {
    char *out;
    size_t size, at;
};

static void add(struct list *l, const char *text)
{
    if (l->at < l->size) l->at += (size_t)snprintf(l->out + l->at, l->size - l->at, "%s", text);
}

static void add_item(struct list *l, const char *text, uint32_t i, uint32_t n, const char *last)
{
    add(l, i == 0 ? "" : i + 1 == n ? last : ", ");
    add(l, text);
}

void gyre_fields_keys(const struct gyre_fields *fields, char *out, size_t size)
{
    struct list l = {out, size, 0};
    add(&l, "");
    for (uint32_t i = 0; i < fields->n; i++) add_item(&l, fields->field[i].key, i, fields->n, " and ");
}

void gyre_stage_names(char *out, size_t size)
{
    struct list l = {out, size, 0};
    for (uint32_t i = 0; i < GYRE_STAGES; i++) add_item(&l, stages[i].name, i, GYRE_STAGES, " and ");
}

void gyre_field_allowed(const struct gyre_field *f, char *out, size_t size)
{
    struct list l = {out, size, 0};
    char a[32], b[32];
    uint32_t n = 0;
    switch (f->kind) {
    case GYRE_FIELD_NAME:
        snprintf(out, size, "1 to %zu letters, digits, dots, underscores and hyphens, the first a letter or digit",
                 f->size - 1);
        break;
    case GYRE_FIELD_TEXT:
        snprintf(out, size, "one line of %zu bytes at most", f->size - 1);
        break;
    case GYRE_FIELD_SWITCH:
    case GYRE_FIELD_CHOICE:
        while (f->words[n]) n++;
        for (uint32_t i = 0; i < n; i++) add_item(&l, f->words[i], i, n, " or ");
        break;
    case GYRE_FIELD_COUNT:
    case GYRE_FIELD_COUNT_AUTO:
        snprintf(out, size, "a whole number from %.0f to %.0f%s", f->min, f->max,
                 f->kind == GYRE_FIELD_COUNT_AUTO ? ", or auto" : "");
        break;
    case GYRE_FIELD_LISTED:
        while (f->listed[n] >= 0) n++;
        for (uint32_t i = 0; i < n; i++) {
            snprintf(a, sizeof a, "%d", (int)f->listed[i]);
            add_item(&l, a, i, n, " or ");
        }
        break;
    case GYRE_FIELD_REAL:
    case GYRE_FIELD_AUTO:
        if (!gyre_real_text(f->min, a) || !gyre_real_text(f->max, b)) a[0] = b[0] = 0;
        snprintf(out, size, "a number from %s to %s%s", a, b, f->kind == GYRE_FIELD_AUTO ? ", or auto" : "");
        break;
    case GYRE_FIELD_MAP:
        snprintf(out, size, "a mapping of ");
        l.at = strlen(out);
        if (l.at < size) gyre_fields_keys(f->map, out + l.at, size - l.at);
        break;
    case GYRE_FIELD_STAGES:
        snprintf(out, size, "a list of %d stages at most", GYRE_MAX_STAGES);
        break;
    case GYRE_FIELD_EXCEPTIONS:
        snprintf(out, size, "a list of %d exceptions at most", GYRE_MAX_EXCEPTIONS);
        break;
    }
}

// ---- numbers ----------------------------------------------------------------------------------------------

// jansson reads and writes numbers with a point in every locale.
bool gyre_real_read(const char *text, size_t bytes, double *value)
{
    json_t *number = bytes < 32 ? json_loadb(text, bytes, JSON_DECODE_ANY, NULL) : NULL;
    const bool good = json_is_number(number);
    if (good) *value = json_number_value(number) + 0.0; // -0 is 0
    json_decref(number);
    return good && isfinite(*value);
}

bool gyre_real_text(double value, char out[32])
{
    json_t *number = json_real(value);
    for (size_t digits = 1; number && digits <= 17; digits++) {
        double back = 0;
        char *text = json_dumps(number, JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits));
        const bool good = text && strlen(text) < 32;
        if (good) memcpy(out, text, strlen(text) + 1);
        free(text);
        if (!good) break;
        if (!gyre_real_read(out, strlen(out), &back) || (back < value || back > value)) continue;
        const size_t n = strlen(out);
        if (n > 2 && !strcmp(out + n - 2, ".0")) out[n - 2] = 0;
        json_decref(number);
        return true;
    }
    json_decref(number);
    return false;
}
