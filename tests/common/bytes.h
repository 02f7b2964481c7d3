// A growing byte buffer with GGUF's encodings, for tests that write model files, honest and lying ones.
#pragma once
#include "runtime/source/source.h"

#include <stddef.h>
#include <stdint.h>

// Zero-initialise; free(b.data). Out of memory ends the test program.
struct bytes {
    unsigned char *data;
    size_t size, cap;
};

void put(struct bytes *b, const void *data, size_t size);
void put_u8(struct bytes *b, uint8_t v);
void put_u32(struct bytes *b, uint32_t v);
void put_u64(struct bytes *b, uint64_t v);
void put_f32(struct bytes *b, float v);
void put_text(struct bytes *b, const char *text);   // without a length
void put_string(struct bytes *b, const char *text); // u64 length + bytes
void put_zeros(struct bytes *b, size_t n);
void put_align(struct bytes *b, size_t alignment); // zeros up to a multiple

void put_number(struct bytes *b, gyre_meta_type type, double v); // as a value or an element of that type

// GGUF metadata: key, type, value.
void put_meta_u32(struct bytes *b, const char *key, uint32_t v);
void put_meta_f32(struct bytes *b, const char *key, float v);
void put_meta_bool(struct bytes *b, const char *key, int v);
void put_meta_string(struct bytes *b, const char *key, const char *v);
void put_meta_array(struct bytes *b, const char *key, gyre_meta_type element, uint64_t count); // the elements follow

// GGUF tensor description; dims outermost first, as in struct gyre_tensor.
void put_tensor_info(struct bytes *b, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t gguf_type,
                     uint64_t offset);

// Writes the buffer to a file; 0 on success.
int save_bytes(const struct bytes *b, const char *path);
// The same as `name` in a directory, and the buffer is freed and empty.
int save_bytes_in(const char *directory, const char *name, struct bytes *b);
