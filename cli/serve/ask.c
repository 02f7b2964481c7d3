// What requests for text have in common. See ask.h.
#include "cli/serve/ask.h"

#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { MOST_CONTEXTS = 16 }; // of an answer, where the context shifts

bool serve_ask_model(const struct serve *s, const json_t *request, struct serve_error *e)
{
    const json_t *model = serve_field(request, "model");
    if (!model) return true;
    if (!json_is_string(model)) return serve_refuse(e, 400, NULL, "model", "'model' must be a text");
    if (strcmp(json_string_value(model), s->name) == 0) return true;
    return serve_refuse(e, 404, "model_not_found", "model", "The model '%.200s' does not exist; this server has '%s'",
                        json_string_value(model), s->name);
}

bool serve_ask_tokens(const struct serve *s, const json_t *list, const char *where, uint32_t **tokens, size_t *n,
                      struct serve_error *e)
{
    *n = json_array_size(list);
    *tokens = malloc((*n + 1) * sizeof **tokens);
    if (!*tokens) return serve_no_memory(e);
    for (size_t i = 0; i < *n; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id))
            return serve_refuse(e, 400, NULL, where, "'%s' must hold token ids alone; element %zu is none", where, i);
        const json_int_t value = json_integer_value(id);
        if (value < 0 || value >= (json_int_t)s->vocab)
            return serve_refuse(e, 400, NULL, where, "'%s' holds %lld, which is no token: ids are 0 to %u", where,
                                (long long)value, s->vocab - 1);
        (*tokens)[i] = (uint32_t)value;
    }
    return true;
}

bool serve_ask_time(const struct serve *s, const json_t *request, struct serve_job *job, struct serve_error *e)
{
    double most = s->timeout ? s->timeout : 86400;
    job->timeout_s = s->timeout;
    if (!serve_field_number(request, "timeout", 0.001, 86400, &job->timeout_s, e)) return false;
    if (job->timeout_s > most) job->timeout_s = most;
    return true;
}

static bool take_stop(const json_t *value, struct serve_job *job, struct serve_error *e)
{
    const char *text = json_string_value(value);
    if (!text || !*text)
        return serve_refuse(e, 400, NULL, "stop", "'stop' must be a text or a list of texts, none empty");
    if (job->n_stop == SERVE_MAX_STOPS)
        return serve_refuse(e, 400, NULL, "stop", "'stop' may have %d texts at most", SERVE_MAX_STOPS);
    job->stop[job->n_stop] = strdup(text);
    return job->stop[job->n_stop++] || serve_no_memory(e);
}

static bool ask_stops(const json_t *request, struct serve_job *job, struct serve_error *e)
{
    const json_t *stop = serve_field(request, "stop");
    if (!stop) return true;
    if (!json_is_array(stop)) return take_stop(stop, job, e);
    for (size_t i = 0; i < json_array_size(stop); i++)
        if (!take_stop(json_array_get(stop, i), job, e)) return false;
    return true;
}

static bool ask_bias(const struct serve *s, const json_t *request, struct serve_job *job, struct serve_error *e)
{
    json_t *bias = serve_field(request, "logit_bias"), *value;
    const char *key;
    if (!bias) return true;
    if (!json_is_object(bias)) return serve_refuse(e, 400, NULL, "logit_bias", "'logit_bias' must be an object");
    job->bias = malloc((json_object_size(bias) + 1) * sizeof *job->bias);
    if (!job->bias) return serve_no_memory(e);
    json_object_foreach(bias, key, value)
    {
        char *end = NULL;
        const unsigned long long id = strtoull(key, &end, 10);
        const double by = json_number_value(value);
        if (*key < '0' || *key > '9' || *end || id >= s->vocab)
            return serve_refuse(e, 400, NULL, "logit_bias", "'logit_bias' has a key that is no token id");
        if (!json_is_number(value) || by < -100 || by > 100)
            return serve_refuse(e, 400, NULL, "logit_bias",
                                "'logit_bias' of token %llu must be a number from -100 to 100", id);
        job->bias[job->params.n_bias++] = (gyre_logit_bias){(uint32_t)id, (float)by};
    }
    job->params.bias = job->bias;
    return true;
}

