// Inside of the engine, shared by the files of this folder; the public face is gyre.h.
#pragma once
#include "runtime/graph/choice.h"
#include "runtime/model/kv.h"
#include "runtime/model/linear.h"
#include "runtime/model/model.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/sha256.h"

#include <gyre/gyre_eval.h>
#include <stddef.h>

enum {
    GYRE_BUCKETS = 10,
    GYRE_MAX_TOP_K = 256,
    GYRE_STEP_BEST = 64,
    GYRE_DEFAULT_CONTEXT = 4096,
    GYRE_DEFAULT_ROWS = 512
};

// A recorded step for `rows` rows whose first `wanting` rows get logits and a sample from the k best.
struct gyre_step_graph {
    uint32_t rows, wanting, k;
    gyre_graph *graph;
};

struct gyre_logits_of {
    uint32_t owner, position; // sequence + 1, or 0: of none
};

struct gyre_engine {
    gyre_device *device;
    gyre_log log;
    char cache_dir[1024]; // the device's options point here
    gyre_source *source;  // NULL, as the tokenizer, where the model is a shape (model/synthetic.h)
    gyre_tokenizer *tokenizer;
    struct gyre_model model;
    struct gyre_kv kv;
    struct gyre_precision precision;
    uint32_t context, max_rows, sequences;
    uint32_t logit_rows; // rows of a step that may want logits, at least `sequences`
    bool planned;        // its weights hold nothing, and its device computes nothing
    bool *sequence_used; // [sequences]
    const uint32_t *
        *live;          // [sequences] the lengths of their sessions; NULL where the engine itself uses one for a while
    gyre_engine *first; // the engine whose device this one borrows; NULL: it owns its device
    uint32_t n_beside;  // engines that borrow this one's device

    // What a step updates between replays; see shaders/params.h for rows and kernels.def for the sampling state.
    struct gyre_binding rows, state, logits;
    struct gyre_binding history;             // u32[logit_rows][GYRE_HISTORY]
    struct gyre_binding best_vals, best_ids; // [logit_rows][k] of a step whose k is above 1
    struct gyre_binding mass;                // f32[logit_rows] of one whose k is GYRE_STEP_BEST or more
    int32_t *row_data;                       // [max_rows][4]
    uint32_t *state_data;                    // [logit_rows][4], what the device holds
    bool resident;                           // device row 0 is {next token, sequence, position} of the last sample
    int32_t resident_row[4];

    struct gyre_logits_of *logits_of; // [logit_rows] what each row of the logits is behind
    uint32_t most_ahead;              // steps of a submission, at most (gyre_engine_params.ahead); 0: by the device

    struct gyre_tuner tuner; // chooses kernels for its steps, where it is to
    bool tunes;

    char identity[GYRE_SHA256_HEX]; // of the model, made at its first use (session_file.c)

    // With the embedding table in host memory (table.c): what a step reads in its place. Buffer NULL: without.
    struct gyre_binding embedded;  // f32[max_rows][width]
    float *embedded_data;          // the same on the host
    struct gyre_linear host_table; // weight NULL: of a shape

    struct gyre_scratch scratch; // what its graphs work in
    struct gyre_step_graph *steps;
    uint32_t n_steps;
    uint64_t host_allocations; // made while stepping; a test asserts that decoding makes none
};

// One row of a step. A row that wants a sample gets it in *next.
struct gyre_step_row {
    uint32_t token, sequence, position;
    uint32_t *next;
    const gyre_sampling *sampling;
    float *logits; // [vocab] receives its logits, of a row that wants a sample; NULL: they stay on the device
    gyre_candidate
        *best;   // [GYRE_STEP_BEST] receives the most likely tokens and their logits, best first; NULL: not wanted
    float *mass; // with `best`: receives the sum over all of exp((logit - best) / temperature); NULL: not wanted
    // Of a row that is a step's only one and wants nothing but samples: the step runs so often (at most
    // gyre_engine_at_once), each time on what it chose before, and *next receives as many. UINT32_MAX: from there on
    // nothing could be chosen. 0: 1.
    uint32_t times;
};

// Asked before every chunk of a step; another status than GYRE_OK ends it with that.
struct gyre_step_watch {
    gyre_status (*asked)(const void *user, gyre_error *err);
    const void *user;
    // A row whose logits are not finite gets UINT32_MAX in *next, and the step goes on: no row reads what another one
    // of another sequence computes. False: the step fails with gyre_engine_not_finite.
    bool row_alone;
};

// Runs rows in order of the list, in chunks of at most max_rows; pages must be reserved. Returns after the samples are
// read when any row wants one. One chunk is under way at a time, so a cancel is seen after it. `wait_ns` (may be NULL)
// receives the time spent waiting for the device.
gyre_status gyre_engine_step(gyre_engine *engine, const struct gyre_step_row *rows, size_t n,
                             const struct gyre_step_watch *watch, uint64_t *wait_ns, gyre_error *err) GYRE_MUST_USE;

