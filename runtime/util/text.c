// See text.h.
#include "runtime/util/text.h"

#include "runtime/util/array.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *gyre_base_name(const char *path)
{
    const char *last = path;
    for (const char *p = path; *p; p++)
        if (p[0] == '/' && p[1] && p[1] != '/') last = p + 1;
    return last;
}

bool gyre_begins(const char *text, const char *with) { return !strncmp(text, with, strlen(with)); }

bool gyre_ends(const char *text, const char *with)
{
    const size_t n = strlen(text), m = strlen(with);
    return n >= m && !strcmp(text + n - m, with);
}

bool gyre_same_bytes(const char *a, size_t n, const char *b, size_t m)
{
    return a && b ? n == m && !memcmp(a, b, n) : a == b;
}

static bool goes_on(char byte) { return ((unsigned char)byte & 0xC0) == 0x80; }

void gyre_shorten(char *out, size_t cap, const char *text)
{
    const size_t n = strlen(text), room = cap - sizeof "...";
    size_t head = room / 2, tail = n - (room - room / 2);
    if (n < cap) {
        memcpy(out, text, n + 1);
        return;
    }
    for (int k = 0; k < 3 && head && goes_on(text[head]); k++) head--;
    for (int k = 0; k < 3 && goes_on(text[tail]); k++) tail++;
    memcpy(out, text, head);
    memcpy(out + head, "...", 3);
    memcpy(out + head + 3, text + tail, n - tail + 1);
}

void gyre_print_short(char *out, size_t cap, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    const int n = vsnprintf(out, cap, format, args);
    char *whole = n < (int)cap ? NULL : malloc((size_t)n + 1); // a path or an argument of any length
    if (whole) {
        vsnprintf(whole, (size_t)n + 1, format, again);
        gyre_shorten(out, cap, whole);
    }
    va_end(again);
    free(whole);
}

char *gyre_joined(const char *a, const char *b, const char *c)
{
    char *out = malloc(strlen(a) + strlen(b) + strlen(c) + 1);
    return out ? strcat(strcat(strcpy(out, a), b), c) : NULL;
}

char *gyre_beside(const char *path, const char *ending)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    char *out = malloc(n + strlen(ending) + 1);
    if (!out) return NULL;
    memcpy(out, path, n);
    strcpy(out + n, ending);
    return out;
}

bool gyre_append(char **text, size_t *length, size_t *capacity, const char *more, size_t n)
{
    if (!gyre_room(text, *length + n + 1, capacity, 1)) return false;
    if (n) memcpy(*text + *length, more, n);
    *length += n;
    (*text)[*length] = 0;
    return true;
}
