// See steps.h.
#include "quantizer/gradient/steps.h"

#include <math.h>

enum { MOST_HALVED = 3 };

static gyre_status look(const struct gyre_steps *s, gyre_error *err)
{
    struct gyre_steps_head *h = s->head;
    double loss;
    GYRE_TRY(s->held(s->self, &loss, err));
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
    bool finite;
    GYRE_TRY(s->slope(s->self, &loss, &finite, err));
    GYRE_TRY(finite && isfinite(loss) ? s->down(s->self, err) : take_back(s, err));
    s->head->step++; // after a step that was taken back with the next window
    gyre_logf(s->log, GYRE_LOG_DEBUG, "%s: step %u: loss %.5f on its window", s->name, (unsigned)s->head->step, loss);
    return s->stepped(s->self, err);
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
