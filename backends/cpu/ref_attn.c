// Reference of attn: for every sequence in the batch and every kv head the cache is expanded once, in double, then each
// row of that sequence takes its softmax over its own prefix, or the last `window` positions of it.
#include "backends/cpu/ref.h"
#include "backends/cpu/ref_parts.h"
#include "shaders/params.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct cache {     // one kv head of one sequence: positions 0..length-1
    double *k, *v; // k [hd][length], so that the loop over positions is the inner one; v [length][hd]
    int length, hd;
};

static void expand(struct cache *c, const struct gyre_ref_args *args, int sequence, int kv_head)
{
    const struct gyre_attn_params *p = args->params;
    const int k_bits = (int)gyre_ref_constant(args, "KBITS"), v_bits = (int)gyre_ref_constant(args, "VBITS");
    const int32_t *pages = (const int32_t *)args->bind[7] + sequence * p->page_stride;
    const uint32_t *k = args->bind[2], *k_meta = args->bind[3], *v = args->bind[4], *v_meta = args->bind[5];
    for (int t = 0; t < c->length; t++) {
        const size_t slot = (size_t)((pages[t / 32] * p->kv_heads + kv_head) * 32 + t % 32);
        const uint32_t *kw = k + slot * (size_t)(p->hd * k_bits / 32);
        const uint32_t *vw = v + slot * (size_t)(p->hd * v_bits / 32);
        const uint32_t km = k_bits < 16 ? k_meta[slot] : 0, vm = v_bits < 16 ? v_meta[slot] : 0;
        for (int i = 0; i < c->hd; i++) {
            c->k[i * c->length + t] = gyre_ref_cached(kw, km, i, k_bits);
            c->v[t * c->hd + i] = gyre_ref_cached(vw, vm, i, v_bits);
        }
    }
}

// What a part of attention says of its positions: sum of p v, sum of p, the maximum that p refers to.
struct part {
    double *sum, total, top;
};

// Of the positions first..first+count-1, first+step.. and so on, of those from `least` on below n; s[n] is scratch.
// False: there are none.
static bool attend_part(const struct cache *c, const float *q, double scale, int least, int n, int first, int count,
                        int step, double *s, struct part *out)
{
    out->top = -INFINITY, out->total = 0;
    for (int i = 0; i < c->hd; i++) out->sum[i] = 0;
    for (int from = first; from < n; from += step)
        for (int t = from > least ? from : least; t < from + count && t < n; t++) {
            s[t] = 0;
            for (int i = 0; i < c->hd; i++) s[t] += scale * (double)q[i] * c->k[i * c->length + t];
            out->top = fmax(out->top, s[t]);
        }
    for (int from = first; from < n; from += step)
        for (int t = from > least ? from : least; t < from + count && t < n; t++) {
            const double e = exp(s[t] - out->top), *v = c->v + t * c->hd;
            out->total += e;
            for (int i = 0; i < c->hd; i++) out->sum[i] += e * v[i];
        }
    return first < n;
}

// o[hd] = softmax(scale q k) v + centre over positions from..n-1; centre [hd] or NULL; s[n] and sum[hd] are scratch.
static void attend(const struct cache *c, const float *q, const float *centre, double scale, int from, int n, double *s,
                   double *sum, float *o)
{
    for (int t = from; t < n; t++) s[t] = 0;
    for (int i = 0; i < c->hd; i++) {
        const double qi = scale * (double)q[i], *k = c->k + i * c->length;
        for (int t = from; t < n; t++) s[t] += qi * k[t];
    }
    double top = s[from], total = 0;
    for (int t = from + 1; t < n; t++) top = fmax(top, s[t]);
    for (int i = 0; i < c->hd; i++) sum[i] = 0;
    for (int t = from; t < n; t++) {
        const double e = exp(s[t] - top), *v = c->v + t * c->hd;
        total += e;
        for (int i = 0; i < c->hd; i++) sum[i] += e * v[i];
    }
    for (int i = 0; i < c->hd; i++) o[i] = (float)(sum[i] / total + (centre ? (double)centre[i] : 0));
}

// All live rows of `sequence`. Without memory the output keeps the NaN that the caller wrote.
static void attend_sequence(const struct gyre_ref_args *args, int sequence, int length)
{
    const struct gyre_attn_params *p = args->params;
    const int32_t(*rows)[4] = args->bind[6];
    const int per_kv = p->heads / p->kv_heads, hd = p->hd;
    const size_t n = (size_t)length * (size_t)hd;
    double *memory = malloc(2 * n * sizeof *memory);
    if (!memory) return;
    struct cache c = {memory, memory + n, length, hd};
    for (int kv_head = 0; kv_head < p->kv_heads; kv_head++) {
        const float *centre = p->centred ? (const float *)args->bind[8] + (p->kv_heads + kv_head) * hd : NULL;
        expand(&c, args, sequence, kv_head);
#pragma omp parallel for schedule(dynamic)
        for (int r = 0; r < p->rows; r++) {
            if (!(rows[r][3] & 1) || rows[r][1] != sequence) continue;
            double *s = malloc((size_t)(length + hd) * sizeof *s);
            for (int h = kv_head * per_kv; s && h < (kv_head + 1) * per_kv; h++)
                attend(&c, (const float *)args->bind[1] + (size_t)r * (size_t)p->ldq + h * hd, centre, (double)p->scale,
                       rows[r][2] >= p->window ? rows[r][2] - p->window + 1 : 0, rows[r][2] + 1, s, s + length,
                       (float *)args->bind[0] + ((size_t)r * (size_t)p->heads + (size_t)h) * (size_t)hd);
            free(s);
        }
    }
    free(memory);
}

