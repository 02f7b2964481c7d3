// Cases of the ops that take gradients through the cache: its write, and attention.
#include "tests/ops/batch.h"
#include "backends/cpu/ref.h"
#include "backends/kernel_source.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct shape {
    int heads, kv_heads, hd;
    uint32_t k_bits, v_bits;
    int window; // 0: all positions
    bool centred;
};
#define RUNS(r) r, sizeof r / sizeof *r

static const struct batch_run whole[] = {{0, 0, 11}}, pages[] = {{0, 0, 35}},
                              mixed[] = {{1, 0, 4}, {-1, 0, 2}, {0, 0, 7}, {2, 0, 1}, {1, 4, 3}};

static struct check_bind normal(struct check *check, size_t n, double sigma)
{
    return (struct check_bind){.data = check_normal(check, n, sigma), .size = 4 * n};
}

// ---- the cache's write --------------------------------------------------------------------------------------

// The pools are what the reference of kv_write makes of qkv.
static void write_back(struct check *check, struct shape s, const struct batch_run *runs, int n_runs, float clip,
                       uint32_t wgx)
{
    const struct batch b = batch_make(check, runs, n_runs);
    const struct gyre_kv_back_params p = {b.rows,        s.heads, s.kv_heads, s.hd,
                                          b.page_stride, clip,    s.centred,  0.5f + clip / 2};
    const size_t width = (size_t)((s.heads + 2 * s.kv_heads) * s.hd), each = (size_t)(2 * s.kv_heads * s.hd),
                 rows = (size_t)b.rows, slots = (size_t)(b.pages_used * s.kv_heads * 32);
    struct check_case c = {
        .kernel = "kv_write_back",
        .params = &p,
        .n_spec = 5,
        .spec = {wgx, 1, 1, s.k_bits, s.v_bits},
        .groups = {(uint32_t)(s.heads + 2 * s.kv_heads), (uint32_t)b.rows},
        .bind = {{.size = 4 * rows * width, .bound = 1e-10},
                 {.size = 8 * rows * (size_t)s.kv_heads, .bound = 1e-9},
                 normal(check, rows * each, 1),
                 normal(check, rows * width, 2),
                 {0},
                 {0},
                 {0},
                 {0},
                 {.data = b.row, .size = b.rows_bytes},
                 {.data = b.table, .size = b.table_bytes},
                 normal(check, each, 1)},
    };
    struct gyre_ref_args write = {
        .params = &p, .spec = c.spec, .n_spec = 5, .source = gyre_kernel_source_find("kv_write")};
    for (int i = 0; i < 4; i++) {
        const size_t bits = i < 2 ? s.k_bits : s.v_bits;
        c.bind[4 + i].size = i % 2 ? 4 * slots : slots * (size_t)s.hd * bits / 8;
        c.bind[4 + i].data = write.bind[i] = check_alloc(check, c.bind[4 + i].size);
    }
    float *x = (float *)(uintptr_t)c.bind[3].data;
    for (int i = 0; i < s.hd && !s.centred; i++) x[(s.heads + 1) * s.hd + i] = 0; // a vector of zeros
    write.bind[4] = x, write.bind[5] = b.row, write.bind[6] = b.table;
    write.bind[7] = (void *)(uintptr_t)c.bind[10].data;
    gyre_ref_op_kv_write(&write);
    check_run(check, &c, "heads %d/%d of %d, %u/%u bits, centred %d, %d rows, clip %g", s.heads, s.kv_heads, s.hd,
              s.k_bits, s.v_bits, s.centred, b.rows, (double)clip);
}

void cases_kv_write_back(struct check *check)
{
    write_back(check, (struct shape){4, 2, 64, 8, 8, 0, false}, RUNS(whole), 1, 8);
    write_back(check, (struct shape){9, 3, 24, 8, 8, 0, true}, RUNS(mixed), 0.8f, 8);
    write_back(check, (struct shape){4, 2, 80, 4, 4, 0, false}, RUNS(mixed), 0.7f, 32);
    write_back(check, (struct shape){4, 4, 256, 4, 4, 0, true}, RUNS(pages), 1, 32);
    write_back(check, (struct shape){3, 3, 16, 8, 4, 0, false}, RUNS(mixed), 0.9f, 8);
    write_back(check, (struct shape){4, 1, 40, 16, 16, 0, true}, RUNS(mixed), 1, 8);
}

// ---- attention ----------------------------------------------------------------------------------------------

