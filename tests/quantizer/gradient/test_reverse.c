// Gradients of whole blocks and heads against finite differences in double with frozen codes (double.h): tiny models of
// every family, rotated and rounded, at several widths; by inputs, scales of weights, gains, biases, centres and clips.
#include "tests/common/ok.h"
#include "tests/quantizer/gradient/bench.h"
#include "tests/quantizer/gradient/double.h"
#include "quantizer/gradient/reverse.h"
#include "quantizer/gradient/rules.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

// ---- comparing --------------------------------------------------------------------------------------------------

struct check {
    struct twin *twin;
    gyre_value out;
    const float *seed;
    double worst;
    uint32_t arrays;
};

static double difference(struct check *c, double *at)
{
    const double was = *at, step = 1e-4;
    double y[4];
    const double where[4] = {-2, -1, 1, 2};
    for (int i = 0; i < 4; i++) {
        *at = was + where[i] * step;
        y[i] = twin_run(c->twin, c->out, c->seed);
    }
    *at = was;
    return (y[0] - 8 * y[1] + 8 * y[2] - y[3]) / (12 * step);
}

// Some elements of an array; errors in parts of the largest gradient of those.
static void compare(struct check *c, const char *what, double *moved, uint64_t n, const float *grad)
{
    enum { ELEMENTS = 5 };
    double fd[ELEMENTS], largest = 0, error = 0;
    uint64_t at[ELEMENTS];
    assert_non_null(grad);
    for (int i = 0; i < ELEMENTS; i++) {
        at[i] = n <= ELEMENTS ? (uint64_t)i % n : (uint64_t)i * (n - 1) / (ELEMENTS - 1);
        fd[i] = difference(c, &moved[at[i]]);
        largest = fmax(largest, fabs(fd[i]));
    }
    for (int i = 0; i < ELEMENTS; i++) error = fmax(error, fabs(fd[i] - (double)grad[at[i]]));
    if (!(error <= 1e-5 * largest)) fail_msg("%s: error %g of %g", what, error, largest);
    assert_true(largest > 0);
    c->worst = fmax(c->worst, error / largest);
    c->arrays++;
}

static void compare_value(struct check *c, gyre_reverse *r, const char *what, gyre_value v, struct gyre_binding at)
{
    uint64_t n;
    double *moved = twin_value(c->twin, v, &n);
    compare(c, what, moved, n, at.buffer ? gyre_reverse_data(r, at) : gyre_reverse_value(r, v));
}

