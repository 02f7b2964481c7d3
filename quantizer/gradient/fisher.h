// How much an error of a product's outputs at a token costs: the square of the gradient that a loss of the float model
// has there. The loss is -log p(y) with y drawn from the model's own distribution at every position, so that the mean
// of the squares is the diagonal of the true Fisher information, the curvature of the divergence that rounding causes.
// Source: GuidedQuant (arXiv 2505.07004) weighs the rows of a layer's H by such squares; its loss is that of the text.
//
// One weight for all outputs of a product: rotations between a product and what reads it do not change it, so it is
// measured in the model's own basis. The gradients themselves go to whoever sums what outputs count for together
// (round/outputs.h).
#pragma once
#include "backends/backend.h"
#include "runtime/model/roles.h"
#include "runtime/source/source.h"

struct gyre_fisher {
    // [layers][GYRE_PRODUCTS][rows]: of mean 1 over the rows before they are capped at GYRE_FISHER_CAP; NULL where they
    // were not asked for
    float *weight;
    uint32_t layers;
    uint64_t rows; // windows * tokens
};
#define GYRE_FISHER_CAP 16.0

// A product of one block on one window: values and the loss's gradients by them, in the model's own bases and order.
struct gyre_fisher_look {
    uint32_t layer, window;
    gyre_product product;
    const float *gradient;               // [tokens][n] at its outputs, its linears side by side
    const float *reads, *reads_gradient; // [tokens][k] at what it reads
    // [tokens][2 * kv heads * head size], keys and values that go into the cache, of the product that makes them; else
    // NULL. `cached` is wider: cached_stride from row to row.
    const float *cached, *cached_gradient;
    uint64_t cached_stride;
};

struct gyre_fisher_params {
    gyre_device *device; // a host's
    const gyre_source *source;
    const uint32_t *token; // [windows][tokens]
    uint32_t windows, tokens;
    uint64_t seed;
    bool weighs; // every window goes into the weights; else only those that `look` sees are run
    // On `looks` windows, taken evenly (0: none), from the last block to the first. What it returns ends the measuring
    // unless GYRE_OK.
    uint32_t looks;
    gyre_status (*look)(void *user, const struct gyre_fisher_look *at, gyre_error *err);
    void *user;                       // of `look`
    uint32_t together;                // windows for which a block is loaded once each way; 0: four
    const struct gyre_ticker *ticker; // 1 after every block of every window, each way; may be NULL
};

// Memory: one block of the float model, its tables, and the residual streams of `together` windows before every block.
// The same seed, machine and text give the same. Free also after failure.
gyre_status gyre_fisher_measure(const struct gyre_fisher_params *params, struct gyre_fisher *out,
                                gyre_error *err) GYRE_MUST_USE;
void gyre_fisher_free(struct gyre_fisher *fisher);

// The weights [rows] at one product of one block.
static inline const float *gyre_fisher_rows(const struct gyre_fisher *f, uint32_t layer, gyre_product product)
{
    return f->weight + ((uint64_t)layer * GYRE_PRODUCTS + product) * f->rows;
}
