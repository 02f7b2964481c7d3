// Adam in double (arXiv 1412.6980), with a pull of every parameter to 0, a warm-up of some steps and a cosine down to a
// tenth of the rate.
#pragma once
#include <stdint.h>

struct gyre_adam {
    uint64_t n;
    double *parameter, *mean, *square; // [n] each, one allocation at `parameter`
    uint32_t step, steps;              // taken; planned
};

// At step 0, all zeros; false when memory ran out.
int gyre_adam_create(uint64_t n, uint32_t steps, struct gyre_adam *out);
void gyre_adam_free(struct gyre_adam *adam);
// One step against the gradient; rate [n] is of each parameter, `pull` the share of it that is taken away per unit of
// rate.
void gyre_adam_step(struct gyre_adam *adam, const double *gradient, const float *rate, double pull);
