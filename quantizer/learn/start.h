// Where OSTQuant's rotations start (arXiv 2501.13987, its code): the eigenvectors of the weights' covariance, then the
// Hadamard transform with signs, by which rows of weights have few outliers. R1 of the rows of everything that reads
// the stream, R2 of those of o, by kv head.
#pragma once
#include "quantizer/learn/folded.h"

// `at` holds what the plan's rotator merges, and gets the eigenvectors in front of it. Eigenvectors are those of the
// machine's linear algebra, as all that is learned.
gyre_status gyre_start_by_weights(const struct gyre_plan *plan, struct gyre_matrices *at,
                                  gyre_error *err) GYRE_MUST_USE;
