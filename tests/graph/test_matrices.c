// Products and attention on matrix units, and products of floats that become integers for them: where they are chosen,
// what becomes of them where a driver cannot compile them, that a block's bits do not depend on products there, and its
// numbers hardly on attention there. The last two on a Vulkan device that has such units; they are skipped elsewhere,
// unless GYRE_TEST_REQUIRE names matrices.
#include "tests/graph/lab.h"
#include "backends/kernel_source.h"
#include "runtime/graph/tune.h"
#include "runtime/util/base.h"
#include "tests/common/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

static const struct gyre_matrix_shape amd = {16, 16, 16, 32}, nvidia = {16, 16, 32, 32}, intel = {8, 16, 32, 16};

static uint32_t count(gyre_graph *g, const char *end)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < gyre_graph_dispatch_count(g); i++) {
        const char *kernel = gyre_graph_dispatch_kernel(g, i);
        n += !strncmp(kernel, "matmul_", 7) && !strcmp(kernel + strlen(kernel) - strlen(end), end);
    }
    return n;
}

static uint32_t dispatches(gyre_graph *g, const char *kernel)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < gyre_graph_dispatch_count(g); i++) n += !strcmp(gyre_graph_dispatch_kernel(g, i), kernel);
    return n;
}

// A context of 256 positions in place of lab_block's 96: its rows begin at 30.
static void widen(struct lab *lab, struct block *b)
{
    enum { STRIDE = 8, SLOTS = 9 * 32 };
    const int32_t pages[2 * STRIDE] = {0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 3, 8, 4, 5, 7, 6};
    const uint64_t slots = (uint64_t)SLOTS * b->s.kv_heads, codes = slots * b->s.head_dim * b->s.kv_bits / 8;
    b->batch.pages = lab_bytes(lab, pages, sizeof pages);
    b->batch.page_stride = STRIDE;
    b->kv.k = lab_bytes(lab, NULL, codes), b->kv.v = lab_bytes(lab, NULL, codes);
    b->kv.k_meta = lab_bytes(lab, NULL, 4 * slots), b->kv.v_meta = lab_bytes(lab, NULL, 4 * slots);
}

static gyre_graph *block(struct lab *lab, struct block_shape shape, struct block *b)
{
    gyre_error err = {0};
    lab_block(lab, shape, b);
    widen(lab, b);
    gyre_graph *g = lab_block_graph(lab, b);
    if (gyre_graph_compile(g, NULL, &err)) fail_msg("%s", err.message);
    return g;
}

// A GPU that only records.
static void open_gpu(struct lab *lab, struct gyre_matrix_shape shape)
{
    assert_true(lab_open(lab, "null as a GPU", NULL));
    lab->device->info.int_dot = GYRE_INT_DOT_ACCELERATED;
    lab->device->info.matrix_s8 = shape;
}

static void many_rows_take_matrices(void **state)
{
    (void)state;
    static const struct {
        struct gyre_matrix_shape shape;
        uint32_t rows, act, group, shared, workgroup, products;
        gyre_weight_kind kind;
    } cases[] = {
        {amd, 128, 8, 0, 64, 1024, 5, GYRE_WEIGHT_W4},
        {amd, 65, 4, 32, 64, 1024, 5, GYRE_WEIGHT_W4},
        {amd, 65, 8, 0, 64, 1024, 5, GYRE_WEIGHT_W8},
        {nvidia, 512, 8, 32, 48, 1024, 5, GYRE_WEIGHT_W4},
        {intel, 512, 8, 0, 32, 256, 5, GYRE_WEIGHT_W4},
        {amd, 512, 8, 0, 16, 32, 5, GYRE_WEIGHT_W4},    // a workgroup of one subgroup
        {amd, 64, 8, 0, 64, 1024, 0, GYRE_WEIGHT_W4},   // few rows
        {amd, 128, 16, 0, 64, 1024, 0, GYRE_WEIGHT_W4}, // floats
        {amd, 128, 8, 16, 64, 1024, 0, GYRE_WEIGHT_W4}, // groups shorter than a step
        {amd, 128, 8, 0, 1, 1024, 0, GYRE_WEIGHT_W4},   // too little shared memory
        {amd, 128, 8, 0, 64, 16, 0, GYRE_WEIGHT_W4},    // less than a subgroup in a workgroup
        {{0}, 128, 8, 0, 64, 1024, 0, GYRE_WEIGHT_W4},  // no such units
    };
    for (size_t c = 0; c < GYRE_COUNT(cases); c++) {
        struct lab lab;
        struct block b;
        open_gpu(&lab, cases[c].shape);
        lab.device->info.shared_bytes = 64 << 10;
        gyre_graph *g = NULL;
        const struct block_shape shape = {.rows = cases[c].rows,
                                          .act_bits = cases[c].act,
                                          .kv_bits = 8,
                                          .kind = cases[c].kind,
                                          .group = cases[c].group};
        lab_block(&lab, shape, &b);
        g = lab_block_graph(&lab, &b);
        lab.device->info.max_workgroup = cases[c].workgroup;
        for (uint32_t i = 0; i < g->n_nodes; i++) {
            struct gyre_launch launch;
            if (g->nodes[i].op != GYRE_OP_matmul) continue;
            lab.device->info.shared_bytes = cases[c].shared << 10;
            assert_int_equal(gyre_tune(g, &g->nodes[i], &launch, NULL), GYRE_OK);
            lab.device->info.shared_bytes = 64 << 10;
            const struct gyre_kernel_source *source = gyre_kernel_source_find(launch.kernel.name);
            if (!!(source->needs & GYRE_NEED_CM_S8) != !!cases[c].products)
                fail_msg("case %zu takes %s", c, launch.kernel.name);
        }
        gyre_graph_destroy(g);
        lab_close(&lab);
    }
}

