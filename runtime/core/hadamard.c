// Factorisation of widths and the fast transform. See hadamard.h; the entries of base matrices are hadamard_base.c's.
#include "runtime/core/hadamard.h"
#include "runtime/util/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- factors ------------------------------------------------------------------------------------------

static bool is_power_of_two(uint32_t n) { return n && !(n & (n - 1)); }

struct search {
    uint32_t order[GYRE_MAX_HAD_ORDER]; // dense orders that divide n, ascending
    uint32_t n_orders, pick[3], best[3], best_p, best_cost;
};

// Tries every multiset of up to three orders from `first` on whose product leaves a power of two.
static void try_orders(struct search *s, uint32_t rest, uint32_t depth, uint32_t first, uint32_t cost)
{
    if (is_power_of_two(rest)) {
        const uint32_t p = (uint32_t)__builtin_ctz(rest);
        if (cost + p < s->best_cost) {
            s->best_cost = cost + p;
            s->best_p = p;
            for (uint32_t i = 0; i < 3; i++) s->best[i] = i < depth ? s->pick[i] : 1;
        }
    }
    for (uint32_t i = first; depth < 3 && i < s->n_orders; i++)
        if (rest % s->order[i] == 0) {
            s->pick[depth] = s->order[i];
            try_orders(s, rest / s->order[i], depth + 1, i, cost + s->order[i]);
        }
}

bool gyre_hadamard_factor(uint32_t n, struct gyre_hadamard *out)
{
    struct search s = {.best_cost = UINT32_MAX};
    if (n == 0) return false;
    for (uint32_t k = 12; k <= GYRE_MAX_HAD_ORDER && k <= n; k += 4)
        if (n % k == 0 && !is_power_of_two(k) && gyre_hadamard_base(k, NULL)) s.order[s.n_orders++] = k;
    try_orders(&s, n, 0, 0, 0);
    if (s.best_cost == UINT32_MAX) return false;
    *out = (struct gyre_hadamard){.n = n, .k = {s.best[0], s.best[1], s.best[2]}, .p = s.best_p};
    return true;
}

uint32_t gyre_hadamard_segment(uint32_t width)
{
    struct gyre_hadamard h;
    for (uint32_t parts = 1; parts <= width; parts++)
        if (width % parts == 0 && gyre_hadamard_factor(width / parts, &h)) return width / parts;
    return 0;
}

void gyre_hadamard_release(struct gyre_hadamard *h)
{
    for (int i = 0; i < 3; i++) free((void *)(uintptr_t)h->base[i]);
    *h = (struct gyre_hadamard){0};
}

gyre_status gyre_hadamard_create(uint32_t n, struct gyre_hadamard *out, gyre_error *err)
{
    *out = (struct gyre_hadamard){0};
    if (!gyre_hadamard_factor(n, out))
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "no Hadamard matrix of order %u: it is not a product of Paley, Williamson and Sylvester "
                         "orders; use segments of %u",
                         n, gyre_hadamard_segment(n));
    for (int i = 0; i < 3; i++) {
        if (out->k[i] == 1) continue;
        int8_t *base = malloc((size_t)out->k[i] * out->k[i]);
        out->base[i] = base;
        if (!base || !gyre_hadamard_base(out->k[i], base)) {
            gyre_hadamard_release(out);
            return gyre_fail(err, GYRE_E_NOMEM, "out of memory for a Hadamard matrix of order %u", n);
        }
    }
    return GYRE_OK;
}

// ---- the transform --------------------------------------------------------------------------------------

// Vectors are transformed LANES at a time: element i of all lanes is contiguous, so that every loop below vectorises
// whichever way the matrix is walked, and no sum depends on how the work was divided.
enum { LANES = 8 };

// One dense axis of length k between `outer` slower and `inner` faster elements: y_j = sum_i x_i H[i][j].
GYRE_INLINE void dense_axis(const int8_t *h, uint32_t k, bool transposed, uint64_t outer, uint64_t inner, double *x,
                            double *column)
{
    for (uint64_t o = 0; o < outer; o++)
        for (uint64_t c = 0; c < inner; c++) {
            double *at = x + (o * k * inner + c) * LANES;
            for (uint32_t i = 0; i < k; i++) memcpy(column + i * LANES, at + i * inner * LANES, sizeof(double) * LANES);
            for (uint32_t j = 0; j < k; j++) {
                double sum[LANES] = {0};
                for (uint32_t i = 0; i < k; i++) {
                    const double sign = transposed ? h[j * k + i] : h[i * k + j];
                    for (uint32_t l = 0; l < LANES; l++) sum[l] += sign * column[i * LANES + l];
                }
                memcpy(at + j * inner * LANES, sum, sizeof sum);
            }
        }
}

