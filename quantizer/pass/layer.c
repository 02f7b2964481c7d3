// See layer.h. Everything before rounding is fp64; rounding and what follows see fp32.
#include "quantizer/pass/layer.h"
#include "runtime/core/codec.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- memory -----------------------------------------------------------------------------------------------

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

gyre_status gyre_layer_create(const struct gyre_plan *p, struct gyre_layer *out, gyre_error *err)
{
    uint64_t largest = 0;
    bool good = true;
    *out = (struct gyre_layer){0};
    for (int s = 0; s < GYRE_SITES; s++) {
        uint64_t rows, cols;
        gyre_site_shape((gyre_site)s, &p->hp, &rows, &cols);
        largest = GYRE_MAX(largest, rows * cols);
        good &= (out->original[s] = malloc(rows * cols * sizeof(float))) != NULL;
        good &= alloc_rounded(&p->set, rows, cols, &out->recipe[s]);
        if (gyre_layer_has_plain(p)) good &= alloc_rounded(&p->set, rows, cols, &out->plain[s]);
        if (!gyre_recipe_calibrates(&p->set.recipe)) continue;
        good &= (out->exact[s] = malloc(rows * cols * sizeof(float))) != NULL;
        good &= (out->made[s] = malloc(rows * cols * sizeof(float))) != NULL;
    }
    good &= (out->attn_norm = malloc(p->hp.width * sizeof(float))) != NULL;
    good &= (out->ffn_norm = malloc(p->hp.width * sizeof(float))) != NULL;
    good &= (out->attn_gain = malloc(p->hp.width * sizeof(float))) != NULL;
    good &= (out->ffn_gain = malloc(p->hp.width * sizeof(float))) != NULL;
    good &= (out->wide = malloc(largest * sizeof(double))) != NULL;
    good &= (out->narrow = malloc(largest * sizeof(float))) != NULL;
    good &= (out->expanded = malloc(largest * sizeof(float))) != NULL;
    good &= (out->encoded = malloc(largest * sizeof(float))) != NULL;
    const uint64_t kv = (uint64_t)p->hp.kv_heads * p->hp.head_dim;
    if (p->set.recipe.kv_centre) good &= (out->k_centre = calloc(2 * kv, sizeof(float))) != NULL;
    if (out->k_centre) out->v_centre = out->k_centre + kv;
    if (good && gyre_recipe_has_diagonals(&p->set.recipe)) return gyre_diagonals_create(&p->hp, &out->diagonals, err);
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
    for (int s = 0; s < GYRE_SITES; s++) {
        free(layer->original[s]);
        free_rounded(&layer->recipe[s]);
        free_rounded(&layer->plain[s]);
        free(layer->exact[s]);
        free(layer->made[s]);
    }
    gyre_diagonals_release(&layer->diagonals);
    free(layer->k_centre);
    free(layer->attn_norm);
    free(layer->ffn_norm);
    free(layer->attn_gain);
    free(layer->ffn_gain);
    free(layer->wide);
    free(layer->narrow);
    free(layer->expanded);
    free(layer->encoded);
    *layer = (struct gyre_layer){0};
}

