// The dispatches of lowered graphs as data, on a device that computes nothing.
#include "tests/graph/lab.h"
#include "backends/kernel_source.h"
#include "runtime/util/base.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

static gyre_graph *compile(const struct block *b, bool no_fuse)
{
    gyre_graph *g = lab_block_graph(&null_lab, b);
    gyre_error err = {0};
    if (gyre_graph_compile(g, &(struct gyre_graph_options){.no_fuse = no_fuse}, &err)) fail_msg("%s", err.message);
    return g;
}

// "A8" and "A4" mean it: no product of dequantized codes.
static void quantized_activations_meet_integer_products_only(void **state)
{
    (void)state;
    for (uint32_t bits = 4; bits <= 8; bits += 4)
        for (uint32_t rows = 1; rows <= 32; rows += 31) {
            struct block b;
            lab_block(&null_lab,
                      (struct block_shape){.rows = rows,
                                           .act_bits = bits,
                                           .kv_bits = 8,
                                           .group = 32,
                                           .kind = GYRE_WEIGHT_W4,
                                           .r3 = true,
                                           .r4 = true},
                      &b);
            gyre_graph *g = compile(&b, false);
            uint32_t products = 0;
            for (uint32_t i = 0; i < gyre_graph_dispatch_count(g); i++) {
                const char *kernel = gyre_graph_dispatch_kernel(g, i);
                if (strcmp(gyre_graph_dispatch_op(g, i), "matmul")) continue;
                products++;
                assert_int_equal(strncmp(kernel, "matmul_w4_q_", 12), 0);
            }
            assert_int_equal(products, 5); // qkv, o, gate and up in two ranges, down
            gyre_graph_destroy(g);
        }
}

// On hardware few rows take a tile of the weight a workgroup and attention in parts of the context; many rows and CPUs
// do not.
static void hardware_has_kernels_for_few_rows(void **state)
{
    (void)state;
    static const struct {
        const char *device;
        uint32_t rows;
        bool few;
        uint32_t dispatches;
        gyre_int_dot dot; // with dot products in hardware, many rows go in blocks
    } cases[] = {{"null as a GPU", 1, true, 9, GYRE_INT_DOT_NONE},
                 {"null as a GPU", 8, true, 12, GYRE_INT_DOT_NONE},
                 {"null as a GPU", 128, false, 11, GYRE_INT_DOT_NONE},
                 {"null as a GPU", 128, false, 11, GYRE_INT_DOT_ACCELERATED},
                 {"null", 1, false, 11, GYRE_INT_DOT_NONE}};
    for (size_t c = 0; c < GYRE_COUNT(cases); c++) {
        struct lab lab;
        struct block b;
        uint32_t blocks = 0, tiles = 0, products = 0, parts = 0, sums = 0, whole = 0, quantizing = 0;
        assert_true(lab_open(&lab, cases[c].device, NULL));
        lab.device->info.int_dot = cases[c].dot;
        lab_block(
            &lab,
            (struct block_shape){
                .rows = cases[c].rows, .act_bits = 8, .kv_bits = 8, .kind = GYRE_WEIGHT_W4, .r3 = true, .r4 = true},
            &b);
        b.batch.page_stride = 16; // a context of 512
        b.batch.pages = lab_bytes(&lab, NULL, 4ull * 3 * 16);
        gyre_graph *g = lab_block_graph(&lab, &b);
        assert_int_equal(gyre_graph_compile(g, NULL, NULL), GYRE_OK);
        for (uint32_t i = 0; i < gyre_graph_dispatch_count(g); i++) {
            const char *kernel = gyre_graph_dispatch_kernel(g, i);
            products += strstr(kernel, "matmul_w4_q_") != NULL;
            tiles += !strcmp(kernel, "matmul_w4_q_t") || !strcmp(kernel, "quant_matmul_w4_q_t");
            blocks += !strcmp(kernel, "matmul_w4_q_b");
            quantizing += !strcmp(kernel, "quant_matmul_w4_q_t");
            sums += !strcmp(kernel, "attn_merge"),
                whole += !strncmp(kernel, "attn_v", 6) || !strncmp(kernel, "attn_m", 7);
            if (strcmp(kernel, "attn_split")) continue;
            parts++;
            assert_int_equal(gyre_graph_dispatches(g)[i].groups[2], 8); // blocks of 64 positions
        }
        assert_int_equal(products, 5);
        assert_int_equal(tiles, cases[c].few ? products : 0);
        assert_int_equal(blocks, cases[c].dot ? products : 0);
        assert_int_equal(quantizing, cases[c].dispatches == 9 ? 4 : 0); // all that no Hadamard transform comes before
        assert_int_equal(gyre_graph_dispatch_count(g), cases[c].dispatches); // gate and up lie in two ranges
        assert_int_equal(parts, cases[c].few ? 1 : 0);
        assert_int_equal(sums, parts);
        assert_int_equal(whole, 1 - parts);
        gyre_graph_destroy(g);
        lab_close(&lab);
    }
}

