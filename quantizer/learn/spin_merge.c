// See spin_impl.h. Gradients through the merge: W' = W R reads, W' = R' W writes, and a diagonal's logarithm gets the
// row products of R with the gradient of R on the side that it multiplies, less those on the side that it divides.
#include "quantizer/learn/spin_impl.h"
#include "quantizer/file/plan.h"
#include "quantizer/transform/diagonals.h"
#include "runtime/util/base.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "out of memory for rotations"); }

// ---- what is merged where ---------------------------------------------------------------------------------------

// A norm of the heads undoes what a diagonal would merge in front of it.
static bool pairs_qk(const gyre_spin *s) { return s->at.qk && !gyre_role_present(&s->hp, GYRE_ROLE_q_norm, 0); }

static bool is_merged(const gyre_spin *s, gyre_role role)
{
    if (gyre_roles[role].writes == GYRE_ROTATION_R2 ||
        gyre_products[gyre_roles[role].product].reads == GYRE_ROTATION_R2)
        return true;
    if (role == GYRE_ROLE_q || role == GYRE_ROLE_k) return pairs_qk(s);
    return s->at.up_down && (role == GYRE_ROLE_up || role == GYRE_ROLE_down);
}

struct gyre_weight *gyre_spin_turn(gyre_spin *s, gyre_product product)
{
    if (gyre_products[product].reads != GYRE_ROTATION_R1 || (!s->at.r1 && !s->at.norm)) return NULL;
    return &s->turn[s->at.norm ? product : 0];
}

// The first row of a linear in its product.
static uint32_t first_row(const gyre_spin *s, gyre_role role)
{
    uint64_t at = 0, rows, cols;
    for (int r = 0; r < (int)role; r++) {
        if (gyre_roles[r].product != gyre_roles[role].product) continue;
        gyre_role_shape((gyre_role)r, &s->hp, &rows, &cols);
        at += rows;
    }
    return (uint32_t)at;
}

// ---- loading ----------------------------------------------------------------------------------------------------

static float *copied(const float *from, uint64_t n)
{
    float *to = malloc(n * sizeof *to);
    if (to) memcpy(to, from, n * sizeof *to);
    return to;
}

static gyre_status load_product(gyre_spin *s, const struct gyre_folded *from, gyre_product product,
                                struct gyre_layer_weights *w, gyre_error *err)
{
    uint64_t total = 0, rows, cols;
    bool biased = false;
    gyre_status st = GYRE_OK;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        if (gyre_roles[r].product != product) continue;
        gyre_role_shape((gyre_role)r, &s->hp, &rows, &cols);
        total += rows;
        biased |= from->bias[r] != NULL;
    }
    const uint32_t k = gyre_product_width(product, &s->hp);
    GYRE_TRY(gyre_weight_create(s->runner->device, GYRE_WEIGHT_F32, (uint32_t)total, k, k, gyre_products[product].name,
                                &w->product[product], err));
    float *bias = calloc(total, sizeof *bias);
    if (!bias) return no_memory(err);
    for (int r = 0; r < GYRE_LINEARS; r++) {
        if (gyre_roles[r].product != product) continue;
        const uint32_t n0 = first_row(s, (gyre_role)r);
        gyre_role_shape((gyre_role)r, &s->hp, &rows, &cols);
        GYRE_GO(
            gyre_weight_fill(s->repacker, &w->product[product], n0, (uint32_t)rows, from->linear[r], NULL, NULL, err));
        if (from->bias[r]) memcpy(bias + n0, from->bias[r], rows * sizeof *bias);
    }
    if (biased) GYRE_GO(gyre_upload(s->runner->device, bias, total * sizeof *bias, "bias", &w->bias[product], err));
done:
    free(bias);
    return st;
}

