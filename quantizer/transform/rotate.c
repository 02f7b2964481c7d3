// See rotate.h. Sources: QuaRot (2404.00456) and SpinQuant (2405.16406) for the sites; the order of steps is fold, R1, R2, R4.
// GGUF permutes the rows of q and k inside each head, which no rotation here touches.
#include "quantizer/transform/rotate.h"
#include "runtime/util/rng.h"

#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *name, *norm;
} sites[GYRE_SITES] = {
    [GYRE_SITE_Q] = {"attn_q", "attn_norm"},     [GYRE_SITE_K] = {"attn_k", "attn_norm"},
    [GYRE_SITE_V] = {"attn_v", "attn_norm"},     [GYRE_SITE_O] = {"attn_output", NULL},
    [GYRE_SITE_GATE] = {"ffn_gate", "ffn_norm"}, [GYRE_SITE_UP] = {"ffn_up", "ffn_norm"},
    [GYRE_SITE_DOWN] = {"ffn_down", NULL},
};

void gyre_site_name(gyre_site site, uint32_t layer, char out[64])
{
    snprintf(out, 64, "blk.%u.%s.weight", layer, sites[site].name);
}

bool gyre_site_norm_name(gyre_site site, uint32_t layer, char out[64])
{
    if (!sites[site].norm) return false;
    snprintf(out, 64, "blk.%u.%s.weight", layer, sites[site].norm);
    return true;
}

