// gyre serve: the model over HTTP, in OpenAI's words.
#include "cli/serve/fit.h"
#include "cli/serve/routes.h"
#include "runtime/util/utf8.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { GRACE_S = 2, SCORED_ROWS = 64, ARENAS = 2 };

static int on_load(void *user, double fraction, const char *what)
{
    (void)user, (void)fraction, (void)what;
    return cli_interrupted();
}

static gyre_engine_params engine_params(const struct serve *s)
{
    gyre_engine_params params = cli_engine_params(&s->engine);
    params.sequences = s->slots;
    params.logit_rows = SCORED_ROWS;
    params.log = cli_log(false);
    params.progress = on_load;
    return params;
}

static gyre_status open_engine(void *user, gyre_engine **out, gyre_error *err)
{
    const struct serve *s = user;
    const gyre_engine_params params = engine_params(s);
    return gyre_engine_open(s->model, &params, out, err);
}

// Settles what was left open, and says what it takes.
static gyre_status plan(struct serve *s, gyre_error *err)
{
    const double mib = 1048576.0;
    gyre_engine_params params = engine_params(s);
    gyre_memory_plan plan;
    GYRE_TRY(serve_fit(s->model, &params, strcmp(s->fit, "on") == 0, &plan, err));
    s->slots = params.sequences;
    s->engine.context = params.context;
    fprintf(
        stderr,
        "plan: %u slots of %u tokens; weights %.1f MiB, cache (%s bits) %.1f MiB, work %.1f MiB, together %.1f of the "
        "%.0f MiB of %s\n",
        s->slots, s->engine.context, (double)plan.weights / mib, cli_widths(plan.kv_bits, plan.kv_bits_v).text,
        (double)plan.kv / mib, (double)plan.work / mib, (double)(plan.weights + plan.kv + plan.work) / mib,
        (double)plan.memory / mib, plan.device);
    return GYRE_OK;
}

// The file's base name without .gguf, unless an alias was given. Every answer has it, and JSON is UTF-8. False: out of
// memory.
static bool name_model(struct serve *s)
{
    const char *end = s->model + strlen(s->model), *from;
    while (end > s->model + 1 && end[-1] == '/') end--;
    for (from = end; from > s->model && from[-1] != '/';) from--;
    size_t n = (size_t)(end - from);
    if (n > 5 && strncmp(end - 5, ".gguf", 5) == 0) n -= 5;
    char *name = s->alias ? strdup(s->alias) : strndup(from, n);
    s->name = name ? gyre_utf8_mended(name) : NULL;
    free(name);
    return s->name != NULL;
}

// The model's template, or none, which only conversations miss.
static gyre_status open_template(struct serve *s, const gyre_log *log, gyre_error *err)
{
    const gyre_status st = gyre_template_open(s->model, s->template_choice, &s->template, err);
    s->end_token = UINT32_MAX;
    if (st == GYRE_E_UNSUPPORTED && !s->template_choice) {
        log->write(log->user, GYRE_LOG_WARN, err->message);
        return GYRE_OK;
    }
    GYRE_TRY(st);
    const char *text = gyre_template_text(s->template);
    s->syntax = gyre_tool_syntax_of(text);
    s->reasons = strstr(text, "<think>") || strstr(text, "reasoning_content") ? SERVE_REASON_MAY : SERVE_REASON_NONE;
    return gyre_template_end(s->template, s->tokenizer, &s->end_token, &s->end_text, err);
}

static gyre_status serve(struct serve *s, gyre_error *err)
{
    struct serve_http *http = NULL;
    const gyre_log log = cli_log(false);
    struct serve_queue_params queue = {
        .most_waiting = s->waiting, .open = open_engine, .interrupted = cli_interrupted, .user = s, .log = log};
    gyre_status st = GYRE_OK;
    GYRE_GO(plan(s, err));
    queue.slots = s->slots;
    GYRE_GO(gyre_tokenizer_open(s->model, s->engine.tokens.pre, &log, &s->tokenizer, err));
    GYRE_GO(open_template(s, &log, err));
    GYRE_GO(gyre_vocabulary_create(s->tokenizer, &s->vocabulary, err));
    GYRE_GO(serve_queue_start(&queue, &s->queue, err));
    s->vocab = serve_queue_engine(s->queue)->vocab;
    s->context = serve_queue_engine(s->queue)->context;
    s->width = serve_queue_engine(s->queue)->width;
    s->mean = strcmp(s->pooling, "mean") == 0;
    if (cli_interrupted()) goto done;
    GYRE_GO(serve_http_start(s, serve_route, serve_route_takes, &s->port, &http, err));
    fprintf(stderr, "listening on http://%s%s%s:%u\n", strchr(s->host, ':') ? "[" : "", s->host,
            strchr(s->host, ':') ? "]" : "", s->port);
    while (!cli_interrupted()) nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    serve_http_quiet(http);
done:
    serve_queue_stop(s->queue, GRACE_S); // what waits for the engine is told, before the connections end
    serve_http_stop(http);
    serve_queue_destroy(s->queue); // requests came, streams ended and health was asked for until then
    gyre_vocabulary_destroy(s->vocabulary);
    gyre_template_close(s->template);
    gyre_free(s->end_text);
    gyre_tokenizer_close(s->tokenizer);
    return st;
}

