// A model file's metadata and tensors, whatever the container: storage, lookup and typed access.
// gguf.c and hf.c fill it. Host byte order must be little-endian, as both containers are.
#include "runtime/source/source_impl.h"

#include "runtime/core/codec.h"
#include "runtime/text/utf8.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "model files are little-endian and are read in place"
#endif

// ---- opening ----------------------------------------------------------------------------------------

gyre_status gyre_source_open(const char *path, gyre_source **out, gyre_error *err)
{
    *out = NULL;
    gyre_status st = GYRE_OK;
    struct stat info;
    gyre_source *source = calloc(1, sizeof *source);
    if (!source || !(source->path = strdup(path))) {
        st = gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", path);
        goto done;
    }
    const bool directory = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    source->container = directory ? GYRE_CONTAINER_HF : GYRE_CONTAINER_GGUF;
    GYRE_GO(directory ? gyre_hf_read(source, err) : gyre_gguf_read(source, err));
    *out = source;
    source = NULL;
done:
    gyre_source_close(source);
    return st;
}

void gyre_source_close(gyre_source *source)
{
    if (!source) return;
    for (uint64_t i = 0; i < source->n_maps; i++) gyre_file_unmap(&source->maps[i]);
    free(source->maps);
    free(source->metas);
    free(source->tensors);
    gyre_strmap_free(&source->meta_index);
    gyre_strmap_free(&source->tensor_index);
    gyre_arena_free(&source->arena);
    free(source->path);
    free(source);
}

gyre_status gyre_source_map(gyre_source *source, const char *path, struct gyre_file_map *out, gyre_error *err)
{
    struct gyre_file_map *maps = realloc(source->maps, (source->n_maps + 1) * sizeof *maps);
    if (!maps) return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    source->maps = maps;
    GYRE_TRY(gyre_file_map(path, out, err));
    maps[source->n_maps++] = *out;
    return GYRE_OK;
}

// The length of a valid character that is no control character; 0 for anything else.
static uint32_t printable(const char *data, uint64_t left)
{
    uint32_t code;
    const int n = gyre_utf8_look(data, left, &code);
    return n > 0 && code >= 32 && (code < 127 || code > 159) ? (uint32_t)n : 0;
}

struct gyre_shown gyre_show(const char *data, uint64_t length)
{
    enum { MOST = 60 };
    struct gyre_shown shown;
    uint64_t at = 0;
    uint32_t n = 0;
    while (at < length) {
        const uint32_t k = printable(data + at, length - at);
        if (n + GYRE_MAX(k, 1u) > MOST) break;
        if (k) memcpy(shown.text + n, data + at, k);
        else shown.text[n] = '?';
        at += GYRE_MAX(k, 1u);
        n += GYRE_MAX(k, 1u);
    }
    memcpy(shown.text + n, at < length ? "..." : "", at < length ? 4 : 1);
    return shown;
}

// ---- what the readers add ---------------------------------------------------------------------------

// Checks and copies a key or name, and enters it into `index` as entry number `value`.
static gyre_status add_name(gyre_source *source, struct gyre_strmap *index, const char *kind, struct gyre_string name,
                            uint64_t value, const char **copy, gyre_error *err)
{
    const struct gyre_shown shown = gyre_show(name.data, name.length);
    bool odd = name.length == 0 || name.length > 65535, added = false;
    for (uint64_t i = 0, k; i < name.length && !odd; i += k) odd = !(k = printable(name.data + i, name.length - i));
    if (odd)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot read model (%s): impossible %s name \"%s\"; the file is damaged",
                         source->path, kind, shown.text);
    char *text = gyre_arena_alloc(&source->arena, name.length + 1);
    if (text) memcpy(text, name.data, name.length);
    if (!text || !gyre_strmap_add(index, text, (uint32_t)name.length, (uint32_t)value, &added))
        return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    if (!added)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot read model (%s): two %s entries are named \"%s\"; the file is damaged", source->path,
                         kind, shown.text);
    *copy = text;
    return GYRE_OK;
}

// Room for one more element in an array that doubles.
static void *grow(void *array, uint64_t n, uint64_t *cap, size_t size)
{
    if (n < *cap) return array;
    const uint64_t cap_new = *cap ? 2 * *cap : 32;
    void *larger = realloc(array, cap_new * size);
    if (larger) *cap = cap_new;
    return larger;
}

// What is no UTF-8, or would end the text early, becomes question marks: readers may trust a text.
static void make_text(char *text, uint64_t length)
{
    for (uint64_t i = 0; i < length;) {
        uint32_t code;
        const int k = gyre_utf8_look(text + i, length - i, &code);
        if (k <= 0 || code == 0) text[i++] = '?';
        else i += (uint64_t)k;
    }
}

