// A seeded generator whose sequence is part of what is reproduced: the same seed gives the same
// numbers on every machine and in every later version. Not for secrets.
//
// splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators"): a counter
// that advances by the golden ratio, mixed by a bijection. Any seed is good, 0 included.
#pragma once
#include <stdint.h>

struct gyre_rng {
    uint64_t state;
};

static inline struct gyre_rng gyre_rng_seed(uint64_t seed) { return (struct gyre_rng){seed}; }

// Uniform over all 64-bit values. Use the high bits first.
static inline uint64_t gyre_rng_next(struct gyre_rng *rng)
{
    uint64_t z = rng->state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

// Uniform in [0, n), without bias; n > 0.
static inline uint64_t gyre_rng_below(struct gyre_rng *rng, uint64_t n)
{
    const uint64_t rest = (UINT64_MAX % n + 1) % n; // how many values the last, incomplete run of n holds
    uint64_t v;
    do v = gyre_rng_next(rng);
    while (v > UINT64_MAX - rest);
    return v % n;
}

// Uniform in [0, 1), a multiple of 2^-53.
static inline double gyre_rng_unit(struct gyre_rng *rng) { return (double)(gyre_rng_next(rng) >> 11) * 0x1p-53; }