// Linears as they are before anything is merged, R4 taken off again.
static gyre_status keep_own(gyre_spin *s, uint32_t l, const struct gyre_folded *from, gyre_role role, gyre_error *err)
{
    uint64_t rows, cols;
    gyre_role_shape(role, &s->hp, &rows, &cols);
    if (!(s->own[role][l] = copied(from->linear[role], rows * cols))) return no_memory(err);
    if (from->bias[role] && !(s->bias[role][l] = copied(from->bias[role], rows))) return no_memory(err);
    if (gyre_products[gyre_roles[role].product].reads != GYRE_ROTATION_R4 || !s->merge.r4.n) return GYRE_OK;
    double *wide = malloc(rows * cols * sizeof *wide);
    if (!wide) return no_memory(err);
    for (uint64_t i = 0; i < rows * cols; i++) wide[i] = (double)from->linear[role][i];
    const gyre_status st = gyre_hadamard_apply(&s->merge.r4, wide, cols, 1, rows, cols, NULL, true, err);
    for (uint64_t i = 0; i < rows * cols; i++) s->own[role][l][i] = (float)wide[i];
    free(wide);
    return st;
}

static gyre_status load_block(gyre_spin *s, uint32_t l, const struct gyre_folded *from, gyre_error *err)
{
    struct gyre_layer_weights *w = &s->layer[l];
    gyre_device *device = s->runner->device;
    const uint32_t hd = s->hp.head_dim;
    w->kind = from->kind;
    for (int p = 0; p < GYRE_PRODUCTS; p++) GYRE_TRY(load_product(s, from, (gyre_product)p, w, err));
    for (int r = 0; r < GYRE_LINEARS; r++)
        if (s->own[r]) GYRE_TRY(keep_own(s, l, from, (gyre_role)r, err));
    for (int r = GYRE_LINEARS; r < GYRE_BLOCK_ROLES; r++)
        if (from->vector[r] && !gyre_role_is_of_heads((gyre_role)r))
            GYRE_TRY(gyre_upload(device, from->vector[r], s->hp.width * sizeof(float), "norm", &w->norm[r], err));
    if (!from->vector[GYRE_ROLE_q_norm]) return GYRE_OK;
    float gains[2 * GYRE_MAX_HEAD_DIM];
    memcpy(gains, from->vector[GYRE_ROLE_q_norm], hd * sizeof *gains);
    memcpy(gains + hd, from->vector[GYRE_ROLE_k_norm], hd * sizeof *gains);
    return gyre_upload(device, gains, 2 * (uint64_t)hd * sizeof *gains, "head gains", &w->head_gains, err);
}

gyre_status gyre_spin_load(gyre_spin *s, const struct gyre_plan *plan, gyre_error *err)
{
    const uint32_t D = s->hp.width, layers = s->hp.n_layers;
    gyre_folder *folder = NULL;
    struct gyre_folded block;
    gyre_status st = GYRE_OK;
    s->merge = plan->rotator;
    s->merge.r1.n = 0;
    s->merge.fold = false;
    s->merge.learned = &s->at;
    s->layer = calloc(layers, sizeof *s->layer);
    bool good = s->layer != NULL;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        if (!is_merged(s, (gyre_role)r)) continue;
        good &= (s->own[r] = calloc(layers, sizeof *s->own[r])) != NULL;
        good &= (s->bias[r] = calloc(layers, sizeof *s->bias[r])) != NULL;
    }
    if (!good) return no_memory(err);
    for (int p = 0; p < GYRE_PRODUCTS; p++) {
        struct gyre_weight *turn = gyre_spin_turn(s, (gyre_product)p);
        if (!turn || turn->k) continue;
        struct gyre_weight *back = &s->back[turn - s->turn];
        GYRE_TRY(gyre_weight_create(s->runner->device, GYRE_WEIGHT_F32, D, D, D, "R1", turn, err));
        GYRE_TRY(gyre_weight_create(s->runner->device, GYRE_WEIGHT_F32, D, D, D, "R1 back", back, err));
    }
    GYRE_TRY(gyre_folder_open(plan, &folder, err));
    for (uint32_t l = 0; l < layers; l++) {
        GYRE_GO(gyre_folder_block(folder, l, &block, err));
        GYRE_GO(load_block(s, l, &block, err));
    }
