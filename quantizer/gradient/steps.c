// See steps.h.
#include "quantizer/gradient/steps.h"

#include <math.h>

enum { MOST_HALVED = 3, HELD_OUT = 8 };

// ---- windows ----------------------------------------------------------------------------------------------------

static bool is_held(uint32_t windows, uint32_t window)
{
    return windows < HELD_OUT ? window + 1 == windows : window % HELD_OUT == HELD_OUT - 1;
}

uint32_t gyre_steps_held(uint32_t windows) { return windows && windows < HELD_OUT ? 1 : windows / HELD_OUT; }

// Those that are not held out, in turn.
static uint32_t window_of(uint32_t windows, uint32_t step)
{
    if (!windows) return step;
    uint32_t left = step % (windows - gyre_steps_held(windows)), w = 0;
    while (is_held(windows, w) || left--) w++;
    return w;
}

// ---- steps ------------------------------------------------------------------------------------------------------

static gyre_status held_loss(const struct gyre_steps *s, double *loss, gyre_error *err)
{
    const uint32_t n = gyre_steps_held(s->windows);
    *loss = 0;
    if (!s->windows) GYRE_TRY(s->loss(s->self, 0, loss, NULL, err));
    for (uint32_t w = 0; w < s->windows; w++) {
        double one;
        if (!is_held(s->windows, w)) continue;
        GYRE_TRY(s->loss(s->self, w, &one, NULL, err));
        *loss += one / n;
        GYRE_TRY(s->tick(s->self, true, err));
    }
    gyre_logf(s->log, GYRE_LOG_INFO, "%s: step %u: loss %.5f on %u held-out windows", s->name, (unsigned)s->head->step,
              *loss, n);
    return GYRE_OK;
}

static gyre_status look(const struct gyre_steps *s, gyre_error *err)
{
    struct gyre_steps_head *h = s->head;
    double loss;
    GYRE_TRY(held_loss(s, &loss, err));
    if (h->step == 0) {
        if (!isfinite(loss))
            return gyre_fail(err, GYRE_E_FORMAT, "cannot %s: the loss is not finite before any step", s->what);
        h->before = h->best = loss;
    } else if (loss < h->best) {
        h->best = loss;
        h->best_step = h->step;
        s->best(s->self);
    }
    return GYRE_OK;
}

static gyre_status take_back(const struct gyre_steps *s, gyre_error *err)
{
    struct gyre_steps_head *h = s->head;
    const unsigned step = (unsigned)h->step;
    if (h->halved == MOST_HALVED || step == 0)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot %s (step %u): the loss is not finite, also at %g of the recipe's rate; lower %s's "
                         "rate",
                         s->what, step, h->rate, s->name);
    h->halved++;
    h->rate /= 2;
    gyre_logf(s->log, GYRE_LOG_WARN,
              "%s: step %u: the loss is not finite; the step before is taken back, the rate halved", s->name, step);
    return s->back(s->self, err);
}

static gyre_status one_step(const struct gyre_steps *s, gyre_error *err)
{
    double loss;
    GYRE_TRY(s->loss(s->self, window_of(s->windows, (uint32_t)s->head->step), &loss, s->gradient, err));
    bool finite = isfinite(loss);
    for (uint64_t i = 0; i < s->head->n; i++) finite &= (bool)isfinite(s->gradient[i]);
    GYRE_TRY(finite ? s->down(s->self, err) : take_back(s, err));
    s->head->step++; // after a step that was taken back with the next window
    gyre_logf(s->log, GYRE_LOG_DEBUG, "%s: step %u: loss %.5f on its window", s->name, (unsigned)s->head->step, loss);
    return s->tick(s->self, false, err);
}

gyre_status gyre_steps_run(const struct gyre_steps *s, gyre_error *err)
{
    struct gyre_steps_head *h = s->head;
    if (h->step == 0) GYRE_TRY(look(s, err));
    while (h->step < h->steps) {
        GYRE_TRY(one_step(s, err));
        if (h->step % s->look == 0 || h->step == h->steps) GYRE_TRY(look(s, err));
        if (h->step % s->keep == 0 && h->step < h->steps) GYRE_TRY(s->save(s->self, err));
    }
    h->done = 1;
    return s->save(s->self, err);
}
