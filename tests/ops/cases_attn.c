// Cases of attn: both kernels over caches whose unwritten places hold NaN.
#include "tests/ops/batch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct shape {
    int heads, kv_heads, hd;
    uint32_t k_bits, v_bits;
    bool centred;
    int window; // 0: all positions
};

#define RUNS(r) r, sizeof r / sizeof *r
#define ATTN_PARAMS(rows, s, ldq, stride)                                                                              \
    {                                                                                                                  \
        rows, s.heads, s.kv_heads, s.hd, ldq, stride, 1 / sqrtf((float)s.hd), s.centred,                               \
            s.window ? s.window : INT32_MAX                                                                            \
    }

// A position of a sequence that the cache had no room for: keys that are no numbers, values of zeros (shaders/kv.k.h).
static void lose_position(const struct batch *b, const struct shape *s, int sequence, int t, struct check_case *c)
{
    for (int i = 0; i < 2 * s->kv_heads; i++) {
        const bool is_v = i >= s->kv_heads;
        const int page = b->table[sequence * b->page_stride + t / 32];
        const size_t slot = (size_t)((page * s->kv_heads + i % s->kv_heads) * 32 + t % 32);
        const size_t bytes = (size_t)s->hd * (is_v ? s->v_bits : s->k_bits) / 8;
        uint16_t *const codes = (uint16_t *)((char *)c->bind[is_v ? 4 : 2].data + slot * bytes);
        memset(codes, 0, bytes);
        if (!is_v) codes[1] = s->k_bits == 16 ? 0x7E00 : 0;
        ((uint32_t *)c->bind[is_v ? 5 : 3].data)[slot] = is_v || s->k_bits == 16 ? 0 : 0x7E00;
    }
}

// What is no number is none there, and the rest is as close as matrices of halves come.
static bool same_and_none(const void *want, const void *got, size_t size, char why[200])
{
    const float *a = want, *b = got;
    double error = 0, power = 0;
    size_t none = 0;
    for (size_t i = 0; i < size / 4; i++) {
        if (isnan(a[i]) != isnan(b[i])) {
            snprintf(why, 200, "element %zu is %g, want %g", i, (double)b[i], (double)a[i]);
            return false;
        }
        if (isnan(a[i]) && ++none) continue;
        error += ((double)b[i] - (double)a[i]) * ((double)b[i] - (double)a[i]);
        power += (double)a[i] * (double)a[i];
    }
    snprintf(why, 200, "NMSE %.3g, %zu of %zu are no numbers", error / power, none, size / 4);
    return none > 0 && none < size / 4 && error <= 5e-7 * power;
}

enum { LOST_FROM = 31 };
// `lost`: the sequence that loses position LOST_FROM; below 0: none.
static void attn_case_losing(struct check *check, struct shape s, const struct batch_run *runs, int n_runs,
                             double drift, uint32_t wg, uint32_t rt, uint32_t gt, uint32_t pt, int lost)
{
    const struct batch b = batch_make(check, runs, n_runs);
    const int ldq = (s.heads + 1) * s.hd;
    const struct gyre_attn_params p = ATTN_PARAMS(b.rows, s, ldq, b.page_stride);
    const size_t n = (size_t)(b.rows * ldq), n_centre = s.centred ? (size_t)(2 * s.kv_heads * s.hd) : 1;
    float *centre = check_normal(check, n_centre, 4);
    if (!s.centred) centre[0] = NAN; // any buffer, which nothing may read
    struct check_case c = {
        .kernel = rt == 1 ? "attn_v" : "attn_m",
        .params = &p,
        .n_spec = 9,
        .spec = {wg, 1, 1, s.k_bits, s.v_bits, (uint32_t)s.hd, rt, gt, pt},
        .groups = {(uint32_t)s.heads / gt, ((uint32_t)b.rows + rt - 1) / rt},
        .bind = {{.size = 4 * (size_t)(b.rows * s.heads * s.hd), .bound = 1e-11},
                 {.data = check_normal(check, n, 2), .size = 4 * n},
                 {0},
                 {0},
                 {0},
                 {0},
                 {.data = b.row, .size = b.rows_bytes},
                 {.data = b.table, .size = b.table_bytes},
                 {.data = centre, .size = 4 * n_centre}},
    };
    batch_cache(check, &b, s.kv_heads, s.hd, s.k_bits, drift, &c.bind[2], &c.bind[3]);
    batch_cache(check, &b, s.kv_heads, s.hd, s.v_bits, drift, &c.bind[4], &c.bind[5]);
    if (lost >= 0) {
        lose_position(&b, &s, lost, LOST_FROM, &c);
        c.bind[0].compare = same_and_none;
    }
    check_run(
        check, &c,
        "heads %d/%d of %d, %u/%u bits, centred %d, window %d, %d rows, drift %g, WGX %u RT %u GT %u PT %u, lost %d",
        s.heads, s.kv_heads, s.hd, s.k_bits, s.v_bits, s.centred, s.window, b.rows, drift, wg, rt, gt, pt, lost);
}

