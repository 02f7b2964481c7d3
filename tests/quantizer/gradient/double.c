// See double.h. Short and slow.
#include "tests/quantizer/gradient/double.h"
#include "backends/host.h"
#include "runtime/core/hadamard.h"
#include "runtime/core/quantize.h"
#include "runtime/util/half.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct twin {
    const gyre_graph *g;
    double **value;    // [n_values]: floats, what codes mean; a pool: [rows][2 G hd] as cached, less the centre
    double **weight;   // [n_values]: as they are at the frozen point [n][k]
    double **move;     // [n_values]: of weights
    double (*clip)[2]; // [n_nodes]
};

static const void *memory(struct gyre_binding at)
{
    return ((const struct host_buffer *)(const void *)at.buffer)->data + at.offset;
}
static const void *plane(const struct twin *t, gyre_value v, uint32_t p) { return memory(gyre_graph_at(t->g, v, p)); }

static uint64_t size_of(const struct twin *t, gyre_value v)
{
    const struct gyre_value_info *info = &t->g->values[v];
    if (info->kind == GYRE_VALUE_DATA) return info->plane[0].bytes / 4;
    return (uint64_t)info->rows * info->width;
}

static uint32_t group_of(const struct gyre_weight *w) { return gyre_weight_is_coded(w->kind) ? w->group : 1; }

// Element (n, k) of a device weight, by shaders/params.h.
static double element(const struct gyre_weight *w, uint32_t n, uint32_t k)
{
    uint32_t i = 0;
    while (n >= w->range[i].n0 + w->range[i].n) i++;
    const uint32_t c = n - w->range[i].n0, pad = w->range[i].n_pad;
    const uint32_t *words = memory(w->range[i].weight), *scale = memory(w->range[i].scale);
    if (w->kind == GYRE_WEIGHT_F32) return (double)((const float *)(const void *)words)[k * pad + c];
    if (w->kind == GYRE_WEIGHT_F16)
        return (double)gyre_f32_from_f16(((const uint16_t *)(const void *)words)[k * pad + c]);
    const double s = (double)gyre_f32_from_f16(((const uint16_t *)(const void *)scale)[k / w->group * pad + c]);
    if (w->kind == GYRE_WEIGHT_W8)
        return s * (int8_t)(words[GYRE_BLOCK(w->k / 4, k / 4, c / 8) * 8 + c % 8] >> 8 * (k % 4));
    const uint32_t word = words[GYRE_BLOCK(w->k / 4, k / 4, c / 8) * 4 + c % 8 / 2];
    const uint32_t *zeros = scale + w->k / w->group * (pad / 2) + k / w->group * (pad / 8);
    const uint32_t zero = w->kind == GYRE_WEIGHT_W4Z ? zeros[c / 8] >> 4 * (c % 8) & 15 : 8;
    return s * ((double)(word >> (8 * (k % 4) + 4 * (c % 2)) & 15) - (double)zero);
}

struct twin *twin_open(const gyre_graph *graph)
{
    struct twin *t = calloc(1, sizeof *t);
    assert(t);
    t->g = graph;
    t->value = calloc(graph->n_values, sizeof *t->value);
    t->weight = calloc(graph->n_values, sizeof *t->weight);
    t->move = calloc(graph->n_values, sizeof *t->move);
    t->clip = calloc(graph->n_nodes, sizeof *t->clip);
    assert(t->value && t->weight && t->move && t->clip);
    for (gyre_value v = 1; v < graph->n_values; v++) {
        const struct gyre_value_info *info = &graph->values[v];
        if (info->kind == GYRE_VALUE_WEIGHT) {
            const struct gyre_weight *w = info->weight;
            t->weight[v] = malloc((uint64_t)w->n * w->k * sizeof(double));
            t->move[v] = calloc((uint64_t)w->n * w->k, sizeof(double));
            for (uint32_t n = 0; n < w->n; n++)
                for (uint32_t k = 0; k < w->k; k++) t->weight[v][n * w->k + k] = element(w, n, k);
        } else if (info->kind == GYRE_VALUE_POOL) {
            t->value[v] = calloc((uint64_t)graph->rows * 4096, sizeof(double));
        } else {
            const uint64_t n = size_of(t, v);
            t->value[v] = malloc((n + 1) * sizeof(double));
            const float *x = info->external && !info->landed ? plane(t, v, 0) : NULL;
            for (uint64_t i = 0; i < n; i++) t->value[v][i] = x ? (double)x[i] : 0;
        }
    }
    return t;
}

