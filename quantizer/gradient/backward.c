// See backward.h. A rule per op appends the nodes that make the gradients of what the op read.
#include "quantizer/gradient/backward.h"
#include "quantizer/gradient/rules.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

// A value that is read back: to floats, or its columns to sums (in double), of `width` columns each.
struct result {
    gyre_value value;
    uint64_t at; // in the buffer of results
    float *floats;
    double *sums;
    uint32_t width;
    double *squares;
};

struct backward {
    struct gyre_reverse *r;
    const gyre_graph *f; // forwards
    gyre_graph *g;
    gyre_value *have, *grad; // [f->n_values]: of f in g; gradients
    struct result *results;
    uint32_t n_results, cap_results;
    struct gyre_binding *made; // buffers of this pass
    uint32_t n_made, cap_made;
    gyre_error *err;
};

void gyre_backward_add_squares(const struct gyre_value_info *out, const float *dout, double *squares)
{
#pragma omp parallel for schedule(static)
    for (uint32_t r = 0; r < out->rows; r++)
        for (uint64_t i = (uint64_t)r * out->width; i < ((uint64_t)r + 1) * out->width; i++)
            squares[r] += (double)dout[i] * (double)dout[i];
}

bool gyre_backward_passes(const gyre_graph *g, gyre_value v)
{
    const struct gyre_value_info *info = gyre_graph_value(g, v);
    const gyre_value root = info->root ? info->root : v;
    if (info->kind == GYRE_VALUE_U32) return false;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].out[0] == root) return true;
    return false;
}

// ---- pieces -------------------------------------------------------------------------------------------------

static gyre_status no_memory(struct backward *b)
{
    return gyre_fail(b->err, GYRE_E_NOMEM, "out of memory for gradients");
}

static gyre_value of(struct backward *b, gyre_value v)
{
    if (v && !b->have[v]) b->have[v] = gyre_graph_import(b->g, b->f, v);
    return v ? b->have[v] : GYRE_NONE;
}

static gyre_value floats(struct backward *b, uint32_t rows, uint32_t width)
{
    return gyre_graph_new_value(b->g, GYRE_VALUE_F32, rows, width, 0);
}

static gyre_value append(struct backward *b, const struct gyre_node *node)
{
    return gyre_graph_append(b->g, node) ? node->out[0] : GYRE_NONE;
}

static bool asked(const struct backward *b, gyre_value v) { return v && b->r->grad[v]; }
static bool wanted(const struct backward *b, gyre_value v)
{
    return v && (asked(b, v) || gyre_backward_passes(b->f, v));
}

static void add(struct backward *b, gyre_value v, gyre_value gradient)
{
    b->grad[v] = b->grad[v] ? gyre_g_add(b->g, b->grad[v], gradient) : gradient;
}

static gyre_status result(struct backward *b, struct result what)
{
    if (b->n_results == b->cap_results) {
        const uint32_t cap = b->cap_results ? 2 * b->cap_results : 32;
        struct result *more = realloc(b->results, cap * sizeof *more);
        if (!more) return no_memory(b);
        b->results = more;
        b->cap_results = cap;
    }
    b->results[b->n_results++] = what;
    return GYRE_OK;
}

// A buffer of this pass, with `data` (NULL: nothing yet).
static gyre_status buffer(struct backward *b, const void *data, uint64_t bytes, const char *label,
                          struct gyre_binding *out)
{
    if (b->n_made == b->cap_made) {
        const uint32_t cap = b->cap_made ? 2 * b->cap_made : 8;
        struct gyre_binding *more = realloc(b->made, cap * sizeof *more);
        if (!more) return no_memory(b);
        b->made = more;
        b->cap_made = cap;
    }
    *out = (struct gyre_binding){.size = bytes};
    GYRE_TRY(gyre_buffer_create(b->f->device, bytes, label, &out->buffer, b->err));
    b->made[b->n_made++] = *out;
    return data ? gyre_buffer_write(b->f->device, out->buffer, 0, data, bytes, b->err) : GYRE_OK;
}

