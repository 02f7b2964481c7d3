// See layer.h. Everything before rounding is fp64; rounding and what follows see fp32.
#include "quantizer/pass/layer.h"
#include "runtime/core/codec.h"
#include "runtime/model/linear.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- memory -----------------------------------------------------------------------------------------------

// NULL: there are none.
static const struct gyre_matrices *learned_diagonals(const struct gyre_plan *p)
{
    return p->rotator.learned && p->rotator.learned->norm ? p->rotator.learned : NULL;
}

// Room for any of the widths that the recipe's exceptions may give the linear in some block.
static bool alloc_rounded(const struct gyre_settings *set, uint64_t rows, uint64_t cols, struct gyre_rounded *out)
{
    if (set->wbits >= 16) return (out->f32 = malloc(rows * cols * sizeof(float))) != NULL;
    const uint32_t group = set->wgroup ? set->wgroup : (uint32_t)cols;
    out->codes = (struct gyre_codes){
        .bits = set->wbits,
        .group = group,
        .code = malloc(rows * cols),
        .scale = malloc(rows * (set->recipe.n_exceptions ? cols : cols / group) * sizeof(uint16_t))};
    return out->codes.code && out->codes.scale;
}

bool gyre_layer_has_plain(const struct gyre_plan *p)
{
    return p->set.recipe.rotate || gyre_recipe_calibrates(&p->set.recipe);
}

// Room for what some block of the model has.
static bool alloc_vectors(const struct gyre_plan *p, struct gyre_layer *out)
{
    bool good = true;
    for (int r = 0; r < GYRE_BLOCK_ROLES; r++) {
        uint64_t rows, cols;
        gyre_role_shape((gyre_role)r, &p->hp, &rows, &cols);
        if (!gyre_role_present(&p->hp, (gyre_role)r, 0)) continue;
        if (r >= GYRE_LINEARS) {
            good &= (out->norm[r] = malloc(cols * sizeof(float))) != NULL;
            good &= (out->gain[r] = malloc(cols * sizeof(float))) != NULL;
            continue;
        }
        if (gyre_role_has_bias(&p->hp, (gyre_role)r, 0)) {
            good &= (out->source_bias[r] = malloc(rows * sizeof(float))) != NULL;
            good &= (out->bias[r] = malloc(rows * sizeof(float))) != NULL;
        }
        if (p->set.recipe.kv_centre && gyre_role_is_cached((gyre_role)r))
            good &= (out->centre[r] = calloc(rows, sizeof(float))) != NULL;
    }
    return good;
}

gyre_status gyre_layer_create(const struct gyre_plan *p, struct gyre_layer *out, gyre_error *err)
{
    uint64_t largest = 0;
    bool good = true;
    *out = (struct gyre_layer){0};
    for (int s = 0; s < GYRE_LINEARS; s++) {
        uint64_t rows, cols;
        gyre_role_shape((gyre_role)s, &p->hp, &rows, &cols);
        largest = GYRE_MAX(largest, rows * cols);
        good &= (out->original[s] = malloc(rows * cols * sizeof(float))) != NULL;
        good &= alloc_rounded(&p->set, rows, cols, &out->recipe[s]);
        if (gyre_layer_has_plain(p)) good &= alloc_rounded(&p->set, rows, cols, &out->plain[s]);
        if (!gyre_recipe_calibrates(&p->set.recipe)) continue;
        good &= (out->exact[s] = malloc(rows * cols * sizeof(float))) != NULL;
        good &= (out->made[s] = malloc(rows * cols * sizeof(float))) != NULL;
    }
    good &= alloc_vectors(p, out);
    good &= (out->wide = malloc(largest * sizeof(double))) != NULL;
    good &= (out->narrow = malloc(largest * sizeof(float))) != NULL;
    good &= (out->expanded = malloc(largest * sizeof(float))) != NULL;
    good &= (out->encoded = malloc(largest * sizeof(float))) != NULL;
    if (good && (gyre_recipe_has_diagonals(&p->set.recipe) || learned_diagonals(p)))
        return gyre_diagonals_create(&p->hp, &out->diagonals, err);
    if (good) return GYRE_OK;
    gyre_layer_free(out);
    return gyre_fail(err, GYRE_E_NOMEM, "out of memory for one block of the model (%llu MB)",
                     (unsigned long long)(largest * 40 >> 20));
}

