// int4 with zero points as checkpoints of other tools have it: on the device it takes four bits a weight, and what it
// multiplies is what the same codes give less their zero points as int8, to the bit where x has codes.
#include "runtime/graph/graph.h"
#include "runtime/model/linear.h"
#include "runtime/model/weights.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"
#include "tests/common/checkpoint.h"
#include "tests/common/device.h"
#include "tests/common/files.h"

#include <gyre/gyre.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST_ROWS = 9, MOST_SIDE = 512 };
static const char *id = "cpu";
static gyre_device *device;
static gyre_repacker *repacker;

// The parts side by side as int8, their codes less their zero points.
static struct gyre_weight less_their_zeros(const struct gyre_linear *parts, uint32_t n_parts)
{
    struct gyre_weight w;
    uint32_t n = 0, n0 = 0;
    const uint32_t k = (uint32_t)parts[0].cols, group = parts[0].group, groups = k / group;
    for (uint32_t i = 0; i < n_parts; i++) n += (uint32_t)parts[i].rows;
    assert_int_equal(gyre_weight_create(device, GYRE_WEIGHT_W8, n, k, group, "twin", &w, NULL), GYRE_OK);
    for (uint32_t i = 0; i < n_parts; n0 += (uint32_t)parts[i++].rows) {
        const uint32_t rows = (uint32_t)parts[i].rows;
        int8_t *codes = malloc((size_t)rows * k), *zeros = malloc((size_t)rows * groups);
        uint16_t *scales = malloc((size_t)rows * groups * sizeof *scales);
        assert_true(codes && zeros && scales);
        assert_int_equal(gyre_linear_codes(&parts[i], 0, rows, codes, scales, zeros, NULL), GYRE_OK);
        for (uint32_t j = 0; j < rows * k; j++) codes[j] = (int8_t)(codes[j] - zeros[j / group]);
        assert_int_equal(gyre_weight_fill(repacker, &w, n0, rows, NULL, codes, scales, NULL), GYRE_OK);
        free(codes), free(zeros), free(scales);
    }
    return w;
}

static struct gyre_binding upload(const void *data, uint64_t bytes)
{
    struct gyre_binding at;
    assert_int_equal(gyre_upload(device, data, bytes, "test", &at, NULL), GYRE_OK);
    return at;
}

// x times the one and the other, x in so many bits.
static void compare(const struct gyre_weight *w, const struct gyre_weight *twin, uint32_t rows, uint32_t bits)
{
    static float x[MOST_ROWS * MOST_SIDE], y[2][MOST_ROWS * MOST_SIDE];
    assert_true(rows <= MOST_ROWS && w->n <= MOST_SIDE && w->k <= MOST_SIDE);
    uint32_t random = 1;
    for (uint32_t i = 0; i < rows * w->k; i++) {
        random = random * 1664525u + 1013904223u;
        x[i] = (float)(random >> 8) / (1 << 23) - 0.7f;
    }
    const uint64_t bytes = 4ull * rows * w->n;
    const struct gyre_binding in = upload(x, 4ull * rows * w->k), out[] = {upload(x, bytes), upload(x, bytes)};
    gyre_error err = {0};
    gyre_graph *g = NULL;
    assert_int_equal(gyre_graph_create(device, rows, NULL, &g, &err), GYRE_OK);
    const gyre_value v = gyre_g_quantize(g, gyre_g_external(g, "x", rows, w->k, in), bits, 1);
    gyre_g_output(g, gyre_g_matmul(g, v, w), out[0]);
    gyre_g_output(g, gyre_g_matmul(g, v, twin), out[1]);
    gyre_status st = gyre_graph_compile(g, NULL, &err);
    if (st == GYRE_OK) st = gyre_graph_submit(g, &err);
    for (int i = 0; i < 2 && st == GYRE_OK; i++) st = gyre_buffer_read(device, out[i].buffer, 0, y[i], bytes, &err);
    if (st != GYRE_OK) fail_msg("%s", err.message);
    if (bits < 16) assert_memory_equal(y[0], y[1], bytes);
    double off = 0, whole = 0;
    for (uint32_t i = 0; i < rows * w->n; i++) {
        off += (double)(y[0][i] - y[1][i]) * (double)(y[0][i] - y[1][i]);
        whole += (double)y[1][i] * (double)y[1][i];
    }
    assert_true(whole > 0 && off <= 1e-11 * whole);
    gyre_graph_destroy(g);
    gyre_buffer_destroy(device, in.buffer);
    for (int i = 0; i < 2; i++) gyre_buffer_destroy(device, out[i].buffer);
}

