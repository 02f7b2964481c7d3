// The Vulkan pipeline cache on disk: reused when it fits, ignored and replaced when it is damaged, cut
// short or another device's, never a reason to fail. What happened is read from the log.
#include "backends/backend.h"
#include "backends/cache.h"
#include "tests/common/device.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char root[64], dir[96], path[512], log_text[8192];

static void keep_line(void *user, gyre_log_level level, const char *line)
{
    (void)user, (void)level;
    const size_t used = strlen(log_text);
    snprintf(log_text + used, sizeof log_text - used, "%s\n", line);
}

// Opens the device with that cache directory, makes a kernel, closes; the log is in log_text.
static void use_device(const char *cache_dir)
{
    const gyre_log log = {keep_line, NULL, GYRE_LOG_DEBUG};
    const struct gyre_device_options options = {.log = &log, .cache_dir = cache_dir, .validate = true};
    const struct gyre_kernel_params params = {.name = "add", .n_spec = 3, .spec = {33, 1, 1}};
    gyre_error err = {0};
    gyre_device *device;
    gyre_kernel *kernel;
    log_text[0] = 0;
    if (gyre_device_open("vulkan", &options, &device, &err)) fail_msg("%s", err.message);
    if (gyre_kernel_create(device, &params, &kernel, &err)) fail_msg("%s", err.message);
    gyre_kernel_destroy(device, kernel);
    gyre_device_close(device);
    assert_null(strstr(log_text, "validation:"));
}

static int said(const char *what) { return strstr(log_text, what) != NULL; }

// Fills `path` with the one file of `dir`: no temporary one stays.
static void find_file(void)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        n++;
    }
    closedir(d);
    assert_int_equal(n, 1);
}

static size_t load(unsigned char *data, size_t cap)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    const size_t n = fread(data, 1, cap, f);
    fclose(f);
    return n;
}

static void store(const unsigned char *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void second_open_reuses(void **state)
{
    (void)state;
    use_device(dir);
    assert_false(said("cache loaded") || said("cache unchanged"));
    find_file();
    use_device(dir);
    assert_true(said("cache loaded") && said("cache unchanged"));
}

// Any changed byte and any other length must be noticed, and the file be whole again afterwards.
static void damage_is_ignored(void **state)
{
    (void)state;
    static unsigned char good[1 << 20], bad[sizeof good + 1];
    use_device(dir);
    find_file();
    const size_t n = load(good, sizeof good);
    assert_true(n > 128 && n < sizeof good);
    const size_t flips[] = {0, 7, 8, 71, 72, 73, 136, 137, 138, n / 2, n - 1}; // magic, key, hash, payload
    for (size_t i = 0; i < sizeof flips / sizeof flips[0]; i++) {
        memcpy(bad, good, n);
        bad[flips[i]] ^= 0x40;
        store(bad, n);
        use_device(dir);
        if (said("cache loaded") || said("cache unchanged")) fail_msg("byte %zu: %s", flips[i], log_text);
        assert_int_equal(load(bad, sizeof bad), n);
        assert_memory_equal(bad, good, n);
    }
    const size_t sizes[] = {0, 1, 138, n - 1, n + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        memcpy(bad, good, n);
        store(bad, sizes[i]);
        use_device(dir);
        if (said("cache loaded") || said("cache unchanged")) fail_msg("%zu bytes: %s", sizes[i], log_text);
        assert_int_equal(load(bad, sizeof bad), n);
    }
    use_device(dir);
    assert_true(said("cache loaded"));
}

// A file under the right name that was made for another device, driver version or kind of blob.
static void foreign_is_ignored(void **state)
{
    (void)state;
    char key[GYRE_SHA256_HEX];
    const unsigned char blob[64] = {1};
    use_device(dir);
    find_file();
    gyre_cache_key(key, (const char *const[]){"vulkan pipelines", "another driver"}, 2);
    gyre_cache_store(root, "vulkan", key, blob, sizeof blob, NULL);
    char foreign[256];
    snprintf(foreign, sizeof foreign, "%s/vulkan-%.32s", root, key);
    assert_int_equal(rename(foreign, path), 0);
    use_device(dir);
    assert_false(said("cache loaded") || said("cache unchanged"));
    use_device(dir);
    assert_true(said("cache loaded"));
}

static void no_place_is_only_a_warning(void **state)
{
    (void)state;
    char nowhere[600];
    use_device(dir);
    find_file();
    snprintf(nowhere, sizeof nowhere, "%s/below-a-file", path);
    use_device(nowhere);
    assert_true(said("cannot store"));
    use_device(NULL);
    assert_false(said("pipeline cache"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_open_reuses),
        cmocka_unit_test(damage_is_ignored),
        cmocka_unit_test(foreign_is_ignored),
        cmocka_unit_test(no_place_is_only_a_warning),
    };
    const int missing = device_probe("vulkan");
    if (missing) return missing;
    strcpy(root, "test-pipeline-cache-XXXXXX");
    if (!mkdtemp(root)) return 1;
    snprintf(dir, sizeof dir, "%s/made/by/gyre", root); // missing parents are made
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (path[0]) unlink(path);
    for (char *slash; strlen(dir) >= strlen(root) && rmdir(dir) == 0 && (slash = strrchr(dir, '/'));) *slash = 0;
    return failed;
}
