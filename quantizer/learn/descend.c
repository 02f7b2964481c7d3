// See descend.h.
#include "quantizer/learn/descend.h"
#include "quantizer/learn/cayley.h"

#include <math.h>
#include <string.h>

enum { LOOK = GYRE_DESCENT_LOOK, KEEP = 5 };

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

static gyre_status held(void *self, double *loss, gyre_error *err)
{
    struct gyre_descent *d = self;
    const uint32_t n = gyre_calib_held(d->windows);
    double one;
    *loss = 0;
    if (!d->windows) GYRE_TRY(loss_at(d, 0, loss, NULL, err));
    for (uint32_t w = 0; w < d->windows; w++) {
        if (!gyre_calib_is_held(d->windows, w)) continue;
        GYRE_TRY(loss_at(d, w, &one, NULL, err));
        *loss += one / n;
        GYRE_TRY(d->tick(d->user, true, err));
    }
    gyre_logf(d->log, GYRE_LOG_INFO, "learn: step %u: loss %.5f on %u held-out windows, drift %.1e",
              (unsigned)d->head.step, *loss, n, gyre_matrices_drift(&d->at));
    return GYRE_OK;
}

static void best(void *self)
{
    struct gyre_descent *d = self;
    copy(d, &d->best, &d->at);
}

// ---- steps ------------------------------------------------------------------------------------------------------

static gyre_status slope(void *self, double *loss, bool *finite, gyre_error *err)
{
    struct gyre_descent *d = self;
    const uint32_t step = (uint32_t)d->head.step;
    const double *g = gyre_matrices_data(&d->gradient);
    GYRE_TRY(loss_at(d, d->windows ? gyre_calib_window(d->windows, step) : step, loss, &d->gradient, err));
    *finite = true;
    for (uint64_t i = 0; i < d->head.n; i++) *finite &= (bool)isfinite(g[i]);
    return GYRE_OK;
}

static gyre_status down(void *self, gyre_error *err)
{
    struct gyre_descent *d = self;
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

static gyre_status back(void *self, gyre_error *err)
{
    struct gyre_descent *d = self;
    (void)err;
    copy(d, &d->at, &d->before);
    return GYRE_OK;
}

static gyre_status stepped(void *self, gyre_error *err)
{
    const struct gyre_descent *d = self;
    return d->tick(d->user, false, err);
}

static gyre_status save(void *self, gyre_error *err)
{
    const struct gyre_descent *d = self;
    return d->keep(d->user, err);
}

gyre_status gyre_descend(struct gyre_descent *d, gyre_error *err)
{
    const struct gyre_steps steps = {.name = "learn",
                                     .what = "learn rotations",
                                     .look = LOOK,
                                     .keep = KEEP,
                                     .log = d->log,
                                     .head = &d->head,
                                     .self = d,
                                     .held = held,
                                     .slope = slope,
                                     .down = down,
                                     .back = back,
                                     .best = best,
                                     .stepped = stepped,
                                     .save = save};
    return gyre_steps_run(&steps, err);
}
