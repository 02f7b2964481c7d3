// See search.h.
#include "quantizer/pass/search.h"
#include "runtime/model/linear.h"
#include "quantizer/pass/text.h"
#include "quantizer/pass/layer.h"
#include "quantizer/pass/walk.h"
#include "quantizer/round/gemm.h"
#include "runtime/core/quantize.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOWS = 4, BLOCKS = 8, ROWS = 256, CLIPS = 7 };
static const float clips[CLIPS] = {1, 0.97f, 0.94f, 0.91f, 0.88f, 0.85f, 0.8f};

struct survey {
    const struct gyre_plan *plan;
    struct gyre_layer layer;
    struct gyre_rotator fold; // nothing but the gains
    gyre_walk *walk;
    struct gyre_calib_text text;
    uint32_t tokens, kept, n_seeds; // rows that run, rows of a sample
    struct gyre_rotator *seed;      // [n_seeds] candidates
    double *surrogate;              // [n_seeds], then the sum over linears
    double act[CLIPS], kv[CLIPS];
    float *tap[GYRE_PRODUCTS];             // [tokens][...] of the block that is looked at
    float *weights[GYRE_LINEARS], *ones;   // ones: [D], the gain of a norm that is folded
    double *wide;                          // [kept][widest] a sample being rotated
    float *rows, *noisy, *exact, *rounded; // [kept][widest], the same quantized, the largest linear, its rounding
    float *aim, *y;                        // [kept][most outputs]
};

// ---- memory -------------------------------------------------------------------------------------------------

static void close_survey(struct survey *s)
{
    gyre_layer_free(&s->layer);
    gyre_walk_close(s->walk);
    gyre_calib_text_free(&s->text);
    for (uint32_t i = 0; s->seed && i < s->n_seeds; i++) gyre_rotator_release(&s->seed[i]);
    free(s->seed);
    free(s->surrogate);
    for (int i = 0; i < GYRE_PRODUCTS; i++) free(s->tap[i]);
    for (int i = 0; i < GYRE_LINEARS; i++) free(s->weights[i]);
    free(s->ones);
    free(s->wide);
    free(s->rows);
    free(s->noisy);
    free(s->exact);
    free(s->rounded);
    free(s->aim);
    free(s->y);
}

static gyre_status allocate(struct survey *s, gyre_error *err)
{
    const struct gyre_hparams *hp = &s->plan->hp;
    uint64_t widest = 0, outputs = 0, largest = 0, rows, cols;
    bool good = true;
    for (int i = 0; i < GYRE_PRODUCTS; i++)
        good &=
            (s->tap[i] = malloc((uint64_t)s->tokens * gyre_product_width((gyre_product)i, hp) * sizeof(float))) != NULL;
    for (int i = 0; i < GYRE_LINEARS; i++) {
        gyre_role_shape((gyre_role)i, hp, &rows, &cols);
        widest = GYRE_MAX(widest, cols);
        outputs = GYRE_MAX(outputs, rows);
        largest = GYRE_MAX(largest, rows * cols);
        good &= (s->weights[i] = malloc(rows * cols * sizeof(float))) != NULL;
    }
    good &= (s->ones = malloc(hp->width * sizeof *s->ones)) != NULL;
    for (uint32_t i = 0; s->ones && i < hp->width; i++) s->ones[i] = 1;
    good &= (s->surrogate = calloc(s->n_seeds, sizeof *s->surrogate)) != NULL;
    good &= (s->seed = calloc(s->n_seeds, sizeof *s->seed)) != NULL;
    good &= (s->wide = malloc(s->kept * widest * sizeof *s->wide)) != NULL;
    good &= (s->rows = malloc(s->kept * widest * sizeof *s->rows)) != NULL;
    good &= (s->noisy = malloc(s->kept * widest * sizeof *s->noisy)) != NULL;
    good &= (s->exact = malloc(largest * sizeof *s->exact)) != NULL;
    good &= (s->rounded = malloc(largest * sizeof *s->rounded)) != NULL;
    good &= (s->aim = malloc(s->kept * outputs * sizeof *s->aim)) != NULL;
    good &= (s->y = malloc(s->kept * outputs * sizeof *s->y)) != NULL;
    return good ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "out of memory for choosing a rotation");
}

