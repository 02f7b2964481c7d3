// Cases of the ops that read weights: matmul and embed.
#include "tests/ops/weight.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// ---- matmul -------------------------------------------------------------------------------------------

struct shape {
    int rows, n, k, group;
};
struct tile {
    uint32_t wgx, wgy, tr, tc;
    bool k16; // integer kernels: x in steps of 16
};

// Output columns n0..n0+n-1 of a wider row; a third of the cases adds a matrix, a third one row.
static void product(struct check *check, const struct weight *w, int rows, int bits, bool few, struct tile t,
                    double bound)
{
    char kernel[32];
    snprintf(kernel, sizeof kernel, "matmul_%s_%s_%s", weight_name(w->kind), bits ? "q" : "f", few ? "v" : "m");
    const struct input in = input_random(check, rows, w->k, bits);
    const int n0 = w->n % 3, ldy = n0 + w->n + rows % 2;
    const size_t out = (size_t)rows * (size_t)ldy;
    const struct gyre_matmul_params p = {rows, w->k, w->n, w->n_pad, w->group, ldy, n0, (rows + w->n) % 3};
    const uint32_t row_tile = few ? t.tr : t.tr * t.wgy;
    const bool integers = bits && w->kind <= W_W8,
               exact = integers && (check->floats ? w->group == w->k : t.wgy == 1 || !few || w->group == w->k);
    const struct check_case c = {
        .kernel = kernel,
        .params = &p,
        .n_spec = integers ? 7 : 6,
        .spec = {t.wgx, t.wgy, 1, t.tr, t.tc, integers ? t.k16 : w->zeros, w->zeros},
        .groups = {(uint32_t)gyre_div_up(((uint64_t)w->n + 7) / 8, t.wgx * t.tc),
                   (uint32_t)gyre_div_up((uint64_t)rows, row_tile)},
        .bind = {{.size = out * 4, .rule = exact ? CHECK_BITS : CHECK_NMSE, .bound = bound},
                 in.x,
                 in.meta,
                 w->words,
                 w->scale,
                 w->sums,
                 {.data = check_normal(check, out, 1), .size = out * 4}},
    };
    check_run(check, &c, "%d x %d x %d, group %d, zeros %d, act %d, workgroup %u x %u, tile %u x %u", rows, w->n, w->k,
              w->group, w->zeros, bits, t.wgx, t.wgy, t.tr, t.tc);
}

// Rows with one number some thousand times the others, which meets codes of nothing alone: it must leave no trace. Both
// kernels of floats of few rows, and that of many.
static void outliers(struct check *check)
{
    static const int kinds[] = {W_W4, W_W8, W_W4Z};
    enum { ROWS = 3, N = 100, K = 576, AT = 37, SPECS = 7 };
    static const struct {
        const char *form;
        uint32_t spec[SPECS], n_spec, columns, rows;
    } kernels[] = {
        {"v", {8, 1, 1, 2, 2}, 6, 128, 2}, {"m", {8, 1, 1, 3, 1}, 6, 64, 3}, {"t", {64, 1, 1, 3, 1}, 7, 32, 3}};
    for (size_t i = 0; i < GYRE_COUNT(kinds); i++)
        for (int grouped = 0; grouped < 2; grouped++) {
            struct weight w = weight_random(check, kinds[i], N, K, grouped ? 32 : K);
            uint32_t *const words = check_alloc(check, w.words.size), *const scale = check_alloc(check, w.scale.size);
            memcpy(words, w.words.data, w.words.size);
            memcpy(scale, w.scale.data, w.scale.size);
            const size_t each = w.kind == W_W4 ? 4 : 8; // words of a block
            for (size_t n8 = 0; n8 < (size_t)w.n_pad / 8; n8++)
                for (size_t j = 0; j < each; j++) {
                    uint32_t *const word = words + GYRE_BLOCK((size_t)K / 4, (size_t)AT / 4, n8) * each + j;
                    *word = (*word & ~(0xFFu << AT % 4 * 8)) | (w.kind == W_W4 ? 0x88u << AT % 4 * 8 : 0);
                }
            const size_t pairs = (size_t)(K / w.group) * (size_t)(w.n_pad / 2);
            for (size_t z = pairs; w.zeros && z < w.scale.size / 4; z++) scale[z] = 0x88888888u;
            w.words.data = words, w.scale.data = scale;
            float *const x = check_normal(check, ROWS * K, 1);
            for (int r = 0; r < ROWS; r++) x[r * K + AT] = 5000;
            const struct gyre_matmul_params p = {ROWS, K, N, w.n_pad, w.group, N, 0, 0};
            for (size_t f = 0; f < GYRE_COUNT(kernels); f++) {
                char kernel[32];
                snprintf(kernel, sizeof kernel, "matmul_%s_f_%s", weight_name(w.kind), kernels[f].form);
                struct check_case c = {.kernel = kernel,
                                       .params = &p,
                                       .n_spec = kernels[f].n_spec,
                                       .groups = {(uint32_t)gyre_div_up(N, kernels[f].columns),
                                                  (uint32_t)gyre_div_up(ROWS, kernels[f].rows)},
                                       .bind = {{.size = ROWS * N * 4, .rule = CHECK_NMSE, .bound = 1e-12},
                                                {.data = x, .size = ROWS * K * 4},
                                                {.data = x, .size = ROWS * K * 4},
                                                w.words,
                                                w.scale,
                                                w.sums,
                                                {.data = x, .size = ROWS * K * 4}}};
                memcpy(c.spec, kernels[f].spec, sizeof kernels[f].spec);
                if (f < 2) c.spec[5] = w.zeros;
                else c.spec[5] = (uint32_t)grouped, c.spec[6] = w.zeros;
                check_run(check, &c, "outliers: group %d, zeros %d", w.group, w.zeros);
            }
        }
}

