// Progress of long work, and the way to end it: whoever works ticks now and then, whoever waits adds up what is done.
#pragma once
#include "runtime/util/status.h"

struct gyre_ticker {
    // `work` more is done, in the unit that the function which takes the ticker names. Another status than GYRE_OK ends
    // the work with that. On the thread that works.
    gyre_status (*tick)(void *user, uint64_t work, gyre_error *err);
    void *user;
};

// `ticker` NULL: nobody waits.
static inline gyre_status gyre_tick(const struct gyre_ticker *ticker, uint64_t work, gyre_error *err)
{
    return ticker ? ticker->tick(ticker->user, work, err) : GYRE_OK;
}
