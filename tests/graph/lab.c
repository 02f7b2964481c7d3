// See lab.h.
#include "tests/graph/lab.h"
#include "tests/common/device.h"
#include "runtime/graph/repack.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"
#include "runtime/util/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

static void keep_line(void *user, gyre_log_level level, const char *line)
{
    (void)level;
    if (strncmp(line, "vulkan validation:", 18)) return;
    ((struct lab *)user)->complaints++;
    print_message("%s\n", line);
}

bool lab_open(struct lab *lab, const char *id, const struct gyre_device_options *options)
{
    *lab = (struct lab){.random = 7, .log = {keep_line, lab, GYRE_LOG_WARN}};
    struct gyre_device_options all = options ? *options : (struct gyre_device_options){0};
    all.validate = true;
    all.log = &lab->log;
    char name[32];
    const char *posing = strstr(id, " as a GPU");
    snprintf(name, sizeof name, "%.*s", posing ? (int)(posing - id) : (int)strlen(id), id);
    all.as_hardware = all.as_hardware || posing;
    lab->device = device_try(name, &all);
    return lab->device != NULL;
}

void lab_close(struct lab *lab)
{
    for (uint32_t i = 0; i < lab->n_buffers; i++) gyre_buffer_destroy(lab->device, lab->buffers[i]);
    for (uint32_t i = 0; i < lab->n_ranges; i++) free(lab->ranges[i]);
    const uint64_t live = gyre_device_counters(lab->device).live_objects;
    gyre_device_close(lab->device);
    assert_int_equal(live, 0);
    assert_int_equal(lab->complaints, 0);
}

struct lab null_lab;

int null_lab_open(void **state)
{
    (void)state;
    return lab_open(&null_lab, "null", NULL) ? 0 : 1;
}

int null_lab_close(void **state)
{
    (void)state;
    lab_close(&null_lab);
    return 0;
}

static double unit(struct lab *lab)
{
    struct gyre_rng rng = {lab->random};
    const double u = gyre_rng_unit(&rng);
    lab->random = rng.state;
    return u;
}

uint32_t lab_random(struct lab *lab, uint32_t below) { return (uint32_t)(unit(lab) * below); }

struct gyre_binding lab_bytes(struct lab *lab, const void *data, uint64_t bytes)
{
    assert_true(lab->n_buffers < GYRE_COUNT(lab->buffers));
    gyre_error err = {0};
    if (gyre_buffer_create(lab->device, bytes, "lab", &lab->buffers[lab->n_buffers], &err)) fail_msg("%s", err.message);
    gyre_buffer *buffer = lab->buffers[lab->n_buffers++];
    void *zeros = calloc(1, bytes);
    assert_non_null(zeros);
    assert_int_equal(gyre_buffer_write(lab->device, buffer, 0, data ? data : zeros, bytes, &err), GYRE_OK);
    free(zeros);
    return (struct gyre_binding){buffer, 0, bytes};
}

struct gyre_binding lab_floats(struct lab *lab, uint64_t n, float mean, float deviation)
{
    float *x = calloc(n, sizeof *x);
    assert_non_null(x);
    for (uint64_t i = 0; i < n; i++) { // the sum of three uniforms is bell enough
        x[i] = mean + deviation * 2 * (float)(unit(lab) + unit(lab) + unit(lab) - 1.5);
    }
    const struct gyre_binding at = lab_bytes(lab, x, n * sizeof *x);
    free(x);
    return at;
}

void lab_read(struct lab *lab, struct gyre_binding from, void *to)
{
    gyre_error err = {0};
    if (gyre_buffer_read(lab->device, from.buffer, from.offset, to, from.size, &err)) fail_msg("%s", err.message);
}

// ---- weights in device layout (shaders/params.h) ----------------------------------------------------------

