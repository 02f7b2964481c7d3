// The online rotations that a gyre-llama file declares: factors as metadata, base matrices as I8 tensors.
// A base that is not a Hadamard matrix would silently give another model, so each is proven to be one.
#include "runtime/model/hparams_impl.h"

#include "runtime/core/codec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Entries +1 or -1 and rows orthogonal: H H^T = k I.
static bool is_hadamard(const int8_t *h, uint32_t k)
{
    for (uint32_t i = 0; i < k * k; i++)
        if (h[i] != 1 && h[i] != -1) return false;
    for (uint32_t a = 0; a < k; a++) {
        for (uint32_t b = 0; b < a; b++) {
            int dot = 0;
            for (uint32_t i = 0; i < k; i++) dot += h[a * k + i] * h[b * k + i];
            if (dot) return false;
        }
    }
    return true;
}

static gyre_status read_base(const gyre_source *source, const char *which, uint32_t index, uint32_t k,
                             const int8_t **out, gyre_error *err)
{
    char name[48];
    const char *path = gyre_source_path(source);
    snprintf(name, sizeof name, "gyre.%s.base.%u", which, index);
    const struct gyre_tensor *tensor = gyre_source_tensor(source, name);
    if (!tensor || tensor->type != GYRE_DTYPE_I8 || tensor->n_dims != 2 || tensor->rows != k || tensor->cols != k)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): tensor %s is %s; an I8 matrix of %u x %u is due",
                         path, name, tensor ? "of another shape or type" : "missing", k, k);
    int8_t *base = malloc(tensor->bytes);
    if (!base) return gyre_fail(err, GYRE_E_NOMEM, "cannot use model (%s): out of memory", path);
    memcpy(base, tensor->data, tensor->bytes);
    *out = base;
    if (!is_hadamard(base, k))
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot use model (%s): tensor %s is not a Hadamard matrix; the file is damaged", path, name);
    return GYRE_OK;
}

// Reads gyre.WHICH.factors (n, k1, k2, k3, p) and the bases; n must divide `width`.
static gyre_status read_hadamard(const gyre_source *source, const char *which, uint32_t width,
                                 struct gyre_hadamard *had, gyre_error *err)
{
    char key[48];
    const char *path = gyre_source_path(source);
    int64_t *f = NULL;
    uint64_t count = 0;
    snprintf(key, sizeof key, "gyre.%s.factors", which);
    GYRE_TRY(gyre_source_array_i64(source, key, &f, &count, err));
    bool good = count == 5;
    uint64_t product = 1;
    for (int i = 1; good && i < 4; i++) {
        good = f[i] >= 1 && f[i] <= GYRE_MAX_HAD_ORDER;
        if (good) product *= (uint64_t)f[i];
    }
    good = good && f[4] >= 0 && f[4] <= 24 && f[0] >= 1 && (uint64_t)f[0] == product << f[4] &&
           width % (uint64_t)f[0] == 0;
    if (good)
        *had = (struct gyre_hadamard){
            .n = (uint32_t)f[0], .k = {(uint32_t)f[1], (uint32_t)f[2], (uint32_t)f[3]}, .p = (uint32_t)f[4]};
    free(f);
    if (!good)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot use model (%s): %s does not describe a transform of a width that divides %u", path,
                         key, width);
    for (uint32_t i = 0; i < 3; i++)
        if (had->k[i] > 1) GYRE_TRY(read_base(source, which, i, had->k[i], &had->base[i], err));
    return GYRE_OK;
}

static gyre_status read_gain(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    const char *path = gyre_source_path(source);
    const struct gyre_tensor *tensor = gyre_source_tensor(source, "gyre.head_gain");
    if (!tensor || tensor->type != GYRE_DTYPE_F32 || tensor->n_dims != 1 || tensor->cols != hp->width)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot use model (%s): tensor gyre.head_gain is %s; %u F32 values are due", path,
                         tensor ? "of another shape or type" : "missing", hp->width);
    float *gain = malloc(tensor->bytes);
    if (!gain) return gyre_fail(err, GYRE_E_NOMEM, "cannot use model (%s): out of memory", path);
    gyre_tensor_rows_f32(tensor, 0, 1, gain);
    hp->rot.head_gain = gain;
    for (uint32_t i = 0; i < hp->width; i++)
        if (!isfinite(gain[i]))
            return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): tensor gyre.head_gain holds NaN or infinity",
                             path);
    return GYRE_OK;
}

