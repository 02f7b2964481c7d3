// A fuzz target: libFuzzer's entry point, and the honest inputs that mutations start from.
//
// With a plain compiler driver.c runs the seeds and a number of random mutations of them (a CTest test). With
//   cmake -B FUZZ -DGYRE_FUZZ=ON -DCMAKE_C_COMPILER=clang -DGYRE_SANITIZE=address,undefined
// (Debian: clang libclang-rt-14-dev libomp-dev) the same targets are libFuzzer programs. Start each in a directory
// of its own, from the seeds that the plain program writes:
//   mkdir corpus; build/tests/fuzz_gguf seeds corpus; OMP_NUM_THREADS=1 FUZZ/tests/fuzz_gguf -max_total_time=600 corpus
#pragma once
#include "tests/common/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Appends seed number `i`; false after the last.
bool fuzz_seed(unsigned i, struct bytes *out);
