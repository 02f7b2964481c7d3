// See tune.h: products with weights. The conventions of each kernel stand in the comment that opens its .k file.
#include "runtime/graph/tune.h"
#include "runtime/graph/tune_parts.h"

// Rounds of an invocation of _v, as the kernels say.
static uint64_t product_loops(const struct gyre_weight *w, bool integers, uint32_t wgy)
{
    const uint64_t groups = w->k / w->group, words = integers ? gyre_div_up(w->group, 16) : w->group / 4;
    if (!integers || groups == 1) return (groups * words + groups) / wgy;
    return gyre_div_up(groups, wgy) * (words + 1);
}

// Elements of K that a phase of matmul_tile.k takes at once.
static uint32_t tile_step(const struct gyre_weight *w, bool integers)
{
    return integers && gyre_weight_is_int4(w->kind) ? 32 : 16;
}

// What a product is asked for.
struct product {
    const struct gyre_device_info *info;
    const struct gyre_weight *w;
    const char *op;
    uint32_t rows;
    bool integers, quant; // codes times codes; x as codes
    bool prologue;        // it quantizes x itself: x is codes by then
    bool split;           // x is, or becomes, codes of 24 bits: three rows of bytes
    bool normed;
    uint32_t norm_lanes; // of rms_norm_quant for the same row, whose sums its prologue makes
};

static struct product product_of(const gyre_graph *g, const struct gyre_node *node)
{
    struct product p = {.info = gyre_device_info(g->device),
                        .w = g->values[node->in[1]].weight,
                        .op = gyre_ops[node->op].name,
                        .rows = (uint32_t)node->params.matmul.rows,
                        .prologue = node->op == GYRE_OP_quant_matmul};
    p.quant = p.prologue || g->values[node->in[0]].kind == GYRE_VALUE_QUANT;
    p.integers = p.quant && gyre_weight_is_coded(p.w->kind);
    p.split = p.prologue ? node->params.quant_matmul.bits == 24 : p.quant && g->values[node->in[0]].bits == 24;
    p.normed = p.prologue && node->params.quant_matmul.normed;
    p.norm_lanes = lanes(p.info, p.w->k / 4);
    (void)share(p.info, p.op, 3ull * p.w->k / 4, &p.norm_lanes, NULL); // where it cannot, neither can rms_norm_quant
    return p;
}

static uint32_t planes(const struct product *p) { return p->split ? 3 : 1; } // rows of codes for one of x

// Rows up to which the kernels of few rows are taken. Those of floats spend three times what three products of bytes
// do, and 33 rows are 99 of bytes.
static uint32_t most_tiled(const struct product *p) { return p->split ? MOST_TILED / 2 : MOST_TILED; }

static void set_prologue(const struct product *p, struct gyre_launch *out)
{
    if (!p->prologue) return;
    set(out, "ROW16", p->w->k / 16);
    set(out, "NORMED", p->normed);
    if (p->normed) set(out, "NORM_LANES", p->norm_lanes);
}

// Rounds of an invocation in the prologue, as quant_rows.k.h says, and its bytes of shared memory.
static uint64_t prologue_loops(const struct product *p, uint32_t wgx, uint32_t tr)
{
    return p->prologue ? tr * (5ull * p->w->k / 16 / wgx + p->w->k / 4 / GYRE_MIN(wgx, p->norm_lanes) + 3) : 0;
}
static uint64_t prologue_shared(const struct product *p, uint32_t wgx, uint32_t tr)
{
    return p->prologue ? (uint64_t)planes(p) * tr * p->w->k + 8 * (uint64_t)wgx + 4 * (uint64_t)p->norm_lanes : 0;
}

enum { MOST_WIDE = 512, FILL = 1 << 16 }; // invocations of a workgroup, of a launch
static bool tile_fits(const struct product *p, uint32_t wgx, uint32_t tr)
{
    return wgx <= MOST_WIDE && wgx <= p->info->max_workgroup && wgx <= p->info->max_group_size[0] &&
           4 * (8 * (wgx + 4) + planes(p) * tr * wgx) + prologue_shared(p, wgx, tr) <= p->info->shared_bytes;
}

