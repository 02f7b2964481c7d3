// See sensitivity.h.
#include "quantizer/pass/sensitivity.h"
#include "backends/cpu/fast.h"
#include "quantizer/gradient/fisher.h"
#include "quantizer/pass/layer.h"
#include "quantizer/pass/outputs.h"
#include "quantizer/pass/text.h"
#include "runtime/core/codec.h"
#include "quantizer/round/gemm.h"
#include "runtime/core/quantize.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct probing {
    const struct gyre_plan *plan;
    struct gyre_sensitivity *out;
    struct gyre_rotator rotator;
    struct gyre_hadamard r3; // n 0: keys are cached as they are
    struct gyre_layer layer;
    uint32_t loaded;              // the block whose weights are here; UINT32_MAX: none
    float *error[GYRE_LINEARS];   // Q(W) - W, rotated
    float *exact;                 // the largest linear
    double *wide;                 // [tokens][widest of all that is turned]
    float *x, *g, *h, *y, *noisy; // [tokens][widest]
    double *along;                // [tokens]: g . d
};

// ---- memory -------------------------------------------------------------------------------------------------

static gyre_status allocate(struct probing *s, gyre_error *err)
{
    const struct gyre_hparams *hp = &s->plan->hp;
    const uint64_t tokens = s->out->tokens;
    uint64_t widest = 2 * (uint64_t)hp->kv_heads * hp->head_dim, largest = 0, rows, cols;
    bool good = true;
    for (int i = 0; i < GYRE_LINEARS; i++) {
        gyre_role_shape((gyre_role)i, hp, &rows, &cols);
        widest = GYRE_MAX(widest, GYRE_MAX(rows, cols));
        largest = GYRE_MAX(largest, rows * cols);
        good &= (s->error[i] = malloc(rows * cols * sizeof(float))) != NULL;
    }
    good &= (s->exact = malloc(largest * sizeof *s->exact)) != NULL;
    good &= (s->wide = malloc(tokens * widest * sizeof *s->wide)) != NULL;
    float **const rooms[] = {&s->x, &s->g, &s->h, &s->y, &s->noisy};
    for (uint32_t i = 0; i < GYRE_COUNT(rooms); i++)
        good &= (*rooms[i] = malloc(tokens * widest * sizeof(float))) != NULL;
    good &= (s->along = malloc(tokens * sizeof *s->along)) != NULL;
    good &= (s->out->nats = calloc((uint64_t)s->out->layers * GYRE_COSTS * s->out->windows, sizeof(double))) != NULL;
    return good ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "out of memory for the model's sensitivity");
}

static void close_probing(struct probing *s)
{
    for (int i = 0; i < GYRE_LINEARS; i++) free(s->error[i]);
    float *const rooms[] = {s->exact, s->x, s->g, s->h, s->y, s->noisy};
    for (uint32_t i = 0; i < GYRE_COUNT(rooms); i++) free(rooms[i]);
    free(s->wide);
    free(s->along);
    gyre_layer_free(&s->layer);
    gyre_hadamard_release(&s->r3);
    gyre_rotator_release(&s->rotator);
}

static gyre_status open_probing(struct probing *s, gyre_error *err)
{
    const struct gyre_plan *p = s->plan;
    const bool rotate = p->set.recipe.rotate;
    GYRE_TRY(allocate(s, err));
    GYRE_TRY(gyre_layer_create(p, &s->layer, err));
    GYRE_TRY(gyre_rotator_create(&p->hp, p->set.seed, rotate, gyre_plan_sites(p), &s->rotator, err));
    // A source of other tools that has R3 caches its keys behind it already.
    if (!rotate || !p->set.full || p->hp.rot.r3 || gyre_hadamard_segment(p->hp.head_dim) != p->hp.head_dim)
        return GYRE_OK;
    return gyre_hadamard_create(p->hp.head_dim, &s->r3, err);
}

// ---- one look -----------------------------------------------------------------------------------------------