static gyre_status open_survey(struct survey *s, const gyre_quantize_params *params, const struct gyre_own_text *own,
                               gyre_device *device, gyre_error *err)
{
    const struct gyre_plan *p = s->plan;
    const struct gyre_recipe *recipe = &p->set.recipe;
    const unsigned which = gyre_plan_sites(p) | (p->set.full ? GYRE_ROTATE_R4 : 0);
    GYRE_TRY(gyre_calib_text_read(p->source, params->calib, params->n_calib, own,
                                  GYRE_MIN(recipe->calibration.windows, (uint32_t)WINDOWS), 0,
                                  recipe->calibration.tokens, &s->text, err));
    s->tokens = s->text.windows * s->text.tokens;
    s->kept = GYRE_MIN(s->tokens, (uint32_t)ROWS);
    s->n_seeds = recipe->seeds;
    GYRE_TRY(allocate(s, err));
    GYRE_TRY(gyre_layer_create(p, &s->layer, err));
    GYRE_TRY(gyre_rotator_create(&p->hp, 0, true, 0, &s->fold, err));
    for (uint32_t i = 0; i < s->n_seeds; i++)
        GYRE_TRY(gyre_rotator_create(&p->hp, p->set.seed + i, true, recipe->rotate ? which : 0, &s->seed[i], err));
    struct gyre_hparams hp = p->hp;
    hp.rot = (struct gyre_rotations){0};
    const struct gyre_walk_params walk = {
        .device = device,
        .source = p->source,
        .token = s->text.token,
        .windows = s->text.windows,
        .tokens = s->text.tokens,
        .chunk_rows = s->tokens,
        .n_paths = 1,
        .path = {{&hp, {.act_bits = 16, .kv_bits = 16, .act_clip = 1, .kv_clip = 1}}},
    };
    return gyre_walk_open(&walk, &s->walk, err);
}

// ---- the float model ----------------------------------------------------------------------------------------

static gyre_status embed(const void *table, const uint32_t *token, uint32_t n, float *out, gyre_error *err)
{
    const struct gyre_linear *t = table;
    (void)err;
    for (uint32_t i = 0; i < n; i++) gyre_linear_rows_f32(t, token[i], 1, out + i * t->cols);
    return GYRE_OK;
}

struct keeping {
    struct survey *survey;
    uint32_t tap;
};

static gyre_status keep(void *user, const struct gyre_walk_chunk *at, const float *x, gyre_error *err)
{
    const struct keeping *k = user;
    const uint64_t width = gyre_product_width((gyre_product)k->tap, &k->survey->plan->hp);
    (void)err;
    memcpy(k->survey->tap[k->tap] + at->first * width, x, at->rows * width * sizeof *x);
    return GYRE_OK;
}

// Runs block `layer`; `kept`: what its taps read is looked at afterwards.
static gyre_status run_block(struct survey *s, uint32_t layer, bool kept, gyre_error *err)
{
    const struct gyre_plan *p = s->plan;
    struct gyre_block_weights w;
    s->layer.index = layer;
    GYRE_TRY(gyre_layer_read_vectors(&s->layer, p, NULL, err));
    gyre_layer_vectors(&s->layer, false, &w); // as the linears are loaded: folded, or not
    for (int i = 0; i < GYRE_LINEARS; i++)
        GYRE_TRY(gyre_layer_load(&s->layer, p, (gyre_role)i, &s->fold, NULL, s->weights[i], err));
    for (int i = 0; i < GYRE_LINEARS; i++) w.linear[i] = (struct gyre_block_linear){.f32 = s->weights[i]};
    for (int i = GYRE_LINEARS; p->set.recipe.rotate && s->fold.fold && i < GYRE_BLOCK_ROLES; i++)
        if (gyre_norm_product((gyre_role)i) != GYRE_PRODUCTS) w.vector[i] = s->ones;
    GYRE_TRY(gyre_block_load(gyre_walk_block(s->walk, 0), &w, err));
    struct keeping k = {s, 0};
    for (; k.tap <= GYRE_PRODUCTS; k.tap++) GYRE_TRY(gyre_walk_part(s->walk, 0, k.tap, kept ? keep : NULL, &k, err));
    return GYRE_OK;
}

// ---- candidates ---------------------------------------------------------------------------------------------

// Evenly spread rows of a tap as rotation `r` turns them, into s->rows. The first token of a window carries the
// attention sink and is left out.
static gyre_status sample(struct survey *s, const struct gyre_rotator *r, gyre_product tap, gyre_error *err)
{
    const uint32_t width = gyre_product_width(tap, &s->plan->hp);
    for (uint64_t i = 0; i < s->kept; i++) {
        uint64_t row = i * s->tokens / s->kept;
        if (row % s->text.tokens == 0 && row + 1 < s->tokens) row++;
        for (uint64_t k = 0; k < width; k++) s->wide[i * width + k] = (double)s->tap[tap][row * width + k];
    }
    GYRE_TRY(gyre_rotate_input(r, tap, s->layer.index, s->wide, s->kept, err));
    for (uint64_t i = 0; i < (uint64_t)s->kept * width; i++) s->rows[i] = (float)s->wide[i];
    return GYRE_OK;
}

// Whether what a linear of the block reads has 4 bits: only these are clipped, and only their noise is held against a
// rotation.
static bool reads4(const struct survey *s, int site)
{
    return gyre_plan_act(s->plan, s->layer.index, gyre_roles[site].product) == 4;
}