gyre_status gyre_source_add_meta(gyre_source *source, const struct gyre_meta *meta, struct gyre_string key,
                                 gyre_error *err)
{
    struct source_meta *metas = grow(source->metas, source->n_metas, &source->cap_metas, sizeof *metas);
    if (!metas) return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    source->metas = metas;
    struct source_meta *entry = &metas[source->n_metas];
    *entry = (struct source_meta){.meta = *meta};
    GYRE_TRY(add_name(source, &source->meta_index, "metadata", key, source->n_metas, &entry->meta.key, err));
    if (meta->type == GYRE_META_STRING) {
        char *text = gyre_arena_alloc(&source->arena, meta->raw_bytes - 8 + 1);
        if (!text) return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
        memcpy(text, (const char *)meta->raw + 8, meta->raw_bytes - 8);
        make_text(text, meta->raw_bytes - 8);
        entry->text = text;
    }
    source->n_metas++;
    return GYRE_OK;
}

gyre_status gyre_source_add_tensor(gyre_source *source, const struct gyre_tensor *tensor, struct gyre_string name,
                                   gyre_error *err)
{
    struct gyre_tensor *tensors = grow(source->tensors, source->n_tensors, &source->cap_tensors, sizeof *tensors);
    if (!tensors) return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    source->tensors = tensors;
    struct gyre_tensor *entry = &tensors[source->n_tensors];
    *entry = *tensor;
    GYRE_TRY(add_name(source, &source->tensor_index, "tensor", name, source->n_tensors, &entry->name, err));
    entry->rows = 1;
    entry->cols = entry->n_dims ? entry->dims[entry->n_dims - 1] : 1;
    bool fits = entry->cols > 0;
    for (uint32_t i = 0; i + 1 < entry->n_dims; i++)
        fits = fits && entry->dims[i] > 0 && gyre_mul_u64(entry->rows, entry->dims[i], &entry->rows);
    uint64_t row = 0, elements = 0;
    fits = fits && gyre_mul_u64(entry->rows, entry->cols, &elements) && elements <= INT64_MAX;
    if (!fits)
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot read model (%s): tensor \"%s\" has an impossible shape; the file is damaged",
                         source->path, entry->name);
    const struct gyre_dtype_info *info = gyre_dtype_info(entry->type);
    if (!gyre_dtype_row_bytes(entry->type, entry->cols, &row) || !gyre_mul_u64(row, entry->rows, &entry->bytes))
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot read model (%s): tensor \"%s\" has rows of %llu elements, not whole %s blocks of %u",
                         source->path, entry->name, (unsigned long long)entry->cols, info->name, info->block_elements);
    source->n_tensors++;
    return GYRE_OK;
}

// ---- tensors ----------------------------------------------------------------------------------------

const char *gyre_source_path(const gyre_source *source) { return source->path; }
gyre_container gyre_source_container(const gyre_source *source) { return source->container; }
uint64_t gyre_source_tensor_count(const gyre_source *source) { return source->n_tensors; }

const unsigned char *gyre_source_bytes(const gyre_source *source, uint64_t *bytes)
{
    const bool file = source->container == GYRE_CONTAINER_GGUF && source->n_maps == 1;
    *bytes = file ? source->maps[0].size : 0;
    return file ? source->maps[0].data : NULL;
}

const struct gyre_tensor *gyre_source_tensor_at(const gyre_source *source, uint64_t index)
{
    return index < source->n_tensors ? &source->tensors[index] : NULL;
}

const struct gyre_tensor *gyre_source_tensor(const gyre_source *source, const char *name)
{
    uint32_t index;
    return gyre_strmap_get(&source->tensor_index, name, (uint32_t)strlen(name), &index) ? &source->tensors[index]
                                                                                        : NULL;
}

void gyre_tensor_forget(const struct gyre_tensor *tensor) { gyre_file_forget(tensor->data, tensor->bytes); }

void gyre_tensor_rows_f32(const struct gyre_tensor *tensor, uint64_t first, uint64_t n, float *out)
{
    const uint64_t row_bytes = tensor->bytes / tensor->rows;
    gyre_decode_row(tensor->type, (const unsigned char *)tensor->data + first * row_bytes, n * tensor->cols, out);
}

void gyre_tensor_rows_f64(const struct gyre_tensor *tensor, uint64_t first, uint64_t n, double *out)
{
    // Consecutive rows are one run of blocks; a piece is a whole number of blocks of every type.
    enum { PIECE = 1024 };
    const struct gyre_dtype_info *info = gyre_dtype_info(tensor->type);
    const unsigned char *p = (const unsigned char *)tensor->data + first * (tensor->bytes / tensor->rows);
    float piece[PIECE];
    for (uint64_t left = n * tensor->cols, m; left; left -= m, out += m) {
        m = GYRE_MIN(left, (uint64_t)PIECE);
        gyre_decode_row(tensor->type, p, m, piece);
        for (uint64_t i = 0; i < m; i++) out[i] = piece[i];
        p += m / info->block_elements * info->block_bytes;
    }
}

// ---- metadata ---------------------------------------------------------------------------------------

uint64_t gyre_meta_type_bytes(gyre_meta_type type)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return bytes[type];
}

