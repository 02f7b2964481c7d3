// References of what happens to logits: the largest, the choice of a token, likelihoods and divergences.
#include "backends/cpu/ref.h"
#include "runtime/core/gumbel.h"
#include "runtime/util/half.h"
#include "shaders/params.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

// Does (a, i) come before (b, j)? Larger values first, then smaller columns; NaN is the largest value.
static bool before(float a, int i, float b, int j)
{
    if (isnan(a) || isnan(b)) return isnan(a) == isnan(b) ? i < j : isnan(a);
    return a > b || (a == b && i < j);
}

// The k best columns of x[0..n), by insertion; columns beyond n repeat the last column as minus infinity.
static void best_columns(const float *x, int n, int k, float *vals, uint32_t *ids)
{
    int have = 0;
    for (int i = 0; i < n; i++) {
        int at = have;
        while (at > 0 && before(x[i], i, x[ids[at - 1]], (int)ids[at - 1])) at--;
        if (at >= k) continue;
        have = have < k ? have + 1 : k;
        for (int j = have - 1; j > at; j--) ids[j] = ids[j - 1];
        ids[at] = (uint32_t)i;
    }
    for (int j = 0; j < k; j++) {
        if (j >= have) ids[j] = (uint32_t)(n - 1);
        vals[j] = j >= have ? -INFINITY : isnan(x[ids[j]]) ? NAN : x[ids[j]] + 0.0f; // -0 becomes 0
    }
}

// The k best of every part of a row of n.
static void best_of_parts(const struct gyre_topk_params *p, const float *x, float *vals, uint32_t *ids)
{
    for (int32_t s = 0, first = 0; s < p->parts; s++) {
        const int32_t n = p->width / p->parts + (s < p->width % p->parts);
        best_columns(x + first, n, p->k, vals + s * p->k, ids + s * p->k);
        for (int32_t j = 0; j < p->k; j++) ids[s * p->k + j] += (uint32_t)first;
        first += n;
    }
}

void gyre_ref_op_topk(const struct gyre_ref_args *args)
{
    const struct gyre_topk_params *p = args->params;
    const float *x = args->bind[2];
    for (int32_t r = 0; r < p->rows; r++)
        best_of_parts(p, x + (size_t)r * (size_t)p->width, (float *)args->bind[0] + r * p->parts * p->k,
                      (uint32_t *)args->bind[1] + r * p->parts * p->k);
}

void gyre_ref_op_topk_merge(const struct gyre_ref_args *args)
{
    const struct gyre_topk_params *p = args->params;
    const uint32_t *in = args->bind[3];
    uint32_t *ids = args->bind[1];
    gyre_ref_op_topk(args);
    for (int32_t r = 0; r < p->rows; r++)
        for (int32_t j = 0; j < p->k; j++) ids[r * p->k + j] = in[(size_t)r * (size_t)p->width + ids[r * p->k + j]];
}

void gyre_ref_op_argmax(const struct gyre_ref_args *args) { gyre_ref_op_topk(args); }

// ---- sampling -----------------------------------------------------------------------------------------

// The temperature of a row that is sampled from all columns; 0: it is not.
static float heat_of(const uint32_t state[4])
{
    const float heat = gyre_f32_from_bits(state[0]);
    return heat > 0 && gyre_f32_from_bits(state[1]) >= 1 && !state[3] ? heat : 0;
}

void gyre_ref_op_draw(const struct gyre_ref_args *args)
{
    const struct gyre_topk_params *p = args->params;
    const int32_t(*rows)[4] = args->bind[3];
    const uint32_t(*state)[4] = args->bind[4];
    float *raised = malloc((size_t)p->width * sizeof *raised), *vals = args->bind[0];
    uint32_t *ids = args->bind[1];
    for (int32_t r = 0; r < p->rows; r++, vals += p->parts, ids += p->parts) {
        const float *x = (const float *)args->bind[2] + (size_t)r * (size_t)p->width;
        const float heat = heat_of(state[r]);
        const uint32_t stream = gyre_gumbel_stream(state[r][2], (uint32_t)rows[r][2]);
        for (int32_t i = 0; raised && i < p->width; i++)
            raised[i] = heat > 0 ? x[i] + heat * gyre_gumbel(stream, (uint32_t)i) : x[i];
        if (raised) best_of_parts(p, raised, vals, ids);
        for (int32_t s = 0; !raised && s < p->parts; s++) vals[s] = NAN, ids[s] = 0;
    }
    free(raised);
}

// The place among k descending candidates: those of the nucleus (top_p), drawn by their share at u in [0, 1).
static int draw(const float *vals, int k, double temperature, double top_p, double u)
{
    double sum = 0, kept = 0, passed = 0;
    int count = 0, j = 0;
    if (!(temperature > 0)) return 0;
    for (int i = 0; i < k; i++) sum += exp(((double)vals[i] - (double)vals[0]) / temperature);
    for (; count < k && (count == 0 || top_p >= 1 || kept < top_p * sum); count++)
        kept += exp(((double)vals[count] - (double)vals[0]) / temperature);
    for (; j + 1 < count; j++) {
        passed += exp(((double)vals[j] - (double)vals[0]) / temperature);
        if (passed > u * kept) break;
    }
    return j;
}