// The tile kernels: every way to cut K (whole rounds, phases without a step, rounds with a part), rows that fill no
// tile of rows, columns that fill no tile of columns.
static void tile_product(struct check *check, const struct weight *w, int rows, int bits, uint32_t wgx, uint32_t tr,
                         uint32_t u)
{
    char kernel[32];
    snprintf(kernel, sizeof kernel, "matmul_%s_%s_t", weight_name(w->kind), bits ? "q" : "f");
    const struct input in = input_random(check, rows, w->k, bits);
    const int n0 = w->n % 3, ldy = n0 + w->n + rows % 2;
    const size_t out = (size_t)rows * (size_t)ldy;
    const bool grouped = w->group != w->k;
    const struct gyre_matmul_params p = {rows, w->k, w->n, w->n_pad, w->group, ldy, n0, (rows + w->n) % 3};
    const struct check_case c = {
        .kernel = kernel,
        .params = &p,
        .n_spec = 7,
        .spec = {wgx, 1, 1, tr, u, grouped, w->zeros},
        .groups = {(uint32_t)gyre_div_up((uint64_t)w->n, 32), (uint32_t)gyre_div_up((uint64_t)rows, tr)},
        .bind = {{.size = out * 4, .rule = bits && !grouped ? CHECK_BITS : CHECK_NMSE, .bound = 1e-11},
                 in.x,
                 in.meta,
                 w->words,
                 w->scale,
                 w->sums,
                 {.data = check_normal(check, out, 1), .size = out * 4}},
    };
    check_run(check, &c, "%d x %d x %d, group %d, zeros %d, act %d, workgroup %u, rows %u, steps %u", rows, w->n, w->k,
              w->group, w->zeros, bits, wgx, tr, u);
}

static void tiles(struct check *check)
{
    // Each {wgx, tr, u} is a program for grouped weights and one for others: few, shared by the kernels in turn.
    static const struct {
        uint32_t wgx, tr, u;
    } cut[] = {{32, 1, 2}, {64, 3, 1}, {128, 2, 2}};
    static const struct shape shapes[] = {{1, 40, 32, 32},   {3, 100, 576, 576}, {5, 33, 544, 544}, {17, 20, 288, 32},
                                          {1, 70, 1216, 64}, {5, 9, 256, 128},   {17, 64, 96, 96}};
    static const int kinds[] = {W_W4, W_W8, W_W4Z}, act[] = {8, 4, 0};
    for (size_t s = 0; s < GYRE_COUNT(shapes); s++)
        for (size_t i = 0; i < GYRE_COUNT(kinds); i++) {
            const struct weight w = weight_random(check, kinds[i], shapes[s].n, shapes[s].k, shapes[s].group);
            for (size_t a = 0; a < GYRE_COUNT(act); a++) {
                const size_t c = a == 2 ? (i + 2) % GYRE_COUNT(cut) : i;
                tile_product(check, &w, shapes[s].rows, act[a], cut[c].wgx, cut[c].tr, cut[c].u);
            }
        }
}

