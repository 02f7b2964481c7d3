// What each part of a model costs when it alone is rounded: an estimate, in nats per token of divergence from the float
// model, from one pass back through it.
//
// With g_t the gradient, by the outputs of a product at token t, of -log p(y), y drawn from the model everywhere,
// E[g g'] is the curvature of the divergence; an error d_t of those outputs costs, per token and to second order,
//     1/2 E[(g_t . d_t)^2].
// d is what plain rounding does in the basis of the recipe's rotations: x (Q(W) - W)' for weights, (Q(x) - x) W' for
// what a product reads, Q(k) - k for what is cached. Errors at different tokens are taken as independent, parts as
// additive; diagonals, corrected targets and codes that are better than plain rounding's are left out. So figures rank
// parts; their size is an order of magnitude (docs/recipes.md says how well both hold).
#pragma once
#include "quantizer/file/plan.h"
#include "runtime/util/ticker.h"

// Costs of a block, by number: of 4-bit weights, of 8 and 4 bits of what is read, each of every product; of the cache.
enum {
    GYRE_COST_W4,
    GYRE_COST_A8 = GYRE_COST_W4 + GYRE_PRODUCTS,
    GYRE_COST_A4 = GYRE_COST_A8 + GYRE_PRODUCTS,
    GYRE_COST_K8 = GYRE_COST_A4 + GYRE_PRODUCTS,
    GYRE_COST_K4,
    GYRE_COST_V8,
    GYRE_COST_V4,
    GYRE_COSTS
};

struct gyre_sensitivity {
    uint32_t layers, windows, tokens;
    double *nats; // [layers][GYRE_COSTS][windows]: mean over the window's tokens
};

struct gyre_cost {
    double nats, error; // mean over windows, and its standard error; of one window 0
};

// `plan` has been begun; its rotations are the recipe's with the run's seed, untried and not learned, its clips the
// recipe's, 1 where these are `auto`. About `windows` windows of the calibration texts, the model's own left out (the
// bundled one where no other is named), on the host.
// Ticks 1 after every block of every window, each way, gyre_sensitivity_ticks in all. Memory: one block of the float
// model three times, its tables, and the residual streams of all windows. Release *out also after failure.
gyre_status gyre_sensitivity_measure(const gyre_quantize_params *params, const struct gyre_plan *plan, uint32_t windows,
                                     const struct gyre_ticker *ticker, struct gyre_sensitivity *out,
                                     gyre_error *err) GYRE_MUST_USE;
void gyre_sensitivity_release(struct gyre_sensitivity *sensitivity);
static inline uint64_t gyre_sensitivity_ticks(const struct gyre_plan *plan, uint32_t windows)
{
    return 2 * (uint64_t)windows * plan->hp.n_layers;
}
// Multiplications of floats that it takes, about, where the texts have as many windows.
double gyre_sensitivity_work(const struct gyre_plan *plan, uint32_t windows);

enum { GYRE_SENSITIVITY_WINDOWS = 8, GYRE_SENSITIVITY_TOKENS = 256 }; // where nothing else is said; of a window at most

// Of one block, or of all together (layer UINT32_MAX).
struct gyre_cost gyre_sensitivity_cost(const struct gyre_sensitivity *sensitivity, uint32_t layer, uint32_t cost);
