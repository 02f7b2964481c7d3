// Log-likelihoods of a text, and the divergence from a reference model, reduced on the device.
//
// A window's residual stream is computed in steps of many rows; the head then runs over it in chunks of HEAD_ROWS rows,
// because logits of a whole step (1024 x 49152 floats) exceed the buffer range of small devices. With a reference, its
// head writes one chunk of logits, and what it thinks of the right tokens; the model's head graph of the same chunk
// compares the logits with its own. Stored reference
// logits are compared and made on the host, which reads each chunk back.
#include "runtime/engine.h"
#include "runtime/eval.h"

#include "runtime/util/base.h"
#include "runtime/util/clock.h"
#include "runtime/util/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_ROWS = 64, SAVED = 64 };

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
    const gyre_eval_params *params;
    struct runner model, reference;
    struct gyre_binding targets, loglik, kl, ref_loglik, ref_logits,
        logits; // logits: one chunk of the model's, for the host
    uint32_t *target_data;
    float *loglik_data, *kl_data, *ref_loglik_data, *logit_data; // float4 per row; [HEAD_ROWS][vocab], NULL where the
                                                                 // host needs none
    float *divergences; // of every token so far, in order within a text under way; NULL without a reference
    struct gyre_reference_writer *writer;
    uint32_t *windows;                  // of each text
    uint64_t *first_row;                // of each text in the stored reference
    uint64_t stored_row;                // the next one there
    struct gyre_eval_sums sums, before; // of the text under way; of those before it
};

static gyre_status buffer(gyre_device *device, uint64_t bytes, const char *label, struct gyre_binding *out,
                          gyre_error *err)
{
    *out = (struct gyre_binding){.size = bytes};
    return gyre_buffer_create(device, bytes, label, &out->buffer, err);
}

static gyre_status runner_open(struct runner *r, gyre_engine *e, gyre_error *err)
{
    r->engine = e;
    GYRE_TRY(gyre_sequence_take(e, NULL, &r->slot, err));
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

// The head over chunk `c` of the residual stream. The reference lands its logits too.
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
    const gyre_value x =
        gyre_g_external(g, "hidden", rows, e->model.hp.width, slice(r->hidden, c * rows * row, rows * row));
    const gyre_value logits = gyre_model_head(g, x, &e->model);
    const struct gyre_binding ref = slice(v->ref_logits, 0, (uint64_t)rows * e->model.hp.vocab * sizeof(float));
    const uint64_t at = (uint64_t)c * rows;
    gyre_g_output(g, gyre_g_loglik(g, logits, slice(v->targets, at * 4, rows * 4)),
                  slice(r == &v->reference ? v->ref_loglik : v->loglik, at * 16, rows * 16));
    if (r == &v->reference) {
        gyre_g_output(g, logits, ref);
    } else {
        if (v->logit_data)
            gyre_g_output(g, logits, slice(v->logits, 0, (uint64_t)rows * e->model.hp.vocab * sizeof(float)));
        if (v->reference.engine) {
            const gyre_value p = gyre_g_external(g, "reference logits", rows, e->model.hp.vocab, ref);
            gyre_g_output(g, gyre_g_kl(g, p, logits), slice(v->kl, at * 16, rows * 16));
        }
    }
    GYRE_TRY(compile(g, &r->head[c], err));
    *out = r->head[c];
    return GYRE_OK;
}

static gyre_status submit_body(struct runner *r, const uint32_t *tokens, uint32_t first, uint32_t n, uint32_t rows,
                               gyre_error *err)
{
    gyre_engine *e = r->engine;
    gyre_graph *body = NULL;
    GYRE_TRY(body_graph(r, rows, &body, err));
    GYRE_TRY(gyre_kv_reserve(&e->kv, r->slot, first + n, err));
    gyre_kv_want(&e->kv, r->slot, first, n);
    GYRE_TRY(gyre_kv_enter(&e->kv, err));
    memset(e->row_data, 0, (size_t)rows * 16);
    for (uint32_t i = 0; i < n; i++) {
        memcpy(e->row_data + 4 * (size_t)i,
               (int32_t[]){(int32_t)tokens[first + i], (int32_t)r->slot, (int32_t)(first + i), 1}, 16);
    }
    e->resident = false;
    GYRE_TRY(gyre_engine_write_rows(e, rows, err));
    return gyre_graph_submit(body, err);
}