done:
    gyre_folder_close(folder);
    return st;
}

void gyre_spin_unload(gyre_spin *s)
{
    gyre_device *device = s->runner ? s->runner->device : NULL; // NULL: nothing was made on it
    for (int r = 0; r < GYRE_LINEARS; r++) {
        for (uint32_t l = 0; l < s->hp.n_layers; l++) {
            if (s->own[r]) free(s->own[r][l]);
            if (s->bias[r]) free(s->bias[r][l]);
        }
        free(s->own[r]);
        free(s->bias[r]);
    }
    for (uint32_t l = 0; device && s->layer && l < s->hp.n_layers; l++) gyre_layer_weights_free(device, &s->layer[l]);
    free(s->layer);
    for (int p = 0; device && p < GYRE_PRODUCTS; p++) {
        gyre_weight_destroy(device, &s->turn[p]);
        gyre_weight_destroy(device, &s->back[p]);
    }
}

// ---- merging ----------------------------------------------------------------------------------------------------

// A linear and its bias as the matrices have them now; d->up_down NULL: without diagonals.
static gyre_status merge(gyre_spin *s, uint32_t layer, gyre_role role, const struct gyre_diagonals *d, double *wide,
                         float *narrow, gyre_error *err)
{
    struct gyre_layer_weights *w = &s->layer[layer];
    const gyre_product product = gyre_roles[role].product;
    const uint32_t n0 = first_row(s, role);
    uint64_t rows, cols;
    gyre_role_shape(role, &s->hp, &rows, &cols);
    for (uint64_t i = 0; i < rows * cols; i++) wide[i] = (double)s->own[role][layer][i];
    if (d->up_down) gyre_diagonals_before(d, role, false, wide);
    GYRE_TRY(gyre_rotate_linear(&s->merge, role, layer, NULL, wide, err));
    for (uint64_t i = 0; i < rows * cols; i++) narrow[i] = (float)wide[i];
    GYRE_TRY(gyre_weight_fill(s->repacker, &w->product[product], n0, (uint32_t)rows, narrow, NULL, NULL, err));
    if (!s->bias[role][layer]) return GYRE_OK;
    for (uint64_t i = 0; i < rows; i++) wide[i] = (double)s->bias[role][layer][i];
    if (d->up_down) gyre_diagonals_bias(d, role, wide);
    GYRE_TRY(gyre_rotate_bias(&s->merge, role, layer, wide, err));
    for (uint64_t i = 0; i < rows; i++) narrow[i] = (float)wide[i];
    return gyre_buffer_write(s->runner->device, w->bias[product].buffer, w->bias[product].offset + n0 * sizeof *narrow,
                             narrow, rows * sizeof *narrow, err);
}

// turn and back of a product, with a diagonal (NULL: ones) between; r1 NULL: the unit matrix.
static gyre_status fill_turn(gyre_spin *s, gyre_product product, const double *diagonal, float *narrow, gyre_error *err)
{
    const uint64_t D = s->hp.width;
    struct gyre_weight *turn = gyre_spin_turn(s, product), *back = &s->back[turn - s->turn];
    const double *r1 = s->at.r1;
    for (int way = 0; way < 2; way++) {
        for (uint64_t i = 0; i < D * D; i++) { // row n of turn is column n of R1
            const uint64_t k = way ? i / D : i % D, n = way ? i % D : i / D;
            const double r = r1 ? r1[k * D + n] : k == n, by = diagonal ? diagonal[n] : 1;
            narrow[i] = (float)(way ? r / by : r * by);
        }
        GYRE_TRY(gyre_weight_fill(s->repacker, way ? back : turn, 0, (uint32_t)D, narrow, NULL, NULL, err));
    }
    return GYRE_OK;
}

