// Rules of RoPE, the cache write and attention. Attention's goes through the cache as the forward pass left it: codes
// and f16 scales; what its rows' keys and values were before that is the cache write's matter. Every row that a row
// attends to must be of the same batch, so that its gradient has a place: sequences from position 0.
#include "quantizer/gradient/rules.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "out of memory for gradients"); }

struct row_data {
    int32_t token, sequence, position, flags;
};

// ---- RoPE -------------------------------------------------------------------------------------------------------

// y = scale * turned(x): dx = scale * turned back(dy). table: scale times cos, sin of each pair.
static void turn_back(float *x, uint32_t heads, const struct gyre_rope_params *p, const double *table)
{
    const int32_t half = p->hd / 2;
    for (uint32_t head = 0; head < heads; head++, x += p->hd)
        for (int32_t i = 0; i < half; i++) {
            const int32_t at = i < p->split ? i : 2 * i, to = at + (i < p->split ? p->split : 1);
            const double c = table[2 * i], s = table[2 * i + 1], a = (double)x[at], b = (double)x[to];
            x[at] = (float)(c * a + s * b);
            x[to] = (float)(c * b - s * a);
        }
}

// The norm of each head, y = x r gain; g in place becomes dx, and each row's part of dgain is added to dgain[hd].
static void norm_back(float *g, const float *x, uint32_t heads, uint32_t hd, double eps, const float *gain,
                      double *dgain)
{
    for (uint32_t head = 0; head < heads; head++, g += hd, x += hd) {
        double square = 0, along = 0;
        for (uint32_t i = 0; i < hd; i++) {
            square += (double)x[i] * (double)x[i];
            along += (double)x[i] * (double)gain[i] * (double)g[i];
        }
        const double root = 1 / sqrt(square / hd + eps), back = along * root * root * root / hd;
        for (uint32_t i = 0; i < hd; i++) {
            dgain[i] += (double)g[i] * (double)x[i] * root;
            g[i] = (float)((double)gain[i] * (double)g[i] * root - (double)x[i] * back);
        }
    }
}

gyre_status gyre_back_rope(const struct gyre_back *b, gyre_error *err)
{
    const struct gyre_rope_params *p = &b->node->params.rope;
    const uint64_t rows = (uint64_t)p->rows, width = (uint64_t)((p->heads + 2 * p->kv_heads) * p->hd);
    const uint32_t hd = (uint32_t)p->hd, half = hd / 2, heads = (uint32_t)p->heads, kv = (uint32_t)p->kv_heads;
    const float *x = gyre_back_plane(b->graph, b->node->in[0], 0),
                *freqs = gyre_back_plane(b->graph, b->node->in[2], 0),
                *gains = p->normed ? gyre_back_plane(b->graph, b->node->in[3], 0) : NULL;
    const struct row_data *row = gyre_back_plane(b->graph, b->node->in[1], 0);
    double *dgain = calloc(rows * 2 * hd, sizeof *dgain);
    gyre_status st = GYRE_OK;
    if (!dgain) return no_memory(err);
#pragma omp parallel
    {
        float *g = malloc(width * sizeof *g);
        double *table = malloc(hd * sizeof *table);
        if (!g || !table) {
#pragma omp critical
            st = GYRE_E_NOMEM;
        }
#pragma omp for schedule(static)
        for (uint64_t r = 0; r < rows; r++) {
            if (!g || !table) continue;
            memcpy(g, b->dout + r * width, width * sizeof *g);
            for (uint32_t i = 0; i < half; i++) {
                const double scale = freqs[i] != 0 ? (double)p->mscale : 1;
                table[2 * i] = scale * cos((double)row[r].position * (double)freqs[i]);
                table[2 * i + 1] = scale * sin((double)row[r].position * (double)freqs[i]);
            }
            turn_back(g, heads + kv, p, table);
            const double beta = (double)p->q_beta,
                         grow = p->q_beta != 0 ? 1 + beta * log1p(row[r].position / p->q_span) : 1;
            for (uint32_t i = 0; i < heads * hd && p->q_beta != 0; i++) g[i] = (float)(grow * (double)g[i]);
            if (gains) {
                norm_back(g, x + r * width, heads, hd, (double)p->eps, gains, dgain + 2 * r * hd);
                norm_back(g + heads * hd, x + r * width + heads * hd, kv, hd, (double)p->eps, gains + hd,
                          dgain + (2 * r + 1) * hd);
            }
            for (uint64_t i = 0; b->din[0] && i < width; i++) b->din[0][r * width + i] += g[i];
        }
        free(g);
        free(table);
    }
    for (uint32_t i = 0; b->din[3] && i < 2 * hd; i++) {
        double sum = 0;
        for (uint64_t r = 0; r < rows; r++) sum += dgain[2 * r * hd + i];
        b->din[3][i] += (float)sum;
    }
    free(dgain);
    return st == GYRE_OK ? st : no_memory(err);
}

