// See block.h. The block is the architecture's own graph over external rows. One graph of the whole and one of each tap is
// kept, for the number of rows it was last asked for.
#include "runtime/model/block.h"

#include "runtime/model/kv.h"
#include "runtime/model/llama.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

struct gyre_block {
    gyre_device *device;
    gyre_repacker *repacker;
    struct gyre_hparams hp; // a copy; rot's pointers are not used after creation
    struct gyre_block_options options;
    struct gyre_llama_shared shared;
    struct gyre_llama_layer layer;
    struct gyre_kv kv;
    struct gyre_binding rows, x, y;
    struct gyre_binding tap; // [max_rows, widest tap]; made at the first use
    struct {
        gyre_graph *graph;
        uint32_t rows;
    } kept[GYRE_TAPS + 1]; // by where it stops; the last one is the whole block
};

static void forget_graphs(gyre_block *b)
{
    for (uint32_t i = 0; i <= GYRE_TAPS; i++) {
        gyre_graph_destroy(b->kept[i].graph);
        b->kept[i].graph = NULL;
    }
}

gyre_status gyre_block_create(gyre_device *device, const struct gyre_hparams *hp,
                              const struct gyre_block_options *options, gyre_block **out, gyre_error *err)
{
    gyre_block *b = calloc(1, sizeof *b);
    if (!b) return gyre_fail(err, GYRE_E_NOMEM, "cannot make a block: out of memory");
    b->device = device;
    b->hp = *hp;
    b->hp.n_layers = 1;
    b->options = *options;
    const uint64_t bytes = (uint64_t)options->max_rows * hp->width * sizeof(float);
    gyre_status st = GYRE_OK;
    int32_t *rows = calloc(options->max_rows, 4 * sizeof *rows); // token, sequence, position, live
    if (!rows) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot make a block: out of memory");
        goto done;
    }
    GYRE_GO(gyre_repacker_create(device, &b->repacker, err));
    GYRE_GO(gyre_llama_shared_create(device, hp, options->rope_divisors, &b->shared, err));
    GYRE_GO(gyre_kv_create(device, &b->hp, options->kv_bits, options->kv_clip, 1, options->max_rows, &b->kv, err));
    GYRE_GO(gyre_kv_reserve(&b->kv, 0, options->max_rows, err));
    b->rows.size = (uint64_t)options->max_rows * 16;
    b->x.size = b->y.size = bytes;
    GYRE_GO(gyre_buffer_create(device, b->rows.size, "block rows", &b->rows.buffer, err));
    for (uint32_t i = 0; i < options->max_rows; i++) rows[4 * (size_t)i + 2] = (int32_t)i, rows[4 * (size_t)i + 3] = 1;
    GYRE_GO(gyre_buffer_write(device, b->rows.buffer, 0, rows, b->rows.size, err));
    GYRE_GO(gyre_buffer_create(device, bytes, "block in", &b->x.buffer, err));
    GYRE_GO(gyre_buffer_create(device, bytes, "block out", &b->y.buffer, err));
done:
    free(rows);
    if (st != GYRE_OK) {
        gyre_block_destroy(b);
        b = NULL;
    }
    *out = b;
    return st;
}

void gyre_block_destroy(gyre_block *b)
{
    if (!b) return;
    forget_graphs(b);
    gyre_weight_destroy(b->device, &b->layer.qkv);
    gyre_weight_destroy(b->device, &b->layer.o);
    gyre_weight_destroy(b->device, &b->layer.gate_up);
    gyre_weight_destroy(b->device, &b->layer.down);
    gyre_buffer_destroy(b->device, b->layer.attn_norm.buffer);
    gyre_buffer_destroy(b->device, b->layer.ffn_norm.buffer);
    gyre_buffer_destroy(b->device, b->layer.kv_centre.buffer);
    gyre_buffer_destroy(b->device, b->rows.buffer);
    gyre_buffer_destroy(b->device, b->x.buffer);
    gyre_buffer_destroy(b->device, b->y.buffer);
    gyre_buffer_destroy(b->device, b->tap.buffer);
    gyre_kv_free(&b->kv);
    gyre_llama_shared_free(b->device, &b->shared);
    gyre_repacker_destroy(b->repacker);
    free(b);
}

static gyre_weight_kind linear_kind(const struct gyre_block_linear *l)
{
    return l->f32 ? GYRE_WEIGHT_F32 : l->bits == 8 ? GYRE_WEIGHT_W8 : GYRE_WEIGHT_W4;
}

