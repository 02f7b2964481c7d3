// The host as a quick device: the cpu device with other functions behind the kernels that a block is made of, in float,
// with BLAS products and OpenMP loops. For calibration and summaries where no GPU is; tests/ops/test_fast.c holds every
// override against its reference. A library of its own (gyre_fast): what does not quantize needs no BLAS. It is in no
// list of devices.
#pragma once
#include "backends/backend.h"

// Opens a device of id "host", closed by gyre_device_close. `options` may be NULL; of them only the log counts.
// Products of integers are exact as everywhere while there is one scale per channel; with groups codes and scales are
// multiplied as floats.
gyre_status gyre_fast_device_create(const struct gyre_device_options *options, gyre_device **out,
                                    gyre_error *err) GYRE_MUST_USE;
