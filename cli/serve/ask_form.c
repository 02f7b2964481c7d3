// What form an answer must have: response_format, tools and tool_choice.
#include "cli/serve/ask.h"

#include <stdlib.h>
#include <string.h>

static bool ask_format(const json_t *request, struct serve_job *job, struct serve_error *e)
{
    const json_t *format = serve_field(request, "response_format");
    const char *type = json_string_value(json_object_get(format, "type"));
    if (!format) return true;
    if (!type)
        return serve_refuse(e, 400, NULL, "response_format", "'response_format' must be an object with a 'type'");
    if (strcmp(type, "text") == 0) return true;
    if (strcmp(type, "json_object") == 0) {
        job->form = SERVE_FORM_OBJECT;
        return true;
    }
    if (strcmp(type, "json_schema") != 0)
        return serve_refuse(
            e, 400, NULL, "response_format",
            "'response_format' has the type '%.60s', which is none of text, json_object and json_schema", type);
    const json_t *schema = serve_field(json_object_get(format, "json_schema"), "schema");
    if (!json_is_object(schema) && !json_is_boolean(schema))
        return serve_refuse(e, 400, NULL, "response_format",
                            "'response_format.json_schema.schema' must be a JSON Schema");
    job->form = SERVE_FORM_SCHEMA;
    job->schema = json_dumps(schema, JSON_COMPACT | JSON_ENCODE_ANY);
    return job->schema || serve_no_memory(e);
}

// ---- tools ---------------------------------------------------------------------------------------------------------

static bool is_name(const char *name)
{
    const size_t n = name ? strlen(name) : 0;
    return n > 0 && n <= 64 && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == n;
}

static bool check_tool(const json_t *tool, size_t at, struct serve_error *e)
{
    const json_t *function = json_object_get(tool, "function"), *parameters = serve_field(function, "parameters");
    const char *type = json_string_value(json_object_get(tool, "type"));
    if (!type || strcmp(type, "function") != 0 || !json_is_object(function))
        return serve_refuse(e, 400, NULL, "tools", "tools[%zu] must be {\"type\": \"function\", \"function\": {...}}",
                            at);
    if (!is_name(json_string_value(json_object_get(function, "name"))))
        return serve_refuse(e, 400, NULL, "tools",
                            "tools[%zu]: a function's 'name' has 1 to 64 letters, digits, '_' and '-'", at);
    if (parameters && !json_is_object(parameters))
        return serve_refuse(e, 400, NULL, "tools", "tools[%zu]: 'parameters' must be a JSON Schema", at);
    return true;
}

static bool ask_choice(const json_t *request, const json_t *tools, struct serve_job *job, struct serve_error *e)
{
    const json_t *choice = serve_field(request, "tool_choice"), *tool;
    const char *word = json_string_value(choice),
               *name = json_string_value(json_object_get(json_object_get(choice, "function"), "name"));
    const bool have = json_array_size(tools) > 0;
    job->calls = have ? SERVE_CALLS_AUTO : SERVE_CALLS_NONE;
    if (!choice || (word && strcmp(word, "auto") == 0)) return true;
    if (word && strcmp(word, "none") == 0) {
        job->calls = SERVE_CALLS_NONE;
        return true;
    }
    if (word ? strcmp(word, "required") != 0 : !name)
        return serve_refuse(
            e, 400, NULL, "tool_choice",
            "'tool_choice' must be none, auto, required, or {\"type\": \"function\", \"function\": {\"name\": "
            "NAME}}");
    if (!have)
        return serve_refuse(e, 400, NULL, "tool_choice", "'tool_choice' asks for a call and there are no 'tools'");
    job->calls = SERVE_CALLS_REQUIRED;
    if (word) return true;
    size_t i;
    json_array_foreach(tools, i, tool)
    {
        if (strcmp(json_string_value(json_object_get(json_object_get(tool, "function"), "name")), name) != 0) continue;
        job->named = strdup(name);
        return job->named || serve_no_memory(e);
    }
    return serve_refuse(e, 400, NULL, "tool_choice", "'tool_choice' names '%.64s', which is none of the 'tools'", name);
}

// The tools themselves: what is wrong with one is told before anything is rendered.
static bool make_tools(const struct serve *s, json_t *list, struct serve_job *job, struct serve_error *e)
{
    gyre_error err = {0};
    char *text = json_dumps(list, JSON_COMPACT);
    if (!text) return serve_no_memory(e);
    const gyre_status st = gyre_tools_create(text, strlen(text), s->syntax, &job->tools, &err);
    free(text);
    if (st == GYRE_E_NOMEM) return serve_no_memory(e);
    return st == GYRE_OK || serve_refuse(e, 400, NULL, "tools", "%s", err.message);
}

bool serve_ask_form(const struct serve *s, const json_t *request, struct serve_job *job, json_t **tools,
                    struct serve_error *e)
{
    json_t *list = serve_field(request, "tools");
    bool parallel = true;
    *tools = NULL;
    if (!ask_format(request, job, e) || !serve_field_flag(request, "parallel_tool_calls", &parallel, e)) return false;
    if (list && !json_is_array(list)) return serve_refuse(e, 400, NULL, "tools", "'tools' must be a list");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!check_tool(json_array_get(list, i), i, e)) return false;
    if (!ask_choice(request, list, job, e)) return false;
    job->one_call = !parallel;
    if (job->calls == SERVE_CALLS_NONE) return true; // then the model does not see them either
    if (job->form != SERVE_FORM_TEXT)
        return serve_refuse(e, 400, NULL, "response_format",
                            "'response_format' and 'tools' exclude each other unless 'tool_choice' is none");
    *tools = json_incref(list);
    return make_tools(s, list, job, e);
}

bool serve_ask_bound(const struct serve *s, struct serve_job *job, struct serve_error *e)
{
    static const gyre_reasoning reasoning[] = {GYRE_REASONING_NONE, GYRE_REASONING_MAY, GYRE_REASONING_OPEN};
    const gyre_grammar_params params = {.size = sizeof params, .reasoning = reasoning[job->reasons]};
    const gyre_tool_params how = {.size = sizeof how,
                                  .choice = job->calls == SERVE_CALLS_AUTO ? GYRE_CHOICE_AUTO : GYRE_CHOICE_REQUIRED,
                                  .name = job->named,
                                  .single = job->one_call,
                                  .reasoning = reasoning[job->reasons]};
    gyre_error err = {0};
    gyre_status st = GYRE_OK;
    if (job->tools) st = gyre_grammar_of_tools(s->vocabulary, job->tools, &how, &job->grammar, &err);
    else if (job->form != SERVE_FORM_TEXT)
        st = gyre_grammar_of_schema(s->vocabulary, job->schema, job->schema ? strlen(job->schema) : 0, &params,
                                    &job->grammar, &err);
    if (st == GYRE_OK) return true;
    if (st == GYRE_E_NOMEM) return serve_no_memory(e);
    return serve_refuse(e, 400, NULL, job->tools ? "tools" : "response_format", "%s", err.message);
}
