// A program with faults on purpose, for the self-check of the oclgrind lab: `faulty race`, `bounds` or
// `uninitialised` runs one kernel with that fault on opencl:0, `faulty api` makes a wrong call, `faulty none` is sound.
#include "backends/backend.h"
#include "backends/kernel_source.h"

#include <stdio.h>
#include <string.h>

#define HEAD                                                                                                           \
    "typedef struct { int n; } pc_t;\ntypedef struct { ulong byte[12]; } at_t;\n"                                      \
    "__kernel __attribute__((reqd_work_group_size(WGX, WGY, WGZ)))\n"                                                  \
    "void gyre_faulty(__global int *y, const at_t at, const pc_t pc) { int i = get_local_id(0); __local int s[8];\n"

static const struct {
    const char *name, *text;
} faults[] = {
    // what a forgotten BARRIER_L() between two steps of a reduction looks like
    {"race", HEAD "s[i] = i; if (i < 4) s[i] += s[i + 4]; barrier(CLK_LOCAL_MEM_FENCE); y[i] = s[i]; }\n"},
    {"bounds", HEAD "s[i] = 0; y[i * pc.n] = s[i]; }\n"},
    {"uninitialised", HEAD "if (i > 0) s[i] = i; barrier(CLK_LOCAL_MEM_FENCE); y[i] = s[i]; }\n"},
    {"api", HEAD "s[i] = i; y[i] = s[i]; }\n"},
    // sound, in the form that the compiler turns into a store of undef followed by the elements
    {"none",
     HEAD "__local float2 p[8]; float a = 0.0f, b = 0.0f;\n"
          "for (int j = i; j < pc.n; j += 8) { a = min(a, (float)j); b = max(b, (float)j); }\n"
          "s[i] = i; p[i] = (float2)(a, b); barrier(CLK_LOCAL_MEM_FENCE); y[i] = s[7 - i] + (int)p[7 - i].y; }\n"},
};

static gyre_status run(const char *text, bool wrong_call, gyre_error *err)
{
    const struct gyre_kernel_source source = {.name = "faulty",
                                              .op = "none",
                                              .n_writes = 1,
                                              .n_bindings = 1,
                                              .params_size = 4,
                                              .n_spec = 3,
                                              .spec_names = {"WGX", "WGY", "WGZ"},
                                              .spec_defaults = {8, 1, 1},
                                              .opencl = text,
                                              .hash = 1};
    const struct gyre_kernel_params params = {.name = "faulty", .n_spec = 3, .spec = {8, 1, 1}};
    const int32_t zero[8] = {0}, far = 1000;
    gyre_device *device = NULL;
    gyre_buffer *buffer = NULL;
    gyre_kernel *kernel = NULL;
    gyre_status st;
    GYRE_GO(gyre_device_open("opencl:0", NULL, &device, err));
    GYRE_GO(gyre_buffer_create(device, sizeof zero, "y", &buffer, err));
    GYRE_GO(gyre_buffer_write(device, buffer, 0, zero, sizeof zero, err));
    GYRE_GO(device->backend->kernel_create(device, &source, &params, &kernel, err));
    kernel->device = device; // the front does this for kernels of the table
    kernel->source = &source;
    kernel->params = params;
    struct gyre_dispatch dispatch = {.kernel = kernel, .bind = {{buffer, 0, sizeof zero}}, .groups = {1, 1, 1}};
    memcpy(dispatch.params, &far, sizeof far);
    GYRE_GO(gyre_run_once(device, &dispatch, 1, err));
    if (wrong_call) st = device->backend->buffer_write(device, buffer, 7777, zero, sizeof zero, err);
done:
    if (kernel) device->backend->kernel_destroy(device, kernel);
    if (buffer) gyre_buffer_destroy(device, buffer);
    if (device) gyre_device_close(device);
    return st;
}

int main(int argc, char **argv)
{
    gyre_error err = {0};
    for (size_t i = 0; argc == 2 && i < sizeof faults / sizeof faults[0]; i++) {
        if (strcmp(argv[1], faults[i].name)) continue;
        if (run(faults[i].text, !strcmp(argv[1], "api"), &err) == GYRE_OK) return 0;
        fprintf(stderr, "faulty: %s\n", err.message);
        return 1;
    }
    fprintf(stderr, "usage: faulty race|bounds|uninitialised|api|none\n");
    return 2;
}
