// See event.h.
#include "cli/serve/event.h"

#include "runtime/util/text.h"

#include <stdlib.h>
#include <string.h>

bool serve_text_add(struct serve_text *out, const char *text, size_t n)
{
    return gyre_append(&out->text, &out->n, &out->cap, text, n);
}

void serve_text_free(struct serve_text *text)
{
    free(text->text);
    *text = (struct serve_text){0};
}

bool serve_event(struct serve_text *out, json_t *data)
{
    char *text = json_dumps(data, JSON_COMPACT | JSON_REAL_PRECISION(9));
    const bool done = text && serve_text_add(out, "data: ", 6) && serve_text_add(out, text, strlen(text)) &&
                      serve_text_add(out, "\n\n", 2);
    free(text);
    json_decref(data);
    return done;
}

// An answer or a chunk of one around its choices, whose reference it takes.
json_t *serve_envelope(const struct serve *s, const struct serve_job *job, bool chunk, json_t *choices)
{
    const char *object = !job->chat ? "text_completion" : chunk ? "chat.completion.chunk" : "chat.completion";
    return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", job->id, "object", object, "created", (json_int_t)job->created,
                     "model", s->name, "choices", choices);
}

bool serve_chunk(const struct serve *s, const struct serve_job *job, json_t *choice, struct serve_text *out)
{
    return serve_event(out, serve_envelope(s, job, true, json_pack("[o]", choice)));
}