gyre_status gyre_spin_enter(gyre_spin *s, uint32_t layer, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    if (!s->at.norm) return GYRE_OK; // there once for all
    float *narrow = malloc((uint64_t)s->hp.width * s->hp.width * sizeof *narrow);
    if (!narrow) return no_memory(err);
    for (int p = 0; p < GYRE_PRODUCTS && st == GYRE_OK; p++)
        if (gyre_spin_turn(s, (gyre_product)p))
            st = fill_turn(s, (gyre_product)p, gyre_matrices_norm(&s->at, layer, (gyre_product)p), narrow, err);
    free(narrow);
    return st;
}

gyre_status gyre_spin_set(gyre_spin *s, const struct gyre_matrices *at, gyre_error *err)
{
    const uint64_t D = s->hp.width;
    uint64_t rows, cols, most = D * D;
    struct gyre_diagonals d = {0};
    gyre_status st = GYRE_OK;
    memcpy(gyre_matrices_data(&s->at), gyre_matrices_data(at), gyre_matrices_count(at) * sizeof(double));
    for (int r = 0; r < GYRE_LINEARS; r++) {
        gyre_role_shape((gyre_role)r, &s->hp, &rows, &cols);
        most = GYRE_MAX(most, rows * cols);
    }
    double *wide = malloc(most * sizeof *wide);
    float *narrow = malloc(most * sizeof *narrow);
    if (!wide || !narrow) GYRE_GO(no_memory(err));
    if (s->at.r1 && !s->at.norm) GYRE_GO(fill_turn(s, 0, NULL, narrow, err));
    if (s->at.norm) GYRE_GO(gyre_diagonals_create(&s->hp, &d, err));
    for (uint32_t l = 0; l < s->hp.n_layers; l++) {
        if (s->at.norm) gyre_diagonals_take(&s->at, l, &d);
        for (int r = 0; r < GYRE_LINEARS; r++)
            if (s->own[r]) GYRE_GO(merge(s, l, (gyre_role)r, &d, wide, narrow, err));
    }
done:
    gyre_diagonals_release(&d);
    free(wide);
    free(narrow);
    return st;
}

// ---- gradients --------------------------------------------------------------------------------------------------

gyre_status gyre_spin_ask(gyre_spin *s, gyre_reverse *r, uint32_t layer, struct gyre_spin_found *out, gyre_error *err)
{
    const struct gyre_layer_weights *w = &s->layer[layer];
    *out = (struct gyre_spin_found){0};
    for (int i = 0; i < GYRE_LINEARS; i++) {
        const gyre_product p = gyre_roles[i].product;
        if (!s->own[i] || out->weight[p]) continue;
        if (!(out->weight[p] = gyre_reverse_weight(r, &w->product[p]))) return no_memory(err);
        if (w->bias[p].buffer && !(out->bias[p] = gyre_reverse_data(r, w->bias[p]))) return no_memory(err);
    }
    for (int p = 0; p < GYRE_PRODUCTS; p++) {
        const struct gyre_weight *turn = gyre_spin_turn(s, (gyre_product)p);
        const int64_t at = turn ? turn - s->turn : 0;
        if (!turn || out->turn[at]) continue;
        if (!(out->turn[at] = gyre_reverse_weight(r, turn)) || !(out->back[at] = gyre_reverse_weight(r, &s->back[at])))
            return no_memory(err);
    }
    return GYRE_OK;
}

// sum [m][m] += the product of two pieces of a linear and of its gradient: rows of a head (a b'), or its columns
// (a' b); n the other side.
static void cross(const float *a, const float *b, uint64_t ld, uint64_t n, uint32_t m, bool by_rows, double *sum)
{
    float *part = malloc((uint64_t)m * m * sizeof *part);
    for (uint64_t i = 0; !part && i < (uint64_t)m * m; i++) sum[i] = NAN; // refused as any other
    if (!part) return;
    cblas_sgemm(CblasRowMajor, by_rows ? CblasNoTrans : CblasTrans, by_rows ? CblasTrans : CblasNoTrans, (int)m, (int)m,
                (int)n, 1, a, (int)ld, b, (int)ld, 0, part, (int)m);
    for (uint64_t i = 0; i < (uint64_t)m * m; i++) sum[i] += (double)part[i];
    free(part);
}