static struct gyre_weight_range coded_range(struct lab *lab, gyre_weight_kind kind, uint32_t n, uint32_t k,
                                            uint32_t group)
{
    const int bits = gyre_weight_is_int4(kind) ? 4 : 8;
    const uint32_t n_pad = (n + GYRE_TILE - 1) / GYRE_TILE * GYRE_TILE, bytes = n_pad * k / (bits == 4 ? 2 : 1);
    uint8_t *w = calloc(1, bytes);
    uint64_t plane[3];
    gyre_weight_plane_bytes(kind, n, k, group, plane);
    uint16_t *scale = calloc(1, plane[1]);
    uint32_t *zeros = (uint32_t *)(void *)(scale + (size_t)n_pad * (k / group));
    int32_t *sums = calloc((size_t)n_pad * (k / group), sizeof *sums);
    assert_true(w && scale && sums);
    const double step = 1 / ((bits == 4 ? 4.6 : 74) * sqrt(k));
    for (uint32_t i = 0; i < n_pad * (k / group); i++) scale[i] = gyre_f16_from_f32((float)(step * (0.5 + unit(lab))));
    for (uint32_t i = 0; i < k; i++)
        for (uint32_t j = 0; j < n_pad; j++) {
            const int code = j >= n ? 0 : (int)lab_random(lab, bits == 4 ? 16 : 256) - (bits == 4 ? 8 : 128);
            uint32_t *const eight = &zeros[i / group * (n_pad / 8) + j / 8];
            if (kind == GYRE_WEIGHT_W4Z && i % group == 0) *eight |= (j >= n ? 8 : lab_random(lab, 16)) << 4 * (j % 8);
            sums[i / group * n_pad + j] +=
                kind != GYRE_WEIGHT_W4Z ? code : code + 8 - (int)(*eight >> 4 * (j % 8) & 15);
            if (bits == 4)
                w[GYRE_BLOCK(k / 4, i / 4, j / 8) * 16 + j % 8 / 2 * 4 + i % 4] |= (uint8_t)((code + 8) << (j % 2 * 4));
            else w[GYRE_BLOCK(k / 4, i / 4, j / 8) * 32 + j % 8 * 4 + i % 4] = (uint8_t)code;
        }
    const struct gyre_weight_range r = {0,
                                        n,
                                        n_pad,
                                        lab_bytes(lab, w, bytes),
                                        lab_bytes(lab, scale, plane[1]),
                                        lab_bytes(lab, sums, (uint64_t)n_pad * (k / group) * 4)};
    free(w);
    free(scale);
    free(sums);
    return r;
}

static struct gyre_weight_range float_range(struct lab *lab, gyre_weight_kind kind, uint32_t n, uint32_t k)
{
    const uint32_t n_pad = (n + 7) / 8 * 8, count = n_pad * k;
    float *x = calloc(count, sizeof *x);
    uint16_t *h = calloc(count, sizeof *h);
    assert_true(x && h);
    for (uint32_t i = 0; i < count; i++) {
        h[i] = gyre_f16_from_f32((float)((unit(lab) - 0.5) * 3.4 / sqrt(k)));
        x[i] = gyre_f32_from_f16(h[i]);
    }
    const struct gyre_binding at =
        kind == GYRE_WEIGHT_F16 ? lab_bytes(lab, h, 2ull * count) : lab_bytes(lab, x, 4ull * count);
    free(x);
    free(h);
    return (struct gyre_weight_range){0, n, n_pad, at, at, at};
}

struct gyre_weight lab_weight(struct lab *lab, gyre_weight_kind kind, uint32_t n, uint32_t k, uint32_t group,
                              uint32_t n_ranges)
{
    assert_true(lab->n_ranges < GYRE_COUNT(lab->ranges));
    struct gyre_weight w = {.kind = kind,
                            .n = n,
                            .k = k,
                            .group = group ? group : k,
                            .n_ranges = n_ranges,
                            .range = calloc(n_ranges, sizeof *w.range)};
    assert_non_null(w.range);
    lab->ranges[lab->n_ranges++] = w.range;
    const uint32_t each = n / n_ranges / 8 * 8;
    for (uint32_t i = 0, at = 0; i < n_ranges; i++) {
        const uint32_t columns = i + 1 < n_ranges ? each : n - at;
        w.range[i] = gyre_weight_is_coded(kind) ? coded_range(lab, kind, columns, k, w.group)
                                                : float_range(lab, kind, columns, k);
        w.range[i].n0 = at;
        at += columns;
    }
    return w;
}

// ---- a block --------------------------------------------------------------------------------------------

enum { PAGE = 32, PAGES = 4, PAGE_STRIDE = 3 };

