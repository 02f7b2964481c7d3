// See calibrate.h. The walk runs; here taps become moments.
#include "quantizer/pass/calibrate.h"
#include "backends/cpu/fast.h"
#include "quantizer/gradient/fisher.h"
#include "quantizer/gradient/steps.h"
#include "runtime/model/linear.h"
#include "quantizer/file/output.h"
#include "quantizer/pass/outputs.h"
#include "quantizer/pass/text.h"
#include "quantizer/pass/walk.h"
#include "quantizer/transform/diagonals.h"
#include "quantizer/transform/rotate.h"
#include "runtime/core/codec.h"
#include "runtime/core/quantize.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_ROWS = 2048 };

struct gyre_calibration {
    const struct gyre_plan *plan;
    struct gyre_calib_text text;
    bool corrects;  // the recipe corrects targets
    bool has_exact; // ... or measures diagonals: the float path runs beside
    gyre_device *device;
    gyre_walk *walk;
    uint32_t made_path, exact_path;   // of the walk; the float one comes first where it runs
    uint32_t loaded;                  // the part whose weights the quantized path's block has already; 0: none
    float *made, *exact, *difference; // [chunk rows][widest, widest, D] for the moments, which scale them
    double *weight;                   // [2][chunk rows]
    gyre_block *sampler;              // float, without online transforms, of one chunk; NULL: no diagonals to measure
    float *sample[GYRE_PRODUCTS];     // [chunk rows][the tap's width]
    struct gyre_fisher fisher;        // weight NULL: rows are not weighed by it
    struct gyre_output_side outputs;
};

// ---- opening ------------------------------------------------------------------------------------------------

static gyre_status open_walk(gyre_calibration *c, gyre_error *err)
{
    const struct gyre_plan *p = c->plan;
    const struct gyre_hparams hp = gyre_plan_output_hparams(p);
    struct gyre_walk_params params = {
        .device = c->device,
        .source = p->source,
        .token = c->text.token,
        .windows = c->text.windows,
        .tokens = c->text.tokens,
        .chunk_rows = CHUNK_ROWS,
        .n_paths = c->made_path + 1,
    };
    params.path[c->exact_path] =
        (struct gyre_walk_path){&hp, {.act_bits = 16, .kv_bits = 16, .act_clip = 1, .kv_clip = 1}};
    params.path[c->made_path] = (struct gyre_walk_path){&hp,
                                                        {.act_bits = p->set.act,
                                                         .kv_bits = p->set.kv,
                                                         .kv_bits_v = p->set.kv_v,
                                                         .act_clip = p->choice.act_clip,
                                                         .kv_clip = p->choice.kv_clip,
                                                         .kv_clip_v = p->choice.kv_clip_v,
                                                         .tap_clip = p->choice.tap_clip}};
    return gyre_walk_open(&params, &c->walk, err);
}

// One chunk of the float path in the heads' and the ffn's own bases.
static gyre_status open_sampler(gyre_calibration *c, uint64_t chunk, gyre_error *err)
{
    struct gyre_hparams plain = gyre_plan_output_hparams(c->plan);
    plain.rot = (struct gyre_rotations){0};
    const struct gyre_block_options o = {.act_bits = 16,
                                         .kv_bits = 16,
                                         .max_rows = (uint32_t)chunk,
                                         .sequence = c->text.tokens,
                                         .act_clip = 1,
                                         .kv_clip = 1};
    for (int tap = 0; tap < GYRE_PRODUCTS; tap++) {
        c->sample[tap] = malloc(chunk * gyre_product_width((gyre_product)tap, &plain) * sizeof(float));
        if (!c->sample[tap]) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for diagonals");
    }
    return gyre_block_create(c->device, &plain, &o, &c->sampler, err);
}

