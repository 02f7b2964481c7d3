// See calibrate.h. Rows go through in chunks of whole windows; a chunk's piece of the tap arrays keeps its place
// whatever the width of the tap.
#include "quantizer/pass/calibrate.h"
#include "backends/backend.h"
#include "quantizer/pass/text.h"
#include "quantizer/transform/diagonals.h"
#include "quantizer/pass/host_block.h"
#include "quantizer/pass/layer.h"
#include "quantizer/transform/rotate.h"
#include "runtime/core/codec.h"
#include "runtime/source/json_file.h"
#include "runtime/util/base.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_ROWS = 2048, HELD_OUT = 8 };
enum path { EXACT, MADE, PATHS };

struct gyre_calibration {
    const struct gyre_plan *plan;
    struct gyre_calib_text text;
    bool corrects;  // the recipe corrects targets
    bool has_exact; // ... or measures diagonals: the float path runs beside
    gyre_device *device;
    gyre_block *block[PATHS];
    gyre_host_block *host[PATHS];
    uint32_t chunk_windows, widest;
    uint64_t rows; // of all windows
    float *x;      // [PATHS][rows][D] residual streams; PATHS or only MADE
    float *mid;    // as x with the output of attention added, on a device: x stays the block's input to its end there
    float *tap[PATHS];                // [rows][widest]
    float *part;                      // [chunk rows][widest] what a part writes
    float *made, *exact, *difference; // [chunk rows][widest, widest, D] for the moments, which scale them
    double *weight;                   // [2][chunk rows]
    bool samples;                     // the recipe has diagonals to measure
    gyre_host_block *sampler;         // float, without online transforms
    gyre_host_block *centrer;         // as the made path's, where that is on a device and the recipe centres the cache
    float *sample[GYRE_PRODUCTS];     // [chunk rows][the tap's width]
};

static float *stream(const gyre_calibration *c, enum path path)
{
    return c->x + (c->has_exact && path == MADE ? c->rows * c->plan->hp.width : 0);
}

// The stream that the linear of `tap` adds to.
static float *stream_at(const gyre_calibration *c, enum path path, uint32_t tap)
{
    return (c->mid && tap == GYRE_PRODUCT_down ? c->mid : c->x) + (stream(c, path) - c->x);
}

// ---- opening ------------------------------------------------------------------------------------------------

static gyre_status open_blocks(gyre_calibration *c, const gyre_quantize_params *params, gyre_error *err)
{
    const struct gyre_plan *p = c->plan;
    const struct gyre_hparams hp = gyre_plan_output_hparams(p);
    const struct gyre_device_options options = {.log = &params->log};
    const struct gyre_tensor *t = gyre_role_tensor(p->source, GYRE_ROLE_rope_freqs, 0, "weight", NULL);
    struct gyre_device_info info;
    float divisor[GYRE_MAX_HEAD_DIM / 2];
    if (t) gyre_tensor_rows_f32(t, 0, 1, divisor);
    // A software GPU would take longer than everything else together.
    if (params->device) GYRE_TRY(gyre_device_open(params->device, &options, &c->device, err));
    else if (gyre_devices_list(&info, 1, NULL, 0, NULL) >= 1 && !info.software &&
             gyre_device_open(info.id, &options, &c->device, NULL) != GYRE_OK)
        c->device = NULL;
    const uint32_t chunk = c->chunk_windows * c->text.tokens;
    for (int path = c->has_exact ? EXACT : MADE; path < PATHS; path++) {
        struct gyre_block_options o = {.act_bits = path == MADE ? p->set.act : 16,
                                       .kv_bits = path == MADE ? p->set.kv : 16,
                                       .max_rows = c->device ? c->text.tokens : chunk,
                                       .act_clip = path == MADE ? p->choice.act_clip : 1,
                                       .kv_clip = path == MADE ? p->choice.kv_clip : 1,
                                       .rope_divisors = t ? divisor : NULL};
        if (c->device) GYRE_TRY(gyre_block_create(c->device, &hp, &o, &c->block[path], err));
        else GYRE_TRY(gyre_host_block_create(&hp, &o, &c->host[path], err));
        o.max_rows = chunk;
        if (c->device && path == MADE && p->set.recipe.kv_centre)
            GYRE_TRY(gyre_host_block_create(&hp, &o, &c->centrer, err));
    }
    if (!c->samples) return GYRE_OK;
    struct gyre_hparams plain = hp;
    plain.rot = (struct gyre_rotations){0};
    const struct gyre_block_options o = {.act_bits = 16,
                                         .kv_bits = 16,
                                         .max_rows = chunk,
                                         .act_clip = 1,
                                         .kv_clip = 1,
                                         .rope_divisors = t ? divisor : NULL};
    return gyre_host_block_create(&plain, &o, &c->sampler, err); // one chunk: not worth a device
}

