// How the OpenCL backend builds programs: constants by name, the cache on disk and its distrust, build errors.
#include "backends/cache.h"
#include "backends/opencl/ocl.h"
#include "runtime/util/file.h"
#include "tests/common/device.h"
#include "tests/common/files.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define OK(call) assert_int_equal((call), GYRE_OK)

// What the log callback has seen since the last reset.
static struct {
    int from_cache, built, errors, words;
    bool newline;
    char last_word[512]; // of a compiler
} seen;

static void listen(void *user, gyre_log_level level, const char *line)
{
    (void)user;
    seen.from_cache += strstr(line, "(from the cache)") != NULL;
    seen.built += strstr(line, "(built)") != NULL;
    seen.errors += level == GYRE_LOG_ERROR;
    if (level == GYRE_LOG_TRACE) {
        seen.words++;
        snprintf(seen.last_word, sizeof seen.last_word, "%s", line);
    }
    seen.newline = seen.newline || strchr(line, '\n');
}

static const gyre_log log_all = {listen, NULL, GYRE_LOG_DEBUG};
static char cache_dir[64];
static gyre_error err;

static gyre_device *open_device(void)
{
    const struct gyre_device_options options = {.log = &log_all, .cache_dir = cache_dir};
    gyre_device *device = NULL;
    OK(gyre_device_open("opencl:0", &options, &device, &err));
    ((struct ocl_device *)device)->store_programs = true; // also where the driver has a cache of its own
    return device;
}

// A kernel that shows its constants: y[i] = WGX * 1000000 + KEY (signed, default -7).
static const struct gyre_kernel_source show = {
    .name = "show",
    .op = "none",
    .n_writes = 1,
    .n_bindings = 1,
    .params_size = 4,
    .n_spec = 4,
    .spec_names = {"WGX", "WGY", "WGZ", "KEY"},
    .spec_defaults = {8, 1, 1, (uint32_t)-7},
    .opencl = "typedef struct { int add; } pc_t; typedef struct { ulong byte[12]; } at_t;\n"
              "__kernel __attribute__((reqd_work_group_size(WGX, WGY, WGZ)))\n"
              "void gyre_show(__global int *y, const at_t at, const pc_t pc)\n"
              "{ y[get_global_id(0)] = WGX * 1000000 + KEY + pc.add; }\n",
    .hash = 0x5103,
};

// Builds `show` on a fresh device, runs it, checks the result.
static void build_and_run(uint32_t key)
{
    gyre_device *const device = open_device();
    const struct gyre_kernel_params params = {.name = "show", .n_spec = 4, .spec = {8, 1, 1, key}};
    gyre_kernel *kernel = NULL;
    gyre_buffer *buffer = NULL;
    gyre_recording *recording = NULL;
    int32_t got[24];
    memset(&seen, 0, sizeof seen);
    OK(device->backend->kernel_create(device, &show, &params, &kernel, &err));
    kernel->source = &show; // as the front does
    kernel->params = params;
    kernel->device = device;
    OK(gyre_buffer_create(device, sizeof got, "y", &buffer, &err));
    struct gyre_dispatch dispatch = {.kernel = kernel, .bind = {{buffer, 0, sizeof got}}, .groups = {3, 1, 1}};
    memcpy(dispatch.params, &(int32_t){40}, 4);
    OK(gyre_recording_create(device, &dispatch, 1, &recording, &err));
    OK(gyre_submit(device, recording, &err));
    OK(gyre_buffer_read(device, buffer, 0, got, sizeof got, &err));
    for (int i = 0; i < 24; i++) assert_int_equal(got[i], 8000040 + (int32_t)key);
    gyre_recording_destroy(device, recording);
    gyre_buffer_destroy(device, buffer);
    device->backend->kernel_destroy(device, kernel);
    gyre_device_close(device);
}

// Calls `change` with the path of every file in the cache; returns their number.
static int each_file(void (*change)(const char *path))
{
    char path[400];
    int n = 0;
    DIR *dir = opendir(cache_dir);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", cache_dir, e->d_name);
        change(path);
        n++;
    }
    closedir(dir);
    return n;
}

static void keep(const char *path) { (void)path; }
static void drop(const char *path) { assert_int_equal(remove(path), 0); }

static void rewrite(const char *path, int64_t flip_at, uint64_t cut)
{
    char *data;
    uint64_t size;
    OK(gyre_file_read(path, 1u << 28, &data, &size, &err));
    if (flip_at >= 0) data[flip_at] ^= 1;
    else data[(int64_t)size + flip_at] ^= 1;
    OK(gyre_file_write(path, data, size - cut, &err));
    free(data);
}

static void damage_payload(const char *path) { rewrite(path, -9, 0); }
static void damage_key(const char *path) { rewrite(path, 20, 0); }
static void cut_short(const char *path) { rewrite(path, 0, 100); }
static void make_empty(const char *path) { OK(gyre_file_write(path, "", 0, &err)); }

static void second_build_comes_from_the_cache(void **state)
{
    (void)state;
    each_file(drop);
    build_and_run(5);
    assert_int_equal(seen.built, 1);
    assert_int_equal(each_file(keep), 1);
    build_and_run(5);
    assert_int_equal(seen.from_cache, 1);
    build_and_run((uint32_t)-7); // another constant is another program
    assert_int_equal(seen.built, 1);
    assert_int_equal(each_file(keep), 2);
}

