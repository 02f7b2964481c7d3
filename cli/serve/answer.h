// From the choices of a job to the JSON of an answer: whole, or in the chunks of a stream.
#pragma once
#include "cli/serve/serve.h"

// The answer of a job that is done. Under the job's lock. NULL: out of memory.
json_t *serve_answer(const struct serve *serve, const struct serve_job *job);
// What has come since the last call, as the events of a stream, appended to `out`. Under the job's lock, which is
// held for formatting too: answers are short. False: out of memory.
struct serve_text {
    char *text;
    size_t n, cap;
};
bool serve_answer_events(const struct serve *serve, struct serve_job *job, struct serve_text *out);
// "data: JSON\n\n"; takes the reference. False: out of memory.
bool serve_event(struct serve_text *out, json_t *data);
bool serve_text_add(struct serve_text *out, const char *text, size_t n);

// Every choice has finished?
bool serve_job_done(const struct serve_job *job);
json_t *serve_usage(const struct serve_job *job);

// ---- kinds of answers
// ----------------------------------------------------------------------------------------------- A choice whole,
// and what of it has come since text_sent and said_sent.
json_t *serve_completion_choice(const struct serve_job *job, const struct serve_choice *choice, size_t text,
                                size_t said, bool last);
