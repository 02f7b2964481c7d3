// What a model file offers, whatever its container: metadata and named tensors.
//
// Two containers stand behind it: GGUF (one file) and a Hugging Face directory (config.json, tokenizer.json,
// safetensors shards). Tensor names are GGUF's ("blk.3.attn_q.weight"); the HF reader translates. Everything is
// memory-mapped and bounds-checked once at open; a source is immutable and may be shared between threads.
#pragma once
#include "runtime/core/dtype.h"
#include "runtime/util/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct gyre_source gyre_source;

typedef enum gyre_container { GYRE_CONTAINER_GGUF, GYRE_CONTAINER_HF } gyre_container;

// A tensor as it lies in the file: rows of `cols` contiguous elements; shape [rows, cols] (a vector has rows 1).
struct gyre_tensor {
    const char *name;
    gyre_dtype type;
    uint32_t n_dims;
    uint64_t dims[4];    // row-major, outermost first (reverse of GGUF's order)
    uint64_t rows, cols; // product of all but the last dim, last dim
    const void *data;    // mapped; valid until the source is closed; may be unaligned
    uint64_t bytes;
};

// Opens a GGUF file or an HF directory (told apart by what `path` is). Errors name the file, the offset or tensor
// and what is wrong. Fuzz-safe: never reads outside the file, never allocates more than a small multiple of it.
gyre_status gyre_source_open(const char *path, gyre_source **out, gyre_error *err) GYRE_MUST_USE;
void gyre_source_close(gyre_source *source);

const char *gyre_source_path(const gyre_source *source);
gyre_container gyre_source_container(const gyre_source *source);
// All bytes of a GGUF file, in which its tensors lie; NULL for a folder.
const unsigned char *gyre_source_bytes(const gyre_source *source, uint64_t *bytes);

uint64_t gyre_source_tensor_count(const gyre_source *source);
const struct gyre_tensor *gyre_source_tensor_at(const gyre_source *source, uint64_t index); // in file order
const struct gyre_tensor *gyre_source_tensor(const gyre_source *source, const char *name);  // NULL if absent

// Gives the memory of a tensor's mapped pages back; they are read from the file again when they are needed.
void gyre_tensor_forget(const struct gyre_tensor *tensor);

// Decodes rows first..first+n-1 of a tensor to f32 / f64 (exact).
void gyre_tensor_rows_f32(const struct gyre_tensor *tensor, uint64_t first, uint64_t n, float *out);
void gyre_tensor_rows_f64(const struct gyre_tensor *tensor, uint64_t first, uint64_t n, double *out);

// ---- metadata: GGUF keys; the HF reader gives the same keys made from config.json (under "llama." and "general.").
bool gyre_source_has(const gyre_source *source, const char *key);                // of any type
bool gyre_source_u64(const gyre_source *source, const char *key, uint64_t *out); // any integer type, non-negative
bool gyre_source_f64(const gyre_source *source, const char *key, double *out);   // any numeric type
bool gyre_source_bool(const gyre_source *source, const char *key, bool *out);
const char *gyre_source_string(const gyre_source *source, const char *key); // NULL if absent; UTF-8, NUL-terminated

typedef enum gyre_meta_type {
    GYRE_META_U8,
    GYRE_META_I8,
    GYRE_META_U16,
    GYRE_META_I16,
    GYRE_META_U32,
    GYRE_META_I32,
    GYRE_META_F32,
    GYRE_META_BOOL,
    GYRE_META_STRING,
    GYRE_META_ARRAY,
    GYRE_META_U64,
    GYRE_META_I64,
    GYRE_META_F64
} gyre_meta_type; // GGUF's ids

struct gyre_string {
    const char *data;
    uint64_t length;
}; // not NUL-terminated

// One metadata entry, for iteration (inspect, copying into a new file) and for arrays.
struct gyre_meta {
    const char *key;
    gyre_meta_type type, element; // element: of arrays
    uint64_t count;               // of array elements; 1 otherwise
    const void *raw;              // the value's encoded bytes as in GGUF, after the type; also for HF
    uint64_t raw_bytes;
};
uint64_t gyre_source_meta_count(const gyre_source *source);
struct gyre_meta gyre_source_meta_at(const gyre_source *source, uint64_t index);
// Array access; false if the key is absent or of another type. Strings point into the file.
bool gyre_source_array(const gyre_source *source, const char *key, struct gyre_meta *out);
bool gyre_source_array_strings(const gyre_source *source, const char *key, struct gyre_string **out,
                               uint64_t *n); // malloc'd; free() it
bool gyre_source_array_i64(const gyre_source *source, const char *key, int64_t **out,
                           uint64_t *n); // malloc'd; free() it

// The text of a tokenizer.json where GGUF's tokenizer keys cannot say the same (an HF directory's own, or the key
// tokenizer.huggingface.json that a file made from one carries); else NULL, and the tokenizer.ggml.* keys are there.
const char *gyre_source_tokenizer_json(const gyre_source *source, uint64_t *bytes);
