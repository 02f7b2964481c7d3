// Reverse mode over a graph: the gradients of one value by everything that the graph read. A rule per op (column
// `grad` of runtime/core/ops.def, rules.h) walks the nodes backwards; what is differentiated is what was executed,
// integer products and the cache included. The graph is compiled with no_fuse and keep, and was submitted; fused and
// sampling ops have no rule.
//
// On a host device (the cpu or backends/cpu/fast.h) rules go to the memory of the graph; on any other the backward pass
// is a graph of ops on that device (backward.h), and gradients come back when it has run. There the gradients of float
// weights and of centres cannot be asked for, nor SpinQuant's rule.
#pragma once
#include "runtime/graph/graph.h"

typedef struct gyre_reverse gyre_reverse;

// `plain`: SpinQuant's straight-through rule. The graph must outlive it; GYRE_E_UNSUPPORTED names an op without a rule.
gyre_status gyre_reverse_open(const gyre_graph *graph, bool plain, gyre_reverse **out, gyre_error *err) GYRE_MUST_USE;
void gyre_reverse_close(gyre_reverse *reverse);

// Asks for a gradient, zeros at first: of a value (also the seed: the gradient of what the graph computed), of a
// weight, of a buffer. The shapes are rules.h's; the array is the reverse's. NULL where memory ran out or the graph
// does not read it.
float *gyre_reverse_value(gyre_reverse *reverse, gyre_value value);
float *gyre_reverse_weight(gyre_reverse *reverse, const struct gyre_weight *weight);
float *gyre_reverse_data(gyre_reverse *reverse, struct gyre_binding at);
// Asks for the sum of squares, row by row [rows of the graph], of the gradient of what the product with this weight
// gave.
const double *gyre_reverse_squares(gyre_reverse *reverse, const struct gyre_weight *weight);
// Asks for the gradient [rows of the graph][weight's n] of what the product with this weight gave.
const float *gyre_reverse_product(gyre_reverse *reverse, const struct gyre_weight *weight);
// Asks for the gradient of what the product with this weight reads, [rows of the graph][weight's k] as the values
// themselves, in front of an order or a transform of the file's own. False where memory ran out or there is none.
bool gyre_reverse_reads(gyre_reverse *reverse, const struct gyre_weight *weight, const float **value,
                        const float **gradient) GYRE_MUST_USE;

gyre_status gyre_reverse_run(gyre_reverse *reverse, gyre_error *err) GYRE_MUST_USE;

// After that: keys and values that the graph wrote into a cache, rows `stride` floats apart, and the gradients of what
// is in it, [rows of the graph][2 * kv heads * head size]. NULL where it wrote none.
void gyre_reverse_cached(const gyre_reverse *reverse, const float **value, uint64_t *stride, const float **gradient);

// And by the logarithm of a clip: of the quantizer before this weight's product, of the cache of keys (0) and
// of values (1). 0 where there is none.
double gyre_reverse_act_clip(const gyre_reverse *reverse, const struct gyre_weight *weight);
double gyre_reverse_kv_clip(const gyre_reverse *reverse, uint32_t which);