static bool is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 || strncmp(host, "127.", 4) == 0;
}

static int run(int argc, char **argv)
{
    struct serve s = {.host = "127.0.0.1", .port = 8080, .waiting = 64, .fit = "on", .pooling = "last"};
    bool no_key = false;
    const struct cli_option options[] = {
        {"--host", "ADDRESS", "address to listen on (127.0.0.1)", CLI_TEXT, &s.host, 0, 0, NULL},
        {"--port", "PORT", "port to listen on; 0: a free one (8080)", CLI_U32, &s.port, 0, 65535, NULL},
        {"--context", "N", "longest sequence in tokens; default: the model's, at most 4096, or what fits", CLI_U32,
         &s.engine.context, 1, 1 << 24, NULL},
        {"--slots", "N", "sequences alive at once; default: 4, or what fits", CLI_U32, &s.slots, 1, 256, NULL},
        {"--queue", "N", "requests that may wait (64)", CLI_U32, &s.waiting, 0, 100000, NULL},
        {"--timeout", "SECONDS", "time of a request, to come whole (at most 120) and to be answered; 0: no limit (0)",
         CLI_U32, &s.timeout, 0, 86400, NULL},
        {"--context-shift", NULL, "where the context is full its oldest part leaves, the system's message never",
         CLI_FLAG, &s.shift, 0, 0, NULL},
        {"--fit", "on|off", "make what is not given fit the device (on)", CLI_TEXT, &s.fit, 0, 0, "on,off"},
        {"--alias", "NAME", "the model's name; default: the file's", CLI_TEXT, &s.alias, 0, 0, NULL},
        {"--api-key", "KEY", "what clients must send as a bearer token", CLI_TEXT, &s.key, 0, 0, NULL},
        {"--chat-template", "FILE|NAME", "a built-in chat template or a file with one; default: the model's", CLI_TEXT,
         &s.template_choice, 0, 0, NULL},
        {"--pooling", "last|mean", "which tokens make an embedding (last)", CLI_TEXT, &s.pooling, 0, 0, "last,mean"},
        {"--no-key", NULL, "listen beyond this machine without a key", CLI_FLAG, &no_key, 0, 0, NULL},
        CLI_ENGINE_OPTIONS(s.engine),
        CLI_TOKEN_OPTIONS(s.engine.tokens),
    };
    cli_json_watch();
    const int stop = cli_parse(&cli_serve, options, sizeof options / sizeof *options, argc, argv, &s.model);
    if (stop >= 0) return stop;
    if (s.engine.tokens.bos && s.engine.tokens.no_bos)
        return cli_usage("options that exclude each other: --bos and --no-bos; give one of them");
    if (s.key && !*s.key) return cli_usage("unusable option (--api-key): a key is not empty");
    if (!is_loopback(s.host) && !s.key && !no_key)
        return cli_usage(
            "missing option (--api-key KEY): with --host %s anybody who reaches this machine could use the "
            "model; give a key, or --no-key",
            s.host);
#ifdef __GLIBC__
    // Each connection has a thread. With the C library's arena for each of them memory would be kept as often.
    mallopt(M_ARENA_MAX, ARENAS);
#endif
    gyre_error err = {0};
    s.started = (long)time(NULL);
    const gyre_status st =
        name_model(&s) ? serve(&s, &err) : gyre_fail(&err, GYRE_E_NOMEM, "cannot serve (%s): out of memory", s.model);
    free(s.name);
    return st == GYRE_OK || st == GYRE_E_CANCELLED ? 0 : cli_fail(&err);
}

const struct cli_command cli_serve = {"serve", "MODEL", "Answer requests over HTTP, as OpenAI's API", run, 1, false};
