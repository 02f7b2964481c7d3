// Typed access to metadata, which is kept in GGUF's encoding whatever the container.
//
// Writers disagree about widths, and some give a list where another gives one number. What has only one reading is
// read; everything else is refused by the key's name, since a default in its place would be another model.
#include "runtime/source/source_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

uint64_t gyre_meta_type_bytes(gyre_meta_type type)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return bytes[type];
}

// Element `i` of fixed-size values as an integer; false for floats that are no whole number, bools, and u64 above
// INT64_MAX.
static bool integer_at(gyre_meta_type type, const void *raw, uint64_t i, int64_t *out)
{
    const char *p = (const char *)raw + i * gyre_meta_type_bytes(type);
    switch (type) {
#define CASE(id, ctype, good)                                                                                          \
    case id: {                                                                                                         \
        ctype v;                                                                                                       \
        memcpy(&v, p, sizeof v);                                                                                       \
        if (!(good)) return false;                                                                                     \
        *out = (int64_t)v;                                                                                             \
        return true;                                                                                                   \
    }
        CASE(GYRE_META_U8, uint8_t, true)
        CASE(GYRE_META_I8, int8_t, true)
        CASE(GYRE_META_U16, uint16_t, true)
        CASE(GYRE_META_I16, int16_t, true)
        CASE(GYRE_META_U32, uint32_t, true)
        CASE(GYRE_META_I32, int32_t, true)
        CASE(GYRE_META_I64, int64_t, true)
        CASE(GYRE_META_U64, uint64_t, v <= INT64_MAX)
        CASE(GYRE_META_F32, float, fabsf(v) <= 0x1p24f && v == floorf(v))
        CASE(GYRE_META_F64, double, fabs(v) <= 0x1p53 && v == floor(v))
#undef CASE
    default:
        return false;
    }
}

static bool real_at(gyre_meta_type type, const void *raw, uint64_t i, double *out)
{
    const char *p = (const char *)raw + i * gyre_meta_type_bytes(type);
    int64_t whole;
    float single;
    if (type == GYRE_META_F64) {
        memcpy(out, p, 8);
    } else if (type == GYRE_META_F32) {
        memcpy(&single, p, 4);
        *out = single;
    } else {
        if (!integer_at(type, raw, i, &whole)) return false;
        *out = (double)whole;
    }
    return true;
}

static bool bool_at(gyre_meta_type type, const void *raw, uint64_t i, bool *out)
{
    int64_t value;
    if (!integer_at(type == GYRE_META_BOOL ? GYRE_META_U8 : type, raw, i, &value) || value < 0 || value > 1)
        return false;
    *out = value != 0;
    return true;
}

static const struct source_meta *find_meta(const gyre_source *source, const char *key)
{
    uint32_t index;
    return gyre_strmap_get(&source->meta_index, key, (uint32_t)strlen(key), &index) ? &source->metas[index] : NULL;
}

bool gyre_source_has(const gyre_source *source, const char *key) { return find_meta(source, key) != NULL; }

bool gyre_source_is_list(const gyre_source *source, const char *key)
{
    const struct source_meta *entry = find_meta(source, key);
    return entry && entry->meta.type == GYRE_META_ARRAY;
}

static gyre_status unreadable(const gyre_source *source, const char *key, const char *what, const char *due,
                              gyre_error *err)
{
    return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): %s is %s; %s is due", source->path, key, what, due);
}

// ---- one value ----------------------------------------------------------------------------------------

// The elements of a value: one, or those of an array (which follow its own element type, u32, and count, u64).
struct elements {
    gyre_meta_type type;
    const void *raw;
    uint64_t n;
};

static struct elements elements_of(const struct gyre_meta *meta)
{
    if (meta->type != GYRE_META_ARRAY) return (struct elements){meta->type, meta->raw, 1};
    return (struct elements){meta->element, (const char *)meta->raw + 12, meta->count};
}

// A getter of the value that all elements have, read by `at`.
#define GETTER(name, ctype, at, wrong, due)                                                                            \
    gyre_status name(const gyre_source *source, const char *key, ctype *out, bool *found, gyre_error *err)             \
    {                                                                                                                  \
        const struct source_meta *entry = find_meta(source, key);                                                      \
        if (found) *found = entry != NULL;                                                                             \
        if (!entry) return GYRE_OK;                                                                                    \
        const struct elements e = elements_of(&entry->meta);                                                           \
        ctype first, next;                                                                                             \
        if (e.n == 0) return unreadable(source, key, "an empty array", due, err);                                      \
        if (e.type == GYRE_META_STRING || !at(e.type, e.raw, 0, &first))                                               \
            return unreadable(source, key, wrong, due, err);                                                           \
        for (uint64_t i = 1; i < e.n; i++) {                                                                           \
            if (!at(e.type, e.raw, i, &next)) return unreadable(source, key, wrong, due, err);                         \
            if (next != first)                                                                                         \
                return gyre_fail(err, GYRE_E_UNSUPPORTED,                                                              \
                                 "cannot use model (%s): %s has different values in its list of %llu; gyre does one "  \
                                 "for all",                                                                            \
                                 source->path, key, (unsigned long long)e.n);                                          \
        }                                                                                                              \
        *out = first;                                                                                                  \
        return GYRE_OK;                                                                                                \
    }

