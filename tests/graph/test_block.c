// Graphs that compute: one block fused and not, a head with its embedding, uploads; on the cpu device, and on Vulkan
// and OpenCL against it. Where a device is missing its tests are skipped, unless GYRE_TEST_REQUIRE names its backend.
#include "tests/graph/lab.h"
#include "runtime/graph/repack.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

static void run(gyre_graph *g, const struct gyre_graph_options *options)
{
    gyre_error err = {0};
    if (gyre_graph_compile(g, options, &err)) fail_msg("%s", err.message);
    if (gyre_graph_submit(g, &err)) fail_msg("%s", err.message);
}

static double nmse(const float *a, const float *b, size_t n)
{
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) error += pow(a[i] - b[i], 2), power += pow(b[i], 2);
    return isfinite(error) && power > 0 ? error / power : 1;
}

// ---- a block ----------------------------------------------------------------------------------------------

// The block's output on a device; NULL if there is no such device.
static float *block_output(const char *id, struct block_shape shape, bool no_fuse)
{
    struct lab lab;
    struct block b;
    if (!lab_open(&lab, id, NULL)) return NULL;
    lab_block(&lab, shape, &b);
    gyre_graph *g = lab_block_graph(&lab, &b);
    run(g, &(struct gyre_graph_options){.no_fuse = no_fuse});
    float *y = calloc(1, b.y.size), *again = calloc(1, b.y.size);
    assert_true(y && again);
    lab_read(&lab, b.y, y);
    assert_int_equal(gyre_graph_submit(g, NULL), GYRE_OK); // a replay writes the same bits
    lab_read(&lab, b.y, again);
    assert_memory_equal(y, again, b.y.size);
    free(again);
    gyre_graph_destroy(g);
    lab_close(&lab);
    return y;
}

static const struct block_shape shapes[] = {
    {.rows = 1, .act_bits = 16, .kv_bits = 16, .group = 0, .kind = GYRE_WEIGHT_W4},
    {.rows = 5, .act_bits = 16, .kv_bits = 8, .group = 32, .kind = GYRE_WEIGHT_W4, .r3 = true, .r4 = true},
    {.rows = 3, .act_bits = 8, .kv_bits = 8, .group = 32, .kind = GYRE_WEIGHT_W4, .r3 = true, .r4 = true},
    {.rows = 3, .act_bits = 8, .kv_bits = 8, .group = 32, .kind = GYRE_WEIGHT_W4, .r1 = true, .r3 = true, .r4 = true},
    {.rows = 2, .act_bits = 16, .kv_bits = 8, .group = 32, .kind = GYRE_WEIGHT_W4, .r1 = true, .r3 = true},
    {.rows = 11, .act_bits = 8, .kv_bits = 16, .group = 0, .kind = GYRE_WEIGHT_W4, .r4 = true},
    {.rows = 2, .act_bits = 8, .kv_bits = 8, .group = 32, .kind = GYRE_WEIGHT_W4Z},
    {.rows = 9, .act_bits = 4, .kv_bits = 8, .group = 0, .kind = GYRE_WEIGHT_W4Z},
    {.rows = 3, .act_bits = 16, .kv_bits = 8, .group = 32, .kind = GYRE_WEIGHT_W4Z},
    {.rows = 9, .act_bits = 4, .kv_bits = 4, .group = 32, .kind = GYRE_WEIGHT_W4, .r3 = true, .r4 = true},
    {.rows = 2, .act_bits = 4, .kv_bits = 8, .group = 0, .kind = GYRE_WEIGHT_W8},
    {.rows = 4, .act_bits = 8, .kv_bits = 4, .group = 0, .kind = GYRE_WEIGHT_F16, .r3 = true},
    {.rows = 17, .act_bits = 16, .kv_bits = 16, .group = 0, .kind = GYRE_WEIGHT_F32, .r4 = true},
    {.rows = 7, .act_bits = 8, .kv_bits = 8, .group = 32, .kind = GYRE_WEIGHT_W4, .r3 = true, .centred = true},
    {.rows = 3, .act_bits = 16, .kv_bits = 4, .group = 0, .kind = GYRE_WEIGHT_W4, .centred = true},
    {.rows = 1, .act_bits = 4, .kv_bits = 8, .group = 0, .kind = GYRE_WEIGHT_W4, .r4 = true, .act_group = 32},
    {.rows = 5, .act_bits = 4, .kv_bits = 8, .group = 32, .kind = GYRE_WEIGHT_W4, .r1 = true, .act_group = 16},
    {.rows = 3, .act_bits = 16, .kv_bits = 8, .kv_bits_v = 4, .kind = GYRE_WEIGHT_W4, .r3 = true, .centred = true},
};

