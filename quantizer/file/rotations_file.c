// See rotations_file.h. A safetensors file: the length of a JSON header in 8 bytes, the header, the numbers.
#include "quantizer/file/rotations_file.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/text.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FRONT = 8, MOST_HEADER = 1024 }; // six short rows

char *gyre_matrices_path(const char *output) { return gyre_beside(output, ".rotations.safetensors"); }

void gyre_matrices_remove(const char *output)
{
    char *path = gyre_matrices_path(output);
    if (path) unlink(path);
    free(path);
}

// The header for these shapes, padded to whole 8 bytes; malloc'd. It is the same for the same shapes, so that reading
// compares it as it is.
static char *header_of(const struct gyre_matrices *m)
{
    const struct {
        const char *name;
        const double *first;
        uint32_t shape[4]; // behind its dimensions zeros
    } row[] = {{"r1", m->r1, {m->width, m->width}},
               {"r2", m->r2, {m->layers, m->kv_heads, m->head_dim, m->head_dim}},
               {"norm", m->norm, {m->layers, GYRE_PAIRED_NORMS, m->width}},
               {"up_down", m->up_down, {m->layers, m->ffn}},
               {"value", m->value, {m->layers, m->kv_heads, m->head_dim}},
               {"qk", m->qk, {m->layers, m->kv_heads, m->head_dim / 2}}};
    char *text = malloc(MOST_HEADER);
    size_t n = 0;
    if (!text) return NULL;
#define ADD(...) n += (size_t)snprintf(text + n, MOST_HEADER - n, __VA_ARGS__)
    for (size_t i = 0; i < GYRE_COUNT(row); i++) {
        if (!row[i].first) continue;
        const uint64_t from = 4 * (uint64_t)(row[i].first - gyre_matrices_data(m));
        uint64_t count = 1;
        ADD("%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", n ? "," : "{", row[i].name);
        for (int d = 0; d < 4 && row[i].shape[d]; d++) {
            ADD("%s%u", d ? "," : "", row[i].shape[d]);
            count *= row[i].shape[d];
        }
        ADD("],\"data_offsets\":[%llu,%llu]}", (unsigned long long)from, (unsigned long long)(from + 4 * count));
    }
    ADD("}");
#undef ADD
    while (n % 8) text[n++] = ' ';
    text[n] = 0;
    return text;
}

gyre_status gyre_matrices_pack(const struct gyre_matrices *m, char **data, uint64_t *bytes, char hex[GYRE_SHA256_HEX],
                               gyre_error *err)
{
    const uint64_t n = gyre_matrices_count(m);
    char *header = header_of(m);
    const uint64_t length = header ? strlen(header) : 0, front = FRONT + length;
    char *file = header ? malloc(front + 4 * n) : NULL;
    *data = file;
    if (!file) {
        free(header);
        return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the learned rotations");
    }
    memcpy(file, &length, FRONT);
    memcpy(file + FRONT, header, length);
    free(header);
    for (uint64_t i = 0; i < n; i++) {
        const float x = (float)gyre_matrices_data(m)[i];
        memcpy(file + front + 4 * i, &x, 4);
    }
    *bytes = front + 4 * n;
    gyre_sha256_of(file, *bytes, hex);
    return GYRE_OK;
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
    else if (!isfinite(gyre_matrices_widest(m)))
        st = gyre_fail(err, GYRE_E_FORMAT, "cannot use rotations (%s): a diagonal holds a number that is not above 0",
                       path);
done:
    gyre_file_unmap(&map);
    free(header);
    return st;
}
