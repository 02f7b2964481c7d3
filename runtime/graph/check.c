// What a well-formed node is: its operands' kinds, shapes and parameters. One rule check_<params> per parameter struct,
// chosen by the column of ops.def; used when a node is built and again by verify.c after every pass.
#include "runtime/graph/check.h"
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
    if (x->kind == GYRE_VALUE_QUANT && x->bits == 24 && !gyre_weight_is_coded(w->kind))
        return bad(node, err, "its input has codes of 24 bits, its weight has none");
    return GYRE_OK;
}

static gyre_status check_quant_matmul(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_quant_matmul_params *p = &node->params.quant_matmul;
    const gyre_weight_kind kind = g->values[node->in[1]].weight->kind;
    if (!gyre_weight_is_coded(kind)) return bad(node, err, "its weight has no codes");
    if (p->bits != 24 && p->bits != 8 && p->bits != 4) return bad(node, err, "it rounds to neither 24, 8 nor 4 bits");
    if ((p->normed != 0) != (node->in[3] != GYRE_NONE) ||
        (p->normed && !has_bytes(&g->values[node->in[3]], 4 * (int64_t)p->k)))
        return bad(node, err, "its gain and the parameter `normed` do not agree, or the gain is too short");
    return check_matmul(g, node, err); // of the same first parameters
}

// rope, kv_write and the fused forms: qkv is [R, (H + 2G) hd].
static bool heads_fit(const gyre_graph *g, const struct gyre_value_info *qkv, int32_t rows, int32_t heads,
                      int32_t kv_heads, int32_t hd)
{
    return heads > 0 && kv_heads > 0 && hd > 0 && heads % kv_heads == 0 && hd % 8 == 0 && rows == (int64_t)g->rows &&
           shape_is(qkv, rows, ((int64_t)heads + 2 * (int64_t)kv_heads) * hd);
}

static bool pool_fits(const struct gyre_value_info *pool)
{
    return (pool->bits == 32 && pool->bits_v == 32) || (gyre_is_width(pool->bits) && gyre_is_width(pool->bits_v));
}

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

// What all that touch heads ask: `fits` shapes and rows, the centre, a head size that kernels take.
static gyre_status heads_ok(const gyre_graph *g, const struct gyre_node *node, bool fits, bool centred, int32_t hd,
                            gyre_error *err)
{
    if (!fits) return bad(node, err, "heads, rows, page stride and shapes do not agree");
    if (!centred)
        return bad(node, err, "its centre and the parameter `centred` do not agree, or the centre is too short");
    if (hd % 8 || !hd) return bad(node, err, "the head size is no multiple of 8, or the frequencies are too few");
    if (!has_bytes(&g->values[g->batch_rows], 16 * (int64_t)g->rows))
        return bad(node, err, "the row data is shorter than the rows");
    return GYRE_OK;
}

// RoPE's pairs lie inside of a head, and what queries grow by has a span.
static bool turns_fit(int32_t hd, int32_t split, float q_beta, int32_t q_span)
{
    return split >= 0 && split <= hd / 2 && (q_beta == 0 || q_span > 0);
}
#define TURNS "the pairs of RoPE leave the head, or queries grow over no span"

static gyre_status check_rope(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_rope_params *p = &node->params.rope;
    const struct gyre_value_info *qkv = &g->values[node->in[0]], *out = &g->values[node->out[0]];
    const bool fits = heads_fit(g, qkv, p->rows, p->heads, p->kv_heads, p->hd) &&
                      shape_is(out, qkv->rows, qkv->width) && gains_fit(g, node->in[3], p->normed, p->hd);
    const bool freqs = has_bytes(&g->values[node->in[2]], 2 * (int64_t)p->hd);
    if (!turns_fit(p->hd, p->split, p->q_beta, p->q_span)) return bad(node, err, TURNS);
    return heads_ok(g, node, fits, true, freqs ? p->hd : 0, err);
}

static gyre_status check_kv_write(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_kv_write_params *p = &node->params.kv_write;
    const bool fits = heads_fit(g, &g->values[node->in[0]], p->rows, p->heads, p->kv_heads, p->hd) &&
                      pool_fits(&g->values[node->out[0]]) && p->page_stride == (int64_t)g->page_stride;
    return heads_ok(g, node, fits, centre_fits(g, node->in[3], p->centred, p->kv_heads, p->hd), p->hd, err);
}

