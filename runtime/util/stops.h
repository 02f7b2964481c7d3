// Text that is held back as long as a stop text may begin in it. Zero-initialise, set `stop` and `n_stop`, free
// `held`.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gyre_stops {
    const char *const *stop; // [n_stop] none of them empty; the caller's
    uint32_t n_stop;
    char *held; // what has come and was not dropped, NUL-terminated where anything ever came
    size_t n, cap;
};

// Takes up new text; false: out of memory.
bool gyre_stops_push(struct gyre_stops *stops, const char *text, size_t n);
// How many bytes of what is held no stop text can claim: all before the first complete one, whose number *which
// gets; where there is none *which is n_stop, and what may be the beginning of one is kept unless this is the `last`
// text.
size_t gyre_stops_ready(const struct gyre_stops *stops, bool last, uint32_t *which);
// The first n bytes have been passed on.
void gyre_stops_drop(struct gyre_stops *stops, size_t n);
