// See answer.h.
#include "cli/serve/answer.h"
#include "cli/serve/choices.h"

#include <stdlib.h>
#include <string.h>

bool serve_job_done(const struct serve_job *job)
{
    for (uint32_t i = 0; i < job->n_choices; i++)
        if (job->choice[i].finish == SERVE_GOES_ON) return false;
    return true;
}

static json_t *usage(const struct serve_job *job)
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

static json_t *embeddings(const struct serve *s, const struct serve_job *job)
{
    json_t *list = json_array();
    json_int_t tokens = 0;
    for (uint32_t i = 0; i < job->n_prompts; i++) tokens += (json_int_t)job->prompt[i].n;
    for (uint32_t i = 0; i < job->n_choices; i++)
        json_array_append_new(list, serve_embedding_choice(job, &job->choice[i]));
    return json_pack("{s:s, s:o, s:s, s:{s:I, s:I}}", "object", "list", "data", list, "model", s->name, "usage",
                     "prompt_tokens", tokens, "total_tokens", tokens);
}

static json_t *completion(const struct serve *s, struct serve_job *job)
{
    json_t *choices = json_array();
    for (uint32_t i = 0; i < job->n_choices; i++)
        json_array_append_new(choices, job->chat ? serve_chat_choice(job, &job->choice[i])
                                                 : serve_completion_choice(job, &job->choice[i], 0, 0, true));
    json_t *answer = serve_envelope(s, job, false, choices);
    if (answer) json_object_set_new(answer, "usage", usage(job));
    return answer;
}

json_t *serve_answer(const struct serve *s, struct serve_job *job)
{
    (void)cli_json_lost();
    json_t *answer = job->embeds ? embeddings(s, job) : completion(s, job);
    if (!cli_json_lost()) return answer;
    json_decref(answer);
    return NULL;
}

// ---- streams -------------------------------------------------------------------------------------------------------

static bool completion_events(const struct serve *s, const struct serve_job *job, struct serve_choice *c,
                              struct serve_text *out)
{
    const bool last = c->finish != SERVE_GOES_ON;
    if (!last && c->n_text == c->text_sent && c->n_said == c->said_sent) return true;
    if (!serve_chunk(s, job, serve_completion_choice(job, c, c->text_sent, c->said_sent, last), out)) return false;
    c->text_sent = c->n_text;
    c->said_sent = c->n_said;
    c->closed = last;
    return true;
}

static bool events(const struct serve *s, struct serve_job *job, struct serve_text *out)
{
    bool all = true;
    for (uint32_t i = 0; i < job->n_choices; i++) {
        struct serve_choice *c = &job->choice[i];
        all = all && c->finish != SERVE_GOES_ON;
        if (c->closed) continue;
        if (!(job->chat ? serve_chat_events : completion_events)(s, job, c, out)) return false;
    }
    if (!all) return true;
    if (job->include_usage) {
        json_t *last = serve_envelope(s, job, true, json_array());
        if (last) json_object_set_new(last, "usage", usage(job));
        if (!serve_event(out, last)) return false;
    }
    return serve_text_add(out, "data: [DONE]\n\n", 14);
}

bool serve_answer_events(const struct serve *s, struct serve_job *job, struct serve_text *out)
{
    (void)cli_json_lost();
    const bool done = events(s, job, out);
    return !cli_json_lost() && done;
}
