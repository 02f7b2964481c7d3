// OUT.rotations.safetensors: the learned rotations that were merged into OUT, for whoever checks it against its base.
// Tensors r1 [D, D] (where there is one) and r2 [blocks, kv heads, head size, head size], F32, row vectors:
// x' = x R. Where diagonals were learned with them, those of every block too: norm [blocks, 2, D], up_down [blocks, F],
// value [blocks, kv heads, head size], qk [blocks, kv heads, head size / 2] (transform/diagonals.h). Nothing that runs
// the model reads it; the manifest has its SHA-256.
#pragma once
#include "quantizer/transform/matrices.h"
#include "runtime/util/sha256.h"

// The name beside an output; malloc'd, NULL when out of memory.
char *gyre_matrices_path(const char *output);

// Removes the one beside an output, if there is one.
void gyre_matrices_remove(const char *output);

// The content for matrices that are as narrow as float (gyre_matrices_narrow), malloc'd; hex gets its hash.
gyre_status gyre_matrices_pack(const struct gyre_matrices *m, char **data, uint64_t *bytes, char hex[GYRE_SHA256_HEX],
                               gyre_error *err) GYRE_MUST_USE;

// Fills matrices that were created with the shapes due. GYRE_E_FORMAT where the hash is not `hex`, shapes or types are
// others, a matrix is more than 1e-6 from orthogonal, or a diagonal has a number that is not above 0.
gyre_status gyre_matrices_read(const char *path, const char *hex, struct gyre_matrices *out,
                               gyre_error *err) GYRE_MUST_USE;