void twin_close(struct twin *t)
{
    for (gyre_value v = 0; v < t->g->n_values; v++) {
        free(t->value[v]);
        free(t->weight[v]);
        free(t->move[v]);
    }
    free(t->value);
    free(t->weight);
    free(t->move);
    free(t->clip);
    free(t);
}

double *twin_value(struct twin *t, gyre_value v, uint64_t *n)
{
    *n = size_of(t, v);
    return t->value[v];
}

double *twin_weight(struct twin *t, const struct gyre_weight *w, uint64_t *n)
{
    for (gyre_value v = 1; v < t->g->n_values; v++)
        if (t->g->values[v].weight == w) {
            *n = (uint64_t)w->n * w->k / group_of(w);
            return t->move[v];
        }
    return NULL;
}

double *twin_clip(struct twin *t, uint32_t node) { return t->clip[node]; }

// ---- quantizers -------------------------------------------------------------------------------------------------

// n numbers at x (now) and x0 (frozen) with codes and zero.
struct frozen {
    double s0, zero, least, most, rate, clip; // rate: of the scale by the range
    bool symmetric;
};

static void quantize(const double *x, const float *x0, const double *code, uint64_t n, const struct frozen *f,
                     double *y)
{
    uint64_t low = 0, high = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (x0[i] < x0[low]) low = i;
        if (x0[i] > x0[high]) high = i;
    }
    const double lo = x0[low] < 0 ? x[low] : 0, hi = x0[high] > 0 ? x[high] : 0;
    const double lo0 = x0[low] < 0 ? (double)x0[low] : 0, hi0 = x0[high] > 0 ? (double)x0[high] : 0;
    const double range = f->symmetric ? (-lo0 > hi0 ? -lo : hi) : hi - lo,
                 range0 = f->symmetric ? (-lo0 > hi0 ? -lo0 : hi0) : hi0 - lo0;
    const double s = range0 > 0 ? f->s0 * exp(f->clip) + (range - range0) * f->rate : 0;
    for (uint64_t i = 0; i < n; i++) {
        const double nearest = f->s0 > 0 ? rint((double)(x0[i] * (1 / (float)f->s0))) + f->zero : 0;
        const double q = code[i] - f->zero;
        y[i] =
            nearest < f->least || nearest > f->most ? s * q : x[i] + s * (q - (f->s0 > 0 ? (double)x0[i] / f->s0 : 0));
    }
}

// A row in groups: their multiples of its scale and their zero points stay as they are, and its scale follows the range
// of the group that has the greatest.
static void quantize_groups(const double *x, const float *x0, const int8_t *codes, float s0,
                            const struct gyre_quantize_params *p, double clip, double *y)
{
    double most = 0, change = 0;
    for (int32_t g = 0; g < p->width; g += p->span) {
        double lo = 0, hi = 0, lo0 = 0, hi0 = 0;
        for (int32_t i = g; i < g + p->span; i++) {
            if ((double)x0[i] < lo0) lo0 = (double)x0[i], lo = x[i];
            if ((double)x0[i] > hi0) hi0 = (double)x0[i], hi = x[i];
        }
        if (hi0 - lo0 > most) most = hi0 - lo0, change = hi - lo - most;
    }
    const double s = (double)s0 * exp(clip) + change * (double)p->clip / 120;
    for (int32_t g = 0; g < p->width; g += p->span) {
        const struct gyre_row_quantizer q = gyre_group_quantizer(x0 + g, (uint64_t)p->span, p->clip, s0);
        for (int32_t i = g; i < g + p->span; i++) {
            const double nearest = rint((double)(x0[i] * q.inverse)) + (double)q.zero;
            y[i] = s * codes[i];
            if (nearest >= 0 && nearest <= 15 && s0 > 0) y[i] += x[i] - s * (double)x0[i] / (double)s0;
        }
    }
}