// A product of the size of a model covers 128 x 128 a workgroup; where that would leave a chip empty, less.
static void wide_products_take_large_blocks(void **state)
{
    (void)state;
    struct lab lab;
    struct block b;
    static const struct {
        uint32_t rows, n, tile_n, tile_r;
    } cases[] = {{512, 4096, 128, 128}, {128, 4096, 64, 64}, {65, 4096, 64, 64}, {512, 64, 64, 32}};
    open_gpu(&lab, amd);
    for (size_t c = 0; c < GYRE_COUNT(cases); c++) {
        struct gyre_launch launch;
        bool seen = false;
        lab_block(&lab,
                  (struct block_shape){.rows = cases[c].rows,
                                       .act_bits = 8,
                                       .kv_bits = 8,
                                       .kind = GYRE_WEIGHT_W4,
                                       .width = cases[c].n,
                                       .heads = 2,
                                       .kv_heads = 1,
                                       .head_dim = 32,
                                       .ffn = 64},
                  &b);
        gyre_graph *g = lab_block_graph(&lab, &b);
        for (uint32_t i = 0; i < g->n_nodes && !seen; i++) {
            if (g->nodes[i].op != GYRE_OP_matmul || g->values[g->nodes[i].in[1]].weight->n != cases[c].n) continue;
            assert_int_equal(gyre_tune(g, &g->nodes[i], &launch, NULL), GYRE_OK);
            assert_string_equal(launch.kernel.name, "matmul_w4_q_x");
            assert_int_equal(launch.tile[0], cases[c].tile_n);
            assert_int_equal(launch.tile[1], cases[c].tile_r);
            seen = true;
        }
        assert_true(seen);
        gyre_graph_destroy(g);
    }
    lab_close(&lab);
}

// What matmul_matrix.vk.k declares of shared memory, by its constants.
static uint32_t declared(const uint32_t *spec)
{
    const uint32_t lanes = spec[0] * spec[1], kq = spec[9], bm = spec[12] * spec[3] * spec[6] * (spec[1] / spec[8]),
                   bn = spec[4] * spec[7] * spec[8], x = bm * kq, w = bn / 2 * kq;
    const uint32_t tile = 2 * (bm + bn) * (4 * kq + 4), scales = 2 * (uint32_t)gyre_round_up(bn, lanes);
    return 4 *
           (tile + 4 * ((uint32_t)gyre_round_up(x, lanes) - x) + 8 * ((uint32_t)gyre_round_up(w, lanes) - w) + scales);
}

// And matmul_block.k.
static uint32_t declared_by_block(const uint32_t *spec)
{
    const uint32_t lanes = spec[0] * spec[1], x = spec[7] * spec[3] * spec[1] * spec[4],
                   spare = spec[7] == 1 ? 0 : (uint32_t)gyre_round_up(x, lanes) - x;
    return 16 * (2 * x + spare + 2 * 8 * spec[0] * spec[4]);
}

