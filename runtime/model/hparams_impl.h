// Shared by the readers of hyper-parameters (hparams.c, rope.c, rotations.c, arch_*.c): range-checked reading of
// metadata.
#pragma once
#include "runtime/model/hparams.h"
#include "runtime/source/source_impl.h"

// "ARCH.name" into key.
void gyre_hparam_key(const struct gyre_hparams *hp, const char *name, char key[96]);
// Leaves *out alone where the key is absent and optional. FORMAT: missing or of another kind; UNSUPPORTED: out of
// range.
gyre_status gyre_hparam_u32(const gyre_source *source, const char *key, bool optional, uint32_t min, uint32_t max,
                            uint32_t *out, gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_hparam_f64(const gyre_source *source, const char *key, bool optional, double min, double max,
                            double *out, gyre_error *err) GYRE_MUST_USE;

// For architectures. A flag per block, from a list or a period (GGUF; `period` where the file has neither): of every so
// many blocks the last is not flagged; 0: all are.
gyre_status gyre_hparams_flags(const gyre_source *source, const char *key, uint32_t n_layers, uint32_t period,
                               bool *flag, gyre_error *err) GYRE_MUST_USE;
// attention.sliding_window and which blocks have it.
gyre_status gyre_hparams_windows(const gyre_source *source, struct gyre_hparams *hp, uint32_t period,
                                 gyre_error *err) GYRE_MUST_USE;
gyre_status gyre_hparams_all_windowed(const gyre_source *source, struct gyre_hparams *hp,
                                      gyre_error *err) GYRE_MUST_USE; // period 0
// What embeddings and the branches of a block are multiplied by, logits divided by and scores multiplied by, with the
// defaults given (scores: 1 / sqrt(head size)). None costs anything at run time but the first.
gyre_status gyre_hparams_multipliers(const gyre_source *source, struct gyre_hparams *hp, double embedding,
                                     double residual, double logits, gyre_error *err) GYRE_MUST_USE;

// Reads and checks the scaling of RoPE, and whether there is a tensor of divisors (rope.c).
gyre_status gyre_rope_read(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err) GYRE_MUST_USE;

gyre_status gyre_rotations_read(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err) GYRE_MUST_USE;
// Whether gyre_rotations_read took the tensor `name`: of its base matrices or gains.
bool gyre_rotations_read_tensor(const struct gyre_hparams *hp, const char *name);