// What the host does with n rows from `first` on, of the chunk that was just submitted: compares them with stored ones,
// stores them. Results go where the device's would.
static gyre_status host_rows(struct eval *v, uint32_t first, uint32_t n, gyre_error *err)
{
    const uint64_t vocab = v->model.engine->model.hp.vocab;
    GYRE_TRY(
        gyre_buffer_read(v->model.engine->device, v->logits.buffer, 0, v->logit_data, n * vocab * sizeof(float), err));
    for (uint32_t i = 0; i < n; i++) {
        const float *logits = v->logit_data + i * vocab;
        const size_t row = first + i;
        if (v->params->stored) {
            gyre_eval_token t = {0};
            gyre_reference_compare(v->params->stored, v->stored_row++, logits, &t);
            v->kl_data[4 * row] = (float)t.kl;
            v->kl_data[4 * row + 1] = t.same_top;
            v->ref_loglik_data[4 * row] = (float)t.reference_nll;
        }
        if (v->writer) GYRE_TRY(gyre_reference_add(v->writer, logits, v->target_data[row], err));
    }
    return GYRE_OK;
}

// Row `i` of a step, whose results are here, as the token that it predicts.
static gyre_status count_row(struct eval *v, gyre_eval_token *t, uint32_t i, gyre_error *err)
{
    const char *model = gyre_engine_model(v->model.engine);
    t->token = v->target_data[i];
    t->nll = (double)v->loglik_data[4 * (size_t)i];
    t->kl = (double)v->kl_data[4 * (size_t)i];
    t->same_top = v->kl_data[4 * (size_t)i + 1] != 0;
    t->reference_nll = (double)v->ref_loglik_data[4 * (size_t)i];
    if (!isfinite(t->nll))
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot evaluate (%s): the log-likelihood at position %u is not finite; the model's "
                         "weights are damaged or overflow",
                         model, t->seen - 1);
    if (!isfinite(t->kl) || !isfinite(t->reference_nll))
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot evaluate (%s): its divergence from the reference at position %u is not finite; "
                         "the reference's weights are damaged or overflow",
                         model, t->seen - 1);
    if (v->divergences) v->divergences[v->before.tokens + v->sums.tokens] = (float)t->kl;
    gyre_eval_count(&v->sums, t);
    if (v->params->token && v->params->token(v->params->user, t))
        return gyre_fail(err, GYRE_E_CANCELLED, "cancelled while evaluating");
    return GYRE_OK;
}

// Rows first..first+n-1 of a window: each predicts the token after it. `t` names text and window.
static gyre_status eval_rows(struct eval *v, gyre_eval_token t, const uint32_t *tokens, uint32_t first, uint32_t n,
                             gyre_error *err)
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
        if (v->logit_data) GYRE_TRY(host_rows(v, c * chunk, GYRE_MIN(chunk, n - c * chunk), err));
    }
    GYRE_TRY(gyre_buffer_read(e->device, v->loglik.buffer, 0, v->loglik_data, (uint64_t)n * 16, err));
    if (v->reference.engine) {
        GYRE_TRY(gyre_buffer_read(e->device, v->kl.buffer, 0, v->kl_data, (uint64_t)n * 16, err));
        GYRE_TRY(gyre_buffer_read(e->device, v->ref_loglik.buffer, 0, v->ref_loglik_data, (uint64_t)n * 16, err));
    }
    for (uint32_t i = 0; i < n; i++) {
        t.seen = first + i + 1;
        GYRE_TRY(count_row(v, &t, i, err));
    }
    return GYRE_OK;
}

