// What a well-formed node is: its operands' kinds, shapes and parameters. One switch over the ops, used when a node is
// built and again by verify.c after every pass.
#include "runtime/graph/node.h"
#include "runtime/util/base.h"

#include <ctype.h>
#include <string.h>

static gyre_status bad(const struct gyre_node *node, gyre_error *err, const char *why)
{
    return gyre_fail(err, GYRE_E_INVALID, "bad node (%s): %s", gyre_ops[node->op].name, why);
}

static bool kind_fits(char letter, gyre_value_kind kind)
{
    switch (toupper((unsigned char)letter)) {
    case 'F':
        return kind == GYRE_VALUE_F32;
    case 'Q':
        return kind == GYRE_VALUE_QUANT;
    case 'A':
        return kind == GYRE_VALUE_F32 || kind == GYRE_VALUE_QUANT;
    case 'U':
        return kind == GYRE_VALUE_U32;
    case 'D':
        return kind == GYRE_VALUE_DATA;
    case 'W':
        return kind == GYRE_VALUE_WEIGHT;
    case 'P':
        return kind == GYRE_VALUE_POOL;
    default:
        return false;
    }
}

// The operands against the signature's letters.
static gyre_status operands(const gyre_graph *g, const struct gyre_node *node, const char *letters, const gyre_value *v,
                            uint32_t max, gyre_error *err)
{
    const size_t n = strlen(letters);
    for (uint32_t i = 0; i < max; i++) {
        if (v[i] == GYRE_NONE) {
            if (i < n && isupper((unsigned char)letters[i])) return bad(node, err, "an operand is missing");
        } else if (i >= n) {
            return bad(node, err, "it has too many operands");
        } else if (v[i] >= g->n_values || !kind_fits(letters[i], g->values[v[i]].kind)) {
            return bad(node, err, "an operand does not exist or is of the wrong kind");
        }
    }
    return GYRE_OK;
}

static bool shape_is(const struct gyre_value_info *v, int64_t rows, int64_t width)
{
    return v->rows == rows && v->width == width;
}
static bool has_bytes(const struct gyre_value_info *v, int64_t bytes)
{
    return bytes >= 0 && v->plane[0].bytes >= (uint64_t)bytes;
}
static bool bits_are(const struct gyre_value_info *q, int32_t bits)
{
    return (bits == 8 || bits == 4) && q->bits == (uint32_t)bits;
}

// n = k1 k2 k3 2^p, the segments lie inside `width`, and `base` (may be NULL) holds the matrices that are there.
static bool hadamard_fits(int32_t n, int32_t segs, const int32_t k[3], int32_t p, int32_t width,
                          const struct gyre_value_info *base)
{
    if (n < 1 || segs < 0 || p < 0 || p > 30 || (int64_t)n * segs > width) return false;
    int64_t product = INT64_C(1) << p, words = 0;
    for (int i = 0; i < 3; i++) {
        if (k[i] < 1 || k[i] > 4096) return false;
        product *= k[i];
        if (product > n) return false;
        if (k[i] > 1) words += (int64_t)k[i] * ((k[i] + 31) / 32);
    }
    return product == n && (!words || (base && has_bytes(base, 4 * words)));
}

static bool weight_fits(const struct gyre_weight *w)
{
    if (!w->k || !w->n || !w->group || w->k % w->group) return false;
    uint32_t at = 0;
    for (uint32_t i = 0; i < w->n_ranges; i++) {
        const struct gyre_weight_range *r = &w->range[i];
        if (r->n0 != at || !r->n || r->n_pad < r->n || r->n_pad % 8) return false;
        at += r->n;
    }
    return at == w->n;
}

static gyre_status check_matmul(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_matmul_params *p = &node->params.matmul;
    const struct gyre_value_info *y = &g->values[node->out[0]], *x = &g->values[node->in[0]];
    const struct gyre_weight *w = g->values[node->in[1]].weight;
    if (!weight_fits(w))
        return bad(node, err, "the weight's ranges do not cover its columns, or its group does not divide K");
    if (x->width != w->k || w->k % 4 || w->group % 4)
        return bad(node, err, "the input is not as wide as the weight's K, or K or the group is no multiple of 4");
    if (!shape_is(y, x->rows, w->n) || p->rows != (int64_t)x->rows || p->k != (int64_t)w->k || p->n != (int64_t)w->n ||
        p->ldy != (int64_t)w->n || p->group != (int64_t)w->group)
        return bad(node, err, "shapes and parameters do not agree");
    if ((p->add != 0) != (node->in[2] != GYRE_NONE))
        return bad(node, err, "its addend and the parameter `add` do not agree");
    if (p->add < 0 || p->add > 2 ||
        (node->in[2] && !shape_is(&g->values[node->in[2]], p->add == 2 ? 1 : (int64_t)y->rows, y->width)))
        return bad(node, err, "the addend has another shape");
    return GYRE_OK;
}

