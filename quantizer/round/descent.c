// Polishing codes that are already there, row by row.
//
// DESCENT: with G = (V - T) H, moving weight i by d changes the row's error by 2 d G_i + d^2 H_ii; the best step on the
// grid is taken wherever that is negative, and G follows in O(cols). REFIT: with codes q fixed and a scale per group,
// the error is a quadratic in the scales: sum_k (q_g H_gk q_k) s_k = q_g (H T)_g, and H T = H V - G.
//
// Where outputs are weighed together (outputs.h) the other rows, as they stand, are a linear term: row i's G becomes
//     sum_k H_O[i][k] G_k / H_O[i][i] = G_i + pull_i.
// Rows then take turns, each seeing what those before it have become; blocks of H_O do not see each other. What threads
// share out there are blocks and what comes before a row's turn; the bytes are the same for any number of them.
#include "quantizer/round/problem.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static double value_of(const struct gyre_rounding *r, uint64_t row, uint64_t i)
{
    const struct gyre_codes *c = r->codes;
    return (double)gyre_f32_from_f16(c->scale[row * (r->cols / c->group) + i / c->group]) * c->code[row * r->cols + i];
}

// scratch = (V - T) H.
static gyre_status gradients(struct gyre_rounding *r, gyre_error *err)
{
    const uint64_t n = r->rows * r->cols;
    double *d = malloc(n * sizeof *d);
    if (!d) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for polishing");
    for (uint64_t row = 0; row < r->rows; row++)
        for (uint64_t i = 0; i < r->cols; i++)
            d[row * r->cols + i] = value_of(r, row, i) - r->target[row * r->cols + i];
    (void)gyre_factor_energy(r->factor, r->rows, d, r->scratch, NULL);
    free(d);
    return GYRE_OK;
}

// One kind of polishing: `row` changes a row, whose gradient (pull included) is in scratch and follows, and returns how
// much moved. room: `each` doubles of the row's own, where `ready` (may be NULL) has left what neither `row` nor other
// rows change, of n rows, whose rooms lie one after another.
struct polish {
    void (*ready)(const struct gyre_rounding *r, uint64_t row, uint64_t n, double *room, uint64_t each);
    uint64_t (*row)(const struct gyre_rounding *r, uint64_t row, double *room);
    uint64_t each;
    uint32_t sweeps;
};

enum { ROWS = 8 }; // that are made ready together

static void polish_some(const struct gyre_rounding *r, const struct polish *p, uint64_t row, uint64_t n, double *room)
{
    if (p->ready) p->ready(r, row, n, room, p->each);
    for (uint64_t i = 0; i < n; i++)
        for (uint32_t sweep = 0; sweep < p->sweeps && p->row(r, row + i, room + i * p->each); sweep++) {
        }
}

static gyre_status polish_alone(const struct gyre_rounding *r, const struct polish *p, gyre_error *err)
{
    bool out_of_memory = false;
#pragma omp parallel
    {
        double *room = malloc((ROWS * p->each + 1) * sizeof *room);
        if (!room) {
#pragma omp atomic write
            out_of_memory = true;
        }
#pragma omp for schedule(dynamic)
        for (uint64_t row = 0; row < r->rows; row += ROWS)
            if (room) polish_some(r, p, row, GYRE_MIN((uint64_t)ROWS, r->rows - row), room);
        free(room);
    }
    return out_of_memory ? gyre_fail(err, GYRE_E_NOMEM, "out of memory for polishing") : GYRE_OK;
}

// ---- outputs that are weighed together ----------------------------------------------------------------------------

// Rows whose pull by the rest of their block is one product; columns of a part of it, which are the same however many
// threads share them.
enum { TURN = 48, PART = 192 };

// What rows before..before+n-1 of the block that begins at `first` are pulled by all others but each other: columns
// column..column+width-1 of pull [n][cols].
static void pull_part(const struct gyre_rounding *r, uint64_t first, uint64_t before, uint64_t n, uint64_t column,
                      uint64_t width, double *pull)
{
    const struct gyre_outputs *o = r->outputs;
    const uint64_t cols = r->cols, count = gyre_outputs_count(o, first), behind = before + n;
    const double *h = o->h + (first + before) * o->block, *y = r->scratch + first * cols + column;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)width, (int)before, 1, h, (int)o->block, y,
                (int)cols, 0, pull + column, (int)cols);
    if (behind < count)
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)width, (int)(count - behind), 1, h + behind,
                    (int)o->block, y + behind * cols, (int)cols, 1, pull + column, (int)cols);
}

