// Lists, describes, opens and closes OpenCL devices; owns the backend's function table. Knows no kernels.
// Facts come from the OpenCL 1.2 and 3.0 specifications and the cl_khr_integer_dot_product, cl_intel_required_-
// subgroup_size, cl_nv_device_attribute_query and cl_amd_device_attribute_query extensions.
#include "backends/opencl/ocl.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_DEVICES = 32 };

// What cl_ext.h of some distributions lacks.
enum { WARP_SIZE_NV = 0x4003, WAVEFRONT_WIDTH_AMD = 0x4043, SUB_GROUP_SIZES_INTEL = 0x4108 };

struct candidate {
    cl_platform_id platform;
    cl_device_id id;
};

// A text of the platform, or of the device when `id` is given; the caller frees it. NULL if it cannot be had.
static char *get_text(cl_platform_id platform, cl_device_id id, cl_uint what)
{
    size_t size = 0;
    cl_int code = id ? gyre_ocl.GetDeviceInfo(id, what, 0, NULL, &size)
                     : gyre_ocl.GetPlatformInfo(platform, what, 0, NULL, &size);
    char *text = code == CL_SUCCESS ? calloc(size + 1, 1) : NULL;
    if (!text) return NULL;
    code = id ? gyre_ocl.GetDeviceInfo(id, what, size, text, NULL)
              : gyre_ocl.GetPlatformInfo(platform, what, size, text, NULL);
    if (code == CL_SUCCESS) return text;
    free(text);
    return NULL;
}

// An integer fact of any width up to 8 bytes (zero-extended: all targets are little-endian); 0 if unknown.
static uint64_t get_number(cl_device_id id, cl_device_info what)
{
    uint64_t value = 0;
    return gyre_ocl.GetDeviceInfo(id, what, sizeof value, &value, NULL) == CL_SUCCESS ? value : 0;
}

static bool has_extension(const char *extensions, const char *name)
{
    const size_t length = strlen(name);
    for (const char *p = extensions ? strstr(extensions, name) : NULL; p; p = strstr(p + length, name))
        if ((p == extensions || p[-1] == ' ') && (p[length] == ' ' || !p[length])) return true;
    return false;
}

// OpenCL version times 10 out of "OpenCL 1.2 vendor text"; 0 if the text is something else.
static int get_version(cl_device_id id)
{
    int major = 0, minor = 0;
    char *text = get_text(NULL, id, CL_DEVICE_VERSION);
    const int n = text ? sscanf(text, "OpenCL %d.%d", &major, &minor) : 0;
    free(text);
    return n == 2 ? 10 * major + minor : 0;
}

// Why gyre cannot use a device, or NULL.
static const char *refusal(cl_device_id id)
{
    if (!get_number(id, CL_DEVICE_AVAILABLE)) return "the driver says that it is not available";
    if (!get_number(id, CL_DEVICE_COMPILER_AVAILABLE)) return "it has no compiler";
    if (!get_number(id, CL_DEVICE_ENDIAN_LITTLE)) return "it is big-endian";
    if (get_version(id) < 12) return "it is older than OpenCL 1.2";
    return NULL;
}

// Is there a program of this name, as a shell would look for it?
static bool in_path(const char *program)
{
    char file[4096];
    for (const char *at = getenv("PATH"); at && *(at += strspn(at, ":"));) {
        const size_t n = strcspn(at, ":");
        if ((size_t)snprintf(file, sizeof file, "%.*s/%s", (int)n, at, program) < sizeof file && !access(file, X_OK))
            return true;
        at += n;
    }
    return false;
}

// Why asking a platform for its devices, or one of these for a kernel, would end the process; NULL: it would not. PoCL
// does so where it lacks what it takes for granted. Its releases behind 7 may link kernels by themselves.
static const char *danger(cl_platform_id platform)
{
    int major = 0;
    char *name = get_text(platform, NULL, CL_PLATFORM_NAME), *version = get_text(platform, NULL, CL_PLATFORM_VERSION);
    const bool is = name && version && !strcmp(name, "Portable Computing Language") &&
                    sscanf(version, "OpenCL %*d.%*d %*s %d", &major) == 1 && major <= 7;
    free(name);
    free(version);
    if (is && access("/sys/devices/system/cpu/cpu0/topology", F_OK))
        return "PoCL needs /sys, which is not mounted here";
    if (is && !in_path("ld"))
        return "PoCL links kernels with ld, and no folder of PATH has it; install binutils, or add ld's folder to PATH";
    return NULL;
}