// Where R1 was learned, the matrix around the final gain; the key may be absent.
static gyre_status read_mix(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    static const char name[] = "gyre.head_mix";
    const char *path = gyre_source_path(source);
    GYRE_TRY(gyre_source_bool(source, name, &hp->rot.head_mix, NULL, err));
    if (!hp->rot.head_mix) return GYRE_OK;
    if (!hp->tied || hp->rot.head.n)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): %s beside %s", path, name,
                         hp->tied ? "gyre.head_rotation" : "an output.weight of its own");
    const struct gyre_tensor *t = gyre_source_tensor(source, name);
    if (!t || (t->type != GYRE_DTYPE_F16 && t->type != GYRE_DTYPE_F32) || t->n_dims != 2 || t->rows != hp->width ||
        t->cols != hp->width)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot use model (%s): tensor %s is %s; an F16 or F32 matrix of %u x %u is due", path, name,
                         t ? "of another shape or type" : "missing", hp->width, hp->width);
    float *row = malloc(hp->width * sizeof *row);
    if (!row) return gyre_fail(err, GYRE_E_NOMEM, "cannot use model (%s): out of memory", path);
    gyre_status st = GYRE_OK;
    for (uint32_t r = 0; r < hp->width && st == GYRE_OK; r++) {
        gyre_tensor_rows_f32(t, r, 1, row);
        for (uint32_t i = 0; i < hp->width && st == GYRE_OK; i++)
            if (!isfinite(row[i]))
                st =
                    gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): tensor %s holds NaN or infinity", path, name);
    }
    free(row);
    return st;
}

gyre_status gyre_rotations_read(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    static const char *const keys[] = {"gyre.r3", "gyre.r4", "gyre.head_rotation"};
    bool on[3];
    for (int i = 0; i < 3; i++) {
        bool found;
        GYRE_TRY(gyre_source_bool(source, keys[i], &on[i], &found, err));
        if (!found)
            return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): %s is missing", gyre_source_path(source),
                             keys[i]);
    }
    bool r1 = false; // younger than the others: absent where it is off
    GYRE_TRY(gyre_source_bool(source, "gyre.r1", &r1, NULL, err));
    if (r1) GYRE_TRY(read_hadamard(source, "r1", hp->width, &hp->rot.r1, err));
    hp->rot.r3 = on[0];
    if (on[0]) GYRE_TRY(read_hadamard(source, "r3", hp->head_dim, &hp->rot.r3_had, err));
    if (on[0] && hp->rot.r3_had.n != hp->head_dim)
        return gyre_fail(
            err, GYRE_E_UNSUPPORTED,
            "cannot use model (%s): gyre.r3.factors transform %u values; gyre transforms whole heads of %u",
            gyre_source_path(source), hp->rot.r3_had.n, hp->head_dim);
    if (on[1]) GYRE_TRY(read_hadamard(source, "r4", hp->ffn, &hp->rot.r4, err));
    if (!on[2]) return read_mix(source, hp, err);
    if (!hp->tied)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot use model (%s): gyre.head_rotation beside an output.weight of its own",
                         gyre_source_path(source));
    GYRE_TRY(read_hadamard(source, "head", hp->width, &hp->rot.head, err));
    GYRE_TRY(read_mix(source, hp, err)); // refuses one
    return read_gain(source, hp, err);
}

bool gyre_rotations_read_tensor(const struct gyre_hparams *hp, const char *name)
{
    static const char *const which[] = {"r1", "r3", "r4", "head"};
    const struct gyre_hadamard *const all[] = {&hp->rot.r1, &hp->rot.r3_had, &hp->rot.r4, &hp->rot.head};
    for (int i = 0; i < 4; i++)
        for (uint32_t j = 0; j < 3; j++) {
            char base[48];
            snprintf(base, sizeof base, "gyre.%s.base.%u", which[i], j);
            if (all[i]->base[j] && !strcmp(base, name)) return true;
        }
    return (hp->rot.head_gain && !strcmp(name, "gyre.head_gain")) ||
           (hp->rot.head_mix && !strcmp(name, "gyre.head_mix"));
}

void gyre_hparams_free(struct gyre_hparams *hp)
{
    struct gyre_hadamard *const all[] = {&hp->rot.r1, &hp->rot.r3_had, &hp->rot.r4, &hp->rot.head};
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 3; j++) free((void *)(uintptr_t)all[i]->base[j]);
        *all[i] = (struct gyre_hadamard){0};
    }
    free((void *)(uintptr_t)hp->rot.head_gain);
    hp->rot.head_gain = NULL;
}
