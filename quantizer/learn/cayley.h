// One step of descent on the orthogonal matrices, as SpinQuant's code takes it (arXiv 2405.16406; Cayley SGD:
// arXiv 2002.01113), in double precision:
//     W = -(G'R - R'G) / 2,   a = min(rate, 1 / |W|_1),   R := R (I - a/2 W) / (I + a/2 W)
// with G the loss's gradient by the elements of R. Only its part along the manifold counts. Solved by LU factors
// instead of by fixed-point passes, so that orthogonality is kept to rounding; rounding is taken out again (Newton).
#pragma once
#include "runtime/util/status.h"

#include <stdint.h>

// R := R (I - X) / (I + X) for a skew X [n][n].
gyre_status gyre_cayley_turn(double *r, const double *x, uint32_t n, gyre_error *err) GYRE_MUST_USE;
// R [n][n] in place. GYRE_E_FORMAT where G or R holds no numbers.
gyre_status gyre_cayley_step(double *r, const double *gradient, uint32_t n, double rate, gyre_error *err) GYRE_MUST_USE;
