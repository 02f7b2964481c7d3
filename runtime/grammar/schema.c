// What all parts of the compiler share: rules, failures, values, references. See schema.h.
#include "runtime/grammar/schema.h"

#include "runtime/util/array.h"
#include "runtime/util/base.h"
#include "runtime/util/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RULES = 20000, LONGEST_PATH = 400 };

// ---- failing --------------------------------------------------------------------------------------------------------

static void fail(struct gyre_schema *c, gyre_status st, const char *path, const char *why, va_list args,
                 const char *todo)
{
    char text[240];
    gyre_error err;
    vsnprintf(text, sizeof text, why, args);
    gyre_fail(&err, st, "cannot constrain the output (schema at %s): %s; %s", path, text, todo);
    gyre_program_fail(c->program, st, &err);
}

void gyre_schema_refuse(struct gyre_schema *c, const char *path, const char *why, ...)
{
    va_list args;
    va_start(args, why);
    fail(c, GYRE_E_UNSUPPORTED, path, why, args, "leave it out");
    va_end(args);
}

void gyre_schema_malformed(struct gyre_schema *c, const char *path, const char *why, ...)
{
    va_list args;
    va_start(args, why);
    fail(c, GYRE_E_FORMAT, path, why, args, "see json-schema.org");
    va_end(args);
}

void gyre_schema_no_memory(struct gyre_schema *c)
{
    gyre_error err;
    gyre_program_fail(c->program, gyre_fail(&err, GYRE_E_NOMEM, "cannot constrain the output: out of memory"), &err);
}

void gyre_schema_made(struct gyre_schema *c, const char *path, const char *keyword, gyre_status st,
                      const gyre_error *err)
{
    if (st == GYRE_E_UNSUPPORTED)
        gyre_schema_refuse(c, path, "keyword \"%s\" needs an automaton that is too large (%d states at most)", keyword,
                           GYRE_DFA_MOST);
    else if (st != GYRE_OK) gyre_program_fail(c->program, st, err);
}

const char *gyre_schema_path(struct gyre_schema *c, const char *path, const char *a, const char *b)
{
    const struct gyre_shown x = gyre_show(a, strlen(a)), y = gyre_show(b ? b : "", b ? strlen(b) : 0);
    char text[LONGEST_PATH];
    const size_t n = strlen(path);
    if (n > sizeof text - 160) return path; // long enough to be found
    snprintf(text, sizeof text, "%s/%s%s%s", path, x.text, b ? "/" : "", y.text);
    char *copy = gyre_arena_strdup(&c->arena, text);
    if (!copy) gyre_schema_no_memory(c);
    return copy ? copy : path;
}

// ---- rules ----------------------------------------------------------------------------------------------------------

uint32_t gyre_schema_rule(struct gyre_schema *c, const json_t *schema, const char *path)
{
    const json_t **key = gyre_arena_alloc(&c->arena, sizeof *key);
    bool added = false;
    if (!key) return gyre_schema_no_memory(c), 0;
    *key = schema;
    uint32_t *rule = gyre_strmap_add(&c->rule_of, (const char *)key, sizeof *key, 0, &added);
    if (!rule) return gyre_schema_no_memory(c), 0;
    if (!added) return *rule;
    if (c->n_job == MOST_RULES)
        return gyre_schema_refuse(c, path, "there are more than %d schemas in it", MOST_RULES), 0;
    if (!GYRE_ROOM(c->job, c->n_job + 1u, c->cap_job)) return gyre_schema_no_memory(c), 0;
    *rule = gyre_new_rule(c->program);
    c->job[c->n_job++] = (struct gyre_schema_job){schema, path, *rule};
    return *rule;
}

uint32_t gyre_schema_root(struct gyre_schema *c, const json_t *root, const char *name)
{
    c->root = root;
    c->name = name;
    if (!json_is_object(root) && !json_is_boolean(root))
        gyre_schema_malformed(c, name, "a schema is an object, or true or false");
    return gyre_schema_rule(c, root, name);
}

void gyre_schema_free(struct gyre_schema *c)
{
    gyre_arena_free(&c->arena);
    gyre_re_free(&c->maker);
    gyre_strmap_free(&c->rule_of);
    free(c->job);
}

// ---- values ---------------------------------------------------------------------------------------------------------

