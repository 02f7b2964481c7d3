// Trust: is a file what its manifest claims, was it made from this base model, and do the same settings give it again?
// What each answer proves and what not: docs/trust.md.
#pragma once
#include "runtime/util/log.h"
#include "runtime/util/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { GYRE_VERIFY_CHECKS = 16 };

typedef struct gyre_verify_params {
    const char *file;
    const char *manifest; // NULL: FILE.manifest.json
    const char *base; // the model that FILE was made from, file or folder; NULL: only FILE and manifest are compared
    // Called often; a non-zero return ends with GYRE_E_CANCELLED. May be NULL.
    int (*progress)(void *user, double fraction, double eta_seconds, const char *what);
    void *user;
} gyre_verify_params;

typedef struct gyre_verify_check {
    const char *
        name; // "container", "manifest", "metadata", "tensors", "hashes", "values", "base", "sources", "norms", "weights"
    bool ok;
    char detail[480]; // what was found; where not ok, the message of the error
} gyre_verify_check;

typedef struct gyre_verify_result {
    uint32_t n_checks;
    gyre_verify_check check[GYRE_VERIFY_CHECKS]; // in order; a failed one is the last
    uint64_t tensors;                            // compared with the manifest
    uint64_t linears;                            // compared with the base; 0 without one
    bool rotated;                                // they were un-rotated for that
    // The tensor with the largest relative squared weight error: measured against the base, without one as the manifest
    // says; -1 where neither is known.
    char worst[64];
    double worst_error;
} gyre_verify_result;

// Runs all checks up to the first that fails; `result` tells of those that ran, also after a failure. Nothing is written.
// GYRE_E_FORMAT where FILE, manifest and base disagree; the message names the first tensor or key and how it differs.
gyre_status gyre_verify(const gyre_verify_params *params, gyre_verify_result *result, gyre_error *err) GYRE_MUST_USE;

typedef struct gyre_reproduce_params {
    const char *manifest, *base;
    const char *const *calib; // the calibration texts that the manifest names, in any order
    uint32_t n_calib;
    // Where the file is made again, and stays; an interrupted run is taken up there. NULL: in a folder beside the manifest
    // that is removed afterwards, whatever happens.
    const char *work;
    gyre_log log;
    int (*progress)(void *user, double fraction, double eta_seconds, const char *what);
    void *user;
} gyre_reproduce_params;

typedef struct gyre_reproduce_result {
    uint64_t tensors, differing;
    char first[64];        // the first tensor that differs; "" where none does
    bool metadata_differs; // the bytes before the first tensor
    // What is known to differ around the two runs ("gyre 0.1.0, here 0.2.0; ..."); "" where nothing is.
    char surroundings[200];
} gyre_reproduce_result;

// Quantizes `base` once more with the settings of the manifest and compares hash by hash. Another base or calibration text is
// refused before any work. GYRE_E_FORMAT where bytes differ; the message names the first tensor.
gyre_status gyre_reproduce(const gyre_reproduce_params *params, gyre_reproduce_result *result,
                           gyre_error *err) GYRE_MUST_USE;

#ifdef __cplusplus
}
#endif
