// One dispatch, two devices: run it on the cpu device (the references) and on another one, compare what it wrote.
//
// The cases of an op are a function cases_<op>(struct check *) in one of cases_*.c; it calls check_run once per shape.
// test_vulkan.c and test_opencl.c list every row of runtime/core/ops.def, so a row without cases does not link.
// Memory from check_alloc and its relatives lives until the op's function returns.
#pragma once
#include "backends/backend.h"
#include "shaders/params.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct check {
    gyre_device *reference, *device;
    const char *op;         // being tested
    uint32_t cases, failed; // of this op
    uint64_t random;        // state of check_random
    bool floats; // the device sums scaled integers as floats: CHECK_BITS becomes CHECK_NMSE where a bound is given
    struct check_block *blocks;
};

enum check_rule {
    CHECK_NMSE, // f32: sum of squared differences <= bound * sum of squares
    CHECK_BITS, // the same bits
    CHECK_CODES // packed signed bytes: never more than 1 apart, and apart in at most 1 byte of 100
};

// `data` is what the buffer holds before the dispatch; an output whose data is NULL holds CHECK_UNTOUCHED words, and
// the device must leave those alone that the reference leaves alone.
struct check_bind {
    const void *data;
    size_t size;          // bytes, a multiple of 4
    enum check_rule rule; // outputs
    double bound;
    // When not NULL, instead of `rule`: false, with a message in `why`, when `got` is not an acceptable form of `want`.
    bool (*compare)(const void *want, const void *got, size_t size, char why[200]);
};
bool check_anything(const void *want, const void *got, size_t size,
                    char why[200]); // for scratch that counts as an output
#define CHECK_UNTOUCHED 0xA5A5A5A5u

struct check_case {
    const char *kernel; // a row of shaders/kernels.def
    const void *params; // its parameter struct
    uint32_t n_spec, spec[GYRE_MAX_SPEC];
    uint32_t groups[3];                        // 0 counts as 1
    struct check_bind bind[GYRE_MAX_BINDINGS]; // in the row's order
};

// Runs the case on both devices, compares, prints the first difference with `label`. Counts into check->failed.
void check_run(struct check *check, const struct check_case *c, const char *label, ...)
    __attribute__((format(printf, 3, 4)));

// Names on stderr the kernels of an op that no check_run of this program has named; returns their number.
int check_missing(const char *op);

// ---- inputs -------------------------------------------------------------------------------------------

// Zeroed. Running out of memory ends the test program: nothing after it could be tested.
void *check_alloc(struct check *check, size_t bytes);
void check_release(struct check *check);                          // everything allocated so far
uint32_t check_random(struct check *check);                       // 32 random bits
float *check_normal(struct check *check, size_t n, double sigma); // normally distributed
float *check_uniform(struct check *check, size_t n, double lo, double hi);
uint32_t *check_words(struct check *check, size_t n, uint32_t mask); // random bits under a mask

// Bit masks of ±1 Hadamard matrices of orders k1, k2, k3 in the layout of shaders/params.h; *words is their number (>=
// 1). Orders: 1, or q + 1 for a prime q = 3 mod 4.
uint32_t *check_had_base(struct check *check, const int k[3], size_t *words);

// ---- programs -----------------------------------------------------------------------------------------

#define OP(name, outputs, inputs, params, lower, tune, grad) void cases_##name(struct check *check);
#include "runtime/core/ops.def"
#undef OP

// Set before check_main: only ops with an int8 dot form, and that form, whether or not the device has it in hardware.
extern bool check_dot_form;

// Runs the cases of every op, or of those of the lowering family argv[1] (runtime/core/ops.def), or else of those whose
// name contains argv[1], on the first device of `backend`. Returns the exit
// status: 77 (skipped) where there is no such device, unless the environment's GYRE_TEST_REQUIRE names it.
int check_main(const char *backend, int argc, char **argv);
// The same on a device that is open, and closed here.
int check_device(const char *name, gyre_device *device, int argc, char **argv);
