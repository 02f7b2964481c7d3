// See student.h. One window: forward block by block, the streams kept; the head in chunks, forwards and back; then
// block by block from the last, each executed once more with all its values kept.
#include "quantizer/gradient/student.h"
#include "quantizer/gradient/reverse.h"
#include "quantizer/gradient/rules.h"
#include "quantizer/gradient/runner.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- parameters -------------------------------------------------------------------------------------------------

static bool coded(const struct gyre_weight *w) { return w->n_ranges && gyre_weight_is_coded(w->kind); }

static void add(struct gyre_student *s, struct gyre_learnt learnt)
{
    learnt.first = s->n;
    s->n += learnt.n;
    s->learnt[s->n_learnt++] = learnt;
}

static void list_layer(struct gyre_student *s, uint32_t l)
{
    const struct gyre_hparams *hp = &s->runner->model.hp;
    const struct gyre_layer_weights *w = &s->runner->model.layer[l];
    for (int p = 0; p < GYRE_PRODUCTS; p++) {
        const struct gyre_weight *product = &w->product[p];
        if (coded(product))
            add(s, (struct gyre_learnt){.kind = GYRE_LEARNT_SCALES,
                                        .layer = l,
                                        .product = (gyre_product)p,
                                        .n = (uint64_t)product->k / product->group * product->n});
        const struct gyre_tap tap = gyre_tap_at(hp, &w->kind, (uint32_t)p, &s->runner->precision);
        if (product->n_ranges && hp->full && tap.bits == 4)
            add(s, (struct gyre_learnt){.kind = GYRE_LEARNT_CLIP, .layer = l, .product = (gyre_product)p, .n = 1});
    }
    for (int r = 0; r < GYRE_BLOCK_ROLES; r++)
        if (w->norm[r].buffer)
            add(s,
                (struct gyre_learnt){
                    .kind = GYRE_LEARNT_GAIN, .layer = l, .role = (gyre_role)r, .n = w->norm[r].size / sizeof(float)});
    if (w->head_gains.buffer)
        add(s, (struct gyre_learnt){.kind = GYRE_LEARNT_HEADS, .layer = l, .n = w->head_gains.size / sizeof(float)});
    if (hp->full && (hp->kv_bits == 4 || hp->kv_bits_v == 4))
        add(s, (struct gyre_learnt){.kind = GYRE_LEARNT_CACHE, .layer = l, .n = 2});
}

// Floats of a buffer on the device; NULL: the parameters are no floats in a buffer.
static const struct gyre_binding *vector_of(const struct gyre_student *s, const struct gyre_learnt *p)
{
    const struct gyre_model *m = &s->runner->model;
    switch (p->kind) {
    case GYRE_LEARNT_GAIN:
        return &m->layer[p->layer].norm[p->role];
    case GYRE_LEARNT_HEADS:
        return &m->layer[p->layer].head_gains;
    case GYRE_LEARNT_FINAL:
        return m->shared.head.n ? &m->head_gain : &m->output_norm;
    default:
        return NULL;
    }
}

static float *clip_of(const struct gyre_student *s, const struct gyre_learnt *p, uint64_t i)
{
    struct gyre_layer_weights *w = &s->runner->model.layer[p->layer];
    return p->kind == GYRE_LEARNT_CLIP ? &w->act_clip[p->product] : &w->kv_clip[i];
}

// A weight's scales [k / group][n], read (`to`) or written (`from`).
static gyre_status scales(const struct gyre_student *s, const struct gyre_learnt *p, double *to, const uint16_t *from,
                          gyre_error *err)
{
    const struct gyre_weight *w = &s->runner->model.layer[p->layer].product[p->product];
    gyre_status st = GYRE_OK;
    for (uint32_t i = 0; i < w->n_ranges && st == GYRE_OK; i++) {
        const struct gyre_weight_range *r = &w->range[i];
        const uint64_t bytes = (uint64_t)w->k / w->group * r->n_pad * sizeof(uint16_t);
        const void *scale = NULL;
        void *copy = to ? malloc(bytes) : NULL;
        if (to && !copy) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the student's scales");
        if (to) st = gyre_runner_view(s->runner, r->scale, bytes, copy, &scale, err);
        const uint16_t *have = st == GYRE_OK ? scale : NULL;
        for (uint32_t g = 0; g < w->k / w->group; g++) {
            const uint64_t at = (uint64_t)g * r->n_pad, mine = (uint64_t)g * w->n + r->n0;
            for (uint32_t c = 0; have && c < r->n; c++) to[mine + c] = (double)gyre_f32_from_f16(have[at + c]);
            if (from && st == GYRE_OK)
                st = gyre_buffer_write(s->runner->device, r->scale.buffer, r->scale.offset + 2 * at, from + mine,
                                       2 * (uint64_t)r->n, err);
        }
        free(copy);
    }
    return st;
}

