// Cases of rope, kv_write and their fused forms.
#include "tests/ops/batch.h"
#include "runtime/util/base.h"

#include <math.h>

static const struct batch_run mixed[] = {{2, 40, 1}, {-1, 3, 1}, {0, 30, 4}, {1, 63, 2}, {-1, 0, 1}, {2, 0, 1}};
enum { MIXED = sizeof mixed / sizeof *mixed };

// Of a head whose first `turned` dimensions RoPE turns.
static float *make_freqs(struct check *check, int hd, int turned, double base)
{
    float *freqs = check_alloc(check, (size_t)hd / 2 * sizeof *freqs);
    for (int i = 0; i < hd / 2; i++) freqs[i] = 2 * i < turned ? (float)pow(base, -2.0 * i / turned) : 0;
    return freqs;
}

// Where the norms are off, any buffer, which nothing may read.
static struct check_bind make_gains(struct check *check, bool normed, int hd)
{
    float *gains = check_uniform(check, 2 * (size_t)hd, 0.3, 2);
    if (!normed) gains[0] = NAN;
    return (struct check_bind){.data = gains, .size = 8 * (size_t)hd};
}

// q_span > 0: queries grow with the position.
static void rope_case(struct check *check, int heads, int kv_heads, int hd, int turned, bool interleaved, int position,
                      uint32_t wg, bool normed, int q_span, double bound)
{
    const struct batch_run runs[] = {{0, position, 2}, {-1, 7, 1}, {1, 1, 1}};
    const struct batch b = batch_make(check, runs, 3);
    const struct gyre_rope_params p = {
        b.rows, heads, kv_heads, hd, interleaved ? 0 : turned / 2, 1.1f, q_span ? 0.3f : 0, q_span, normed, 1e-5f};
    const size_t n = (size_t)(b.rows * (heads + 2 * kv_heads) * hd);
    const struct check_case c = {
        .kernel = "rope",
        .params = &p,
        .n_spec = 4,
        .spec = {wg, 1, 1, normed},
        .groups = {(uint32_t)(heads + 2 * kv_heads), (uint32_t)b.rows},
        .bind = {{.size = 4 * n, .bound = bound},
                 {.data = check_normal(check, n, 2), .size = 4 * n},
                 {.data = b.row, .size = b.rows_bytes},
                 {.data = make_freqs(check, hd, turned, 10000), .size = 2 * (size_t)hd},
                 make_gains(check, normed, hd)},
    };
    check_run(check, &c, "heads %d/%d of %d, %d turned, interleaved %d, position %d, normed %d, span %d, workgroup %u",
              heads, kv_heads, hd, turned, interleaved, position, normed, q_span, wg);
}

void cases_rope(struct check *check)
{
    rope_case(check, 9, 3, 64, 64, false, 33, 8, false, 0, 1e-13);
    rope_case(check, 9, 3, 64, 64, true, 1023, 32, false, 0, 1e-13);
    rope_case(check, 4, 4, 80, 80, false, 5000, 8, true, 0, 1e-12);
    rope_case(check, 8, 1, 24, 24, true, 100000, 7, true, 0, 1e-10);
    rope_case(check, 1, 1, 256, 256, false, 131071, 64, false, 0, 1e-10);
    rope_case(check, 2, 1, 8, 8, false, 0, 8, true, 0, 1e-13);
    rope_case(check, 4, 2, 24, 18, false, 300, 8, true, 0, 1e-13); // the rest of a head stays as it is
    rope_case(check, 4, 2, 64, 16, true, 63, 8, false, 16, 1e-13);
    rope_case(check, 3, 1, 16, 0, false, 1000, 8, false, 16, 1e-13);
}

// ---- the cache ----------------------------------------------------------------------------------------

struct pool {
    struct check_bind codes, meta;
};

static struct pool make_pool(const struct batch *b, int kv_heads, int hd, uint32_t bits)
{
    const size_t slots = (size_t)(b->pages_used * kv_heads * 32);
    return (struct pool){{.size = slots * (size_t)hd * bits / 8,
                          .compare = bits == 16  ? batch_same_halves
                                     : bits == 8 ? batch_same_cache8
                                                 : batch_same_cache4},
                         {.size = 4 * slots, .compare = batch_same_meta}};
}

// What a cache of these heads is centred by; when it is not, any buffer, which nothing may read.
static struct check_bind make_centre(struct check *check, bool centred, int kv_heads, int hd)
{
    const size_t n = centred ? (size_t)(2 * kv_heads * hd) : 1;
    float *centre = check_normal(check, n, 4);
    if (!centred) centre[0] = NAN;
    return (struct check_bind){.data = centre, .size = 4 * n};
}