const struct gyre_rounded *gyre_layer_plain(const struct gyre_layer *layer, const struct gyre_plan *p, gyre_site site)
{
    return gyre_layer_has_plain(p) ? &layer->plain[site] : &layer->recipe[site];
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

void gyre_encode_floats(const float *x, uint64_t n, gyre_dtype type, void *out)
{
    if (type == GYRE_DTYPE_F32) memcpy(out, x, n * sizeof *x);
    else if (type == GYRE_DTYPE_F16)
        for (uint64_t i = 0; i < n; i++) ((uint16_t *)out)[i] = gyre_f16_from_f32(x[i]);
    else gyre_quantize_q8_0(x, n, out);
}

// Q4_0 or Q8_0 blocks, the scale of a group repeated in each block of 32.
static void encode_blocks(const struct gyre_codes *c, uint64_t n, gyre_dtype type, unsigned char *out)
{
    const uint64_t bytes = gyre_dtype_info(type)->block_bytes;
    for (uint64_t at = 0; at < n; at += 32, out += bytes) {
        if (type == GYRE_DTYPE_Q4_0) gyre_encode_q4_0(c->code + at, &c->scale[at / c->group], 32, out);
        else gyre_encode_q8_0(c->code + at, &c->scale[at / c->group], 32, out);
    }
}

static gyre_status write_linear(struct gyre_layer *l, const struct gyre_plan *p, const char *name,
                                const struct gyre_rounded *r, uint64_t rows, uint64_t cols, struct gyre_output *out,
                                gyre_error *err)
{
    const uint64_t n = rows * cols, bytes = p->gguf.tensors[out->next].bytes;
    const gyre_dtype type = p->gguf.tensors[out->next].type;
    char scale[80];
    if (p->set.wbits >= 16) {
        gyre_encode_floats(r->f32, n, type, l->encoded);
        return gyre_output_write(out, name, l->encoded, bytes, r->error, err);
    }
    if (!p->set.full) {
        encode_blocks(&r->codes, n, type, l->encoded);
        return gyre_output_write(out, name, l->encoded, bytes, r->error, err);
    }
    if (r->codes.bits == 4) gyre_pack_i4(r->codes.code, n, l->encoded);
    GYRE_TRY(gyre_output_write(out, name, r->codes.bits == 4 ? l->encoded : (const void *)r->codes.code, bytes,
                               r->error, err));
    snprintf(scale, sizeof scale, "%s.scale", name);
    return gyre_output_write(out, scale, r->codes.scale, rows * (cols / r->codes.group) * sizeof(uint16_t), NAN, err);
}

// ---- one block --------------------------------------------------------------------------------------------

// Row r of the output is this row of the source: (head, i, j) of GGUF's interleaved order is (head, j, i) of half-split.
static uint64_t source_row(const struct gyre_plan *p, gyre_site site, uint64_t r)
{
    if (!p->permute_qk || (site != GYRE_SITE_Q && site != GYRE_SITE_K)) return r;
    const uint64_t hd = p->hp.head_dim, in_head = r % hd;
    return r - in_head + (in_head % 2) * (hd / 2) + in_head / 2;
}

void gyre_narrow(const double *wide, uint64_t n, float *out)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < (int64_t)n; i++) out[i] = (float)wide[i];
}

gyre_status gyre_layer_load(struct gyre_layer *l, const struct gyre_plan *p, gyre_site site,
                            const struct gyre_rotator *rotator, const struct gyre_diagonals *diagonals, float *exact,
                            gyre_error *err)
{
    char name[64], norm[64];
    uint64_t rows, cols;
    double *gain = NULL;
    gyre_status st = GYRE_OK;
    gyre_site_name(site, l->index, name);
    gyre_site_shape(site, &p->hp, &rows, &cols);
    const struct gyre_tensor *t = gyre_source_tensor(p->source, name);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < (int64_t)rows; r++)
        gyre_tensor_rows_f64(t, source_row(p, site, (uint64_t)r), 1, l->wide + (uint64_t)r * cols);
    gyre_narrow(l->wide, rows * cols, l->original[site]);
    if (p->set.recipe.rotate && gyre_site_norm_name(site, l->index, norm)) {
        gain = malloc(cols * sizeof *gain);
        if (!gain) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for tensor %s", norm);
        gyre_tensor_rows_f64(gyre_source_tensor(p->source, norm), 0, 1, gain);
    }
    if (diagonals) gyre_diagonals_before(diagonals, site, false, l->wide);
    if (p->set.recipe.rotate) GYRE_GO(gyre_rotate_linear(rotator, site, l->index, gain, l->wide, err));
    if (diagonals) gyre_diagonals_after(diagonals, site, false, l->wide);
    gyre_narrow(l->wide, rows * cols, exact);
done:
    free(gain);
    return st;
}

// Both norms' gains: as they are, or ones where they were folded into their readers.
static gyre_status load_norms(struct gyre_layer *l, const struct gyre_plan *p, struct gyre_output *out, gyre_error *err)
{
    for (int which = 0; which < 2; which++) {
        float *const gain = which ? l->ffn_norm : l->attn_norm, *const written = which ? l->ffn_gain : l->attn_gain;
        char name[64];
        (void)gyre_site_norm_name(which ? GYRE_SITE_GATE : GYRE_SITE_Q, l->index, name);
        const struct gyre_tensor *t = gyre_source_tensor(p->source, name);
        gyre_tensor_rows_f32(t, 0, 1, gain);
        for (uint32_t i = 0; i < p->hp.width; i++) written[i] = p->rotator.fold ? 1 : gain[i];
        GYRE_TRY(gyre_output_source(out, &t, 1, err));
    }
    return GYRE_OK;
}

