// See json_reader.h.
#include "runtime/text/json_reader.h"

#include "runtime/util/utf8.h"

#include <string.h>

gyre_status gyre_json_refuse(const struct json_reader *r, const char *what, const char *name)
{
    return gyre_fail(r->err, GYRE_E_UNSUPPORTED, "cannot use tokenizer (%s): %s \"%s\"; gyre does BPE without it",
                     r->path, what, gyre_show(name ? name : "?", name ? strlen(name) : 1).text);
}

gyre_status gyre_json_malformed(const struct json_reader *r, const char *what)
{
    return gyre_fail(r->err, GYRE_E_FORMAT, "cannot use tokenizer (%s): %s is missing or malformed", r->path, what);
}

bool gyre_json_absent(const json_t *value) { return !value || json_is_null(value); }
const char *gyre_json_type(const json_t *object) { return json_string_value(json_object_get(object, "type")); }
bool gyre_json_is(const json_t *object, const char *type)
{
    return gyre_json_type(object) && !strcmp(gyre_json_type(object), type);
}

bool gyre_json_flag(struct json_reader *r, const json_t *object, const char *name, bool otherwise)
{
    const json_t *value = json_object_get(object, name);
    if (gyre_json_absent(value)) return otherwise;
    if (!json_is_boolean(value) && !r->wrong) r->wrong = name;
    return json_is_true(value);
}

const char *gyre_json_string(struct json_reader *r, const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!gyre_json_absent(value) && !json_is_string(value) && !r->wrong) r->wrong = name;
    return json_string_value(value);
}
