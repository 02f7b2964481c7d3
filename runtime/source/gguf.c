// Reads GGUF version 2 and 3 (docs/gguf.md of ggml): header, metadata, tensor infos, data.
//
// Nothing in the file is believed: every count is bounded by the bytes that are left, every offset by the rule that
// writers follow (running sum of padded sizes) and by the file's end. The file stays mapped; values point into it.
#include "runtime/source/source_impl.h"

#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_ENTRY_BYTES = 8 + 1 + 4 + 1, MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8, MAX_DIMS = 4 };

struct cursor {
    const gyre_source *source;
    const unsigned char *data;
    uint64_t size, at;
    uint64_t *offset; // [tensors] of those that are read, from the data's start
    gyre_error *err;
};

// Where the next tensor lies behind one whose size is not known.
static const uint64_t ANYWHERE = UINT64_MAX;

static gyre_status cut_short(const struct cursor *c, const char *what)
{
    return gyre_fail(
        c->err, GYRE_E_FORMAT,
        "cannot read model (%s): %s at byte %llu reach past the end (%llu bytes); the file is cut short or damaged",
        c->source->path, what, (unsigned long long)c->at, (unsigned long long)c->size);
}

static gyre_status take(struct cursor *c, uint64_t n, const char *what, const unsigned char **out)
{
    *out = c->data;
    if (n > c->size - c->at) return cut_short(c, what);
    *out = c->data + c->at;
    c->at += n;
    return GYRE_OK;
}

static gyre_status take_u32(struct cursor *c, const char *what, uint32_t *out)
{
    const unsigned char *p;
    *out = 0;
    GYRE_TRY(take(c, 4, what, &p));
    memcpy(out, p, 4);
    return GYRE_OK;
}

static gyre_status take_u64(struct cursor *c, const char *what, uint64_t *out)
{
    const unsigned char *p;
    *out = 0;
    GYRE_TRY(take(c, 8, what, &p));
    memcpy(out, p, 8);
    return GYRE_OK;
}

static gyre_status take_string(struct cursor *c, const char *what, struct gyre_string *out)
{
    const unsigned char *p;
    uint64_t length;
    GYRE_TRY(take_u64(c, what, &length));
    GYRE_TRY(take(c, length, what, &p));
    *out = (struct gyre_string){(const char *)p, length};
    return GYRE_OK;
}

static gyre_status take_array(struct cursor *c, struct gyre_string key, struct gyre_meta *meta)
{
    uint32_t element;
    const unsigned char *p;
    GYRE_TRY(take_u32(c, "metadata", &element));
    GYRE_TRY(take_u64(c, "metadata", &meta->count));
    if (element > GYRE_META_F64 || element == GYRE_META_ARRAY)
        return gyre_fail(c->err, element == GYRE_META_ARRAY ? GYRE_E_UNSUPPORTED : GYRE_E_FORMAT,
                         "cannot read model (%s): metadata \"%s\" is an array of type %u, which gyre does not read",
                         c->source->path, gyre_show(key.data, key.length).text, element);
    meta->element = (gyre_meta_type)element;
    if (meta->element == GYRE_META_STRING) {
        if (meta->count > (c->size - c->at) / 8) return cut_short(c, "metadata");
        struct gyre_string skipped;
        for (uint64_t i = 0; i < meta->count; i++) GYRE_TRY(take_string(c, "metadata", &skipped));
        return GYRE_OK;
    }
    const uint64_t bytes = gyre_meta_type_bytes(meta->element);
    if (meta->count > (c->size - c->at) / bytes) return cut_short(c, "metadata");
    return take(c, meta->count * bytes, "metadata", &p);
}