// What a buffer of the forward graph holds; to be freed.
static gyre_status fetch(struct backward *b, gyre_value v, void **out, uint64_t *bytes)
{
    const struct gyre_binding at = gyre_graph_at(b->f, v, 0);
    *bytes = at.size;
    *out = malloc(at.size);
    if (!*out) return no_memory(b);
    const gyre_status st = gyre_buffer_read(b->f->device, at.buffer, at.offset, *out, at.size, b->err);
    if (st != GYRE_OK) free(*out);
    return st;
}

// Sums over rows of a (b - less) by; what is GYRE_NONE is not there. Of `count` segments from `first` on, of `segs`.
static gyre_value columns(struct backward *b, const gyre_value in[4], int32_t less, int32_t segs, int32_t first,
                          int32_t count)
{
    const struct gyre_value_info *a = gyre_graph_value(b->g, in[0]);
    const int32_t width = (int32_t)a->width / segs;
    const struct gyre_columns_params p = {(int32_t)a->rows,  width, segs, first, count, in[1] != GYRE_NONE, less,
                                          in[3] != GYRE_NONE};
    return append(b, &(struct gyre_node){.op = GYRE_OP_columns,
                                         .out = {floats(b, 1, (uint32_t)width)},
                                         .in = {in[0], in[1], in[2], in[3]},
                                         .params.columns = p});
}

static gyre_status unsupported(struct backward *b, const char *what)
{
    return gyre_fail(b->err, GYRE_E_UNSUPPORTED, "cannot differentiate by %s on %s: use the host", what,
                     gyre_device_info(b->f->device)->id);
}

// ---- rules --------------------------------------------------------------------------------------------------

typedef gyre_status rule(struct backward *b, uint32_t index, const struct gyre_node *n, gyre_value dy);

static gyre_status rule_matmul(struct backward *b, uint32_t index, const struct gyre_node *n, gyre_value dy)
{
    const struct gyre_weight *w = gyre_graph_value(b->f, n->in[1])->weight;
    const struct gyre_matmul_params *m = &n->params.matmul;
    const struct gyre_matmul_back_params p = {m->rows, m->k, m->n, 0, m->group, m->ldy, 0, 0};
    const struct gyre_scale_back_params s = {m->rows, m->k, m->n, 0, m->group, m->ldy, 0, 0};
    const uint32_t rows = (uint32_t)m->rows;
    if (b->r->squares[index]) GYRE_TRY(result(b, (struct result){.value = dy, .squares = b->r->squares[index]}));
    if (wanted(b, n->in[0]))
        add(b, n->in[0],
            append(b, &(struct gyre_node){.op = GYRE_OP_matmul_back,
                                          .out = {floats(b, rows, w->k)},
                                          .in = {dy, of(b, n->in[1])},
                                          .params.matmul_back = p}));
    if (wanted(b, n->in[2]) && m->add == 1) add(b, n->in[2], dy);
    if (asked(b, n->in[2]) && m->add == 2) add(b, n->in[2], columns(b, (gyre_value[4]){dy}, 0, 1, 0, 1));
    if (!asked(b, n->in[1])) return GYRE_OK;
    if (!gyre_weight_is_coded(w->kind)) return unsupported(b, "float weights");
    if (w->group == w->k) // y = s (codes . x) + addend
        add(b, n->in[1], columns(b, (gyre_value[4]){dy, of(b, n->out[0]), of(b, n->in[2])}, m->add, 1, 0, 1));
    else
        add(b, n->in[1],
            append(b, &(struct gyre_node){.op = GYRE_OP_scale_back,
                                          .out = {floats(b, w->k / w->group, w->n)},
                                          .in = {dy, of(b, n->in[0]), of(b, n->in[1])},
                                          .params.scale_back = s}));
    return GYRE_OK;
}

