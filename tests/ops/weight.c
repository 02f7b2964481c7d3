// See weight.h.
#include "tests/ops/weight.h"
#include "backends/cpu/ref_parts.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <string.h>

const char *weight_name(int kind) { return kind == W_F32 ? "f32" : kind == W_F16 ? "f16" : kind == W_W8 ? "w8" : "w4"; }

struct weight weight_random(struct check *check, int kind, int n, int k, int group)
{
    const bool zeros = kind == W_W4Z;
    if (zeros) kind = W_W4;
    struct weight w = {.kind = kind,
                       .zeros = zeros,
                       .n = n,
                       .k = k,
                       .group = group,
                       .n_pad = (int)gyre_round_up((uint64_t)n, kind <= W_W8 ? GYRE_TILE : 8)};
    const size_t count = (size_t)k * (size_t)w.n_pad, pairs = (size_t)(k / group) * (size_t)(w.n_pad / 2);
    uint32_t *words = check_words(check, count * (size_t)kind / 32, ~0u);
    if (kind == W_F32) words = (uint32_t *)(void *)check_normal(check, count, 0.05);
    if (kind == W_F16)
        for (size_t i = 0; i < count / 2; i++)
            words[i] = gyre_f16_from_f32(*check_normal(check, 1, 0.05f)) |
                       (uint32_t)gyre_f16_from_f32(*check_normal(check, 1, 0.05f)) << 16;
    const size_t eights = zeros ? pairs / 4 : 0; // words of zero points
    uint32_t *scale = check_alloc(check, (pairs + eights) * 4);
    if (zeros) memcpy(scale + pairs, check_words(check, eights, ~0u), eights * 4);
    int32_t *sums = check_alloc(check, pairs * 8);
    for (size_t i = 0; i < pairs; i++)
        scale[i] = gyre_f16_from_f32(*check_uniform(check, 1, 0.001, 0.02)) |
                   (uint32_t)gyre_f16_from_f32(*check_uniform(check, 1, 0.001, 0.02)) << 16;
    const struct gyre_ref_weight view = {kind, k, w.n_pad, group, words, scale, zeros ? scale + pairs : NULL};
    if (kind <= W_W8)
        for (int c = 0; c < w.n_pad; c++)
            for (int i = 0; i < k; i++) sums[i / group * w.n_pad + c] += gyre_ref_weight_code(&view, i, c);
    w.words = (struct check_bind){.data = words, .size = count * (size_t)kind / 8};
    w.scale = kind <= W_W8 ? (struct check_bind){.data = scale, .size = (pairs + eights) * 4} : w.words;
    w.sums = kind <= W_W8 ? (struct check_bind){.data = sums, .size = pairs * 8} : w.words;
    return w;
}

struct input input_random(struct check *check, int rows, int k, int bits)
{
    const size_t n = (size_t)rows * (size_t)k;
    const float *x = check_normal(check, n, 1.5);
    if (!bits) return (struct input){{.data = x, .size = n * 4}, {.data = x, .size = n * 4}};
    const size_t size = gyre_round_up(bits == 24 ? 3 * n : n, 16);
    uint32_t *codes = check_alloc(check, size), *meta = check_alloc(check, (size_t)rows * 8);
    for (int r = 0; r < rows && bits == 24; r++)
        gyre_ref_split_row(x + r * k, k, (int8_t *)codes + 3 * r * k, (size_t)k, meta + 2 * r);
    for (int r = 0; r < rows && bits != 24; r++)
        gyre_ref_quantize_row(x + r * k, k, bits, 1, 0, codes + r * k / 4, meta + 2 * r);
    return (struct input){{.data = codes, .size = size}, {.data = meta, .size = (size_t)rows * 8}};
}
