// What was merged into a file, found and held against the model that it was made from: rotations, and the gains, biases
// and divisors that must be what these make of the base's. See verify_impl.h.
#include "quantizer/file/rotations_file.h"
#include "quantizer/round/rtn.h"
#include "quantizer/trust/distance.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- rotations --------------------------------------------------------------------------------------------

// Learned rotations lie in a file of their own, which the manifest vouches for.
static gyre_status read_learned(struct gyre_verifier *v, gyre_error *err)
{
    const json_t *told = json_object_get(v->manifest.json, "rotations");
    const char *hex = json_string_value(json_object_get(told, "sha256"));
    if (!told) return GYRE_OK;
    if (!hex) return gyre_verify_differs(v, err, "the manifest's rotations have no sha256");
    char *path = gyre_matrices_path(v->params->file);
    if (!path) return gyre_fail(err, GYRE_E_NOMEM, "cannot verify (%s): out of memory", v->params->file);
    gyre_status st = GYRE_OK;
    if (!gyre_file_exists(path))
        GYRE_GO(gyre_fail(err, GYRE_E_IO,
                          "cannot verify (%s): its rotations were learned, and their file (%s) is missing; fetch it "
                          "too",
                          v->params->file, path));
    GYRE_GO(gyre_matrices_create(v->hp.width, v->hp.n_layers, v->hp.kv_heads, v->hp.head_dim,
                                 json_is_true(json_object_get(told, "diagonals")) ? v->hp.ffn : 0, v->signs.r1.n != 0,
                                 &v->learned, err));
    GYRE_GO(gyre_matrices_read(path, hex, &v->learned, err));
    v->signs.learned = &v->learned;
done:
    free(path);
    return st;
}

// A full file declares R4 where it was rotated. A portable one declares nothing: its first linear that is not all
// zeros is either the base's up to rounding, or (rotated) about 2 away from it.
static gyre_status find_rotation(struct gyre_verifier *v, gyre_error *err)
{
    uint64_t seed = v->manifest.seed;
    struct gyre_linear linear;
    struct gyre_distance plain;
    uint32_t bits;
    // Recipes that try several keep the one they chose there.
    GYRE_TRY(gyre_source_u64(v->file, "gyre.rotation_seed", &seed, NULL, err));
    const json_t *chosen = json_object_get(json_object_get(v->manifest.json, "choice"), "rotation_seed");
    if (gyre_verify_is_folder(v) && json_is_integer(chosen)) seed = (uint64_t)json_integer_value(chosen);
    GYRE_TRY(gyre_rotator_create(&v->hp, seed, true,
                                 GYRE_ROTATE_R1 | GYRE_ROTATE_R2 | (v->hp.rot.r1.n ? GYRE_ROTATE_ONLINE_R1 : 0),
                                 &v->signs, err));
    GYRE_TRY(read_learned(v, err));
    v->rotator = v->signs;
    v->rotator.r4 = v->hp.rot.r4;
    if (v->hp.rot.head.n) v->rotator.r1 = v->hp.rot.head;
    if (v->hp.rot.r1.n) v->rotator.r1 = v->hp.rot.r1;
    v->rotated = v->hp.rot.r4.n != 0;
    if (!strcmp(v->manifest.profile, "full")) return GYRE_OK;
    for (uint32_t i = 0; i < v->hp.n_layers * GYRE_LINEARS; i++) { // zeros are zeros in any basis
        const gyre_role role = v->signs.r1.n ? (gyre_role)(i % GYRE_LINEARS) : gyre_heads_role(GYRE_HEADS_VALUE);
        GYRE_TRY(gyre_verify_distance(v, NULL, role, i / GYRE_LINEARS, &plain, &linear, &bits, err));
        v->rotated = !(gyre_distance_relative(&plain) <= 0.8);
        if (!gyre_is_faint(plain.norm, plain.n)) break;
    }
    return GYRE_OK;
}

// ---- gains, biases, divisors ------------------------------------------------------------------------------

// How far a gain may be from where rounding left it: learning moves them by a few per cent.
static float gain_tolerance(const struct gyre_verifier *v) { return gyre_verify_is_learned(v) ? 0.5f : 0; }

// `expected` NULL: ones. Where diagonals come to lie in a norm's place, their product with the ones is due here.
static gyre_status check_vector(const struct gyre_verifier *v, gyre_role role, const struct gyre_tensor *t,
                                const float *expected, float tolerance, gyre_error *err)
{
    const char *name = t->name;
    gyre_status st = GYRE_OK;
    float *have = malloc(t->cols * sizeof *have);
    if (!have) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for tensor %s", name);
    gyre_role_vector_f32(&v->hp, role, t, have);
    for (uint64_t i = 0; i < t->cols && st == GYRE_OK; i++) {
        const float want = expected ? expected[i] : 1;
        if (!(fabsf(have[i] - want) <= tolerance * fabsf(want)))
            st = gyre_verify_differs(v, err, "tensor %s: value %llu is %.9g where the base model makes it %.9g", name,
                                     (unsigned long long)i, (double)have[i], (double)want);
    }
    free(have);
    return st;
}