static gyre_status rule_quantize(struct backward *b, uint32_t index, const struct gyre_node *n, gyre_value dy)
{
    const struct gyre_quantize_params *q = &n->params.quantize;
    const gyre_value dx = floats(b, (uint32_t)q->rows, (uint32_t)q->width), clip = floats(b, (uint32_t)q->rows, 1);
    add(b, n->in[0],
        append(b, &(struct gyre_node){.op = GYRE_OP_quantize_back,
                                      .out = {dx, clip},
                                      .in = {dy, of(b, n->in[0]), of(b, n->out[0])},
                                      .params.quantize_back = {q->rows, q->width, q->bits, q->clip, q->span}}));
    return result(b, (struct result){.value = clip, .sums = b->r->clip[index], .width = 1});
}

// Norms: of whole rows, or of heads. Both gains of heads are one array: of q, of k.
static gyre_status norm_back(struct backward *b, gyre_value x, gyre_value gain, const struct gyre_norm_back_params *p,
                             gyre_value dy)
{
    const uint32_t rows = (uint32_t)p->rows;
    const gyre_value dx = floats(b, rows, (uint32_t)(p->segs * p->width)), root = floats(b, rows, (uint32_t)p->segs);
    add(b, x,
        append(b, &(struct gyre_node){.op = GYRE_OP_norm_back,
                                      .out = {dx, root},
                                      .in = {dy, of(b, x), of(b, gain)},
                                      .params.norm_back = *p}));
    for (int32_t i = 0; asked(b, gain) && i < (p->kv_heads ? 2 : 1); i++) {
        const gyre_value sum = columns(b, (gyre_value[4]){dy, of(b, x), GYRE_NONE, root}, 0, p->segs, i ? p->heads : 0,
                                       i ? p->kv_heads : p->heads);
        GYRE_TRY(result(b, (struct result){.value = sum, .floats = b->r->grad[gain] + i * p->width}));
    }
    return GYRE_OK;
}

static gyre_status rule_rms_norm(struct backward *b, uint32_t index, const struct gyre_node *n, gyre_value dy)
{
    (void)index;
    const struct gyre_rms_norm_params *p = &n->params.rms_norm;
    return norm_back(b, n->in[0], n->in[1], &(struct gyre_norm_back_params){p->rows, p->width, 1, 1, 0, p->eps}, dy);
}

static gyre_status rule_add(struct backward *b, uint32_t index, const struct gyre_node *n, gyre_value dy)
{
    (void)index;
    for (int k = 0; k < 2; k++)
        if (wanted(b, n->in[k])) add(b, n->in[k], dy);
    return GYRE_OK;
}

// y = (scale x) H: dx = scale (dy H'); a transform of order 1 is the scale alone.
static gyre_status rule_hadamard(struct backward *b, uint32_t index, const struct gyre_node *n, gyre_value dy)
{
    (void)index;
    struct gyre_hadamard_params p = n->params.hadamard;
    const uint32_t rows = (uint32_t)p.rows, width = (uint32_t)p.width;
    p.had_t = !p.had_t;
    p.scaled = 0;
    gyre_value dx = append(b, &(struct gyre_node){.op = GYRE_OP_hadamard,
                                                  .out = {floats(b, rows, width)},
                                                  .in = {dy, of(b, n->in[1])},
                                                  .params.hadamard = p});
    if (asked(b, n->in[2]))
        GYRE_TRY(result(b, (struct result){.value = columns(b, (gyre_value[4]){dx, of(b, n->in[0])}, 0, 1, 0, 1),
                                           .floats = b->r->grad[n->in[2]]}));
    if (n->in[2]) {
        const struct gyre_hadamard_params scale = {1, p.width, 1, 1, 1, 0, 0, p.rows, p.width, 1};
        dx = append(b, &(struct gyre_node){.op = GYRE_OP_hadamard,
                                           .out = {floats(b, rows, width)},
                                           .in = {dx, GYRE_NONE, of(b, n->in[2])},
                                           .params.hadamard = scale});
    }
    add(b, n->in[0], dx);
    return GYRE_OK;
}

