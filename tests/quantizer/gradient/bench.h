// A block and a head of a tiny model on a device, executed, with all their values kept.
#pragma once
#include "tests/quantizer/gradient/made.h"
#include "runtime/graph/node.h"
#include "runtime/model/kv.h"
#include "runtime/model/model.h"

enum { SEQUENCES = 2, TOKENS = 7, ROWS = SEQUENCES * TOKENS };

struct bench {
    gyre_device *device;
    gyre_source *source;
    struct gyre_model model;
    struct gyre_kv kv;
    struct gyre_binding rows, x;
    gyre_graph *graph;
    gyre_value in, out;
};

extern const struct setting settings[];
extern const size_t n_settings;

float bench_random(void); // roughly normal; begins anew with every bench
// The model of a setting on a device, by its id; NULL: the host (backends/cpu/fast.h).
void bench_open(const struct setting *s, const char *device, struct bench *b);
void bench_close(struct bench *b);
void bench_fill(struct bench *b); // inputs and rows; the same on every device
void bench_block(struct bench *b);
void bench_head(struct bench *b);