static void attn_case(struct check *check, struct shape s, const struct batch_run *runs, int n_runs, double drift,
                      uint32_t wg, uint32_t rt, uint32_t gt, uint32_t pt)
{
    attn_case_losing(check, s, runs, n_runs, drift, wg, rt, gt, pt, -1);
}

// Parts of attention, and the parts put together.
static void split_case(struct check *check, struct shape s, const struct batch_run *runs, int n_runs, double drift,
                       uint32_t wg, uint32_t gt, int splits)
{
    const struct batch b = batch_make(check, runs, n_runs);
    const int ldq = (s.heads + 1) * s.hd;
    const struct gyre_attn_params a = ATTN_PARAMS(b.rows, s, ldq, b.page_stride);
    struct gyre_attn_split_params p;
    memcpy(&p, &a, sizeof a);
    p.splits = splits;
    const size_t n = (size_t)(b.rows * ldq), parts = (size_t)(b.rows * s.heads * splits * (s.hd + 2));
    struct check_case c = {
        .kernel = "attn_split",
        .params = &p,
        .n_spec = 7,
        .spec = {wg, 1, 1, s.k_bits, s.v_bits, (uint32_t)s.hd, gt},
        .groups = {(uint32_t)s.heads / gt, (uint32_t)b.rows, (uint32_t)splits},
        .bind = {{.size = 4 * parts, .bound = 1e-10},
                 {.data = check_normal(check, n, 2), .size = 4 * n},
                 {0},
                 {0},
                 {0},
                 {0},
                 {.data = b.row, .size = b.rows_bytes},
                 {.data = b.table, .size = b.table_bytes}},
    };
    batch_cache(check, &b, s.kv_heads, s.hd, s.k_bits, drift, &c.bind[2], &c.bind[3]);
    batch_cache(check, &b, s.kv_heads, s.hd, s.v_bits, drift, &c.bind[4], &c.bind[5]);
    check_run(check, &c, "heads %d/%d of %d, %u/%u bits, window %d, %d rows, drift %g, WGX %u GT %u, %d splits",
              s.heads, s.kv_heads, s.hd, s.k_bits, s.v_bits, s.window, b.rows, drift, wg, gt, splits);
}

