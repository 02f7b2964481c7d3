// References of the ops that take gradients through the cache: its write, and attention. Keys and values are what the
// cache holds.
#include "backends/cpu/ref.h"
#include "backends/cpu/ref_parts.h"
#include "runtime/util/half.h"
#include "shaders/params.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

enum { MOST = 256 }; // of a head

// One vector, x less `centre` (NULL: nothing), as it was cached: g passes to dx; returns the gradient of the logarithm
// of the clip.
static float vector_back(const float *x, const float *centre, int hd, int bits, float clip, const uint32_t *words,
                         uint32_t meta, const float *g, float *dx)
{
    const float scale = bits < 16 ? gyre_f32_from_f16((uint16_t)meta) : 0,
                zero = bits < 16 ? gyre_f32_from_f16((uint16_t)(meta >> 16)) : 0, most = bits == 8 ? 255 : 15;
    double ds = 0, lo = 0, hi = 0;
    int low = 0, high = 0;
    for (int i = 0; i < hd; i++) dx[i] = bits < 16 ? 0 : g[i];
    if (!(scale > 0)) return 0;
    for (int i = 0; i < hd; i++) {
        const float at = centre ? x[i] - centre[i] : x[i], nearest = rintf(at / scale) + zero;
        const bool inside = nearest >= 0 && nearest <= most;
        const double code = (double)(words[i * bits / 32] >> i * bits % 32 & ((1u << bits) - 1));
        if ((double)at < lo) lo = (double)at, low = i;
        if ((double)at > hi) hi = (double)at, high = i;
        ds += (double)g[i] * (code - (double)zero - (inside ? (double)at / (double)scale : 0));
        dx[i] = inside ? g[i] : 0;
    }
    const double each = ds * (double)clip / (double)most;
    if (lo < 0) dx[low] -= (float)each;
    if (hi > 0) dx[high] += (float)each;
    return (float)(ds * (double)scale);
}

void gyre_ref_op_kv_write_back(const struct gyre_ref_args *args)
{
    const struct gyre_kv_back_params *p = args->params;
    const int32_t(*rows)[4] = args->bind[8], *pages = args->bind[9];
    const int hd = p->hd, G = p->kv_heads, width = (p->heads + 2 * G) * hd;
    for (int r = 0; r < p->rows; r++) {
        float *dx = (float *)args->bind[0] + r * width, *dclip = (float *)args->bind[1] + r * 2 * G;
        const float *x = (const float *)args->bind[3] + r * width, *g = (const float *)args->bind[2] + r * 2 * G * hd;
        for (int i = 0; i < width; i++) dx[i] = 0;
        for (int h = 0; h < 2 * G; h++) dclip[h] = 0;
        if (!(rows[r][3] & 1)) continue;
        const int page = pages[rows[r][1] * p->page_stride + rows[r][2] / 32];
        for (int h = 0; h < 2 * G; h++) {
            const int bits = (int)args->spec[h < G ? 3 : 4], at = (p->heads + h) * hd;
            const size_t slot = (size_t)((page * G + h % G) * 32 + rows[r][2] % 32);
            const uint32_t *words = (const uint32_t *)args->bind[h < G ? 4 : 6] + slot * (size_t)(hd * bits / 32),
                           *meta = (const uint32_t *)args->bind[h < G ? 5 : 7];
            dclip[h] = vector_back(x + at, p->centred ? (const float *)args->bind[10] + h * hd : NULL, hd, bits,
                                   h < G ? p->clip : p->clip_v, words, bits < 16 ? meta[slot] : 0, g + h * hd, dx + at);
        }
    }
}

// ---- attention ----------------------------------------------------------------------------------------------

// Where attention's operands are bound, from the first pool on: k, k_meta, v, v_meta, rows, pages.
struct cache {
    const struct gyre_ref_args *args;
    const struct gyre_attn_back_params *p;
    uint32_t first;
};

static const int32_t *row_of(const struct cache *c, int r)
{
    return (const int32_t *)c->args->bind[c->first + 4] + 4 * r;
}

// Key (0) or value (1) of a position of a sequence.
static void read_cache(const struct cache *c, int which, int sequence, int position, int kv_head, double *to)
{
    const int32_t *pages = c->args->bind[c->first + 5];
    const int bits = (int)c->args->spec[3 + which], page = pages[sequence * c->p->page_stride + position / 32];
    const size_t slot = (size_t)((page * c->p->kv_heads + kv_head) * 32 + position % 32);
    const uint32_t *words = c->args->bind[c->first + 2 * (uint32_t)which],
                   *meta = c->args->bind[c->first + 2 * (uint32_t)which + 1];
    for (int i = 0; i < c->p->hd; i++)
        to[i] = gyre_ref_cached(words + slot * (size_t)(c->p->hd * bits / 32), bits < 16 ? meta[slot] : 0, i, bits);
}