static gyre_status begin_saving(struct eval *v, const gyre_eval_text *texts, uint32_t n, gyre_error *err)
{
    const gyre_engine *e = v->model.engine;
    const gyre_eval_params *p = v->params;
    const uint32_t vocab = e->model.hp.vocab;
    if (p->save_k > vocab)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot store %u logits of a token (%s): the vocabulary has %u; use a smaller --reference-k",
                         p->save_k, p->save, vocab);
    gyre_reference_info info = {.texts = n,
                                .vocab = vocab,
                                .ctx = p->ctx,
                                .k = p->save_k ? p->save_k : GYRE_MIN((uint32_t)SAVED, vocab),
                                .act = e->precision.act,
                                .kv = e->precision.kv,
                                .kv_v = e->precision.kv_v};
    snprintf(info.model, sizeof info.model, "%s", gyre_base_name(gyre_engine_model(e)));
    for (uint32_t i = 0; i < n; i++) info.tokens += (uint64_t)v->windows[i] * (p->ctx - 1);
    return gyre_reference_begin(p->save, &info, texts, v->windows, &v->writer, err);
}

// `total`: tokens that all texts predict.
static gyre_status eval_open(struct eval *v, gyre_engine *e, uint64_t total, gyre_error *err)
{
    const uint64_t rows = e->max_rows, logits = (uint64_t)HEAD_ROWS * e->model.hp.vocab * sizeof(float);
    const bool host = v->params->stored || v->params->save, compared = v->params->stored || v->params->reference;
    v->target_data = calloc(rows, sizeof *v->target_data);
    v->loglik_data = calloc(rows, 16);
    v->kl_data = calloc(rows, 16);
    v->ref_loglik_data = calloc(rows, 16);
    v->logit_data = host ? malloc(logits) : NULL;
    v->divergences = compared ? calloc(total, sizeof *v->divergences) : NULL;
    if (!v->target_data || !v->loglik_data || !v->kl_data || !v->ref_loglik_data || (host && !v->logit_data) ||
        (compared && !v->divergences))
        return gyre_fail(err, GYRE_E_NOMEM, "cannot evaluate: out of memory");
    GYRE_TRY(runner_open(&v->model, e, err));
    GYRE_TRY(buffer(e->device, rows * 4, "eval targets", &v->targets, err));
    GYRE_TRY(buffer(e->device, rows * 16, "eval results", &v->loglik, err));
    if (host) GYRE_TRY(buffer(e->device, logits, "eval logits", &v->logits, err));
    if (!v->params->reference) return GYRE_OK;
    GYRE_TRY(runner_open(&v->reference, v->params->reference, err));
    GYRE_TRY(buffer(e->device, rows * 16, "eval divergences", &v->kl, err));
    GYRE_TRY(buffer(e->device, rows * 16, "reference results", &v->ref_loglik, err));
    return buffer(e->device, logits, "reference logits", &v->ref_logits, err);
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
        gyre_buffer_destroy(device, v->ref_loglik.buffer);
        gyre_buffer_destroy(device, v->ref_logits.buffer);
        gyre_buffer_destroy(device, v->logits.buffer);
    }
    gyre_reference_drop(v->writer);
    free(v->target_data);
    free(v->loglik_data);
    free(v->kl_data);
    free(v->ref_loglik_data);
    free(v->divergences);
    free(v->logit_data);
    free(v->windows);
    free(v->first_row);
    free(v);
}

// Tables of one size may be of other tokens, which no divergence is between. Only those of the text are asked for: what
// fills a table up has other names in every tool, or none.
static gyre_status check_same_tokens(const gyre_engine *e, const gyre_engine *reference, const gyre_eval_text *text,
                                     size_t n_tokens, const char *name, gyre_error *err)
{
    const gyre_tokenizer *mine = gyre_engine_tokenizer(e), *theirs = gyre_engine_tokenizer(reference);
    for (size_t k = 0; mine && theirs && k < n_tokens; k++) {
        size_t n = 0, m = 0;
        const char *a = gyre_token_bytes(mine, text->tokens[k], &n), *b = gyre_token_bytes(theirs, text->tokens[k], &m);
        if (gyre_same_bytes(a, n, b, m)) continue;
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot evaluate (%s): to the reference token %u is another text, so that both do not tell of "
                         "the same tokens; use the model that this one was made from",
                         name, text->tokens[k]);
    }
    return GYRE_OK;
}