// The same bits, or no number on either side.
static bool same_numbers(const void *want, const void *got, size_t size, char why[200])
{
    for (size_t i = 0; i < size; i += 4) {
        float a, b;
        memcpy(&a, (const char *)want + i, 4);
        memcpy(&b, (const char *)got + i, 4);
        if ((isnan(a) && isnan(b)) || gyre_f32_bits(a) == gyre_f32_bits(b)) continue;
        snprintf(why, 200, "word %zu is %.9g, want %.9g", i / 4, (double)b, (double)a);
        return false;
    }
    return true;
}

// A product that quantizes: without a norm the same bits as the reference, with one codes may round the other way, each
// one code in some hundreds of K. x: NULL for random numbers.
static void quantizing_product(struct check *check, const struct weight *w, int rows, int bits, bool normed,
                               uint32_t wgx, uint32_t tr, uint32_t u, const float *x)
{
    char kernel[32];
    snprintf(kernel, sizeof kernel, "quant_matmul_%s_%s_t", weight_name(w->kind), bits == 24 ? "i24" : "q");
    const int n0 = w->n % 3, ldy = n0 + w->n + rows % 2;
    const size_t out = (size_t)rows * (size_t)ldy, in = (size_t)rows * (size_t)w->k;
    const bool grouped = w->group != w->k;
    const struct gyre_quant_matmul_params p = {
        rows, w->k, w->n, w->n_pad, w->group, ldy, n0, (rows + w->n) % 3, bits, bits == 4 ? 0.9f : 1, normed, 1e-5f};
    const struct check_case c = {
        .kernel = kernel,
        .params = &p,
        .n_spec = 10,
        .spec = {wgx, 1, 1, tr, u, grouped, w->zeros, (uint32_t)w->k / 16, normed, 16},
        .groups = {(uint32_t)gyre_div_up((uint64_t)w->n, 32), (uint32_t)gyre_div_up((uint64_t)rows, tr)},
        .bind = {{.size = out * 4,
                  .rule = normed || grouped ? CHECK_NMSE : CHECK_BITS,
                  .bound = !normed      ? 1e-11
                           : bits == 24 ? 1e-11
                           : bits == 8  ? 1e-5
                                        : 1e-3,
                  .compare = x ? same_numbers : NULL},
                 {.data = x ? x : check_normal(check, in, 1.5), .size = in * 4},
                 {.data = check_uniform(check, (size_t)w->k, 0.5, 1.5), .size = (size_t)w->k * 4},
                 w->words,
                 w->scale,
                 w->sums,
                 {.data = check_normal(check, out, 1), .size = out * 4}},
    };
    check_run(check, &c,
              "%d x %d x %d, group %d, zeros %d, act %d, norm %d, workgroup %u, rows %u, steps %u, random %d", rows,
              w->n, w->k, w->group, w->zeros, bits, normed, wgx, tr, u, !x);
}

// Codes of 24 bits of rows by their greatest: on both sides of where the scale doubles; the least that is not taken for
// zeros, and below; the greatest float; none.
static void split_edges(struct check *check, const struct weight *w)
{
    static const float most[] = {0x1.fdfbfep0f, 0x1.fdfcp0f, 0x1.fffffep0f,    1,        0x1p-103f, 0x1.fffffep-104f,
                                 0x1p-149f,     0,           0x1.fffffep+127f, INFINITY, NAN};
    enum { ROWS = GYRE_COUNT(most) };
    float *const x = check_uniform(check, ROWS * (size_t)w->k, -1, 1);
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < w->k; i++) x[r * w->k + i] *= isfinite(most[r]) ? most[r] : 1;
        x[r * w->k + 5 * r] = -most[r];
        x[r * w->k + w->k - 1] = most[r];
    }
    quantizing_product(check, w, ROWS, 24, false, 64, 2, 2, x); // a program of the cases below
}