static bool ask_numbers(const json_t *request, struct serve_job *job, struct serve_error *e)
{
    double temperature = 1, top_p = 1, min_p = 0, presence = 0, frequency = 0, repetition = 1;
    json_int_t top_k = 0, seed = 0, n = 1;
    if (!serve_field_number(request, "temperature", 0, 100, &temperature, e) ||
        !serve_field_number(request, "top_p", 0, 1, &top_p, e) ||
        !serve_field_number(request, "min_p", 0, 1, &min_p, e) ||
        !serve_field_number(request, "presence_penalty", -2, 2, &presence, e) ||
        !serve_field_number(request, "frequency_penalty", -2, 2, &frequency, e) ||
        !serve_field_number(request, "repeat_penalty", 1e-6, 1e6, &repetition, e) ||
        !serve_field_number(request, "repetition_penalty", 1e-6, 1e6, &repetition, e) ||
        !serve_field_whole(request, "top_k", -1, INT32_MAX, &top_k, e) ||
        !serve_field_whole(request, "n", 1, 128, &n, e) ||
        !serve_field_whole(request, "seed", INT64_MIN, INT64_MAX, &seed, e))
        return false;
    job->n = (uint32_t)n;
    gyre_task_params *const p = &job->params;
    p->temperature = (float)temperature;
    p->top_p = top_p > 0 ? (float)top_p : 1e-9f; // 0 leaves the likeliest alone
    p->min_p = (float)min_p;
    p->presence = (float)presence;
    p->frequency = (float)frequency;
    p->repetition = (float)repetition;
    p->top_k = top_k > 0 ? (uint32_t)top_k : 0;
    p->seed = (uint64_t)seed;
    if (serve_field(request, "seed") || getrandom(&p->seed, sizeof p->seed, GRND_NONBLOCK) == (ssize_t)sizeof p->seed)
        return true;
    p->seed = (uint64_t)job->created * 0x9E3779B97F4A7C15u ^ (uint64_t)(uintptr_t)job;
    return true;
}

static bool ask_stream(const json_t *request, struct serve_job *job, struct serve_error *e)
{
    const json_t *options = serve_field(request, "stream_options");
    if (!serve_field_flag(request, "stream", &job->stream, e)) return false;
    if (!options) return true;
    if (!json_is_object(options))
        return serve_refuse(e, 400, NULL, "stream_options", "'stream_options' must be an object");
    if (!job->stream)
        return serve_refuse(e, 400, NULL, "stream_options", "'stream_options' is for streams: set 'stream' to true");
    return serve_field_flag(options, "include_usage", &job->include_usage, e);
}

bool serve_ask_sampling(const struct serve *s, const json_t *request, struct serve_job *job, struct serve_error *e)
{
    uint64_t id[2] = {0};
    job->tokenizer = s->tokenizer;
    job->created = (long)time(NULL);
    if (getrandom(id, sizeof id, GRND_NONBLOCK) != (ssize_t)sizeof id) id[0] = (uint64_t)(uintptr_t)job;
    snprintf(job->id, sizeof job->id, "%s-%016llx%016llx", job->chat ? "chatcmpl" : "cmpl", (unsigned long long)id[0],
             (unsigned long long)id[1]);
    return serve_ask_model(s, request, e) && serve_ask_time(s, request, job, e) && ask_numbers(request, job, e) &&
           ask_stops(request, job, e) && ask_bias(s, request, job, e) && ask_stream(request, job, e);
}

// A text that leaves no room loses its oldest tokens behind the first that are kept.
static void shorten(const struct serve *s, struct serve_prompt *p)
{
    const size_t leave = p->keep <= p->n ? gyre_context_shift(p->n, p->keep, s->context) : 0;
    if (!leave) return;
    memmove(p->tokens + p->keep, p->tokens + p->keep + leave, (p->n - p->keep - leave) * sizeof *p->tokens);
    p->n -= leave;
}

bool serve_ask_room(const struct serve *s, struct serve_job *job, struct serve_error *e)
{
    const char *field = job->chat ? "messages" : job->embeds ? "input" : "prompt";
    const bool shift = s->shift && !job->embeds && !job->params.score_prompt;
    job->params.shift = shift;
    if (shift) job->params.max_tokens = GYRE_MIN(job->params.max_tokens, MOST_CONTEXTS * s->context);
    for (uint32_t i = 0; i < job->n_prompts; i++) {
        struct serve_prompt *const p = &job->prompt[i];
        const uint32_t more = job->params.max_tokens > 0;
        if (shift && !job->chat && p->n + more > s->context) shorten(s, p);
        const size_t n = p->n;
        if (n == 0) return serve_refuse(e, 400, NULL, field, "'%s' is empty: there is nothing to start from", field);
        if (n + more > s->context)
            return serve_refuse(e, 400, "context_length_exceeded", field,
                                "This model's maximum context length is %u tokens and the prompt has %zu, which leaves "
                                "no room for an answer; shorten it",
                                s->context, n);
    }
    if ((uint64_t)job->n_prompts * job->n > SERVE_MAX_CHOICES)
        return serve_refuse(e, 400, NULL, job->n_prompts > 1 ? field : "n",
                            "%u prompts with %u answers each are too many for one request: %d answers are allowed",
                            job->n_prompts, job->n, SERVE_MAX_CHOICES);
    return serve_job_make_choices(job) || serve_no_memory(e);
}