// Quantizers see inputs that differ in the last bit; a code at a tie may then differ by one.
static double bound(const struct block_shape *s)
{
    const uint32_t bits = GYRE_MIN(s->act_bits, s->kv_bits_v ? s->kv_bits_v : s->kv_bits);
    return bits == 16 ? 1e-6 : bits == 8 ? 1e-3 : 1e-2;
}

static void compare(const char *id, bool no_fuse, const char *other, bool other_no_fuse)
{
    bool any = false;
    for (size_t i = 0; i < GYRE_COUNT(shapes); i++) {
        float *y = block_output(id, shapes[i], no_fuse);
        if (!y) continue;
        float *want = block_output(other, shapes[i], other_no_fuse);
        assert_non_null(want);
        any = true;
        const double e = nmse(y, want, (size_t)shapes[i].rows * 64);
        if (!(e <= bound(&shapes[i]))) fail_msg("shape %zu: %s and %s differ by an NMSE of %g", i, id, other, e);
        free(y);
        free(want);
    }
    if (!any) skip();
}

static void fused_equals_unfused(void **state) { compare(*state, false, *state, true); }
static void fused_equals_the_references(void **state) { compare(*state, false, "cpu", true); }

// A product that quantizes what it reads makes the very codes that separate nodes make: the same bits come out. At 16
// bits there is no node that would: what floats give comes out, of many rows as well.
static void quantizing_products(void **state)
{
    static const uint32_t counts[] = {1, 2, 3, 4, 70};
    enum { MANY = 70 };
    for (size_t c = 0; c < GYRE_COUNT(counts); c++)
        for (uint32_t bits = 4; bits <= 16; bits *= 2)
            for (int normed = 0; normed < 2; normed++) {
                enum { K = 416, N = 75 };
                const uint32_t rows = counts[c];
                static float y[2][MANY * N];
                struct lab lab;
                if (!lab_open(&lab, *state, NULL)) skip();
                if (bits == 16 && lab.device->info.int_dot != GYRE_INT_DOT_ACCELERATED) { // OpenCL on a CPU
                    lab_close(&lab);
                    continue;
                }
                const struct gyre_weight w =
                    lab_weight(&lab,
                               rows == 3 || (bits == 16 && normed) ? GYRE_WEIGHT_W4Z
                               : rows % 2                          ? GYRE_WEIGHT_W4
                                                                   : GYRE_WEIGHT_W8,
                               N, K, bits == 4 || rows == 4 || (rows == MANY && normed) ? 32 : 0, 2);
                const struct gyre_binding x = lab_floats(&lab, (uint64_t)rows * K, 0.3f, 1),
                                          gain = lab_floats(&lab, K, 1, 0.2f), plus = lab_floats(&lab, rows * N, 0, 1),
                                          to = lab_bytes(&lab, NULL, 4ull * rows * N);
                for (int parts = 0; parts < 2; parts++) {
                    gyre_graph *g = NULL;
                    assert_int_equal(gyre_graph_create(lab.device, rows, NULL, &g, NULL), GYRE_OK);
                    gyre_value v = gyre_g_external(g, "x", rows, K, x);
                    if (normed) v = gyre_g_rms_norm(g, v, gain, 1e-5f);
                    v = gyre_g_matmul(g, gyre_g_quantize(g, v, bits, 0.95f), &w);
                    gyre_g_output(g, gyre_g_add(g, v, gyre_g_external(g, "plus", rows, N, plus)), to);
                    run(g, &(struct gyre_graph_options){.no_fuse = parts});
                    const uint32_t ranges = 2, dispatches = gyre_graph_dispatch_count(g);
                    if (!parts && rows <= 4 && (bits < 16 || rows == 1)) assert_int_equal(dispatches, ranges);
                    if (!parts && rows == MANY && bits == 16)
                        assert_int_equal(dispatches, ranges + 1 + (uint32_t)normed);
                    lab_read(&lab, to, y[parts]);
                    gyre_graph_destroy(g);
                }
                if (bits < 16) assert_memory_equal(y[0], y[1], 4 * rows * N);
                else assert_true(nmse(y[0], y[1], (size_t)rows * N) < 1e-12);
                lab_close(&lab);
            }
}

