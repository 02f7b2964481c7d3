// Fusion: chains of nodes that one kernel computes at once, as a table. A value inside a chain must have no other
// reader (the RoPE chains allow attention to read q beside the KV write) and must not leave the graph.
#include "runtime/graph/tune.h"
#include "runtime/util/base.h"

#include <string.h>

enum { MAX_CHAIN = 3 };

// Builds the fused node from its parts; false if their parameters do not allow it. May add values to the graph.
typedef bool merge_fn(gyre_graph *g, const struct gyre_node *part, struct gyre_node *fused);

struct pattern {
    gyre_op chain[MAX_CHAIN]; // each reads what the one before it computes
    uint32_t n;
    gyre_op result;
    bool q_readers; // attention may read the value between the last two; it then reads the fused node's q
    merge_fn *merge;
};

// The transform of the hadamard node whose parameters are h becomes that of the fused node's parameters p.
#define TAKE_FIELD(field) p->field = h->field;
#define TAKE_HAD() GYRE_PARAMS_HAD(TAKE_FIELD, TAKE_FIELD)

static bool merge_norm(gyre_graph *g, const struct gyre_node *part, struct gyre_node *fused)
{
    (void)g;
    fused->params.rms_norm.bits = part[1].params.quantize.bits;
    fused->params.rms_norm.clip = part[1].params.quantize.clip;
    fused->params.rms_norm.span = part[1].params.quantize.span;
    return true;
}

// An online R1, and the quantizer behind it where there is one.
static bool merge_norm_had(gyre_graph *g, const struct gyre_node *part, struct gyre_node *fused)
{
    const struct gyre_hadamard_params *h = &part[1].params.hadamard;
    const struct gyre_rms_norm_params *n = &part[0].params.rms_norm;
    struct gyre_rms_norm_had_params *p = &fused->params.rms_norm_had;
    (void)g;
    if (h->scaled || (int64_t)h->n * h->segs != n->width) return false;
    *p = (struct gyre_rms_norm_had_params){.rows = n->rows, .width = n->width, .eps = n->eps};
    TAKE_HAD()
    if (part[2].op == GYRE_OP_quantize) {
        const struct gyre_quantize_params *q = &part[2].params.quantize;
        p->bits = q->bits, p->clip = q->clip, p->span = q->span;
    }
    fused->in[2] = part[1].in[1];
    return true;
}

static bool merge_add(gyre_graph *g, const struct gyre_node *part, struct gyre_node *fused)
{
    (void)g;
    if (part[0].in[2]) return false;
    fused->in[2] = part[1].in[0] == part[0].out[0] ? part[1].in[1] : part[1].in[0];
    fused->params.matmul.add = 1;
    return true;
}

// A product that quantizes what it reads: where the device is served by one dispatch less (tune.c decides). Rows in
// groups keep a quantizer of their own. Where nothing asks for codes, those of 24 bits: no more than how a device
// computes a product of floats.
static bool merge_quant(gyre_graph *g, const struct gyre_node *part, struct gyre_node *fused)
{
    const gyre_op first = part[0].op;
    const bool alone = first == GYRE_OP_matmul, normed = !alone && first != GYRE_OP_quantize,
               split = alone || first == GYRE_OP_rms_norm;
    const struct gyre_rms_norm_params *n = &part[0].params.rms_norm;
    const struct gyre_quantize_params *q = &part[0].params.quantize;
    const struct gyre_node *product = &part[!alone];
    const struct gyre_matmul_params m = product->params.matmul;
    if (split ? g->values[product->in[0]].kind == GYRE_VALUE_QUANT : normed ? n->span : q->span) return false;
    *fused = *product;
    fused->op = GYRE_OP_quant_matmul;
    fused->in[0] = part[0].in[0];
    fused->in[3] = normed ? part[0].in[1] : GYRE_NONE;
    fused->params.quant_matmul = (struct gyre_quant_matmul_params){.rows = m.rows,
                                                                   .k = m.k,
                                                                   .n = m.n,
                                                                   .n_pad = m.n_pad,
                                                                   .group = m.group,
                                                                   .ldy = m.ldy,
                                                                   .n0 = m.n0,
                                                                   .add = m.add,
                                                                   .bits = split    ? 24
                                                                           : normed ? n->bits
                                                                                    : q->bits,
                                                                   .clip = split    ? 1
                                                                           : normed ? n->clip
                                                                                    : q->clip,
                                                                   .normed = normed,
                                                                   .eps = normed ? n->eps : 0};
    return gyre_tune_quantizes(g, fused);
}

