// The log callback. The library prints nothing by itself; a NULL log is valid and silent.
#pragma once
#include "runtime/util/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum gyre_log_level {
    GYRE_LOG_ERROR,
    GYRE_LOG_WARN,
    GYRE_LOG_INFO,
    GYRE_LOG_DEBUG,
    GYRE_LOG_TRACE
} gyre_log_level;

// `write` gets one line without a newline, "subsystem: message", values with units.
typedef struct gyre_log {
    void (*write)(void *user, gyre_log_level level, const char *line);
    void *user;
    gyre_log_level level; // lines above this level are dropped
} gyre_log;

void gyre_logf(const gyre_log *log, gyre_log_level level, const char *format, ...) GYRE_PRINTF(3, 4);

#ifdef __cplusplus
}
#endif
