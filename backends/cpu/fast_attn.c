// Attention on the quick host: for a kv head of a sequence the cache is expanded once, then its query heads take blocks
// of rows through two products with a softmax between. Heads and sequences are spread over threads; a product is one
// thread's.
#include "backends/cpu/fast_parts.h"
#include "shaders/params.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64 }; // rows at a time: the scores of a few query heads stay in a second-level cache

struct attention {
    const struct gyre_ref_args *args;
    const struct gyre_attn_params *p;
    const int32_t (*rows)[4];
    int32_t k_bits, v_bits;
};

GYRE_INLINE void expand_vector(const uint32_t *words, uint32_t meta, int32_t hd, int32_t bits, float *out)
{
    if (bits == 32) memcpy(out, words, (size_t)hd * sizeof *out);
    else if (bits == 16)
        for (int32_t i = 0; i < hd / 2; i++) {
            out[2 * i] = gyre_f32_from_f16((uint16_t)words[i]);
            out[2 * i + 1] = gyre_f32_from_f16((uint16_t)(words[i] >> 16));
        }
    else {
        const float scale = gyre_f32_from_f16((uint16_t)meta), zero = gyre_f32_from_f16((uint16_t)(meta >> 16));
        const uint32_t mask = (1u << bits) - 1;
        for (int32_t i = 0; i < hd; i++)
            out[i] = scale * ((float)(int32_t)(words[i * bits / 32] >> i * bits % 32 & mask) - zero);
    }
}

// Positions 0..length-1 of one kv head: k and v [length][hd].
GYRE_CLONES static void expand(const struct attention *a, int32_t sequence, int32_t kv_head, int32_t length, float *k,
                               float *v)
{
    const struct gyre_attn_params *p = a->p;
    const int32_t hd = p->hd, *pages = (const int32_t *)a->args->bind[7] + sequence * p->page_stride;
    const uint32_t *const *const bind = (const uint32_t *const *)a->args->bind;
    for (int32_t t = 0; t < length; t++) {
        const size_t slot = (size_t)((pages[t / 32] * p->kv_heads + kv_head) * 32 + t % 32);
        expand_vector(bind[2] + slot * (size_t)(hd * a->k_bits / 32), a->k_bits < 16 ? bind[3][slot] : 0, hd, a->k_bits,
                      k + (size_t)t * (size_t)hd);
        expand_vector(bind[4] + slot * (size_t)(hd * a->v_bits / 32), a->v_bits < 16 ? bind[5][slot] : 0, hd, a->v_bits,
                      v + (size_t)t * (size_t)hd);
    }
}

// s[from..n) to its softmax, zeros before and behind up to `length`.
GYRE_CLONES static void softmax_row(float *s, int32_t from, int32_t n, int32_t length)
{
    memset(s, 0, (size_t)from * sizeof *s);
    s += from, n -= from, length -= from;
    float tops[16], sums[16] = {0}, top = s[0], sum = 0;
    int32_t i = 0;
    for (int l = 0; l < 16; l++) tops[l] = s[0];
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++) tops[l] = s[i + l] > tops[l] ? s[i + l] : tops[l];
    for (; i < n; i++) top = s[i] > top ? s[i] : top;
    for (int l = 0; l < 16; l++) top = tops[l] > top ? tops[l] : top;
    for (i = 0; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++) {
            s[i + l] = gyre_fast_exp(s[i + l] - top);
            sums[l] += s[i + l];
        }
    for (; i < n; i++) {
        s[i] = gyre_fast_exp(s[i] - top);
        sum += s[i];
    }
    for (int l = 0; l < 16; l++) sum += sums[l];
    const float inverse = 1 / sum;
    for (i = 0; i < n; i++) s[i] *= inverse;
    memset(s + n, 0, (size_t)(length - n) * sizeof *s);
}

// The first position that row r sees.
static int32_t first_seen(const struct attention *a, int32_t r)
{
    return a->rows[r][2] >= a->p->window ? a->rows[r][2] - a->p->window + 1 : 0;
}

// What one (sequence, kv head) works in.
struct work {
    float *k, *v, *q, *scores, *o; // [length][hd] twice, [BLOCK * group][hd], [BLOCK * group][length], as q
};