// ---- embedding and head -------------------------------------------------------------------------------------

enum { ROWS = 3, WIDTH = 64, VOCAB = 501, TOP = 7 };
struct head {
    float logits[ROWS][VOCAB], vals[ROWS][TOP], best[ROWS], loglik[ROWS][4], kl[ROWS][4];
    uint32_t ids[ROWS][TOP], first[ROWS];
    int32_t rows[ROWS][4];
};

static bool head_output(const char *id, gyre_weight_kind kind, struct head *out)
{
    struct lab lab;
    if (!lab_open(&lab, id, NULL)) return false;
    const int32_t rows[ROWS][4] = {{0, 0, 4, 3}, {250, 0, 5, 3}, {500, 1, 9, 3}}; // a token of each range, and the last
    const uint32_t targets[ROWS] = {1, 500, 17}, state[ROWS][4] = {{0}};
    const struct gyre_batch batch = {lab_bytes(&lab, rows, sizeof rows), lab_bytes(&lab, NULL, 64), 1};
    const struct gyre_weight table = lab_weight(&lab, kind, VOCAB, WIDTH, 32, 3);
    const struct gyre_binding gain = lab_floats(&lab, WIDTH, 1, 0.1f), other = lab_floats(&lab, ROWS * VOCAB, 0, 1);
    const struct gyre_binding logits = lab_bytes(&lab, NULL, sizeof out->logits),
                              vals = lab_bytes(&lab, NULL, sizeof out->vals),
                              ids = lab_bytes(&lab, NULL, sizeof out->ids),
                              best = lab_bytes(&lab, NULL, sizeof out->best),
                              first = lab_bytes(&lab, NULL, sizeof out->first),
                              loglik = lab_bytes(&lab, NULL, sizeof out->loglik),
                              kl = lab_bytes(&lab, NULL, sizeof out->kl);
    gyre_graph *g = NULL;
    assert_int_equal(gyre_graph_create(lab.device, ROWS, &batch, &g, NULL), GYRE_OK);
    gyre_value v, i, n = gyre_g_matmul(g, gyre_g_rms_norm(g, gyre_g_embed(g, &table, 1), gain, 1e-5f), &table);
    gyre_g_topk(g, n, TOP, &v, &i);
    gyre_g_output(g, v, vals);
    gyre_g_output(g, i, ids);
    gyre_g_sample(g, v, i, GYRE_NONE, TOP, batch.rows, lab_bytes(&lab, NULL, ROWS * GYRE_HISTORY * 4),
                  lab_bytes(&lab, state, sizeof state));
    gyre_g_topk(g, n, 1, &v, &i);
    gyre_g_output(g, v, best);
    gyre_g_output(g, i, first);
    gyre_g_output(g, gyre_g_loglik(g, n, lab_bytes(&lab, targets, sizeof targets)), loglik);
    gyre_g_output(g, gyre_g_kl(g, gyre_g_external(g, "p", ROWS, VOCAB, other), n), kl);
    gyre_g_output(g, n, logits);
    run(g, NULL);
    lab_read(&lab, logits, out->logits), lab_read(&lab, vals, out->vals), lab_read(&lab, ids, out->ids),
        lab_read(&lab, best, out->best);
    lab_read(&lab, first, out->first), lab_read(&lab, loglik, out->loglik), lab_read(&lab, kl, out->kl),
        lab_read(&lab, batch.rows, out->rows);
    gyre_graph_destroy(g);
    lab_close(&lab);
    return true;
}

static void embedding_and_head(void **state)
{
    static struct head got, want;
    for (int kind = GYRE_WEIGHT_F32; kind <= GYRE_WEIGHT_W4Z; kind++) {
        if (!head_output(*state, (gyre_weight_kind)kind, &got)) skip();
        assert_true(head_output("cpu", (gyre_weight_kind)kind, &want));
        assert_true(nmse(&got.logits[0][0], &want.logits[0][0], ROWS * VOCAB) < 1e-9);
        assert_true(nmse(&got.loglik[0][0], &want.loglik[0][0], ROWS * 4) < 1e-6);
        assert_true(nmse(&got.kl[0][0], &want.kl[0][0], ROWS * 4) < 1e-6);
        for (int r = 0; r < ROWS; r++) { // seen from the logits themselves
            uint32_t top = 0;
            for (uint32_t j = 0; j < VOCAB; j++)
                if (got.logits[r][j] > got.logits[r][top]) top = j;
            assert_int_equal(got.first[r], top);
            assert_int_equal(got.ids[r][0], top);
            assert_true(got.vals[r][0] == got.logits[r][top] && got.best[r] == got.logits[r][top]);
            for (int j = 1; j < TOP; j++)
                assert_true(got.vals[r][j] <= got.vals[r][j - 1] && got.vals[r][j] == got.logits[r][got.ids[r][j]]);
            const int position = r == 2 ? 9 : 4 + r;
            assert_int_equal(got.rows[r][0], top);
            assert_int_equal(got.rows[r][2], position + 1);
        }
    }
}

