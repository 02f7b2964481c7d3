// Cases of the ops that make gradients, but for those of the cache (cases_back_kv.c).
#include "tests/ops/weight.h"
#include "backends/cpu/ref_parts.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdio.h>

static struct check_bind out(size_t n, double bound) { return (struct check_bind){.size = 4 * n, .bound = bound}; }
static struct check_bind normal(struct check *check, size_t n, double sigma)
{
    return (struct check_bind){.data = check_normal(check, n, sigma), .size = 4 * n};
}

// ---- products -----------------------------------------------------------------------------------------------

static struct gyre_matmul_back_params params_of(const struct weight *w, int rows, int ldy, int n0, int add)
{
    return (struct gyre_matmul_back_params){rows, w->k, w->n, w->n_pad, w->group, ldy, n0, add};
}

static void product_back(struct check *check, int kind, int rows, int n, int k, int group, uint32_t wgx, uint32_t tr)
{
    const struct weight w = weight_random(check, kind, n, k, group);
    const int n0 = n % 3, ldy = n0 + n + rows % 2, add = rows % 2;
    const struct gyre_matmul_back_params p = params_of(&w, rows, ldy, n0, add);
    const size_t size = (size_t)(rows * k);
    char kernel[32];
    snprintf(kernel, sizeof kernel, "matmul_back_%s", weight_name(w.kind));
    struct check_case c = {
        .kernel = kernel,
        .params = &p,
        .n_spec = 5,
        .spec = {wgx, 1, 1, tr, w.zeros},
        .groups = {(uint32_t)gyre_div_up((uint64_t)k / 4, wgx), (uint32_t)gyre_div_up((uint64_t)rows, tr)},
        .bind = {out(size, 1e-11), normal(check, (size_t)(rows * ldy), 1), w.words, w.scale},
    };
    if (add) c.bind[0].data = check_normal(check, size, 1);
    check_run(check, &c, "%d x %d x %d, group %d, zeros %d, WGX %u, TR %u", rows, n, k, group, w.zeros, wgx, tr);
}

void cases_matmul_back(struct check *check)
{
    static const int kinds[] = {W_W4, W_W4Z, W_W8, W_F16, W_F32};
    for (size_t i = 0; i < GYRE_COUNT(kinds); i++) {
        const uint32_t wgx = i % 2 ? 64 : 8, tr = i % 2 ? 8 : 4; // a program for each
        product_back(check, kinds[i], 1, 24, 32, 32, wgx, tr);
        product_back(check, kinds[i], 5, 100, 96, kinds[i] == W_W4Z ? 32 : 96, wgx, tr);
        product_back(check, kinds[i], 17, 33, 64, 16, wgx, tr);
        product_back(check, kinds[i], 9, 192, 576, 64, wgx, tr);
    }
}

static void scales(struct check *check, int kind, int rows, int n, int k, int group, int bits, uint32_t wgx)
{
    const struct weight w = weight_random(check, kind, n, k, group);
    const struct input in = input_random(check, rows, k, bits);
    const int n0 = n % 3, ldy = n0 + n + rows % 2;
    const struct gyre_matmul_back_params p = params_of(&w, rows, ldy, n0, 0); // scale_back's are the same
    char kernel[32];
    snprintf(kernel, sizeof kernel, "scale_back_%s_%s", weight_name(w.kind), bits ? "q" : "f");
    const struct check_case c = {
        .kernel = kernel,
        .params = &p,
        .n_spec = 4,
        .spec = {wgx, 1, 1, w.zeros},
        .groups = {(uint32_t)gyre_div_up((uint64_t)n, wgx), (uint32_t)(k / group)},
        .bind = {out((size_t)(k / group * ldy), 1e-10), normal(check, (size_t)(rows * ldy), 1), in.x, in.meta, w.words,
                 w.scale},
    };
    check_run(check, &c, "%d x %d x %d, group %d, zeros %d, act %d, WGX %u", rows, n, k, group, w.zeros, bits, wgx);
}

void cases_scale_back(struct check *check)
{
    static const int kinds[] = {W_W4, W_W4Z, W_W8};
    for (size_t i = 0; i < GYRE_COUNT(kinds); i++)
        for (int bits = 0; bits <= 8; bits += kinds[i] == W_W4Z ? 9 : 8) { // zero points at float x alone
            const uint32_t wgx = bits ? 64 : 8;
            scales(check, kinds[i], 1, 24, 64, 32, bits, wgx);
            scales(check, kinds[i], 17, 33, 96, 12, bits, wgx);
            scales(check, kinds[i], 5, 100, 256, 128, bits ? 4 : 0, wgx);
            scales(check, kinds[i], 33, 40, 72, 72, bits, wgx);
        }
}

// ---- rows ---------------------------------------------------------------------------------------------------

