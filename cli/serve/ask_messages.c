// From the messages of a request to the variables of the template, and its rendering. Only what the template itself
// writes can become control tokens.
#include "cli/serve/ask.h"
#include "cli/serve/event.h"
#include "runtime/util/json_wide.h"

#include <stdlib.h>
#include <string.h>

// ---- messages ------------------------------------------------------------------------------------------------------

static bool wrong_message(struct serve_error *e, size_t at, const char *what)
{
    return serve_refuse(e, 400, NULL, "messages", "messages[%zu]: %s", at, what);
}

// A content's text: itself, or its parts joined by line ends. NULL with an error for what is neither.
static json_t *content_text(const json_t *content, size_t at, struct serve_error *e)
{
    struct serve_text all = {0};
    if (json_is_string(content)) return json_copy((json_t *)content);
    if (!json_is_array(content)) {
        wrong_message(e, at, "'content' must be a text or a list of parts");
        return NULL;
    }
    bool good = true;
    for (size_t i = 0; good && i < json_array_size(content); i++) {
        const json_t *part = json_array_get(content, i), *type = json_object_get(part, "type"),
                     *piece = json_object_get(part, "text");
        if (json_is_string(type) && strcmp(json_string_value(type), "text") != 0)
            good = serve_refuse(e, 400, NULL, "messages",
                                "messages[%zu]: parts of type '%.60s' are not supported: this model reads text", at,
                                json_string_value(type));
        else if (!json_is_string(type) || !json_is_string(piece))
            good = wrong_message(e, at, "a part of 'content' must be {\"type\": \"text\", \"text\": TEXT}");
        else
            good = (!i || serve_text_add(&all, "\n", 1)) &&
                   serve_text_add(&all, json_string_value(piece), json_string_length(piece));
        if (!good && !e->status) serve_no_memory(e);
    }
    json_t *text = good ? json_stringn(all.text ? all.text : "", all.n) : NULL;
    if (good && !text) serve_no_memory(e);
    serve_text_free(&all);
    return text;
}

// The arguments of a call, a JSON text: as an object where they are one, else as they are; NULL with an error.
static json_t *arguments_of(const char *text, size_t at, struct serve_error *e)
{
    json_error_t why;
    json_t *out = gyre_json_load_wide(text, strlen(text), 0, &why);
    if (!out && json_error_code(&why) == json_error_null_byte_in_key) {
        wrong_message(e, at, "no key of a call's 'arguments' may hold \\u0000");
        return NULL;
    }
    if (!json_is_object(out)) {
        json_decref(out);
        out = json_string(text);
    }
    if (!out) serve_no_memory(e);
    return out;
}

// A call that the assistant made.
static bool take_call(const json_t *call, json_t *out, size_t at, struct serve_error *e)
{
    const json_t *function = json_object_get(call, "function"), *id = serve_field(call, "id");
    const json_t *name = json_object_get(function, "name"), *arguments = serve_field(function, "arguments");
    if (!json_is_string(name) || (id && !json_is_string(id)))
        return wrong_message(e, at, "an element of 'tool_calls' needs an 'id' and a 'function' with a 'name'");
    if (arguments && !json_is_string(arguments) && !json_is_object(arguments))
        return wrong_message(e, at, "the 'arguments' of a call must be a JSON text");
    json_t *object = json_is_string(arguments) ? arguments_of(json_string_value(arguments), at, e)
                     : arguments               ? json_deep_copy(arguments)
                                               : json_object();
    if (!object) return e->status ? false : serve_no_memory(e);
    json_t *made = json_pack("{s:s, s:{s:O, s:o}}", "type", "function", "function", "name", name, "arguments", object);
    if (id) json_object_set(made, "id", (json_t *)id);
    return !json_array_append_new(out, made) || serve_no_memory(e);
}

static bool take_calls(const json_t *message, json_t *out, size_t at, struct serve_error *e)
{
    const json_t *calls = serve_field(message, "tool_calls");
    if (!calls) return true;
    if (!json_is_array(calls)) return wrong_message(e, at, "'tool_calls' must be a list");
    json_t *made = json_array();
    if (json_object_set_new(out, "tool_calls", made)) return serve_no_memory(e);
    for (size_t i = 0; i < json_array_size(calls); i++)
        if (!take_call(json_array_get(calls, i), made, at, e)) return false;
    return true;
}

