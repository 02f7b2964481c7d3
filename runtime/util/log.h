// Writing to the caller's log (gyre_base.h). The library prints nothing by itself; a NULL log is valid and silent.
#pragma once
#include "runtime/util/status.h"

void gyre_logf(const gyre_log *log, gyre_log_level level, const char *format, ...) GYRE_PRINTF(3, 4);
