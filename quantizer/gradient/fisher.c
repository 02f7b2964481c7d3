// See fisher.h.
#include "quantizer/gradient/fisher.h"
#include "quantizer/gradient/draw.h"
#include "quantizer/gradient/reverse.h"
#include "quantizer/gradient/rules.h"
#include "quantizer/gradient/runner.h"
#include "quantizer/gradient/teacher.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOGETHER = 4, MOST_TOGETHER = 64 };

struct measuring {
    const struct gyre_fisher_params *params;
    struct gyre_runner runner;
    struct gyre_fisher *out;
    struct gyre_binding logits; // [GYRE_HEAD_ROWS][V]
    float *stream, *dx;         // [together][layers + 1][tokens][D], [together][tokens][D]
    uint64_t window[MOST_TOGETHER];
    bool looks[MOST_TOGETHER]; // at that window
    uint32_t n, together;      // windows that are under way, and at most
};

static gyre_status open_measuring(struct measuring *m, gyre_error *err)
{
    const struct gyre_precision exact = GYRE_UNROUNDED;
    const uint32_t windows = m->params->windows, tokens = m->params->tokens,
                   most = m->params->together ? GYRE_MIN(m->params->together, (uint32_t)MOST_TOGETHER) : TOGETHER;
    m->together = GYRE_MIN(most, windows);
    GYRE_TRY(
        gyre_runner_open(m->params->device, m->params->source, &exact, tokens, GYRE_RUNNER_LOADS, &m->runner, err));
    const struct gyre_hparams *hp = &m->runner.model.hp;
    const uint64_t rows = (uint64_t)windows * tokens;
    *m->out = (struct gyre_fisher){.layers = hp->n_layers, .rows = rows};
    if (m->params->weighs)
        m->out->weight = calloc((uint64_t)hp->n_layers * GYRE_PRODUCTS * rows, sizeof *m->out->weight);
    const uint64_t each = (uint64_t)tokens * hp->width * sizeof(float), together = m->together;
    m->stream = malloc(together * (hp->n_layers + 1) * each);
    m->dx = malloc(together * each);
    if ((m->params->weighs && !m->out->weight) || !m->stream || !m->dx)
        return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the weights of tokens");
    m->logits.size = (uint64_t)GYRE_HEAD_ROWS * hp->vocab * sizeof(float);
    return gyre_buffer_create(m->params->device, m->logits.size, "logits", &m->logits.buffer, err);
}

static void close_measuring(struct measuring *m)
{
    if (m->runner.device) gyre_buffer_destroy(m->runner.device, m->logits.buffer);
    gyre_runner_close(&m->runner);
    free(m->stream);
    free(m->dx);
}

// The residual stream of window `i` before block `layer`, to the runner and from it.
static gyre_status move(struct measuring *m, uint32_t i, uint32_t layer, bool back, gyre_error *err)
{
    const struct gyre_runner *r = &m->runner;
    const struct gyre_binding x = gyre_runner_rows(r, layer, 0, r->tokens);
    float *stream = m->stream + ((uint64_t)i * (r->model.hp.n_layers + 1) + layer) * (x.size / sizeof(float));
    return back ? gyre_buffer_read(r->device, x.buffer, x.offset, stream, x.size, err)
                : gyre_buffer_write(r->device, x.buffer, x.offset, stream, x.size, err);
}

// The gradient of -log p(y) by the logits of one row, y drawn: p, less 1 at y.
static bool loss_row(const float *logit, uint32_t vocab, double where, float *out)
{
    double log_sum;
    const uint32_t y = gyre_draw_token(logit, vocab, where, &log_sum);
    if (y == UINT32_MAX) return false;
    for (uint32_t i = 0; i < vocab; i++) out[i] = (float)exp((double)logit[i] - log_sum);
    out[y] -= 1;
    return true;
}

