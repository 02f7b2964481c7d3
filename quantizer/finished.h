// A finished file as the beginning of a run (gyre_quantize_params.from): what it holds goes into OUT as it is, and what
// the run's recipe learns comes behind it.
//
// OUT is what the file's recipe would have made with the name, the calibration and the `distill` of the run's: that is
// the recipe that it carries. Its manifest names the file ("from"), and takes over what was chosen and merged there.
#pragma once
#include "quantizer/file/manifest_read.h"
#include "quantizer/file/output.h"

struct gyre_finished {
    const char *path;
    char sha256[GYRE_SHA256_HEX]; // of all of it
    gyre_source *file;
    struct gyre_manifest manifest;
    json_t *index;             // of the manifest's tensors
    struct gyre_recipe recipe; // OUT's
};

// Opens params->from and its manifest beside it; widths, profile and seed that `params` leaves open become the file's.
// GYRE_E_INVALID for others than those and for a recipe that rounds, GYRE_E_UNSUPPORTED for a file of floats or a
// folder, GYRE_E_IO and GYRE_E_FORMAT for what is missing, damaged or not gyre's. Close also after failure.
gyre_status gyre_finished_open(gyre_quantize_params *params, struct gyre_finished *out, gyre_error *err) GYRE_MUST_USE;
void gyre_finished_close(struct gyre_finished *finished); // accepts a zeroed one

// {"name", "sha256"}, "calibration" where it was calibrated, and its own "from": for the manifest. NULL when out of
// memory.
json_t *gyre_finished_identity(const struct gyre_finished *finished);
// What its recipe left open; false where it left nothing.
bool gyre_finished_choice(const struct gyre_finished *finished, struct gyre_choice *out);

// The tensors of the step that is next in `out`, which ends with it; each is held against its hash in the manifest.
// Clips that the file has not are written as they are before anything is learned.
gyre_status gyre_finished_step(const struct gyre_finished *finished, struct gyre_output *out,
                               gyre_error *err) GYRE_MUST_USE;

// Were rotations learned for it: says so in `told` as its manifest does, and gives their file's content, malloc'd; else
// *data is NULL.
gyre_status gyre_finished_rotations(const struct gyre_finished *finished, json_t *told, char **data, uint64_t *bytes,
                                    gyre_error *err) GYRE_MUST_USE;
