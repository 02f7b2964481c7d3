// Inside of a scheduler, shared by schedule.c (which rows run) and task.c (what becomes of them).
#pragma once
#include "runtime/choose.h"
#include "runtime/engine.h"

enum { GYRE_MOST_MISSES = 4 }; // then a task takes all logits

struct gyre_task {
    struct gyre_scheduler *scheduler;
    gyre_task *next;         // in the order they came
    gyre_task_params params; // prompt: `tokens`; bias: own copy
    gyre_logit_bias *bias;
    uint32_t slot, length; // positions 0..length-1 are in the cache
    uint32_t *tokens;      // [context]: prompt and answer
    uint32_t n, n_prompt;  // tokens; those of the prompt, as far as they have not left the context
    uint32_t cached, told; // of the prompt: shared; told to on_token where it is scored
    uint32_t said, most;   // tokens of the answer: so far, and at its end
    bool shifted;          // the oldest tokens have left the context
    gyre_stop why;
    bool ended;
    uint32_t rows, chosen;  // of this step: rows; the device's choice behind the last one,
    gyre_sampling sampling; // ... made so: the most likely token where the host chooses
    uint32_t odd;           // of this step: the first position whose logits are not finite; UINT32_MAX: none
    gyre_error error;       // of one that failed by itself
    double *pooled;         // [width] sum of the rows that are pooled; NULL: no embedding is wanted
    float *embedding;       // [width]
    float *logits;          // of this step: of the last row, or of all where the prompt is scored; NULL: none
    gyre_candidate *best;   // of this step: [GYRE_STEP_BEST] in place of logits; NULL: none
    float mass;             // ... and what all tokens weigh (gyre_step_row); 0: not asked for
    uint32_t misses;        // choices that those left open, up to GYRE_MOST_MISSES; one that they settled halves it
    float *spare;           // ... and where logits go if they are not enough
};

struct gyre_scheduler {
    gyre_engine *engine;
    gyre_scheduler_params params;
    gyre_task *first;
    struct gyre_chooser chooser;
    struct gyre_step_row *row; // [max_rows + sequences]
    gyre_task **part;          // [sequences] tasks of this step
    float *logits;             // [logit_rows + 2][vocab]: of the step's rows, and two to work on
    gyre_candidate *listed;    // [sequences][GYRE_STEP_BEST] the step's most likely tokens, by slot
    uint32_t *allowed;         // a bit per token
    gyre_scored *best;         // [vocab], of one token
    uint32_t *drawn;           // [logit_rows] where rows that only want logits get a sample
    double row_ns, one_ns;     // measured: time of a row in a step of many, of a step of one; 0: not yet
    gyre_scheduler_counters count;
    // Embeddings; made when the first one is wanted.
    struct gyre_binding hidden;      // f32[max_rows][width]
    gyre_graph *embed[GYRE_BUCKETS]; // by log2 of the rows
    float *hidden_data, *gain;       // [max_rows][width]; [width] where the graph leaves the final gain to the host
};

// Does `other` wait at the same prompt, with nothing chosen yet?
bool gyre_task_is_twin(const gyre_task *task, const gyre_task *other);
// Room for one more token in the answer?
bool gyre_task_generates(const gyre_task *task);
// Chooses from the step's most likely tokens, before anything moves; where they are not enough, task->logits is there.
gyre_status gyre_task_choose_listed(gyre_task *task, gyre_error *err) GYRE_MUST_USE;
// Ends a task by what task->error says: nothing of the step that found it is kept.
void gyre_task_fail(gyre_task *task);
// The step has run task->rows rows, which the cache holds now: tells the prompt's scores, chooses what follows, ends
// the task where that is due.
void gyre_task_advance(gyre_task *task);

// Computes up to `rows` tokens of a task that wants an embedding (embed.c) and says how many. The task has moved, and
// behind its last token ended, when they are taken: that cannot fail, but may fail the task.
gyre_status gyre_task_embed(gyre_task *task, uint32_t rows, uint32_t *out, gyre_error *err) GYRE_MUST_USE;
void gyre_task_embed_take(gyre_task *task, uint32_t rows);
void gyre_scheduler_embed_free(struct gyre_scheduler *scheduler);