void cases_attn_split(struct check *check)
{
    const struct batch_run decode[] = {{2, 40, 1}, {-1, 9, 1}, {0, 0, 1}, {1, 31, 1}, {3, 64, 1}};
    const struct batch_run longer[] = {{1, 699, 1}, {0, 127, 1}, {0, 128, 1}};
    // Chunks of a vector: as many as lanes, fewer; positions at once: all of a block, a part, one lane for several.
    split_case(check, (struct shape){9, 3, 64, 8, 8, false, 0}, RUNS(decode), 0, 128, 3, 2);
    split_case(check, (struct shape){9, 3, 64, 8, 8, false, 0}, RUNS(longer), 0.02, 128, 3, 2);
    split_case(check, (struct shape){8, 2, 128, 4, 4, false, 0}, RUNS(longer), 0.02, 128, 4, 3);
    split_case(check, (struct shape){4, 2, 80, 4, 4, false, 0}, RUNS(decode), 0.1, 64, 2, 1);
    split_case(check, (struct shape){4, 2, 80, 4, 4, false, 0}, RUNS(longer), 0, 64, 2, 5);
    split_case(check, (struct shape){3, 3, 256, 16, 16, false, 0}, RUNS(longer), 0.01, 64, 1, 12);
    split_case(check, (struct shape){7, 1, 16, 8, 8, false, 0}, RUNS(longer), 0.01, 32, 7, 4);
    split_case(check, (struct shape){9, 3, 64, 8, 4, false, 0}, RUNS(longer), 0.02, 128, 3, 2); // widths apart
    split_case(check, (struct shape){4, 2, 80, 4, 16, false, 0}, RUNS(decode), 0.1, 64, 2, 5);
    // Windows: within a block, over several, longer than the text.
    split_case(check, (struct shape){9, 3, 64, 8, 8, false, 5}, RUNS(decode), 0.1, 128, 3, 2);
    split_case(check, (struct shape){4, 2, 80, 4, 4, false, 200}, RUNS(longer), 0.01, 64, 2, 5);
    split_case(check, (struct shape){7, 1, 16, 8, 8, false, 64}, RUNS(longer), 0.01, 32, 7, 4);
}

void cases_attn_merge(struct check *check)
{
    for (int centred = 0; centred < 2; centred++) {
        enum { ROWS = 3, HEADS = 4, KV = 2, HD = 80, SPLITS = 5 };
        const struct gyre_attn_merge_params p = {ROWS, HEADS, KV, HD, SPLITS, centred};
        const size_t parts = ROWS * HEADS * SPLITS * (HD + 2), n_centre = centred ? 2 * KV * HD : 1;
        float *part = check_normal(check, parts, 1), *centre = check_normal(check, n_centre, 4);
        if (!centred) centre[0] = NAN; // any buffer, which nothing may read
        for (size_t i = 0; i < ROWS * HEADS * SPLITS; i++) {
            const bool none = i / SPLITS % 5 == 3 || i % 7 == 2; // heads without a position, parts without one
            for (size_t k = 0; none && k < HD; k++) part[i * (HD + 2) + k] = NAN;
            part[i * (HD + 2) + HD] = none ? 0 : *check_uniform(check, 1, 0.5, 64);
            part[i * (HD + 2) + HD + 1] = none ? 0 : *check_uniform(check, 1, -90, -60);
        }
        const struct check_case c = {
            .kernel = "attn_merge",
            .params = &p,
            .n_spec = 3,
            .spec = {64, 1, 1},
            .groups = {HEADS, ROWS},
            .bind = {{.size = 4 * (size_t)ROWS * HEADS * HD, .bound = 1e-11},
                     {.data = part, .size = 4 * parts},
                     {.data = centre, .size = 4 * n_centre}},
        };
        check_run(check, &c, "centred %d", centred);
    }
}

// Every `each`-th cached vector becomes zeros, as they are cached: its scale is 0.
static void forget_vectors(struct check_bind pool, struct check_bind meta, size_t each)
{
    const size_t n = meta.size / 4, bytes = pool.size / n;
    for (size_t i = 0; i < n; i += each) {
        memset((char *)pool.data + i * bytes, 0, bytes);
        memset((char *)meta.data + 4 * i, 0, 4);
    }
}

