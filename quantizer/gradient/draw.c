// See draw.h.
#include "quantizer/gradient/draw.h"

#include <math.h>

double gyre_draw(gyre_drawn what, uint64_t seed, uint64_t window, uint64_t position)
{
    uint64_t x = (seed ^ (uint64_t)what << 63) * 0x9E3779B97F4A7C15u + (window << 32 | position) + 1;
    for (int i = 0; i < 2; i++) {
        x += 0x9E3779B97F4A7C15u;
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
        x = (x ^ x >> 27) * 0x94D049BB133111EBu;
        x ^= x >> 31;
    }
    return (double)(x >> 11) * 0x1p-53;
}

uint32_t gyre_draw_token(const float *logit, uint32_t vocab, double where, double *log_sum)
{
    double top = -INFINITY, total = 0, sum = 0;
    for (uint32_t i = 0; i < vocab; i++) top = (double)logit[i] > top ? (double)logit[i] : top;
    for (uint32_t i = 0; i < vocab; i++) total += exp((double)logit[i] - top);
    if (!isfinite(top) || !isfinite(total)) return UINT32_MAX;
    if (log_sum) *log_sum = top + log(total);
    for (uint32_t i = 0; i < vocab; i++) {
        sum += exp((double)logit[i] - top);
        if (sum > where * total) return i;
    }
    return vocab - 1;
}