static void run_quantize(struct twin *t, uint32_t node)
{
    const struct gyre_node *n = &t->g->nodes[node];
    const struct gyre_quantize_params *p = &n->params.quantize;
    const int8_t *codes = plane(t, n->out[0], 0);
    const uint32_t *meta = plane(t, n->out[0], 1);
    const float *x0 = plane(t, n->in[0], 0);
    double *code = malloc((size_t)p->width * sizeof *code);
    for (int32_t r = 0; r < p->rows; r++) {
        const size_t at = (size_t)r * (size_t)p->width;
        if (p->span) {
            quantize_groups(t->value[n->in[0]] + at, x0 + at, codes + at, gyre_f32_from_bits(meta[2 * r]), p,
                            t->clip[node][0], t->value[n->out[0]] + at);
            continue;
        }
        for (int32_t i = 0; i < p->width; i++) code[i] = codes[at + (size_t)i];
        const struct frozen f = {.s0 = (double)gyre_f32_from_bits(meta[2 * r]),
                                 .zero = (int32_t)meta[2 * r + 1],
                                 .least = p->bits == 8 ? -128 : 0,
                                 .most = p->bits == 8 ? 127 : 15,
                                 .rate = (double)p->clip / (p->bits == 8 ? 127 : 15),
                                 .clip = t->clip[node][0],
                                 .symmetric = p->bits == 8};
        quantize(t->value[n->in[0]] + at, x0 + at, code, (uint64_t)p->width, &f, t->value[n->out[0]] + at);
    }
    free(code);
}

static void run_kv_write(struct twin *t, uint32_t node)
{
    const struct gyre_node *n = &t->g->nodes[node];
    const struct gyre_kv_write_params *p = &n->params.kv_write;
    const int hd = p->hd, G = p->kv_heads, width = (p->heads + 2 * G) * hd;
    const struct gyre_value_info *pool = &t->g->values[n->out[0]];
    const int32_t(*rows)[4] = (void *)(uintptr_t)plane(t, n->in[1], 0);
    const int32_t *pages = plane(t, n->in[2], 0);
    const double *centre = p->centred ? t->value[n->in[3]] : NULL;
    const float *x0 = plane(t, n->in[0], 0), *centre0 = p->centred ? plane(t, n->in[3], 0) : NULL;
    double *code = malloc((size_t)hd * sizeof *code), *now = malloc((size_t)hd * sizeof *now);
    float *then = malloc((size_t)hd * sizeof *then);
    for (int r = 0; r < p->rows; r++)
        for (int head = 0; head < 2 * G; head++) {
            const int slot =
                (pages[rows[r][1] * p->page_stride + rows[r][2] / 32] * G + head % G) * 32 + rows[r][2] % 32;
            const int bits = (int)(head < G ? pool->bits : pool->bits_v);
            const uint32_t *words = (const uint32_t *)plane(t, n->out[0], head < G ? 0 : 2) + slot * hd * bits / 32;
            const uint32_t meta = bits < 16 ? ((const uint32_t *)plane(t, n->out[0], head < G ? 1 : 3))[slot] : 0;
            double *y = t->value[n->out[0]] + (r * 2 * G + head) * hd;
            for (int i = 0; i < hd; i++) {
                const int at = r * width + (p->heads + head) * hd + i;
                const float c0 = centre0 ? centre0[head * hd + i] : 0;
                now[i] = t->value[n->in[0]][at] - (centre ? centre[head * hd + i] : 0);
                then[i] = centre0 ? x0[at] - c0 : x0[at];
                if (bits == 16)
                    y[i] = now[i] +
                           ((double)gyre_f32_from_f16((uint16_t)(words[i / 2] >> 16 * (i % 2))) - (double)then[i]);
                else code[i] = words[i * bits / 32] >> i * bits % 32 & ((1u << bits) - 1);
            }
            const struct frozen f = {.s0 = (double)gyre_f32_from_f16((uint16_t)meta),
                                     .zero = (double)gyre_f32_from_f16((uint16_t)(meta >> 16)),
                                     .least = 0,
                                     .most = bits == 8 ? 255 : 15,
                                     .rate = (double)(head < G ? p->clip : p->clip_v) / (bits == 8 ? 255 : 15),
                                     .clip = t->clip[node][head / G]};
            if (bits != 16) quantize(now, then, code, (uint64_t)hd, &f, y);
        }
    free(code);
    free(now);
    free(then);
}

// ---- the rest ---------------------------------------------------------------------------------------------------

static void norm(double *x, int n, double eps, const double *gain)
{
    double square = 0;
    for (int i = 0; i < n; i++) square += x[i] * x[i];
    for (int i = 0; i < n; i++) x[i] *= gain[i] / sqrt(square / n + eps);
}