static void free_rounded(struct gyre_rounded *r)
{
    free(r->codes.code);
    free(r->codes.scale);
    free(r->f32);
}

void gyre_layer_free(struct gyre_layer *layer)
{
    for (int s = 0; s < GYRE_LINEARS; s++) {
        free(layer->original[s]);
        free_rounded(&layer->recipe[s]);
        free_rounded(&layer->plain[s]);
        free(layer->exact[s]);
        free(layer->made[s]);
        free(layer->source_bias[s]);
        free(layer->bias[s]);
        free(layer->centre[s]);
    }
    for (int r = 0; r < GYRE_BLOCK_ROLES; r++) {
        free(layer->norm[r]);
        free(layer->gain[r]);
    }
    gyre_diagonals_release(&layer->diagonals);
    free(layer->wide);
    free(layer->narrow);
    free(layer->expanded);
    free(layer->encoded);
    *layer = (struct gyre_layer){0};
}

const struct gyre_rounded *gyre_layer_plain(const struct gyre_layer *layer, const struct gyre_plan *p, gyre_role role)
{
    return gyre_layer_has_plain(p) ? &layer->plain[role] : &layer->recipe[role];
}

void gyre_layer_vectors(const struct gyre_layer *l, bool made, struct gyre_block_weights *out)
{
    out->kind = l->kind;
    for (int r = 0; r < GYRE_BLOCK_ROLES; r++) out->vector[r] = made ? l->gain[r] : l->norm[r];
    for (int r = 0; r < GYRE_LINEARS; r++) {
        out->bias[r] = made ? l->bias[r] : l->source_bias[r];
        out->centre[r] = made ? l->centre[r] : NULL;
    }
}

// ---- rounding and encoding --------------------------------------------------------------------------------

static gyre_status round_linear(struct gyre_layer *l, const struct gyre_settings *set, const char *name, const float *w,
                                uint64_t rows, uint64_t cols, struct gyre_rounded *out, gyre_error *err)
{
    gyre_error why = {0};
    if (set->wbits < 16) {
        const gyre_status st = gyre_rtn(w, rows, cols, &out->codes, &why);
        if (st != GYRE_OK) return gyre_fail(err, st, "cannot round tensor %s: %s", name, why.message);
        gyre_codes_expand(&out->codes, rows, cols, l->expanded);
        out->error = gyre_relative_error(w, l->expanded, NULL, rows, cols);
        return GYRE_OK;
    }
    for (uint64_t i = 0; i < rows * cols; i++) {
        out->f32[i] = set->wbits == 16 ? gyre_round_to_f16(w[i]) : w[i];
        if (!isfinite(out->f32[i]))
            return gyre_fail(err, GYRE_E_FORMAT,
                             "cannot write tensor %s: weight %g of row %llu, column %llu is not finite%s", name,
                             (double)w[i], (unsigned long long)(i / cols), (unsigned long long)(i % cols),
                             isfinite(w[i]) ? " in f16; use --wbits 32" : "");
    }
    out->error = gyre_relative_error(w, out->f32, NULL, rows, cols);
    return GYRE_OK;
}

static gyre_status write_linear(struct gyre_layer *l, struct gyre_plan_part part, const struct gyre_rounded *r,
                                uint64_t rows, uint64_t cols, struct gyre_output *out, gyre_error *err)
{
    const struct gyre_values values = {.rows = rows,
                                       .cols = cols,
                                       .bits = r->f32 ? 32 : r->codes.bits,
                                       .group = r->codes.group,
                                       .code = r->codes.code,
                                       .scale = r->codes.scale,
                                       .f32 = r->f32};
    return gyre_output_values(out, part, &values, l->encoded, r->error, err);
}