static gyre_status check_rope_kv(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_rope_kv_params *p = &node->params.rope_kv;
    const struct gyre_value_info *qkv = &g->values[node->in[0]];
    bool fits = heads_fit(g, qkv, p->rows, p->heads, p->kv_heads, p->hd) &&
                shape_is(&g->values[node->out[0]], qkv->rows, (int64_t)p->heads * p->hd) &&
                pool_fits(&g->values[node->out[1]]) && p->page_stride == (int64_t)g->page_stride &&
                gains_fit(g, node->in[6], p->normed, p->hd);
    if (fits && node->op == GYRE_OP_rope_had_kv) {
        const int32_t k[3] = {p->k1, p->k2, p->k3};
        fits = p->n == p->hd && p->segs == p->heads + p->kv_heads &&
               hadamard_fits(p->n, p->segs, k, p->p, (int32_t)qkv->width, node->in[4] ? &g->values[node->in[4]] : NULL);
    }
    const bool freqs = has_bytes(&g->values[node->in[3]], 2 * (int64_t)p->hd);
    if (!turns_fit(p->hd, p->split, p->q_beta, p->q_span)) return bad(node, err, TURNS);
    return heads_ok(g, node, fits, centre_fits(g, node->in[5], p->centred, p->kv_heads, p->hd), freqs ? p->hd : 0, err);
}

static gyre_status check_attn(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_attn_params *p = &node->params.attn;
    const struct gyre_value_info *q = &g->values[node->in[0]];
    const bool fits = p->heads > 0 && p->kv_heads > 0 && p->hd > 0 && p->heads % p->kv_heads == 0 &&
                      p->rows == (int64_t)g->rows && q->rows == g->rows && p->ldq == (int64_t)q->width &&
                      p->ldq >= (int64_t)p->heads * p->hd &&
                      shape_is(&g->values[node->out[0]], p->rows, (int64_t)p->heads * p->hd) &&
                      pool_fits(&g->values[node->in[1]]) && p->page_stride == (int64_t)g->page_stride;
    if (p->window < 1) return bad(node, err, "a query sees no position");
    return heads_ok(g, node, fits, centre_fits(g, node->in[4], p->centred, p->kv_heads, p->hd), p->hd, err);
}

static gyre_status check_attn_split(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_attn_split_params *p = &node->params.attn_split;
    const struct gyre_value_info *q = &g->values[node->in[0]];
    const bool fits = p->heads > 0 && p->kv_heads > 0 && p->hd > 0 && p->heads % p->kv_heads == 0 && p->splits > 0 &&
                      p->rows == (int64_t)g->rows && q->rows == g->rows && p->ldq == (int64_t)q->width &&
                      p->ldq >= (int64_t)p->heads * p->hd &&
                      shape_is(&g->values[node->out[0]], p->rows, (int64_t)p->heads * p->splits * (p->hd + 2)) &&
                      pool_fits(&g->values[node->in[1]]) && p->page_stride == (int64_t)g->page_stride;
    if (p->window < 1) return bad(node, err, "a query sees no position");
    return heads_ok(g, node, fits, true, p->hd, err);
}

static gyre_status check_attn_merge(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_attn_merge_params *p = &node->params.attn_merge;
    const bool fits = p->heads > 0 && p->kv_heads > 0 && p->hd > 0 && p->heads % p->kv_heads == 0 && p->splits > 0 &&
                      shape_is(&g->values[node->in[0]], p->rows, (int64_t)p->heads * p->splits * (p->hd + 2)) &&
                      shape_is(&g->values[node->out[0]], p->rows, (int64_t)p->heads * p->hd) &&
                      centre_fits(g, node->in[1], p->centred, p->kv_heads, p->hd);
    return fits ? GYRE_OK : bad(node, err, "its parts are not those of its heads");
}

// span: that of params.h.
static bool span_fits(int32_t span, int32_t bits, int32_t width)
{
    return span == 0 || (bits == 4 && span > 0 && span % 4 == 0 && width % span == 0);
}

static gyre_status check_act_mul(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_act_mul_params *p = &node->params.act_mul;
    const struct gyre_value_info *y = &g->values[node->out[0]], *x = &g->values[node->in[0]];
    const bool quant = y->kind == GYRE_VALUE_QUANT,
               had = node->op == GYRE_OP_act_mul_had || node->op == GYRE_OP_act_mul_had_quant;
    if (!shape_is(x, p->rows, 2 * (int64_t)p->width) || !shape_is(y, p->rows, p->width) || (p->act != 0 && p->act != 1))
        return bad(node, err, "its input is not twice as wide as its output, or the activation is unknown");
    if (p->width % 4) return bad(node, err, "its width is no multiple of 4");
    if (quant && !bits_are(y, p->bits)) return bad(node, err, "the bits of its output and its parameters differ");
    if (!span_fits(p->span, p->bits, p->width)) return bad(node, err, "its groups do not divide its rows");
    const int32_t k[3] = {p->k1, p->k2, p->k3};
    if (had && (!hadamard_fits(p->n, p->segs, k, p->p, p->width, node->in[1] ? &g->values[node->in[1]] : NULL) ||
                (int64_t)p->n * p->segs != p->width))
        return bad(node, err, "the Hadamard factors do not give its width, or their matrices are missing");
    return GYRE_OK;
}