static struct gyre_attn_back_params params_of(const struct shape *s, const struct batch *b)
{
    return (struct gyre_attn_back_params){b->rows,
                                          s->heads,
                                          s->kv_heads,
                                          s->hd,
                                          (s->heads + 1) * s->hd,
                                          b->page_stride,
                                          1 / sqrtf((float)s->hd),
                                          s->window ? s->window : INT32_MAX};
}

static void bind_cache(struct check *check, const struct shape *s, const struct batch *b, struct check_case *c)
{
    batch_cache(check, b, s->kv_heads, s->hd, s->k_bits, 0.02, &c->bind[4], &c->bind[5]);
    batch_cache(check, b, s->kv_heads, s->hd, s->v_bits, 0.02, &c->bind[6], &c->bind[7]);
    c->bind[8] = (struct check_bind){.data = b->row, .size = b->rows_bytes};
    c->bind[9] = (struct check_bind){.data = b->table, .size = b->table_bytes};
}

static void queries(struct check *check, struct shape s, const struct batch_run *runs, int n_runs, uint32_t wgx)
{
    const struct batch b = batch_make(check, runs, n_runs);
    const struct gyre_attn_back_params p = params_of(&s, &b);
    const size_t n = (size_t)(b.rows * p.ldq), n_o = (size_t)(b.rows * s.heads * s.hd);
    struct check_case c = {
        .kernel = "attn_back_q",
        .params = &p,
        .n_spec = 6,
        .spec = {wgx, 1, 1, s.k_bits, s.v_bits, (uint32_t)s.hd},
        .groups = {(uint32_t)s.heads, (uint32_t)b.rows},
        .bind = {{.size = 4 * n, .bound = 1e-10},
                 {.size = 8 * (size_t)(b.rows * s.heads), .bound = 1e-10},
                 normal(check, n_o, 1),
                 normal(check, n, 1)},
    };
    bind_cache(check, &s, &b, &c);
    check_run(check, &c, "heads %d/%d of %d, %u/%u bits, window %d, %d rows, WGX %u", s.heads, s.kv_heads, s.hd,
              s.k_bits, s.v_bits, s.window, b.rows, wgx);
}

static void keys(struct check *check, struct shape s, const struct batch_run *runs, int n_runs, uint32_t wgx)
{
    const struct batch b = batch_make(check, runs, n_runs);
    const struct gyre_attn_back_params p = params_of(&s, &b);
    const size_t n = (size_t)(b.rows * p.ldq), n_o = (size_t)(b.rows * s.heads * s.hd);
    float *stats = check_normal(check, (size_t)(2 * b.rows * s.heads), 1);
    for (int i = 0; i < b.rows * s.heads; i++) stats[2 * i] += 4; // any sums will do
    struct check_case c = {
        .kernel = "attn_back_kv",
        .params = &p,
        .n_spec = 6,
        .spec = {wgx, 1, 1, s.k_bits, s.v_bits, (uint32_t)s.hd},
        .groups = {(uint32_t)s.kv_heads, (uint32_t)b.rows},
        .bind = {{.size = 8 * (size_t)(b.rows * s.kv_heads * s.hd), .bound = 1e-9},
                 normal(check, n_o, 1),
                 normal(check, n, 0.5),
                 {.data = stats, .size = 8 * (size_t)(b.rows * s.heads)}},
    };
    bind_cache(check, &s, &b, &c);
    check_run(check, &c, "heads %d/%d of %d, %u/%u bits, window %d, %d rows, WGX %u", s.heads, s.kv_heads, s.hd,
              s.k_bits, s.v_bits, s.window, b.rows, wgx);
}

// Bits, head size against workgroup, and lengths meet in pairs; each line of constants is a program.
static void attention(struct check *check,
                      void (*one)(struct check *, struct shape, const struct batch_run *, int, uint32_t))
{
    one(check, (struct shape){6, 2, 64, 8, 8, 0, false}, RUNS(whole), 8);
    one(check, (struct shape){4, 2, 64, 8, 8, 5, false}, RUNS(mixed), 8);
    one(check, (struct shape){4, 2, 80, 4, 4, 0, false}, RUNS(pages), 64);
    one(check, (struct shape){8, 1, 80, 4, 4, 20, false}, RUNS(pages), 64);
    one(check, (struct shape){3, 3, 24, 16, 16, 0, false}, RUNS(mixed), 16);
    one(check, (struct shape){4, 4, 256, 8, 4, 0, false}, RUNS(mixed), 64);
}

void cases_attn_back_q(struct check *check) { attention(check, queries); }
void cases_attn_back_kv(struct check *check) { attention(check, keys); }
