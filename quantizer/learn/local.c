// The losses that need no gradient through the model.
//
// OptRot (arXiv 2512.24124): the fourth powers of the rotated weights, from no data. Of a linear W' of n numbers the
// loss is n sum w'^4 / (sum w'^2)^2, its kurtosis: 3 where weights are Gaussian, less where a row has no outliers; over
// all linears the mean. A step sees every STRIDE-th block, another set each time.
#include "quantizer/learn/folded.h"
#include "quantizer/learn/objective.h"
#include "runtime/util/base.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

enum { STRIDE = 6 };

struct local {
    gyre_folder *folder;
    struct gyre_hparams hp; // borrows
    double *w, *y, *g;      // [largest linear]
};

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "out of memory for learning"); }

static void close_it(void *self)
{
    struct local *l = self;
    gyre_folder_close(l->folder);
    free(l->w);
    free(l->y);
    free(l->g);
    free(l);
}

static gyre_status open_it(const struct gyre_objective_params *p, struct local **out, gyre_error *err)
{
    struct local *l = *out = calloc(1, sizeof *l);
    if (!l) return no_memory(err);
    l->hp = gyre_folder_hparams(p->plan);
    uint64_t most = 0, rows, cols;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        gyre_role_shape((gyre_role)r, &l->hp, &rows, &cols);
        most = GYRE_MAX(most, rows * cols);
    }
    l->w = malloc(most * sizeof *l->w);
    l->y = malloc(most * sizeof *l->y);
    l->g = malloc(most * sizeof *l->g);
    if (!l->w || !l->y || !l->g) return no_memory(err);
    return gyre_folder_open(p->plan, &l->folder, err);
}

// ---- fourth powers ----------------------------------------------------------------------------------------------

// y [n] becomes the gradient of its kurtosis; returns the kurtosis.
static double kurtosis(double *y, uint64_t n)
{
    double two = 0, four = 0;
    for (uint64_t i = 0; i < n; i++) {
        const double square = y[i] * y[i];
        two += square;
        four += square * square;
    }
    if (two == 0) return 0;
    for (uint64_t i = 0; i < n; i++) y[i] *= 4 * (double)n * (y[i] * y[i] - four / two) / (two * two);
    return (double)n * four / (two * two);
}

// What a linear gets of its rotations before R1 or R2 on one side is looked at: w [rows][cols] to l->y.
static gyre_status rotate_linear(struct local *l, const struct gyre_matrices *at, gyre_role role, uint32_t layer,
                                 bool readers, bool writers, double *x, gyre_error *err)
{
    const uint32_t hd = l->hp.head_dim, group = l->hp.heads / l->hp.kv_heads;
    const gyre_rotation reads = gyre_products[gyre_roles[role].product].reads, writes = gyre_roles[role].writes;
    uint64_t rows, cols;
    gyre_role_shape(role, &l->hp, &rows, &cols);
    if (readers && reads == GYRE_ROTATION_R1 && at->r1)
        GYRE_TRY(gyre_dense_apply(at->r1, at->width, x, 1, rows, cols, false, err));
    for (uint32_t h = 0; readers && reads == GYRE_ROTATION_R2 && h < l->hp.heads; h++)
        GYRE_TRY(gyre_dense_apply(gyre_matrices_r2(at, layer, h / group), hd, x + (uint64_t)h * hd, 1, rows, cols,
                                  false, err));
    if (writers && writes == GYRE_ROTATION_R1 && at->r1)
        GYRE_TRY(gyre_dense_apply(at->r1, at->width, x, cols, cols, 1, false, err));
    for (uint32_t j = 0; writers && writes == GYRE_ROTATION_R2 && j < l->hp.kv_heads; j++)
        GYRE_TRY(gyre_dense_apply(gyre_matrices_r2(at, layer, j), hd, x + (uint64_t)j * hd * cols, cols, cols, 1, false,
                                  err));
    return GYRE_OK;
}

