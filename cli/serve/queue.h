// The engine's thread and what waits for it. Requests come from any thread, in order; each of their choices gets one
// of the engine's sequences as soon as one is free; one step after another moves all of them.
//
// A failed step ends what is under way with an error and nothing else: the next request tries again, and where that
// fails too the engine is opened anew.
#pragma once
#include "cli/serve/job.h"

typedef struct serve_queue serve_queue;

// Opens the engine; called first by serve_queue_start, on the caller's thread, later on the engine's.
typedef gyre_status (*serve_open_engine)(void *user, gyre_engine **out, gyre_error *err);

// So many requests in a row whose logits or embeddings were not finite, and the model counts as damaged. More than one
// such prompt makes with a client's own repeats (two, mostly), so that one cannot take a server away from the others.
enum { SERVE_MOST_WITHOUT_NUMBERS = 8 };

struct serve_queue_params {
    uint32_t slots, most_waiting;
    serve_open_engine open;
    bool (*interrupted)(void); // ends warming up with GYRE_E_CANCELLED; NULL: nothing does
    void *user;
    gyre_log log;
};

// Opens the engine and starts its thread.
gyre_status serve_queue_start(const struct serve_queue_params *params, serve_queue **out,
                              gyre_error *err) GYRE_MUST_USE;
// Takes a job, holding it until it is done; false, with a 503 in *error, where too many wait or the server stops.
// *retry_s: in how many seconds it may go better.
bool serve_queue_add(serve_queue *queue, struct serve_job *job, struct serve_error *error, unsigned *retry_s);
// A job was cancelled: its sequences are freed before the next step.
void serve_queue_wake(serve_queue *queue);
// Takes no more, gives what runs `grace_s` seconds to finish, fails the rest, ends the thread and closes the engine.
// Connections may go on asking until serve_queue_destroy: they hear that the server is shutting down.
void serve_queue_stop(serve_queue *queue, unsigned grace_s); // accepts NULL
void serve_queue_destroy(serve_queue *queue);                // after serve_queue_stop; accepts NULL

// What the metrics tell.
struct serve_counts {
    uint32_t running, waiting; // choices in a sequence; choices that wait for one
    uint64_t prompt_tokens, cached_tokens, generated_tokens, requests, cancelled, failed, refused, late, faults,
        reopened;
    double queue_s; // time that requests waited, all together
    uint64_t started;
    gyre_scheduler_counters scheduler;
    uint32_t no_numbers; // requests in a row that had none (fail_choice), since one that was answered
    bool healthy;        // the last step did not fail, and they are fewer than SERVE_MOST_WITHOUT_NUMBERS
    char fault[640];
};
void serve_queue_count(serve_queue *queue, struct serve_counts *out);
const gyre_engine_info *serve_queue_engine(const serve_queue *queue); // as it was when it started
