// Why a request is refused, in the shape of OpenAI's errors.
#pragma once
#include <jansson.h>
#include <stdbool.h>

struct serve_error {
    int status;       // of HTTP; 0: there is no error
    const char *code; // "context_length_exceeded" and the like; NULL: none. A constant
    char param[64];   // the field that is wrong; "": none
    char message[480];
};

// Fills in an error and returns false, so that a check ends in one statement.
bool serve_refuse(struct serve_error *error, int status, const char *code, const char *param, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

bool serve_no_memory(struct serve_error *error); // refuses for want of memory

// {"error": {"message", "type", "param", "code"}}; NULL: out of memory.
json_t *serve_error_json(const struct serve_error *error);

// ---- the fields of a request
// ---------------------------------------------------------------------------------------- A field that is absent or
// null leaves *out as it is. What has another type, or lies outside of its range, is refused by its name: false.

bool serve_field_number(const json_t *object, const char *key, double min, double max, double *out,
                        struct serve_error *error);
bool serve_field_whole(const json_t *object, const char *key, json_int_t min, json_int_t max, json_int_t *out,
                       struct serve_error *error);
bool serve_field_flag(const json_t *object, const char *key, bool *out, struct serve_error *error);
// The value of a field: NULL where it is absent or null.
json_t *serve_field(const json_t *object, const char *key);
