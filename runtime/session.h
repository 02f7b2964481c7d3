// Inside of a session, shared by the files that work on one.
#pragma once
#include "runtime/engine.h"
#include "shaders/params.h"

#include <stdatomic.h>

// What the device chose beyond what the session holds: told[0] follows the token that was appended when it ran ahead,
// told[i] follows told[i - 1], which the cache has already, or is UINT32_MAX: no more could be chosen. What is appended
// next is told[at - 1], or all is forgotten.
struct gyre_ahead {
    uint32_t n, at; // at < n: there are some; n > 1: logits on the device may be those of a later position
    uint32_t told[GYRE_HISTORY];
};

struct gyre_session {
    gyre_engine *engine;
    uint32_t slot, length;      // positions 0..length-1 are in the cache
    uint32_t *tokens;           // [context]
    struct gyre_step_row *rows; // [context], reused by every sync
    gyre_sampling sampling;
    gyre_timings timings;
    struct gyre_ahead ahead;
    uint32_t pending; // what gyre_generate said last and did not run: the text goes on behind it
    bool has_pending;
    atomic_bool cancel; // set from any thread; what a verb finds set when it begins was meant for another
};

// Checks tokens and lets the session hold exactly them, as gyre_session_sync does; `cancel` stays as it is.
gyre_status gyre_session_run(gyre_session *session, const uint32_t *tokens, size_t n, const gyre_sampling *sampling,
                             uint32_t *next, gyre_error *err) GYRE_MUST_USE;
// gyre_session_decode_ahead, likewise.
gyre_status gyre_session_append(gyre_session *session, uint32_t token, uint32_t more, uint32_t *next,
                                gyre_error *err) GYRE_MUST_USE;
// The device's tokens beyond the session's end, and their positions, are of no use any more.
void gyre_session_forget_ahead(gyre_session *session);

// GYRE_E_CANCELLED where the session was asked to stop.
gyre_status gyre_session_asked(const gyre_session *session, gyre_error *err) GYRE_MUST_USE;