// ---- the cache --------------------------------------------------------------------------------------------------

// A pool on the host.
struct pool {
    const uint32_t *words[2], *meta[2]; // of keys, of values
    uint32_t bits[2], kv_heads, hd, page_stride;
    const int32_t *pages;
};

static struct pool pool_of(const gyre_graph *g, gyre_value value, gyre_value pages, int32_t kv_heads, int32_t hd,
                           int32_t page_stride)
{
    const struct gyre_value_info *info = gyre_graph_value(g, value);
    struct pool p = {.bits = {info->bits, info->bits_v},
                     .kv_heads = (uint32_t)kv_heads,
                     .hd = (uint32_t)hd,
                     .page_stride = (uint32_t)page_stride,
                     .pages = gyre_back_plane(g, pages, 0)};
    for (uint32_t i = 0; i < 2; i++) {
        p.words[i] = gyre_back_plane(g, value, 2 * i);
        p.meta[i] = gyre_back_plane(g, value, 2 * i + 1);
    }
    return p;
}

static uint64_t slot_of(const struct pool *p, const struct row_data *row, uint32_t kv_head)
{
    const int32_t page = p->pages[(uint32_t)row->sequence * p->page_stride + (uint32_t)row->position / 32];
    return ((uint64_t)page * p->kv_heads + kv_head) * 32 + (uint32_t)row->position % 32;
}

// The codes of a vector as numbers, and its scale and zero; 16 and 32 bits: the numbers themselves, scale 1.
static void read_vector(const struct pool *p, uint32_t which, uint64_t slot, float *code, float *scale, float *zero)
{
    const uint32_t bits = p->bits[which], *words = p->words[which] + slot * p->hd * bits / 32;
    *scale = 1;
    *zero = 0;
    if (bits < 16) {
        *scale = gyre_f32_from_f16((uint16_t)p->meta[which][slot]);
        *zero = gyre_f32_from_f16((uint16_t)(p->meta[which][slot] >> 16));
    }
    for (uint32_t i = 0; i < p->hd; i++) {
        const uint32_t word = bits == 32 ? words[i] : words[i * bits / 32] >> i * bits % 32;
        code[i] = bits == 32   ? gyre_f32_from_bits(word)
                  : bits == 16 ? gyre_f32_from_f16((uint16_t)word)
                               : (float)(word & ((1u << bits) - 1));
    }
}

// One vector, x less its centre. Returns the gradient of the logarithm of the clip.
static double vector_back(const struct pool *p, uint32_t which, uint64_t slot, const float *x, const float *centre,
                          const float *g, float clip, bool plain, float *code, float *dx)
{
    float scale, zero;
    double ds = 0, lo = 0, hi = 0;
    const float most = p->bits[which] == 8 ? 255 : 15;
    uint32_t low = 0, high = 0;
    read_vector(p, which, slot, code, &scale, &zero);
    if (p->bits[which] >= 16) {
        for (uint32_t i = 0; i < p->hd; i++) dx[i] = g[i];
        return 0;
    }
    for (uint32_t i = 0; i < p->hd; i++) {
        const float at = centre ? x[i] - centre[i] : x[i], u = scale > 0 ? at / scale : 0, nearest = rintf(u) + zero;
        const bool inside = scale > 0 && nearest >= 0 && nearest <= most;
        if ((double)at < lo) lo = (double)at, low = i;
        if ((double)at > hi) hi = (double)at, high = i;
        ds += (double)g[i] * ((double)(code[i] - zero) - (inside ? (double)u : 0));
        dx[i] = inside || plain ? g[i] : 0;
    }
    if (plain || !(scale > 0)) return 0;
    const double each = ds * (double)clip / (double)most;
    if (lo < 0) dx[low] -= (float)each;
    if (hi > 0) dx[high] += (float)each;
    return ds * (double)scale;
}

