// The graph: values and nodes for one step of R rows, made by typed constructors, rewritten by passes, lowered to
// dispatches that are plain data, recorded once and replayed.
//
//   build (constructors) -> verify -> fuse -> verify -> plan -> lower -> record
//
// A value is either external (a region of a buffer that the caller owns: weights, KV pools, row data) or internal (the
// planner gives it an offset in one scratch buffer by its lifetime). A quantized activation is ONE value with two
// planes, codes and meta (shaders/params.h). Ops never change an input; the KV write and `sample` are declared
// exceptions: their outputs are external values. A graph belongs to one device and one number of rows.
//
// Weights and factors are named by pointer and binding: they must outlive the graph. Passes see a graph through
// runtime/graph/node.h.
//
// Errors: constructors return GYRE_NONE after an error and remember the first one; gyre_graph_compile reports it, so
// building code needs no checks in between.
#pragma once
#include "backends/backend.h"
#include "runtime/core/op.h"

typedef struct gyre_graph gyre_graph;
typedef uint32_t gyre_value; // index of a value
#define GYRE_NONE 0u

// ---- what the caller owns -----------------------------------------------------------------------------

// W4Z: int4 with a zero point for each column of a group, behind the scales (shaders/params.h).
typedef enum gyre_weight_kind {
    GYRE_WEIGHT_F32,
    GYRE_WEIGHT_F16,
    GYRE_WEIGHT_W8,
    GYRE_WEIGHT_W4,
    GYRE_WEIGHT_W4Z
} gyre_weight_kind;
static inline bool gyre_weight_is_coded(gyre_weight_kind kind) { return kind >= GYRE_WEIGHT_W8; }
static inline bool gyre_weight_is_int4(gyre_weight_kind kind) { return kind >= GYRE_WEIGHT_W4; }

// A device weight [N, K] as a list of N-ranges, so that no buffer limit binds. Layouts: shaders/params.h.
struct gyre_weight_range {
    uint32_t n0, n, n_pad;
    struct gyre_binding weight, scale, sums; // f16/f32: scale and sums = weight
};
struct gyre_weight {
    gyre_weight_kind kind;
    uint32_t n, k, group; // group = k when per channel or not quantized
    uint32_t n_ranges;
    struct gyre_weight_range *range; // owned by the model
    struct gyre_binding order; // int[k]: what is multiplied is x[order[j]]; gyre_g_gather it. Buffer NULL: x as it is
};

// One layer's KV pools. bits 16, 8 or 4 each (32 on the cpu device, both). centre: f32[2][kv_heads * head_dim],
// constants that are subtracted from keys and values before they are cached (keys: after RoPE and what follows it);
// attention's result is the same but for rounding.
struct gyre_kv_pool {
    struct gyre_binding k, k_meta, v, v_meta;
    uint32_t bits, bits_v;      // of keys, of values; bits_v 0: the same
    float clip, clip_v;         // of keys, of values; clip_v 0: the same
    struct gyre_binding centre; // buffer NULL: none
    struct gyre_binding pages;  // a page table of its own, in the shape of the batch's; buffer NULL: that one
};

// An online Hadamard: factors as in shaders/params.h and the bit-mask words of its base matrices.
struct gyre_had_desc {
    uint32_t n, k1, k2, k3, p;
    struct gyre_binding base;
};

// Device buffers that a step updates between replays; what the row-wise ops read.
struct gyre_batch {
    struct gyre_binding rows;  // int4[R]
    struct gyre_binding pages; // int[sequences][page_stride]
    uint32_t page_stride;
};

struct gyre_attn_shape {
    uint32_t heads, kv_heads, head_dim;
    uint32_t split;  // RoPE's pairs (i, i + split) for i < split, behind those neighbours; 0: all are neighbours
    float mscale;    // of q and k in the pairs that RoPE turns
    float q_beta;    // queries grow by 1 + q_beta ln(1 + floor(position / q_span)); 0: they do not
    uint32_t q_span; // read where q_beta is not 0
    float scale;     // of the scores; 0: 1 / sqrt(head_dim)
    uint32_t window; // positions that a query sees, its own among them; 0: all
    struct gyre_binding freqs; // f32[head_dim / 2]; 0: the pair stays as it is
    struct gyre_binding gains; // f32[2][head_dim] of the norms of q and k heads before RoPE; buffer NULL: none
    float eps;                 // of those norms
};

