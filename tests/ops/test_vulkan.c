// Every op on vulkan against the references, with the validation layers on.
#include "tests/ops/check.h"

int main(int argc, char **argv) { return check_main("vulkan", argc, argv); }
