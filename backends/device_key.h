// Keys of the cache folder for what was found out about kernels on a device: choices, faults.
#pragma once
#include "runtime/util/sha256.h"

// By the device's name, its driver, all kernels' texts, and `what`.
void gyre_device_key(const char *name, const char *driver, const char *what, char out[GYRE_SHA256_HEX]);
