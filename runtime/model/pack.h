// Between linear.c and pack_*.c only: one encoding of matrices each.
#pragma once
#include "runtime/model/linear.h"

struct gyre_pack {
    bool (*takes)(gyre_dtype type); // of the tensor "weight"
    // Fills shape, bits, group and stored of `l`, whose weight is set; rows and cols are what is due.
    gyre_status (*open)(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer,
                        struct gyre_linear *l, gyre_error *err);
    // Columns col .. col+n-1 of a row of the file; col is a multiple of 256, and n is or ends the row.
    void (*values)(const struct gyre_linear *l, uint64_t row, uint64_t col, uint64_t n, float *out);
    // A row's codes, and its scales as they are stored; NULL where there are none.
    void (*codes)(const struct gyre_linear *l, uint64_t row, int8_t *codes);
    uint16_t (*scale)(const struct gyre_linear *l, uint64_t row, uint64_t index);
};

extern const struct gyre_pack
    gyre_pack_gyre; // I8: packed nibbles or bytes, beside F16 "weight.scale" [rows, cols/group]
extern const struct gyre_pack gyre_pack_q4_0;  // blocks of 32 nibbles, scales possibly repeated over a group
extern const struct gyre_pack gyre_pack_q8_0;  // the same with bytes
extern const struct gyre_pack gyre_pack_float; // floats, and blocks that only expand to them