static void run_rope(struct twin *t, const struct gyre_node *n)
{
    const struct gyre_rope_params *p = &n->params.rope;
    const int hd = p->hd, width = (p->heads + 2 * p->kv_heads) * hd;
    const int32_t(*rows)[4] = (void *)(uintptr_t)plane(t, n->in[1], 0);
    const double *freqs = t->value[n->in[2]], *gains = p->normed ? t->value[n->in[3]] : NULL;
    memcpy(t->value[n->out[0]], t->value[n->in[0]], (size_t)(p->rows * width) * sizeof(double));
    for (int r = 0; r < p->rows; r++)
        for (int head = 0; head < p->heads + p->kv_heads; head++) {
            double *x = t->value[n->out[0]] + r * width + head * hd;
            if (gains) norm(x, hd, (double)p->eps, gains + (head < p->heads ? 0 : hd));
            for (int i = 0; i < hd / 2; i++) {
                const int at = i < p->split ? i : 2 * i, to = at + (i < p->split ? p->split : 1);
                const double grow =
                    head < p->heads && p->q_beta != 0 ? 1 + (double)p->q_beta * log1p(rows[r][2] / p->q_span) : 1;
                const double scale = grow * (freqs[i] != 0 ? (double)p->mscale : 1);
                const double angle = rows[r][2] * freqs[i], a = x[at], b = x[to];
                x[at] = scale * (a * cos(angle) - b * sin(angle));
                x[to] = scale * (a * sin(angle) + b * cos(angle));
            }
        }
}

static void run_attn(struct twin *t, const struct gyre_node *n)
{
    const struct gyre_attn_params *p = &n->params.attn;
    const int hd = p->hd, G = p->kv_heads;
    const int32_t(*rows)[4] = (void *)(uintptr_t)plane(t, n->in[2], 0);
    const double *centre = p->centred ? t->value[n->in[4]] + G * hd : NULL;
    for (int r = 0; r < p->rows; r++)
        for (int h = 0; h < p->heads; h++) {
            const int g = h / (p->heads / G);
            const double *q = t->value[n->in[0]] + r * p->ldq + h * hd;
            double *o = t->value[n->out[0]] + (r * p->heads + h) * hd, total = 0;
            for (int i = 0; i < hd; i++) o[i] = 0;
            for (int k = 0; k < p->rows; k++) {
                if (rows[k][1] != rows[r][1] || rows[k][2] > rows[r][2] || rows[k][2] <= rows[r][2] - p->window)
                    continue;
                const double *key = t->value[n->in[1]] + (k * 2 * G + g) * hd, *value = key + G * hd;
                double s = 0;
                for (int i = 0; i < hd; i++) s += q[i] * key[i];
                s = exp((double)p->scale * s);
                total += s;
                for (int i = 0; i < hd; i++) o[i] += s * value[i];
            }
            for (int i = 0; i < hd; i++) o[i] = o[i] / total + (centre ? centre[g * hd + i] : 0);
        }
}

static void run_matmul(struct twin *t, const struct gyre_node *n)
{
    const struct gyre_matmul_params *p = &n->params.matmul;
    const struct gyre_weight *w = t->g->values[n->in[1]].weight;
    const bool coded = gyre_weight_is_coded(w->kind);
    for (uint32_t r = 0; r < (uint32_t)p->rows; r++)
        for (uint32_t c = 0; c < w->n; c++) {
            double sum = !p->add ? 0 : t->value[n->in[2]][p->add == 2 ? c : r * w->n + c];
            for (uint32_t k = 0; k < w->k; k++) {
                const double move = t->move[n->in[1]][coded ? k / w->group * w->n + c : c * w->k + k],
                             at = t->weight[n->in[1]][c * w->k + k];
                sum += t->value[n->in[0]][r * w->k + k] * (coded ? at * exp(move) : at + move);
            }
            t->value[n->out[0]][r * w->n + c] = sum;
        }
}