// rope, kv_write and the fused forms: qkv is [R, (H + 2G) hd].
static bool heads_fit(const gyre_graph *g, const struct gyre_value_info *qkv, int32_t rows, int32_t heads,
                      int32_t kv_heads, int32_t hd)
{
    return heads > 0 && kv_heads > 0 && hd > 0 && heads % kv_heads == 0 && hd % 8 == 0 && rows == (int64_t)g->rows &&
           shape_is(qkv, rows, ((int64_t)heads + 2 * (int64_t)kv_heads) * hd);
}

static bool pool_fits(const struct gyre_value_info *pool) { return pool->bits == 32 || gyre_is_width(pool->bits); }

// `gains` are there when the parameters say so, one for each element of a q and of a k head.
static bool gains_fit(const gyre_graph *g, gyre_value gains, int32_t normed, int32_t hd)
{
    return (normed != 0) == (gains != GYRE_NONE) && (!gains || has_bytes(&g->values[gains], 8 * (int64_t)hd));
}

// `centre` is there when the parameters say so, with values for every kv head's keys and values.
static bool centre_fits(const gyre_graph *g, gyre_value centre, int32_t centred, int32_t kv_heads, int32_t hd)
{
    return (centred != 0) == (centre != GYRE_NONE) &&
           (!centre || has_bytes(&g->values[centre], 8 * (int64_t)kv_heads * hd));
}

static gyre_status check_attention(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_value_info *first = &g->values[node->in[0]], *out = &g->values[node->out[0]];
    bool fits = false, centred = true;
    int32_t hd = 0;
    switch (node->op) {
    case GYRE_OP_rope: {
        const struct gyre_rope_params *p = &node->params.rope;
        fits = heads_fit(g, first, p->rows, p->heads, p->kv_heads, p->hd) && shape_is(out, first->rows, first->width) &&
               gains_fit(g, node->in[3], p->normed, p->hd);
        hd = has_bytes(&g->values[node->in[2]], 2 * (int64_t)p->hd) ? p->hd : 0;
        break;
    }
    case GYRE_OP_kv_write: {
        const struct gyre_kv_write_params *p = &node->params.kv_write;
        fits = heads_fit(g, first, p->rows, p->heads, p->kv_heads, p->hd) && pool_fits(out) &&
               p->page_stride == (int64_t)g->page_stride;
        centred = centre_fits(g, node->in[3], p->centred, p->kv_heads, p->hd);
        hd = p->hd;
        break;
    }
    case GYRE_OP_rope_kv:
    case GYRE_OP_rope_had_kv: {
        const struct gyre_rope_kv_params *p = &node->params.rope_kv;
        fits = heads_fit(g, first, p->rows, p->heads, p->kv_heads, p->hd) &&
               shape_is(out, first->rows, (int64_t)p->heads * p->hd) && pool_fits(&g->values[node->out[1]]) &&
               p->page_stride == (int64_t)g->page_stride && gains_fit(g, node->in[6], p->normed, p->hd);
        if (fits && node->op == GYRE_OP_rope_had_kv) {
            const int32_t k[3] = {p->k1, p->k2, p->k3};
            fits = p->n == p->hd && p->segs == p->heads + p->kv_heads &&
                   hadamard_fits(p->n, p->segs, k, p->p, (int32_t)first->width,
                                 node->in[4] ? &g->values[node->in[4]] : NULL);
        }
        centred = centre_fits(g, node->in[5], p->centred, p->kv_heads, p->hd);
        hd = has_bytes(&g->values[node->in[3]], 2 * (int64_t)p->hd) ? p->hd : 0;
        break;
    }
    default: {
        const struct gyre_attn_params *p = &node->params.attn;
        fits = p->heads > 0 && p->kv_heads > 0 && p->hd > 0 && p->heads % p->kv_heads == 0 &&
               p->rows == (int64_t)g->rows && first->rows == g->rows && p->ldq == (int64_t)first->width &&
               p->ldq >= (int64_t)p->heads * p->hd && shape_is(out, p->rows, (int64_t)p->heads * p->hd) &&
               pool_fits(&g->values[node->in[1]]) && p->page_stride == (int64_t)g->page_stride;
        centred = centre_fits(g, node->in[4], p->centred, p->kv_heads, p->hd);
        hd = p->hd;
    }
    }
    if (!fits) return bad(node, err, "heads, rows, page stride and shapes do not agree");
    if (!centred)
        return bad(node, err, "its centre and the parameter `centred` do not agree, or the centre is too short");
    if (hd % 8 || !hd) return bad(node, err, "the head size is no multiple of 8, or the frequencies are too few");
    if (!has_bytes(&g->values[g->batch_rows], 16 * (int64_t)g->rows))
        return bad(node, err, "the row data is shorter than the rows");
    return GYRE_OK;
}

