// Sizes beyond 2^18: every reduction, and every loop over a size that a model file sets (vocabulary, K of a product,
// width, context). Devices of every kind must give what the reference gives. Why it is asked: lavapipe ends the loops
// of an invocation after 65,535 iterations, all of them counted together, and says nothing.
#include "runtime/graph/repack.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"
#include "tests/common/device.h"
#include "tests/graph/lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

enum { BIG = 1 << 18, HUGE_SIZE = 1 << 20 };

// ---- one case on a device and on the reference ----------------------------------------------------------

// A case builds a graph whose result lands in *out, of out->size bytes.
struct large {
    const char *what;
    gyre_graph *(*build)(struct lab *lab, const struct large *c, struct gyre_binding *out);
    uint32_t rows, size, k, bits, group; // size: what the loop runs over
    gyre_weight_kind kind;
    double bound; // of the normalized mean square error; 0: the same bits
};

static bool device_ends_loops(const char *device)
{
    struct lab lab;
    assert_true(lab_open(&lab, device, NULL));
    const bool ends = gyre_device_info(lab.device)->max_loop != 0;
    lab_close(&lab);
    return ends;
}

// The devices that are here.
static const char *devices[2];
static size_t n_devices;

// `blind`: nobody knows that the driver ends loops, so nothing is done about it.
static float *run(const char *device, const struct large *c, bool blind, uint64_t *bytes)
{
    struct lab lab;
    gyre_error err = {0};
    struct gyre_binding out = {0};
    assert_true(lab_open(&lab, device, NULL));
    if (blind) lab.device->info.max_loop = 0;
    gyre_graph *g = c->build(&lab, c, &out);
    if (gyre_graph_compile(g, NULL, &err) || gyre_graph_submit(g, &err) || gyre_wait(lab.device, &err))
        fail_msg("%s on %s: %s", c->what, device, err.message);
    float *y = malloc(out.size);
    assert_non_null(y);
    lab_read(&lab, out, y);
    *bytes = out.size;
    gyre_graph_destroy(g);
    lab_close(&lab);
    return y;
}

static bool close_enough(const float *want, const float *got, uint64_t n, double bound)
{
    double error = 0, power = 0;
    if (bound == 0) return memcmp(want, got, 4 * n) == 0;
    for (uint64_t i = 0; i < n; i++) {
        const double w = (double)want[i], d = (double)got[i] - w;
        error += d * d;
        power += w * w;
    }
    return error <= bound * power; // NaN is not
}

static bool has_nan(const float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (isnan(x[i])) return true;
    return false;
}

// Every device gives what the reference gives; where its driver may end loops and nothing is done about it, at least
// NaN.
static void compare(const struct large *c, int *wrong)
{
    uint64_t bytes = 0;
    float *want = run("cpu", c, false, &bytes);
    for (size_t d = 0; d < n_devices; d++)
        for (int blind = 0; blind < 2; blind++) {
            float *got = run(devices[d], c, blind, &bytes);
            if (!close_enough(want, got, bytes / 4, c->bound) && !(blind && has_nan(got, bytes / 4))) {
                print_error("%s of %u on %s%s: %.9g %.9g, want %.9g %.9g\n", c->what, c->size, devices[d],
                            blind ? ", loops not bounded" : "", (double)got[0], (double)got[1], (double)want[0],
                            (double)want[1]);
                (*wrong)++;
            }
            free(got);
            if (!device_ends_loops(devices[d])) break;
        }
    free(want);
}

// ---- the cases ------------------------------------------------------------------------------------------

static gyre_graph *begin(struct lab *lab, uint32_t rows)
{
    gyre_graph *g = NULL;
    assert_int_equal(gyre_graph_create(lab->device, rows, NULL, &g, NULL), GYRE_OK);
    return g;
}

static gyre_value input(struct lab *lab, gyre_graph *g, const char *name, uint32_t rows, uint32_t width, float spread)
{
    return gyre_g_external(g, name, rows, width, lab_floats(lab, (uint64_t)rows * width, 0, spread));
}