// However little there is: what is chosen fits, and with enough it is this kernel.
static void shared_memory_suffices(void **state)
{
    (void)state;
    struct lab lab;
    struct block b;
    open_gpu(&lab, amd);
    for (uint32_t i = 0; i < 6; i++) {
        const uint32_t group = i % 3 * 32;
        const struct block_shape shape = {.rows = 512,
                                          .act_bits = i < 3 ? 8 : 16,
                                          .kv_bits = 8,
                                          .kind = GYRE_WEIGHT_W4,
                                          .width = 4096,
                                          .heads = 2,
                                          .kv_heads = 1,
                                          .head_dim = 32,
                                          .ffn = 64,
                                          .group = group};
        lab_block(&lab, shape, &b);
        gyre_graph *g = lab_block_graph(&lab, &b);
        uint32_t product = 0, taken = 0;
        assert_int_equal(gyre_graph_plan(g, NULL, NULL), GYRE_OK);
        while (g->nodes[product].op != GYRE_OP_matmul || g->values[g->nodes[product].in[1]].weight->n != 4096)
            product++;
        for (uint32_t shared = 4 << 10; shared <= 64 << 10; shared += 256) {
            struct gyre_launch launch;
            lab.device->info.shared_bytes = shared;
            if (gyre_tune(g, &g->nodes[product], &launch, NULL) != GYRE_OK) continue; // others have needs, too
            if (!strcmp(launch.kernel.name, "matmul_w4_q_b") && declared_by_block(launch.kernel.spec) > shared)
                fail_msg("group %u: %u bytes where there are %u", group, declared_by_block(launch.kernel.spec), shared);
            if (strcmp(launch.kernel.name, "matmul_w4_q_x") != 0) continue;
            taken++;
            if (declared(launch.kernel.spec) > shared)
                fail_msg("group %u: %u bytes where there are %u", group, declared(launch.kernel.spec), shared);
        }
        assert_true(taken >= (i < 3 ? 64 * 2 : 64)); // from 32 KiB on, of three bytes from 48
        lab.device->info.shared_bytes = 64 << 10;
        gyre_graph_destroy(g);
    }
    lab_close(&lab);
}

// ---- floats as three bytes -----------------------------------------------------------------------------------