static gyre_status read_meta(struct cursor *c, gyre_source *source)
{
    struct gyre_string key, text;
    uint32_t type;
    const unsigned char *p;
    GYRE_TRY(take_string(c, "metadata", &key));
    GYRE_TRY(take_u32(c, "metadata", &type));
    if (type > GYRE_META_F64)
        return gyre_fail(c->err, GYRE_E_FORMAT,
                         "cannot read model (%s): metadata \"%s\" has the unknown type %u; the file is damaged",
                         source->path, gyre_show(key.data, key.length).text, type);
    struct gyre_meta meta = {.type = (gyre_meta_type)type, .count = 1, .raw = c->data + c->at};
    const uint64_t start = c->at;
    if (meta.type == GYRE_META_STRING) GYRE_TRY(take_string(c, "metadata", &text));
    else if (meta.type == GYRE_META_ARRAY) GYRE_TRY(take_array(c, key, &meta));
    else GYRE_TRY(take(c, gyre_meta_type_bytes(meta.type), "metadata", &p));
    meta.raw_bytes = c->at - start;
    return gyre_source_add_meta(source, &meta, key, c->err);
}

// Reads one tensor info and checks its offset; `expected` is where writers put it, and moves on to the next.
static gyre_status read_tensor_info(struct cursor *c, gyre_source *source, uint64_t alignment, uint64_t *expected)
{
    struct gyre_tensor tensor = {0};
    struct gyre_string name;
    uint64_t ne[MAX_DIMS] = {0}, offset;
    uint32_t type;
    GYRE_TRY(take_string(c, "tensor descriptions", &name));
    GYRE_TRY(take_u32(c, "tensor descriptions", &tensor.n_dims));
    const struct gyre_shown shown = gyre_show(name.data, name.length);
    if (tensor.n_dims == 0 || tensor.n_dims > MAX_DIMS)
        return gyre_fail(c->err, GYRE_E_FORMAT,
                         "cannot read model (%s): tensor \"%s\" has %u dimensions; the file is damaged", source->path,
                         shown.text, tensor.n_dims);
    for (uint32_t i = 0; i < tensor.n_dims; i++) GYRE_TRY(take_u64(c, "tensor descriptions", &ne[i]));
    for (uint32_t i = 0; i < tensor.n_dims; i++) tensor.dims[i] = ne[tensor.n_dims - 1 - i];
    GYRE_TRY(take_u32(c, "tensor descriptions", &type));
    GYRE_TRY(take_u64(c, "tensor descriptions", &offset));
    if (!gyre_dtype_from_gguf(type, &tensor.type)) {
        char known[256], type_name[24];
        const char *given = gyre_gguf_type_name(type);
        gyre_gguf_type_list(known, sizeof known);
        if (given) snprintf(type_name, sizeof type_name, "%s", given);
        else snprintf(type_name, sizeof type_name, "type %u", type);
        const struct gyre_unread unread = {.name = shown.text,
                                           .type = type_name,
                                           .n_dims = tensor.n_dims,
                                           .dims = {tensor.dims[0], tensor.dims[1], tensor.dims[2], tensor.dims[3]}};
        *expected = ANYWHERE;
        return gyre_source_let_tensor(source,
                                      gyre_fail(c->err, GYRE_E_UNSUPPORTED,
                                                "cannot read model (%s): tensor \"%s\" has type %s (%u); gyre reads %s",
                                                source->path, shown.text, given ? given : "unknown", type, known),
                                      &unread, c->err);
    }
    GYRE_TRY(gyre_source_add_tensor(source, &tensor, name, c->err));
    if (*expected == ANYWHERE) *expected = gyre_round_up(GYRE_MIN(offset, c->size), alignment);
    if (offset != *expected)
        return gyre_fail(
            c->err, GYRE_E_FORMAT,
            "cannot read model (%s): tensor \"%s\" lies at offset %llu where %llu is due; the file is damaged",
            source->path, shown.text, (unsigned long long)offset, (unsigned long long)*expected);
    const uint64_t bytes = source->tensors[source->n_tensors - 1].bytes;
    if (bytes > c->size || offset > c->size)
        return cut_short(c, "tensor descriptions"); // also keeps the sums below small
    c->offset[source->n_tensors - 1] = offset;
    *expected = gyre_round_up(offset + bytes, alignment);
    return GYRE_OK;
}

