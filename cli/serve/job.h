// A request for text: what is asked, and the choices that answer it as they grow.
//
// Two threads hold a job: the one of its connection, which made it and reads its choices, and the engine's, which
// lets them grow. Each has a reference. What is asked does not change once the job is in the queue.
#pragma once
#include "cli/serve/refuse.h"
#include "runtime/util/stops.h"

#include <gyre/gyre_schedule.h>
#include <gyre/gyre_tools.h>
#include <pthread.h>
#include <stdatomic.h>

enum { SERVE_MAX_STOPS = 16, SERVE_MAX_CHOICES = 2048 };

enum serve_finish { SERVE_GOES_ON, SERVE_FINISH_STOP, SERVE_FINISH_LENGTH };
enum serve_form { SERVE_FORM_TEXT, SERVE_FORM_OBJECT, SERVE_FORM_SCHEMA };
enum serve_calls { SERVE_CALLS_NONE, SERVE_CALLS_AUTO, SERVE_CALLS_REQUIRED };
// Whether an answer may begin with "<think>", or goes on behind one that the prompt ends with.
enum serve_reasons { SERVE_REASON_NONE, SERVE_REASON_MAY, SERVE_REASON_OPEN };

// A token of an answer, or of an echoed prompt, whose log-probability was asked for.
struct serve_said {
    uint32_t token;
    bool scored; // all but the first of a prompt
    float logprob;
    uint32_t offset;       // characters of the text before it
    uint32_t best, n_best; // among serve_choice.best
};

// One answer. The engine's thread appends under the job's lock; the reader has cursors of its own.
struct serve_choice {
    struct serve_job *job;
    uint32_t index, prompt;
    char *text;
    size_t n_text, cap_text;
    struct serve_said *said;
    size_t n_said, cap_said;
    gyre_scored *best;
    size_t n_best, cap_best;
    enum serve_finish finish;
    uint32_t generated;
    float *embedding; // [job->width], once it has finished

    gyre_task *task; // the engine's thread alone, down to here
    gyre_text_stream decoder;
    struct gyre_stops stops;
    uint32_t offset;       // characters decoded
    gyre_matcher *matcher; // where the job has a grammar

    size_t text_sent, said_sent; // the reader alone
    bool opened, closed;
    gyre_answer *answer;         // of a conversation: cuts the text into its parts,
    struct collector *collector; // ... which go there (choices_chat.c)
};

struct serve_prompt {
    uint32_t *tokens;
    size_t n;
    char *text;      // as an echo shows it; NULL: not wanted
    uint32_t hidden; // first tokens that are not in that text
    uint32_t keep;   // first tokens that stay where the context shifts
    uint32_t cached; // tokens that were shared; under the job's lock
};

struct serve_job {
    pthread_mutex_t lock;
    pthread_cond_t changed; // a choice has grown, the job was cancelled or failed
    atomic_int references;
    atomic_bool cancelled; // nobody wants the answer any more

    bool chat, stream, include_usage, echo, scores;
    uint32_t n, n_best;      // choices of each prompt; best tokens of each place
    gyre_task_params params; // of all its tasks; prompt and user are set for each
    gyre_logit_bias *bias;
    uint32_t end_token; // ends an answer beside the model's own; UINT32_MAX: none
    enum serve_form form;
    enum serve_calls calls;
    enum serve_reasons reasons;
    bool one_call;     // no parallel calls
    char *schema;      // JSON, of SERVE_FORM_SCHEMA
    gyre_tools *tools; // where calls may be made
    char *named;       // the function that must be called; NULL: any
    gyre_grammar *grammar;
    char *stop[SERVE_MAX_STOPS + 1]; // what a request asks for, and the template's own
    uint32_t n_stop;
    struct serve_prompt *prompt;
    uint32_t n_prompts;
    bool embeds, base64;         // embeddings are wanted, not texts
    uint32_t width;              // floats of each
    struct serve_choice *choice; // [n_prompts * n]
    uint32_t n_choices;
    char id[48];
    long created;
    double timeout_s; // from when it came to its answer's end; 0: as long as it takes
    const gyre_tokenizer *tokenizer;

    // Why it failed; status 0: it did not. The engine's thread sets it, under the lock.
    struct serve_error error;

    struct serve_job *next;                       // of the queue, under its lock, from here
    uint32_t n_started, n_open;                   // choices that were started; that have not finished
    uint64_t arrived_ns, started_ns, deadline_ns; // deadline: 0: none
};

// With room for so many prompts, one reference, defaults everywhere. NULL: out of memory.
struct serve_job *serve_job_new(uint32_t n_prompts);
// Makes the choices, once prompts and n are known. False: out of memory.
bool serve_job_make_choices(struct serve_job *job);
struct serve_job *serve_job_hold(struct serve_job *job);
void serve_job_release(struct serve_job *job); // accepts NULL

// The engine's thread: what a task says, and its end.
int serve_choice_heard(void *choice, const gyre_task_token *token);
bool serve_choice_allow(void *choice, uint32_t *allowed, uint32_t words);
void serve_choice_embedded(struct serve_choice *choice, const float *embedding); // before its end; NULL: there is none
void serve_choice_ended(struct serve_choice *choice, gyre_stop why);
// Fails the job, unless it has failed already, and wakes its reader.
void serve_job_fail(struct serve_job *job, const struct serve_error *error);
// Any thread: its reader is gone, or gives up.
void serve_job_cancel(struct serve_job *job);
