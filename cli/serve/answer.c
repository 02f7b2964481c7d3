// See answer.h.
#include "cli/serve/answer.h"

#include <stdlib.h>
#include <string.h>

bool serve_job_done(const struct serve_job *job)
{
    for (uint32_t i = 0; i < job->n_choices; i++)
        if (job->choice[i].finish == SERVE_GOES_ON) return false;
    return true;
}

json_t *serve_usage(const struct serve_job *job)
{
    json_int_t prompt = 0, cached = 0, generated = 0;
    for (uint32_t i = 0; i < job->n_prompts; i++) {
        prompt += (json_int_t)job->prompt[i].n;
        cached += job->prompt[i].cached;
    }
    for (uint32_t i = 0; i < job->n_choices; i++) generated += job->choice[i].generated;
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", prompt, "completion_tokens", generated,
                     "total_tokens", prompt + generated, "prompt_tokens_details", "cached_tokens", cached);
}

// An answer or a chunk of one around its choices, whose reference it takes.
static json_t *envelope(const struct serve *s, const struct serve_job *job, bool chunk, json_t *choices)
{
    const char *object = !job->chat ? "text_completion" : chunk ? "chat.completion.chunk" : "chat.completion";
    return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", job->id, "object", object, "created", (json_int_t)job->created,
                     "model", s->name, "choices", choices);
}

json_t *serve_answer(const struct serve *s, const struct serve_job *job)
{
    json_t *choices = json_array();
    for (uint32_t i = 0; i < job->n_choices; i++)
        json_array_append_new(choices, serve_completion_choice(job, &job->choice[i], 0, 0, true));
    json_t *answer = envelope(s, job, false, choices);
    if (answer) json_object_set_new(answer, "usage", serve_usage(job));
    return answer;
}

// ---- streams
// --------------------------------------------------------------------------------------------------------

bool serve_text_add(struct serve_text *out, const char *text, size_t n)
{
    if (out->n + n > out->cap) {
        const size_t cap = 2 * (out->n + n) + 1024;
        char *grown = realloc(out->text, cap);
        if (!grown) return false;
        out->text = grown;
        out->cap = cap;
    }
    memcpy(out->text + out->n, text, n);
    out->n += n;
    return true;
}

bool serve_event(struct serve_text *out, json_t *data)
{
    char *text = json_dumps(data, JSON_COMPACT);
    const bool done = text && serve_text_add(out, "data: ", 6) && serve_text_add(out, text, strlen(text)) &&
                      serve_text_add(out, "\n\n", 2);
    free(text);
    json_decref(data);
    return done;
}

static bool chunk(const struct serve *s, const struct serve_job *job, json_t *choice, struct serve_text *out)
{
    return serve_event(out, envelope(s, job, true, json_pack("[o]", choice)));
}

bool serve_answer_events(const struct serve *s, struct serve_job *job, struct serve_text *out)
{
    bool all = true;
    for (uint32_t i = 0; i < job->n_choices; i++) {
        struct serve_choice *c = &job->choice[i];
        const bool last = c->finish != SERVE_GOES_ON;
        all = all && last;
        if (c->closed || (!last && c->n_text == c->text_sent && c->n_said == c->said_sent)) continue;
        if (!chunk(s, job, serve_completion_choice(job, c, c->text_sent, c->said_sent, last), out)) return false;
        c->text_sent = c->n_text;
        c->said_sent = c->n_said;
        c->closed = last;
    }
    if (!all) return true;
    if (job->include_usage) {
        json_t *last = envelope(s, job, true, json_array());
        if (last) json_object_set_new(last, "usage", serve_usage(job));
        if (!serve_event(out, last)) return false;
    }
    return serve_text_add(out, "data: [DONE]\n\n", 14);
}
