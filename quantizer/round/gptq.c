// GPTQ (Frantar et al., 2210.17323): round the columns one by one and let those that follow take up the error,
//     e_i = (w_i - v_i) / U_ii,   w_j -= e_i U_ij for j > i,   H^-1 = U'U.
// The sum of e_i^2 is the final tr((V - T) H (V - T)') of the row, so runs over several scales can be compared for
// nothing.
//
// Columns are rows of the working copy here. Rows of the linear do not see each other: a chunk of them goes through all
// columns, a block at a time, on one thread; what a block does to the columns behind it is one product.
//
// Groups are static: columns keep the group that they have in the file, whatever the order. In the natural order a
// group's scale is found when its first column comes, from the working copy; in another order from the target.
#include "quantizer/round/problem.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64, CHUNK = 96, LANES = 32 }; // columns; rows of a thread, and of a pass over a block

struct sweep {
    const struct gyre_rounding *r;
    const struct gyre_stage *stage;
    uint64_t rows, cols, groups;
    bool natural;          // scales come from the working copy
    const float *diagonal; // [cols], for the clip search; file order
    float *scale;          // [rows, groups]
    double *w;             // [cols][rows] the working copy, in the factor's order
    double *carried;       // [BLOCK][rows] e of the block
    double *error;         // [rows] sum of e^2
    int8_t *code;          // [rows, cols] in the file's order
};

// The scale of group g for rows first.., from the columns that are now at place `at` and after it.
static bool find_scales(const struct sweep *s, uint64_t at, uint64_t first, uint64_t n)
{
    const uint32_t group = s->r->codes->group;
    const uint64_t g = s->r->factor->order[at] / group;
    float w[GYRE_MAX(128, 1)]; // groups in the natural order are at most 128 wide
    for (uint64_t row = first; row < first + n; row++) {
        for (uint32_t i = 0; i < group; i++) w[i] = (float)s->w[(at + i) * s->rows + row];
        if (!gyre_search_scale(w, s->stage->clip == GYRE_CLIP_HESSIAN ? s->diagonal + g * group : NULL, group,
                               s->r->codes->bits, s->stage->clip != GYRE_CLIP_NONE, &s->scale[row * s->groups + g]))
            return false;
    }
    return true;
}

// Columns first..last-1 of rows row..row+n-1.
static bool round_block(const struct sweep *s, uint64_t first, uint64_t last, uint64_t row, uint64_t n)
{
    const struct gyre_factor *f = s->r->factor;
    const uint32_t group = s->r->codes->group;
    const double hi = (double)((1 << (s->r->codes->bits - 1)) - 1), lo = -hi - 1;
    for (uint64_t i = first; i < last; i++) {
        const uint64_t column = f->order[i], g = column / group;
        const double *u = f->u + i * s->cols, inverse = 1 / u[i];
        double *w = s->w + i * s->rows + row, *e = s->carried + (i - first) * s->rows + row;
        if (s->natural && column % group == 0 && !find_scales(s, i, row, n)) return false;
        for (uint64_t k = 0; k < n; k++) {
            const double scale = (double)s->scale[(row + k) * s->groups + g],
                         q = scale > 0 ? gyre_nearest(w[k] / scale, lo, hi) : 0;
            s->code[(row + k) * s->cols + column] = (int8_t)q;
            e[k] = (w[k] - q * scale) * inverse;
            s->error[row + k] += e[k] * e[k];
        }
        for (uint64_t j = i + 1; j < last; j++) {
            double *next = s->w + j * s->rows + row;
            const double share = u[j];
            for (uint64_t k = 0; k < n; k++) next[k] -= share * e[k];
        }
    }
    return true;
}