static gyre_status allocate(gyre_calibration *c, uint64_t chunk, gyre_error *err)
{
    const struct gyre_hparams *hp = &c->plan->hp;
    uint64_t widest = 0;
    for (int tap = 0; tap < GYRE_PRODUCTS; tap++)
        widest = GYRE_MAX(widest, (uint64_t)gyre_product_width((gyre_product)tap, hp));
    bool good = (c->made = malloc(chunk * widest * sizeof(float))) != NULL;
    good &= (c->exact = malloc(chunk * widest * sizeof(float))) != NULL;
    good &= (c->difference = malloc(chunk * hp->width * sizeof(float))) != NULL;
    good &= (c->weight = malloc(2 * chunk * sizeof *c->weight)) != NULL;
    return good ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "out of memory for calibration");
}

gyre_status gyre_calibration_open(const gyre_quantize_params *params, const struct gyre_plan *plan,
                                  const struct gyre_own_text *own, gyre_device *device, gyre_calibration **out,
                                  gyre_error *err)
{
    const struct gyre_recipe *recipe = &plan->set.recipe;
    gyre_status st = GYRE_OK;
    *out = NULL;
    if (!gyre_recipe_calibrates(recipe)) return GYRE_OK;
    gyre_calibration *c = calloc(1, sizeof *c);
    if (!c) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for calibration");
    c->plan = plan;
    c->device = device;
    if (params->n_calib > recipe->calibration.windows)
        GYRE_GO(gyre_fail(err, GYRE_E_INVALID,
                          "cannot calibrate: %u texts for the recipe's %u windows; give fewer texts", params->n_calib,
                          recipe->calibration.windows));
    c->corrects = gyre_recipe_corrects(recipe);
    c->has_exact = c->corrects || gyre_recipe_has_diagonals(recipe);
    c->made_path = c->has_exact ? 1 : 0;
    GYRE_GO(gyre_calib_text_read(plan->source, params->calib, params->n_calib, own, recipe->calibration.windows,
                                 gyre_recipe_more_windows(recipe), recipe->calibration.tokens, &c->text, err));
    GYRE_GO(open_walk(c, err));
    const uint64_t chunk = gyre_walk_chunk(c->walk, 0).rows;
    GYRE_GO(allocate(c, chunk, err));
    if (gyre_recipe_has_diagonals(recipe)) GYRE_GO(open_sampler(c, chunk, err));
    *out = c;
done:
    if (st != GYRE_OK) gyre_calibration_close(c);
    return st;
}

void gyre_calibration_close(gyre_calibration *c)
{
    if (!c) return;
    gyre_walk_close(c->walk);
    gyre_block_destroy(c->sampler);
    for (int tap = 0; tap < GYRE_PRODUCTS; tap++) free(c->sample[tap]);
    gyre_calib_text_free(&c->text);
    gyre_fisher_free(&c->fisher);
    gyre_output_side_release(&c->outputs);
    free(c->made);
    free(c->exact);
    free(c->difference);
    free(c->weight);
    free(c);
}

const struct gyre_calib_text *gyre_calibration_windows(const gyre_calibration *c) { return &c->text; }

const char *gyre_calibration_device(const gyre_calibration *c) { return gyre_device_info(c->device)->id; }

// ---- weights of rows and outputs ------------------------------------------------------------------------------

enum { WORK = 64 }; // a window's way through a block is about this part of rounding it

struct weighing {
    gyre_calibration *calibration;
    uint64_t work; // of such a way
    const struct gyre_ticker *ticker;
};

static gyre_status tick_block(void *user, uint64_t blocks, gyre_error *err)
{
    const struct weighing *w = user;
    return gyre_tick(w->ticker, blocks * w->work, err);
}

static gyre_status look(void *user, const struct gyre_fisher_look *at, gyre_error *err)
{
    const struct weighing *w = user;
    return gyre_output_side_add(&w->calibration->outputs, at->layer, at->product, at->gradient, err);
}

// Windows that go through the float model and back.
static uint64_t weighed(const gyre_calibration *c)
{
    if (c->plan->set.wbits >= 16) return 0;
    return c->plan->set.recipe.calibration.fisher ? c->text.windows
                                                  : GYRE_MIN(c->plan->set.recipe.calibration.outputs, c->text.windows);
}

uint64_t gyre_calibration_weigh_work(const gyre_calibration *c, uint64_t block_weights)
{
    return block_weights / WORK * 2 * weighed(c) * c->plan->hp.n_layers;
}

