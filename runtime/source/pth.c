// See pth.h. torch.save writes a zip whose records are stored, not compressed: data.pkl says what they are, data/KEY
// holds the numbers of a storage. Zip64 where the file is larger than 4 GB. The central directory alone is believed,
// and every place in it is checked against the file.
#include "runtime/source/pth.h"

#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RECORDS = 1 << 20, MAX_PICKLE = 2 << 20 };

struct record {
    struct gyre_string name;
    const unsigned char *data;
    uint64_t bytes;
};

struct zip {
    const char *path;
    const unsigned char *data;
    uint64_t size;
    struct record *records;
    struct gyre_strmap index; // by name
    uint64_t n;
    gyre_error *err;
};

static gyre_status damaged(const struct zip *z, const char *why)
{
    return gyre_fail(z->err, GYRE_E_FORMAT,
                     "cannot read model (%s): %s; the file is cut short or no checkpoint of torch.save", z->path, why);
}

static uint64_t number(const unsigned char *p, uint32_t bytes)
{
    uint64_t v = 0;
    memcpy(&v, p, bytes);
    return v;
}

// What the 32-bit fields of an entry leave to its extra field, in this order: size, stored size, place.
static bool widen(const unsigned char *extra, uint64_t n, uint64_t *const field[3])
{
    for (uint64_t at = 0; at + 4 <= n;) {
        const uint64_t id = number(extra + at, 2), length = number(extra + at + 2, 2);
        at += 4;
        if (length > n - at) return false;
        if (id == 1) {
            for (uint64_t i = 0, used = 0; i < 3; i++) {
                if (*field[i] != UINT32_MAX) continue;
                if (length - used < 8) return false;
                *field[i] = number(extra + at + used, 8);
                used += 8;
            }
            return true;
        }
        at += length;
    }
    return true;
}