// Every product of a block; `middle`: one part's zero points count for nothing, as where all of them are 8.
static void products(const struct checkpoint *c, gyre_weight_kind due, bool middle)
{
    const struct tiny_options o = tiny_defaults();
    gyre_source *source = NULL;
    struct gyre_hparams hp;
    gyre_error err = {0};
    assert_int_equal(checkpoint_write(files_path("zeros"), &o, c), 0);
    assert_int_equal(gyre_source_open(files_path("zeros"), &source, &err), GYRE_OK);
    assert_int_equal(gyre_hparams_read(source, &hp, &err), GYRE_OK);
    for (int p = 0; p < GYRE_PRODUCTS; p++) {
        struct gyre_linear part[GYRE_LINEARS];
        gyre_role role[GYRE_LINEARS];
        struct gyre_weight w;
        uint32_t n = 0;
        assert_int_equal(gyre_linear_product(source, &hp, 0, (gyre_product)p, part, role, &n, &err), GYRE_OK);
        if (n < 2 && middle) continue;
        if (n > 1 && c->act_order) continue; // its parts have orders of their own: f16
        if (middle) part[n - 1].zeros = false;
        if (gyre_weight_load(device, repacker, part, n, "w", NULL, &w, &err) != GYRE_OK) fail_msg("%s", err.message);
        struct gyre_weight twin = less_their_zeros(part, n);
        assert_int_equal(w.kind, due);
        assert_int_equal(w.group, c->group ? c->group : w.k);
        assert_int_equal(gyre_weight_bytes(&w), gyre_weight_form_bytes(part, n, 0));
        const uint64_t order = w.order.size, saved = gyre_weight_bytes(&twin) - (gyre_weight_bytes(&w) - order);
        const uint64_t columns = w.range[0].n_pad, groups = w.k / w.group;
        assert_int_equal(saved, due == GYRE_WEIGHT_W4Z ? columns * w.k / 2 - columns * groups / 2 : 0);
        for (uint32_t bits = 4; bits <= 16; bits *= 2) compare(&w, &twin, bits == 8 ? 1 : MOST_ROWS, bits);
        gyre_weight_destroy(device, &w);
        gyre_weight_destroy(device, &twin);
    }
    gyre_hparams_free(&hp);
    gyre_source_close(source);
}

static void the_bits_of_int8_in_half_the_memory(void **state)
{
    (void)state;
    static const struct checkpoint all[] = {
        {.form = CHECKPOINT_WORDS, .bits = 4, .group = 32, .asymmetric = true, .scale = GYRE_DTYPE_F16},
        {.form = CHECKPOINT_WORDS,
         .bits = 4,
         .group = 8,
         .asymmetric = true,
         .byte_zeros = true,
         .scale = GYRE_DTYPE_F16},
        {.form = CHECKPOINT_GPTQ, .bits = 4, .asymmetric = true, .scale = GYRE_DTYPE_F16},
        {.form = CHECKPOINT_GPTQ,
         .bits = 4,
         .group = 16,
         .asymmetric = true,
         .act_order = true,
         .scale = GYRE_DTYPE_F16},
        {.form = CHECKPOINT_AWQ, .bits = 4, .group = 32, .asymmetric = true, .scale = GYRE_DTYPE_F16},
    };
    for (size_t i = 0; i < GYRE_COUNT(all); i++) products(&all[i], GYRE_WEIGHT_W4Z, false);
}

static void one_part_with_zero_points_is_enough(void **state)
{
    (void)state;
    products(
        &(struct checkpoint){
            .form = CHECKPOINT_AWQ, .bits = 4, .group = 32, .asymmetric = true, .scale = GYRE_DTYPE_F16},
        GYRE_WEIGHT_W4Z, true);
}

static void groups_of_half_words_run_as_int8(void **state)
{
    (void)state;
    products(
        &(struct checkpoint){
            .form = CHECKPOINT_WORDS, .bits = 4, .group = 4, .asymmetric = true, .scale = GYRE_DTYPE_F16},
        GYRE_WEIGHT_W8, false);
}

int main(int argc, char **argv)
{
    if (argc > 1) id = argv[1];
    const int missing = device_probe(id);
    if (missing) return missing;
    if (gyre_device_open(id, NULL, &device, NULL) || gyre_repacker_create(device, &repacker, NULL)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bits_of_int8_in_half_the_memory),
        cmocka_unit_test(one_part_with_zero_points_is_enough),
        cmocka_unit_test(groups_of_half_words_run_as_int8),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    gyre_repacker_destroy(repacker);
    gyre_device_close(device);
    files_remove();
    return failed;
}
