// See tiny_forward.h. Plain loops; nothing is shared with the code under test but the Hadamard transform, which has its
// own tests against its definition.
#include "tests/quantizer/transform/tiny_forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double noise(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    return (double)(*s >> 8) / (1 << 24) - 0.5;
}

static double *filled(uint64_t n, double middle, double spread, uint32_t *seed)
{
    double *x = malloc(n * sizeof *x);
    for (uint64_t i = 0; i < n; i++) x[i] = middle + spread * noise(seed);
    return x;
}

static uint64_t site_size(const struct gyre_hparams *hp, int site)
{
    uint64_t out, in;
    gyre_role_shape((gyre_role)site, hp, &out, &in);
    return out * in;
}

void tiny_make(struct tiny *t, uint32_t width, uint32_t heads, uint32_t kv_heads, uint32_t head_dim, uint32_t ffn,
               bool tied)
{
    uint32_t seed = 5;
    *t = (struct tiny){.hp = {.n_layers = 2,
                              .width = width,
                              .heads = heads,
                              .kv_heads = kv_heads,
                              .head_dim = head_dim,
                              .ffn = ffn,
                              .vocab = 37,
                              .norm_eps = 1e-5f,
                              .rope_base = 10000,
                              .tied = tied}};
    for (int l = 0; l < 2; l++) {
        for (int s = 0; s < GYRE_LINEARS; s++) t->linear[l][s] = filled(site_size(&t->hp, s), 0, 0.7, &seed);
        t->attn_norm[l] = filled(width, 1, 0.9, &seed);
        t->ffn_norm[l] = filled(width, 1, 0.9, &seed);
    }
    t->embedding = filled(37 * width, 0.1, 1, &seed);
    t->head = tied ? NULL : filled(37 * width, 0, 1, &seed);
    t->final_norm = filled(width, 1, 0.9, &seed);
}

static double *copied(const double *x, uint64_t n)
{
    double *y = x ? malloc(n * sizeof *y) : NULL;
    if (y) memcpy(y, x, n * sizeof *y);
    return y;
}

void tiny_copy(struct tiny *to, const struct tiny *from)
{
    const uint64_t d = from->hp.width;
    *to = *from;
    for (int l = 0; l < 2; l++) {
        for (int s = 0; s < GYRE_LINEARS; s++) to->linear[l][s] = copied(from->linear[l][s], site_size(&from->hp, s));
        to->attn_norm[l] = copied(from->attn_norm[l], d);
        to->ffn_norm[l] = copied(from->ffn_norm[l], d);
    }
    to->embedding = copied(from->embedding, 37 * d);
    to->head = copied(from->head, 37 * d);
    to->final_norm = copied(from->final_norm, d);
}

void tiny_free(struct tiny *t)
{
    for (int l = 0; l < 2; l++) {
        for (int s = 0; s < GYRE_LINEARS; s++) free(t->linear[l][s]);
        free(t->attn_norm[l]);
        free(t->ffn_norm[l]);
    }
    free(t->embedding);
    free(t->head);
    free(t->final_norm);
}

static void product(const double *x, const double *w, uint64_t rows, uint64_t out, uint64_t in, double *y)
{
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t o = 0; o < out; o++) {
            double sum = 0;
            for (uint64_t i = 0; i < in; i++) sum += x[r * in + i] * w[o * in + i];
            y[r * out + o] = sum;
        }
}

static void normalise(const double *x, const double *gain, double eps, uint32_t rows, uint32_t d, double *y)
{
    for (uint32_t r = 0; r < rows; r++) {
        double square = 0;
        for (uint32_t i = 0; i < d; i++) square += x[r * d + i] * x[r * d + i];
        for (uint32_t i = 0; i < d; i++) y[r * d + i] = x[r * d + i] / sqrt(square / d + eps) * gain[i];
    }
}

static void transform_heads(double *x, uint32_t rows, uint32_t hd)
{
    struct gyre_hadamard h;
    if (gyre_hadamard_create(hd, &h, NULL) != GYRE_OK ||
        gyre_hadamard_apply(&h, x, hd, 1, rows, hd, NULL, false, NULL) != GYRE_OK)
        abort();
    gyre_hadamard_release(&h);
}

static void rope(double *x, uint32_t rows, uint32_t heads, uint32_t hd, double base)
{
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t h = 0; h < heads; h++)
            for (uint32_t i = 0; i < hd / 2; i++) {
                double *a = x + (r * heads + h) * hd + 2 * i;
                const double angle = r * pow(base, -2.0 * i / hd), u = a[0], v = a[1];
                a[0] = u * cos(angle) - v * sin(angle);
                a[1] = u * sin(angle) + v * cos(angle);
            }
}