// Rows first..first+n-1 of window `w` through the head and back: their part of dx.
static gyre_status head_rows(struct measuring *m, uint32_t w, uint32_t first, uint32_t n, gyre_error *err)
{
    struct gyre_runner *runner = &m->runner;
    const struct gyre_hparams *hp = &runner->model.hp;
    struct gyre_runner_graph g = {0};
    gyre_reverse *r = NULL;
    gyre_status st = GYRE_OK;
    bool good = true;
    GYRE_TRY(gyre_runner_head(runner, gyre_runner_rows(runner, hp->n_layers, first, n), n, m->logits, &g, err));
    const float *logit = gyre_back_memory(m->logits);
    GYRE_GO(gyre_reverse_open(g.graph, false, &r, err));
    float *out = gyre_reverse_value(r, g.out), *in = gyre_reverse_value(r, g.in);
    if (!out || !in) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for gradients"));
#pragma omp parallel for schedule(static) reduction(&& : good)
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t at = (uint64_t)i * hp->vocab;
        good = loss_row(logit + at, hp->vocab, gyre_draw(GYRE_DRAWN_LABELS, m->params->seed, m->window[w], first + i),
                        out + at) &&
               good;
    }
    if (!good)
        GYRE_GO(gyre_fail(err, GYRE_E_FORMAT,
                          "cannot weigh tokens: the model's logits are not finite; its weights are "
                          "damaged or overflow"));
    GYRE_GO(gyre_reverse_run(r, err));
    memcpy(m->dx + ((uint64_t)w * runner->tokens + first) * hp->width, in, (uint64_t)n * hp->width * sizeof *in);
done:
    gyre_reverse_close(r);
    gyre_graph_destroy(g.graph);
    return st;
}

// One block back on window `w`: dx of its output becomes that of its input, and the squares at its products are noted;
// products that the block lacks have none.
static gyre_status block_back(struct measuring *m, uint32_t w, uint32_t layer, gyre_error *err)
{
    struct gyre_runner *runner = &m->runner;
    const uint64_t n = (uint64_t)runner->tokens * runner->model.hp.width;
    float *dx = m->dx + w * n;
    const double *square[GYRE_PRODUCTS] = {NULL};
    struct gyre_fisher_look look[GYRE_PRODUCTS];
    struct gyre_runner_graph g = {0};
    gyre_reverse *r = NULL;
    gyre_status st = GYRE_OK;
    GYRE_TRY(gyre_runner_block(runner, layer, &g, err));
    GYRE_GO(gyre_reverse_open(g.graph, false, &r, err));
    float *out = gyre_reverse_value(r, g.out), *in = gyre_reverse_value(r, g.in);
    bool good = out && in;
    for (int p = 0; p < GYRE_PRODUCTS; p++) {
        const struct gyre_weight *weight = &runner->model.layer[layer].product[p];
        if (m->params->weighs) good &= (square[p] = gyre_reverse_squares(r, weight)) != NULL;
        look[p] =
            (struct gyre_fisher_look){.layer = layer, .window = (uint32_t)m->window[w], .product = (gyre_product)p};
        if (!m->looks[w]) continue;
        good &= (look[p].gradient = gyre_reverse_product(r, weight)) != NULL;
        good &= gyre_reverse_reads(r, weight, &look[p].reads, &look[p].reads_gradient);
    }
    if (!good) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for gradients"));
    memcpy(out, dx, n * sizeof *out);
    GYRE_GO(gyre_reverse_run(r, err));
    memcpy(dx, in, n * sizeof *in);
    for (int p = 0; p < GYRE_PRODUCTS && m->params->weighs; p++) {
        float *to = m->out->weight + ((uint64_t)layer * GYRE_PRODUCTS + (uint64_t)p) * m->out->rows +
                    m->window[w] * runner->tokens;
        for (uint32_t i = 0; i < runner->tokens; i++) good &= (bool)isfinite(to[i] = (float)square[p][i]);
    }
    if (!good)
        st = gyre_fail(err, GYRE_E_FORMAT,
                       "cannot weigh tokens (block %u): gradients overflow; leave calibration's fisher out", layer);
    struct gyre_fisher_look *const maker = &look[gyre_roles[gyre_heads_role(GYRE_HEADS_KEY)].product];
    gyre_reverse_cached(r, &maker->cached, &maker->cached_stride, &maker->cached_gradient);
    for (int p = 0; p < GYRE_PRODUCTS && m->looks[w] && st == GYRE_OK; p++)
        st = m->params->look(m->params->user, &look[p], err);
done:
    gyre_reverse_close(r);
    gyre_graph_destroy(g.graph);
    return st;
}

