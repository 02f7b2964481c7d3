// Which path is whose, who may ask, and the small answers.
#include "cli/serve/routes.h"
#include "cli/serve/ask.h"
#include "cli/serve/page.h"

#include <stdlib.h>
#include <string.h>

static bool health(struct serve_request *r, const json_t *json, struct serve_error *e)
{
    struct serve_counts c;
    (void)json, (void)e;
    serve_queue_count(r->serve->queue, &c);
    if (c.healthy) return serve_reply_json(r, 200, json_pack("{s:s}", "status", "ok"));
    return serve_reply_json(r, 503, json_pack("{s:s, s:o}", "status", "error", "message", cli_json_text(c.fault)));
}

static json_t *model(const struct serve *s)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:I}", "id", s->name, "object", "model", "created", (json_int_t)s->started,
                     "owned_by", "gyre", "max_model_len", (json_int_t)s->context);
}

static bool models(struct serve_request *r, const json_t *json, struct serve_error *e)
{
    (void)json, (void)e;
    return serve_reply_json(r, 200, json_pack("{s:s, s:[o]}", "object", "list", "data", model(r->serve)));
}

static bool one_model(struct serve_request *r, const json_t *json, struct serve_error *e)
{
    const char *name = r->path + strlen("/v1/models/");
    (void)json;
    if (strcmp(name, r->serve->name) == 0) return serve_reply_json(r, 200, model(r->serve));
    return serve_refuse(e, 404, "model_not_found", "model", "The model '%.200s' does not exist; this server has '%s'",
                        name, r->serve->name);
}

static bool metrics(struct serve_request *r, const json_t *json, struct serve_error *e)
{
    (void)json, (void)e;
    return serve_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", serve_metrics(r->serve), NULL, NULL);
}

static bool page(struct serve_request *r, const json_t *json, struct serve_error *e)
{
    (void)json;
    char *policy = serve_page_policy(), *text = strdup(serve_page);
    if (!policy || !text) {
        free(policy);
        free(text);
        return serve_no_memory(e);
    }
    const bool done = serve_reply(r, 200, "text/html; charset=utf-8", text, "Content-Security-Policy", policy);
    free(policy);
    return done;
}

bool serve_completions(struct serve_request *r, const json_t *json, struct serve_error *e)
{
    struct serve_job *job = serve_ask_completion(r->serve, json, e);
    return job && serve_reply_job(r, job);
}

bool serve_chat_completions(struct serve_request *r, const json_t *json, struct serve_error *e)
{
    struct serve_job *job = serve_ask_chat(r->serve, json, e);
    return job && serve_reply_job(r, job);
}

bool serve_embeddings(struct serve_request *r, const json_t *json, struct serve_error *e)
{
    struct serve_job *job = serve_ask_embedding(r->serve, json, e);
    return job && serve_reply_job(r, job);
}

struct route {
    const char *path;
    bool below;      // the path is the beginning of many
    bool post, open; // POST with JSON, else GET; needs no key
    serve_handler handler;
};
static const struct route routes[] = {
    {"/", false, false, true, page},
    {"/health", false, false, true, health},
    {"/metrics", false, false, false, metrics},
    {"/v1/models", false, false, false, models},
    {"/v1/models/", true, false, false, one_model},
    {"/tokenizer_info", false, false, false, serve_tokenizer_info},
    {"/tokenize", false, true, false, serve_tokenize},
    {"/detokenize", false, true, false, serve_detokenize},
    {"/v1/completions", false, true, false, serve_completions},
    {"/v1/embeddings", false, true, false, serve_embeddings},
    {"/v1/chat/completions", false, true, false, serve_chat_completions},
};

static const struct route *find(const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        const struct route *t = &routes[i];
        if (t->below ? strncmp(path, t->path, strlen(t->path)) == 0 : strcmp(path, t->path) == 0) return t;
    }
    return NULL;
}

// Takes as long whatever is wrong with the key.
static bool has_key(const struct serve_request *r)
{
    const char *key = r->serve->key, *given = r->authorization;
    if (!key) return true;
    if (!given || strncasecmp(given, "Bearer ", 7) != 0) return false;
    given += 7;
    const size_t n = strlen(key), m = strlen(given);
    unsigned wrong = n != m;
    for (size_t i = 0; i < m; i++)
        wrong |= (unsigned)(unsigned char)given[i] ^ (unsigned)(unsigned char)key[n ? i % n : 0];
    return wrong == 0;
}

static bool read_json(const struct serve_request *r, json_t **out, struct serve_error *e)
{
    json_error_t why;
    *out = json_loadb(r->body ? r->body : "", r->n_body, JSON_DECODE_ANY, &why);
    const enum json_error_code code = *out ? json_error_unknown : json_error_code(&why);
    if (code == json_error_null_character || code == json_error_null_byte_in_key)
        return serve_refuse(e, 400, NULL, NULL, "no text of the body may hold \\u0000 (byte %d)", why.position);
    if (code == json_error_numeric_overflow)
        return serve_refuse(e, 400, NULL, NULL,
                            "a number of the body is too large for 64 bits (byte %d); only the 'arguments' of a call, "
                            "which are a text, may hold such integers",
                            why.position);
    if (!*out)
        return serve_refuse(e, 400, NULL, NULL, "the body is not JSON: %.160s (byte %d)", why.text, why.position);
    if (json_is_object(*out)) return true;
    return serve_refuse(e, 400, NULL, NULL, "the body must be a JSON object");
}

static bool handle(struct serve_request *r, const struct route *t, struct serve_error *e)
{
    if (!t->post) return t->handler(r, NULL, e);
    serve_body_begin(r);
    const bool done = read_json(r, &r->json, e) && t->handler(r, r->json, e);
    serve_body_end(r);
    return done;
}

bool serve_route_takes(const struct serve_request *r)
{
    const struct route *t = find(r->path);
    return t && t->post && strcmp(r->method, "POST") == 0 && (t->open || has_key(r));
}

bool serve_route(struct serve_request *r)
{
    struct serve_error e = {0};
    (void)cli_json_lost(); // by another request on this connection
    const struct route *t = find(r->path);
    const bool get = strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0;
    if ((!t || !t->open) && !has_key(r)) {
        serve_refuse(&e, 401, "invalid_api_key", NULL,
                     "this server needs a key: send it as 'Authorization: Bearer KEY'");
        return serve_reply_error(r, &e, "WWW-Authenticate", "Bearer");
    }
    if (!t) {
        serve_refuse(&e, 404, NULL, NULL, "there is no %.100s here", r->path);
        return serve_reply_error(r, &e, NULL, NULL);
    }
    if (t->post ? strcmp(r->method, "POST") != 0 : !get) {
        serve_refuse(&e, 405, NULL, NULL, "%s takes %s", t->path, t->post ? "POST" : "GET");
        return serve_reply_error(r, &e, "Allow", t->post ? "POST" : "GET, HEAD");
    }
    if (handle(r, t, &e)) return true;
    return e.status && serve_reply_error(r, &e, e.status == 503 ? "Retry-After" : NULL, "1");
}
