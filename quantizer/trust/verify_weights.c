// The weights of a file against those of the model that it was made from: un-rotated in double precision with what
// the file itself carries, every linear must be the base's weight up to rounding, and exactly as far from it as the
// manifest says. See verify_impl.h.
#include "quantizer/recipe/recipe.h"
#include "quantizer/round/rtn.h"
#include "quantizer/trust/distance.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The largest relative squared error that rounding excuses. Gaussian rows lose 0.0074 (groups of 32) to 0.012 (a row)
// at 4 bits with a searched scale; error-compensated rounding moves weights three to four times as far to keep outputs.
// Where the input side is not rotated, rows may be as heavy-tailed as they like: a loose bound. A wrong rotation, seed
// or tensor is about 2 away.
// Target correction moves weights on purpose, in directions that inputs hardly have.
static double allowed(uint32_t bits, uint32_t group, bool mixed, bool corrected)
{
    const bool small = group && group <= 128;
    if (bits == 32) return 1e-12;
    if (bits == 16) return 1e-6;
    if (corrected) return 0.8;
    if (bits == 8) return mixed ? (small ? 5e-4 : 1e-3) : small ? 5e-3 : 0.05;
    if (!mixed) return small ? 0.15 : 0.6;
    return !small ? 0.08 : group > 64 ? 0.06 : group > 32 ? 0.05 : 0.04;
}

// `size`: the mean square that faint weights (gyre_is_faint) are held against.
// The matrix is the rows of `t` from `first` on; of a linear of a block, or a table.
static gyre_status judge(const struct gyre_verifier *v, const struct gyre_tensor *t, uint64_t first, bool in_block,
                         const struct gyre_distance *d, double limit, double size, gyre_error *err)
{
    const char *name = t->name;
    const bool faint = gyre_is_faint(d->norm, d->n);
    const double measured = gyre_distance_relative(d);
    const json_t *recorded = json_object_get(gyre_manifest_row(v->rows, name, first), "error");
    const double claimed = json_number_value(recorded);
    if (faint) limit *= size;
    if (!(measured <= limit))
        return gyre_verify_differs(v, err,
                                   "tensor %s: un-rotated, it is %.4g (squared, %s) away from the base model's, and "
                                   "its bits allow %.2g",
                                   name, measured, faint ? "on average; the base's is as good as zero" : "relative",
                                   limit);
    if (!recorded) return gyre_verify_differs(v, err, "tensor %s: the manifest tells no error", name);
    // What the manifest tells of a block's linears is from before their scales were learned.
    if (!(fabs(measured - claimed) <= 1e-4 * claimed + 1e-9) && !(gyre_verify_is_learned(v) && in_block))
        return gyre_verify_differs(v, err,
                                   "tensor %s: its error against the base model is %.6g, the manifest says %.6g", name,
                                   measured, claimed);
    return GYRE_OK;
}

static gyre_status check_table(struct gyre_verifier *v, gyre_role role, gyre_role from, bool fold, gyre_error *err)
{
    const struct gyre_tensor *t = gyre_role_tensor(v->file, role, 0, "weight", NULL);
    struct gyre_linear base;
    GYRE_TRY(gyre_linear_find(v->base, &v->base_hp, from, 0, &base, err));
    const char *name = t->name;
    const uint64_t cols = t->cols, chunk = GYRE_MAX((uint64_t)1, ((uint64_t)4 << 20) / cols);
    const uint32_t bits = t->type == GYRE_DTYPE_F32    ? 32
                          : t->type == GYRE_DTYPE_F16  ? 16
                          : t->type == GYRE_DTYPE_Q4_0 ? 4
                                                       : 8;
    struct gyre_distance d = {0};
    gyre_status st = GYRE_OK;
    double *wide = malloc(chunk * cols * sizeof *wide), *row = malloc(cols * sizeof *row);
    float *gain = malloc(cols * sizeof *gain);
    if (!wide || !row || !gain) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for tensor %s", name));
    gyre_role_vector_f32(&v->base_hp, GYRE_ROLE_output_norm,
                         gyre_role_tensor(v->base, GYRE_ROLE_output_norm, 0, "weight", NULL), gain);
    for (uint64_t first = 0; first < t->rows; first += chunk) {
        const uint64_t n = GYRE_MIN(chunk, t->rows - first);
        gyre_tensor_rows_f64(t, first, n, wide);
        if (v->rotated) GYRE_GO(gyre_unrotate_rows(&v->rotator, NULL, wide, n, err));
        for (uint64_t r = 0; r < n; r++) {
            gyre_linear_rows_f64(&base, first + r, 1, row);
            for (uint64_t c = 0; fold && c < cols; c++) row[c] *= (double)gain[c];
            gyre_distance_add(&d, row, wide + r * cols, cols);
        }
        GYRE_GO(gyre_verify_tick(v, n * cols, err));
    }
    GYRE_GO(judge(v, t, 0, false, &d, allowed(bits, 32, v->rotated, false), 1e-9, err)); // tables are never corrected
done:
    free(wide);
    free(row);
    free(gain);
    return st;
}

