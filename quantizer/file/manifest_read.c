// See manifest_read.h. A manifest comes from somebody else: nothing in it is taken for granted.
#include "quantizer/file/manifest_read.h"
#include "runtime/util/file.h"
#include "runtime/util/sha256.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MANIFEST = 256 << 20 };

struct gyre_json_shown gyre_json_show(const json_t *value)
{
    struct gyre_json_shown shown = {"nothing"};
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
    if (text) snprintf(shown.text, sizeof shown.text, "%s", text);
    free(text);
    return shown;
}

static gyre_status damaged(const char *path, const char *key, const char *why, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_FORMAT, "cannot use manifest (%s): %s%s%s %s; fetch it again", path, key ? "\"" : "",
                     key ? key : "it", key ? "\"" : "", why);
}

// ---- keys -------------------------------------------------------------------------------------------------

static gyre_status text_of(const struct gyre_manifest *m, const char *path, const char *key, const char **out,
                           gyre_error *err)
{
    *out = json_string_value(json_object_get(m->json, key));
    return *out ? GYRE_OK : damaged(path, key, "is missing or no text", err);
}

static gyre_status number_of(const struct gyre_manifest *m, const char *path, const char *key, uint32_t *out,
                             gyre_error *err)
{
    const json_t *value = json_object_get(m->json, key);
    const json_int_t n = json_integer_value(value);
    *out = (uint32_t)n;
    return json_is_integer(value) && n >= 0 && n <= 4096 ? GYRE_OK
                                                         : damaged(path, key, "is missing or no such number", err);
}

static gyre_status seed_of(struct gyre_manifest *m, const char *path, gyre_error *err)
{
    const char *text;
    char *end;
    GYRE_TRY(text_of(m, path, "seed", &text, err));
    errno = 0;
    m->seed = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && !errno ? GYRE_OK : damaged(path, "seed", "is no number", err);
}

static bool is_sha256(const json_t *value)
{
    const char *hex = json_string_value(value);
    return hex && strlen(hex) == GYRE_SHA256_HEX - 1 && strspn(hex, "0123456789abcdef") == GYRE_SHA256_HEX - 1;
}

static bool is_row(const json_t *row)
{
    const json_t *shape = json_object_get(row, "shape"), *error = json_object_get(row, "error"),
                 *first = json_object_get(row, "first");
    size_t i;
    json_t *dim;
    bool good = json_is_string(json_object_get(row, "name")) && json_is_string(json_object_get(row, "type")) &&
                is_sha256(json_object_get(row, "sha256")) && json_is_array(shape) &&
                (!error || json_is_number(error)) &&
                (!first || (json_is_integer(first) && json_integer_value(first) >= 0));
    json_array_foreach(shape, i, dim) good = good && json_is_integer(dim) && json_integer_value(dim) > 0;
    return good;
}

static void key_of(uint64_t first, char out[24]) { snprintf(out, 24, "%llu", (unsigned long long)first); }

json_t *gyre_manifest_index(const json_t *rows, size_t *twice)
{
    json_t *index = json_object(), *row;
    size_t i;
    json_array_foreach(rows, i, row)
    {
        char first[24];
        const char *name = json_string_value(json_object_get(row, "name"));
        json_t *same = json_object_get(index, name);
        key_of((uint64_t)json_integer_value(json_object_get(row, "first")), first);
        if (!same && !json_object_set_new(index, name, json_object())) same = json_object_get(index, name);
        if (json_object_get(same, first) && twice) *twice = i;
        if (!json_object_get(same, first) && !json_object_set(same, first, row)) continue;
        json_decref(index);
        return NULL;
    }
    return index;
}

const json_t *gyre_manifest_row(const json_t *index, const char *name, uint64_t first)
{
    char key[24];
    key_of(first, key);
    return json_object_get(json_object_get(index, name), key);
}

static gyre_status check_rows(const char *path, const char *key, const json_t *rows, gyre_error *err)
{
    char why[128];
    size_t i, twice = SIZE_MAX;
    json_t *row;
    if (!json_is_array(rows)) return damaged(path, key, "is missing or no list", err);
    json_array_foreach(rows, i, row)
    {
        if (is_row(row)) continue;
        snprintf(why, sizeof why, "has a row %zu that is no {name, type, shape, sha256}", i);
        return damaged(path, key, why, err);
    }
    json_t *index = gyre_manifest_index(rows, &twice);
    const bool good = index != NULL;
    json_decref(index);
    if (good) return GYRE_OK;
    if (twice == SIZE_MAX) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the manifest (%s)", path);
    snprintf(why, sizeof why, "has a row %zu that is there twice", twice);
    return damaged(path, key, why, err);
}

static bool is_base(const json_t *base)
{
    const json_t *files = json_object_get(base, "files");
    const char *name;
    json_t *hash;
    if (!json_is_string(json_object_get(base, "name"))) return false;
    if (!files) return is_sha256(json_object_get(base, "sha256"));
    bool good = json_object_size(files) > 0;
    json_object_foreach((json_t *)(uintptr_t)files, name, hash)
    {
        for (const char *c = name; *c; c++) good = good && *c != '/' && (unsigned char)*c >= ' ' && *c != 127;
        good = good && is_sha256(hash);
    }
    return good;
}

// ---- reading ----------------------------------------------------------------------------------------------