// A row that is sampled from all tokens gets the same token whatever the rows beside it ask for, and the cpu's. On
// hardware its logits are looked at in parts.
static void draws(void **state)
{
    enum { N = 6, WIDE = 5003, BEST = 7 };
    int32_t got[2][N][4], want[N][4], told[N][GYRE_HISTORY];
    struct lab lab[2];
    for (int d = 0; d < 2; d++) {
        if (!lab_open(&lab[d], d ? *state : "cpu", NULL)) skip();
        int32_t rows[N][4];
        uint32_t how[N][4];
        for (int r = 0; r < N; r++) {
            const int32_t row[4] = {1, 0, 40 * r, 3};
            const uint32_t greedy = r == 2, cut = r == 4;
            const uint32_t settings[4] = {greedy ? 0 : gyre_f32_bits(1.5f), gyre_f32_bits(1), 9 + (uint32_t)r, cut * 3};
            memcpy(rows[r], row, sizeof row), memcpy(how[r], settings, sizeof settings);
        }
        const struct gyre_binding logits = lab_floats(&lab[d], N * WIDE, 0, 2), s = lab_bytes(&lab[d], how, sizeof how);
        for (int many = 0; many < 2; many++) {
            const struct gyre_binding at = lab_bytes(&lab[d], rows, sizeof rows),
                                      history = lab_bytes(&lab[d], NULL, sizeof told);
            gyre_graph *g = NULL;
            gyre_value vals, ids, best, drawn;
            assert_int_equal(gyre_graph_create(lab[d].device, N, NULL, &g, NULL), GYRE_OK);
            const gyre_value x = gyre_g_external(g, "logits", N, WIDE, logits);
            gyre_g_draw(g, x, at, s, &best, &drawn);
            if (many) gyre_g_topk(g, x, BEST, &vals, &ids);
            if (many) gyre_g_sample(g, vals, ids, drawn, BEST, at, history, s);
            else gyre_g_sample(g, best, drawn, GYRE_NONE, 1, at, history, s);
            run(g, NULL);
            const bool hardware = gyre_device_info(lab[d].device)->lanes == GYRE_LANES_HARDWARE;
            assert_int_equal(gyre_graph_dispatch_count(g), (hardware ? 3 : 2) + many * (hardware ? 2 : 1));
            lab_read(&lab[d], at, got[many]);
            lab_read(&lab[d], history, told);
            for (int r = 0; r < N; r++) assert_int_equal(told[r][40 * r % GYRE_HISTORY], got[many][r][0]);
            gyre_graph_destroy(g);
        }
        got[0][4][0] = got[1][4][0]; // the one that is truncated
        assert_memory_equal(got[0], got[1], sizeof got[0]);
        if (d) assert_memory_equal(got[0], want, sizeof want);
        memcpy(want, got[0], sizeof want);
        assert_int_equal(want[5][2], 201);
        lab_close(&lab[d]);
    }
}

// ---- uploads ------------------------------------------------------------------------------------------------

enum { UP_K = 96, UP_A = 24, UP_B = 40, UP_C = 13, UP_N = UP_A + UP_B + UP_C };

static int upload_code(uint32_t n, uint32_t k, int bits)
{
    return (int)((n * 31 + k * 7 + n * k) % (1u << bits)) - (1 << (bits - 1));
}
static uint16_t upload_scale(uint32_t n, uint32_t g)
{
    return gyre_f16_from_f32(0.5f + 0.01f * (float)n + 0.25f * (float)g);
}

static int upload_zero(uint32_t n, uint32_t g) { return (int)((n * 5 + g * 3) % 16) - 8; }