// Beyond 32 rows a product of floats reads codes of 24 bits where integers can multiply them.
static void floats_of_many_rows_become_bytes(void **state)
{
    (void)state;
    static const char bytes[] = "rms_norm quantize matmul rope_kv attn quantize matmul rms_norm quantize matmul "
                                "act_mul quantize matmul",
                      floats[] = "rms_norm matmul rope_kv attn matmul rms_norm matmul act_mul matmul";
    static const struct {
        struct gyre_matrix_shape shape;
        gyre_int_dot dots;
        uint32_t rows, group, width, shared;
        gyre_weight_kind kind;
        const char *ops, *kernel;
        uint32_t tile_n, tile_r; // of the product of gate and up
    } cases[] = {
        {amd, GYRE_INT_DOT_ACCELERATED, 512, 0, 4096, 64, GYRE_WEIGHT_W4, bytes, "matmul_w4_q_x", 128, 64},
        {amd, GYRE_INT_DOT_ACCELERATED, 512, 0, 4096, 64, GYRE_WEIGHT_W8, bytes, "matmul_w8_q_x", 128, 64},
        {amd, GYRE_INT_DOT_ACCELERATED, 512, 32, 4096, 64, GYRE_WEIGHT_W4Z, bytes, "matmul_w4_q_x", 128, 32},
        {nvidia, GYRE_INT_DOT_ACCELERATED, 512, 0, 4096, 48, GYRE_WEIGHT_W4, bytes, "matmul_w4_q_x", 128, 64},
        {{0}, GYRE_INT_DOT_ACCELERATED, 512, 0, 4096, 32, GYRE_WEIGHT_W4, bytes, "matmul_w4_q_b", 128, 16},
        {{0}, GYRE_INT_DOT_ACCELERATED, 512, 64, 4096, 32, GYRE_WEIGHT_W8, bytes, "matmul_w8_q_b", 128, 16},
        {amd, GYRE_INT_DOT_ACCELERATED, 33, 0, 4096, 64, GYRE_WEIGHT_W4, bytes, "matmul_w4_q_x", 64, 32},
        {{0}, GYRE_INT_DOT_ACCELERATED, 33, 0, 4096, 64, GYRE_WEIGHT_W4, bytes, "matmul_w4_q_b", 64, 16},
        {amd, GYRE_INT_DOT_ACCELERATED, 32, 0, 4096, 64, GYRE_WEIGHT_W4, floats, "matmul_w4_f_t", 32, 4},
        {amd, GYRE_INT_DOT_EMULATED, 512, 0, 4096, 64, GYRE_WEIGHT_W4, floats, "matmul_w4_f_m", 128, 16},
        {amd, GYRE_INT_DOT_ACCELERATED, 512, 16, 4096, 64, GYRE_WEIGHT_W4, floats, "matmul_w4_f_m", 128, 16},
        {amd, GYRE_INT_DOT_ACCELERATED, 512, 0, 4096, 4, GYRE_WEIGHT_W4, floats, "matmul_w4_f_m", 128, 16},
        {amd, GYRE_INT_DOT_ACCELERATED, 512, 0, 4096, 64, GYRE_WEIGHT_F16, floats, "matmul_f16_f_m", 128, 16},
    };
    for (size_t c = 0; c < GYRE_COUNT(cases); c++) {
        struct lab lab;
        struct block b;
        open_gpu(&lab, cases[c].shape);
        lab.device->info.int_dot = cases[c].dots;
        lab.device->info.shared_bytes = cases[c].shared << 10;
        lab_block(&lab,
                  (struct block_shape){.rows = cases[c].rows,
                                       .act_bits = 16,
                                       .kv_bits = 8,
                                       .kind = cases[c].kind,
                                       .group = cases[c].group,
                                       .width = cases[c].width,
                                       .heads = 2,
                                       .kv_heads = 1,
                                       .head_dim = 32,
                                       .ffn = 2048},
                  &b);
        gyre_graph *g = lab_block_graph(&lab, &b);
        char ops[256] = "";
        gyre_error err = {0};
        if (gyre_graph_plan(g, NULL, &err)) fail_msg("case %zu: %s", c, err.message);
        for (uint32_t i = 0, n = 0; i < g->n_nodes; i++) {
            struct gyre_launch launch;
            n += (uint32_t)snprintf(ops + n, sizeof ops - n, "%s%s", i ? " " : "", gyre_ops[g->nodes[i].op].name);
            if (g->nodes[i].op == GYRE_OP_quantize) {
                const struct gyre_value_info *y = &g->values[g->nodes[i].out[0]];
                assert_int_equal(gyre_tune(g, &g->nodes[i], &launch, NULL), GYRE_OK);
                assert_string_equal(launch.kernel.name, "quantize_i24");
                assert_int_equal(y->plane[0].bytes, 3ull * y->rows * y->width);
            }
            if (g->nodes[i].op != GYRE_OP_matmul || g->values[g->nodes[i].in[1]].weight->n != 4096 ||
                g->values[g->nodes[i].in[1]].weight->k != cases[c].width)
                continue;
            assert_int_equal(gyre_tune(g, &g->nodes[i], &launch, NULL), GYRE_OK);
            if (strcmp(launch.kernel.name, cases[c].kernel) != 0 || launch.tile[0] != cases[c].tile_n ||
                launch.tile[1] != cases[c].tile_r)
                fail_msg("case %zu takes %s, %u x %u", c, launch.kernel.name, launch.tile[0], launch.tile[1]);
            const uint32_t planes = !strcmp(cases[c].ops, floats)          ? 0
                                    : !strcmp(cases[c].kernel + 9, "_q_x") ? launch.kernel.spec[12]
                                                                           : launch.kernel.spec[7];
            if (planes) assert_int_equal(planes, 3);
        }
        assert_string_equal(ops, cases[c].ops);
        gyre_graph_destroy(g);
        lab_close(&lab);
    }
}

