// A model on a device: the weights of its blocks by product, the tables at both ends, and the head as a graph. Which
// tensors and which block: its architecture's (arch.h). The graph layer below knows no model, the engine above no
// tensor.
#pragma once
#include "runtime/model/builder.h"
#include "runtime/model/weights.h"

struct gyre_model {
    gyre_device *device;
    struct gyre_hparams hp; // owned
    struct gyre_shared shared;
    struct gyre_layer_weights *layer; // [hp.n_layers]
    struct gyre_weight table, head;   // head.n_ranges == 0: tied, the head reads the table
    struct gyre_binding output_norm;  // f32[D]
    struct gyre_binding head_gain;    // f32[D], with a head rotation
    struct gyre_weight head_mix;      // [D, D], symmetric, where the file has it
    uint64_t weight_bytes;
    struct gyre_load_rounding rounding; // of its matrices
};

// How a model is loaded. All zero: as it is.
struct gyre_loading {
    uint32_t weight_bits; // see struct gyre_load_rounding
    uint32_t context;     // tokens of the longest text that it will see
    bool layout;          // memory for all of it and nothing in it, read from no tensor: for plans
    bool no_table;        // the embedding table is left to the caller; UNSUPPORTED where the head reads it, too
    bool no_blocks;       // blocks come by gyre_model_load_block
    int (*progress)(void *user, double fraction); // may be NULL; a non-zero return cancels
    void *user;
};

// Loads and checks a model (gyre_model_check). `how` may be NULL.
gyre_status gyre_model_load(gyre_device *device, const gyre_source *source, const struct gyre_loading *how,
                            struct gyre_model *out, gyre_error *err) GYRE_MUST_USE;
// One block of a model that was loaded without; the source is the same. gyre_layer_weights_free frees it, or
// gyre_model_free, after failure too.
gyre_status gyre_model_load_block(struct gyre_model *model, const gyre_source *source, uint32_t layer,
                                  gyre_error *err) GYRE_MUST_USE;
void gyre_model_free(struct gyre_model *model);
// Why a model (or a shape) whose head reads the embedding table cannot do without it: GYRE_E_UNSUPPORTED.
gyre_status gyre_model_tied(const char *name, gyre_error *err);

// Device buffers of the online rotations and the tables of RoPE.
gyre_status gyre_shared_create(gyre_device *device, const struct gyre_hparams *hp, struct gyre_shared *out,
                               gyre_error *err) GYRE_MUST_USE;
void gyre_shared_free(gyre_device *device, struct gyre_shared *shared);

void gyre_layer_weights_free(gyre_device *device, struct gyre_layer_weights *layer);

// Residual stream [R, D] behind block `layer`; its KV pool may be gyre_kv's.
gyre_value gyre_model_block(gyre_graph *g, gyre_value x, const struct gyre_model *model, uint32_t layer,
                            const struct gyre_kv_pool *kv, const struct gyre_precision *precision);
// Final norm (and head rotation or mix) and head: [R, D] -> [R, V].
gyre_value gyre_model_head(gyre_graph *g, gyre_value x, const struct gyre_model *model);