static gyre_status check_text(struct eval *v, const gyre_engine *e, const gyre_eval_text *text, uint32_t i,
                              gyre_error *err)
{
    const gyre_eval_params *p = v->params;
    const uint32_t asked = p->windows ? p->windows : (uint32_t)GYRE_MIN(text->n / p->ctx, (size_t)UINT32_MAX),
                   need = GYRE_MAX(asked, 1);
    const char *name = text->name ? text->name : "text";
    if (asked == 0 || text->n < (size_t)p->ctx * asked)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot evaluate (%s): it has %zu tokens and %u windows of %u need %zu; use a longer text or "
                         "a smaller --ctx or --windows",
                         name, text->n, need, p->ctx, (size_t)p->ctx * need);
    for (size_t k = 0; k < (size_t)p->ctx * asked; k++) {
        if (text->tokens[k] >= e->model.hp.vocab)
            return gyre_fail(err, GYRE_E_INVALID, "cannot evaluate (%s): token %u is outside the vocabulary of %u",
                             name, text->tokens[k], e->model.hp.vocab);
    }
    if (p->reference) GYRE_TRY(check_same_tokens(e, p->reference, text, (size_t)p->ctx * asked, name, err));
    v->windows[i] = asked;
    return p->stored ? gyre_reference_find(p->stored, text, asked, p->ctx, e->model.hp.vocab, &v->first_row[i], err)
                     : GYRE_OK;
}

// What counts twice makes every error of all texts together look smaller. As many windows as both have are compared.
static gyre_status check_distinct(const struct eval *v, const gyre_eval_text *texts, uint32_t i, gyre_error *err)
{
    for (uint32_t k = 0; k < i; k++) {
        const size_t n = (size_t)GYRE_MIN(v->windows[i], v->windows[k]) * v->params->ctx;
        if (memcmp(texts[i].tokens, texts[k].tokens, n * sizeof *texts[i].tokens) == 0)
            return gyre_fail(err, GYRE_E_INVALID,
                             "cannot evaluate (%s): its windows are those of %s, and what counts twice makes every "
                             "error look smaller; leave one out",
                             texts[i].name ? texts[i].name : "text", texts[k].name ? texts[k].name : "another text");
    }
    return GYRE_OK;
}

static gyre_status check(struct eval *v, const gyre_engine *e, const gyre_eval_text *texts, uint32_t n, gyre_error *err)
{
    const gyre_eval_params *p = v->params;
    const gyre_engine *r = p->reference;
    if (p->ctx < 2 || p->ctx > e->context)
        return gyre_fail(err, GYRE_E_INVALID, "cannot evaluate: a window of %u tokens does not fit the context of %u",
                         p->ctx, e->context);
    if (n == 0 || (r && p->stored))
        return gyre_fail(err, GYRE_E_INVALID, "cannot evaluate: there is no text, or there are two references");
    if (r && (r->device != e->device || r->model.hp.vocab != e->model.hp.vocab || r->max_rows != e->max_rows ||
              r->context < p->ctx)) {
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot evaluate: the reference model has another vocabulary (%u and %u tokens) or was opened "
                         "with other limits; use the model that this one was made from",
                         r->model.hp.vocab, e->model.hp.vocab);
    }
    v->windows = calloc(n, sizeof *v->windows);
    v->first_row = calloc(n, sizeof *v->first_row);
    if (!v->windows || !v->first_row) return gyre_fail(err, GYRE_E_NOMEM, "cannot evaluate: out of memory");
    for (uint32_t i = 0; i < n; i++) {
        GYRE_TRY(check_text(v, e, &texts[i], i, err));
        GYRE_TRY(check_distinct(v, texts, i, err));
    }
    return GYRE_OK;
}

