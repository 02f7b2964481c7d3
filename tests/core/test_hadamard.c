// Hadamard matrices and transforms: exactness in integers, the table of widths, the transform against its definition.
#include "runtime/core/hadamard.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void assert_hadamard(const int8_t *h, uint32_t k)
{
    for (uint32_t i = 0; i < k; i++)
        for (uint32_t j = 0; j <= i; j++) {
            int32_t dot = 0;
            for (uint32_t c = 0; c < k; c++) {
                assert_true(h[i * k + c] == 1 || h[i * k + c] == -1);
                dot += h[i * k + c] * h[j * k + c];
            }
            assert_int_equal(dot, i == j ? (int32_t)k : 0);
        }
}

static void every_base_is_exact(void **state)
{
    (void)state;
    // What the constructions give up to 400, minus pure Kronecker products (checked below through factors).
    static const uint32_t known[] = {1,   2,   4,   8,   12,  20,  24,  28,  36,  44,  48,  52,  60,  68,  72,  76,
                                     80,  84,  92,  100, 104, 108, 116, 124, 132, 140, 148, 152, 156, 164, 168, 172,
                                     180, 192, 196, 200, 204, 212, 220, 224, 228, 240, 244, 252, 264, 272, 276, 284,
                                     300, 308, 312, 316, 332, 340, 344, 348, 360, 364, 368, 380, 384, 388, 396};
    int8_t *h = malloc((size_t)GYRE_MAX_HAD_ORDER * GYRE_MAX_HAD_ORDER);
    uint32_t next = 0;
    for (uint32_t k = 0; k <= GYRE_MAX_HAD_ORDER; k++) {
        const bool exists = gyre_hadamard_base(k, NULL);
        if (next < sizeof known / sizeof *known && known[next] == k) {
            assert_true(exists);
            next++;
        }
        if (!exists) continue;
        assert_true(gyre_hadamard_base(k, h));
        assert_hadamard(h, k);
    }
    assert_int_equal(next, sizeof known / sizeof *known);
    assert_false(gyre_hadamard_base(0, NULL));
    assert_false(gyre_hadamard_base(6, NULL));
    assert_false(gyre_hadamard_base(188, NULL)); // 47 is prime, 187 = 11*17, 93 = 3*31: none of the constructions
    assert_false(gyre_hadamard_base(428, NULL));
    free(h);
}

static const struct {
    uint32_t n, k[3], p;
} widths[] = {
    {576, {12, 12, 1}, 2},   {1536, {12, 1, 1}, 7},    {960, {12, 20, 1}, 2},    {2560, {20, 1, 1}, 7},
    {2048, {1, 1, 1}, 11},   {8192, {1, 1, 1}, 13},    {3072, {12, 1, 1}, 8},    {4096, {1, 1, 1}, 12},
    {11008, {172, 1, 1}, 6}, {14336, {28, 1, 1}, 9},   {896, {28, 1, 1}, 5},     {4864, {76, 1, 1}, 6},
    {1024, {1, 1, 1}, 10},   {5120, {20, 1, 1}, 8},    {13824, {12, 12, 12}, 3}, {640, {20, 1, 1}, 5},
    {8960, {20, 28, 1}, 4},  {3584, {28, 1, 1}, 7},    {18944, {148, 1, 1}, 7},  {9728, {76, 1, 1}, 7},
    {6144, {12, 1, 1}, 9},   {1152, {12, 12, 1}, 3},   {6912, {12, 12, 12}, 2},  {5632, {44, 1, 1}, 7},
    {28672, {28, 1, 1}, 10}, {27648, {12, 12, 12}, 4}, {29568, {12, 28, 44}, 1}, {25600, {20, 20, 1}, 6},
    {64, {1, 1, 1}, 6},      {80, {20, 1, 1}, 2},      {96, {12, 1, 1}, 3},      {128, {1, 1, 1}, 7},
};

// Entry (i, j) of the Kronecker product, from the factors.
static int entry(const struct gyre_hadamard *h, uint32_t i, uint32_t j)
{
    int value = 1;
    for (uint32_t b = 0; b < h->p; b++, i /= 2, j /= 2)
        if (i & j & 1) value = -value;
    for (int f = 2; f >= 0; f--) {
        if (h->k[f] > 1) value *= h->base[f][(i % h->k[f]) * h->k[f] + j % h->k[f]];
        i /= h->k[f];
        j /= h->k[f];
    }
    return value;
}