static gyre_status read_base(struct gyre_student *s, gyre_error *err)
{
    const struct gyre_model *m = &s->runner->model;
    for (uint32_t k = 0; k < s->n_learnt; k++) {
        const struct gyre_learnt *p = &s->learnt[k];
        double *base = s->base + p->first;
        const struct gyre_binding *vector = vector_of(s, p);
        const void *have = NULL;
        if (p->kind == GYRE_LEARNT_SCALES) GYRE_TRY(scales(s, p, base, NULL, err));
        if (vector) GYRE_TRY(gyre_runner_view(s->runner, *vector, p->n * sizeof(float), s->seen, &have, err));
        for (uint64_t i = 0; i < p->n && p->kind != GYRE_LEARNT_SCALES; i++) {
            if (vector) base[i] = (double)((const float *)have)[i];
            else if (*clip_of(s, p, i) > 0) base[i] = (double)*clip_of(s, p, i);
            else
                base[i] =
                    (double)(p->kind == GYRE_LEARNT_CLIP
                                 ? gyre_tap_at(&m->hp, &m->layer[p->layer].kind, p->product, &s->runner->precision).clip
                             : i ? s->runner->precision.kv_clip_v
                                 : s->runner->precision.kv_clip);
        }
    }
    return GYRE_OK;
}

static gyre_status open_parameters(gyre_device *device, uint32_t tokens, struct gyre_student *s, gyre_error *err)
{
    enum { MOST = GYRE_BLOCK_ROLES + 2 * GYRE_PRODUCTS + 2 };
    const struct gyre_hparams *hp = &s->runner->model.hp;
    s->learnt = malloc(((uint64_t)hp->n_layers * MOST + 1) * sizeof *s->learnt);
    if (!s->learnt) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the student");
    for (uint32_t l = 0; l < hp->n_layers; l++) list_layer(s, l);
    add(s, (struct gyre_learnt){.kind = GYRE_LEARNT_FINAL, .n = hp->width});
    s->base = malloc(s->n * sizeof *s->base);
    s->dx = malloc((uint64_t)tokens * hp->width * sizeof *s->dx);
    const uint64_t most = (uint64_t)GYRE_HEAD_ROWS * hp->vocab; // of logits; more than any vector of parameters
    s->seen = malloc(GYRE_MAX(most, 2 * (uint64_t)hp->width) * sizeof *s->seen);
    if (!s->base || !s->dx || !s->seen)
        return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the student's parameters");
    s->logits.size = (uint64_t)GYRE_HEAD_ROWS * hp->vocab * sizeof(float);
    GYRE_TRY(gyre_buffer_create(device, s->logits.size, "student's logits", &s->logits.buffer, err));
    return read_base(s, err);
}

gyre_status gyre_student_open(gyre_device *device, const gyre_source *source, uint32_t tokens, struct gyre_student *s,
                              gyre_error *err)
{
    *s = (struct gyre_student){.runner = calloc(1, sizeof *s->runner)};
    if (!s->runner) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the student");
    GYRE_TRY(gyre_runner_open(device, source, NULL, tokens, GYRE_RUNNER_KEEPS, s->runner, err));
    return open_parameters(device, tokens, s, err);
}

gyre_status gyre_student_open_shape(gyre_device *device, const char *shape, uint32_t wgroup, uint32_t tokens,
                                    struct gyre_student *s, gyre_error *err)
{
    *s = (struct gyre_student){.runner = calloc(1, sizeof *s->runner)};
    if (!s->runner) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the student");
    GYRE_TRY(gyre_runner_open_shape(device, shape, wgroup, tokens, s->runner, err));
    GYRE_TRY(open_parameters(device, tokens, s, err));
    s->alike = calloc((uint64_t)GYRE_HEAD_ROWS * s->runner->model.hp.vocab, sizeof *s->alike);
    return s->alike ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "out of memory for the student");
}

void gyre_student_close(struct gyre_student *s)
{
    if (s->runner && s->runner->device) gyre_buffer_destroy(s->runner->device, s->logits.buffer);
    if (s->runner) gyre_runner_close(s->runner);
    free(s->runner);
    free(s->learnt);
    free(s->base);
    free(s->dx);
    free(s->seen);
    free(s->alike);
    *s = (struct gyre_student){0};
}

