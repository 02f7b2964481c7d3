// The contract of backends/backend.h as tests that every device must pass. A program test_contract_<x>.c
// is a main() with one call; the tests live in contract_*.c and share what is declared here.
#pragma once
#include "backends/backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

// Runs the suite on the first device of that backend, opened with contract.options and a log. Exit status
// 77 (skipped), with the reason, where the backend is not compiled in or offers no device, unless the
// environment's GYRE_TEST_REQUIRE names it.
int contract_main(const char *backend);

extern const struct CMUnitTest contract_memory_tests[], contract_work_tests[];
extern const size_t contract_memory_count, contract_work_count;

// What the tests see: `device` lives as long as the program, `computes` is false on null.
struct contract {
    gyre_device *device;
    char id[32];
    bool computes;
    struct gyre_device_options options; // what `device` is opened with; a main() may set test hooks
    gyre_log log;
    int n_errors;     // log lines of level ERROR
    int n_validation; // log lines of the Vulkan validation layers
    char last_error[512];
};
extern struct contract contract;

// Fails the running test unless `status` is `want` and the message is one well-formed line.
void contract_refused(gyre_status status, gyre_status want, const gyre_error *err);
// Fails the running test, with the message, unless `status` is GYRE_OK.
void contract_ok(gyre_status status, const gyre_error *err);

gyre_device *contract_open(const struct gyre_device_options *options);
gyre_buffer *contract_buffer(gyre_device *device, uint64_t size);
void contract_write(gyre_buffer *buffer, uint64_t offset, const void *data, uint64_t size);
void contract_read(gyre_buffer *buffer, uint64_t offset, void *data, uint64_t size);
gyre_kernel *contract_add_kernel(gyre_device *device);

// y[count] = a[count] + b[count] at byte offsets of the three buffers.
struct contract_span {
    gyre_buffer *buffer;
    uint64_t offset;
};
struct gyre_dispatch contract_add(gyre_kernel *kernel, struct contract_span y, struct contract_span a,
                                  struct contract_span b, uint32_t count);