// Rows of an infinity or a NaN between others: each output of theirs is NaN.
static void rows_that_are_not_finite(struct check *check, const struct weight *w, int bits)
{
    static const float odd[] = {1, NAN, 1, INFINITY, -INFINITY, 1};
    enum { ROWS = GYRE_COUNT(odd) };
    float *const x = check_normal(check, ROWS * (size_t)w->k, 1);
    for (int r = 0; r < ROWS; r++) x[r * w->k + 7 * r + 1] = odd[r];
    quantizing_product(check, w, ROWS, bits, false, 64, 2, 2, x);
}

// Rows that fill no tile of rows, columns that fill no tile of columns, rows of codes shorter and longer than the
// workgroup.
void cases_quant_matmul(struct check *check)
{
    static const struct {
        struct shape s;
        uint32_t wgx, tr;
    } tiled[] = {{{1, 40, 32, 32}, 32, 1},
                 {{3, 100, 576, 576}, 64, 2},
                 {{5, 33, 1088, 1088}, 32, 2},
                 {{17, 20, 288, 32}, 64, 4}};
    static const int kinds[] = {W_W4, W_W8, W_W4Z};
    for (size_t i = 0; i < GYRE_COUNT(kinds); i++)
        for (size_t s = 0; s < GYRE_COUNT(tiled); s++)
            for (int bits = 4; bits <= 24; bits += bits == 8 ? 16 : 4) {
                const struct shape *t = &tiled[s].s;
                if (kinds[i] == W_W4Z && s % 2 == 0) continue; // one of a channel and one of groups are enough
                const struct weight w = weight_random(check, kinds[i], t->n, t->k, t->group);
                if (bits == 24 && s == 1) split_edges(check, &w);
                if (bits < 24 && s == 1) rows_that_are_not_finite(check, &w, bits);
                for (int normed = 0; normed < 2; normed++)
                    if (normed == (int)(i + s) % 2 || s == 1)
                        quantizing_product(check, &w, t->rows, bits, normed, tiled[s].wgx, tiled[s].tr, 1 + s % 2,
                                           NULL);
            }
}

// A product of codes into some of the columns of y, with an addend: what the kernels of many rows and of lines take.
struct product {
    char kernel[32];
    struct gyre_matmul_params params;
    struct check_bind bind[7];
    uint32_t grouped, planes;
};

static struct product product_of(struct check *check, const struct weight *w, int rows, int bits, const char *form)
{
    const struct input in = input_random(check, rows, w->k, bits);
    const int n0 = w->n % 3, ldy = n0 + w->n + rows % 2;
    const size_t out = (size_t)rows * (size_t)ldy;
    const bool grouped = w->group != w->k;
    struct product p = {
        .params = {rows, w->k, w->n, w->n_pad, w->group, ldy, n0, (rows + w->n) % 3},
        .bind = {{.size = out * 4, .rule = check->floats && grouped ? CHECK_NMSE : CHECK_BITS, .bound = 1e-11},
                 in.x,
                 in.meta,
                 w->words,
                 w->scale,
                 w->sums,
                 {.data = check_normal(check, out, 1), .size = out * 4}},
        .grouped = grouped,
        .planes = bits == 24 ? 3 : 1,
    };
    snprintf(p.kernel, sizeof p.kernel, "matmul_%s_q%s", weight_name(w->kind), form);
    return p;
}

// It, by workgroups that cover so many columns and rows. What it points to is the product's.
static struct check_case case_of(const struct product *p, const uint32_t *spec, uint32_t n_spec, uint32_t cols,
                                 uint32_t rows)
{
    struct check_case c = {
        .kernel = p->kernel,
        .params = &p->params,
        .n_spec = n_spec,
        .groups = {(uint32_t)gyre_div_up((uint64_t)p->params.n, cols),
                   (uint32_t)gyre_div_up((uint64_t)p->params.rows, rows)},
    };
    memcpy(c.spec, spec, n_spec * sizeof *spec);
    memcpy(c.bind, p->bind, sizeof p->bind);
    return c;
}

