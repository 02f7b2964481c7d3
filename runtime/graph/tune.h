// Which kernel runs a node on this device, with which workgroup and constants: the only place that decides it.
//
// A choice depends on gyre_device_info and on shapes, never on a vendor's name. It is a rule; for products of
// integers a measurement may take one of its variants (choice.h).
#pragma once
#include "runtime/graph/node.h"

// A kernel with its constants; a workgroup covers tile[0] x tile[1] x tile[2] units of the extents that the lowering
// gives.
struct gyre_launch {
    struct gyre_kernel_params kernel;
    uint32_t tile[3];
};

// The launch of a node (op, shapes and operands are read from it). GYRE_E_UNSUPPORTED if no kernel can run it here.
gyre_status gyre_tune(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                      gyre_error *err) GYRE_MUST_USE;

// What may run a product of integers in place of gyre_tune's launch, which comes first: the same kernel cut otherwise,
// or another, with the same bits. Returns their number; 0 for other nodes and where nothing runs. Which is best:
// measure.c.
enum { GYRE_MOST_VARIANTS = 8 };
uint32_t gyre_tune_variants(const gyre_graph *g, const struct gyre_node *node,
                            struct gyre_launch out[GYRE_MOST_VARIANTS]);

// The part of gyre_tune for products with weights (tune_product.c).
gyre_status gyre_tune_matmul(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                             gyre_error *err) GYRE_MUST_USE;
// The parts of gyre_tune and gyre_tune_splits for attention (tune_attn.c).
gyre_status gyre_tune_attn(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                           gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_tune_attn_split(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                                 gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_tune_attn_merge(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                                 gyre_error *err) GYRE_MUST_USE;
uint32_t gyre_tune_attn_splits(const gyre_graph *g, const struct gyre_node *node);

// The part of gyre_tune for gradients (tune_back.c).
gyre_status gyre_tune_back(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                           gyre_error *err) GYRE_MUST_USE;

// Floats of memory that the chosen kernel needs beside its outputs; 0: none. Asked before the graph is planned.
uint64_t gyre_tune_temp(const gyre_graph *g, const struct gyre_node *node);

// Whether a product is worth quantizing what it reads (a quant_matmul that replaces two nodes) on this device.
bool gyre_tune_quantizes(const gyre_graph *g, const struct gyre_node *fused);

// Whether a product of floats is worth three of bytes on this device: a quantizer to 24 bits in front of it (split.c).
bool gyre_tune_takes_bytes(const gyre_graph *g, const struct gyre_node *node);

// How many parts a node is worth cutting into on this device (see split.c); 1: it stays whole.
uint32_t gyre_tune_splits(const gyre_graph *g, const struct gyre_node *node);

// The launch of the repack kernel of a form over `steps` along K, each `length` elements that one sum goes over (1: no
// sum). Its workgroups cover tile[0] columns and tile[1] steps.
gyre_status gyre_tune_repack(const struct gyre_device_info *info, uint32_t form, uint32_t steps, uint32_t length,
                             struct gyre_launch *out, gyre_error *err) GYRE_MUST_USE;
