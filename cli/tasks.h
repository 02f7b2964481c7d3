// Tasks with given answers, as files of requests have them: a JSON object a line with `context`, `continuation`,
// `label` and `doc_id`. Consecutive lines of one doc_id are one item: its possible answers, of which `label` is the
// number of the right one; an item of one line is right where the continuation is what the model would say.
#pragma once
#include "cli/answers.h"
#include "cli/args.h"
#include "cli/cli.h"

#include <gyre/gyre_eval.h>
#include <jansson.h>

// Requests that run together, and their rows whose logits are read: what an engine for tasks is opened with.
enum { CLI_TASK_SEQUENCES = 8, CLI_TASK_ROWS = 64 };

struct cli_item {
    uint32_t first, n, label; // its requests; the right one among them
};
struct cli_task {
    const char *path;
    char name[64]; // the file's, without its ending
    gyre_eval_request *request;
    uint32_t *bytes; // [n_requests] of each continuation
    struct cli_item *item;
    uint32_t n_requests, n_items, shortened; // shortened: contexts that lost their beginning
    struct cli_answers answers, reference;   // reference: no items where there is none
};

// Reads and tokenizes the file for `engine`; a context that does not fit loses its beginning. Errors name the line.
// Free with cli_task_free, also after a failure.
gyre_status cli_task_read(const char *path, const gyre_engine *engine, const struct cli_tokens *tokens,
                          uint32_t context, struct cli_task *out, gyre_error *err);
void cli_task_free(struct cli_task *task);

void cli_task_warn(const struct cli_task *task); // of contexts that were shortened, on stderr
// The answers of an engine; progress is told unless `quiet`. Free with cli_answers_free.
gyre_status cli_task_answer(struct cli_task *task, gyre_engine *engine, bool quiet, struct cli_answers *out,
                            gyre_error *err);
// Those of two; `reference` may be NULL.
gyre_status cli_task_run(struct cli_task *task, gyre_engine *engine, gyre_engine *reference, bool quiet,
                         gyre_error *err);
void cli_tasks_print(const struct cli_task *tasks, uint32_t n);
