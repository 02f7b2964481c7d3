// Draws that depend on nothing but their own numbers: the same on every run and for any order of asking.
#pragma once
#include <stdint.h>

// Uniform in [0, 1), of a seed and a place (splitmix64).
double gyre_draw(uint64_t seed, uint64_t window, uint64_t position);
// The token at `where`, in [0, 1), of the distribution that the logits [vocab] mean; UINT32_MAX where they mean none.
// *log_sum (may be NULL): the logarithm of the sum of their exponentials.
uint32_t gyre_draw_token(const float *logit, uint32_t vocab, double where, double *log_sum);
