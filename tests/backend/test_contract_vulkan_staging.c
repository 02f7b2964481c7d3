// The backend contract on vulkan with the staging ring that separate device memory needs.
#include "tests/backend/contract.h"

int main(void)
{
    contract.options.staging = true;
    return contract_main("vulkan");
}
