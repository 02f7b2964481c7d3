// What gyre compare has finished, in WORK/compare.json: cells by the digest of what they depend on, so that an interrupted
// comparison goes on and a wider one makes only what is new.
#pragma once
#include "runtime/util/sha256.h"
#include "runtime/util/status.h"

#include <jansson.h>

struct cli_cells {
    char path[4096];
    json_t *root;
};

// Reads DIR/compare.json; one that does not exist is empty. GYRE_E_FORMAT for a damaged one. Free with cli_cells_close, also
// after a failure.
gyre_status cli_cells_open(const char *dir, struct cli_cells *out, gyre_error *err) GYRE_MUST_USE;
void cli_cells_close(struct cli_cells *cells);

// The digest of an identity: key order does not matter. false where memory ran out.
int cli_cells_key(const json_t *identity, char key[GYRE_SHA256_HEX]);

// kind: "cells", "weights". NULL where there is none; else borrowed.
json_t *cli_cells_find(const struct cli_cells *cells, const char *kind, const char *key);
// Adds or replaces an entry and writes the file at once, as a whole. Keeps references of its own.
gyre_status cli_cells_put(struct cli_cells *cells, const char *kind, const char *key, json_t *entry,
                          gyre_error *err) GYRE_MUST_USE;
