// From the JSON of a request to a job: what is asked, checked field by field.
#pragma once
#include "cli/serve/serve.h"

// NULL, with an error, for what cannot be answered. The caller has the reference.
struct serve_job *serve_ask_completion(const struct serve *serve, const json_t *request, struct serve_error *error);

struct serve_job *serve_ask_chat(const struct serve *serve, const json_t *request, struct serve_error *error);

struct serve_job *serve_ask_embedding(const struct serve *serve, const json_t *request, struct serve_error *error);

// ---- conversations -------------------------------------------------------------------------------------------------

// The variables of the template, into the object `out`: messages made regular, `tools` (may be NULL), and what the
// request adds.
bool serve_ask_variables(const json_t *request, json_t *tools, json_t *out, struct serve_error *error);
// The template filled with them.
struct serve_rendered {
    uint32_t *tokens; // gyre_free
    size_t n;
    bool thinks; // it ends with an open "<think>"
};
bool serve_ask_rendered(const struct serve *serve, const json_t *variables, struct serve_rendered *out,
                        struct serve_error *error);
// Where the server runs with --context-shift: a conversation that leaves no room for an answer loses its oldest turns,
// as many as gyre_context_shift says, so that the next requests of the talk lose the same; *prompt becomes what is
// left. The job is told what stays where the answer fills the context.
bool serve_ask_shorter(const struct serve *serve, const json_t *variables, struct serve_rendered *prompt,
                       struct serve_job *job, struct serve_error *error);
// response_format, tools and tool_choice. *tools: those that the template gets, a reference; NULL: none.
bool serve_ask_form(const struct serve *serve, const json_t *request, struct serve_job *job, json_t **tools,
                    struct serve_error *error);
// The grammar of that form, once it is known how the prompt ends.
bool serve_ask_bound(const struct serve *serve, struct serve_job *job, struct serve_error *error);

// ---- what requests of several kinds share --------------------------------------------------------------------------

// The model that is asked for is the one there is?
bool serve_ask_model(const struct serve *serve, const json_t *request, struct serve_error *error);
// The time that it may take: the server's, or less where the request says so.
bool serve_ask_time(const struct serve *serve, const json_t *request, struct serve_job *job, struct serve_error *error);
// Choosing, stops, n, stream, stream_options, time.
bool serve_ask_sampling(const struct serve *serve, const json_t *request, struct serve_job *job,
                        struct serve_error *error);
// Checks that the prompts leave room for what is generated, and makes the choices.
bool serve_ask_room(const struct serve *serve, struct serve_job *job, struct serve_error *error);
// A list of token ids; `where` names the field.
bool serve_ask_tokens(const struct serve *serve, const json_t *list, const char *where, uint32_t **tokens, size_t *n,
                      struct serve_error *error);
