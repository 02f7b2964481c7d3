// See block.h. The block is the architecture's own graph over external rows. One graph of the whole and one of each
// part is kept, for the number of rows it was last asked for.
#include "runtime/model/block.h"

#include "runtime/model/kv.h"
#include "runtime/model/model.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

enum { WHOLE = GYRE_PRODUCTS + 1, CACHED, KEPT };

struct gyre_block {
    gyre_device *device;
    gyre_repacker *repacker;
    struct gyre_hparams hp; // a copy; rot's pointers are not used after creation
    struct gyre_block_options options;
    struct gyre_shared shared;
    struct gyre_layer_weights layer;
    struct gyre_kv kv;
    struct gyre_binding rows, x, y;
    struct gyre_binding in, out; // [max_rows, widest] of what parts read and give; made at the first use
    struct {
        gyre_graph *graph;
        uint32_t rows;
        bool adds; // to the residual stream, which is then in y
    } kept[KEPT];  // by part, then the whole block, then what is cached
};

static void forget_graphs(gyre_block *b)
{
    for (uint32_t i = 0; i < KEPT; i++) {
        gyre_graph_destroy(b->kept[i].graph);
        b->kept[i].graph = NULL;
    }
}

static struct gyre_precision precision_of(const struct gyre_block_options *o)
{
    return (struct gyre_precision){.act = o->act_bits,
                                   .kv = o->kv_bits,
                                   .kv_v = o->kv_bits_v ? o->kv_bits_v : o->kv_bits,
                                   .act_clip = o->act_clip,
                                   .kv_clip = o->kv_clip,
                                   .kv_clip_v = o->kv_clip_v > 0 ? o->kv_clip_v : o->kv_clip,
                                   .tap_clip = o->tap_clip > 0 ? o->tap_clip : o->act_clip};
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
    if (options->sequence == 0) b->options.sequence = options->max_rows;
    const struct gyre_precision precision = precision_of(options);
    gyre_hparams_set_context(&b->hp, b->options.sequence);
    const uint32_t sequence = b->options.sequence, sequences = (uint32_t)gyre_div_up(options->max_rows, sequence);
    const uint64_t bytes = (uint64_t)options->max_rows * hp->width * sizeof(float);
    gyre_status st = GYRE_OK;
    int32_t *rows = calloc(options->max_rows, 4 * sizeof *rows); // token, sequence, position, live
    if (!rows) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot make a block: out of memory");
        goto done;
    }
    GYRE_GO(gyre_repacker_create(device, &b->repacker, err));
    GYRE_GO(gyre_shared_create(device, &b->hp, &b->shared, err));
    GYRE_GO(gyre_kv_create(device, &b->hp, &precision, sequences, sequence, 0, &b->kv, err));
    for (uint32_t i = 0; i < sequences; i++) GYRE_GO(gyre_kv_reserve(&b->kv, i, sequence, err));
    b->rows.size = (uint64_t)options->max_rows * 16;
    b->x.size = b->y.size = bytes;
    GYRE_GO(gyre_buffer_create(device, b->rows.size, "block rows", &b->rows.buffer, err));
    for (uint32_t i = 0; i < options->max_rows; i++) {
        rows[4 * (size_t)i + 1] = (int32_t)(i / sequence);
        rows[4 * (size_t)i + 2] = (int32_t)(i % sequence);
        rows[4 * (size_t)i + 3] = 1;
    }
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
    gyre_buffer_destroy(b->device, b->in.buffer);
    gyre_buffer_destroy(b->device, b->out.buffer);
    gyre_kv_free(&b->kv);
    gyre_shared_free(b->device, &b->shared);
    gyre_repacker_destroy(b->repacker);
    free(b);
}

static gyre_weight_kind linear_kind(const struct gyre_block_linear *l)
{
    return l->f32 ? GYRE_WEIGHT_F32 : l->bits == 8 ? GYRE_WEIGHT_W8 : GYRE_WEIGHT_W4;
}

static bool given(const struct gyre_block_linear *l) { return l->f32 || l->codes; }

