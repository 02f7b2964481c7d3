// Log-likelihoods of a text, and the divergence from a reference model, reduced on the device.
//
// A window's residual stream is computed in steps of many rows; the head then runs over it in chunks of HEAD_ROWS rows,
// because logits of a whole step (1024 x 49152 floats) exceed the buffer range of small devices. With a reference, its
// head writes one chunk of logits that the model's head graph of the same chunk compares with its own.
#include "runtime/engine.h"

#include "runtime/util/base.h"
#include "runtime/util/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_ROWS = 64 };

// One model's recorded graphs for the rows of a step.
struct runner {
    gyre_engine *engine;
    uint32_t slot;
    bool has_slot;
    struct gyre_binding hidden;                // f32[max_rows][D]
    gyre_graph *body[GYRE_BUCKETS];            // by log2 of the rows
    gyre_graph *head[1 << (GYRE_BUCKETS - 1)]; // by chunk
};

struct eval {
    struct runner model, reference;
    struct gyre_binding targets, loglik, kl, ref_logits;
    uint32_t *target_data;
    float *loglik_data, *kl_data;              // float4 per row
    double nll, nll_squares, kl_sum, agree;
    uint64_t tokens;
};

static gyre_status buffer(gyre_device *device, uint64_t bytes, const char *label, struct gyre_binding *out, gyre_error *err)
{
    *out = (struct gyre_binding){.size = bytes};
    return gyre_buffer_create(device, bytes, label, &out->buffer, err);
}

static gyre_status runner_open(struct runner *r, gyre_engine *e, gyre_error *err)
{
    r->engine = e;
    GYRE_TRY(gyre_sequence_take(e, &r->slot, err));
    r->has_slot = true;
    return buffer(e->device, (uint64_t)e->max_rows * e->model.hp.width * sizeof(float), "eval hidden", &r->hidden, err);
}

static void runner_close(struct runner *r)
{
    if (!r->engine) return;
    for (size_t i = 0; i < GYRE_COUNT(r->body); i++) gyre_graph_destroy(r->body[i]);
    for (size_t i = 0; i < GYRE_COUNT(r->head); i++) gyre_graph_destroy(r->head[i]);
    gyre_buffer_destroy(r->engine->device, r->hidden.buffer);
    if (r->has_slot) gyre_sequence_release(r->engine, r->slot);
}

static struct gyre_binding slice(struct gyre_binding whole, uint64_t offset, uint64_t size)
{
    return (struct gyre_binding){whole.buffer, whole.offset + offset, size};
}

static gyre_status compile(gyre_graph *g, gyre_graph **out, gyre_error *err)
{
    const gyre_status st = gyre_graph_compile(g, NULL, err);
    if (st != GYRE_OK) gyre_graph_destroy(g);
    else *out = g;
    return st;
}

static gyre_status body_graph(struct runner *r, uint32_t rows, gyre_graph **out, gyre_error *err)
{
    uint32_t log2 = 0;
    while (1u << log2 < rows) log2++;
    *out = r->body[log2];
    if (*out) return GYRE_OK;
    gyre_engine *e = r->engine;
    const struct gyre_batch batch = gyre_kv_batch(&e->kv, slice(e->rows, 0, (uint64_t)rows * 16));
    gyre_graph *g = NULL;
    GYRE_TRY(gyre_graph_create(e->device, rows, &batch, &g, err));
    gyre_g_output(g, gyre_engine_body(e, g), slice(r->hidden, 0, (uint64_t)rows * e->model.hp.width * sizeof(float)));
    GYRE_TRY(compile(g, &r->body[log2], err));
    *out = r->body[log2];
    return GYRE_OK;
}

// The head over chunk `c` of the residual stream. The reference only lands its logits.
static gyre_status head_graph(struct eval *v, struct runner *r, uint32_t c, gyre_graph **out, gyre_error *err)
{
    *out = r->head[c];
    if (*out) return GYRE_OK;
    gyre_engine *e = r->engine;
    const uint64_t row = (uint64_t)e->model.hp.width * sizeof(float);
    const uint32_t rows = GYRE_MIN((uint32_t)HEAD_ROWS, e->max_rows);
    const struct gyre_batch batch = gyre_kv_batch(&e->kv, slice(e->rows, 0, (uint64_t)rows * 16));
    gyre_graph *g = NULL;
    GYRE_TRY(gyre_graph_create(e->device, rows, &batch, &g, err));
    const gyre_value x = gyre_g_external(g, "hidden", rows, e->model.hp.width, slice(r->hidden, c * rows * row, rows * row));
    const gyre_value logits = gyre_llama_head(g, x, &e->model);
    const struct gyre_binding ref = slice(v->ref_logits, 0, (uint64_t)rows * e->model.hp.vocab * sizeof(float));
    if (r == &v->reference) {
        gyre_g_output(g, logits, ref);
    } else {
        const uint64_t at = (uint64_t)c * rows;
        gyre_g_output(g, gyre_g_loglik(g, logits, slice(v->targets, at * 4, rows * 4)), slice(v->loglik, at * 16, rows * 16));
        if (v->reference.engine) {
            const gyre_value p = gyre_g_external(g, "reference logits", rows, e->model.hp.vocab, ref);
            gyre_g_output(g, gyre_g_kl(g, p, logits), slice(v->kl, at * 16, rows * 16));
        }
    }
    GYRE_TRY(compile(g, &r->head[c], err));
    *out = r->head[c];
    return GYRE_OK;
}

