// Rules of the ops that work on whole rows, and the loss.
#include "quantizer/gradient/rules.h"
#include "backends/cpu/fast_parts.h"
#include "backends/host.h"
#include "runtime/core/activation.h"
#include "runtime/core/quantize.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 64 }; // that one thread sums

bool gyre_back_on_host(const gyre_device *device)
{
    return device->backend->buffer_create == gyre_host_buffer_create && device->backend != &gyre_backend_null;
}

const void *gyre_back_memory(struct gyre_binding at)
{
    return at.buffer ? ((const struct host_buffer *)(const void *)at.buffer)->data + at.offset : NULL;
}

void gyre_back_columns(const float *a, uint64_t lda, const float *b, uint64_t ldb, const double *by, uint64_t rows,
                       uint64_t n, float *out)
{
#pragma omp parallel for schedule(static) if (rows * n > 1 << 16)
    for (uint64_t first = 0; first < n; first += COLUMNS) {
        double sum[COLUMNS] = {0};
        const uint64_t most = GYRE_MIN((uint64_t)COLUMNS, n - first);
        for (uint64_t r = 0; r < rows; r++) {
            const double factor = by ? by[r] : 1;
            const float *x = a + r * lda + first, *y = b ? b + r * ldb + first : NULL;
            for (uint64_t i = 0; i < most; i++) sum[i] += (double)x[i] * (y ? (double)y[i] : 1) * factor;
        }
        for (uint64_t i = 0; i < most; i++) out[first + i] += (float)sum[i];
    }
}

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "out of memory for gradients"); }

// ---- norms, sums ------------------------------------------------------------------------------------------------

// y = x r gain, r = 1 / sqrt(mean(x^2) + eps).
gyre_status gyre_back_rms_norm(const struct gyre_back *b, gyre_error *err)
{
    const struct gyre_rms_norm_params *p = &b->node->params.rms_norm;
    const uint64_t rows = (uint64_t)p->rows, width = (uint64_t)p->width;
    const float *x = gyre_back_plane(b->graph, b->node->in[0], 0), *gain = gyre_back_plane(b->graph, b->node->in[1], 0);
    double *root = malloc(rows * sizeof *root);
    if (!root) return no_memory(err);
#pragma omp parallel for schedule(static)
    for (uint64_t r = 0; r < rows; r++) {
        const float *xr = x + r * width, *g = b->dout + r * width;
        double square = 0, along = 0;
        for (uint64_t i = 0; i < width; i++) {
            square += (double)xr[i] * (double)xr[i];
            along += (double)xr[i] * (double)gain[i] * (double)g[i];
        }
        root[r] = 1 / sqrt(square / (double)width + (double)p->eps);
        const double back = along * root[r] * root[r] * root[r] / (double)width;
        for (uint64_t i = 0; b->din[0] && i < width; i++)
            b->din[0][r * width + i] += (float)((double)gain[i] * (double)g[i] * root[r] - (double)xr[i] * back);
    }
    if (b->din[1]) gyre_back_columns(b->dout, width, x, width, root, rows, width, b->din[1]);
    free(root);
    return GYRE_OK;
}

gyre_status gyre_back_add(const struct gyre_back *b, gyre_error *err)
{
    (void)err;
    const uint64_t n = (uint64_t)b->node->params.add.count;
    for (int k = 0; k < 2; k++)
        for (uint64_t i = 0; b->din[k] && i < n; i++) b->din[k][i] += b->dout[i];
    return GYRE_OK;
}

// ---- the quantizer of activations -------------------------------------------------------------------------------

// One row of which y = scale (code - zero). Returns the gradient of the logarithm of the clip.
static double back_row(const float *x, const int8_t *code, float scale, int32_t zero, const float *g, uint64_t n,
                       const struct gyre_quantize_params *p, bool plain, float *dx)
{
    const double least = p->bits == 8 ? -128 : 0, most = p->bits == 8 ? 127 : 15;
    uint64_t low = 0, high = 0;
    double ds = 0;
    if (!(scale > 0)) return 0; // a row of zeros
    const float inverse = 1.0f / scale;
    for (uint64_t i = 0; i < n; i++) {
        if (x[i] < x[low]) low = i;
        if (x[i] > x[high]) high = i;
        const double nearest = (double)gyre_round_even(x[i] * inverse) + zero;
        const bool inside = nearest >= least && nearest <= most;
        ds += (double)g[i] * ((double)code[i] - zero - (inside ? (double)x[i] / (double)scale : 0));
        if (dx && (inside || plain)) dx[i] += g[i];
    }
    if (plain) return 0;
    const double lo = GYRE_MIN((double)x[low], 0.0), hi = GYRE_MAX((double)x[high], 0.0),
                 each = ds * (double)p->clip / (p->bits == 8 ? 127 : 15);
    const bool by_low = p->bits != 8 || -lo > hi, by_high = p->bits != 8 || !by_low;
    if (dx && by_low && lo < 0) dx[low] -= (float)each;
    if (dx && by_high && hi > 0) dx[high] += (float)each;
    return ds * (double)scale;
}

