// POST /v1/completions: the prompt in its four forms, echo and log-probabilities.
#include "cli/serve/ask.h"

#include "runtime/util/text.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_TOKENS = 16, MOST_LOGPROBS = 20, NOT_SAID = -2 };

static bool take_text(const struct serve *s, const json_t *value, struct serve_prompt *out, struct serve_error *e)
{
    gyre_error err = {0};
    const char *text = json_string_value(value);
    const gyre_status st = gyre_tokenize(s->tokenizer, text, json_string_length(value),
                                         cli_prompt_flags(&s->engine.tokens), &out->tokens, &out->n, &err);
    if (st == GYRE_E_NOMEM) return serve_no_memory(e);
    if (st != GYRE_OK) return serve_refuse(e, 400, NULL, "prompt", "%s", err.message);
    size_t n = 0;
    const char *first = out->n ? gyre_token_bytes(s->tokenizer, out->tokens[0], &n) : NULL;
    out->hidden = first && gyre_token_is_special(s->tokenizer, out->tokens[0]) && strncmp(text, first, n) != 0; // a BOS
    return true;
}

static bool take_prompt(const struct serve *s, const json_t *value, struct serve_prompt *out, struct serve_error *e)
{
    if (json_is_string(value)) return take_text(s, value, out, e);
    if (json_is_array(value)) return serve_ask_tokens(s, value, "prompt", &out->tokens, &out->n, e);
    return serve_refuse(e, 400, NULL, "prompt",
                        "'prompt' must be a text, a list of texts, a list of token ids or a list of such lists");
}

// What an echo shows: the text that was given, or what the tokens stand for.
static bool make_echo(const struct serve *s, const json_t *value, struct serve_prompt *p, struct serve_error *e)
{
    gyre_text_stream stream = {0};
    char piece[2048];
    size_t n = 0, cap = 0;
    if (json_is_string(value)) {
        p->text = strdup(json_string_value(value));
        return p->text || serve_no_memory(e);
    }
    for (size_t i = 0; i <= p->n; i++) {
        const size_t more = i < p->n ? gyre_text_push(s->tokenizer, &stream, p->tokens[i], true, piece, sizeof piece)
                                     : gyre_text_flush(&stream, piece, sizeof piece);
        if (!gyre_append(&p->text, &n, &cap, piece, more)) return serve_no_memory(e);
    }
    return true;
}

// What stays where the context shifts: so many tokens, all of the prompt (-1), or, unless it is said, a first token
// that is a special one.
static void keep_first(const struct serve *s, struct serve_prompt *p, json_int_t keep)
{
    if (keep == NOT_SAID) p->keep = p->n && gyre_token_is_special(s->tokenizer, p->tokens[0]);
    else p->keep = keep < 0 || (size_t)keep > p->n ? (uint32_t)p->n : (uint32_t)keep;
}

// What binds an answer is of chats: here it would be a promise that nothing keeps.
static bool of_chats(const json_t *request, struct serve_error *e)
{
    const json_t *format = serve_field(request, "response_format"), *tools = serve_field(request, "tools");
    const char *type = json_string_value(json_object_get(format, "type"));
    const bool bound = format && (!type || strcmp(type, "text") != 0);
    if (!bound && (!tools || (json_is_array(tools) && json_array_size(tools) == 0))) return true;
    const char *name = bound ? "response_format" : "tools";
    return serve_refuse(e, 400, NULL, name, "'%s' is of chats; ask /v1/chat/completions", name);
}

static bool ask(const struct serve *s, const json_t *request, const json_t *prompt, struct serve_job *job,
                struct serve_error *e)
{
    json_int_t max_tokens = DEFAULT_TOKENS, logprobs = -1, best_of = 1, keep = NOT_SAID;
    const bool many = job->n_prompts > 1 || !json_is_integer(json_array_get(prompt, 0));
    if (!serve_ask_sampling(s, request, job, e) ||
        !serve_field_whole(request, "max_tokens", 0, INT32_MAX, &max_tokens, e) ||
        !serve_field_whole(request, "logprobs", 0, MOST_LOGPROBS, &logprobs, e) ||
        !serve_field_flag(request, "echo", &job->echo, e) ||
        !serve_field_whole(request, "n_keep", -1, INT32_MAX, &keep, e) ||
        !serve_field_whole(request, "best_of", 1, 128, &best_of, e))
        return false;
    if (best_of > (json_int_t)job->n)
        return serve_refuse(e, 400, NULL, "best_of", "'best_of' beyond 'n' is not supported");
    if (serve_field(request, "suffix")) return serve_refuse(e, 400, NULL, "suffix", "'suffix' is not supported");
    if (!of_chats(request, e)) return false;
    job->scores = logprobs >= 0;
    job->n_best = job->scores ? (uint32_t)logprobs : 0;
    job->params.max_tokens = (uint32_t)max_tokens;
    job->params.scores = job->scores;
    job->params.score_prompt = job->scores && job->echo;
    job->params.n_best = job->n_best;
    for (uint32_t i = 0; i < job->n_prompts; i++) {
        const json_t *one = json_is_array(prompt) && many ? json_array_get(prompt, i) : prompt;
        if (!take_prompt(s, one, &job->prompt[i], e)) return false;
        if (job->echo && !make_echo(s, one, &job->prompt[i], e)) return false;
        keep_first(s, &job->prompt[i], keep);
    }
    return serve_ask_room(s, job, e);
}

struct serve_job *serve_ask_completion(const struct serve *s, const json_t *request, struct serve_error *e)
{
    const json_t *prompt = serve_field(request, "prompt");
    const bool list = json_is_array(prompt) && !json_is_integer(json_array_get(prompt, 0));
    const size_t n = list ? json_array_size(prompt) : 1;
    if (!prompt || n == 0 || n > SERVE_MAX_CHOICES) {
        serve_refuse(e, 400, NULL, "prompt", "%s",
                     !prompt  ? "'prompt' is missing"
                     : n == 0 ? "'prompt' is empty: there is nothing to start from"
                              : "'prompt' has too many texts for one request");
        return NULL;
    }
    struct serve_job *job = serve_job_new((uint32_t)n);
    if (!job) serve_no_memory(e);
    if (job && ask(s, request, prompt, job, e)) return job;
    serve_job_release(job);
    return NULL;
}
