// The file being written: OUT.part and OUT.journal/ while a run goes on, OUT and OUT.manifest.json when it is complete.
//
// Tensors are written in the plan's order. A step is the tensors before the first block, or one block; after each step
// the journal says, durably, what is in OUT.part, so that a run that was killed at any moment goes on after its last
// step.
#pragma once
#include "quantizer/file/journal.h"
#include "runtime/util/file.h"
#include "runtime/util/sha256.h"

#include <jansson.h>
#include <signal.h>

struct gyre_output {
    const struct gyre_plan *plan;
    const struct gyre_writer *writer;
    char *path, *part, *manifest; // OUT, OUT.part, OUT.manifest.json
    struct gyre_journal journal;
    int *fd;                // of its files; NULL: not open
    int lock;               // of OUT.part, locked: its only file, or the folder; -1
    uint64_t next, filled;  // the tensor being written and its bytes so far
    struct gyre_sha256 sha; // of those
    sigset_t signals;       // the caller's mask: SIGXFSZ is held back so that a size limit is an error, not a death
    bool masked;
};

// Says early what gyre_output_open would: an existing output, an interrupted run, a missing folder.
gyre_status gyre_output_check(const gyre_quantize_params *params, bool folder, gyre_error *err) GYRE_MUST_USE;

// The run that is to be resumed was killed behind its last rename, it seems: there is an output, and of the run nothing
// but its journal. Whoever finds it whole ends it with clear_left: what was put aside goes, and the journal.
bool gyre_output_is_left(const gyre_quantize_params *params);
void gyre_output_clear_left(const char *output);
gyre_status gyre_output_exists(const char *output,
                               gyre_error *err) GYRE_MUST_USE; // the error of one that is in the way

// Opens or resumes. `run` (borrowed) is what makes two runs the same: a journal with another one is refused and kept.
// Close also after failure.
gyre_status gyre_output_open(const gyre_quantize_params *params, const struct gyre_plan *plan,
                             const struct gyre_writer *writer, json_t *run, struct gyre_output *out,
                             gyre_error *err) GYRE_MUST_USE;

// Appends to the current tensor, which must be one of `part`; when it is full, records its hash and, unless NaN, its
// relative weight error, and goes on to the next.
gyre_status gyre_output_write(struct gyre_output *out, struct gyre_plan_part part, const void *data, uint64_t bytes,
                              double error, gyre_error *err) GYRE_MUST_USE;
// All tensors of a part that is a matrix, as the writer encodes them; the error is the first one's. scratch: room for
// the largest of them.
gyre_status gyre_output_values(struct gyre_output *out, struct gyre_plan_part part, const struct gyre_values *values,
                               void *scratch, double error, gyre_error *err) GYRE_MUST_USE;

// Writes all tensors of a part anew, as the writer encodes them: a matrix from its values, a vector of floats
// (`vector`; values NULL). Only when everything is written, behind gyre_journal_replace, and from what is kept: a run
// that is killed meanwhile does all of it again.
gyre_status gyre_output_replace(struct gyre_output *out, struct gyre_plan_part part, const struct gyre_values *values,
                                const float *vector, void *scratch, gyre_error *err) GYRE_MUST_USE;

// Records the hashes of tensors that are read, in their order.
gyre_status gyre_output_source(struct gyre_output *out, const struct gyre_tensor *const tensors[], int n,
                               gyre_error *err) GYRE_MUST_USE;

// Ends a step: OUT.part is made durable, then the journal. `note` (stolen; may be NULL) is kept for gyre_output_note,
// `blob` (either may be NULL), one after the other, for gyre_output_blob of the step that resumes.
gyre_status gyre_output_step(struct gyre_output *out, json_t *note, const void *const blob[2], const uint64_t bytes[2],
                             gyre_error *err) GYRE_MUST_USE;
const json_t *gyre_output_note(const struct gyre_output *out, uint32_t step); // borrowed; NULL if there is none
// The blob of the last step; malloc'd, NULL where there is none.
gyre_status gyre_output_blob(const struct gyre_output *out, char **data, uint64_t *bytes,
                             gyre_error *err) GYRE_MUST_USE;

// OUT.part as it is, read-only: maps[n_files] of its files. Unmap with gyre_output_unmap, which accepts NULL.
gyre_status gyre_output_map(const struct gyre_output *out, struct gyre_file_map **maps, gyre_error *err) GYRE_MUST_USE;
void gyre_output_unmap(const struct gyre_output *out, struct gyre_file_map *maps);

// Everything is written: the learned rotations (NULL: none, and those of an older file of this name go), the manifest
// and the file get their names, in this order, so that OUT is never without what belongs to it; then the journal goes.
// All of them are written before, so that a failure (a full disk) leaves an older output whole; one of giving the names
// themselves is what a kill there is, for --resume. Where there was no output nothing new stands beside OUT.
gyre_status gyre_output_finish(struct gyre_output *out, const void *manifest, uint64_t bytes, const void *rotations,
                               uint64_t rotations_bytes, gyre_error *err) GYRE_MUST_USE;

// Leaves OUT.part and the journal for --resume if a step was completed and not finished; else removes them.
void gyre_output_close(struct gyre_output *out);
