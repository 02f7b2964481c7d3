// The fusion table: what is fused, and what is left alone because another reader needs the value between.
#include "tests/graph/lab.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

static const struct gyre_binding none;

// The ops of the fused graph, separated by blanks.
static void expect_ops(gyre_graph *g, const char *want)
{
    gyre_error err = {0};
    if (gyre_graph_plan(g, NULL, &err)) fail_msg("%s", err.message);
    char got[512] = "";
    for (uint32_t i = 0, n = 0; i < g->n_nodes; i++)
        n += (uint32_t)snprintf(got + n, sizeof got - n, "%s%s", i ? " " : "", gyre_ops[g->nodes[i].op].name);
    assert_string_equal(got, want);
    gyre_graph_destroy(g);
}

static void a_whole_block(void **state)
{
    (void)state;
    static const struct {
        uint32_t act, kv;
        bool r3, r4, centred, r1;
        const char *ops;
    } cases[] = {
        {8, 8, true, true, false, false,
         "rms_norm_quant matmul rope_had_kv attn quantize matmul rms_norm_quant matmul act_mul_had_quant matmul"},
        {8, 8, true, true, false, true,
         "rms_norm_had_quant matmul rope_had_kv attn quantize matmul rms_norm_had_quant matmul act_mul_had_quant "
         "matmul"},
        {16, 8, true, true, false, true,
         "rms_norm_had matmul rope_had_kv attn matmul rms_norm_had matmul act_mul_had matmul"},
        {8, 8, false, false, false, false,
         "rms_norm_quant matmul rope_kv attn quantize matmul rms_norm_quant matmul act_mul_quant matmul"},
        {16, 16, false, true, false, false, "rms_norm matmul rope_kv attn matmul rms_norm matmul act_mul_had matmul"},
        {16, 4, true, false, false, false, "rms_norm matmul rope_had_kv attn matmul rms_norm matmul act_mul matmul"},
        {16, 8, true, false, true, false, "rms_norm matmul rope_had_kv attn matmul rms_norm matmul act_mul matmul"},
        {16, 4, false, false, true, false, "rms_norm matmul rope_kv attn matmul rms_norm matmul act_mul matmul"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct block b;
        lab_block(&null_lab,
                  (struct block_shape){.rows = 2,
                                       .act_bits = cases[i].act,
                                       .kv_bits = cases[i].kv,
                                       .kind = GYRE_WEIGHT_W4,
                                       .r3 = cases[i].r3,
                                       .r4 = cases[i].r4,
                                       .r1 = cases[i].r1,
                                       .centred = cases[i].centred},
                  &b);
        expect_ops(lab_block_graph(&null_lab, &b), cases[i].ops);
    }
}

static gyre_graph *begin(const struct block *b)
{
    gyre_graph *g = NULL;
    assert_int_equal(gyre_graph_create(null_lab.device, b->s.rows, &b->batch, &g, NULL), GYRE_OK);
    return g;
}

// A value between that is read twice, or that leaves the graph, keeps its node.
static void another_reader_prevents_it(void **state)
{
    (void)state;
    struct block b;
    lab_block(
        &null_lab,
        (struct block_shape){.rows = 2, .act_bits = 8, .kv_bits = 8, .kind = GYRE_WEIGHT_W8, .r3 = true, .r4 = true},
        &b);
    gyre_graph *g = begin(&b);
    gyre_value x = gyre_g_external(g, "x", 2, 64, b.x), n = gyre_g_rms_norm(g, x, b.attn_gain, 1);
    gyre_g_matmul(g, gyre_g_quantize(g, n, 8, 1), &b.qkv);
    gyre_g_matmul(g, n, &b.qkv);
    expect_ops(g, "rms_norm quantize matmul matmul");

    g = begin(&b);
    n = gyre_g_rms_norm(g, gyre_g_external(g, "x", 2, 64, b.x), b.attn_gain, 1);
    gyre_g_quantize(g, n, 8, 1);
    gyre_g_output(g, n, b.y);
    expect_ops(g, "rms_norm quantize");

    g = begin(&b);
    n = gyre_g_rms_norm(g, gyre_g_external(g, "x", 2, 64, b.x), b.attn_gain, 1);
    gyre_g_quantize(g, n, 8, 1);
    gyre_g_quantize(g, gyre_g_rows(g, n, 1, 1), 8, 1); // a view is a reader
    expect_ops(g, "rms_norm quantize quantize");

    g = begin(&b);
    x = gyre_g_external(g, "x", 2, 64, b.x);
    n = gyre_g_matmul(g, x, &b.qkv);
    gyre_g_add(g, n, n); // both operands
    expect_ops(g, "matmul add");
}

static void act_mul_chains(void **state)
{
    (void)state;
    struct block b;
    lab_block(
        &null_lab,
        (struct block_shape){.rows = 2, .act_bits = 8, .kv_bits = 8, .kind = GYRE_WEIGHT_W8, .r3 = true, .r4 = true},
        &b);
    gyre_graph *g = begin(&b); // the Hadamard's result is read twice: only the first two fuse
    gyre_value gate_up = gyre_g_matmul(g, gyre_g_external(g, "x", 2, 64, b.x), &b.gate_up);
    gyre_value h = gyre_g_hadamard(g, gyre_g_act_mul(g, gate_up, 1), &b.had4, 1, false, none);
    gyre_g_matmul(g, gyre_g_quantize(g, h, 4, 1), &b.down);
    gyre_g_matmul(g, h, &b.down);
    expect_ops(g, "matmul act_mul_had quantize matmul matmul");

    g = begin(&b); // a scale per column goes before the transform: not in the fused kernel
    gate_up = gyre_g_matmul(g, gyre_g_external(g, "x", 2, 64, b.x), &b.gate_up);
    h = gyre_g_hadamard(g, gyre_g_act_mul(g, gate_up, 0), &b.had4, 1, false, lab_floats(&null_lab, 96, 1, 0.1f));
    gyre_g_quantize(g, h, 8, 1);
    expect_ops(g, "matmul act_mul hadamard quantize");

    g = begin(&b); // groups stay in the fused kernel, at 4 bits and where they divide the row
    gate_up = gyre_g_matmul(g, gyre_g_external(g, "x", 2, 64, b.x), &b.gate_up);
    h = gyre_g_hadamard(g, gyre_g_act_mul(g, gate_up, 0), &b.had4, 1, false, none);
    gyre_g_quantize_groups(g, h, 4, 1, 32);
    assert_int_equal(gyre_graph_plan(g, NULL, NULL), GYRE_OK);
    assert_int_equal(g->nodes[g->n_nodes - 1].op, GYRE_OP_act_mul_had_quant);
    assert_int_equal(g->nodes[g->n_nodes - 1].params.act_mul.span, 32);
    gyre_graph_destroy(g);
    static const uint32_t cases[][3] = {{4, 32, 32}, {4, 64, 0}, {8, 32, 0}, {4, 0, 0}}; // bits, group, span of 96
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        g = begin(&b);
        gyre_g_quantize_groups(g, gyre_g_external(g, "x", 2, 96, lab_floats(&null_lab, 192, 0, 1)), cases[i][0], 1,
                               cases[i][1]);
        assert_int_equal(g->nodes[g->n_nodes - 1].params.quantize.span, cases[i][2]);
        gyre_graph_destroy(g);
    }

    struct gyre_had_desc half = {.n = 32, .p = 5};
    g = begin(&b); // only part of the row
    gate_up = gyre_g_matmul(g, gyre_g_external(g, "x", 2, 64, b.x), &b.gate_up);
    gyre_g_hadamard(g, gyre_g_act_mul(g, gate_up, 0), &half, 2, false, none);
    expect_ops(g, "matmul act_mul hadamard");
    g = begin(&b); // segments that cover it
    gate_up = gyre_g_matmul(g, gyre_g_external(g, "x", 2, 64, b.x), &b.gate_up);
    gyre_g_hadamard(g, gyre_g_act_mul(g, gate_up, 0), &half, 3, false, none);
    expect_ops(g, "matmul act_mul_had");
}

