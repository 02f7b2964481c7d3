// The memory plan of random graphs: aligned, disjoint while alive, inside the device's limits, and smaller than the
// sum.
#include "tests/graph/lab.h"
#include "runtime/util/base.h"

#include <setjmp.h>
#include <cmocka.h>

enum { NODES = 60 };

// A random graph of adds, norms and quantizers over rows of 64 and 192 floats.
static gyre_graph *random_graph(struct lab *lab, uint32_t rows, struct gyre_binding x, struct gyre_binding y,
                                struct gyre_binding gain, const struct gyre_weight *wide,
                                const struct gyre_weight *narrow)
{
    gyre_graph *g = NULL;
    assert_int_equal(gyre_graph_create(lab->device, rows, NULL, &g, NULL), GYRE_OK);
    gyre_value have[NODES + 1] = {gyre_g_external(g, "x", rows, 64, x)};
    uint32_t n = 1;
    while (n <= NODES) {
        const gyre_value a = have[lab_random(lab, n)], b = have[lab_random(lab, n)];
        const uint32_t wa = g->values[a].width, wb = g->values[b].width;
        gyre_value v = GYRE_NONE;
        switch (lab_random(lab, 4)) {
        case 0:
            v = wa == wb ? gyre_g_add(g, a, b) : gyre_g_matmul(g, a, wa == 64 ? wide : narrow);
            break;
        case 1:
            v = gyre_g_rms_norm(g, a, gain, 1);
            break;
        case 2:
            v = gyre_g_matmul(g, gyre_g_quantize(g, a, 8, 1), wa == 64 ? wide : narrow);
            break;
        default:
            v = rows > 4 ? gyre_g_add(g, gyre_g_rows(g, a, 4, rows - 4), gyre_g_rows(g, a, 1, rows - 4)) : a;
        }
        if (g->values[v].rows == rows) have[n++] = v;
    }
    gyre_value last = have[n - 1];
    if (g->values[last].width != 64) last = gyre_g_matmul(g, last, narrow);
    gyre_g_output(g, gyre_g_add(g, last, have[0]), y);
    return g;
}

struct life {
    uint32_t begin, end;
};

// Written and last read where, seen from outside plan.c.
static struct life life_of(const gyre_graph *g, gyre_value v)
{
    struct life l = {UINT32_MAX, 0};
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        for (uint32_t k = 0; k < GYRE_MAX_OUTS; k++)
            if (g->nodes[i].out[k] == v) l = (struct life){i, i};
        for (uint32_t k = 0; k < GYRE_MAX_INS; k++)
            if (g->nodes[i].in[k] == v || g->values[g->nodes[i].in[k]].root == v) l.end = i;
    }
    return l;
}

static void check_plan(const gyre_graph *g, uint64_t *sum)
{
    const struct gyre_device_info *info = gyre_device_info(g->device);
    for (gyre_value v = 1; v < g->n_values; v++) {
        if (g->values[v].external || g->values[v].root) continue;
        const struct life lv = life_of(g, v);
        if (lv.begin == UINT32_MAX) continue;
        for (uint32_t p = 0; p < g->values[v].n_planes; p++) {
            const struct gyre_plane *a = &g->values[v].plane[p];
            *sum += a->bytes;
            assert_int_equal(a->offset % GYRE_BIND_ALIGN, 0);
            assert_true(a->chunk < g->n_chunks && a->offset + a->bytes <= g->chunk_bytes[a->chunk]);
            assert_true(g->chunk_bytes[a->chunk] <= info->max_buffer);
            for (gyre_value w = v; w < g->n_values; w++) {
                if (g->values[w].external || g->values[w].root) continue;
                const struct life lw = life_of(g, w);
                if (lw.begin == UINT32_MAX || lw.begin > lv.end || lv.begin > lw.end) continue;
                for (uint32_t q = 0; q < g->values[w].n_planes; q++) {
                    const struct gyre_plane *b = &g->values[w].plane[q];
                    if (a == b || a->chunk != b->chunk) continue;
                    assert_true(a->offset + a->bytes <= b->offset || b->offset + b->bytes <= a->offset);
                }
            }
        }
    }
}

static void plan_many(const struct gyre_device_options *options, bool split)
{
    struct lab lab;
    assert_true(lab_open(&lab, "null", options));
    const struct gyre_weight wide = lab_weight(&lab, GYRE_WEIGHT_W8, 192, 64, 0, 1),
                             narrow = lab_weight(&lab, GYRE_WEIGHT_W8, 64, 192, 64, 1);
    const struct gyre_binding gain = lab_floats(&lab, 192, 1, 0);
    uint32_t chunks = 0;
    for (uint32_t i = 0; i < 40; i++) {
        const uint32_t rows = 1 + lab_random(&lab, 20);
        const struct gyre_binding x = lab_floats(&lab, rows * 64, 0, 1), y = lab_floats(&lab, rows * 64, 0, 0);
        gyre_graph *g = random_graph(&lab, rows, x, y, gain, &wide, &narrow);
        gyre_error err = {0};
        uint64_t sum = 0;
        if (gyre_graph_plan(g, NULL, &err)) fail_msg("%s", err.message);
        check_plan(g, &sum);
        assert_true(g->n_chunks > 0 && g->chunk_bytes[0] < sum);
        chunks = GYRE_MAX(chunks, g->n_chunks);
        gyre_graph_destroy(g);
    }
    assert_int_equal(chunks > 1, split);
    lab_close(&lab);
}

static void random_graphs(void **state)
{
    (void)state;
    plan_many(NULL, false);
}

static void several_buffers_when_one_would_be_too_large(void **state)
{
    (void)state;
    plan_many(&(struct gyre_device_options){.limit_buffer = 48 << 10}, true);
}

static void a_value_larger_than_a_binding_is_refused(void **state)
{
    (void)state;
    struct lab lab;
    assert_true(lab_open(&lab, "null", &(struct gyre_device_options){.limit_binding = 16 << 10}));
    const struct gyre_weight wide = lab_weight(&lab, GYRE_WEIGHT_W4, 192, 64, 32, 1);
    gyre_graph *g = NULL;
    assert_int_equal(gyre_graph_create(lab.device, 30, NULL, &g, NULL), GYRE_OK);
    gyre_g_matmul(g, gyre_g_external(g, "x", 30, 64, lab_floats(&lab, 30 * 64, 0, 1)), &wide); // 23040 bytes
    gyre_error err = {0};
    assert_int_equal(gyre_graph_plan(g, NULL, &err), GYRE_E_UNSUPPORTED);
    gyre_graph_destroy(g);
    lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_graphs),
        cmocka_unit_test(several_buffers_when_one_would_be_too_large),
        cmocka_unit_test(a_value_larger_than_a_binding_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
