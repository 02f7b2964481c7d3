// See tune.h: attention. The conventions of each kernel stand in the comment that opens its .k file.
#include "runtime/graph/tune.h"
#include "runtime/graph/tune_parts.h"

// ---- many rows on matrix units -------------------------------------------------------------------------

// attn_matrix.vk.k: constants, and whether they fit.
struct attn_cut {
    uint32_t subgroups, block, pairs, sharers, rt, gt;
};

// Bytes of shared memory, as the kernel declares it.
static uint32_t matrix_shared(const struct attn_cut *c, struct gyre_matrix_shape s, uint32_t hd, uint32_t k_bits,
                              uint32_t v_bits)
{
    const uint32_t lanes_ = c->subgroups * s.lanes, queries = c->subgroups * s.m, line = hd / 2 + 4;
    const uint32_t k = c->block * hd * k_bits / 128, v = c->block * hd * v_bits / 128; // pieces of 16 bytes
    const uint32_t spare =
        64 / k_bits * ((uint32_t)gyre_round_up(k, lanes_) - k) + 64 / v_bits * ((uint32_t)gyre_round_up(v, lanes_) - v);
    const uint32_t tile = queries * line * c->pairs + 2 * c->block * line + queries * (c->block + 4) + spare;
    const uint32_t by = queries + 3 * (uint32_t)gyre_round_up(c->block, lanes_) + queries * c->sharers;
    return 4 * (tile + by) + 8 * c->rt;
}

// The heads that share a kv head, all or a part of them, and as many rows as there is room for.
static void share_queries(struct attn_cut *c, uint32_t queries, uint32_t sharing)
{
    c->gt = GYRE_MIN(sharing, queries);
    while (sharing % c->gt) c->gt--;
    c->rt = queries / c->gt;
}

// For as many rows as products on matrix units, where a subgroup multiplies matrices of halves: 64 queries a workgroup
// and blocks of 32 positions, or as many as shared memory holds.
static bool matrix_launch(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out)
{
    enum { QUERIES = 64, LANES = 256 };
    const struct gyre_device_info *info = gyre_device_info(g->device);
    const struct gyre_matrix_shape s = info->matrix_f16;
    const struct gyre_attn_params *p = &node->params.attn;
    const struct gyre_value_info *pool = &g->values[node->in[1]];
    const uint32_t hd = (uint32_t)p->hd, sharing = (uint32_t)(p->heads / p->kv_heads);
    struct attn_cut c = {.pairs = GYRE_MAX(pool->bits, pool->bits_v) == 16 ? 2 : 1};
    if (!s.m || info->lanes != GYRE_LANES_HARDWARE || p->rows <= MOST_TILED || hd > 256 || hd % s.k || hd % s.n ||
        hd > 32 * s.n || hd * pool->bits % 128 || hd * pool->bits_v % 128 || s.lanes > info->max_group_size[0])
        return false;
    c.sharers = GYRE_MAX(1u, s.lanes / s.m);
    if (s.m * c.sharers % s.lanes) return false;
    for (uint32_t queries = QUERIES; queries >= s.m; queries /= 2)
        for (c.block = 32; c.block >= 16; c.block /= 2) {
            c.subgroups = queries / s.m;
            share_queries(&c, c.subgroups * s.m, sharing);
            const uint64_t context = 32 * (uint64_t)p->page_stride;
            const uint64_t sequences = g->values[g->batch_pages].plane[0].bytes / 4 / (uint64_t)p->page_stride;
            if (c.block % s.k || c.block % s.n || c.block / 2 % c.sharers ||
                c.subgroups * s.lanes > GYRE_MIN((uint32_t)LANES, info->max_workgroup) ||
                c.subgroups > info->max_group_size[1] ||
                matrix_shared(&c, s, hd, pool->bits, pool->bits_v) > info->shared_bytes ||
                !runs(info, GYRE_MIN(sequences, (uint64_t)c.rt) * (gyre_div_up(context, c.block) + c.rt) + hd +
                                (uint64_t)s.m * hd / s.lanes))
                continue;
            if (start(out, "attn", GYRE_FORM_MATRIX, s.lanes, c.subgroups, NULL) != GYRE_OK) return false;
            set(out, "TM", s.m);
            set(out, "TN", s.n);
            set(out, "TK", s.k);
            set_pool(out, pool);
            set(out, "HD", hd);
            set(out, "RT", c.rt);
            set(out, "GT", c.gt);
            set(out, "BK", c.block);
            set(out, "PAIRS", c.pairs);
            set(out, "SHARERS", c.sharers);
            out->tile[0] = c.gt;
            out->tile[1] = c.rt;
            return true;
        }
    return false;
}

// ---- whole ---------------------------------------------------------------------------------------------

// Rounds of an invocation of attn.k for a context as long as the page table allows, in each sequence of a tile.
static uint64_t attn_loops(const gyre_graph *g, const struct gyre_attn_params *p, uint32_t wgx, uint32_t pt,
                           uint32_t rt)
{
    const uint64_t context = 32 * (uint64_t)p->page_stride, block = (uint64_t)wgx * pt;
    const uint64_t sequences = g->values[g->batch_pages].plane[0].bytes / 4 / (uint64_t)p->page_stride;
    const uint32_t chunks = (uint32_t)p->hd / 8, parts = GYRE_MAX(wgx / chunks, 1u);
    return GYRE_MIN(sequences, (uint64_t)rt) * gyre_div_up(context, block) * (chunks + wgx / 8 + block / parts + 2);
}

