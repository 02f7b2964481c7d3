// What may be combined in a recipe. See fields.h; the reasons are in docs/recipes.md.
#include "quantizer/recipe/fields.h"
#include "runtime/util/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool GYRE_PRINTF(3, 4) at_stage(struct gyre_recipe_fault *fault, uint32_t stage, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    *fault = (struct gyre_recipe_fault){.stage = stage};
    vsnprintf(fault->why, sizeof fault->why, format, args);
    va_end(args);
    return false;
}

static bool GYRE_PRINTF(4, 5)
    at_key(struct gyre_recipe_fault *fault, const char *map, const char *key, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    *fault = (struct gyre_recipe_fault){.map = map, .key = key};
    vsnprintf(fault->why, sizeof fault->why, format, args);
    va_end(args);
    return false;
}

static bool rounds(const struct gyre_stage *s)
{
    return s->kind == GYRE_STAGE_RTN || s->kind == GYRE_STAGE_GPTQ || s->kind == GYRE_STAGE_ADMM;
}

static bool ordered(const struct gyre_recipe *r, struct gyre_recipe_fault *fault)
{
    const char *rounding = NULL;
    bool corrected = false;
    for (uint32_t i = 0; i < r->n_stages; i++) {
        const struct gyre_stage *s = &r->stage[i];
        const char *name = gyre_stage_name(s->kind);
        if (rounds(s)) {
            if (rounding)
                return at_stage(fault, i,
                                "%s chooses codes that %s has chosen already; exactly one of rtn, gptq and admm is "
                                "allowed",
                                name, rounding);
            rounding = name;
        } else if (s->kind == GYRE_STAGE_CORRECT) {
            if (rounding)
                return at_stage(fault, i, "correct comes too late; it is allowed before %s, whose target it moves",
                                rounding);
            if (corrected) return at_stage(fault, i, "a second correct has nothing left to correct; one is allowed");
            corrected = true;
        } else if (!rounding) {
            return at_stage(fault, i, "%s has no codes to improve yet; it is allowed after rtn, gptq or admm", name);
        }
    }
    if (!rounding && (r->n_stages || !r->distill.steps))
        return at_key(
            fault, NULL, "rounding",
            "nothing rounds; exactly one of rtn, gptq and admm is needed, and none where distill learns alone");
    return true;
}

static bool any_diagonal(const struct gyre_recipe *r)
{
    return r->diagonals.norm != 0 || r->diagonals.up_down != 0 || r->diagonals.qk != 0 || r->diagonals.value != 0;
}

void gyre_recipe_join_learning(struct gyre_recipe *whole, const struct gyre_recipe *own)
{
    memcpy(whole->name, own->name, sizeof own->name);
    memcpy(whole->about, own->about, sizeof own->about);
    memcpy(whole->source, own->source, sizeof own->source);
    whole->calibration.windows = own->calibration.windows;
    whole->calibration.tokens = own->calibration.tokens;
    if (whole->calibration.outputs != GYRE_AUTO_COUNT)
        whole->calibration.outputs = GYRE_MIN(whole->calibration.outputs, own->calibration.windows); // the rules' most
    whole->distill = own->distill;
}

void gyre_recipe_leave_learning(struct gyre_recipe *whole)
{
    const struct gyre_recipe was = *whole;
    memset(whole, 0, sizeof *whole);
    gyre_fields_preset(&gyre_recipe_fields, whole);
    gyre_recipe_join_learning(whole, &was);
}

// What learns on a file that was rounded before takes everything else from there: it says nothing but defaults.
static bool alone(const struct gyre_recipe *r, struct gyre_recipe_fault *fault)
{
    static const char elsewhere[] =
        "a recipe without rounding learns on a file that was rounded before, where this was "
        "decided; leave it out";
    struct gyre_recipe own = *r;
    const char *map, *key;
    gyre_recipe_leave_learning(&own);
    if (gyre_fields_differ(&gyre_recipe_fields, r, &own, &map, &key)) return at_key(fault, map, key, elsewhere);
    return !r->n_exceptions || at_key(fault, NULL, "exceptions", elsewhere);
}

