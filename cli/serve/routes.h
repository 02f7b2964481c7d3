// What each route answers. A handler gets the request's JSON object (NULL for GET) and answers by serve_reply...;
// where it returns false with an error set, that is the answer.
#pragma once
#include "cli/serve/http.h"

bool serve_route(struct serve_request *request);             // a serve_answerer
bool serve_route_takes(const struct serve_request *request); // a serve_taker: who may ask, where a body is read

typedef bool (*serve_handler)(struct serve_request *request, const json_t *json, struct serve_error *error);

// Text (ask.h).
bool serve_completions(struct serve_request *request, const json_t *json, struct serve_error *error);
bool serve_chat_completions(struct serve_request *request, const json_t *json, struct serve_error *error);
bool serve_embeddings(struct serve_request *request, const json_t *json, struct serve_error *error);
// Tokens (tokens.c).
bool serve_tokenize(struct serve_request *request, const json_t *json, struct serve_error *error);
bool serve_detokenize(struct serve_request *request, const json_t *json, struct serve_error *error);
bool serve_tokenizer_info(struct serve_request *request, const json_t *json, struct serve_error *error);