// attn.k: a workgroup answers RT rows x GT query heads of one kv head, so a cached vector is read once for all of them.
gyre_status gyre_tune_attn(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out, gyre_error *err)
{
    const struct gyre_device_info *info = gyre_device_info(g->device);
    const struct gyre_attn_params *p = &node->params.attn;
    if (matrix_launch(g, node, out)) return GYRE_OK;
    const bool hardware = info->lanes == GYRE_LANES_HARDWARE, many = p->rows >= 8;
    const uint32_t sharing = (uint32_t)(p->heads / p->kv_heads), hd = (uint32_t)p->hd; // query heads per kv head
    const uint32_t pt = hardware ? 1 : 4, queries = hardware ? 8 : 16, rt = many ? 4 : 1;
    uint32_t gt = sharing, wgx = hardware ? 64 : 8;
    while (!runs(info, attn_loops(g, p, wgx, pt, rt))) { // a larger block goes through the cache in fewer rounds
        if (2 * wgx > 256 || 2 * wgx > info->max_workgroup)
            return too_long(info, "attention", 32 * (uint64_t)p->page_stride, err);
        wgx *= 2;
    }
    while (gt > 1 && (sharing % gt || gt * rt > queries)) gt--;
    for (;; gt--) { // shared memory as in the kernel's comment
        const uint32_t q4 = (rt * gt + 3) / 4;
        if (sharing % gt == 0 && 16 * q4 * (hd + wgx * pt + wgx) + 80 * rt * gt + 64 <= info->shared_bytes) break;
        if (gt == 1)
            return gyre_fail(err, GYRE_E_UNSUPPORTED,
                             "cannot run attention on %s: heads of %u need more than its %u bytes of shared memory",
                             info->id, hd, info->shared_bytes);
    }
    GYRE_TRY(start(out, "attn", many ? GYRE_FORM_MANY : GYRE_FORM_ONE, wgx, 1, err));
    set_pool(out, &g->values[node->in[1]]);
    set(out, "HD", hd);
    set(out, "RT", rt);
    set(out, "GT", gt);
    set(out, "PT", pt);
    out->tile[0] = gt;
    out->tile[1] = rt;
    return GYRE_OK;
}

// ---- in parts ------------------------------------------------------------------------------------------

// attn_split.k: the query heads that share a kv head, as many as its registers and shared memory hold.
enum { SPLIT_ROWS = 8, SPLIT_WGX = 128, MOST_SPLITS = 64, SPLIT_GROUPS = 512, SPLIT_BLOCK = 64 };

static uint32_t split_shared(uint32_t hd, uint32_t gt, uint32_t wgx)
{
    const uint32_t chunks = hd / 16, lanes_ = chunks > 8 ? 16 : chunks > 4 ? 8 : chunks > 2 ? 4 : chunks;
    return 4 * (GYRE_MAX(gt * lanes_ * (SPLIT_BLOCK + 1), 16 * wgx) + gt * (hd + SPLIT_BLOCK + 18));
}

static uint32_t split_heads(const struct gyre_device_info *info, uint32_t sharing, uint32_t hd, uint32_t wgx)
{
    uint32_t gt = GYRE_MIN(sharing, hd > 128 ? 2u : hd > 64 ? 4u : 8u);
    while (gt > 1 && (sharing % gt || split_shared(hd, gt, wgx) > info->shared_bytes)) gt--;
    return gt;
}

static uint32_t split_lanes(const struct gyre_device_info *info)
{
    uint32_t wgx = SPLIT_WGX;
    while (wgx > info->max_workgroup || wgx > info->max_group_size[0]) wgx /= 2;
    return wgx;
}

// So many parts that a few rows fill a chip, and no more than the context has blocks of positions.
uint32_t gyre_tune_attn_splits(const gyre_graph *g, const struct gyre_node *node)
{
    const struct gyre_device_info *info = gyre_device_info(g->device);
    const struct gyre_attn_params *p = &node->params.attn;
    const uint32_t hd = (uint32_t)p->hd, sharing = (uint32_t)(p->heads / p->kv_heads), wgx = split_lanes(info);
    if (info->lanes != GYRE_LANES_HARDWARE || p->rows > SPLIT_ROWS || hd % 16 || hd > 256 || wgx < 32) return 1;
    const uint32_t gt = split_heads(info, sharing, hd, wgx), groups = (uint32_t)(p->heads * p->rows) / gt;
    if (split_shared(hd, gt, wgx) > info->shared_bytes) return 1;
    const uint32_t blocks = (uint32_t)gyre_div_up(32 * (uint64_t)p->page_stride, SPLIT_BLOCK);
    return GYRE_MAX(1u, GYRE_MIN(GYRE_MIN(SPLIT_GROUPS / groups, blocks), (uint32_t)MOST_SPLITS));
}

gyre_status gyre_tune_attn_split(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                                 gyre_error *err)
{
    const struct gyre_device_info *info = gyre_device_info(g->device);
    const struct gyre_attn_split_params *p = &node->params.attn_split;
    const uint32_t hd = (uint32_t)p->hd, wgx = split_lanes(info),
                   gt = split_heads(info, (uint32_t)(p->heads / p->kv_heads), hd, wgx);
    GYRE_TRY(start(out, "attn_split", GYRE_FORM_ONE, wgx, 1, err));
    set_pool(out, &g->values[node->in[1]]);
    set(out, "HD", hd);
    set(out, "GT", gt);
    out->tile[0] = gt;
    return GYRE_OK;
}

gyre_status gyre_tune_attn_merge(const gyre_graph *g, const struct gyre_node *node, struct gyre_launch *out,
                                 gyre_error *err)
{
    return start(out, "attn_merge", GYRE_FORM_ONE,
                 lanes(gyre_device_info(g->device), GYRE_MIN((uint32_t)node->params.attn_merge.hd, 128u)), 1, err);
}
