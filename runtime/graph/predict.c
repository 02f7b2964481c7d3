// How long a node may take, from the bytes and products that its shapes name and what the weakest device of its kind
// reaches. Submissions are cut by it (gyre_submission_end): too long a prediction costs a submission, too short a one
// meets a driver's watchdog, so it errs to the long side.
#include "runtime/graph/node.h"
#include "runtime/util/base.h"

// Bytes and products (of two numbers, added up) in a millisecond.
struct least {
    double bytes, products;
};

// Read rates grow with memory: discrete cards of 4 GiB read 50 to 130 GB/s, of 8 GiB 220, of 24 GiB 350 and more, of 80
// GiB 1,500 and more; what shares the host's memory from 15 GB/s on. A CPU has no watchdog: its rates keep requests of
// other programs from waiting.
static struct least least_of(const struct gyre_device_info *info)
{
    if (info->software) return (struct least){5e6, 1e7};
    if (info->unified) return (struct least){15e6, 5e7};
    const double per_ms = GYRE_MAX(50e6, 12.5e6 * ((double)info->memory_bytes / (1 << 30)));
    return (struct least){per_ms, 10 * per_ms};
}

static double value_bytes(const gyre_graph *g, const struct gyre_node *node, gyre_value v)
{
    const struct gyre_value_info *info = &g->values[v];
    double bytes = 0;
    if (info->kind == GYRE_VALUE_DATA) return 0;
    if (info->kind == GYRE_VALUE_POOL && node->op != GYRE_OP_attn && node->op != GYRE_OP_attn_split) return 0;
    if (info->kind == GYRE_VALUE_WEIGHT && node->op == GYRE_OP_embed) return 0; // a few rows of it
    for (uint32_t p = 0; p < info->n_planes; p++) bytes += (double)info->plane[p].bytes;
    for (uint32_t i = 0; info->weight && i < info->weight->n_ranges; i++)
        bytes += (double)info->weight->range[i].weight.size + (double)info->weight->range[i].scale.size;
    return bytes;
}

static double products(const gyre_graph *g, const struct gyre_node *node)
{
    switch (node->op) {
    case GYRE_OP_matmul:
    case GYRE_OP_quant_matmul: // of codes of 24 bits each is three of bytes
        return (g->values[node->in[0]].bits == 24 ? 3.0 : 1.0) * node->params.matmul.rows * node->params.matmul.n *
               node->params.matmul.k;
    case GYRE_OP_matmul_back:
    case GYRE_OP_scale_back:
        return (double)node->params.matmul_back.rows * node->params.matmul_back.n * node->params.matmul_back.k;
    case GYRE_OP_columns:
        return (double)node->params.columns.rows * node->params.columns.count * node->params.columns.width;
    case GYRE_OP_attn_back_q:
    case GYRE_OP_attn_back_kv: { // every position with every other
        const struct gyre_attn_back_params *p = &node->params.attn_back;
        return 5.0 * p->rows * p->rows * p->heads * p->hd;
    }
    case GYRE_OP_attn:
    case GYRE_OP_attn_split: { // of all positions that the context has
        const struct gyre_attn_params *p = &node->params.attn;
        return 2.0 * p->rows * p->heads * p->hd * GYRE_MIN(32.0 * p->page_stride, (double)p->window);
    }
    case GYRE_OP_topk:
    case GYRE_OP_topk_merge: // rounds one after the other, some microseconds each
        return 1e5 * node->params.topk.k;
    default: // some of each number that it reads or writes
        return 16.0 * g->values[node->out[0]].rows * g->values[node->out[0]].width;
    }
}

float gyre_predict_ms(const gyre_graph *g, const struct gyre_node *node)
{
    const struct least least = least_of(gyre_device_info(g->device));
    double bytes = 0;
    for (uint32_t k = 0; k < GYRE_MAX_INS; k++)
        if (node->in[k]) bytes += value_bytes(g, node, node->in[k]);
    for (uint32_t k = 0; k < GYRE_MAX_OUTS; k++)
        if (node->out[k]) bytes += value_bytes(g, node, node->out[k]);
    const double ms = GYRE_MAX(bytes / least.bytes, products(g, node) / least.products);
    return (float)(ms + 0.01); // and its launch
}