static gyre_status submit_body(struct runner *r, const uint32_t *tokens, uint32_t first, uint32_t n, uint32_t rows, gyre_error *err)
{
    gyre_engine *e = r->engine;
    gyre_graph *body = NULL;
    GYRE_TRY(body_graph(r, rows, &body, err));
    GYRE_TRY(gyre_kv_reserve(&e->kv, r->slot, first + n, err));
    memset(e->row_data, 0, (size_t)rows * 16);
    for (uint32_t i = 0; i < n; i++) {
        memcpy(e->row_data + 4 * (size_t)i, (int32_t[]){(int32_t)tokens[first + i], (int32_t)r->slot, (int32_t)(first + i), 1}, 16);
    }
    e->resident = false;
    GYRE_TRY(gyre_buffer_write(e->device, e->rows.buffer, 0, e->row_data, (uint64_t)rows * 16, err));
    return gyre_graph_submit(body, err);
}

// Rows first..first+n-1 of a window: each predicts the token after it.
static gyre_status eval_rows(struct eval *v, const uint32_t *tokens, uint32_t first, uint32_t n, gyre_error *err)
{
    gyre_engine *e = v->model.engine;
    const uint32_t rows = gyre_engine_bucket(e, n), chunk = GYRE_MIN((uint32_t)HEAD_ROWS, e->max_rows);
    memset(v->target_data, 0, e->max_rows * sizeof *v->target_data);
    memcpy(v->target_data, tokens + first + 1, n * sizeof *v->target_data);
    GYRE_TRY(gyre_buffer_write(e->device, v->targets.buffer, 0, v->target_data, v->targets.size, err));
    GYRE_TRY(submit_body(&v->model, tokens, first, n, rows, err));
    if (v->reference.engine) GYRE_TRY(submit_body(&v->reference, tokens, first, n, rows, err));
    for (uint32_t c = 0; c * chunk < n; c++) {
        gyre_graph *g = NULL;
        if (v->reference.engine) {
            GYRE_TRY(head_graph(v, &v->reference, c, &g, err));
            GYRE_TRY(gyre_graph_submit(g, err));
        }
        GYRE_TRY(head_graph(v, &v->model, c, &g, err));
        GYRE_TRY(gyre_graph_submit(g, err));
    }
    GYRE_TRY(gyre_buffer_read(e->device, v->loglik.buffer, 0, v->loglik_data, (uint64_t)n * 16, err));
    if (v->reference.engine) GYRE_TRY(gyre_buffer_read(e->device, v->kl.buffer, 0, v->kl_data, (uint64_t)n * 16, err));
    for (uint32_t i = 0; i < n; i++) {
        const double nll = v->loglik_data[4 * (size_t)i];
        if (!isfinite(nll)) return gyre_fail(err, GYRE_E_FORMAT, "cannot evaluate (%s): the log-likelihood at position %u is not finite; the model's weights are damaged or overflow", gyre_source_path(e->source), first + i);
        v->nll += nll;
        v->nll_squares += nll * nll;
        v->kl_sum += v->kl_data[4 * (size_t)i];
        v->agree += v->kl_data[4 * (size_t)i + 1];
    }
    v->tokens += n;
    return GYRE_OK;
}

static gyre_status eval_open(struct eval *v, gyre_engine *e, gyre_engine *reference, gyre_error *err)
{
    const uint64_t rows = e->max_rows;
    v->target_data = calloc(rows, sizeof *v->target_data);
    v->loglik_data = calloc(rows, 16);
    v->kl_data = calloc(rows, 16);
    if (!v->target_data || !v->loglik_data || !v->kl_data) return gyre_fail(err, GYRE_E_NOMEM, "cannot evaluate: out of memory");
    GYRE_TRY(runner_open(&v->model, e, err));
    GYRE_TRY(buffer(e->device, rows * 4, "eval targets", &v->targets, err));
    GYRE_TRY(buffer(e->device, rows * 16, "eval results", &v->loglik, err));
    if (!reference) return GYRE_OK;
    GYRE_TRY(runner_open(&v->reference, reference, err));
    GYRE_TRY(buffer(e->device, rows * 16, "eval divergences", &v->kl, err));
    return buffer(e->device, (uint64_t)HEAD_ROWS * e->model.hp.vocab * sizeof(float), "reference logits", &v->ref_logits, err);
}