static gyre_status allocate(gyre_calibration *c, gyre_error *err)
{
    const struct gyre_hparams *hp = &c->plan->hp;
    const uint64_t D = hp->width, chunk = (uint64_t)c->chunk_windows * c->text.tokens;
    bool good = (c->x = malloc((c->has_exact ? 2 : 1) * c->rows * D * sizeof *c->x)) != NULL;
    if (c->device) good &= (c->mid = malloc((c->has_exact ? 2 : 1) * c->rows * D * sizeof *c->mid)) != NULL;
    for (int path = c->has_exact ? EXACT : MADE; path < PATHS; path++)
        good &= (c->tap[path] = malloc(c->rows * c->widest * sizeof(float))) != NULL;
    good &= (c->part = malloc(chunk * c->widest * sizeof(float))) != NULL;
    good &= (c->made = malloc(chunk * c->widest * sizeof(float))) != NULL;
    good &= (c->exact = malloc(chunk * c->widest * sizeof(float))) != NULL;
    good &= (c->difference = malloc(chunk * D * sizeof(float))) != NULL;
    good &= (c->weight = malloc(2 * chunk * sizeof *c->weight)) != NULL;
    for (int tap = 0; tap < GYRE_PRODUCTS && c->samples; tap++)
        good &= (c->sample[tap] = malloc(chunk * gyre_product_width((gyre_product)tap, hp) * sizeof(float))) != NULL;
    return good ? GYRE_OK
                : gyre_fail(err, GYRE_E_NOMEM, "out of memory for calibration (%llu tokens)",
                            (unsigned long long)c->rows);
}

gyre_status gyre_calibration_open(const gyre_quantize_params *params, const struct gyre_plan *plan,
                                  gyre_calibration **out, gyre_error *err)
{
    const struct gyre_recipe *recipe = &plan->set.recipe;
    gyre_status st = GYRE_OK;
    *out = NULL;
    if (!gyre_recipe_calibrates(recipe)) return GYRE_OK;
    gyre_calibration *c = calloc(1, sizeof *c);
    if (!c) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for calibration");
    c->plan = plan;
    if (params->n_calib > recipe->calibration.windows)
        GYRE_GO(gyre_fail(err, GYRE_E_INVALID,
                          "cannot calibrate: %u texts for the recipe's %u windows; give fewer texts", params->n_calib,
                          recipe->calibration.windows));
    c->has_exact = c->samples = gyre_recipe_has_diagonals(recipe);
    c->corrects = gyre_recipe_corrects(recipe);
    c->has_exact |= c->corrects;
    GYRE_GO(gyre_calib_text_read(plan->source, params->calib, params->n_calib, recipe->calibration.windows,
                                 recipe->calibration.tokens, &c->text, err));
    c->rows = (uint64_t)c->text.windows * c->text.tokens;
    c->chunk_windows = GYRE_MIN(GYRE_MAX(CHUNK_ROWS / c->text.tokens, 1u), c->text.windows);
    for (int tap = 0; tap < GYRE_PRODUCTS; tap++)
        c->widest = GYRE_MAX(c->widest, gyre_product_width((gyre_product)tap, &plan->hp));
    GYRE_GO(open_blocks(c, params, err));
    GYRE_GO(allocate(c, err));
    *out = c;
done:
    if (st != GYRE_OK) gyre_calibration_close(c);
    return st;
}