// Two products of the same floats share their codes; codes of 24 bits are nothing that a caller asks for.
static void bytes_are_made_once(void **state)
{
    (void)state;
    struct lab lab;
    gyre_graph *g = NULL;
    gyre_error err = {0};
    open_gpu(&lab, amd);
    const struct gyre_weight w[2] = {lab_weight(&lab, GYRE_WEIGHT_W4, 96, 64, 0, 1),
                                     lab_weight(&lab, GYRE_WEIGHT_W8, 40, 64, 32, 1)};
    const struct gyre_binding x = lab_floats(&lab, 70 * 64, 0, 1),
                              y[2] = {lab_bytes(&lab, NULL, 4 * 70 * 96), lab_bytes(&lab, NULL, 4 * 70 * 40)};
    assert_int_equal(gyre_graph_create(lab.device, 70, NULL, &g, NULL), GYRE_OK);
    const gyre_value v = gyre_g_external(g, "x", 70, 64, x);
    for (int i = 0; i < 2; i++) gyre_g_output(g, gyre_g_matmul(g, v, &w[i]), y[i]);
    if (gyre_graph_compile(g, NULL, &err)) fail_msg("%s", err.message);
    assert_int_equal(gyre_graph_dispatch_count(g), 3);
    assert_int_equal(dispatches(g, "quantize_i24"), 1);
    assert_int_equal(count(g, "_q_x"), 2);
    gyre_graph_destroy(g);
    assert_int_equal(gyre_graph_create(lab.device, 70, NULL, &g, NULL), GYRE_OK);
    assert_int_equal(gyre_g_quantize(g, gyre_g_external(g, "x", 70, 64, x), 24, 1), GYRE_NONE);
    assert_int_equal(gyre_graph_plan(g, NULL, &err), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "24 bits"));
    gyre_graph_destroy(g);
    lab_close(&lab);
}

// ---- attention ---------------------------------------------------------------------------------------------

// What attn_matrix.vk.k declares of shared memory, by its constants.
static uint32_t declared_by_attention(const uint32_t *spec)
{
    const uint32_t lanes = spec[0] * spec[1], queries = spec[3] * spec[1], bits[2] = {spec[6], spec[7]}, hd = spec[8],
                   rt = spec[9], block = spec[11], pairs = spec[12], sharers = spec[13], line = hd / 2 + 4;
    uint32_t tile = queries * line * pairs + 2 * block * line + queries * (block + 4);
    for (int i = 0; i < 2; i++) {
        const uint32_t pieces = block * (hd * bits[i] / 128);
        tile += 512 / bits[i] / 8 * ((pieces + lanes - 1) / lanes * lanes - pieces);
    }
    const uint32_t by = queries + 3 * ((block + lanes - 1) / lanes) * lanes + lanes * (spec[3] * sharers / spec[0]);
    return 4 * (tile + by) + 8 * rt;
}

static gyre_graph *attention(struct lab *lab, struct block *b, uint32_t rows, uint32_t heads, uint32_t hd,
                             uint32_t k_bits, uint32_t v_bits, uint32_t *node)
{
    lab_block(lab,
              (struct block_shape){.rows = rows,
                                   .act_bits = 8,
                                   .kv_bits = k_bits,
                                   .kv_bits_v = v_bits,
                                   .kind = GYRE_WEIGHT_W4,
                                   .width = 64,
                                   .heads = heads,
                                   .kv_heads = 2,
                                   .head_dim = hd,
                                   .ffn = 64},
              b);
    gyre_graph *g = lab_block_graph(lab, b);
    *node = 0;
    while (g->nodes[*node].op != GYRE_OP_attn) ++*node;
    return g;
}

