// The backend contract on cpu.
#include "tests/backend/contract.h"

int main(void) { return contract_main("cpu"); }
