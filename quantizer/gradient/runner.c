// See runner.h.
#include "quantizer/gradient/runner.h"
#include "quantizer/gradient/rules.h"
#include "runtime/model/synthetic.h"
#include "runtime/util/base.h"

#include <stdlib.h>

static gyre_status open_streams(struct gyre_runner *s, const struct gyre_precision *precision, uint32_t how,
                                gyre_error *err)
{
    gyre_device *device = s->device;
    const uint32_t tokens = s->tokens;
    const struct gyre_hparams *hp = &s->model.hp;
    s->precision = precision ? *precision : gyre_made_for(hp);
    s->n_streams = how & GYRE_RUNNER_KEEPS ? hp->n_layers + 1 : 2;
    if (tokens > hp->context)
        return gyre_fail(
            err, GYRE_E_INVALID,
            "cannot run windows of %u tokens: the model's context is %u; use a recipe with shorter windows", tokens,
            hp->context);
    struct gyre_hparams one = *hp;
    one.n_layers = 1;
    GYRE_TRY(gyre_kv_create(device, &one, &s->precision, 1, tokens, 0, &s->kv, err));
    GYRE_TRY(gyre_kv_reserve(&s->kv, 0, tokens, err));
    s->rows.size = (uint64_t)tokens * 16;
    GYRE_TRY(gyre_buffer_create(device, s->rows.size, "window rows", &s->rows.buffer, err));
    s->x = calloc(s->n_streams, sizeof *s->x);
    if (!s->x) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for residual streams");
    for (uint32_t i = 0; i < s->n_streams; i++) {
        s->x[i].size = (uint64_t)tokens * hp->width * sizeof(float);
        GYRE_TRY(gyre_buffer_create(device, s->x[i].size, "residual stream", &s->x[i].buffer, err));
    }
    return GYRE_OK;
}

gyre_status gyre_runner_open(gyre_device *device, const gyre_source *source, const struct gyre_precision *precision,
                             uint32_t tokens, uint32_t how, struct gyre_runner *s, gyre_error *err)
{
    const struct gyre_loading loading = {.no_blocks = how & GYRE_RUNNER_LOADS};
    *s = (struct gyre_runner){.device = device, .source = source, .tokens = tokens, .loaded = UINT32_MAX};
    GYRE_TRY(gyre_model_load(device, source, &loading, &s->model, err));
    return open_streams(s, precision, how, err);
}

gyre_status gyre_runner_open_shape(gyre_device *device, const char *shape, uint32_t wgroup, uint32_t tokens,
                                   struct gyre_runner *s, gyre_error *err)
{
    const struct gyre_synthetic how = {0};
    struct gyre_hparams hp;
    *s = (struct gyre_runner){.device = device, .tokens = tokens, .loaded = UINT32_MAX};
    GYRE_TRY(gyre_shape_hparams(shape, wgroup, &hp, err));
    GYRE_TRY(gyre_model_synthetic(device, &hp, &how, &s->model, err));
    return open_streams(s, NULL, GYRE_RUNNER_KEEPS, err);
}

void gyre_runner_close(struct gyre_runner *s)
{
    if (!s->device) return;
    for (uint32_t i = 0; s->x && i < s->n_streams; i++) gyre_buffer_destroy(s->device, s->x[i].buffer);
    free(s->x);
    gyre_buffer_destroy(s->device, s->rows.buffer);
    gyre_kv_free(&s->kv);
    gyre_model_free(&s->model);
    *s = (struct gyre_runner){0};
}

gyre_status gyre_runner_view(const struct gyre_runner *s, struct gyre_binding at, uint64_t bytes, void *scratch,
                             const void **out, gyre_error *err)
{
    *out = gyre_back_on_host(s->device) ? gyre_back_memory(at) : scratch;
    return *out == scratch ? gyre_buffer_read(s->device, at.buffer, at.offset, scratch, bytes, err) : GYRE_OK;
}

