// The float model as a teacher: what stands before its head is kept for every row of a text, its logits are made again
// when they are asked for, some rows at a time. While it reads, one block of the float model is in memory; afterwards
// its head.
#pragma once
#include "runtime/model/model.h"
#include "runtime/util/ticker.h"

typedef struct gyre_teacher gyre_teacher;

enum { GYRE_HEAD_ROWS = 64 }; // rows whose logits are in memory together

// Runs token [windows][tokens] through `source` at float activations and an f16 cache; `device`, like source,
// outlives it. Ticks 1 after every block of every window.
gyre_status gyre_teacher_open(gyre_device *device, const gyre_source *source, const uint32_t *token, uint32_t windows,
                              uint32_t tokens, const struct gyre_ticker *ticker, gyre_teacher **out,
                              gyre_error *err) GYRE_MUST_USE;
void gyre_teacher_close(gyre_teacher *teacher);

// Logits [n][vocabulary] of rows first..first+n-1 of a window, first a multiple of GYRE_HEAD_ROWS, n at most that. The
// teacher's, until the next call.
gyre_status gyre_teacher_logits(gyre_teacher *teacher, uint32_t window, uint32_t first, uint32_t n, const float **out,
                                gyre_error *err) GYRE_MUST_USE;
