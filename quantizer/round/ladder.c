// The stages of a recipe in order, and the two that need no file of their own. See ladder.h.
#include "quantizer/round/ladder.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- scales and plain rounding --------------------------------------------------------------------------------

gyre_status gyre_stage_scales(const struct gyre_rounding *r, gyre_clip clip, const float *diagonal, float *scale,
                              gyre_error *err)
{
    const uint64_t cols = r->cols, group = r->codes->group, groups = cols / group;
    int64_t bad = INT64_MAX;
    bool out_of_memory = false;
#pragma omp parallel reduction(min : bad)
    {
        float *w = malloc(group * sizeof *w);
        if (!w) {
#pragma omp atomic write
            out_of_memory = true;
        }
#pragma omp for schedule(dynamic, 16)
        for (int64_t i = 0; i < (int64_t)(r->rows * groups); i++) {
            const uint64_t at = (uint64_t)i * group; // groups of a row follow each other
            if (!w) continue;
            for (uint64_t k = 0; k < group; k++) w[k] = (float)r->target[at + k];
            if (!gyre_search_scale(w, clip == GYRE_CLIP_HESSIAN && diagonal ? diagonal + at % cols : NULL, group,
                                   r->codes->bits, clip != GYRE_CLIP_NONE, &scale[i]))
                bad = GYRE_MIN(bad, (int64_t)at);
        }
        free(w);
    }
    if (out_of_memory) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the clip search");
    if (bad == INT64_MAX) return GYRE_OK;
    const uint64_t at = (uint64_t)bad;
    uint64_t worst = at;
    for (uint64_t k = at; k < at + group && isfinite(r->target[worst]); k++)
        if (!isfinite(r->target[k]) || fabs(r->target[k]) > fabs(r->target[worst])) worst = k;
    return gyre_fail(err, GYRE_E_FORMAT, "row %llu, column %llu: weight %g is not finite or too large for an f16 scale",
                     (unsigned long long)(worst / cols), (unsigned long long)(worst % cols), r->target[worst]);
}

// The search of rtn.h, which also fits the scale to the codes.
static gyre_status round_searched(struct gyre_rounding *r, gyre_error *err)
{
    const uint64_t n = r->rows * r->cols;
    float *narrow = malloc(n * sizeof *narrow);
    if (!narrow) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for rounding");
    for (uint64_t i = 0; i < n; i++) narrow[i] = (float)r->target[i];
    const gyre_status st = gyre_rtn(narrow, r->rows, r->cols, r->codes, err);
    free(narrow);
    return st;
}

gyre_status gyre_stage_rtn(const struct gyre_stage *stage, struct gyre_rounding *r, gyre_error *err)
{
    const uint64_t cols = r->cols, group = r->codes->group, groups = cols / group;
    const double hi = (double)((1 << (r->codes->bits - 1)) - 1), lo = -hi - 1;
    gyre_status st = GYRE_OK;
    if (stage->clip == GYRE_CLIP_WEIGHTS) return round_searched(r, err);
    float *scale = malloc(r->rows * groups * sizeof *scale), *diagonal = malloc(cols * sizeof *diagonal);
    if (!scale || !diagonal) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for rounding"));
    for (uint64_t i = 0; r->factor && i < cols; i++) diagonal[i] = (float)r->factor->h[i * cols + i];
    GYRE_GO(gyre_stage_scales(r, stage->clip, r->factor ? diagonal : NULL, scale, err));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < (int64_t)(r->rows * groups); i++) {
        const double s = (double)scale[i];
        for (uint64_t at = (uint64_t)i * group; at < ((uint64_t)i + 1) * group; at++)
            r->codes->code[at] = (int8_t)(s > 0 ? gyre_nearest(r->target[at] / s, lo, hi) : 0);
        r->codes->scale[i] = gyre_f16_from_f32(scale[i]);
    }
done:
    free(diagonal);
    free(scale);
    return st;
}

// ---- the ladder -----------------------------------------------------------------------------------------------

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

// tr((V - T) H (V - T)') of the codes, or of T against w before there are any.
static double energy(struct gyre_rounding *r, const float *w, bool rounded, double *difference)
{
    const struct gyre_codes *c = r->codes;
    for (uint64_t i = 0; i < r->rows * r->cols; i++)
        difference[i] =
            (rounded ? (double)gyre_f32_from_f16(c->scale[i / c->group]) * c->code[i] : (double)w[i]) - r->target[i];
    return gyre_factor_energy(r->factor, r->rows, difference, r->scratch, NULL);
}

gyre_status gyre_ladder(const struct gyre_recipe *recipe, const struct gyre_moments *m, bool writes_stream,
                        const float *w, uint64_t rows, uint64_t cols, struct gyre_factor *cache,
                        struct gyre_codes *codes, struct gyre_ladder_note *note, gyre_error *err)
{
    const uint64_t n = rows * cols;
    gyre_status st = GYRE_OK;
    *note = (struct gyre_ladder_note){0};
    double *difference = m ? malloc(n * sizeof *difference) : NULL, whole = 0;
    struct gyre_rounding r = {.rows = rows,
                              .cols = cols,
                              .target = malloc(n * sizeof *r.target),
                              .scratch = malloc(n * sizeof *r.scratch),
                              .codes = codes};
    bool rounded = false;
    if (!r.target || !r.scratch || (m && !difference))
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for rounding"));
    for (uint64_t i = 0; i < n; i++) r.target[i] = (double)w[i];
    if (m) {
        GYRE_GO(need_factor(recipe, m, cache, err));
        r.factor = cache;
        whole = gyre_factor_energy(r.factor, rows, r.target, r.scratch, NULL);
    }
    for (uint32_t s = 0; s < recipe->n_stages; s++) {
        const struct gyre_stage *stage = &recipe->stage[s];
        GYRE_GO(run_stage(stage, m, writes_stream, w, &r, note, err));
        rounded |= stage->kind != GYRE_STAGE_CORRECT;
        const double error = m ? energy(&r, w, rounded, difference) : 0; // of outputs; a linear of zeros has none
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
