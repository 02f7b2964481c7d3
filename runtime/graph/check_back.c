// Rules of the nodes that make gradients. See check.h.
#include "runtime/graph/check.h"
#include "runtime/util/base.h"

static bool is(const gyre_graph *g, gyre_value v, int64_t rows, int64_t width)
{
    return g->values[v].rows == rows && g->values[v].width == width;
}

static bool holds(const gyre_graph *g, gyre_value v, int64_t floats)
{
    return g->values[v].plane[0].bytes >= (uint64_t)(4 * floats);
}

static gyre_status agreed(const struct gyre_node *node, bool fits, gyre_error *err)
{
    return fits ? GYRE_OK
                : gyre_fail(err, GYRE_E_INVALID,
                            "bad node (%s): shapes, parameters and the caller's buffers do not agree",
                            gyre_ops[node->op].name);
}

gyre_status gyre_check_matmul_back(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_matmul_back_params *p = &node->params.matmul_back;
    const bool of_x = node->op == GYRE_OP_matmul_back;
    const struct gyre_weight *w = g->values[node->in[of_x ? 1 : 2]].weight;
    const bool fits = w->k && w->n && w->group && w->k % 4 == 0 && w->group % 4 == 0 && w->k % w->group == 0 &&
                      p->k == (int64_t)w->k && p->n == (int64_t)w->n && p->ldy == (int64_t)w->n &&
                      p->group == (int64_t)w->group && is(g, node->in[0], p->rows, w->n);
    if (of_x) return agreed(node, fits && is(g, node->out[0], p->rows, w->k), err);
    return agreed(node,
                  fits && gyre_weight_is_coded(w->kind) && is(g, node->in[1], p->rows, w->k) &&
                      is(g, node->out[0], w->k / w->group, w->n),
                  err);
}

gyre_status gyre_check_columns(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_columns_params *p = &node->params.columns;
    const int64_t each = (int64_t)p->segs * p->width;
    return agreed(node,
                  p->width > 0 && p->first >= 0 && p->count > 0 && p->segs >= p->first + (int64_t)p->count &&
                      is(g, node->out[0], 1, p->width) && is(g, node->in[0], p->rows, each) &&
                      (p->b != 0) == (node->in[1] != GYRE_NONE) && (p->less != 0) == (node->in[2] != GYRE_NONE) &&
                      (p->by != 0) == (node->in[3] != GYRE_NONE) && (!p->b || is(g, node->in[1], p->rows, each)) &&
                      (!p->less || is(g, node->in[2], p->less == 2 ? 1 : p->rows, p->less == 2 ? p->width : each)) &&
                      (!p->by || is(g, node->in[3], p->rows, p->segs)),
                  err);
}

gyre_status gyre_check_norm_back(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_norm_back_params *p = &node->params.norm_back;
    const int64_t each = (int64_t)p->segs * p->width;
    return agreed(node,
                  p->width > 0 && p->heads > 0 && p->kv_heads >= 0 && p->segs >= (int64_t)p->heads + p->kv_heads &&
                      is(g, node->out[0], p->rows, each) && is(g, node->out[1], p->rows, p->segs) &&
                      is(g, node->in[0], p->rows, each) && is(g, node->in[1], p->rows, each) &&
                      holds(g, node->in[2], (p->kv_heads ? 2 : 1) * (int64_t)p->width),
                  err);
}

gyre_status gyre_check_quantize_back(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_quantize_back_params *p = &node->params.quantize_back;
    return agreed(node,
                  (p->bits == 8 || p->bits == 4) && g->values[node->in[2]].bits == (uint32_t)p->bits &&
                      p->width % 4 == 0 && p->span >= 0 && (!p->span || (p->bits == 4 && p->width % p->span == 0)) &&
                      is(g, node->out[0], p->rows, p->width) && is(g, node->out[1], p->rows, 1) &&
                      is(g, node->in[0], p->rows, p->width) && is(g, node->in[1], p->rows, p->width) &&
                      is(g, node->in[2], p->rows, p->width),
                  err);
}

gyre_status gyre_check_act_mul_back(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_act_mul_back_params *p = &node->params.act_mul_back;
    return agreed(node,
                  (p->act == 0 || p->act == 1) && is(g, node->out[0], p->rows, 2 * (int64_t)p->width) &&
                      is(g, node->in[0], p->rows, p->width) && is(g, node->in[1], p->rows, 2 * (int64_t)p->width),
                  err);
}

static bool heads_fit(const gyre_graph *g, gyre_value pool, int64_t rows, int32_t heads, int32_t kv_heads, int32_t hd,
                      int32_t page_stride)
{
    return heads > 0 && kv_heads > 0 && hd > 0 && heads % kv_heads == 0 && hd % 8 == 0 && hd <= 256 &&
           rows == (int64_t)g->rows && page_stride == (int64_t)g->page_stride && holds(g, g->batch_rows, 4 * rows) &&
           gyre_is_width(g->values[pool].bits) && gyre_is_width(g->values[pool].bits_v);
}

gyre_status gyre_check_kv_back(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_kv_back_params *p = &node->params.kv_back;
    const int64_t width = ((int64_t)p->heads + 2 * (int64_t)p->kv_heads) * p->hd;
    return agreed(node,
                  heads_fit(g, node->in[2], p->rows, p->heads, p->kv_heads, p->hd, p->page_stride) &&
                      is(g, node->out[0], p->rows, width) && is(g, node->out[1], p->rows, 2 * (int64_t)p->kv_heads) &&
                      is(g, node->in[0], p->rows, 2 * (int64_t)p->kv_heads * p->hd) &&
                      is(g, node->in[1], p->rows, width) && (p->centred != 0) == (node->in[5] != GYRE_NONE) &&
                      (!p->centred || holds(g, node->in[5], 2 * (int64_t)p->kv_heads * p->hd)),
                  err);
}

gyre_status gyre_check_attn_back(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_attn_back_params *p = &node->params.attn_back;
    const bool queries = node->op == GYRE_OP_attn_back_q;
    const int64_t width = (int64_t)p->heads * p->hd;
    const gyre_value stats = queries ? node->out[1] : node->in[2];
    return agreed(node,
                  heads_fit(g, node->in[queries ? 2 : 3], p->rows, p->heads, p->kv_heads, p->hd, p->page_stride) &&
                      p->window > 0 && p->ldq >= width && is(g, node->in[0], p->rows, width) &&
                      is(g, node->in[1], p->rows, p->ldq) && is(g, stats, p->rows, 2 * (int64_t)p->heads) &&
                      is(g, node->out[0], p->rows, queries ? p->ldq : 2 * (int64_t)p->kv_heads * p->hd),
                  err);
}
