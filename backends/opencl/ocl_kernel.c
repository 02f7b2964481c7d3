// Turns a kernel's text and constants into a program, by the driver or from the cache on disk.
// The key of a cached program is (device, driver, platform, options, hash of the text).
#include "backends/cache.h"
#include "backends/opencl/ocl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPTIONS_BYTES = 2048 };

// Every constant by name. -cl-mad-enable is the only freedom given: relaxed maths breaks exp and NaN on some drivers.
static bool write_options(char *out, const struct ocl_device *d, const struct gyre_kernel_source *source,
                          const struct gyre_kernel_params *params)
{
    int at = snprintf(out, OPTIONS_BYTES, "%s -cl-mad-enable%s", d->language,
                      d->base.info.int_dot == GYRE_INT_DOT_ACCELERATED ? " -DGYRE_INT_DOT" : "");
    for (uint32_t i = 0; i < source->n_spec && at < OPTIONS_BYTES; i++)
        at += snprintf(out + at, (size_t)(OPTIONS_BYTES - at), " -D%s=%d", source->spec_names[i],
                       (int32_t)params->spec[i]);
    return at < OPTIONS_BYTES;
}

// The compiler's words; the caller frees them. NULL if there are none.
static char *build_log(const struct ocl_device *d, cl_program program)
{
    size_t size = 0;
    if (gyre_ocl.GetProgramBuildInfo(program, d->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &size) != CL_SUCCESS) return NULL;
    char *text = calloc(size + 1, 1);
    if (!text) return NULL;
    if (gyre_ocl.GetProgramBuildInfo(program, d->id, CL_PROGRAM_BUILD_LOG, size, text, NULL) == CL_SUCCESS &&
        text[strspn(text, " \t\r\n")])
        return text;
    free(text);
    return NULL;
}

// One log line per line of `text`, which is cut up. A log callback takes single lines.
static void log_lines(const gyre_log *log, gyre_log_level level, const char *kernel, char *text)
{
    char *rest = text;
    for (char *line; (line = strtok_r(rest, "\r\n", &rest));) gyre_logf(log, level, "opencl: %s: %s", kernel, line);
}

static cl_program build_from_source(struct ocl_device *d, const struct gyre_kernel_source *source, const char *options,
                                    gyre_status *st, gyre_error *err)
{
    cl_int code;
    cl_program program = gyre_ocl.CreateProgramWithSource(d->context, 1, (const char *[]){source->opencl}, NULL, &code);
    if (code == CL_SUCCESS) code = gyre_ocl.BuildProgram(program, 1, &d->id, options, NULL, NULL);
    char *const text = program ? build_log(d, program) : NULL;
    if (code == CL_SUCCESS) {
        if (text) log_lines(d->base.options.log, GYRE_LOG_TRACE, source->name, text);
        free(text);
        return program;
    }
    if (text) {
        const char *const first = text + strspn(text, " \t\r\n");
        *st = gyre_fail(err, GYRE_E_DEVICE, "cannot build kernel (%s, %.60s): %.*s; the log has the whole build log",
                        source->name, d->base.info.name, (int)strcspn(first, "\r\n"), first);
        gyre_logf(d->base.options.log, GYRE_LOG_ERROR, "opencl: %s: options %s", source->name, options);
        log_lines(d->base.options.log, GYRE_LOG_ERROR, source->name, text);
    } else {
        *st = gyre_ocl_fail(err, code, "cannot build kernel (%s, %.60s)", source->name, d->base.info.name);
    }
    free(text);
    if (program) (void)gyre_ocl.ReleaseProgram(program);
    return NULL;
}

static cl_program build_from_cache(struct ocl_device *d, const char *key, const char *options)
{
    size_t size;
    cl_int code, usable;
    void *const binary = gyre_cache_load(d->base.options.cache_dir, "opencl", key, &size);
    if (!binary) return NULL;
    cl_program program = gyre_ocl.CreateProgramWithBinary(d->context, 1, &d->id, &size,
                                                          (const unsigned char *[]){binary}, &usable, &code);
    free(binary);
    if (code == CL_SUCCESS && usable == CL_SUCCESS)
        code = gyre_ocl.BuildProgram(program, 1, &d->id, options, NULL, NULL);
    if (code == CL_SUCCESS && usable == CL_SUCCESS) return program;
    if (program) (void)gyre_ocl.ReleaseProgram(program);
    return NULL;
}

