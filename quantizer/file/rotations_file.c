// See rotations_file.h. A safetensors file: the length of a JSON header in 8 bytes, the header, the numbers.
#include "quantizer/file/rotations_file.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/text.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FRONT = 8 };

char *gyre_matrices_path(const char *output) { return gyre_beside(output, ".rotations.safetensors"); }

// The header for these shapes, padded to whole 8 bytes; malloc'd. It is the same for the same shapes, so that reading
// compares it as it is.
static char *header_of(const struct gyre_matrices *m)
{
    const uint64_t all = 4 * gyre_matrices_count(m), r1 = m->r1 ? 4 * (uint64_t)m->width * m->width : 0;
    char *text = malloc(512);
    int n = 0;
    if (!text) return NULL;
    n += snprintf(text, 512, "{");
    if (m->r1)
        n += snprintf(text + n, 512 - (size_t)n,
                      "\"r1\":{\"dtype\":\"F32\",\"shape\":[%u,%u],\"data_offsets\":[0,%llu]},", m->width, m->width,
                      (unsigned long long)r1);
    n += snprintf(text + n, 512 - (size_t)n,
                  "\"r2\":{\"dtype\":\"F32\",\"shape\":[%u,%u,%u,%u],\"data_offsets\":[%llu,%llu]}}", m->layers,
                  m->kv_heads, m->head_dim, m->head_dim, (unsigned long long)r1, (unsigned long long)all);
    while (n % 8) text[n++] = ' ';
    text[n] = 0;
    return text;
}

gyre_status gyre_matrices_write(const char *path, const struct gyre_matrices *m, char hex[GYRE_SHA256_HEX],
                                gyre_error *err)
{
    const uint64_t n = gyre_matrices_count(m);
    char *header = header_of(m);
    const uint64_t length = header ? strlen(header) : 0, front = FRONT + length, bytes = front + 4 * n;
    char *file = malloc(bytes);
    gyre_status st = GYRE_OK;
    if (!header || !file) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "cannot write (%s): out of memory", path));
    memcpy(file, &length, FRONT);
    memcpy(file + FRONT, header, length);
    for (uint64_t i = 0; i < n; i++) {
        const float x = (float)gyre_matrices_data(m)[i];
        memcpy(file + front + 4 * i, &x, 4);
    }
    gyre_sha256_of(file, bytes, hex);
    st = gyre_file_write(path, file, bytes, err);
done:
    free(header);
    free(file);
    return st;
}

gyre_status gyre_matrices_read(const char *path, const char *hex, struct gyre_matrices *m, gyre_error *err)
{
    const uint64_t n = gyre_matrices_count(m);
    char have[GYRE_SHA256_HEX], *header = header_of(m);
    const uint64_t length = header ? strlen(header) : 0, front = FRONT + length;
    struct gyre_file_map map = {0};
    gyre_status st = GYRE_OK;
    if (!header) return gyre_fail(err, GYRE_E_NOMEM, "cannot read rotations (%s): out of memory", path);
    GYRE_GO(gyre_file_map(path, &map, err));
    gyre_sha256_of(map.data, map.size, have);
    if (strcmp(have, hex))
        GYRE_GO(gyre_fail(err, GYRE_E_FORMAT,
                          "cannot use rotations (%s): SHA-256 differs from the manifest; fetch them again", path));
    const unsigned char *data = map.data;
    if (map.size != front + 4 * n || memcmp(data, &length, FRONT) || memcmp(data + FRONT, header, length))
        GYRE_GO(gyre_fail(err, GYRE_E_FORMAT, "cannot use rotations (%s): they are not of this model's shapes", path));
    for (uint64_t i = 0; i < n; i++) {
        float x;
        memcpy(&x, data + front + 4 * i, 4);
        gyre_matrices_data(m)[i] = (double)x;
    }
    const double drift = gyre_matrices_drift(m);
    if (!(drift <= GYRE_MOST_DRIFT))
        st = gyre_fail(err, GYRE_E_FORMAT,
                       "cannot use rotations (%s): they are %.1e from orthogonal, and 1e-6 is allowed", path, drift);
done:
    gyre_file_unmap(&map);
    free(header);
    return st;
}
