// The built-in recipes, and the settings of a run with every default resolved and every value checked.
#pragma once
#include "quantizer/quantizer.h"
#include "runtime/model/hparams.h"

struct gyre_recipe {
    const char *name, *about;
    bool rotate; // fold the gains and merge the rotations of the profile
};

struct gyre_settings {
    const struct gyre_recipe *recipe;
    uint32_t wbits, wgroup; // wgroup 0: per channel, and for wbits 16 and 32
    uint32_t act, kv;
    bool full; // profile
    uint64_t seed;
};

// GYRE_E_INVALID for a value that does not exist, GYRE_E_UNSUPPORTED for a group that does not divide a row of the model
// (the message names the sizes that do).
gyre_status gyre_settings_resolve(const gyre_quantize_params *params, const struct gyre_hparams *hp,
                                  struct gyre_settings *out, gyre_error *err) GYRE_MUST_USE;