gyre_status gyre_calibration_weigh(gyre_calibration *c, uint64_t block_weights, const struct gyre_ticker *ticker,
                                   gyre_error *err)
{
    struct weighing w = {c, block_weights / WORK, ticker};
    const struct gyre_ticker blocks = {tick_block, &w};
    struct gyre_fisher_params p = {.source = c->plan->source,
                                   .token = c->text.token,
                                   .windows = c->text.windows,
                                   .tokens = c->text.tokens,
                                   .seed = c->plan->set.seed,
                                   .weighs = c->plan->set.recipe.calibration.fisher,
                                   .looks = c->plan->set.recipe.calibration.outputs,
                                   .look = look,
                                   .user = &w,
                                   .ticker = &blocks};
    if (!weighed(c)) return GYRE_OK;
    if (p.looks) GYRE_TRY(gyre_output_side_create(c->plan, c->text.tokens, &c->outputs, err));
    GYRE_TRY(gyre_fast_device_create(NULL, &p.device, err));
    const gyre_status st = gyre_fisher_measure(&p, &c->fisher, err);
    gyre_device_close(p.device);
    return st;
}

gyre_status gyre_calibration_outputs(const gyre_calibration *c, uint32_t layer, gyre_role role,
                                     const struct gyre_diagonals *diagonals, struct gyre_outputs *out, gyre_error *err)
{
    return gyre_output_side_get(&c->outputs, layer, role, diagonals, out, err);
}

// ---- streams ------------------------------------------------------------------------------------------------

const void *gyre_calibration_streams(const gyre_calibration *c, uint64_t *bytes)
{
    return gyre_walk_state(c->walk, bytes);
}

bool gyre_calibration_restore(gyre_calibration *c, const void *data, uint64_t bytes)
{
    uint64_t mine;
    void *state = gyre_walk_state(c->walk, &mine);
    if (bytes != mine) return false;
    memcpy(state, data, bytes);
    return true;
}

// Rows of the rotated table.
static gyre_status embed_exact(const void *user, const uint32_t *token, uint32_t n, float *out, gyre_error *err)
{
    const struct gyre_plan *p = user;
    const uint32_t D = p->hp.width;
    struct gyre_linear t;
    GYRE_TRY(gyre_linear_find(p->source, &p->hp, GYRE_ROLE_embedding, 0, &t, err));
    double *wide = malloc((uint64_t)n * D * sizeof *wide);
    if (!wide) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for calibration");
    for (uint32_t i = 0; i < n; i++) gyre_linear_rows_f64(&t, token[i], 1, wide + (uint64_t)i * D);
    const gyre_status st = gyre_rotate_rows(&p->rotator, NULL, wide, n, err);
    for (uint64_t i = 0; st == GYRE_OK && i < (uint64_t)n * D; i++) out[i] = (float)wide[i];
    free(wide);
    return st;
}

// The same as the written table gives them.
static gyre_status embed_made(const void *user, const uint32_t *token, uint32_t n, float *out, gyre_error *err)
{
    const struct gyre_plan *p = user;
    const uint32_t D = p->hp.width;
    GYRE_TRY(embed_exact(user, token, n, out, err));
    unsigned char *encoded = malloc(D * sizeof(float));
    if (!encoded) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for calibration");
    for (uint32_t i = 0; i < n; i++) {
        gyre_encode_floats(out + (uint64_t)i * D, D, p->table_type, encoded);
        gyre_decode_row(p->table_type, encoded, D, out + (uint64_t)i * D);
    }
    free(encoded);
    return GYRE_OK;
}

gyre_status gyre_calibration_begin(gyre_calibration *c, gyre_error *err)
{
    if (c->has_exact) GYRE_TRY(gyre_walk_embed(c->walk, c->exact_path, embed_exact, c->plan, err));
    return gyre_walk_embed(c->walk, c->made_path, embed_made, c->plan, err);
}

// ---- taps ---------------------------------------------------------------------------------------------------

