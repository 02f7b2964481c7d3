// See rotate.h. Sources: QuaRot (2404.00456) and SpinQuant (2405.16406) for the sites; the order of steps is fold, R1,
// R2, R4. GGUF permutes the rows of q and k inside each head, which no rotation here touches.
#include "quantizer/transform/rotate.h"
#include "runtime/util/rng.h"

#include <stdio.h>
#include <stdlib.h>

// ---- signs ------------------------------------------------------------------------------------------------

// Stream 0 is R1's; 1 + layer * kv_heads + head is R2's. Part of what a seed reproduces: do not change.
static void draw_signs(uint64_t seed, uint64_t stream, int8_t *out, uint32_t n)
{
    struct gyre_rng rng = gyre_rng_seed(seed);
    rng = gyre_rng_seed(gyre_rng_next(&rng) + stream * 0xD1342543DE82EF95u);
    for (uint32_t i = 0; i < n; i++) out[i] = gyre_rng_next(&rng) >> 63 ? -1 : 1;
}

// ---- rotators ---------------------------------------------------------------------------------------------

gyre_status gyre_rotator_create(const struct gyre_hparams *hp, uint64_t seed, bool fold, unsigned which,
                                struct gyre_rotator *out, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    *out = (struct gyre_rotator){.fold = fold,
                                 .width = hp->width,
                                 .heads = hp->heads,
                                 .kv_heads = hp->kv_heads,
                                 .head_dim = hp->head_dim,
                                 .ffn = hp->ffn,
                                 .seed = seed};
    out->online = !gyre_roles_merge_r1(hp);
    out->fold = fold && !out->online;
    if (which & (out->online ? GYRE_ROTATE_ONLINE_R1 : GYRE_ROTATE_R1)) {
        GYRE_GO(gyre_hadamard_create(gyre_hadamard_segment(hp->width), &out->r1, err));
        out->r1_signs = malloc(hp->width);
        if (!out->r1_signs) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for the signs of R1"));
        draw_signs(seed, 0, out->r1_signs, hp->width);
    }
    if (which & GYRE_ROTATE_R2) GYRE_GO(gyre_hadamard_create(gyre_hadamard_segment(hp->head_dim), &out->r2, err));
    if (which & GYRE_ROTATE_R4) GYRE_GO(gyre_hadamard_create(gyre_hadamard_segment(hp->ffn), &out->r4, err));
done:
    if (st != GYRE_OK) gyre_rotator_release(out);
    return st;
}

void gyre_rotator_release(struct gyre_rotator *rotator)
{
    gyre_hadamard_release(&rotator->r1);
    gyre_hadamard_release(&rotator->r2);
    gyre_hadamard_release(&rotator->r4);
    free(rotator->r1_signs);
    *rotator = (struct gyre_rotator){0};
}

// ---- merging ----------------------------------------------------------------------------------------------

static void fold_gain(const double *gain, double *w, uint64_t rows, uint64_t cols)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < (int64_t)rows; r++)
        for (uint64_t c = 0; c < cols; c++) w[(uint64_t)r * cols + c] *= gain[c];
}

gyre_status gyre_rotate_heads(const struct gyre_rotator *r, uint32_t layer, double *x, uint64_t rows, gyre_error *err)
{
    const uint32_t hd = r->head_dim, group = r->heads / r->kv_heads;
    for (uint32_t h = 0; h < r->heads && r->learned && r->r2.n; h++)
        GYRE_TRY(gyre_dense_apply(gyre_matrices_r2(r->learned, layer, h / group), hd, x + (uint64_t)h * hd, 1, rows,
                                  (uint64_t)r->heads * hd, false, err));
    if (r->learned) return GYRE_OK;
    int8_t *signs = malloc(hd);
    if (!signs) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the signs of R2");
    gyre_status st = GYRE_OK;
    for (uint32_t h = 0; h < r->heads && r->r2.n && st == GYRE_OK; h++) {
        draw_signs(r->seed, 1 + (uint64_t)layer * r->kv_heads + h / group, signs, hd);
        st = gyre_hadamard_apply(&r->r2, x + (uint64_t)h * hd, hd, 1, rows, (uint64_t)r->heads * hd, signs, false, err);
    }
    free(signs);
    return st;
}