gyre_status gyre_runner_load(struct gyre_runner *s, uint32_t layer, gyre_error *err)
{
    if (s->loaded == layer) return GYRE_OK;
    if (s->loaded != UINT32_MAX) gyre_layer_weights_free(s->device, &s->model.layer[s->loaded]);
    s->loaded = layer;
    return gyre_model_load_block(&s->model, s->source, layer, err);
}

// Not fused: rules are of the plain ops, and both passes must round alike.
static gyre_status execute(gyre_graph *g, bool keep, gyre_error *err)
{
    GYRE_TRY(gyre_graph_compile(g, &(struct gyre_graph_options){.no_fuse = true, .keep = keep}, err));
    return gyre_graph_submit(g, err);
}

static void hand_over(gyre_graph *g, gyre_value in, gyre_value out, gyre_status st, struct gyre_runner_graph *to)
{
    if (to) *to = st == GYRE_OK ? (struct gyre_runner_graph){g, in, out} : (struct gyre_runner_graph){0};
    if (!to || st != GYRE_OK) gyre_graph_destroy(g);
}

gyre_status gyre_runner_embed(struct gyre_runner *s, const uint32_t *token, gyre_error *err)
{
    int32_t(*rows)[4] = malloc((uint64_t)s->tokens * sizeof *rows);
    if (!rows) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for a window");
    for (uint32_t i = 0; i < s->tokens; i++) {
        rows[i][0] = (int32_t)token[i];
        rows[i][1] = 0;
        rows[i][2] = (int32_t)i;
        rows[i][3] = 1;
    }
    gyre_status st = gyre_buffer_write(s->device, s->rows.buffer, 0, rows, s->rows.size, err);
    free(rows);
    GYRE_TRY(st);
    const struct gyre_batch batch = gyre_kv_batch(&s->kv, s->rows);
    gyre_graph *g;
    GYRE_TRY(gyre_graph_create(s->device, s->tokens, &batch, &g, err));
    gyre_g_output(g, gyre_g_embed(g, &s->model.table, s->model.hp.embed_scale), s->x[0]);
    st = execute(g, false, err);
    gyre_graph_destroy(g);
    return st;
}

gyre_status gyre_runner_block(struct gyre_runner *s, uint32_t layer, struct gyre_runner_graph *graph, gyre_error *err)
{
    const struct gyre_batch batch = gyre_kv_batch(&s->kv, s->rows);
    gyre_graph *g;
    GYRE_TRY(gyre_graph_create(s->device, s->tokens, &batch, &g, err));
    const gyre_value in = gyre_g_external(g, "stream", s->tokens, s->model.hp.width, s->x[layer % s->n_streams]);
    const gyre_value out = gyre_model_block(g, in, &s->model, layer, &s->kv.pool[0], &s->precision);
    gyre_g_output(g, out, s->x[(layer + 1) % s->n_streams]);
    const gyre_status st = execute(g, graph != NULL, err);
    hand_over(g, in, out, st, graph);
    return st;
}

gyre_status gyre_runner_head(struct gyre_runner *s, struct gyre_binding x, uint32_t n, struct gyre_binding logits,
                             struct gyre_runner_graph *graph, gyre_error *err)
{
    const struct gyre_batch none = {0};
    gyre_graph *g;
    GYRE_TRY(gyre_graph_create(s->device, n, &none, &g, err));
    const gyre_value in = gyre_g_external(g, "stream", n, s->model.hp.width, x);
    const gyre_value out = gyre_model_head(g, in, &s->model);
    logits.size = (uint64_t)n * s->model.hp.vocab * sizeof(float);
    gyre_g_output(g, out, logits);
    const gyre_status st = execute(g, graph != NULL, err);
    hand_over(g, in, out, st, graph);
    return st;
}

struct gyre_binding gyre_runner_rows(const struct gyre_runner *s, uint32_t stream, uint32_t first, uint32_t n)
{
    const uint64_t row = s->model.hp.width * sizeof(float);
    const struct gyre_binding *x = &s->x[stream % s->n_streams];
    return (struct gyre_binding){x->buffer, x->offset + first * row, n * row};
}
