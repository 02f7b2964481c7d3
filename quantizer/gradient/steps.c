// See steps.h.
#include "quantizer/gradient/steps.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_HALVED = 3 };

// ---- windows ----------------------------------------------------------------------------------------------------

bool gyre_steps_is_held(uint32_t windows, uint32_t window)
{
    return windows < GYRE_STEPS_HELD_OUT ? window + 1 == windows
                                         : window % GYRE_STEPS_HELD_OUT == GYRE_STEPS_HELD_OUT - 1;
}

uint32_t gyre_steps_held(uint32_t windows)
{
    return windows && windows < GYRE_STEPS_HELD_OUT ? 1 : windows / GYRE_STEPS_HELD_OUT;
}

// The i-th of the windows that are held out, or of the others.
static uint32_t of_kind(uint32_t windows, bool held, uint64_t i)
{
    for (uint32_t w = 0;; w++)
        if (gyre_steps_is_held(windows, w) == held && i-- == 0) return w;
}

// Multiples of the golden section modulo 1 lie evenly, however many come first: which of n of them by size the i-th is.
static double golden(uint32_t i) { return fmod(0.6180339887498949 * i, 1); }
static uint32_t spread(uint32_t n, uint32_t i)
{
    uint32_t rank = 0;
    for (uint32_t j = 0; j < n; j++) rank += golden(j) < golden(i);
    return rank;
}

// Of `more` windows `held` are held out, evenly: the i-th of these, or of the others.
static uint32_t more_of_kind(uint32_t more, uint32_t held, bool is_held, uint64_t i)
{
    for (uint64_t w = 0;; w++)
        if ((held * (w + 1) / more > held * w / more) == is_held && i-- == 0) return (uint32_t)w;
}

// What is taken of windows of one kind: n of all, 0 to n - 1 of them before this one.
struct kind {
    uint32_t all, n, taken;
};

static uint32_t next_of(struct kind *k) { return (uint32_t)((uint64_t)spread(k->n, k->taken++) * k->all / k->n); }

void gyre_steps_order(uint32_t windows, uint32_t more, uint32_t read, uint32_t *of)
{
    const uint32_t held = more && windows < GYRE_STEPS_HELD_OUT ? 0 : gyre_steps_held(windows),
                   read_held = gyre_steps_held(read), steps = read - read_held;
    struct kind seen_held = {held, GYRE_MIN(read_held, held), 0};
    const uint32_t new = read_held - seen_held.n; // that are held out
    struct kind new_held = {new, new, 0}, unseen = {more - new, GYRE_MIN(steps, more - new), 0},
                seen = {windows - held, steps - unseen.n, 0};
    for (uint32_t w = 0; w < read; w++)
        if (gyre_steps_is_held(read, w))
            of[w] = seen_held.taken < seen_held.n ? of_kind(windows, true, next_of(&seen_held))
                                                  : windows + more_of_kind(more, new, true, next_of(&new_held));
        else if (unseen.taken < unseen.n) of[w] = windows + more_of_kind(more, new, false, next_of(&unseen));
        else of[w] = held ? of_kind(windows, false, next_of(&seen)) : next_of(&seen);
}

// The i-th of those that are not held out, in turn.
static uint32_t window_of(uint32_t windows, uint64_t i)
{
    if (!windows) return (uint32_t)i;
    return of_kind(windows, false, i % (windows - gyre_steps_held(windows)));
}

// ---- steps ------------------------------------------------------------------------------------------------------

static gyre_status held_loss(const struct gyre_steps *s, double *loss, gyre_error *err)
{
    const uint32_t n = gyre_steps_held(s->windows);
    *loss = 0;
    if (!s->windows) GYRE_TRY(s->loss(s->self, 0, loss, NULL, err));
    for (uint32_t w = 0; w < s->windows; w++) {
        double one;
        if (!gyre_steps_is_held(s->windows, w)) continue;
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

// The mean of a batch, loss and gradient. `sum` [head->n] is room; NULL with a batch of one.
static gyre_status batch_loss(const struct gyre_steps *s, double *sum, double *loss, gyre_error *err)
{
    const uint64_t n = s->head->n, first = s->head->step * s->batch;
    *loss = 0;
    if (sum) memset(sum, 0, n * sizeof *sum);
    for (uint32_t k = 0; k < s->batch; k++) {
        double one;
        GYRE_TRY(s->loss(s->self, window_of(s->windows, first + k), &one, s->gradient, err));
        *loss += one / s->batch;
        for (uint64_t i = 0; sum && i < n; i++) sum[i] += s->gradient[i] / s->batch;
        GYRE_TRY(s->tick(s->self, false, err));
    }
    if (sum) memcpy(s->gradient, sum, n * sizeof *sum);
    return GYRE_OK;
}

static gyre_status one_step(const struct gyre_steps *s, double *sum, gyre_error *err)
{
    double loss;
    GYRE_TRY(batch_loss(s, sum, &loss, err));
    bool finite = isfinite(loss);
    for (uint64_t i = 0; i < s->head->n; i++) finite &= (bool)isfinite(s->gradient[i]);
    GYRE_TRY(finite ? s->down(s->self, err) : take_back(s, err));
    s->head->step++; // after a step that was taken back with the next windows
    gyre_logf(s->log, GYRE_LOG_DEBUG, "%s: step %u: loss %.5f on its windows", s->name, (unsigned)s->head->step, loss);
    return GYRE_OK;
}

static gyre_status all_steps(const struct gyre_steps *s, double *sum, gyre_error *err)
{
    struct gyre_steps_head *h = s->head;
    if (h->step == 0) GYRE_TRY(look(s, err));
    while (h->step < h->steps) {
        GYRE_TRY(one_step(s, sum, err));
        if (h->step % s->look == 0 || h->step == h->steps) GYRE_TRY(look(s, err));
        if (h->step % s->keep == 0 && h->step < h->steps) GYRE_TRY(s->save(s->self, err));
    }
    h->done = 1;
    return s->save(s->self, err);
}

gyre_status gyre_steps_run(const struct gyre_steps *s, gyre_error *err)
{
    double *sum = s->batch > 1 ? malloc(s->head->n * sizeof *sum) : NULL;
    if (s->batch > 1 && !sum) return gyre_fail(err, GYRE_E_NOMEM, "cannot %s: out of memory", s->what);
    const gyre_status st = all_steps(s, sum, err);
    free(sum);
    return st;
}
