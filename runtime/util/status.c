// See status.h.
#include "runtime/util/status.h"
#include "runtime/util/text.h"

#include <stdlib.h>
#include <string.h>

const char *gyre_version(void) { return GYRE_VERSION; }
int gyre_api_level(void) { return GYRE_API_LEVEL; }
void gyre_free(void *memory) { free(memory); }

gyre_status gyre_api_check(int level, gyre_error *err)
{
    if (level / 1000 == GYRE_API_MAJOR && level <= GYRE_API_LEVEL) return GYRE_OK;
    return gyre_fail(err, GYRE_E_UNSUPPORTED,
                     "cannot use libgyre (%s): the program was compiled for interface %d.%d and the library has %d.%d; "
                     "install a matching one",
                     GYRE_VERSION, level / 1000, level % 1000, GYRE_API_MAJOR, GYRE_API_MINOR);
}

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
        char text[sizeof err->message]; // `args` may point to the message
        va_list args;
        va_start(args, format);
        gyre_print_short(text, sizeof text, format, args);
        va_end(args);
        err->code = code;
        memcpy(err->message, text, strlen(text) + 1);
    }
    return code;
}

gyre_status gyre_params_take(const void *given, void *out, size_t bytes, size_t first, const char *what,
                             gyre_error *err)
{
    size_t size = 0;
    memset(out, 0, bytes);
    if (!given) return GYRE_OK;
    memcpy(&size, given, sizeof size);
    if (size == 0) size = first;
    if (size < sizeof size)
        return gyre_fail(err, GYRE_E_INVALID, "cannot take parameters (%s): their size is %zu; set it to sizeof", what,
                         size);
    for (size_t i = bytes; i < size; i++) {
        if (((const unsigned char *)given)[i])
            return gyre_fail(err, GYRE_E_UNSUPPORTED,
                             "cannot take parameters (%s): byte %zu of %zu is set and libgyre %s knows %zu; install a "
                             "newer library",
                             what, i, size, GYRE_VERSION, bytes);
    }
    memcpy(out, given, size < bytes ? size : bytes);
    return GYRE_OK;
}
