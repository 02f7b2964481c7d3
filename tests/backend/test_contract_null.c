// The backend contract on null.
#include "tests/backend/contract.h"

int main(void) { return contract_main("null"); }
