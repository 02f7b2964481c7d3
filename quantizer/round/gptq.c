// GPTQ (Frantar et al., 2210.17323): round the columns one by one and let those that follow take up the error,
//     e_i = (w_i - v_i) / U_ii,   w_j -= e_i U_ij for j > i,   H^-1 = U'U.
// The sum of e_i^2 is the final tr((V - T) H (V - T)') of the row, so runs over several scales can be compared for
// nothing.
//
// Columns are rows of the working copy here. Rows of the linear do not see each other: a chunk of them goes through all
// columns, a block at a time, on one thread; what a block does to the columns behind it is one product.
//
// Where outputs are weighed together (outputs.h: H_O = M' D M) the cost is that of M E in place of E. What is left of a
// column, g = w - v, is column j of -E after the columns' own feedback, so that row i of it costs D_i (M g)_i^2: its
// weight is rounded from w_i + sum of M_ik g_k over the rows k before it, and g goes to the columns behind as ever
// (YAQA, 2505.22988). Chunks of one block of H_O then follow each other through the blocks of columns, each on a thread
// of its own, and what those before it put on a chunk is one product a block. Scales that are chosen by the error of
// whole rows are chosen without this.
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
    const struct gyre_outputs *outputs;
    double *left;  // [cols][rows] with `outputs`: g; before a chunk has it, what the chunks before put on it
    double *error; // [rows] sum of e^2
    int8_t *code;  // [rows, cols] in the file's order
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

// What the rows before `row` put on it; left: of one column, [rows]. Those from `chunk` on are not in it yet.
static double pushed(const struct sweep *s, const double *left, uint64_t chunk, uint64_t row)
{
    const double *m = s->outputs->m + row * s->outputs->block;
    const uint64_t first = gyre_outputs_first(s->outputs, row);
    double sum = left[row];
    for (uint64_t k = chunk; k < row; k++) sum += m[k - first] * left[k];
    return sum;
}

// Columns first..last-1 of rows row..row+n-1 of the chunk that begins at row `chunk`.
static bool round_block(const struct sweep *s, uint64_t first, uint64_t last, uint64_t chunk, uint64_t row, uint64_t n)
{
    const struct gyre_factor *f = s->r->factor;
    const uint32_t group = s->r->codes->group;
    const double hi = (double)((1 << (s->r->codes->bits - 1)) - 1), lo = -hi - 1;
    for (uint64_t i = first; i < last; i++) {
        const uint64_t column = f->order[i], g = column / group;
        const double *u = f->u + i * s->cols, inverse = 1 / u[i];
        double *w = s->w + i * s->rows + row, *e = s->carried + (i - first) * s->rows + row;
        double *left = s->left ? s->left + i * s->rows : NULL;
        if (s->natural && column % group == 0 && !find_scales(s, i, row, n)) return false;
        for (uint64_t k = 0; k < n; k++) {
            const double scale = (double)s->scale[(row + k) * s->groups + g],
                         aim = left ? w[k] + pushed(s, left, chunk, row + k) : w[k],
                         q = scale > 0 ? gyre_nearest(aim / scale, lo, hi) : 0, d = w[k] - q * scale;
            s->code[(row + k) * s->cols + column] = (int8_t)q;
            if (left) left[row + k] = d;
            e[k] = d * inverse;
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

// The chunk of rows row..row+n-1 before its first column.
static void begin_rows(const struct sweep *s, uint64_t row, uint64_t n)
{
    const struct gyre_factor *f = s->r->factor;
    for (uint64_t i = 0; i < s->cols; i++)
        for (uint64_t k = row; k < row + n; k++) s->w[i * s->rows + k] = s->r->target[k * s->cols + f->order[i]];
}

// Columns first.. of that chunk: a block of them, and what it does to the columns behind.
static bool sweep_block(const struct sweep *s, uint64_t first, uint64_t row, uint64_t n)
{
    const uint64_t last = GYRE_MIN(first + BLOCK, s->cols), rest = s->cols - last;
    for (uint64_t k = 0; k < n; k += LANES)
        if (!round_block(s, first, last, row, row + k, GYRE_MIN((uint64_t)LANES, n - k))) return false;
    if (rest)
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)rest, (int)n, (int)(last - first), -1,
                    s->r->factor->u + first * s->cols + last, (int)s->cols, s->carried + row, (int)s->rows, 1,
                    s->w + last * s->rows + row, (int)s->rows);
    return true;
}

static bool sweep_alone(const struct sweep *s)
{
    bool good = true;
    memset(s->error, 0, s->rows * sizeof *s->error);
#pragma omp parallel for schedule(dynamic) reduction(&& : good)
    for (int64_t c = 0; c < (int64_t)gyre_div_up(s->rows, CHUNK); c++) {
        const uint64_t row = (uint64_t)c * CHUNK, n = GYRE_MIN((uint64_t)CHUNK, s->rows - row);
        begin_rows(s, row, n);
        for (uint64_t first = 0; first < s->cols; first += BLOCK) good = good && sweep_block(s, first, row, n);
    }
    return good;
}

// sweep_block where the chunks before have rounded these columns.
static bool sweep_block_behind(const struct sweep *s, uint64_t first, uint64_t row, uint64_t n)
{
    const struct gyre_outputs *o = s->outputs;
    const uint64_t top = gyre_outputs_first(o, row), width = GYRE_MIN((uint64_t)BLOCK, s->cols - first);
    if (first == 0) begin_rows(s, row, n);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)width, (int)n, (int)(row - top), 1,
                s->left + first * s->rows + top, (int)s->rows, o->m + row * o->block, (int)o->block, 0,
                s->left + first * s->rows + row, (int)s->rows);
    return sweep_block(s, first, row, n);
}

