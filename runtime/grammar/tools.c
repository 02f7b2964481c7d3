// See tools.h and gyre_tools.h.
#include "runtime/grammar/tools.h"

#include "runtime/text/tokenizer.h"
#include "runtime/util/base.h"
#include "runtime/util/status.h"

#include <stdlib.h>
#include <string.h>

gyre_tool_syntax gyre_tool_syntax_of(const char *text)
{
    if (!text) return GYRE_TOOLS_HERMES;
    if (strstr(text, "<function=")) return GYRE_TOOLS_XML;
    if (strstr(text, GYRE_MARK_CALL)) return GYRE_TOOLS_HERMES;
    if (strstr(text, "python_tag") || strstr(text, "\"parameters\": ")) return GYRE_TOOLS_LLAMA3;
    return GYRE_TOOLS_HERMES;
}

static bool is_name(const char *name)
{
    const size_t n = strlen(name);
    return n > 0 && n <= 64 && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == n;
}

// The parameters as a schema of an object: no parameters, where the list says nothing of them.
static json_t *parameters_of(const json_t *function)
{
    static const char *const says[] = {"properties", "additionalProperties", "$ref", "anyOf", "oneOf", "allOf",
                                       "required"};
    json_t *given = json_object_get(function, "parameters");
    if (json_is_null(given)) given = NULL;
    if (given && !json_is_object(given)) return NULL;
    json_t *schema = given ? json_copy(given) : json_object();
    bool said = false, way = false;
    for (size_t i = 0; i < GYRE_COUNT(says); i++) {
        const bool here = json_object_get(schema, says[i]) != NULL;
        said |= here;
        way |= here && i >= 2 && i <= 5;
    }
    if (!said) json_object_set_new(schema, "additionalProperties", json_false());
    if (!way && !json_object_get(schema, "type")) json_object_set_new(schema, "type", json_string("object"));
    return schema;
}

static gyre_status take(gyre_tools *t, size_t i, gyre_error *err)
{
    const json_t *item = json_array_get(t->list, i), *function = json_object_get(item, "function"),
                 *type = json_object_get(item, "type");
    const char *name = json_string_value(json_object_get(function, "name"));
    if (!json_is_string(type) || strcmp(json_string_value(type), "function") != 0 || !json_is_object(function))
        return gyre_fail(
            err, GYRE_E_FORMAT,
            "cannot read tools (number %zu): it is no {\"type\": \"function\", \"function\": {...}}; write it so", i);
    if (!name || !is_name(name))
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot read tools (number %zu): its name is none of 1 to 64 letters, digits, \"_\", \"-\", "
                         "\".\"; rename it",
                         i);
    if (gyre_tool_find(t, name))
        return gyre_fail(err, GYRE_E_FORMAT, "cannot read tools (%s): there are two of that name; rename one", name);
    json_t *parameters = parameters_of(function);
    if (!parameters)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot read tools (%s): its parameters are no JSON Schema; make them an object", name);
    t->tool[t->n++] = (struct gyre_tool){name, parameters};
    return GYRE_OK;
}

gyre_status gyre_tools_create(const char *text, size_t bytes, gyre_tool_syntax syntax, gyre_tools **out,
                              gyre_error *err)
{
    enum { MOST = 512 };
    json_error_t why;
    *out = NULL;
    json_t *list = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (!list)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot read tools (line %d): %s; write them as JSON", why.line, why.text);
    gyre_tools *t = calloc(1, sizeof *t);
    const size_t n = json_array_size(list);
    if (t) *t = (gyre_tools){.syntax = syntax, .list = list, .tool = calloc(n + 1, sizeof *t->tool)};
    gyre_status st = GYRE_OK;
    if (!t || !t->tool) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot read tools: out of memory"));
    if (!json_is_array(list) || n == 0 || n > MOST)
        GYRE_GO(gyre_fail(err, GYRE_E_FORMAT,
                          "cannot read tools: they are no list of 1 to %d; leave them out or make them one", MOST));
    for (size_t i = 0; i < n; i++) GYRE_GO(take(t, i, err));
    *out = t;
    return GYRE_OK;
done:
    if (!t) json_decref(list);
    gyre_tools_destroy(t);
    return st;
}

void gyre_tools_destroy(gyre_tools *t)
{
    if (!t) return;
    for (uint32_t i = 0; i < t->n; i++) json_decref(t->tool[i].parameters);
    free(t->tool);
    json_decref(t->list);
    free(t);
}

const struct gyre_tool *gyre_tool_find(const gyre_tools *t, const char *name)
{
    for (uint32_t i = 0; i < t->n; i++)
        if (strcmp(t->tool[i].name, name) == 0) return &t->tool[i];
    return NULL;
}

bool gyre_tools_has(const gyre_tools *tools, const char *name) { return gyre_tool_find(tools, name) != NULL; }

// Only references of one step into the definitions are followed here: others are written as JSON, by both sides.
const json_t *gyre_tool_parameter(const struct gyre_tool *tool, const char *key)
{
    const json_t *schema = json_object_get(json_object_get(tool->parameters, "properties"), key);
    const char *reference = json_string_value(json_object_get(schema, "$ref"));
    if (reference && strncmp(reference, "#/$defs/", 8) == 0) {
        const json_t *found = json_object_get(json_object_get(tool->parameters, "$defs"), reference + 8);
        if (found) return found;
    }
    return schema;
}

bool gyre_schema_is_text(const json_t *schema)
{
    const json_t *type = json_object_get(schema, "type"), *list = json_object_get(schema, "enum"),
                 *one = json_object_get(schema, "const"), *value;
    size_t i;
    if (json_is_string(type)) return strcmp(json_string_value(type), "string") == 0;
    if (type || (!list && !one)) return false;
    json_array_foreach((json_t *)(uintptr_t)list, i, value) if (!json_is_string(value)) return false;
    return !one || json_is_string(one);
}

bool gyre_token_is_mark(const gyre_tokenizer *tokenizer, uint32_t token)
{
    static const char *const marks[] = {GYRE_MARK_CALL, GYRE_MARK_CALL_END, GYRE_MARK_PYTHON, GYRE_MARK_THINK,
                                        GYRE_MARK_THINK_END};
    uint32_t n = 0;
    const char *bytes = gyre_tokenizer_bytes(tokenizer, token, &n);
    if (!bytes || !gyre_tokenizer_is_special(tokenizer, token)) return false;
    for (size_t i = 0; i < GYRE_COUNT(marks); i++)
        if (strlen(marks[i]) == n && memcmp(marks[i], bytes, n) == 0) return true;
    return false;
}
