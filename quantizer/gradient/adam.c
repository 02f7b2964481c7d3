// See adam.h.
#include "quantizer/gradient/adam.h"

#include <math.h>
#include <stdlib.h>

enum { WARM = 4 };
static const double decay_mean = 0.9, decay_square = 0.95, floor_of_square = 1e-12;

int gyre_adam_create(uint64_t n, uint32_t steps, struct gyre_adam *a)
{
    *a = (struct gyre_adam){.n = n, .steps = steps, .parameter = calloc(3 * n, sizeof *a->parameter)};
    a->mean = a->parameter + n;
    a->square = a->mean + n;
    return a->parameter != NULL;
}

void gyre_adam_free(struct gyre_adam *a)
{
    free(a->parameter);
    *a = (struct gyre_adam){0};
}

// The factor of all rates at a step.
static double schedule(uint32_t step, uint32_t steps)
{
    const double warm = step + 1 < WARM ? (step + 1.0) / WARM : 1;
    return warm * (0.1 + 0.45 * (1 + cos(3.14159265358979323846 * step / steps)));
}

void gyre_adam_step(struct gyre_adam *a, const double *gradient, const float *rate, double pull)
{
    const double factor = schedule(a->step, a->steps);
    a->step++;
    const double mean_by = 1 / (1 - pow(decay_mean, a->step)), square_by = 1 / (1 - pow(decay_square, a->step));
    for (uint64_t i = 0; i < a->n; i++) {
        a->mean[i] = decay_mean * a->mean[i] + (1 - decay_mean) * gradient[i];
        a->square[i] = decay_square * a->square[i] + (1 - decay_square) * gradient[i] * gradient[i];
        const double by = factor * (double)rate[i];
        a->parameter[i] -=
            by * (a->mean[i] * mean_by / (sqrt(a->square[i] * square_by) + floor_of_square) + pull * a->parameter[i]);
    }
}
