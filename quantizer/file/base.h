// What a run starts from: the base model, read from end to end once, in which its files are hashed, its tensors are
// hashed and their values checked.
#pragma once
#include "runtime/source/source.h"
#include "runtime/util/sha256.h"

#include <jansson.h>

struct gyre_base {
    const gyre_source *source;       // borrowed
    json_t *identity;                // {"name", "sha256"} of one file, {"name", "files": {NAME: SHA-256}} of several
    char (*sha256)[GYRE_SHA256_HEX]; // of each tensor, by its index in the source
};

// GYRE_E_IO for what cannot be read, GYRE_E_FORMAT for a tensor with NaN or infinity (named). Holds one tensor in
// memory. Release with gyre_base_release, also after a failure.
gyre_status gyre_base_read(const gyre_source *source, struct gyre_base *out, gyre_error *err) GYRE_MUST_USE;
void gyre_base_release(struct gyre_base *base); // accepts a zeroed one; zeroes it

// The hash of one of the source's tensors; borrowed.
const char *gyre_base_sha256(const struct gyre_base *base, const struct gyre_tensor *tensor);