static double dot(const float *a, const double *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)a[i] * b[i];
    return sum;
}

void gyre_ref_op_attn_back_q(const struct gyre_ref_args *args)
{
    const struct gyre_attn_back_params *p = args->params;
    const struct cache c = {args, p, 4};
    const int hd = p->hd, per = p->heads / p->kv_heads;
    for (int r = 0; r < p->rows; r++)
        for (int i = p->heads * hd; i < p->ldq; i++) ((float *)args->bind[0])[r * p->ldq + i] = 0;
#pragma omp parallel for
    for (int at = 0; at < p->rows * p->heads; at++) {
        const int r = at / p->heads, h = at % p->heads, last = row_of(&c, r)[3] & 1 ? row_of(&c, r)[2] : -1,
                  first = last >= p->window ? last - p->window + 1 : 0;
        const float *q = (const float *)args->bind[3] + r * p->ldq + h * hd,
                    *g = (const float *)args->bind[2] + (r * p->heads + h) * hd;
        double k[MOST], v[MOST], dq[MOST] = {0}, top = -INFINITY, total = 0, along = 0;
        for (int t = first; t <= last; t++) {
            read_cache(&c, 0, row_of(&c, r)[1], t, h / per, k);
            top = fmax(top, (double)p->scale * dot(q, k, hd));
        }
        for (int t = first; t <= last; t++) {
            read_cache(&c, 0, row_of(&c, r)[1], t, h / per, k);
            read_cache(&c, 1, row_of(&c, r)[1], t, h / per, v);
            const double e = exp((double)p->scale * dot(q, k, hd) - top);
            total += e;
            along += e * dot(g, v, hd);
        }
        for (int t = first; t <= last; t++) {
            read_cache(&c, 0, row_of(&c, r)[1], t, h / per, k);
            read_cache(&c, 1, row_of(&c, r)[1], t, h / per, v);
            const double share = exp((double)p->scale * dot(q, k, hd) - top) / total,
                         ds = share * (dot(g, v, hd) - along / total) * (double)p->scale;
            for (int i = 0; i < hd; i++) dq[i] += ds * k[i];
        }
        for (int i = 0; i < hd; i++) ((float *)args->bind[0])[r * p->ldq + h * hd + i] = (float)dq[i];
        ((float *)args->bind[1])[2 * at] = last < 0 ? 0 : (float)(top + log(total));
        ((float *)args->bind[1])[2 * at + 1] = last < 0 ? 0 : (float)(along / total);
    }
}

void gyre_ref_op_attn_back_kv(const struct gyre_ref_args *args)
{
    const struct gyre_attn_back_params *p = args->params;
    const struct cache c = {args, p, 4};
    const int hd = p->hd, per = p->heads / p->kv_heads, G = p->kv_heads;
#pragma omp parallel for
    for (int at = 0; at < p->rows * G; at++) {
        const int r = at / G, kv_head = at % G;
        const int32_t *mine = row_of(&c, r);
        double k[MOST], v[MOST], dk[MOST] = {0}, dv[MOST] = {0};
        if (mine[3] & 1) {
            read_cache(&c, 0, mine[1], mine[2], kv_head, k);
            read_cache(&c, 1, mine[1], mine[2], kv_head, v);
        }
        for (int i = 0; mine[3] & 1 && i < p->rows * per; i++) {
            const int row = i / per, h = kv_head * per + i % per;
            const int32_t *its = row_of(&c, row);
            if (!(its[3] & 1) || its[1] != mine[1] || its[2] < mine[2] || its[2] - mine[2] >= p->window) continue;
            const float *q = (const float *)args->bind[2] + row * p->ldq + h * hd,
                        *g = (const float *)args->bind[1] + (row * p->heads + h) * hd,
                        *stats = (const float *)args->bind[3] + 2 * (row * p->heads + h);
            const double share = exp((double)p->scale * dot(q, k, hd) - (double)stats[0]),
                         ds = share * (dot(g, v, hd) - (double)stats[1]) * (double)p->scale;
            for (int d = 0; d < hd; d++) {
                dk[d] += ds * (double)q[d];
                dv[d] += share * (double)g[d];
            }
        }
        float *to = (float *)args->bind[0] + (r * 2 * G + kv_head) * hd;
        for (int d = 0; d < hd; d++) to[d] = (float)dk[d], to[G * hd + d] = (float)dv[d];
    }
}