// matmul_tile.k for up to MOST_TILED rows: a tile of the weight per workgroup. As few invocations a tile as keep the
// chip full: with 8 loads of 16 bytes in each, 2^16 of them ask for 8 MiB at once, and a reduction costs the less the
// fewer they are. No more than there are steps along K. False where the kernel does not fit the shapes or the device.
static bool tile_launch(const struct product *p, struct gyre_launch *out)
{
    const struct gyre_device_info *info = p->info;
    const struct gyre_weight *w = p->w;
    const uint32_t step = tile_step(w, p->quant), steps = w->k / step, tiles = (uint32_t)gyre_div_up(w->n, GYRE_TILE);
    if (info->lanes != GYRE_LANES_HARDWARE || !gyre_weight_is_coded(w->kind) || p->rows > MOST_TILED || w->k % step ||
        w->group % step || (p->split && !p->prologue))
        return false;
    if (p->quant && info->int_dot != GYRE_INT_DOT_ACCELERATED && info->int_dot != GYRE_INT_DOT_EMULATED && p->rows > 8)
        return false; // without dot products the kernel for many rows shares the unpacking of x
    uint32_t tr = 1, wgx = 64;
    while (tr < p->rows && tr < (p->quant ? 8 : 4)) tr *= 2;
    const uint64_t groups = (uint64_t)tiles * gyre_div_up(p->rows, tr);
    while (groups * wgx < FILL && wgx / 4 < steps && tile_fits(p, 2 * wgx, tr)) wgx *= 2;
    const uint32_t u = planes(p) * tr <= 2 && steps >= wgx / 2 ? 2 : 1; // two steps a round, where phases have two
    if (!tile_fits(p, wgx, tr) || !runs(info, gyre_div_up(steps, wgx / 4) + prologue_loops(p, wgx, tr))) return false;
    const uint32_t form = (p->quant && !p->split ? GYRE_FORM_QUANT : 0u) | GYRE_FORM_TILE;
    if (start_weight(out, p->op, w->kind, form, wgx, 1, NULL) != GYRE_OK) return false;
    set(out, "TR", tr);
    set(out, "AHEAD", u);
    set(out, "GROUPED", w->group != w->k);
    set_prologue(p, out);
    out->tile[0] = GYRE_TILE;
    out->tile[1] = tr;
    return true;
}

// matmul_block.k for more rows than matmul_tile.k takes: both operands pass shared memory. Sums of groups want as many
// registers again as those of integers, so an invocation has half the rows; two where a row is three of bytes, for four
// leave RDNA2 half the waves and spill with Mesa 22.3 on RDNA3. Narrower workgroups where few would run.
enum { BLOCK_WGY = 8, BLOCK_KQ = 2, FEW_BLOCKS = 256 };
static uint32_t block_rows(const struct product *p) { return p->split ? 2 : p->w->group != p->w->k ? 4 : 8; }
static bool block_fits(const struct product *p, uint32_t wgx, uint32_t tr)
{
    const uint32_t x = planes(p) * tr * BLOCK_WGY * BLOCK_KQ, all = wgx * BLOCK_WGY,
                   spare = p->split ? (uint32_t)gyre_round_up(x, all) - x : 0;
    return all <= p->info->max_workgroup && 16 * (2 * x + spare + 16 * wgx * BLOCK_KQ) <= p->info->shared_bytes;
}
static void cut_block(struct gyre_launch *launch, uint32_t wgx, uint32_t tr)
{
    launch->kernel.spec[0] = wgx;
    set(launch, "TR", tr);
    launch->tile[0] = 8 * wgx;
    launch->tile[1] = tr * BLOCK_WGY;
}

