// Cases of repack: every format, rows and columns that fill no block, pieces that begin in the middle of the weight.
#include "tests/ops/check.h"

struct format {
    const char *kernel;
    int weight_bits;        // of a weight in the first output
    bool scale, sums;       // outputs after the weight
    int source_bits_per_32; // of 32 elements in the file; repack_scale, repack_zero: of one group
};

static const struct format formats[] = {
    {"repack_i4", 4, false, true, 128},     {"repack_i8", 8, false, true, 256},
    {"repack_q4_0", 4, true, true, 18 * 8}, {"repack_q8_0", 8, true, true, 34 * 8},
    {"repack_scale", 0, true, false, 16},   {"repack_f16", 16, false, false, 512},
    {"repack_f32", 32, false, false, 1024}, {"repack_zero", 0, true, true, 8},
};

static void repack_case(struct check *check, const struct format *f, int n, int k, int group, int first, uint32_t wgx,
                        uint32_t wgy)
{
    const int n_pad = (first + n + 8 + GYRE_TILE - 1) / GYRE_TILE * GYRE_TILE, groups = k / group;
    const struct gyre_repack_params p = {n, k, group, n_pad, first};
    const size_t rows = (size_t)n, elements = (size_t)k;
    const size_t bits = f->weight_bits ? rows * (elements / 8 * (size_t)f->source_bits_per_32 / 4)
                                       : rows * (size_t)groups * (size_t)f->source_bits_per_32;
    const size_t source = (bits / 8 + 3) / 4 * 4, grouped = (size_t)(groups * n_pad);
    struct check_case c = {.kernel = f->kernel, .params = &p, .n_spec = 3, .spec = {wgx, wgy, 1}};
    int at = 0;
    if (f->weight_bits)
        c.bind[at++] =
            (struct check_bind){.size = elements * (size_t)n_pad * (size_t)f->weight_bits / 8, .rule = CHECK_BITS};
    const bool updates = f->sums && !f->weight_bits; // repack_zero: zero points behind the scales
    if (f->scale)
        c.bind[at++] = (struct check_bind){.size = grouped * 2 + (updates ? grouped / 2 : 0), .rule = CHECK_BITS};
    if (f->sums) c.bind[at++] = (struct check_bind){.size = grouped * 4, .rule = CHECK_BITS};
    c.bind[at] = (struct check_bind){.data = check_words(check, source / 4, UINT32_MAX), .size = source};
    const bool grouped_k = f->sums && !updates; // WGY invocations share a group there, elsewhere each has its own k
    const uint32_t steps = (uint32_t)(f->sums || f->scale ? groups : k);
    c.groups[0] = ((uint32_t)(n + 7) / 8 + wgx - 1) / wgx;
    c.groups[1] = grouped_k ? steps : (steps + wgy - 1) / wgy;
    check_run(check, &c, "%d x %d, group %d, first %d, workgroup %u x %u", n, k, group, first, wgx, wgy);
}

void cases_repack(struct check *check)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        for (uint32_t tall = 0; tall < 2; tall++) { // two programs a kernel: WGY 1 and more
            const uint32_t wgx = tall ? 2 : i % 2 ? 4 : 8, wgy = tall ? 4 : 1;
            repack_case(check, &formats[i], 24, 96, 32, 0, wgx, wgy);
            repack_case(check, &formats[i], 13, 64, 64, 8, wgx, wgy);
            repack_case(check, &formats[i], 3, 160, 32, 16, wgx, wgy);
            repack_case(check, &formats[i], 70, 160, 160, 24, wgx, wgy);
        }
}