// What part `part` needs and those before it did not: each linear of a block is uploaded once.
static struct gyre_block_weights weights_of(const struct gyre_calibration_weights *w, bool made, uint32_t part)
{
    struct gyre_block_weights out = w->vectors;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        const bool now = gyre_roles[r].product + 1 == part;
        out.linear[r] = (struct gyre_block_linear){.f32 = !now ? NULL : made ? w->made[r] : w->exact[r]};
        if (!made) out.centre[r] = NULL;
    }
    return out;
}

gyre_status gyre_calibration_sample(gyre_calibration *c, const struct gyre_calibration_weights *w,
                                    const float *tap[GYRE_PRODUCTS], uint64_t *rows, gyre_error *err)
{
    struct gyre_block_weights weights = w->vectors;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        weights.linear[r] = (struct gyre_block_linear){.f32 = w->exact[r]};
        weights.centre[r] = NULL;
    }
    const uint64_t n = gyre_walk_chunk(c->walk, 0).rows;
    memcpy(c->difference, gyre_walk_stream(c->walk, c->exact_path),
           n * c->plan->hp.width * sizeof(float)); // parts change it
    GYRE_TRY(gyre_block_load(c->sampler, &weights, err));
    for (uint32_t part = 0; part < GYRE_PRODUCTS; part++) {
        GYRE_TRY(gyre_block_part(c->sampler, part, c->difference, part ? c->sample[part - 1] : NULL, (uint32_t)n,
                                 c->sample[part], err));
        tap[part] = c->sample[part];
    }
    *rows = n;
    return GYRE_OK;
}

// What an error in a row of the residual stream counts for: every norm behind divides by the row's size.
static void weigh_rows(const gyre_calibration *c, uint64_t first, uint64_t rows, double *weight)
{
    const double median = gyre_row_energies(gyre_walk_stream(c->walk, c->made_path) + first * c->plan->hp.width, rows,
                                            c->plan->hp.width, weight, weight + rows);
    for (uint64_t r = 0; r < rows; r++) weight[r] = weight[r] > 0 ? GYRE_MIN(median / weight[r], 4.0) : 1;
}

struct gathering {
    gyre_calibration *calibration;
    const float *fisher; // [rows] at this tap; NULL
    struct gyre_tap tap;
    struct gyre_moments *moments;
};

// Adds windows w.. of a chunk, all held out or none. `x` [at->rows][m->n] is the quantized path's tap.
static gyre_status add_windows(struct gathering *g, const struct gyre_walk_chunk *at, const float *x, uint32_t w,
                               uint32_t windows, bool held, gyre_error *err)
{
    gyre_calibration *c = g->calibration;
    struct gyre_moments *m = g->moments;
    const uint32_t tokens = c->text.tokens, D = c->plan->hp.width;
    const uint64_t rows = (uint64_t)windows * tokens, skip = (uint64_t)w * tokens, first = at->first + skip;
    const float *stream[2] = {gyre_walk_stream(c->walk, c->made_path) + first * D,
                              gyre_walk_stream(c->walk, c->exact_path) + first * D};
    memcpy(c->made, x + skip * m->n, rows * m->n * sizeof(float));
    const struct gyre_tap *tap = &g->tap;
    gyre_quantize_rows(c->made, rows, m->n, tap->bits, tap->clip,
                       gyre_quantize_span(c->plan->set.recipe.act_group, tap->bits, m->n));
    if (c->corrects)
        memcpy(c->exact, gyre_walk_tap(c->walk, c->exact_path, at) + skip * m->n, rows * m->n * sizeof(float));
    if (m->fit.stream)
        for (uint64_t i = 0; i < rows * D; i++) c->difference[i] = stream[1][i] - stream[0][i];
    const bool weighed = m->fit.stream != NULL; // only repair needs it: plain GPTQ does better without (17.56 to 17.89)
    if (weighed) weigh_rows(c, first, rows, c->weight);
    for (uint64_t r = 0; g->fisher && r < rows; r++) c->weight[r] = (double)g->fisher[first + r]; // norms are in it
    return gyre_moments_add(m, held, c->made, c->exact, c->difference, weighed || g->fisher ? c->weight : NULL, rows,
                            err);
}

// What learning holds out of the same text; of so few windows that it would be the last one nothing is.
static bool is_held(const gyre_calibration *c, uint32_t window)
{
    return c->text.windows >= GYRE_STEPS_HELD_OUT && gyre_steps_is_held(c->text.windows, window);
}