// Fills the product's weight with its linears side by side, if they are given; makes (or remakes) its memory when the
// kind or group changed.
static gyre_status load_product(gyre_block *b, const struct gyre_block_weights *weights, gyre_product product,
                                gyre_error *err)
{
    struct gyre_weight *w = &b->layer.product[product];
    const struct gyre_block_linear *first = &weights->linear[gyre_product_first(product)];
    const gyre_weight_kind kind = linear_kind(first);
    const uint32_t k = gyre_product_width(product, &b->hp), group = first->f32 || !first->group ? k : first->group;
    uint64_t total = 0, n0 = 0, rows, cols;
    for (int r = 0; r < GYRE_LINEARS; r++) {
        if (gyre_roles[r].product != product) continue;
        gyre_role_shape((gyre_role)r, &b->hp, &rows, &cols);
        total += rows;
        if (given(&weights->linear[r]) != given(first))
            return gyre_fail(err, GYRE_E_INVALID, "cannot load a block: of %s a part is missing",
                             gyre_products[product].name);
        if (linear_kind(&weights->linear[r]) != kind)
            return gyre_fail(err, GYRE_E_INVALID, "cannot load a block: %s mixes kinds of weights",
                             gyre_products[product].name);
    }
    if (!given(first)) return GYRE_OK;
    if (w->n_ranges && (w->kind != kind || w->group != group)) {
        forget_graphs(b); // they were recorded for the old memory
        gyre_weight_destroy(b->device, w);
    }
    if (!w->n_ranges)
        GYRE_TRY(gyre_weight_create(b->device, kind, (uint32_t)total, k, group, gyre_products[product].name, w, err));
    for (int r = 0; r < GYRE_LINEARS; r++) {
        const struct gyre_block_linear *part = &weights->linear[r];
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
    bool centred = false, headed = w->vector[GYRE_ROLE_q_norm] || w->vector[GYRE_ROLE_k_norm];
    uint64_t rows, cols;
    if (memcmp(&w->kind, &b->layer.kind, sizeof w->kind)) forget_graphs(b); // bytes, without padding
    b->layer.kind = w->kind;
    for (int p = 0; p < GYRE_PRODUCTS; p++) {
        struct piece bias[GYRE_LINEARS];
        uint32_t n = 0;
        const bool loaded = given(&w->linear[gyre_product_first((gyre_product)p)]);
        for (int r = 0; r < GYRE_LINEARS; r++) {
            if (gyre_roles[r].product != (gyre_product)p) continue;
            gyre_role_shape((gyre_role)r, &b->hp, &rows, &cols);
            bias[n++] = (struct piece){w->bias[r], rows};
            if (!gyre_role_is_cached((gyre_role)r)) continue;
            centre[n_centres++] = (struct piece){w->centre[r], rows};
            centred |= loaded || w->centre[r]; // a load without them takes them away
            headed |= loaded;
        }
        GYRE_TRY(load_product(b, w, (gyre_product)p, err));
        if (loaded) GYRE_TRY(load_vector(b, bias, n, "bias", &b->layer.bias[p], err));
    }
    for (int r = GYRE_LINEARS; r < GYRE_BLOCK_ROLES; r++) {
        const struct piece gain = {w->vector[r], b->hp.width};
        if (gain.values && !gyre_role_is_of_heads((gyre_role)r))
            GYRE_TRY(load_vector(b, &gain, 1, "norm", &b->layer.norm[r], err));
    }
    const struct piece heads[] = {{w->vector[GYRE_ROLE_q_norm], b->hp.head_dim},
                                  {w->vector[GYRE_ROLE_k_norm], b->hp.head_dim}};
    if (headed) GYRE_TRY(load_vector(b, heads, 2, "head gains", &b->layer.head_gains, err));
    return centred ? load_vector(b, centre, n_centres, "kv centre", &b->layer.kv_centre, err) : GYRE_OK;
}

// ---- running --------------------------------------------------------------------------------------------------

// The product whose input a graph begins at; GYRE_PRODUCTS: at the block's.
static gyre_product read_at(uint32_t which)
{
    if (which == CACHED) return gyre_roles[gyre_heads_role(GYRE_HEADS_KEY)].product;
    return which == 0 || which == WHOLE ? GYRE_PRODUCTS : (gyre_product)(which - 1);
}

// The graph `which` over `rows` rows, whose value lands in `to`; a part that adds to the residual stream leaves that in
// y.
static gyre_status build(gyre_block *b, uint32_t rows, uint32_t which, struct gyre_binding to, gyre_error *err)
{
    gyre_graph_destroy(b->kept[which].graph);
    b->kept[which].graph = NULL;
    const uint64_t floats = rows * sizeof(float);
    struct gyre_binding at_rows = b->rows, at_x = b->x, at_y = b->y, at_in = b->in;
    at_rows.size = (uint64_t)rows * 16;
    at_x.size = at_y.size = floats * b->hp.width;
    const struct gyre_batch batch = gyre_kv_batch(&b->kv, at_rows);
    const struct gyre_precision precision = precision_of(&b->options);
    gyre_graph *g;
    GYRE_TRY(gyre_graph_create(b->device, rows, &batch, &g, err));
    const gyre_value x = gyre_g_external(g, "x", rows, b->hp.width, at_x);
    struct gyre_builder build = {.g = g,
                                 .hp = &b->hp,
                                 .shared = &b->shared,
                                 .layer = &b->layer,
                                 .kv = &b->kv.pool[0],
                                 .precision = &precision,
                                 .from = read_at(which),
                                 .to = which < GYRE_PRODUCTS ? (gyre_product)which : GYRE_PRODUCTS,
                                 .cached = which == CACHED,
                                 .stream = x};
    if (build.from != GYRE_PRODUCTS) {
        const uint32_t width = gyre_product_width(build.from, &b->hp);
        at_in.size = floats * width;
        build.tap = gyre_g_external(g, "in", rows, width, at_in);
    }
    gyre_build_block(&build);
    const bool tapped = which < GYRE_PRODUCTS || which == CACHED;
    if (tapped) gyre_g_output(g, build.tap, to);
    b->kept[which].adds = build.stream != x;
    if (build.stream != x) gyre_g_output(g, build.stream, tapped ? at_y : to);
    const gyre_status st = gyre_graph_compile(g, NULL, err);
    if (st != GYRE_OK) {
        gyre_graph_destroy(g);
        return st;
    }
    b->kept[which].graph = g;
    b->kept[which].rows = rows;
    return GYRE_OK;
}

// x [rows, D] (NULL: it is not read) and in [rows, n_in] go up; y [rows, width] (NULL: nothing) comes back from `to`.
static gyre_status run(gyre_block *b, uint32_t which, const float *x, const float *in, uint32_t n_in, uint32_t rows,
                       struct gyre_binding to, uint32_t width, float *y, gyre_error *err)
{
    const uint64_t floats = rows * sizeof *y;
    to.size = floats * width;
    if (!b->kept[which].graph || b->kept[which].rows != rows) GYRE_TRY(build(b, rows, which, to, err));
    if (x) GYRE_TRY(gyre_buffer_write(b->device, b->x.buffer, 0, x, floats * b->hp.width, err));
    if (n_in) GYRE_TRY(gyre_buffer_write(b->device, b->in.buffer, 0, in, floats * n_in, err));
    GYRE_TRY(gyre_graph_submit(b->kept[which].graph, err));
    return y ? gyre_buffer_read(b->device, to.buffer, 0, y, to.size, err) : GYRE_OK;
}

static gyre_status check_run(const gyre_block *b, uint32_t rows, bool loaded, gyre_error *err)
{
    if (rows == 0 || rows > b->options.max_rows)
        return gyre_fail(err, GYRE_E_INVALID, "cannot run a block: %u rows, it was made for 1..%u", rows,
                         b->options.max_rows);
    if (!loaded) return gyre_fail(err, GYRE_E_INVALID, "cannot run a block: no weights are loaded");
    return GYRE_OK;
}

gyre_status gyre_block_run(gyre_block *b, const float *x, uint32_t rows, float *y, gyre_error *err)
{
    bool loaded = true;
    for (int p = 0; p < GYRE_PRODUCTS; p++) loaded &= b->layer.product[p].n_ranges != 0;
    GYRE_TRY(check_run(b, rows, loaded, err));
    return run(b, WHOLE, x, NULL, 0, rows, b->y, b->hp.width, y, err);
}

// ---- parts ----------------------------------------------------------------------------------------------------

static gyre_status make_buffers(gyre_block *b, gyre_error *err)
{
    const struct gyre_hparams *hp = &b->hp;
    uint64_t widest = ((uint64_t)hp->heads + 2 * (uint64_t)hp->kv_heads) * hp->head_dim;
    if (b->out.buffer) return GYRE_OK;
    for (int i = 0; i < GYRE_PRODUCTS; i++)
        widest = GYRE_MAX(widest, (uint64_t)gyre_product_width((gyre_product)i, hp));
    b->in.size = b->out.size = b->options.max_rows * widest * sizeof(float);
    if (!b->in.buffer) GYRE_TRY(gyre_buffer_create(b->device, b->in.size, "block tap in", &b->in.buffer, err));
    return gyre_buffer_create(b->device, b->out.size, "block tap out", &b->out.buffer, err);
}

gyre_status gyre_block_part(gyre_block *b, uint32_t part, float *x, const float *in, uint32_t rows, float *out,
                            gyre_error *err)
{
    if (part > GYRE_PRODUCTS) return gyre_fail(err, GYRE_E_INVALID, "cannot run a block: there is no part %u", part);
    const gyre_product from = read_at(part);
    const gyre_role norm = part < GYRE_PRODUCTS ? gyre_products[part].norm : GYRE_ROLE_none;
    const uint32_t n_in = from == GYRE_PRODUCTS ? 0 : gyre_product_width(from, &b->hp),
                   n_out = part < GYRE_PRODUCTS ? gyre_product_width((gyre_product)part, &b->hp) : 0;
    GYRE_TRY(check_run(b, rows,
                       (from == GYRE_PRODUCTS || b->layer.product[from].n_ranges) &&
                           (norm == GYRE_ROLE_none || b->layer.norm[norm].buffer),
                       err));
    GYRE_TRY(make_buffers(b, err));
    GYRE_TRY(run(b, part, x, in, n_in, rows, n_out ? b->out : b->y, n_out ? n_out : b->hp.width, n_out ? out : x, err));
    if (!n_out || !b->kept[part].adds) return GYRE_OK;
    return gyre_buffer_read(b->device, b->y.buffer, 0, x, (uint64_t)rows * b->hp.width * sizeof *x, err);
}

static void column_means(const float *x, uint32_t rows, uint32_t stride, uint32_t cols, float *mean)
{
    for (uint32_t i = 0; i < cols; i++) {
        double sum = 0;
        for (uint64_t r = 0; r < rows; r++) sum += (double)x[r * stride + i];
        mean[i] = (float)(sum / rows);
    }
}

gyre_status gyre_block_means(gyre_block *b, const float *in, uint32_t rows, float *k_mean, float *v_mean,
                             gyre_error *err)
{
    const struct gyre_hparams *hp = &b->hp;
    const uint32_t q = hp->heads * hp->head_dim, kv = hp->kv_heads * hp->head_dim, width = q + 2 * kv;
    const gyre_product from = read_at(CACHED);
    GYRE_TRY(check_run(b, rows, b->layer.product[from].n_ranges != 0, err));
    GYRE_TRY(make_buffers(b, err));
    float *qkv = malloc((uint64_t)rows * width * sizeof *qkv);
    if (!qkv) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the means of a cache");
    const gyre_status st = run(b, CACHED, NULL, in, gyre_product_width(from, hp), rows, b->out, width, qkv, err);
    if (st == GYRE_OK) {
        column_means(qkv + q, rows, width, kv, k_mean);
        column_means(qkv + q + kv, rows, width, kv, v_mean);
    }
    free(qkv);
    return st;
}