// Fills `w` with the parts side by side; makes (or remakes) its memory when the kind or group changed.
static gyre_status load_linear(gyre_block *b, const struct gyre_block_linear *const *parts, const uint32_t *n,
                               uint32_t n_parts, uint32_t k, const char *label, struct gyre_weight *w, gyre_error *err)
{
    const gyre_weight_kind kind = linear_kind(parts[0]);
    const uint32_t group = parts[0]->f32 || !parts[0]->group ? k : parts[0]->group;
    uint32_t total = 0, n0 = 0;
    for (uint32_t i = 0; i < n_parts; i++) {
        total += n[i];
        if (linear_kind(parts[i]) != kind)
            return gyre_fail(err, GYRE_E_INVALID, "cannot load a block: %s mixes kinds of weights", label);
    }
    if (w->n_ranges && (w->kind != kind || w->group != group)) {
        forget_graphs(b); // they were recorded for the old memory
        gyre_weight_destroy(b->device, w);
    }
    if (!w->n_ranges) GYRE_TRY(gyre_weight_create(b->device, kind, total, k, group, label, w, err));
    for (uint32_t i = 0; i < n_parts; n0 += n[i], i++) {
        GYRE_TRY(gyre_weight_fill(b->repacker, w, n0, n[i], parts[i]->f32, parts[i]->codes, parts[i]->scales, err));
    }
    return GYRE_OK;
}

static gyre_status load_gain(gyre_block *b, const float *gain, const char *label, struct gyre_binding *out,
                             gyre_error *err)
{
    const uint64_t bytes = b->hp.width * sizeof *gain;
    if (!out->buffer) return gyre_upload(b->device, gain, bytes, label, out, err);
    return gyre_buffer_write(b->device, out->buffer, 0, gain, bytes, err);
}

// Both vectors in one buffer, zeros for one that is not there; no buffer when neither is.
static gyre_status load_centre(gyre_block *b, const float *k, const float *v, gyre_error *err)
{
    struct gyre_binding *out = &b->layer.kv_centre;
    if ((k || v) != (out->buffer != NULL)) {
        forget_graphs(b); // they were recorded with, or without, a centre
        gyre_buffer_destroy(b->device, out->buffer);
        *out = (struct gyre_binding){0};
    }
    if (!k && !v) return GYRE_OK;
    const size_t n = (size_t)b->hp.kv_heads * b->hp.head_dim;
    float *both = calloc(2 * n, sizeof *both);
    if (!both) return gyre_fail(err, GYRE_E_NOMEM, "cannot load a block: out of memory");
    if (k) memcpy(both, k, n * sizeof *k);
    if (v) memcpy(both + n, v, n * sizeof *v);
    const gyre_status st = out->buffer ? gyre_buffer_write(b->device, out->buffer, 0, both, 2 * n * sizeof *both, err)
                                       : gyre_upload(b->device, both, 2 * n * sizeof *both, "kv centre", out, err);
    free(both);
    return st;
}

gyre_status gyre_block_load(gyre_block *b, const struct gyre_block_weights *w, gyre_error *err)
{
    const struct gyre_hparams *hp = &b->hp;
    const uint32_t q = hp->heads * hp->head_dim, kv = hp->kv_heads * hp->head_dim;
    GYRE_TRY(load_linear(b, (const struct gyre_block_linear *const[]){&w->q, &w->k, &w->v},
                         (const uint32_t[]){q, kv, kv}, 3, hp->width, "qkv", &b->layer.qkv, err));
    GYRE_TRY(load_linear(b, (const struct gyre_block_linear *const[]){&w->o}, (const uint32_t[]){hp->width}, 1, q, "o",
                         &b->layer.o, err));
    GYRE_TRY(load_linear(b, (const struct gyre_block_linear *const[]){&w->gate, &w->up},
                         (const uint32_t[]){hp->ffn, hp->ffn}, 2, hp->width, "gate_up", &b->layer.gate_up, err));
    GYRE_TRY(load_linear(b, (const struct gyre_block_linear *const[]){&w->down}, (const uint32_t[]){hp->width}, 1,
                         hp->ffn, "down", &b->layer.down, err));
    GYRE_TRY(load_gain(b, w->attn_norm, "attn_norm", &b->layer.attn_norm, err));
    GYRE_TRY(load_gain(b, w->ffn_norm, "ffn_norm", &b->layer.ffn_norm, err));
    return load_centre(b, w->k_centre, w->v_centre, err);
}

