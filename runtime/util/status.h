// How a failing function ends: the status codes and error texts of gyre_base.h, filled and passed on.
#pragma once
#include <gyre/gyre_base.h>
#include <stdarg.h>

// Fills `err` (may be NULL) and returns `code`, so that a failing function ends in one statement:
//     return gyre_fail(err, GYRE_E_FORMAT, "cannot read model (%s): %s; ...", path, why);
gyre_status gyre_fail(gyre_error *err, gyre_status code, const char *format, ...) GYRE_PRINTF(3, 4);

// Takes a params struct of the caller (NULL, or one that begins with its size) into `out`, the library's own of `bytes`
// bytes, as gyre_base.h says. `first`: its size at level 2000. `what` names it in the error.
gyre_status gyre_params_take(const void *given, void *out, size_t bytes, size_t first, const char *what,
                             gyre_error *err) GYRE_MUST_USE;

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