static bool block_launch(const struct product *p, struct gyre_launch *out)
{
    const struct gyre_device_info *info = p->info;
    const struct gyre_weight *w = p->w;
    const bool grouped = w->group != w->k;
    const uint32_t tr = block_rows(p);
    uint32_t wgx = 16;
    if (info->lanes != GYRE_LANES_HARDWARE || !p->integers || p->prologue || w->k % 16) return false;
    if (grouped && w->group % (16 * BLOCK_KQ)) return false;
    if (gyre_div_up(w->n, 8 * wgx) * gyre_div_up(p->rows, tr * BLOCK_WGY) < FEW_BLOCKS) wgx = 8;
    if (!block_fits(p, wgx, tr) || info->int_dot != GYRE_INT_DOT_ACCELERATED || !runs(info, w->k / 16 / BLOCK_KQ + 1))
        return false;
    if (start_weight(out, p->op, w->kind, GYRE_FORM_QUANT | GYRE_FORM_BLOCK, wgx, BLOCK_WGY, NULL) != GYRE_OK)
        return false;
    set(out, "KQ", BLOCK_KQ);
    set(out, "GROUPED", grouped);
    set(out, "PLANES", planes(p));
    cut_block(out, wgx, tr);
    return true;
}

// What a workgroup of matmul_matrix.vk.k covers: subgroups, of them side by side, matrices of each one down and across.
struct matrix_cut {
    uint32_t subgroups, abreast, down, across, rows, columns;
};

// Every doubling of a workgroup's rows or columns, to 128 x 128, halves what an operand costs a product, as long as
// there are workgroups enough for a chip and the sums of an invocation fit registers. Rows of three bytes have three
// sums each, and one more where groups are added up.
static struct matrix_cut cut_matrices(const struct product *p)
{
    enum { SIDE = 128, ENOUGH = 128, LANES = 256, SUBGROUPS = 8, MOST_SUMS = 64 };
    const struct gyre_matrix_shape s = p->info->matrix_s8;
    const uint32_t most = !p->split ? MOST_SUMS : p->w->group == p->w->k ? MOST_SUMS / 2 : MOST_SUMS / 4;
    struct matrix_cut c = {SUBGROUPS, 1, 1, 1, 0, 0};
    while (c.subgroups > 1 && c.subgroups * s.lanes > GYRE_MIN((uint32_t)LANES, p->info->max_workgroup))
        c.subgroups /= 2;
    if (c.subgroups >= 4) c.abreast = c.subgroups / 2;
    c.rows = s.m * (c.subgroups / c.abreast);
    c.columns = s.n * c.abreast;
    while (GYRE_MIN(c.rows, c.columns) < SIDE && 2 * c.down * c.across * s.m * s.n <= most * s.lanes) {
        const bool taller = planes(p) * c.rows <= c.columns;
        const uint32_t rows = taller ? 2 * c.rows : c.rows, columns = taller ? c.columns : 2 * c.columns;
        if (gyre_div_up(p->w->n, columns) * gyre_div_up(p->rows, rows) < ENOUGH) break;
        c.down *= taller ? 2 : 1;
        c.across *= taller ? 1 : 2;
        c.rows = rows, c.columns = columns;
    }
    return c;
}

// Bytes of shared memory beyond those of both operands: of scales, and where invocations put what they load in vain.
static uint32_t matrix_spare(const struct product *p, struct matrix_cut c, uint32_t kq)
{
    const uint32_t lanes = p->info->matrix_s8.lanes, x = planes(p) * c.rows * kq, w = c.columns / 2 * kq,
                   all = c.subgroups * lanes;
    return 16 * ((uint32_t)gyre_round_up(x, all) - x) + 32 * ((uint32_t)gyre_round_up(w, all) - w) +
           8 * (uint32_t)gyre_round_up(c.columns, all);
}