void gyre_calibration_close(gyre_calibration *c)
{
    if (!c) return;
    for (int path = 0; path < PATHS; path++) {
        gyre_block_destroy(c->block[path]);
        gyre_host_block_destroy(c->host[path]);
        free(c->tap[path]);
    }
    gyre_host_block_destroy(c->sampler);
    gyre_host_block_destroy(c->centrer);
    for (int tap = 0; tap < GYRE_PRODUCTS; tap++) free(c->sample[tap]);
    gyre_device_close(c->device);
    gyre_calib_text_free(&c->text);
    free(c->x);
    free(c->mid);
    free(c->part);
    free(c->made);
    free(c->exact);
    free(c->difference);
    free(c->weight);
    free(c);
}

json_t *gyre_calibration_identity(const gyre_calibration *c)
{
    json_t *texts = json_array();
    for (uint32_t i = 0; texts && i < c->text.n_sources; i++) {
        const struct gyre_calib_source *s = &c->text.source[i];
        json_t *row = json_pack("{s:o, s:I, s:s}", "name", gyre_json_text(s->name), "bytes", (json_int_t)s->bytes,
                                "sha256", s->sha256);
        if (row && !*s->name) json_object_set_new(row, "bundled", json_true());
        if (json_array_append_new(texts, row)) {
            json_decref(texts);
            return NULL;
        }
    }
    return json_pack("{s:o, s:i, s:i}", "texts", texts, "windows", (int)c->text.windows, "tokens", (int)c->text.tokens);
}

const char *gyre_calibration_device(const gyre_calibration *c)
{
    return c->device ? gyre_device_info(c->device)->id : "host";
}

// ---- streams ------------------------------------------------------------------------------------------------

const void *gyre_calibration_streams(const gyre_calibration *c, uint64_t *bytes)
{
    *bytes = (c->has_exact ? 2 : 1) * c->rows * c->plan->hp.width * sizeof *c->x;
    return c->x;
}

bool gyre_calibration_restore(gyre_calibration *c, const void *data, uint64_t bytes)
{
    uint64_t mine;
    (void)gyre_calibration_streams(c, &mine);
    if (bytes != mine) return false;
    memcpy(c->x, data, bytes);
    return true;
}

gyre_status gyre_calibration_begin(gyre_calibration *c, gyre_error *err)
{
    const struct gyre_plan *p = c->plan;
    const uint32_t D = p->hp.width;
    const struct gyre_tensor *t = gyre_role_tensor(p->source, GYRE_ROLE_embedding, 0, "weight", NULL);
    gyre_status st = GYRE_OK;
    double *wide = malloc((uint64_t)c->text.tokens * D * sizeof *wide);
    unsigned char *encoded = malloc(D * sizeof(float));
    if (!wide || !encoded) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for calibration"));
    for (uint32_t w = 0; w < c->text.windows; w++) {
        for (uint32_t i = 0; i < c->text.tokens; i++)
            gyre_tensor_rows_f64(t, c->text.token[(uint64_t)w * c->text.tokens + i], 1, wide + (uint64_t)i * D);
        GYRE_GO(gyre_rotate_rows(&p->rotator, NULL, wide, c->text.tokens, err));
        for (uint32_t i = 0; i < c->text.tokens; i++) {
            float *made = stream(c, MADE) + ((uint64_t)w * c->text.tokens + i) * D;
            for (uint32_t k = 0; k < D; k++) made[k] = (float)wide[(uint64_t)i * D + k];
            if (c->has_exact) memcpy(stream(c, EXACT) + (made - stream(c, MADE)), made, D * sizeof *made);
            gyre_encode_floats(made, D, p->table_type, encoded); // as the written table gives it
            gyre_decode_row(p->table_type, encoded, D, made);
        }
    }
done:
    free(wide);
    free(encoded);
    return st;
}

// ---- taps ---------------------------------------------------------------------------------------------------

