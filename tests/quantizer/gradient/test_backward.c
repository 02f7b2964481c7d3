// The backward pass as a graph of ops on a device (the cpu, or the one that the argument names) against the rules
// on the host: every array that both can give, of whole blocks and heads. Twice the same bytes.
#include "tests/common/device.h"
#include "tests/common/ok.h"
#include "tests/quantizer/gradient/bench.h"
#include "quantizer/gradient/backward.h"
#include "quantizer/gradient/reverse.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char *device = "cpu";

// What is asked of both: by inputs, weights' scales, gains, biases, clips. In the order of nodes.
enum { MOST = 64 };
struct gradients {
    gyre_reverse *reverse;
    const float *array[MOST];
    uint64_t size[MOST];
    const char *name[MOST];
    double clip[MOST];
    uint32_t n, n_clips;
};

static void ask(struct gradients *a, const char *name, const float *array, uint64_t n)
{
    assert_non_null(array);
    assert_true(a->n < MOST);
    a->name[a->n] = name;
    a->size[a->n] = n;
    a->array[a->n++] = array;
}

static uint64_t floats_of(const gyre_graph *g, gyre_value v)
{
    const struct gyre_value_info *info = gyre_graph_value(g, v);
    return info->kind == GYRE_VALUE_DATA ? info->plane[0].bytes / 4 : (uint64_t)info->rows * info->width;
}

static void run(const struct bench *b, const float *seed, bool ops, struct gradients *a)
{
    const gyre_graph *g = b->graph;
    *a = (struct gradients){0};
    OK(gyre_reverse_open(g, false, &a->reverse, err));
    memcpy(gyre_reverse_value(a->reverse, b->out), seed, floats_of(g, b->out) * sizeof *seed);
    ask(a, "input", gyre_reverse_value(a->reverse, b->in), floats_of(g, b->in));
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct gyre_node *n = &g->nodes[i];
        if (n->op == GYRE_OP_matmul) {
            const struct gyre_weight *w = g->values[n->in[1]].weight;
            if (gyre_weight_is_coded(w->kind))
                ask(a, "scales", gyre_reverse_weight(a->reverse, w), (uint64_t)w->k / w->group * w->n);
            if (n->in[2] && n->params.matmul.add == 2) ask(a, "bias", gyre_reverse_value(a->reverse, n->in[2]), w->n);
        }
        const gyre_value gain = n->op == GYRE_OP_rms_norm   ? n->in[1]
                                : n->op == GYRE_OP_hadamard ? n->in[2]
                                : n->op == GYRE_OP_rope     ? n->in[3]
                                                            : GYRE_NONE;
        if (gain) ask(a, gyre_ops[n->op].name, gyre_reverse_value(a->reverse, gain), floats_of(g, gain));
    }
    OK(ops ? gyre_backward_run(a->reverse, err) : gyre_reverse_run(a->reverse, err));
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == GYRE_OP_matmul)
            a->clip[a->n_clips++] = gyre_reverse_act_clip(a->reverse, g->values[g->nodes[i].in[1]].weight);
    for (uint32_t which = 0; which < 2; which++) a->clip[a->n_clips++] = gyre_reverse_kv_clip(a->reverse, which);
}

// The largest difference, in parts of the largest gradient.
static double apart(const float *want, const float *got, uint64_t n)
{
    double most = 0, largest = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (!(isfinite(want[i]) && isfinite(got[i]))) return INFINITY;
        most = fmax(most, fabs((double)want[i] - (double)got[i]));
        largest = fmax(largest, fabs((double)want[i]));
    }
    return largest > 0 ? most / largest : most;
}

static void check(const struct setting *s, bool head, double bound)
{
    struct bench host = {0}, b = {0};
    struct gradients want, got, again;
    double worst = 0;
    bench_open(s, "cpu", &host);
    bench_fill(&host);
    (head ? bench_head : bench_block)(&host);
    const uint64_t n_out = floats_of(host.graph, host.out);
    float *seed = malloc(n_out * sizeof *seed);
    for (uint64_t i = 0; i < n_out; i++) seed[i] = bench_random();
    bench_open(s, device, &b);
    bench_fill(&b);
    (head ? bench_head : bench_block)(&b);
    run(&host, seed, false, &want);
    run(&b, seed, true, &got);
    run(&b, seed, true, &again);
    assert_int_equal(want.n, got.n);
    for (uint32_t i = 0; i < want.n; i++) {
        const double off = apart(want.array[i], got.array[i], want.size[i]);
        worst = fmax(worst, off);
        if (!(off <= bound)) fail_msg("%s (%u): %g of the largest gradient apart", want.name[i], i, off);
        assert_memory_equal(got.array[i], again.array[i], got.size[i] * sizeof(float));
    }
    for (uint32_t i = 0; i < want.n_clips; i++) {
        const double off = fabs(want.clip[i] - got.clip[i]) / fmax(fabs(want.clip[i]), 1e-2);
        if (!(off <= 10 * bound)) fail_msg("clip %u: %g, want %g", i, got.clip[i], want.clip[i]);
        assert_true(got.clip[i] == again.clip[i]);
    }
    printf("%s W%uA%uK%uV%u, groups of %u: %u arrays, at most %.1e of the largest gradient apart\n", s->family,
           s->wbits, s->act, s->kv, s->kv_v ? s->kv_v : s->kv, s->group, want.n, worst);
    gyre_reverse_close(want.reverse);
    gyre_reverse_close(got.reverse);
    gyre_reverse_close(again.reverse);
    free(seed);
    bench_close(&host);
    bench_close(&b);
}

// On the cpu every setting, within what float sums round; on a device, where each is many programs to compile, those
// that every kernel of integer products runs in, with what the forward passes differ by before.
static void test_blocks(void **unused)
{
    (void)unused;
    const bool cpu = !strcmp(device, "cpu");
    for (size_t i = 0; i < n_settings; i++)
        if (cpu || i == 1 || i == 9) check(&settings[i], false, cpu ? 1e-5 : 1e-4);
}

static void test_heads(void **unused)
{
    (void)unused;
    const struct setting s[] = {{"qwen3", 4, 8, 8, -1, false, 0, 0}, {"qwen2", 32, 8, 8, 0, false, 0, 0}};
    for (size_t i = 0; i < (strcmp(device, "cpu") ? 1 : 2); i++)
        check(&s[i], true, strcmp(device, "cpu") ? 1e-4 : 1e-5);
}

// What has no op is refused by name.
static void test_refusals(void **unused)
{
    (void)unused;
    struct bench b = {0};
    gyre_reverse *r = NULL;
    gyre_error why = {0};
    bench_open(&settings[6], device, &b);
    bench_fill(&b);
    bench_block(&b);
    OK(gyre_reverse_open(b.graph, false, &r, err));
    const uint64_t n = floats_of(b.graph, b.out);
    for (uint64_t i = 0; i < n; i++) gyre_reverse_value(r, b.out)[i] = 1;
    assert_non_null(gyre_reverse_weight(r, &b.model.layer[1].product[0]));
    assert_int_equal(gyre_backward_run(r, &why), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(why.message, "float weights"));
    gyre_reverse_close(r);
    OK(gyre_reverse_open(b.graph, true, &r, err));
    assert_int_equal(gyre_backward_run(r, &why), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(why.message, "SpinQuant's rule"));
    gyre_reverse_close(r);
    bench_close(&b);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_refusals),
    };
    if (argc > 1) device = argv[1];
    const int missing = argc > 1 ? device_probe(device) : 0;
    return missing ? missing : cmocka_run_group_tests(tests, NULL, NULL);
}