// ---- building -----------------------------------------------------------------------------------------

gyre_status gyre_graph_create(gyre_device *device, uint32_t rows, const struct gyre_batch *batch, gyre_graph **out,
                              gyre_error *err) GYRE_MUST_USE;
void gyre_graph_destroy(gyre_graph *graph);

uint32_t gyre_graph_rows(const gyre_graph *g);

// An external f32 value [rows, width]; rows may differ from the graph's (a chunk of the head, a single row).
gyre_value gyre_g_external(gyre_graph *g, const char *name, uint32_t rows, uint32_t width, struct gyre_binding at);

gyre_value gyre_g_embed(gyre_graph *g, const struct gyre_weight *table, float scale);         // [R, D]
gyre_value gyre_g_rms_norm(gyre_graph *g, gyre_value x, struct gyre_binding gain, float eps); // gain f32[D]
gyre_value gyre_g_quantize(gyre_graph *g, gyre_value x, uint32_t bits, float clip);           // bits 16: returns x
// At 4 bits in groups of so many values, where they divide the row ("span" in shaders/params.h); group 0: by the row.
gyre_value gyre_g_quantize_groups(gyre_graph *g, gyre_value x, uint32_t bits, float clip, uint32_t group);
gyre_value gyre_g_matmul(gyre_graph *g, gyre_value x, const struct gyre_weight *w); // x f32 or quantized
// The same with a bias f32[N] added to every row; buffer NULL: none.
gyre_value gyre_g_linear(gyre_graph *g, gyre_value x, const struct gyre_weight *w, struct gyre_binding bias);
// Columns of x f32 in the order int[K]; buffer NULL: x itself.
gyre_value gyre_g_gather(gyre_graph *g, gyre_value x, struct gyre_binding order);
gyre_value gyre_g_add(gyre_graph *g, gyre_value a, gyre_value b);
// had == NULL or had->n == 0: returns x. segs: transformed segments, from column 0; scale (f32 per column, .buffer
// NULL: none) is applied first.
gyre_value gyre_g_hadamard(gyre_graph *g, gyre_value x, const struct gyre_had_desc *had, uint32_t segs, bool transposed,
                           struct gyre_binding scale);
gyre_value gyre_g_act_mul(gyre_graph *g, gyre_value gate_up, uint32_t act);             // [R, 2F] -> [R, F]
gyre_value gyre_g_rope(gyre_graph *g, gyre_value qkv, const struct gyre_attn_shape *s); // same shape
void gyre_g_kv_write(gyre_graph *g, gyre_value qkv, const struct gyre_attn_shape *s, const struct gyre_kv_pool *kv);
// q: [R, >= heads*head_dim], heads first. Ordered after the kv_write to the same pool.
gyre_value gyre_g_attn(gyre_graph *g, gyre_value q, const struct gyre_attn_shape *s, const struct gyre_kv_pool *kv);
// Rows of x as a value of its own, without copying: rows first..first+n-1. first*width*4 must be a multiple of
// GYRE_BIND_ALIGN (any multiple of 64 rows, any row where the width is a multiple of 64).
gyre_value gyre_g_rows(gyre_graph *g, gyre_value x, uint32_t first, uint32_t n);
void gyre_g_topk(gyre_graph *g, gyre_value x, uint32_t k, gyre_value *vals, gyre_value *ids); // k 1: argmax
// Of each row a draw from all of its columns where its state says so, else the largest. Bindings as of gyre_g_sample.
void gyre_g_draw(gyre_graph *g, gyre_value x, struct gyre_binding rows, struct gyre_binding state, gyre_value *vals,
                 gyre_value *ids);