static struct gyre_binding output(struct lab *lab, gyre_graph *g, gyre_value y, uint64_t floats)
{
    const struct gyre_binding out = lab_bytes(lab, NULL, 4 * floats);
    gyre_g_output(g, y, out);
    return out;
}

static gyre_graph *build_kl(struct lab *lab, const struct large *c, struct gyre_binding *out)
{
    gyre_graph *g = begin(lab, c->rows);
    const gyre_value p = input(lab, g, "p", c->rows, c->size, 3), q = input(lab, g, "q", c->rows, c->size, 3);
    *out = output(lab, g, gyre_g_kl(g, p, q), 4ull * c->rows);
    return g;
}

static gyre_graph *build_loglik(struct lab *lab, const struct large *c, struct gyre_binding *out)
{
    gyre_graph *g = begin(lab, c->rows);
    uint32_t targets[8];
    for (uint32_t r = 0; r < c->rows; r++) targets[r] = c->size - 1 - r;
    const gyre_value x = input(lab, g, "x", c->rows, c->size, 3);
    *out = output(lab, g, gyre_g_loglik(g, x, lab_bytes(lab, targets, 4ull * c->rows)), 4ull * c->rows);
    return g;
}

static gyre_graph *build_mass(struct lab *lab, const struct large *c, struct gyre_binding *out)
{
    gyre_graph *g = begin(lab, c->rows);
    uint32_t state[8][4] = {0};
    for (uint32_t r = 0; r < c->rows; r++) state[r][0] = gyre_f32_bits(0.7f);
    const gyre_value x = input(lab, g, "x", c->rows, c->size, 3);
    gyre_value vals, ids;
    gyre_g_topk(g, x, 1, &vals, &ids);
    *out = output(lab, g, gyre_g_mass(g, x, vals, lab_bytes(lab, state, 16ull * c->rows)), c->rows);
    return g;
}

// The chosen token goes through `sample` too. The best lies in the last column.
static gyre_graph *build_topk(struct lab *lab, const struct large *c, struct gyre_binding *out)
{
    gyre_graph *g = begin(lab, c->rows);
    const struct gyre_binding x = lab_floats(lab, (uint64_t)c->rows * c->size, 0, 3);
    const float best = 40;
    for (uint32_t r = 0; r < c->rows; r++)
        assert_int_equal(
            gyre_buffer_write(lab->device, x.buffer, 4ull * ((uint64_t)(r + 1) * c->size - 1), &best, 4, NULL),
            GYRE_OK);
    gyre_value vals, ids;
    gyre_g_topk(g, gyre_g_external(g, "x", c->rows, c->size, x), c->k, &vals, &ids);
    *out = output(lab, g, vals, (uint64_t)c->rows * c->k);
    return g;
}

// Weights live as long as the graph that names them: one graph at a time.
static struct gyre_weight weight;

// A product with 8 columns: every element of x counts.
static void product(struct lab *lab, gyre_graph *g, gyre_value x, const struct large *c, gyre_weight_kind kind,
                    struct gyre_binding *out)
{
    weight = lab_weight(lab, kind, 8, c->size, kind == GYRE_WEIGHT_W4 || kind == GYRE_WEIGHT_W8 ? c->group : 0, 1);
    *out = output(lab, g, gyre_g_matmul(g, x, &weight), 8ull * c->rows);
}

static gyre_graph *build_matmul(struct lab *lab, const struct large *c, struct gyre_binding *out)
{
    gyre_graph *g = begin(lab, c->rows);
    product(lab, g, gyre_g_quantize(g, input(lab, g, "x", c->rows, c->size, 1), c->bits, 1), c, c->kind, out);
    return g;
}

static gyre_graph *build_norm(struct lab *lab, const struct large *c, struct gyre_binding *out)
{
    gyre_graph *g = begin(lab, c->rows);
    const gyre_value x = input(lab, g, "x", c->rows, c->size, 1);
    const gyre_value y = gyre_g_rms_norm(g, x, lab_floats(lab, c->size, 1, 0.2f), 1e-5f);
    if (c->bits == 16) *out = output(lab, g, y, (uint64_t)c->rows * c->size);
    else product(lab, g, gyre_g_quantize(g, y, c->bits, 1), c, GYRE_WEIGHT_F16, out);
    return g;
}

