// Kernels of the ops that make gradients. See tune.h.
#include "runtime/graph/tune_parts.h"

// Rows of a matmul_back.k invocation: a weight is unpacked once for so many.
enum { BACK_ROWS = 8, COLUMN_ROWS = 8 };

static gyre_status product_back(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                                gyre_error *err)
{
    const struct gyre_device_info *info = gyre_device_info(g->device);
    const bool of_x = node->op == GYRE_OP_matmul_back;
    const struct gyre_weight *w = g->values[node->in[of_x ? 1 : 2]].weight;
    const struct gyre_matmul_back_params *p = &node->params.matmul_back;
    const uint64_t loops = of_x ? gyre_div_up(w->n, 8) : ((uint64_t)p->rows + 1) * gyre_div_up(w->group, 32);
    if (!runs(info, loops)) return too_long(info, gyre_ops[node->op].name, loops, err);
    const bool quant = !of_x && g->values[node->in[1]].kind == GYRE_VALUE_QUANT;
    GYRE_TRY(start_weight(out, gyre_ops[node->op].name, w->kind, quant ? GYRE_FORM_QUANT : 0, lanes(info, 64), 1, err));
    out->tile[0] = out->kernel.spec[0];
    if (of_x) {
        set(out, "TR", BACK_ROWS);
        out->tile[1] = BACK_ROWS;
    }
    return GYRE_OK;
}

static gyre_status columns(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out, gyre_error *err)
{
    const struct gyre_device_info *info = gyre_device_info(g->device);
    const uint64_t loops = (uint64_t)node->params.columns.rows * (uint64_t)node->params.columns.count / COLUMN_ROWS + 8;
    if (!runs(info, loops)) return too_long(info, "sums over rows", loops, err);
    GYRE_TRY(start(out, "columns", GYRE_FORM_ONE, lanes(info, 32), COLUMN_ROWS, err));
    out->tile[0] = out->kernel.spec[0];
    return GYRE_OK;
}

// One head of one row a workgroup.
static gyre_status kv_write_back(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                                 gyre_error *err)
{
    const uint32_t hd = (uint32_t)node->params.kv_back.hd;
    GYRE_TRY(start(out, "kv_write_back", GYRE_FORM_ONE,
                   lanes(gyre_device_info(g->device), GYRE_MIN(GYRE_MAX(hd / 2, 32u), 64u)), 1, err));
    set_pool(out, &g->values[node->in[2]]);
    return GYRE_OK;
}

// As the kernels' comments say; a wider workgroup goes through the cache, or the rows, in fewer rounds.
static gyre_status attn_back(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                             gyre_error *err)
{
    const struct gyre_device_info *info = gyre_device_info(g->device);
    const struct gyre_attn_back_params *p = &node->params.attn_back;
    const bool queries = node->op == GYRE_OP_attn_back_q;
    const uint32_t hd = (uint32_t)p->hd;
    const uint64_t times = queries ? 1 : (uint64_t)(p->heads / p->kv_heads),
                   length = queries ? 32 * (uint64_t)p->page_stride : (uint64_t)p->rows;
    uint32_t wgx = lanes(info, 64);
    while (!runs(info, times * gyre_div_up(length, wgx) * (hd / 4 + wgx + 2))) {
        if (2 * wgx > 256 || 2 * wgx > info->max_workgroup) return too_long(info, "attention backwards", length, err);
        wgx *= 2;
    }
    GYRE_TRY(start(out, gyre_ops[node->op].name, GYRE_FORM_ONE, wgx, 1, err));
    set_pool(out, &g->values[node->in[queries ? 2 : 3]]);
    set(out, "HD", hd);
    return GYRE_OK;
}

gyre_status gyre_tune_back(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out, gyre_error *err)
{
    switch (node->op) {
    case GYRE_OP_columns:
        return columns(g, node, out, err);
    case GYRE_OP_kv_write_back:
        return kv_write_back(g, node, out, err);
    case GYRE_OP_attn_back_q:
    case GYRE_OP_attn_back_kv:
        return attn_back(g, node, out, err);
    default:
        return product_back(g, node, out, err);
    }
}