// ---- one block --------------------------------------------------------------------------------------------

// Row r of the output is this row of the source.
static uint64_t source_row(const struct gyre_plan *p, gyre_role role, uint64_t r)
{
    return p->permute_qk && gyre_role_is_turned(role) ? gyre_paired_row(p->hp.head_dim, r) : r;
}

static gyre_status source_linear(const struct gyre_plan *p, gyre_role role, uint32_t layer, struct gyre_linear *out,
                                 gyre_error *err)
{
    GYRE_TRY(gyre_linear_find(p->source, &p->hp, role, layer, out, err));
    if (p->permute_qk && gyre_role_is_turned(role)) out->paired = p->hp.head_dim;
    return GYRE_OK;
}

gyre_status gyre_layer_load(struct gyre_layer *l, const struct gyre_plan *p, gyre_role role,
                            const struct gyre_rotator *rotator, const struct gyre_diagonals *diagonals, float *exact,
                            gyre_error *err)
{
    const gyre_role norm = gyre_products[gyre_roles[role].product].norm;
    uint64_t rows, cols;
    double *gain = NULL;
    gyre_status st = GYRE_OK;
    struct gyre_linear source;
    gyre_role_shape(role, &p->hp, &rows, &cols);
    GYRE_TRY(source_linear(p, role, l->index, &source, err));
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < (int64_t)rows; r++)
        gyre_linear_rows_f64(&source, (uint64_t)r, 1, l->wide + (uint64_t)r * cols);
    GYRE_TRY(gyre_plain_rows(&p->hp, role, l->wide, rows, err));
    gyre_narrow(l->wide, rows * cols, l->original[role]);
    if (p->set.recipe.rotate && norm != GYRE_ROLE_none) {
        gain = malloc(cols * sizeof *gain);
        if (!gain) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for tensor %s", source.weight->name);
        gyre_role_vector_f32(&p->hp, norm, gyre_role_tensor(p->source, norm, l->index, "weight", NULL), l->narrow);
        for (uint64_t i = 0; i < cols; i++) gain[i] = (double)l->narrow[i];
    }
    if (diagonals) gyre_diagonals_before(diagonals, role, false, l->wide);
    if (p->set.recipe.rotate) GYRE_GO(gyre_rotate_linear(rotator, role, l->index, gain, l->wide, err));
    if (diagonals) gyre_diagonals_after(diagonals, role, false, l->wide);
    gyre_narrow(l->wide, rows * cols, exact);
done:
    free(gain);
    return st;
}

// The bias of a linear as it will be written.
static gyre_status make_bias(struct gyre_layer *l, const struct gyre_plan *p, gyre_role role,
                             const struct gyre_rotator *rotator, const struct gyre_diagonals *diagonals,
                             gyre_error *err)
{
    uint64_t rows, cols;
    if (!l->bias[role]) return GYRE_OK;
    gyre_role_shape(role, &p->hp, &rows, &cols);
    for (uint64_t r = 0; r < rows; r++) l->wide[r] = (double)l->source_bias[role][r];
    if (diagonals) gyre_diagonals_bias(diagonals, role, l->wide);
    if (p->set.recipe.rotate) GYRE_TRY(gyre_rotate_bias(rotator, role, l->index, l->wide, err));
    gyre_narrow(l->wide, rows, l->bias[role]);
    return GYRE_OK;
}

