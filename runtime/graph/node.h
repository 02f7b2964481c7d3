// The inside of a graph, open to every pass: values, nodes, and what a pass may ask of them.
//
// Everything a node reads or writes is a value: activations, but also weights, KV pools and the caller's buffers. Nodes
// lie in execution order. A pass changes nodes and values in place and leaves a graph that gyre_graph_verify accepts.
#pragma once
#include "runtime/graph/graph.h"
#include "shaders/params.h"

typedef enum gyre_value_kind {
    GYRE_VALUE_F32,    // [rows, width], 1 plane
    GYRE_VALUE_QUANT,  // [rows, width] of `bits`: codes, meta
    GYRE_VALUE_U32,    // [rows, width], 1 plane
    GYRE_VALUE_DATA,   // a buffer of the caller that has no shape here: gains, row data, page tables, factors
    GYRE_VALUE_WEIGHT, // `weight`
    GYRE_VALUE_POOL,   // a KV pool of `bits`: k, k_meta, v, v_meta
} gyre_value_kind;

enum { GYRE_MAX_PLANES = 4, GYRE_MAX_OUTS = 3, GYRE_MAX_INS = 7 };

struct gyre_plane {
    uint64_t bytes;
    struct gyre_binding at; // external: the caller's; internal: buffer NULL until compiled
    uint32_t chunk;         // internal: which scratch buffer, and where, once planned
    uint64_t offset;
};

struct gyre_value_info {
    gyre_value_kind kind;
    bool external;                      // lives in a buffer of the caller
    bool landed;                        // external because of gyre_g_output: one node writes it
    uint32_t rows, width, bits, bits_v; // bits of a pool: of keys, bits_v of values
    uint32_t n_planes;
    struct gyre_plane plane[GYRE_MAX_PLANES];
    gyre_value root; // a view of rows root_row.. of another value; GYRE_NONE: not a view
    uint32_t root_row;
    const struct gyre_weight *weight;
    char name[32];
};

// One member per params struct of shaders/params.h; an op's member: the column `params` of ops.def.
union gyre_params {
#define MEMBER(params) struct gyre_##params##_params params;
    GYRE_PARAMS_LIST(MEMBER)
#undef MEMBER
};

struct gyre_node {
    gyre_op op;
    gyre_value out[GYRE_MAX_OUTS], in[GYRE_MAX_INS]; // in the order of the signature, GYRE_NONE where absent
    gyre_value temp;                                 // memory that only this node uses; GYRE_NONE: none
    union gyre_params params;
};

enum gyre_graph_stage { GYRE_GRAPH_BUILD, GYRE_GRAPH_PLANNED, GYRE_GRAPH_COMPILED };

struct gyre_graph {
    gyre_device *device;
    uint32_t rows, page_stride;
    gyre_value batch_rows, batch_pages;
    struct gyre_value_info *values; // [0] is GYRE_NONE
    uint32_t n_values, cap_values;
    struct gyre_node *nodes;
    uint32_t n_nodes, cap_nodes;
    gyre_error error; // the first one
    enum gyre_graph_stage stage;
    bool keep;                // gyre_graph_options
    struct gyre_tuner *tuner; // likewise
    // the plan
    uint64_t *chunk_bytes;
    gyre_buffer **chunks;
    uint32_t n_chunks;
    bool borrows; // its chunks are others' too (gyre_scratch)
    // what was lowered
    struct gyre_dispatch *dispatches;
    uint32_t *dispatch_node; // index of the node each one came from
    uint32_t n_dispatches, cap_dispatches;
    gyre_recording *recording;
};

// ---- asking ---------------------------------------------------------------------------------------------

static inline const struct gyre_value_info *gyre_graph_value(const gyre_graph *g, gyre_value v)
{
    return &g->values[v];
}

// Where a plane lies; views are resolved. Internal values have no buffer before they are compiled.
struct gyre_binding gyre_graph_at(const gyre_graph *g, gyre_value v, uint32_t plane);

// Nodes that read `v` or a view of it, and one more if it leaves the graph.
uint32_t gyre_graph_uses(const gyre_graph *g, gyre_value v);

// ---- changing -------------------------------------------------------------------------------------------

// A new internal value; kind F32, QUANT or U32. GYRE_NONE and the graph's error on failure.
gyre_value gyre_graph_new_value(gyre_graph *g, gyre_value_kind kind, uint32_t rows, uint32_t width, uint32_t bits);
// A value of another graph, compiled and on the same device, as an external one of this: what was computed there can be
// read here. That graph must outlive this one.
gyre_value gyre_graph_import(gyre_graph *g, const gyre_graph *from, gyre_value v);
// A buffer of the caller without a shape; the same one is the same value.
gyre_value gyre_graph_data(gyre_graph *g, const char *name, struct gyre_binding at);
// Appends a copy of `node`; checks it (gyre_node_check).
bool gyre_graph_append(gyre_graph *g, const struct gyre_node *node);
// Remembers the first error.
void gyre_graph_fail(gyre_graph *g, gyre_status code, const char *format, ...) GYRE_PRINTF(3, 4);

// ---- passes ---------------------------------------------------------------------------------------------

// Operand kinds, shapes and parameters of one node.
gyre_status gyre_node_check(const gyre_graph *g, const struct gyre_node *node, gyre_error *err) GYRE_MUST_USE;
// Every invariant; once the graph is planned also that no output touches an input and no two live values overlap.
gyre_status gyre_graph_verify(const gyre_graph *g, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_graph_fuse(gyre_graph *g, gyre_error *err) GYRE_MUST_USE;
// Attention of few rows in parts, where the device is better filled so.
gyre_status gyre_graph_split(gyre_graph *g, gyre_error *err) GYRE_MUST_USE;
// Gives every internal plane its chunk and offset.
gyre_status gyre_graph_layout(gyre_graph *g, gyre_error *err) GYRE_MUST_USE;
// How long a node may take on the weakest device of its kind.
float gyre_predict_ms(const gyre_graph *g, const struct gyre_node *node);
// Nodes to dispatches; every internal plane has its buffer.
gyre_status gyre_graph_lower(gyre_graph *g, gyre_error *err) GYRE_MUST_USE;