// Groups of a 4-bit row of `width` inputs.
static uint32_t span_of(const struct survey *s, uint64_t width)
{
    return gyre_quantize_span(s->plan->set.recipe.act_group, 4, width);
}

// |x w' - aim|^2 with the products in s->y; aim NULL: zero.
static double output_energy(struct survey *s, const float *x, const float *w, uint64_t rows, uint64_t cols,
                            const float *aim)
{
    double sum = 0;
    gyre_gemm_rows(x, w, s->kept, rows, cols, s->y);
    for (uint64_t i = 0; i < s->kept * rows; i++) {
        const double d = (double)s->y[i] - (aim ? (double)aim[i] : 0);
        sum += d * d;
    }
    return sum;
}

// Relative output error of linear `site` under rotation `r` with its weights plainly rounded, and inputs of 4 bits.
static gyre_status judge(struct survey *s, const struct gyre_rotator *r, gyre_role site, double *error, gyre_error *err)
{
    const struct gyre_plan *p = s->plan;
    uint64_t rows, cols;
    uint32_t bits, group;
    char name[64];
    gyre_role_name(site, s->layer.index, "weight", name);
    gyre_role_shape(site, &p->hp, &rows, &cols);
    gyre_settings_width(&p->set, name, &bits, &group);
    GYRE_TRY(gyre_layer_load(&s->layer, p, site, r, NULL, s->exact, err));
    struct gyre_codes codes = s->layer.recipe[site].codes; // room for any width
    codes.bits = bits;
    codes.group = group ? group : (uint32_t)cols;
    GYRE_TRY(gyre_rtn(s->exact, rows, cols, &codes, err));
    gyre_codes_expand(&codes, rows, cols, s->rounded);
    const double whole = output_energy(s, s->rows, s->exact, rows, cols, NULL);
    memcpy(s->aim, s->y, s->kept * rows * sizeof *s->y);
    *error = output_energy(s, s->rows, s->rounded, rows, cols, s->aim);
    if (reads4(s, site)) *error += output_energy(s, s->noisy, s->exact, rows, cols, s->aim);
    *error = whole > 0 ? *error / whole : 0;
    return GYRE_OK;
}

// Adds a block's share to every candidate's surrogate.
static gyre_status judge_seeds(struct survey *s, const struct gyre_ticker *ticker, gyre_error *err)
{
    for (uint32_t i = 0; i < s->n_seeds; i++) {
        for (int site = 0; site < GYRE_LINEARS; site++) {
            double error;
            if (site == 0 || gyre_roles[site].product != gyre_roles[site - 1].product) {
                GYRE_TRY(sample(s, &s->seed[i], gyre_roles[site].product, err));
                const uint32_t width = gyre_product_width(gyre_roles[site].product, &s->plan->hp);
                memcpy(s->noisy, s->rows, (uint64_t)s->kept * width * sizeof *s->rows);
                if (reads4(s, site)) gyre_quantize_rows(s->noisy, s->kept, width, 4, 1, span_of(s, width));
            }
            GYRE_TRY(judge(s, &s->seed[i], (gyre_role)site, &error, err));
            s->surrogate[i] += error;
        }
        GYRE_TRY(gyre_tick(ticker, 0, err));
    }
    return GYRE_OK;
}

// Output errors of the block's linears with quantized inputs, at every clip ratio; and of the cached values.
static gyre_status judge_clips(struct survey *s, const struct gyre_rotator *r, gyre_error *err)
{
    const struct gyre_plan *p = s->plan;
    for (int site = 0; site < GYRE_LINEARS; site++) {
        uint64_t rows, cols;
        if (!reads4(s, site)) continue;
        gyre_role_shape((gyre_role)site, &p->hp, &rows, &cols);
        if (site == 0 || gyre_roles[site].product != gyre_roles[site - 1].product)
            GYRE_TRY(sample(s, r, gyre_roles[site].product, err));
        GYRE_TRY(gyre_layer_load(&s->layer, p, (gyre_role)site, r, NULL, s->exact, err));
        const double whole = output_energy(s, s->rows, s->exact, rows, cols, NULL);
        memcpy(s->aim, s->y, s->kept * rows * sizeof *s->y);
        for (int c = 0; c < CLIPS && whole > 0; c++) {
            memcpy(s->noisy, s->rows, s->kept * cols * sizeof *s->rows);
            gyre_quantize_rows(s->noisy, s->kept, (uint32_t)cols, 4, clips[c], span_of(s, cols));
            s->act[c] += output_energy(s, s->noisy, s->exact, rows, cols, s->aim) / whole;
        }
    }
    if (p->set.kv != 4 && p->set.kv_v != 4) return GYRE_OK; // nothing to choose
    const uint64_t kv = (uint64_t)p->hp.kv_heads * p->hp.head_dim,
                   n = s->kept * kv; // values; keys are as Gaussian after R3
    const gyre_role value = gyre_heads_role(GYRE_HEADS_VALUE);
    GYRE_TRY(sample(s, r, gyre_roles[value].product, err));
    GYRE_TRY(gyre_layer_load(&s->layer, p, value, r, NULL, s->exact, err));
    const double whole = output_energy(s, s->rows, s->exact, kv, p->hp.width, NULL);
    for (int c = 0; c < CLIPS && whole > 0; c++) {
        double error = 0;
        memcpy(s->aim, s->y, n * sizeof *s->y);
        gyre_quantize_cache(s->aim, s->kept * p->hp.kv_heads, p->hp.head_dim, 4, clips[c]);
        for (uint64_t i = 0; i < n; i++)
            error += ((double)s->aim[i] - (double)s->y[i]) * ((double)s->aim[i] - (double)s->y[i]);
        s->kv[c] += error / whole;
    }
    return GYRE_OK;
}

