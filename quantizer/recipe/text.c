// Writes a recipe with every default explicit: as YAML, which reads as the same recipe, and as JSON.
#include "quantizer/recipe/fields.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A value that is not written because it means "as the rest".
static bool is_rest(const struct gyre_field *f, const void *base)
{
    if (f->kind != GYRE_FIELD_LISTED) return false;
    const int32_t v = *(const int32_t *)(const void *)((const char *)base + f->at);
    for (const int32_t *one = f->listed; *one >= 0; one++)
        if (*one == v) return false;
    return true;
}

static bool is_quiet(const struct gyre_field *f, const void *base)
{
    for (uint32_t i = 0; f->quiet && i < f->map->n; i++)
        if (*(const double *)(const void *)((const char *)base + f->map->field[i].at) != 0) return false;
    return f->quiet;
}

static bool is_auto(const struct gyre_field *f, const void *base)
{
    const void *const from = (const char *)base + f->at;
    if (f->kind == GYRE_FIELD_COUNT_AUTO) return *(const uint32_t *)from == GYRE_AUTO_COUNT;
    return f->kind == GYRE_FIELD_AUTO && *(const double *)from < 0;
}

// ---- YAML -------------------------------------------------------------------------------------------------

static void put_quoted(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') fputc('\\', f);
        fputc(*s, f);
    }
    fputc('"', f);
}

static bool put_fields(FILE *out, const struct gyre_fields *fields, const void *base);

// False where memory ran out for a number.
static bool put_value(FILE *out, const struct gyre_field *f, const void *base)
{
    const char *from = (const char *)base + f->at;
    char number[32];
    double v;
    if (is_auto(f, base)) {
        fputs("auto", out);
        return true;
    }
    switch (f->kind) {
    case GYRE_FIELD_NAME:
        fputs(from, out);
        break;
    case GYRE_FIELD_TEXT:
        put_quoted(out, from);
        break;
    case GYRE_FIELD_SWITCH:
        fputs(f->words[*(const bool *)from], out);
        break;
    case GYRE_FIELD_CHOICE:
        fputs(f->words[*(const gyre_clip *)(const void *)from], out);
        break;
    case GYRE_FIELD_COUNT:
    case GYRE_FIELD_COUNT_AUTO:
    case GYRE_FIELD_LISTED:
        fprintf(out, "%u", *(const uint32_t *)(const void *)from);
        break;
    case GYRE_FIELD_REAL:
    case GYRE_FIELD_AUTO:
        v = *(const double *)(const void *)from;
        if (!gyre_real_text(v, number)) return false;
        fputs(number, out);
        break;
    case GYRE_FIELD_MAP:
        return put_fields(out, f->map, base);
    default:
        break;
    }
    return true;
}

static bool put_fields(FILE *out, const struct gyre_fields *fields, const void *base)
{
    bool good = true, first = true;
    fputc('{', out);
    for (uint32_t i = 0; i < fields->n; i++) {
        const struct gyre_field *f = &fields->field[i];
        if (is_rest(f, base)) continue;
        fprintf(out, "%s%s: ", first ? "" : ", ", f->key);
        good &= put_value(out, f, base);
        first = false;
    }
    fputc('}', out);
    return good;
}

