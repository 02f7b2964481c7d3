// Scales of a target's groups, and plain rounding with them. See problem.h.
#include "quantizer/round/problem.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdlib.h>

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
