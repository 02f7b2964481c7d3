// Opens the OpenCL loader at run time and names its errors. Knows no devices.
#include "backends/opencl/ocl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct ocl_api gyre_ocl;

static pthread_once_t load_once = PTHREAD_ONCE_INIT;
static char load_failure[160]; // empty: loaded

// A process that was started under a tool with its own OpenCL (oclgrind preloads one) gets that one.
static void *open_library(void)
{
    void *library = dlopen(NULL, RTLD_NOW);
    if (library && dlsym(library, "clGetPlatformIDs")) return library;
    library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
    return library ? library : dlopen("libOpenCL.so", RTLD_NOW | RTLD_LOCAL);
}

// The library stays open until the process ends: drivers keep threads in it.
static void load(void)
{
    void *const library = open_library();
    if (!library) {
        snprintf(load_failure, sizeof load_failure, "libOpenCL.so.1 not found");
        return;
    }
    void *symbol;
#define X(name)                                                                                                        \
    symbol = dlsym(library, "cl" #name);                                                                               \
    memcpy(&gyre_ocl.name, &symbol, sizeof symbol);                                                                    \
    if (!symbol) snprintf(load_failure, sizeof load_failure, "libOpenCL.so.1 lacks cl" #name " of OpenCL 1.2");
    OCL_API(X)
#undef X
}

bool gyre_ocl_load(char why[160])
{
    pthread_once(&load_once, load);
    if (load_failure[0]) memcpy(why, load_failure, sizeof load_failure);
    return !load_failure[0];
}

// clang-format off
#define OCL_ERRORS(X)                                                                                                  \
    X(CL_DEVICE_NOT_FOUND) X(CL_DEVICE_NOT_AVAILABLE) X(CL_COMPILER_NOT_AVAILABLE)                                     \
    X(CL_MEM_OBJECT_ALLOCATION_FAILURE) X(CL_OUT_OF_RESOURCES) X(CL_OUT_OF_HOST_MEMORY)                                \
    X(CL_PROFILING_INFO_NOT_AVAILABLE) X(CL_MEM_COPY_OVERLAP) X(CL_BUILD_PROGRAM_FAILURE) X(CL_MAP_FAILURE)            \
    X(CL_MISALIGNED_SUB_BUFFER_OFFSET) X(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST) X(CL_INVALID_VALUE)             \
    X(CL_INVALID_DEVICE_TYPE) X(CL_INVALID_PLATFORM) X(CL_INVALID_DEVICE) X(CL_INVALID_CONTEXT)                        \
    X(CL_INVALID_QUEUE_PROPERTIES) X(CL_INVALID_COMMAND_QUEUE) X(CL_INVALID_MEM_OBJECT) X(CL_INVALID_BINARY)           \
    X(CL_INVALID_BUILD_OPTIONS) X(CL_INVALID_PROGRAM) X(CL_INVALID_PROGRAM_EXECUTABLE)                                 \
    X(CL_INVALID_KERNEL_NAME) X(CL_INVALID_KERNEL_DEFINITION) X(CL_INVALID_KERNEL) X(CL_INVALID_ARG_INDEX)             \
    X(CL_INVALID_ARG_VALUE) X(CL_INVALID_ARG_SIZE) X(CL_INVALID_KERNEL_ARGS) X(CL_INVALID_WORK_DIMENSION)              \
    X(CL_INVALID_WORK_GROUP_SIZE) X(CL_INVALID_WORK_ITEM_SIZE) X(CL_INVALID_GLOBAL_OFFSET)                             \
    X(CL_INVALID_EVENT_WAIT_LIST) X(CL_INVALID_EVENT) X(CL_INVALID_OPERATION) X(CL_INVALID_BUFFER_SIZE)                \
    X(CL_INVALID_GLOBAL_WORK_SIZE) X(CL_INVALID_PROPERTY) X(CL_INVALID_COMMAND_BUFFER_KHR)                             \
    X(CL_INCOMPATIBLE_COMMAND_QUEUE_KHR)
// clang-format on

const char *gyre_ocl_error_name(cl_int code)
{
    switch (code) {
#define X(name)                                                                                                        \
    case name:                                                                                                         \
        return #name;
        OCL_ERRORS(X)
#undef X
    default:
        return "unknown OpenCL error";
    }
}

gyre_status gyre_ocl_fail(gyre_error *err, cl_int code, const char *format, ...)
{
    gyre_status status = GYRE_E_DEVICE;
    const char *advice = "update the driver or use another device";
    switch (code) {
    case CL_OUT_OF_HOST_MEMORY:
        status = GYRE_E_NOMEM;
        advice = "free host memory";
        break;
    case CL_OUT_OF_RESOURCES:
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
    case CL_INVALID_BUFFER_SIZE:
        status = GYRE_E_DEVICE_MEM;
        advice = "use a smaller model or context, or another device";
        break;
    case CL_DEVICE_NOT_AVAILABLE:
        status = GYRE_E_NO_DEVICE;
        break;
    default:
        break;
    }
    char what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return gyre_fail(err, status, "%s: %s (%d); %s", what, gyre_ocl_error_name(code), (int)code, advice);
}
