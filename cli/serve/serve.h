// The server: what its files share.
#pragma once
#include "cli/cli.h"
#include "cli/serve/queue.h"

struct serve {
    struct cli_engine engine;
    const char *model, *host, *alias, *key;
    uint32_t port, slots, waiting;
    char name[256];            // of the model, as clients call it
    long started;              // seconds since 1970
    gyre_tokenizer *tokenizer; // its own: it outlives an engine that is lost
    const char *chat_template; // NULL: the model has none
    uint32_t vocab, context;
    serve_queue *queue;
};

// Numbers for Prometheus, text format 0.0.4; malloc'd, NULL: out of memory.
char *serve_metrics(struct serve *serve);
