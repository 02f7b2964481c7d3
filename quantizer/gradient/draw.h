// Draws that depend on nothing but their own numbers: the same on every run and for any order of asking.
#pragma once
#include <stdint.h>

// What is drawn, a stream each: tokens that the model is asked about on a text that it has drawn itself must not be
// drawn by the numbers that made the text.
typedef enum gyre_drawn { GYRE_DRAWN_LABELS, GYRE_DRAWN_TEXT } gyre_drawn;

// Uniform in [0, 1), of a seed and a place (splitmix64).
double gyre_draw(gyre_drawn what, uint64_t seed, uint64_t window, uint64_t position);
// The token at `where`, in [0, 1), of the distribution that the logits [vocab] mean; UINT32_MAX where they mean none.
// *log_sum (may be NULL): the logarithm of the sum of their exponentials.
uint32_t gyre_draw_token(const float *logit, uint32_t vocab, double where, double *log_sum);
