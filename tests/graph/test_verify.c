// verify.c and the constructors refuse every kind of broken graph, by name.
#include "tests/graph/lab.h"

#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

static struct lab lab;
static struct block block;
static const struct gyre_binding none;

static int open_lab(void **state)
{
    (void)state;
    if (!lab_open(&lab, "null", NULL)) return 1;
    lab_block(&lab,
              (struct block_shape){
                  .rows = 3, .act_bits = 8, .kv_bits = 8, .group = 32, .kind = GYRE_WEIGHT_W4, .r3 = true, .r4 = true},
              &block);
    return 0;
}
static int close_lab(void **state)
{
    (void)state;
    lab_close(&lab);
    return 0;
}

static void expect(gyre_graph *g, gyre_status status, const char *words)
{
    gyre_error err = {0};
    assert_int_equal(gyre_graph_verify(g, &err), status);
    if (!strstr(err.message, words)) fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    gyre_graph_destroy(g);
}

static gyre_graph *sound(void)
{
    gyre_graph *g = lab_block_graph(&lab, &block);
    gyre_error err = {0};
    if (gyre_graph_verify(g, &err)) fail_msg("%s", err.message);
    return g;
}

static uint32_t find(const gyre_graph *g, gyre_op op)
{
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == op) return i;
    fail_msg("there is no %s", gyre_ops[op].name);
    return 0;
}

static void a_value_is_read_before_it_is_written(void **state)
{
    (void)state;
    gyre_graph *g = sound();
    const struct gyre_node first = g->nodes[0];
    g->nodes[0] = g->nodes[1];
    g->nodes[1] = first;
    expect(g, GYRE_E_INVALID, "nothing before it writes");
}

static void a_value_is_written_twice(void **state)
{
    (void)state;
    gyre_graph *g = sound();
    const uint32_t act = find(g, GYRE_OP_act_mul);
    g->nodes[act + 1] = g->nodes[act];
    expect(g, GYRE_E_INVALID, "written already");
}

static void an_output_is_never_written(void **state)
{
    (void)state;
    gyre_graph *g = sound();
    g->n_nodes--;
    expect(g, GYRE_E_INVALID, "nothing computes it");
}

static void operands_are_missing_or_of_the_wrong_kind(void **state)
{
    (void)state;
    gyre_graph *g = sound();
    g->nodes[find(g, GYRE_OP_add)].in[1] = GYRE_NONE;
    expect(g, GYRE_E_INVALID, "missing");
    g = sound();
    g->nodes[find(g, GYRE_OP_add)].in[2] = g->nodes[find(g, GYRE_OP_add)].in[0];
    expect(g, GYRE_E_INVALID, "too many");
    g = sound();
    g->nodes[find(g, GYRE_OP_quantize)].in[0] = g->batch_rows;
    expect(g, GYRE_E_INVALID, "wrong kind");
    g = sound();
    g->nodes[find(g, GYRE_OP_quantize)].in[0] = 60000;
    expect(g, GYRE_E_INVALID, "does not exist");
}

static void shapes_and_parameters_disagree(void **state)
{
    (void)state;
    gyre_graph *g = sound();
    g->nodes[find(g, GYRE_OP_matmul)].params.matmul.k += 4;
    expect(g, GYRE_E_INVALID, "matmul");
    g = sound();
    g->nodes[find(g, GYRE_OP_matmul)].params.matmul.add = 1;
    expect(g, GYRE_E_INVALID, "addend");
    g = sound();
    g->nodes[find(g, GYRE_OP_act_mul)].params.act_mul.width--;
    expect(g, GYRE_E_INVALID, "act_mul");
    g = sound();
    g->nodes[find(g, GYRE_OP_kv_write)].params.kv_write.page_stride++;
    expect(g, GYRE_E_INVALID, "page stride");
    g = sound();
    g->nodes[find(g, GYRE_OP_attn)].params.attn.ldq -= 8;
    expect(g, GYRE_E_INVALID, "attn");
    g = sound();
    g->values[g->nodes[find(g, GYRE_OP_add)].out[0]].rows++;
    expect(g, GYRE_E_INVALID, "add");
    g = sound();
    g->nodes[find(g, GYRE_OP_hadamard)].params.hadamard.p++;
    expect(g, GYRE_E_INVALID, "hadamard");
}