// The weights of a block and what rounding them does.
static gyre_status load(struct probing *s, uint32_t layer, gyre_error *err)
{
    const struct gyre_plan *p = s->plan;
    char name[GYRE_ROLE_NAME];
    uint32_t bits, group;
    uint64_t rows, cols;
    if (s->loaded == layer) return GYRE_OK;
    s->loaded = s->layer.index = layer;
    GYRE_TRY(gyre_layer_read_vectors(&s->layer, p, NULL, err));
    for (int i = 0; i < GYRE_LINEARS; i++) {
        if (!gyre_role_present(&p->hp, (gyre_role)i, layer)) continue;
        gyre_role_name((gyre_role)i, layer, "weight", name);
        gyre_role_shape((gyre_role)i, &p->hp, &rows, &cols);
        gyre_settings_width(&p->set, name, &bits, &group);
        GYRE_TRY(gyre_layer_load(&s->layer, p, (gyre_role)i, &s->rotator, NULL, s->exact, err));
        struct gyre_codes codes = s->layer.recipe[i].codes; // room for any width
        codes.bits = 4;
        codes.group = group ? group : (uint32_t)cols;
        gyre_error why = {0};
        const gyre_status st = gyre_rtn(s->exact, rows, cols, &codes, &why);
        if (st != GYRE_OK) return gyre_fail(err, st, "cannot round tensor %s: %s", name, why.message);
        gyre_codes_expand(&codes, rows, cols, s->error[i]);
        for (uint64_t k = 0; k < rows * cols; k++) s->error[i][k] -= s->exact[k];
    }
    return GYRE_OK;
}

// along[t] += a_t . (b_t - c_t), c NULL: zero; rows of n.
static void add_along(struct probing *s, const float *a, const float *b, const float *c, uint64_t n)
{
#pragma omp parallel for schedule(static)
    for (uint32_t t = 0; t < s->out->tokens; t++) {
        double sum = 0;
        for (uint64_t i = t * n; i < (t + 1) * n; i++) sum += (double)a[i] * ((double)b[i] - (c ? (double)c[i] : 0));
        s->along[t] += sum;
    }
}

static void begin(struct probing *s) { memset(s->along, 0, s->out->tokens * sizeof *s->along); }

static gyre_status note(struct probing *s, const struct gyre_fisher_look *at, uint32_t cost, gyre_error *err)
{
    double sum = 0;
    for (uint32_t t = 0; t < s->out->tokens; t++) sum += s->along[t] * s->along[t];
    if (!isfinite(sum))
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot measure sensitivity (block %u): gradients overflow; the model's weights are damaged",
                         at->layer);
    s->out->nats[((uint64_t)at->layer * GYRE_COSTS + cost) * s->out->windows + at->window] =
        sum / (2 * (double)s->out->tokens);
    return GYRE_OK;
}

static gyre_status look_weights(struct probing *s, const struct gyre_fisher_look *at, uint64_t k, gyre_error *err)
{
    const struct gyre_hparams *hp = &s->plan->hp;
    const uint64_t tokens = s->out->tokens;
    uint64_t width = 0, first = 0, rows, cols;
    for (int i = 0; i < GYRE_LINEARS; i++) {
        if (gyre_roles[i].product != at->product || !gyre_role_present(hp, (gyre_role)i, at->layer)) continue;
        gyre_role_shape((gyre_role)i, hp, &rows, &cols);
        width += rows;
    }
    begin(s);
    for (int i = 0; i < GYRE_LINEARS; i++) {
        if (gyre_roles[i].product != at->product || !gyre_role_present(hp, (gyre_role)i, at->layer)) continue;
        gyre_role_shape((gyre_role)i, hp, &rows, &cols);
        GYRE_TRY(gyre_output_gradient(s->plan, &s->rotator, at->layer, (gyre_role)i, at->gradient, tokens, width, first,
                                      s->wide, err));
        gyre_narrow(s->wide, tokens * rows, s->g);
        gyre_gemm_rows(s->x, s->error[i], tokens, rows, k, s->y);
        add_along(s, s->g, s->y, NULL, rows);
        first += rows;
    }
    return note(s, at, GYRE_COST_W4 + at->product, err);
}