gyre_status gyre_back_kv_write(const struct gyre_back *b, gyre_error *err)
{
    const struct gyre_kv_write_params *p = &b->node->params.kv_write;
    const uint32_t G = (uint32_t)p->kv_heads, hd = (uint32_t)p->hd;
    const uint64_t rows = (uint64_t)p->rows, skip = (uint64_t)p->heads * hd, width = skip + 2 * (uint64_t)G * hd,
                   each = 2 * (uint64_t)G * hd;
    const struct pool pool = pool_of(b->graph, b->node->out[0], b->node->in[2], p->kv_heads, p->hd, p->page_stride);
    const float *x = gyre_back_plane(b->graph, b->node->in[0], 0),
                *centre = p->centred ? gyre_back_plane(b->graph, b->node->in[3], 0) : NULL;
    const struct row_data *row = gyre_back_plane(b->graph, b->node->in[1], 0);
    double *clip = calloc(rows, 2 * sizeof *clip);
    float *dx = calloc(rows * each, sizeof *dx);
    if (!clip || !dx) {
        free(clip);
        free(dx);
        return no_memory(err);
    }
#pragma omp parallel for schedule(static)
    for (uint64_t r = 0; r < rows; r++) {
        float code[256]; // heads of more are refused
        if (!(row[r].flags & 1)) continue;
        for (uint32_t head = 0; head < 2 * G; head++)
            clip[2 * r + head / G] +=
                vector_back(&pool, head / G, slot_of(&pool, &row[r], head % G), x + r * width + skip + head * hd,
                            centre ? centre + head * hd : NULL, b->dout + r * each + head * hd,
                            head < G ? p->clip : p->clip_v, b->plain, code, dx + r * each + head * hd);
        for (uint64_t i = 0; b->din[0] && i < each; i++) b->din[0][r * width + skip + i] += dx[r * each + i];
    }
    for (uint64_t r = 0; b->dclip && r < rows; r++)
        for (uint32_t i = 0; i < 2; i++) b->dclip[i] += clip[2 * r + i];
    for (uint64_t i = 0; b->din[3] && i < each; i++) { // the centre is subtracted
        double sum = 0;
        for (uint64_t r = 0; r < rows; r++) sum -= (double)dx[r * each + i];
        b->din[3][i] += (float)sum;
    }
    free(clip);
    free(dx);
    return GYRE_OK;
}

// ---- attention --------------------------------------------------------------------------------------------------

// One kv head of one sequence; `at` [length]: the rows of its positions.
struct head {
    const struct gyre_back *back;
    const struct gyre_attn_params *p;
    const struct pool *pool;
    const struct row_data *row;
    const uint32_t *at;
    uint32_t length, kv_head;
};

struct work { // of one head: [length][hd] but for scores and their gradients, [length][length]
    float *k, *v, *dk, *dv, *q, *dq, *g, *score, *dscore;
};

static void load_cache(const struct head *h, const struct work *w)
{
    const uint32_t hd = (uint32_t)h->p->hd;
    for (uint32_t t = 0; t < h->length; t++) {
        const uint64_t slot = slot_of(h->pool, &h->row[h->at[t]], h->kv_head);
        for (uint32_t which = 0; which < 2; which++) {
            float scale, zero, *to = (which ? w->v : w->k) + (uint64_t)t * hd;
            read_vector(h->pool, which, slot, to, &scale, &zero);
            for (uint32_t i = 0; i < hd; i++) to[i] = scale * (to[i] - zero);
        }
    }
}