const char *gyre_schema_text(struct gyre_schema *c, const json_t *value)
{
    char *text = NULL;
    for (size_t digits = 15; digits <= 17; digits++) { // the fewest digits that are read as the same number
        free(text);
        text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits));
        json_t *again = text ? json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
        const bool same = again && json_equal(again, value);
        json_decref(again);
        if (same) break;
    }
    char *copy = text ? gyre_arena_strdup(&c->arena, text) : NULL;
    free(text);
    if (!copy) gyre_schema_no_memory(c);
    return copy ? copy : "null";
}

uint32_t gyre_schema_count(struct gyre_schema *c, const json_t *schema, const char *path, const char *keyword,
                           uint32_t absent)
{
    const json_t *v = json_object_get(schema, keyword);
    if (!v) return absent;
    const double x = json_number_value(v);
    if (!json_is_number(v) || x < 0 || x != (double)(json_int_t)(x < 1e15 ? x : 0)) {
        gyre_schema_malformed(c, path, "\"%s\" is no number of things", keyword);
        return absent;
    }
    return x >= (double)(GYRE_RE_MANY - 1) ? GYRE_RE_MANY - 1 : (uint32_t)x;
}

uint32_t gyre_schema_type_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_NULL:
        return GYRE_TYPE_NULL;
    case JSON_TRUE:
    case JSON_FALSE:
        return GYRE_TYPE_BOOLEAN;
    case JSON_INTEGER:
        return GYRE_TYPE_INTEGER | GYRE_TYPE_NUMBER;
    case JSON_REAL: {
        const double x = json_real_value(v);
        return GYRE_TYPE_NUMBER | (x > -1e15 && x < 1e15 && x == (double)(json_int_t)x ? GYRE_TYPE_INTEGER : 0u);
    }
    case JSON_STRING:
        return GYRE_TYPE_STRING;
    case JSON_ARRAY:
        return GYRE_TYPE_ARRAY;
    case JSON_OBJECT:
        break;
    }
    return GYRE_TYPE_OBJECT;
}

uint32_t gyre_schema_types(struct gyre_schema *c, const json_t *schema, const char *path)
{
    static const char *const names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
    const json_t *type = json_object_get(schema, "type");
    uint32_t types = 0;
    if (!type) return GYRE_TYPE_ALL;
    const size_t n = json_is_array(type) ? json_array_size(type) : 1;
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_is_array(type) ? json_array_get(type, i) : type);
        size_t k = 0;
        while (name && k < GYRE_COUNT(names) && strcmp(names[k], name) != 0) k++;
        if (!name || k == GYRE_COUNT(names)) {
            const struct gyre_shown shown = gyre_show(name ? name : "", name ? strlen(name) : 0);
            return gyre_schema_malformed(c, path, "type \"%s\" does not exist", shown.text), 0;
        }
        types |= 1u << k;
    }
    if (!types) gyre_schema_malformed(c, path, "\"type\" names no type");
    return types & GYRE_TYPE_NUMBER ? types & ~(uint32_t)GYRE_TYPE_INTEGER : types; // an integer is a number
}

// ---- references -----------------------------------------------------------------------------------------------------

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

// RFC 6901, as a fragment of an address: %xx, then ~1 and ~0.
const json_t *gyre_schema_resolve(struct gyre_schema *c, const char *reference, const char *path)
{
    const struct gyre_shown shown = gyre_show(reference, strlen(reference));
    const json_t *at = c->root;
    if (*reference != '#' || (reference[1] && reference[1] != '/')) {
        gyre_schema_refuse(c, path, "keyword \"$ref\" to \"%s\" leads out of the schema", shown.text);
        return NULL;
    }
    for (const char *p = reference + 1; *p == '/' && at;) {
        char name[512];
        size_t n = 0;
        for (p++; *p && *p != '/' && n < sizeof name - 1; p++) {
            char ch = *p;
            if (ch == '%' && hex(p[1]) >= 0 && hex(p[2]) >= 0) ch = (char)(hex(p[1]) * 16 + hex(p[2])), p += 2;
            if (ch == '~' && (p[1] == '0' || p[1] == '1')) ch = *++p == '0' ? '~' : '/';
            name[n++] = ch;
        }
        name[n] = 0;
        if (json_is_array(at)) {
            char *end;
            const unsigned long i = strtoul(name, &end, 10);
            at = n && !*end ? json_array_get(at, i) : NULL;
        } else at = json_object_get(at, name);
        if (*p && *p != '/') at = NULL;
    }
    if (!json_is_object(at) && !json_is_boolean(at)) {
        gyre_schema_malformed(c, path, "\"$ref\" to \"%s\" finds no schema", shown.text);
        return NULL;
    }
    return at;
}
