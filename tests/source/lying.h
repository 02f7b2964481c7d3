// Files that lie, for the tests of what reads them.
#pragma once
#include "tests/common/bytes.h"

// Opens, reads and checks everything that loading a model reads.
gyre_status lying_open(const char *path, gyre_error *err);
// Fails where it ended otherwise than is due, without `says` (may be NULL) in its message, or with an odd message.
void lying_expect(const char *what, gyre_status st, const gyre_error *err, gyre_status due, const char *says);
void lying_load(const char *path, struct bytes *b); // all of a file; free b->data

// The beginning of a GGUF file, and an entry of its list of tensors.
void lying_begin(struct bytes *b, uint64_t tensors, uint64_t metas);
void lying_tensor(struct bytes *b, const char *name, uint64_t rows, uint64_t cols, uint32_t type, uint64_t offset);