static void rope_chains(void **state)
{
    (void)state;
    struct block b;
    lab_block(
        &null_lab,
        (struct block_shape){.rows = 2, .act_bits = 8, .kv_bits = 8, .kind = GYRE_WEIGHT_W8, .r3 = true, .r4 = true},
        &b);
    gyre_graph *g = begin(&b); // attention before the write would read the old cache: no fusion
    gyre_value qkv = gyre_g_rope(g, gyre_g_matmul(g, gyre_g_external(g, "x", 2, 64, b.x), &b.qkv), &b.attn);
    gyre_g_attn(g, qkv, &b.attn, &b.kv);
    gyre_g_kv_write(g, qkv, &b.attn, &b.kv);
    expect_ops(g, "matmul rope attn kv_write");

    g = begin(&b); // the rotated q is also an operand elsewhere
    qkv = gyre_g_rope(g, gyre_g_matmul(g, gyre_g_external(g, "x", 2, 64, b.x), &b.qkv), &b.attn);
    gyre_g_kv_write(g, qkv, &b.attn, &b.kv);
    gyre_g_attn(g, qkv, &b.attn, &b.kv);
    gyre_g_quantize(g, qkv, 8, 1);
    expect_ops(g, "matmul rope kv_write attn quantize");

    g = begin(&b); // a transform of q alone is not R3
    qkv = gyre_g_rope(g, gyre_g_matmul(g, gyre_g_external(g, "x", 2, 64, b.x), &b.qkv), &b.attn);
    qkv = gyre_g_hadamard(g, qkv, &b.had3, 4, false, none);
    gyre_g_kv_write(g, qkv, &b.attn, &b.kv);
    gyre_g_attn(g, qkv, &b.attn, &b.kv);
    expect_ops(g, "matmul rope hadamard kv_write attn");

    g = begin(&b); // the fused q is as wide as the heads
    qkv = gyre_g_rope(g, gyre_g_matmul(g, gyre_g_external(g, "x", 2, 64, b.x), &b.qkv), &b.attn);
    gyre_g_kv_write(g, qkv, &b.attn, &b.kv);
    gyre_g_attn(g, qkv, &b.attn, &b.kv);
    assert_int_equal(gyre_graph_plan(g, NULL, NULL), GYRE_OK);
    assert_int_equal(g->nodes[2].op, GYRE_OP_attn);
    assert_int_equal(g->nodes[2].params.attn.ldq, 128);
    assert_int_equal(g->nodes[2].in[0], g->nodes[1].out[0]);
    gyre_graph_destroy(g);
}