static void many_rows_attend_on_matrices(void **state)
{
    (void)state;
    static const struct {
        struct gyre_matrix_shape shape;
        uint32_t rows, heads, hd, k_bits, v_bits, shared, gt, rt, block, pairs, sharers; // gt 0: another kernel
    } cases[] = {
        {{16, 16, 16, 32}, 65, 8, 128, 8, 8, 64, 4, 16, 32, 1, 2},
        {{16, 16, 16, 32}, 512, 6, 64, 4, 4, 64, 3, 21, 32, 1, 2},
        {{16, 16, 16, 32}, 512, 2, 256, 8, 8, 64, 1, 64, 16, 1, 2},
        {{16, 16, 16, 32}, 128, 8, 128, 16, 16, 64, 4, 16, 32, 2, 2}, // halves of the cache want pairs
        {{16, 16, 16, 32}, 128, 8, 128, 8, 16, 48, 4, 8, 32, 2, 2},   // NVIDIA's shared memory
        {{8, 16, 16, 16}, 128, 8, 64, 8, 8, 64, 4, 16, 32, 1, 2},     // Intel's
        {{16, 16, 16, 64}, 128, 8, 64, 8, 8, 64, 4, 16, 32, 1, 4},
        {{24, 16, 16, 24}, 128, 8, 64, 8, 8, 64, 4, 12, 32, 1, 1}, // 48 queries
        {{16, 16, 16, 32}, 64, 8, 64, 8, 8, 64, 0, 0, 0, 0, 0},    // few rows
        {{16, 16, 16, 32}, 128, 8, 80, 4, 4, 64, 0, 0, 0, 0, 0},   // vectors of 40 bytes
        {{16, 16, 16, 32}, 128, 8, 24, 8, 8, 64, 0, 0, 0, 0, 0},   // no whole matrices
        {{0}, 128, 8, 64, 8, 8, 64, 0, 0, 0, 0, 0},
    };
    for (size_t c = 0; c < GYRE_COUNT(cases); c++) {
        struct lab lab;
        struct block b;
        uint32_t node;
        struct gyre_launch launch;
        open_gpu(&lab, amd);
        lab.device->info.matrix_f16 = cases[c].shape;
        gyre_graph *g =
            attention(&lab, &b, cases[c].rows, cases[c].heads, cases[c].hd, cases[c].k_bits, cases[c].v_bits, &node);
        lab.device->info.shared_bytes = cases[c].shared << 10;
        assert_int_equal(gyre_tune(g, &g->nodes[node], &launch, NULL), GYRE_OK);
        if (strcmp(launch.kernel.name, cases[c].gt ? "attn_x" : "attn_m") != 0)
            fail_msg("case %zu takes %s", c, launch.kernel.name);
        if (cases[c].gt) {
            const uint32_t want[] = {cases[c].rt, cases[c].gt, cases[c].block, cases[c].pairs, cases[c].sharers};
            for (int i = 0; i < 5; i++)
                if (launch.kernel.spec[9 + i] != want[i])
                    fail_msg("case %zu: constant %d is %u, want %u", c, 9 + i, launch.kernel.spec[9 + i], want[i]);
            assert_int_equal(launch.tile[0], cases[c].gt);
            assert_int_equal(launch.tile[1], cases[c].rt);
        }
        gyre_graph_destroy(g);
        lab_close(&lab);
    }
}

// However little shared memory there is: what is chosen fits.
static void shared_memory_suffices_for_attention(void **state)
{
    (void)state;
    struct lab lab;
    struct block b;
    open_gpu(&lab, amd);
    lab.device->info.matrix_f16 = amd;
    for (uint32_t bits = 4; bits <= 16; bits *= 2)
        for (uint32_t hd = 64; hd <= 256; hd += 64) {
            uint32_t node, taken = 0;
            gyre_graph *g = attention(&lab, &b, 128, 8, hd, bits, 8, &node);
            for (uint32_t shared = 4 << 10; shared <= 64 << 10; shared += 128) {
                struct gyre_launch launch;
                lab.device->info.shared_bytes = shared;
                if (gyre_tune(g, &g->nodes[node], &launch, NULL) != GYRE_OK) continue; // attn.k has needs, too
                if (strcmp(launch.kernel.name, "attn_x") != 0) continue;
                taken++;
                if (declared_by_attention(launch.kernel.spec) > shared)
                    fail_msg("heads of %u, %u bits: %u bytes where there are %u", hd, bits,
                             declared_by_attention(launch.kernel.spec), shared);
            }
            assert_true(taken >= 24 * 8); // from 40 KiB on
            lab.device->info.shared_bytes = 64 << 10;
            gyre_graph_destroy(g);
        }
    lab_close(&lab);
}

// ---- a driver that offers what it cannot compile -----------------------------------------------------------

static const struct gyre_backend *whole;
static gyre_status failure; // of its kernels for matrices

static gyre_status no_matrices(gyre_device *device, const struct gyre_kernel_source *source,
                               const struct gyre_kernel_params *params, gyre_kernel **out, gyre_error *err)
{
    if (source->needs & GYRE_NEED_MATRICES)
        return gyre_fail(err, failure, "cannot create kernel (%s): this compiler fails", source->name);
    return whole->kernel_create(device, source, params, out, err);
}

static uint32_t lines;
static char first_line[256], last_line[256]; // behind the name of the device

static void keep_line(void *user, gyre_log_level level, const char *line)
{
    (void)user;
    if (level > GYRE_LOG_WARN) return;
    line = strstr(line, "its matrix units");
    assert_non_null(line);
    snprintf(lines++ ? last_line : first_line, sizeof last_line, "%s", line);
}