// The rows of every kv head are columns of its value stream: R2 from the left, on `cols` columns.
static gyre_status rotate_values(const struct gyre_rotator *r, uint32_t layer, double *w, uint64_t cols,
                                 gyre_error *err)
{
    const uint32_t hd = r->head_dim;
    for (uint32_t j = 0; j < r->kv_heads && r->learned; j++)
        GYRE_TRY(gyre_dense_apply(gyre_matrices_r2(r->learned, layer, j), hd, w + (uint64_t)j * hd * cols, cols, cols,
                                  1, false, err));
    if (r->learned) return GYRE_OK;
    int8_t *signs = malloc(hd);
    if (!signs) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the signs of R2");
    gyre_status st = GYRE_OK;
    for (uint32_t j = 0; j < r->kv_heads && st == GYRE_OK; j++) {
        draw_signs(r->seed, 1 + (uint64_t)layer * r->kv_heads + j, signs, hd);
        st = gyre_hadamard_apply(&r->r2, w + (uint64_t)j * hd * cols, hd, cols, cols, 1, signs, false, err);
    }
    free(signs);
    return st;
}

// R1 on `count` vectors of the stream (hadamard.h's strides).
static gyre_status rotate_stream(const struct gyre_rotator *r, double *x, uint64_t stride, uint64_t count,
                                 uint64_t step, gyre_error *err)
{
    if (r->learned) return gyre_dense_apply(r->learned->r1, r->width, x, stride, count, step, false, err);
    return gyre_hadamard_apply(&r->r1, x, r->width, stride, count, step, r->r1_signs, false, err);
}

static struct gyre_hparams shape_of(const struct gyre_rotator *r)
{
    return (struct gyre_hparams){
        .width = r->width, .heads = r->heads, .kv_heads = r->kv_heads, .head_dim = r->head_dim, .ffn = r->ffn};
}

gyre_status gyre_rotate_input(const struct gyre_rotator *r, gyre_product product, uint32_t layer, double *x,
                              uint64_t rows, gyre_error *err)
{
    const gyre_rotation reads = gyre_products[product].reads;
    if (reads == GYRE_ROTATION_R1 && r->r1.n) return rotate_stream(r, x, 1, rows, r->width, err);
    if (reads == GYRE_ROTATION_R2 && r->r2.n) return gyre_rotate_heads(r, layer, x, rows, err);
    if (reads == GYRE_ROTATION_R4 && r->r4.n)
        return gyre_hadamard_apply(&r->r4, x, r->ffn, 1, rows, r->ffn, NULL, false, err);
    return GYRE_OK;
}

// R1 turns the stream, and with it what is added to it.
static bool turns_stream(const struct gyre_rotator *r) { return r->r1.n && !r->online; }

float gyre_rotate_gain(const struct gyre_rotator *r, gyre_product product, uint32_t i)
{
    return r->r1.n && r->online && gyre_products[product].reads == GYRE_ROTATION_R1 ? r->r1_signs[i] : 1;
}

gyre_status gyre_rotate_linear(const struct gyre_rotator *r, gyre_role role, uint32_t layer, const double *gain,
                               double *w, gyre_error *err)
{
    const struct gyre_hparams shape = shape_of(r);
    const gyre_product product = gyre_roles[role].product;
    const gyre_rotation writes = gyre_roles[role].writes;
    uint64_t rows, cols;
    gyre_role_shape(role, &shape, &rows, &cols);
    if (r->fold && gyre_products[product].norm != GYRE_ROLE_none) fold_gain(gain, w, rows, cols);
    if (turns_stream(r) && writes == GYRE_ROTATION_R1) GYRE_TRY(rotate_stream(r, w, cols, cols, 1, err));
    GYRE_TRY(gyre_rotate_input(r, product, layer, w, rows, err));
    return r->r2.n && writes == GYRE_ROTATION_R2 ? rotate_values(r, layer, w, cols, err) : GYRE_OK;
}

