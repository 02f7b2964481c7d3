// The backend contract on opencl.
#include "tests/backend/contract.h"

int main(void) { return contract_main("opencl"); }