bool gyre_recipe_wants_statistics(const struct gyre_recipe *r, struct gyre_recipe_fault *fault)
{
    static const char needs[] =
        "needs statistics of the inputs, but calibration has windows: 0; allowed with 1 or more";
    for (uint32_t i = 0; i < r->n_stages; i++) {
        const struct gyre_stage *s = &r->stage[i];
        if (s->kind != GYRE_STAGE_RTN) return !at_stage(fault, i, "the stage %s %s", gyre_stage_name(s->kind), needs);
        if (s->clip == GYRE_CLIP_HESSIAN) return !at_stage(fault, i, "the stage rtn with clip: hessian %s", needs);
    }
    if (r->distill.steps)
        return !at_key(fault, "distill", "steps",
                       "distill learns from a text, but calibration has windows: 0; allowed with 2 or more");
    if (r->calibration.fisher)
        return !at_key(fault, "calibration", "fisher", "fisher: true of the calibration %s", needs);
    if (r->calibration.outputs) return !at_key(fault, "calibration", "outputs", "outputs of the calibration %s", needs);
    if (gyre_learn_reads(r))
        return !at_key(fault, "learn", "method",
                       "this loss is learned on a text, but calibration has windows: 0; allowed with 2 or more");
    if (r->seeds > 1) return !at_key(fault, NULL, "seeds", "a search of %u rotations %s", r->seeds, needs);
    if (any_diagonal(r)) return !at_key(fault, NULL, "diagonals", "a diagonal %s", needs);
    if (r->act_clip < 0) return !at_key(fault, "activations", "clip", "clip: auto of activations %s", needs);
    if (r->kv_clip < 0) return !at_key(fault, "cache", "clip", "clip: auto of the cache %s", needs);
    if (r->kv_centre) return !at_key(fault, "cache", "centre", "centre: true of the cache %s", needs);
    return false;
}

// Something rounds by what outputs count for.
static bool weighs_outputs(const struct gyre_recipe *r)
{
    for (uint32_t i = 0; i < r->n_stages; i++)
        if (r->stage[i].kind == GYRE_STAGE_GPTQ || r->stage[i].kind == GYRE_STAGE_DESCENT ||
            r->stage[i].kind == GYRE_STAGE_REFIT)
            return true;
    return false;
}

// Something rounds by what inputs count for.
static bool uses_inputs(const struct gyre_recipe *r)
{
    for (uint32_t i = 0; i < r->n_stages; i++)
        if (r->stage[i].kind != GYRE_STAGE_RTN || r->stage[i].clip == GYRE_CLIP_HESSIAN) return true;
    return false;
}

bool gyre_recipe_sound(const struct gyre_recipe *r, struct gyre_recipe_fault *fault)
{
    if (!ordered(r, fault) || (!r->n_stages && !alone(r, fault))) return false;
    if (!r->rotate && r->seeds > 1)
        return at_key(fault, NULL, "seeds", "%u seeds without rotations; more than 1 is allowed with rotate: true",
                      r->seeds);
    if (!r->rotate && r->learn.method)
        return at_key(fault, "learn", "method",
                      "rotations are learned that are not merged; other methods than none are allowed with rotate: "
                      "true");
    if (!r->rotate && r->online_r1)
        return at_key(fault, NULL, "r1", "an online R1 without rotations; r1: online is allowed with rotate: true");
    if (r->learn.method == GYRE_LEARN_OSTQUANT && any_diagonal(r))
        return at_key(fault, NULL, "diagonals",
                      "ostquant learns diagonals for the same places; leave them out, or choose another method of "
                      "learn");
    if (r->learn.method == GYRE_LEARN_OSTQUANT && r->calibration.outputs)
        return at_key(fault, "calibration", "outputs",
                      "outputs are measured before the values' diagonal that ostquant learns, which rotations do not "
                      "commute with; allowed with another method of learn");
    if (r->rotate && (r->diagonals.norm < 0 || r->diagonals.up_down < 0 || r->diagonals.value < 0))
        return at_key(fault, NULL, "diagonals",
                      "an exponent is searched on weights that are rotated later; auto is allowed with rotate: false");
    if (r->calibration.windows > 0 && r->calibration.outputs != GYRE_AUTO_COUNT &&
        r->calibration.outputs > r->calibration.windows)
        return at_key(fault, "calibration", "outputs",
                      "%u of %u windows weigh outputs; as many are allowed as there are", r->calibration.outputs,
                      r->calibration.windows);
    if (r->calibration.windows > 0 && r->calibration.fisher && !uses_inputs(r))
        return at_key(
            fault, "calibration", "fisher",
            "no stage rounds by what tokens count for; allowed with any but rtn, and with rtn's clip: hessian");
    if (r->calibration.windows > 0 && r->calibration.outputs && !weighs_outputs(r))
        return at_key(fault, "calibration", "outputs",
                      "no stage rounds by what outputs count for; allowed with gptq, descent or refit");
    if (r->distill.windows == 1)
        return at_key(fault, "distill", "windows",
                      "one window leaves none to learn on, for one is held out; allowed with 2 or more, or 0 for those "
                      "of the calibration");
    if (r->rotate && r->calibration.outputs && r->diagonals.value != 0) // R2 mixes what it has scaled
        return at_key(fault, "calibration", "outputs",
                      "outputs are measured before the values' diagonal, which rotations do not commute with; allowed "
                      "with value: 0 or rotate: false");
    return r->calibration.windows > 0 || !gyre_recipe_wants_statistics(r, fault);
}