void cases_columns(struct check *check)
{
    static const struct gyre_columns_params shapes[] = {
        {1, 5, 1, 0, 1, 1, 0, 0},   {17, 100, 1, 0, 1, 1, 1, 0}, {33, 64, 1, 0, 1, 1, 2, 0}, {9, 72, 1, 0, 1, 0, 0, 0},
        {12, 40, 1, 0, 1, 1, 0, 1}, {7, 24, 6, 0, 4, 1, 0, 1},   {7, 24, 6, 4, 1, 1, 0, 1},
    };
    for (size_t i = 0; i < GYRE_COUNT(shapes); i++) {
        const struct gyre_columns_params *p = &shapes[i];
        const size_t n = (size_t)(p->rows * p->segs * p->width);
        const struct check_case c = {
            .kernel = "columns",
            .params = p,
            .n_spec = 3,
            .spec = {i % 2 ? 32 : 8, 8, 1},
            .groups = {(uint32_t)gyre_div_up((uint64_t)p->width, i % 2 ? 32 : 8)},
            .bind = {out((size_t)p->width, 1e-11), normal(check, n, 1), normal(check, n, 2), normal(check, n, 1),
                     normal(check, (size_t)(p->rows * p->segs), 1)},
        };
        check_run(check, &c, "%d rows of %d x %d, %d from %d, b %d, less %d, by %d", p->rows, p->segs, p->width,
                  p->count, p->first, p->b, p->less, p->by);
    }
}

void cases_norm_back(struct check *check)
{
    static const struct gyre_norm_back_params shapes[] = {
        {1, 4, 1, 1, 0, 1e-5f},  {5, 36, 1, 1, 0, 1e-6f}, {17, 576, 1, 1, 0, 1e-5f},
        {3, 64, 7, 3, 2, 1e-6f}, {9, 24, 6, 4, 1, 1e-5f},
    };
    for (size_t i = 0; i < GYRE_COUNT(shapes); i++) {
        const struct gyre_norm_back_params *p = &shapes[i];
        const size_t segs = (size_t)(p->rows * p->segs), n = segs * (size_t)p->width;
        const struct check_case c = {
            .kernel = "norm_back",
            .params = p,
            .n_spec = 3,
            .spec = {i % 2 ? 64 : 8, 1, 1},
            .groups = {(uint32_t)p->segs, (uint32_t)p->rows},
            .bind = {out(n, 1e-11), out(segs, 1e-11), normal(check, n, 1), normal(check, n, 2),
                     normal(check, 2 * (size_t)p->width, 1)},
        };
        check_run(check, &c, "%d rows of %d x %d, %d + %d norms", p->rows, p->segs, p->width, p->heads, p->kv_heads);
    }
}

void cases_act_mul_back(struct check *check)
{
    for (int act = 0; act < 2; act++)
        for (int rows = 1; rows < 20; rows += 9) {
            const int width = 4 * rows + 76;
            const struct gyre_act_mul_back_params p = {rows, width, act};
            const size_t n = (size_t)(rows * width);
            struct check_case c = {
                .kernel = "act_mul_back",
                .params = &p,
                .n_spec = 3,
                .spec = {64, 1, 1},
                .groups = {(uint32_t)gyre_div_up((uint64_t)width, 64), (uint32_t)rows},
                .bind = {out(2 * n, 1e-11), normal(check, n, 1), normal(check, 2 * n, 3)},
            };
            float *x = (float *)(uintptr_t)c.bind[2].data;
            x[0] = 80, x[1] = -80, x[2] = 0; // far out on both sides, where exponentials overflow
            check_run(check, &c, "act %d, %d x %d", act, rows, width);
        }
}

// Rows of their own size, one of zeros; clips at which values lie beyond the levels.
static void quantizer(struct check *check, int rows, int width, int bits, int span, float clip, uint32_t wgx)
{
    const struct gyre_quantize_back_params p = {rows, width, bits, clip, span};
    const size_t n = (size_t)(rows * width);
    float *x = check_normal(check, n, 1);
    uint32_t *codes = check_alloc(check, gyre_round_up(n, 16)), *meta = check_alloc(check, (size_t)rows * 8);
    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < width; i++) x[r * width + i] *= r % 5 == 2 ? 0.0f : (float)ldexp(1, 3 * (r % 4) - 6);
        for (int i = 0; i < width && r % 3 == 1; i++) x[r * width + i] = fabsf(x[r * width + i]); // to one side of 0
        gyre_ref_quantize_row(x + r * width, width, bits, clip, span, codes + r * width / 4, meta + 2 * r);
    }
    const struct check_case c = {
        .kernel = "quantize_back",
        .params = &p,
        .n_spec = 4,
        .spec = {wgx, 1, 1, (uint32_t)span},
        .groups = {(uint32_t)rows},
        .bind = {out(n, 1e-10),
                 out((size_t)rows, 1e-9),
                 normal(check, n, 1),
                 {.data = x, .size = 4 * n},
                 {.data = codes, .size = gyre_round_up(n, 16)},
                 {.data = meta, .size = (size_t)rows * 8}},
    };
    check_run(check, &c, "%d x %d to %d bits, groups of %d, clip %g", rows, width, bits, span, (double)clip);
}

void cases_quantize_back(struct check *check)
{
    static const int widths[] = {4, 36, 80, 576};
    for (size_t i = 0; i < GYRE_COUNT(widths); i++)
        for (int bits = 4; bits <= 8; bits += 4) {
            quantizer(check, 7, widths[i], bits, 0, i % 2 ? 0.7f : 1.0f, 8);
            quantizer(check, 17, widths[i], bits, 0, i % 2 ? 1.0f : 0.8f, 64);
        }
    for (int rows = 1; rows < 20; rows += 6) { // a program for each group
        quantizer(check, rows, 192, 4, 16, 0.8f, 8);
        quantizer(check, rows, 384, 4, 32, 1.0f, 64);
    }
}
