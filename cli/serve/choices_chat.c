// The choices of /v1/chat/completions: what was thought, what is said, which tools are called, and their
// log-probabilities.
#include "cli/serve/choices.h"

#include <stdio.h>
#include <string.h>

// ---- parts ---------------------------------------------------------------------------------------------------------

// Where the parts of an answer go: a message, or the delta of a chunk.
struct collector {
    const struct serve_choice *choice;
    json_t *out;
    bool chunk; // calls have an index and come in pieces
    bool lost;  // memory ran out
};

// Appends to a text of an object; false: out of memory.
static bool append(json_t *object, const char *key, const char *text, size_t n)
{
    const json_t *before = json_object_get(object, key);
    const size_t had = json_string_length(before);
    if (!had) return !json_object_set_new(object, key, json_stringn_nocheck(text, n));
    struct serve_text all = {0};
    const bool done = serve_text_add(&all, json_string_value(before), had) && serve_text_add(&all, text, n) &&
                      !json_object_set_new(object, key, json_stringn_nocheck(all.text, all.n));
    serve_text_free(&all);
    return done;
}

// The call that is under way in `out`; made where a piece of it comes first in this chunk.
static json_t *call_of(const struct collector *c, uint32_t index)
{
    json_t *calls = json_object_get(c->out, "tool_calls"), *call;
    size_t i;
    json_array_foreach(calls, i, call)
    {
        const json_t *at = json_object_get(call, "index");
        if (at ? json_integer_value(at) == (json_int_t)index : i == index) return call;
    }
    if (!calls) json_object_set_new(c->out, "tool_calls", calls = json_array());
    call = json_pack("{s:{s:s}}", "function", "arguments", "");
    if (c->chunk) json_object_set_new(call, "index", json_integer(index));
    json_array_append_new(calls, call);
    return call;
}

static void on_part(void *user, const gyre_part *part)
{
    struct collector *c = *(struct collector **)user;
    if (part->kind == GYRE_PART_CONTENT || part->kind == GYRE_PART_REASONING) {
        const char *key = part->kind == GYRE_PART_CONTENT ? "content" : "reasoning_content";
        c->lost |= !append(c->out, key, part->text, part->bytes);
        return;
    }
    json_t *call = call_of(c, part->call), *function = json_object_get(call, "function");
    if (part->kind == GYRE_PART_ARGUMENTS) {
        c->lost |= !append(function, "arguments", part->text, part->bytes);
        return;
    }
    json_object_set_new(
        call, "id", json_sprintf("call_%s_%u_%u", strchr(c->choice->job->id, '-') + 1, c->choice->index, part->call));
    json_object_set_new(call, "type", json_string("function"));
    json_object_set_new(function, "name", json_stringn(part->text, part->bytes));
}

// Cuts what has come since the last time into its parts. False: out of memory.
static bool take_parts(const struct serve_job *job, struct serve_choice *c, struct collector *to)
{
    static const gyre_reasoning reasoning[] = {GYRE_REASONING_NONE, GYRE_REASONING_MAY, GYRE_REASONING_OPEN};
    const bool last = c->finish != SERVE_GOES_ON;
    const gyre_answer_params params = {.size = sizeof params,
                                       .reasoning = reasoning[job->reasons],
                                       .live = to->chunk && job->grammar != NULL,
                                       .on_part = on_part,
                                       .user = &c->collector};
    c->collector = to;
    if (!c->answer && gyre_answer_create(job->tools, &params, &c->answer, NULL) != GYRE_OK) return false;
    if (c->n_text > c->text_sent &&
        gyre_answer_push(c->answer, c->text + c->text_sent, c->n_text - c->text_sent, NULL) != GYRE_OK)
        return false;
    c->text_sent = c->n_text;
    if (last && gyre_answer_finish(c->answer, NULL) != GYRE_OK) return false;
    return !to->lost;
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
    return c->finish == SERVE_FINISH_STOP && gyre_answer_calls(c->answer) ? "tool_calls" : why[c->finish];
}

json_t *serve_chat_choice(const struct serve_job *job, struct serve_choice *c)
{
    json_t *message = json_pack("{s:s, s:s}", "role", "assistant", "content", "");
    struct collector to = {c, message, false, false};
    if (!message || !take_parts(job, c, &to)) {
        json_decref(message);
        return NULL;
    }
    if (gyre_answer_calls(c->answer) && json_string_length(json_object_get(message, "content")) == 0)
        json_object_set_new(message, "content", json_null());
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
    json_t *delta = json_object(), *begin = json_pack("{s:s, s:s}", "role", "assistant", "content", "");
    struct collector to = {c, delta, true, false};
    bool done = delta && begin && take_parts(job, c, &to);
    const bool news = json_object_size(delta) > 0 || c->said_sent < c->n_said;
    if (done && !c->opened && (news || last)) { // the role first
        c->opened = true;
        done = serve_chunk(s, job, delta_choice(c, json_incref(begin), json_null(), NULL), out);
    }
    if (done && news) done = serve_chunk(s, job, delta_choice(c, json_incref(delta), logprobs_of(job, c), NULL), out);
    json_decref(begin);
    json_decref(delta);
    if (!done || !last) return done;
    c->closed = true;
    return serve_chunk(s, job, delta_choice(c, json_object(), json_null(), finish_of(c)), out);
}
