// Small questions about texts and paths.
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

// The last component of a path, with a slash at its end where the path has one; the path itself where it has no other.
const char *gyre_base_name(const char *path);

bool gyre_begins(const char *text, const char *with);
bool gyre_ends(const char *text, const char *with);
// Are they the same bytes? NULL, which is no text, is the same as NULL alone.
bool gyre_same_bytes(const char *a, size_t n, const char *b, size_t m);

// Copies a text to out[cap], cap at least 8. One that is too long loses its middle, where "..." stands then: what is
// said of a long path stands behind it. No character of UTF-8 is cut.
void gyre_shorten(char *out, size_t cap, const char *text);
// The same of what vsnprintf makes; where memory ran out it loses its end. `out` is none of what `args` point to.
void gyre_print_short(char *out, size_t cap, const char *format, va_list args);

// One behind the other, malloc'd; NULL where memory ran out.
char *gyre_joined(const char *a, const char *b, const char *c);

// `path` without slashes behind it (a folder may be named with some) and `ending`, malloc'd; NULL where memory ran out.
char *gyre_beside(const char *path, const char *ending);

// Appends n bytes to a text that grows: malloc'd (NULL while it is empty), with a 0 behind its *length bytes. False
// where memory ran out: then the text is as it was.
bool gyre_append(char **text, size_t *length, size_t *capacity, const char *more, size_t n);