double gyre_student_value(const struct gyre_student *s, const struct gyre_learnt *p, uint64_t i, double parameter)
{
    const double value = s->base[p->first + i] * exp(parameter);
    return p->kind == GYRE_LEARNT_CLIP || p->kind == GYRE_LEARNT_CACHE ? fmin(value, 1) : value;
}

static gyre_status set(struct gyre_student *s, const struct gyre_learnt *p, const double *parameter, void *scratch,
                       gyre_error *err)
{
    const struct gyre_binding *vector = vector_of(s, p);
    uint16_t *half = scratch;
    float *number = scratch;
    for (uint64_t i = 0; i < p->n; i++) {
        const float value = (float)gyre_student_value(s, p, i, parameter[p->first + i]);
        if (p->kind == GYRE_LEARNT_SCALES) half[i] = gyre_f16_from_f32(value);
        else if (vector) number[i] = value;
        else *clip_of(s, p, i) = value;
    }
    if (p->kind == GYRE_LEARNT_SCALES) return scales(s, p, NULL, half, err);
    if (!vector) return GYRE_OK;
    return gyre_buffer_write(s->runner->device, vector->buffer, vector->offset, number, p->n * sizeof *number, err);
}

gyre_status gyre_student_set(struct gyre_student *s, const double *parameter, gyre_error *err)
{
    uint64_t most = 0;
    for (uint32_t k = 0; k < s->n_learnt; k++) most = GYRE_MAX(most, s->learnt[k].n);
    void *scratch = malloc(most * sizeof(float));
    gyre_status st = scratch ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "out of memory for the student's parameters");
    for (uint32_t k = 0; k < s->n_learnt && st == GYRE_OK; k++) st = set(s, &s->learnt[k], parameter, scratch, err);
    free(scratch);
    return st;
}

// ---- a window ---------------------------------------------------------------------------------------------------

// Adds what `reverse` found of the parameters of one block, or (layer n_layers) of the head.
static gyre_status collect(const struct gyre_student *s, const gyre_reverse *r, float *const *found, uint32_t layer,
                           double *gradient, gyre_error *err)
{
    const struct gyre_model *m = &s->runner->model;
    for (uint32_t k = 0; k < s->n_learnt; k++) {
        const struct gyre_learnt *p = &s->learnt[k];
        const bool head = p->kind == GYRE_LEARNT_FINAL;
        const struct gyre_binding *vector = vector_of(s, p);
        const void *at = NULL;
        double *to = gradient + p->first;
        if (head != (layer == m->hp.n_layers) || (!head && p->layer != layer)) continue;
        if (vector) GYRE_TRY(gyre_runner_view(s->runner, *vector, p->n * sizeof(float), s->seen, &at, err));
        const float *value = at;
        if (p->kind == GYRE_LEARNT_CLIP) to[0] += gyre_reverse_act_clip(r, &m->layer[layer].product[p->product]);
        else if (p->kind == GYRE_LEARNT_CACHE)
            for (uint32_t i = 0; i < 2; i++) to[i] += gyre_reverse_kv_clip(r, i);
        else // by the logarithm: scales already are, vectors times themselves
            for (uint64_t i = 0; found[k] && i < p->n; i++)
                to[i] += (double)found[k][i] * (value ? (double)value[i] : 1);
    }
    return GYRE_OK;
}

// Asks for the gradients of a block's (or the head's) parameters; found [n_learnt].
static gyre_status ask(const struct gyre_student *s, gyre_reverse *r, uint32_t layer, float **found, gyre_error *err)
{
    const struct gyre_model *m = &s->runner->model;
    for (uint32_t k = 0; k < s->n_learnt; k++) {
        const struct gyre_learnt *p = &s->learnt[k];
        const bool head = p->kind == GYRE_LEARNT_FINAL;
        found[k] = NULL;
        if (head != (layer == m->hp.n_layers) || (!head && p->layer != layer)) continue;
        const struct gyre_binding *vector = vector_of(s, p);
        if (vector) found[k] = gyre_reverse_data(r, *vector);
        else if (p->kind == GYRE_LEARNT_SCALES) found[k] = gyre_reverse_weight(r, &m->layer[layer].product[p->product]);
        else continue;
        if (!found[k]) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for gradients");
    }
    return GYRE_OK;
}