// k: a factor of the Hadamard transform beside a power of two; 0: no transform.
static struct gyre_had_desc had_of(struct lab *lab, const struct large *c)
{
    uint32_t p = 0, base[12] = {0};
    while (c->k << (p + 1) <= c->size) p++;
    for (uint32_t i = 1; i < 12; i++) // rows of Paley's matrix of order 12
        for (uint32_t j = 0; j < 12; j++)
            base[i] |= (uint32_t)(j == 0 || (j != i && !(0x23Bu >> (j + 11 - i) % 11 & 1))) << j;
    return (struct gyre_had_desc){
        .n = c->size, .k1 = c->k, .k2 = 1, .k3 = 1, .p = p, .base = lab_bytes(lab, base, sizeof base)};
}

static gyre_graph *build_hadamard(struct lab *lab, const struct large *c, struct gyre_binding *out)
{
    gyre_graph *g = begin(lab, c->rows);
    const struct gyre_had_desc had = had_of(lab, c);
    const gyre_value x = input(lab, g, "x", c->rows, c->size, 1);
    *out =
        output(lab, g, gyre_g_hadamard(g, x, &had, 1, c->group, (struct gyre_binding){0}), (uint64_t)c->rows * c->size);
    return g;
}

static gyre_graph *build_act_mul(struct lab *lab, const struct large *c, struct gyre_binding *out)
{
    gyre_graph *g = begin(lab, c->rows);
    gyre_value y = gyre_g_act_mul(g, input(lab, g, "gate_up", c->rows, 2 * c->size, 1), 0);
    struct gyre_had_desc had = {0};
    if (c->k) had = had_of(lab, c);
    y = gyre_g_hadamard(g, y, &had, 1, false, (struct gyre_binding){0});
    if (c->bits == 16) *out = output(lab, g, y, (uint64_t)c->rows * c->size);
    else product(lab, g, gyre_g_quantize(g, y, c->bits, 1), c, GYRE_WEIGHT_F16, out);
    return g;
}

// The last rows of one sequence of `size` positions, heads of 16, k query heads to one kv head.
static gyre_graph *build_attn(struct lab *lab, const struct large *c, struct gyre_binding *out)
{
    enum { HD = 16 };
    const uint32_t stride = (c->size + 31) / 32, slots = 32 * stride;
    int32_t *rows = calloc(c->rows, 16), *pages = calloc(stride, 4);
    uint32_t *meta = calloc(slots, 4), *pool = calloc(slots, HD * c->bits / 8);
    assert_true(rows && pages && meta && pool);
    for (uint32_t r = 0; r < c->rows; r++) rows[4 * r + 2] = (int32_t)(c->size - c->rows + r), rows[4 * r + 3] = 1;
    for (uint32_t i = 0; i < stride; i++) pages[i] = (int32_t)(stride - 1 - i);
    for (uint32_t i = 0; i < slots; i++) meta[i] = 0x2400u | (c->bits == 8 ? 0x5800u : 0x4800u) << 16; // 1/64; 128 or 8
    for (uint32_t i = 0; i < slots * HD * c->bits / 32; i++)
        pool[i] = lab_random(lab, 0xFFFFFFFFu) & (c->bits == 16 ? 0xBBFFBBFFu : ~0u);
    const struct gyre_batch batch = {lab_bytes(lab, rows, 16ull * c->rows), lab_bytes(lab, pages, 4ull * stride),
                                     stride};
    const struct gyre_attn_shape shape = {
        .heads = c->k, .kv_heads = 1, .head_dim = HD, .mscale = 1, .freqs = lab_floats(lab, HD / 2, 0, 0)};
    const struct gyre_binding codes = lab_bytes(lab, pool, (uint64_t)slots * HD * c->bits / 8),
                              metas = lab_bytes(lab, meta, 4ull * slots);
    const struct gyre_kv_pool kv = {
        .k = codes, .k_meta = metas, .v = codes, .v_meta = metas, .bits = c->bits, .clip = 1};
    gyre_graph *g = NULL;
    assert_int_equal(gyre_graph_create(lab->device, c->rows, &batch, &g, NULL), GYRE_OK);
    *out = output(lab, g, gyre_g_attn(g, input(lab, g, "q", c->rows, c->k * HD, 1), &shape, &kv),
                  (uint64_t)c->rows * c->k * HD);
    free(rows);
    free(pages);
    free(meta);
    free(pool);
    return g;
}

