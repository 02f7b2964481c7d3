// The keywords of a schema, its alternatives and listed values. See schema_write.h.
#include "runtime/grammar/schema_write.h"

#include "runtime/grammar/schema_types.h"
#include "runtime/util/base.h"
#include "runtime/util/utf8.h"

#include <stdio.h>
#include <string.h>

// ---- what may stand beside what -------------------------------------------------------------------------------------

enum part { NOTE = 1, TYPE = 2, VALUES = 4, OTHER = 8, WAYS = 16 };
static const struct {
    const char *name;
    enum part part;
} keywords[] = {{"title", NOTE},
                {"description", NOTE},
                {"default", NOTE},
                {"examples", NOTE},
                {"example", NOTE},
                {"deprecated", NOTE},
                {"readOnly", NOTE},
                {"writeOnly", NOTE},
                {"$schema", NOTE},
                {"$comment", NOTE},
                {"$defs", NOTE},
                {"definitions", NOTE},
                {"type", TYPE},
                {"enum", VALUES},
                {"const", VALUES},
                {"$ref", WAYS},
                {"anyOf", WAYS},
                {"oneOf", WAYS},
                {"allOf", WAYS},
                {"properties", OTHER},
                {"required", OTHER},
                {"additionalProperties", OTHER},
                {"items", OTHER},
                {"prefixItems", OTHER},
                {"minItems", OTHER},
                {"maxItems", OTHER},
                {"minLength", OTHER},
                {"maxLength", OTHER},
                {"pattern", OTHER},
                {"format", OTHER},
                {"minimum", OTHER},
                {"maximum", OTHER},
                {"exclusiveMinimum", OTHER},
                {"exclusiveMaximum", OTHER},
                {"multipleOf", OTHER}};

// All keywords of the schema are known and are among `allowed`; `beside` is the one that allows no others.
static bool only(struct gyre_schema *c, const json_t *schema, const char *path, uint32_t allowed, const char *beside)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, key, value)
    {
        size_t k = 0;
        while (k < GYRE_COUNT(keywords) && strcmp(keywords[k].name, key) != 0) k++;
        const struct gyre_shown shown = gyre_show(key, strlen(key));
        if (k == GYRE_COUNT(keywords) && strcmp(key, "$id") == 0 && schema == c->root) continue;
        if (k == GYRE_COUNT(keywords))
            return gyre_schema_refuse(c, path, "keyword \"%s\" is not one that gyre can honour", shown.text), false;
        if ((keywords[k].part & allowed) || (beside && strcmp(key, beside) == 0)) continue;
        return gyre_schema_refuse(c, path, "keyword \"%s\" beside \"%s\" is not one that gyre can honour", shown.text,
                                  beside),
               false;
    }
    return true;
}

static const json_t *follow(struct gyre_schema *c, const json_t *s)
{
    for (uint32_t i = 0; i < 20 && json_is_string(json_object_get(s, "$ref")); i++) {
        s = gyre_schema_resolve(c, json_string_value(json_object_get(s, "$ref")), c->name);
    }
    return s;
}

// The values that a schema lists, as an array or the one; NULL where it lists none.
static const json_t *listed(const json_t *s, bool *one)
{
    const json_t *values = json_object_get(s, "const");
    *one = values != NULL;
    return values ? values : json_object_get(s, "enum");
}

static bool same_value(const json_t *a, const json_t *b)
{
    return json_equal(a, b) || (json_is_number(a) && json_is_number(b) && json_number_value(a) == json_number_value(b));
}

// Time for telling ways apart is bounded: `steps` more, and there is some left?
static bool goes_on(struct gyre_schema *c, size_t steps)
{
    enum { MOST = 4000000 };
    c->compared += (uint32_t)GYRE_MIN(steps, (size_t)MOST + 1 - GYRE_MIN(c->compared, (uint32_t)MOST + 1));
    return c->compared <= MOST;
}

static bool lists_apart(struct gyre_schema *c, const json_t *a, bool one_a, const json_t *b, bool one_b)
{
    const size_t n = one_a ? 1 : json_array_size(a), m = one_b ? 1 : json_array_size(b);
    if (!goes_on(c, n * m)) return false;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < m; k++)
            if (same_value(one_a ? a : json_array_get(a, i), one_b ? b : json_array_get(b, k))) return false;
    return true;
}

static uint32_t types_within(struct gyre_schema *c, const json_t *s)
{
    bool one;
    const json_t *values = listed(s, &one);
    uint32_t types = gyre_schema_types(c, s, c->name);
    if (types & GYRE_TYPE_NUMBER) types |= GYRE_TYPE_INTEGER;
    if (!values) return types;
    uint32_t found = 0;
    for (size_t i = 0; i < (one ? 1 : json_array_size(values)); i++)
        found |= gyre_schema_type_of(one ? values : json_array_get(values, i));
    return types & found;
}

static bool told_apart(struct gyre_schema *c, const json_t *a, const json_t *b, uint32_t depth);