// The inverse order.
static gyre_status rule_gather(struct backward *b, uint32_t index, const struct gyre_node *n, gyre_value dy)
{
    (void)index;
    const uint32_t width = (uint32_t)n->params.gather.width;
    struct gyre_binding order;
    uint64_t bytes;
    void *data;
    GYRE_TRY(fetch(b, n->in[1], &data, &bytes));
    const int32_t *from = data;
    int32_t *to = calloc(width, sizeof *to);
    for (uint32_t i = 0; to && i < width; i++) to[from[i]] = (int32_t)i;
    const gyre_status st = to ? buffer(b, to, width * sizeof *to, "inverse order", &order) : no_memory(b);
    free(data);
    free(to);
    if (st == GYRE_OK) add(b, n->in[0], gyre_g_gather(b->g, dy, order));
    return st;
}

static gyre_status rule_act_mul(struct backward *b, uint32_t index, const struct gyre_node *n, gyre_value dy)
{
    (void)index;
    const struct gyre_act_mul_params *p = &n->params.act_mul;
    add(b, n->in[0],
        append(b, &(struct gyre_node){.op = GYRE_OP_act_mul_back,
                                      .out = {floats(b, (uint32_t)p->rows, 2 * (uint32_t)p->width)},
                                      .in = {dy, of(b, n->in[0])},
                                      .params.act_mul_back = {p->rows, p->width, p->act}}));
    return GYRE_OK;
}

// Turned back: by negative frequencies. Norms of heads come before.
static gyre_status rule_rope(struct backward *b, uint32_t index, const struct gyre_node *n, gyre_value dy)
{
    (void)index;
    struct gyre_rope_params p = n->params.rope;
    const int32_t normed = p.normed, segs = p.heads + 2 * p.kv_heads;
    struct gyre_binding freqs;
    uint64_t bytes;
    void *data;
    GYRE_TRY(fetch(b, n->in[2], &data, &bytes));
    for (uint64_t i = 0; i < bytes / sizeof(float); i++) ((float *)data)[i] = -((float *)data)[i];
    const gyre_status st = buffer(b, data, bytes, "negative frequencies", &freqs);
    free(data);
    GYRE_TRY(st);
    p.normed = 0;
    const gyre_value turned =
        append(b, &(struct gyre_node){.op = GYRE_OP_rope,
                                      .out = {floats(b, (uint32_t)p.rows, (uint32_t)(segs * p.hd))},
                                      .in = {dy, of(b, n->in[1]), gyre_graph_data(b->g, "freqs", freqs)},
                                      .params.rope = p});
    if (!normed) add(b, n->in[0], turned);
    else
        GYRE_TRY(norm_back(b, n->in[0], n->in[3],
                           &(struct gyre_norm_back_params){p.rows, p.hd, segs, p.heads, p.kv_heads, p.eps}, turned));
    return GYRE_OK;
}

static gyre_status rule_kv_write(struct backward *b, uint32_t index, const struct gyre_node *n, gyre_value dy)
{
    const struct gyre_kv_write_params *p = &n->params.kv_write;
    const uint32_t rows = (uint32_t)p->rows, G = (uint32_t)p->kv_heads;
    const gyre_value dx = floats(b, rows, ((uint32_t)p->heads + 2 * G) * (uint32_t)p->hd),
                     clip = floats(b, rows, 2 * G);
    if (asked(b, n->in[3])) return unsupported(b, "a cache's centre");
    add(b, n->in[0],
        append(b, &(struct gyre_node){
                      .op = GYRE_OP_kv_write_back,
                      .out = {dx, clip},
                      .in = {dy, of(b, n->in[0]), of(b, n->out[0]), of(b, n->in[1]), of(b, n->in[2]), of(b, n->in[3])},
                      .params.kv_back = {p->rows, p->heads, p->kv_heads, p->hd, p->page_stride, p->clip, p->centred,
                                         p->clip_v}}));
    return result(b, (struct result){.value = clip, .sums = b->r->clip[index], .width = G});
}