// The kernel for CPUs: groups of whole rounds of eight steps, of a part, and of more; with 8 rows the halves of a tile
// may come one after the other.
static void lines(struct check *check)
{
    static const struct {
        uint32_t wgx, tr;
    } cut[] = {{1, 1}, {2, 3}, {1, 8}};
    static const struct shape shapes[] = {{1, 8, 32, 32},    {3, 100, 576, 576}, {5, 33, 36, 36}, {17, 20, 288, 32},
                                          {1, 70, 1216, 64}, {9, 41, 256, 128},  {2, 9, 4, 4}};
    static const int act[] = {8, 4};
    for (size_t s = 0; s < 2 * GYRE_COUNT(shapes); s++) {
        const struct shape *shape = &shapes[s / 2];
        const struct weight w = weight_random(check, s % 2 ? W_W4Z : W_W4, shape->n, shape->k, shape->group);
        for (size_t a = 0; a < GYRE_COUNT(act); a++)
            for (size_t i = 0; i < GYRE_COUNT(cut); i++) {
                const int rows = shape->rows;
                const struct product p = product_of(check, &w, rows, act[a], "_l");
                const struct check_case c = case_of(&p, (uint32_t[]){cut[i].wgx, 1, 1, cut[i].tr, w.zeros}, 5,
                                                    GYRE_TILE * cut[i].wgx, cut[i].tr);
                check_run(check, &c, "%d x %d x %d, group %d, zeros %d, act %d, workgroup %u, rows %u", rows, w.n, w.k,
                          w.group, w.zeros, act[a], cut[i].wgx, cut[i].tr);
            }
    }
}

// Short steps along K: one and several a group, rows that fill no tile of rows, columns that fill no tile of columns.
static void short_steps(struct check *check)
{
    static const struct {
        uint32_t wgx, wgy, tr, tc;
    } cut[] = {{8, 1, 8, 2}, {4, 2, 3, 1}};
    static const struct shape shapes[] = {
        {1, 8, 8, 8}, {9, 100, 576, 576}, {17, 20, 288, 32}, {8, 140, 40, 40}, {5, 41, 256, 128}};
    static const int act[] = {8, 4};
    for (size_t s = 0; s < 2 * GYRE_COUNT(shapes); s++) {
        const struct shape *shape = &shapes[s / 2];
        const struct weight w = weight_random(check, s % 2 ? W_W4Z : W_W4, shape->n, shape->k, shape->group);
        for (size_t a = 0; a < GYRE_COUNT(act); a++)
            for (size_t i = 0; i < GYRE_COUNT(cut); i++) {
                const struct product p = product_of(check, &w, shape->rows, act[a], "_s");
                const struct check_case c =
                    case_of(&p, (uint32_t[]){cut[i].wgx, cut[i].wgy, 1, cut[i].tr, cut[i].tc, 0, w.zeros}, 7,
                            8 * cut[i].wgx * cut[i].tc, cut[i].tr * cut[i].wgy);
                check_run(check, &c, "%d x %d x %d, group %d, zeros %d, act %d, workgroup %u x %u, tile %u x %u",
                          shape->rows, w.n, w.k, w.group, w.zeros, act[a], cut[i].wgx, cut[i].wgy, cut[i].tr,
                          cut[i].tc);
            }
    }
}

// The block kernels: steps that K fills in part, rows and columns that fill no block, groups of one step and of
// several.
static void block_product(struct check *check, const struct weight *w, int rows, int bits, uint32_t wgx, uint32_t wgy,
                          uint32_t tr, uint32_t kq)
{
    const struct product p = product_of(check, w, rows, bits, "_b");
    const struct check_case c =
        case_of(&p, (uint32_t[]){wgx, wgy, 1, tr, kq, p.grouped, w->zeros, p.planes}, 8, 8 * wgx, tr * wgy);
    check_run(check, &c, "%d x %d x %d, group %d, zeros %d, act %d, workgroup %u x %u, rows %u, pieces %u", rows, w->n,
              w->k, w->group, w->zeros, bits, wgx, wgy, tr, kq);
}

