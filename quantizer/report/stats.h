// What a tap's activations look like to a quantizer: outliers, tails, the error of 4 bits; and pictures of them.
#pragma once
#include "runtime/util/status.h"

#include <stddef.h>
#include <stdint.h>

// Over tokens t with rows x_t of n channels; a row of zeros has no rms and counts nowhere. NaN: there was nothing to
// measure.
struct gyre_tap_stats {
    // max_i |x_ti| / rms(x_t), rms = sqrt(sum_i x_ti^2 / n): 1 where all channels are equally large, sqrt(n) for a
    // single spike, about sqrt(2 ln n) for a Gaussian. The median of all tokens (the mean of the middle two), and the
    // largest.
    double max_rms_median, max_rms_max;
    // m4 / m2^2 of the elements of all tokens but the first, pooled, m_k their k-th central moments: 3 for a Gaussian,
    // 1.8 for a uniform, 1 for +-a. The first token carries the attention sink and would drown the rest.
    double kurtosis;
    // The mean over tokens of |Q(x_t) - x_t|^2 / |x_t|^2, Q the runtime's 4-bit activations without clipping: codes
    // 0..15, scale (hi - lo) / 15, a zero point, the range including zero (shaders/quantize.k.h). All tokens.
    double int4_error;
};

// x is f32 [rows, width], one sequence whose first row is its first token. Values that are not finite give NaN. Sums
// are made in order, in double. Fails only for want of memory.
gyre_status gyre_tap_measure(const float *x, uint64_t rows, uint64_t width, struct gyre_tap_stats *out,
                             gyre_error *err) GYRE_MUST_USE;

enum { GYRE_HEAT_SIDE = 96 };

// |x| of [tokens, channels], down-sampled to a grid of at most 96 x 96 cells. A cell is the largest |x| in it, so that
// one outlier stays visible.
struct gyre_heat_map {
    uint64_t tokens, channels;
    uint32_t rows, cols;                         // of the grid
    float cell[GYRE_HEAT_SIDE * GYRE_HEAT_SIDE]; // [rows, cols]
};

void gyre_heat_begin(struct gyre_heat_map *map, uint64_t tokens, uint64_t channels); // both positive
// Adds rows first..first+rows-1 of [tokens, channels]; x is f32 [rows, channels]. Rows beyond `tokens` are ignored.
void gyre_heat_add(struct gyre_heat_map *map, uint64_t first, uint64_t rows, const float *x);

// The grid as a PNG (RGB, a pixel a cell), logarithmic: black at `most` / 1000 and below, pale yellow at `most`. *png
// is malloc'd. The same map gives the same bytes.
gyre_status gyre_heat_png(const struct gyre_heat_map *map, double most, unsigned char **png, size_t *bytes,
                          gyre_error *err) GYRE_MUST_USE;
// The colour of a share 0..1 of that scale.
void gyre_heat_colour(double share, unsigned char rgb[3]);
