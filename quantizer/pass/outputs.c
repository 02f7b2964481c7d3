// See outputs.h.
#include "quantizer/pass/outputs.h"
#include "runtime/model/linear.h"
#include "runtime/util/base.h"

#include <stdlib.h>

// Share of H_O that gives way to the mean of its diagonal: some thousand tokens leave it noisy.
#define SHRINK 0.2

gyre_status gyre_output_side_create(const struct gyre_plan *plan, uint32_t tokens, struct gyre_output_side *s,
                                    gyre_error *err)
{
    const struct gyre_hparams *hp = &plan->hp;
    uint64_t widest = 0, rows, cols;
    *s = (struct gyre_output_side){.plan = plan, .tokens = tokens};
    s->linear = calloc(hp->n_layers, sizeof *s->linear);
    for (int role = 0; role < GYRE_LINEARS; role++) {
        gyre_role_shape((gyre_role)role, hp, &rows, &cols);
        widest = GYRE_MAX(widest, rows);
        for (uint32_t l = 0; s->linear && l < hp->n_layers; l++)
            if (gyre_role_present(hp, (gyre_role)role, l))
                GYRE_TRY(gyre_output_moments_create((uint32_t)rows, &s->linear[l][role], err));
    }
    s->part = malloc(tokens * widest * sizeof *s->part);
    s->wide = malloc(tokens * widest * sizeof *s->wide);
    return s->linear && s->part && s->wide ? GYRE_OK
                                           : gyre_fail(err, GYRE_E_NOMEM, "out of memory for statistics of outputs");
}

void gyre_output_side_release(struct gyre_output_side *s)
{
    for (uint32_t l = 0; s->linear && l < s->plan->hp.n_layers; l++)
        for (int role = 0; role < GYRE_LINEARS; role++) gyre_output_moments_release(&s->linear[l][role]);
    free(s->linear);
    free(s->part);
    free(s->wide);
    *s = (struct gyre_output_side){0};
}

gyre_status gyre_output_gradient(const struct gyre_plan *p, const struct gyre_rotator *rotator, uint32_t layer,
                                 gyre_role role, const float *gradient, uint64_t tokens, uint64_t width, uint64_t first,
                                 double *out, gyre_error *err)
{
    const bool paired = p->permute_qk && gyre_role_is_turned(role);
    uint64_t n, cols;
    gyre_role_shape(role, &p->hp, &n, &cols);
    for (uint64_t t = 0; t < tokens; t++)
        for (uint64_t i = 0; i < n; i++)
            out[t * n + i] = (double)gradient[t * width + first + (paired ? gyre_paired_row(p->hp.head_dim, i) : i)];
    return gyre_rotate_output(rotator, role, layer, out, tokens, err);
}

gyre_status gyre_output_side_add(struct gyre_output_side *s, uint32_t layer, gyre_product product,
                                 const float *gradient, gyre_error *err)
{
    const struct gyre_plan *p = s->plan;
    uint64_t width = 0, first = 0;
    for (int r = 0; r < GYRE_LINEARS; r++)
        if (gyre_roles[r].product == product) width += s->linear[layer][r].n;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        const gyre_role role = (gyre_role)r;
        const uint64_t n = s->linear[layer][r].n;
        gyre_error why = {0};
        if (gyre_roles[r].product != product || !n) continue;
        GYRE_TRY(gyre_output_gradient(p, &p->rotator, layer, role, gradient, s->tokens, width, first, s->wide, err));
        for (uint64_t i = 0; i < s->tokens * n; i++) s->part[i] = (float)s->wide[i];
        const gyre_status st = gyre_output_moments_add(&s->linear[layer][r], s->part, s->tokens, &why);
        if (st != GYRE_OK)
            return gyre_fail(err, st, "cannot weigh outputs (block %u, %s): %s; leave calibration's outputs out", layer,
                             gyre_roles[r].gguf, why.message);
        first += n;
    }
    return GYRE_OK;
}

gyre_status gyre_output_side_get(const struct gyre_output_side *s, uint32_t layer, gyre_role role,
                                 const struct gyre_diagonals *diagonals, struct gyre_outputs *out, gyre_error *err)
{
    *out = (struct gyre_outputs){0};
    if (!s->linear) return GYRE_OK;
    const struct gyre_output_moments *m = &s->linear[layer][role];
    double *scale = malloc(m->n * sizeof *scale);
    if (!scale) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for statistics of outputs");
    for (uint32_t i = 0; i < m->n; i++) scale[i] = 1;
    if (diagonals) gyre_diagonals_bias(diagonals, role, scale);
    const gyre_status st = gyre_outputs_create(m, scale, SHRINK, out, err);
    free(scale);
    return st;
}