// The windows that are under way through the model and back, block by block.
static gyre_status run_windows(struct measuring *m, gyre_error *err)
{
    struct gyre_runner *r = &m->runner;
    const struct gyre_fisher_params *p = m->params;
    const uint32_t layers = m->n ? r->model.hp.n_layers : 0;
    for (uint32_t w = 0; w < m->n; w++) {
        GYRE_TRY(gyre_runner_embed(r, p->token + m->window[w] * p->tokens, err));
        GYRE_TRY(move(m, w, 0, true, err));
    }
    for (uint32_t l = 0; l < layers; l++) {
        GYRE_TRY(gyre_runner_load(r, l, err));
        for (uint32_t w = 0; w < m->n; w++) {
            GYRE_TRY(move(m, w, l, false, err));
            GYRE_TRY(gyre_runner_block(r, l, NULL, err));
            GYRE_TRY(move(m, w, l + 1, true, err));
            GYRE_TRY(gyre_tick(p->ticker, 1, err));
        }
    }
    for (uint32_t w = 0; w < m->n; w++) {
        GYRE_TRY(move(m, w, layers, false, err));
        for (uint32_t first = 0; first < r->tokens; first += GYRE_HEAD_ROWS)
            GYRE_TRY(head_rows(m, w, first, GYRE_MIN((uint32_t)GYRE_HEAD_ROWS, r->tokens - first), err));
    }
    for (uint32_t l = layers; l-- > 0;) {
        GYRE_TRY(gyre_runner_load(r, l, err));
        for (uint32_t w = 0; w < m->n; w++) {
            GYRE_TRY(move(m, w, l, false, err));
            GYRE_TRY(block_back(m, w, l, err));
            GYRE_TRY(gyre_tick(p->ticker, 1, err));
        }
    }
    m->n = 0;
    return GYRE_OK;
}

// Squares to weights of mean 1, capped: one token must not be all that is seen.
static void normalize(float *weight, uint64_t rows)
{
    double sum = 0;
    for (uint64_t i = 0; i < rows; i++) sum += (double)weight[i];
    const double scale = sum > 0 ? (double)rows / sum : 0;
    for (uint64_t i = 0; i < rows; i++)
        weight[i] = sum > 0 ? (float)fmin((double)weight[i] * scale, GYRE_FISHER_CAP) : 1;
}

gyre_status gyre_fisher_measure(const struct gyre_fisher_params *p, struct gyre_fisher *out, gyre_error *err)
{
    struct measuring m = {.params = p, .out = out};
    gyre_status st = GYRE_OK;
    *out = (struct gyre_fisher){0};
    GYRE_GO(open_measuring(&m, err));
    const uint64_t seen = GYRE_MIN(p->looks, p->windows);
    for (uint64_t w = 0; w < p->windows; w++) {
        const bool looks = (w + 1) * seen / p->windows > w * seen / p->windows;
        if (!p->weighs && !looks) continue;
        m.window[m.n] = w;
        m.looks[m.n++] = looks;
        if (m.n == m.together) GYRE_GO(run_windows(&m, err));
    }
    GYRE_GO(run_windows(&m, err)); // those that are left
    for (uint64_t i = 0; p->weighs && i < (uint64_t)out->layers * GYRE_PRODUCTS; i++)
        normalize(out->weight + i * out->rows, out->rows);
done:
    close_measuring(&m);
    return st;
}

void gyre_fisher_free(struct gyre_fisher *fisher)
{
    free(fisher->weight);
    *fisher = (struct gyre_fisher){0};
}
