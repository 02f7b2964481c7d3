// The journal of a run: OUT.journal/state.json (what is in OUT.part) and OUT.journal/stream-N. It owns its state and
// its names; output.h is the file beside it.
#pragma once
#include "quantizer/file/writer.h"

#include <jansson.h>

struct gyre_journal {
    char *folder, *state_path; // OUT.journal, OUT.journal/state.json
    json_t *state; // {"run", "build", "choice", "steps", "tensors", "sources", "notes"}; NULL: nothing is ours
    uint32_t steps, resumed_steps; // journalled; of them, by an earlier run
};

// Its names, for the output of that name; GYRE_E_NOMEM. Free also after failure; leaves the files.
gyre_status gyre_journal_init(const char *output, struct gyre_journal *out, gyre_error *err) GYRE_MUST_USE;
void gyre_journal_free(struct gyre_journal *journal);

gyre_status gyre_journal_start(struct gyre_journal *journal, json_t *run, const struct gyre_choice *choice,
                               gyre_error *err) GYRE_MUST_USE;
// Refuses (and keeps) a journal of another run, one that another build of gyre began, a damaged one, and one that the
// file `part` does not agree with. *next: the first tensor that is not in it.
gyre_status gyre_journal_resume(struct gyre_journal *journal, json_t *run, const struct gyre_writer *writer,
                                const char *part, uint64_t *next, gyre_error *err) GYRE_MUST_USE;
// What an interrupted run beside `output` had chosen; false where there is none to read.
bool gyre_journal_choice(const char *output, struct gyre_choice *choice);
// Another build of gyre began the run beside `output`; false where there is none.
bool gyre_journal_is_foreign(const char *output);

gyre_status gyre_journal_tensor(struct gyre_journal *journal, const struct gyre_written *tensor, const char *sha256,
                                double error, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_journal_source(struct gyre_journal *journal, const struct gyre_tensor *tensor, const char *sha256,
                                gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_journal_step(struct gyre_journal *journal, json_t *note, const void *const blob[2],
                              const uint64_t bytes[2], gyre_error *err) GYRE_MUST_USE;
const json_t *gyre_journal_note(const struct gyre_journal *journal, uint32_t step); // borrowed; NULL if there is none
// The blob of the last step; malloc'd, NULL where there is none.
gyre_status gyre_journal_blob(const struct gyre_journal *journal, char **data, uint64_t *bytes,
                              gyre_error *err) GYRE_MUST_USE;
// What a pass over the whole file keeps while it runs, OUT.journal/NAME; *data NULL where there is none.
gyre_status gyre_journal_keep(const struct gyre_journal *journal, const char *name, const void *const data[2],
                              const uint64_t bytes[2], gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_journal_kept(const struct gyre_journal *journal, const char *name, char **data, uint64_t *bytes,
                              gyre_error *err) GYRE_MUST_USE;
// Nothing is in it that a resumed run would begin with: no step, and nothing kept.
bool gyre_journal_is_empty(const struct gyre_journal *journal);
// From now on tensors are written anew: a run that resumes does not hold them against their hashes. And the new hash of
// one.
gyre_status gyre_journal_replace(struct gyre_journal *journal, gyre_error *err) GYRE_MUST_USE;
bool gyre_journal_replaces(const struct gyre_journal *journal);
gyre_status gyre_journal_rehash(struct gyre_journal *journal, uint64_t tensor, const char *sha256,
                                gyre_error *err) GYRE_MUST_USE;
// From now on OUT.old is this run's to remove: the older folder of that name. And whether the run beside `output` said
// so.
gyre_status gyre_journal_aside(struct gyre_journal *journal, gyre_error *err) GYRE_MUST_USE;
bool gyre_journal_put_aside(const char *output);
void gyre_journal_remove(const struct gyre_journal *journal); // the folder and what the journal put there