static void what_does_not_compile_is_done_without(void **state)
{
    (void)state;
    const gyre_log log = {keep_line, NULL, GYRE_LOG_WARN};
    struct lab lab;
    struct block b;
    open_gpu(&lab, amd);
    lab.device->info.matrix_f16 = amd;
    whole = lab.device->backend;
    struct gyre_backend broken = *whole;
    broken.kernel_create = no_matrices;
    lab.device->backend = &broken;
    lab.device->options.log = &log;
    lines = 0;
    failure = GYRE_E_DEVICE;
    for (int again = 0; again < 2; again++) { // the second does not try
        gyre_graph *g =
            block(&lab, (struct block_shape){.rows = 128, .act_bits = 8, .kv_bits = 8, .kind = GYRE_WEIGHT_W4}, &b);
        assert_int_equal(count(g, "_q_x"), 0);
        assert_int_equal(count(g, "_q_b"), 5);
        assert_int_equal(dispatches(g, "attn_m"), 1);
        assert_int_equal(lines, 2);
        gyre_graph_destroy(g);
    }
    assert_string_equal(first_line,
                        "its matrix units are not used: cannot create kernel (matmul_w4_q_x): this compiler fails");
    assert_string_equal(last_line,
                        "its matrix units for f16 are not used: cannot create kernel (attn_x): this compiler fails");
    lab.device->backend = whole;
    lab.device->options.log = &lab.log;
    lab_close(&lab);
}

// A kernel that needs nothing of the kind fails as it did, and so does a product for any other reason.
static void other_failures_stay(void **state)
{
    (void)state;
    struct lab lab;
    struct block b;
    const gyre_log log = {keep_line, NULL, GYRE_LOG_WARN};
    open_gpu(&lab, amd);
    const uint32_t groups = lab.device->info.max_groups[0];
    whole = lab.device->backend;
    struct gyre_backend broken = *whole;
    broken.kernel_create = no_matrices;
    lab.device->options.log = &log;
    lines = 0;
    static const gyre_status failures[] = {GYRE_E_NOMEM, GYRE_E_DEVICE_MEM, GYRE_E_UNSUPPORTED};
    for (size_t i = 0; i < GYRE_COUNT(failures); i++) {
        lab_block(&lab, (struct block_shape){.rows = 128, .act_bits = 8, .kv_bits = 8, .kind = GYRE_WEIGHT_W4}, &b);
        gyre_graph *g = lab_block_graph(&lab, &b);
        failure = failures[i];
        if (failure == GYRE_E_UNSUPPORTED) lab.device->info.max_groups[0] = 1; // a grid that is too large
        else lab.device->backend = &broken;
        assert_int_equal(gyre_graph_compile(g, NULL, NULL), failure);
        lab.device->backend = whole;
        lab.device->info.max_groups[0] = groups;
        gyre_graph_destroy(g);
        assert_int_equal(lines, 0);
        assert_int_equal(lab.device->info.matrix_s8.m, 16);
    }
    lab.device->options.log = &lab.log;
    assert_false(gyre_device_forgo(lab.device, "matmul_w4_q_b", GYRE_E_DEVICE, NULL));
    assert_false(gyre_device_forgo(lab.device, "no_such_kernel", GYRE_E_DEVICE, NULL));
    assert_int_equal(lab.device->info.matrix_s8.m, 16);
    lab_close(&lab);
}

// ---- on a device ---------------------------------------------------------------------------------------------

// What a block writes; g is destroyed.
static float *run(struct lab *lab, gyre_graph *g, const struct block *b)
{
    float *y = calloc(1, b->y.size);
    assert_non_null(y);
    assert_int_equal(gyre_graph_submit(g, NULL), GYRE_OK);
    lab_read(lab, b->y, y);
    gyre_graph_destroy(g);
    return y;
}

static float *block_output(struct lab *lab, struct block_shape shape, bool matrices)
{
    struct block b;
    if (!matrices) lab->device->info.matrix_s8 = (struct gyre_matrix_shape){0};
    lab->random = 7;
    gyre_graph *g = block(lab, shape, &b);
    if (matrices) assert_int_equal(count(g, "_q_x"), 5);
    else assert_int_equal(count(g, "_q_x"), 0);
    return run(lab, g, &b);
}

