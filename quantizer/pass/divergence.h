// The end of the summary, on the host: from three residual streams to two mean divergences.
#pragma once
#include "runtime/util/status.h"

#include <stdint.h>

// One stream's head: `z` [tokens, width] are the vectors that meet the table, and rows(user, first, n, out) gives rows
// of it.
struct gyre_summary_head {
    const float *z;
    void (*rows)(const void *user, uint64_t first, uint64_t n, float *out);
    const void *user;
};

// kl[i] = mean over tokens of KL(heads[0] || heads[1 + i]) in nats, i < n - 1, n <= 3; the vocabulary is walked once,
// in pieces.
gyre_status gyre_summary_divergence(const struct gyre_summary_head *heads, uint32_t n, uint32_t tokens, uint32_t width,
                                    uint32_t vocab, double *kl, gyre_error *err) GYRE_MUST_USE;
