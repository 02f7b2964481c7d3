// Devices for tests. A test of a device that this machine lacks is skipped, unless the environment's GYRE_TEST_REQUIRE
// (a list of words: vulkan, opencl, validation) names its backend: then it fails. A device that is there and does not
// open fails always.
#pragma once
#include "backends/backend.h"

#include <stdbool.h>

// Whether GYRE_TEST_REQUIRE has `what`, or its part before a colon ("vulkan" of "vulkan:0"), as a word.
bool device_required(const char *what);

// Inside a test: the device, or NULL where it is missing and may be. options: NULL means defaults.
gyre_device *device_try(const char *id, const struct gyre_device_options *options);
// The same for what opens a device on its way (an engine): whether it did; false where the device is missing and may
// be.
bool device_opened(const char *id, gyre_status status, const gyre_error *err);
// Closes it; fails the test if anything of it is left.
void device_close_clean(gyre_device *device);

// Before any test, in main: 0 if the device can be opened, else the exit status of the program: 77 (skipped) or 1,
// with the reason on stderr.
int device_probe(const char *id);
