// A fuzz target: libFuzzer's entry point, and the honest inputs that mutations start from.
//
// With a plain compiler driver.c runs the seeds and a number of random mutations of them (a CTest test). With clang and
// -DGYRE_FUZZ=ON the same targets are libFuzzer programs; start each in a directory of its own.
#pragma once
#include "tests/common/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Appends seed number `i`; false after the last.
bool fuzz_seed(unsigned i, struct bytes *out);