// All positions that rows see are rows of the batch.
static gyre_status whole_sequences(struct backward *b, gyre_value rows)
{
    uint64_t bytes;
    void *data;
    GYRE_TRY(fetch(b, rows, &data, &bytes));
    const gyre_status st = gyre_back_sequences(data, (uint32_t)(bytes / 16), b->err);
    free(data);
    return st;
}

static gyre_status rule_attn(struct backward *b, uint32_t index, const struct gyre_node *n, gyre_value dy)
{
    (void)index;
    const struct gyre_attn_params *a = &n->params.attn;
    const struct gyre_attn_back_params p = {a->rows, a->heads,       a->kv_heads, a->hd,
                                            a->ldq,  a->page_stride, a->scale,    a->window};
    const uint32_t rows = (uint32_t)p.rows;
    const gyre_value q = of(b, n->in[0]), pool = of(b, n->in[1]), batch = of(b, n->in[2]), pages = of(b, n->in[3]),
                     stats = floats(b, rows, 2 * (uint32_t)p.heads);
    if (asked(b, n->in[4])) return unsupported(b, "a cache's centre");
    GYRE_TRY(whole_sequences(b, n->in[2]));
    add(b, n->in[0],
        append(b, &(struct gyre_node){.op = GYRE_OP_attn_back_q,
                                      .out = {floats(b, rows, (uint32_t)p.ldq), stats},
                                      .in = {dy, q, pool, batch, pages},
                                      .params.attn_back = p}));
    add(b, n->in[1],
        append(b, &(struct gyre_node){.op = GYRE_OP_attn_back_kv,
                                      .out = {floats(b, rows, 2 * (uint32_t)(p.kv_heads * p.hd))},
                                      .in = {dy, q, stats, pool, batch, pages},
                                      .params.attn_back = p}));
    return GYRE_OK;
}

#define rule_none NULL
static rule *const rules[GYRE_OP_COUNT] = {
#define OP(name, outputs, inputs, params, lower, tune, grad) [GYRE_OP_##name] = rule_##grad,
#include "runtime/core/ops.def"
#undef OP
};

// ---- the pass -----------------------------------------------------------------------------------------------

// What was asked for and is not 0 is where gradients begin, and what the graph computed in any case.
static gyre_status seeds(struct backward *b)
{
    for (gyre_value v = 1; v < b->f->n_values; v++) {
        const struct gyre_value_info *info = gyre_graph_value(b->f, v);
        const uint64_t n = (uint64_t)info->rows * info->width;
        struct gyre_binding at;
        uint64_t i = 0;
        if (!b->r->grad[v] || (info->kind != GYRE_VALUE_F32 && info->kind != GYRE_VALUE_QUANT)) continue;
        while (i < n && b->r->grad[v][i] == 0) i++;
        if (i == n && !info->landed) continue;
        GYRE_TRY(buffer(b, b->r->grad[v], n * sizeof(float), "gradient", &at));
        b->grad[v] = gyre_g_external(b->g, "gradient", info->rows, info->width, at);
    }
    return GYRE_OK;
}

// Gives every result a place in one buffer; the same value lands once.
static gyre_status land(struct backward *b)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < b->n_results; i++) {
        struct result *r = &b->results[i];
        uint32_t first = 0;
        if (!r->value) return gyre_fail(b->err, b->g->error.code, "%s", b->g->error.message);
        while (b->results[first].value != r->value) first++;
        r->at = first < i ? b->results[first].at : bytes;
        if (first == i) bytes += gyre_round_up(gyre_graph_value(b->g, r->value)->plane[0].bytes, GYRE_BIND_ALIGN);
    }
    if (!bytes) return GYRE_OK;
    struct gyre_binding all;
    GYRE_TRY(buffer(b, NULL, bytes, "gradients", &all));
    for (uint32_t i = 0; i < b->n_results; i++) {
        const struct gyre_value_info *info = gyre_graph_value(b->g, b->results[i].value);
        if (!info->external)
            gyre_g_output(b->g, b->results[i].value,
                          (struct gyre_binding){all.buffer, b->results[i].at, info->plane[0].bytes});
    }
    return GYRE_OK;
}

