// See json_wide.h.
#include "runtime/util/json_wide.h"

#include "runtime/util/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SURE = 18 }; // digits that int64 holds, whatever they are
static const char word[] = "gyre integer ", begin[] = "\"\\u0000gyre integer ";

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Is it all of an integer, as JSON writes it, that int64 does not hold?
static bool is_wide(const char *text, size_t n)
{
    char digits[24];
    const size_t sign = n && *text == '-';
    if (n - sign <= SURE || text[sign] == '0') return false;
    for (size_t i = sign; i < n; i++)
        if (!is_digit(text[i])) return false;
    if (n >= sizeof digits) return true;
    memcpy(digits, text, n);
    digits[n] = 0;
    errno = 0;
    (void)strtoll(digits, NULL, 10);
    return errno == ERANGE;
}

bool gyre_json_widen(const char *text, size_t n, char **out, size_t *n_out)
{
    size_t length = 0, room = 0, done = 0;
    bool quoted = false;
    *out = NULL;
    *n_out = 0;
    for (size_t i = 0; i < n; i++) {
        if (quoted && text[i] == '\\') i++;
        else if (text[i] == '"') quoted = !quoted;
        if (i >= n || quoted || !(is_digit(text[i]) || text[i] == '-')) continue;
        size_t end = i + 1;
        while (end < n && (is_digit(text[end]) || (text[end] && strchr("+-.eE", text[end])))) end++;
        size_t next = end;
        while (next < n && text[next] && strchr(" \t\r\n", text[next])) next++;
        const bool key = next < n && text[next] == ':'; // which must be a string
        if (!key && is_wide(text + i, end - i)) {
            if (!gyre_append(out, &length, &room, text + done, i - done) ||
                !gyre_append(out, &length, &room, begin, sizeof begin - 1) ||
                !gyre_append(out, &length, &room, text + i, end - i) || !gyre_append(out, &length, &room, "\"", 1))
                goto lost;
            done = end;
        }
        i = end - 1;
    }
    if (*out && !gyre_append(out, &length, &room, text + done, n - done)) goto lost;
    *n_out = length;
    return true;
lost:
    free(*out);
    *out = NULL;
    return false;
}

json_t *gyre_json_load_wide(const char *text, size_t n, size_t flags, json_error_t *why)
{
    char *wide;
    size_t n_wide;
    *why = (json_error_t){.line = -1, .column = -1};
    if (!gyre_json_widen(text, n, &wide, &n_wide)) {
        snprintf(why->text, sizeof why->text, "out of memory");
        return NULL;
    }
    json_t *out = json_loadb(wide ? wide : text, wide ? n_wide : n, flags | JSON_ALLOW_NUL, why);
    free(wide);
    return out;
}

const char *gyre_json_wide(const char *string, size_t n)
{
    const size_t front = sizeof word; // its NUL stands for the one before the word
    if (n <= front || string[0] || memcmp(string + 1, word, front - 1) != 0) return NULL;
    return is_wide(string + front, n - front) ? string + front : NULL;
}
