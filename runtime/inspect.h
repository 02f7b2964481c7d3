// A model file in figures, without a device: what gyre_inspect, gyre_model_weigh and gyre_plan_memory tell.
#pragma once
#include "runtime/model/hparams.h"
#include "runtime/source/source.h"

#include <gyre/gyre.h>

struct gyre_inspection {
    gyre_source *source;
    struct gyre_hparams hp;
    gyre_model_size size;
    uint64_t weights, table; // bytes on the device: all, and the token table of it
    uint64_t kv[3];          // bytes a token at 16, 8 and 4 bits
};
gyre_status gyre_inspection_open(const char *path, struct gyre_inspection *out, gyre_error *err) GYRE_MUST_USE;
void gyre_inspection_free(struct gyre_inspection *inspection); // also after a failure