// to[i] += sign times the sum over row i of r o g.
static void add_rows(const double *r, const double *g, uint32_t n, double sign, double *to)
{
    for (uint32_t i = 0; i < n; i++) to[i] += sign * cblas_ddot((int)n, r + (uint64_t)i * n, 1, g + (uint64_t)i * n, 1);
}

// R2, and the diagonal in front of it, which multiplies rows of v and divides columns of o. part [hd][hd].
static void collect_r2(const gyre_spin *s, uint32_t layer, const struct gyre_spin_found *f,
                       struct gyre_matrices *gradient, double *part)
{
    const uint32_t hd = s->hp.head_dim, group = s->hp.heads / s->hp.kv_heads;
    const uint64_t kv = (uint64_t)s->hp.kv_heads * hd, each = (uint64_t)hd * hd;
    for (int side = 0; side < 2; side++) {
        const gyre_role role = side ? GYRE_ROLE_o : GYRE_ROLE_v;
        const gyre_product product = gyre_roles[role].product;
        const uint32_t n0 = first_row(s, role);
        const float *own = s->own[role][layer], *bias = s->bias[role][layer];
        uint64_t rows, cols;
        gyre_role_shape(role, &s->hp, &rows, &cols);
        for (uint32_t j = 0; j < s->hp.kv_heads; j++) {
            const double *r2 = gyre_matrices_r2(&s->at, layer, j),
                         *t = s->at.value ? s->at.value + layer * kv + (uint64_t)j * hd : NULL;
            memset(part, 0, each * sizeof *part);
            if (!side)
                cross(own + (uint64_t)j * hd * cols, f->weight[product] + (n0 + (uint64_t)j * hd) * cols, cols, cols,
                      hd, true, part);
            for (uint32_t i = 0; !side && bias && i < each; i++)
                part[i] += (double)bias[j * hd + i / hd] * (double)f->bias[product][n0 + j * hd + i % hd];
            for (uint32_t h = j * group; side && h < (j + 1) * group; h++)
                cross(own + (uint64_t)h * hd, f->weight[product] + (uint64_t)h * hd, cols, rows, hd, false, part);
            for (uint64_t i = 0; t && i < each; i++) part[i] = side ? part[i] / t[i / hd] : part[i] * t[i / hd];
            cblas_daxpy((int)each, 1, part, 1, gyre_matrices_r2(gradient, layer, j), 1);
            if (t) add_rows(r2, part, hd, side ? -1 : 1, gradient->value + layer * kv + (uint64_t)j * hd);
        }
    }
}

// R1, and the diagonals behind norms. turn [n][k] is R1' with a diagonal, back [k][n] R1 without it again; columns of
// R1 are their n.
static void collect_r1(const gyre_spin *s, uint32_t layer, const struct gyre_spin_found *f,
                       struct gyre_matrices *gradient)
{
    const uint64_t D = s->hp.width;
    for (int p = 0; p < GYRE_PRODUCTS; p++) {
        const double *l = gyre_matrices_norm(&s->at, layer, (gyre_product)p);
        double *dl = gyre_matrices_norm(gradient, layer, (gyre_product)p);
        for (uint64_t i = 0; f->turn[p] && i < D * D; i++) {
            const uint64_t k = i / D, n = i % D;
            const double by = l ? l[n] : 1, turn = (double)f->turn[p][n * D + k] * by,
                         back = (double)f->back[p][i] / by, r = s->at.r1 ? s->at.r1[i] : k == n;
            if (gradient->r1) gradient->r1[i] += back + turn;
            if (dl) dl[n] += r * (turn - back);
        }
    }
}