// The kernel for matrix units, with matrices of the device's shape. Queries and weights are rounded to halves: NMSE
// 2^-24 / 3 each where they are, 2^-46 in pairs; what f32 leaves is attn.k's.
enum unusual { NOTHING, ZEROS, HUGE_Q, LOST };
static void matrix_case(struct check *check, struct shape s, const struct batch_run *runs, int n_runs, double drift,
                        uint32_t subgroups, uint32_t gt, uint32_t block, uint32_t pairs, uint32_t sharers,
                        enum unusual unusual)
{
    const struct gyre_matrix_shape none = {8, 8, 8, 8}, *m = &gyre_device_info(check->device)->matrix_f16;
    if (!m->m) m = &none; // check_run counts the case and leaves it out
    const struct batch b = batch_make(check, runs, n_runs);
    const int ldq = (s.heads + 1) * s.hd;
    const struct gyre_attn_params p = ATTN_PARAMS(b.rows, s, ldq, b.page_stride);
    const uint32_t rt = subgroups * m->m / gt;
    const size_t n = (size_t)(b.rows * ldq), n_centre = s.centred ? (size_t)(2 * s.kv_heads * s.hd) : 1;
    float *centre = check_normal(check, n_centre, 4), *q = check_normal(check, n, 2);
    if (!s.centred) centre[0] = NAN; // any buffer, which nothing may read
    for (size_t i = 0; i < n; i++) q[i] *= ldexpf(1, (int)(i / (size_t)s.hd % 3) * 9 - 9); // far apart, and their keys:
    for (size_t i = 0; i < n; i++) // no score so large that its last bits in f32 were seen
        if (i / (size_t)s.hd % 3 == 2) q[i] /= 512;
    for (size_t i = 0; i < n && unusual == HUGE_Q; i++) q[i] = ldexpf(q[i], 80); // one position has all the weight
    struct check_case c = {
        .kernel = "attn_x",
        .params = &p,
        .n_spec = 14,
        .spec = {m->lanes, subgroups, 1, m->m, m->n, m->k, s.k_bits, s.v_bits, (uint32_t)s.hd, rt, gt, block, pairs,
                 sharers},
        .groups = {(uint32_t)s.heads / gt, ((uint32_t)b.rows + rt - 1) / rt},
        .bind = {{.size = 4 * (size_t)(b.rows * s.heads * s.hd), .bound = pairs > 1 ? 1e-11 : 5e-7},
                 {.data = q, .size = 4 * n},
                 {0},
                 {0},
                 {0},
                 {0},
                 {.data = b.row, .size = b.rows_bytes},
                 {.data = b.table, .size = b.table_bytes},
                 {.data = centre, .size = 4 * n_centre}},
    };
    batch_cache(check, &b, s.kv_heads, s.hd, s.k_bits, drift, &c.bind[2], &c.bind[3]);
    batch_cache(check, &b, s.kv_heads, s.hd, s.v_bits, drift, &c.bind[4], &c.bind[5]);
    if (unusual == ZEROS) {
        forget_vectors(c.bind[2], c.bind[3], 3);
        forget_vectors(c.bind[4], c.bind[5], 2);
    }
    if (unusual == LOST) {
        lose_position(&b, &s, 1, LOST_FROM, &c);
        c.bind[0].compare = same_and_none;
    }
    check_run(check, &c,
              "heads %d/%d of %d, %u/%u bits, centred %d, window %d, %d rows, drift %g, subgroups %u, GT %u, "
              "block %u, pairs %u, sharers %u, unusual %d",
              s.heads, s.kv_heads, s.hd, s.k_bits, s.v_bits, s.centred, s.window, b.rows, drift, subgroups, gt, block,
              pairs, sharers, unusual);
}