static void externals_lie_outside_their_buffers(void **state)
{
    (void)state;
    gyre_graph *g = sound();
    g->values[1].plane[0].at.size += 4;
    expect(g, GYRE_E_INVALID, "inside a buffer");
    g = sound();
    g->values[1].plane[0].at.offset = 4;
    expect(g, GYRE_E_INVALID, "aligned");
    g = sound();
    g->values[1].plane[0].at.buffer = NULL;
    expect(g, GYRE_E_INVALID, "no buffer");
}

static void planned_memory_overlaps(void **state)
{
    (void)state;
    gyre_error err = {0};
    const struct gyre_graph_options options = {.no_fuse = true};
    gyre_graph *g = sound();
    assert_int_equal(gyre_graph_plan(g, &options, &err), GYRE_OK);
    assert_true(g->n_chunks > 0);
    const struct gyre_node *act = &g->nodes[find(g, GYRE_OP_act_mul)];
    g->values[act->out[0]].plane[0].offset = g->values[act->in[0]].plane[0].offset + 256;
    expect(g, GYRE_E_INVALID, "shares memory");
    g = sound(); // rope reads qkv; the residual x is external; the first add's result lives through the ffn
    assert_int_equal(gyre_graph_plan(g, &options, &err), GYRE_OK);
    const gyre_value residual = g->nodes[find(g, GYRE_OP_add)].out[0];
    act = &g->nodes[find(g, GYRE_OP_act_mul)];
    g->values[act->out[0]].plane[0].offset = g->values[residual].plane[0].offset;
    g->values[act->out[0]].plane[0].chunk = g->values[residual].plane[0].chunk;
    expect(g, GYRE_E_INVALID, "still in use");
}

// The first error of a constructor is kept, and compile reports it.
static void constructors_remember_the_first_error(void **state)
{
    (void)state;
    gyre_graph *g = NULL;
    assert_int_equal(gyre_graph_create(lab.device, 3, &block.batch, &g, NULL), GYRE_OK);
    const gyre_value x = gyre_g_external(g, "x", 3, 64, block.x);
    assert_int_equal(gyre_g_matmul(g, x, &block.down), GYRE_NONE); // K is 96
    assert_int_equal(gyre_g_rms_norm(g, x, none, 1), GYRE_NONE);
    gyre_error err = {0};
    assert_int_equal(gyre_graph_compile(g, NULL, &err), GYRE_E_INVALID);
    assert_non_null(strstr(err.message, "matmul"));
    gyre_graph_destroy(g);

    assert_int_equal(gyre_graph_create(lab.device, 3, &block.batch, &g, NULL), GYRE_OK);
    assert_int_equal(gyre_g_external(g, "x", 4, 64, block.x), GYRE_NONE); // the buffer has 3 rows
    assert_int_equal(gyre_graph_compile(g, NULL, &err), GYRE_E_INVALID);
    gyre_graph_destroy(g);

    assert_int_equal(gyre_graph_create(lab.device, 3, &block.batch, &g, NULL), GYRE_OK);
    const gyre_value y =
        gyre_g_add(g, gyre_g_external(g, "x", 3, 64, block.x), gyre_g_external(g, "x", 3, 64, block.x));
    assert_int_not_equal(gyre_g_rows(g, y, 1, 2), GYRE_NONE); // a row of 64 floats is 256 bytes
    assert_int_equal(gyre_g_rows(g, y, 2, 2), GYRE_NONE);
    assert_int_equal(gyre_graph_compile(g, NULL, &err), GYRE_E_INVALID);
    gyre_graph_destroy(g);

    assert_int_equal(gyre_graph_create(lab.device, 3, &block.batch, &g, NULL), GYRE_OK);
    assert_int_equal(gyre_graph_compile(g, NULL, &err), GYRE_E_INVALID); // empty
    gyre_graph_destroy(g);
    assert_int_equal(gyre_graph_create(lab.device, 0, &block.batch, &g, &err), GYRE_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_is_read_before_it_is_written),
        cmocka_unit_test(a_value_is_written_twice),
        cmocka_unit_test(an_output_is_never_written),
        cmocka_unit_test(operands_are_missing_or_of_the_wrong_kind),
        cmocka_unit_test(shapes_and_parameters_disagree),
        cmocka_unit_test(externals_lie_outside_their_buffers),
        cmocka_unit_test(planned_memory_overlaps),
        cmocka_unit_test(constructors_remember_the_first_error),
    };
    return cmocka_run_group_tests(tests, open_lab, close_lab);
}
