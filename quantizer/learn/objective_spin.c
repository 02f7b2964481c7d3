// The end-to-end losses behind objective.h.
#include "quantizer/learn/objective.h"
#include "quantizer/learn/spin.h"

#include <stdlib.h>

struct end_to_end {
    gyre_spin *spin;
    gyre_teacher *teacher; // NULL: cross entropy
    const struct gyre_calib_text *text;
};

static gyre_status loss_at(void *self, const struct gyre_matrices *at, uint32_t window, double *loss,
                           struct gyre_matrices *gradient, gyre_error *err)
{
    const struct end_to_end *e = self;
    GYRE_TRY(gyre_spin_set(e->spin, at, err));
    return gyre_spin_window(e->spin, e->text->token + (uint64_t)window * e->text->tokens, e->teacher, window, loss,
                            gradient, err);
}

static void close_it(void *self)
{
    struct end_to_end *e = self;
    gyre_spin_close(e->spin);
    gyre_teacher_close(e->teacher);
    free(e);
}

enum { TOP = 1000 }; // OSTQuant's

gyre_status gyre_objective_spin(const struct gyre_objective_params *p, gyre_learn_method method,
                                struct gyre_objective *out, gyre_error *err)
{
    const struct gyre_spin_options options = {.tokens = p->text->tokens,
                                              .act = p->act,
                                              .kv = p->kv,
                                              .act_clip = 1,
                                              .kv_clip = 1,
                                              .plain = method == GYRE_LEARN_SPINQUANT,
                                              .top = method == GYRE_LEARN_OSTQUANT ? TOP : 0};
    struct end_to_end *e = calloc(1, sizeof *e);
    if (!e) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for learning");
    e->text = p->text;
    *out = (struct gyre_objective){.at = loss_at, .close = close_it, .self = e};
    if (method != GYRE_LEARN_SPINQUANT)
        GYRE_TRY(gyre_teacher_open(p->device, p->source, p->text->token, p->text->windows, p->text->tokens, NULL,
                                   &e->teacher, err));
    return gyre_spin_open(p->device, p->plan, p->source, p->shape, &options, &e->spin, err);
}