// The centre goes into the fused node as it was in its parts.
static void a_centre_survives(void **state)
{
    (void)state;
    for (int centred = 0; centred < 2; centred++)
        for (int r3 = 0; r3 < 2; r3++) {
            struct block b;
            lab_block(&null_lab,
                      (struct block_shape){
                          .rows = 2, .act_bits = 8, .kv_bits = 8, .kind = GYRE_WEIGHT_W8, .r3 = r3, .centred = centred},
                      &b);
            gyre_graph *g = begin(&b);
            gyre_value qkv = gyre_g_rope(g, gyre_g_matmul(g, gyre_g_external(g, "x", 2, 64, b.x), &b.qkv), &b.attn);
            qkv = gyre_g_hadamard(g, qkv, &b.had3, 6, false, none);
            gyre_g_kv_write(g, qkv, &b.attn, &b.kv);
            gyre_g_attn(g, qkv, &b.attn, &b.kv);
            assert_int_equal(gyre_graph_plan(g, NULL, NULL), GYRE_OK);
            const struct gyre_node *write = &g->nodes[1], *attn = &g->nodes[2];
            assert_int_equal(write->op, r3 ? GYRE_OP_rope_had_kv : GYRE_OP_rope_kv);
            assert_int_equal(write->params.rope_kv.centred, centred);
            assert_int_equal(attn->params.attn.centred, centred);
            assert_int_equal(write->in[5], attn->in[4]); // one buffer
            assert_ptr_equal(g->values[write->in[5]].plane[0].at.buffer, b.kv.centre.buffer);
            gyre_graph_destroy(g);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_block), cmocka_unit_test(another_reader_prevents_it), cmocka_unit_test(act_mul_chains),
        cmocka_unit_test(rope_chains),   cmocka_unit_test(a_centre_survives),
    };
    return cmocka_run_group_tests(tests, null_lab_open, null_lab_close);
}
