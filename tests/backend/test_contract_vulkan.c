// The backend contract on vulkan.
#include "tests/backend/contract.h"

int main(void) { return contract_main("vulkan"); }
