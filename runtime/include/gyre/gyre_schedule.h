// Many texts at once on one engine: what a server is made of.
//
// A SCHEDULER steps all of its TASKS together. A task is one prompt and what follows it. Each step is one batch: a row
// for every task that generates, and chunks of the prompts that are still being read, so a long prompt holds nobody up.
// Texts that begin alike share the pages of the KV cache that hold the common beginning, also with texts that have
// ended. A task that is alone, and whose tokens the device chooses, may get several tokens in one step, as many as
// gyre_engine_params.ahead allows: the same tokens, reported one after the other.
//
//     gyre_scheduler_add(scheduler, &params, &task, &err);
//     while (!gyre_task_ended(task, NULL)) gyre_scheduler_step(scheduler, &err); // callbacks tell the tokens
//     gyre_scheduler_remove(scheduler, task);
//
// Thread-safety: as the engine's; callbacks come on the thread that steps. They must not call the scheduler.
#pragma once
#include <gyre/gyre.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gyre_scheduler gyre_scheduler;
typedef struct gyre_task gyre_task;

typedef struct gyre_scheduler_params {
    size_t size;
    // How long a step may take, estimated from earlier steps: prompts are cut into chunks by it, and a text that is
    // alone gets no more tokens in one step than fit; at least one row and one token. 0: 500.
    uint32_t step_ms;
    uint32_t chunk;  // tests: rows of prompts in a step, whatever they take; 0: by step_ms
    bool no_sharing; // every prompt is computed from its beginning
    // Called by gyre_scheduler_warm between its parts (a layer's cache, a replay) with what it has done of them, 0..1;
    // a non-zero return cancels it (GYRE_E_CANCELLED). May be NULL.
    int (*progress)(void *user, double fraction);
    void *user;
} gyre_scheduler_params;

// Lives in its engine, beside sessions, which use up sequences too. NULL params: all defaults.
GYRE_API gyre_status gyre_scheduler_create(gyre_engine *engine, const gyre_scheduler_params *params,
                                           gyre_scheduler **out, gyre_error *err) GYRE_MUST_USE;
GYRE_API void gyre_scheduler_destroy(gyre_scheduler *scheduler); // its tasks too; accepts NULL

typedef struct gyre_scored {
    uint32_t token;
    float logprob;
} gyre_scored;

// A token of a task: of its prompt, where those are scored, or one that was chosen.
typedef struct gyre_task_token {
    uint32_t token;
    bool prompt;
    bool end;                // an end token of the model, which ended the task
    bool scored;             // the log-probability is known: asked for, and not the first token of a prompt
    float logprob;           // the model's own, before everything that changes the choice
    const gyre_scored *best; // the most likely ones of that place, best first, valid during the call
    uint32_t n_best;
} gyre_task_token;

// A task may want its prompt's embedding in place of an answer: the final norm's output of its last token, or the mean
// of all, as the model's file has it. Of length 1.
typedef enum gyre_pooling { GYRE_POOL_NONE, GYRE_POOL_LAST, GYRE_POOL_MEAN } gyre_pooling;