// All usable devices in the order of their platforms: an index into this list is the number in "opencl:0".
static int list_candidates(struct candidate *out, int cap, char why[160])
{
    cl_platform_id platforms[MAX_DEVICES];
    cl_device_id ids[MAX_DEVICES];
    cl_uint n_platforms = 0, n_ids;
    int n = 0;
    if (!gyre_ocl_load(why)) return 0;
    snprintf(why, 160, "no OpenCL driver offers a device");
    if (gyre_ocl.GetPlatformIDs(MAX_DEVICES, platforms, &n_platforms) != CL_SUCCESS) return 0;
    for (cl_uint p = 0; p < GYRE_MIN(n_platforms, (cl_uint)MAX_DEVICES); p++) {
        n_ids = 0;
        const char *ends = danger(platforms[p]);
        if (ends) snprintf(why, 160, "%s", ends);
        if (ends) continue;
        if (gyre_ocl.GetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, MAX_DEVICES, ids, &n_ids) != CL_SUCCESS) continue;
        for (cl_uint d = 0; d < GYRE_MIN(n_ids, (cl_uint)MAX_DEVICES); d++) {
            const char *reason = refusal(ids[d]);
            if (reason) {
                char *name = get_text(NULL, ids[d], CL_DEVICE_NAME);
                snprintf(why, 160, "cannot use %.60s: %s", name ? name : "a device without a name", reason);
                free(name);
            } else if (n < cap) {
                out[n++] = (struct candidate){platforms[p], ids[d]};
            }
        }
    }
    return n;
}

static gyre_int_dot get_int_dot(cl_device_id id, const char *extensions)
{
    if (!has_extension(extensions, "cl_khr_integer_dot_product")) return GYRE_INT_DOT_NONE;
    cl_device_integer_dot_product_acceleration_properties_khr fast = {0};
    const cl_int code = gyre_ocl.GetDeviceInfo(
        id, CL_DEVICE_INTEGER_DOT_PRODUCT_ACCELERATION_PROPERTIES_4x8BIT_PACKED_KHR, sizeof fast, &fast, NULL);
    // The dialect reaches the builtin through its OpenCL C 3.0 feature macro.
    return code == CL_SUCCESS && fast.signed_accelerated && get_version(id) >= 30 ? GYRE_INT_DOT_ACCELERATED
                                                                                  : GYRE_INT_DOT_EMULATED;
}

static void get_subgroups(cl_device_id id, const char *extensions, struct gyre_device_info *info)
{
    if (has_extension(extensions, "cl_intel_required_subgroup_size")) {
        size_t sizes[16] = {0}, bytes = 0;
        if (gyre_ocl.GetDeviceInfo(id, SUB_GROUP_SIZES_INTEL, sizeof sizes, sizes, &bytes) != CL_SUCCESS) return;
        for (size_t i = 0; i < bytes / sizeof sizes[0]; i++) {
            const uint32_t size = (uint32_t)sizes[i];
            info->subgroup_min = info->subgroup_min ? GYRE_MIN(info->subgroup_min, size) : size;
            info->subgroup_max = GYRE_MAX(info->subgroup_max, size);
        }
    } else if (has_extension(extensions, "cl_nv_device_attribute_query")) {
        info->subgroup_min = info->subgroup_max = (uint32_t)get_number(id, WARP_SIZE_NV);
    } else if (has_extension(extensions, "cl_amd_device_attribute_query")) {
        info->subgroup_min = info->subgroup_max = (uint32_t)get_number(id, WAVEFRONT_WIDTH_AMD);
    }
}

