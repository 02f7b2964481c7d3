// A step of Adam on rotations and on the diagonals that are learned with them, as OSTQuant takes it (arXiv 2501.13987;
// Riemannian Adam: arXiv 1810.00760), in double. Of a rotation R with the loss's gradient G the mean is of
// W = R'G - G'R, a skew matrix that a step leaves as it is, and one mean of squares, of |W|^2 / 2, serves all of it:
//     R := R (I - X) / (I + X),   X = rate m / (sqrt(s) + 1e-8)
// Diagonals go by their logarithms, number by number. Decay 0.9 and 0.999, both means corrected for their beginning.
#pragma once
#include "quantizer/transform/matrices.h"

// `step` counts from 0. mean, square: [gyre_matrices_count] each, zeros at first. `gradient` by the elements of
// rotations and by the logarithms of diagonals. GYRE_E_FORMAT where a number is none.
gyre_status gyre_radam_step(struct gyre_matrices *at, const struct gyre_matrices *gradient, double *mean,
                            double *square, uint64_t step, double rate, double diagonal_rate,
                            gyre_error *err) GYRE_MUST_USE;
