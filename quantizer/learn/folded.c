// See folded.h.
#include "quantizer/learn/folded.h"
#include "quantizer/pass/layer.h"

#include <stdlib.h>

struct gyre_folder {
    const struct gyre_plan *plan;
    struct gyre_rotator fold; // the plan's without R1 and R2; borrows
    struct gyre_layer layer;
    float *linear[GYRE_LINEARS];
};

gyre_status gyre_folder_open(const struct gyre_plan *plan, gyre_folder **out, gyre_error *err)
{
    gyre_folder *f = *out = calloc(1, sizeof *f);
    if (!f) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for a block");
    f->plan = plan;
    f->fold = plan->rotator;
    f->fold.r1.n = f->fold.r2.n = 0;
    f->fold.learned = NULL;
    gyre_status st = gyre_layer_create(plan, &f->layer, err);
    for (int r = 0; r < GYRE_LINEARS && st == GYRE_OK; r++) {
        uint64_t rows, cols;
        gyre_role_shape((gyre_role)r, &plan->hp, &rows, &cols);
        f->linear[r] = malloc(rows * cols * sizeof(float));
        if (!f->linear[r]) st = gyre_fail(err, GYRE_E_NOMEM, "out of memory for a block");
    }
    if (st == GYRE_OK) return GYRE_OK;
    gyre_folder_close(f);
    *out = NULL;
    return st;
}

void gyre_folder_close(gyre_folder *f)
{
    if (!f) return;
    for (int r = 0; r < GYRE_LINEARS; r++) free(f->linear[r]);
    gyre_layer_free(&f->layer);
    free(f);
}

gyre_status gyre_folder_block(gyre_folder *f, uint32_t layer, struct gyre_folded *out, gyre_error *err)
{
    f->layer.index = layer;
    GYRE_TRY(gyre_layer_read_vectors(&f->layer, f->plan, NULL, err));
    *out = (struct gyre_folded){.kind = f->layer.kind};
    for (int r = 0; r < GYRE_LINEARS; r++) {
        GYRE_TRY(gyre_layer_load(&f->layer, f->plan, (gyre_role)r, &f->fold, NULL, f->linear[r], err));
        out->linear[r] = f->linear[r];
        out->bias[r] = f->layer.source_bias[r];
    }
    for (int r = GYRE_LINEARS; r < GYRE_BLOCK_ROLES; r++) out->vector[r] = f->layer.gain[r];
    return GYRE_OK;
}

struct gyre_hparams gyre_folder_hparams(const struct gyre_plan *plan)
{
    struct gyre_hparams hp = plan->hp;
    hp.act_group = plan->set.recipe.act_group;
    hp.act_bits = 16; // so a loss rounds all taps alike, as `learn` says
    hp.rot = (struct gyre_rotations){.r3 = plan->online.r3, .r3_had = plan->r3, .r4 = plan->online.r4};
    return hp;
}

gyre_status gyre_folder_matrices(const struct gyre_plan *plan, bool diagonals, struct gyre_matrices *out,
                                 gyre_error *err)
{
    const struct gyre_hparams *hp = &plan->hp;
    GYRE_TRY(gyre_matrices_create(hp->width, hp->n_layers, hp->kv_heads, hp->head_dim, diagonals ? hp->ffn : 0,
                                  plan->rotator.r1.n != 0, out, err));
    double *x = gyre_matrices_data(out);
    for (uint64_t i = gyre_matrices_turning(out); i < gyre_matrices_count(out); i++) x[i] = 1;
    return gyre_rotator_matrices(&plan->rotator, out, err);
}
