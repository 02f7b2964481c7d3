// See matrices.h.
#include "quantizer/transform/matrices.h"
#include "runtime/util/base.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 64 }; // vectors of one BLAS call

// ---- memory -----------------------------------------------------------------------------------------------

uint64_t gyre_matrices_turning(const struct gyre_matrices *m)
{
    return (m->r1 ? (uint64_t)m->width * m->width : 0) + (uint64_t)m->layers * m->kv_heads * m->head_dim * m->head_dim;
}

uint64_t gyre_matrices_count(const struct gyre_matrices *m)
{
    const uint64_t kv = (uint64_t)m->kv_heads * m->head_dim;
    return gyre_matrices_turning(m) +
           (m->ffn ? m->layers * ((uint64_t)GYRE_PAIRED_NORMS * m->width + m->ffn + kv + kv / 2) : 0);
}

double *gyre_matrices_data(const struct gyre_matrices *m) { return m->r1 ? m->r1 : m->r2; }

double *gyre_matrices_r2(const struct gyre_matrices *m, uint32_t layer, uint32_t kv_head)
{
    return m->r2 + ((uint64_t)layer * m->kv_heads + kv_head) * m->head_dim * m->head_dim;
}

double *gyre_matrices_norm(const struct gyre_matrices *m, uint32_t layer, gyre_product product)
{
    uint64_t at = 0;
    for (int p = 0; p < (int)product; p++) at += gyre_products[p].norm != GYRE_ROLE_none;
    if (!m->norm || gyre_products[product].norm == GYRE_ROLE_none) return NULL;
    return m->norm + ((uint64_t)layer * GYRE_PAIRED_NORMS + at) * m->width;
}

gyre_status gyre_matrices_create(uint32_t width, uint32_t layers, uint32_t kv_heads, uint32_t head_dim, uint32_t ffn,
                                 bool has_r1, struct gyre_matrices *m, gyre_error *err)
{
    const uint64_t first = has_r1 ? (uint64_t)width * width : 0, kv = (uint64_t)kv_heads * head_dim;
    *m = (struct gyre_matrices){
        .width = width, .layers = layers, .kv_heads = kv_heads, .head_dim = head_dim, .ffn = ffn};
    double *all = calloc(first + gyre_matrices_count(m), sizeof *all); // without R1, as it stands
    if (!all) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for rotations");
    if (has_r1) m->r1 = all;
    m->r2 = all + first;
    if (!ffn) return GYRE_OK;
    m->norm = m->r2 + layers * kv * head_dim;
    m->up_down = m->norm + (uint64_t)layers * GYRE_PAIRED_NORMS * width;
    m->value = m->up_down + (uint64_t)layers * ffn;
    m->qk = m->value + layers * kv;
    return GYRE_OK;
}

gyre_status gyre_matrices_create_as(const struct gyre_matrices *m, struct gyre_matrices *out, gyre_error *err)
{
    return gyre_matrices_create(m->width, m->layers, m->kv_heads, m->head_dim, m->ffn, m->r1 != NULL, out, err);
}

void gyre_matrices_release(struct gyre_matrices *m)
{
    free(gyre_matrices_data(m));
    *m = (struct gyre_matrices){0};
}

void gyre_matrices_narrow(struct gyre_matrices *m)
{
    double *x = gyre_matrices_data(m);
    for (uint64_t i = 0; i < gyre_matrices_count(m); i++) x[i] = (double)(float)x[i];
}

// ---- orthogonality ----------------------------------------------------------------------------------------

// The largest |R R' - I|, row by row.
static double drift_of(const double *r, uint32_t n)
{
    double worst = 0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j <= i; j++) {
            const double d = fabs(cblas_ddot((int)n, r + (uint64_t)i * n, 1, r + (uint64_t)j * n, 1) - (i == j));
            if (!(d <= worst)) worst = d; // NaN stays
        }
    return worst;
}

double gyre_matrices_drift(const struct gyre_matrices *m)
{
    double worst = m->r1 ? drift_of(m->r1, m->width) : 0;
    for (uint32_t l = 0; l < m->layers; l++)
        for (uint32_t j = 0; j < m->kv_heads; j++) {
            const double d = drift_of(gyre_matrices_r2(m, l, j), m->head_dim);
            if (!(d <= worst)) worst = d;
        }
    return worst;
}

double gyre_matrices_widest(const struct gyre_matrices *m)
{
    const double *x = gyre_matrices_data(m);
    double widest = 1;
    for (uint64_t i = gyre_matrices_turning(m); i < gyre_matrices_count(m); i++) {
        const double size = x[i] > 0 ? fmax(x[i], 1 / x[i]) : INFINITY;
        widest = fmax(widest, size);
    }
    return widest;
}

// ---- applying ---------------------------------------------------------------------------------------------

gyre_status gyre_dense_apply(const double *r, uint32_t n, double *x, uint64_t stride, uint64_t count, uint64_t step,
                             bool transposed, gyre_error *err)
{
    const bool rows = stride == 1;
    const uint64_t ld = !rows ? stride : count > 1 ? step : n; // of x as a row-major matrix
    bool good = true;
#pragma omp parallel for schedule(static)
    for (int64_t piece = 0; piece < (int64_t)gyre_div_up(count, CHUNK); piece++) {
        const uint64_t first = (uint64_t)piece * CHUNK, m = GYRE_MIN((uint64_t)CHUNK, count - first);
        double *y = malloc(m * n * sizeof *y), *at = x + first * step;
        if (!y) {
#pragma omp atomic write
            good = false;
            continue;
        }
        if (rows) { // [m][n] := [m][n] R
            cblas_dgemm(CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)n, 1,
                        at, (int)ld, r, (int)n, 0, y, (int)n);
            for (uint64_t v = 0; v < m; v++) memcpy(at + v * ld, y + v * n, n * sizeof *y);
        } else { // [n][m] := R' [n][m]
            cblas_dgemm(CblasRowMajor, transposed ? CblasNoTrans : CblasTrans, CblasNoTrans, (int)n, (int)m, (int)n, 1,
                        r, (int)n, at, (int)ld, 0, y, (int)m);
            for (uint64_t i = 0; i < n; i++) memcpy(at + i * ld, y + i * m, m * sizeof *y);
        }
        free(y);
    }
    return good ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "out of memory for rotating");
}
