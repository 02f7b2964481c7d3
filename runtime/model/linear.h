// A matrix of a model as its file holds it, whatever the encoding: found by role, read as numbers or as codes and
// scales. What lies beside a tensor and how its bits are packed is known to the pack_*.c behind this and to nobody
// above: loader, checks, quantizer, verification and inspection ask here, so that every matrix that runs can also be
// quantized.
#pragma once
#include "runtime/model/roles.h"

struct gyre_pack; // how numbers are packed: pack.h

// Borrows from its source, which must outlive it. Any number of threads may read.
struct gyre_linear {
    const struct gyre_pack *pack;
    const struct gyre_tensor *weight, *scale; // scale NULL: floats, or blocks that carry theirs
    const struct gyre_tensor *zero;           // zero points; NULL: none are stored
    const struct gyre_tensor *index;          // the group of each column; NULL: they follow each other
    const struct gyre_tensor *shape;          // says only how large the matrix is; NULL: the tensors do
    uint64_t rows, cols;                      // of the matrix, whatever the shape of the tensors
    uint64_t first, whole;                    // its rows are those from `first` on, of `whole` that the tensors have
    uint32_t bits;   // of its codes, 4 or 8 (number = (code - zero) * scale); 0: it holds other numbers
    uint32_t group;  // columns that share a scale, as the model declares; bits 0: 0
    uint32_t stored; // columns per scale in the file; divides group
    uint32_t paired; // 0, or the head size: rows are asked for in another order (below)
    uint32_t less;   // what a stored zero point lacks
    bool zeros;      // a zero point is not 0
    bool ordered;    // the columns of a group do not lie together (act-order): see gyre_linear_order
};

// The matrix of a role: presence, shape, scales and their width are checked, values are not. GYRE_E_FORMAT names the
// tensor that is missing or of another shape, GYRE_E_UNSUPPORTED an encoding that is none.
gyre_status gyre_linear_find(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer,
                             struct gyre_linear *out, gyre_error *err) GYRE_MUST_USE;
// Whether the source has one for the role, in any encoding.
bool gyre_linear_there(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role, uint32_t layer);
// A tensor of any type but I8 as a matrix of its own, its blocks as they lie.
void gyre_linear_of(const struct gyre_tensor *tensor, struct gyre_linear *out);
// The linears of a product that block `layer` has, in the order in which they lie side by side.
gyre_status gyre_linear_product(const gyre_source *source, const struct gyre_hparams *hp, uint32_t layer,
                                gyre_product product, struct gyre_linear out[GYRE_LINEARS],
                                gyre_role role[GYRE_LINEARS], uint32_t *n, gyre_error *err) GYRE_MUST_USE;

// n rows from `first` on, as numbers: out [n, cols], columns as the model has them. Exact in f32 (but for scales
// that are stored in f32: rounded once); f64 is the same wider.
void gyre_linear_rows_f32(const struct gyre_linear *linear, uint64_t first, uint64_t n, float *out);
void gyre_linear_rows_f64(const struct gyre_linear *linear, uint64_t first, uint64_t n, double *out);

// The same as codes [n, cols], f16 scales and (NULL: not wanted) zero points [n, cols / group], columns in
// gyre_linear_order. int4 codes lie in -8..7, zero points too; int8: -128..127 both. Scales that f16 does not
// hold are rounded. GYRE_E_FORMAT where the file's scales differ inside of a group although one is declared;
// GYRE_E_UNSUPPORTED where bits is 0.
gyre_status gyre_linear_codes(const struct gyre_linear *linear, uint64_t first, uint64_t n, int8_t *codes,
                              uint16_t *scales, int8_t *zeros, gyre_error *err) GYRE_MUST_USE;

// The order in which codes and groups lie: column j of them is column order[j] of the matrix; order [cols]. Without
// `ordered` it is 0, 1, 2, ...
void gyre_linear_order(const struct gyre_linear *linear, uint32_t *order);

// Whether f16 holds the scales of these rows: rounded, if at all, as a number of its normal range is.
bool gyre_linear_fits_half(const struct gyre_linear *linear, uint64_t first, uint64_t n);

// All tensors that it consists of; returns their number.
enum { GYRE_LINEAR_TENSORS = 5 };
uint32_t gyre_linear_tensors(const struct gyre_linear *linear, const struct gyre_tensor *out[GYRE_LINEAR_TENSORS]);

// The scales of a row as they are stored, out [cols / stored]; bits is 4 or 8.
void gyre_linear_scales(const struct gyre_linear *linear, uint64_t row, uint16_t *out);

// Says that the pages of the tensors are not needed soon (gyre_tensor_forget).
void gyre_linear_forget(const struct gyre_linear *linear);

// Row r of heads that RoPE turns in pairs (2i, 2i+1) is this row where they lie in pairs (i, i + hd/2).
uint64_t gyre_paired_row(uint32_t head_dim, uint64_t r);