static void store_in_cache(struct ocl_device *d, const char *key, cl_program program)
{
    size_t size = 0;
    if (!d->base.options.cache_dir || !d->store_programs) return;
    if (gyre_ocl.GetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof size, &size, NULL) != CL_SUCCESS || !size)
        return;
    unsigned char *binary = malloc(size);
    if (binary && gyre_ocl.GetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) == CL_SUCCESS)
        gyre_cache_store(d->base.options.cache_dir, "opencl", key, binary, size, d->base.options.log);
    free(binary);
}

// Checks that the program holds its function and that the device can run a workgroup of the wanted size.
static gyre_status check_program(struct ocl_device *d, const struct ocl_kernel *k, const char *name,
                                 const uint32_t spec[3], gyre_error *err)
{
    size_t most = 0;
    const size_t wanted = (size_t)spec[0] * spec[1] * spec[2];
    cl_ulong shared = 0;
    cl_int code;
    cl_kernel kernel = gyre_ocl.CreateKernel(k->program, k->entry, &code);
    if (code != CL_SUCCESS) return gyre_ocl_fail(err, code, "cannot create kernel (%s)", name);
    code = gyre_ocl.GetKernelWorkGroupInfo(kernel, d->id, CL_KERNEL_WORK_GROUP_SIZE, sizeof most, &most, NULL);
    if (code == CL_SUCCESS)
        code = gyre_ocl.GetKernelWorkGroupInfo(kernel, d->id, CL_KERNEL_LOCAL_MEM_SIZE, sizeof shared, &shared, NULL);
    (void)gyre_ocl.ReleaseKernel(kernel);
    if (code != CL_SUCCESS) return gyre_ocl_fail(err, code, "cannot describe kernel (%s)", name);
    if (wanted > most)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot create kernel (%s): workgroups of %zu, but %s can run %zu of "
                         "this kernel; use a smaller workgroup",
                         name, wanted, d->base.info.id, most);
    if (shared > d->base.info.shared_bytes)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot create kernel (%s): %llu bytes of shared memory, but %s has "
                         "%u; use a smaller tile",
                         name, (unsigned long long)shared, d->base.info.id, d->base.info.shared_bytes);
    return GYRE_OK;
}

gyre_status gyre_ocl_kernel_create(gyre_device *device, const struct gyre_kernel_source *source,
                                   const struct gyre_kernel_params *params, gyre_kernel **out, gyre_error *err)
{
    struct ocl_device *const d = ocl_device_of(device);
    char options[OPTIONS_BYTES], hash[24], key[GYRE_SHA256_HEX];
    gyre_status st = GYRE_OK;
    if (!source->opencl)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot build kernel (%s): it exists for Vulkan only", source->name);
    if (!write_options(options, d, source, params))
        return gyre_fail(err, GYRE_E_INVALID, "cannot build kernel (%s): too many constants", source->name);
    struct ocl_kernel *const k = calloc(1, sizeof *k);
    if (!k) return gyre_fail(err, GYRE_E_NOMEM, "cannot build kernel (%s): out of host memory", source->name);
    snprintf(k->entry, sizeof k->entry, "gyre_%s", source->name); // GYRE_ENTRY of shaders/dialect.h
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)source->hash);
    gyre_cache_key(key, (const char *[]){d->identity, options, hash}, 3);
    k->program = build_from_cache(d, key, options);
    const bool cached = k->program != NULL;
    if (!cached) k->program = build_from_source(d, source, options, &st, err);
    if (!k->program) goto done;
    GYRE_GO(check_program(d, k, source->name, params->spec, err));
    if (!cached) store_in_cache(d, key, k->program);
    gyre_logf(d->base.options.log, GYRE_LOG_DEBUG, "opencl: kernel %s %s (%s)", source->name, options,
              cached ? "from the cache" : "built");
    *out = &k->base;
done:
    if (st != GYRE_OK) gyre_ocl_kernel_destroy(device, &k->base);
    return st;
}

void gyre_ocl_kernel_destroy(gyre_device *device, gyre_kernel *kernel)
{
    (void)device;
    struct ocl_kernel *const k = ocl_kernel_of(kernel);
    if (!k) return;
    if (k->program) (void)gyre_ocl.ReleaseProgram(k->program);
    free(k);
}
