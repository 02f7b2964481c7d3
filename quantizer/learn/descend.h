// The loop of learning rotations: steps down an objective on the orthogonal matrices, looks at what is held out, and
// what happens where a loss is not finite. Files, plans and texts are learn.c's.
#pragma once
#include "quantizer/learn/objective.h"
#include "runtime/util/log.h"

// Where it stands; kept in the journal as it is.
struct gyre_descent_head {
    uint64_t version, n, method, steps, step, best_step, halved, done;
    double before, best, rate; // of what is held out, at first and of the best; rate: share of the given one
};

struct gyre_descent {
    const struct gyre_objective *objective;
    uint32_t windows; // of the text (those held out: gyre_calib_is_held); 0: the objective needs none
    double rate;      // of a step at first; it falls linearly to 0
    const gyre_log *log;
    // Called behind every step (`look` false) and every held-out window; what they return ends it unless GYRE_OK.
    gyre_status (*tick)(void *user, bool look, gyre_error *err);
    gyre_status (*keep)(void *user, gyre_error *err); // now and then and at the end: the state is worth keeping
    void *user;
    struct gyre_matrices at, best, before, gradient; // of one shape; best and before as `at` when it begins
    struct gyre_descent_head head;
};

enum { GYRE_DESCENT_LOOK = 25 }; // steps between looks at what is held out
// Goes on from head.step to head.steps; head.done then.
gyre_status gyre_descend(struct gyre_descent *d, gyre_error *err) GYRE_MUST_USE;