// Rows before..before+n-1 of the block that begins at `first`, one after another; threads share what comes before the
// turns. pull [TURN][cols], room [TURN][p->each].
static uint64_t take_turns(const struct gyre_rounding *r, const struct polish *p, uint64_t first, uint64_t before,
                           uint64_t n, double *pull, double *room)
{
    const struct gyre_outputs *o = r->outputs;
    const uint64_t cols = r->cols, row = first + before;
    const double *h = o->h + row * o->block;
    uint64_t moved = 0;
#pragma omp taskloop grainsize(1) if (cols > PART) default(shared)
    for (uint64_t column = 0; column < cols; column += PART)
        pull_part(r, first, before, n, column, GYRE_MIN((uint64_t)PART, cols - column), pull);
#pragma omp taskloop grainsize(1) if (p->ready != NULL) default(shared)
    for (uint64_t i = 0; i < n; i += ROWS)
        if (p->ready) p->ready(r, row + i, GYRE_MIN((uint64_t)ROWS, n - i), room + i * p->each, p->each);
    for (uint64_t i = 0; i < n; i++, h += o->block) {
        double *own = pull + i * cols, *gradient = r->scratch + (row + i) * cols;
        const double diagonal = h[before + i];
        for (uint64_t k = 0; k < n; k++)
            if (k != i) cblas_daxpy((int)cols, h[before + k], r->scratch + (row + k) * cols, 1, own, 1);
        for (uint64_t c = 0; c < cols; c++) gradient[c] += own[c] / diagonal;
        moved += p->row(r, row + i, room + i * p->each);
        for (uint64_t c = 0; c < cols; c++) gradient[c] -= own[c] / diagonal;
    }
    return moved;
}

// The block of H_O that begins at row `first`.
static bool polish_block(const struct gyre_rounding *r, const struct polish *p, uint64_t first)
{
    const uint64_t count = gyre_outputs_count(r->outputs, first);
    double *pull = malloc(TURN * (r->cols + p->each) * sizeof *pull);
    uint64_t moved = 1;
    for (uint32_t sweep = 0; pull && sweep < p->sweeps && moved; sweep++) {
        moved = 0;
        for (uint64_t row = 0; row < count; row += TURN)
            moved += take_turns(r, p, first, row, GYRE_MIN((uint64_t)TURN, count - row), pull, pull + TURN * r->cols);
    }
    free(pull);
    return pull != NULL;
}

static gyre_status polish_together(const struct gyre_rounding *r, const struct polish *p, gyre_error *err)
{
    bool good = true;
#pragma omp parallel
#pragma omp single
#pragma omp taskloop grainsize(1) default(shared)
    for (uint64_t first = 0; first < r->rows; first += r->outputs->block)
        if (!polish_block(r, p, first)) {
#pragma omp atomic write
            good = false;
        }
    return good ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "out of memory for polishing");
}

static gyre_status polish_rows(struct gyre_rounding *r, const struct polish *p, gyre_error *err)
{
    GYRE_TRY(gradients(r, err));
    return r->outputs ? polish_together(r, p, err) : polish_alone(r, p, err);
}

// ---- codes ----------------------------------------------------------------------------------------------------

// One pass over a row; returns the number of codes that moved.
static uint64_t descend(const struct gyre_rounding *r, uint64_t row, double *room)
{
    const struct gyre_codes *c = r->codes;
    const uint64_t cols = r->cols, groups = cols / c->group;
    const double hi = (double)((1 << (c->bits - 1)) - 1), lo = -hi - 1;
    double *gradient = r->scratch + row * cols;
    int8_t *code = c->code + row * cols;
    uint64_t moved = 0;
    (void)room;
    for (uint64_t k = 0; k < cols; k++) {
        const uint64_t i = r->factor->order[k];
        const double scale = (double)gyre_f32_from_f16(c->scale[row * groups + i / c->group]),
                     *h = r->factor->h + i * cols;
        if (!(scale > 0)) continue;
        const double to = gyre_nearest(code[i] - gradient[i] / (h[i] * scale), lo, hi), d = (to - code[i]) * scale;
        if (d == 0 || 2 * d * gradient[i] + d * d * h[i] >= 0) continue;
        code[i] = (int8_t)to;
        moved++;
        for (uint64_t j = 0; j < cols; j++) gradient[j] += d * h[j];
    }
    return moved;
}

gyre_status gyre_stage_descent(const struct gyre_stage *stage, struct gyre_rounding *r, gyre_error *err)
{
    return polish_rows(r, &(struct polish){NULL, descend, 0, stage->iterations}, err);
}

