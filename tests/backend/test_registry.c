// Devices by name: what is listed, what can be opened, and the message where it cannot.
#include "backends/backend.h"
#include "runtime/util/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static struct gyre_device_info list[32];

static int list_all(void)
{
    const int n = gyre_devices_list(list, 32, NULL, 0, NULL);
    assert_true(n >= 1 && n <= 32);
    return n;
}

static void hardware_first_and_cpu_last(void **state)
{
    (void)state;
    const int n = list_all();
    for (int i = 1; i < n; i++) {
        assert_true(list[i].software || !list[i - 1].software);
        for (int j = 0; j < i; j++) assert_string_not_equal(list[i].id, list[j].id);
    }
    assert_string_equal(list[n - 1].id, "cpu");
    assert_true(list[n - 1].software);
    for (int i = 0; i < n; i++) assert_string_not_equal(list[i].id, "null");
}

static void counts_without_room(void **state)
{
    (void)state;
    const int n = list_all();
    struct gyre_device_info first = {.name = "untouched"};
    struct gyre_absent absent[4];
    int n_absent;
    assert_int_equal(gyre_devices_list(&first, 0, absent, 0, &n_absent), n);
    assert_string_equal(first.name, "untouched");
    assert_int_equal(gyre_devices_list(&first, 1, absent, 4, &n_absent), n);
    assert_string_equal(first.id, list[0].id);
    for (int i = 0; i < n_absent; i++) assert_true(absent[i].backend[0] && absent[i].why[0]);
}

static void every_listed_device_opens(void **state)
{
    (void)state;
    const int n = list_all();
    for (int i = 0; i < n; i++) {
        gyre_error err = {0};
        gyre_device *device;
        if (gyre_device_open(list[i].id, NULL, &device, &err) != GYRE_OK) fail_msg("%s: %s", list[i].id, err.message);
        assert_string_equal(gyre_device_info(device)->id, list[i].id);
        assert_string_equal(gyre_device_info(device)->name, list[i].name);
        gyre_device_close(device);
    }
}

static void auto_is_the_first(void **state)
{
    (void)state;
    list_all();
    static const char *const names[] = {NULL, "auto"};
    for (size_t i = 0; i < GYRE_COUNT(names); i++) {
        gyre_error err = {0};
        gyre_device *device;
        assert_int_equal(gyre_device_open(names[i], NULL, &device, &err), GYRE_OK);
        assert_string_equal(gyre_device_info(device)->id, list[0].id);
        gyre_device_close(device);
    }
}

static void null_opens(void **state)
{
    (void)state;
    gyre_device *device;
    assert_int_equal(gyre_device_open("null", NULL, &device, NULL), GYRE_OK);
    assert_string_equal(gyre_device_info(device)->id, "null");
    gyre_device_close(device);
}

static void unknown_names_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",
        ":",
        ":0",
        "foo",
        "cpu:1",
        "cpu:",
        "cpu:0x",
        "cpu:-1",
        "cp",
        "cpuu",
        "CPU",
        "Auto",
        "vulkan:99",
        "opencl:99",
        "vulkan:9999999999",
        "null:1",
        "a name that is much longer than any that a person would type, to see what the message does"};
    for (size_t i = 0; i < GYRE_COUNT(names); i++) {
        gyre_error err = {0};
        gyre_device *device = (gyre_device *)&err;
        assert_int_equal(gyre_device_open(names[i], NULL, &device, &err), GYRE_E_NO_DEVICE);
        assert_null(device);
        assert_non_null(strstr(err.message, "cpu"));
        assert_null(strchr(err.message, '\n'));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hardware_first_and_cpu_last),
        cmocka_unit_test(counts_without_room),
        cmocka_unit_test(every_listed_device_opens),
        cmocka_unit_test(auto_is_the_first),
        cmocka_unit_test(null_opens),
        cmocka_unit_test(unknown_names_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
