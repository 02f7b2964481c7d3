// See device.h.
#include "tests/common/device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

bool device_required(const char *what)
{
    const char *words = getenv("GYRE_TEST_REQUIRE");
    const size_t n = strcspn(what, ":");
    while (words && *words) {
        words += strspn(words, ", ");
        const size_t length = strcspn(words, ", ");
        if (length == n && !strncmp(words, what, n)) return true;
        words += length;
    }
    return false;
}

// Missing means that no such device exists; cpu and null are always there.
static bool may_be_missing(const char *id, gyre_status status)
{
    return status == GYRE_E_NO_DEVICE && strncmp(id, "cpu", 3) && strncmp(id, "null", 4) && !device_required(id);
}

bool device_opened(const char *id, gyre_status status, const gyre_error *err)
{
    if (status != GYRE_OK && !may_be_missing(id, status)) fail_msg("%s: %s", id, err->message);
    return status == GYRE_OK;
}

gyre_device *device_try(const char *id, const struct gyre_device_options *options)
{
    gyre_error err = {0};
    gyre_device *device = NULL;
    return device_opened(id, gyre_device_open(id, options, &device, &err), &err) ? device : NULL;
}

void device_close_clean(gyre_device *device)
{
    const uint64_t live = gyre_device_counters(device).live_objects;
    gyre_device_close(device);
    assert_int_equal(live, 0);
}

int device_probe(const char *id)
{
    gyre_error err = {0};
    gyre_device *device = NULL;
    const gyre_status status = gyre_device_open(id, NULL, &device, &err);
    if (status == GYRE_OK) gyre_device_close(device);
    else fprintf(stderr, "%s: %s\n", may_be_missing(id, status) ? "skipped" : "failed", err.message);
    return status == GYRE_OK ? 0 : may_be_missing(id, status) ? 77 : 1;
}
