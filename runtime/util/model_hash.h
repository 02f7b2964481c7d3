// What a model is, by its bytes: the SHA-256 of its file, or those of the files that make it: the parts of a split GGUF
// model, and of a folder .safetensors, .pth and .json (but no manifest of what was made from it and lies beside it).
#pragma once
#include "runtime/util/sha256.h"
#include "runtime/util/status.h"

#include <stdbool.h>

struct gyre_model_file {
    char *path;       // owned
    const char *name; // its last part
    char sha256[GYRE_SHA256_HEX];
};
struct gyre_model_hash {
    char sha256[GYRE_SHA256_HEX]; // of one file; of several: of the lines "SHA-256  NAME", in their order
    bool several;
    struct gyre_model_file *file; // [n], by name, as bytes
    uint32_t n;
};

// Reads everything. GYRE_E_IO for what cannot be read. Free with gyre_model_hash_free, also after a failure.
gyre_status gyre_model_hash(const char *path, struct gyre_model_hash *out, gyre_error *err) GYRE_MUST_USE;
void gyre_model_hash_free(struct gyre_model_hash *hash); // accepts a zeroed one; zeroes it

// The same in steps, for whoever reads the bytes anyway: the files, without hashes; one file's hash (read piece by
// piece, so that it does not count as memory of the process); the whole's from the files'.
gyre_status gyre_model_files(const char *path, struct gyre_model_hash *out, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_model_hash_file(const char *path, char hex[GYRE_SHA256_HEX], gyre_error *err) GYRE_MUST_USE;
void gyre_model_hash_end(struct gyre_model_hash *hash);