// matmul_matrix.vk.k for as many rows, where a subgroup multiplies matrices of int8.
static bool matrix_launch(const struct product *p, struct gyre_launch *out)
{
    const struct gyre_device_info *info = p->info;
    const struct gyre_matrix_shape s = info->matrix_s8;
    const struct gyre_weight *w = p->w;
    const bool grouped = w->group != w->k;
    if (!s.m || info->lanes != GYRE_LANES_HARDWARE || !p->integers || p->prologue || p->rows <= most_tiled(p) ||
        w->k % 16)
        return false;
    const struct matrix_cut c = cut_matrices(p);
    uint32_t kq = grouped ? 2 : 4, line = 16 * kq + 16; // sums of groups are as many registers again
    const uint32_t lines = 2 * (planes(p) * c.rows + c.columns);
    if (lines * line + matrix_spare(p, c, kq) > info->shared_bytes) kq = 2, line = 48;
    const uint32_t bytes = lines * line;
    if ((grouped && w->group % (16 * kq)) || bytes + matrix_spare(p, c, kq) > info->shared_bytes ||
        4 * c.subgroups * s.m * s.n > bytes || c.subgroups * s.lanes > info->max_workgroup ||
        s.lanes > info->max_group_size[0] || c.subgroups > info->max_group_size[1] ||
        !runs(info, w->k / s.k + w->k / 16 + 2ull * s.m * s.n * c.down * c.across / s.lanes))
        return false;
    const uint32_t form = GYRE_FORM_QUANT | GYRE_FORM_MATRIX;
    if (start_weight(out, p->op, w->kind, form, s.lanes, c.subgroups, NULL) != GYRE_OK) return false;
    set(out, "TM", s.m);
    set(out, "TN", s.n);
    set(out, "TK", s.k);
    set(out, "RM", c.down);
    set(out, "RN", c.across);
    set(out, "SX", c.abreast);
    set(out, "KQ", kq);
    set(out, "GROUPED", grouped);
    set(out, "PLANES", planes(p));
    out->tile[0] = c.columns;
    out->tile[1] = c.rows;
    return true;
}

// matmul_line.cl.k: whole vectors in one invocation, for CPUs that run them one by one.
static bool line_launch(const struct product *p, struct gyre_launch *out)
{
    if (p->info->lanes != GYRE_LANES_LOOP || !gyre_weight_is_int4(p->w->kind) || !p->integers || p->prologue ||
        p->split)
        return false;
    uint32_t tr = 1;
    while (tr < p->rows && tr < 8) tr *= 2;
    if (start_weight(out, "matmul", p->w->kind, GYRE_FORM_QUANT | GYRE_FORM_LINE, 1, 1, NULL) != GYRE_OK) return false;
    set(out, "TR", tr);
    out->tile[0] = GYRE_TILE;
    out->tile[1] = tr;
    return true;
}

// matmul_int.k in short steps, for CPUs whose driver makes vectors of invocations.
static bool short_launch(const struct product *p, struct gyre_launch *out)
{
    enum { WGX = 8, TR = 8, TC = 2 };
    const struct gyre_weight *w = p->w;
    if (p->info->lanes != GYRE_LANES_SIMD || !gyre_weight_is_int4(w->kind) || !p->integers || p->prologue || p->split ||
        p->rows <= 4 || w->k % 8 || w->group % 8 || !runs(p->info, 2 * product_loops(w, true, 1)))
        return false;
    if (start_weight(out, p->op, w->kind, GYRE_FORM_QUANT | GYRE_FORM_SHORT, WGX, 1, NULL) != GYRE_OK) return false;
    set(out, "TR", TR);
    set(out, "TC", TC);
    out->tile[0] = 8 * WGX * TC;
    out->tile[1] = TR;
    return true;
}