// The head between two learned rotations is what they and the base's final gain make it, up to f16's rounding.
static gyre_status check_mix(const struct gyre_verifier *v, const float *gain, gyre_error *err)
{
    const uint64_t D = v->hp.width;
    const struct gyre_tensor *t = gyre_source_tensor(v->file, "gyre.head_mix");
    gyre_status st = GYRE_OK;
    double *want = calloc(D * D, sizeof *want), largest = 0;
    float *row = malloc(D * sizeof *row);
    if (!want || !row) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for the head"));
    for (uint64_t i = 0; i < D; i++) {
        want[i * D + i] = (double)gain[i];
        largest = fmax(largest, fabs((double)gain[i]));
    }
    GYRE_GO(gyre_rotate_mix(&v->rotator, want, err));
    for (uint64_t r = 0; r < D; r++) {
        gyre_tensor_rows_f32(t, r, 1, row);
        for (uint64_t i = 0; i < D; i++)
            if (!(fabs((double)row[i] - want[r * D + i]) <= 5e-4 * fabs(want[r * D + i]) + 1e-6 * largest + 0x1p-25))
                GYRE_GO(gyre_verify_differs(v, err,
                                            "tensor %s: row %llu, column %llu is %.9g where the base model and "
                                            "the rotations make it %.9g",
                                            t->name, (unsigned long long)r, (unsigned long long)i, (double)row[i],
                                            want[r * D + i]));
    }
done:
    free(want);
    free(row);
    return st;
}

// Divisors of the inverse frequencies: the base's tensor, or what its llama3 scaling amounts to.
static gyre_status check_rope(const struct gyre_verifier *v, gyre_error *err)
{
    const struct gyre_tensor *t = gyre_role_tensor(v->base, GYRE_ROLE_rope_freqs, 0, "weight", NULL),
                             *have = gyre_role_tensor(v->file, GYRE_ROLE_rope_freqs, 0, "weight", NULL);
    const struct gyre_hparams *hp = &v->base_hp;
    float divisor[GYRE_MAX_HEAD_DIM / 2];
    if (hp->rope_scaling == GYRE_ROPE_LONG && v->hp.rope_scaling == GYRE_ROPE_LONG) return GYRE_OK; // compared already
    if (!v->hp.has_rope_freqs) {
        if (!t && hp->rope_scaling == v->hp.rope_scaling && hp->rope_factor == v->hp.rope_factor) return GYRE_OK;
        return gyre_verify_differs(v, err, "its rope scaling is not the base model's");
    }
    if (t) {
        gyre_tensor_rows_f32(t, 0, 1, divisor);
        return check_vector(v, GYRE_ROLE_rope_freqs, have, divisor, 0, err);
    }
    gyre_rope_divisors(hp, divisor);
    return check_vector(v, GYRE_ROLE_rope_freqs, have, divisor, 1e-6f, err);
}

// The biases of a block are the base's, rotated as what their linears write.
static gyre_status check_bias(const struct gyre_verifier *v, gyre_role role, uint32_t layer, double *wide, float *want,
                              gyre_error *err)
{
    struct gyre_bias base;
    uint64_t rows, cols;
    struct gyre_diagonals diagonals = {0};
    gyre_status st = GYRE_OK;
    gyre_role_shape(role, &v->hp, &rows, &cols);
    GYRE_TRY(gyre_role_bias(v->base, &v->base_hp, role, layer, &base, err));
    gyre_bias_f32(&base, want);
    for (uint64_t r = 0; r < rows; r++)
        wide[r] = (double)want[gyre_verify_permutes(v, role) ? gyre_paired_row(v->hp.head_dim, r) : r];
    GYRE_GO(gyre_verify_diagonals(v, v->rotated, layer, &diagonals, err));
    if (diagonals.up_down) gyre_diagonals_bias(&diagonals, role, wide);
    if (v->rotated) GYRE_GO(gyre_rotate_bias(&v->rotator, role, layer, wide, err));
    float largest = 0;
    for (uint64_t r = 0; r < rows; r++) {
        want[r] = (float)wide[r];
        largest = fmaxf(largest, fabsf(want[r]));
    }
    GYRE_GO(gyre_role_bias(v->file, &v->hp, role, layer, &base, err));
    const struct gyre_tensor *const t = base.tensor;
    for (uint64_t r = 0; r < rows; r++) {
        float have = NAN;
        if (t->type == GYRE_DTYPE_F32)
            memcpy(&have, (const char *)t->data + (base.first + r) * sizeof have, sizeof have);
        if (!(fabsf(have - want[r]) <= 1e-6f * largest))
            GYRE_GO(gyre_verify_differs(v, err, "tensor %s: value %llu is not what the base model makes it, %.9g",
                                        t->name, (unsigned long long)r, (double)want[r]));
    }
done:
    gyre_diagonals_release(&diagonals);
    return st;
}

