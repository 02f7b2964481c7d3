// Cases of attn: both kernels over caches whose unwritten places hold NaN.
#include "tests/ops/batch.h"
#include "runtime/util/half.h"

#include <math.h>
#include <string.h>

struct shape {
    int heads, kv_heads, hd;
    uint32_t bits;
    bool centred;
    int window; // 0: all positions
};

static uint32_t halves(float a, float b)
{
    return (uint32_t)gyre_f16_from_f32(a) | (uint32_t)gyre_f16_from_f32(b) << 16;
}

// A pool with what the batch's sequences have cached, NaN elsewhere. `drift` grows values with the position, so that
// the running maximum of the softmax keeps moving.
static void make_cache(struct check *check, const struct batch *b, const struct shape *s, double drift,
                       struct check_bind *pool, struct check_bind *meta)
{
    const size_t slots = (size_t)(b->pages_used * s->kv_heads * 32), words = (size_t)s->hd * s->bits / 32;
    uint32_t *data = check_alloc(check, 4 * slots * words), *scales = check_alloc(check, 4 * slots);
    memset(data, 0xFF, 4 * slots * words);
    memset(scales, 0xFF, 4 * slots);
    for (int r = 0; r < b->rows; r++)
        for (int t = 0; b->row[r][3] & 1 && t <= b->row[r][2]; t++)
            for (int g = 0; g < s->kv_heads; g++) {
                const size_t slot =
                    (size_t)((b->table[b->row[r][1] * b->page_stride + t / 32] * s->kv_heads + g) * 32 + t % 32);
                const float *x = check_normal(check, 2 * words, 1 + drift * t);
                for (size_t w = 0; w < words; w++)
                    data[slot * words + w] = s->bits == 16 ? halves(x[2 * w], x[2 * w + 1]) : check_random(check);
                const float zero = (float)(check_random(check) % (1u << s->bits) >> (s->bits > 8 ? 8 : 0));
                scales[slot] = halves((float)(1 + drift * t) * 3.0f / (float)(1 << s->bits), zero);
            }
    *pool = (struct check_bind){.data = data, .size = 4 * slots * words};
    *meta = (struct check_bind){.data = scales, .size = 4 * slots};
}

static void attn_case(struct check *check, struct shape s, const struct batch_run *runs, int n_runs, double drift,
                      uint32_t wg, uint32_t rt, uint32_t gt, uint32_t pt)
{
    const struct batch b = batch_make(check, runs, n_runs);
    const int ldq = (s.heads + 1) * s.hd;
    const struct gyre_attn_params p = {b.rows,
                                       s.heads,
                                       s.kv_heads,
                                       s.hd,
                                       ldq,
                                       b.page_stride,
                                       1 / sqrtf((float)s.hd),
                                       s.centred,
                                       s.window ? s.window : INT32_MAX};
    const size_t n = (size_t)(b.rows * ldq), n_centre = s.centred ? (size_t)(2 * s.kv_heads * s.hd) : 1;
    float *centre = check_normal(check, n_centre, 4);
    if (!s.centred) centre[0] = NAN; // any buffer, which nothing may read
    struct check_case c = {
        .kernel = rt == 1 ? "attn_v" : "attn_m",
        .params = &p,
        .n_spec = 8,
        .spec = {wg, 1, 1, s.bits, (uint32_t)s.hd, rt, gt, pt},
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
    make_cache(check, &b, &s, drift, &c.bind[2], &c.bind[3]);
    make_cache(check, &b, &s, drift, &c.bind[4], &c.bind[5]);
    check_run(check, &c,
              "heads %d/%d of %d, %u bits, centred %d, window %d, %d rows, drift %g, WGX %u RT %u GT %u PT %u", s.heads,
              s.kv_heads, s.hd, s.bits, s.centred, s.window, b.rows, drift, wg, rt, gt, pt);
}

void cases_attn(struct check *check)
{
    const struct batch_run decode[] = {{2, 40, 1}, {-1, 9, 1}, {0, 0, 1}, {1, 31, 1}, {3, 64, 1}};
    const struct batch_run prefill[] = {{0, 29, 9}};
    const struct batch_run mixed[] = {{1, 30, 4}, {0, 5, 1}, {-1, 0, 2}, {2, 33, 1}, {1, 34, 1}, {3, 0, 2}};
#define RUNS(r) r, sizeof r / sizeof *r
    // Every line of constants is a program that the driver compiles: kernel, bits, head size against workgroup (more
    // chunks than invocations, as many, fewer) and tile meet in pairs. Centred caches repeat the constants of others.
    attn_case(check, (struct shape){9, 3, 64, 8, false, 0}, RUNS(decode), 0, 8, 1, 3, 8);
    attn_case(check, (struct shape){6, 2, 64, 8, true, 0}, RUNS(decode), 0.1, 8, 1, 3, 8);
    attn_case(check, (struct shape){4, 2, 80, 4, false, 0}, RUNS(decode), 0.1, 32, 1, 2, 1);
    attn_case(check, (struct shape){6, 3, 80, 4, true, 0}, RUNS(mixed), 0, 32, 1, 2, 1);
    attn_case(check, (struct shape){4, 4, 64, 16, false, 0}, RUNS(decode), 3, 64, 1, 1, 2);
    attn_case(check, (struct shape){3, 3, 64, 16, true, 0}, RUNS(mixed), 0, 64, 1, 1, 2);
    attn_case(check, (struct shape){9, 3, 64, 8, false, 0}, RUNS(prefill), 0.1, 8, 4, 3, 4);
    attn_case(check, (struct shape){4, 4, 24, 16, false, 0}, RUNS(mixed), 0, 16, 4, 1, 1);
    attn_case(check, (struct shape){3, 3, 24, 16, true, 0}, RUNS(mixed), 0, 16, 4, 1, 1);
    attn_case(check, (struct shape){8, 1, 8, 4, false, 0}, RUNS(mixed), 0.2, 8, 2, 4, 2);
    attn_case(check, (struct shape){8, 1, 128, 8, false, 0}, RUNS(prefill), 0, 64, 2, 4, 1);
    attn_case(check, (struct shape){2, 1, 256, 4, false, 0}, RUNS(mixed), 0, 8, 3, 2, 1);
    attn_case(check, (struct shape){9, 3, 64, 8, false, 0}, RUNS(mixed), 0, 24, 5, 3, 2);
    // Windows, with the constants of lines above: shorter than a block, across pages, longer than the text.
    attn_case(check, (struct shape){9, 3, 64, 8, false, 5}, RUNS(decode), 0.1, 8, 1, 3, 8);
    attn_case(check, (struct shape){3, 3, 64, 16, true, 40}, RUNS(decode), 0, 64, 1, 1, 2);
    attn_case(check, (struct shape){9, 3, 64, 8, false, 33}, RUNS(prefill), 0.1, 8, 4, 3, 4);
    attn_case(check, (struct shape){4, 4, 24, 16, false, 1}, RUNS(mixed), 0, 16, 4, 1, 1);
    attn_case(check, (struct shape){3, 3, 24, 16, true, 3}, RUNS(mixed), 0, 16, 4, 1, 1);
    const struct batch_run lengths[] = {
        {0, 0, 101}, {-1, 0, 1}, {1, 3, 70}, {0, 101, 2}}; // more than a block of a host
    for (int window = 0; check->floats && window < 64; window += 31)
        attn_case(check, (struct shape){9, 3, 24, 8, true, window}, RUNS(lengths), 0.05, 8, 4, 3, 4);
}