void gyre_ref_op_sample(const struct gyre_ref_args *args)
{
    const struct gyre_sample_params *p = args->params;
    int32_t(*rows)[4] = args->bind[0];
    uint32_t(*history)[GYRE_HISTORY] = args->bind[1];
    const float *vals = args->bind[2];
    const uint32_t *ids = args->bind[3];
    const uint32_t(*state)[4] = args->bind[5];
    for (int32_t r = 0; r < p->rows; r++) {
        if (!(rows[r][3] & 2)) continue;
        const uint32_t hash = gyre_gumbel_stream(state[r][2], (uint32_t)rows[r][2]);
        const int most = state[r][3] && state[r][3] < (uint32_t)p->k ? (int)state[r][3] : p->k;
        const int j = draw(vals + r * p->k, most, (double)gyre_f32_from_bits(state[r][0]),
                           (double)gyre_f32_from_bits(state[r][1]), (hash >> 8) * 0x1p-24);
        const uint32_t best =
            p->drawn && heat_of(state[r]) > 0 ? ((const uint32_t *)args->bind[4])[r] : ids[r * p->k + j];
        const uint32_t token = isfinite(vals[r * p->k]) ? best : UINT32_MAX;
        rows[r][0] = (int32_t)token;
        history[r][rows[r][2]++ % GYRE_HISTORY] = token;
        if (!isfinite(vals[r * p->k])) rows[r][3] = 0;
    }
}

void gyre_ref_op_mass(const struct gyre_ref_args *args)
{
    const struct gyre_mass_params *p = args->params;
    const float *vals = args->bind[2];
    const uint32_t(*state)[4] = args->bind[3];
#pragma omp parallel for
    for (int32_t r = 0; r < p->rows; r++) {
        const float *x = (const float *)args->bind[1] + (size_t)r * (size_t)p->width;
        const double temperature = (double)gyre_f32_from_bits(state[r][0]),
                     top = (double)vals[(size_t)r * (size_t)p->k];
        double sum = 0;
        for (int32_t i = 0; temperature > 0 && i < p->width; i++) sum += exp(((double)x[i] - top) / temperature);
        ((float *)args->bind[0])[r] = (float)sum;
    }
}

// ---- likelihoods --------------------------------------------------------------------------------------

struct total {
    double top, log_sum;
    int top_at;
}; // maximum and its column; log sum exp(x - top)

static struct total total_of(const float *x, int n)
{
    struct total t = {.top = -INFINITY};
    double sum = 0;
    for (int i = 0; i < n; i++)
        if ((double)x[i] > t.top) t.top = (double)x[i], t.top_at = i;
    for (int i = 0; i < n; i++) sum += exp((double)x[i] - t.top);
    t.log_sum = log(sum);
    return t;
}

void gyre_ref_op_loglik(const struct gyre_ref_args *args)
{
    const struct gyre_loglik_params *p = args->params;
    float(*out)[4] = args->bind[0];
    const uint32_t *targets = args->bind[2];
#pragma omp parallel for
    for (int32_t r = 0; r < p->rows; r++) {
        const float *x = (const float *)args->bind[1] + (size_t)r * (size_t)p->width;
        const struct total t = total_of(x, p->width);
        const float target = x[targets[r] < (uint32_t)p->width ? targets[r] : (uint32_t)p->width - 1];
        out[r][0] = (float)(t.top - (double)target + t.log_sum);
        out[r][1] = (float)(t.top + t.log_sum);
        out[r][2] = gyre_f32_from_bits((uint32_t)t.top_at);
        out[r][3] = target;
    }
}

void gyre_ref_op_kl(const struct gyre_ref_args *args)
{
    const struct gyre_kl_params *p = args->params;
    float(*out)[4] = args->bind[0];
#pragma omp parallel for
    for (int32_t r = 0; r < p->rows; r++) {
        const float *x = (const float *)args->bind[1] + (size_t)r * (size_t)p->width;
        const float *y = (const float *)args->bind[2] + (size_t)r * (size_t)p->width;
        const struct total a = total_of(x, p->width), b = total_of(y, p->width);
        double kl = 0;
        for (int i = 0; i < p->width; i++) {
            const double lp = (double)x[i] - a.top - a.log_sum, lq = (double)y[i] - b.top - b.log_sum;
            kl += exp(lp) == 0 ? 0 : exp(lp) * (lp - lq); // NaN stays NaN
        }
        out[r][0] = (float)kl;
        out[r][1] = a.top_at == b.top_at;
        out[r][2] = out[r][3] = 0;
    }
}
