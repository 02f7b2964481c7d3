// See hf_values.h.
#include "runtime/source/hf_values.h"

#include "runtime/util/base.h"

#include <stdio.h>
#include <string.h>

struct key gyre_hf_key(const struct config *c, const char *name)
{
    struct key key;
    snprintf(key.text, sizeof key.text, "%s.%s", c->type, name);
    return key;
}

static gyre_status put_raw(struct config *c, const char *key, gyre_meta_type type, gyre_meta_type element,
                           uint64_t count, const void *front, uint64_t front_bytes, const void *value, uint64_t bytes)
{
    unsigned char *raw = gyre_arena_alloc(&c->source->arena, front_bytes + bytes);
    if (!raw) return gyre_fail(c->err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", c->source->path);
    if (front_bytes) memcpy(raw, front, front_bytes);
    memcpy(raw + front_bytes, value, bytes);
    const struct gyre_meta meta = {
        .type = type, .element = element, .count = count, .raw = raw, .raw_bytes = front_bytes + bytes};
    return gyre_source_add_meta(c->source, &meta, (struct gyre_string){key, strlen(key)}, c->err);
}

gyre_status gyre_hf_put(struct config *c, const char *name, gyre_meta_type type, const void *value, uint64_t bytes)
{
    return put_raw(c, gyre_hf_key(c, name).text, type, type, 1, NULL, 0, value, bytes);
}

gyre_status gyre_hf_put_list(struct config *c, const char *name, gyre_meta_type element, const void *values, uint64_t n)
{
    unsigned char front[12];
    memcpy(front, &(uint32_t){element}, 4);
    memcpy(front + 4, &n, 8);
    return put_raw(c, gyre_hf_key(c, name).text, GYRE_META_ARRAY, element, n, front, sizeof front, values,
                   n * gyre_meta_type_bytes(element));
}

gyre_status gyre_hf_put_u32(struct config *c, const char *name, uint32_t value)
{
    return gyre_hf_put(c, name, GYRE_META_U32, &value, sizeof value);
}

gyre_status gyre_hf_put_f32(struct config *c, const char *name, double value)
{
    const float v = (float)value;
    return gyre_hf_put(c, name, GYRE_META_F32, &v, sizeof v);
}

gyre_status gyre_hf_put_text(struct config *c, const char *key, const char *text)
{
    const uint64_t length = strlen(text);
    return put_raw(c, key, GYRE_META_STRING, GYRE_META_STRING, 1, &length, sizeof length, text, length);
}

const json_t *gyre_hf_get(const json_t *object, const char *field)
{
    const json_t *value = json_object_get(object, field);
    return json_is_null(value) ? NULL : value;
}

gyre_status gyre_hf_put_count(struct config *c, const json_t *object, const char *field, const char *name)
{
    const json_t *value = gyre_hf_get(object, field);
    if (!value) return GYRE_OK;
    const double real = json_number_value(value); // some writers put 64.0
    if (!json_is_number(value) || !(real >= 0 && real <= UINT32_MAX) || real != (double)(uint32_t)real)
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): %s is no whole number below 2^32",
                         c->source->path, field);
    return gyre_hf_put_u32(c, name, (uint32_t)real);
}

gyre_status gyre_hf_real(struct config *c, const json_t *object, const char *field, double *out)
{
    const json_t *value = gyre_hf_get(object, field);
    if (!value) return GYRE_OK;
    if (!json_is_number(value))
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): %s is no number", c->source->path,
                         field);
    *out = json_number_value(value);
    return GYRE_OK;
}

gyre_status gyre_hf_put_real(struct config *c, const json_t *object, const char *field, const char *name, bool *found)
{
    double value = 0;
    if (!gyre_hf_get(object, field)) return GYRE_OK;
    if (found) *found = true;
    GYRE_TRY(gyre_hf_real(c, object, field, &value));
    return gyre_hf_put_f32(c, name, value);
}

gyre_status gyre_hf_bool(const gyre_source *source, const json_t *json, const char *field, bool *out, gyre_error *err)
{
    const json_t *value = json_object_get(json, field);
    if (!value || json_is_null(value)) return GYRE_OK;
    if (!json_is_boolean(value))
        return gyre_fail(err, GYRE_E_FORMAT, "cannot read model (%s/config.json): %s is neither true nor false",
                         source->path, field);
    *out = json_is_true(value);
    return GYRE_OK;
}

gyre_status gyre_hf_refuse(struct config *c, const char *field, const char *value, const char *supported)
{
    return gyre_fail(c->err, GYRE_E_UNSUPPORTED,
                     "cannot use model (%s/config.json): of a %s, %s is %s; gyre supports %s", c->source->path,
                     gyre_show(c->type, strlen(c->type)).text, field, gyre_show(value, strlen(value)).text, supported);
}

gyre_status gyre_hf_text(struct config *c, const char *field, const char **out)
{
    const json_t *value = json_object_get(c->json, field);
    if (!value || json_is_null(value)) return GYRE_OK;
    if (!json_is_string(value))
        return gyre_fail(c->err, GYRE_E_FORMAT, "cannot read model (%s/config.json): %s is no text", c->source->path,
                         field);
    *out = json_string_value(value);
    return GYRE_OK;
}
