// A model file's metadata and tensors, whatever the container: storage and lookup. source_open.c opens one,
// gguf.c and hf.c fill the storage, source_meta.c reads values out of it.
#include "runtime/source/source_impl.h"

#include "runtime/core/codec.h"
#include "runtime/util/array.h"
#include "runtime/util/base.h"
#include "runtime/util/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "model files are little-endian and are read in place"
#endif

gyre_status gyre_source_join(const gyre_source *source, const char *name, char out[PATH_MAX], gyre_error *err)
{
    if (snprintf(out, PATH_MAX, "%s/%s", source->path, name) < PATH_MAX) return GYRE_OK;
    return gyre_fail(err, GYRE_E_IO, "cannot read model (%s): the path is too long", source->path);
}

gyre_status gyre_source_map(gyre_source *source, const char *path, struct gyre_file_map *out, gyre_error *err)
{
    struct source_map *maps = realloc(source->maps, (source->n_maps + 1) * sizeof *maps);
    if (!maps) return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    source->maps = maps;
    const char *name = gyre_arena_strdup(&source->arena, path);
    if (!name) return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    GYRE_TRY(gyre_file_map(path, out, err));
    maps[source->n_maps++] = (struct source_map){name, *out};
    return GYRE_OK;
}

gyre_status gyre_source_take_maps(gyre_source *source, gyre_source *from, gyre_error *err)
{
    struct source_map *maps = realloc(source->maps, (source->n_maps + from->n_maps) * sizeof *maps);
    if (!maps) return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    source->maps = maps;
    while (from->n_maps) {
        const struct source_map *last = &from->maps[from->n_maps - 1];
        const char *name = gyre_arena_strdup(&source->arena, last->path);
        if (!name) return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
        maps[source->n_maps++] = (struct source_map){name, last->file};
        from->n_maps--;
    }
    return GYRE_OK;
}

gyre_status gyre_source_unchanged(const gyre_source *source, gyre_error *err)
{
    for (uint64_t i = 0; i < source->n_maps; i++)
        GYRE_TRY(gyre_file_unchanged(&source->maps[i].file, source->maps[i].path, err));
    return GYRE_OK;
}

uint64_t gyre_source_span_count(const gyre_source *source) { return source->n_maps; }

struct gyre_source_span gyre_source_span_at(const gyre_source *source, uint64_t index)
{
    const struct source_map *map = &source->maps[index];
    return (struct gyre_source_span){map->path, map->file.data, map->file.size};
}

void gyre_source_close(gyre_source *source)
{
    if (!source) return;
    for (uint64_t i = 0; i < source->n_maps; i++) gyre_file_unmap(&source->maps[i].file);
    for (uint32_t i = 0; i < source->n_files; i++) free(source->files[i].text);
    free(source->maps);
    free(source->metas);
    free(source->tensors);
    free(source->unread);
    gyre_strmap_free(&source->meta_index);
    gyre_strmap_free(&source->tensor_index);
    gyre_arena_free(&source->arena);
    free(source->path);
    free(source);
}

// ---- what the readers add ---------------------------------------------------------------------------

// Checks and copies a key or name, and enters it into `index` as entry number `value`.
static gyre_status add_name(gyre_source *source, struct gyre_strmap *index, const char *kind, struct gyre_string name,
                            uint64_t value, const char **copy, gyre_error *err)
{
    const struct gyre_shown shown = gyre_show(name.data, name.length);
    bool odd = name.length == 0 || name.length > 65535, added = false;
    for (uint64_t i = 0, k; i < name.length && !odd; i += k)
        odd = !(k = gyre_utf8_printable(name.data + i, name.length - i));
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
    if (!GYRE_ROOM(source->metas, source->n_metas + 1, source->cap_metas))
        return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    struct source_meta *entry = &source->metas[source->n_metas];
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

gyre_status gyre_source_put_meta(gyre_source *source, const char *key, gyre_meta_type type, const void *value,
                                 uint64_t bytes, gyre_error *err)
{
    void *raw = gyre_arena_alloc(&source->arena, bytes);
    if (!raw) return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    memcpy(raw, value, bytes);
    const struct gyre_meta meta = {.type = type, .count = 1, .raw = raw, .raw_bytes = bytes};
    return gyre_source_add_meta(source, &meta, (struct gyre_string){key, strlen(key)}, err);
}

gyre_status gyre_source_add_tensor(gyre_source *source, const struct gyre_tensor *tensor, struct gyre_string name,
                                   gyre_error *err)
{
    if (!GYRE_ROOM(source->tensors, source->n_tensors + 1, source->cap_tensors))
        return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    struct gyre_tensor *entry = &source->tensors[source->n_tensors];
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
bool gyre_source_untied(const gyre_source *source) { return source->hf_untied; }
gyre_container gyre_source_container(const gyre_source *source) { return source->container; }
const struct gyre_quantization *gyre_source_quantization(const gyre_source *source) { return source->quantization; }
bool gyre_source_is_wrapped(const gyre_source *source) { return source->hf_wrapped; }

const char *gyre_source_note(const gyre_source *source) { return source->note; }
uint64_t gyre_source_tensor_count(const gyre_source *source) { return source->n_tensors; }

const unsigned char *gyre_source_bytes(const gyre_source *source, uint64_t *bytes)
{
    const bool file = source->container == GYRE_CONTAINER_GGUF && source->n_maps == 1;
    *bytes = file ? source->maps[0].file.size : 0;
    return file ? source->maps[0].file.data : NULL;
}

const char *gyre_source_file(const gyre_source *source, const char *name, uint64_t *bytes)
{
    for (uint32_t i = 0; i < source->n_files; i++) {
        if (strcmp(source->files[i].name, name)) continue;
        *bytes = source->files[i].bytes;
        return source->files[i].text;
    }
    *bytes = 0;
    return NULL;
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