// Where int8 dot products are hardware, products of floats of one row make three bytes of each number, and bring the
// norm before them along.
static void floats_of_a_row_become_bytes(void **state)
{
    (void)state;
    static const struct {
        uint32_t rows, split, norms;
        gyre_int_dot dot;
        gyre_weight_kind kind;
    } cases[] = {{1, 5, 0, GYRE_INT_DOT_ACCELERATED, GYRE_WEIGHT_W4},
                 {1, 5, 0, GYRE_INT_DOT_ACCELERATED, GYRE_WEIGHT_W8},
                 {2, 0, 2, GYRE_INT_DOT_ACCELERATED, GYRE_WEIGHT_W4},
                 {1, 0, 2, GYRE_INT_DOT_EMULATED, GYRE_WEIGHT_W4},
                 {1, 0, 2, GYRE_INT_DOT_ACCELERATED, GYRE_WEIGHT_F16}};
    for (size_t c = 0; c < GYRE_COUNT(cases); c++) {
        struct lab lab;
        struct block b;
        uint32_t split = 0, norms = 0;
        assert_true(lab_open(&lab, "null as a GPU", NULL));
        lab.device->info.int_dot = cases[c].dot;
        lab_block(
            &lab,
            (struct block_shape){
                .rows = cases[c].rows, .act_bits = 16, .kv_bits = 8, .kind = cases[c].kind, .r3 = true, .r4 = true},
            &b);
        gyre_graph *g = lab_block_graph(&lab, &b);
        assert_int_equal(gyre_graph_compile(g, NULL, NULL), GYRE_OK);
        for (uint32_t i = 0; i < gyre_graph_dispatch_count(g); i++) {
            split += strstr(gyre_graph_dispatch_kernel(g, i), "_i24_t") != NULL;
            norms += !strcmp(gyre_graph_dispatch_kernel(g, i), "rms_norm");
        }
        assert_int_equal(split, cases[c].split);
        assert_int_equal(norms, cases[c].norms);
        gyre_graph_destroy(g);
        lab_close(&lab);
    }
}

// Three planes of a long row leave shared memory to few invocations: there floats are multiplied.
static void long_rows_stay_floats(void **state)
{
    (void)state;
    static const struct {
        uint32_t k, shared;
        bool split;
    } cases[] = {{8192, 48 << 10, true},
                 {14336, 48 << 10, false},
                 {14336, 64 << 10, true},
                 {4096, 32 << 10, true},
                 {8192, 32 << 10, false}};
    for (size_t c = 0; c < GYRE_COUNT(cases); c++) {
        enum { N = 64 };
        struct lab lab;
        assert_true(lab_open(&lab, "null as a GPU", NULL));
        lab.device->info.int_dot = GYRE_INT_DOT_ACCELERATED;
        lab.device->info.shared_bytes = cases[c].shared;
        const struct gyre_weight w = lab_weight(&lab, GYRE_WEIGHT_W4, N, cases[c].k, 0, 1);
        const struct gyre_binding x = lab_floats(&lab, cases[c].k, 0, 1), to = lab_bytes(&lab, NULL, 4 * N);
        gyre_graph *g = NULL;
        assert_int_equal(gyre_graph_create(lab.device, 1, NULL, &g, NULL), GYRE_OK);
        gyre_g_output(g, gyre_g_matmul(g, gyre_g_external(g, "x", 1, cases[c].k, x), &w), to);
        assert_int_equal(gyre_graph_compile(g, NULL, NULL), GYRE_OK);
        assert_int_equal(gyre_graph_dispatch_count(g), 1);
        assert_string_equal(gyre_graph_dispatch_kernel(g, 0),
                            cases[c].split ? "quant_matmul_w4_i24_t" : "matmul_w4_f_t");
        gyre_graph_destroy(g);
        lab_close(&lab);
    }
}

// A weight of two ranges: columns n0.. of one output.
static void ranges_of_a_weight(void **state)
{
    (void)state;
    struct block b;
    lab_block(&null_lab, (struct block_shape){.rows = 2, .act_bits = 16, .kv_bits = 16, .kind = GYRE_WEIGHT_W8}, &b);
    gyre_graph *g = compile(&b, false);
    const struct gyre_dispatch *part[2];
    uint32_t n = 0;
    for (uint32_t i = 0; i < gyre_graph_dispatch_count(g); i++) {
        struct gyre_matmul_params p;
        const struct gyre_dispatch *d = &gyre_graph_dispatches(g)[i];
        memcpy(&p, d->params, sizeof p);
        if (strcmp(gyre_graph_dispatch_op(g, i), "matmul") || p.ldy != 192) continue;
        assert_true(n < 2);
        assert_int_equal(p.n0, b.gate_up.range[n].n0);
        assert_int_equal(p.n, b.gate_up.range[n].n);
        assert_ptr_equal(d->bind[3].buffer, b.gate_up.range[n].weight.buffer);
        assert_true((uint64_t)d->groups[0] * 8 >= 1 && d->groups[1] >= 1);
        part[n++] = d;
    }
    assert_int_equal(n, 2);
    assert_ptr_equal(part[0]->bind[0].buffer, part[1]->bind[0].buffer);
    assert_int_equal(part[0]->bind[0].offset, part[1]->bind[0].offset);
    gyre_graph_destroy(g);
}

