// What gyre compare has finished, in WORK/compare.json: cells by the digest of what they depend on, so that an
// interrupted comparison goes on and a wider one makes only what is new.
#pragma once
#include "cli/compare/cell.h"
#include "runtime/util/sha256.h"

struct cli_cells {
    char path[4096];
    json_t *root; // the file: {"version", "weights": {key: ...}, "cells": {key: ...}}
};

// Reads DIR/compare.json; one that does not exist is empty. GYRE_E_FORMAT for a damaged one. Free with cli_cells_close,
// also after a failure.
gyre_status cli_cells_open(const char *dir, struct cli_cells *out, gyre_error *err) GYRE_MUST_USE;
void cli_cells_close(struct cli_cells *cells);

// The digest of an identity: key order does not matter. false where memory ran out.
int cli_cells_key(const json_t *identity, char key[GYRE_SHA256_HEX]);

// false where there is none. A cell is freed by the caller.
bool cli_cells_find(const struct cli_cells *cells, const char *key, struct cli_cell *out);
bool cli_cells_find_weights(const struct cli_cells *cells, const char *key, struct cli_weights *out);
bool cli_cells_weights_at(const struct cli_cells *cells, uint32_t index, struct cli_weights *out); // false past the end

// Adds or replaces an entry and writes the file at once, as a whole.
gyre_status cli_cells_put(struct cli_cells *cells, const char *key, const struct cli_cell *cell,
                          gyre_error *err) GYRE_MUST_USE;
gyre_status cli_cells_put_weights(struct cli_cells *cells, const char *key, const struct cli_weights *weights,
                                  gyre_error *err) GYRE_MUST_USE;