// dR [n][n] += scale a' g (readers: y = a R, a and g [count][n]) or a g' (writers: y = R' a, [n][count]).
static void cross(const double *a, const double *g, uint64_t ld, uint64_t count, uint32_t n, bool reads, double scale,
                  double *sum)
{
    cblas_dgemm(CblasRowMajor, reads ? CblasTrans : CblasNoTrans, reads ? CblasNoTrans : CblasTrans, (int)n, (int)n,
                (int)count, scale, a, (int)ld, g, (int)ld, 1, sum, (int)n);
}

// The gradient of one side: l->w is turned by the other side only, l->g the gradient of what both make of it.
static gyre_status one_side(struct local *l, const struct gyre_matrices *at, gyre_role role, uint32_t layer,
                            bool readers, const float *exact, double scale, struct gyre_matrices *gradient,
                            gyre_error *err)
{
    const uint32_t hd = l->hp.head_dim, group = l->hp.heads / l->hp.kv_heads;
    const gyre_rotation by = readers ? gyre_products[gyre_roles[role].product].reads : gyre_roles[role].writes;
    uint64_t rows, cols;
    gyre_role_shape(role, &l->hp, &rows, &cols);
    if ((by != GYRE_ROTATION_R1 || !at->r1) && by != GYRE_ROTATION_R2) return GYRE_OK;
    for (uint64_t i = 0; i < rows * cols; i++) l->w[i] = (double)exact[i];
    GYRE_TRY(rotate_linear(l, at, role, layer, !readers, readers, l->w, err));
    if (by == GYRE_ROTATION_R1) {
        cross(l->w, l->g, cols, readers ? rows : cols, at->width, readers, scale, gradient->r1);
        return GYRE_OK;
    }
    for (uint32_t h = 0; h < (readers ? l->hp.heads : l->hp.kv_heads); h++) {
        const uint64_t from = (uint64_t)h * hd * (readers ? 1 : cols);
        cross(l->w + from, l->g + from, cols, readers ? rows : cols, hd, readers, scale,
              gyre_matrices_r2(gradient, layer, readers ? h / group : h));
    }
    return GYRE_OK;
}

static gyre_status one_linear(struct local *l, const struct gyre_matrices *at, gyre_role role, uint32_t layer,
                              const float *exact, double scale, double *loss, struct gyre_matrices *gradient,
                              gyre_error *err)
{
    uint64_t rows, cols;
    gyre_role_shape(role, &l->hp, &rows, &cols);
    for (uint64_t i = 0; i < rows * cols; i++) l->g[i] = (double)exact[i];
    GYRE_TRY(rotate_linear(l, at, role, layer, true, true, l->g, err));
    *loss += scale * kurtosis(l->g, rows * cols);
    if (!gradient) return GYRE_OK;
    GYRE_TRY(one_side(l, at, role, layer, true, exact, scale, gradient, err));
    return one_side(l, at, role, layer, false, exact, scale, gradient, err);
}

static gyre_status optrot_at(void *self, const struct gyre_matrices *at, uint32_t step, double *loss,
                             struct gyre_matrices *gradient, gyre_error *err)
{
    struct local *l = self;
    const uint32_t layers = l->hp.n_layers, stride = gradient ? GYRE_MIN((uint32_t)STRIDE, layers) : 1,
                   first = step % stride;
    const double scale = 1 / ((double)gyre_div_up(layers - first, stride) * GYRE_LINEARS);
    struct gyre_folded block;
    *loss = 0;
    if (gradient) memset(gyre_matrices_data(gradient), 0, gyre_matrices_count(gradient) * sizeof(double));
    for (uint32_t layer = first; layer < layers; layer += stride) {
        GYRE_TRY(gyre_folder_block(l->folder, layer, &block, err));
        for (int r = 0; r < GYRE_LINEARS; r++)
            GYRE_TRY(one_linear(l, at, (gyre_role)r, layer, block.linear[r], scale, loss, gradient, err));
    }
    return GYRE_OK;
}

gyre_status gyre_objective_optrot(const struct gyre_objective_params *params, struct gyre_objective *out,
                                  gyre_error *err)
{
    struct local *l = NULL;
    const gyre_status st = open_it(params, &l, err);
    *out = (struct gyre_objective){.at = optrot_at, .close = close_it, .self = l};
    return st;
}