static void matrices(struct check *check)
{
    const struct batch_run prefill[] = {{0, 29, 71}};
    const struct batch_run fresh[] = {{0, 0, 65}};
    const struct batch_run mixed[] = {{1, 30, 4}, {0, 5, 1}, {-1, 0, 2}, {2, 33, 1}, {1, 34, 40}, {3, 0, 2}};
    const struct shape eight = {9, 3, 64, 8, 8, false, 0}, seen = {9, 3, 64, 8, 8, false, 1},
                       sixteen = {4, 4, 64, 16, 16, false, 0};
    // Few positions a block: lavapipe compiles every product of two matrices of 8 x 8 by itself.
    matrix_case(check, (struct shape){9, 3, 64, 8, 8, false, 0}, RUNS(prefill), 0.02, 4, 3, 16, 1, 2, NOTHING);
    matrix_case(check, (struct shape){9, 3, 64, 8, 8, true, 33}, RUNS(mixed), 0.02, 4, 3, 16, 1, 2, NOTHING);
    matrix_case(check, (struct shape){8, 2, 32, 4, 4, false, 0}, RUNS(prefill), 0.02, 2, 4, 32, 1, 1, NOTHING);
    matrix_case(check, (struct shape){8, 2, 32, 4, 4, true, 5}, RUNS(mixed), 0, 2, 4, 32, 1, 1, NOTHING);
    matrix_case(check, (struct shape){4, 4, 64, 16, 16, false, 0}, RUNS(fresh), 0, 3, 1, 8, 2, 1, NOTHING);
    matrix_case(check, (struct shape){4, 4, 64, 16, 16, true, 1}, RUNS(mixed), 0.1, 3, 1, 8, 2, 1, NOTHING);
    matrix_case(check, (struct shape){6, 3, 80, 8, 16, false, 0}, RUNS(mixed), 0.02, 3, 2, 8, 1, 2, NOTHING);
    matrix_case(check, (struct shape){4, 1, 128, 4, 8, true, 40}, RUNS(prefill), 0.02, 2, 4, 8, 1, 2, NOTHING);
    matrix_case(check, (struct shape){2, 1, 256, 8, 8, false, 0}, RUNS(fresh), 0.02, 2, 2, 8, 1, 1, NOTHING);
    // With the constants of lines above: vectors of zeros, among others and alone; scores up to 1e26, of one position
    // and of many, where one has all the weight (which it is is known no better than queries are: pairs).
    matrix_case(check, eight, RUNS(mixed), 0.02, 4, 3, 16, 1, 2, ZEROS);
    matrix_case(check, seen, RUNS(prefill), 0.02, 4, 3, 16, 1, 2, ZEROS);
    matrix_case(check, seen, RUNS(mixed), 0.02, 4, 3, 16, 1, 2, HUGE_Q);
    matrix_case(check, sixteen, RUNS(fresh), 0, 3, 1, 8, 2, 1, HUGE_Q);
    matrix_case(check, eight, RUNS(mixed), 0.02, 4, 3, 16, 1, 2, LOST);
    matrix_case(check, sixteen, RUNS(mixed), 0, 3, 1, 8, 2, 1, LOST);
}

