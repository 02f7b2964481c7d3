// See divergence.h. With l and k the logits of both models, KL = E_p[l - k] - log Z_p + log Z_q; all three sums are
// kept online, shifted by the largest logit so far. The products are OpenBLAS's.
#include "quantizer/pass/divergence.h"
#include "runtime/util/base.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>

enum { PIECE = 2048, TOKENS = 32, MAX_HEADS = 3 };

// Of one token.
struct sums {
    double max[MAX_HEADS], z[MAX_HEADS], gap[MAX_HEADS];
};

static void add_piece(struct sums *s, const float *const *logits, uint32_t n, uint64_t rows)
{
    for (uint32_t h = 0; h < n; h++) {
        double max = s->max[h];
        for (uint64_t i = 0; i < rows; i++) max = GYRE_MAX(max, (double)logits[h][i]);
        const double shrink = exp(s->max[h] - max); // 0 at first, where max is -infinity
        s->z[h] *= shrink;
        if (h == 0)
            for (uint32_t o = 1; o < n; o++) s->gap[o] *= shrink;
        s->max[h] = max;
    }
    for (uint64_t i = 0; i < rows; i++) {
        const double p = exp((double)logits[0][i] - s->max[0]);
        s->z[0] += p;
        for (uint32_t o = 1; o < n; o++) {
            s->gap[o] += p * ((double)logits[0][i] - (double)logits[o][i]);
            s->z[o] += exp((double)logits[o][i] - s->max[o]);
        }
    }
}

// Rows of the tables against some tokens.
struct piece {
    const struct gyre_summary_head *heads;
    uint32_t n, from, tokens, width;
    uint64_t rows;
};

// table [n][PIECE][width]; logits [n][tokens][PIECE] is scratch. One thread's work.
static void add_tokens(const struct piece *p, const float *table, float *logits, struct sums *sums)
{
    for (uint32_t h = 0; h < p->n; h++)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)p->tokens, (int)p->rows, (int)p->width, 1,
                    p->heads[h].z + (uint64_t)p->from * p->width, (int)p->width, table + (uint64_t)h * PIECE * p->width,
                    (int)p->width, 0, logits + (uint64_t)h * p->tokens * PIECE, PIECE);
    for (uint32_t t = 0; t < p->tokens; t++) {
        const float *of[MAX_HEADS];
        for (uint32_t h = 0; h < p->n; h++) of[h] = logits + ((uint64_t)h * p->tokens + t) * PIECE;
        add_piece(&sums[p->from + t], of, p->n, p->rows);
    }
}

gyre_status gyre_summary_divergence(const struct gyre_summary_head *heads, uint32_t n, uint32_t tokens, uint32_t width,
                                    uint32_t vocab, double *kl, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    float *table = malloc((uint64_t)n * PIECE * width * sizeof *table),
          *logits = malloc((uint64_t)n * tokens * PIECE * sizeof *logits);
    struct sums *sums = calloc(tokens, sizeof *sums);
    if (!table || !logits || !sums) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for the summary's logits"));
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t h = 0; h < n; h++) sums[t].max[h] = -INFINITY;
    for (uint64_t first = 0; first < vocab; first += PIECE) {
        const uint64_t rows = GYRE_MIN((uint64_t)PIECE, vocab - first);
        for (uint32_t h = 0; h < n; h++) heads[h].rows(heads[h].user, first, rows, table + (uint64_t)h * PIECE * width);
#pragma omp parallel for schedule(dynamic)
        for (uint32_t from = 0; from < tokens; from += TOKENS) {
            const struct piece piece = {heads, n, from, GYRE_MIN(tokens - from, (uint32_t)TOKENS), width, rows};
            add_tokens(&piece, table, logits + (uint64_t)n * from * PIECE, sums);
        }
    }
    for (uint32_t o = 1; o < n; o++) {
        kl[o - 1] = 0;
        for (uint32_t t = 0; t < tokens; t++) {
            const struct sums *s = &sums[t];
            kl[o - 1] += (s->gap[o] / s->z[0] - (s->max[0] + log(s->z[0])) + (s->max[o] + log(s->z[o]))) / tokens;
        }
    }
done:
    free(table);
    free(logits);
    free(sums);
    return st;
}