static gyre_status check_act_mul(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_act_mul_params *p = &node->params.act_mul;
    const struct gyre_value_info *y = &g->values[node->out[0]], *x = &g->values[node->in[0]];
    const bool quant = y->kind == GYRE_VALUE_QUANT,
               had = node->op == GYRE_OP_act_mul_had || node->op == GYRE_OP_act_mul_had_quant;
    if (!shape_is(x, p->rows, 2 * (int64_t)p->width) || !shape_is(y, p->rows, p->width) || (p->act != 0 && p->act != 1))
        return bad(node, err, "its input is not twice as wide as its output, or the activation is unknown");
    if (quant && !bits_are(y, p->bits)) return bad(node, err, "the bits of its output and its parameters differ");
    const int32_t k[3] = {p->k1, p->k2, p->k3};
    if (had && (!hadamard_fits(p->n, p->segs, k, p->p, p->width, node->in[1] ? &g->values[node->in[1]] : NULL) ||
                (int64_t)p->n * p->segs != p->width))
        return bad(node, err, "the Hadamard factors do not give its width, or their matrices are missing");
    return GYRE_OK;
}

static gyre_status check_head(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_value_info *y = &g->values[node->out[0]], *x = &g->values[node->in[0]];
    bool fits = false;
    switch (node->op) {
    case GYRE_OP_argmax:
    case GYRE_OP_topk: {
        const struct gyre_topk_params *p = &node->params.topk;
        fits = p->k >= 1 && p->k <= 256 && p->k <= p->width && (node->op == GYRE_OP_topk || p->k == 1) &&
               shape_is(x, p->rows, p->width) && shape_is(y, p->rows, p->k) &&
               shape_is(&g->values[node->out[1]], p->rows, p->k);
        break;
    }
    case GYRE_OP_sample: {
        const struct gyre_sample_params *p = &node->params.sample;
        fits = p->k >= 1 && p->history >= 1 && shape_is(x, p->rows, p->k) &&
               shape_is(&g->values[node->in[1]], p->rows, p->k) && has_bytes(y, 16 * (int64_t)p->rows) &&
               has_bytes(&g->values[node->out[1]], 4 * (int64_t)p->rows * p->history) &&
               has_bytes(&g->values[node->out[2]], 16 * (int64_t)p->rows);
        break;
    }
    case GYRE_OP_loglik: {
        const struct gyre_loglik_params *p = &node->params.loglik;
        fits = shape_is(x, p->rows, p->width) && shape_is(y, p->rows, 4) &&
               has_bytes(&g->values[node->in[1]], 4 * (int64_t)p->rows);
        break;
    }
    default: {
        const struct gyre_kl_params *p = &node->params.kl;
        fits = shape_is(x, p->rows, p->width) && shape_is(&g->values[node->in[1]], p->rows, p->width) &&
               shape_is(y, p->rows, 4);
    }
    }
    return fits ? GYRE_OK : bad(node, err, "shapes, parameters and the caller's buffers do not agree");
}

