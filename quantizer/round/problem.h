// The problem that every stage of the ladder works on, and the stages: ladder.c puts them in a recipe's order.
//
// Everything minimises tr((V - T) H (V - T)'), the squared output error on calibration data, over codes times scales V;
// T is the target: the weights themselves, or what CORRECT makes of them. Where it is known what outputs count for
// (outputs.h), GPTQ, DESCENT and REFIT minimise tr(H_O (V - T) H (V - T)'). Sources: docs/recipes.md.
#pragma once
#include "quantizer/recipe/recipe.h"
#include "quantizer/round/factor.h"
#include "quantizer/round/outputs.h"
#include "quantizer/round/rtn.h"

// One linear while it is being rounded. Arrays are [rows, cols], in the file's order of columns.
struct gyre_rounding {
    uint64_t rows, cols;
    const struct gyre_factor *factor;
    const struct gyre_outputs *outputs; // NULL: all outputs count alike
    double *target;                     // T
    double *scratch;                    // [rows, cols]
    struct gyre_codes *codes;
};

// What happened, for reports.
struct gyre_ladder_note {
    double error[GYRE_MAX_STAGES]; // after each stage: tr((V - T) H (V - T)') / tr(W H W'); CORRECT: of T against W.
                                   // Where outputs are weighed: tr(H_O (V - T) H (V - T)') / tr(H_O W H W')
    double damp;                   // the damping that H needed
    uint32_t dead;                 // inputs that never fired
    double alpha, residual;        // what CORRECT chose; 0 without
};

// x on an integer grid lo..hi, half to even, for |x| < 2^51, in a form that vectorises.
static inline double gyre_nearest(double x, double lo, double hi)
{
    const double q = (x + 0x1.8p52) - 0x1.8p52, low = q < lo ? lo : q;
    return low > hi ? hi : low;
}

// ---- the stages (their own files) ---------------------------------------------------------------------------

// Moves r->target from w to what CORRECT's shares say; fills note->alpha and note->residual.
gyre_status gyre_stage_correct(const struct gyre_stage *stage, const struct gyre_moments *m, bool writes_stream,
                               const float *w, struct gyre_rounding *r, struct gyre_ladder_note *note,
                               gyre_error *err) GYRE_MUST_USE;
// Scales of all groups of the target as the stage's clip says: scale [rows, cols / group]. `diagonal` [cols] weighs the
// columns under GYRE_CLIP_HESSIAN. GYRE_E_FORMAT names row and column of a weight that cannot be rounded.
gyre_status gyre_stage_scales(const struct gyre_rounding *r, gyre_clip clip, const float *diagonal, float *scale,
                              gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_stage_rtn(const struct gyre_stage *stage, struct gyre_rounding *r, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_stage_gptq(const struct gyre_stage *stage, struct gyre_rounding *r, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_stage_admm(const struct gyre_stage *stage, struct gyre_rounding *r, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_stage_descent(const struct gyre_stage *stage, struct gyre_rounding *r, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_stage_refit(struct gyre_rounding *r, gyre_error *err) GYRE_MUST_USE;