static bool merge_act(gyre_graph *g, const struct gyre_node *part, struct gyre_node *fused)
{
    (void)g;
    struct gyre_act_mul_params *p = &fused->params.act_mul;
    const struct gyre_node *had = part[1].op == GYRE_OP_hadamard ? &part[1] : NULL;
    const struct gyre_node *quant = part[1].op == GYRE_OP_quantize   ? &part[1]
                                    : part[2].op == GYRE_OP_quantize ? &part[2]
                                                                     : NULL;
    if (had) {
        const struct gyre_hadamard_params *h = &had->params.hadamard;
        if (h->scaled || (int64_t)h->n * h->segs != p->width) return false;
        TAKE_HAD()
        fused->in[1] = had->in[1];
    }
    if (quant) {
        p->bits = quant->params.quantize.bits;
        p->clip = quant->params.quantize.clip;
        p->span = quant->params.quantize.span;
    }
    return true;
}

static bool merge_rope(gyre_graph *g, const struct gyre_node *part, struct gyre_node *fused)
{
    const struct gyre_rope_params r = part[0].params.rope;
    const struct gyre_node *had = part[1].op == GYRE_OP_hadamard ? &part[1] : NULL, *write = had ? &part[2] : &part[1];
    const struct gyre_kv_write_params *w = &write->params.kv_write;
    struct gyre_rope_kv_params *p = &fused->params.rope_kv;
    *p = (struct gyre_rope_kv_params){.rows = r.rows,
                                      .heads = r.heads,
                                      .kv_heads = r.kv_heads,
                                      .hd = r.hd,
                                      .split = r.split,
                                      .mscale = r.mscale,
                                      .q_beta = r.q_beta,
                                      .q_span = r.q_span,
                                      .page_stride = w->page_stride,
                                      .clip = w->clip,
                                      .clip_v = w->clip_v,
                                      .centred = w->centred,
                                      .normed = r.normed,
                                      .eps = r.eps,
                                      .k1 = 1,
                                      .k2 = 1,
                                      .k3 = 1};
    if (w->heads != r.heads || w->kv_heads != r.kv_heads || w->hd != r.hd) return false;
    fused->in[1] = write->in[1];
    fused->in[2] = write->in[2];
    fused->in[3] = part[0].in[2];
    fused->in[5] = write->in[3];
    fused->in[6] = part[0].in[3];
    fused->in[4] = GYRE_NONE;
    if (had) {
        const struct gyre_hadamard_params *h = &had->params.hadamard;
        if (h->scaled || h->n != r.hd || h->segs != r.heads + r.kv_heads) return false;
        TAKE_HAD()
        fused->in[4] = had->in[1];
    }
    fused->out[0] = gyre_graph_new_value(g, GYRE_VALUE_F32, (uint32_t)r.rows, (uint32_t)(r.heads * r.hd), 0);
    fused->out[1] = write->out[0];
    return fused->out[0] != GYRE_NONE;
}

// Longer chains first: the first that fits is taken.
static const struct pattern patterns[] = {
    {{GYRE_OP_act_mul, GYRE_OP_hadamard, GYRE_OP_quantize}, 3, GYRE_OP_act_mul_had_quant, false, merge_act},
    {{GYRE_OP_act_mul, GYRE_OP_hadamard}, 2, GYRE_OP_act_mul_had, false, merge_act},
    {{GYRE_OP_act_mul, GYRE_OP_quantize}, 2, GYRE_OP_act_mul_quant, false, merge_act},
    {{GYRE_OP_rms_norm, GYRE_OP_hadamard, GYRE_OP_quantize}, 3, GYRE_OP_rms_norm_had_quant, false, merge_norm_had},
    {{GYRE_OP_rms_norm, GYRE_OP_hadamard}, 2, GYRE_OP_rms_norm_had, false, merge_norm_had},
    {{GYRE_OP_rms_norm, GYRE_OP_quantize}, 2, GYRE_OP_rms_norm_quant, false, merge_norm},
    {{GYRE_OP_matmul, GYRE_OP_add}, 2, GYRE_OP_matmul, false, merge_add},
    {{GYRE_OP_rms_norm_quant, GYRE_OP_matmul}, 2, GYRE_OP_quant_matmul, false, merge_quant},
    {{GYRE_OP_quantize, GYRE_OP_matmul}, 2, GYRE_OP_quant_matmul, false, merge_quant},
    {{GYRE_OP_rms_norm, GYRE_OP_matmul}, 2, GYRE_OP_quant_matmul, false, merge_quant},
    {{GYRE_OP_matmul}, 1, GYRE_OP_quant_matmul, false, merge_quant},
    {{GYRE_OP_rope, GYRE_OP_hadamard, GYRE_OP_kv_write}, 3, GYRE_OP_rope_had_kv, true, merge_rope},
    {{GYRE_OP_rope, GYRE_OP_kv_write}, 2, GYRE_OP_rope_kv, true, merge_rope},
};