// Chunks follow each other through the columns, a block of these apart. done [chunks + 1][blocks + 1] only says which
// task is which.
static bool sweep_together(const struct sweep *s, char *done)
{
    const uint64_t blocks = gyre_div_up(s->cols, BLOCK) + 1;
    bool good = true;
    memset(s->error, 0, s->rows * sizeof *s->error);
#pragma omp parallel
#pragma omp single
    for (uint64_t row = 0, n, c = 1; row < s->rows; row += n, c++) {
        const uint64_t top = gyre_outputs_first(s->outputs, row), end = top + gyre_outputs_count(s->outputs, top);
        n = GYRE_MIN((uint64_t)CHUNK, end - row);
        for (uint64_t b = 1; b < blocks; b++) {
            char *own = done + c * blocks + b, *above = row > top ? own - blocks : done, *before = own - 1;
            (void)above, (void)before; // where there is no OpenMP
#pragma omp task default(none) firstprivate(s, row, n, b) shared(good) depend(in : *above, *before) depend(out : *own)
            {
                bool still;
#pragma omp atomic read
                still = good;
                if (still && !sweep_block_behind(s, (b - 1) * BLOCK, row, n)) {
#pragma omp atomic write
                    good = false;
                }
            }
        }
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
    static const char too_large[] = "a compensated weight is too large for an f16 scale";
    gyre_status st = GYRE_OK;
    float *diagonal = malloc(cols * sizeof *diagonal), *base = malloc(rows * groups * sizeof *base);
    double *best = malloc(rows * sizeof *best), *left = r->outputs ? malloc(rows * cols * sizeof *left) : NULL;
    const uint64_t tasks = r->outputs ? (rows / CHUNK + 2 * gyre_div_up(rows, r->outputs->block) + 1) : 0;
    char *done = r->outputs ? calloc(tasks, gyre_div_up(cols, BLOCK) + 1) : NULL;
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
    if (!diagonal || !base || !best || (r->outputs && (!left || !done)) || !s.scale || !s.carried || !s.error ||
        !s.code)
        GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for GPTQ"));
    for (uint64_t i = 0; i < cols; i++) diagonal[i] = (float)r->factor->h[i * cols + i];
    GYRE_GO(gyre_stage_scales(r, stage->clip, diagonal, base, err));
    const uint32_t runs = s.natural ? 1 : GYRE_MAX(stage->scales, 1u);
    for (uint32_t run = 0; run < runs && !(r->outputs && runs == 1); run++) { // 1, then around it in steps of 4 %
        const float step = 0.04f * (float)((run + 1) / 2), ratio = run % 2 ? 1 - step : 1 + step;
        for (uint64_t i = 0; i < rows * groups; i++) s.scale[i] = gyre_round_to_f16(base[i] * ratio);
        if (!sweep_alone(&s)) GYRE_GO(gyre_fail(err, GYRE_E_FORMAT, "%s", too_large));
        keep_better(&s, best, run == 0);
    }
    if (r->outputs) {
        for (uint64_t i = 0; i < rows * groups; i++)
            s.scale[i] = runs > 1 ? gyre_f32_from_f16(r->codes->scale[i]) : base[i];
        s.outputs = r->outputs;
        s.left = left;
        if (!sweep_together(&s, done)) GYRE_GO(gyre_fail(err, GYRE_E_FORMAT, "%s", too_large));
        keep_better(&s, best, true);
    }
done:
    free(diagonal);
    free(base);
    free(best);
    free(left);
    free(done);
    free(s.scale);
    free(s.carried);
    free(s.error);
    free(s.code);
    return st;
}
