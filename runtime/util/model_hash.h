// What a model is, by its bytes: a file's SHA-256, or those of the files that make a Hugging Face folder a model
// (.safetensors and .json, but no manifest of what was made from it and lies beside it).
#pragma once
#include "runtime/util/sha256.h"
#include "runtime/util/status.h"

#include <stdbool.h>

struct gyre_model_file {
    char *name; // in the folder
    char sha256[GYRE_SHA256_HEX];
};
struct gyre_model_hash {
    bool folder;
    char sha256[GYRE_SHA256_HEX]; // of the file; of a folder: of the lines "SHA-256  NAME" of its files, in their order
    struct gyre_model_file *file; // [n], by name; a folder's
    uint32_t n;
};

// Reads everything. GYRE_E_IO for what cannot be read. Free with gyre_model_hash_free, also after a failure.
gyre_status gyre_model_hash(const char *path, struct gyre_model_hash *out, gyre_error *err) GYRE_MUST_USE;
void gyre_model_hash_free(struct gyre_model_hash *hash); // accepts a zeroed one; zeroes it