// One file row of the format; returns its bytes. Scales go into the blocks or to `scales`.
static size_t file_row(gyre_repack_format format, uint32_t n, uint32_t group, uint8_t *row, uint16_t *scales)
{
    memset(row, 0, 4 * UP_K);
    for (uint32_t k = 0; k < UP_K; k++) {
        const uint16_t s = upload_scale(n, k / group);
        const int c4 = upload_code(n, k, 4), c8 = upload_code(n, k, 8);
        const float f = gyre_f32_from_f16(s) * (float)c8;
        const uint16_t h = gyre_f16_from_f32(f);
        scales[k / group] = s;
        switch (format) {
        case GYRE_REPACK_I4:
            row[k / 2] |= (uint8_t)((c4 + 8) << (k % 2 * 4));
            break;
        case GYRE_REPACK_I8:
            row[k] = (uint8_t)c8;
            break;
        case GYRE_REPACK_Q4_0:
            row[k / 32 * 18 + 2 + k % 16] |= (uint8_t)((c4 + 8) << (k % 32 / 16 * 4)), memcpy(row + k / 32 * 18, &s, 2);
            break;
        case GYRE_REPACK_Q8_0:
            row[k / 32 * 34 + 2 + k % 32] = (uint8_t)c8, memcpy(row + k / 32 * 34, &s, 2);
            break;
        case GYRE_REPACK_F16:
            memcpy(row + 2 * k, &h, 2);
            break;
        default:
            memcpy(row + 4 * k, &f, 4);
        }
    }
    static const size_t bytes[] = {UP_K / 2, UP_K, UP_K / 32 * 18, UP_K / 32 * 34, 2 * UP_K, 4 * UP_K};
    return bytes[format];
}

