// Between linear.c and pack_*.c only: one encoding of matrices each.
#pragma once
#include "runtime/model/linear.h"

struct gyre_pack {
    uint32_t methods;               // bits of gyre_method: only in checkpoints of these; 0: in any file
    const char *part;               // of the tensor that holds it: "weight", or as another tool calls its codes
    bool (*takes)(gyre_dtype type); // of that tensor
    // Fills shape, bits, group and stored of `l`, whose weight is set; rows and cols are what is due.
    gyre_status (*open)(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer,
                        struct gyre_linear *l, gyre_error *err);
    // Columns col .. col+n-1 of a row of the file; col is a multiple of 256, and n is or ends the row.
    void (*values)(const struct gyre_linear *l, uint64_t row, uint64_t col, uint64_t n, float *out);
    // A row's codes in the order of the matrix, its scales and zero points as they are stored; NULL where there are
    // none.
    void (*codes)(const struct gyre_linear *l, uint64_t row, int8_t *codes);
    float (*scale)(const struct gyre_linear *l, uint64_t row, uint64_t index);
    int (*zero)(const struct gyre_linear *l, uint64_t row, uint64_t index);
};

extern const struct gyre_pack
    gyre_pack_gyre; // I8: packed nibbles or bytes, beside F16 "weight.scale" [rows, cols/group]
extern const struct gyre_pack gyre_pack_q4_0;  // blocks of 32 nibbles, scales possibly repeated over a group
extern const struct gyre_pack gyre_pack_q8_0;  // the same with bytes
extern const struct gyre_pack gyre_pack_float; // floats, and blocks that only expand to them
// Of other tools' checkpoints (quantization.h), as pack_words.c and pack_bytes.c describe them.
extern const struct gyre_pack gyre_pack_compressed, gyre_pack_columns; // codes in 32-bit words
extern const struct gyre_pack gyre_pack_bytes;                         // a code in each byte

// pack_shared.c: tensors beside it, a number of a tensor of floats, and whether bits, group and zero points
// of `l` are among the schemes that the checkpoint declares.
// The tensor `part` beside the one that holds its codes; and the same, which must be there.
struct gyre_linear_place {
    const gyre_source *source;
    const struct gyre_hparams *hp;
    gyre_role role;
    uint32_t layer;
};
const struct gyre_tensor *gyre_linear_part(const struct gyre_linear_place *at, const struct gyre_linear *l,
                                           const char *part);
gyre_status gyre_linear_need(const struct gyre_linear_place *at, const struct gyre_linear *l, const char *part,
                             const struct gyre_tensor **out, gyre_error *err) GYRE_MUST_USE;
float gyre_float_at(const struct gyre_tensor *t, uint64_t index);
gyre_status gyre_linear_declared(const gyre_source *source, const struct gyre_linear *l, gyre_error *err) GYRE_MUST_USE;