gyre_status gyre_layer_read_vectors(struct gyre_layer *l, const struct gyre_plan *p, struct gyre_output *out,
                                    gyre_error *err)
{
    const struct gyre_tensor *last = NULL;
    l->kind = p->hp.kind[l->index];
    for (int r = 0; r < GYRE_BLOCK_ROLES; r++) {
        const gyre_role role = (gyre_role)r;
        const bool linear = r < GYRE_LINEARS, folded = p->rotator.fold && gyre_norm_product(role) != GYRE_PRODUCTS;
        uint64_t rows, cols;
        if (linear ? !l->bias[r] : !l->norm[r]) continue;
        gyre_role_shape(role, &p->hp, &rows, &cols);
        struct gyre_bias bias;
        const struct gyre_tensor *t;
        if (linear) {
            GYRE_TRY(gyre_role_bias(p->source, &p->hp, role, l->index, &bias, err));
            t = bias.tensor;
            gyre_bias_f32(&bias, l->narrow);
            for (uint64_t i = 0; i < rows; i++) l->source_bias[r][i] = l->narrow[source_row(p, role, i)];
        } else {
            GYRE_TRY(gyre_role_need(p->source, role, l->index, "weight", &t, err));
            gyre_role_vector_f32(&p->hp, role, t, l->norm[r]);
            for (uint64_t i = 0; i < cols; i++) l->gain[r][i] = folded ? 1 : l->norm[r][i];
        }
        if (out && t != last) GYRE_TRY(gyre_output_source(out, &t, 1, err)); // a bias of several is one
        last = t;
    }
    return GYRE_OK;
}

static struct gyre_calibration_weights calibration_weights(const struct gyre_layer *l)
{
    struct gyre_calibration_weights w = {0};
    for (int r = 0; r < GYRE_LINEARS; r++) w.exact[r] = l->exact[r], w.made[r] = l->made[r];
    gyre_layer_vectors(l, true, &w.vectors);
    return w;
}

// Diagonals of this block from the float path in the model's own bases (but R1, which is the stream's).
static gyre_status measure_diagonals(struct gyre_layer *l, const struct gyre_plan *p, gyre_calibration *c,
                                     gyre_error *err)
{
    struct gyre_rotator stream_only = p->rotator; // borrows R1
    stream_only.r2.n = stream_only.r4.n = 0;
    if (stream_only.online) stream_only.r1.n = 0; // it is not the stream's
    for (int s = 0; s < GYRE_LINEARS; s++)
        GYRE_TRY(gyre_layer_load(l, p, (gyre_role)s, &stream_only, NULL, l->exact[s], err));
    for (int s = 0; s < GYRE_LINEARS; s++) GYRE_TRY(make_bias(l, p, (gyre_role)s, &stream_only, NULL, err));
    const struct gyre_calibration_weights w = calibration_weights(l);
    struct gyre_diagonal_sample sample = {.weights = l->exact, .bias = l->bias};
    for (int s = 0; s < GYRE_LINEARS; s++) {
        sample.bits[s] = l->recipe[s].codes.bits;
        sample.group[s] = l->recipe[s].codes.group;
    }
    GYRE_TRY(gyre_calibration_sample(c, &w, sample.tap, &sample.rows, err));
    return gyre_diagonals_measure(&p->set.recipe, &sample, &l->diagonals, err);
}

// Measured or learned; those behind norms go into what the file holds of these.
static gyre_status find_diagonals(struct gyre_layer *l, const struct gyre_plan *p, gyre_calibration *c, gyre_error *err)
{
    if (!l->diagonals.up_down) return GYRE_OK;
    if (learned_diagonals(p)) gyre_diagonals_take(learned_diagonals(p), l->index, &l->diagonals);
    else GYRE_TRY(measure_diagonals(l, p, c, err));
    for (int product = 0; product < GYRE_PRODUCTS; product++)
        for (uint32_t i = 0; l->diagonals.norm[product] && i < p->hp.width; i++)
            l->gain[gyre_products[product].norm][i] *= l->diagonals.norm[product][i];
    return GYRE_OK;
}

