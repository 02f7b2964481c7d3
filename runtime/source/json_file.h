// Reading untrusted JSON with jansson: one error line, duplicates refused.
#pragma once
#include "runtime/util/status.h"

#include <jansson.h>
#include <stdint.h>

// Parses `bytes` bytes of JSON into *out (json_decref it); GYRE_E_FORMAT names `path` and the line.
gyre_status gyre_json_parse(const char *path, const char *data, uint64_t bytes, json_t **out,
                            gyre_error *err) GYRE_MUST_USE;
