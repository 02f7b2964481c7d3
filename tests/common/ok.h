// Calls that must succeed, in programs that include cmocka.h.
#pragma once
#include "runtime/util/status.h"

// Fails the running test, with the message, unless the call, whose last argument is `err`, returns GYRE_OK.
#define OK(call)                                                                                                       \
    do {                                                                                                               \
        gyre_error why_ = {0}, *err = &why_;                                                                           \
        if ((call) != GYRE_OK) fail_msg("%s", why_.message);                                                           \
    } while (0)
