// See bytes.h.
#include "tests/common/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void put(struct bytes *b, const void *data, size_t size)
{
    if (b->size + size > b->cap) {
        b->cap = 2 * (b->size + size) + 256;
        b->data = realloc(b->data, b->cap);
        if (!b->data) exit(99);
    }
    if (size) memcpy(b->data + b->size, data, size);
    b->size += size;
}

void put_u8(struct bytes *b, uint8_t v) { put(b, &v, 1); }
void put_u32(struct bytes *b, uint32_t v) { put(b, &v, 4); }
void put_u64(struct bytes *b, uint64_t v) { put(b, &v, 8); }
void put_f32(struct bytes *b, float v) { put(b, &v, 4); }
void put_text(struct bytes *b, const char *text) { put(b, text, strlen(text)); }

void put_string(struct bytes *b, const char *text)
{
    put_u64(b, strlen(text));
    put_text(b, text);
}

void put_zeros(struct bytes *b, size_t n)
{
    while (n--) put_u8(b, 0);
}

void put_align(struct bytes *b, size_t alignment) { put_zeros(b, (alignment - b->size % alignment) % alignment); }

static void put_key(struct bytes *b, const char *key, gyre_meta_type type)
{
    put_string(b, key);
    put_u32(b, type);
}

void put_meta_u32(struct bytes *b, const char *key, uint32_t v)
{
    put_key(b, key, GYRE_META_U32);
    put_u32(b, v);
}

void put_meta_f32(struct bytes *b, const char *key, float v)
{
    put_key(b, key, GYRE_META_F32);
    put_f32(b, v);
}

void put_meta_bool(struct bytes *b, const char *key, int v)
{
    put_key(b, key, GYRE_META_BOOL);
    put_u8(b, v != 0);
}

void put_meta_string(struct bytes *b, const char *key, const char *v)
{
    put_key(b, key, GYRE_META_STRING);
    put_string(b, v);
}

void put_meta_array(struct bytes *b, const char *key, gyre_meta_type element, uint64_t count)
{
    put_key(b, key, GYRE_META_ARRAY);
    put_u32(b, element);
    put_u64(b, count);
}

void put_tensor_info(struct bytes *b, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t gguf_type,
                     uint64_t offset)
{
    put_string(b, name);
    put_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) put_u64(b, dims[n_dims - 1 - i]);
    put_u32(b, gguf_type);
    put_u64(b, offset);
}

int save_bytes(const struct bytes *b, const char *path)
{
    FILE *file = fopen(path, "wb");
    if (!file) return 1;
    const size_t n = fwrite(b->data, 1, b->size, file);
    return fclose(file) || n != b->size;
}

int save_bytes_in(const char *directory, const char *name, struct bytes *b)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    const int failed = save_bytes(b, path);
    free(b->data);
    *b = (struct bytes){0};
    return failed;
}

void put_number(struct bytes *b, gyre_meta_type type, double v)
{
    const int64_t whole = (int64_t)v;
    const float single = (float)v;
    switch (type) {
    case GYRE_META_F32:
        put(b, &single, 4);
        return;
    case GYRE_META_F64:
        put(b, &v, 8);
        return;
    case GYRE_META_U8:
    case GYRE_META_I8:
    case GYRE_META_BOOL:
        put(b, &whole, 1);
        return;
    case GYRE_META_U16:
    case GYRE_META_I16:
        put(b, &whole, 2);
        return;
    case GYRE_META_U32:
    case GYRE_META_I32:
        put(b, &whole, 4);
        return;
    default:
        put(b, &whole, 8);
    }
}
