// The kernels that use int8 dot products, in the form for devices that have them in hardware.
#include "tests/ops/check.h"

int main(int argc, char **argv)
{
    check_dot_form = true;
    return check_main("vulkan", argc, argv);
}