// Element `i` of fixed-size values, as a signed number; false for floats and for u64 above INT64_MAX.
static bool integer_at(gyre_meta_type type, const void *raw, uint64_t i, int64_t *out)
{
    const char *p = (const char *)raw + i * gyre_meta_type_bytes(type);
    switch (type) {
#define CASE(id, ctype)                                                                                                \
    case id: {                                                                                                         \
        ctype v;                                                                                                       \
        memcpy(&v, p, sizeof v);                                                                                       \
        *out = (int64_t)v;                                                                                             \
        return true;                                                                                                   \
    }
        CASE(GYRE_META_U8, uint8_t)
        CASE(GYRE_META_I8, int8_t)
        CASE(GYRE_META_U16, uint16_t)
        CASE(GYRE_META_I16, int16_t)
        CASE(GYRE_META_U32, uint32_t)
        CASE(GYRE_META_I32, int32_t)
        CASE(GYRE_META_I64, int64_t)
#undef CASE
    case GYRE_META_U64: {
        uint64_t v;
        memcpy(&v, p, sizeof v);
        *out = (int64_t)v;
        return v <= INT64_MAX;
    }
    default:
        return false;
    }
}

static const struct source_meta *find_meta(const gyre_source *source, const char *key)
{
    uint32_t index;
    return gyre_strmap_get(&source->meta_index, key, (uint32_t)strlen(key), &index) ? &source->metas[index] : NULL;
}

bool gyre_source_has(const gyre_source *source, const char *key) { return find_meta(source, key) != NULL; }

bool gyre_source_u64(const gyre_source *source, const char *key, uint64_t *out)
{
    const struct source_meta *entry = find_meta(source, key);
    int64_t value;
    if (!entry || !integer_at(entry->meta.type, entry->meta.raw, 0, &value) || value < 0) return false;
    *out = (uint64_t)value;
    return true;
}

bool gyre_source_f64(const gyre_source *source, const char *key, double *out)
{
    const struct source_meta *entry = find_meta(source, key);
    int64_t whole;
    if (!entry) return false;
    if (entry->meta.type == GYRE_META_F32) {
        float value;
        memcpy(&value, entry->meta.raw, 4);
        *out = value;
    } else if (entry->meta.type == GYRE_META_F64) {
        memcpy(out, entry->meta.raw, 8);
    } else if (integer_at(entry->meta.type, entry->meta.raw, 0, &whole)) {
        *out = (double)whole;
    } else {
        return false;
    }
    return true;
}

bool gyre_source_bool(const gyre_source *source, const char *key, bool *out)
{
    const struct source_meta *entry = find_meta(source, key);
    if (!entry || entry->meta.type != GYRE_META_BOOL) return false;
    *out = *(const unsigned char *)entry->meta.raw != 0;
    return true;
}

const char *gyre_source_string(const gyre_source *source, const char *key)
{
    const struct source_meta *entry = find_meta(source, key);
    return entry ? entry->text : NULL;
}

uint64_t gyre_source_meta_count(const gyre_source *source) { return source->n_metas; }

struct gyre_meta gyre_source_meta_at(const gyre_source *source, uint64_t index)
{
    return index < source->n_metas ? source->metas[index].meta : (struct gyre_meta){0};
}

bool gyre_source_array(const gyre_source *source, const char *key, struct gyre_meta *out)
{
    const struct source_meta *entry = find_meta(source, key);
    if (!entry || entry->meta.type != GYRE_META_ARRAY) return false;
    *out = entry->meta;
    return true;
}

// Elements follow the array's own element type (u32) and count (u64).
static const char *array_elements(const struct gyre_meta *meta) { return (const char *)meta->raw + 12; }

bool gyre_source_array_strings(const gyre_source *source, const char *key, struct gyre_string **out, uint64_t *n)
{
    struct gyre_meta meta;
    if (!gyre_source_array(source, key, &meta) || meta.element != GYRE_META_STRING) return false;
    struct gyre_string *strings = malloc((meta.count + 1) * sizeof *strings);
    if (!strings) return false;
    const char *p = array_elements(&meta);
    for (uint64_t i = 0; i < meta.count; i++) {
        memcpy(&strings[i].length, p, 8);
        strings[i].data = p + 8;
        p += 8 + strings[i].length;
    }
    *out = strings;
    *n = meta.count;
    return true;
}

bool gyre_source_array_i64(const gyre_source *source, const char *key, int64_t **out, uint64_t *n)
{
    struct gyre_meta meta;
    if (!gyre_source_array(source, key, &meta)) return false;
    int64_t *values = malloc((meta.count + 1) * sizeof *values);
    bool good = values;
    for (uint64_t i = 0; i < meta.count && good; i++)
        good = integer_at(meta.element, array_elements(&meta), i, &values[i]);
    if (!good) {
        free(values);
        return false;
    }
    *out = values;
    *n = meta.count;
    return true;
}

const char *gyre_source_tokenizer_json(const gyre_source *source, uint64_t *bytes)
{
    const struct source_meta *entry = find_meta(source, "tokenizer.huggingface.json");
    const bool needed = entry && entry->text && !find_meta(source, "tokenizer.ggml.model");
    *bytes = needed ? entry->meta.raw_bytes - 8 : 0;
    return needed ? entry->text : NULL;
}
