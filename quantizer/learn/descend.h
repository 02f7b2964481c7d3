// Learning rotations: steps down an objective on the orthogonal matrices, and on diagonals where there are some (the
// loop is gradient/steps.h). Files, plans and texts are learn.c's.
#pragma once
#include "quantizer/gradient/steps.h"
#include "quantizer/learn/objective.h"
#include "runtime/util/log.h"

struct gyre_descent {
    const struct gyre_objective *objective;
    uint32_t windows; // of the text (those held out: gyre_steps_held); 0: the objective needs none
    double rate;      // of a step at first; it falls linearly to 0
    const gyre_log *log;
    // Called behind every step (`look` false) and every held-out window; what they return ends it unless GYRE_OK.
    gyre_status (*tick)(void *user, bool look, gyre_error *err);
    gyre_status (*keep)(void *user, gyre_error *err); // now and then and at the end: the state is worth keeping
    void *user;
    struct gyre_matrices at, best, before, gradient; // of one shape; best and before as `at` when it begins
    double *moment,
        *moment_before; // [2][head.n] zeros: steps are radam.h's, those before the last one; NULL: cayley.h's
    struct gyre_steps_head head;
};

enum { GYRE_DESCENT_LOOK = 25 }; // steps between looks at what is held out
// Goes on from head.step to head.steps; head.done then.
gyre_status gyre_descend(struct gyre_descent *d, gyre_error *err) GYRE_MUST_USE;