// Of a row's first head the value, of its last one the key gets a number that no cache holds.
static void lose(float *row, int heads, int kv_heads, int hd)
{
    row[(heads + kv_heads) * hd + 1] = NAN;
    row[(heads + kv_heads) * hd - 1] = -INFINITY;
}

static void kv_case(struct check *check, int heads, int kv_heads, int hd, uint32_t k_bits, uint32_t v_bits, float clip,
                    bool centred, uint32_t wg)
{
    const struct batch b = batch_make(check, mixed, MIXED);
    const struct pool k = make_pool(&b, kv_heads, hd, k_bits), v = make_pool(&b, kv_heads, hd, v_bits);
    const struct gyre_kv_write_params p = {b.rows, heads, kv_heads, hd, b.page_stride, clip, centred, 0.9f * clip};
    const size_t width = (size_t)((heads + 2 * kv_heads) * hd), n = (size_t)b.rows * width;
    float *x = check_normal(check, n, 1.5);
    for (int i = 0; i < hd; i++) { // a zero vector, one without negative values, one of large and one of tiny values
        x[(size_t)(heads * hd + i)] = 0;
        x[width * 2 + (size_t)(heads * hd + i)] = fabsf(x[width * 2 + (size_t)(heads * hd + i)]) + 3;
        x[width * 3 + (size_t)(heads * hd + i)] *= 3e5f;
        x[width * 4 + (size_t)(heads * hd + i)] *= 1e-6f;
    }
    lose(x + 5 * width, heads, kv_heads, hd);
    const struct check_case c = {
        .kernel = "kv_write",
        .params = &p,
        .n_spec = 5,
        .spec = {wg, 1, 1, k_bits, v_bits},
        .groups = {(uint32_t)(2 * kv_heads), (uint32_t)b.rows},
        .bind = {k.codes,
                 k.meta,
                 v.codes,
                 v.meta,
                 {.data = x, .size = 4 * n},
                 {.data = b.row, .size = b.rows_bytes},
                 {.data = b.table, .size = b.table_bytes},
                 make_centre(check, centred, kv_heads, hd)},
    };
    check_run(check, &c, "heads %d/%d of %d, %u/%u bits, clip %g, centred %d, workgroup %u", heads, kv_heads, hd,
              k_bits, v_bits, (double)clip, centred, wg);
}

void cases_kv_write(struct check *check)
{
    const int hds[] = {8, 24, 64, 80, 128, 256};
    for (uint32_t bits = 4; bits <= 16; bits *= 2) // one program for each number of bits, and one of an odd size
        for (int i = 0; i < 6; i++) {
            const uint32_t wg = bits == 8 ? 32 : 8;
            kv_case(check, i % 2 ? 4 : 9, i % 2 ? 4 : 3, hds[i], bits, bits, i % 3 ? 1.0f : 0.95f, false, wg);
            if (i % 2) kv_case(check, 6, 3, hds[i], bits, bits, 0.95f, true, wg);
        }
    kv_case(check, 8, 1, 64, 8, 8, 1, false, 5);
    // Widths apart: a program each.
    static const uint32_t apart[][2] = {{8, 4}, {4, 16}};
    for (size_t i = 0; i < GYRE_COUNT(apart); i++) {
        kv_case(check, 4, 2, 80, apart[i][0], apart[i][1], 0.95f, false, 8);
        kv_case(check, 6, 3, 24, apart[i][0], apart[i][1], 1, true, 8);
    }
}

