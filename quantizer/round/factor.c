// See factor.h.
#include "quantizer/round/factor.h"
#include "quantizer/round/gemm.h"
#include "runtime/util/base.h"

#include <lapacke.h>
#include <stdlib.h>
#include <string.h>

// Descending diagonal; ties keep their order, so that the result is defined.
static void sort_inputs(const double *h, uint32_t n, uint32_t *order)
{
    for (uint32_t gap = n / 2; gap; gap /= 2)
        for (uint32_t i = gap; i < n; i++) {
            const uint32_t v = order[i];
            const double key = h[(uint64_t)v * n + v];
            uint32_t j = i;
            for (; j >= gap; j -= gap) {
                const uint32_t other = order[j - gap];
                const double rival = h[(uint64_t)other * n + other];
                if (rival > key || (rival == key && other < v)) break;
                order[j] = other;
            }
            order[j] = v;
        }
}

// U of the damped H in the order of `order`; false if H is not positive definite.
static bool factor(const struct gyre_factor *f, double damping)
{
    const uint64_t n = f->n;
    double *u = f->u;
    // Element (i, j) of H read backwards; LAPACK sees column-major, and H is symmetric.
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = 0; j < n; j++)
            u[i * n + j] = f->h[(uint64_t)f->order[n - 1 - i] * n + f->order[n - 1 - j]] + (i == j ? damping : 0);
    if (LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'L', (lapack_int)n, u, (lapack_int)n)) return false;
    if (LAPACKE_dtrtri(LAPACK_COL_MAJOR, 'L', 'N', (lapack_int)n, u, (lapack_int)n)) return false;
    // L^-1, column-major lower and backwards, is U row-major upper once both axes are turned and it is transposed:
    // U[i][j] = Linv[n-1-i][n-1-j], and Linv[r][c] lies at u[c * n + r].
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = 0; j < i; j++) u[i * n + j] = 0; // the unused triangle
    for (uint64_t c = 0; c < n; c++) // turn around the anti-diagonal: (r, c) at [c*n+r] -> row n-1-r, column n-1-c
        for (uint64_t r = c; r < n; r++) {
            const uint64_t to = (n - 1 - r) * n + (n - 1 - c), from = c * n + r;
            if (from < to) {
                const double t = u[from];
                u[from] = u[to];
                u[to] = t;
            }
        }
    return true;
}

gyre_status gyre_factor_create(const float *h, uint32_t n, double damp, bool act_order, struct gyre_factor *out,
                               gyre_error *err)
{
    const uint64_t nn = (uint64_t)n * n;
    double mean = 0;
    *out = (struct gyre_factor){.n = n,
                                .h = malloc(nn * sizeof *out->h),
                                .u = malloc(nn * sizeof *out->u),
                                .order = malloc(n * sizeof *out->order)};
    if (!out->h || !out->u || !out->order) {
        gyre_factor_release(out);
        return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the Hessian of %u inputs", n);
    }
    for (uint64_t i = 0; i < nn; i++) out->h[i] = (double)h[i];
    for (uint32_t i = 0; i < n; i++) mean += out->h[(uint64_t)i * n + i] / n;
    if (mean <= 0) mean = 1; // nothing ever fired: any rounding is as good
    for (uint32_t i = 0; i < n; i++) {
        out->order[i] = i;
        if (out->h[(uint64_t)i * n + i] > 0) continue;
        for (uint32_t j = 0; j < n; j++) out->h[(uint64_t)i * n + j] = out->h[(uint64_t)j * n + i] = 0;
        out->h[(uint64_t)i * n + i] = mean;
        out->dead++;
    }
    if (act_order) sort_inputs(out->h, n, out->order);
    for (out->damp = damp; !factor(out, out->damp * mean); out->damp = GYRE_MIN(out->damp * 10, 1.0))
        if (out->damp >= 1) {
            gyre_factor_release(out);
            return gyre_fail(err, GYRE_E_FORMAT,
                             "the Hessian of %u inputs is not positive definite, even with its mean "
                             "diagonal added to the diagonal; calibrate on other or more text",
                             n);
        }
    for (uint32_t i = 0; i < n; i++) out->h[(uint64_t)i * n + i] += out->damp * mean;
    return GYRE_OK;
}

void gyre_factor_release(struct gyre_factor *f)
{
    free(f->h);
    free(f->u);
    free(f->order);
    *f = (struct gyre_factor){0};
}

void gyre_factor_solve(const struct gyre_factor *f, uint64_t rows, double *x, double *scratch)
{
    const uint32_t n = f->n;
    for (uint64_t r = 0; r < rows; r++)
        for (uint32_t i = 0; i < n; i++) scratch[r * n + i] = x[r * n + f->order[i]];
    gyre_gemm_gram(f->u, rows, n, scratch);
    for (uint64_t r = 0; r < rows; r++)
        for (uint32_t i = 0; i < n; i++) x[r * n + f->order[i]] = scratch[r * n + i];
}

double gyre_factor_energy(const struct gyre_factor *f, uint64_t rows, const double *d, double *scratch,
                          double *row_error)
{
    const uint32_t n = f->n;
    double total = 0;
    gyre_gemm_symmetric(d, f->h, rows, n, scratch);
    for (uint64_t r = 0; r < rows; r++) {
        double sum = 0;
        for (uint32_t i = 0; i < n; i++) sum += scratch[r * n + i] * d[r * n + i];
        if (row_error) row_error[r] = sum;
        total += sum;
    }
    return total;
}