static gyre_status agreed(const struct gyre_node *node, bool fits, gyre_error *err)
{
    return fits ? GYRE_OK : bad(node, err, "shapes, parameters and the caller's buffers do not agree");
}

static gyre_status check_topk(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_topk_params *p = &node->params.topk;
    const bool merges = node->op == GYRE_OP_topk_merge, draws = node->op == GYRE_OP_draw,
               many = merges || node->op == GYRE_OP_topk;
    return agreed(node,
                  p->parts >= 1 && p->k >= 1 && p->k <= 256 && p->k <= p->width / p->parts && (many || p->k == 1) &&
                      shape_is(&g->values[node->in[0]], p->rows, p->width) &&
                      (!merges || (p->parts == 1 && shape_is(&g->values[node->in[1]], p->rows, p->width))) &&
                      (!draws || (has_bytes(&g->values[node->in[1]], 16 * (int64_t)p->rows) &&
                                  has_bytes(&g->values[node->in[2]], 16 * (int64_t)p->rows))) &&
                      shape_is(&g->values[node->out[0]], p->rows, (int64_t)p->parts * p->k) &&
                      shape_is(&g->values[node->out[1]], p->rows, (int64_t)p->parts * p->k),
                  err);
}

static gyre_status check_sample(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_sample_params *p = &node->params.sample;
    return agreed(node,
                  p->k >= 1 && shape_is(&g->values[node->in[0]], p->rows, p->k) &&
                      shape_is(&g->values[node->in[1]], p->rows, p->k) &&
                      has_bytes(&g->values[node->out[0]], 16 * (int64_t)p->rows) &&
                      has_bytes(&g->values[node->out[1]], 4 * GYRE_HISTORY * (int64_t)p->rows) &&
                      has_bytes(&g->values[node->in[3]], 16 * (int64_t)p->rows) &&
                      (p->drawn != 0) == (node->in[2] != GYRE_NONE) &&
                      (!node->in[2] || shape_is(&g->values[node->in[2]], p->rows, 1)),
                  err);
}

static gyre_status check_mass(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_mass_params *p = &node->params.mass;
    return agreed(node,
                  p->k >= 1 && shape_is(&g->values[node->in[0]], p->rows, p->width) &&
                      shape_is(&g->values[node->in[1]], p->rows, p->k) &&
                      shape_is(&g->values[node->out[0]], p->rows, 1) &&
                      has_bytes(&g->values[node->in[2]], 16 * (int64_t)p->rows),
                  err);
}

static gyre_status check_loglik(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_loglik_params *p = &node->params.loglik;
    return agreed(node,
                  shape_is(&g->values[node->in[0]], p->rows, p->width) &&
                      shape_is(&g->values[node->out[0]], p->rows, 4) &&
                      has_bytes(&g->values[node->in[1]], 4 * (int64_t)p->rows),
                  err);
}

static gyre_status check_kl(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_kl_params *p = &node->params.kl;
    return agreed(node,
                  shape_is(&g->values[node->in[0]], p->rows, p->width) &&
                      shape_is(&g->values[node->in[1]], p->rows, p->width) &&
                      shape_is(&g->values[node->out[0]], p->rows, 4),
                  err);
}

// ---- rows -----------------------------------------------------------------------------------------------

static gyre_status check_rms_norm(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_rms_norm_params *p = &node->params.rms_norm;
    const struct gyre_value_info *y = &g->values[node->out[0]];
    return agreed(node,
                  p->width % 4 == 0 && span_fits(p->span, p->bits, p->width) &&
                      shape_is(&g->values[node->in[0]], p->rows, p->width) && shape_is(y, p->rows, p->width) &&
                      has_bytes(&g->values[node->in[1]], 4 * (int64_t)p->width) &&
                      (y->kind != GYRE_VALUE_QUANT || bits_are(y, p->bits)),
                  err);
}