void gyre_site_shape(gyre_site site, const struct gyre_hparams *hp, uint64_t *out_features, uint64_t *in_features)
{
    const uint64_t q = (uint64_t)hp->heads * hp->head_dim, kv = (uint64_t)hp->kv_heads * hp->head_dim;
    *out_features = site == GYRE_SITE_Q                              ? q
                    : site == GYRE_SITE_K || site == GYRE_SITE_V     ? kv
                    : site == GYRE_SITE_GATE || site == GYRE_SITE_UP ? hp->ffn
                                                                     : hp->width;
    *in_features = site == GYRE_SITE_O ? q : site == GYRE_SITE_DOWN ? hp->ffn : hp->width;
}

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
    if (which & GYRE_ROTATE_R1) {
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

// v: the rows of each kv head are columns of its value stream. o: its input, once per query head of the group.
static gyre_status merge_r2(const struct gyre_rotator *r, gyre_site site, uint32_t layer, double *w, gyre_error *err)
{
    const uint32_t hd = r->head_dim;
    if (site == GYRE_SITE_O) return gyre_rotate_heads(r, layer, w, r->width, err);
    int8_t *signs = malloc(hd);
    if (!signs) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the signs of R2");
    gyre_status st = GYRE_OK;
    for (uint32_t j = 0; j < r->kv_heads && st == GYRE_OK; j++) {
        draw_signs(r->seed, 1 + (uint64_t)layer * r->kv_heads + j, signs, hd);
        st = gyre_hadamard_apply(&r->r2, w + (uint64_t)j * hd * r->width, hd, r->width, r->width, 1, signs, false, err);
    }
    free(signs);
    return st;
}

gyre_status gyre_rotate_linear(const struct gyre_rotator *r, gyre_site site, uint32_t layer, const double *gain,
                               double *w, gyre_error *err)
{
    const struct gyre_hparams shape = {
        .width = r->width, .heads = r->heads, .kv_heads = r->kv_heads, .head_dim = r->head_dim, .ffn = r->ffn};
    uint64_t rows, cols;
    gyre_site_shape(site, &shape, &rows, &cols);
    const bool reads_stream = sites[site].norm != NULL;
    if (r->fold && reads_stream) fold_gain(gain, w, rows, cols);
    if (r->r1.n && reads_stream)
        GYRE_TRY(gyre_hadamard_apply(&r->r1, w, r->width, 1, rows, cols, r->r1_signs, false, err));
    if (r->r1.n && !reads_stream)
        GYRE_TRY(gyre_hadamard_apply(&r->r1, w, r->width, cols, cols, 1, r->r1_signs, false, err));
    if (r->r2.n && (site == GYRE_SITE_V || site == GYRE_SITE_O)) GYRE_TRY(merge_r2(r, site, layer, w, err));
    if (r->r4.n && site == GYRE_SITE_DOWN)
        GYRE_TRY(gyre_hadamard_apply(&r->r4, w, r->ffn, 1, rows, cols, NULL, false, err));
    return GYRE_OK;
}

gyre_status gyre_rotate_rows(const struct gyre_rotator *r, const double *gain, double *x, uint64_t rows,
                             gyre_error *err)
{
    if (r->fold && gain) fold_gain(gain, x, rows, r->width);
    return r->r1.n ? gyre_hadamard_apply(&r->r1, x, r->width, 1, rows, r->width, r->r1_signs, false, err) : GYRE_OK;
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

static gyre_status undo_r2(const struct gyre_rotator *r, gyre_site site, uint32_t layer, double *w, gyre_error *err)
{
    const uint32_t hd = r->head_dim, group = r->heads / r->kv_heads;
    int8_t *signs = malloc(hd);
    if (!signs) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the signs of R2");
    gyre_status st = GYRE_OK;
    for (uint32_t j = 0; j < r->kv_heads && st == GYRE_OK; j++) {
        draw_signs(r->seed, 1 + (uint64_t)layer * r->kv_heads + j, signs, hd);
        if (site == GYRE_SITE_V)
            st = undo(&r->r2, w + (uint64_t)j * hd * r->width, hd, r->width, r->width, 1, signs, err);
        for (uint32_t h = j * group; site == GYRE_SITE_O && h < (j + 1) * group && st == GYRE_OK; h++)
            st = undo(&r->r2, w + (uint64_t)h * hd, hd, 1, r->width, (uint64_t)r->heads * hd, signs, err);
    }
    free(signs);
    return st;
}

static void unfold_gain(const double *gain, double *w, uint64_t rows, uint64_t cols)
{
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < cols; c++) w[r * cols + c] = gain[c] != 0 ? w[r * cols + c] / gain[c] : 0;
}

gyre_status gyre_unrotate_linear(const struct gyre_rotator *r, gyre_site site, uint32_t layer, const double *gain,
                                 double *w, gyre_error *err)
{
    const struct gyre_hparams shape = {
        .width = r->width, .heads = r->heads, .kv_heads = r->kv_heads, .head_dim = r->head_dim, .ffn = r->ffn};
    uint64_t rows, cols;
    gyre_site_shape(site, &shape, &rows, &cols);
    const bool reads_stream = sites[site].norm != NULL;
    if (r->r4.n && site == GYRE_SITE_DOWN) GYRE_TRY(undo(&r->r4, w, r->ffn, 1, rows, cols, NULL, err));
    if (r->r2.n && (site == GYRE_SITE_V || site == GYRE_SITE_O)) GYRE_TRY(undo_r2(r, site, layer, w, err));
    if (r->r1.n && reads_stream) GYRE_TRY(undo(&r->r1, w, r->width, 1, rows, cols, r->r1_signs, err));
    if (r->r1.n && !reads_stream) GYRE_TRY(undo(&r->r1, w, r->width, cols, cols, 1, r->r1_signs, err));
    if (r->fold && reads_stream && gain) unfold_gain(gain, w, rows, cols);
    return GYRE_OK;
}

gyre_status gyre_unrotate_rows(const struct gyre_rotator *r, const double *gain, double *x, uint64_t rows,
                               gyre_error *err)
{
    if (r->r1.n) GYRE_TRY(undo(&r->r1, x, r->width, 1, rows, r->width, r->r1_signs, err));
    if (r->fold && gain) unfold_gain(gain, x, rows, r->width);
    return GYRE_OK;
}