static const struct large reductions[] = {
    {"kl", build_kl, 2, BIG, 0, 0, 0, 0, 1e-10},
    {"kl", build_kl, 2, HUGE_SIZE + 1, 0, 0, 0, 0, 1e-10},
    {"loglik", build_loglik, 2, BIG, 0, 0, 0, 0, 1e-10},
    {"loglik", build_loglik, 2, HUGE_SIZE + 1, 0, 0, 0, 0, 1e-10},
    {"mass", build_mass, 2, HUGE_SIZE + 1, 0, 0, 0, 0, 1e-10},
    {"argmax", build_topk, 2, HUGE_SIZE + 1, 1, 0, 0, 0, 0},
    {"topk", build_topk, 2, BIG, 256, 0, 0, 0, 0},
    {"topk", build_topk, 2, HUGE_SIZE + 1, 40, 0, 0, 0, 0},
};
static const struct large products[] = {
    {"f32 product", build_matmul, 1, HUGE_SIZE + 4, 0, 16, 0, GYRE_WEIGHT_F32, 1e-9},
    {"f16 product", build_matmul, 9, BIG + 64, 0, 16, 0, GYRE_WEIGHT_F16, 1e-9},
    {"f16 product with codes", build_matmul, 2, BIG + 4, 0, 8, 0, GYRE_WEIGHT_F16, 1e-9},
    {"int8 product with floats", build_matmul, 3, BIG, 0, 16, 32, GYRE_WEIGHT_W8, 1e-9},
    {"int4 product with floats", build_matmul, 9, HUGE_SIZE + 32, 0, 16, 32, GYRE_WEIGHT_W4, 1e-9},
    {"int4 product", build_matmul, 1, HUGE_SIZE + 32, 0, 8, 32, GYRE_WEIGHT_W4, 1e-9},
    {"int4 product, per channel", build_matmul, 9, HUGE_SIZE + 4, 0, 8, 0, GYRE_WEIGHT_W4, 0},
    {"int8 product, per channel", build_matmul, 1, HUGE_SIZE + 4, 0, 4, 0, GYRE_WEIGHT_W8, 0},
};
static const struct large rows[] = {
    {"norm", build_norm, 2, BIG, 0, 16, 0, 0, 1e-10},
    {"norm", build_norm, 1, HUGE_SIZE + 4, 0, 16, 0, 0, 1e-10},
    {"norm and quantizer", build_norm, 2, HUGE_SIZE + 4, 0, 8, 0, 0, 1e-5},
    {"activation", build_act_mul, 1, HUGE_SIZE + 4, 0, 16, 0, 0, 1e-10},
    {"activation and quantizer", build_act_mul, 2, HUGE_SIZE + 4, 0, 4, 0, 0, 1e-4},
    {"activation, Hadamard", build_act_mul, 1, BIG, 1, 16, 0, 0, 1e-10},
    {"activation, Hadamard, quantizer", build_act_mul, 1, 12 << 17, 12, 8, 0, 0, 1e-4},
    {"Hadamard", build_hadamard, 1, HUGE_SIZE, 1, 0, 0, 0, 1e-10},
    {"Hadamard, transposed", build_hadamard, 1, 12 << 15, 12, 0, 1, 0, 1e-10},
};
static const struct large contexts[] = {
    {"attention", build_attn, 1, BIG + 1, 3, 8, 0, 0, 1e-8},
    {"attention", build_attn, 9, BIG, 3, 4, 0, 0, 1e-8},
    {"attention", build_attn, 1, HUGE_SIZE + 1, 4, 16, 0, 0, 1e-8},
};

static void all_of(const struct large *cases, size_t n)
{
    int wrong = 0;
    for (size_t i = 0; i < n; i++) compare(&cases[i], &wrong);
    assert_int_equal(wrong, 0);
}
#define TEST(name)                                                                                                     \
    static void name##_are_whole(void **unused)                                                                        \
    {                                                                                                                  \
        (void)unused;                                                                                                  \
        all_of(name, GYRE_COUNT(name));                                                                                \
    }