// ---- scales -----------------------------------------------------------------------------------------------

struct refit {
    double *hq;   // [groups][cols] H of one group's codes
    double *a;    // [groups][groups]
    double *left; // [groups][groups] what solving uses up
    double *b, *s, *before;
};

static double quadratic(const struct refit *f, uint64_t groups, const double *s)
{
    double sum = 0;
    for (uint64_t g = 0; g < groups; g++) {
        double as = 0;
        for (uint64_t k = 0; k < groups; k++) as += f->a[g * groups + k] * s[k];
        sum += s[g] * (as - 2 * f->b[g]);
    }
    return sum;
}

// H of each group's codes, at the beginning of the rooms of n rows, which share a way through H.
static void refit_ready(const struct gyre_rounding *r, uint64_t row, uint64_t n, double *room, uint64_t each)
{
    enum { STRIP = 256 };
    const uint64_t cols = r->cols, group = r->codes->group;
    for (uint64_t k = 0; k < n; k++) memset(room + k * each, 0, cols / group * cols * sizeof *room);
    for (uint64_t first = 0; first < cols; first += STRIP)
        for (uint64_t i = 0; i < cols; i++)
            for (uint64_t k = 0; k < n; k++) {
                const double code = r->codes->code[(row + k) * cols + i], *h = r->factor->h + i * cols + first;
                double *hq = room + k * each + i / group * cols + first;
                for (uint64_t j = 0; code != 0 && j < GYRE_MIN((uint64_t)STRIP, cols - first); j++)
                    hq[j] += code * h[j];
            }
}

// New scales of a row where they lower its error after rounding to f16; returns whether they did.
static uint64_t refit_row(const struct gyre_rounding *r, uint64_t row, double *room)
{
    const struct gyre_codes *c = r->codes;
    const uint64_t cols = r->cols, group = c->group, groups = cols / group;
    const int8_t *code = c->code + row * cols;
    double *gradient = r->scratch + row * cols;
    uint16_t *scale = c->scale + row * groups;
    struct refit f = {.hq = room, .a = room + groups * cols};
    f.left = f.a + groups * groups;
    f.b = f.left + groups * groups;
    f.s = f.b + groups;
    f.before = f.s + groups;
    for (uint64_t g = 0; g < groups; g++) f.before[g] = (double)gyre_f32_from_f16(scale[g]);
    for (uint64_t g = 0; g < groups; g++) {
        f.b[g] = 0;
        for (uint64_t k = 0; k < groups; k++) {
            double sum = 0;
            for (uint64_t i = k * group; i < (k + 1) * group; i++) sum += f.hq[g * cols + i] * code[i];
            f.a[g * groups + k] = sum;
            f.b[g] += sum * f.before[k];
        }
        for (uint64_t i = g * group; i < (g + 1) * group; i++) f.b[g] -= code[i] * gradient[i];
    }
    // A group of zero codes has nothing to fit: an equation s = 0 in its place.
    for (uint64_t g = 0; g < groups; g++)
        if (f.a[g * groups + g] == 0) {
            f.a[g * groups + g] = 1;
            f.before[g] = 0; // its scale counts for nothing, before and after
        }
    const double before = quadratic(&f, groups, f.before);
    memcpy(f.left, f.a, groups * groups * sizeof *f.left);
    memcpy(f.s, f.b, groups * sizeof *f.s);
    if (LAPACKE_dposv(LAPACK_ROW_MAJOR, 'U', (lapack_int)groups, 1, f.left, (lapack_int)groups, f.s, 1)) return 0;
    for (uint64_t g = 0; g < groups; g++) {
        f.s[g] = (double)gyre_round_to_f16((float)f.s[g]);
        if (!(f.s[g] >= 0) || isinf(f.s[g])) return 0;
    }
    if (quadratic(&f, groups, f.s) >= before) return 0;
    for (uint64_t g = 0; g < groups; g++) {
        scale[g] = gyre_f16_from_f32((float)f.s[g]);
        for (uint64_t i = 0; i < cols; i++) gradient[i] += (f.s[g] - f.before[g]) * f.hq[g * cols + i];
    }
    return 1;
}

gyre_status gyre_stage_refit(struct gyre_rounding *r, gyre_error *err)
{
    const uint64_t groups = r->cols / r->codes->group;
    const uint64_t room = groups * r->cols + 2 * groups * groups + 3 * groups;
    return polish_rows(r, &(struct polish){refit_ready, refit_row, room, 1}, err);
}
