// Reverse mode on any device: the backward pass of a graph as a graph of its own, whose nodes are ops like all
// others (the gradients of runtime/core/ops.def), and the same op where it is its own inverse or transpose:
// Hadamard transforms, RoPE with negative frequencies, gathering in the inverse order. It reads what the forward
// graph computed where that lies. No sum goes by the order in which workgroups run: the same device gives the same
// bytes.
#pragma once
#include "runtime/graph/node.h"

struct gyre_reverse {
    const gyre_graph *graph;
    bool plain;
    float **grad;      // [n_values]; before it runs: what was asked for
    double (*clip)[2]; // [n_nodes]
    double **squares;  // [n_nodes]
    bool *kept;        // [n_values] somebody asked for it
};

// As gyre_reverse_run, by ops on the graph's device: what was asked for is uploaded where it is not 0 or the
// graph's output, and read back.
// GYRE_E_UNSUPPORTED where something was asked for that has no op.
gyre_status gyre_backward_run(struct gyre_reverse *reverse, gyre_error *err) GYRE_MUST_USE;

// Whether a node of the graph computes a value, pools included: what passes gradients on.
bool gyre_backward_passes(const gyre_graph *g, gyre_value v);
// Adds the sum of squares of each row.
void gyre_backward_add_squares(const struct gyre_value_info *out, const float *dout, double *squares);