// matmul_float.k and matmul_int.k: an invocation computes TR rows x TC blocks of 8 columns. For few rows (_v) all rows
// share one pass over the weights, and hardware splits K over WGY invocations; for many (_m) WGY takes further rows.
gyre_status gyre_tune_matmul(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                             gyre_error *err)
{
    const struct product p = product_of(g, node);
    const struct gyre_device_info *info = p.info;
    const struct gyre_weight *w = p.w;
    const uint32_t rows = p.rows;
    if (tile_launch(&p, out) || matrix_launch(&p, out) || block_launch(&p, out) || line_launch(&p, out) ||
        short_launch(&p, out))
        return GYRE_OK;
    const bool split = !runs(info, product_loops(w, p.integers, 1)); // only _v divides K
    const bool few = rows <= 4 || split, wide = w->n >= 16384;
    if (p.split)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot multiply codes of 24 bits by a weight of %u x %u on %s", w->n,
                         w->k, info->id);
    uint32_t wgx = 8, wgy = 1, tr = few ? GYRE_MIN(rows, 4u) : 4, tc = 2;
    switch (info->lanes) {
    case GYRE_LANES_SIMD: // a wide weight wants long runs along N
        if (!p.quant && rows == 1) tc = wide ? 8 : 4;
        if (!few && (wide || !p.quant)) tr = 8;
        break;
    case GYRE_LANES_LOOP:
        wgx = 4;
        if (!p.quant && rows == 1) tc = 4;
        if (p.quant && rows >= 8) tr = 8;
        break;
    case GYRE_LANES_HARDWARE:
        wgx = few && w->n <= 2048 ? 4 : 16; // a small N still makes enough workgroups
        wgy = few ? (w->n <= 2048 ? 32 : 8) : 4;
        tc = 1;
        while (wgy > 1 && wgx * wgy > info->max_workgroup) wgy /= 2;
    }
    while (split && !runs(info, product_loops(w, p.integers, wgy))) {
        if (2 * wgx * wgy > info->max_workgroup) return too_long(info, "a product", w->k, err);
        wgy *= 2;
    }
    const uint32_t form = (p.quant ? GYRE_FORM_QUANT : 0u) | (few ? 0u : GYRE_FORM_MANY);
    GYRE_TRY(start_weight(out, p.op, w->kind, form, wgx, wgy, err));
    set(out, "TR", tr);
    set(out, "TC", tc);
    set(out, "K16", w->k % 16 == 0 && w->group % 16 == 0);
    out->tile[0] = 8 * wgx * tc;
    out->tile[1] = few ? tr : tr * wgy;
    return GYRE_OK;
}

static void recut(struct gyre_launch *launch, uint32_t tr, uint32_t tc, uint32_t columns, uint32_t row_tiles)
{
    set(launch, "TR", tr);
    set(launch, "TC", tc);
    launch->tile[0] = columns * tc;
    launch->tile[1] = tr * row_tiles;
}

