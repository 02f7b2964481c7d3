// POST /v1/embeddings.
#include "cli/serve/ask.h"

#include <stdlib.h>
#include <string.h>

static bool take_input(const struct serve *s, const json_t *value, struct serve_prompt *out, struct serve_error *e)
{
    gyre_error err = {0};
    if (json_is_array(value)) return serve_ask_tokens(s, value, "input", &out->tokens, &out->n, e);
    if (!json_is_string(value))
        return serve_refuse(e, 400, NULL, "input",
                            "'input' must be a text, a list of texts, a list of token ids or a list of such lists");
    const gyre_status st = gyre_tokenize(s->tokenizer, json_string_value(value), json_string_length(value),
                                         cli_prompt_flags(&s->engine.tokens), &out->tokens, &out->n, &err);
    if (st == GYRE_E_NOMEM) return serve_no_memory(e);
    return st == GYRE_OK || serve_refuse(e, 400, NULL, "input", "%s", err.message);
}

// A field that is one of two words; *second: the second.
static bool ask_word(const json_t *request, const char *key, const char *one, const char *two, bool *second,
                     struct serve_error *e)
{
    const json_t *value = serve_field(request, key);
    const char *word = json_string_value(value);
    if (!value) return true;
    if (!word || (strcmp(word, one) != 0 && strcmp(word, two) != 0))
        return serve_refuse(e, 400, NULL, key, "'%s' must be '%s' or '%s'", key, one, two);
    *second = strcmp(word, two) == 0;
    return true;
}

static bool ask(const struct serve *s, const json_t *request, const json_t *input, struct serve_job *job,
                struct serve_error *e)
{
    bool mean = s->mean;
    json_int_t dimensions = s->width;
    job->embeds = true;
    job->width = s->width;
    job->tokenizer = s->tokenizer;
    if (!serve_ask_model(s, request, e) || !serve_ask_time(s, request, job, e) ||
        !ask_word(request, "encoding_format", "float", "base64", &job->base64, e) ||
        !ask_word(request, "pooling", "last", "mean", &mean, e) ||
        !serve_field_whole(request, "dimensions", s->width, s->width, &dimensions, e))
        return false;
    job->params.max_tokens = 0;
    job->params.pooling = mean ? GYRE_POOL_MEAN : GYRE_POOL_LAST;
    const bool list = json_is_array(input) && !json_is_integer(json_array_get(input, 0));
    for (uint32_t i = 0; i < job->n_prompts; i++)
        if (!take_input(s, list ? json_array_get(input, i) : input, &job->prompt[i], e)) return false;
    return serve_ask_room(s, job, e);
}

struct serve_job *serve_ask_embedding(const struct serve *s, const json_t *request, struct serve_error *e)
{
    const json_t *input = serve_field(request, "input");
    const bool list = json_is_array(input) && !json_is_integer(json_array_get(input, 0));
    const size_t n = list ? json_array_size(input) : 1;
    if (!input || n == 0 || n > SERVE_MAX_CHOICES) {
        serve_refuse(e, 400, NULL, "input", "%s",
                     !input   ? "'input' is missing"
                     : n == 0 ? "'input' is empty"
                              : "'input' has too many texts for one request");
        return NULL;
    }
    struct serve_job *job = serve_job_new((uint32_t)n);
    if (!job) serve_no_memory(e);
    if (job && ask(s, request, input, job, e)) return job;
    serve_job_release(job);
    return NULL;
}
