// Do numbers keep their meaning as halves? A half overflows above 65504 and below 2^-14 counts in steps of 2^-24, so
// numbers that are small among large ones may lose digits harmlessly; a row or a column that is small as a whole may
// not: what multiplies it can be as large as it is small.
#pragma once
#include <stdbool.h>
#include <stdint.h>

// Of one matrix whose rows arrive in any order. Zero-initialise; `most` and `lost` are gyre_half_range_add's.
struct gyre_half_range {
    float *most, *lost; // [columns]: the largest magnitude, and the largest that halves take from a number
    bool bad;           // a row does not fit
};

// Looks at rows [n, columns]. false where memory ran out.
bool gyre_half_range_add(struct gyre_half_range *range, const float *rows, uint64_t n, uint64_t columns);
// Ends the matrix and frees: does all of it fit?
bool gyre_half_range_end(struct gyre_half_range *range, uint64_t columns);
