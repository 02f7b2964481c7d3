// A recipe's budget: mean bits of weights and of activations, spent where the model is sensitive (sensitivity.h). What
// is chosen becomes exceptions of the plan's recipe, as if they had been written there: whatever comes later, the
// manifest included, knows no budget.
#pragma once
#include "quantizer/pass/sensitivity.h"

// Does nothing where the recipe has no budget. `plan` has been begun. Products of 4-bit weights become 8-bit ones, by
// what they cost for what they take, as long as the mean stays within the budget; the same with what products read.
// Ticks as gyre_sensitivity_measure.
gyre_status gyre_budget_spend(const gyre_quantize_params *params, struct gyre_plan *plan,
                              const struct gyre_ticker *ticker, gyre_error *err) GYRE_MUST_USE;

// The choice alone: of n parts whose raising saves nats[i] and takes bits[i], those that fit into `left` bits, the most
// saved for what is taken first.
void gyre_budget_choose(const double *nats, const double *bits, uint32_t n, double left, bool *chosen);