// ---- entry --------------------------------------------------------------------------------------------------

static float best_clip(const double *error)
{
    int best = 0;
    for (int c = 1; c < CLIPS; c++)
        if (error[c] < error[best]) best = c;
    return clips[best];
}

// The float model once; `judge_clips` on the winner needs the samples again, so seeds and clips take a pass each.
static gyre_status walk(struct survey *s, const struct gyre_rotator *winner, const struct gyre_ticker *ticker,
                        gyre_error *err)
{
    const uint32_t layers = s->plan->hp.n_layers, blocks = GYRE_MIN(layers, (uint32_t)BLOCKS);
    struct gyre_linear table;
    GYRE_TRY(gyre_linear_find(s->plan->source, &s->plan->hp, GYRE_ROLE_embedding, 0, &table, err));
    GYRE_TRY(gyre_walk_embed(s->walk, 0, embed, &table, err));
    for (uint32_t l = 0, k = 0; l < layers; l++) {
        const bool looked = k < blocks && l == (2 * k + 1) * layers / (2 * blocks); // the middles of equal parts
        GYRE_TRY(run_block(s, l, looked, err));
        if (looked) {
            GYRE_TRY(winner ? judge_clips(s, winner, err) : judge_seeds(s, ticker, err));
            k++;
        }
        GYRE_TRY(gyre_tick(ticker, 0, err));
    }
    return GYRE_OK;
}

gyre_status gyre_search(const gyre_quantize_params *params, const struct gyre_plan *plan,
                        const struct gyre_own_text *own, gyre_device *device, struct gyre_choice *out,
                        const struct gyre_ticker *ticker, gyre_error *err)
{
    const struct gyre_recipe *recipe = &plan->set.recipe;
    const bool act = recipe->act_clip == GYRE_AUTO, kv = recipe->kv_clip == GYRE_AUTO;
    struct survey *s = NULL;
    gyre_status st = GYRE_OK;
    *out = (struct gyre_choice){.seed = plan->set.seed,
                                .n_seeds = 1,
                                .act_clip = act ? 1 : (float)recipe->act_clip,
                                .kv_clip = kv ? 1 : (float)recipe->kv_clip,
                                .kv_clip_v = kv ? 1 : (float)recipe->kv_clip,
                                .tap_clip = act ? 1 : (float)recipe->act_clip};
    if (!gyre_settings_undecided(&plan->set)) return GYRE_OK;
    s = calloc(1, sizeof *s);
    if (!s) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for choosing a rotation");
    s->plan = plan;
    GYRE_GO(open_survey(s, params, own, device, err));
    uint32_t winner = 0;
    if (s->n_seeds > 1) {
        GYRE_GO(walk(s, NULL, ticker, err));
        for (uint32_t i = 0; i < s->n_seeds; i++) {
            out->surrogate[i] = (float)s->surrogate[i];
            if (s->surrogate[i] < s->surrogate[winner]) winner = i;
        }
        out->seed = plan->set.seed + winner;
        out->n_seeds = s->n_seeds;
    }
    if ((act && plan->set.act4) || (kv && (plan->set.kv == 4 || plan->set.kv_v == 4))) {
        GYRE_GO(walk(s, &s->seed[winner], ticker, err));
        if (act && plan->set.act4) *(plan->set.act == 4 ? &out->act_clip : &out->tap_clip) = best_clip(s->act);
        if (!plan->set.taps) out->tap_clip = out->act_clip;
        if (kv && plan->set.kv == 4) out->kv_clip = best_clip(s->kv);
        if (kv && plan->set.kv_v == 4) out->kv_clip_v = best_clip(s->kv);
    }
done:
    close_survey(s);
    free(s);
    return st;
}
