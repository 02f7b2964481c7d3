// Learned clips: what share of a row's range the run-time quantizers keep, for every tap and for keys and values of
// every block. Files of gyre's own say so with gyre.learned_clips and hold tensors gyre.act_clips f32[layers *
// products], in the order of the products, and gyre.kv_clips f32[layers * 2], of keys, then of values.
#pragma once
#include "runtime/model/roles.h"

enum { GYRE_CACHED = 2 };

// Those of one block; zeros where the file has none. GYRE_E_FORMAT for a tensor that is missing, of another shape or
// type, or holds a value outside 0.05 to 1.
gyre_status gyre_clips_read(const gyre_source *source, const struct gyre_hparams *hp, uint32_t layer,
                            float act[GYRE_PRODUCTS], float kv[GYRE_CACHED], gyre_error *err) GYRE_MUST_USE;
// Whether such a file has a tensor of this name.
bool gyre_clips_read_tensor(const struct gyre_hparams *hp, const char *name);
