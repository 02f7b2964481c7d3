// What the files of the OpenCL backend share: the entry points, the objects, the error helper.
// Nothing outside backends/opencl includes this, tests of this backend excepted.
#pragma once
#define CL_TARGET_OPENCL_VERSION 300
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS // clCreateCommandQueue: the one form that every version has
#include "backends/backend.h"
#include "backends/kernel_source.h"

#include <CL/cl.h>
#include <CL/cl_ext.h>

// Every entry point that is used, all of OpenCL 1.2. Looked up when the library is opened.
// clang-format off
#define OCL_API(X)                                                                                                     \
    X(GetPlatformIDs) X(GetPlatformInfo) X(GetDeviceIDs) X(GetDeviceInfo)                                              \
    X(CreateContext) X(ReleaseContext) X(CreateCommandQueue) X(ReleaseCommandQueue) X(Flush) X(Finish)                 \
    X(CreateBuffer) X(ReleaseMemObject) X(EnqueueWriteBuffer) X(EnqueueReadBuffer)                                     \
    X(EnqueueMigrateMemObjects)                                                                                        \
    X(CreateProgramWithSource) X(CreateProgramWithBinary) X(BuildProgram) X(GetProgramInfo)                            \
    X(GetProgramBuildInfo) X(ReleaseProgram) X(CreateKernel) X(SetKernelArg) X(GetKernelWorkGroupInfo)                 \
    X(ReleaseKernel) X(EnqueueNDRangeKernel) X(WaitForEvents) X(GetEventProfilingInfo) X(ReleaseEvent)                 \
    X(GetExtensionFunctionAddressForPlatform)
// clang-format on

struct ocl_api {
#define X(name) __typeof__(cl##name) *name;
    OCL_API(X)
#undef X
};
extern struct ocl_api gyre_ocl;

// Opens libOpenCL once per process and fills `gyre_ocl`. False with a reason in `why` when there is none.
bool gyre_ocl_load(char why[160]);

// "CL_OUT_OF_RESOURCES", never NULL.
const char *gyre_ocl_error_name(cl_int code);

// Fills `err` with "<format...>: <CL error>; <what to do>" and returns the status that stands for `code`.
gyre_status gyre_ocl_fail(gyre_error *err, cl_int code, const char *format, ...) GYRE_PRINTF(3, 4);

// cl_khr_command_buffer: a recording held by the driver. `create` is NULL where the device does not offer it.
struct ocl_command_buffers {
    clCreateCommandBufferKHR_fn create;
    clCommandNDRangeKernelKHR_fn launch;
    clFinalizeCommandBufferKHR_fn finalize;
    clEnqueueCommandBufferKHR_fn enqueue;
    clReleaseCommandBufferKHR_fn release;
};

// Small writes are copied here and queued, so that writing a step's rows does not wait for the step before it.
enum { OCL_STAGE_BYTES = 4096, OCL_STAGES = 16 };
struct ocl_stage {
    cl_event done; // of the last write from this slot, or NULL
    unsigned char bytes[OCL_STAGE_BYTES];
};

struct ocl_device {
    struct gyre_device base;
    cl_platform_id platform;
    cl_device_id id;
    cl_context context;
    cl_command_queue queue;         // in order; all work
    cl_command_queue profile_queue; // in order, with timestamps; made by the first gyre_profile
    const char *language;           // "-cl-std=..."
    char identity[512];             // device, driver and platform for the program cache's key
    struct ocl_command_buffers commands;
    bool use_commands;   // replay through command buffers; tests switch it
    bool store_programs; // keep built programs in options.cache_dir; tests switch it
    uint32_t next_stage;
    struct ocl_stage stages[OCL_STAGES];
};

struct ocl_buffer {
    struct gyre_buffer base;
    cl_mem memory;
};

struct ocl_kernel {
    struct gyre_kernel base;
    cl_program program;
    char entry[72]; // name of the kernel function in the program
};

// One dispatch: a kernel object of its own, arguments set, so that a replay sets nothing.
struct ocl_launch {
    cl_kernel kernel;
    size_t global[3], local[3];
};

struct ocl_recording {
    struct gyre_recording base;
    struct ocl_launch *launches;
    cl_command_buffer_khr commands; // NULL: plain enqueues
};

static inline struct ocl_device *ocl_device_of(gyre_device *d) { return (struct ocl_device *)d; }
static inline struct ocl_buffer *ocl_buffer_of(gyre_buffer *b) { return (struct ocl_buffer *)b; }
static inline struct ocl_kernel *ocl_kernel_of(gyre_kernel *k) { return (struct ocl_kernel *)k; }
static inline struct ocl_recording *ocl_recording_of(gyre_recording *r) { return (struct ocl_recording *)r; }

// The functions of struct gyre_backend, by file.
gyre_status gyre_ocl_buffer_create(gyre_device *, uint64_t size, const char *label, gyre_buffer **, gyre_error *);
void gyre_ocl_buffer_destroy(gyre_device *, gyre_buffer *);
gyre_status gyre_ocl_buffer_write(gyre_device *, gyre_buffer *, uint64_t offset, const void *, uint64_t size,
                                  gyre_error *);
gyre_status gyre_ocl_buffer_read(gyre_device *, gyre_buffer *, uint64_t offset, void *, uint64_t size, gyre_error *);
gyre_status gyre_ocl_kernel_create(gyre_device *, const struct gyre_kernel_source *, const struct gyre_kernel_params *,
                                   gyre_kernel **, gyre_error *);
void gyre_ocl_kernel_destroy(gyre_device *, gyre_kernel *);
gyre_status gyre_ocl_record(gyre_device *, const struct gyre_dispatch *, uint32_t n, gyre_recording **, gyre_error *);
void gyre_ocl_recording_destroy(gyre_device *, gyre_recording *);
gyre_status gyre_ocl_submit(gyre_device *, gyre_recording *, uint32_t times, uint64_t *ns, gyre_error *);
gyre_status gyre_ocl_wait(gyre_device *, gyre_error *);