// scores become probabilities of the last `window` positions up to t; dscore, the gradient of those, that of the
// scores.
static void softmax_back(const struct work *w, uint32_t length, uint32_t window, double scale)
{
    for (uint32_t t = 0; t < length; t++) {
        const uint32_t first = t >= window ? t - window + 1 : 0;
        float *s = w->score + (uint64_t)t * length, *d = w->dscore + (uint64_t)t * length, top = s[first];
        double total = 0, along = 0;
        for (uint32_t i = first + 1; i <= t; i++) top = s[i] > top ? s[i] : top;
        for (uint32_t i = first; i <= t; i++) {
            s[i] = (float)exp(scale * ((double)s[i] - (double)top));
            total += (double)s[i];
        }
        for (uint32_t i = first; i <= t; i++) {
            s[i] = (float)((double)s[i] / total);
            along += (double)s[i] * (double)d[i];
        }
        for (uint32_t i = first; i <= t; i++) d[i] = (float)((double)s[i] * ((double)d[i] - along) * scale);
        for (uint32_t i = 0; i < first; i++) s[i] = d[i] = 0;
        for (uint32_t i = t + 1; i < length; i++) s[i] = d[i] = 0;
    }
}

// out [m, n] = beta out + op(a) op(b), all of `n` and inner columns wide as they lie.
static void product(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, uint32_t m, uint32_t n, uint32_t k, const float *a,
                    uint32_t lda, const float *b, uint32_t ldb, float beta, float *out)
{
    cblas_sgemm(CblasRowMajor, ta, tb, (int)m, (int)n, (int)k, 1, a, (int)lda, b, (int)ldb, beta, out, (int)n);
}

static void one_query_head(const struct head *h, const struct work *w, uint32_t head)
{
    const uint32_t hd = (uint32_t)h->p->hd, T = h->length;
    const uint64_t ldq = (uint64_t)h->p->ldq, ldo = (uint64_t)h->p->heads * hd;
    const float *q = gyre_back_plane(h->back->graph, h->back->node->in[0], 0);
    for (uint32_t t = 0; t < T; t++) {
        memcpy(w->q + (uint64_t)t * hd, q + h->at[t] * ldq + head * hd, hd * sizeof *q);
        memcpy(w->g + (uint64_t)t * hd, h->back->dout + h->at[t] * ldo + head * hd, hd * sizeof *q);
    }
    product(CblasNoTrans, CblasTrans, T, T, hd, w->q, hd, w->k, hd, 0, w->score);
    product(CblasNoTrans, CblasTrans, T, T, hd, w->g, hd, w->v, hd, 0, w->dscore);
    softmax_back(w, T, (uint32_t)h->p->window, (double)h->p->scale);
    product(CblasTrans, CblasNoTrans, T, hd, T, w->score, T, w->g, hd, 1, w->dv);
    product(CblasTrans, CblasNoTrans, T, hd, T, w->dscore, T, w->q, hd, 1, w->dk);
    product(CblasNoTrans, CblasNoTrans, T, hd, T, w->dscore, T, w->k, hd, 0, w->dq);
    for (uint32_t t = 0; h->back->din[0] && t < T; t++)
        for (uint32_t i = 0; i < hd; i++)
            h->back->din[0][h->at[t] * ldq + head * hd + i] += w->dq[(uint64_t)t * hd + i];
}

static gyre_status one_head(const struct head *h)
{
    const uint32_t hd = (uint32_t)h->p->hd, T = h->length, per = (uint32_t)(h->p->heads / h->p->kv_heads),
                   G = (uint32_t)h->p->kv_heads;
    const uint64_t n = (uint64_t)T * hd;
    float *memory = calloc(7 * n + 2 * (uint64_t)T * T, sizeof *memory);
    if (!memory) return GYRE_E_NOMEM;
    const struct work w = {memory,         memory + n,     memory + 2 * n,
                           memory + 3 * n, memory + 4 * n, memory + 5 * n,
                           memory + 6 * n, memory + 7 * n, memory + 7 * n + (uint64_t)T * T};
    load_cache(h, &w);
    for (uint32_t i = 0; i < per; i++) one_query_head(h, &w, h->kv_head * per + i);
    for (uint32_t t = 0; h->back->din[1] && t < T; t++) {
        float *to = h->back->din[1] + ((uint64_t)h->at[t] * 2 * G + h->kv_head) * hd;
        for (uint32_t i = 0; i < hd; i++) {
            to[i] += w.dk[(uint64_t)t * hd + i];
            to[G * hd + i] += w.dv[(uint64_t)t * hd + i];
        }
    }
    free(memory);
    return GYRE_OK;
}

