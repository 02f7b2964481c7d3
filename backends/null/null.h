// The device that computes nothing: for tests that ask what would be dispatched. Its buffers are real.
#pragma once
#include "backends/backend.h"

// The dispatches of a recording made on a null device; recording->n_dispatches of them.
const struct gyre_dispatch *gyre_null_dispatches(const gyre_recording *recording);