static gyre_status describe(const struct candidate *c, int index, struct gyre_device_info *info, gyre_error *err)
{
    char *const name = get_text(NULL, c->id, CL_DEVICE_NAME);
    char *const version = get_text(NULL, c->id, CL_DRIVER_VERSION);
    char *const platform = get_text(c->platform, NULL, CL_PLATFORM_NAME);
    char *const extensions = get_text(NULL, c->id, CL_DEVICE_EXTENSIONS);
    gyre_status st = GYRE_OK;
    if (!name || !version || !platform || !extensions) {
        st = gyre_fail(err, GYRE_E_DEVICE,
                       "cannot describe device (opencl:%d): its driver gives no name; update the driver", index);
        goto done;
    }
    *info = (struct gyre_device_info){
        .software = (get_number(c->id, CL_DEVICE_TYPE) & CL_DEVICE_TYPE_CPU) != 0,
        .memory_bytes = get_number(c->id, CL_DEVICE_GLOBAL_MEM_SIZE),
        .max_buffer = get_number(c->id, CL_DEVICE_MAX_MEM_ALLOC_SIZE),
        .max_binding = get_number(c->id, CL_DEVICE_MAX_MEM_ALLOC_SIZE),
        .max_workgroup = (uint32_t)get_number(c->id, CL_DEVICE_MAX_WORK_GROUP_SIZE),
        .max_groups = {INT32_MAX, INT32_MAX, INT32_MAX}, // kernels hold a group's number in an int
        .shared_bytes = (uint32_t)get_number(c->id, CL_DEVICE_LOCAL_MEM_SIZE),
        .int_dot = get_int_dot(c->id, extensions),
        .f16 = has_extension(extensions, "cl_khr_fp16"),
        .unified = get_number(c->id, CL_DEVICE_HOST_UNIFIED_MEMORY) != 0,
    };
    info->lanes = info->software ? GYRE_LANES_LOOP : GYRE_LANES_HARDWARE;
    size_t sizes[8] = {0};
    (void)gyre_ocl.GetDeviceInfo(c->id, CL_DEVICE_MAX_WORK_ITEM_SIZES, sizeof sizes, sizes, NULL);
    for (int i = 0; i < 3; i++) info->max_group_size[i] = (uint32_t)GYRE_MIN(sizes[i], (size_t)UINT32_MAX);
    snprintf(info->name, sizeof info->name, "%s", name);
    snprintf(info->driver, sizeof info->driver, "%s %s", platform, version);
    get_subgroups(c->id, extensions, info);
done:
    free(name);
    free(version);
    free(platform);
    free(extensions);
    return st;
}

static int probe(struct gyre_device_info *out, int cap, char why[160])
{
    struct candidate found[MAX_DEVICES];
    const int n = list_candidates(found, MAX_DEVICES, why);
    int listed = 0;
    for (int i = 0; i < n; i++) {
        struct gyre_device_info info;
        if (describe(&found[i], i, &info, NULL) != GYRE_OK) continue;
        if (listed < cap) out[listed] = info;
        listed++;
    }
    return listed;
}

// The extension is provisional: a device counts only if every function is there and a recording may be queued again
// while it runs, which replay needs.
static void find_commands(struct ocl_device *d)
{
    char *const extensions = get_text(NULL, d->id, CL_DEVICE_EXTENSIONS);
    const bool offered = has_extension(extensions, CL_KHR_COMMAND_BUFFER_EXTENSION_NAME);
    free(extensions);
    if (!offered) return;
    const uint64_t can = get_number(d->id, CL_DEVICE_COMMAND_BUFFER_CAPABILITIES_KHR);
    if (!(can & CL_COMMAND_BUFFER_CAPABILITY_SIMULTANEOUS_USE_KHR)) return;
    const char *const names[] = {"clCreateCommandBufferKHR", "clCommandNDRangeKernelKHR", "clFinalizeCommandBufferKHR",
                                 "clEnqueueCommandBufferKHR", "clReleaseCommandBufferKHR"};
    void *found[GYRE_COUNT(names)];
    for (size_t i = 0; i < GYRE_COUNT(names); i++)
        if (!(found[i] = gyre_ocl.GetExtensionFunctionAddressForPlatform(d->platform, names[i]))) return;
    memcpy(&d->commands.create, &found[0], sizeof found[0]);
    memcpy(&d->commands.launch, &found[1], sizeof found[1]);
    memcpy(&d->commands.finalize, &found[2], sizeof found[2]);
    memcpy(&d->commands.enqueue, &found[3], sizeof found[3]);
    memcpy(&d->commands.release, &found[4], sizeof found[4]);
    d->use_commands = !d->base.info.software; // PoCL 3.1 replays 300 launches in 1.8 us each with it, in 1.3 without
}

