// See status.h.
#include "runtime/util/status.h"

#include <stdio.h>

const char *gyre_status_text(gyre_status code)
{
    static const char *const text[] = {
#define X(name, text) text,
        GYRE_STATUS_MAP(X)
#undef X
    };
    return (unsigned)code < GYRE_STATUS_COUNT ? text[code] : "unknown status";
}

gyre_status gyre_fail(gyre_error *err, gyre_status code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->code = code;
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
    }
    return code;
}