// Axes of length 2 whose elements lie `half` and, in the second form, also 2 half apart, within `count` elements.
GYRE_INLINE void axis(uint64_t half, uint64_t count, double *x)
{
    for (uint64_t start = 0; start < count; start += 2 * half) {
        double *a = x + start * LANES, *b = a + half * LANES;
        for (uint64_t i = 0; i < half * LANES; i++) {
            const double u = a[i], v = b[i];
            a[i] = u + v;
            b[i] = u - v;
        }
    }
}

GYRE_INLINE void two_axes(uint64_t half, uint64_t count, double *x)
{
    const uint64_t n = half * LANES;
    for (uint64_t start = 0; start < count; start += 4 * half) {
        double *const at = x + start * LANES;
        for (uint64_t i = 0; i < n; i++) {
            const double a = at[i] + at[i + n], b = at[i] - at[i + n], c = at[i + 2 * n] + at[i + 3 * n],
                         d = at[i + 2 * n] - at[i + 3 * n];
            at[i] = a + c;
            at[i + n] = b + d;
            at[i + 2 * n] = a - c;
            at[i + 3 * n] = b - d;
        }
    }
}

// The innermost axes of length 2 from `half` up to length `end`, two at a time.
GYRE_INLINE void axes(uint64_t half, uint64_t end, uint64_t count, double *x)
{
    for (; 4 * half <= end; half *= 4) two_axes(half, count, x);
    if (half < end) axis(half, count, x);
}

// The p innermost axes of length 2 of `count` consecutive elements: first inside pieces that a first-level cache holds.
GYRE_INLINE void butterflies(uint32_t p, uint64_t count, double *x)
{
    const uint64_t end = (uint64_t)1 << p, piece = GYRE_MIN(end, (uint64_t)256);
    for (uint64_t at = 0; at < count; at += piece) axes(1, piece, piece, x + at * LANES);
    axes(piece, end, count, x);
}

GYRE_INLINE void transform_lanes(const struct gyre_hadamard *h, uint64_t width, bool transposed, double *x,
                                 double *column)
{
    uint64_t outer = width / h->n, inner = h->n;
    for (int f = 0; f < 3; f++) {
        inner /= h->k[f];
        if (h->k[f] > 1) dense_axis(h->base[f], h->k[f], transposed, outer, inner, x, column);
        outer *= h->k[f];
    }
    butterflies(h->p, width, x);
}

// Up to LANES vectors, `step` apart from `from` on, whose elements lie `stride` apart. `panel`: LANES * (width + the
// largest order).
GYRE_CLONES static void transform_panel(const struct gyre_hadamard *h, double *from, uint64_t width, uint64_t stride,
                                        uint64_t lanes, uint64_t step, const int8_t *signs, bool transposed,
                                        double *panel)
{
    const double scale = 1.0 / sqrt((double)h->n);
    if (lanes < LANES) memset(panel, 0, sizeof(double) * LANES * width);
    for (uint64_t i = 0; i < width; i++)
        for (uint64_t l = 0; l < lanes; l++)
            panel[i * LANES + l] = from[i * stride + l * step] * (signs ? signs[i] : 1);
    transform_lanes(h, width, transposed, panel, panel + LANES * width);
    for (uint64_t i = 0; i < width; i++)
        for (uint64_t l = 0; l < lanes; l++) from[i * stride + l * step] = panel[i * LANES + l] * scale;
}

gyre_status gyre_hadamard_apply(const struct gyre_hadamard *h, double *x, uint64_t width, uint64_t stride,
                                uint64_t count, uint64_t step, const int8_t *signs, bool transposed, gyre_error *err)
{
    if (h->n == 0 || width % h->n)
        return gyre_fail(err, GYRE_E_INVALID, "cannot transform %llu columns in segments of %u",
                         (unsigned long long)width, h->n);
    const int64_t panels = (int64_t)gyre_div_up(count, LANES);
    bool out_of_memory = false;
#pragma omp parallel if (count * width > 1 << 20)
    {
        double *panel = malloc(sizeof(double) * LANES * (width + GYRE_MAX_HAD_ORDER));
        if (!panel) {
#pragma omp atomic write
            out_of_memory = true;
        }
#pragma omp for schedule(dynamic, 4)
        for (int64_t b = 0; b < panels; b++) {
            if (!panel) continue;
            const uint64_t first = (uint64_t)b * LANES, lanes = GYRE_MIN(count - first, (uint64_t)LANES);
            transform_panel(h, x + first * step, width, stride, lanes, step, signs, transposed, panel);
        }
        free(panel);
    }
    return out_of_memory ? gyre_fail(err, GYRE_E_NOMEM, "out of memory for a transform of %llu columns",
                                     (unsigned long long)width)
                         : GYRE_OK;
}