// Three tensors side by side in one weight, multiplied by the unit matrix: the product is the weight itself.
static void upload_and_read_back(struct lab *lab, gyre_repack_format format, uint32_t group, bool zeroed)
{
    gyre_error err = {0};
    uint64_t bytes[3];
    const gyre_weight_kind kind = zeroed ? GYRE_WEIGHT_W4Z : gyre_repack_kind(format);
    const int bits = gyre_weight_is_int4(kind) ? 4 : 8;
    gyre_weight_plane_bytes(kind, UP_N, UP_K, group, bytes);
    struct gyre_weight_range range = {
        .n = UP_N, .n_pad = gyre_weight_pad(kind, UP_N), .weight = lab_bytes(lab, NULL, bytes[0])};
    range.scale = bytes[1] ? lab_bytes(lab, NULL, bytes[1]) : range.weight;
    range.sums = bytes[2] ? lab_bytes(lab, NULL, bytes[2]) : range.weight;
    const struct gyre_weight w = {
        .kind = kind, .n = UP_N, .k = UP_K, .group = bytes[1] ? group : UP_K, .n_ranges = 1, .range = &range};

    static uint8_t rows[UP_N * 4 * UP_K];
    static uint16_t scales[UP_N * UP_K];
    static int8_t zeros[UP_N * UP_K];
    size_t row_bytes = 0;
    const bool separate = format == GYRE_REPACK_I4 || format == GYRE_REPACK_I8;
    for (uint32_t n = 0; n < UP_N; n++) {
        uint8_t row[4 * UP_K];
        row_bytes = file_row(format, n, group, row, scales + n * (UP_K / group));
        memcpy(rows + n * row_bytes, row, row_bytes);
        for (uint32_t q = 0; q < UP_K / group; q++)
            zeros[n * (UP_K / group) + q] = (int8_t)(zeroed ? upload_zero(n, q) : 0);
    }
    gyre_repacker *r = NULL;
    assert_int_equal(gyre_repacker_create(lab->device, &r, &err), GYRE_OK);
    static const uint32_t order[3][2] = {
        {UP_A, UP_B}, {UP_A + UP_B, UP_C}, {0, UP_A}}; // what is there already must stay
    for (int i = 0; i < 3; i++)
        if (gyre_repack_upload(r, format, rows + order[i][0] * row_bytes,
                               separate ? scales + order[i][0] * (UP_K / group) : NULL,
                               zeroed ? zeros + order[i][0] * (UP_K / group) : NULL, order[i][1], UP_K, group,
                               order[i][0], &range, &err))
            fail_msg("%s", err.message);
    const uint16_t *const own = separate ? scales : NULL;
    assert_int_equal(gyre_repack_upload(r, format, rows, own, NULL, 8, UP_K, group, 4, &range, &err),
                     GYRE_E_UNSUPPORTED);
    assert_int_equal(gyre_repack_upload(r, format, rows, own, NULL, 9, UP_K, group, 0, &range, &err),
                     GYRE_E_UNSUPPORTED);
    assert_int_equal(
        gyre_repack_upload(r, format, rows, separate ? NULL : scales, NULL, 8, UP_K, group, 0, &range, &err),
        GYRE_E_INVALID);
    if (format != GYRE_REPACK_I4)
        assert_int_equal(gyre_repack_upload(r, format, rows, own, zeros, 8, UP_K, group, 0, &range, &err),
                         GYRE_E_INVALID);
    gyre_repacker_destroy(r);

    static float unit[UP_K][UP_K], y[UP_K][UP_N];
    for (uint32_t k = 0; k < UP_K; k++) unit[k][k] = 1;
    const struct gyre_binding to = lab_bytes(lab, NULL, sizeof y);
    gyre_graph *g = NULL;
    assert_int_equal(gyre_graph_create(lab->device, UP_K, NULL, &g, NULL), GYRE_OK);
    gyre_g_output(g, gyre_g_matmul(g, gyre_g_external(g, "unit", UP_K, UP_K, lab_bytes(lab, unit, sizeof unit)), &w),
                  to);
    run(g, NULL);
    lab_read(lab, to, y);
    gyre_graph_destroy(g);
    for (uint32_t n = 0; n < UP_N; n++)
        for (uint32_t k = 0; k < UP_K; k++) {
            const float s = gyre_f32_from_f16(upload_scale(n, k / group));
            float want = s * (float)(upload_code(n, k, bits) - zeros[n * (UP_K / group) + k / group]);
            if (kind == GYRE_WEIGHT_F16) want = gyre_round_to_f16(want);
            if (fabsf(y[k][n] - want) > 1e-4f * fabsf(want) + 1e-4f * s)
                fail_msg("format %d: column %u, k %u: %g instead of %g", (int)format, n, k, (double)y[k][n],
                         (double)want);
        }
    if (bytes[2]) { // the sums that no float product reads
        static int32_t sums[(UP_N + GYRE_TILE - 1) / GYRE_TILE * GYRE_TILE * UP_K];
        lab_read(lab, range.sums, sums);
        for (uint32_t n = 0; n < (UP_N + 7) / 8 * 8; n++)
            for (uint32_t q = 0; q < UP_K / group; q++) {
                int sum = 0;
                for (uint32_t k = q * group; n < UP_N && k < (q + 1) * group; k++)
                    sum += upload_code(n, k, bits) - zeros[n * (UP_K / group) + q];
                assert_int_equal(sums[q * range.n_pad + n], sum);
            }
    }
}

static void uploads(void **state)
{
    struct lab lab;
    if (!lab_open(&lab, *state, NULL)) skip();
    for (int format = GYRE_REPACK_I4; format <= GYRE_REPACK_F32; format++) {
        upload_and_read_back(&lab, (gyre_repack_format)format, 32, false);
        if (format < GYRE_REPACK_Q4_0) upload_and_read_back(&lab, (gyre_repack_format)format, UP_K, false);
    }
    upload_and_read_back(&lab, GYRE_REPACK_I4, 32, true);
    upload_and_read_back(&lab, GYRE_REPACK_I4, UP_K, true);
    lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_ON(fused_equals_unfused, "cpu"),
        LAB_ON(embedding_and_head, "cpu"),
        LAB_ON(uploads, "cpu"),
        LAB_ON(fused_equals_the_references, "vulkan:0"),
        LAB_ON(embedding_and_head, "vulkan:0"),
        LAB_ON(uploads, "vulkan:0"),
        LAB_ON(fused_equals_the_references, "vulkan:0 as a GPU"),
        LAB_ON(quantizing_products, "vulkan:0 as a GPU"),
        LAB_ON(draws, "vulkan:0 as a GPU"),
        LAB_ON(draws, "vulkan:0"),
        LAB_ON(draws, "opencl:0"),
        LAB_ON(embedding_and_head, "vulkan:0 as a GPU"),
        LAB_ON(fused_equals_the_references, "opencl:0"),
        LAB_ON(embedding_and_head, "opencl:0"),
        LAB_ON(quantizing_products, "opencl:0 as a GPU"),
        LAB_ON(uploads, "opencl:0"),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