static gyre_status check_rms_norm_had(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_rms_norm_had_params *p = &node->params.rms_norm_had;
    const struct gyre_value_info *y = &g->values[node->out[0]];
    const int32_t k[3] = {p->k1, p->k2, p->k3};
    return agreed(node,
                  p->width % 4 == 0 && span_fits(p->span, p->bits, p->width) &&
                      shape_is(&g->values[node->in[0]], p->rows, p->width) && shape_is(y, p->rows, p->width) &&
                      has_bytes(&g->values[node->in[1]], 4 * (int64_t)p->width) &&
                      (y->kind != GYRE_VALUE_QUANT || bits_are(y, p->bits)) && (int64_t)p->n * p->segs == p->width &&
                      hadamard_fits(p->n, p->segs, k, p->p, p->width, node->in[2] ? &g->values[node->in[2]] : NULL),
                  err);
}

static gyre_status check_quantize(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_quantize_params *p = &node->params.quantize;
    const struct gyre_value_info *y = &g->values[node->out[0]];
    return agreed(node,
                  p->width % 4 == 0 && span_fits(p->span, p->bits, p->width) &&
                      shape_is(&g->values[node->in[0]], p->rows, p->width) && shape_is(y, p->rows, p->width) &&
                      (bits_are(y, p->bits) || (p->bits == 24 && y->bits == 24)),
                  err);
}

static gyre_status check_gather(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_gather_params *p = &node->params.gather;
    return agreed(node,
                  shape_is(&g->values[node->in[0]], p->rows, p->width) &&
                      shape_is(&g->values[node->out[0]], p->rows, p->width) &&
                      has_bytes(&g->values[node->in[1]], 4 * (int64_t)p->width),
                  err);
}

static gyre_status check_add(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_value_info *y = &g->values[node->out[0]];
    return agreed(node,
                  shape_is(&g->values[node->in[0]], y->rows, y->width) &&
                      shape_is(&g->values[node->in[1]], y->rows, y->width) &&
                      node->params.add.count == (int64_t)y->rows * y->width,
                  err);
}

static gyre_status check_hadamard(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_hadamard_params *p = &node->params.hadamard;
    const int32_t k[3] = {p->k1, p->k2, p->k3};
    return agreed(node,
                  shape_is(&g->values[node->in[0]], p->rows, p->width) &&
                      shape_is(&g->values[node->out[0]], p->rows, p->width) &&
                      hadamard_fits(p->n, p->segs, k, p->p, p->width, node->in[1] ? &g->values[node->in[1]] : NULL) &&
                      (p->scaled != 0) == (node->in[2] != GYRE_NONE) &&
                      (!node->in[2] || has_bytes(&g->values[node->in[2]], 4 * (int64_t)p->width)),
                  err);
}

static gyre_status check_embed(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    const struct gyre_embed_params *p = &node->params.embed;
    const struct gyre_weight *w = g->values[node->in[1]].weight;
    if (!weight_fits(w))
        return bad(node, err, "the table's ranges do not cover its columns, or its group does not divide K");
    if (p->width % 4 || p->width != (int64_t)w->k || p->group != (int64_t)w->group ||
        !shape_is(&g->values[node->out[0]], p->rows, p->width) ||
        !has_bytes(&g->values[node->in[0]], 16 * (int64_t)p->rows))
        return bad(node, err, "shapes and parameters do not agree, or the row data is shorter than the rows");
    return GYRE_OK;
}

// What runs outside graphs.
static gyre_status outside(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    (void)g;
    return bad(node, err, "it cannot be in a graph");
}
#define check_repack outside
#define check_roof outside
// Gradients.
#define check_matmul_back gyre_check_matmul_back
#define check_scale_back gyre_check_matmul_back
#define check_columns gyre_check_columns
#define check_norm_back gyre_check_norm_back
#define check_quantize_back gyre_check_quantize_back
#define check_act_mul_back gyre_check_act_mul_back
#define check_kv_back gyre_check_kv_back
#define check_attn_back gyre_check_attn_back

static gyre_check_rule *const rules[GYRE_OP_COUNT] = {
#define OP(name, outputs, inputs, params, lower, tune, grad) [GYRE_OP_##name] = check_##params,
#include "runtime/core/ops.def"
#undef OP
};

gyre_status gyre_node_check(const gyre_graph *g, const struct gyre_node *node, gyre_error *err)
{
    if (node->op >= GYRE_OP_COUNT) return gyre_fail(err, GYRE_E_INVALID, "bad node: there is no op %d", (int)node->op);
    GYRE_TRY(operands(g, node, gyre_ops[node->op].outputs, node->out, GYRE_MAX_OUTS, err));
    GYRE_TRY(operands(g, node, gyre_ops[node->op].inputs, node->in, GYRE_MAX_INS, err));
    return rules[node->op](g, node, err);
}
