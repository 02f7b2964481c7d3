// See block.h. The block is the architecture's own graph over external rows. One graph of the whole and one of each tap
// is kept, for the number of rows it was last asked for.
#include "runtime/model/block.h"

#include "runtime/model/kv.h"
#include "runtime/model/model.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

struct gyre_block {
    gyre_device *device;
    gyre_repacker *repacker;
    struct gyre_hparams hp; // a copy; rot's pointers are not used after creation
    struct gyre_block_options options;
    struct gyre_shared shared;
    struct gyre_layer_weights layer;
    struct gyre_kv kv;
    struct gyre_binding rows, x, y;
    struct gyre_binding tap; // [max_rows, widest tap]; made at the first use
    struct {
        gyre_graph *graph;
        uint32_t rows;
    } kept[GYRE_PRODUCTS + 1]; // by where it stops; the last one is the whole block
};

static void forget_graphs(gyre_block *b)
{
    for (uint32_t i = 0; i <= GYRE_PRODUCTS; i++) {
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
    GYRE_GO(gyre_shared_create(device, hp, options->rope_divisors, &b->shared, err));
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
    gyre_layer_weights_free(b->device, &b->layer);
    gyre_buffer_destroy(b->device, b->rows.buffer);
    gyre_buffer_destroy(b->device, b->x.buffer);
    gyre_buffer_destroy(b->device, b->y.buffer);
    gyre_buffer_destroy(b->device, b->tap.buffer);
    gyre_kv_free(&b->kv);
    gyre_shared_free(b->device, &b->shared);
    gyre_repacker_destroy(b->repacker);
    free(b);
}

static gyre_weight_kind linear_kind(const struct gyre_block_linear *l)
{
    return l->f32 ? GYRE_WEIGHT_F32 : l->bits == 8 ? GYRE_WEIGHT_W8 : GYRE_WEIGHT_W4;
}

// Fills the product's weight with its linears side by side; makes (or remakes) its memory when the kind or group
// changed.
static gyre_status load_product(gyre_block *b, const struct gyre_block_weights *given, gyre_product product,
                                gyre_error *err)
{
    struct gyre_weight *w = &b->layer.product[product];
    const struct gyre_block_linear *first = &given->linear[gyre_product_first(product)];
    const gyre_weight_kind kind = linear_kind(first);
    const uint32_t k = gyre_product_width(product, &b->hp), group = first->f32 || !first->group ? k : first->group;
    uint64_t total = 0, n0 = 0, rows, cols;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        if (gyre_roles[r].product != product) continue;
        gyre_role_shape((gyre_role)r, &b->hp, &rows, &cols);
        total += rows;
        if (linear_kind(&given->linear[r]) != kind)
            return gyre_fail(err, GYRE_E_INVALID, "cannot load a block: %s mixes kinds of weights",
                             gyre_products[product].name);
    }
    if (w->n_ranges && (w->kind != kind || w->group != group)) {
        forget_graphs(b); // they were recorded for the old memory
        gyre_weight_destroy(b->device, w);
    }
    if (!w->n_ranges)
        GYRE_TRY(gyre_weight_create(b->device, kind, (uint32_t)total, k, group, gyre_products[product].name, w, err));
    for (int r = 0; r < GYRE_LINEARS; r++) {
        const struct gyre_block_linear *part = &given->linear[r];
        if (gyre_roles[r].product != product) continue;
        gyre_role_shape((gyre_role)r, &b->hp, &rows, &cols);
        GYRE_TRY(
            gyre_weight_fill(b->repacker, w, (uint32_t)n0, (uint32_t)rows, part->f32, part->codes, part->scales, err));
        n0 += rows;
    }
    return GYRE_OK;
}

struct piece {
    const float *values; // NULL: zeros
    uint64_t n;
};

// The pieces one behind the other in one buffer; no buffer where none has values.
static gyre_status load_vector(gyre_block *b, const struct piece *piece, uint32_t n_pieces, const char *label,
                               struct gyre_binding *out, gyre_error *err)
{
    uint64_t total = 0, at = 0;
    bool any = false;
    for (uint32_t i = 0; i < n_pieces; i++) total += piece[i].n, any |= piece[i].values != NULL;
    if (any != (out->buffer != NULL)) {
        forget_graphs(b); // they were recorded with, or without, it
        gyre_buffer_destroy(b->device, out->buffer);
        *out = (struct gyre_binding){0};
    }
    if (!any) return GYRE_OK;
    float *all = calloc(total, sizeof *all);
    if (!all) return gyre_fail(err, GYRE_E_NOMEM, "cannot load a block: out of memory");
    for (uint32_t i = 0; i < n_pieces; at += piece[i].n, i++)
        if (piece[i].values) memcpy(all + at, piece[i].values, piece[i].n * sizeof *all);
    const gyre_status st = out->buffer ? gyre_buffer_write(b->device, out->buffer, 0, all, total * sizeof *all, err)
                                       : gyre_upload(b->device, all, total * sizeof *all, label, out, err);
    free(all);
    return st;
}

