// The journal of a run, for output.c and quantize.c: OUT.journal/state.json (what is in OUT.part) and
// OUT.journal/stream-N.
#pragma once
#include "quantizer/file/output.h"

gyre_status gyre_journal_start(struct gyre_output *out, json_t *run, gyre_error *err) GYRE_MUST_USE;
// Refuses (and keeps) a journal of another run, a damaged one, and one that OUT.part does not agree with.
gyre_status gyre_journal_resume(struct gyre_output *out, json_t *run, gyre_error *err) GYRE_MUST_USE;
// What an interrupted run beside `output` had chosen; false where there is none to read.
bool gyre_journal_choice(const char *output, struct gyre_choice *choice);
gyre_status gyre_journal_tensor(struct gyre_output *out, const struct gyre_gguf_tensor *tensor, const char *sha256,
                                double error, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_journal_source(struct gyre_output *out, const struct gyre_tensor *tensor, const char *sha256,
                                gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_journal_step(struct gyre_output *out, json_t *note, const void *const blob[2], const uint64_t bytes[2],
                              gyre_error *err) GYRE_MUST_USE;
void gyre_journal_remove(const struct gyre_output *out); // the folder and what the journal put there