static gyre_status read_back(struct backward *b)
{
    for (uint32_t i = 0; i < b->n_results; i++) {
        const struct result *r = &b->results[i];
        const struct gyre_value_info *info = gyre_graph_value(b->g, r->value);
        const struct gyre_binding at = gyre_graph_at(b->g, r->value, 0);
        const uint64_t n = (uint64_t)info->rows * info->width;
        float *to = r->floats ? r->floats : malloc(n * sizeof *to);
        if (!to) return no_memory(b);
        const gyre_status st = gyre_buffer_read(b->f->device, at.buffer, at.offset, to, n * sizeof *to, b->err);
        for (uint64_t k = 0; st == GYRE_OK && r->sums && k < n; k++)
            r->sums[k % info->width / r->width] += (double)to[k];
        if (st == GYRE_OK && r->squares) gyre_backward_add_squares(info, to, r->squares);
        if (!r->floats) free(to);
        GYRE_TRY(st);
    }
    return GYRE_OK;
}

static gyre_status build(struct backward *b)
{
    const gyre_graph *f = b->f;
    for (uint32_t i = f->n_nodes; i-- > 0;) {
        const struct gyre_node *node = &f->nodes[i];
        for (uint32_t k = 0; k < GYRE_MAX_INS; k++)
            if (gyre_graph_value(f, node->in[k])->root) return unsupported(b, "rows of a value");
        if (b->grad[node->out[0]]) GYRE_TRY(rules[node->op](b, i, node, b->grad[node->out[0]]));
    }
    for (gyre_value v = 1; v < f->n_values; v++)
        if (b->r->grad[v] && b->grad[v])
            GYRE_TRY(result(b, (struct result){.value = b->grad[v], .floats = b->r->grad[v]}));
    if (b->g->error.code) return gyre_fail(b->err, b->g->error.code, "%s", b->g->error.message);
    return GYRE_OK;
}

static gyre_status make(struct backward *b)
{
    const gyre_graph *f = b->f;
    struct gyre_batch batch = {.page_stride = f->page_stride};
    if (f->batch_rows) batch.rows = gyre_graph_at(f, f->batch_rows, 0);
    if (f->batch_pages) batch.pages = gyre_graph_at(f, f->batch_pages, 0);
    b->have = calloc(f->n_values, sizeof *b->have);
    b->grad = calloc(f->n_values, sizeof *b->grad);
    if (!b->have || !b->grad) return no_memory(b);
    GYRE_TRY(gyre_graph_create(f->device, f->rows, &batch, &b->g, b->err));
    GYRE_TRY(seeds(b));
    GYRE_TRY(build(b));
    if (!b->g->n_nodes) return GYRE_OK;
    GYRE_TRY(land(b));
    GYRE_TRY(gyre_graph_compile(b->g, &(struct gyre_graph_options){.no_fuse = true}, b->err));
    return gyre_graph_submit(b->g, b->err);
}

gyre_status gyre_backward_run(struct gyre_reverse *r, gyre_error *err)
{
    struct backward b = {.r = r, .f = r->graph, .err = err};
    gyre_status st = GYRE_OK;
    if (r->plain) return unsupported(&b, "SpinQuant's rule");
    GYRE_GO(make(&b));
    if (b.g->n_nodes) GYRE_GO(read_back(&b));
done:
    gyre_graph_destroy(b.g);
    for (uint32_t i = 0; i < b.n_made; i++) gyre_buffer_destroy(r->graph->device, b.made[i].buffer);
    free(b.made);
    free(b.results);
    free(b.have);
    free(b.grad);
    return st;
}
