// Models without a file: a shape from shapes.def with weights made on the device, for measuring speed where no weights
// are at hand. What such a model computes is finite and means nothing; what it reads, dispatches and multiplies is what
// a rotated file of that shape would: int4 linears, an int8 table, R3 and R4, norms of heads and biases where the
// family has them.
#pragma once
#include "runtime/model/model.h"

// Fills `hp` for the shape of that name, wgroup 0 (per channel), 32, 64 or 128; act and kv default to 8 bits. Allocates
// only for rot (gyre_hparams_free). GYRE_E_INVALID for an unknown name (the message lists them all), GYRE_E_UNSUPPORTED
// for a group that does not divide a width.
gyre_status gyre_shape_hparams(const char *name, uint32_t wgroup, struct gyre_hparams *hp,
                               gyre_error *err) GYRE_MUST_USE;

// How it is made. All zero: an int8 table, and a head as the shape has it.
struct gyre_synthetic {
    bool head4;                                   // the head is a matrix of its own: int4 in groups of 32
    bool no_table;                                // see struct gyre_loading
    int (*progress)(void *user, double fraction); // as in struct gyre_loading
    void *user;
};

// Takes over *hp (it is emptied, also on failure).
gyre_status gyre_model_synthetic(gyre_device *device, struct gyre_hparams *hp, const struct gyre_synthetic *how,
                                 struct gyre_model *out, gyre_error *err) GYRE_MUST_USE;
