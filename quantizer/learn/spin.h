// SpinQuant's and OSTQuant's training model (arXiv 2405.16406, 2501.13987): the float model on the host, folded, with
// activations and cache quantized in the bases of R1 and R2, R4 and R3 where the output has them; its loss on a window,
// and the gradient of that by R1 and R2 and the diagonals beside them.
//
// The stream stays in the model's own basis: what a linear of the stream reads is x R1, quantized, times R1', so that
// no weight is rotated by R1 and its gradient costs two products of the stream's width a tap. Along the orthogonal
// matrices this is the gradient through merged weights; a Cayley step sees nothing else of it. R2 is merged into v and
// o, in double, anew with every step, and its gradient comes through the gradients of their weights. So are diagonals
// between queries and keys, values and o, up and down, in front of R2 and R4; those behind norms stand behind R1, where
// a tap is quantized. The gradient of a diagonal is by its logarithm.
#pragma once
#include "quantizer/gradient/teacher.h"
#include "quantizer/learn/folded.h"

typedef struct gyre_spin gyre_spin;

struct gyre_spin_options {
    uint32_t tokens;  // of a window
    uint32_t act, kv; // bits in the loop
    float act_clip, kv_clip;
    bool plain;   // SpinQuant's straight-through rule; else that of gradient/rules.h
    uint32_t top; // with a teacher: the loss sees its so many likeliest tokens alone (gradient/rules.h); 0: all
};

// `device` is a host's; like the plan and its source it outlives the model. `shape`: which matrices there are.
gyre_status gyre_spin_open(gyre_device *device, const struct gyre_plan *plan, const gyre_source *source,
                           const struct gyre_matrices *shape, const struct gyre_spin_options *options, gyre_spin **out,
                           gyre_error *err) GYRE_MUST_USE;
void gyre_spin_close(gyre_spin *spin);

// From now on with these.
gyre_status gyre_spin_set(gyre_spin *spin, const struct gyre_matrices *at, gyre_error *err) GYRE_MUST_USE;

// The mean cross entropy, per token, of a window's tokens behind those before them, or, with a teacher (NULL: none),
// the divergence from it on the window that it knows by `window`. `gradient` (NULL: none), of the shape of the
// matrices, is overwritten.
gyre_status gyre_spin_window(gyre_spin *spin, const uint32_t *token, gyre_teacher *teacher, uint32_t window,
                             double *loss, struct gyre_matrices *gradient, gyre_error *err) GYRE_MUST_USE;
