// What the public headers of gyre share: versions, status codes, errors, the log. C17 and C++11; no header of gyre
// needs another one than these.
//
// Every call that can fail returns a gyre_status (0 is success) and fills an optional gyre_error that the caller
// owns. The library prints nothing, ends nothing, keeps no error in a global and reads no environment but what
// gyre_engine_params names and, for PoCL, PATH; numbers in texts are the same in any locale. Texts and paths are UTF-8.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GYRE_API __attribute__((visibility("default"))) // everything else in the library is hidden
#define GYRE_MUST_USE __attribute__((warn_unused_result))
#define GYRE_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define GYRE_API
#define GYRE_MUST_USE
#define GYRE_PRINTF(fmt, args)
#endif

// ---- versions ---------------------------------------------------------------------------------------

#define GYRE_VERSION "0.1.0"

// One number for the whole interface, raised by every change of it (docs/api-changes.md lists them). Changes within a
// major number only append: functions, enum values, members of structs that begin with `size`. All other structs, what
// the library fills among them, stay as they are: it cannot know how long the caller's are. The major number is in the
// library's name (libgyre.so.2), so a program never meets another.
#define GYRE_API_MAJOR 2
#define GYRE_API_MINOR 8
#define GYRE_API_LEVEL (GYRE_API_MAJOR * 1000 + GYRE_API_MINOR)

GYRE_API const char *gyre_version(void); // of the library that runs
GYRE_API int gyre_api_level(void);       // likewise

// Params structs begin with `size`, which is the caller's sizeof of the struct: members that a caller does not know
// have their defaults. Every member has its default where it is zero. Size 0 stands for the struct as it was at level
// 2000. What is appended begins where the struct ended, not in its padding, which callers do not clear. A struct larger
// than the library's is taken while its tail is zero; else GYRE_E_UNSUPPORTED, for it asks for something that this
// library does not know.

// ---- status -----------------------------------------------------------------------------------------

// X(enum, text): one row per status; new ones come at the end. What a caller can do about them: after INVALID, IO,
// FORMAT, UNSUPPORTED, NO_DEVICE and CANCELLED every object is as its function says and can be used on; after NOMEM
// and DEVICE_MEM too, once something was freed. After DEVICE the sessions are consistent, but the device may be
// lost: if the next call fails too, close the engine and open another.
#define GYRE_STATUS_MAP(X)                                                                                             \
    X(GYRE_OK, "ok")                                                                                                   \
    X(GYRE_E_INVALID, "invalid argument") /* the caller broke the contract of a function */                            \
    X(GYRE_E_NOMEM, "out of host memory")                                                                              \
    X(GYRE_E_DEVICE_MEM, "out of device memory")                                                                       \
    X(GYRE_E_IO, "input/output error")    /* files: missing, unreadable, full disk */                                  \
    X(GYRE_E_FORMAT, "malformed input")   /* a file that lies, is cut short, or has impossible values */               \
    X(GYRE_E_UNSUPPORTED, "unsupported")  /* well-formed, but outside what gyre can do */                              \
    X(GYRE_E_DEVICE, "device failure")    /* a driver call failed */                                                   \
    X(GYRE_E_NO_DEVICE, "no such device") /* exit status 3 of the program */                                           \
    X(GYRE_E_CANCELLED, "cancelled")      /* a callback or gyre_session_cancel said so */

typedef enum gyre_status {
#define X(name, text) name,
    GYRE_STATUS_MAP(X)
#undef X
        GYRE_STATUS_COUNT
} gyre_status;

// What went wrong, for a person. `message` is one line without a newline, in the form
// "WHAT (where): why; what to do". Owned by the caller; zero-initialise it.
typedef struct gyre_error {
    gyre_status code;
    char message[480];
} gyre_error;

// The fixed text of a status, never NULL. Thread-safety: safe.
GYRE_API const char *gyre_status_text(gyre_status code);

// Refuses, with GYRE_E_UNSUPPORTED, a program that was compiled for a later level of the interface than the library
// has:
//     gyre_api_check(GYRE_API_LEVEL, &err)
GYRE_API gyre_status gyre_api_check(int level, gyre_error *err) GYRE_MUST_USE;

// Frees what the library allocated for the caller. Accepts NULL. Thread-safety: safe.
GYRE_API void gyre_free(void *memory);

// ---- log --------------------------------------------------------------------------------------------

typedef enum gyre_log_level {
    GYRE_LOG_ERROR,
    GYRE_LOG_WARN,
    GYRE_LOG_INFO,
    GYRE_LOG_DEBUG,
    GYRE_LOG_TRACE
} gyre_log_level;

// `write` gets one line without a newline, "subsystem: message", values with units, on the thread that made the call.
// NULL is valid and silent.
typedef struct gyre_log {
    void (*write)(void *user, gyre_log_level level, const char *line);
    void *user;
    gyre_log_level level; // lines above this level are dropped
} gyre_log;

#ifdef __cplusplus
}
#endif
