// Rounding to nearest on a symmetric integer grid, with a search for the clip of every row or group.
#pragma once
#include "runtime/util/status.h"

#include <stdbool.h>
#include <stdint.h>

// A rounded matrix [rows, cols]: value = code * scale of its group.
struct gyre_codes {
    uint32_t bits;   // 4: codes -8..7; 8: -128..127
    uint32_t group;  // columns per scale; cols when per channel. Divides cols.
    int8_t *code;    // [rows, cols]
    uint16_t *scale; // [rows, cols/group], f16 bits, finite and >= 0
};

// Rounds w [rows, cols]. Each group tries scales p * max|w| / (2^(bits-1) - 1), rounded to f16 before anything is
// measured, and keeps the one with the least sum of |error|^2.4, then the least-squares scale of those codes where it
// is better still. At 4 bits p goes from 1 to 0.42 by 0.02; in groups of 256 and more, whose error is smooth in p, by
// 0.12 and then around the best. A group of zeros, or one too small for f16's subnormals, gets scale 0 and codes 0.
// GYRE_E_FORMAT where a weight is not finite or too large for an f16 scale ("row 3, column 17: ..."). The result does
// not depend on the number of threads.
gyre_status gyre_rtn(const float *w, uint64_t rows, uint64_t cols, struct gyre_codes *out,
                     gyre_error *err) GYRE_MUST_USE;

// The scale of one group of n weights, rounded to f16, or 0 (a group of zeros). `importance` NULL: the least sum of
// |error|^2.4 as above; else the least sum of importance * error^2 (diag(H): what an output sees), importance >= 0.
// `search` false: max|w| / (2^(bits-1) - 1). False where a weight is not finite or no scale fits f16.
bool gyre_search_scale(const float *w, const float *importance, uint64_t n, uint32_t bits, bool search, float *scale);

// Rows whose weights the scales cannot hold: an f16 scale below 2^-17 has fewer than 8 bits, none below 2^-25, and all
// of the row's are as small though some weight is not 0. w [rows, cols]: what was rounded.
uint64_t gyre_codes_faint(const struct gyre_codes *codes, const float *w, uint64_t rows, uint64_t cols);

// Back to floats.
void gyre_codes_expand(const struct gyre_codes *codes, uint64_t rows, uint64_t cols, float *out);

// Adds sum (w - v)^2 to *error and sum w^2 to *norm, in an order that does not depend on the number of threads. Columns
// of both are multiplied by `gain` [cols] first where it is not NULL.
void gyre_add_squares(const float *w, const float *v, const float *gain, uint64_t rows, uint64_t cols, double *error,
                      double *norm);

// error / norm, the relative squared error of n numbers. Zeros have no size to be relative to, and what lies below f16
// scales hardly any (gyre_is_faint: a root mean square below 2^-20): of those it is the mean squared error itself,
// error / n.
double gyre_relative(double error, double norm, uint64_t n);
bool gyre_is_faint(double norm, uint64_t n);
// The same of the two sums above.
double gyre_relative_error(const float *w, const float *v, const float *gain, uint64_t rows, uint64_t cols);