// One entry of the central directory at *at.
static gyre_status read_entry(struct zip *z, uint64_t *at, uint64_t end)
{
    enum { FIXED = 46, LOCAL = 30 };
    const unsigned char *p = z->data + *at;
    if (end - *at < FIXED || number(p, 4) != 0x02014b50) return damaged(z, "its list of records is broken");
    const uint64_t name = number(p + 28, 2), extra = number(p + 30, 2), comment = number(p + 32, 2);
    uint64_t stored = number(p + 20, 4), size = number(p + 24, 4), place = number(p + 42, 4);
    if (end - *at - FIXED < name + extra + comment) return damaged(z, "its list of records is broken");
    const struct gyre_string text = {(const char *)p + FIXED, name};
    if (!widen(p + FIXED + name, extra, (uint64_t *const[3]){&size, &stored, &place}))
        return damaged(z, "a record of it has broken sizes");
    if (number(p + 10, 2) || number(p + 8, 2) & 1 || size != stored)
        return gyre_fail(z->err, GYRE_E_UNSUPPORTED,
                         "cannot read model (%s): its record %s is compressed or encrypted; torch.save stores it plain",
                         z->path, gyre_show(text.data, text.length).text);
    if (place > z->size || z->size - place < LOCAL || number(z->data + place, 4) != 0x04034b50)
        return damaged(z, "a record of it lies nowhere");
    const uint64_t skip = LOCAL + number(z->data + place + 26, 2) + number(z->data + place + 28, 2);
    if (z->size - place < skip || z->size - place - skip < size)
        return damaged(z, "a record of it reaches past the end");
    bool added;
    z->records[z->n] = (struct record){text, z->data + place + skip, size};
    if (!gyre_strmap_add(&z->index, text.data, (uint32_t)text.length, (uint32_t)z->n, &added))
        return gyre_fail(z->err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", z->path);
    if (!added) return damaged(z, "two records of it have one name");
    z->n++;
    *at += FIXED + name + extra + comment;
    return GYRE_OK;
}

// The end record is the last thing in the file but for a comment; zip64 has its own before it.
static gyre_status read_directory(struct zip *z)
{
    enum { END = 22, LOCATOR = 20, END64 = 56 };
    uint64_t at = z->size < END ? 0 : z->size - END, lowest = at > UINT16_MAX ? at - UINT16_MAX : 0;
    while (z->size >= END && at > lowest && number(z->data + at, 4) != 0x06054b50) at--;
    if (z->size < END || number(z->data + at, 4) != 0x06054b50) return damaged(z, "it is no zip");
    uint64_t n = number(z->data + at + 10, 2), bytes = number(z->data + at + 12, 4),
             place = number(z->data + at + 16, 4);
    if (at >= LOCATOR && number(z->data + at - LOCATOR, 4) == 0x07064b50) {
        const uint64_t wide = number(z->data + at - LOCATOR + 8, 8);
        if (wide > at || at - wide < END64 || number(z->data + wide, 4) != 0x06064b50)
            return damaged(z, "its zip64 end lies nowhere");
        n = number(z->data + wide + 32, 8), bytes = number(z->data + wide + 40, 8),
        place = number(z->data + wide + 48, 8);
    }
    if (place > z->size || z->size - place < bytes || n > MAX_RECORDS || n > bytes / 46)
        return damaged(z, "its list of records lies nowhere");
    z->records = calloc(n + 1, sizeof *z->records);
    if (!z->records) return gyre_fail(z->err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", z->path);
    at = place;
    for (uint64_t i = 0; i < n; i++) GYRE_TRY(read_entry(z, &at, place + bytes));
    return GYRE_OK;
}

static const struct record *record(const struct zip *z, const char *name)
{
    uint32_t i;
    return gyre_strmap_get(&z->index, name, (uint32_t)strlen(name), &i) ? &z->records[i] : NULL;
}

// The folder in which all records lie, from that of data.pkl.
static const struct record *find_pickle(const struct zip *z, struct gyre_string *folder)
{
    static const char tail[] = "/data.pkl";
    for (uint64_t i = 0; i < z->n; i++) {
        const struct gyre_string name = z->records[i].name;
        const uint64_t n = sizeof tail - 1;
        if (name.length <= n || memcmp(name.data + name.length - n, tail, n)) continue;
        *folder = (struct gyre_string){name.data, name.length - n};
        return &z->records[i];
    }
    return NULL;
}

static gyre_status add_tensor(const struct zip *z, struct gyre_string folder, const struct gyre_pickled *p,
                              gyre_pth_rename rename, gyre_source *source)
{
    char name[1024], own[128];
    const struct gyre_shown shown = gyre_show(p->name.data, p->name.length);
    const uint64_t each = gyre_dtype_info(p->type)->block_bytes;
    if (!rename(p->name, own)) return GYRE_OK;
    if (folder.length + p->storage.length > sizeof name - 16) return damaged(z, "its records have absurd names");
    snprintf(name, sizeof name, "%.*s/data/%.*s", (int)folder.length, folder.data, (int)p->storage.length,
             p->storage.data);
    const struct record *r = record(z, name);
    if (!r || r->bytes / each < p->elements)
        return gyre_fail(z->err, GYRE_E_FORMAT, "cannot read model (%s): the numbers of tensor %s are %s", z->path,
                         shown.text, r ? "fewer than it says" : "missing");
    struct gyre_tensor tensor = {.type = p->type, .n_dims = p->n_dims, .data = r->data + p->first * each};
    memcpy(tensor.dims, p->dims, sizeof tensor.dims);
    return gyre_source_add_tensor(source, &tensor, (struct gyre_string){own, strlen(own)}, z->err);
}

gyre_status gyre_pth_read(gyre_source *source, const char *path, gyre_pth_rename rename, gyre_error *err)
{
    gyre_status st = GYRE_OK;
    struct gyre_file_map map;
    struct gyre_pickled *tensors = NULL;
    struct gyre_string folder = {0};
    uint64_t n = 0;
    char name[1024];
    struct zip z = {.path = path, .err = err};
    GYRE_GO(gyre_source_map(source, path, &map, err));
    z.data = map.data, z.size = map.size;
    GYRE_GO(read_directory(&z));
    const struct record *pickle = find_pickle(&z, &folder);
    if (!pickle || pickle->bytes > MAX_PICKLE)
        GYRE_GO(damaged(&z, pickle ? "its pickle is absurdly long" : "it has no data.pkl"));
    snprintf(name, sizeof name, "%.*s/byteorder", (int)GYRE_MIN(folder.length, 900), folder.data);
    const struct record *order = record(&z, name);
    if (order && (order->bytes < 6 || memcmp(order->data, "little", 6)))
        GYRE_GO(gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot read model (%s): its numbers are big-endian", path));
    GYRE_GO(gyre_pickle_read(path, pickle->data, pickle->bytes, &tensors, &n, err));
    for (uint64_t i = 0; i < n; i++) GYRE_GO(add_tensor(&z, folder, &tensors[i], rename, source));
done:
    free(tensors);
    free(z.records);
    gyre_strmap_free(&z.index);
    return st;
}