gyre_status gyre_block_load(gyre_block *b, const struct gyre_block_weights *w, gyre_error *err)
{
    struct piece centre[GYRE_LINEARS];
    uint32_t n_centres = 0;
    uint64_t rows, cols;
    for (int p = 0; p < GYRE_PRODUCTS; p++) {
        struct piece bias[GYRE_LINEARS];
        uint32_t n = 0;
        for (int r = 0; r < GYRE_LINEARS; r++) {
            if (gyre_roles[r].product != (gyre_product)p) continue;
            gyre_role_shape((gyre_role)r, &b->hp, &rows, &cols);
            bias[n++] = (struct piece){w->bias[r], rows};
            if (gyre_role_is_cached((gyre_role)r)) centre[n_centres++] = (struct piece){w->centre[r], rows};
        }
        GYRE_TRY(load_product(b, w, (gyre_product)p, err));
        GYRE_TRY(load_vector(b, bias, n, "bias", &b->layer.bias[p], err));
        const gyre_role norm = gyre_products[p].norm;
        if (norm == GYRE_ROLE_none) continue;
        const struct piece gain = {w->vector[norm], b->hp.width};
        GYRE_TRY(load_vector(b, &gain, 1, "norm", &b->layer.norm[norm], err));
    }
    const struct piece heads[] = {{w->vector[GYRE_ROLE_q_norm], b->hp.head_dim},
                                  {w->vector[GYRE_ROLE_k_norm], b->hp.head_dim}};
    GYRE_TRY(load_vector(b, heads, 2, "head gains", &b->layer.head_gains, err));
    return load_vector(b, centre, n_centres, "kv centre", &b->layer.kv_centre, err);
}

// The graph over `rows` rows that ends at `stop` and leaves its value in `to`; GYRE_PRODUCTS: the whole block.
static gyre_status build(gyre_block *b, uint32_t rows, gyre_product stop, struct gyre_binding to, gyre_error *err)
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
    struct gyre_builder build = {.g = g,
                                 .hp = &b->hp,
                                 .shared = &b->shared,
                                 .layer = &b->layer,
                                 .kv = &b->kv.pool[0],
                                 .precision = &precision,
                                 .from = GYRE_PRODUCTS,
                                 .to = stop,
                                 .stream = gyre_g_external(g, "x", rows, b->hp.width, at_x)};
    gyre_build_block(&build);
    gyre_g_output(g, stop == GYRE_PRODUCTS ? build.stream : build.tap, to);
    const gyre_status st = gyre_graph_compile(g, NULL, err);
    if (st != GYRE_OK) {
        gyre_graph_destroy(g);
        return st;
    }
    b->kept[stop].graph = g;
    b->kept[stop].rows = rows;
    return GYRE_OK;
}

static gyre_status run(gyre_block *b, const float *x, uint32_t rows, gyre_product stop, struct gyre_binding to,
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
    if (!b->layer.product[0].n_ranges)
        return gyre_fail(err, GYRE_E_INVALID, "cannot run a block: no weights are loaded");
    return GYRE_OK;
}

gyre_status gyre_block_run(gyre_block *b, const float *x, uint32_t rows, float *y, gyre_error *err)
{
    GYRE_TRY(check_run(b, rows, err));
    return run(b, x, rows, GYRE_PRODUCTS, b->y, b->hp.width, y, err);
}

gyre_status gyre_block_tap(gyre_block *b, const float *x, uint32_t rows, gyre_product tap, float *y, gyre_error *err)
{
    GYRE_TRY(check_run(b, rows, err));
    if ((uint32_t)tap >= GYRE_PRODUCTS)
        return gyre_fail(err, GYRE_E_INVALID, "cannot run a block: there is no tap %u", (uint32_t)tap);
    if (!b->tap.buffer) {
        uint32_t widest = 0;
        for (uint32_t i = 0; i < GYRE_PRODUCTS; i++)
            widest = GYRE_MAX(widest, gyre_product_width((gyre_product)i, &b->hp));
        b->tap.size = (uint64_t)b->options.max_rows * widest * sizeof(float);
        GYRE_TRY(gyre_buffer_create(b->device, b->tap.size, "block tap", &b->tap.buffer, err));
    }
    return run(b, x, rows, tap, b->tap, gyre_product_width(tap, &b->hp), y, err);
}
