// One choice as JSON: whole, or what has come of it since text_sent and said_sent. All under the job's lock.
#pragma once
#include "cli/serve/event.h"

// Of /v1/completions, from those places on. `last`: it has finished.
json_t *serve_completion_choice(const struct serve_job *job, const struct serve_choice *choice, size_t text,
                                size_t said, bool last);
// Of /v1/chat/completions: the message; what has come of it, in chunks. False: out of memory.
json_t *serve_chat_choice(const struct serve_job *job, struct serve_choice *choice);
bool serve_chat_events(const struct serve *serve, const struct serve_job *job, struct serve_choice *choice,
                       struct serve_text *out);
// Of /v1/embeddings.
json_t *serve_embedding_choice(const struct serve_job *job, const struct serve_choice *choice);