static void every_width_factors(void **state)
{
    (void)state;
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        struct gyre_hadamard h;
        assert_int_equal(gyre_hadamard_create(widths[w].n, &h, NULL), GYRE_OK);
        assert_int_equal(h.n, widths[w].n);
        for (int f = 0; f < 3; f++) assert_int_equal(h.k[f], widths[w].k[f]);
        assert_int_equal(h.p, widths[w].p);
        // Rows are orthogonal, exactly: every row against a spread of others.
        for (uint32_t i = 0; i < h.n; i += h.n / 3 + 1)
            for (uint32_t other = 0; other < 40; other++) {
                const uint32_t j = (i + other * (h.n / 37 + 1)) % h.n;
                int64_t dot = 0;
                for (uint32_t c = 0; c < h.n; c++) dot += entry(&h, i, c) * entry(&h, j, c);
                assert_int_equal(dot, i == j ? h.n : 0);
            }
        assert_int_equal(gyre_hadamard_segment(h.n), h.n);
        gyre_hadamard_release(&h);
    }
    assert_int_equal(gyre_hadamard_segment(13696), 128); // 107 * 2^7: order 428 is out of reach
    assert_int_equal(gyre_hadamard_segment(7), 1);
    struct gyre_hadamard none;
    gyre_error err = {0};
    assert_int_equal(gyre_hadamard_create(13696, &none, &err), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "segments of 128"));
}

static double noise(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    return (double)(*s >> 8) / (1 << 24) - 0.5;
}

static void transform_is_its_definition(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 2, 8, 12, 40, 48, 76, 144, 172, 240, 576};
    uint32_t seed = 1;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (uint32_t segs = 1; segs <= 3; segs += 2)
            for (int transposed = 0; transposed < 2; transposed++) {
                struct gyre_hadamard h;
                assert_int_equal(gyre_hadamard_create(sizes[s], &h, NULL), GYRE_OK);
                const uint32_t width = h.n * segs, rows = 11;
                double *x = malloc(sizeof(double) * width * rows), *y = malloc(sizeof(double) * width * rows),
                       *c = malloc(sizeof(double) * width * rows);
                int8_t *signs = malloc(width);
                for (uint32_t i = 0; i < width; i++) signs[i] = noise(&seed) < 0 ? -1 : 1;
                for (uint32_t i = 0; i < width * rows; i++) x[i] = y[i] = noise(&seed);
                for (uint32_t r = 0; r < rows; r++) // the same vectors as columns
                    for (uint32_t i = 0; i < width; i++) c[i * rows + r] = x[r * width + i];
                assert_int_equal(gyre_hadamard_apply(&h, y, width, 1, rows, width, signs, transposed, NULL), GYRE_OK);
                assert_int_equal(gyre_hadamard_apply(&h, c, width, rows, rows, 1, signs, transposed, NULL), GYRE_OK);
                for (uint32_t r = 0; r < rows; r++)
                    for (uint32_t j = 0; j < width; j++) {
                        double want = 0;
                        for (uint32_t i = 0; i < h.n; i++) {
                            const uint32_t from = j / h.n * h.n + i;
                            want += x[r * width + from] * signs[from] *
                                    (transposed ? entry(&h, j % h.n, i) : entry(&h, i, j % h.n));
                        }
                        want /= sqrt(h.n);
                        assert_true(fabs(want - y[r * width + j]) < 1e-12);
                        assert_true(c[j * rows + r] == y[r * width + j]);
                    }
                // H^T undoes H.
                assert_int_equal(gyre_hadamard_apply(&h, y, width, 1, rows, width, NULL, !transposed, NULL), GYRE_OK);
                for (uint32_t i = 0; i < width * rows; i++) assert_true(fabs(y[i] - x[i] * signs[i % width]) < 1e-12);
                free(x);
                free(y);
                free(c);
                free(signs);
                gyre_hadamard_release(&h);
            }
    struct gyre_hadamard h;
    double one[7] = {0};
    assert_int_equal(gyre_hadamard_create(4, &h, NULL), GYRE_OK);
    assert_int_equal(gyre_hadamard_apply(&h, one, 7, 1, 1, 7, NULL, false, NULL), GYRE_E_INVALID);
    gyre_hadamard_release(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_base_is_exact),
        cmocka_unit_test(every_width_factors),
        cmocka_unit_test(transform_is_its_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
