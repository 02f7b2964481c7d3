// Every op on opencl against the references.
#include "tests/ops/check.h"

int main(int argc, char **argv) { return check_main("opencl", argc, argv); }