uint32_t gyre_tap_width(const struct gyre_hparams *hp, gyre_tap tap)
{
    return tap == GYRE_TAP_O ? hp->heads * hp->head_dim : tap == GYRE_TAP_DOWN ? hp->ffn : hp->width;
}

// The graph over `rows` rows that ends at `stop` and leaves its value in `to`; GYRE_TAPS: the whole block.
static gyre_status build(gyre_block *b, uint32_t rows, gyre_tap stop, struct gyre_binding to, gyre_error *err)
{
    gyre_graph_destroy(b->kept[stop].graph);
    b->kept[stop].graph = NULL;
    struct gyre_binding at_rows = b->rows, at_x = b->x;
    at_rows.size = (uint64_t)rows * 16;
    at_x.size = (uint64_t)rows * b->hp.width * sizeof(float);
    const struct gyre_batch batch = gyre_kv_batch(&b->kv, at_rows);
    const struct gyre_precision precision = {b->options.act_bits, b->options.kv_bits, b->options.act_clip,
                                             b->options.kv_clip};
    gyre_graph *g;
    GYRE_TRY(gyre_graph_create(b->device, rows, &batch, &g, err));
    const gyre_value x = gyre_g_external(g, "x", rows, b->hp.width, at_x);
    gyre_g_output(g, gyre_llama_block(g, x, &b->hp, &b->shared, &b->layer, &b->kv.pool[0], &precision, stop), to);
    const gyre_status st = gyre_graph_compile(g, NULL, err);
    if (st != GYRE_OK) {
        gyre_graph_destroy(g);
        return st;
    }
    b->kept[stop].graph = g;
    b->kept[stop].rows = rows;
    return GYRE_OK;
}

static gyre_status run(gyre_block *b, const float *x, uint32_t rows, gyre_tap stop, struct gyre_binding to,
                       uint32_t width, float *y, gyre_error *err)
{
    to.size = (uint64_t)rows * width * sizeof *y;
    if (!b->kept[stop].graph || b->kept[stop].rows != rows) GYRE_TRY(build(b, rows, stop, to, err));
    GYRE_TRY(gyre_buffer_write(b->device, b->x.buffer, 0, x, (uint64_t)rows * b->hp.width * sizeof *x, err));
    GYRE_TRY(gyre_graph_submit(b->kept[stop].graph, err));
    return gyre_buffer_read(b->device, to.buffer, 0, y, to.size, err);
}

static gyre_status check_run(const gyre_block *b, uint32_t rows, gyre_error *err)
{
    if (rows == 0 || rows > b->options.max_rows)
        return gyre_fail(err, GYRE_E_INVALID, "cannot run a block: %u rows, it was made for 1..%u", rows,
                         b->options.max_rows);
    if (!b->layer.down.n_ranges) return gyre_fail(err, GYRE_E_INVALID, "cannot run a block: no weights are loaded");
    return GYRE_OK;
}

gyre_status gyre_block_run(gyre_block *b, const float *x, uint32_t rows, float *y, gyre_error *err)
{
    GYRE_TRY(check_run(b, rows, err));
    return run(b, x, rows, GYRE_TAPS, b->y, b->hp.width, y, err);
}

gyre_status gyre_block_tap(gyre_block *b, const float *x, uint32_t rows, gyre_tap tap, float *y, gyre_error *err)
{
    GYRE_TRY(check_run(b, rows, err));
    if ((uint32_t)tap >= GYRE_TAPS)
        return gyre_fail(err, GYRE_E_INVALID, "cannot run a block: there is no tap %u", (uint32_t)tap);
    if (!b->tap.buffer) {
        uint32_t widest = 0;
        for (uint32_t i = 0; i < GYRE_TAPS; i++) widest = GYRE_MAX(widest, gyre_tap_width(&b->hp, (gyre_tap)i));
        b->tap.size = (uint64_t)b->options.max_rows * widest * sizeof(float);
        GYRE_TRY(gyre_buffer_create(b->device, b->tap.size, "block tap", &b->tap.buffer, err));
    }
    return run(b, x, rows, tap, b->tap, gyre_tap_width(&b->hp, tap), y, err);
}