TEST(reductions)
TEST(products)
TEST(rows)
TEST(contexts)

// ---- weights on their way to the device -------------------------------------------------------------------

// Uploads 11 rows of `k` and reads the planes back; NULL-terminated sizes in bytes[3].
static uint8_t *repacked(const char *device, gyre_repack_format format, uint32_t k, uint32_t group, uint64_t *size)
{
    enum { N = 11 };
    struct lab lab;
    gyre_error err = {0};
    uint64_t bytes[3];
    gyre_repacker *r = NULL;
    assert_true(lab_open(&lab, device, NULL));
    const gyre_weight_kind kind = gyre_repack_kind(format);
    gyre_weight_plane_bytes(kind, N, k, group, bytes);
    struct gyre_weight_range dst = {0, N, gyre_weight_pad(kind, N), {0}, {0}, {0}};
    struct gyre_binding *plane[] = {&dst.weight, &dst.scale, &dst.sums};
    *size = 0;
    for (int i = 0; i < 3; i++)
        if (bytes[i]) *plane[i] = lab_bytes(&lab, NULL, bytes[i]), *size += bytes[i];
    uint32_t *rows_in = malloc(4ull * N * k);
    uint8_t *all = malloc(*size), *at = all;
    assert_true(rows_in && all);
    for (uint64_t i = 0; i < (uint64_t)N * k; i++) rows_in[i] = lab_random(&lab, 0xFFFFFFFFu);
    const bool scaled = format == GYRE_REPACK_I4 || format == GYRE_REPACK_I8;
    assert_int_equal(gyre_repacker_create(lab.device, &r, &err), GYRE_OK);
    if (gyre_repack_upload(r, format, rows_in, scaled ? (const uint16_t *)rows_in : NULL, NULL, N, k, group, 0, &dst,
                           &err))
        fail_msg("%s", err.message);
    for (int i = 0; i < 3; i++)
        if (bytes[i]) lab_read(&lab, *plane[i], at), at += bytes[i];
    gyre_repacker_destroy(r);
    free(rows_in);
    lab_close(&lab);
    return all;
}

static void weights_of_any_length(void **unused)
{
    static const struct {
        gyre_repack_format format;
        uint32_t k, group;
    } cases[] = {
        {GYRE_REPACK_I4, HUGE_SIZE + 8, HUGE_SIZE + 8},
        {GYRE_REPACK_I8, HUGE_SIZE + 4, HUGE_SIZE + 4},
        {GYRE_REPACK_I4, HUGE_SIZE, 32},
        {GYRE_REPACK_Q4_0, BIG, BIG},
        {GYRE_REPACK_Q8_0, HUGE_SIZE, HUGE_SIZE},
        {GYRE_REPACK_F16, BIG + 1, BIG + 1},
        {GYRE_REPACK_F32, BIG + 1, BIG + 1},
    };
    (void)unused;
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        uint64_t size;
        uint8_t *want = repacked("cpu", cases[i].format, cases[i].k, cases[i].group, &size);
        for (size_t d = 0; d < n_devices; d++) {
            uint8_t *got = repacked(devices[d], cases[i].format, cases[i].k, cases[i].group, &size);
            if (memcmp(want, got, size))
                fail_msg("%s, format %d, K %u, group %u", devices[d], cases[i].format, cases[i].k, cases[i].group);
            free(got);
        }
        free(want);
    }
}

int main(void)
{
    static const char *const wanted[] = {"vulkan:0", "opencl:0"};
    for (size_t i = 0; i < GYRE_COUNT(wanted); i++) {
        const int missing = device_probe(wanted[i]);
        if (missing == 1) return 1;
        if (!missing) devices[n_devices++] = wanted[i];
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reductions_are_whole),  cmocka_unit_test(products_are_whole),
        cmocka_unit_test(rows_are_whole),        cmocka_unit_test(contexts_are_whole),
        cmocka_unit_test(weights_of_any_length),
    };
    return n_devices ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
