// What stands behind a gyre_source, for its readers (gguf.c, hf.c, safetensors.c) only.
//
// A reader maps files into `maps`, then adds metadata and tensors; both adders refuse duplicates. Metadata values
// are kept in GGUF's encoding whatever the container, so that every getter is written once.
#pragma once
#include "runtime/source/quantization.h"
#include "runtime/source/source.h"
#include "runtime/util/arena.h"
#include "runtime/util/file.h"
#include "runtime/util/strmap.h"
#include "runtime/util/utf8.h"

#include <limits.h>

struct source_meta {
    struct gyre_meta meta;
    const char *text; // strings: NUL-terminated copy; else NULL
};

struct gyre_source {
    char *path;
    gyre_container container;
    struct gyre_arena arena; // keys, names, texts, and the values of an HF source
    struct source_map {
        const char *path;
        struct gyre_file_map file;
    } * maps;
    uint64_t n_maps;
    struct source_meta *metas;
    size_t n_metas, cap_metas;
    struct gyre_tensor *tensors;
    size_t n_tensors, cap_tensors;
    struct gyre_unread *unread;
    size_t n_unread, cap_unread;
    bool looking;                             // see gyre_source_look
    const char *refusal[8], *refused_type[8]; // the type of tensors that it is of; NULL: of something else
    uint32_t n_refusals;                      // those beyond the room for them are left out
    struct gyre_strmap meta_index, tensor_index;
    struct source_file {
        const char *name;
        char *text; // malloc'd, NUL-terminated
        uint64_t bytes;
    } files[8]; // what gyre_source_file gives
    uint32_t n_files;
    const struct gyre_quantization *quantization; // in the arena; NULL: none
    const char *note;                             // see gyre_source_note; NULL: nothing
    const char *hf_ignored[8];                    // endings of names of tensors that are of no use
    uint32_t n_hf_ignored;
    struct gyre_tensor hf_head; // of a model with hf_tied, as a file has it; no data: it has none
    bool hf_tied, hf_untied;    // config.json ties the head to the embedding, or says that it is not
    bool hf_own;                // gyre wrote the tensors, says their __metadata__
    bool hf_wrapped;            // the directory holds more than a text model
};

gyre_status gyre_gguf_read(gyre_source *source, gyre_error *err) GYRE_MUST_USE;      // all its parts
gyre_status gyre_gguf_read_file(gyre_source *source, gyre_error *err) GYRE_MUST_USE; // one file
gyre_status gyre_hf_read(gyre_source *source, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_meta_read(gyre_source *source, gyre_error *err) GYRE_MUST_USE;

// The path of a file in the source's folder.
gyre_status gyre_source_join(const gyre_source *source, const char *name, char out[PATH_MAX],
                             gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_source_map(gyre_source *source, const char *path, struct gyre_file_map *out,
                            gyre_error *err) GYRE_MUST_USE;
// Takes over the mappings of another source, into which its own tensors may then point.
gyre_status gyre_source_take_maps(gyre_source *source, gyre_source *from, gyre_error *err) GYRE_MUST_USE;

// `meta->raw` must stay valid; the key is copied. FORMAT on an empty, odd or known key.
gyre_status gyre_source_add_meta(gyre_source *source, const struct gyre_meta *meta, struct gyre_string key,
                                 gyre_error *err) GYRE_MUST_USE;
// The same for a value that is copied.
gyre_status gyre_source_put_meta(gyre_source *source, const char *key, gyre_meta_type type, const void *value,
                                 uint64_t bytes, gyre_error *err) GYRE_MUST_USE;
// Takes type, n_dims, dims and (once known) data; fills rows, cols and bytes. The name is copied. FORMAT on an empty,
// odd or known name, a zero dimension, a size that overflows, or a row that is no whole number of blocks.
gyre_status gyre_source_add_tensor(gyre_source *source, const struct gyre_tensor *tensor, struct gyre_string name,
                                   gyre_error *err) GYRE_MUST_USE;

// Where a reader refuses by name, of status `st` and with its line in `err`: when looking, the line is kept and the
// answer is GYRE_OK; else it is `st`.
gyre_status gyre_source_let(gyre_source *source, gyre_status st, gyre_error *err) GYRE_MUST_USE;
// The same for a tensor of a type that gyre does not read, which is kept, too; the line of each type once.
gyre_status gyre_source_let_tensor(gyre_source *source, gyre_status st, const struct gyre_unread *tensor,
                                   gyre_error *err) GYRE_MUST_USE;

// Bytes of one value of a metadata type; 0 for strings and arrays.
uint64_t gyre_meta_type_bytes(gyre_meta_type type);