// The recipe's stages on one linear; `moments`, `outputs` and `cache` NULL where it needs no statistics.
static gyre_status round_recipe(struct gyre_layer *l, const struct gyre_plan *p, gyre_role role, const float *exact,
                                const struct gyre_moments *moments, const struct gyre_outputs *outputs,
                                struct gyre_factor *cache, gyre_error *err)
{
    struct gyre_rounded *r = &l->recipe[role];
    gyre_error why = {0};
    char name[64];
    uint64_t rows, cols;
    gyre_role_name(role, l->index, "weight", name);
    gyre_role_shape(role, &p->hp, &rows, &cols);
    if (p->set.wbits >= 16) return round_linear(l, &p->set, name, exact, rows, cols, r, err);
    const struct gyre_ladder_linear linear = {exact, rows, cols, moments, outputs, gyre_role_adds(&p->hp, role)};
    const gyre_status st = gyre_ladder(&p->set.recipe, &linear, cache, &r->codes, &l->note[role], &why);
    if (st != GYRE_OK) return gyre_fail(err, st, "cannot round tensor %s: %s", name, why.message);
    float *const made = moments ? l->made[role] : l->expanded;
    gyre_codes_expand(&r->codes, rows, cols, made);
    r->faint = gyre_codes_faint(&r->codes, exact, rows, cols);
    const float *gain = l->diagonals.norm[gyre_roles[role].product];
    r->error = gyre_relative_error(exact, made, gain, rows, cols);
    return GYRE_OK;
}

static uint64_t weights_at(const struct gyre_plan *p, gyre_role role)
{
    uint64_t rows, cols;
    gyre_role_shape(role, &p->hp, &rows, &cols);
    return rows * cols;
}

// Tap by tap: statistics through what is rounded so far, then the linears that read there.
static gyre_status round_calibrated(struct gyre_layer *l, const struct gyre_plan *p, gyre_calibration *c,
                                    const struct gyre_ticker *ticker, gyre_error *err)
{
    const struct gyre_calibration_weights w = calibration_weights(l);
    struct gyre_moments moments = {0};
    struct gyre_factor cache = {0};
    struct gyre_outputs outputs = {0};
    const struct gyre_diagonals *diagonals = l->diagonals.up_down ? &l->diagonals : NULL;
    gyre_status st = GYRE_OK;
    for (int tap = 0; tap < GYRE_PRODUCTS; tap++) {
        GYRE_GO(gyre_calibration_tap(c, l->index, &w, (gyre_product)tap, &moments, err));
        bool caches = false;
        for (int s = 0; s < GYRE_LINEARS; s++) {
            if (gyre_roles[s].product != (gyre_product)tap) continue;
            caches |= l->centre[s] != NULL;
            GYRE_GO(gyre_calibration_outputs(c, l->index, (gyre_role)s, diagonals, &outputs, err));
            GYRE_GO(round_recipe(l, p, (gyre_role)s, l->exact[s], &moments, outputs.h ? &outputs : NULL, &cache, err));
            gyre_outputs_release(&outputs);
            GYRE_GO(gyre_tick(ticker, weights_at(p, (gyre_role)s), err));
        }
        if (caches) GYRE_GO(gyre_calibration_centre(c, &w, l->centre, err));
        gyre_moments_release(&moments);
        gyre_factor_release(&cache);
    }
    st = gyre_calibration_end_block(c, &w, err);
done:
    gyre_moments_release(&moments);
    gyre_outputs_release(&outputs);
    gyre_factor_release(&cache);
    return st;
}

static gyre_status write_block(struct gyre_layer *l, const struct gyre_plan *p, struct gyre_output *out,
                               gyre_error *err)
{
    struct gyre_plan_part part[GYRE_PLAN_PARTS];
    const uint32_t n = gyre_plan_block(p, l->index, part);
    for (uint32_t i = 0; i < n; i++) {
        const gyre_role role = part[i].role;
        const gyre_plan_part_kind kind = part[i].kind;
        uint64_t rows, cols;
        gyre_role_shape(role, &p->hp, &rows, &cols);
        if (kind == GYRE_PART_LINEAR) {
            GYRE_TRY(write_linear(l, part[i], &l->recipe[role], rows, cols, out, err));
            continue;
        }
        const float *x = kind == GYRE_PART_BIAS     ? l->bias[role]
                         : kind == GYRE_PART_CENTRE ? l->centre[role]
                                                    : l->narrow;
        if (x == l->narrow) {
            memcpy(l->narrow, l->gain[role], cols * sizeof *l->narrow);
            gyre_plan_stored(p, role, l->narrow, cols);
        }
        GYRE_TRY(gyre_output_write(out, part[i], x, (role < GYRE_LINEARS ? rows : cols) * sizeof *x, NAN, err));
    }
    return GYRE_OK;
}