// One graph backwards: seed (NULL: already there) is the gradient of its output, dx gets that of its input.
static gyre_status backwards(const struct gyre_student *s, const struct gyre_runner_graph *g, gyre_reverse *r,
                             const float *seed, uint64_t n_seed, uint32_t layer, float *dx, uint64_t n_dx,
                             double *gradient, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    float *out = gyre_reverse_value(r, g->out), *in = gyre_reverse_value(r, g->in),
          **found = calloc(s->n_learnt, sizeof *found);
    if (!out || !in || !found) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for gradients"));
    if (seed && !s->dry) memcpy(out, seed, n_seed * sizeof *seed);
    GYRE_GO(ask(s, r, layer, found, err));
    GYRE_GO(gyre_reverse_run(r, err));
    GYRE_GO(collect(s, r, found, layer, gradient, err));
    if (!s->dry) memcpy(dx, in, n_dx * sizeof *dx);
done:
    free(found);
    return st;
}

// Rows first..first+n-1 through the head.
static gyre_status head_rows(struct gyre_student *s, gyre_teacher *teacher, uint32_t window, uint32_t first, uint32_t n,
                             double *kl, double *gradient, gyre_error *err)
{
    struct gyre_runner *runner = s->runner;
    const struct gyre_hparams *hp = &runner->model.hp;
    const uint64_t floats = (uint64_t)n * hp->vocab;
    struct gyre_runner_graph g = {0};
    gyre_reverse *r = NULL;
    const float *want;
    if (!teacher) want = s->alike;
    else GYRE_TRY(gyre_teacher_logits(teacher, window, first, n, &want, err));
    GYRE_TRY(gyre_runner_head(runner, gyre_runner_rows(runner, hp->n_layers, first, n), n, s->logits,
                              gradient ? &g : NULL, err));
    const void *logits = NULL;
    gyre_status st = GYRE_OK;
    if (!s->dry) st = gyre_runner_view(runner, s->logits, floats * sizeof(float), s->seen, &logits, err);
    const float *have = logits;
    if (st != GYRE_OK) GYRE_GO(st);
    if (!gradient) {
        *kl += gyre_back_divergence(want, have, n, hp->vocab) / runner->tokens;
        goto done;
    }
    GYRE_GO(gyre_reverse_open(g.graph, false, &r, err));
    float *seed = gyre_reverse_value(r, g.out);
    if (!seed) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for gradients"));
    if (!s->dry) {
        memcpy(seed, have, floats * sizeof *seed);
        *kl += gyre_back_kl(want, seed, n, hp->vocab, 1.0 / runner->tokens) / runner->tokens;
    }
    GYRE_GO(backwards(s, &g, r, NULL, 0, hp->n_layers, s->dx + (uint64_t)first * hp->width, (uint64_t)n * hp->width,
                      gradient, err));
done:
    gyre_reverse_close(r);
    gyre_graph_destroy(g.graph);
    return st;
}

static gyre_status block_back(struct gyre_student *s, uint32_t layer, double *gradient, gyre_error *err)
{
    const uint64_t n = (uint64_t)s->runner->tokens * s->runner->model.hp.width;
    struct gyre_runner_graph g = {0};
    gyre_reverse *r = NULL;
    gyre_status st = GYRE_OK;
    GYRE_TRY(gyre_runner_block(s->runner, layer, &g, err));
    GYRE_GO(gyre_reverse_open(g.graph, false, &r, err));
    GYRE_GO(backwards(s, &g, r, s->dx, n, layer, s->dx, n, gradient, err));
done:
    gyre_reverse_close(r);
    gyre_graph_destroy(g.graph);
    return st;
}

gyre_status gyre_student_window(struct gyre_student *s, gyre_teacher *teacher, uint32_t window, const uint32_t *token,
                                double *kl, double *gradient, gyre_error *err)
{
    struct gyre_runner *r = s->runner;
    const uint32_t layers = r->model.hp.n_layers;
    *kl = 0;
    if (gradient) memset(gradient, 0, s->n * sizeof *gradient);
    GYRE_TRY(gyre_runner_embed(r, token, err));
    for (uint32_t l = 0; l < layers; l++) GYRE_TRY(gyre_runner_block(r, l, NULL, err));
    for (uint32_t first = 0; first < (s->dry ? 1 : r->tokens); first += GYRE_HEAD_ROWS)
        GYRE_TRY(head_rows(s, teacher, window, first, GYRE_MIN((uint32_t)GYRE_HEAD_ROWS, r->tokens - first), kl,
                           gradient, err));
    for (uint32_t l = layers; gradient && l-- > 0;) GYRE_TRY(block_back(s, l, gradient, err));
    return GYRE_OK;
}