// The rows of sequence `s` by position into at[]; 0: it has none; false: some position has no row.
static bool find_rows(const struct row_data *row, uint32_t rows, int32_t s, uint32_t *at, uint32_t *length)
{
    *length = 0;
    for (uint32_t r = 0; r < rows; r++)
        if ((row[r].flags & 1) && row[r].sequence == s) *length = GYRE_MAX(*length, (uint32_t)row[r].position + 1);
    if (*length > rows) return false;
    for (uint32_t t = 0; t < *length; t++) at[t] = UINT32_MAX;
    for (uint32_t r = 0; r < rows; r++)
        if ((row[r].flags & 1) && row[r].sequence == s) at[row[r].position] = r;
    for (uint32_t t = 0; t < *length; t++)
        if (at[t] == UINT32_MAX) return false;
    return true;
}

static gyre_status not_whole(int32_t s, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_INVALID,
                     "cannot differentiate attention: sequence %d has positions that are not in the batch", s);
}

gyre_status gyre_back_sequences(const void *data, uint32_t rows, gyre_error *err)
{
    const struct row_data *row = data;
    gyre_status st = GYRE_OK;
    int32_t most = -1;
    uint32_t *at = malloc((uint64_t)rows * sizeof *at), length;
    if (!at) return no_memory(err);
    for (uint32_t r = 0; r < rows; r++) most = (row[r].flags & 1) && row[r].sequence > most ? row[r].sequence : most;
    for (int32_t s = 0; s <= most && st == GYRE_OK; s++)
        if (!find_rows(row, rows, s, at, &length)) st = not_whole(s, err);
    free(at);
    return st;
}

gyre_status gyre_back_attn(const struct gyre_back *b, gyre_error *err)
{
    const struct gyre_attn_params *p = &b->node->params.attn;
    const uint32_t rows = (uint32_t)p->rows, G = (uint32_t)p->kv_heads;
    const struct row_data *row = gyre_back_plane(b->graph, b->node->in[2], 0);
    const struct pool pool = pool_of(b->graph, b->node->in[1], b->node->in[3], p->kv_heads, p->hd, p->page_stride);
    int32_t most = -1;
    gyre_status st = GYRE_OK;
    uint32_t *at = malloc((uint64_t)rows * sizeof *at);
    if (!at) return no_memory(err);
    for (uint32_t r = 0; r < rows; r++) most = (row[r].flags & 1) && row[r].sequence > most ? row[r].sequence : most;
    for (int32_t s = 0; s <= most; s++) {
        uint32_t length;
        if (!find_rows(row, rows, s, at, &length)) GYRE_GO(not_whole(s, err));
        gyre_status worst = GYRE_OK;
#pragma omp parallel for schedule(dynamic)
        for (uint32_t g = 0; g < G; g++) {
            const struct head h = {b, p, &pool, row, at, length, g};
            if (length && one_head(&h) != GYRE_OK) {
#pragma omp critical
                worst = GYRE_E_NOMEM;
            }
        }
        if (worst != GYRE_OK) GYRE_GO(no_memory(err));
    }
    for (uint32_t i = 0; b->din[4] && i < (uint32_t)(p->heads * p->hd); i++) { // the values' centre is added back
        double sum = 0;
        const uint32_t hd = (uint32_t)p->hd, g = i / hd / (uint32_t)(p->heads / p->kv_heads);
        for (uint32_t r = 0; r < rows; r++)
            if (row[r].flags & 1) sum += (double)b->dout[(uint64_t)r * (uint32_t)(p->heads * p->hd) + i];
        b->din[4][(G + g) * hd + i % hd] += (float)sum;
    }
done:
    free(at);
    return st;
}