// One row in groups, of which y = scale (times (level - zero)), all whole numbers fixed.
static double back_groups(const float *x, float scale, const float *g, uint64_t n, const struct gyre_quantize_params *p,
                          bool plain, float *dx)
{
    const uint64_t span = (uint64_t)p->span;
    uint64_t low = 0, high = 0; // of the group with the greatest step
    double ds = 0;
    float top = 0;
    if (!(scale > 0)) return 0;
    for (uint64_t first = 0; first < n; first += span) {
        const struct gyre_row_quantizer q = gyre_group_quantizer(x + first, span, p->clip, scale);
        uint64_t least = first, most = first;
        for (uint64_t i = first; i < first + span; i++) {
            if (x[i] < x[least]) least = i;
            if (x[i] > x[most]) most = i;
            const float nearest = gyre_round_even(x[i] * q.inverse) + q.zero;
            const bool inside = nearest >= q.least && nearest <= q.most;
            const double level = (double)q.times * ((double)gyre_row_code(&q, x[i]) - (double)q.zero);
            ds += (double)g[i] * (level - (inside ? (double)x[i] / (double)scale : 0));
            if (dx && (inside || plain)) dx[i] += g[i];
        }
        const float range = GYRE_MAX(x[most], 0.0f) - GYRE_MIN(x[least], 0.0f);
        if (range > top) top = range, low = least, high = most;
    }
    if (plain) return 0;
    const double each = ds * (double)p->clip / (15 * 8);
    if (dx && x[low] < 0) dx[low] -= (float)each;
    if (dx && x[high] > 0) dx[high] += (float)each;
    return ds * (double)scale;
}

gyre_status gyre_back_quantize(const struct gyre_back *b, gyre_error *err)
{
    const struct gyre_quantize_params *p = &b->node->params.quantize;
    const uint64_t rows = (uint64_t)p->rows, width = (uint64_t)p->width;
    const float *x = gyre_back_plane(b->graph, b->node->in[0], 0);
    const int8_t *code = gyre_back_plane(b->graph, b->node->out[0], 0);
    const uint32_t *meta = gyre_back_plane(b->graph, b->node->out[0], 1);
    double *clip = malloc(rows * sizeof *clip);
    if (!clip) return no_memory(err);
#pragma omp parallel for schedule(static)
    for (uint64_t r = 0; r < rows; r++) {
        const float scale = gyre_f32_from_bits(meta[2 * r]), *xr = x + r * width, *g = b->dout + r * width;
        float *dx = b->din[0] ? b->din[0] + r * width : NULL;
        clip[r] = p->span ? back_groups(xr, scale, g, width, p, b->plain, dx)
                          : back_row(xr, code + r * width, scale, (int32_t)meta[2 * r + 1], g, width, p, b->plain, dx);
    }
    for (uint64_t r = 0; b->dclip && r < rows; r++) b->dclip[0] += clip[r];
    free(clip);
    return GYRE_OK;
}

// ---- Hadamard transforms ----------------------------------------------------------------------------------------

// y = (scale x) H: dx = scale (dy H').
gyre_status gyre_back_hadamard(const struct gyre_back *b, gyre_error *err)
{
    struct gyre_hadamard_params p = b->node->params.hadamard;
    const uint64_t rows = (uint64_t)p.rows, width = (uint64_t)p.width;
    const float *x = gyre_back_plane(b->graph, b->node->in[0], 0),
                *scale = p.scaled ? gyre_back_plane(b->graph, b->node->in[2], 0) : NULL;
    float *turned = malloc(rows * width * sizeof *turned);
    if (!turned) return no_memory(err);
    struct gyre_ref_args args = {.params = &p};
    p.had_t = !p.had_t;
    p.scaled = 0;
    args.bind[0] = turned;
    args.bind[1] = (void *)(uintptr_t)b->dout;
    args.bind[2] = args.bind[3] = (void *)(uintptr_t)gyre_back_plane(b->graph, b->node->in[1], 0);
    gyre_fast_hadamard(&args);
    if (b->din[2]) gyre_back_columns(turned, width, x, width, NULL, rows, width, b->din[2]);
#pragma omp parallel for schedule(static)
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t i = 0; b->din[0] && i < width; i++)
            b->din[0][r * width + i] += turned[r * width + i] * (scale ? scale[i] : 1);
    free(turned);
    return GYRE_OK;
}

