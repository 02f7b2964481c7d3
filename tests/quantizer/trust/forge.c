// See forge.h.
#include "tests/quantizer/trust/forge.h"
#include "runtime/source/source.h"
#include "runtime/util/sha256.h"
#include "tests/common/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

void forge_make(const gyre_quantize_params *params)
{
    gyre_error err = {0};
    if (gyre_quantize(params, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
}

static void flip_at(const char *file, uint64_t at, unsigned char flip)
{
    FILE *f = fopen(file, "r+b");
    assert_non_null(f);
    fseek(f, (long)at, SEEK_SET);
    const int c = fgetc(f);
    assert_true(c != EOF);
    fseek(f, (long)at, SEEK_SET);
    fputc(c ^ flip, f);
    fclose(f);
}

static const char *beside(const char *file)
{
    static char path[512];
    snprintf(path, sizeof path, "%s.manifest.json", file);
    return path;
}

// The hash of a tensor, or (NULL) of what lies before the first.
static void rehash(const char *file, const char *tensor)
{
    gyre_source *s;
    uint64_t size;
    char hex[GYRE_SHA256_HEX];
    assert_int_equal(gyre_source_open(file, &s, NULL), GYRE_OK);
    const unsigned char *bytes = gyre_source_bytes(s, &size);
    const struct gyre_tensor *t = tensor ? gyre_source_tensor(s, tensor) : gyre_source_tensor_at(s, 0);
    json_t *m = forge_manifest(beside(file));
    if (tensor) gyre_sha256_of(t->data, t->bytes, hex);
    else gyre_sha256_of(bytes, (size_t)((const unsigned char *)t->data - bytes), hex);
    json_object_set_new(tensor ? forge_row(m, "tensors", tensor) : m, tensor ? "sha256" : "front_sha256",
                        json_string(hex));
    forge_save(beside(file), m);
    gyre_source_close(s);
}

void forge_tensor(const char *file, const char *tensor, long at, unsigned char flip, bool hash)
{
    gyre_source *s;
    uint64_t size;
    assert_int_equal(gyre_source_open(file, &s, NULL), GYRE_OK);
    const struct gyre_tensor *t = gyre_source_tensor(s, tensor);
    assert_non_null(t);
    const uint64_t start = (uint64_t)((const unsigned char *)t->data - gyre_source_bytes(s, &size)),
                   offset = at < 0 ? t->bytes - (uint64_t)-at : (uint64_t)at;
    assert_true(offset < t->bytes);
    gyre_source_close(s);
    flip_at(file, start + offset, flip);
    if (hash) rehash(file, tensor);
}

void forge_byte(const char *file, long at, unsigned char flip, bool hash)
{
    flip_at(file, (uint64_t)at, flip);
    if (hash) rehash(file, NULL);
}

long forge_find(const char *file, const char *text)
{
    uint64_t bytes;
    const size_t n = strlen(text);
    char *data = files_read(file, &bytes);
    assert_non_null(data);
    long found = -1;
    for (uint64_t i = 0; found < 0 && i + n <= bytes; i++)
        if (!memcmp(data + i, text, n)) found = (long)(i + n);
    free(data);
    assert_true(found > 0);
    return found;
}

json_t *forge_manifest(const char *path)
{
    json_t *m = json_load_file(path, 0, NULL);
    assert_non_null(m);
    return m;
}

void forge_save(const char *path, json_t *manifest)
{
    assert_int_equal(json_dump_file(manifest, path, JSON_INDENT(1) | JSON_REAL_PRECISION(6)), 0);
    json_decref(manifest);
}

json_t *forge_row(json_t *manifest, const char *list, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(manifest, list), i, row)
    {
        if (!strcmp(json_string_value(json_object_get(row, "name")), name)) return row;
    }
    fail_msg("no row %s in %s", name, list);
    return NULL;
}
