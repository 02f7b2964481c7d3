// See descend.h.
#include "quantizer/learn/descend.h"
#include "quantizer/learn/cayley.h"

#include <math.h>
#include <string.h>

enum { LOOK = GYRE_DESCENT_LOOK, KEEP = 5, MOST_HALVED = 3 };

static void copy(const struct gyre_descent *d, struct gyre_matrices *to, const struct gyre_matrices *from)
{
    memcpy(gyre_matrices_data(to), gyre_matrices_data(from), d->head.n * sizeof(double));
}

// ---- looking ----------------------------------------------------------------------------------------------------

static gyre_status loss_at(struct gyre_descent *d, uint32_t window, double *loss, struct gyre_matrices *gradient,
                           gyre_error *err)
{
    return d->objective->at(d->objective->self, &d->at, window, loss, gradient, err);
}

// What is held out; better matrices than before are remembered.
static gyre_status look(struct gyre_descent *d, gyre_error *err)
{
    const uint32_t held = gyre_calib_held(d->windows);
    double sum = 0, loss;
    if (!d->windows) GYRE_TRY(loss_at(d, 0, &sum, NULL, err));
    for (uint32_t w = 0; w < d->windows; w++) {
        if (!gyre_calib_is_held(d->windows, w)) continue;
        GYRE_TRY(loss_at(d, w, &loss, NULL, err));
        sum += loss / held;
        GYRE_TRY(d->tick(d->user, true, err));
    }
    gyre_logf(d->log, GYRE_LOG_INFO, "learn: step %u: loss %.5f on %u held-out windows, drift %.1e",
              (unsigned)d->head.step, sum, held, gyre_matrices_drift(&d->at));
    if (d->head.step == 0) {
        if (!isfinite(sum))
            return gyre_fail(err, GYRE_E_FORMAT, "cannot learn rotations: the loss is not finite before any step");
        d->head.before = d->head.best = sum;
    } else if (sum < d->head.best) {
        d->head.best = sum;
        d->head.best_step = d->head.step;
        copy(d, &d->best, &d->at);
    }
    return GYRE_OK;
}

// ---- steps ------------------------------------------------------------------------------------------------------

static bool finite_gradient(const struct gyre_descent *d)
{
    const double *g = gyre_matrices_data(&d->gradient);
    bool good = true;
    for (uint64_t i = 0; i < d->head.n; i++) good &= (bool)isfinite(g[i]);
    return good;
}

static gyre_status take_back(struct gyre_descent *d, gyre_error *err)
{
    if (d->head.halved == MOST_HALVED || d->head.step == 0)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot learn rotations (step %u): the loss is not finite, also at %g of the recipe's rate; "
                         "lower learn's rate",
                         (unsigned)d->head.step, d->head.rate);
    d->head.halved++;
    d->head.rate /= 2;
    copy(d, &d->at, &d->before);
    gyre_logf(d->log, GYRE_LOG_WARN,
              "learn: step %u: the loss is not finite; the step before is taken back, the rate halved",
              (unsigned)d->head.step);
    return GYRE_OK;
}

static gyre_status one_way(struct gyre_descent *d, gyre_error *err)
{
    const struct gyre_matrices *g = &d->gradient;
    const uint32_t hd = d->at.head_dim, heads = d->at.layers * d->at.kv_heads;
    const uint64_t each = (uint64_t)hd * hd;
    const double rate = d->rate * d->head.rate * (1 - (double)d->head.step / (double)d->head.steps);
    gyre_status st = GYRE_OK;
    copy(d, &d->before, &d->at);
    if (d->at.r1) GYRE_TRY(gyre_cayley_step(d->at.r1, g->r1, d->at.width, rate, err));
    for (uint32_t i = 0; i < heads && st == GYRE_OK; i++)
        st = gyre_cayley_step(d->at.r2 + i * each, g->r2 + i * each, hd, rate, err);
    return st;
}

static gyre_status one_step(struct gyre_descent *d, gyre_error *err)
{
    const uint32_t step = (uint32_t)d->head.step;
    double loss;
    GYRE_TRY(loss_at(d, d->windows ? gyre_calib_window(d->windows, step) : step, &loss, &d->gradient, err));
    if (isfinite(loss) && finite_gradient(d)) GYRE_TRY(one_way(d, err));
    else GYRE_TRY(take_back(d, err));
    d->head.step++; // after a step that was taken back with the next window
    gyre_logf(d->log, GYRE_LOG_DEBUG, "learn: step %u: loss %.5f on its window", (unsigned)d->head.step, loss);
    return d->tick(d->user, false, err);
}

gyre_status gyre_descend(struct gyre_descent *d, gyre_error *err)
{
    if (d->head.step == 0) GYRE_TRY(look(d, err));
    while (d->head.step < d->head.steps) {
        GYRE_TRY(one_step(d, err));
        if (d->head.step % LOOK == 0 || d->head.step == d->head.steps) GYRE_TRY(look(d, err));
        if (d->head.step % KEEP == 0 && d->head.step < d->head.steps) GYRE_TRY(d->keep(d->user, err));
    }
    d->head.done = 1;
    return d->keep(d->user, err);
}
