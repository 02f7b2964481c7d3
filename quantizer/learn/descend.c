// See descend.h.
#include "quantizer/learn/descend.h"
#include "quantizer/learn/cayley.h"
#include "quantizer/learn/radam.h"

#include <math.h>
#include <string.h>

enum { LOOK = GYRE_DESCENT_LOOK, KEEP = 5 };
static const double DIAGONALS = 0.106; // their rate to that of rotations: what OSTQuant's code has by default

static void copy(const struct gyre_descent *d, struct gyre_matrices *to, const struct gyre_matrices *from)
{
    memcpy(gyre_matrices_data(to), gyre_matrices_data(from), d->head.n * sizeof(double));
}

static gyre_status loss(void *self, uint32_t window, double *value, double *gradient, gyre_error *err)
{
    struct gyre_descent *d = self;
    return d->objective->at(d->objective->self, &d->at, window, value, gradient ? &d->gradient : NULL, err);
}

static void best(void *self)
{
    struct gyre_descent *d = self;
    copy(d, &d->best, &d->at);
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
    if (d->moment) {
        memcpy(d->moment_before, d->moment, 2 * d->head.n * sizeof *d->moment);
        return gyre_radam_step(&d->at, g, d->moment, d->moment + d->head.n, d->head.step, rate, DIAGONALS * rate, err);
    }
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
    if (d->moment) memcpy(d->moment, d->moment_before, 2 * d->head.n * sizeof *d->moment);
    return GYRE_OK;
}

static gyre_status tick(void *self, bool look, gyre_error *err)
{
    const struct gyre_descent *d = self;
    return d->tick(d->user, look, err);
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
                                     .windows = d->windows,
                                     .batch = 1,
                                     .log = d->log,
                                     .head = &d->head,
                                     .gradient = gyre_matrices_data(&d->gradient),
                                     .self = d,
                                     .loss = loss,
                                     .down = down,
                                     .back = back,
                                     .best = best,
                                     .tick = tick,
                                     .save = save};
    return gyre_steps_run(&steps, err);
}
