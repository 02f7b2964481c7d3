// From what is planned to what lies in a file: names, types and places of tensors, metadata, and the bytes of a matrix.
// A container is one struct gyre_format; plan, journal, manifest and everything that makes numbers know none.
#pragma once
#include "quantizer/file/plan.h"

// One tensor of the output. A part may have several, one behind the other.
struct gyre_written {
    struct gyre_part part;
    uint32_t piece; // of the part's tensors
    char name[64];
    gyre_dtype type;
    uint32_t n_dims;
    uint64_t dims[2];       // row-major; a vector has one
    uint64_t bytes, offset; // in the file
};

struct gyre_writer {
    const struct gyre_format *format;
    struct gyre_written *tensor; // in the order of the plan, in which they are written
    uint64_t n_tensors, globals; // all; before the first block
    unsigned char *front;        // everything before the first tensor's data
    uint64_t front_bytes, file_bytes;
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
    // Fills everything but `format` and `globals`. What cannot be said in this container is refused here, before any
    // work.
    gyre_status (*open)(const struct gyre_plan *plan, struct gyre_writer *out, gyre_error *err);
    // The bytes of a tensor of a matrix; `out` has room for them.
    void (*encode)(const struct gyre_written *tensor, const struct gyre_values *values, void *out);
};
extern const struct gyre_format gyre_format_gguf;

// `plan` is finished, and not kept. Close also after failure.
gyre_status gyre_writer_open(const struct gyre_format *format, const struct gyre_plan *plan, struct gyre_writer *out,
                             gyre_error *err) GYRE_MUST_USE;
void gyre_writer_close(struct gyre_writer *writer);

bool gyre_part_is(const struct gyre_part *a, const struct gyre_part *b);
const struct gyre_written *gyre_writer_find(const struct gyre_writer *writer, struct gyre_part part); // NULL: none
// How many tensors are written after `steps` steps: what lies before the blocks, then one block each.
uint64_t gyre_writer_tensors(const struct gyre_writer *writer, uint64_t steps);
