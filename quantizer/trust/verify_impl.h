// What the checks of verify.c and of the verify_*.c share; the functions are verifier.c's where nothing else is said.
#pragma once
#include "quantizer/file/base.h"
#include "quantizer/file/manifest_read.h"
#include "quantizer/transform/rotate.h"
#include "runtime/model/linear.h"

#include <gyre/gyre_quantize.h>

struct gyre_verifier {
    const gyre_verify_params *params;
    gyre_verify_result *result;
    char *detail;             // of the running check, sizeof result->check[0].detail bytes
    gyre_source *file, *base; // base NULL: none was given
    struct gyre_base base_read;
    struct gyre_manifest manifest;
    json_t *rows; // gyre_manifest_index of the manifest's "tensors"
    struct gyre_hparams hp, base_hp;
    bool rotated;                 // set by gyre_verify_norms, like the rotator
    struct gyre_rotator signs;    // R1 and R2 as the seed makes them; owned
    struct gyre_matrices learned; // those in the place of R1 and R2, where the manifest tells of such; owned
    struct gyre_rotator rotator;  // the same with the transforms that the file carries; borrows, never released
    uint64_t done, total;         // bytes hashed or weights compared, for progress
    const char *what;
};

// GYRE_E_FORMAT: the file is not what its manifest claims, and why.
gyre_status gyre_verify_differs(const struct gyre_verifier *v, gyre_error *err, const char *format, ...)
    GYRE_PRINTF(3, 4);
// Progress by `units`; GYRE_E_CANCELLED where the caller says so.
gyre_status gyre_verify_tick(struct gyre_verifier *v, uint64_t units, gyre_error *err) GYRE_MUST_USE;

// A linear of the file, and its width: 4, 8, 16 or 32 bits. GYRE_E_FORMAT for what gyre writes no linear as.
gyre_status gyre_verify_linear(const struct gyre_verifier *v, gyre_role role, uint32_t layer, struct gyre_linear *out,
                               uint32_t *bits, gyre_error *err) GYRE_MUST_USE;

// Gains, scales and clips of the file were learned after rounding (pass/distill.h).
bool gyre_verify_is_learned(const struct gyre_verifier *v);

// verify_folder.c: of a Hugging Face directory. The SHA-256 of all but its tensors, as its manifest has it
// (gyre_writer_front_sha256); and whether the texts that were carried along are the base model's.
bool gyre_verify_is_folder(const struct gyre_verifier *v);
gyre_status gyre_verify_folder_front(const struct gyre_verifier *v, char *hex, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_verify_folder_texts(const struct gyre_verifier *v, gyre_error *err) GYRE_MUST_USE;

// The checks that need a base, in order: what the file says of itself and the hashes of what was read (verify_base.c),
// what was merged (verify_norms.c), the weights (verify_weights.c).
gyre_status gyre_verify_base(struct gyre_verifier *v, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_verify_sources(struct gyre_verifier *v, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_verify_norms(struct gyre_verifier *v, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_verify_weights(struct gyre_verifier *v, gyre_error *err) GYRE_MUST_USE;
