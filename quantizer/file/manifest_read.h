// Reading manifests back, for verify and reproduce. Layout: docs/model-format.md.
#pragma once
#include "runtime/util/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

// The settings that every manifest states; texts borrow from its JSON.
struct gyre_manifest {
    json_t *json;
    const char *gyre, *recipe, *profile;
    const char *format;   // "hf" for a Hugging Face directory; NULL: a GGUF file
    uint64_t shard_bytes; // of a directory
    uint64_t seed;
    uint32_t wbits, wgroup, act, kv, kv_v, head; // head 0: as the recipe's time had it, 8
    const char *front_sha256;                    // NULL in manifests of gyre before it was recorded
    const char *recipe_text;                     // NULL where the recipe is known by its name alone
    const json_t *base, *sources, *tensors, *calibration /* may be NULL */, *arithmetic /* may be NULL */;
};

// Reads and checks every key that is used later: after this, rows of `sources` and `tensors` are objects with the
// strings "name", "type", "sha256", the integers of "shape" and perhaps "first" (whole, not negative), no row is there
// twice, and "base" is of one of its two forms. GYRE_E_IO, GYRE_E_FORMAT; the message says which key. Free also after
// failure.
gyre_status gyre_manifest_read(const char *path, struct gyre_manifest *out, gyre_error *err) GYRE_MUST_USE;
void gyre_manifest_free(struct gyre_manifest *manifest);

// Rows are found by the tensor's name and, of a tensor that several rows tell of ("first"), the first of its rows that
// they mean. The index borrows nothing; NULL where memory ran out or a row was there twice (*twice, which may be NULL:
// its number).
json_t *gyre_manifest_index(const json_t *rows, size_t *twice);
const json_t *gyre_manifest_row(const json_t *index, const char *name, uint64_t first); // NULL: there is none

// Is the model at `path`, whose identity (base.h) is `now`, the manifest's base? GYRE_E_FORMAT names the file that
// differs.
gyre_status gyre_manifest_check_base(const struct gyre_manifest *manifest, const char *path, const json_t *now,
                                     gyre_error *err) GYRE_MUST_USE;

// A JSON value of a stranger as one short line without control characters, for messages; strings are in quotes.
struct gyre_json_shown {
    char text[80];
};
struct gyre_json_shown gyre_json_show(const json_t *value);