static bool take_message(const json_t *message, json_t *messages, size_t at, struct serve_error *e)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    static const char *const passed[] = {"name", "tool_call_id", "reasoning_content"};
    const char *role = json_string_value(json_object_get(message, "role"));
    const json_t *content = serve_field(message, "content");
    if (!json_is_object(message)) return wrong_message(e, at, "a message must be an object");
    if (!role) return wrong_message(e, at, "'role' must be a text");
    size_t known = 0;
    while (known < 5 && strcmp(roles[known], role) != 0) known++;
    if (known == 5)
        return serve_refuse(e, 400, NULL, "messages",
                            "messages[%zu]: the role '%.60s' is none of system, developer, user, assistant and tool",
                            at, role);
    const bool assistant = known == 3, tool = known == 4;
    json_t *out = json_pack("{s:s}", "role", roles[known == 1 ? 0 : known]);
    if (json_array_append_new(messages, out)) return serve_no_memory(e);
    if (!content && !assistant) return wrong_message(e, at, "'content' is missing");
    if (tool && !json_is_string(json_object_get(message, "tool_call_id")))
        return wrong_message(e, at, "a tool's message needs a 'tool_call_id'");
    if (assistant && !content && !serve_field(message, "tool_calls"))
        return wrong_message(e, at, "an assistant's message needs 'content' or 'tool_calls'");
    json_t *text = content ? content_text(content, at, e) : json_string("");
    if (!text) return false;
    json_object_set_new(out, "content", text);
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++) {
        json_t *value = serve_field(message, passed[i]);
        if (json_is_string(value)) json_object_set(out, passed[i], value);
    }
    return !assistant || take_calls(message, out, at, e);
}

// ---- the prompt ----------------------------------------------------------------------------------------------------

bool serve_ask_variables(const json_t *request, json_t *tools, json_t *out, struct serve_error *e)
{
    const json_t *messages = serve_field(request, "messages"), *more = serve_field(request, "chat_template_kwargs");
    bool prompt = true;
    if (more && !json_is_object(more))
        return serve_refuse(e, 400, NULL, "chat_template_kwargs", "'chat_template_kwargs' must be an object");
    if (more && json_object_update(out, (json_t *)more)) return serve_no_memory(e);
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return serve_refuse(e, 400, NULL, "messages", "'messages' must be a list of messages, and not empty");
    if (!serve_field_flag(request, "add_generation_prompt", &prompt, e)) return false;
    json_t *list = json_array();
    if (json_object_set_new(out, "messages", list) ||
        json_object_set_new(out, "add_generation_prompt", json_boolean(prompt)) ||
        (tools && json_object_set(out, "tools", tools)))
        return serve_no_memory(e);
    if (!tools) json_object_del(out, "tools");
    for (size_t i = 0; i < json_array_size(messages); i++)
        if (!take_message(json_array_get(messages, i), list, i, e)) return false;
    return true;
}

bool serve_ask_rendered(const struct serve *s, const json_t *variables, struct serve_rendered *out,
                        struct serve_error *e)
{
    gyre_error err = {0};
    gyre_rendering rendering = {0};
    *out = (struct serve_rendered){0};
    if (!s->template)
        return serve_refuse(e, 400, NULL, "messages",
                            "this model has no chat template; start the server with --chat-template");
    char *json = json_dumps(variables, JSON_COMPACT);
    if (!json) return serve_no_memory(e);
    gyre_status st = gyre_template_render(s->template, json, strlen(json), NULL, &rendering, &err);
    if (st == GYRE_OK) st = gyre_tokenize_rendering(s->tokenizer, &rendering, &out->tokens, &out->n, &err);
    if (st == GYRE_OK) { // does the prompt end with an open "<think>"?
        size_t n = rendering.bytes;
        while (n && strchr(" \t\r\n", rendering.text[n - 1])) n--;
        out->thinks = n >= 7 && memcmp(rendering.text + n - 7, "<think>", 7) == 0;
    }
    free(json);
    gyre_rendering_free(&rendering);
    if (st == GYRE_OK) return true;
    return st == GYRE_E_NOMEM ? serve_no_memory(e) : serve_refuse(e, 400, NULL, "messages", "%s", err.message);
}