gyre_status gyre_rotate_output(const struct gyre_rotator *r, gyre_role role, uint32_t layer, double *y, uint64_t rows,
                               gyre_error *err)
{
    const gyre_rotation writes = gyre_roles[role].writes;
    if (turns_stream(r) && writes == GYRE_ROTATION_R1) return gyre_rotate_rows(r, NULL, y, rows, err);
    for (uint64_t i = 0; r->r2.n && writes == GYRE_ROTATION_R2 && i < rows; i++)
        GYRE_TRY(rotate_values(r, layer, y + i * r->kv_heads * r->head_dim, 1, err));
    return GYRE_OK;
}

gyre_status gyre_rotate_bias(const struct gyre_rotator *r, gyre_role role, uint32_t layer, double *bias,
                             gyre_error *err)
{
    return gyre_rotate_output(r, role, layer, bias, 1, err);
}

gyre_status gyre_rotate_rows(const struct gyre_rotator *r, const double *gain, double *x, uint64_t rows,
                             gyre_error *err)
{
    if (r->fold && gain) fold_gain(gain, x, rows, r->width);
    return turns_stream(r) ? rotate_stream(r, x, 1, rows, r->width, err) : GYRE_OK;
}

gyre_status gyre_rotate_mix(const struct gyre_rotator *r, double *m, gyre_error *err)
{
    if (!turns_stream(r)) return GYRE_OK;
    GYRE_TRY(rotate_stream(r, m, 1, r->width, r->width, err));
    return rotate_stream(r, m, r->width, r->width, 1, err);
}

gyre_status gyre_rotator_matrices(const struct gyre_rotator *r, struct gyre_matrices *out, gyre_error *err)
{
    const uint32_t hd = out->head_dim;
    const uint64_t all = (uint64_t)r->heads * hd;
    for (uint32_t i = 0; out->r1 && i < r->width; i++) out->r1[(uint64_t)i * r->width + i] = 1;
    if (out->r1) GYRE_TRY(gyre_rotate_rows(r, NULL, out->r1, r->width, err));
    double *heads = malloc(hd * all * sizeof *heads); // a unit matrix for every query head, side by side
    if (!heads) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for rotations");
    gyre_status st = GYRE_OK;
    for (uint32_t l = 0; l < out->layers && st == GYRE_OK; l++) {
        for (uint64_t i = 0; i < hd * all; i++) heads[i] = i / all == i % all % hd;
        st = gyre_rotate_heads(r, l, heads, hd, err);
        for (uint64_t i = 0; i < (uint64_t)r->kv_heads * hd * hd; i++) { // head j, row, column
            const uint64_t j = i / hd / hd, row = i / hd % hd;
            gyre_matrices_r2(out, l, 0)[i] = heads[row * all + j * (r->heads / r->kv_heads) * hd + i % hd];
        }
    }
    free(heads);
    return st;
}

// ---- undoing ----------------------------------------------------------------------------------------------

// x -> x H^T diag(signs), the inverse of gyre_hadamard_apply with the same arguments.
static gyre_status undo(const struct gyre_hadamard *h, double *x, uint64_t width, uint64_t stride, uint64_t count,
                        uint64_t step, const int8_t *signs, gyre_error *err)
{
    GYRE_TRY(gyre_hadamard_apply(h, x, width, stride, count, step, NULL, true, err));
    if (signs && step == 1) // columns of a matrix: walk its rows
        for (uint64_t i = 0; i < width; i++)
            for (uint64_t v = 0; v < count && signs[i] < 0; v++) x[i * stride + v] = -x[i * stride + v];
    for (uint64_t v = 0; signs && step != 1 && v < count; v++)
        for (uint64_t i = 0; i < width; i++) x[i * stride + v * step] *= signs[i];
    return GYRE_OK;
}

static gyre_status undo_stream(const struct gyre_rotator *r, double *x, uint64_t stride, uint64_t count, uint64_t step,
                               gyre_error *err)
{
    if (r->learned) return gyre_dense_apply(r->learned->r1, r->width, x, stride, count, step, true, err);
    return undo(&r->r1, x, r->width, stride, count, step, r->r1_signs, err);
}