static gyre_status check_tables(struct gyre_verifier *v, gyre_error *err)
{
    GYRE_TRY(check_table(v, GYRE_ROLE_embedding, GYRE_ROLE_embedding, false, err));
    if (!v->hp.tied)
        return check_table(v, GYRE_ROLE_head, v->base_hp.tied ? GYRE_ROLE_embedding : GYRE_ROLE_head,
                           v->rotated && v->rotator.fold, err);
    return v->base_hp.tied ? GYRE_OK : gyre_verify_differs(v, err, "the base model's own head is not in it");
}

static gyre_status add_squares(const struct gyre_verifier *v, gyre_role role, uint32_t layer, double *sum, double *n,
                               gyre_error *err)
{
    struct gyre_linear l;
    GYRE_TRY(gyre_linear_find(v->base, &v->base_hp, role, layer, &l, err));
    double *row = malloc(l.cols * sizeof *row);
    if (!row) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for tensor %s", l.weight->name);
    for (uint64_t r = 0; r < l.rows; r++) {
        gyre_linear_rows_f64(&l, r, 1, row);
        for (uint64_t c = 0; c < l.cols; c++) *sum += row[c] * row[c];
    }
    free(row);
    *n += (double)l.rows * (double)l.cols;
    return GYRE_OK;
}

// What a repair that went into a linear of zeros is measured against: the mean square of the base's linears in its
// block, or of the token table where they are all zeros.
static gyre_status block_size(const struct gyre_verifier *v, uint32_t layer, double *out, gyre_error *err)
{
    double sum = 0, n = 0;
    for (int r = 0; r < GYRE_LINEARS; r++) GYRE_TRY(add_squares(v, (gyre_role)r, layer, &sum, &n, err));
    if (sum == 0) GYRE_TRY(add_squares(v, GYRE_ROLE_embedding, 0, &sum, &n, err));
    *out = sum / n;
    return GYRE_OK;
}

// A recipe that is known by its name alone, and is not built in, does not correct as far as anybody knows.
static gyre_status find_correction(const struct gyre_verifier *v, bool *out, gyre_error *err)
{
    const struct gyre_manifest *m = &v->manifest;
    gyre_error why = {0};
    struct gyre_recipe *recipe = malloc(sizeof *recipe);
    *out = false;
    if (!recipe) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for a recipe");
    gyre_status st = m->recipe_text
                         ? gyre_recipe_parse(m->recipe_text, strlen(m->recipe_text), "recipe_text", recipe, &why)
                         : gyre_recipe_find(m->recipe, recipe, &why);
    if (st == GYRE_OK) *out = gyre_recipe_corrects(recipe);
    free(recipe);
    if (st == GYRE_OK || !m->recipe_text) return GYRE_OK;
    return gyre_verify_differs(v, err, "the manifest's recipe is none: %s", why.message);
}

gyre_status gyre_verify_weights(struct gyre_verifier *v, gyre_error *err)
{
    gyre_verify_result *result = v->result;
    const struct gyre_rotator *rotator = v->rotated ? &v->rotator : NULL;
    result->rotated = v->rotated;
    uint64_t rows, cols;
    v->what = "weights";
    v->done = 0;
    v->total = (uint64_t)v->hp.vocab * v->hp.width * (v->hp.tied ? 1 : 2);
    for (int s = 0; s < GYRE_LINEARS; s++) {
        gyre_role_shape((gyre_role)s, &v->hp, &rows, &cols);
        v->total += rows * cols * v->hp.n_layers;
    }
    bool corrected = false;
    GYRE_TRY(find_correction(v, &corrected, err));
    GYRE_TRY(check_tables(v, err));
    for (uint32_t l = 0; l < v->hp.n_layers; l++)
        for (int s = 0; s < GYRE_LINEARS; s++) {
            const gyre_role role = (gyre_role)s;
            const gyre_rotation reads = gyre_products[gyre_roles[role].product].reads;
            const bool mixed = v->rotated && (reads != GYRE_ROTATION_R4 || v->rotator.r4.n) &&
                               (reads != GYRE_ROTATION_R1 || v->rotator.r1.n);
            struct gyre_linear linear;
            struct gyre_distance d;
            uint32_t bits;
            double size = 0;
            GYRE_TRY(gyre_verify_distance(v, rotator, role, l, &d, &linear, &bits, err));
            if (gyre_is_faint(d.norm, d.n)) GYRE_TRY(block_size(v, l, &size, err));
            GYRE_TRY(judge(v, linear.weight, linear.first, true, &d, allowed(bits, linear.group, mixed, corrected),
                           size, err));
            const double error = gyre_distance_relative(&d);
            result->linears++;
            if (error > result->worst_error) {
                result->worst_error = error;
                snprintf(result->worst, sizeof result->worst, "%s", linear.weight->name);
            }
            GYRE_TRY(gyre_verify_tick(v, linear.rows * linear.cols, err));
        }
    snprintf(
        v->detail, sizeof result->check[0].detail,
        "%llu linears %sand the tables are the base model's within %.4g (squared, relative; worst %s), as the manifest "
        "says",
        (unsigned long long)result->linears, v->rotated ? "un-rotated " : "", result->worst_error, result->worst);
    return GYRE_OK;
}