// Rows list[0..n) (n <= BLOCK) of a sequence and all query heads of a kv head.
static void attend(const struct attention *a, const int32_t *list, int32_t n, int32_t kv_head, const struct work *w)
{
    const struct gyre_attn_params *p = a->p;
    const int32_t hd = p->hd, group = p->heads / p->kv_heads;
    const float *centre = p->centred ? (const float *)a->args->bind[8] + (p->kv_heads + kv_head) * hd : NULL;
    const size_t bytes = (size_t)hd * sizeof(float);
    int32_t length = 0;
    for (int32_t i = 0; i < n; i++) {
        const float *q =
            (const float *)a->args->bind[1] + (size_t)list[i] * (size_t)p->ldq + (size_t)(kv_head * group * hd);
        memcpy(w->q + (size_t)i * (size_t)(group * hd), q, (size_t)group * bytes);
        length = GYRE_MAX(length, a->rows[list[i]][2] + 1);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n * group, length, hd, p->scale, w->q, hd, w->k, hd, 0,
                w->scores, length);
    for (int32_t i = 0; i < n * group; i++)
        softmax_row(w->scores + (size_t)i * (size_t)length, first_seen(a, list[i / group]),
                    a->rows[list[i / group]][2] + 1, length);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n * group, hd, length, 1, w->scores, length, w->v, hd, 0,
                w->o, hd);
    for (int32_t i = 0; i < n; i++) {
        float *o =
            (float *)a->args->bind[0] + ((size_t)list[i] * (size_t)p->heads + (size_t)(kv_head * group)) * (size_t)hd;
        memcpy(o, w->o + (size_t)i * (size_t)(group * hd), (size_t)group * bytes);
        for (int32_t c = 0; centre && c < group * hd; c++) o[c] += centre[c % hd];
    }
}

// All live rows of `sequence`, listed in `list`, under one kv head. Without memory the output keeps the NaN that it was
// given.
static void attend_head(const struct attention *a, const int32_t *list, int32_t n, int32_t length, int32_t kv_head)
{
    const size_t hd = (size_t)a->p->hd, most = (size_t)GYRE_MIN(n, BLOCK) * (size_t)(a->p->heads / a->p->kv_heads),
                 cache = (size_t)length * hd;
    float *memory = malloc((2 * cache + most * (2 * hd + (size_t)length)) * sizeof *memory);
    if (!memory) return;
    const struct work w = {memory, memory + cache, memory + 2 * cache, memory + 2 * cache + 2 * most * hd,
                           memory + 2 * cache + most * hd};
    expand(a, a->rows[list[0]][1], kv_head, length, w.k, w.v);
    for (int32_t first = 0; first < n; first += BLOCK)
        attend(a, list + first, GYRE_MIN(n - first, (int32_t)BLOCK), kv_head, &w);
    free(memory);
}

// A sequence of the batch: its live rows, one after the other in `list`.
struct run {
    int32_t first, n, length;
};

// list [rows], runs [rows]; returns the number of sequences.
static int32_t find_runs(const struct attention *a, int32_t *list, struct run *runs)
{
    int32_t n_runs = 0, at = 0;
    for (int32_t r = 0; r < a->p->rows; r++) {
        bool seen = !(a->rows[r][3] & 1);
        for (int32_t i = 0; i < n_runs && !seen; i++) seen = a->rows[list[runs[i].first]][1] == a->rows[r][1];
        if (seen) continue;
        struct run *run = &runs[n_runs++];
        *run = (struct run){.first = at};
        for (int32_t i = r; i < a->p->rows; i++) {
            if (!(a->rows[i][3] & 1) || a->rows[i][1] != a->rows[r][1]) continue;
            list[at++] = i;
            run->n++;
            run->length = GYRE_MAX(run->length, a->rows[i][2] + 1);
        }
    }
    return n_runs;
}

void gyre_fast_attn(const struct gyre_ref_args *args)
{
    const struct gyre_attn_params *p = args->params;
    const struct attention a = {args, p, args->bind[6], (int32_t)gyre_ref_constant(args, "KBITS"),
                                (int32_t)gyre_ref_constant(args, "VBITS")};
    const size_t row_bytes = (size_t)(p->heads * p->hd) * sizeof(float);
    for (int32_t r = 0; r < p->rows; r++) // dead rows are zero, live ones NaN until they are done
        memset((char *)args->bind[0] + (size_t)r * row_bytes, a.rows[r][3] & 1 ? 0xFF : 0, row_bytes);
    int32_t *list = malloc((size_t)p->rows * sizeof *list);
    struct run *runs = malloc((size_t)p->rows * sizeof *runs);
    const int32_t n = list && runs ? find_runs(&a, list, runs) : 0;
#pragma omp parallel for schedule(dynamic) if (p->rows > 1)
    for (int32_t i = 0; i < n * p->kv_heads; i++) {
        const struct run *run = &runs[i / p->kv_heads];
        attend_head(&a, list + run->first, run->n, run->length, i % p->kv_heads);
    }
    free(runs);
    free(list);
}
