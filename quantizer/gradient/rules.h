// Reverse mode: the rule of each op, on the host. A rule reads what its node read and wrote, all still in memory, and
// the gradient of what it wrote; it adds the gradients of what it read.
//
// Weights are codes and scales: with codes fixed everything is differentiable but the quantizers of activations and of
// the cache. Their rule is straight-through and knows their scale: with u = x / s + z and y = s (q - z),
//   dy/dx = 1 where u is not clipped, else 0;   dy/ds = (q - z) - [not clipped] x / s;   s = clip (hi - lo) / levels,
// the zero point and the place of the extremes fixed. Where a row is quantized in groups, their multiples of its scale
// are fixed too, and lo and hi are those of the group with the greatest step. The rounding of a cache's scale to f16 is
// passed through. `plain` is SpinQuant's rule instead (arXiv 2405.16406, its code): dy/dx = 1 everywhere, s fixed.
#pragma once
#include "runtime/graph/node.h"

// Gradients are float, reductions over rows double. By kind of value:
//   float, quantized  [rows, width], of the number that a code means
//   weight            int4 and int8: of the logarithm of each scale, [k / group][n]; floats: [n][k]
//   pool              [rows of the graph][2 * kv_heads * head size], keys then values, as a row of the batch wrote them
//   data              as many floats as the buffer has: gains, a head's scale, a centre
struct gyre_back {
    const gyre_graph *graph;
    const struct gyre_node *node;
    const float *dout;        // of its first output
    float *din[GYRE_MAX_INS]; // NULL where nobody asks
    double *dclip;            // [2]: of the logarithm of the clip (cache: of keys, of values); NULL where nobody asks
    bool plain;
};
typedef gyre_status gyre_back_rule(const struct gyre_back *back, gyre_error *err);

gyre_back_rule gyre_back_rms_norm, gyre_back_quantize, gyre_back_matmul, gyre_back_add, gyre_back_hadamard,
    gyre_back_gather, gyre_back_act_mul, gyre_back_rope, gyre_back_kv_write, gyre_back_attn;

// Whether what nodes read and wrote lies in memory that rules can go to.
bool gyre_back_on_host(const gyre_device *device);
// The memory behind a binding, and behind a plane of a value: a host device's. NULL where there is none.
const void *gyre_back_memory(struct gyre_binding at);
static inline const void *gyre_back_plane(const gyre_graph *graph, gyre_value value, uint32_t plane)
{
    return gyre_back_memory(gyre_graph_at(graph, value, plane));
}

static inline const struct gyre_value_info *gyre_back_info(const struct gyre_back *b, gyre_value value)
{
    return gyre_graph_value(b->graph, value);
}

// Whether attention over the batch with this row data (shaders/params.h) can be differentiated: every position of its
// sequences is a row of it.
gyre_status gyre_back_sequences(const void *data, uint32_t rows, gyre_error *err) GYRE_MUST_USE;

// What an in-place reduction over rows gives: out[i] += sum over rows of a[r][i] * b[r][i] * (by ? by[r] : 1). Row
// strides lda, ldb; b NULL: 1.
void gyre_back_columns(const float *a, uint64_t lda, const float *b, uint64_t ldb, const double *by, uint64_t rows,
                       uint64_t n, float *out);

// ---- the loss ---------------------------------------------------------------------------------------------------

// sum over rows of KL(teacher || student) in nats; `student` logits [rows][width] become the gradient of weight times
// that sum. NaN in, NaN out.
double gyre_back_divergence(const float *teacher, const float *student, uint64_t rows, uint64_t width); // the sum alone
// OSTQuant's KL-Top (arXiv 2501.13987): the terms of the teacher's `top` likeliest tokens alone, of both models'
// distributions over all; among equals the first. `out` (NULL: none), not `student`, gets the gradient.
double gyre_back_kl_top(const float *teacher, const float *student, uint64_t rows, uint64_t width, uint64_t top,
                        double weight, float *out);
double gyre_back_kl(const float *teacher, float *student, uint64_t rows, uint64_t width, double weight);