// The windows of a chunk, the held-out ones apart.
static gyre_status add_moments(void *user, const struct gyre_walk_chunk *at, const float *x, gyre_error *err)
{
    const struct gathering *g = user;
    for (uint32_t w = 0; w < at->windows;) {
        const bool held = is_held(g->calibration, at->window + w);
        uint32_t end = w + 1;
        while (end < at->windows && is_held(g->calibration, at->window + end) == held) end++;
        GYRE_TRY(add_windows(user, at, x, w, end - w, held, err));
        w = end;
    }
    return GYRE_OK;
}

// Part `part` on both paths, the float one first: the made one's look compares them.
static gyre_status run_part(gyre_calibration *c, const struct gyre_calibration_weights *w, uint32_t part,
                            struct gathering *gathering, gyre_error *err)
{
    for (uint32_t path = 0; path <= c->made_path; path++) {
        const bool made = path == c->made_path;
        const struct gyre_block_weights weights = weights_of(w, made, part);
        if (!made || !part || part != c->loaded)
            GYRE_TRY(gyre_block_load(gyre_walk_block(c->walk, path), &weights, err));
        GYRE_TRY(gyre_walk_part(c->walk, path, part, made && gathering ? add_moments : NULL, gathering, err));
    }
    c->loaded = 0;
    return GYRE_OK;
}

gyre_status gyre_calibration_tap(gyre_calibration *c, uint32_t layer, const struct gyre_calibration_weights *weights,
                                 gyre_product tap, struct gyre_moments *out, gyre_error *err)
{
    const gyre_role first = gyre_product_first(tap);
    const bool writes = gyre_role_adds(&c->plan->hp, first);
    gyre_error why = {0};
    GYRE_TRY(gyre_moments_create(gyre_product_width(tap, &c->plan->hp), c->plan->hp.width, c->corrects,
                                 c->corrects && writes, out, err));
    const float *fisher = c->fisher.weight ? gyre_fisher_rows(&c->fisher, layer, tap) : NULL;
    const struct gyre_hparams hp = gyre_plan_output_hparams(c->plan);
    const struct gyre_precision made_for = gyre_made_for(&hp);
    struct gathering gathering = {c, fisher, gyre_tap_at(&hp, &hp.kind[layer], tap, &made_for), out};
    const gyre_status st = run_part(c, weights, tap, &gathering, &why);
    if (st != GYRE_OK) {
        gyre_moments_release(out);
        return gyre_fail(err, st, "cannot calibrate block %u (input of %s): %s", layer, gyre_roles[first].gguf,
                         why.message);
    }
    gyre_moments_finish(out);
    return GYRE_OK;
}

gyre_status gyre_calibration_centre(gyre_calibration *c, const struct gyre_calibration_weights *w,
                                    float *const centre[GYRE_LINEARS], gyre_error *err)
{
    const struct gyre_walk_chunk at = gyre_walk_chunk(c->walk, 0);
    const gyre_role key = gyre_heads_role(GYRE_HEADS_KEY), value = gyre_heads_role(GYRE_HEADS_VALUE);
    const uint32_t part = gyre_roles[key].product + 1;
    const struct gyre_block_weights weights = weights_of(w, true, part);
    struct gyre_block_weights centres = {.kind = weights.kind};
    gyre_block *block = gyre_walk_block(c->walk, c->made_path);
    GYRE_TRY(gyre_block_load(block, &weights, err));
    GYRE_TRY(gyre_block_means(block, gyre_walk_tap(c->walk, c->made_path, &at), (uint32_t)at.rows, centre[key],
                              centre[value], err));
    for (int r = 0; r < GYRE_LINEARS; r++) centres.centre[r] = centre[r];
    c->loaded = part;
    return gyre_block_load(block, &centres, err);
}

gyre_status gyre_calibration_end_block(gyre_calibration *c, const struct gyre_calibration_weights *weights,
                                       gyre_error *err)
{
    return run_part(c, weights, GYRE_PRODUCTS, NULL, err);
}
