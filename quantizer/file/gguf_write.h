// Builds the front of a GGUF v3 file: metadata and tensor descriptions. Sizes and offsets are known before any data is,
// so that tensors can be written in any order, straight to their places.
#pragma once
#include "runtime/source/source.h"

// One tensor of the file being written.
struct gyre_gguf_tensor {
    char name[64];
    gyre_dtype type;
    uint32_t n_dims;
    uint64_t dims[2];       // row-major; a vector has one
    uint64_t bytes, offset; // offset from the start of the file, valid after gyre_gguf_finish
};

struct gyre_gguf {
    unsigned char *meta; // encoded key/value pairs
    uint64_t meta_bytes, meta_cap, n_meta;
    struct gyre_gguf_tensor *tensors;
    uint64_t n_tensors, cap_tensors;
    gyre_status failed; // sticky: GYRE_E_NOMEM, or GYRE_E_INVALID for a name or shape that GGUF cannot hold
    char wrong[64];     // its name
};

// All of these remember a failure, which gyre_gguf_finish reports; a key that is there already is left alone.
void gyre_gguf_u32(struct gyre_gguf *g, const char *key, uint32_t value);
void gyre_gguf_u64(struct gyre_gguf *g, const char *key, uint64_t value);
void gyre_gguf_f32(struct gyre_gguf *g, const char *key, float value);
void gyre_gguf_bool(struct gyre_gguf *g, const char *key, bool value);
void gyre_gguf_string(struct gyre_gguf *g, const char *key, const char *value);
void gyre_gguf_u32_array(struct gyre_gguf *g, const char *key, const uint32_t *values, uint64_t n);
void gyre_gguf_encoded(struct gyre_gguf *g, const char *key, gyre_meta_type type, const void *value,
                       uint64_t bytes); // as in struct gyre_meta

// Appends a tensor of shape dims[0..n_dims-1] and returns its index.
uint64_t gyre_gguf_add_tensor(struct gyre_gguf *g, const char *name, gyre_dtype type, uint32_t n_dims,
                              const uint64_t *dims);

// Sets every tensor's offset and gives the encoded front (malloc'd; everything up to the first tensor's data, padding
// included) and the size of the whole file. Tensors follow in order, each padded to 32 bytes with zeros.
gyre_status gyre_gguf_finish(struct gyre_gguf *g, unsigned char **front, uint64_t *front_bytes, uint64_t *file_bytes,
                             gyre_error *err) GYRE_MUST_USE;
void gyre_gguf_free(struct gyre_gguf *g);
