// From the choices of a job to the JSON of an answer: whole, or in the chunks of a stream. All under the job's lock,
// which is held for formatting too: what is formatted is short.
#pragma once
#include "cli/serve/event.h"

// Every choice has finished?
bool serve_job_done(const struct serve_job *job);
// The answer of a job that is done. NULL: out of memory (as cli_json_watch notes it).
json_t *serve_answer(const struct serve *serve, struct serve_job *job);
// What has come since the last call, as the events of a stream, appended to `out`. False: out of memory.
bool serve_answer_events(const struct serve *serve, struct serve_job *job, struct serve_text *out);