// GYRE_E_FORMAT, and the line about the logits behind a position that are not finite.
gyre_status gyre_engine_not_finite(const gyre_engine *engine, uint32_t position, gyre_error *err) GYRE_MUST_USE;

// The most rows that a step of such an engine runs at once.
static inline uint32_t gyre_engine_max_rows(const gyre_engine_params *p)
{
    const uint32_t most = 1u << (GYRE_BUCKETS - 1), asked = p->max_rows ? p->max_rows : (uint32_t)GYRE_DEFAULT_ROWS;
    return asked < most ? asked : most;
}
// What an engine of such a model runs at: what the params say, else what the file is made for. Not checked.
struct gyre_precision gyre_engine_precision(const gyre_engine_params *params, const struct gyre_hparams *hp);

// What gyre_params_take is told: the struct's size as of level 2000, which has no `ahead`.
enum { GYRE_ENGINE_PARAMS_FIRST = offsetof(gyre_engine_params, ahead) };

// Of the model, for messages: its path, or its shape.
static inline const char *gyre_engine_model(const gyre_engine *e)
{
    return e->source ? gyre_source_path(e->source) : e->model.hp.arch;
}

// An engine that takes the memory of another and computes nothing (memory.c): of a model's file, or of a shape. Silent.
gyre_status gyre_engine_open_planned(const char *name, bool shape, uint32_t wgroup, const gyre_engine_params *params,
                                     gyre_engine **out, gyre_error *err) GYRE_MUST_USE;

// How often a step of one row may run on what it chose itself, for a caller who wants so many tokens: what one
// submission holds. Records the step.
gyre_status gyre_engine_at_once(gyre_engine *engine, const gyre_sampling *sampling, uint32_t wanted, uint32_t *out,
                                gyre_error *err) GYRE_MUST_USE;

// The logits behind a sequence's last position, where the last chunk of the last step made them: GYRE_E_INVALID else.
gyre_status gyre_engine_logits(gyre_engine *engine, uint32_t sequence, float *logits, gyre_error *err) GYRE_MUST_USE;
// Which position that is. False: there are none.
bool gyre_engine_logits_at(const gyre_engine *engine, uint32_t sequence, uint32_t *position);
// No row of the logits is a sequence's last position any more; UINT32_MAX: no row of any sequence.
void gyre_engine_forget_logits(gyre_engine *engine, uint32_t sequence);

// Takes the memory that the largest of the steps works in, which all others then share.
gyre_status gyre_engine_reserve(gyre_engine *engine, gyre_error *err) GYRE_MUST_USE;

// The smallest recorded size for n rows, not above max_rows.
uint32_t gyre_engine_bucket(const gyre_engine *engine, uint32_t n);

// table.c: what the host table needs, for a model that was loaded without one.
gyre_status gyre_engine_keep_table(gyre_engine *engine, gyre_error *err) GYRE_MUST_USE;
// Its bytes in the file; 0 without one.
uint64_t gyre_engine_host_bytes(const gyre_engine *engine);
// Row data of the first `rows` rows to the device, and what the host table has for their tokens.
gyre_status gyre_engine_write_rows(gyre_engine *engine, uint32_t rows, gyre_error *err) GYRE_MUST_USE;

// The body of a step without a head: embedding and all blocks; the residual stream.
gyre_value gyre_engine_body(gyre_engine *engine, gyre_graph *graph);

// The recorded step of a bucket (made at its first use) for `wanting` rows that want a sample. There are two of them:
// for as many as there are sequences, and for all rows that may.
gyre_status gyre_engine_step_graph(gyre_engine *engine, uint32_t rows, uint32_t wanting, uint32_t k, gyre_graph **out,
                                   gyre_error *err) GYRE_MUST_USE;
// Device time by kernel of one replay of `graph`.
gyre_status gyre_engine_profile(gyre_engine *engine, gyre_graph *graph, gyre_profile_row *rows, size_t cap, size_t *n,
                                gyre_error *err) GYRE_MUST_USE;

// Runs what a prompt of n tokens and decoding replay, with no live row.
gyre_status gyre_engine_warm(gyre_engine *engine, size_t n, const gyre_sampling *sampling,
                             gyre_error *err) GYRE_MUST_USE;

// A free sequence, for a session of that length or (NULL) for work of the engine's own.
gyre_status gyre_sequence_take(gyre_engine *engine, const uint32_t *length, uint32_t *slot,
                               gyre_error *err) GYRE_MUST_USE;
void gyre_sequence_release(gyre_engine *engine, uint32_t slot);