// Every array that can be asked for.
static void compare_all(const struct bench *b)
{
    const gyre_graph *g = b->graph;
    const uint64_t n_out = (uint64_t)gyre_graph_value(g, b->out)->rows * gyre_graph_value(g, b->out)->width;
    float *seed = malloc(n_out * sizeof *seed);
    gyre_reverse *r = NULL;
    for (uint64_t i = 0; i < n_out; i++) seed[i] = bench_random();
    OK(gyre_reverse_open(g, false, &r, err));
    memcpy(gyre_reverse_value(r, b->out), seed, n_out * sizeof *seed);
    (void)gyre_reverse_value(r, b->in);
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct gyre_node *n = &g->nodes[i];
        if (n->op == GYRE_OP_matmul) assert_non_null(gyre_reverse_weight(r, g->values[n->in[1]].weight));
        if (n->op == GYRE_OP_matmul && n->in[2]) (void)gyre_reverse_value(r, n->in[2]);
        if (n->op == GYRE_OP_rms_norm) (void)gyre_reverse_value(r, n->in[1]);
        if (n->op == GYRE_OP_hadamard && n->in[2]) (void)gyre_reverse_value(r, n->in[2]);
        if (n->op == GYRE_OP_rope && n->in[3]) (void)gyre_reverse_value(r, n->in[3]);
        if (n->op == GYRE_OP_kv_write && n->in[3]) (void)gyre_reverse_value(r, n->in[3]);
    }
    OK(gyre_reverse_run(r, err));
    struct check c = {.twin = twin_open(g), .out = b->out, .seed = seed};
    const struct gyre_binding none = {0};
    uint64_t n_weight;
    compare_value(&c, r, "input", b->in, none);
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct gyre_node *n = &g->nodes[i];
        if (n->op == GYRE_OP_matmul) {
            const struct gyre_weight *w = g->values[n->in[1]].weight;
            double *moved = twin_weight(c.twin, w, &n_weight);
            compare(&c, "weight", moved, n_weight, gyre_reverse_weight(r, w));
            if (n->in[2]) compare_value(&c, r, "bias", n->in[2], none);
            const float clip = (float)gyre_reverse_act_clip(r, w);
            for (uint32_t k = 0; k < i; k++)
                if (g->nodes[k].op == GYRE_OP_quantize && g->nodes[k].out[0] == n->in[0])
                    compare(&c, "clip", twin_clip(c.twin, k), 1, &clip);
        }
        if (n->op == GYRE_OP_rms_norm) compare_value(&c, r, "gain", n->in[1], none);
        if (n->op == GYRE_OP_hadamard && n->in[2]) compare_value(&c, r, "head gain", n->in[2], none);
        if (n->op == GYRE_OP_rope && n->in[3]) compare_value(&c, r, "head gains", n->in[3], none);
        if (n->op == GYRE_OP_kv_write && n->in[3]) compare_value(&c, r, "centre", n->in[3], none);
        if (n->op == GYRE_OP_kv_write && g->values[n->out[0]].bits < 16) {
            const float clip[2] = {(float)gyre_reverse_kv_clip(r, 0), (float)gyre_reverse_kv_clip(r, 1)};
            compare(&c, "cache clips", twin_clip(c.twin, i), 2, clip);
        }
    }
    printf("%u arrays, worst error %.1e of the largest gradient\n", c.arrays, c.worst);
    twin_close(c.twin);
    gyre_reverse_close(r);
    free(seed);
}

static void test_blocks(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < n_settings; i++) {
        struct bench b = {0};
        const struct setting *s = &settings[i];
        printf("%s W%uA%uK%uV%u, groups of %u: ", s->family, s->wbits, s->act, s->kv, s->kv_v ? s->kv_v : s->kv,
               s->group);
        bench_open(&settings[i], NULL, &b);
        bench_fill(&b);
        bench_block(&b);
        compare_all(&b);
        bench_close(&b);
    }
}

static void test_heads(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < 2; i++) { // int8 and f32 tables
        struct bench b = {0};
        const struct setting s = {i ? "qwen2" : "qwen3", i ? 32 : 4, 8, 8, i ? 0 : -1, false, 0, 0};
        bench_open(&s, NULL, &b);
        bench_fill(&b);
        bench_head(&b);
        compare_all(&b);
        bench_close(&b);
    }
}

// Row 0 alone has a gradient, at a sequence's start: no other row has one anywhere, a bias's is the row's own, and
// that of what the last product gives is the seed.
static void test_squares(void **unused)
{
    (void)unused;
    struct bench b = {0};
    const struct setting s = {"qwen2", 32, 16, 16, 0, false, 0, 0};
    const double *square[GYRE_PRODUCTS];
    double want = 0, bias = 0;
    gyre_reverse *r = NULL;
    bench_open(&s, NULL, &b);
    bench_fill(&b);
    bench_block(&b);
    const struct gyre_layer_weights *layer = &b.model.layer[1];
    OK(gyre_reverse_open(b.graph, false, &r, err));
    float *seed = gyre_reverse_value(r, b.out), *of_bias = NULL;
    for (uint32_t i = 0; i < b.model.hp.width; i++) {
        seed[i] = bench_random();
        want += (double)seed[i] * (double)seed[i];
    }
    for (int p = 0; p < GYRE_PRODUCTS; p++) assert_non_null(square[p] = gyre_reverse_squares(r, &layer->product[p]));
    assert_null(gyre_reverse_squares(r, &b.model.layer[0].product[0]));
    const gyre_product first = gyre_roles[gyre_heads_role(GYRE_HEADS_KEY)].product;
    for (uint32_t i = 0; i < b.graph->n_nodes; i++) {
        const struct gyre_node *n = &b.graph->nodes[i];
        if (n->op == GYRE_OP_matmul && b.graph->values[n->in[1]].weight == &layer->product[first])
            of_bias = gyre_reverse_value(r, n->in[2]);
    }
    assert_non_null(of_bias);
    OK(gyre_reverse_run(r, err));
    for (uint32_t i = 0; i < layer->product[first].n; i++) bias += (double)of_bias[i] * (double)of_bias[i];
    for (int p = 0; p < GYRE_PRODUCTS; p++) {
        assert_true(square[p][0] > 0);
        for (int row = 1; row < ROWS; row++) assert_true(square[p][row] == 0);
    }
    assert_true(fabs(square[first][0] - bias) < 1e-6 * bias);
    assert_true(fabs(square[GYRE_PRODUCTS - 1][0] - want) < 1e-6 * want);
    gyre_reverse_close(r);
    bench_close(&b);
}

