// A graph once more, in double and with everything that was rounded frozen: the function whose derivative the rules of
// quantizer/gradient claim to be. Written from the ops' definitions (backends/cpu/ref_*.c), not from the rules.
//
// Frozen are codes, which of them are clipped, zero points and the places of the extremes. With u = x / s + z at the
// frozen point, y = x + s ((q - z) - x0 / s0) where the code is not clipped and s (q - z) where it is; s moves with its
// extremes and its clip. A cache's rounding to f16 is frozen as an offset, of numbers and of scales.
#pragma once
#include "runtime/graph/node.h"

struct twin; // of a graph that was compiled with no_fuse and keep, and submitted

struct twin *twin_open(const gyre_graph *graph);
void twin_close(struct twin *twin);

// What may be moved: an array of a value (floats, data), the logarithms of a weight's scales ([k / group][n]; floats:
// the weights, [n][k]) or of a node's clips ([2]). n: elements. The array is the twin's; moving it is the test's.
double *twin_value(struct twin *twin, gyre_value value, uint64_t *n);
double *twin_weight(struct twin *twin, const struct gyre_weight *weight, uint64_t *n);
double *twin_clip(struct twin *twin, uint32_t node);

// sum of seed [rows * width] times the value of `out`, with everything as it was moved.
double twin_run(struct twin *twin, gyre_value out, const float *seed);