static void blocks(struct check *check)
{
    static const struct {
        uint32_t wgx, wgy, tr, kq;
    } cut[] = {{4, 4, 3, 2}, {8, 2, 4, 2}, {8, 8, 8, 1}};
    static const struct shape shapes[] = {{1, 8, 16, 16},   {17, 33, 96, 32},    {64, 100, 144, 144},
                                          {5, 70, 256, 64}, {70, 130, 576, 576}, {13, 96, 256, 128}};
    static const int kinds[] = {W_W4, W_W8, W_W4Z}, act[] = {8, 4};
    for (size_t s = 0; s < GYRE_COUNT(shapes); s++)
        for (size_t i = 0; i < GYRE_COUNT(kinds); i++) {
            const struct weight w = weight_random(check, kinds[i], shapes[s].n, shapes[s].k, shapes[s].group);
            for (size_t a = 0; a < GYRE_COUNT(act); a++) {
                const size_t c = (s + i) % GYRE_COUNT(cut);
                block_product(check, &w, shapes[s].rows, act[a], cut[c].wgx, cut[c].wgy, cut[c].tr, cut[c].kq);
            }
        }
    // Codes of 24 bits: pieces of x that fill a workgroup's share, and not. A program for each cut and kind of sums.
    static const struct shape split[] = {{1, 8, 16, 16},    {2, 33, 96, 32},     {3, 100, 144, 144}, {5, 70, 256, 64},
                                         {17, 9, 576, 576}, {70, 130, 272, 272}, {65, 40, 128, 32}};
    for (size_t s = 0; s < GYRE_COUNT(split); s++)
        for (size_t i = 0; i < GYRE_COUNT(kinds); i++) {
            const struct weight w = weight_random(check, kinds[i], split[s].n, split[s].k, split[s].group);
            const bool wide = (w.group == w.k) == (i == 0);
            block_product(check, &w, split[s].rows, 24, wide ? 8 : 4, 4, wide ? 2 : 3, 2);
        }
}

// The kernels for matrix units, with matrices of the device's shape: rows and columns that fill no matrix, no part of
// a subgroup's and no workgroup's, steps that K fills in part, groups of one step and of several.
struct matrix_cut {
    uint32_t subgroups, abreast, down, across, kq; // of a workgroup, side by side; matrices of each; pieces of 16 of K
};

static void matrix_product(struct check *check, const struct weight *w, int rows, int bits, struct matrix_cut c)
{
    const struct gyre_matrix_shape none = {8, 8, 8, 8}, *shape = &gyre_device_info(check->device)->matrix_s8;
    if (!shape->m) shape = &none; // check_run counts the case and leaves it out
    const struct product p = product_of(check, w, rows, bits, "_x");
    const uint32_t spec[] = {shape->lanes, c.subgroups, 1,    shape->m,  shape->n, shape->k, c.down,
                             c.across,     c.abreast,   c.kq, p.grouped, w->zeros, p.planes};
    const struct check_case checked = case_of(&p, spec, GYRE_COUNT(spec), shape->n * c.across * c.abreast,
                                              shape->m * c.down * (c.subgroups / c.abreast));
    check_run(check, &checked,
              "%d x %d x %d, group %d, zeros %d, act %d, %u subgroups, %u abreast, matrices %u x %u, pieces %u", rows,
              w->n, w->k, w->group, w->zeros, bits, c.subgroups, c.abreast, c.down, c.across, c.kq);
}

static void matrices(struct check *check)
{
    static const struct matrix_cut cut[] = {{2, 1, 1, 2, 2}, {4, 2, 2, 1, 4}, {8, 4, 1, 2, 2}};
    static const struct shape shapes[] = {{17, 33, 96, 96},     {64, 100, 144, 144}, {65, 70, 1216, 1216},
                                          {128, 130, 576, 576}, {200, 41, 80, 80},   {1, 8, 16, 16},
                                          {65, 100, 96, 32},    {17, 70, 256, 64},   {40, 72, 256, 128}};
    static const int kinds[] = {W_W4, W_W8, W_W4Z}, act[] = {8, 4, 24};
    for (size_t s = 0; s < GYRE_COUNT(shapes); s++)
        for (size_t i = 0; i < GYRE_COUNT(kinds); i++) {
            const struct weight w = weight_random(check, kinds[i], shapes[s].n, shapes[s].k, shapes[s].group);
            for (size_t a = 0; a < GYRE_COUNT(act); a++) {
                struct matrix_cut c = cut[(s + a) % GYRE_COUNT(cut)];
                if (w.group != w.k && w.group % (16 * (int)c.kq)) c = cut[0];
                matrix_product(check, &w, shapes[s].rows, act[a], c);
            }
        }
}

