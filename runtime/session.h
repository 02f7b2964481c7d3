// Inside of a session, shared by the files that work on one.
#pragma once
#include "runtime/engine.h"

#include <stdatomic.h>

struct gyre_session {
    gyre_engine *engine;
    uint32_t slot, length;      // positions 0..length-1 are in the cache
    uint32_t *tokens;           // [context]
    struct gyre_step_row *rows; // [context], reused by every sync
    gyre_sampling sampling;
    gyre_timings timings;
    uint32_t pending; // what gyre_generate said last and did not run: the text goes on behind it
    bool has_pending;
    atomic_bool cancel; // set from any thread; what a verb finds set when it begins was meant for another
};

// Checks tokens and lets the session hold exactly them, as gyre_session_sync does; `cancel` stays as it is.
gyre_status gyre_session_run(gyre_session *session, const uint32_t *tokens, size_t n, const gyre_sampling *sampling,
                             uint32_t *next, gyre_error *err) GYRE_MUST_USE;
// gyre_session_decode, likewise.
gyre_status gyre_session_append(gyre_session *session, uint32_t token, uint32_t *next, gyre_error *err) GYRE_MUST_USE;

// GYRE_E_CANCELLED where the session was asked to stop.
gyre_status gyre_session_asked(const gyre_session *session, gyre_error *err) GYRE_MUST_USE;