// `total`: tokens that all texts predict.
static gyre_status eval_text(struct eval *v, uint32_t text, const uint32_t *tokens, uint64_t total, gyre_error *err)
{
    const gyre_eval_params *p = v->params;
    const uint32_t step = v->model.engine->max_rows;
    for (uint32_t w = 0; w < v->windows[text]; w++) {
        const gyre_eval_token where = {.text = text, .window = w};
        for (uint32_t first = 0; first < p->ctx - 1; first += step) {
            GYRE_TRY(eval_rows(v, where, tokens + (size_t)w * p->ctx, first, GYRE_MIN(step, p->ctx - 1 - first), err));
            const double done = (double)(v->before.tokens + v->sums.tokens), nll = v->before.nll.sum + v->sums.nll.sum;
            if (p->progress && p->progress(p->user, done / (double)total, exp(nll / done)))
                return gyre_fail(err, GYRE_E_CANCELLED, "cancelled while evaluating");
        }
        gyre_eval_window(&v->sums);
    }
    return GYRE_OK;
}

// `first`: of the tokens of all texts, the first that is counted in sums.
static void finish(struct eval *v, const struct gyre_eval_sums *sums, uint64_t first, uint64_t start,
                   gyre_eval_result *out)
{
    const gyre_eval_params *p = v->params;
    gyre_reference_info info = {0};
    if (p->stored) gyre_reference_describe(p->stored, &info);
    *out = (gyre_eval_result){.has_reference = p->reference || p->stored,
                              .kl_is_bound = p->stored && info.k < info.vocab,
                              .seconds = (double)(gyre_clock_ns() - start) * 1e-9};
    gyre_eval_finish(sums, out);
    if (v->divergences) gyre_eval_quantiles(v->divergences + first, sums->tokens, out);
    else out->dp_rms = out->dp_rms_stderr = 0;
}

gyre_status gyre_eval_texts(gyre_engine *engine, const gyre_eval_text *texts, uint32_t n, const gyre_eval_params *given,
                            gyre_eval_result *each, gyre_eval_result *all, gyre_error *err)
{
    gyre_eval_params taken;
    GYRE_TRY(gyre_params_take(given, &taken, sizeof taken, sizeof taken, "gyre_eval_params", err));
    const gyre_eval_params *const params = &taken;
    const uint64_t start = gyre_clock_ns();
    struct eval *v = calloc(1, sizeof *v);
    if (!v) return gyre_fail(err, GYRE_E_NOMEM, "cannot evaluate: out of memory");
    v->params = params;
    gyre_status st = GYRE_OK;
    uint64_t total = 0;
    GYRE_GO(check(v, engine, texts, n, err));
    for (uint32_t i = 0; i < n; i++) total += (uint64_t)v->windows[i] * (params->ctx - 1);
    GYRE_GO(eval_open(v, engine, total, err));
    if (params->save) GYRE_GO(begin_saving(v, texts, n, err));
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t text_start = gyre_clock_ns();
        v->sums = (struct gyre_eval_sums){0};
        v->stored_row = v->first_row[i];
        GYRE_GO(eval_text(v, i, texts[i].tokens, total, err));
        if (each) finish(v, &v->sums, v->before.tokens, text_start, &each[i]);
        gyre_eval_merge(&v->before, &v->sums);
    }
    if (v->writer) GYRE_GO(gyre_reference_end(v->writer, err));
    finish(v, &v->before, 0, start, all);
done:
    eval_close(v);
    return st;
}

gyre_status gyre_eval(gyre_engine *engine, gyre_engine *reference, const uint32_t *tokens, size_t n_tokens,
                      uint32_t ctx, uint32_t windows, int (*progress)(void *user, double fraction, double ppl),
                      void *user, gyre_eval_result *out, gyre_error *err)
{
    const gyre_eval_text text = {tokens, n_tokens, NULL};
    const gyre_eval_params params = {
        .ctx = ctx, .windows = windows, .reference = reference, .progress = progress, .user = user};
    return gyre_eval_texts(engine, &text, 1, &params, NULL, out, err);
}
