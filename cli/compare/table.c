// See table.h.
#include "cli/compare/table.h"
#include "runtime/util/array.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void cli_put(struct cli_buffer *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || b->failed || !GYRE_ROOM(b->text, b->n + (size_t)n + 1, b->cap)) {
        b->failed = 1;
        return;
    }
    va_start(args, format);
    b->n += (size_t)vsnprintf(b->text + b->n, b->cap - b->n, format, args);
    va_end(args);
}

char *cli_finish(struct cli_buffer *b)
{
    if (!b->failed) return b->text;
    free(b->text);
    return NULL;
}