// R2 of every kv head: of its rows (cols columns each), or (heads) of the input of each query head of its group.
static gyre_status undo_r2(const struct gyre_rotator *r, uint32_t layer, bool heads, double *w, uint64_t rows,
                           uint64_t cols, gyre_error *err)
{
    const uint32_t hd = r->head_dim, group = r->heads / r->kv_heads;
    for (uint32_t h = 0; h < (heads ? r->heads : r->kv_heads) && r->learned; h++) {
        const double *r2 = gyre_matrices_r2(r->learned, layer, heads ? h / group : h);
        double *at = w + (uint64_t)h * hd * (heads ? 1 : cols);
        GYRE_TRY(gyre_dense_apply(r2, hd, at, heads ? 1 : cols, heads ? rows : cols, heads ? cols : 1, true, err));
    }
    if (r->learned) return GYRE_OK;
    int8_t *signs = malloc(hd);
    if (!signs) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the signs of R2");
    gyre_status st = GYRE_OK;
    for (uint32_t j = 0; j < r->kv_heads && st == GYRE_OK; j++) {
        draw_signs(r->seed, 1 + (uint64_t)layer * r->kv_heads + j, signs, hd);
        if (!heads) st = undo(&r->r2, w + (uint64_t)j * hd * cols, hd, cols, cols, 1, signs, err);
        for (uint32_t h = j * group; heads && h < (j + 1) * group && st == GYRE_OK; h++)
            st = undo(&r->r2, w + (uint64_t)h * hd, hd, 1, rows, cols, signs, err);
    }
    free(signs);
    return st;
}

static void unfold_gain(const double *gain, double *w, uint64_t rows, uint64_t cols)
{
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < cols; c++) w[r * cols + c] = gain[c] != 0 ? w[r * cols + c] / gain[c] : 0;
}

gyre_status gyre_unrotate_linear(const struct gyre_rotator *r, gyre_role role, uint32_t layer, const double *gain,
                                 double *w, gyre_error *err)
{
    const struct gyre_hparams shape = shape_of(r);
    const struct gyre_product_info *product = &gyre_products[gyre_roles[role].product];
    const gyre_rotation reads = product->reads, writes = gyre_roles[role].writes;
    uint64_t rows, cols;
    gyre_role_shape(role, &shape, &rows, &cols);
    if (r->r4.n && reads == GYRE_ROTATION_R4) GYRE_TRY(undo(&r->r4, w, r->ffn, 1, rows, cols, NULL, err));
    if (r->r2.n && writes == GYRE_ROTATION_R2) GYRE_TRY(undo_r2(r, layer, false, w, rows, cols, err));
    if (r->r2.n && reads == GYRE_ROTATION_R2) GYRE_TRY(undo_r2(r, layer, true, w, rows, cols, err));
    if (r->r1.n && reads == GYRE_ROTATION_R1) GYRE_TRY(undo_stream(r, w, 1, rows, cols, err));
    if (turns_stream(r) && writes == GYRE_ROTATION_R1) GYRE_TRY(undo_stream(r, w, cols, cols, 1, err));
    if (r->fold && product->norm != GYRE_ROLE_none && gain) unfold_gain(gain, w, rows, cols);
    return GYRE_OK;
}

gyre_status gyre_unrotate_rows(const struct gyre_rotator *r, const double *gain, double *x, uint64_t rows,
                               gyre_error *err)
{
    if (turns_stream(r)) GYRE_TRY(undo_stream(r, x, 1, rows, r->width, err));
    if (r->fold && gain) unfold_gain(gain, x, rows, r->width);
    return GYRE_OK;
}

gyre_status gyre_plain_rows(const struct gyre_hparams *hp, gyre_role role, double *w, uint64_t rows, gyre_error *err)
{
    const gyre_product product = gyre_roles[role].product;
    if (role >= GYRE_LINEARS || gyre_products[product].reads != GYRE_ROTATION_R4 || !hp->rot.r4.n) return GYRE_OK;
    const uint64_t cols = gyre_product_width(product, hp);
    return gyre_hadamard_apply(&hp->rot.r4, w, cols, 1, rows, cols, NULL, true, err);
}