// Diagonals of this block from the float path in the model's own bases (but R1, which is the stream's).
static gyre_status measure_diagonals(struct gyre_layer *l, const struct gyre_plan *p, gyre_calibration *c,
                                     gyre_error *err)
{
    struct gyre_rotator stream_only = p->rotator; // borrows R1
    stream_only.r2.n = stream_only.r4.n = 0;
    for (int s = 0; s < GYRE_SITES; s++)
        GYRE_TRY(gyre_layer_load(l, p, (gyre_site)s, &stream_only, NULL, l->exact[s], err));
    const struct gyre_calibration_weights w = {
        .exact = l->exact, .made = l->made, .attn_gain = l->attn_gain, .ffn_gain = l->ffn_gain};
    struct gyre_diagonal_sample sample = {.weights = l->exact};
    GYRE_TRY(gyre_calibration_sample(c, &w, sample.tap, &sample.rows, err));
    GYRE_TRY(gyre_diagonals_measure(&p->set.recipe, &sample, &l->diagonals, err));
    for (uint32_t i = 0; i < p->hp.width; i++) {
        l->attn_gain[i] *= l->diagonals.norm[0][i];
        l->ffn_gain[i] *= l->diagonals.norm[1][i];
    }
    return GYRE_OK;
}

// Which linears read at a tap: GYRE_SITE_Q.. up to the next tap's first.
static const gyre_site first_site[GYRE_TAPS + 1] = {GYRE_SITE_Q, GYRE_SITE_O, GYRE_SITE_GATE, GYRE_SITE_DOWN,
                                                    GYRE_SITES};

// The recipe's stages on one linear; `moments` and `cache` NULL where it needs no statistics.
static gyre_status round_recipe(struct gyre_layer *l, const struct gyre_plan *p, gyre_site site, const float *exact,
                                const struct gyre_moments *moments, struct gyre_factor *cache, gyre_error *err)
{
    struct gyre_rounded *r = &l->recipe[site];
    gyre_error why = {0};
    char name[64];
    uint64_t rows, cols;
    gyre_site_name(site, l->index, name);
    gyre_site_shape(site, &p->hp, &rows, &cols);
    if (p->set.wbits >= 16) return round_linear(l, &p->set, name, exact, rows, cols, r, err);
    const gyre_status st = gyre_ladder(&p->set.recipe, moments, site == GYRE_SITE_O || site == GYRE_SITE_DOWN, exact,
                                       rows, cols, cache, &r->codes, &l->note[site], &why);
    if (st != GYRE_OK) return gyre_fail(err, st, "cannot round tensor %s: %s", name, why.message);
    float *const made = moments ? l->made[site] : l->expanded;
    gyre_codes_expand(&r->codes, rows, cols, made);
    r->faint = gyre_codes_faint(&r->codes, exact, rows, cols);
    const bool reads_norm = l->diagonals.up_down && gyre_site_norm_name(site, l->index, name);
    const float *gain = !reads_norm ? NULL : l->diagonals.norm[site == GYRE_SITE_GATE || site == GYRE_SITE_UP];
    r->error = gyre_relative_error(exact, made, gain, rows, cols);
    return GYRE_OK;
}

static uint64_t weights_at(const struct gyre_plan *p, gyre_site site)
{
    uint64_t rows, cols;
    gyre_site_shape(site, &p->hp, &rows, &cols);
    return rows * cols;
}

// Tap by tap: statistics through what is rounded so far, then the linears that read there.
static gyre_status round_calibrated(struct gyre_layer *l, const struct gyre_plan *p, gyre_calibration *c,
                                    gyre_status (*tick)(void *, uint64_t, gyre_error *), void *user, gyre_error *err)
{
    const struct gyre_calibration_weights w = {.exact = l->exact,
                                               .made = l->made,
                                               .attn_gain = l->attn_gain,
                                               .ffn_gain = l->ffn_gain,
                                               .k_centre = l->k_centre,
                                               .v_centre = l->v_centre};
    struct gyre_moments moments = {0};
    struct gyre_factor cache = {0};
    gyre_status st = GYRE_OK;
    for (int tap = 0; tap < GYRE_TAPS; tap++) {
        GYRE_GO(gyre_calibration_tap(c, l->index, &w, (gyre_tap)tap, &moments, err));
        for (int s = first_site[tap]; s < (int)first_site[tap + 1]; s++) {
            GYRE_GO(round_recipe(l, p, (gyre_site)s, l->exact[s], &moments, &cache, err));
            if (tick) GYRE_GO(tick(user, weights_at(p, (gyre_site)s), err));
        }
        if (tap == GYRE_TAP_QKV && l->k_centre) GYRE_GO(gyre_calibration_centre(c, &w, l->k_centre, l->v_centre, err));
        gyre_moments_release(&moments);
        gyre_factor_release(&cache);
    }
    st = gyre_calibration_end_block(c, &w, err);
done:
    gyre_moments_release(&moments);
    gyre_factor_release(&cache);
    return st;
}