static struct gyre_block_weights weights_of(const struct gyre_calibration_weights *w, enum path path)
{
    struct gyre_block_weights out = w->vectors;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        out.linear[r] = (struct gyre_block_linear){.f32 = path == EXACT ? w->exact[r] : w->made[r]};
        if (path == EXACT) out.centre[r] = NULL;
    }
    return out;
}

gyre_status gyre_calibration_sample(gyre_calibration *c, const struct gyre_calibration_weights *w,
                                    const float *tap[GYRE_PRODUCTS], uint64_t *rows, gyre_error *err)
{
    const struct gyre_block_weights weights = weights_of(w, EXACT);
    const uint32_t n = c->chunk_windows * c->text.tokens;
    memcpy(c->difference, stream(c, EXACT), (uint64_t)n * c->plan->hp.width * sizeof(float)); // parts change it
    for (uint32_t part = 0; part < GYRE_PRODUCTS; part++) {
        GYRE_TRY(gyre_host_block_part(c->sampler, &weights, part, c->difference, part ? c->sample[part - 1] : NULL, n,
                                      c->text.tokens, c->sample[part], err));
        tap[part] = c->sample[part];
    }
    *rows = n;
    return GYRE_OK;
}

struct chunk {
    uint64_t first, rows; // of the residual stream
    uint32_t window, windows;
};

// Part `part` of the block for one chunk of one path: the tap array's piece becomes what the next tap reads, quantized.
static gyre_status run_part(gyre_calibration *c, enum path path, const struct gyre_block_weights *weights,
                            uint32_t part, const struct chunk *k, gyre_error *err)
{
    const struct gyre_plan *p = c->plan;
    const uint32_t D = p->hp.width, width = part < GYRE_PRODUCTS ? gyre_product_width((gyre_product)part, &p->hp) : D;
    float *x = stream(c, path) + k->first * D, *tap = c->tap[path] + k->first * c->widest;
    if (!c->device) {
        GYRE_TRY(gyre_host_block_part(c->host[path], weights, part, x, tap, (uint32_t)k->rows, c->text.tokens, c->part,
                                      err));
    } else {
        if (part == GYRE_PRODUCT_gate_up) { // the tap array still holds what o reads
            float *mid = stream_at(c, path, GYRE_PRODUCT_down) + k->first * D;
            const int q = (int)gyre_product_width(GYRE_PRODUCT_o, &p->hp);
            memcpy(mid, x, k->rows * D * sizeof *mid);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)k->rows, (int)D, q, 1, tap, q,
                        weights->linear[GYRE_ROLE_o].f32, q, 1, mid, (int)D);
        }
        for (uint32_t w = 0; w < k->windows; w++) { // from the block's input each time: a GPU has the breath
            float *at = x + (uint64_t)w * c->text.tokens * D, *to = c->part + (uint64_t)w * c->text.tokens * width;
            if (part < GYRE_PRODUCTS)
                GYRE_TRY(gyre_block_tap(c->block[path], at, c->text.tokens, (gyre_product)part, to, err));
            else GYRE_TRY(gyre_block_run(c->block[path], at, c->text.tokens, to, err));
        }
        if (part == GYRE_PRODUCTS) memcpy(x, c->part, k->rows * D * sizeof *x);
    }
    if (part == GYRE_PRODUCTS) return GYRE_OK;
    if (path == MADE) gyre_quantize_rows(c->part, k->rows, width, p->set.act, p->choice.act_clip);
    memcpy(tap, c->part, k->rows * width * sizeof *tap);
    return GYRE_OK;
}

static struct chunk chunk_at(const gyre_calibration *c, uint32_t window)
{
    const uint32_t n = GYRE_MIN(c->chunk_windows, c->text.windows - window);
    return (struct chunk){(uint64_t)window * c->text.tokens, (uint64_t)n * c->text.tokens, window, n};
}