// The vectors of one block: gains that are folded are ones (others have the signs of an online R1), except where
// diagonals lie there: learned ones are known, for others its linears answer.
static gyre_status check_vectors(const struct gyre_verifier *v, uint32_t layer, double *wide, float *want, uint32_t *n,
                                 gyre_error *err)
{
    const bool measured = gyre_verify_has_diagonals(v) && !v->learned.norm;
    for (int r = 0; r < GYRE_BLOCK_ROLES; r++) {
        const gyre_role role = (gyre_role)r;
        const bool folds = gyre_norm_product(role) != GYRE_PRODUCTS;
        if (gyre_role_has_bias(&v->hp, role, layer)) GYRE_TRY(check_bias(v, role, layer, wide, want, err));
        if (r < GYRE_LINEARS || !gyre_role_present(&v->hp, role, layer) || (folds && measured && !v->hp.rot.r1.n))
            continue;
        const struct gyre_tensor *base = gyre_role_tensor(v->base, role, layer, "weight", NULL);
        gyre_role_vector_f32(&v->base_hp, role, base, want);
        for (uint32_t i = 0; v->rotated && folds && i < v->hp.width; i++)
            want[i] = (v->rotator.fold ? 1 : want[i]) * gyre_rotate_gain(&v->rotator, gyre_norm_product(role), i);
        for (uint32_t i = 0; v->learned.norm && folds && i < v->hp.width; i++)
            want[i] *= (float)gyre_matrices_norm(&v->learned, layer, gyre_norm_product(role))[i];
        GYRE_TRY(check_vector(v, role, gyre_role_tensor(v->file, role, layer, "weight", NULL), want, gain_tolerance(v),
                              err));
        ++*n;
    }
    return GYRE_OK;
}

gyre_status gyre_verify_norms(struct gyre_verifier *v, gyre_error *err)
{
    const bool head_folded = v->hp.rot.head.n != 0 || v->hp.rot.head_mix || !v->hp.tied;
    uint64_t most = v->hp.width, rows, cols;
    uint32_t n = 1;
    gyre_status st = GYRE_OK;
    GYRE_TRY(find_rotation(v, err));
    for (int r = 0; r < GYRE_LINEARS; r++) {
        gyre_role_shape((gyre_role)r, &v->hp, &rows, &cols);
        most = GYRE_MAX(most, rows);
    }
    float *gain = malloc(most * sizeof *gain);
    double *wide = malloc(most * sizeof *wide);
    if (!gain || !wide) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for the norms"));
    for (uint32_t l = 0; l < v->hp.n_layers; l++) GYRE_GO(check_vectors(v, l, wide, gain, &n, err));
    gyre_role_vector_f32(&v->base_hp, GYRE_ROLE_output_norm,
                         gyre_role_tensor(v->base, GYRE_ROLE_output_norm, 0, "weight", NULL), gain);
    GYRE_GO(check_vector(v, GYRE_ROLE_output_norm, gyre_role_tensor(v->file, GYRE_ROLE_output_norm, 0, "weight", NULL),
                         v->rotated && v->rotator.fold && head_folded ? NULL : gain, gain_tolerance(v), err));
    if (v->hp.rot.head.n)
        GYRE_GO(check_vector(v, GYRE_ROLE_none, gyre_source_tensor(v->file, "gyre.head_gain"), gain, gain_tolerance(v),
                             err));
    if (v->hp.rot.head_mix) GYRE_GO(check_mix(v, gain, err));
    GYRE_GO(check_rope(v, err));
    snprintf(v->detail, sizeof v->result->check[0].detail, "gains of %u norms are %s%s", n,
             gyre_verify_is_learned(v) ? "learned, within half of what they were: " : "",
             v->learned.norm   ? "the learned diagonals, times the base model's where these are not folded"
             : !v->rotated     ? "the base model's"
             : v->rotator.fold ? "ones, the base model's folded into what reads them"
             : v->rotator.r1.n ? "the base model's, those that are read behind an online R1 with its signs"
                               : "the base model's");
done:
    free(wide);
    free(gain);
    return st;
}