GETTER(gyre_source_i64, int64_t, integer_at, "not a whole number", "a whole number")
GETTER(gyre_source_f64, double, real_at, "not a number", "a number")
GETTER(gyre_source_bool, bool, bool_at, "neither true nor false", "a bool")
#undef GETTER

gyre_status gyre_source_u64(const gyre_source *source, const char *key, uint64_t *out, bool *found, gyre_error *err)
{
    int64_t value = 0;
    bool there = false;
    GYRE_TRY(gyre_source_i64(source, key, &value, &there, err));
    if (there && value < 0) return unreadable(source, key, "negative", "a whole number from 0 on", err);
    if (found) *found = there;
    if (there) *out = (uint64_t)value;
    return GYRE_OK;
}

gyre_status gyre_source_string(const gyre_source *source, const char *key, const char **out, gyre_error *err)
{
    const struct source_meta *entry = find_meta(source, key);
    if (!entry) return GYRE_OK;
    if (!entry->text) return unreadable(source, key, "not a text", "a text", err);
    *out = entry->text;
    return GYRE_OK;
}

// ---- iteration and arrays -----------------------------------------------------------------------------

uint64_t gyre_source_meta_count(const gyre_source *source) { return source->n_metas; }

struct gyre_meta gyre_source_meta_at(const gyre_source *source, uint64_t index)
{
    return index < source->n_metas ? source->metas[index].meta : (struct gyre_meta){0};
}

static gyre_status no_memory(const gyre_source *source, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_NOMEM, "cannot use model (%s): out of memory", source->path);
}

gyre_status gyre_source_array_strings(const gyre_source *source, const char *key, struct gyre_string **out, uint64_t *n,
                                      gyre_error *err)
{
    const struct source_meta *entry = find_meta(source, key);
    *out = NULL;
    *n = 0;
    if (!entry) return GYRE_OK;
    const struct elements e = elements_of(&entry->meta);
    if (e.type != GYRE_META_STRING) return unreadable(source, key, "no list of texts", "one", err);
    struct gyre_string *strings = malloc((e.n + 1) * sizeof *strings);
    if (!strings) return no_memory(source, err);
    const char *p = e.raw;
    for (uint64_t i = 0; i < e.n; i++) {
        memcpy(&strings[i].length, p, 8);
        strings[i].data = p + 8;
        p += 8 + strings[i].length;
    }
    *out = strings;
    *n = e.n;
    return GYRE_OK;
}

// A getter of lists of numbers, read by `at`.
#define LIST_GETTER(name, ctype, at, wrong)                                                                            \
    gyre_status name(const gyre_source *source, const char *key, ctype **out, uint64_t *n, gyre_error *err)            \
    {                                                                                                                  \
        const struct source_meta *entry = find_meta(source, key);                                                      \
        *out = NULL;                                                                                                   \
        *n = 0;                                                                                                        \
        if (!entry) return GYRE_OK;                                                                                    \
        const struct elements e = elements_of(&entry->meta);                                                           \
        bool good = e.type != GYRE_META_STRING;                                                                        \
        ctype *values = malloc((good ? e.n + 1 : 1) * sizeof *values);                                                 \
        if (!values) return no_memory(source, err);                                                                    \
        for (uint64_t i = 0; i < e.n && good; i++) good = at(e.type, e.raw, i, &values[i]);                            \
        if (!good) {                                                                                                   \
            free(values);                                                                                              \
            return unreadable(source, key, wrong, "one", err);                                                         \
        }                                                                                                              \
        *out = values;                                                                                                 \
        *n = e.n;                                                                                                      \
        return GYRE_OK;                                                                                                \
    }

LIST_GETTER(gyre_source_array_i64, int64_t, integer_at, "no list of whole numbers")
LIST_GETTER(gyre_source_array_bool, bool, bool_at, "no list of true and false")
LIST_GETTER(gyre_source_array_f64, double, real_at, "no list of numbers")
#undef LIST_GETTER