// Bindings: rows int4[R] (updated), history u32[R][GYRE_HISTORY] (updated), state uint4[R]. drawn (GYRE_NONE: not
// given): the ids of gyre_g_draw, which rows that are sampled from all take in the place of the k best.
void gyre_g_sample(gyre_graph *g, gyre_value vals, gyre_value ids, gyre_value drawn, uint32_t k,
                   struct gyre_binding rows, struct gyre_binding history, struct gyre_binding state);
// Of each row the sum of exp((logit - largest) / temperature), [rows, 1]; vals as of gyre_g_topk, state uint4[R].
gyre_value gyre_g_mass(gyre_graph *g, gyre_value logits, gyre_value vals, struct gyre_binding state);
gyre_value gyre_g_loglik(gyre_graph *g, gyre_value logits, struct gyre_binding targets); // [rows, 4]
gyre_value gyre_g_kl(gyre_graph *g, gyre_value p_logits, gyre_value q_logits);           // [rows, 4]
// Makes a value live to the end and lands it in the caller's buffer, which no other operand of its node may touch. The
// value is one that a node computes, not an external, a view or a quantized one.
void gyre_g_output(gyre_graph *g, gyre_value value, struct gyre_binding to);

// ---- compiling and running ----------------------------------------------------------------------------

struct gyre_tuner; // choice.h

// Memory that graphs of one device work in. They run one after the other, so they can share it: nothing is left in it
// for the next replay. Starts as zeros. A graph takes what fits it, or adds what it lacks; so whoever compiles the
// largest one first has no more than that.
struct gyre_scratch {
    gyre_buffer **buffer;
    uint32_t n;
};
void gyre_scratch_free(struct gyre_scratch *scratch, gyre_device *device); // when no graph that uses it is left

struct gyre_graph_options {
    bool no_fuse;                 // tests compare fused with unfused
    bool keep;                    // every value has memory of its own, so that all can be read afterwards
    struct gyre_tuner *tuner;     // measures which kernels run its products; NULL: by rule
    struct gyre_scratch *scratch; // what it works in; NULL: memory of its own. Not with `keep`
};

// Verifies, fuses, plans; gyre_graph_compile does it where it was not done.
gyre_status gyre_graph_plan(gyre_graph *g, const struct gyre_graph_options *options, gyre_error *err) GYRE_MUST_USE;
// Takes what a planned graph would work in, so that smaller ones find it. The graph is only to be destroyed then.
gyre_status gyre_scratch_reserve(struct gyre_scratch *scratch, gyre_graph *g, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_graph_compile(gyre_graph *g, const struct gyre_graph_options *options,
                               gyre_error *err) GYRE_MUST_USE;               // plans if needed, lowers, records
gyre_status gyre_graph_submit(gyre_graph *g, gyre_error *err) GYRE_MUST_USE; // one replay, queued
// Replays that follow each other, gyre_graph_at_once of them a submission (backend.h).
gyre_status gyre_graph_submit_times(gyre_graph *g, uint32_t times, gyre_error *err) GYRE_MUST_USE;
uint32_t gyre_graph_at_once(const gyre_graph *g); // of a compiled graph

// ---- looking at it ------------------------------------------------------------------------------------

// The lowered dispatches (kernel names tell what runs), for tests, profiles and `inspect`.
uint32_t gyre_graph_dispatch_count(const gyre_graph *g);
const char *gyre_graph_dispatch_kernel(const gyre_graph *g, uint32_t index);
const char *gyre_graph_dispatch_op(const gyre_graph *g, uint32_t index);
const struct gyre_dispatch *gyre_graph_dispatches(const gyre_graph *g);
gyre_status gyre_graph_profile(gyre_graph *g, uint64_t *ns, gyre_error *err) GYRE_MUST_USE;  // ns[dispatch_count]
gyre_status gyre_graph_dot(const gyre_graph *g, char **text, gyre_error *err) GYRE_MUST_USE; // Graphviz; malloc'd