static void attention(const struct tiny *t, const double *q, const double *k, const double *v, uint32_t n, double *o)
{
    const uint32_t H = t->hp.heads, G = t->hp.kv_heads, hd = t->hp.head_dim;
    double *p = malloc(n * sizeof *p);
    for (uint32_t h = 0; h < H; h++)
        for (uint32_t r = 0; r < n; r++) {
            const uint32_t g = h / (H / G);
            double sum = 0;
            for (uint32_t c = 0; c <= r; c++) {
                double score = 0;
                for (uint32_t i = 0; i < hd; i++) score += q[(r * H + h) * hd + i] * k[(c * G + g) * hd + i];
                sum += p[c] = exp(score / sqrt(hd));
            }
            for (uint32_t i = 0; i < hd; i++) {
                double value = 0;
                for (uint32_t c = 0; c <= r; c++) value += p[c] * v[(c * G + g) * hd + i];
                o[(r * H + h) * hd + i] = value / sum;
            }
        }
    free(p);
}

static void layer(const struct tiny *t, int l, uint32_t n, double *x)
{
    const struct gyre_hparams *hp = &t->hp;
    const uint32_t D = hp->width, F = hp->ffn, Q = hp->heads * hp->head_dim, K = hp->kv_heads * hp->head_dim;
    double *const *w = t->linear[l];
    double *h = malloc(n * (D + 2 * Q + 2 * K + 2 * F + D) * sizeof *h), *q = h + n * D, *k = q + n * Q, *v = k + n * K,
           *o = v + n * K, *gate = o + n * Q, *up = gate + n * F, *y = up + n * F;
    normalise(x, t->attn_norm[l], hp->norm_eps, n, D, h);
    product(h, w[GYRE_ROLE_q], n, Q, D, q);
    product(h, w[GYRE_ROLE_k], n, K, D, k);
    product(h, w[GYRE_ROLE_v], n, K, D, v);
    if (t->r3_before_rope) {
        transform_heads(q, n * hp->heads, hp->head_dim);
        transform_heads(k, n * hp->kv_heads, hp->head_dim);
    }
    rope(q, n, hp->heads, hp->head_dim, hp->rope_base);
    rope(k, n, hp->kv_heads, hp->head_dim, hp->rope_base);
    if (t->r3) {
        transform_heads(q, n * hp->heads, hp->head_dim);
        transform_heads(k, n * hp->kv_heads, hp->head_dim);
    }
    attention(t, q, k, v, n, o);
    product(o, w[GYRE_ROLE_o], n, D, Q, y);
    for (uint32_t i = 0; i < n * D; i++) x[i] += y[i];
    normalise(x, t->ffn_norm[l], hp->norm_eps, n, D, h);
    product(h, w[GYRE_ROLE_gate], n, F, D, gate);
    product(h, w[GYRE_ROLE_up], n, F, D, up);
    for (uint32_t i = 0; i < n * F; i++) gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
    if (t->r4 && gyre_hadamard_apply(&t->rotator->r4, gate, F, 1, n, F, NULL, false, NULL) != GYRE_OK) abort();
    product(gate, w[GYRE_ROLE_down], n, D, F, y);
    for (uint32_t i = 0; i < n * D; i++) x[i] += y[i];
    free(h);
}

void tiny_forward(const struct tiny *t, const uint32_t *tokens, uint32_t n, double *logits)
{
    const uint32_t D = t->hp.width;
    double *x = malloc(2 * n * D * sizeof *x), *z = x + n * D, *ones = malloc(D * sizeof *ones);
    for (uint32_t r = 0; r < n; r++) memcpy(x + r * D, t->embedding + tokens[r] * D, D * sizeof *x);
    for (int l = 0; l < 2; l++) layer(t, l, n, x);
    for (uint32_t i = 0; i < D; i++) ones[i] = 1;
    normalise(x, t->head_rotation ? ones : t->final_norm, t->hp.norm_eps, n, D, z);
    if (t->head_rotation) { // z := had(gain * had_t(z)): hparams.h
        const struct gyre_hadamard *h = &t->rotator->r1;
        if (gyre_hadamard_apply(h, z, D, 1, n, D, NULL, true, NULL) != GYRE_OK) abort();
        for (uint32_t i = 0; i < n * D; i++) z[i] *= t->final_norm[i % D];
        if (gyre_hadamard_apply(h, z, D, 1, n, D, NULL, false, NULL) != GYRE_OK) abort();
    }
    product(z, t->head ? t->head : t->embedding, n, t->hp.vocab, D, logits);
    free(x);
    free(ones);
}

double tiny_distance(const double *a, const double *b, uint64_t n)
{
    double worst = 0, size = 0;
    for (uint64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs(a[i] - b[i]));
        size = fmax(size, fabs(a[i]));
    }
    return worst / size;
}
