// Embeddings: the residual stream behind the final norm, of a prompt's last token or the mean of all.
#include "runtime/schedule.h"

#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const float *gyre_task_embedding(const gyre_task *t) { return t->ended && !t->error.code ? t->embedding : NULL; }

void gyre_scheduler_embed_free(struct gyre_scheduler *s)
{
    for (size_t i = 0; i < GYRE_COUNT(s->embed); i++) gyre_graph_destroy(s->embed[i]);
    gyre_buffer_destroy(s->engine->device, s->hidden.buffer);
    free(s->hidden_data);
    free(s->gain);
}

// Buffers on both sides, at the first use.
static gyre_status prepare(struct gyre_scheduler *s, gyre_error *err)
{
    gyre_engine *e = s->engine;
    const uint64_t row = (uint64_t)e->model.hp.width * sizeof(float);
    if (s->hidden.buffer) return GYRE_OK;
    if (!s->hidden_data) s->hidden_data = malloc(e->max_rows * row);
    if (!s->gain) s->gain = malloc(row);
    if (!s->hidden_data || !s->gain) return gyre_fail(err, GYRE_E_NOMEM, "cannot embed: out of memory");
    if (e->model.shared.head.n)
        GYRE_TRY(gyre_buffer_read(e->device, e->model.head_gain.buffer, e->model.head_gain.offset, s->gain, row, err));
    s->hidden.size = e->max_rows * row;
    return gyre_buffer_create(e->device, s->hidden.size, "embeddings", &s->hidden.buffer, err);
}

static gyre_status graph_of(struct gyre_scheduler *s, uint32_t rows, gyre_graph **out, gyre_error *err)
{
    gyre_engine *e = s->engine;
    const struct gyre_model *m = &e->model;
    uint32_t log2 = 0;
    while (1u << log2 < rows) log2++;
    *out = s->embed[log2];
    if (*out) return GYRE_OK;
    struct gyre_binding at = e->rows, to = s->hidden;
    at.size = (uint64_t)rows * 16;
    to.size = (uint64_t)rows * m->hp.width * sizeof(float);
    const struct gyre_batch batch = gyre_kv_batch(&e->kv, at);
    gyre_graph *g = NULL;
    GYRE_TRY(gyre_graph_create(e->device, rows, &batch, &g, err));
    gyre_value z = gyre_g_rms_norm(g, gyre_engine_body(e, g), m->output_norm, m->hp.norm_eps);
    if (m->shared.head.n) // back to the model's own basis, where the final gain is applied, on the host
        z = gyre_g_hadamard(g, z, &m->shared.head, m->hp.width / m->shared.head.n, true, (struct gyre_binding){0});
    if (m->head_mix.n_ranges) z = gyre_g_matmul(g, z, &m->head_mix); // it stays turned: no distance changes by that
    gyre_g_output(g, z, to);
    const gyre_status st = gyre_graph_compile(g, &(struct gyre_graph_options){.scratch = &e->scratch}, err);
    if (st != GYRE_OK) gyre_graph_destroy(g);
    else *out = s->embed[log2] = g;
    return st;
}

static void finish(gyre_task *t)
{
    const struct gyre_scheduler *s = t->scheduler;
    const uint32_t width = s->engine->model.hp.width;
    double norm = 0;
    for (uint32_t i = 0; i < width; i++) {
        if (s->engine->model.shared.head.n) t->pooled[i] *= (double)s->gain[i];
        norm += t->pooled[i] * t->pooled[i];
    }
    for (uint32_t i = 0; i < width; i++) t->embedding[i] = norm > 0 ? (float)(t->pooled[i] / sqrt(norm)) : 0;
    t->ended = true;
    t->why = GYRE_STOP_LENGTH;
}

// Of `n` rows: the first that counts, and how many do.
static uint32_t pooled_rows(const gyre_task *t, uint32_t n, uint32_t *first)
{
    const bool last = t->length + n == t->n, mean = t->params.pooling == GYRE_POOL_MEAN;
    *first = mean ? 0 : n - 1;
    return mean ? n : last ? 1 : 0;
}

static gyre_status check(const gyre_task *t, uint32_t first, uint64_t count, gyre_error *err)
{
    const struct gyre_scheduler *s = t->scheduler;
    const uint32_t width = s->engine->model.hp.width;
    for (uint64_t i = 0; i < count; i++)
        if (!isfinite(s->hidden_data[i]))
            return gyre_fail(err, GYRE_E_FORMAT,
                             "cannot embed (%s, position %llu): the embedding is not finite; the model's weights are "
                             "damaged or overflow",
                             gyre_engine_model(s->engine), (unsigned long long)(t->length + first + i / width));
    return GYRE_OK;
}

void gyre_task_embed_take(gyre_task *t, uint32_t n)
{
    const struct gyre_scheduler *s = t->scheduler;
    const uint32_t width = s->engine->model.hp.width;
    uint32_t first;
    const uint64_t count = (uint64_t)pooled_rows(t, n, &first) * width;
    if (check(t, first, count, &t->error) != GYRE_OK) {
        t->length = gyre_kv_trim(&s->engine->kv, t->slot, t->length);
        gyre_task_fail(t);
        return;
    }
    t->length += n;
    for (uint64_t i = 0; i < count; i++) t->pooled[i % width] += (double)s->hidden_data[i];
    if (t->length == t->n) finish(t);
}

gyre_status gyre_task_embed(gyre_task *t, uint32_t rows, uint32_t *out, gyre_error *err)
{
    struct gyre_scheduler *s = t->scheduler;
    gyre_engine *e = s->engine;
    const uint32_t width = e->model.hp.width, n = GYRE_MIN(GYRE_MIN(rows, e->max_rows), t->n - t->length),
                   bucket = gyre_engine_bucket(e, n);
    uint32_t first;
    gyre_graph *graph = NULL;
    *out = n;
    GYRE_TRY(prepare(s, err));
    GYRE_TRY(graph_of(s, bucket, &graph, err));
    GYRE_TRY(gyre_kv_reserve(&e->kv, t->slot, t->length + n, err));
    gyre_kv_want(&e->kv, t->slot, t->length, n);
    GYRE_TRY(gyre_kv_enter(&e->kv, err));
    memset(e->row_data, 0, (size_t)bucket * 16);
    for (uint32_t i = 0; i < n; i++) {
        const int32_t row[4] = {(int32_t)t->tokens[t->length + i], (int32_t)t->slot, (int32_t)(t->length + i), 1};
        memcpy(e->row_data + 4 * (size_t)i, row, sizeof row);
    }
    e->resident = false;
    gyre_engine_forget_logits(e, UINT32_MAX);
    GYRE_TRY(gyre_engine_write_rows(e, bucket, err));
    GYRE_TRY(gyre_graph_submit(graph, err));
    const uint32_t count = pooled_rows(t, n, &first);
    if (!count) return gyre_wait(e->device, err);
    return gyre_buffer_read(e->device, s->hidden.buffer, (uint64_t)first * width * sizeof(float), s->hidden_data,
                            (uint64_t)count * width * sizeof(float), err);
}