// Kernels on CPUs by rows and pieces of columns, the tile kernel by its width and its steps a round, the block kernel
// by the rows and columns of its workgroup. Where groups are scaled, the tile kernel adds them up in another order when
// it is cut otherwise: there only the rule's. The block kernel adds them in theirs however it is cut.
uint32_t gyre_tune_variants(const gyre_graph *g, const struct gyre_node *node,
                            struct gyre_launch out[GYRE_MOST_VARIANTS])
{
    static const uint32_t cut[][2] = {{1, 2}, {1, 4}, {2, 2}, {4, 1}, {4, 2}, {4, 4}, {8, 1}, {8, 2}};
    if ((node->op != GYRE_OP_matmul && node->op != GYRE_OP_quant_matmul) || gyre_tune_matmul(g, node, &out[0], NULL))
        return 0;
    const struct product p = product_of(g, node);
    const uint32_t form = gyre_kernel_source_find(out[0].kernel.name)->form, wgx = out[0].kernel.spec[0],
                   wgy = out[0].kernel.spec[1];
    uint32_t n = 1;
    if (!p.integers) return 1;
    if (form & GYRE_FORM_MATRIX && block_launch(&p, &out[n])) n++;
    for (uint32_t i = 0; i < 6 && form & GYRE_FORM_TILE && p.w->group == p.w->k; i++) {
        const uint32_t x = i < 2 ? wgx : i < 4 ? wgx / 2 : 2 * wgx, tr = out[0].tile[1];
        struct gyre_launch *const v = &out[n];
        *v = out[0];
        v->kernel.spec[0] = x;
        set(v, "AHEAD", 1 + i % 2);
        if (x >= 32 && memcmp(v, out, sizeof *v) && tile_fits(&p, x, tr) &&
            runs(p.info, gyre_div_up(p.w->k / tile_step(p.w, true), x / 4) + prologue_loops(&p, x, tr)))
            n++;
    }
    for (uint32_t x = 8; x <= 16 && form & GYRE_FORM_BLOCK; x *= 2)
        for (uint32_t tr = block_rows(&p) / 2; tr <= (p.split ? 4 : block_rows(&p)); tr *= 2) {
            out[n] = out[0];
            cut_block(&out[n], x, tr);
            n += memcmp(&out[n], out, sizeof *out) && block_fits(&p, x, tr);
        }
    if (form & GYRE_FORM_TILE || p.info->lanes == GYRE_LANES_HARDWARE) return n;
    for (size_t i = 0; i < GYRE_COUNT(cut) && n < GYRE_MOST_VARIANTS; i++) {
        out[n] = out[0];
        if (form & GYRE_FORM_LINE) recut(&out[n], cut[i][0], 1, GYRE_TILE, 1);
        else recut(&out[n], cut[i][0], cut[i][1], 8 * wgx, form & GYRE_FORM_MANY ? wgy : 1);
        if (cut[i][0] < 2 * p.rows && (!(form & GYRE_FORM_LINE) || cut[i][1] == 2) && memcmp(&out[n], out, sizeof *out))
            n++;
    }
    return n;
}

// On hardware, where all workgroups of a product may read so many floats again: from its second cache, against some 10
// us of launch, of a drained chip and of one workgroup's reductions. On CPUs every workgroup's prologue is work for the
// same cores and costs more than a dispatch (docs/performance.md).
// A product of floats reads them in every workgroup as it is, so that rounding them to 24 bits costs no read; it takes
// int8 dot products in hardware, some three instructions less a weight, registers for three planes of a row, which two
// rows lack, and K for which int32 holds sums of bytes times bytes. And shared memory: where three planes leave it to
// workgroups of less than half the invocations that one would have, too few loads are under way (48 KiB: beyond K
// 11562).
enum { MOST_REREAD = 8 << 20, MOST_QUANTIZED = 4, MOST_SPLIT_K = 1 << 16 };
static bool has_room(const struct product *p, const struct gyre_launch *launch)
{
    struct gyre_launch wide;
    struct product one = *p;
    one.split = false;
    return !p->split || (tile_launch(&one, &wide) && 2 * launch->kernel.spec[0] >= wide.kernel.spec[0]);
}
bool gyre_tune_quantizes(const gyre_graph *g, const struct gyre_node *fused)
{
    const struct product p = product_of(g, fused);
    const uint32_t reads = p.normed ? 2 : p.split ? 0 : 1;
    struct gyre_launch launch;
    if (p.split && (p.info->int_dot != GYRE_INT_DOT_ACCELERATED || p.rows > 1 || p.w->k > MOST_SPLIT_K)) return false;
    return p.integers && p.rows <= MOST_QUANTIZED && tile_launch(&p, &launch) && has_room(&p, &launch) &&
           gyre_div_up(p.w->n, GYRE_TILE) * p.rows * p.w->k * reads <= MOST_REREAD;
}

// A product of floats of many rows, on hardware: what it reads becomes codes of 24 bits once, in front of it, where
// integers can multiply them. The block kernel must fit also where a device has matrices, whose driver may fail to
// compile them.
bool gyre_tune_takes_bytes(const gyre_graph *g, const struct gyre_node *node)
{
    struct product p = product_of(g, node);
    struct gyre_launch launch;
    if (p.quant || !gyre_weight_is_coded(p.w->kind) || p.w->k > MOST_SPLIT_K) return false;
    p.quant = p.integers = p.split = true;
    return p.rows > most_tiled(&p) && block_launch(&p, &launch);
}