// The widths of this block's linears.
static void set_widths(struct gyre_layer *l, const struct gyre_plan *p)
{
    for (int s = 0; s < GYRE_LINEARS && p->set.wbits < 16; s++) {
        char name[64];
        uint64_t rows, cols;
        uint32_t group;
        gyre_role_name((gyre_role)s, l->index, "weight", name);
        gyre_role_shape((gyre_role)s, &p->hp, &rows, &cols);
        gyre_settings_width(&p->set, name, &l->recipe[s].codes.bits, &group);
        l->recipe[s].codes.group = group ? group : (uint32_t)cols;
        if (!gyre_layer_has_plain(p)) continue;
        l->plain[s].codes.bits = l->recipe[s].codes.bits; // what plain rounding would do at the same widths
        l->plain[s].codes.group = l->recipe[s].codes.group;
    }
}

// The linear plainly rounded, for comparison where that is not what the recipe does.
static gyre_status round_plain(struct gyre_layer *l, const struct gyre_plan *p, gyre_role role, gyre_error *err)
{
    char name[64];
    uint64_t rows, cols;
    gyre_role_name(role, l->index, "weight", name);
    gyre_role_shape(role, &p->hp, &rows, &cols);
    if (!gyre_layer_has_plain(p)) return GYRE_OK;
    return round_linear(l, &p->set, name, l->original[role], rows, cols, &l->plain[role], err);
}

gyre_status gyre_layer_make(struct gyre_layer *l, const struct gyre_plan *p, uint32_t index, gyre_calibration *c,
                            struct gyre_output *out, const struct gyre_ticker *ticker, gyre_error *err)
{
    const struct gyre_diagonals *diagonals = l->diagonals.up_down ? &l->diagonals : NULL;
    struct gyre_linear linear[GYRE_LINEARS];
    const struct gyre_tensor *read[GYRE_LINEAR_TENSORS * GYRE_LINEARS];
    int n_read = 0;
    l->index = index;
    for (int s = 0; s < GYRE_LINEARS; s++) {
        GYRE_TRY(source_linear(p, (gyre_role)s, index, &linear[s], err));
        if (s && linear[s].weight == linear[s - 1].weight) continue; // of several in one tensor
        n_read += (int)gyre_linear_tensors(&linear[s], read + n_read);
    }
    set_widths(l, p);
    GYRE_TRY(gyre_layer_read_vectors(l, p, out, err));
    GYRE_TRY(gyre_output_source(out, read, n_read, err));
    GYRE_TRY(find_diagonals(l, p, c, err));
    for (int product = 0; product < GYRE_PRODUCTS; product++)
        for (uint32_t i = 0; gyre_products[product].norm != GYRE_ROLE_none && i < p->hp.width; i++)
            l->gain[gyre_products[product].norm][i] *= gyre_rotate_gain(&p->rotator, (gyre_product)product, i);
    for (int s = 0; s < GYRE_LINEARS; s++) {
        const gyre_role role = (gyre_role)s;
        float *const exact = c ? l->exact[s] : l->narrow;
        GYRE_TRY(make_bias(l, p, role, &p->rotator, diagonals, err));
        GYRE_TRY(gyre_layer_load(l, p, role, &p->rotator, diagonals, exact, err));
        GYRE_TRY(round_plain(l, p, role, err));
        if (c) continue;
        GYRE_TRY(round_recipe(l, p, role, exact, NULL, NULL, NULL, err));
        GYRE_TRY(gyre_tick(ticker, weights_at(p, role), err));
    }
    if (c) GYRE_TRY(round_calibrated(l, p, c, ticker, err));
    for (int s = 0; s < GYRE_LINEARS; s++) gyre_linear_forget(&linear[s]); // not needed again
    return write_block(l, p, out, err);
}