static gyre_status check_rows(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_value_info *y = &g->values[node->out[0]], *x = &g->values[node->in[0]];
    bool fits = shape_is(y, x->rows, x->width);
    switch (node->op) {
    case GYRE_OP_rms_norm:
    case GYRE_OP_rms_norm_quant: {
        const struct gyre_rms_norm_params *p = &node->params.rms_norm;
        fits = fits && shape_is(x, p->rows, p->width) && has_bytes(&g->values[node->in[1]], 4 * (int64_t)p->width) &&
               (node->op == GYRE_OP_rms_norm || bits_are(y, p->bits));
        break;
    }
    case GYRE_OP_quantize: {
        const struct gyre_quantize_params *p = &node->params.quantize;
        fits = fits && shape_is(x, p->rows, p->width) && bits_are(y, p->bits);
        break;
    }
    case GYRE_OP_add:
        fits = fits && shape_is(&g->values[node->in[1]], x->rows, x->width) &&
               node->params.add.count == (int64_t)x->rows * x->width;
        break;
    default: {
        const struct gyre_hadamard_params *p = &node->params.hadamard;
        const int32_t k[3] = {p->k1, p->k2, p->k3};
        fits = fits && shape_is(x, p->rows, p->width) &&
               hadamard_fits(p->n, p->segs, k, p->p, p->width, node->in[1] ? &g->values[node->in[1]] : NULL) &&
               (p->scaled != 0) == (node->in[2] != GYRE_NONE) &&
               (!node->in[2] || has_bytes(&g->values[node->in[2]], 4 * (int64_t)p->width));
    }
    }
    return fits ? GYRE_OK : bad(node, err, "shapes and parameters do not agree, or a buffer is too small");
}

static gyre_status check_embed(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_embed_params *p = &node->params.embed;
    const struct gyre_weight *w = g->values[node->in[1]].weight;
    if (!weight_fits(w))
        return bad(node, err, "the table's ranges do not cover its columns, or its group does not divide K");
    if (p->width != (int64_t)w->k || p->group != (int64_t)w->group ||
        !shape_is(&g->values[node->out[0]], p->rows, p->width) ||
        !has_bytes(&g->values[node->in[0]], 16 * (int64_t)p->rows))
        return bad(node, err, "shapes and parameters do not agree, or the row data is shorter than the rows");
    return GYRE_OK;
}

// Kernels read rows four floats at a time.
static bool by_fours(const struct gyre_node *node)
{
    switch (node->op) {
    case GYRE_OP_embed:
        return node->params.embed.width % 4 == 0;
    case GYRE_OP_rms_norm:
    case GYRE_OP_rms_norm_quant:
        return node->params.rms_norm.width % 4 == 0;
    case GYRE_OP_quantize:
        return node->params.quantize.width % 4 == 0;
    case GYRE_OP_act_mul:
    case GYRE_OP_act_mul_quant:
    case GYRE_OP_act_mul_had:
    case GYRE_OP_act_mul_had_quant:
        return node->params.act_mul.width % 4 == 0;
    default:
        return true;
    }
}

gyre_status gyre_node_check(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    if (node->op >= GYRE_OP_COUNT || !gyre_signatures[node->op].out)
        return gyre_fail(err, GYRE_E_INVALID, "bad node: op %d cannot be in a graph", (int)node->op);
    GYRE_TRY(operands(g, node, gyre_signatures[node->op].out, node->out, GYRE_MAX_OUTS, err));
    GYRE_TRY(operands(g, node, gyre_signatures[node->op].in, node->in, GYRE_MAX_INS, err));
    if (!by_fours(node)) return bad(node, err, "its width is no multiple of 4");
    switch (node->op) {
    case GYRE_OP_embed:
        return check_embed(g, node, err);
    case GYRE_OP_matmul:
        return check_matmul(g, node, err);
    case GYRE_OP_rope:
    case GYRE_OP_kv_write:
    case GYRE_OP_rope_kv:
    case GYRE_OP_rope_had_kv:
    case GYRE_OP_attn:
        return check_attention(g, node, err);
    case GYRE_OP_act_mul:
    case GYRE_OP_act_mul_quant:
    case GYRE_OP_act_mul_had:
    case GYRE_OP_act_mul_had_quant:
        return check_act_mul(g, node, err);
    case GYRE_OP_argmax:
    case GYRE_OP_topk:
    case GYRE_OP_sample:
    case GYRE_OP_loglik:
    case GYRE_OP_kl:
        return check_head(g, node, err);
    default:
        return check_rows(g, node, err);
    }
}