static bool put_recipe(FILE *out, const struct gyre_recipe *r)
{
    bool good = true;
    for (uint32_t i = 0; i < gyre_recipe_fields.n; i++) {
        const struct gyre_field *f = &gyre_recipe_fields.field[i];
        if (is_quiet(f, r) || (f->kind == GYRE_FIELD_STAGES && !r->n_stages)) continue;
        fprintf(out, "%s:", f->key);
        if (f->kind == GYRE_FIELD_STAGES) {
            fputc('\n', out);
            for (uint32_t s = 0; s < r->n_stages; s++) {
                const struct gyre_fields *fields = gyre_stage_fields(r->stage[s].kind);
                fprintf(out, "  - %s%s", gyre_stage_name(r->stage[s].kind), fields->n ? ": " : "");
                if (fields->n) good &= put_fields(out, fields, &r->stage[s]);
                fputc('\n', out);
            }
        } else if (f->kind == GYRE_FIELD_EXCEPTIONS) {
            fputs(r->n_exceptions ? "\n" : " []\n", out);
            for (uint32_t e = 0; e < r->n_exceptions; e++) {
                fputs("  - ", out);
                good &= put_fields(out, &gyre_exception_fields, &r->exception[e]);
                fputc('\n', out);
            }
        } else if (f->map == &gyre_recipe_calibration && !r->calibration.windows) {
            fputs(" {windows: 0}\n", out);
        } else {
            fputc(' ', out);
            good &= put_value(out, f, r);
            fputc('\n', out);
        }
    }
    return good;
}

char *gyre_recipe_text(const struct gyre_recipe *r)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out) return NULL;
    const bool good = put_recipe(out, r) && !ferror(out);
    if (fclose(out) || !good) {
        free(text);
        return NULL;
    }
    return text;
}

// ---- JSON -------------------------------------------------------------------------------------------------

static json_t *json_fields(json_t *object, const struct gyre_fields *fields, const void *base);

static json_t *json_value(const struct gyre_field *f, const struct gyre_recipe *r, const void *base)
{
    const char *from = (const char *)base + f->at;
    json_t *list;
    if (is_auto(f, base)) return json_string("auto");
    switch (f->kind) {
    case GYRE_FIELD_NAME:
    case GYRE_FIELD_TEXT:
        return json_string(from);
    case GYRE_FIELD_SWITCH:
        if (f->words[1][0] == 't') return json_boolean(*(const bool *)from);
        return json_string(f->words[*(const bool *)from]);
    case GYRE_FIELD_CHOICE:
        return json_string(f->words[*(const gyre_clip *)(const void *)from]);
    case GYRE_FIELD_COUNT:
    case GYRE_FIELD_COUNT_AUTO:
    case GYRE_FIELD_LISTED:
        return is_rest(f, base) ? json_null() : json_integer(*(const uint32_t *)(const void *)from);
    case GYRE_FIELD_REAL:
    case GYRE_FIELD_AUTO:
        return json_real(*(const double *)(const void *)from);
    case GYRE_FIELD_MAP:
        return json_fields(json_object(), f->map, base);
    case GYRE_FIELD_STAGES:
        list = json_array();
        for (uint32_t i = 0; list && i < r->n_stages; i++) {
            json_t *stage = json_pack("{s:s}", "stage", gyre_stage_name(r->stage[i].kind));
            if (!json_array_append_new(list, json_fields(stage, gyre_stage_fields(r->stage[i].kind), &r->stage[i])))
                continue;
            json_decref(list);
            return NULL;
        }
        return list;
    case GYRE_FIELD_EXCEPTIONS:
        list = json_array();
        for (uint32_t i = 0; list && i < r->n_exceptions; i++) {
            if (!json_array_append_new(list, json_fields(json_object(), &gyre_exception_fields, &r->exception[i])))
                continue;
            json_decref(list);
            return NULL;
        }
        return list;
    }
    return NULL;
}

// Adds the fields to `object` and returns it; NULL where memory ran out, then it is dropped.
static json_t *json_fields(json_t *object, const struct gyre_fields *fields, const void *base)
{
    for (uint32_t i = 0; object && i < fields->n; i++)
        if (!is_quiet(&fields->field[i], base) &&
            json_object_set_new(object, fields->field[i].key, json_value(&fields->field[i], base, base))) {
            json_decref(object);
            return NULL;
        }
    return object;
}

char *gyre_recipe_json(const struct gyre_recipe *r)
{
    json_t *doc = json_fields(json_object(), &gyre_recipe_fields, r);
    char *text = doc ? json_dumps(doc, JSON_INDENT(1) | JSON_REAL_PRECISION(15)) : NULL;
    json_decref(doc);
    return text;
}