// The loss: its value in double, and its gradient by differences of that.
static double divergence(const float *t, const double *s, uint32_t n)
{
    double p = 0, q = 0, sum = 0;
    for (uint32_t i = 0; i < n; i++) p += exp((double)t[i]), q += exp(s[i]);
    for (uint32_t i = 0; i < n; i++) sum += exp((double)t[i]) / p * ((double)t[i] - log(p) - s[i] + log(q));
    return sum;
}

static void test_divergence(void **unused)
{
    (void)unused;
    enum { WIDTH = 700, MANY = 3 };
    float t[MANY * WIDTH], s[MANY * WIDTH], g[MANY * WIDTH];
    double wide[WIDTH], want = 0;
    for (int i = 0; i < MANY * WIDTH; i++) {
        t[i] = 3 * bench_random();
        g[i] = s[i] = t[i] + bench_random();
    }
    const double kl = gyre_back_kl(t, g, MANY, WIDTH, 0.5);
    for (int r = 0; r < MANY; r++) {
        for (int i = 0; i < WIDTH; i++) wide[i] = (double)s[r * WIDTH + i];
        want += divergence(t + r * WIDTH, wide, WIDTH);
        for (int i = 0; i < WIDTH; i += 97) {
            const double was = wide[i];
            wide[i] = was + 1e-4;
            const double up = divergence(t + r * WIDTH, wide, WIDTH);
            wide[i] = was - 1e-4;
            const double slope = (up - divergence(t + r * WIDTH, wide, WIDTH)) / 2e-4;
            wide[i] = was;
            assert_true(fabs(0.5 * slope - (double)g[r * WIDTH + i]) < 1e-5 * 0.05);
        }
    }
    assert_true(fabs(kl - want) < 1e-5 * want);
}

// Fused ops have no rule, and a reader of what is not in the graph gets nothing.
static void test_refusals(void **unused)
{
    (void)unused;
    struct bench b = {0};
    gyre_reverse *r = NULL;
    gyre_error why = {0};
    bench_open(&settings[0], NULL, &b);
    bench_fill(&b);
    bench_block(&b);
    OK(gyre_reverse_open(b.graph, false, &r, err));
    assert_null(gyre_reverse_weight(r, &b.model.layer[0].product[0]));
    assert_null(gyre_reverse_data(r, b.model.output_norm));
    gyre_reverse_close(r);
    gyre_graph_destroy(b.graph);
    const struct gyre_precision precision = {8, 8, 8, 1, 1, 1, 1};
    const struct gyre_batch batch = gyre_kv_batch(&b.kv, b.rows);
    OK(gyre_graph_create(b.device, ROWS, &batch, &b.graph, err));
    gyre_value x = gyre_g_external(b.graph, "x", ROWS, b.model.hp.width, b.x);
    (void)gyre_model_block(b.graph, x, &b.model, 1, &b.kv.pool[1], &precision);
    OK(gyre_graph_compile(b.graph, NULL, err));
    assert_int_equal(gyre_reverse_open(b.graph, false, &r, &why), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(why.message, "it has no rule"));
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),     cmocka_unit_test(test_heads),    cmocka_unit_test(test_squares),
        cmocka_unit_test(test_divergence), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