// y[r][j] = x[r][order[j]].
gyre_status gyre_back_gather(const struct gyre_back *b, gyre_error *err)
{
    (void)err;
    const struct gyre_gather_params *p = &b->node->params.gather;
    const uint64_t rows = (uint64_t)p->rows, width = (uint64_t)p->width;
    const int32_t *order = gyre_back_plane(b->graph, b->node->in[1], 0);
    for (uint64_t r = 0; r < (b->din[0] ? rows : 0); r++)
        for (uint64_t i = 0; i < width; i++) b->din[0][r * width + (uint64_t)order[i]] += b->dout[r * width + i];
    return GYRE_OK;
}

// ---- gated units ------------------------------------------------------------------------------------------------

gyre_status gyre_back_act_mul(const struct gyre_back *b, gyre_error *err)
{
    (void)err;
    const struct gyre_act_mul_params *p = &b->node->params.act_mul;
    const uint64_t rows = (uint64_t)p->rows, width = (uint64_t)p->width;
    const float *x = gyre_back_plane(b->graph, b->node->in[0], 0);
#pragma omp parallel for schedule(static)
    for (uint64_t r = 0; r < (b->din[0] ? rows : 0); r++) {
        const float *gate = x + 2 * r * width, *up = gate + width, *g = b->dout + r * width;
        float *dgate = b->din[0] + 2 * r * width, *dup = dgate + width;
        for (uint64_t i = 0; i < width; i++) {
            double slope;
            const double a = gyre_activation(p->act, (double)gate[i], &slope);
            dgate[i] += (float)((double)g[i] * (double)up[i] * slope);
            dup[i] += (float)((double)g[i] * a);
        }
    }
    return GYRE_OK;
}

// ---- the loss ---------------------------------------------------------------------------------------------------

GYRE_CLONES static float largest(const float *x, uint64_t n)
{
    float top = x[0];
    for (uint64_t i = 1; i < n; i++) top = x[i] > top ? x[i] : top;
    return top;
}

// The sum of exp(x - top), in pieces that a float holds well.
GYRE_CLONES static double normaliser(const float *x, uint64_t n, float top)
{
    double sum = 0;
    for (uint64_t first = 0; first < n; first += 256) {
        const uint64_t end = GYRE_MIN(first + 256, n);
        float piece = 0;
        for (uint64_t i = first; i < end; i++) piece += gyre_fast_exp(x[i] - top);
        sum += (double)piece;
    }
    return sum;
}

// sum p (t - s); out (NULL: nothing) := weight (q - p), which may be s.
GYRE_CLONES static double differences(const float *t, float t_top, float t_by, const float *s, float s_top, float s_by,
                                      float weight, uint64_t n, float *out)
{
    double sum = 0;
    for (uint64_t first = 0; first < n; first += 256) {
        const uint64_t end = GYRE_MIN(first + 256, n);
        float piece = 0;
        for (uint64_t i = first; i < end; i++) {
            const float p = gyre_fast_exp(t[i] - t_top) * t_by, q = gyre_fast_exp(s[i] - s_top) * s_by;
            piece += p * ((t[i] - t_top) - (s[i] - s_top));
            if (out) out[i] = weight * (q - p);
        }
        sum += (double)piece;
    }
    return sum;
}

static double divergence(const float *teacher, const float *student, uint64_t rows, uint64_t width, double weight,
                         float *out)
{
    double sum = 0;
    double *row = malloc(rows * sizeof *row);
    if (!row) return NAN;
#pragma omp parallel for schedule(static)
    for (uint64_t r = 0; r < rows; r++) {
        const float *t = teacher + r * width, *s = student + r * width;
        const float t_top = largest(t, width), s_top = largest(s, width);
        const double t_sum = normaliser(t, width, t_top), s_sum = normaliser(s, width, s_top);
        row[r] = differences(t, t_top, (float)(1 / t_sum), s, s_top, (float)(1 / s_sum), (float)weight, width,
                             out ? out + r * width : NULL) -
                 log(t_sum) + log(s_sum);
    }
    for (uint64_t r = 0; r < rows; r++) sum += row[r];
    free(row);
    return sum;
}

double gyre_back_divergence(const float *teacher, const float *student, uint64_t rows, uint64_t width)
{
    return divergence(teacher, student, rows, width, 0, NULL);
}

double gyre_back_kl(const float *teacher, float *student, uint64_t rows, uint64_t width, double weight)
{
    return divergence(teacher, student, rows, width, weight, student);
}
