// See distance.h.
#include "quantizer/trust/distance.h"
#include "quantizer/round/rtn.h"
#include "runtime/util/base.h"

#include <stdlib.h>

bool gyre_verify_permutes(const struct gyre_verifier *v, gyre_role role)
{
    return v->hp.rope_interleaved != v->base_hp.rope_interleaved && gyre_role_is_turned(role);
}

double gyre_distance_relative(const struct gyre_distance *d) { return gyre_relative(d->error, d->norm, d->n); }

void gyre_distance_add(struct gyre_distance *d, const double *base, const double *have, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        const double e = base[i] - have[i];
        d->error += e * e;
        d->norm += base[i] * base[i];
    }
    d->n += n;
}

// The base's linear as the run scaled it before it was rotated: gains folded where `rotated`, diagonals merged.
static gyre_status base_linear(const struct gyre_verifier *v, bool rotated, const struct gyre_diagonals *diagonals,
                               gyre_role role, uint32_t layer, double *out, gyre_error *err)
{
    const gyre_role norm = gyre_products[gyre_roles[role].product].norm;
    uint64_t rows, cols;
    gyre_role_shape(role, &v->hp, &rows, &cols);
    struct gyre_linear base;
    GYRE_TRY(gyre_linear_find(v->base, &v->base_hp, role, layer, &base, err));
    if (gyre_verify_permutes(v, role)) base.paired = v->base_hp.head_dim;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < (int64_t)rows; r++) gyre_linear_rows_f64(&base, (uint64_t)r, 1, out + (uint64_t)r * cols);
    GYRE_TRY(gyre_plain_rows(&v->base_hp, role, out, rows, err));
    if (rotated && v->rotator.fold && norm != GYRE_ROLE_none) {
        float *gain = malloc(cols * sizeof *gain);
        if (!gain) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for tensor %s", base.weight->name);
        gyre_role_vector_f32(&v->base_hp, norm, gyre_role_tensor(v->base, norm, layer, "weight", NULL), gain);
        for (uint64_t i = 0; i < rows * cols; i++) out[i] *= (double)gain[i % cols];
        free(gain);
    }
    if (diagonals) gyre_diagonals_before(diagonals, role, false, out);
    return GYRE_OK;
}

bool gyre_verify_has_diagonals(const struct gyre_verifier *v)
{
    return v->learned.norm || json_object_get(v->manifest.json, "diagonals");
}

gyre_status gyre_verify_diagonals(const struct gyre_verifier *v, bool rotated, uint32_t layer,
                                  struct gyre_diagonals *out, gyre_error *err)
{
    const json_t *list = json_object_get(v->manifest.json, "diagonals");
    *out = (struct gyre_diagonals){0};
    if (!gyre_verify_has_diagonals(v)) return GYRE_OK;
    GYRE_TRY(gyre_diagonals_create(&v->hp, out, err));
    if (v->learned.norm) {
        gyre_diagonals_take(&v->learned, layer, out);
    } else if (!gyre_diagonals_read(json_array_get(list, layer), out)) {
        gyre_diagonals_release(out);
        return gyre_verify_differs(v, err, "the manifest's diagonals of block %u are not of this model", layer);
    }
    float *gain = malloc(v->hp.width * sizeof *gain);
    gyre_status st =
        gain ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "cannot verify (%s): out of memory", v->params->file);
    for (int p = 0; gain && p < GYRE_PRODUCTS; p++) {
        const gyre_role norm = gyre_products[p].norm;
        if (!out->norm[p] || v->hp.rot.r1.n) continue; // the signs of an online R1 leave no place for one
        gyre_role_vector_f32(&v->hp, norm, gyre_role_tensor(v->file, norm, layer, "weight", NULL), out->norm[p]);
        gyre_role_vector_f32(&v->base_hp, norm, gyre_role_tensor(v->base, norm, layer, "weight", NULL), gain);
        for (uint32_t i = 0; i < v->hp.width && !(rotated && v->rotator.fold); i++)
            out->norm[p][i] = gain[i] != 0 ? out->norm[p][i] / gain[i] : 1;
    }
    free(gain);
    if (st != GYRE_OK) gyre_diagonals_release(out);
    return st;
}

gyre_status gyre_verify_distance(const struct gyre_verifier *v, const struct gyre_rotator *rotator, gyre_role role,
                                 uint32_t layer, struct gyre_distance *out, struct gyre_linear *linear, uint32_t *bits,
                                 gyre_error *err)
{
    struct gyre_distance d = {0};
    struct gyre_diagonals diagonals = {0};
    gyre_status st = GYRE_OK;
    GYRE_TRY(gyre_verify_linear(v, role, layer, linear, bits, err));
    const uint64_t rows = linear->rows, cols = linear->cols;
    double *wide = malloc(rows * cols * sizeof *wide), *base = malloc(rows * cols * sizeof *base);
    if (!wide || !base) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for tensor %s", linear->weight->name));
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < (int64_t)rows; r++) gyre_linear_rows_f64(linear, (uint64_t)r, 1, wide + (uint64_t)r * cols);
    GYRE_GO(gyre_verify_diagonals(v, rotator != NULL, layer, &diagonals, err));
    if (diagonals.up_down) gyre_diagonals_after(&diagonals, role, true, wide);
    if (rotator) GYRE_GO(gyre_unrotate_linear(rotator, role, layer, NULL, wide, err));
    GYRE_GO(base_linear(v, rotator != NULL, diagonals.up_down ? &diagonals : NULL, role, layer, base, err));
    for (uint64_t r = 0; r < rows; r++) gyre_distance_add(&d, base + r * cols, wide + r * cols, cols);
    *out = d;
done:
    gyre_diagonals_release(&diagonals);
    free(wide);
    free(base);
    return st;
}
