// Looking at a graph: what was dispatched, and a Graphviz text of its nodes and values.
#include "backends/kernel_source.h"
#include "runtime/graph/node.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

uint32_t gyre_graph_dispatch_count(const gyre_graph *g) { return g->n_dispatches; }
const struct gyre_dispatch *gyre_graph_dispatches(const gyre_graph *g) { return g->dispatches; }

const char *gyre_graph_dispatch_kernel(const gyre_graph *g, uint32_t index)
{
    return index < g->n_dispatches ? g->dispatches[index].kernel->source->name : "";
}

const char *gyre_graph_dispatch_op(const gyre_graph *g, uint32_t index)
{
    return index < g->n_dispatches ? gyre_ops[g->nodes[g->dispatch_node[index]].op].name : "";
}

struct text {
    char *data;
    size_t n, cap;
    bool failed;
};

static void GYRE_PRINTF(2, 3) put(struct text *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int need = vsnprintf(NULL, 0, format, args);
    va_end(args);
    const size_t wanted = t->n + (size_t)(need < 0 ? 0 : need) + 1;
    if (!t->failed && wanted > t->cap) {
        char *bigger = realloc(t->data, 2 * wanted);
        if (bigger) {
            t->data = bigger;
            t->cap = 2 * wanted;
        }
        t->failed = !bigger;
    }
    if (!t->failed) t->n += (size_t)vsnprintf(t->data + t->n, t->cap - t->n, format, again);
    va_end(again);
}

// "f32 4x576", "q8 4x576", "w4 1536x576", "kv8"
static void put_value(struct text *t, const struct gyre_value_info *v)
{
    static const char *const weights[] = {[GYRE_WEIGHT_F32] = "f32",
                                          [GYRE_WEIGHT_F16] = "f16",
                                          [GYRE_WEIGHT_W8] = "w8",
                                          [GYRE_WEIGHT_W4] = "w4",
                                          [GYRE_WEIGHT_W4Z] = "w4z"};
    switch (v->kind) {
    case GYRE_VALUE_F32:
        put(t, "f32 %ux%u", v->rows, v->width);
        break;
    case GYRE_VALUE_QUANT:
        put(t, "q%u %ux%u", v->bits, v->rows, v->width);
        break;
    case GYRE_VALUE_U32:
        put(t, "u32 %ux%u", v->rows, v->width);
        break;
    case GYRE_VALUE_WEIGHT:
        put(t, "%s %ux%u", weights[v->weight->kind], v->weight->n, v->weight->k);
        break;
    case GYRE_VALUE_POOL:
        if (v->bits == v->bits_v) put(t, "kv%u", v->bits);
        else put(t, "k%uv%u", v->bits, v->bits_v);
        break;
    default:
        put(t, "%llu B", (unsigned long long)v->plane[0].bytes);
    }
}

static void put_edge(struct text *t, const gyre_graph *g, gyre_value v, uint32_t node, bool writes)
{
    const gyre_value root = g->values[v].root ? g->values[v].root : v;
    if (writes) put(t, "  n%u -> v%u;\n", node, root);
    else put(t, "  v%u -> n%u;\n", root, node);
}

gyre_status gyre_graph_dot(const gyre_graph *g, char **text, gyre_error *err)
{
    struct text t = {0};
    *text = NULL;
    put(&t, "digraph gyre {\n  node [fontname=monospace];\n");
    for (gyre_value v = 1; v < g->n_values; v++) {
        if (g->values[v].root) continue;
        bool used = false;
        for (uint32_t i = 0; i < g->n_nodes && !used; i++) {
            for (uint32_t k = 0; k < GYRE_MAX_OUTS; k++) used = used || g->nodes[i].out[k] == v;
            for (uint32_t k = 0; k < GYRE_MAX_INS; k++)
                used = used || g->nodes[i].in[k] == v || g->values[g->nodes[i].in[k]].root == v;
        }
        if (!used) continue;
        put(&t, "  v%u [shape=%s label=\"%s%s", v, g->values[v].external ? "box style=dashed" : "ellipse",
            g->values[v].name, g->values[v].name[0] ? "\\n" : "");
        put_value(&t, &g->values[v]);
        put(&t, "\"];\n");
    }
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        put(&t, "  n%u [shape=box style=filled label=\"%s", i, gyre_ops[g->nodes[i].op].name);
        for (uint32_t d = 0; d < g->n_dispatches; d++)
            if (g->dispatch_node[d] == i) put(&t, "\\n%s", gyre_graph_dispatch_kernel(g, d));
        put(&t, "\"];\n");
        for (uint32_t k = 0; k < GYRE_MAX_INS; k++)
            if (g->nodes[i].in[k]) put_edge(&t, g, g->nodes[i].in[k], i, false);
        for (uint32_t k = 0; k < GYRE_MAX_OUTS; k++)
            if (g->nodes[i].out[k]) put_edge(&t, g, g->nodes[i].out[k], i, true);
    }
    put(&t, "}\n");
    if (t.failed) {
        free(t.data);
        return gyre_fail(err, GYRE_E_NOMEM, "cannot print the graph: out of host memory");
    }
    *text = t.data;
    return GYRE_OK;
}
