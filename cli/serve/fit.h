// How many sequences of which length fit the device.
#pragma once
#include <gyre/gyre.h>

// Fills in context and sequences of `params` where they are 0: a context of the model's, at most 4096, and four
// sequences, made fewer and then shorter until all of it fits. What is given stays; where it does not fit either,
// GYRE_E_DEVICE_MEM, and the message says what would. `adapt` false: nothing is made smaller and nothing refused.
// *plan: what it will take.
gyre_status serve_fit(const char *model, gyre_engine_params *params, bool adapt, gyre_memory_plan *plan,
                      gyre_error *err) GYRE_MUST_USE;