void gyre_ref_op_attn(const struct gyre_ref_args *args)
{
    const struct gyre_attn_params *p = args->params;
    const int32_t(*rows)[4] = args->bind[6];
    const size_t row_bytes = (size_t)(p->heads * p->hd) * sizeof(float);
    for (int r = 0; r < p->rows; r++) { // dead rows are zero
        memset((char *)args->bind[0] + (size_t)r * row_bytes, rows[r][3] & 1 ? 0xFF : 0, row_bytes);
    }
    for (int r = 0; r < p->rows; r++) { // the first live row of each sequence stands for it
        int length = 0;
        bool first = rows[r][3] & 1;
        for (int i = 0; i < p->rows; i++) {
            if (!(rows[i][3] & 1) || rows[i][1] != rows[r][1]) continue;
            if (i < r) first = false;
            if (rows[i][2] >= length) length = rows[i][2] + 1;
        }
        if (first) attend_sequence(args, rows[r][1], length);
    }
}

// ---- in parts -------------------------------------------------------------------------------------------

enum { BLOCK = 64 }; // positions that a part takes at a time

void gyre_ref_op_attn_split(const struct gyre_ref_args *args)
{
    const struct gyre_attn_split_params *p = args->params;
    const int32_t(*rows)[4] = args->bind[6];
    const int per_kv = p->heads / p->kv_heads, hd = p->hd;
    for (int r = 0; r < p->rows; r++)
        for (int h = 0; h < p->heads; h++) {
            const int length = rows[r][3] & 1 ? rows[r][2] + 1 : 0, least = length > p->window ? length - p->window : 0;
            float *to =
                (float *)args->bind[0] + ((size_t)r * (size_t)p->heads + (size_t)h) * (size_t)(p->splits * (hd + 2));
            double *memory = malloc((size_t)(2 * length * hd + length + hd) * sizeof *memory);
            for (int s = 0; !memory && s < p->splits; s++) to[s * (hd + 2) + hd] = NAN, to[s * (hd + 2) + hd + 1] = 0;
            if (!memory) continue;
            struct cache c = {memory, memory + length * hd, length, hd};
            if (length) expand(&c, args, rows[r][1], h / per_kv);
            for (int s = 0; s < p->splits; s++, to += hd + 2) {
                struct part part = {.sum = memory + 2 * length * hd + length};
                const bool any = attend_part(&c, (const float *)args->bind[1] + (size_t)r * (size_t)p->ldq + h * hd,
                                             (double)p->scale, least, length, (least / BLOCK + s) * BLOCK, BLOCK,
                                             p->splits * BLOCK, memory + 2 * length * hd, &part);
                for (int i = 0; any && i < hd; i++) to[i] = (float)part.sum[i];
                to[hd] = any ? (float)part.total : 0;
                to[hd + 1] = any ? (float)part.top : 0;
            }
            free(memory);
        }
}

void gyre_ref_op_attn_merge(const struct gyre_ref_args *args)
{
    const struct gyre_attn_merge_params *p = args->params;
    const int per_kv = p->heads / p->kv_heads, hd = p->hd, n = hd + 2;
    for (int at = 0; at < p->rows * p->heads; at++) {
        const float *part = (const float *)args->bind[1] + (size_t)at * (size_t)(p->splits * n),
                    *centre = (const float *)args->bind[2] + (p->kv_heads + at % p->heads / per_kv) * hd;
        float *o = (float *)args->bind[0] + (size_t)at * (size_t)hd;
        double top = -INFINITY, total = 0;
        for (int s = 0; s < p->splits; s++)
            if (part[s * n + hd] != 0) top = fmax(top, (double)part[s * n + hd + 1]);
        for (int s = 0; s < p->splits; s++)
            if (part[s * n + hd] != 0) total += exp((double)part[s * n + hd + 1] - top) * (double)part[s * n + hd];
        for (int i = 0; i < hd; i++) {
            double sum = 0;
            for (int s = 0; s < p->splits; s++)
                if (part[s * n + hd] != 0) sum += exp((double)part[s * n + hd + 1] - top) * (double)part[s * n + i];
            o[i] = total != 0 ? (float)(sum / total + (p->centred ? (double)centre[i] : 0)) : 0;
        }
    }
}