// What a factor of row i of a linear gets by its logarithm, weight and bias.
static double of_row(const gyre_spin *s, uint32_t layer, gyre_role role, const struct gyre_spin_found *f, uint64_t i)
{
    const gyre_product product = gyre_roles[role].product;
    const uint64_t at = first_row(s, role) + i;
    const float *bias = s->bias[role][layer];
    uint64_t rows, cols;
    gyre_role_shape(role, &s->hp, &rows, &cols);
    return cblas_dsdot((int)cols, s->own[role][layer] + i * cols, 1, f->weight[product] + at * cols, 1) +
           (bias ? (double)bias[i] * (double)f->bias[product][at] : 0);
}

// Queries are divided where keys are multiplied; scale: of the row as it is merged.
static void collect_qk(const gyre_spin *s, uint32_t layer, const struct gyre_spin_found *f,
                       const struct gyre_diagonals *d, struct gyre_matrices *gradient)
{
    const uint32_t hd = s->hp.head_dim, group = s->hp.heads / s->hp.kv_heads, half = hd / 2;
    double *to = gradient->qk + (uint64_t)layer * s->hp.kv_heads * half;
    for (uint64_t i = 0; i < (uint64_t)s->hp.heads * hd; i++) {
        const uint64_t at = i / hd / group * half + gyre_diagonals_pair(d, (uint32_t)i % hd);
        to[at] -= of_row(s, layer, GYRE_ROLE_q, f, i) / d->qk[at];
    }
    for (uint64_t i = 0; i < (uint64_t)s->hp.kv_heads * hd; i++) {
        const uint64_t at = i / hd * half + gyre_diagonals_pair(d, (uint32_t)i % hd);
        to[at] += of_row(s, layer, GYRE_ROLE_k, f, i) * d->qk[at];
    }
}

static gyre_status collect_up_down(const gyre_spin *s, uint32_t layer, const struct gyre_spin_found *f,
                                   const struct gyre_diagonals *d, struct gyre_matrices *gradient, gyre_error *err)
{
    const gyre_product product = gyre_roles[GYRE_ROLE_down].product;
    double *to = gradient->up_down + (uint64_t)layer * s->hp.ffn;
    uint64_t rows, cols;
    gyre_status st = GYRE_OK;
    gyre_role_shape(GYRE_ROLE_down, &s->hp, &rows, &cols);
    double *wide = malloc(rows * cols * sizeof *wide);
    if (!wide) return no_memory(err);
    for (uint64_t i = 0; i < rows * cols; i++) wide[i] = (double)f->weight[product][i];
    if (s->merge.r4.n) st = gyre_hadamard_apply(&s->merge.r4, wide, cols, 1, rows, cols, NULL, true, err);
    for (uint64_t i = 0; i < rows * cols; i++)
        to[i % cols] -= wide[i] * (double)s->own[GYRE_ROLE_down][layer][i] / d->up_down[i % cols];
    for (uint64_t i = 0; i < cols; i++) to[i] += of_row(s, layer, GYRE_ROLE_up, f, i) * d->up_down[i];
    free(wide);
    return st;
}

gyre_status gyre_spin_collect(gyre_spin *s, uint32_t layer, const struct gyre_spin_found *f,
                              struct gyre_matrices *gradient, gyre_error *err)
{
    struct gyre_diagonals d = {0};
    gyre_status st = GYRE_OK;
    double *part = malloc((uint64_t)s->hp.head_dim * s->hp.head_dim * sizeof *part);
    if (!part) return no_memory(err);
    collect_r1(s, layer, f, gradient);
    collect_r2(s, layer, f, gradient, part);
    if (s->at.norm) {
        GYRE_GO(gyre_diagonals_create(&s->hp, &d, err));
        gyre_diagonals_take(&s->at, layer, &d);
        if (pairs_qk(s)) collect_qk(s, layer, f, &d, gradient);
        st = collect_up_down(s, layer, f, &d, gradient, err);
    }
done:
    gyre_diagonals_release(&d);
    free(part);
    return st;
}
