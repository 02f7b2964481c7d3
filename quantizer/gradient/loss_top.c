// The divergence over the teacher's likeliest tokens; see rules.h.
#include "quantizer/gradient/rules.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DIGIT = 11, BUCKETS = 1 << DIGIT }; // of a key's 32 bits: 11, 11 and 10

// The same order as the numbers'; what is no number lies at an end.
static uint32_t key_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The key of the top-th largest of n numbers, and how many of that very key belong to the first `top`.
static uint32_t threshold(const float *x, uint64_t n, uint64_t top, uint64_t *equal)
{
    static const uint32_t shift[] = {21, 10, 0};
    uint32_t prefix = 0, known = 0; // the bits that are decided
    uint64_t left = top;
    for (int d = 0; d < 3; d++) {
        uint64_t count[BUCKETS] = {0};
        const uint32_t mask = d < 2 ? BUCKETS - 1 : (1u << 10) - 1;
        for (uint64_t i = 0; i < n; i++) {
            const uint32_t key = key_of(x[i]);
            if ((key & known) == prefix) count[key >> shift[d] & mask]++;
        }
        uint32_t bucket = mask;
        while (bucket > 0 && count[bucket] < left) left -= count[bucket--];
        prefix |= bucket << shift[d];
        known |= mask << shift[d];
    }
    *equal = left;
    return prefix;
}

// log(sum exp x), through the largest.
static double log_sum(const float *x, uint64_t n)
{
    double sum = 0;
    float top = x[0];
    for (uint64_t i = 1; i < n; i++) top = fmaxf(top, x[i]);
    for (uint64_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)top);
    return (double)top + log(sum);
}

static double row(const float *teacher, const float *student, uint64_t n, uint64_t top, double weight, float *out)
{
    const double t_sum = log_sum(teacher, n), s_sum = log_sum(student, n);
    double loss = 0, mass = 0;
    uint64_t equal;
    const uint32_t least = threshold(teacher, n, GYRE_MIN(top, n), &equal);
    for (uint64_t i = 0; i < n; i++) {
        const uint32_t key = key_of(teacher[i]);
        const bool in = key > least || (key == least && equal > 0);
        if (out) out[i] = 0;
        if (!in) continue;
        equal -= key == least;
        const double p = exp((double)teacher[i] - t_sum);
        loss += p * (((double)teacher[i] - t_sum) - ((double)student[i] - s_sum));
        mass += p;
        if (out) out[i] = (float)(-weight * p);
    }
    for (uint64_t i = 0; out && i < n; i++) out[i] += (float)(weight * mass * exp((double)student[i] - s_sum));
    return loss;
}

double gyre_back_kl_top(const float *teacher, const float *student, uint64_t rows, uint64_t width, uint64_t top,
                        double weight, float *out)
{
    double sum = 0, *each = malloc(rows * sizeof *each);
    if (!each) return NAN;
#pragma omp parallel for schedule(static)
    for (uint64_t r = 0; r < rows; r++)
        each[r] = row(teacher + r * width, student + r * width, width, top, weight, out ? out + r * width : NULL);
    for (uint64_t r = 0; r < rows; r++) sum += each[r];
    free(each);
    return sum;
}