// All columns of rows row..row+n-1.
static bool sweep_rows(const struct sweep *s, uint64_t row, uint64_t n)
{
    const struct gyre_factor *f = s->r->factor;
    for (uint64_t i = 0; i < s->cols; i++)
        for (uint64_t k = row; k < row + n; k++) s->w[i * s->rows + k] = s->r->target[k * s->cols + f->order[i]];
    for (uint64_t first = 0; first < s->cols; first += BLOCK) {
        const uint64_t last = GYRE_MIN(first + BLOCK, s->cols), rest = s->cols - last;
        for (uint64_t k = 0; k < n; k += LANES)
            if (!round_block(s, first, last, row + k, GYRE_MIN((uint64_t)LANES, n - k))) return false;
        if (rest)
            cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)rest, (int)n, (int)(last - first), -1,
                        f->u + first * s->cols + last, (int)s->cols, s->carried + row, (int)s->rows, 1,
                        s->w + last * s->rows + row, (int)s->rows);
    }
    return true;
}

static bool sweep(const struct sweep *s)
{
    bool good = true;
    memset(s->error, 0, s->rows * sizeof *s->error);
#pragma omp parallel for schedule(dynamic) reduction(&& : good)
    for (int64_t c = 0; c < (int64_t)gyre_div_up(s->rows, CHUNK); c++) {
        const uint64_t row = (uint64_t)c * CHUNK;
        good = sweep_rows(s, row, GYRE_MIN((uint64_t)CHUNK, s->rows - row)) && good;
    }
    return good;
}

// The better of what is kept and what this run found, row by row.
static void keep_better(const struct sweep *s, double *best, bool first)
{
    struct gyre_codes *c = s->r->codes;
    for (uint64_t row = 0; row < s->rows; row++) {
        if (!first && !(s->error[row] < best[row])) continue; // NaN: a scale that has grown beyond f16
        best[row] = s->error[row];
        memcpy(c->code + row * s->cols, s->code + row * s->cols, s->cols);
        for (uint64_t g = 0; g < s->groups; g++)
            c->scale[row * s->groups + g] = gyre_f16_from_f32(s->scale[row * s->groups + g]);
    }
}

gyre_status gyre_stage_gptq(const struct gyre_stage *stage, struct gyre_rounding *r, gyre_error *err)
{
    const uint64_t rows = r->rows, cols = r->cols, groups = cols / r->codes->group;
    gyre_status st = GYRE_OK;
    float *diagonal = malloc(cols * sizeof *diagonal), *base = malloc(rows * groups * sizeof *base);
    double *best = malloc(rows * sizeof *best);
    struct sweep s = {.r = r,
                      .stage = stage,
                      .rows = rows,
                      .cols = cols,
                      .groups = groups,
                      .natural = !stage->act_order && r->codes->group < cols,
                      .diagonal = diagonal,
                      .scale = malloc(rows * groups * sizeof *s.scale),
                      .w = r->scratch,
                      .carried = malloc(BLOCK * rows * sizeof *s.carried),
                      .error = malloc(rows * sizeof *s.error),
                      .code = malloc(rows * cols)};
    if (!diagonal || !base || !best || !s.scale || !s.carried || !s.error || !s.code)
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for GPTQ"));
    for (uint64_t i = 0; i < cols; i++) diagonal[i] = (float)r->factor->h[i * cols + i];
    GYRE_GO(gyre_stage_scales(r, stage->clip, diagonal, base, err));
    const uint32_t runs = s.natural ? 1 : GYRE_MAX(stage->scales, 1u);
    for (uint32_t run = 0; run < runs; run++) { // 1, then around it in steps of 4 %
        const float step = 0.04f * (float)((run + 1) / 2), ratio = run % 2 ? 1 - step : 1 + step;
        for (uint64_t i = 0; i < rows * groups; i++) s.scale[i] = gyre_round_to_f16(base[i] * ratio);
        if (!sweep(&s)) GYRE_GO(gyre_fail(err, GYRE_E_FORMAT, "a compensated weight is too large for an f16 scale"));
        keep_better(&s, best, run == 0);
    }
done:
    free(diagonal);
    free(base);
    free(best);
    free(s.scale);
    free(s.carried);
    free(s.error);
    free(s.code);
    return st;
}