static gyre_status read_keys(struct gyre_manifest *m, const char *path, gyre_error *err)
{
    const json_t *layout = json_object_get(m->json, "manifest"), *front = json_object_get(m->json, "front_sha256"),
                 *recipe = json_object_get(m->json, "recipe_text");
    if (!json_is_object(m->json) || !json_is_integer(layout)) return damaged(path, NULL, "is no manifest of gyre", err);
    if (json_integer_value(layout) != 1)
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot use manifest (%s): its layout has version %s, this gyre reads 1; use a newer gyre",
                         path, gyre_json_show(layout).text);
    GYRE_TRY(text_of(m, path, "gyre", &m->gyre, err));
    GYRE_TRY(text_of(m, path, "recipe", &m->recipe, err));
    GYRE_TRY(text_of(m, path, "profile", &m->profile, err));
    GYRE_TRY(seed_of(m, path, err));
    const json_t *format = json_object_get(m->json, "format"), *shard = json_object_get(m->json, "shard_bytes");
    m->format = json_string_value(format);
    if (format && (!m->format || strcmp(m->format, "hf"))) return damaged(path, "format", "is not hf", err);
    if (format && (!json_is_integer(shard) || json_integer_value(shard) < 1))
        return damaged(path, "shard_bytes", "is no number above 0", err);
    m->shard_bytes = (uint64_t)json_integer_value(shard);
    GYRE_TRY(number_of(m, path, "wbits", &m->wbits, err));
    GYRE_TRY(number_of(m, path, "wgroup", &m->wgroup, err));
    GYRE_TRY(number_of(m, path, "act_bits", &m->act, err));
    GYRE_TRY(number_of(m, path, "kv_bits", &m->kv, err));
    m->kv_v = m->kv;
    if (json_object_get(m->json, "kv_bits_v")) GYRE_TRY(number_of(m, path, "kv_bits_v", &m->kv_v, err));
    if (json_object_get(m->json, "head_bits")) GYRE_TRY(number_of(m, path, "head_bits", &m->head, err));
    if (front && !is_sha256(front)) return damaged(path, "front_sha256", "is no SHA-256", err);
    m->front_sha256 = json_string_value(front);
    if (recipe && !json_is_string(recipe)) return damaged(path, "recipe_text", "is no text", err);
    m->recipe_text = json_string_value(recipe);
    m->base = json_object_get(m->json, "base");
    if (!is_base(m->base)) return damaged(path, "base", "is missing, or has no SHA-256", err);
    m->sources = json_object_get(m->json, "sources");
    m->tensors = json_object_get(m->json, "tensors");
    GYRE_TRY(check_rows(path, "sources", m->sources, err));
    GYRE_TRY(check_rows(path, "tensors", m->tensors, err));
    m->calibration = json_object_get(m->json, "calibration");
    m->arithmetic = json_object_get(m->json, "arithmetic");
    if (m->calibration && !json_is_object(m->calibration)) return damaged(path, "calibration", "is no object", err);
    if (m->arithmetic && !json_is_object(m->arithmetic)) return damaged(path, "arithmetic", "is no object", err);
    return GYRE_OK;
}

gyre_status gyre_manifest_read(const char *path, struct gyre_manifest *m, gyre_error *err)
{
    char *text, why[160];
    uint64_t bytes;
    json_error_t where;
    *m = (struct gyre_manifest){0};
    GYRE_TRY(gyre_file_read(path, MAX_MANIFEST, &text, &bytes, err));
    m->json = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    free(text);
    if (m->json) return read_keys(m, path, err);
    snprintf(why, sizeof why, "is no JSON (line %d, column %d)", where.line, where.column);
    return damaged(path, NULL, why, err);
}

void gyre_manifest_free(struct gyre_manifest *m)
{
    json_decref(m->json);
    *m = (struct gyre_manifest){0};
}

// ---- the base ---------------------------------------------------------------------------------------------

// `now` NULL: the model has no such file; `then` NULL: the manifest names none.
static gyre_status compare_hash(const char *path, const char *file, const char *now, const char *then, gyre_error *err)
{
    const char *slash = file ? "/" : "", *name = file ? file : "";
    if (now && then && !strcmp(now, then)) return GYRE_OK;
    if (!now)
        return gyre_fail(
            err, GYRE_E_FORMAT,
            "base model (%s%s%s): the manifest names this file and it is missing; give the model that it was made from",
            path, slash, name);
    if (!then)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "base model (%s%s%s): the manifest names no such file; give the model that it was made from",
                         path, slash, name);
    return gyre_fail(err, GYRE_E_FORMAT,
                     "base model (%s%s%s): SHA-256 %.16s.. is not the %.16s.. that the manifest names; give the model "
                     "that it was made from",
                     path, slash, name, now, then);
}

gyre_status gyre_manifest_check_base(const struct gyre_manifest *m, const char *path, const json_t *now,
                                     gyre_error *err)
{
    json_t *hash, *files_now = json_object_get(now, "files"), *files = json_object_get(m->base, "files");
    const char *name;
    gyre_status st = GYRE_OK;
    if ((files_now != NULL) != (files != NULL))
        return gyre_fail(err, GYRE_E_FORMAT,
                         "base model (%s): it is %s, the manifest names %s (%s); give the model that it was made from",
                         path, files_now ? "several files" : "one file", files ? "several" : "one",
                         gyre_json_show(json_object_get(m->base, "name")).text);
    if (!files)
        return compare_hash(path, NULL, json_string_value(json_object_get(now, "sha256")),
                            json_string_value(json_object_get(m->base, "sha256")), err);
    json_object_foreach(files, name, hash) if (st == GYRE_OK) st =
        compare_hash(path, name, json_string_value(json_object_get(files_now, name)), json_string_value(hash), err);
    json_object_foreach(files_now, name, hash) if (st == GYRE_OK) st =
        compare_hash(path, name, json_string_value(hash), json_string_value(json_object_get(files, name)), err);
    return st;
}
