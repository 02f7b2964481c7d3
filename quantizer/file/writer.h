// From what is planned to what lies in a file: names, types and places of tensors, metadata, and the bytes of a matrix.
// A container is one struct gyre_format; plan, journal, manifest and everything that makes numbers know none.
#pragma once
#include "quantizer/file/plan.h"

// One tensor of the output, or some rows of one: a part may have several, one behind the other, and parts may share
// one.
struct gyre_written {
    struct gyre_plan_part part;
    uint32_t piece; // of the part's tensors
    char name[64];
    gyre_dtype type;
    uint32_t n_dims;
    uint64_t dims[2];       // row-major; a vector has one
    uint64_t first, whole;  // of a shared tensor: its rows that these follow, and how many it has; 0, 0: not shared
    uint32_t file;          // which of the writer's
    uint64_t bytes, offset; // in that file
};

// A file of the output that holds tensors.
struct gyre_written_file {
    char name[64];        // in the output's folder; "": the file is the output
    unsigned char *front; // everything before the first tensor's data
    uint64_t front_bytes, bytes;
};

// A file of the output's folder that is known before any number is made.
struct gyre_written_text {
    char name[64];
    char *text;
    uint64_t bytes;
};

enum { GYRE_WRITTEN_TEXTS = 16 };
struct gyre_writer {
    const struct gyre_format *format;
    struct gyre_written *tensor; // in the order of the plan, in which they are written
    uint64_t n_tensors, globals; // all; before the first block
    struct gyre_written_file *file;
    uint32_t n_files;
    struct gyre_written_text text[GYRE_WRITTEN_TEXTS];
    uint32_t n_texts;
};

// A matrix as it was made, rows * cols numbers: codes and f16 scales [rows, cols / group], or floats.
struct gyre_values {
    uint64_t rows, cols;
    uint32_t bits, group; // 16, 32: f32 is set, group unused
    const int8_t *code;
    const uint16_t *scale;
    const float *f32;
};

struct gyre_format {
    const char *name;
    bool folder; // the output is one
    // Fills everything but `format` and `globals`. What cannot be said in this container is refused here, before any
    // work.
    gyre_status (*open)(const struct gyre_plan *plan, struct gyre_writer *out, gyre_error *err);
    // The bytes of a tensor of a matrix; `out` has room for them.
    void (*encode)(const struct gyre_written *tensor, const struct gyre_values *values, void *out);
};
extern const struct gyre_format gyre_format_gguf, gyre_format_hf;

// `plan` is finished, and not kept. Close also after failure.
gyre_status gyre_writer_open(const struct gyre_format *format, const struct gyre_plan *plan, struct gyre_writer *out,
                             gyre_error *err) GYRE_MUST_USE;
void gyre_writer_close(struct gyre_writer *writer);

uint64_t gyre_writer_bytes(const struct gyre_writer *writer); // of all files
// SHA-256 of everything but the tensors' data, file by file; hex: GYRE_SHA256_HEX characters.
void gyre_writer_front_sha256(const struct gyre_writer *writer, char *hex);
// Where file number `file` lies while the output is `path`; malloc'd, NULL where memory ran out.
char *gyre_writer_path(const struct gyre_writer *writer, const char *path, uint32_t file);

// Says of a linear's tensor, or of its bias, which rows of which other one it is where plain files of this architecture
// have one for several linears; else nothing.
void gyre_written_share(struct gyre_written *tensor, const struct gyre_hparams *hp, gyre_container container);
bool gyre_part_is(const struct gyre_plan_part *a, const struct gyre_plan_part *b);
const struct gyre_written *gyre_writer_find(const struct gyre_writer *writer, struct gyre_plan_part part); // NULL: none
// How many tensors are written after `steps` steps: what lies before the blocks, then one block each.
uint64_t gyre_writer_tensors(const struct gyre_writer *writer, uint64_t steps);
