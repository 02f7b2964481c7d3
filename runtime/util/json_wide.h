// Integers that int64 does not hold, in JSON texts. The reader of JSON knows none; where a text is passed on, to a
// template or to whoever calls tools, they have to stay what they are. So such a text is read with a string in the
// place of each, which tells that it is one: U+0000, a word, and the digits. A string of the text's own that is written
// so counts as the integer, too: nothing but its digits can come of it.
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

// *out: a copy of the text with those strings, malloc'd, to be read with JSON_ALLOW_NUL; NULL: it needs none. What is
// no JSON stays none. False: out of memory.
bool gyre_json_widen(const char *text, size_t n, char **out, size_t *n_out);

// json_loadb of such a text: a new reference, NULL with `why`. Strings may hold U+0000.
json_t *gyre_json_load_wide(const char *text, size_t n, size_t flags, json_error_t *why);

// The digits of such a string of n bytes, with their sign, up to its end; NULL: it is another one.
const char *gyre_json_wide(const char *string, size_t n);
