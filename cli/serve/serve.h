// The server: what its files share.
#pragma once
#include "cli/cli.h"
#include "cli/serve/queue.h"

#include <gyre/gyre_chat.h>

struct serve {
    struct cli_engine engine;
    const char *model, *host, *alias, *key, *fit, *pooling;
    uint32_t port, slots, waiting, timeout; // timeout: seconds of a request, 0: as long as it takes
    char *name;                             // of the model, as clients call it: UTF-8; owned
    long started;                           // seconds since 1970
    gyre_tokenizer *tokenizer;              // its own: it outlives an engine that is lost
    gyre_template *template;                // NULL: the model has none
    gyre_vocabulary *vocabulary;
    gyre_tool_syntax syntax; // of calls, as the template teaches it
    const char *template_choice;
    uint32_t end_token;         // what the template writes behind an answer; UINT32_MAX: no token
    char *end_text;             // ... where it is a text; NULL: none
    enum serve_reasons reasons; // what the template lets an answer begin with
    uint32_t vocab, context, width;
    bool shift; // the oldest part leaves a full context
    bool mean;  // how embeddings are pooled: the mean of all tokens, else the last
    serve_queue *queue;
};

// Numbers for Prometheus, text format 0.0.4; malloc'd, NULL: out of memory.
char *serve_metrics(struct serve *serve);