// What the product reads (power 1) or the gradient by it (-1), as the file's rotations and gains have it.
static gyre_status turn(struct probing *s, const struct gyre_fisher_look *at, const float *from, uint64_t k,
                        bool gradient, float *to, gyre_error *err)
{
    const gyre_role norm = gyre_products[at->product].norm;
    const float *gain =
        norm != GYRE_ROLE_none && s->rotator.fold && s->plan->set.recipe.rotate ? s->layer.norm[norm] : NULL;
    for (uint64_t i = 0; i < s->out->tokens * k; i++) {
        const uint32_t c = (uint32_t)(i % k);
        const double sign = (double)gyre_rotate_gain(&s->rotator, at->product, c), g = gain ? (double)gain[c] : 1;
        s->wide[i] = (double)from[i] * sign * (gradient ? g : g != 0 ? 1 / g : 0);
    }
    GYRE_TRY(gyre_rotate_input(&s->rotator, at->product, at->layer, s->wide, s->out->tokens, err));
    gyre_narrow(s->wide, s->out->tokens * k, to);
    return GYRE_OK;
}

static gyre_status look_reads(struct probing *s, const struct gyre_fisher_look *at, uint64_t k, gyre_error *err)
{
    const struct gyre_recipe *r = &s->plan->set.recipe;
    const float clip = r->act_clip == GYRE_AUTO ? 1 : (float)r->act_clip;
    GYRE_TRY(turn(s, at, at->reads_gradient, k, true, s->h, err));
    for (uint32_t bits = 8; bits >= 4; bits -= 4) {
        memcpy(s->noisy, s->x, s->out->tokens * k * sizeof *s->x);
        gyre_quantize_rows(s->noisy, s->out->tokens, (uint32_t)k, bits, clip,
                           gyre_quantize_span(r->act_group, bits, k));
        begin(s);
        add_along(s, s->h, s->noisy, s->x, k);
        GYRE_TRY(note(s, at, (bits == 8 ? GYRE_COST_A8 : GYRE_COST_A4) + at->product, err));
    }
    return GYRE_OK;
}

// Keys (which 0) or values of the window, or gradients by them, as they are cached.
static gyre_status turn_heads(struct probing *s, uint32_t layer, uint32_t which, const float *from, uint64_t stride,
                              float *to, gyre_error *err)
{
    const uint64_t tokens = s->out->tokens, hd = s->plan->hp.head_dim, n = (uint64_t)s->plan->hp.kv_heads * hd;
    for (uint64_t i = 0; i < tokens * n; i++) s->wide[i] = (double)from[i / n * stride + which * n + i % n];
    if (which)
        GYRE_TRY(gyre_rotate_output(&s->rotator, gyre_heads_role(GYRE_HEADS_VALUE), layer, s->wide, tokens, err));
    else if (s->r3.n) GYRE_TRY(gyre_hadamard_apply(&s->r3, s->wide, hd, 1, tokens * n / hd, hd, NULL, false, err));
    gyre_narrow(s->wide, tokens * n, to);
    return GYRE_OK;
}

static gyre_status look_cache(struct probing *s, const struct gyre_fisher_look *at, gyre_error *err)
{
    const struct gyre_recipe *r = &s->plan->set.recipe;
    const float clip = r->kv_clip == GYRE_AUTO ? 1 : (float)r->kv_clip;
    const uint32_t heads = s->plan->hp.kv_heads, hd = s->plan->hp.head_dim;
    const uint64_t n = (uint64_t)heads * hd;
    for (uint32_t which = 0; which < 2; which++) {
        GYRE_TRY(turn_heads(s, at->layer, which, at->cached, at->cached_stride, s->x, err));
        GYRE_TRY(turn_heads(s, at->layer, which, at->cached_gradient, 2 * n, s->h, err));
        for (uint32_t bits = 8; bits >= 4; bits -= 4) {
            memcpy(s->noisy, s->x, s->out->tokens * n * sizeof *s->x);
            gyre_quantize_cache(s->noisy, (uint64_t)s->out->tokens * heads, hd, bits, clip);
            begin(s);
            add_along(s, s->h, s->noisy, s->x, n);
            GYRE_TRY(note(s, at, GYRE_COST_K8 + 2 * which + (bits == 4), err));
        }
    }
    return GYRE_OK;
}

static gyre_status look(void *user, const struct gyre_fisher_look *at, gyre_error *err)
{
    struct probing *s = user;
    const uint64_t k = gyre_product_width(at->product, &s->plan->hp);
    GYRE_TRY(load(s, at->layer, err));
    GYRE_TRY(turn(s, at, at->reads, k, false, s->x, err));
    GYRE_TRY(look_weights(s, at, k, err));
    GYRE_TRY(look_reads(s, at, k, err));
    return at->cached && at->cached_gradient ? look_cache(s, at, err) : GYRE_OK;
}

