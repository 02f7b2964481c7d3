// See teacher.h.
#include "quantizer/gradient/teacher.h"
#include "quantizer/gradient/runner.h"
#include "runtime/util/base.h"

#include <stdlib.h>

struct gyre_teacher {
    struct gyre_runner runner;
    float *stream; // [windows][tokens][D], behind the last block
    struct gyre_binding x, logits;
    float *seen; // logits, where the device's memory is not the host's
};

// All windows through block `layer`, from t->stream to there; those of the first block are embedded.
static gyre_status read_block(gyre_teacher *t, uint32_t layer, const uint32_t *token, uint32_t windows,
                              const struct gyre_ticker *ticker, gyre_error *err)
{
    struct gyre_runner *s = &t->runner;
    const uint64_t each = (uint64_t)s->tokens * s->model.hp.width;
    const struct gyre_binding in = gyre_runner_rows(s, layer, 0, s->tokens),
                              out = gyre_runner_rows(s, layer + 1, 0, s->tokens);
    GYRE_TRY(gyre_runner_load(s, layer, err));
    for (uint32_t w = 0; w < windows; w++) {
        if (layer == 0) GYRE_TRY(gyre_runner_embed(s, token + (uint64_t)w * s->tokens, err));
        else GYRE_TRY(gyre_buffer_write(s->device, in.buffer, in.offset, t->stream + w * each, in.size, err));
        GYRE_TRY(gyre_runner_block(s, layer, NULL, err));
        GYRE_TRY(gyre_buffer_read(s->device, out.buffer, out.offset, t->stream + w * each, out.size, err));
        GYRE_TRY(gyre_tick(ticker, 1, err));
    }
    return GYRE_OK;
}

gyre_status gyre_teacher_open(gyre_device *device, const gyre_source *source, const uint32_t *token, uint32_t windows,
                              uint32_t tokens, const struct gyre_ticker *ticker, gyre_teacher **out, gyre_error *err)
{
    const struct gyre_precision exact = GYRE_UNROUNDED;
    gyre_status st = GYRE_OK;
    gyre_teacher *t = *out = calloc(1, sizeof *t);
    if (!t) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the float model");
    GYRE_GO(gyre_runner_open(device, source, &exact, tokens, GYRE_RUNNER_LOADS, &t->runner, err));
    const struct gyre_hparams *hp = &t->runner.model.hp;
    const uint64_t each = (uint64_t)tokens * hp->width;
    t->stream = malloc(windows * each * sizeof *t->stream);
    t->seen = malloc((uint64_t)GYRE_HEAD_ROWS * hp->vocab * sizeof *t->seen);
    if (!t->stream || !t->seen) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for the float model's streams"));
    t->x.size = (uint64_t)GYRE_HEAD_ROWS * hp->width * sizeof(float);
    t->logits.size = (uint64_t)GYRE_HEAD_ROWS * hp->vocab * sizeof(float);
    GYRE_GO(gyre_buffer_create(device, t->x.size, "teacher's rows", &t->x.buffer, err));
    GYRE_GO(gyre_buffer_create(device, t->logits.size, "teacher's logits", &t->logits.buffer, err));
    for (uint32_t l = 0; l < hp->n_layers; l++) GYRE_GO(read_block(t, l, token, windows, ticker, err));
    gyre_layer_weights_free(device, &t->runner.model.layer[hp->n_layers - 1]); // its head alone is run from now on
done:
    if (st != GYRE_OK) {
        gyre_teacher_close(t);
        *out = NULL;
    }
    return st;
}

void gyre_teacher_close(gyre_teacher *t)
{
    if (!t) return;
    if (t->runner.device) {
        gyre_buffer_destroy(t->runner.device, t->x.buffer);
        gyre_buffer_destroy(t->runner.device, t->logits.buffer);
    }
    gyre_runner_close(&t->runner);
    free(t->stream);
    free(t->seen);
    free(t);
}

gyre_status gyre_teacher_logits(gyre_teacher *t, uint32_t window, uint32_t first, uint32_t n, const float **out,
                                gyre_error *err)
{
    const uint64_t D = t->runner.model.hp.width;
    struct gyre_binding x = t->x;
    x.size = n * D * sizeof(float);
    GYRE_TRY(gyre_buffer_write(t->runner.device, x.buffer, 0,
                               t->stream + ((uint64_t)window * t->runner.tokens + first) * D, x.size, err));
    GYRE_TRY(gyre_runner_head(&t->runner, x, n, t->logits, NULL, err));
    const void *logits = NULL;
    GYRE_TRY(gyre_runner_view(&t->runner, t->logits, (uint64_t)n * t->runner.model.hp.vocab * sizeof(float), t->seen,
                              &logits, err));
    *out = logits;
    return GYRE_OK;
}