// The node of op `op` that reads `v`, if all readers are that node and, where allowed, attention after it. n_nodes:
// none.
static uint32_t next_in_chain(const gyre_graph *g, gyre_value v, gyre_op op, bool q_readers)
{
    uint32_t at = g->n_nodes, readers = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct gyre_node *node = &g->nodes[i];
        for (uint32_t k = 0; k < GYRE_MAX_INS; k++) {
            if (node->in[k] != v) continue;
            if (node->op == op && at == g->n_nodes && (k == 0 || op == GYRE_OP_add)) at = i;
            else if (!q_readers || node->op != GYRE_OP_attn || k != 0 || at == g->n_nodes) return g->n_nodes;
            readers++;
        }
    }
    return readers == gyre_graph_uses(g, v) ? at : g->n_nodes; // else a view reads it, or it leaves the graph
}

// Whether a part moved from `from` to `to` would pass a node that changes memory of the caller which the part reads.
static bool passes_a_change(const gyre_graph *g, const struct gyre_node *part, uint32_t from, uint32_t to)
{
    for (uint32_t i = from + 1; i < to; i++)
        for (uint32_t o = 0; o < GYRE_MAX_OUTS; o++)
            for (uint32_t k = 0; k < GYRE_MAX_INS; k++)
                if (part->in[k] && part->in[k] == g->nodes[i].out[o] && g->values[part->in[k]].kind >= GYRE_VALUE_DATA)
                    return true;
    return false;
}

// Fuses the chain that begins at node `first`, if there is one of this pattern.
static void try_pattern(gyre_graph *g, const struct pattern *pattern, uint32_t first)
{
    uint32_t at[MAX_CHAIN] = {first};
    struct gyre_node part[MAX_CHAIN] = {g->nodes[first]};
    for (uint32_t step = 1; step < pattern->n; step++) {
        at[step] =
            next_in_chain(g, part[step - 1].out[0], pattern->chain[step], pattern->q_readers && step + 1 == pattern->n);
        if (at[step] == g->n_nodes) return;
        part[step] = g->nodes[at[step]];
    }
    const uint32_t last = at[pattern->n - 1];
    for (uint32_t step = 0; step + 1 < pattern->n; step++)
        if (passes_a_change(g, &part[step], at[step], last)) return;
    struct gyre_node fused = part[0];
    fused.out[0] = part[pattern->n - 1].out[0];
    if (!pattern->merge(g, part, &fused)) return;
    fused.op = pattern->result;
    for (uint32_t step = 0; step < pattern->n; step++) g->nodes[at[step]] = (struct gyre_node){.op = GYRE_OP_COUNT};
    g->nodes[last] = fused;
    if (!pattern->q_readers) return;
    const gyre_value inner = part[pattern->n - 2].out[0];
    for (uint32_t i = last + 1; i < g->n_nodes; i++)
        if (g->nodes[i].in[0] == inner) {
            g->nodes[i].in[0] = fused.out[0];
            g->nodes[i].params.attn.ldq = (int32_t)g->values[fused.out[0]].width;
        }
}

gyre_status gyre_graph_fuse(gyre_graph *g, gyre_error *err)
{
    for (size_t p = 0; p < GYRE_COUNT(patterns); p++)
        for (uint32_t i = 0; i < g->n_nodes; i++)
            if (g->nodes[i].op == patterns[p].chain[0]) try_pattern(g, &patterns[p], i);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op != GYRE_OP_COUNT) g->nodes[kept++] = g->nodes[i];
    g->n_nodes = kept;
    if (!g->error.code) return GYRE_OK;
    if (err) *err = g->error;
    return g->error.code;
}
