// Choosing a token from logits on the host: what the device's sampling does, and what it does not know (penalties,
// bias, min-p). Equal settings draw equal tokens: the hash of seed and position is that of
// shaders/sample.k, and from all tokens the draw is that of gumbel.h.
#pragma once
#include <gyre/gyre.h>

// What a seed is raised by each time the oldest tokens leave a full context (gyre_context_shift): places come again,
// and their draws must not.
#define GYRE_SHIFTED_SEED 0x9E3779B9u

// Does choosing need the logits on the host?
bool gyre_sample_needs_host(const gyre_generate_params *params);

// The token that follows tokens[n], whose last one has position n - 1. Changes logits[vocab]; seen[vocab / 32 + 1] is
// zero before and after.
uint32_t gyre_sample(const gyre_generate_params *params, float *logits, uint32_t *seen, uint32_t vocab,
                     const uint32_t *tokens, size_t n);

// The k best of logits[vocab], descending, equal ones by smaller token, into `out` [k]; returns their number.
uint32_t gyre_sample_best(const float *logits, uint32_t vocab, uint32_t k, gyre_candidate *out);
