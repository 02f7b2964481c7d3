// The choices of /v1/completions, with their log-probabilities in OpenAI's older form.
#include "cli/serve/choices.h"

#include <stdio.h>
#include <string.h>

// A token as text; one that is a part of a character as its bytes, so that different tokens never have one name.
static json_t *name_of(const gyre_tokenizer *tokenizer, uint32_t token)
{
    size_t n = 0;
    char name[1024];
    const char *bytes = gyre_token_bytes(tokenizer, token, &n);
    json_t *text = bytes ? json_stringn(bytes, n) : json_sprintf("<token %u>", token);
    if (text || !bytes) return text;
    int at = snprintf(name, sizeof name, "bytes:");
    for (size_t i = 0; i < n && at < (int)sizeof name - 8; i++)
        at += snprintf(name + at, sizeof name - (size_t)at, "\\x%02x", (unsigned)(unsigned char)bytes[i]);
    return json_string(name);
}

static void set_best(json_t *best, const gyre_tokenizer *tokenizer, uint32_t token, float logprob)
{
    json_t *name = name_of(tokenizer, token);
    if (name) json_object_set_new(best, json_string_value(name), json_real((double)logprob));
    json_decref(name);
}

static json_t *logprobs_of(const struct serve_job *job, const struct serve_choice *c, size_t from)
{
    json_t *tokens = json_array(), *logprobs = json_array(), *top = json_array(), *offsets = json_array();
    for (size_t i = from; i < c->n_said; i++) {
        const struct serve_said *t = &c->said[i];
        json_t *best = t->scored ? json_object() : json_null();
        for (uint32_t k = 0; k < t->n_best; k++)
            set_best(best, job->tokenizer, c->best[t->best + k].token, c->best[t->best + k].logprob);
        if (t->scored) set_best(best, job->tokenizer, t->token, t->logprob);
        json_array_append_new(tokens, name_of(job->tokenizer, t->token));
        json_array_append_new(logprobs, t->scored ? json_real((double)t->logprob) : json_null());
        json_array_append_new(top, best);
        json_array_append_new(offsets, json_integer(t->offset));
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", logprobs, "top_logprobs", top,
                     "text_offset", offsets);
}

json_t *serve_completion_choice(const struct serve_job *job, const struct serve_choice *c, size_t text, size_t said,
                                bool last)
{
    static const char *const why[] = {NULL, "stop", "length"};
    json_t *logprobs = job->scores ? logprobs_of(job, c, said) : json_null();
    return json_pack("{s:I, s:o, s:o, s:s?}", "index", (json_int_t)c->index, "text",
                     json_stringn_nocheck(c->text ? c->text + text : "", c->n_text - text), "logprobs", logprobs,
                     "finish_reason", last ? why[c->finish] : NULL);
}