static gyre_status write_block(struct gyre_layer *l, const struct gyre_plan *p, struct gyre_output *out,
                               gyre_error *err)
{
    char name[64];
    for (int s = 0; s < GYRE_SITES; s++) {
        const gyre_site site = (gyre_site)s;
        uint64_t rows, cols;
        gyre_site_shape(site, &p->hp, &rows, &cols);
        if ((site == GYRE_SITE_Q || site == GYRE_SITE_GATE) && gyre_site_norm_name(site, l->index, name))
            GYRE_TRY(gyre_output_write(out, name, site == GYRE_SITE_Q ? l->attn_gain : l->ffn_gain,
                                       p->hp.width * sizeof(float), NAN, err));
        gyre_site_name(site, l->index, name);
        GYRE_TRY(write_linear(l, p, name, &l->recipe[s], rows, cols, out, err));
        if ((site != GYRE_SITE_K && site != GYRE_SITE_V) || !l->k_centre) continue;
        gyre_centre_name(site, l->index, name);
        GYRE_TRY(gyre_output_write(out, name, site == GYRE_SITE_K ? l->k_centre : l->v_centre, rows * sizeof(float),
                                   NAN, err));
    }
    return GYRE_OK;
}

// The widths of this block's linears.
static void set_widths(struct gyre_layer *l, const struct gyre_plan *p)
{
    for (int s = 0; s < GYRE_SITES && p->set.wbits < 16; s++) {
        char name[64];
        uint64_t rows, cols;
        uint32_t group;
        gyre_site_name((gyre_site)s, l->index, name);
        gyre_site_shape((gyre_site)s, &p->hp, &rows, &cols);
        gyre_settings_width(&p->set, name, &l->recipe[s].codes.bits, &group);
        l->recipe[s].codes.group = group ? group : (uint32_t)cols;
        if (!gyre_layer_has_plain(p)) continue;
        l->plain[s].codes.bits = l->recipe[s].codes.bits; // what plain rounding would do at the same widths
        l->plain[s].codes.group = l->recipe[s].codes.group;
    }
}

// The linear plainly rounded, for comparison where that is not what the recipe does.
static gyre_status round_plain(struct gyre_layer *l, const struct gyre_plan *p, gyre_site site, gyre_error *err)
{
    char name[64];
    uint64_t rows, cols;
    gyre_site_name(site, l->index, name);
    gyre_site_shape(site, &p->hp, &rows, &cols);
    if (!gyre_layer_has_plain(p)) return GYRE_OK;
    return round_linear(l, &p->set, name, l->original[site], rows, cols, &l->plain[site], err);
}

gyre_status gyre_layer_make(struct gyre_layer *l, const struct gyre_plan *p, uint32_t index, gyre_calibration *c,
                            struct gyre_output *out, gyre_status (*tick)(void *, uint64_t, gyre_error *), void *user,
                            gyre_error *err)
{
    const struct gyre_diagonals *diagonals = l->diagonals.up_down ? &l->diagonals : NULL;
    const struct gyre_tensor *linear[GYRE_SITES];
    l->index = index;
    for (int s = 0; s < GYRE_SITES; s++) {
        char name[64];
        gyre_site_name((gyre_site)s, index, name);
        linear[s] = gyre_source_tensor(p->source, name);
    }
    set_widths(l, p);
    GYRE_TRY(load_norms(l, p, out, err));
    GYRE_TRY(gyre_output_source(out, linear, GYRE_SITES, err));
    if (diagonals) GYRE_TRY(measure_diagonals(l, p, c, err));
    for (int s = 0; s < GYRE_SITES; s++) {
        const gyre_site site = (gyre_site)s;
        float *const exact = c ? l->exact[s] : l->narrow;
        GYRE_TRY(gyre_layer_load(l, p, site, &p->rotator, diagonals, exact, err));
        GYRE_TRY(round_plain(l, p, site, err));
        if (c) continue;
        GYRE_TRY(round_recipe(l, p, site, exact, NULL, NULL, err));
        if (tick) GYRE_TRY(tick(user, weights_at(p, site), err));
    }
    if (c) GYRE_TRY(round_calibrated(l, p, c, tick, user, err));
    for (int s = 0; s < GYRE_SITES; s++) gyre_tensor_forget(linear[s]); // not needed again
    return write_block(l, p, out, err);
}