static void fused_case(struct check *check, const char *kernel, int heads, int kv_heads, int hd, uint32_t k_bits,
                       uint32_t v_bits, int half, bool centred, bool normed, const int had[4], uint32_t wg)
{
    const struct batch b = batch_make(check, mixed, MIXED);
    const struct pool k = make_pool(&b, kv_heads, hd, k_bits), v = make_pool(&b, kv_heads, hd, v_bits);
    struct gyre_rope_kv_params p = {.rows = b.rows,
                                    .heads = heads,
                                    .kv_heads = kv_heads,
                                    .hd = hd,
                                    .split = half,
                                    .mscale = 0.9f,
                                    .q_beta = half == hd / 4 ? 0.2f : 0,
                                    .q_span = 16,
                                    .page_stride = b.page_stride,
                                    .clip = 0.97f,
                                    .clip_v = 0.9f,
                                    .centred = centred,
                                    .normed = normed,
                                    .eps = 1e-6f};
    size_t words = 1;
    uint32_t *base = check_alloc(check, sizeof *base);
    if (had) {
        p.n = hd, p.segs = 1, p.k1 = had[0], p.k2 = had[1], p.k3 = had[2], p.p = had[3];
        base = check_had_base(check, had, &words);
    }
    const size_t width = (size_t)((heads + 2 * kv_heads) * hd), n = (size_t)b.rows * width;
    float *x = check_normal(check, n, 1.5);
    lose(x + 5 * width, heads, kv_heads, hd);
    struct check_case c = {
        .kernel = kernel,
        .params = &p,
        .n_spec = 7,
        .spec = {wg, 1, 1, k_bits, v_bits, (uint32_t)hd, normed},
        .groups = {(uint32_t)(heads + 2 * kv_heads), (uint32_t)b.rows},
        .bind = {{.size = 4 * (size_t)(b.rows * heads * hd), .bound = 1e-12},
                 k.codes,
                 k.meta,
                 v.codes,
                 v.meta,
                 {.data = x, .size = 4 * n},
                 {.data = b.row, .size = b.rows_bytes},
                 {.data = b.table, .size = b.table_bytes},
                 {.data = make_freqs(check, hd, half ? 2 * half : hd, 100000), .size = 2 * (size_t)hd},
                 {.data = base, .size = 4 * words},
                 make_centre(check, centred, kv_heads, hd),
                 make_gains(check, normed, hd)},
    };
    if (had && !half) { // the others do with the default: factors from the parameters
        c.n_spec = 11;
        for (int i = 0; i < 4; i++) c.spec[7 + i] = (uint32_t)had[i];
    }
    check_run(check, &c, "heads %d/%d of %d, %u/%u bits, half %d, centred %d, normed %d, workgroup %u", heads, kv_heads,
              hd, k_bits, v_bits, half, centred, normed, wg);
}

void cases_rope_kv(struct check *check)
{
    fused_case(check, "rope_kv", 9, 3, 64, 16, 16, 32, false, false, NULL, 8);
    fused_case(check, "rope_kv", 9, 3, 64, 8, 8, 0, false, false, NULL, 32);
    fused_case(check, "rope_kv", 4, 4, 24, 4, 4, 12, false, false, NULL, 8);
    fused_case(check, "rope_kv", 8, 1, 8, 8, 8, 0, false, false, NULL, 3);
    fused_case(check, "rope_kv", 2, 1, 256, 4, 4, 128, false, true, NULL, 64);
    // with the constants of those above, which compile once
    fused_case(check, "rope_kv", 6, 3, 64, 16, 16, 0, true, false, NULL, 8);
    fused_case(check, "rope_kv", 9, 3, 64, 8, 8, 32, true, false, NULL, 32);
    fused_case(check, "rope_kv", 5, 5, 24, 4, 4, 12, true, true, NULL, 8);
    fused_case(check, "rope_kv", 6, 3, 64, 16, 16, 16, false, false, NULL, 8); // a half of each head, queries that grow
    fused_case(check, "rope_kv", 4, 2, 24, 4, 8, 12, true, false, NULL, 8);    // widths apart
}

void cases_rope_had_kv(struct check *check)
{
    fused_case(check, "rope_had_kv", 9, 3, 64, 8, 8, 32, false, false, (int[]){1, 1, 1, 6}, 8);
    fused_case(check, "rope_had_kv", 4, 2, 64, 4, 4, 0, false, false, (int[]){1, 1, 1, 6}, 32);
    fused_case(check, "rope_had_kv", 2, 1, 80, 16, 16, 40, false, true, (int[]){20, 1, 1, 2}, 16);
    fused_case(check, "rope_had_kv", 3, 3, 24, 4, 4, 12, false, false, (int[]){24, 1, 1, 0}, 8);
    fused_case(check, "rope_had_kv", 2, 1, 48, 8, 8, 0, false, true, (int[]){4, 12, 1, 0}, 5);
    fused_case(check, "rope_had_kv", 6, 3, 64, 8, 8, 16, false, false, (int[]){1, 1, 1, 6}, 8);
    fused_case(check, "rope_had_kv", 1, 1, 256, 8, 8, 0, false, false, (int[]){1, 1, 1, 8}, 64);
    fused_case(check, "rope_had_kv", 10, 5, 64, 8, 8, 32, true, true, (int[]){1, 1, 1, 6}, 8);
    fused_case(check, "rope_had_kv", 9, 3, 64, 4, 4, 0, true, false, (int[]){1, 1, 1, 6}, 32);
    fused_case(check, "rope_had_kv", 6, 3, 80, 16, 16, 40, true, false, (int[]){20, 1, 1, 2}, 16);
    fused_case(check, "rope_had_kv", 9, 3, 64, 8, 4, 32, true, false, (int[]){1, 1, 1, 6}, 8); // widths apart
}
