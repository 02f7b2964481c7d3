// See start.h.
#include "quantizer/learn/start.h"
#include "quantizer/file/plan.h"
#include "runtime/util/base.h"

#include <cblas.h>
#include <lapacke.h>
#include <stdlib.h>
#include <string.h>

// Sums over rows of n numbers: of products, and of the rows themselves.
struct spread {
    uint32_t n;
    double rows, *square, *mean; // [n][n], [n]; one allocation at `square`
};

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "out of memory for rotations"); }

static gyre_status open_spread(uint32_t n, struct spread *s, gyre_error *err)
{
    *s = (struct spread){.n = n, .square = calloc((uint64_t)n * n + n, sizeof *s->square)};
    if (!s->square) return no_memory(err);
    s->mean = s->square + (uint64_t)n * n;
    return GYRE_OK;
}

// Rows of x, ld apart. scratch [n][n].
static void add(struct spread *s, const float *x, uint64_t rows, uint64_t ld, float *scratch)
{
    const int n = (int)s->n;
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, n, (int)rows, 1, x, (int)ld, x, (int)ld, 0, scratch, n);
    for (uint64_t i = 0; i < (uint64_t)s->n * s->n; i++) s->square[i] += (double)scratch[i];
    for (uint64_t r = 0; r < rows; r++)
        for (uint32_t i = 0; i < s->n; i++) s->mean[i] += (double)x[r * ld + i];
    s->rows += (double)rows;
}

// R := E R, E's columns the eigenvectors of the covariance.
static gyre_status turn(struct spread *s, double *r, gyre_error *err)
{
    const uint32_t n = s->n;
    const uint64_t size = (uint64_t)n * n;
    gyre_status st = GYRE_OK;
    double *value = malloc((n + size) * sizeof *value);
    if (!value) return no_memory(err);
    for (uint64_t i = 0; i < size; i++) {
        const double mean = s->mean[i / n] / s->rows * s->mean[i % n];
        s->square[i] = (s->square[i] - mean) / s->rows;
    }
    if (LAPACKE_dsyevd(LAPACK_ROW_MAJOR, 'V', 'U', (lapack_int)n, s->square, (lapack_int)n, value))
        GYRE_GO(gyre_fail(err, GYRE_E_FORMAT,
                          "cannot learn rotations: the covariance of the weights has no eigenvectors; are they "
                          "numbers?"));
    memcpy(value + n, r, size * sizeof *r);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)n, (int)n, 1, s->square, (int)n, value + n,
                (int)n, 0, r, (int)n);
done:
    free(value);
    return st;
}

static gyre_status turn_heads(const struct gyre_hparams *hp, const struct gyre_folded *block, uint32_t layer,
                              float *scratch, struct gyre_matrices *at, gyre_error *err)
{
    const uint32_t hd = hp->head_dim, group = hp->heads / hp->kv_heads;
    uint64_t rows, cols;
    gyre_status st = GYRE_OK;
    gyre_role_shape(GYRE_ROLE_o, hp, &rows, &cols);
    for (uint32_t j = 0; j < hp->kv_heads && st == GYRE_OK; j++) {
        struct spread s;
        GYRE_TRY(open_spread(hd, &s, err));
        for (uint32_t h = j * group; h < (j + 1) * group; h++)
            add(&s, block->linear[GYRE_ROLE_o] + (uint64_t)h * hd, rows, cols, scratch);
        st = turn(&s, gyre_matrices_r2(at, layer, j), err);
        free(s.square);
    }
    return st;
}

gyre_status gyre_start_by_weights(const struct gyre_plan *plan, struct gyre_matrices *at, gyre_error *err)
{
    const struct gyre_hparams *hp = &plan->hp;
    const uint64_t most = GYRE_MAX(hp->width, hp->head_dim);
    gyre_folder *folder = NULL;
    struct spread stream = {0};
    struct gyre_folded block;
    gyre_status st = GYRE_OK;
    float *scratch = malloc(most * most * sizeof *scratch);
    if (!scratch) GYRE_GO(no_memory(err));
    GYRE_GO(open_spread(hp->width, &stream, err));
    GYRE_GO(gyre_folder_open(plan, &folder, err));
    for (uint32_t l = 0; l < hp->n_layers; l++) {
        GYRE_GO(gyre_folder_block(folder, l, &block, err));
        for (int r = 0; at->r1 && r < GYRE_LINEARS; r++) {
            uint64_t rows, cols;
            if (gyre_products[gyre_roles[r].product].reads != GYRE_ROTATION_R1) continue;
            gyre_role_shape((gyre_role)r, hp, &rows, &cols);
            add(&stream, block.linear[r], rows, cols, scratch);
        }
        GYRE_GO(turn_heads(hp, &block, l, scratch, at, err));
    }
    if (at->r1) st = turn(&stream, at->r1, err);
done:
    gyre_folder_close(folder);
    free(stream.square);
    free(scratch);
    return st;
}