void lab_block(struct lab *lab, struct block_shape s, struct block *b)
{
    if (!s.width) s.width = 64, s.heads = 4, s.kv_heads = 2, s.head_dim = 32, s.ffn = 96;
    *b = (struct block){.s = s};
    const uint32_t qkv = (s.heads + 2 * s.kv_heads) * s.head_dim, q = s.heads * s.head_dim;
    b->qkv = lab_weight(lab, s.kind, qkv, s.width, s.group, 1);
    b->o = lab_weight(lab, s.kind, s.width, q, s.group, 1);
    b->gate_up = lab_weight(lab, s.kind, 2 * s.ffn, s.width, s.group, 2);
    b->down = lab_weight(lab, s.kind, s.width, s.ffn, s.group, 1);
    b->x = lab_floats(lab, (uint64_t)s.rows * s.width, 0, 1);
    b->y = lab_floats(lab, (uint64_t)s.rows * s.width, 0, 0);
    b->attn_gain = lab_floats(lab, s.width, 1, 0.1f);
    b->ffn_gain = lab_floats(lab, s.width, 1, 0.1f);

    float freqs[256];
    for (uint32_t i = 0; i < s.head_dim / 2; i++) freqs[i] = (float)pow(10000, -2.0 * i / s.head_dim);
    b->attn = (struct gyre_attn_shape){.heads = s.heads,
                                       .kv_heads = s.kv_heads,
                                       .head_dim = s.head_dim,
                                       .mscale = 1,
                                       .freqs = lab_bytes(lab, freqs, s.head_dim * 2)};

    // Rows of one sequence from position 30 on, so that they cross a page; earlier positions hold zeros.
    int32_t *rows = calloc(s.rows, 4 * sizeof *rows);
    assert_non_null(rows);
    for (uint32_t i = 0; i < s.rows; i++) rows[4 * i + 1] = 1, rows[4 * i + 2] = (int32_t)(30 + i), rows[4 * i + 3] = 3;
    const int32_t pages[2 * PAGE_STRIDE] = {0, 0, 0, 2, 1, 3};
    b->batch =
        (struct gyre_batch){lab_bytes(lab, rows, 16ull * s.rows), lab_bytes(lab, pages, sizeof pages), PAGE_STRIDE};
    free(rows);
    const uint64_t slots = PAGES * s.kv_heads * PAGE, codes = slots * s.head_dim * s.kv_bits / 8,
                   values = s.kv_bits_v ? slots * s.head_dim * s.kv_bits_v / 8 : codes;
    b->kv = (struct gyre_kv_pool){.k = lab_bytes(lab, NULL, codes),
                                  .k_meta = lab_bytes(lab, NULL, slots * 4),
                                  .v = lab_bytes(lab, NULL, values),
                                  .v_meta = lab_bytes(lab, NULL, slots * 4),
                                  .bits = s.kv_bits,
                                  .bits_v = s.kv_bits_v,
                                  .clip = 1};

    uint32_t p = 0;
    while (1u << (p + 1) <= s.head_dim) p++;
    if (s.r3) b->had3 = (struct gyre_had_desc){.n = s.head_dim, .k1 = 1, .k2 = 1, .k3 = 1, .p = p};
    p = 0;
    while (1u << (p + 1) <= s.width) p++;
    if (s.r1) b->had1 = (struct gyre_had_desc){.n = s.width, .k1 = 1, .k2 = 1, .k3 = 1, .p = p};
    if (s.r4) { // H_12 of Paley's first construction over GF(11), times a power of two
        static const int residue[11] = {0, 1, -1, 1, 1, 1, -1, -1, -1, 1, -1};
        uint32_t base[12] = {0};
        for (uint32_t i = 0; i < 12; i++)
            for (uint32_t j = 0; j < 12; j++) {
                const bool minus = i == 0 ? false : j == 0 ? true : i == j ? false : residue[(j + 11 - i) % 11] < 0;
                base[i] |= (uint32_t)minus << j;
            }
        p = 0;
        while (12u << (p + 1) <= s.ffn) p++;
        assert_int_equal(12u << p, s.ffn);
        b->had4 = (struct gyre_had_desc){
            .n = s.ffn, .k1 = 12, .k2 = 1, .k3 = 1, .p = p, .base = lab_bytes(lab, base, sizeof base)};
    }
    if (s.centred) b->kv.centre = lab_floats(lab, 2ull * s.kv_heads * s.head_dim, 0, 0.7f);
}

gyre_graph *lab_block_graph(struct lab *lab, const struct block *b)
{
    gyre_graph *g = NULL;
    const struct block_shape *s = &b->s;
    const struct gyre_binding none = {0};
    assert_int_equal(gyre_graph_create(lab->device, s->rows, &b->batch, &g, NULL), GYRE_OK);
    gyre_value x = gyre_g_external(g, "x", s->rows, s->width, b->x);
    gyre_value h = gyre_g_hadamard(g, gyre_g_rms_norm(g, x, b->attn_gain, 1e-5f), &b->had1, 1, false, none);
    h = gyre_g_quantize_groups(g, h, s->act_bits, 1, s->act_group);
    gyre_value qkv = gyre_g_rope(g, gyre_g_matmul(g, h, &b->qkv), &b->attn);
    qkv = gyre_g_hadamard(g, qkv, &b->had3, s->heads + s->kv_heads, false, none);
    gyre_g_kv_write(g, qkv, &b->attn, &b->kv);
    h = gyre_g_quantize_groups(g, gyre_g_attn(g, qkv, &b->attn, &b->kv), s->act_bits, 1, s->act_group);
    x = gyre_g_add(g, x, gyre_g_matmul(g, h, &b->o));
    h = gyre_g_hadamard(g, gyre_g_rms_norm(g, x, b->ffn_gain, 1e-5f), &b->had1, 1, false, none);
    h = gyre_g_quantize_groups(g, h, s->act_bits, 1, s->act_group);
    h = gyre_g_hadamard(g, gyre_g_act_mul(g, gyre_g_matmul(g, h, &b->gate_up), 0), &b->had4, 1, false, none);
    h = gyre_g_quantize_groups(g, h, s->act_bits, 1, s->act_group);
    gyre_g_output(g, gyre_g_add(g, gyre_g_matmul(g, h, &b->down), x), b->y);
    return g;
}
