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

struct measuring {
    const struct gyre_fisher_params *params;
    struct gyre_runner runner;
    struct gyre_fisher *out;
    struct gyre_binding logits; // [GYRE_HEAD_ROWS][V]
    float *dx;                  // [tokens][D]
    uint64_t window;
    bool looks; // at this window
};

static gyre_status open_measuring(struct measuring *m, gyre_error *err)
{
    const struct gyre_precision exact = GYRE_UNROUNDED;
    const uint32_t windows = m->params->windows, tokens = m->params->tokens;
    GYRE_TRY(gyre_runner_open(m->params->device, m->params->source, &exact, tokens, true, &m->runner, err));
    const struct gyre_hparams *hp = &m->runner.model.hp;
    const uint64_t rows = (uint64_t)windows * tokens;
    *m->out = (struct gyre_fisher){.layers = hp->n_layers, .rows = rows};
    if (m->params->weighs)
        m->out->weight = calloc((uint64_t)hp->n_layers * GYRE_PRODUCTS * rows, sizeof *m->out->weight);
    m->dx = malloc((uint64_t)tokens * hp->width * sizeof *m->dx);
    if ((m->params->weighs && !m->out->weight) || !m->dx)
        return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the weights of tokens");
    m->logits.size = (uint64_t)GYRE_HEAD_ROWS * hp->vocab * sizeof(float);
    return gyre_buffer_create(m->params->device, m->logits.size, "logits", &m->logits.buffer, err);
}

static void close_measuring(struct measuring *m)
{
    if (m->runner.device) gyre_buffer_destroy(m->runner.device, m->logits.buffer);
    gyre_runner_close(&m->runner);
    free(m->dx);
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

// Rows first..first+n-1 through the head and back: their part of dx.
static gyre_status head_rows(struct measuring *m, uint32_t first, uint32_t n, gyre_error *err)
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
        good = loss_row(logit + at, hp->vocab, gyre_draw(m->params->seed, m->window, first + i), out + at) && good;
    }
    if (!good)
        GYRE_GO(gyre_fail(err, GYRE_E_FORMAT,
                          "cannot weigh tokens: the model's logits are not finite; its weights are "
                          "damaged or overflow"));
    GYRE_GO(gyre_reverse_run(r, err));
    memcpy(m->dx + (uint64_t)first * hp->width, in, (uint64_t)n * hp->width * sizeof *in);
done:
    gyre_reverse_close(r);
    gyre_graph_destroy(g.graph);
    return st;
}

// One block back: dx of its output becomes that of its input, and the squares at its products are noted; products that
// the block lacks have none.
static gyre_status block_back(struct measuring *m, uint32_t layer, gyre_error *err)
{
    struct gyre_runner *runner = &m->runner;
    const uint64_t n = (uint64_t)runner->tokens * runner->model.hp.width;
    const double *square[GYRE_PRODUCTS] = {NULL};
    const float *gradient[GYRE_PRODUCTS] = {NULL};
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
        if (m->looks) good &= (gradient[p] = gyre_reverse_product(r, weight)) != NULL;
    }
    if (!good) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for gradients"));
    memcpy(out, m->dx, n * sizeof *out);
    GYRE_GO(gyre_reverse_run(r, err));
    memcpy(m->dx, in, n * sizeof *in);
    for (int p = 0; p < GYRE_PRODUCTS && m->params->weighs; p++) {
        float *to = m->out->weight + ((uint64_t)layer * GYRE_PRODUCTS + (uint64_t)p) * m->out->rows +
                    m->window * runner->tokens;
        for (uint32_t i = 0; i < runner->tokens; i++) good &= (bool)isfinite(to[i] = (float)square[p][i]);
    }
    if (!good)
        st = gyre_fail(err, GYRE_E_FORMAT,
                       "cannot weigh tokens (block %u): gradients overflow; leave calibration's fisher out", layer);
    for (int p = 0; p < GYRE_PRODUCTS && m->looks && st == GYRE_OK; p++)
        st = m->params->look(m->params->user, layer, (gyre_product)p, gradient[p], err);
done:
    gyre_reverse_close(r);
    gyre_graph_destroy(g.graph);
    return st;
}

static gyre_status one_window(struct measuring *m, const uint32_t *token, gyre_error *err)
{
    struct gyre_runner *r = &m->runner;
    GYRE_TRY(gyre_runner_embed(r, token, err));
    for (uint32_t l = 0; l < r->model.hp.n_layers; l++) GYRE_TRY(gyre_runner_block(r, l, NULL, err));
    for (uint32_t first = 0; first < r->tokens; first += GYRE_HEAD_ROWS)
        GYRE_TRY(head_rows(m, first, GYRE_MIN((uint32_t)GYRE_HEAD_ROWS, r->tokens - first), err));
    for (uint32_t l = r->model.hp.n_layers; l-- > 0;) GYRE_TRY(block_back(m, l, err));
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
    for (; m.window < p->windows; m.window++) {
        const uint64_t looks = GYRE_MIN(p->looks, p->windows);
        m.looks = (m.window + 1) * looks / p->windows > m.window * looks / p->windows;
        if (!p->weighs && !m.looks) continue;
        GYRE_GO(one_window(&m, p->token + m.window * p->tokens, err));
        if (p->tick) GYRE_GO(p->tick(p->user, err));
    }
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