static void blocks_have_the_same_bits(void **state)
{
    (void)state;
    static const struct block_shape shapes[] = {
        {.rows = 65, .act_bits = 8, .kv_bits = 8, .kind = GYRE_WEIGHT_W4, .r3 = true, .r4 = true},
        {.rows = 200, .act_bits = 4, .kv_bits = 4, .kind = GYRE_WEIGHT_W4, .group = 32, .r4 = true},
        {.rows = 128, .act_bits = 8, .kv_bits = 8, .kind = GYRE_WEIGHT_W8},
        {.rows = 70, .act_bits = 8, .kv_bits = 8, .kind = GYRE_WEIGHT_W4Z, .group = 32},
        {.rows = 33, .act_bits = 16, .kv_bits = 16, .kind = GYRE_WEIGHT_W4, .r4 = true}, // as three bytes
        {.rows = 130, .act_bits = 16, .kv_bits = 8, .kind = GYRE_WEIGHT_W4Z, .group = 32, .r3 = true},
        {.rows = 70, .act_bits = 16, .kv_bits = 16, .kind = GYRE_WEIGHT_W8},
    };
    for (size_t s = 0; s < GYRE_COUNT(shapes); s++) {
        struct lab lab;
        if (!lab_open(&lab, "vulkan:0 as a GPU", NULL)) skip();
        if (!lab.device->info.matrix_s8.m) {
            lab_close(&lab);
            if (device_required("matrices")) fail_msg("vulkan:0 has no matrix units");
            skip();
        }
        float *with = block_output(&lab, shapes[s], true), *without = block_output(&lab, shapes[s], false);
        assert_memory_equal(with, without, sizeof *with * shapes[s].rows * 64);
        double power = 0;
        for (size_t i = 0; i < shapes[s].rows * 64u; i++) power += (double)with[i] * with[i];
        assert_true(power > 0); // NaN neither
        free(with);
        free(without);
        lab_close(&lab);
    }
}

static float *attended(struct lab *lab, struct block_shape shape, bool matrices)
{
    struct block b;
    if (!matrices) lab->device->info.matrix_f16 = (struct gyre_matrix_shape){0};
    lab->random = 7;
    gyre_graph *g = block(lab, shape, &b);
    assert_int_equal(dispatches(g, "attn_x"), matrices);
    return run(lab, g, &b);
}

// Where nothing behind it rounds: a block of float activations differs by what attention rounds.
static void attention_changes_little(void **state)
{
    (void)state;
    static const struct {
        struct block_shape shape;
        double bound;
    } cases[] = {
        {{.rows = 70, .act_bits = 16, .kv_bits = 16, .kind = GYRE_WEIGHT_W8}, 1e-11},
        {{.rows = 130, .act_bits = 16, .kv_bits = 8, .kind = GYRE_WEIGHT_W8, .r3 = true, .centred = true}, 1e-7},
        {{.rows = 65, .act_bits = 16, .kv_bits = 4, .kind = GYRE_WEIGHT_W8, .r3 = true}, 1e-7},
    };
    for (size_t c = 0; c < GYRE_COUNT(cases); c++) {
        struct lab lab;
        if (!lab_open(&lab, "vulkan:0 as a GPU", NULL)) skip();
        if (!lab.device->info.matrix_f16.m) {
            lab_close(&lab);
            if (device_required("matrices")) fail_msg("vulkan:0 has no matrix units for halves");
            skip();
        }
        float *with = attended(&lab, cases[c].shape, true), *without = attended(&lab, cases[c].shape, false);
        double power = 0, error = 0;
        for (size_t i = 0; i < cases[c].shape.rows * 64u; i++) {
            power += (double)without[i] * without[i];
            error += ((double)with[i] - without[i]) * ((double)with[i] - without[i]);
        }
        if (!(power > 0) || !(error <= cases[c].bound * power)) // NaN neither
            fail_msg("case %zu: NMSE %g, at most %g", c, error / power, cases[c].bound);
        free(with);
        free(without);
        lab_close(&lab);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_rows_take_matrices),      cmocka_unit_test(wide_products_take_large_blocks),
        cmocka_unit_test(shared_memory_suffices),       cmocka_unit_test(what_does_not_compile_is_done_without),
        cmocka_unit_test(other_failures_stay),          cmocka_unit_test(blocks_have_the_same_bits),
        cmocka_unit_test(many_rows_attend_on_matrices), cmocka_unit_test(shared_memory_suffices_for_attention),
        cmocka_unit_test(attention_changes_little),     cmocka_unit_test(floats_of_many_rows_become_bytes),
        cmocka_unit_test(bytes_are_made_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
