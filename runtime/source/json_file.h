// Reading untrusted JSON with jansson: one error line, duplicates refused.
#pragma once
#include "runtime/util/status.h"

#include <jansson.h>
#include <stdint.h>

// Parses `bytes` bytes of JSON into *out (json_decref it); GYRE_E_FORMAT names `path` and the line.
gyre_status gyre_json_parse(const char *path, const char *data, uint64_t bytes, json_t **out,
                            gyre_error *err) GYRE_MUST_USE;

// Text as a JSON string. Bytes that are no UTF-8, as names of files may have them, become U+FFFD. NULL: out of memory.
json_t *gyre_json_text(const char *text);
