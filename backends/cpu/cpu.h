// What another device can take from the cpu device: all of its backend, with other functions behind some kernels.
#pragma once
#include "backends/cpu/ref.h"

typedef void gyre_cpu_function(const struct gyre_ref_args *args);

// A kernel object of gyre_backend_cpu that calls `run`; NULL: the reference of the kernel's op.
gyre_status gyre_cpu_kernel_create(const struct gyre_kernel_source *source, gyre_cpu_function *run, gyre_kernel **out,
                                   gyre_error *err) GYRE_MUST_USE;
