// A centred KV cache: attention's result stays what it was, and keys and values around a constant far from zero keep
// their digits. Against attention in double on the host.
#include "tests/graph/lab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

enum { ROWS = 37, HEADS = 6, KV_HEADS = 3, HD = 32, WIDTH = (HEADS + 2 * KV_HEADS) * HD, STRIDE = 2, PAGE = 32 };

struct problem {
    float qkv[ROWS][WIDTH], offset[2][KV_HEADS][HD];
    double want[ROWS][HEADS * HD];
};

static float normal(struct lab *lab)
{
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += lab_random(lab, 1 << 20) / 1048576.0;
    return (float)sum;
}

static void make_problem(struct lab *lab, float distance, struct problem *p)
{
    for (int kv = 0; kv < 2; kv++)
        for (int g = 0; g < KV_HEADS; g++)
            for (int i = 0; i < HD; i++) p->offset[kv][g][i] = distance * normal(lab);
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < WIDTH; i++)
            p->qkv[r][i] = normal(lab) + (i < HEADS * HD ? 0 : (&p->offset[0][0][0])[i - HEADS * HD]);
    for (int r = 0; r < ROWS; r++)
        for (int h = 0; h < HEADS; h++) {
            const int k = (HEADS + h / 2) * HD, v = k + KV_HEADS * HD;
            double s[ROWS], top = -1e300, total = 0;
            for (int t = 0; t <= r; t++) {
                s[t] = 0;
                for (int i = 0; i < HD; i++)
                    s[t] += (double)p->qkv[r][h * HD + i] * (double)p->qkv[t][k + i] / sqrt(HD);
                top = fmax(top, s[t]);
            }
            for (int t = 0; t <= r; t++) total += s[t] = exp(s[t] - top);
            for (int i = 0; i < HD; i++) {
                double *y = &p->want[r][h * HD + i];
                *y = 0;
                for (int t = 0; t <= r; t++) *y += s[t] / total * (double)p->qkv[t][v + i];
            }
        }
}

// y = x H / sqrt(n), H of Sylvester's construction.
static void transform(const float *x, float *y)
{
    for (unsigned j = 0; j < HD; j++) {
        double sum = 0;
        for (unsigned i = 0; i < HD; i++) sum += __builtin_parity(i & j) ? -(double)x[i] : (double)x[i];
        y[j] = (float)(sum / sqrt(HD));
    }
}

// Sum of squared errors of attention on the device over a cache of `bits`.
static double error_of(struct lab *lab, const struct problem *p, uint32_t bits, bool r3, bool centred)
{
    static float y[ROWS][HEADS * HD];
    int32_t rows[ROWS][4] = {{0}};
    float centre[2][KV_HEADS][HD];
    const int32_t pages[STRIDE] = {1, 0};
    gyre_error err = {0};
    gyre_graph *g = NULL;
    for (int r = 0; r < ROWS; r++) rows[r][2] = r, rows[r][3] = 1;
    memcpy(centre, p->offset, sizeof centre);
    for (int h = 0; r3 && h < KV_HEADS; h++) transform(p->offset[0][h], centre[0][h]);
    const uint64_t slots = STRIDE * KV_HEADS * PAGE;
    struct gyre_kv_pool kv = {.bits = bits, .clip = 1};
    kv.k = lab_bytes(lab, NULL, slots * HD * bits / 8);
    kv.v = lab_bytes(lab, NULL, slots * HD * bits / 8);
    kv.k_meta = lab_bytes(lab, NULL, slots * 4);
    kv.v_meta = lab_bytes(lab, NULL, slots * 4);
    if (centred) kv.centre = lab_bytes(lab, centre, sizeof centre);
    const struct gyre_batch batch = {lab_bytes(lab, rows, sizeof rows), lab_bytes(lab, pages, sizeof pages), STRIDE};
    const struct gyre_attn_shape shape = {.heads = HEADS, .kv_heads = KV_HEADS, .head_dim = HD, .mscale = 1};
    const struct gyre_had_desc had = {.n = r3 ? HD : 0, .k1 = 1, .k2 = 1, .k3 = 1, .p = 5};
    const struct gyre_binding to = lab_bytes(lab, NULL, sizeof y);
    assert_int_equal(gyre_graph_create(lab->device, ROWS, &batch, &g, &err), GYRE_OK);
    gyre_value x = gyre_g_external(g, "qkv", ROWS, WIDTH, lab_bytes(lab, p->qkv, sizeof p->qkv));
    x = gyre_g_hadamard(g, x, &had, HEADS + KV_HEADS, false, (struct gyre_binding){0});
    gyre_g_kv_write(g, x, &shape, &kv);
    gyre_g_output(g, gyre_g_attn(g, x, &shape, &kv), to);
    if (gyre_graph_compile(g, NULL, &err) || gyre_graph_submit(g, &err)) fail_msg("%s", err.message);
    lab_read(lab, to, y);
    gyre_graph_destroy(g);
    double error = 0;
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < HEADS * HD; i++) error += pow((double)y[r][i] - p->want[r][i], 2);
    return error;
}

