// What a model file offers, whatever its container: metadata and named tensors.
//
// Two containers stand behind it: GGUF (one file) and a Hugging Face directory (config.json, tokenizer.json,
// safetensors shards). Tensors keep the names of their container (runtime/model/roles.h finds them in both).
// Everything is memory-mapped and bounds-checked once at open; a source is immutable and may be shared between
// threads.
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
// The same for a look at a file that may be none of gyre's: what a reader refuses by name (a type of tensor, a scheme
// of quantization, a feature that config.json asks for) is kept as a refusal, and the reading goes on. With one,
// metadata made of config.json may be incomplete.
gyre_status gyre_source_look(const char *path, gyre_source **out, gyre_error *err) GYRE_MUST_USE;
void gyre_source_close(gyre_source *source);

// Whether the files are still those that were opened: what was read through the mapping was one model. GYRE_E_IO
// names the one that was changed. To be asked before something made from a source counts as done.
gyre_status gyre_source_unchanged(const gyre_source *source, gyre_error *err) GYRE_MUST_USE;

const char *gyre_source_path(const gyre_source *source);
gyre_container gyre_source_container(const gyre_source *source);
// The message of a refusal, one for each kind; NULL past the last. None of a source that was opened.
const char *gyre_source_refusal(const gyre_source *source, uint32_t index);

// A tensor of a type that gyre does not read. Lives as long as its source.
struct gyre_unread {
    const char *name, *type; // the type as its container calls it
    uint32_t n_dims;
    uint64_t dims[4];
};
const struct gyre_unread *gyre_source_unread(const gyre_source *source, uint64_t index); // NULL past the last

// Whether it says that the head is a matrix of its own.
bool gyre_source_untied(const gyre_source *source);

// All bytes of a GGUF file, in which its tensors lie; NULL for a folder.
const unsigned char *gyre_source_bytes(const gyre_source *source, uint64_t *bytes);

// The mapped files in which its tensors lie, in no order.
struct gyre_source_span {
    const char *path;
    const unsigned char *data;
    uint64_t bytes;
};
uint64_t gyre_source_span_count(const gyre_source *source);
struct gyre_source_span gyre_source_span_at(const gyre_source *source, uint64_t index);

uint64_t gyre_source_tensor_count(const gyre_source *source);
const struct gyre_tensor *gyre_source_tensor_at(const gyre_source *source, uint64_t index); // in file order
const struct gyre_tensor *gyre_source_tensor(const gyre_source *source, const char *name);  // NULL if absent

// Gives the memory of a tensor's mapped pages back; they are read from the file again when they are needed.
void gyre_tensor_forget(const struct gyre_tensor *tensor);

// Decodes rows first..first+n-1 of a tensor to f32 / f64 (exact).
void gyre_tensor_rows_f32(const struct gyre_tensor *tensor, uint64_t first, uint64_t n, float *out);
void gyre_tensor_rows_f64(const struct gyre_tensor *tensor, uint64_t first, uint64_t n, double *out);

// ---- metadata: GGUF keys; the HF reader gives the same keys made from config.json (under the model type and
// "general.", none about the tokenizer: that is runtime/text's).
//
// A getter has three answers. Absent: GYRE_OK, *found (may be NULL) is false and *out is left as it was, so that it
// may hold the default. A value: GYRE_OK. Unreadable (another kind of value than asked for): GYRE_E_FORMAT with a
// line that names the key, never a default. Any width of integer is one, so is a float without a fraction and a list
// whose elements are all equal (per-layer lists); a list of different values is GYRE_E_UNSUPPORTED.
bool gyre_source_has(const gyre_source *source, const char *key);     // of any type
bool gyre_source_is_list(const gyre_source *source, const char *key); // it is there, and an array
gyre_status gyre_source_i64(const gyre_source *source, const char *key, int64_t *out, bool *found,
                            gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_source_u64(const gyre_source *source, const char *key, uint64_t *out, bool *found,
                            gyre_error *err) GYRE_MUST_USE; // negative is unreadable
gyre_status gyre_source_f64(const gyre_source *source, const char *key, double *out, bool *found,
                            gyre_error *err) GYRE_MUST_USE; // may be infinite or NaN
gyre_status gyre_source_bool(const gyre_source *source, const char *key, bool *out, bool *found,
                             gyre_error *err) GYRE_MUST_USE; // also the integers 0 and 1
// UTF-8, NUL-terminated, valid until the source is closed; *out is left as it was where the key is absent.
gyre_status gyre_source_string(const gyre_source *source, const char *key, const char **out,
                               gyre_error *err) GYRE_MUST_USE;

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
// Lists; one value is a list of one, 0 and 1 are bools, too. *out is malloc'd (free() it), NULL where the key is
// absent. Strings point into the file.
gyre_status gyre_source_array_strings(const gyre_source *source, const char *key, struct gyre_string **out, uint64_t *n,
                                      gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_source_array_i64(const gyre_source *source, const char *key, int64_t **out, uint64_t *n,
                                  gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_source_array_f64(const gyre_source *source, const char *key, double **out, uint64_t *n,
                                  gyre_error *err) GYRE_MUST_USE; // may hold infinities and NaN
gyre_status gyre_source_array_bool(const gyre_source *source, const char *key, bool **out, uint64_t *n,
                                   gyre_error *err) GYRE_MUST_USE;

// The text of a small file of an HF directory, NUL-terminated: config.json, generation_config.json,
// tokenizer_config.json, tokenizer.json, chat_template.jinja or chat_template.json. NULL where there is none, and for
// GGUF.
const char *gyre_source_file(const gyre_source *source, const char *name, uint64_t *bytes);

// How the linears of a checkpoint were rounded, as its config.json says; NULL: it says nothing (quantization.h).
const struct gyre_quantization *gyre_source_quantization(const gyre_source *source);

// Whether a Hugging Face directory holds more than its text model, whose names have a prefix there.
bool gyre_source_is_wrapped(const gyre_source *source);

// One line about a choice that the reader made where the files left one, for a log; NULL: nothing to say.
const char *gyre_source_note(const gyre_source *source);
