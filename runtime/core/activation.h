// The activations of gated units, with the slope that gradients need.
#pragma once
#include <math.h>
#include <stdint.h>

// act 0: SiLU, g * sigmoid(g); 1: GELU in its tanh form (Hendrycks & Gimpel 2016). *slope: its derivative at g.
static inline double gyre_activation(int32_t act, double g, double *slope)
{
    if (act == 0) {
        const double s = 1 / (1 + exp(-g));
        *slope = s * (1 + g * (1 - s));
        return g * s;
    }
    const double c = sqrt(2 / 3.14159265358979323846), t = tanh(c * (g + 0.044715 * g * g * g));
    *slope = 0.5 * (1 + t) + 0.5 * g * (1 - t * t) * c * (1 + 3 * 0.044715 * g * g);
    return 0.5 * g * (1 + t);
}
