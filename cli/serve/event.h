// Text of an answer as it is sent: a growing buffer, server-sent events, and what stands around choices.
#pragma once
#include "cli/serve/serve.h"

struct serve_text {
    char *text; // free
    size_t n, cap;
};
bool serve_text_add(struct serve_text *out, const char *text, size_t n); // false: out of memory
void serve_text_free(struct serve_text *text);
// "data: JSON\n\n"; takes the reference, of NULL too. False: out of memory.
bool serve_event(struct serve_text *out, json_t *data);

// An answer, or a chunk of one, around its choices, whose reference it takes. NULL: out of memory.
json_t *serve_envelope(const struct serve *serve, const struct serve_job *job, bool chunk, json_t *choices);
// A chunk with one choice, as an event.
bool serve_chunk(const struct serve *serve, const struct serve_job *job, json_t *choice, struct serve_text *out);
