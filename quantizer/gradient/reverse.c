// See reverse.h. A gradient is allocated when it is asked for, or when a later node gives it its first part.
#include "quantizer/gradient/reverse.h"
#include "quantizer/gradient/backward.h"
#include "quantizer/gradient/rules.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

#define gyre_back_none NULL
static gyre_back_rule *const rules[GYRE_OP_COUNT] = {
#define OP(name, outputs, inputs, params, lower, tune, grad) [GYRE_OP_##name] = gyre_back_##grad,
#include "runtime/core/ops.def"
#undef OP
};

gyre_status gyre_reverse_open(const gyre_graph *graph, bool plain, gyre_reverse **out, gyre_error *err)
{
    *out = NULL;
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        if (!rules[graph->nodes[i].op])
            return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot differentiate a graph with %s: it has no rule",
                             gyre_ops[graph->nodes[i].op].name);
    gyre_reverse *r = calloc(1, sizeof *r);
    if (r)
        *r = (gyre_reverse){graph,
                            plain,
                            calloc(graph->n_values, sizeof *r->grad),
                            calloc(graph->n_nodes, sizeof *r->clip),
                            calloc(graph->n_nodes, sizeof *r->squares),
                            calloc(graph->n_values, sizeof *r->kept)};
    if (r && r->grad && r->clip && r->squares && r->kept) {
        *out = r;
        return GYRE_OK;
    }
    gyre_reverse_close(r);
    return gyre_fail(err, GYRE_E_NOMEM, "out of memory for gradients");
}

void gyre_reverse_close(gyre_reverse *r)
{
    if (!r) return;
    for (uint32_t v = 0; r->grad && v < r->graph->n_values; v++) free(r->grad[v]);
    free(r->grad);
    for (uint32_t i = 0; r->squares && i < r->graph->n_nodes; i++) free(r->squares[i]);
    free(r->clip);
    free(r->squares);
    free(r->kept);
    free(r);
}

static uint64_t floats_of(const gyre_graph *g, gyre_value v)
{
    const struct gyre_value_info *info = gyre_graph_value(g, v);
    if (info->kind == GYRE_VALUE_DATA) return info->plane[0].bytes / sizeof(float);
    if (info->kind == GYRE_VALUE_WEIGHT) {
        const struct gyre_weight *w = info->weight;
        return gyre_weight_is_coded(w->kind) ? (uint64_t)w->k / w->group * w->n : (uint64_t)w->k * w->n;
    }
    if (info->kind != GYRE_VALUE_POOL) return (uint64_t)info->rows * info->width;
    for (uint32_t i = 0; i < g->n_nodes; i++) // as wide as what is written into it
        if (g->nodes[i].out[0] == v && g->nodes[i].op == GYRE_OP_kv_write)
            return 2 * (uint64_t)g->rows *
                   (uint32_t)(g->nodes[i].params.kv_write.kv_heads * g->nodes[i].params.kv_write.hd);
    return 0; // nothing of this graph is in it
}

// A view's is a part of its root's.
static float *gradient(gyre_reverse *r, gyre_value v, bool make)
{
    const struct gyre_value_info *info = gyre_graph_value(r->graph, v);
    if (info->root) {
        float *whole = gradient(r, info->root, make);
        return whole ? whole + (uint64_t)info->root_row * info->width : NULL;
    }
    const uint64_t n = floats_of(r->graph, v);
    if (!r->grad[v] && make && n) r->grad[v] = calloc(n, sizeof *r->grad[v]);
    return r->grad[v];
}

float *gyre_reverse_value(gyre_reverse *r, gyre_value value) { return gradient(r, value, true); }

float *gyre_reverse_weight(gyre_reverse *r, const struct gyre_weight *weight)
{
    for (gyre_value v = 1; v < r->graph->n_values; v++)
        if (gyre_graph_value(r->graph, v)->weight == weight) return gradient(r, v, true);
    return NULL;
}

float *gyre_reverse_data(gyre_reverse *r, struct gyre_binding at)
{
    for (gyre_value v = 1; v < r->graph->n_values; v++) {
        const struct gyre_value_info *info = gyre_graph_value(r->graph, v);
        if (info->external && info->n_planes == 1 && info->plane[0].at.buffer == at.buffer &&
            info->plane[0].at.offset == at.offset)
            return gradient(r, v, true);
    }
    return NULL;
}

const double *gyre_reverse_squares(gyre_reverse *r, const struct gyre_weight *weight)
{
    for (uint32_t i = 0; i < r->graph->n_nodes; i++) {
        const struct gyre_node *node = &r->graph->nodes[i];
        if (node->op != GYRE_OP_matmul || gyre_graph_value(r->graph, node->in[1])->weight != weight) continue;
        if (!r->squares[i])
            r->squares[i] = calloc(gyre_graph_value(r->graph, node->out[0])->rows, sizeof *r->squares[i]);
        return r->squares[i];
    }
    return NULL;
}