// Far from zero a centred cache is several times more exact.
static void far_from_zero(void **state)
{
    static struct problem p;
    struct lab lab;
    if (!lab_open(&lab, *state, NULL)) skip();
    make_problem(&lab, 10, &p);
    for (uint32_t bits = 4; bits <= 8; bits += 4)
        for (int r3 = 0; r3 < 2; r3++) {
            const double plain = error_of(&lab, &p, bits, r3, false), centred = error_of(&lab, &p, bits, r3, true);
            print_message("%s, kv %u, R3 %d: root of the error %.3g, centred %.3g\n", (const char *)*state, bits, r3,
                          sqrt(plain), sqrt(centred));
            if (!(centred * 16 < plain)) fail_msg("kv %u, R3 %d: centring gains too little", bits, r3);
        }
    lab_close(&lab);
}

// With a cache that rounds as little as float does, any centre leaves the result as it is.
static void nothing_but_rounding(void **state)
{
    static struct problem p;
    struct lab lab;
    if (!lab_open(&lab, *state, NULL)) skip();
    make_problem(&lab, 1, &p);
    double power = 0;
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < HEADS * HD; i++) power += pow(p.want[r][i], 2);
    const bool exact = !strcmp(*state, "cpu"); // the one that has a cache of f32
    for (int trial = 0; trial < 3; trial++) {
        for (int i = 0; i < 2 * KV_HEADS * HD; i++) (&p.offset[0][0][0])[i] = 3 * normal(&lab); // not the mean
        const double error = error_of(&lab, &p, exact ? 32 : 16, trial == 1, true) / power;
        if (!(error < (exact ? 1e-11 : 2e-6))) fail_msg("centred by a random vector: an NMSE of %g", error);
    }
    lab_close(&lab);
}

// A centre that is too short, or there in only one of operand and parameter, is refused.
static void bad_centres(void **state)
{
    (void)state;
    struct lab lab;
    struct block b;
    assert_true(lab_open(&lab, "null", NULL));
    lab_block(&lab,
              (struct block_shape){.rows = 2, .act_bits = 16, .kv_bits = 8, .kind = GYRE_WEIGHT_W8, .centred = true},
              &b);
    const struct gyre_binding whole = b.kv.centre;
    for (int lie = 0; lie < 4; lie++) {
        gyre_error err = {0};
        b.kv.centre = whole;
        if (lie == 0) b.kv.centre.size -= 4;
        gyre_graph *g = lab_block_graph(&lab, &b);
        for (uint32_t i = 0; lie && i < g->n_nodes; i++) {
            struct gyre_node *n = &g->nodes[i];
            if (lie == 1 && n->op == GYRE_OP_kv_write) n->in[3] = GYRE_NONE;
            if (lie == 2 && n->op == GYRE_OP_attn) n->params.attn.centred = 0;
            if (lie == 3 && n->op == GYRE_OP_attn) n->in[4] = GYRE_NONE;
        }
        assert_int_equal(gyre_graph_plan(g, NULL, &err), GYRE_E_INVALID);
        if (!strstr(err.message, "centre")) fail_msg("lie %d: %s", lie, err.message);
        gyre_graph_destroy(g);
    }
    lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_ON(far_from_zero, "cpu"),      LAB_ON(nothing_but_rounding, "cpu"),
        LAB_ON(far_from_zero, "vulkan:0"), LAB_ON(nothing_but_rounding, "vulkan:0"),
        LAB_ON(far_from_zero, "opencl:0"), LAB_ON(nothing_but_rounding, "opencl:0"),
        cmocka_unit_test(bad_centres),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