static gyre_status read_header(struct cursor *c, uint64_t *n_tensors, uint64_t *n_meta)
{
    const char *path = c->source->path;
    const unsigned char *magic;
    uint32_t version;
    if (c->size < 4 || memcmp(c->data, "GGUF", 4))
        return gyre_fail(
            c->err, GYRE_E_FORMAT,
            "cannot read model (%s): it does not begin like a GGUF file; give a .gguf file or a Hugging Face directory",
            path);
    GYRE_TRY(take(c, 4, "header", &magic));
    GYRE_TRY(take_u32(c, "header", &version));
    if (version != 2 && version != 3)
        return gyre_fail(c->err, GYRE_E_UNSUPPORTED,
                         "cannot read model (%s): GGUF version %u%s; gyre reads versions 2 and 3", path, version,
                         version == 3u << 24 ? " (a big-endian file)" : "");
    GYRE_TRY(take_u64(c, "header", n_tensors));
    GYRE_TRY(take_u64(c, "header", n_meta));
    const uint64_t left = c->size - c->at;
    if (*n_meta > left / MIN_ENTRY_BYTES || *n_tensors > left / MIN_TENSOR_BYTES)
        return gyre_fail(c->err, GYRE_E_FORMAT,
                         "cannot read model (%s): %llu metadata entries and %llu tensors cannot fit into %llu bytes; "
                         "the file is cut short or damaged",
                         path, (unsigned long long)*n_meta, (unsigned long long)*n_tensors,
                         (unsigned long long)c->size);
    return GYRE_OK;
}

// The tensors' descriptions, then their places in the file.
static gyre_status read_tensors(struct cursor *c, gyre_source *source, uint64_t n_tensors, uint64_t alignment)
{
    uint64_t expected = 0;
    for (uint64_t i = 0; i < n_tensors; i++) GYRE_TRY(read_tensor_info(c, source, alignment, &expected));
    const uint64_t data_start = gyre_round_up(c->at, alignment);
    for (uint64_t i = 0; i < source->n_tensors; i++) {
        struct gyre_tensor *tensor = &source->tensors[i];
        const uint64_t start = data_start + c->offset[i];
        if (start > c->size || tensor->bytes > c->size - start)
            return gyre_fail(c->err, GYRE_E_FORMAT,
                             "cannot read model (%s): tensor \"%s\" ends at byte %llu of %llu; the file is cut short",
                             source->path, gyre_show(tensor->name, strlen(tensor->name)).text,
                             (unsigned long long)(start + tensor->bytes), (unsigned long long)c->size);
        tensor->data = c->data + start;
    }
    return GYRE_OK;
}

gyre_status gyre_gguf_read_file(gyre_source *source, gyre_error *err)
{
    struct gyre_file_map map;
    GYRE_TRY(gyre_source_map(source, source->path, &map, err));
    struct cursor c = {source, map.data, map.size, 0, NULL, err};
    uint64_t n_tensors = 0, n_meta = 0, alignment = 32;
    GYRE_TRY(read_header(&c, &n_tensors, &n_meta));
    for (uint64_t i = 0; i < n_meta; i++) GYRE_TRY(read_meta(&c, source));
    GYRE_TRY(gyre_source_u64(source, "general.alignment", &alignment, NULL, err));
    if (alignment == 0 || alignment > 1u << 30 || (alignment & (alignment - 1)))
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot read model (%s): general.alignment is not a power of two; the file is damaged",
                         source->path);
    c.offset = malloc((n_tensors + 1) * sizeof *c.offset);
    if (!c.offset) return gyre_fail(err, GYRE_E_NOMEM, "cannot read model (%s): out of memory", source->path);
    const gyre_status st = read_tensors(&c, source, n_tensors, alignment);
    free(c.offset);
    return st;
}