void cases_attn(struct check *check)
{
    matrices(check);
    const struct batch_run decode[] = {{2, 40, 1}, {-1, 9, 1}, {0, 0, 1}, {1, 31, 1}, {3, 64, 1}};
    const struct batch_run prefill[] = {{0, 29, 9}};
    const struct batch_run mixed[] = {{1, 30, 4}, {0, 5, 1}, {-1, 0, 2}, {2, 33, 1}, {1, 34, 1}, {3, 0, 2}};
    // Every line of constants is a program that the driver compiles: kernel, bits, head size against workgroup (more
    // chunks than invocations, as many, fewer) and tile meet in pairs. Centred caches repeat the constants of others.
    attn_case(check, (struct shape){9, 3, 64, 8, 8, false, 0}, RUNS(decode), 0, 8, 1, 3, 8);
    attn_case(check, (struct shape){6, 2, 64, 8, 8, true, 0}, RUNS(decode), 0.1, 8, 1, 3, 8);
    attn_case(check, (struct shape){4, 2, 80, 4, 4, false, 0}, RUNS(decode), 0.1, 32, 1, 2, 1);
    attn_case(check, (struct shape){6, 3, 80, 4, 4, true, 0}, RUNS(mixed), 0, 32, 1, 2, 1);
    attn_case(check, (struct shape){4, 4, 64, 16, 16, false, 0}, RUNS(decode), 3, 64, 1, 1, 2);
    attn_case(check, (struct shape){3, 3, 64, 16, 16, true, 0}, RUNS(mixed), 0, 64, 1, 1, 2);
    attn_case(check, (struct shape){9, 3, 64, 8, 8, false, 0}, RUNS(prefill), 0.1, 8, 4, 3, 4);
    attn_case(check, (struct shape){4, 4, 24, 16, 16, false, 0}, RUNS(mixed), 0, 16, 4, 1, 1);
    attn_case(check, (struct shape){3, 3, 24, 16, 16, true, 0}, RUNS(mixed), 0, 16, 4, 1, 1);
    attn_case(check, (struct shape){8, 1, 8, 4, 4, false, 0}, RUNS(mixed), 0.2, 8, 2, 4, 2);
    attn_case(check, (struct shape){8, 1, 128, 8, 8, false, 0}, RUNS(prefill), 0, 64, 2, 4, 1);
    attn_case(check, (struct shape){2, 1, 256, 4, 4, false, 0}, RUNS(mixed), 0, 8, 3, 2, 1);
    attn_case(check, (struct shape){9, 3, 64, 8, 8, false, 0}, RUNS(mixed), 0, 24, 5, 3, 2);
    // Windows, with the constants of lines above: shorter than a block, across pages, longer than the text.
    attn_case(check, (struct shape){9, 3, 64, 8, 8, false, 5}, RUNS(decode), 0.1, 8, 1, 3, 8);
    attn_case(check, (struct shape){3, 3, 64, 16, 16, true, 40}, RUNS(decode), 0, 64, 1, 1, 2);
    attn_case(check, (struct shape){9, 3, 64, 8, 8, false, 33}, RUNS(prefill), 0.1, 8, 4, 3, 4);
    attn_case(check, (struct shape){4, 4, 24, 16, 16, false, 1}, RUNS(mixed), 0, 16, 4, 1, 1);
    attn_case(check, (struct shape){3, 3, 24, 16, 16, true, 3}, RUNS(mixed), 0, 16, 4, 1, 1);
    // A sequence that lost a position, in tiles with others; rows before it do not know.
    attn_case_losing(check, (struct shape){9, 3, 64, 8, 8, false, 0}, RUNS(mixed), 0, 24, 5, 3, 2, 1);
    attn_case_losing(check, (struct shape){4, 4, 24, 16, 16, false, 0}, RUNS(mixed), 0, 16, 4, 1, 1, 1);
    attn_case_losing(check, (struct shape){8, 1, 8, 4, 4, false, 0}, RUNS(mixed), 0.2, 8, 2, 4, 2, 1);
    attn_case_losing(check, (struct shape){4, 4, 64, 16, 16, false, 0}, RUNS(mixed), 3, 64, 1, 1, 2, 1);
    // Widths apart: a program each.
    attn_case(check, (struct shape){9, 3, 64, 8, 4, true, 0}, RUNS(decode), 0.1, 8, 1, 3, 8);
    attn_case(check, (struct shape){4, 4, 24, 4, 16, false, 0}, RUNS(mixed), 0, 16, 4, 1, 1);
    const struct batch_run lengths[] = {
        {0, 0, 101}, {-1, 0, 1}, {1, 3, 70}, {0, 101, 2}}; // more than a block of a host
    for (int window = 0; check->floats && window < 64; window += 31)
        attn_case(check, (struct shape){9, 3, 24, 8, 8, true, window}, RUNS(lengths), 0.05, 8, 4, 3, 4);
}
