// Every op on the quick host against the references: its overrides, and what it leaves to them.
#include "backends/cpu/fast.h"
#include "tests/ops/check.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    gyre_device *device;
    gyre_error err = {0};
    if (gyre_fast_device_create(NULL, &device, &err) != GYRE_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    return check_device("host", device, argc, argv);
}
