// From the JSON of a request to a job: what is asked, checked field by field.
#pragma once
#include "cli/serve/serve.h"

// NULL, with an error, for what cannot be answered. The caller has the reference.
struct serve_job *serve_ask_completion(const struct serve *serve, const json_t *request, struct serve_error *error);

// ---- what requests of several kinds share
// ---------------------------------------------------------------------------

// The model that is asked for is the one there is?
bool serve_ask_model(const struct serve *serve, const json_t *request, struct serve_error *error);
// Choosing, stops, n, stream, stream_options.
bool serve_ask_sampling(const struct serve *serve, const json_t *request, struct serve_job *job,
                        struct serve_error *error);
// Checks that the prompts leave room for what is generated, and makes the choices.
bool serve_ask_room(const struct serve *serve, struct serve_job *job, struct serve_error *error);
bool serve_no_memory(struct serve_error *error); // refuses for want of memory
// A list of token ids; `where` names the field.
bool serve_ask_tokens(const struct serve *serve, const json_t *list, const char *where, uint32_t **tokens, size_t *n,
                      struct serve_error *error);
