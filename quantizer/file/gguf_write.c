// See gguf_write.h. Layout: GGUF specification (ggml, docs/gguf.md); its readers demand that offsets be the running sum
// of padded sizes, that names be shorter than 64 bytes, and that neither keys nor names repeat.
#include "quantizer/file/gguf_write.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32, VERSION = 3 };

static void fail(struct gyre_gguf *g, gyre_status code, const char *name)
{
    if (g->failed == GYRE_OK) snprintf(g->wrong, sizeof g->wrong, "%s", name);
    if (g->failed == GYRE_OK) g->failed = code;
}

static void put(struct gyre_gguf *g, const void *data, uint64_t bytes)
{
    if (g->failed != GYRE_OK || bytes == 0) return;
    if (g->meta_bytes + bytes > g->meta_cap) {
        const uint64_t cap = GYRE_MAX(2 * g->meta_cap, g->meta_bytes + bytes + 4096);
        unsigned char *grown = realloc(g->meta, cap);
        if (!grown) {
            fail(g, GYRE_E_NOMEM, "metadata");
            return;
        }
        g->meta = grown;
        g->meta_cap = cap;
    }
    memcpy(g->meta + g->meta_bytes, data, bytes);
    g->meta_bytes += bytes;
}

static void put_u32(struct gyre_gguf *g, uint32_t v) { put(g, &v, 4); }
static void put_u64(struct gyre_gguf *g, uint64_t v) { put(g, &v, 8); }

static void put_string(struct gyre_gguf *g, const char *text, uint64_t length)
{
    put_u64(g, length);
    put(g, text, length);
}

