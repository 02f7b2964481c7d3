// Status codes and error texts: the only way anything in gyre reports failure.
//
// Every fallible call returns a gyre_status (0 is success) and fills an optional, caller-owned
// gyre_error. Nothing in the library prints, exits, aborts or keeps an error in a global.
#pragma once
#include <stdarg.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// X(enum, text): one row per status. The program maps them to exit statuses (cli/main.c).
#define GYRE_STATUS_MAP(X)                                                                                             \
    X(GYRE_OK, "ok")                                                                                                   \
    X(GYRE_E_INVALID, "invalid argument") /* the caller broke the contract of a function */                            \
    X(GYRE_E_NOMEM, "out of host memory")                                                                              \
    X(GYRE_E_DEVICE_MEM, "out of device memory")                                                                       \
    X(GYRE_E_IO, "input/output error")    /* files: missing, unreadable, full disk */                                  \
    X(GYRE_E_FORMAT, "malformed input")   /* a file that lies, is cut short, or has impossible values */               \
    X(GYRE_E_UNSUPPORTED, "unsupported")  /* well-formed, but outside what gyre can do */                              \
    X(GYRE_E_DEVICE, "device failure")    /* a driver call failed */                                                   \
    X(GYRE_E_NO_DEVICE, "no such device") /* exit status 3 */                                                          \
    X(GYRE_E_CANCELLED, "cancelled")      /* the caller's cancel callback said so; exit status 130 */

typedef enum gyre_status {
#define X(name, text) name,
    GYRE_STATUS_MAP(X)
#undef X
        GYRE_STATUS_COUNT
} gyre_status;

#if defined(__GNUC__)
#define GYRE_MUST_USE __attribute__((warn_unused_result))
#define GYRE_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define GYRE_MUST_USE
#define GYRE_PRINTF(fmt, args)
#endif

// What went wrong, for a person. `message` is one line without a newline, in the form
// "WHAT (where): why; what to do". Owned by the caller; zero-initialise it.
typedef struct gyre_error {
    gyre_status code;
    char message[480];
} gyre_error;

// The fixed text of a status, never NULL.
const char *gyre_status_text(gyre_status code);

// Fills `err` (may be NULL) and returns `code`, so that a failing function ends in one statement:
//     return gyre_fail(err, GYRE_E_FORMAT, "cannot read model (%s): %s; ...", path, why);
gyre_status gyre_fail(gyre_error *err, gyre_status code, const char *format, ...) GYRE_PRINTF(3, 4);

// Runs a fallible expression; on failure returns its status from the calling function.
#define GYRE_TRY(expr)                                                                                                 \
    do {                                                                                                               \
        gyre_status gyre_try_ = (expr);                                                                                \
        if (gyre_try_ != GYRE_OK) return gyre_try_;                                                                    \
    } while (0)

// The same for functions with one cleanup label: stores the status in `st` and jumps to `done`.
#define GYRE_GO(expr)                                                                                                  \
    do {                                                                                                               \
        st = (expr);                                                                                                   \
        if (st != GYRE_OK) goto done;                                                                                  \
    } while (0)

#ifdef __cplusplus
}
#endif
