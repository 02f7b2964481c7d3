// See log.h.
#include "runtime/util/log.h"

#include <stdio.h>

void gyre_logf(const gyre_log *log, gyre_log_level level, const char *format, ...)
{
    if (!log || !log->write || level > log->level) return;
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    log->write(log->user, level, line);
}
