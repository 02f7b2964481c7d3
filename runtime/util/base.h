// Small helpers without state: rounding, minima, checked size arithmetic.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GYRE_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define GYRE_MIN(a, b) ((a) < (b) ? (a) : (b))
#define GYRE_MAX(a, b) ((a) > (b) ? (a) : (b))

// A function compiled once per vector width and chosen when the program starts. Every copy gives the same bits:
// -std=c17 contracts no products and sums, and the loops that carry this keep their partial sums in a fixed number of
// lanes. Not under sanitizers: the choice is made before their libraries are ready, and crashes.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) &&                           \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define GYRE_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define GYRE_CLONES
#endif
#define GYRE_INLINE static inline __attribute__((always_inline)) // into the clones, and compiled as they are

// The widths that activations and the KV cache come in.
static inline bool gyre_is_width(uint32_t bits) { return bits == 16 || bits == 8 || bits == 4; }

// Smallest multiple of `align` (any positive number) that is not below `n`.
static inline uint64_t gyre_round_up(uint64_t n, uint64_t align) { return (n + align - 1) / align * align; }
static inline uint64_t gyre_div_up(uint64_t n, uint64_t d) { return (n + d - 1) / d; }

// a*b and a+b into *out; false on overflow (then *out is undefined).
static inline bool gyre_mul_u64(uint64_t a, uint64_t b, uint64_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool gyre_add_u64(uint64_t a, uint64_t b, uint64_t *out) { return !__builtin_add_overflow(a, b, out); }
