// The stages of a recipe in order. See ladder.h.
#include "quantizer/round/ladder.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// One factor serves all stages of all linears of a tap: the largest damping that is asked for, GPTQ's order.
static gyre_status need_factor(const struct gyre_recipe *recipe, const struct gyre_moments *m,
                               struct gyre_factor *cache, gyre_error *err)
{
    bool act_order = false;
    if (cache->h) return GYRE_OK;
    for (uint32_t s = 0; s < recipe->n_stages; s++)
        act_order |= recipe->stage[s].kind == GYRE_STAGE_GPTQ && recipe->stage[s].act_order;
    return gyre_factor_create(m->fit.h, m->n, gyre_recipe_damp(recipe), act_order, cache, err);
}

static gyre_status run_stage(const struct gyre_stage *stage, const struct gyre_moments *m, bool writes_stream,
                             const float *w, struct gyre_rounding *r, struct gyre_ladder_note *note, gyre_error *err)
{
    switch (stage->kind) {
    case GYRE_STAGE_CORRECT:
        return gyre_stage_correct(stage, m, writes_stream, w, r, note, err);
    case GYRE_STAGE_RTN:
        return gyre_stage_rtn(stage, r, err);
    case GYRE_STAGE_GPTQ:
        return gyre_stage_gptq(stage, r, err);
    case GYRE_STAGE_ADMM:
        return gyre_stage_admm(stage, r, err);
    case GYRE_STAGE_DESCENT:
        return gyre_stage_descent(stage, r, err);
    case GYRE_STAGE_REFIT:
        return gyre_stage_refit(r, err);
    default:
        return gyre_fail(err, GYRE_E_INVALID, "unknown stage %d", (int)stage->kind);
    }
}

// What is minimised of d [rows, cols] (problem.h).
static gyre_status cost(struct gyre_rounding *r, const double *d, double *out, gyre_error *err)
{
    *out = gyre_factor_energy(r->factor, r->rows, d, r->scratch, NULL);
    return r->outputs ? gyre_outputs_energy(r->outputs, d, r->scratch, r->cols, out, err) : GYRE_OK;
}

// The same of the codes, or of T against w before there are any.
static gyre_status energy(struct gyre_rounding *r, const float *w, bool rounded, double *difference, double *out,
                          gyre_error *err)
{
    const struct gyre_codes *c = r->codes;
    for (uint64_t i = 0; i < r->rows * r->cols; i++)
        difference[i] =
            (rounded ? (double)gyre_f32_from_f16(c->scale[i / c->group]) * c->code[i] : (double)w[i]) - r->target[i];
    return cost(r, difference, out, err);
}

gyre_status gyre_ladder(const struct gyre_recipe *recipe, const struct gyre_ladder_linear *linear,
                        struct gyre_factor *cache, struct gyre_codes *codes, struct gyre_ladder_note *note,
                        gyre_error *err)
{
    const struct gyre_moments *const m = linear->moments;
    const float *const w = linear->w;
    const uint64_t n = linear->rows * linear->cols;
    gyre_status st = GYRE_OK;
    *note = (struct gyre_ladder_note){0};
    double *difference = m ? malloc(n * sizeof *difference) : NULL, whole = 0;
    struct gyre_rounding r = {.rows = linear->rows,
                              .cols = linear->cols,
                              .target = malloc(n * sizeof *r.target),
                              .scratch = malloc(n * sizeof *r.scratch),
                              .codes = codes,
                              .outputs = linear->outputs};
    bool rounded = false;
    if (!r.target || !r.scratch || (m && !difference))
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for rounding"));
    for (uint64_t i = 0; i < n; i++) r.target[i] = (double)w[i];
    if (m) {
        GYRE_GO(need_factor(recipe, m, cache, err));
        r.factor = cache;
        GYRE_GO(cost(&r, r.target, &whole, err));
    }
    for (uint32_t s = 0; s < recipe->n_stages; s++) {
        const struct gyre_stage *stage = &recipe->stage[s];
        GYRE_GO(run_stage(stage, m, linear->writes_stream, w, &r, note, err));
        rounded |= stage->kind != GYRE_STAGE_CORRECT;
        double error = 0;
        if (m) GYRE_GO(energy(&r, w, rounded, difference, &error, err)); // of outputs; a linear of zeros has none
        note->error[s] = whole > 0 ? error / whole : error > 0 ? (double)NAN : 0;
    }
    if (m) {
        note->damp = cache->damp;
        note->dead = cache->dead;
    }
done:
    free(r.target);
    free(r.scratch);
    free(difference);
    return st;
}
