// Cases of repack: every format, rows and columns that fill no block, pieces that begin in the middle of the weight.
#include "tests/ops/check.h"

struct format {
    const char *kernel;
    int weight_bits;        // of a weight in the first output
    bool scale, sums;       // outputs after the weight
    int source_bits_per_32; // of 32 elements in the file; repack_scale: of one group
};

static const struct format formats[] = {
    {"repack_i4", 4, false, true, 128},     {"repack_i8", 8, false, true, 256},
    {"repack_q4_0", 4, true, true, 18 * 8}, {"repack_q8_0", 8, true, true, 34 * 8},
    {"repack_scale", 0, true, false, 16},   {"repack_f16", 16, false, false, 512},
    {"repack_f32", 32, false, false, 1024},
};

static void repack_case(struct check *check, const struct format *f, int n, int k, int group, int first, uint32_t wg)
{
    const int n_pad = first + (n + 7) / 8 * 8 + 8, groups = k / group;
    const struct gyre_repack_params p = {n, k, group, n_pad, first};
    const size_t rows = (size_t)n, elements = (size_t)k;
    const size_t bits =
        f->weight_bits ? rows * (elements / 8 * (size_t)f->source_bits_per_32 / 4) : rows * (size_t)groups * 16;
    const size_t source = (bits / 8 + 3) / 4 * 4, grouped = (size_t)(groups * n_pad);
    struct check_case c = {.kernel = f->kernel, .params = &p, .n_spec = 3, .spec = {wg, 1, 1}};
    int at = 0;
    if (f->weight_bits)
        c.bind[at++] =
            (struct check_bind){.size = elements * (size_t)n_pad * (size_t)f->weight_bits / 8, .rule = CHECK_BITS};
    if (f->scale) c.bind[at++] = (struct check_bind){.size = grouped * 2, .rule = CHECK_BITS};
    if (f->sums) c.bind[at++] = (struct check_bind){.size = grouped * 4, .rule = CHECK_BITS};
    c.bind[at] = (struct check_bind){.data = check_words(check, source / 4, UINT32_MAX), .size = source};
    c.groups[0] = ((uint32_t)(n + 7) / 8 + wg - 1) / wg;
    c.groups[1] = (uint32_t)(f->sums || f->scale ? groups : k);
    check_run(check, &c, "%d x %d, group %d, first %d, workgroup %u", n, k, group, first, wg);
}

void cases_repack(struct check *check)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        repack_case(check, &formats[i], 24, 96, 32, 0, 8);
        repack_case(check, &formats[i], 13, 64, 64, 8, 8);
        repack_case(check, &formats[i], 3, 160, 32, 16, 2);
        repack_case(check, &formats[i], 70, 32, 32, 24, 4);
    }
}
