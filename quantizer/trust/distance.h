// How far a linear of a file is from the base model's: both in double precision, the file's un-rotated with what the
// file itself carries, the base's with what the run merged into it.
//
// Everything merged is orthogonal except the norm gains, so errors are compared with the gains folded in: there they
// are what they were when the file was made.
#pragma once
#include "quantizer/transform/diagonals.h"
#include "quantizer/trust/verify_impl.h"

struct gyre_distance {
    double error, norm; // squares of the differences, and of the base's numbers
    uint64_t n;         // numbers
};
double gyre_distance_relative(const struct gyre_distance *d); // gyre_relative of the three
void gyre_distance_add(struct gyre_distance *d, const double *base, const double *have, uint64_t n); // [n] each

// Squared distance of a linear from the base's, and the linear and its bits. NULL rotator: as it lies there.
gyre_status gyre_verify_distance(const struct gyre_verifier *v, const struct gyre_rotator *rotator, gyre_role role,
                                 uint32_t layer, struct gyre_distance *out, struct gyre_linear *linear, uint32_t *bits,
                                 gyre_error *err) GYRE_MUST_USE;

// Rows of heads lie in the file's order.
bool gyre_verify_permutes(const struct gyre_verifier *v, gyre_role role);
// The file's blocks have diagonals, learned or not.
bool gyre_verify_has_diagonals(const struct gyre_verifier *v);
// The diagonals of a block: the manifest's or the learned ones, and those that lie in the file's norms, which hold the
// base's gains too where these were not folded. GYRE_OK and out->up_down NULL: none. Release after success.
gyre_status gyre_verify_diagonals(const struct gyre_verifier *v, bool rotated, uint32_t layer,
                                  struct gyre_diagonals *out, gyre_error *err) GYRE_MUST_USE;