typedef struct gyre_task_params {
    size_t size;
    const uint32_t *prompt; // n_prompt > 0 tokens; copied
    size_t n_prompt;
    uint32_t max_tokens; // 0: nothing is generated, the prompt is only read (and scored)

    // Choosing. In this order: penalties, bias, `allow`, temperature, top-k, min-p, top-p; all of the vocabulary
    // counts.
    float temperature;  // 0: the most likely token
    uint32_t top_k;     // 0: all
    float top_p, min_p; // 0: none (so is a top_p of 1)
    uint64_t seed;      // equal seeds and streams draw equally from equal logits,
    uint32_t stream;    // ... and different streams differently: the number of a choice
    float repetition; // divides positive logits of tokens seen (prompt and generated), multiplies negative; 0, 1: none
    float presence;   // subtracted once from the logits of what was generated,
    float frequency;  // ... and for each time
    const gyre_logit_bias *bias; // copied
    uint32_t n_bias;
    bool ignore_end; // go on behind the model's end tokens

    // Log-probabilities of what is generated (scores), and of the prompt too (score_prompt, which computes all of the
    // prompt again), with the n_best most likely tokens of each place.
    bool scores, score_prompt;
    uint32_t n_best;

    // Called before each choice, perhaps more than once: fills a bit for each token of the vocabulary, bit i % 32 of
    // word i / 32, all zero before; false: every token is allowed. At least one must be. May be NULL.
    bool (*allow)(void *user, uint32_t *allowed, uint32_t words);
    // Called for each token in order. Another value than 0 ends the task behind it. May be NULL.
    int (*on_token)(void *user, const gyre_task_token *token);
    void *user;
    gyre_pooling pooling; // not NONE: nothing is generated or told, gyre_task_embedding has the result

    // Where the context is full the oldest tokens behind the first `keep` of the prompt leave it, as gyre_context_shift
    // says, and the answer goes on: what stays is computed anew at its new places, beside other tasks' steps. What left
    // counts for no penalty.
    bool shift;
    uint32_t keep;
} gyre_task_params;

// GYRE_E_INVALID for an empty prompt, one that leaves no room for a token in the context (or does not fit, where none
// is wanted) and tokens outside of the vocabulary; also while all sequences of the engine are in use
// (gyre_scheduler_room).
GYRE_API gyre_status gyre_scheduler_add(gyre_scheduler *scheduler, const gyre_task_params *params, gyre_task **out,
                                        gyre_error *err) GYRE_MUST_USE;
// Ends a task at any time; not from a callback. Accepts a NULL task.
GYRE_API void gyre_scheduler_remove(gyre_scheduler *scheduler, gyre_task *task);
// How many tasks can be added now.
GYRE_API uint32_t gyre_scheduler_room(const gyre_scheduler *scheduler);

// One step of every task that has not ended. After a failure no task has moved: GYRE_E_DEVICE may pass, and the same
// step may be tried again; the scheduler stays usable and its tasks can be removed. A task whose logits, or embedding,
// are not finite ends by itself (gyre_task_error), behind the part of its prompt that begins it; the others go on.
GYRE_API gyre_status gyre_scheduler_step(gyre_scheduler *scheduler, gyre_error *err) GYRE_MUST_USE;

// Whether a task has ended, and by what (GYRE_STOP_TOKEN: on_token said so).
GYRE_API bool gyre_task_ended(const gyre_task *task, gyre_stop *why);
// Of a task that ended by GYRE_STOP_FAILED: GYRE_E_FORMAT and the line, the task's; NULL else. What it told before
// stays told.
GYRE_API const gyre_error *gyre_task_error(const gyre_task *task);
GYRE_API size_t gyre_task_cached(const gyre_task *task);    // tokens of the prompt that were shared, not computed
GYRE_API size_t gyre_task_generated(const gyre_task *task); // the end token counts

// float[width of the model], the task's; NULL before it has ended, and where it has none.
GYRE_API const float *gyre_task_embedding(const gyre_task *task);

typedef struct gyre_scheduler_counters {
    uint64_t steps, rows, step_ns;     // rows: tokens that went through the model
    uint32_t pages, page_tokens;       // of the KV cache, and tokens in each
    uint32_t pages_held, pages_shared; // by a task; by more than one of them
    uint32_t pages_cached;             // by none, but findable
} gyre_scheduler_counters;
GYRE_API gyre_scheduler_counters gyre_scheduler_count(const gyre_scheduler *scheduler);

// Makes and runs once, on no tokens, what the first requests will replay. Where device and host share memory, an engine
// on which nothing has run also touches all memory of its cache, so that a host that promised too much fails here, not
// in an answer. After a cancel the scheduler and its engine work as before, and what was made stays.
GYRE_API gyre_status gyre_scheduler_warm(gyre_scheduler *scheduler, gyre_error *err) GYRE_MUST_USE;

#ifdef __cplusplus
}
#endif