static void close_device(gyre_device *device)
{
    struct ocl_device *const d = ocl_device_of(device);
    if (!d) return;
    if (d->queue) (void)gyre_ocl.Finish(d->queue);
    for (int i = 0; i < OCL_STAGES; i++)
        if (d->stages[i].done) (void)gyre_ocl.ReleaseEvent(d->stages[i].done);
    if (d->profile_queue) (void)gyre_ocl.ReleaseCommandQueue(d->profile_queue);
    if (d->queue) (void)gyre_ocl.ReleaseCommandQueue(d->queue);
    if (d->context) (void)gyre_ocl.ReleaseContext(d->context);
    free(d);
}

static gyre_status open_device(int index, const struct gyre_device_options *options, gyre_device **out, gyre_error *err)
{
    (void)options; // the front keeps them in the device
    struct candidate found[MAX_DEVICES];
    char why[160];
    const int n = list_candidates(found, MAX_DEVICES, why);
    if (index < 0 || index >= n)
        return gyre_fail(err, GYRE_E_NO_DEVICE, "cannot open device (opencl:%d): %s; see `gyre devices`", index,
                         n ? "there is none of that number" : why);
    struct ocl_device *const d = calloc(1, sizeof *d);
    if (!d) return gyre_fail(err, GYRE_E_NOMEM, "cannot open device (opencl:%d): out of host memory", index);
    d->platform = found[index].platform;
    d->id = found[index].id;
    gyre_status st = describe(&found[index], index, &d->base.info, err);
    if (st != GYRE_OK) goto fail;
    d->language = d->base.info.int_dot == GYRE_INT_DOT_ACCELERATED ? "-cl-std=CL3.0" : "-cl-std=CL1.2";

    char *const version = get_text(NULL, d->id, CL_DEVICE_VERSION);
    char *const platform = get_text(d->platform, NULL, CL_PLATFORM_VERSION);
    snprintf(d->identity, sizeof d->identity, "%s|%s|%.120s|%.120s", d->base.info.name, d->base.info.driver,
             version ? version : "", platform ? platform : "");
    free(version);
    free(platform);

    cl_int code;
    const cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)d->platform, 0};
    d->context = gyre_ocl.CreateContext(properties, 1, &d->id, NULL, NULL, &code);
    if (code == CL_SUCCESS) d->queue = gyre_ocl.CreateCommandQueue(d->context, d->id, 0, &code);
    if (code != CL_SUCCESS) {
        st = gyre_ocl_fail(err, code, "cannot open device (opencl:%d, %.80s)", index, d->base.info.name);
        goto fail;
    }
    find_commands(d);
    // PoCL keeps what it compiles, per workgroup, and compiles once more to hand a program out: a cold start of 16 s of
    // CPU time instead of 8.
    d->store_programs = !strstr(d->base.info.driver, "Portable Computing Language");
    *out = &d->base;
    return GYRE_OK;
fail:
    close_device(&d->base);
    return st;
}

const struct gyre_backend gyre_backend_opencl = {
    .name = "opencl",
    .probe = probe,
    .open = open_device,
    .close = close_device,
    .buffer_create = gyre_ocl_buffer_create,
    .buffer_destroy = gyre_ocl_buffer_destroy,
    .buffer_write = gyre_ocl_buffer_write,
    .buffer_read = gyre_ocl_buffer_read,
    .kernel_create = gyre_ocl_kernel_create,
    .kernel_destroy = gyre_ocl_kernel_destroy,
    .record = gyre_ocl_record,
    .recording_destroy = gyre_ocl_recording_destroy,
    .submit = gyre_ocl_submit,
    .wait = gyre_ocl_wait,
};