static void damaged_files_are_ignored_and_replaced(void **state)
{
    (void)state;
    void (*const damages[])(const char *) = {damage_payload, damage_key, cut_short, make_empty};
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        each_file(drop);
        build_and_run(5);
        each_file(damages[i]);
        build_and_run(5);
        assert_int_equal(seen.built, 1);
        build_and_run(5);
        assert_int_equal(seen.from_cache, 1);
    }
}

// A sound file of ours whose payload the driver does not know: the source is built instead.
static void foreign_binary_is_ignored(void **state)
{
    (void)state;
    char key[GYRE_SHA256_HEX];
    gyre_device *const device = open_device();
    struct ocl_device *const d = (struct ocl_device *)device;
    char options[200];
    snprintf(options, sizeof options, "%s -cl-mad-enable%s -DWGX=8 -DWGY=1 -DWGZ=1 -DKEY=5", d->language,
             device->info.int_dot == GYRE_INT_DOT_ACCELERATED ? " -DGYRE_INT_DOT" : "");
    gyre_cache_key(key, (const char *[]){d->identity, options, "0000000000005103"}, 3);
    gyre_device_close(device);
    each_file(drop);
    gyre_cache_store(cache_dir, "opencl", key, "no program", 10, NULL);
    build_and_run(5);
    assert_int_equal(seen.built, 1);
    assert_int_equal(each_file(keep), 1); // under the same name: the key above is the backend's
}

static void build_error_is_one_line_and_a_log(void **state)
{
    (void)state;
    gyre_device *const device = open_device();
    struct gyre_kernel_source broken = show;
    broken.opencl = "__kernel void gyre_show(__global int *y)\n{ y[0] = no_such_name; y[1] = nor_this; }\n";
    const struct gyre_kernel_params params = {.name = "show", .n_spec = 4, .spec = {8, 1, 1, 1}};
    gyre_kernel *kernel = NULL;
    memset(&seen, 0, sizeof seen);
    assert_int_equal(device->backend->kernel_create(device, &broken, &params, &kernel, &err), GYRE_E_DEVICE);
    assert_null(kernel);
    assert_non_null(strstr(err.message, "(show"));
    assert_non_null(strstr(err.message, "no_such_name"));
    assert_null(strchr(err.message, '\n'));
    assert_true(seen.errors >= 3); // the options, and more lines than the one in the message
    assert_false(seen.newline);
    gyre_device_close(device);
}

// Compilers speak to the user's terminal when they have something to say.
static void kernels_build_without_a_word(void **state)
{
    (void)state;
    gyre_device *device = NULL;
    const gyre_log log = {listen, NULL, GYRE_LOG_TRACE};
    const struct gyre_device_options options = {.log = &log};
    OK(gyre_device_open("opencl:0", &options, &device, &err));
    for (uint32_t i = 0; i < gyre_kernel_source_count; i++) {
        const struct gyre_kernel_source *const source = gyre_kernel_sources[i];
        struct gyre_kernel_params params = {.name = source->name, .n_spec = source->n_spec};
        gyre_kernel *kernel = NULL;
        if (!source->opencl) continue;
        memcpy(params.spec, source->spec_defaults, sizeof params.spec);
        memset(&seen, 0, sizeof seen);
        OK(gyre_kernel_create(device, &params, &kernel, &err));
        if (seen.words && !strstr(seen.last_word, "overriding noinline")) // NVIDIA's says so of every kernel
            fail_msg("%s: %s", source->name, seen.last_word);
        gyre_kernel_destroy(device, kernel);
    }
    gyre_device_close(device);
}

static void vulkan_only_kernel_is_refused(void **state)
{
    (void)state;
    gyre_device *const device = open_device();
    struct gyre_kernel_source vulkan_only = show;
    vulkan_only.opencl = NULL;
    const struct gyre_kernel_params params = {.name = "show", .n_spec = 4, .spec = {8, 1, 1, 1}};
    gyre_kernel *kernel = NULL;
    assert_int_equal(device->backend->kernel_create(device, &vulkan_only, &params, &kernel, &err), GYRE_E_UNSUPPORTED);
    gyre_device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_build_comes_from_the_cache), cmocka_unit_test(damaged_files_are_ignored_and_replaced),
        cmocka_unit_test(foreign_binary_is_ignored),         cmocka_unit_test(build_error_is_one_line_and_a_log),
        cmocka_unit_test(kernels_build_without_a_word),      cmocka_unit_test(vulkan_only_kernel_is_refused),
    };
    // What PoCL has compiled before, it loads without the words that this program listens for.
    char here[1024], pocl[1400];
    snprintf(pocl, sizeof pocl, "%s/%s", getcwd(here, sizeof here) ? here : ".", files_path("pocl"));
    setenv("POCL_CACHE_DIR", pocl, 1);
    const int missing = device_probe("opencl:0");
    if (missing) return missing;
    snprintf(cache_dir, sizeof cache_dir, "gyre-test-programs-%ld", (long)getpid());
    if (gyre_make_dirs(cache_dir, &err) != GYRE_OK) return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    each_file(drop);
    rmdir(cache_dir);
    return failed;
}
