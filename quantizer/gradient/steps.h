// Learning by steps, whatever is learned: a step by one or several windows of the text, in turn; it looks at the
// windows that are held out now and then, remembers what was best there, and takes a step back where a loss is not
// finite. What a step is, is its owner's.
#pragma once
#include "runtime/util/log.h"
#include "runtime/util/status.h"

#include <stdbool.h>
#include <stdint.h>

// Where it stands; kept in journals as it is. version, n and method are the owner's.
struct gyre_steps_head {
    uint64_t version, n, method, steps, step, best_step, halved, done;
    double before, best, rate; // of what is held out, at first and of the best; rate: share of the given one
};

struct gyre_steps {
    const char *name, *what; // of its lines: "learn"; of its errors: "learn rotations"
    uint32_t look, keep;     // steps between looks, and between states worth keeping
    uint32_t windows;        // of the text, the held-out ones among them: two at least; 0: the loss needs none
    uint32_t batch;          // windows a step, by whose mean it goes
    const gyre_log *log;
    struct gyre_steps_head *head;
    double *gradient; // [head->n], what `loss` fills
    void *self;       // of what follows; what they return ends it unless GYRE_OK
    // The loss on a window (of the step, where there are none), and its gradient where that is not NULL.
    gyre_status (*loss)(void *self, uint32_t window, double *loss, double *gradient, gyre_error *err);
    // A step by the gradient from a place that is remembered, and back to that place.
    gyre_status (*down)(void *self, gyre_error *err);
    gyre_status (*back)(void *self, gyre_error *err);
    void (*best)(void *self); // this place is the best so far
    // Behind every window of a step, and with `look` behind every held-out one.
    gyre_status (*tick)(void *self, bool look, gyre_error *err);
    gyre_status (*save)(void *self, gyre_error *err);
};

// Of a text's windows every eighth is held out, of fewer than eight the last: whether this one is, and how many are.
enum { GYRE_STEPS_HELD_OUT = 8 };
bool gyre_steps_is_held(uint32_t windows, uint32_t window);
uint32_t gyre_steps_held(uint32_t windows);

// Chooses `read` (2 at least) of a text's windows and their order: of[read]. However many come first, they lie evenly
// over the text, whose kinds may lie one behind the other. What is held out of those that are read is held out of the
// text as well: calibration holds the same ones out, and what rounding is fitted to would speak for what it left.
// `more` windows behind those, numbered on, are ones that rounding has not seen: steps come to these first, and to the
// others as far as they need them. Of these is held out what every eighth of all is beyond what calibration holds out
// (of fewer than eight windows that is none).
void gyre_steps_order(uint32_t windows, uint32_t more, uint32_t read, uint32_t *of);

// Goes on from head->step to head->steps; head->done then. GYRE_E_FORMAT where the loss is not finite before any step,
// or again after its rate was halved three times; GYRE_E_NOMEM.
gyre_status gyre_steps_run(const struct gyre_steps *steps, gyre_error *err) GYRE_MUST_USE;