static void eval_close(struct eval *v)
{
    runner_close(&v->model);
    runner_close(&v->reference);
    if (v->model.engine) {
        gyre_device *device = v->model.engine->device;
        gyre_buffer_destroy(device, v->targets.buffer);
        gyre_buffer_destroy(device, v->loglik.buffer);
        gyre_buffer_destroy(device, v->kl.buffer);
        gyre_buffer_destroy(device, v->ref_logits.buffer);
    }
    free(v->target_data);
    free(v->loglik_data);
    free(v->kl_data);
}

static gyre_status check(const gyre_engine *e, const gyre_engine *reference, const uint32_t *tokens, size_t n, uint32_t ctx, uint32_t windows, gyre_error *err)
{
    if (ctx < 2 || ctx > e->context) return gyre_fail(err, GYRE_E_INVALID, "cannot evaluate: a window of %u tokens does not fit the context of %u", ctx, e->context);
    if (n < (size_t)ctx * windows || windows == 0) return gyre_fail(err, GYRE_E_INVALID, "cannot evaluate: the text has %zu tokens and %u windows of %u need %zu; use a longer text or a smaller --ctx or --windows", n, GYRE_MAX(windows, 1), ctx, (size_t)ctx * GYRE_MAX(windows, 1));
    for (size_t i = 0; i < (size_t)ctx * windows; i++) {
        if (tokens[i] >= e->model.hp.vocab) return gyre_fail(err, GYRE_E_INVALID, "cannot evaluate: token %u is outside the vocabulary of %u", tokens[i], e->model.hp.vocab);
    }
    if (reference && (reference->device != e->device || reference->model.hp.vocab != e->model.hp.vocab || reference->max_rows != e->max_rows || reference->context < ctx)) {
        return gyre_fail(err, GYRE_E_INVALID, "cannot evaluate: the reference model has another vocabulary (%u and %u tokens) or was opened with other limits; use the model that this one was made from", reference->model.hp.vocab, e->model.hp.vocab);
    }
    return GYRE_OK;
}

gyre_status gyre_eval(gyre_engine *engine, gyre_engine *reference, const uint32_t *tokens, size_t n_tokens, uint32_t ctx, uint32_t windows,
                      int (*progress)(void *user, double fraction, double ppl), void *user, gyre_eval_result *out, gyre_error *err)
{
    const uint64_t start = gyre_clock_ns();
    if (windows == 0) windows = (uint32_t)(n_tokens / GYRE_MAX(ctx, 1));
    GYRE_TRY(check(engine, reference, tokens, n_tokens, ctx, windows, err));
    struct eval *v = calloc(1, sizeof *v);
    if (!v) return gyre_fail(err, GYRE_E_NOMEM, "cannot evaluate: out of memory");
    gyre_status st = GYRE_OK;
    GYRE_GO(eval_open(v, engine, reference, err));
    for (uint32_t w = 0; w < windows; w++) {
        for (uint32_t first = 0; first < ctx - 1; first += engine->max_rows) {
            GYRE_GO(eval_rows(v, tokens + (size_t)w * ctx, first, GYRE_MIN(engine->max_rows, ctx - 1 - first), err));
            const double done = (w + (first + engine->max_rows < ctx - 1 ? (double)(first + engine->max_rows) / (ctx - 1) : 1.0)) / windows;
            if (progress && progress(user, done, exp(v->nll / (double)v->tokens))) {
                st = gyre_fail(err, GYRE_E_CANCELLED, "cancelled while evaluating");
                goto done;
            }
        }
    }
    const double n = (double)v->tokens, mean = v->nll / n, variance = GYRE_MAX(0.0, v->nll_squares / n - mean * mean);
    *out = (gyre_eval_result){.tokens = v->tokens, .nll = mean, .ppl = exp(mean), .ppl_stderr = exp(mean) * sqrt(variance / n), .has_reference = reference != NULL,
                              .kl = v->kl_sum / n, .top1_agreement = v->agree / n, .seconds = (double)(gyre_clock_ns() - start) * 1e-9};
done:
    eval_close(v);
    free(v);
    return st;
}