static gyre_status run_chunks(gyre_calibration *c, const struct gyre_calibration_weights *w, uint32_t part,
                              gyre_status (*each)(gyre_calibration *, const struct chunk *, uint32_t,
                                                  struct gyre_moments *, gyre_error *),
                              struct gyre_moments *moments, gyre_error *err)
{
    for (int path = c->has_exact ? EXACT : MADE; path < PATHS; path++) {
        const struct gyre_block_weights weights = weights_of(w, (enum path)path);
        if (c->device) GYRE_TRY(gyre_block_load(c->block[path], &weights, err));
        for (uint32_t window = 0; window < c->text.windows; window += c->chunk_windows) {
            const struct chunk k = chunk_at(c, window);
            GYRE_TRY(run_part(c, (enum path)path, &weights, part, &k, err));
            if (path == MADE && each) GYRE_TRY(each(c, &k, part, moments, err));
        }
    }
    return GYRE_OK;
}

// What an error in a row of the residual stream counts for: every norm behind divides by the row's size.
static void weigh_rows(const gyre_calibration *c, uint32_t tap, uint64_t first, uint64_t rows, double *weight)
{
    const double median = gyre_row_energies(stream_at(c, MADE, tap) + first * c->plan->hp.width, rows,
                                            c->plan->hp.width, weight, weight + rows);
    for (uint64_t r = 0; r < rows; r++) weight[r] = weight[r] > 0 ? GYRE_MIN(median / weight[r], 4.0) : 1;
}

// Adds the windows of a chunk, the held-out ones apart.
static gyre_status add_moments(gyre_calibration *c, const struct chunk *k, uint32_t part, struct gyre_moments *m,
                               gyre_error *err)
{
    const uint32_t width = m->n, D = c->plan->hp.width, tokens = c->text.tokens;
    for (uint32_t w = 0; w < k->windows;) {
        const bool held = (k->window + w) % HELD_OUT == HELD_OUT - 1;
        uint32_t end = w + 1;
        while (end < k->windows && ((k->window + end) % HELD_OUT == HELD_OUT - 1) == held) end++;
        const uint64_t rows = (uint64_t)(end - w) * tokens, at = (uint64_t)w * tokens,
                       from = k->first * c->widest + at * width;
        memcpy(c->made, c->tap[MADE] + from, rows * width * sizeof(float));
        if (c->corrects) memcpy(c->exact, c->tap[EXACT] + from, rows * width * sizeof(float));
        if (m->fit.stream)
            for (uint64_t i = 0, to = (k->first + at) * D; i < rows * D; i++)
                c->difference[i] = stream_at(c, EXACT, part)[to + i] - stream_at(c, MADE, part)[to + i];
        const bool weighed =
            m->fit.stream != NULL; // only repair needs it: plain GPTQ does better without (17.56 to 17.89)
        if (weighed) weigh_rows(c, part, k->first + at, rows, c->weight);
        GYRE_TRY(gyre_moments_add(m, held, c->made, c->exact, c->difference, weighed ? c->weight : NULL, rows, err));
        w = end;
    }
    return GYRE_OK;
}

gyre_status gyre_calibration_tap(gyre_calibration *c, uint32_t layer, const struct gyre_calibration_weights *weights,
                                 gyre_product tap, struct gyre_moments *out, gyre_error *err)
{
    const gyre_role first = gyre_product_first(tap);
    const bool writes = gyre_roles[first].writes == GYRE_ROTATION_R1;
    gyre_error why = {0};
    GYRE_TRY(gyre_moments_create(gyre_product_width(tap, &c->plan->hp), c->plan->hp.width, c->corrects,
                                 c->corrects && writes, out, err));
    const gyre_status st = run_chunks(c, weights, tap, add_moments, out, &why);
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
    const struct gyre_block_weights weights = weights_of(w, MADE);
    const struct chunk k = chunk_at(c, 0);
    return gyre_host_block_centre(c->centrer ? c->centrer : c->host[MADE], &weights, c->tap[MADE], (uint32_t)k.rows,
                                  c->text.tokens, centre[GYRE_ROLE_k], centre[GYRE_ROLE_v], err);
}

gyre_status gyre_calibration_end_block(gyre_calibration *c, const struct gyre_calibration_weights *weights,
                                       gyre_error *err)
{
    return run_chunks(c, weights, GYRE_PRODUCTS, NULL, NULL, err);
}