void cases_matmul(struct check *check)
{
    lines(check);
    short_steps(check);
    outliers(check);
    tiles(check);
    blocks(check);
    matrices(check);
    static const struct shape shapes[] = {
        {1, 8, 32, 32},    {3, 20, 36, 36},   {5, 100, 64, 32},   {17, 20, 96, 32}, {2, 576, 96, 96},
        {4, 100, 128, 64}, {1, 30, 576, 576}, {17, 36, 256, 128}, {7, 20, 60, 20},  {1, 9, 4, 4},
    };
    // Every tile of a kernel is a program that the driver compiles: a float kernel gets one of the two, an integer
    // kernel one for K in steps of 16 and the other for any K, and its neighbour the other way round.
    static const struct tile few[] = {{8, 1, 2, 2, false}, {2, 5, 1, 1, false}};
    static const struct tile many[] = {{8, 1, 3, 1, false}, {4, 3, 1, 2, false}};
    static const int kinds[] = {W_W4, W_W8, W_F16, W_F32, W_W4Z}, act[] = {0, 8, 4};
    for (size_t s = 0; s < GYRE_COUNT(shapes); s++)
        for (size_t i = 0; i < GYRE_COUNT(kinds); i++) {
            const bool grouped = kinds[i] <= W_W8;
            const struct weight w =
                weight_random(check, kinds[i], shapes[s].n, shapes[s].k, grouped ? shapes[s].group : shapes[s].k);
            for (size_t a = 0; a < GYRE_COUNT(act); a++) {
                const bool integers = act[a] && grouped, k16 = integers && w.k % 16 == 0 && w.group % 16 == 0 && s % 2;
                const size_t one = integers ? (i + k16) % 2 : (i + (act[a] > 0)) % 2;
                struct tile v = few[one], m = many[one];
                v.k16 = m.k16 = k16;
                product(check, &w, shapes[s].rows, act[a], true, v, 1e-11);
                product(check, &w, shapes[s].rows, act[a], false, m, 1e-11);
            }
        }
    // A host cuts products otherwise: more rows than a tile, more columns than a piece of the weight.
    for (size_t i = 0; i < GYRE_COUNT(kinds) && check->floats; i++)
        for (int wide = 0; wide < 2; wide++) {
            const struct weight w = weight_random(check, kinds[i], wide ? 4243 : 100, wide ? 36 : 64, wide ? 36 : 32);
            for (size_t a = 0; a < GYRE_COUNT(act); a++)
                product(check, &w, wide ? 5 : 1291, act[a], false, many[wide], 1e-11);
        }
}

// ---- embed --------------------------------------------------------------------------------------------

void cases_embed(struct check *check)
{
    static const int kinds[] = {W_W4, W_W8, W_F16, W_F32, W_W4Z};
    enum { ROWS = 5 };
    for (size_t i = 0; i < GYRE_COUNT(kinds); i++)
        for (int big = 0; big < 2; big++) {
            const int k = big ? 576 : 36, n = big ? 300 : 13, n0 = big ? 1000 : 0;
            const struct weight w = weight_random(check, kinds[i], n, k, kinds[i] > W_W8 || !big ? k : 32);
            const int32_t tokens[ROWS] = {n0, n0 + n - 1, n0 + n, n0 - 1, n0 + 7}; // two of other ranges
            int32_t rows[ROWS][4] = {{0}};
            for (int r = 0; r < ROWS; r++) rows[r][0] = tokens[r];
            const struct gyre_embed_params p = {ROWS, k, n0, n, w.n_pad, w.group, big ? 0.3f : 1};
            char kernel[16];
            snprintf(kernel, sizeof kernel, "embed_%s", weight_name(w.kind));
            const struct check_case c = {
                .kernel = kernel,
                .params = &p,
                .n_spec = 4,
                .spec = {16, 1, 1, w.zeros},
                .groups = {(uint32_t)gyre_div_up((uint64_t)k / 4, 16), ROWS},
                .bind = {{.size = (size_t)(ROWS * k) * 4, .rule = CHECK_NMSE, .bound = 1e-14},
                         {.data = rows, .size = sizeof rows},
                         w.words,
                         w.scale},
            };
            check_run(check, &c, "%d tokens from %d, width %d, zeros %d", n, n0, k, w.zeros);
        }
}
