// CORRECT: weights that make the float path's outputs from the quantized path's inputs (QEP, 2504.09629, at alpha = 1),
// and, for the linears that write the residual stream, repair what went wrong before them (ours).
//
// With X the quantized path's inputs, D = F - X what the float path's have more, S what its residual stream has more:
//     least squares  min |F W' + S - X T'|^2   ->   T = W + W (D'X)(X'X)^-1 + (S'X)(X'X)^-1 = W + A + B.
// Taking all of it over-fits where tokens are few or errors are not linear in X. So T = W + alpha A + residual B, and
// the two shares are the least-squares ones on held-out windows, each within 0..1.
#include "quantizer/round/problem.h"
#include "quantizer/round/gemm.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>

// out = a' for a [rows, cols] floats.
static void transposed(const float *a, uint64_t rows, uint64_t cols, double *out)
{
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < cols; c++) out[c * rows + r] = (double)a[r * cols + c];
}

// out [rows, n] = w (cross)' for floats.
static gyre_status through_cross(const float *w, const float *cross, uint64_t rows, uint64_t n, double *out,
                                 gyre_error *err)
{
    float *narrow = malloc(rows * n * sizeof *narrow);
    if (!narrow) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for target correction");
    gyre_gemm_rows(w, cross, rows, n, n, narrow);
    for (uint64_t i = 0; i < rows * n; i++) out[i] = (double)narrow[i];
    free(narrow);
    return GYRE_OK;
}

static double dot(const double *a, const double *b, uint64_t n)
{
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static double within(double x) { return x > 0 ? x < 1 ? x : 1 : 0; } // NaN gives 0

// a H b' traces on the held-out windows: |alpha A + residual B|_H^2 = p aa + 2 q ab + ..., against the right-hand side.
struct shares {
    double aa, ab, bb, a, b;
};

// The minimum of aa x^2 + 2 ab x y + bb y^2 - 2 a x - 2 b y over the unit square, with x or y given where they are not
// automatic.
static void choose(const struct shares *q, double alpha, double residual, double *x, double *y)
{
    const bool fit_x = alpha == GYRE_AUTO && q->aa > 0, fit_y = residual == GYRE_AUTO && q->bb > 0;
    *x = alpha == GYRE_AUTO ? 0 : alpha;
    *y = residual == GYRE_AUTO ? 0 : residual;
    for (int i = 0; i < 64; i++) { // coordinate descent: the box is convex, and so is the quadratic
        if (fit_x) *x = within((q->a - q->ab * *y) / q->aa);
        if (fit_y) *y = within((q->b - q->ab * *x) / q->bb);
    }
}

gyre_status gyre_stage_correct(const struct gyre_stage *stage, const struct gyre_moments *m, bool writes_stream,
                               const float *w, struct gyre_rounding *r, struct gyre_ladder_note *note, gyre_error *err)
{
    const uint64_t rows = r->rows, n = r->cols, size = rows * n;
    const struct gyre_moment_set *held = m->held.weight > 0 ? &m->held : &m->fit;
    const bool stream = writes_stream && m->fit.stream && stage->residual != 0;
    gyre_status st = GYRE_OK;
    struct shares q = {0};
    double *a = malloc(size * sizeof *a), *b = calloc(size, sizeof *b), *aim = malloc(size * sizeof *aim),
           *other = malloc(size * sizeof *other), *h = malloc(n * n * sizeof *h);
    if (!a || !b || !aim || !other || !h) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for target correction"));
    GYRE_GO(through_cross(w, m->fit.cross, rows, n, a, err));
    gyre_factor_solve(r->factor, rows, a, r->scratch);
    if (stream) {
        transposed(m->fit.stream, n, rows, b);
        gyre_factor_solve(r->factor, rows, b, r->scratch);
    }
    GYRE_GO(through_cross(w, held->cross, rows, n, aim, err));
    if (writes_stream && held->stream) { // what is wanted of the held-out outputs includes the repair
        transposed(held->stream, n, rows, other);
        for (uint64_t i = 0; stream && i < size; i++) aim[i] += other[i];
    }
    for (uint64_t i = 0; i < n * n; i++) h[i] = (double)held->h[i];
    gyre_gemm_symmetric(a, h, rows, n, other);
    q.aa = dot(other, a, size);
    q.ab = dot(other, b, size);
    q.a = dot(aim, a, size);
    gyre_gemm_symmetric(b, h, rows, n, other);
    q.bb = dot(other, b, size);
    q.b = dot(aim, b, size);
    choose(&q, stage->alpha, stream ? stage->residual : 0, &note->alpha, &note->residual);
    for (uint64_t i = 0; i < size; i++) r->target[i] = (double)w[i] + note->alpha * a[i] + note->residual * b[i];
done:
    free(a);
    free(b);
    free(aim);
    free(other);
    free(h);
    return st;
}