// Encoded pairs are few and found by walking them; only their lengths matter.
static uint64_t value_bytes(const unsigned char *value, uint32_t type)
{
    static const uint8_t fixed[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    uint64_t n;
    uint32_t element;
    if (type == GYRE_META_STRING) {
        memcpy(&n, value, 8);
        return 8 + n;
    }
    if (type != GYRE_META_ARRAY) return fixed[type];
    memcpy(&element, value, 4);
    memcpy(&n, value + 4, 8);
    uint64_t at = 12;
    for (uint64_t i = 0; i < n; i++) at += value_bytes(value + at, element);
    return at;
}

static bool has(const struct gyre_gguf *g, const char *key)
{
    const uint64_t length = strlen(key);
    for (uint64_t at = 0; g->failed == GYRE_OK && at < g->meta_bytes;) {
        uint64_t n;
        uint32_t type;
        memcpy(&n, g->meta + at, 8);
        if (n == length && !memcmp(g->meta + at + 8, key, n)) return true;
        memcpy(&type, g->meta + at + 8 + n, 4);
        at += 8 + n + 4;
        at += value_bytes(g->meta + at, type);
    }
    return false;
}

static bool begin(struct gyre_gguf *g, const char *key, gyre_meta_type type)
{
    if (has(g, key)) return false;
    put_string(g, key, strlen(key));
    put_u32(g, (uint32_t)type);
    g->n_meta++;
    return true;
}

void gyre_gguf_encoded(struct gyre_gguf *g, const char *key, gyre_meta_type type, const void *value, uint64_t bytes)
{
    if (begin(g, key, type)) put(g, value, bytes);
}

void gyre_gguf_u32(struct gyre_gguf *g, const char *key, uint32_t value)
{
    gyre_gguf_encoded(g, key, GYRE_META_U32, &value, 4);
}
void gyre_gguf_u64(struct gyre_gguf *g, const char *key, uint64_t value)
{
    gyre_gguf_encoded(g, key, GYRE_META_U64, &value, 8);
}
void gyre_gguf_f32(struct gyre_gguf *g, const char *key, float value)
{
    gyre_gguf_encoded(g, key, GYRE_META_F32, &value, 4);
}
void gyre_gguf_bool(struct gyre_gguf *g, const char *key, bool value)
{
    gyre_gguf_encoded(g, key, GYRE_META_BOOL, &(uint8_t){value}, 1);
}

void gyre_gguf_string(struct gyre_gguf *g, const char *key, const char *value)
{
    if (begin(g, key, GYRE_META_STRING)) put_string(g, value, strlen(value));
}

void gyre_gguf_u32_array(struct gyre_gguf *g, const char *key, const uint32_t *values, uint64_t n)
{
    if (!begin(g, key, GYRE_META_ARRAY)) return;
    put_u32(g, GYRE_META_U32);
    put_u64(g, n);
    put(g, values, 4 * n);
}

uint64_t gyre_gguf_add_tensor(struct gyre_gguf *g, const char *name, gyre_dtype type, uint32_t n_dims,
                              const uint64_t *dims)
{
    if (g->n_tensors == g->cap_tensors) {
        const uint64_t cap = g->cap_tensors ? 2 * g->cap_tensors : 64;
        struct gyre_gguf_tensor *grown = realloc(g->tensors, cap * sizeof *grown);
        if (!grown) {
            fail(g, GYRE_E_NOMEM, name);
            return 0;
        }
        g->tensors = grown;
        g->cap_tensors = cap;
    }
    struct gyre_gguf_tensor *t = &g->tensors[g->n_tensors];
    *t = (struct gyre_gguf_tensor){.type = type, .n_dims = n_dims, .dims = {dims[0], n_dims > 1 ? dims[1] : 1}};
    uint64_t row_bytes, rows = n_dims > 1 ? dims[0] : 1;
    if (strlen(name) >= sizeof t->name || !gyre_dtype_row_bytes(type, dims[n_dims - 1], &row_bytes) ||
        !gyre_mul_u64(rows, row_bytes, &t->bytes))
        fail(g, GYRE_E_INVALID, name);
    snprintf(t->name, sizeof t->name, "%s", name);
    return g->n_tensors++;
}

gyre_status gyre_gguf_finish(struct gyre_gguf *g, unsigned char **front, uint64_t *front_bytes, uint64_t *file_bytes,
                             gyre_error *err)
{
    *front = NULL;
    struct gyre_gguf out = {0}; // borrowed for its growing buffer
    put(&out, "GGUF", 4);
    put_u32(&out, VERSION);
    put_u64(&out, g->n_tensors);
    put_u64(&out, g->n_meta);
    put(&out, g->meta, g->meta_bytes);
    uint64_t offset = 0;
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        struct gyre_gguf_tensor *t = &g->tensors[i];
        put_string(&out, t->name, strlen(t->name));
        put_u32(&out, t->n_dims);
        for (uint32_t d = t->n_dims; d-- > 0;) put_u64(&out, t->dims[d]); // GGUF's order is innermost first
        put_u32(&out, (uint32_t)gyre_dtype_info(t->type)->gguf);
        put_u64(&out, offset);
        t->offset = offset;
        offset += gyre_round_up(t->bytes, ALIGNMENT);
    }
    const uint64_t padding = gyre_round_up(out.meta_bytes, ALIGNMENT) - out.meta_bytes;
    put(&out, (const char[ALIGNMENT]){0}, padding);
    if (g->failed != GYRE_OK || out.failed != GYRE_OK) {
        gyre_gguf_free(&out);
        return gyre_fail(err, g->failed != GYRE_OK ? g->failed : out.failed, "cannot describe the output (%s): %s",
                         g->wrong,
                         g->failed == GYRE_E_INVALID ? "GGUF cannot hold this name or shape" : "out of memory");
    }
    for (uint64_t i = 0; i < g->n_tensors; i++) g->tensors[i].offset += out.meta_bytes;
    *front = out.meta;
    *front_bytes = out.meta_bytes;
    *file_bytes = out.meta_bytes + offset;
    return GYRE_OK;
}

void gyre_gguf_free(struct gyre_gguf *g)
{
    free(g->meta);
    free(g->tensors);
    *g = (struct gyre_gguf){0};
}
