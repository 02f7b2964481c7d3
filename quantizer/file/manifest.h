// What makes a run what it is, and the record of it beside the file. No time, path or thread count: it is reproduced
// too.
#pragma once
#include "quantizer/file/output.h"

// The settings, gyre's version, the base's identity (base.h), of a run that calibrates the texts (borrowed) and the
// device that it does so on (NULL: it does not), and of one that calibrates or learns rotations the linear algebra that
// decides its last bits. A new reference in *run.
// from (borrowed): the finished file that it begins with; NULL: with none.
gyre_status gyre_run_identity(const struct gyre_plan *plan, json_t *texts, const char *device, const char *distill,
                              json_t *from, json_t **run, gyre_error *err) GYRE_MUST_USE;

// The text of OUT.manifest.json, malloc'd. `learned` (borrowed; may be NULL): an object whose keys are added.
gyre_status gyre_manifest_text(const struct gyre_output *out, json_t *learned, char **text,
                               gyre_error *err) GYRE_MUST_USE;
