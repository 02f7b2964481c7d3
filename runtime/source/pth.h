// The parts of the reader of Meta's checkpoints, for meta*.c, pth.c and pickle.c only.
#pragma once
#include "runtime/source/source_impl.h"

// ---- pickle.c: the instructions of torch.save's data.pkl, none of which is ever executed: a machine of its own
// knows dictionaries, tuples, numbers, texts and tensors, and refuses every other instruction and every name but
// theirs.

struct gyre_pickled {
    struct gyre_string name, storage; // storage: the key of the record that holds the numbers
    gyre_dtype type;
    uint64_t elements; // of the storage
    uint64_t first;    // element of the storage
    uint32_t n_dims;
    uint64_t dims[4]; // contiguous, outermost first
};

// The tensors of the one dictionary that the instructions make, in their order. *out is malloc'd; texts point into
// `data`. FORMAT where the instructions make no sense, UNSUPPORTED for those (by name) that are not of the subset.
gyre_status gyre_pickle_read(const char *path, const unsigned char *data, uint64_t bytes, struct gyre_pickled **out,
                             uint64_t *n, gyre_error *err) GYRE_MUST_USE;

// ---- pth.c: the zip around it. Adds the tensors of a file under the names that `rename` gives them (false: of no
// use).
typedef bool (*gyre_pth_rename)(struct gyre_string name, char out[128]);
gyre_status gyre_pth_read(gyre_source *source, const char *path, gyre_pth_rename rename, gyre_error *err) GYRE_MUST_USE;

// ---- meta_tokenizer.c: the text of a tokenizer.json that says what tokenizer.model (lines of base64 and rank) and
// the special tokens of Llama 3 say; malloc'd. *n_ranks: tokens before the special ones.
gyre_status gyre_meta_tokenizer(const char *path, const char *text, uint64_t bytes, char **json, uint32_t *n_ranks,
                                gyre_error *err) GYRE_MUST_USE;