// No value fits both, and that can be seen.
static bool apart(struct gyre_schema *c, const json_t *a, const json_t *b, uint32_t depth)
{
    bool one_a, one_b;
    a = follow(c, a);
    b = follow(c, b);
    if (!json_is_object(a) || !json_is_object(b) || depth > 8 || !goes_on(c, 1)) return false;
    const uint32_t both = types_within(c, a) & types_within(c, b);
    if (!both) return true;
    const json_t *x = listed(a, &one_a), *y = listed(b, &one_b);
    if (x && y) return lists_apart(c, x, one_a, y, one_b);
    if (both != GYRE_TYPE_OBJECT) return false;
    return told_apart(c, a, b, depth) || told_apart(c, b, a, depth);
}

// Is there a property that objects of `a` must have, and that those of `b` cannot have, or not with such a value?
static bool told_apart(struct gyre_schema *c, const json_t *a, const json_t *b, uint32_t depth)
{
    size_t i;
    json_t *name;
    json_array_foreach(json_object_get(a, "required"), i, name)
    {
        const char *key = json_string_value(name);
        if (!key) continue;
        const json_t *p = json_object_get(json_object_get(a, "properties"), key),
                     *q = json_object_get(json_object_get(b, "properties"), key);
        if (!p) p = json_object_get(a, "additionalProperties");
        if (!q) q = json_object_get(b, "additionalProperties");
        if (json_is_false(q) || (p && q && apart(c, p, q, depth + 1))) return true;
    }
    return false;
}

// ---- writing --------------------------------------------------------------------------------------------------------

static void write_values(struct gyre_schema *c, const json_t *schema, const char *path)
{
    bool one;
    const json_t *values = listed(schema, &one);
    const uint32_t types = gyre_schema_types(c, schema, path);
    if (!one && !json_is_array(values)) {
        gyre_schema_malformed(c, path, "\"enum\" is no list");
        return;
    }
    if (one && json_object_get(schema, "enum")) {
        gyre_schema_refuse(c, path, "keyword \"enum\" beside \"const\" is not one that gyre can honour");
        return;
    }
    const size_t all = one ? 1 : json_array_size(values);
    const char **texts = gyre_arena_array(&c->arena, all + 1, sizeof *texts);
    uint32_t n = 0;
    if (!texts) {
        gyre_schema_no_memory(c);
        return;
    }
    for (size_t i = 0; i < all; i++) {
        const json_t *v = one ? values : json_array_get(values, i);
        if (gyre_schema_type_of(v) & types) texts[n++] = gyre_schema_text(c, v);
    }
    struct gyre_dfa *dfa = NULL;
    gyre_error err;
    const gyre_status st = gyre_dfa_texts(texts, n, &dfa, &err);
    const char *keyword = one ? "const" : "enum";
    if (st == GYRE_E_UNSUPPORTED)
        gyre_schema_refuse(c, path, "keyword \"%s\" has more than %d bytes", keyword, GYRE_DFA_MOST_TEXT);
    else gyre_schema_made(c, path, keyword, st, &err);
    gyre_emit_word(c->program, dfa, GYRE_WORD_STRICT);
    gyre_emit(c->program, GYRE_OP_RETURN, 0, 0, 0);
}

static void write_ways(struct gyre_schema *c, const json_t *list, const char *path, const char *keyword)
{
    const uint32_t n = (uint32_t)json_array_size(list);
    if (!n) {
        gyre_schema_malformed(c, path, "\"%s\" is no list of schemas", keyword);
        return;
    }
    if (strcmp(keyword, "allOf") == 0 && n != 1) {
        gyre_schema_refuse(c, path, "keyword \"allOf\" of more than one schema is not one that gyre can honour");
        return;
    }
    for (uint32_t i = 0; i < n && strcmp(keyword, "oneOf") == 0; i++)
        for (uint32_t k = 0; k < i; k++)
            if (n > 300 || !apart(c, json_array_get(list, i), json_array_get(list, k), 0)) {
                gyre_schema_refuse(c, path,
                                   "keyword \"oneOf\" is honoured where types, required properties or listed values "
                                   "tell its ways apart, and %u and %u may overlap (anyOf allows that)",
                                   k, i);
                return;
            }
    const uint32_t alt = gyre_emit_alt(c->program, n);
    for (uint32_t i = 0; i < n; i++) {
        char number[16];
        snprintf(number, sizeof number, "%u", i);
        gyre_set_target(c->program, alt, i, c->program->n);
        gyre_emit(c->program, GYRE_OP_GOTO,
                  gyre_schema_rule(c, json_array_get(list, i), gyre_schema_path(c, path, keyword, number)), 0, 0);
    }
}

