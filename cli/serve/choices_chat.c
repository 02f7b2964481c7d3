// The choices of /v1/chat/completions: what was thought and what is said, and their log-probabilities.
#define _GNU_SOURCE // memmem
#include "cli/serve/choices.h"

#include <string.h>

// Parts of an answer, in order. The white space around a thought belongs to its tags.
enum part { BEGINNING, BEFORE_THOUGHT, THOUGHT, BEFORE_SPEECH, SPEECH };

static const char opening[] = "<think>", closing[] = "</think>";

static size_t blanks(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n && strchr(" \t\r\n", text[i])) i++;
    return i;
}

// How many bytes at the end of text[n] may be the beginning of the closing tag, and the blanks before it.
static size_t uncertain(const char *text, size_t n)
{
    size_t keep = 0;
    for (size_t k = 1; k < sizeof closing - 1 && k <= n; k++)
        if (memcmp(text + n - k, closing, k) == 0) keep = k;
    while (keep < n && strchr(" \t\r\n", text[n - keep - 1])) keep++;
    return keep;
}

// Adds n bytes to a text in `delta`.
static void say(json_t *delta, const char *key, const char *text, size_t n)
{
    if (n == 0) return;
    const json_t *before = json_object_get(delta, key);
    json_object_set_new(delta, key,
                        before ? json_sprintf("%s%.*s", json_string_value(before), (int)n, text)
                               : json_stringn_nocheck(text, n));
}

// Moves text_sent over what is certain, a part at a time. True while it moves.
static bool advance(const struct serve_job *job, struct serve_choice *c, bool last, json_t *delta)
{
    const char *text = c->text ? c->text + c->text_sent : "", *tag;
    const size_t n = c->n_text - c->text_sent;
    size_t take = 0;
    const int before = c->part;
    switch ((enum part)c->part) {
    case BEGINNING:
        if (job->reasons == SERVE_REASON_OPEN) c->part = BEFORE_THOUGHT;
        else if (job->reasons == SERVE_REASON_NONE || memcmp(text, opening, n < 7 ? n : 7) != 0) c->part = SPEECH;
        else if (n >= 7) c->part = BEFORE_THOUGHT, take = 7;
        else if (last) c->part = SPEECH;
        break;
    case BEFORE_THOUGHT:
        take = blanks(text, n);
        if (take < n) c->part = THOUGHT;
        break;
    case THOUGHT:
        tag = n ? memmem(text, n, closing, sizeof closing - 1) : NULL;
        take = tag ? (size_t)(tag - text) : last ? n : n - uncertain(text, n);
        if (tag) {
            size_t end = take;
            while (end && strchr(" \t\r\n", text[end - 1])) end--;
            say(delta, "reasoning_content", text, end);
            take += sizeof closing - 1;
            c->part = BEFORE_SPEECH;
        } else {
            say(delta, "reasoning_content", text, take);
        }
        break;
    case BEFORE_SPEECH:
        take = blanks(text, n);
        if (take < n) c->part = SPEECH;
        break;
    case SPEECH:
        take = n;
        say(delta, "content", text, n);
        break;
    }
    c->text_sent += take;
    return take > 0 || c->part != before;
}

// ---- log-probabilities ---------------------------------------------------------------------------------------------

static json_t *entry(const gyre_tokenizer *tokenizer, uint32_t token, float logprob)
{
    char name[2048];
    size_t n = 0;
    const char *raw = gyre_token_bytes(tokenizer, token, &n);
    gyre_text_stream stream = {0};
    size_t at = gyre_text_push(tokenizer, &stream, token, true, name, sizeof name - 16);
    at += gyre_text_flush(&stream, name + at, 16);
    json_t *bytes = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(bytes, json_integer((unsigned char)raw[i]));
    return json_pack("{s:o, s:f, s:o}", "token", json_stringn_nocheck(name, at), "logprob", (double)logprob, "bytes",
                     bytes);
}

static json_t *logprobs_of(const struct serve_job *job, struct serve_choice *c)
{
    if (!job->scores) return json_null();
    json_t *list = json_array();
    for (; c->said_sent < c->n_said; c->said_sent++) {
        const struct serve_said *t = &c->said[c->said_sent];
        json_t *one = entry(job->tokenizer, t->token, t->logprob), *top = json_array();
        for (uint32_t k = 0; k < t->n_best; k++)
            json_array_append_new(top, entry(job->tokenizer, c->best[t->best + k].token, c->best[t->best + k].logprob));
        json_object_set_new(one, "top_logprobs", top);
        json_array_append_new(list, one);
    }
    return json_pack("{s:o}", "content", list);
}

// ---- choices -------------------------------------------------------------------------------------------------------

static const char *finish_of(const struct serve_choice *c)
{
    static const char *const why[] = {NULL, "stop", "length"};
    return why[c->finish];
}

json_t *serve_chat_choice(const struct serve_job *job, struct serve_choice *c)
{
    json_t *message = json_pack("{s:s, s:s}", "role", "assistant", "content", "");
    while (advance(job, c, true, message)) {
    }
    return json_pack("{s:I, s:o, s:o, s:s}", "index", (json_int_t)c->index, "message", message, "logprobs",
                     logprobs_of(job, c), "finish_reason", finish_of(c));
}

static json_t *delta_choice(const struct serve_choice *c, json_t *delta, json_t *logprobs, const char *finish)
{
    return json_pack("{s:I, s:o, s:o, s:s?}", "index", (json_int_t)c->index, "delta", delta, "logprobs", logprobs,
                     "finish_reason", finish);
}

bool serve_chat_events(const struct serve *s, const struct serve_job *job, struct serve_choice *c,
                       struct serve_text *out)
{
    const bool last = c->finish != SERVE_GOES_ON;
    json_t *delta = json_object();
    while (advance(job, c, last, delta)) {
    }
    const bool news = json_object_size(delta) > 0 || c->said_sent < c->n_said;
    bool done = true;
    if (!c->opened && (news || last)) { // the role first
        c->opened = true;
        done = serve_chunk(
            s, job, delta_choice(c, json_pack("{s:s, s:s}", "role", "assistant", "content", ""), json_null(), NULL),
            out);
    }
    if (done && news) done = serve_chunk(s, job, delta_choice(c, json_incref(delta), logprobs_of(job, c), NULL), out);
    json_decref(delta);
    if (!done || !last) return done;
    c->closed = true;
    return serve_chunk(s, job, delta_choice(c, json_object(), json_null(), finish_of(c)), out);
}