static void run_hadamard(struct twin *t, const struct gyre_node *n)
{
    const struct gyre_hadamard_params *p = &n->params.hadamard;
    const uint64_t width = (uint64_t)p->width, size = (uint64_t)p->n;
    // The matrix, from the bit masks: entry (i, j) of H_k1 (x) H_k2 (x) H_k3 (x) H_2^p.
    const uint32_t *base = n->in[1] ? plane(t, n->in[1], 0) : NULL;
    const int32_t k[3] = {p->k1, p->k2, p->k3};
    double *h = malloc(size * size * sizeof *h);
    for (uint64_t i = 0; i < size; i++)
        for (uint64_t j = 0; j < size; j++) {
            uint64_t a = i, b = j, low = size;
            const uint32_t *words = base;
            uint32_t sign = (uint32_t)__builtin_popcountll((i & j) & ((1ull << p->p) - 1)) & 1;
            for (int f = 0; f < 3; f++) {
                if (k[f] <= 1) continue;
                low /= (uint64_t)k[f];
                const uint32_t row_words = (uint32_t)(k[f] + 31) / 32, row = (uint32_t)(a / low),
                               col = (uint32_t)(b / low);
                a %= low, b %= low;
                sign ^= words[row * row_words + col / 32] >> col % 32 & 1;
                words += (uint32_t)k[f] * row_words;
            }
            h[i * size + j] = (sign ? -1 : 1) / sqrt((double)size);
        }
    for (int r = 0; r < p->rows; r++) {
        const double *x = t->value[n->in[0]] + (uint64_t)r * width, *scale = p->scaled ? t->value[n->in[2]] : NULL;
        double *y = t->value[n->out[0]] + (uint64_t)r * width;
        for (uint64_t i = 0; i < width; i++) y[i] = x[i] * (scale ? scale[i] : 1);
        for (uint64_t s = 0; s < (uint64_t)p->segs; s++)
            for (uint64_t j = 0; j < size; j++) {
                double sum = 0;
                for (uint64_t i = 0; i < size; i++)
                    sum += x[s * size + i] * (scale ? scale[s * size + i] : 1) *
                           (p->had_t ? h[j * size + i] : h[i * size + j]);
                y[s * size + j] = sum;
            }
    }
    free(h);
}

double twin_run(struct twin *t, gyre_value out, const float *seed)
{
    for (uint32_t i = 0; i < t->g->n_nodes; i++) {
        const struct gyre_node *n = &t->g->nodes[i];
        const double *x = t->value[n->in[0]];
        double *y = t->value[n->out[0]];
        switch (n->op) {
        case GYRE_OP_rms_norm:
            memcpy(y, x, size_of(t, n->out[0]) * sizeof *y);
            for (int r = 0; r < n->params.rms_norm.rows; r++)
                norm(y + r * n->params.rms_norm.width, n->params.rms_norm.width, (double)n->params.rms_norm.eps,
                     t->value[n->in[1]]);
            break;
        case GYRE_OP_quantize:
            run_quantize(t, i);
            break;
        case GYRE_OP_matmul:
            run_matmul(t, n);
            break;
        case GYRE_OP_add:
            for (uint64_t e = 0; e < size_of(t, n->out[0]); e++) y[e] = x[e] + t->value[n->in[1]][e];
            break;
        case GYRE_OP_hadamard:
            run_hadamard(t, n);
            break;
        case GYRE_OP_gather:
            for (uint64_t e = 0; e < size_of(t, n->out[0]); e++) {
                const uint64_t w = (uint64_t)n->params.gather.width;
                y[e] = x[e / w * w + (uint64_t)((const int32_t *)plane(t, n->in[1], 0))[e % w]];
            }
            break;
        case GYRE_OP_act_mul:
            for (int r = 0; r < n->params.act_mul.rows; r++)
                for (int e = 0; e < n->params.act_mul.width; e++) {
                    const int w = n->params.act_mul.width;
                    const double gate = x[2 * r * w + e], up = x[(2 * r + 1) * w + e];
                    assert(n->params.act_mul.act == 0);
                    y[r * w + e] = gate / (1 + exp(-gate)) * up;
                }
            break;
        case GYRE_OP_rope:
            run_rope(t, n);
            break;
        case GYRE_OP_kv_write:
            run_kv_write(t, i);
            break;
        case GYRE_OP_attn:
            run_attn(t, n);
            break;
        default:
            assert(!"an op without a twin");
        }
    }
    double sum = 0;
    for (uint64_t i = 0; i < size_of(t, out); i++) sum += t->value[out][i] * (double)seed[i];
    return sum;
}
