// See refuse.h.
#include "cli/serve/refuse.h"
#include "cli/json.h"

#include <stdarg.h>
#include <stdio.h>

bool serve_refuse(struct serve_error *e, int status, const char *code, const char *param, const char *format, ...)
{
    va_list args;
    e->status = status;
    e->code = code;
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    va_start(args, format);
    vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
    return false;
}

bool serve_no_memory(struct serve_error *e)
{
    return serve_refuse(e, 503, NULL, NULL, "the server is out of memory; try again later");
}

json_t *serve_error_json(const struct serve_error *e)
{
    return json_pack("{s:{s:o, s:s, s:o, s:s?}}", "error", "message", cli_json_text(e->message), "type",
                     e->status >= 500 ? "server_error" : "invalid_request_error", "param",
                     *e->param ? cli_json_text(e->param) : json_null(), "code", e->code);
}

json_t *serve_field(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static bool outside(struct serve_error *e, const char *key, const char *kind, double min, double max)
{
    return serve_refuse(e, 400, NULL, key, "'%s' must be %s from %.10g to %.10g", key, kind, min, max);
}

bool serve_field_number(const json_t *object, const char *key, double min, double max, double *out,
                        struct serve_error *e)
{
    const json_t *value = serve_field(object, key);
    if (!value) return true;
    const double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= min && number <= max)) return outside(e, key, "a number", min, max);
    *out = number;
    return true;
}

bool serve_field_whole(const json_t *object, const char *key, json_int_t min, json_int_t max, json_int_t *out,
                       struct serve_error *e)
{
    const json_t *value = serve_field(object, key);
    if (!value) return true;
    const json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < min || number > max)
        return outside(e, key, "a whole number", (double)min, (double)max);
    *out = number;
    return true;
}

bool serve_field_flag(const json_t *object, const char *key, bool *out, struct serve_error *e)
{
    const json_t *value = serve_field(object, key);
    if (!value) return true;
    if (!json_is_boolean(value)) return serve_refuse(e, 400, NULL, key, "'%s' must be true or false", key);
    *out = json_is_true(value);
    return true;
}
