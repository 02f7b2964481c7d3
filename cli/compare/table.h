// Text that grows: what tables are written with.
#pragma once
#include <stddef.h>

struct cli_buffer {
    char *text; // malloc'd
    size_t n, cap;
    int failed; // memory ran out
};

void cli_put(struct cli_buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
char *cli_finish(struct cli_buffer *buffer); // the text, for the caller to free; NULL where memory ran out