// ---- the text -----------------------------------------------------------------------------------------------

static uint32_t tokens_of(const struct gyre_plan *p)
{
    const uint32_t most = GYRE_MIN((uint32_t)GYRE_SENSITIVITY_TOKENS, p->hp.context);
    return p->set.recipe.calibration.windows ? GYRE_MIN(most, p->set.recipe.calibration.tokens) : most;
}

static gyre_status read_text(const gyre_quantize_params *params, const struct gyre_plan *p, uint32_t windows,
                             struct gyre_calib_text *out, gyre_error *err)
{
    const char **files = malloc((params->n_calib + 1) * sizeof *files);
    uint32_t n = 0;
    if (!files) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the calibration text");
    for (uint32_t i = 0; i < params->n_calib; i++)
        if (strcmp(params->calib[i], GYRE_CALIB_SELF)) files[n++] = params->calib[i];
    const gyre_status st =
        gyre_calib_text_read(p->source, files, n, NULL, GYRE_MAX(windows, n), 0, tokens_of(p), out, err);
    free(files);
    return st;
}

// ---- entry --------------------------------------------------------------------------------------------------

gyre_status gyre_sensitivity_measure(const gyre_quantize_params *params, const struct gyre_plan *plan, uint32_t windows,
                                     const struct gyre_ticker *ticker, struct gyre_sensitivity *out, gyre_error *err)
{
    struct probing s = {.plan = plan, .out = out, .loaded = UINT32_MAX};
    struct gyre_fisher_params p = {
        .source = plan->source, .seed = plan->set.seed, .look = look, .user = &s, .ticker = ticker};
    struct gyre_calib_text text = {0};
    struct gyre_fisher nothing = {0};
    gyre_status st = GYRE_OK;
    *out = (struct gyre_sensitivity){.layers = plan->hp.n_layers};
    if (plan->set.wbits >= 16)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot measure sensitivity: at --wbits %u nothing is rounded; give 4 or 8", plan->set.wbits);
    GYRE_GO(read_text(params, plan, windows, &text, err));
    out->windows = p.windows = p.looks = p.together = text.windows;
    out->tokens = p.tokens = text.tokens;
    p.token = text.token;
    GYRE_GO(open_probing(&s, err));
    GYRE_GO(gyre_fast_device_create(NULL, &p.device, err));
    GYRE_GO(gyre_fisher_measure(&p, &nothing, err));
done:
    gyre_fisher_free(&nothing);
    gyre_device_close(p.device);
    gyre_calib_text_free(&text);
    close_probing(&s);
    return st;
}

void gyre_sensitivity_release(struct gyre_sensitivity *s)
{
    free(s->nats);
    *s = (struct gyre_sensitivity){0};
}

double gyre_sensitivity_work(const struct gyre_plan *p, uint32_t windows)
{
    uint64_t blocks = 0, rows, cols;
    for (int i = 0; i < GYRE_LINEARS; i++) {
        gyre_role_shape((gyre_role)i, &p->hp, &rows, &cols);
        blocks += rows * cols * p->hp.n_layers;
    }
    // There, there again and back, and once with the errors of weights; the head there and back.
    return (double)windows * tokens_of(p) * (4 * (double)blocks + 2 * (double)p->hp.vocab * p->hp.width);
}

struct gyre_cost gyre_sensitivity_cost(const struct gyre_sensitivity *s, uint32_t layer, uint32_t cost)
{
    double sum = 0, square = 0;
    for (uint32_t w = 0; w < s->windows; w++) {
        double nats = 0;
        for (uint32_t l = layer == UINT32_MAX ? 0 : layer; l < (layer == UINT32_MAX ? s->layers : layer + 1); l++)
            nats += s->nats[((uint64_t)l * GYRE_COSTS + cost) * s->windows + w];
        sum += nats;
        square += nats * nats;
    }
    const double n = s->windows, spread = n > 1 ? (square - sum * sum / n) / (n - 1) : 0;
    return (struct gyre_cost){sum / n, spread > 0 ? sqrt(spread / n) : 0};
}