static void write_types(struct gyre_schema *c, const json_t *schema, const char *path)
{
    const uint32_t types = gyre_schema_types(c, schema, path);
    uint32_t n = 0, i = 0;
    for (uint32_t t = 1; t <= GYRE_TYPE_OBJECT; t *= 2)
        n += (types & t) != 0 && !(t == GYRE_TYPE_INTEGER && (types & GYRE_TYPE_NUMBER));
    const uint32_t alt = gyre_emit_alt(c->program, n);
    for (uint32_t t = 1; t <= GYRE_TYPE_OBJECT; t *= 2) {
        if (!(types & t) || (t == GYRE_TYPE_INTEGER && (types & GYRE_TYPE_NUMBER))) continue;
        gyre_set_target(c->program, alt, i++, c->program->n);
        if (t == GYRE_TYPE_OBJECT) gyre_schema_object(c, schema, path);
        else if (t == GYRE_TYPE_ARRAY) gyre_schema_array(c, schema, path);
        else if (t == GYRE_TYPE_STRING) gyre_schema_string(c, schema, path);
        else if (t == GYRE_TYPE_NUMBER || t == GYRE_TYPE_INTEGER)
            gyre_schema_number(c, schema, path, t == GYRE_TYPE_INTEGER);
        else if (t == GYRE_TYPE_NULL) gyre_emit_lit(c->program, "null"), gyre_emit(c->program, GYRE_OP_RETURN, 0, 0, 0);
        else {
            const uint32_t truth = gyre_emit_alt(c->program, 2);
            for (uint32_t k = 0; k < 2; k++) {
                gyre_set_target(c->program, truth, k, c->program->n);
                gyre_emit_lit(c->program, k ? "false" : "true");
                gyre_emit(c->program, GYRE_OP_RETURN, 0, 0, 0);
            }
        }
    }
}

static void write(struct gyre_schema *c, const json_t *schema, const char *path)
{
    static const char *const ways[] = {"$ref", "anyOf", "oneOf", "allOf"};
    if (json_is_false(schema)) {
        gyre_emit_alt(c->program, 0); // no value at all
        return;
    }
    if (!json_is_object(schema) && !json_is_true(schema)) {
        gyre_schema_malformed(c, path, "a schema is an object, or true or false");
        return;
    }
    for (size_t i = 0; i < GYRE_COUNT(ways); i++) {
        const json_t *to = json_object_get(schema, ways[i]);
        if (!to) continue;
        if (!only(c, schema, path, NOTE, ways[i])) return;
        if (i > 0) {
            write_ways(c, to, path, ways[i]);
            return;
        }
        const json_t *target = json_is_string(to) ? gyre_schema_resolve(c, json_string_value(to), path) : NULL;
        if (!json_is_string(to)) gyre_schema_malformed(c, path, "\"$ref\" is no text");
        if (target)
            gyre_emit(c->program, GYRE_OP_GOTO, gyre_schema_rule(c, target, gyre_schema_path(c, path, "$ref", NULL)), 0,
                      0);
        return;
    }
    bool one;
    if (listed(schema, &one)) {
        if (only(c, schema, path, NOTE | TYPE | VALUES, one ? "const" : "enum")) write_values(c, schema, path);
    } else if (only(c, schema, path, NOTE | TYPE | OTHER, NULL)) write_types(c, schema, path);
}

void gyre_schema_write(struct gyre_schema *c)
{
    for (; c->next < c->n_job && c->program->st == GYRE_OK; c->next++) {
        const struct gyre_schema_job job = c->job[c->next];
        c->program->rule[job.rule] = c->program->n;
        write(c, job.schema, job.path);
    }
}

gyre_status gyre_grammar_of_schema(const gyre_vocabulary *vocabulary, const char *text, size_t bytes,
                                   const gyre_grammar_params *given, gyre_grammar **out, gyre_error *err)
{
    gyre_grammar_params params;
    json_error_t why;
    json_t *root = NULL;
    struct gyre_program program = {0};
    *out = NULL;
    GYRE_TRY(gyre_params_take(given, &params, sizeof params, sizeof params, "gyre_grammar_params", err));
    root = text ? json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why)
                : json_pack("{s:s}", "type", "object");
    if (!root)
        return gyre_fail(err, text ? GYRE_E_FORMAT : GYRE_E_NOMEM,
                         "cannot constrain the output (schema, line %d): %s; write it as JSON", text ? why.line : 0,
                         !text                                                ? "out of memory"
                         : json_error_code(&why) == json_error_null_character ? "no text may hold \\u0000"
                                                                              : why.text);
    struct gyre_schema c = {.program = &program, .compact = params.compact};
    const uint32_t start = gyre_new_rule(&program);
    const uint32_t value = gyre_schema_root(&c, root, "#");
    if (program.st == GYRE_OK) program.rule[start] = program.n;
    gyre_emit_reasoning(&program, params.reasoning);
    gyre_emit(&program, GYRE_OP_GOTO, value, 0, 0);
    gyre_schema_write(&c);
    const gyre_status st = gyre_grammar_make(vocabulary, &program, start, out, err);
    gyre_schema_free(&c);
    json_decref(root);
    return st;
}