// Replaying records, compiles and allocates nothing; destroying gives everything back (lab_close counts).
static void replays_cost_nothing(void **state)
{
    (void)state;
    struct block b;
    lab_block(
        &null_lab,
        (struct block_shape){.rows = 1, .act_bits = 8, .kv_bits = 4, .kind = GYRE_WEIGHT_W4, .r3 = true, .r4 = true},
        &b);
    gyre_graph *g = compile(&b, false), *plain = compile(&b, true);
    assert_int_equal(gyre_graph_dispatch_count(g), 11);
    assert_true(gyre_graph_dispatch_count(plain) > 11);
    const struct gyre_device_counters before = gyre_device_counters(null_lab.device);
    for (int i = 0; i < 3; i++) assert_int_equal(gyre_graph_submit(g, NULL), GYRE_OK);
    const struct gyre_device_counters after = gyre_device_counters(null_lab.device);
    assert_int_equal(after.recordings, before.recordings);
    assert_int_equal(after.buffers, before.buffers);
    assert_int_equal(after.kernels, before.kernels);
    assert_int_equal(after.submissions, before.submissions + 3);
    gyre_graph_destroy(g);
    gyre_graph_destroy(plain);
}

// A row too long for shared memory takes the kernels that work in buffers; the quantizing one gets memory of its own.
static void long_rows_leave_shared_memory(void **state)
{
    (void)state;
    struct block b;
    lab_block(&null_lab,
              (struct block_shape){.rows = 1,
                                   .act_bits = 8,
                                   .kv_bits = 16,
                                   .kind = GYRE_WEIGHT_W4,
                                   .r4 = true,
                                   .width = 64,
                                   .heads = 2,
                                   .kv_heads = 1,
                                   .head_dim = 32,
                                   .ffn = 12 << 11},
              &b);
    gyre_graph *g = compile(&b, false);
    bool found = false;
    for (uint32_t i = 0; i < gyre_graph_dispatch_count(g); i++)
        found = found || !strcmp(gyre_graph_dispatch_kernel(g, i), "act_mul_had_quant_global");
    assert_true(found);
    gyre_graph_destroy(g);
}

// Every device call of compiling fails once: the error is reported and nothing is left behind.
static void failing_device_calls_leave_nothing(void **state)
{
    (void)state;
    struct block b;
    lab_block(&null_lab,
              (struct block_shape){.rows = 2, .act_bits = 8, .kv_bits = 8, .kind = GYRE_WEIGHT_W4, .r4 = true}, &b);
    const uint64_t live = gyre_device_counters(null_lab.device).live_objects;
    uint64_t failures = 0;
    for (gyre_status st = GYRE_E_DEVICE; st != GYRE_OK; failures++) {
        gyre_graph *g = lab_block_graph(&null_lab, &b);
        gyre_error err = {0};
        null_lab.device->options.fail_call = gyre_device_counters(null_lab.device).calls + failures + 1;
        st = gyre_graph_compile(g, NULL, &err);
        if (st) assert_int_equal(gyre_graph_submit(g, NULL), GYRE_E_INVALID);
        null_lab.device->options.fail_call = 0;
        assert_int_equal(st == GYRE_OK, err.code == GYRE_OK);
        gyre_graph_destroy(g);
        assert_int_equal(gyre_device_counters(null_lab.device).live_objects, live);
    }
    assert_true(failures > 11); // scratch, a kernel per dispatch, the recording
}

static void a_picture_names_nodes_and_kernels(void **state)
{
    (void)state;
    struct block b;
    lab_block(
        &null_lab,
        (struct block_shape){.rows = 1, .act_bits = 8, .kv_bits = 8, .kind = GYRE_WEIGHT_W4, .r3 = true, .r4 = true},
        &b);
    gyre_graph *g = compile(&b, false);
    char *text = NULL;
    assert_int_equal(gyre_graph_dot(g, &text, NULL), GYRE_OK);
    assert_non_null(strstr(text, "digraph"));
    assert_non_null(strstr(text, "rope_had_kv"));
    assert_non_null(strstr(text, "matmul_w4_q_v"));
    assert_non_null(strstr(text, "q8 1x64"));
    free(text);
    gyre_graph_destroy(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantized_activations_meet_integer_products_only),
        cmocka_unit_test(hardware_has_kernels_for_few_rows),
        cmocka_unit_test(floats_of_a_row_become_bytes),
        cmocka_unit_test(long_rows_stay_floats),
        cmocka_unit_test(ranges_of_a_weight),
        cmocka_unit_test(replays_cost_nothing),
        cmocka_unit_test(long_rows_leave_shared_memory),
        cmocka_unit_test(failing_device_calls_leave_nothing),
        cmocka_unit_test(a_picture_names_nodes_and_kernels),
    };
    return cmocka_run_group_tests(tests, null_lab_open, null_lab_close);
}