const float *gyre_reverse_product(gyre_reverse *r, const struct gyre_weight *weight)
{
    for (uint32_t i = 0; i < r->graph->n_nodes; i++) {
        const struct gyre_node *node = &r->graph->nodes[i];
        if (node->op != GYRE_OP_matmul || gyre_graph_value(r->graph, node->in[1])->weight != weight) continue;
        r->kept[node->out[0]] = true;
        return gradient(r, node->out[0], true);
    }
    return NULL;
}

// The value that the node's first operand was made of by nodes that only move numbers or turn them.
static gyre_value untouched(const gyre_graph *g, gyre_value v)
{
    for (uint32_t i = g->n_nodes; i-- > 0;)
        if (g->nodes[i].out[0] == v && (g->nodes[i].op == GYRE_OP_gather || g->nodes[i].op == GYRE_OP_hadamard))
            v = g->nodes[i].in[0];
    return v;
}

bool gyre_reverse_reads(gyre_reverse *r, const struct gyre_weight *weight, const float **value, const float **gradient_)
{
    *value = *gradient_ = NULL;
    for (uint32_t i = 0; i < r->graph->n_nodes; i++) {
        const struct gyre_node *node = &r->graph->nodes[i];
        if (node->op != GYRE_OP_matmul || gyre_graph_value(r->graph, node->in[1])->weight != weight) continue;
        const gyre_value v = untouched(r->graph, node->in[0]);
        if (gyre_graph_value(r->graph, v)->kind != GYRE_VALUE_F32) return false;
        r->kept[v] = true;
        *value = gyre_back_plane(r->graph, v, 0);
        *gradient_ = gradient(r, v, true);
        return *value && *gradient_;
    }
    return false;
}

void gyre_reverse_cached(const gyre_reverse *r, const float **value, uint64_t *stride, const float **gradient_)
{
    *value = *gradient_ = NULL;
    for (uint32_t i = 0; i < r->graph->n_nodes; i++) {
        const struct gyre_node *node = &r->graph->nodes[i];
        const struct gyre_kv_write_params *p = &node->params.kv_write;
        if (node->op != GYRE_OP_kv_write) continue;
        *stride = (uint64_t)(p->heads + 2 * p->kv_heads) * (uint32_t)p->hd;
        *value = (const float *)gyre_back_plane(r->graph, node->in[0], 0) + (uint64_t)p->heads * (uint32_t)p->hd;
        *gradient_ = r->grad[node->out[0]];
    }
}

static gyre_status one_node(gyre_reverse *r, uint32_t i, gyre_error *err)
{
    const struct gyre_node *node = &r->graph->nodes[i];
    struct gyre_back back = {.graph = r->graph,
                             .node = node,
                             .dout = gradient(r, node->out[0], false),
                             .dclip = r->clip[i],
                             .plain = r->plain};
    if (!back.dout) return GYRE_OK; // nothing behind it matters
    if (r->squares[i]) gyre_backward_add_squares(gyre_graph_value(r->graph, node->out[0]), back.dout, r->squares[i]);
    for (uint32_t k = 0; k < GYRE_MAX_INS; k++) {
        if (!node->in[k]) continue;
        back.din[k] = gradient(r, node->in[k], gyre_backward_passes(r->graph, node->in[k]));
        if (!back.din[k] && gyre_backward_passes(r->graph, node->in[k]) && floats_of(r->graph, node->in[k]))
            return gyre_fail(err, GYRE_E_NOMEM, "out of memory for gradients");
    }
    GYRE_TRY(rules[node->op](&back, err));
    if (gyre_graph_value(r->graph, node->out[0])->kind != GYRE_VALUE_POOL &&
        !gyre_graph_value(r->graph, node->out[0])->external && !r->kept[node->out[0]]) { // nobody asks again
        free(r->grad[node->out[0]]);
        r->grad[node->out[0]] = NULL;
    }
    return GYRE_OK;
}

gyre_status gyre_reverse_run(gyre_reverse *r, gyre_error *err)
{
    if (!gyre_back_on_host(r->graph->device)) return gyre_backward_run(r, err);
    for (uint32_t i = r->graph->n_nodes; i-- > 0;) GYRE_TRY(one_node(r, i, err));
    return GYRE_OK;
}

double gyre_reverse_act_clip(const gyre_reverse *r, const struct gyre_weight *weight)
{
    double sum = 0;
    for (uint32_t i = 0; i < r->graph->n_nodes; i++) {
        const struct gyre_node *quantize = &r->graph->nodes[i];
        bool reads = false;
        for (uint32_t k = 0; quantize->op == GYRE_OP_quantize && k < r->graph->n_nodes; k++)
            reads |= r->graph->nodes[k].op == GYRE_OP_matmul && r->graph->nodes[k].in[0] == quantize->out[0] &&
                     gyre_graph_value(r->graph, r->graph->nodes[k].in[1])->weight == weight;
        if (reads) sum += r->clip[i][0];
    }
    return sum;
}

double gyre_reverse_kv_clip(const gyre_reverse *r, uint32_t which)
{
    double sum = 0;
    for (uint32_t i = 0; i < r->graph->n_nodes; i++)
        if (r->graph->nodes[i].op == GYRE_OP_kv_write) sum += r->clip[i][which];
    return sum;
}
