// Choices of kernels that were measured (measure.c), by what a product is asked for; kept in memory and on disk.
//
// A tuner belongs to one device and one thread. The file on disk names a variant in words: a choice counts only where
// tune_product.c offers that very variant today, so that a damaged, foreign or older file costs a measurement, never a
// result.
#pragma once
#include "runtime/graph/tune.h"

enum { GYRE_CHOICE_KEY = 128 };

struct gyre_kernel_choice {
    char key[GYRE_CHOICE_KEY];
    struct gyre_launch launch;
};

struct gyre_tuner {
    const char *cache_dir; // NULL: none; the caller's
    const gyre_log *log;   // may be NULL; the caller's
    bool force;            // measure what the cache knows, too, and as long as it takes
    uint64_t left_ns;      // what measuring may still take; ignored with force. A failure ends both
    // What came of it.
    uint32_t measured, cached, refused; // products measured or known; variants that failed or gave other bits
    struct gyre_kernel_choice *choices; // owned
    uint32_t n, cap;
    bool (*spoil)(struct gyre_launch *launch); // test hook: makes the rule's launch one more variant, a wrong one
    uint64_t (*clock)(void);                   // test hook: ns in place of the host's
};

void gyre_tuner_free(struct gyre_tuner *tuner);

// What decides about a product: op, weight, shape, rows, addend. False for a node that is none.
bool gyre_choice_key(const gyre_graph *g, const struct gyre_node *node, char key[GYRE_CHOICE_KEY]);
// The remembered launch of a node; NULL: the rule's (gyre_tune).
const struct gyre_launch *gyre_choice_of(const gyre_graph *g, const struct gyre_node *node);
const struct gyre_launch *gyre_choice_find(const struct gyre_tuner *tuner, const char *key);

gyre_status gyre_choice_keep(struct gyre_tuner *tuner, const char *key, const struct gyre_launch *launch,
                             gyre_error *err) GYRE_MUST_USE;
// On disk, for the device. load: the index in variants[n] of what is stored under key, -1 if there is none of them.
int gyre_choice_load(const struct gyre_tuner *tuner, const struct gyre_device_info *info, const char *key,
                     const struct gyre_launch *variants, uint32_t n);
void gyre_choice_store(const struct gyre_tuner *tuner, const struct gyre_device_info *info, const char *key,
                       const struct gyre_launch *launch);
void gyre_choice_forget(const struct gyre_tuner *tuner, const struct gyre_device_info *info, const char *key);
// "matmul_w4_q_t 128,1,1,2,1,0 / 32,2": what the file holds and messages say. False if it does not fit.
bool gyre_launch_text(const struct gyre_launch *launch, char out[256]);

// lower.c: the dispatches of a product node by a launch, behind those that the graph has.
gyre_status gyre_graph_lower_product(gyre_graph *g, uint32_t node, const struct gyre_launch *launch,
                                     gyre_error *err) GYRE_MUST_USE;
// measure.c: chooses for all products of a graph that has its buffers and is not lowered. What cannot be measured keeps
// the rule's launch, with a warning; only a lost device is an error, and what took it is not tried by the next start.
gyre_status gyre_graph_measure(gyre_graph *g, gyre_error *err) GYRE_MUST_USE;
