// A block between taps: several sequences at once are what each is alone, the whole is its parts, weights may come part
// by part, and means are those of what the cache takes. On the quick host, which calibration runs on; test_block has
// the parts on every device.
#include "backends/cpu/fast.h"
#include "quantizer/transform/rotate.h"
#include "runtime/model/arch.h"
#include "runtime/model/block.h"
#include "runtime/util/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { D = 40, HEADS = 6, KV = 2, HD = 8, F = 80, ROWS = 23, SEQUENCE = 9 }; // sequences of 9, 9 and 5 rows

static float draw(struct gyre_rng *rng, double size) { return (float)(size * (gyre_rng_unit(rng) - 0.5)); }

struct fixture {
    struct gyre_hparams hp;
    struct gyre_block_weights w;
    float norm[D], centre[2][KV * HD], *f32[GYRE_LINEARS];
};

static void prepare(struct fixture *f, bool interleaved)
{
    struct gyre_rng rng = gyre_rng_seed(8);
    *f = (struct fixture){.hp = {.arch = "llama",
                                 .n_layers = 1,
                                 .width = D,
                                 .heads = HEADS,
                                 .kv_heads = KV,
                                 .head_dim = HD,
                                 .ffn = F,
                                 .vocab = 9,
                                 .context = 64,
                                 .norm_eps = 1e-5f,
                                 .stream_eps = 1e-5f,
                                 .rope_base = 10000,
                                 .rope_factor = 1,
                                 .family = &gyre_arch_llama,
                                 .rope_mscale = 1,
                                 .embed_scale = 1,
                                 .logit_divisor = 1,
                                 .rope_dims = HD,
                                 .rope_interleaved = interleaved,
                                 .act_clip = 1,
                                 .kv_clip = 1}};
    assert_int_equal(gyre_hadamard_create(F, &f->hp.rot.r4, NULL), GYRE_OK);
    assert_int_equal(gyre_hadamard_create(HD, &f->hp.rot.r3_had, NULL), GYRE_OK);
    f->hp.rot.r3 = true;
    for (int i = 0; i < D; i++) f->norm[i] = 1 + draw(&rng, 1);
    for (int i = 0; i < 2 * KV * HD; i++) f->centre[i / (KV * HD)][i % (KV * HD)] = draw(&rng, 0.3);
    for (int s = 0; s < GYRE_LINEARS; s++) {
        uint64_t rows, cols;
        gyre_role_shape((gyre_role)s, &f->hp, &rows, &cols);
        f->f32[s] = malloc(rows * cols * sizeof(float));
        for (uint64_t i = 0; i < rows * cols; i++) f->f32[s][i] = draw(&rng, 0.5);
        f->w.linear[s].f32 = f->f32[s];
    }
    f->w.vector[GYRE_ROLE_attn_norm] = f->w.vector[GYRE_ROLE_ffn_norm] = f->norm;
    f->w.centre[GYRE_ROLE_k] = f->centre[0];
    f->w.centre[GYRE_ROLE_v] = f->centre[1];
}

static void release(struct fixture *f)
{
    for (int s = 0; s < GYRE_LINEARS; s++) free(f->f32[s]);
    gyre_hadamard_release(&f->hp.rot.r4);
    gyre_hadamard_release(&f->hp.rot.r3_had);
}

// All parts; x changes, tap[p] [rows, width] is kept.
static void run(gyre_block *b, const struct fixture *f, float *x, uint32_t rows, float tap[GYRE_PRODUCTS][ROWS * F])
{
    gyre_error err = {0};
    (void)f;
    for (uint32_t p = 0; p <= GYRE_PRODUCTS; p++)
        if (gyre_block_part(b, p, x, p ? tap[p - 1] : NULL, rows, p < GYRE_PRODUCTS ? tap[p] : NULL, &err))
            fail_msg("part %u: %s", p, err.message);
}

static double worst(const float *a, const float *b, uint64_t n)
{
    double size = 0, most = 0;
    for (uint64_t i = 0; i < n; i++) {
        size = fmax(size, fabs((double)b[i]));
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    }
    return most / size;
}

static void close_to(const float *a, const float *b, uint64_t n, double limit)
{
    const double most = worst(a, b, n);
    if (!(most <= limit)) fail_msg("%g of the largest", most);
}

static gyre_block *make(gyre_device *device, struct fixture *f, const struct gyre_block_options *o)
{
    gyre_block *b;
    gyre_error err = {0};
    if (gyre_block_create(device, &f->hp, o, &b, &err) || gyre_block_load(b, &f->w, &err)) fail_msg("%s", err.message);
    return b;
}

static gyre_device *quick(void)
{
    gyre_device *device;
    assert_int_equal(gyre_fast_device_create(NULL, &device, NULL), GYRE_OK);
    return device;
}

static void close_clean(gyre_device *device)
{
    assert_int_equal(gyre_device_counters(device).live_objects, 0);
    gyre_device_close(device);
}

static void sequences_do_not_see_each_other(void **state)
{
    (void)state;
    static const struct {
        uint32_t act, kv;
        bool interleaved;
    } options[] = {{16, 16, true}, {16, 8, false}, {16, 4, true}};
    gyre_device *device = quick();
    for (size_t k = 0; k < sizeof options / sizeof *options; k++) {
        static struct fixture f;
        static float x[ROWS * D], y[ROWS * D], start[ROWS * D], tap[GYRE_PRODUCTS][ROWS * F],
            alone[GYRE_PRODUCTS][ROWS * F];
        struct gyre_block_options o = {.act_bits = options[k].act,
                                       .kv_bits = options[k].kv,
                                       .max_rows = ROWS,
                                       .sequence = SEQUENCE,
                                       .act_clip = 1,
                                       .kv_clip = 1};
        const double limit = o.kv_bits == 16 ? 1e-5 : 2e-2; // a cache code may move where products round otherwise
        struct gyre_rng rng = gyre_rng_seed(4);
        prepare(&f, options[k].interleaved);
        for (int i = 0; i < ROWS * D; i++) start[i] = x[i] = y[i] = draw(&rng, 3);
        gyre_block *b = make(device, &f, &o);
        run(b, &f, x, ROWS, tap);
        for (uint32_t first = 0; first < ROWS; first += SEQUENCE) {
            const uint32_t n = ROWS - first < SEQUENCE ? ROWS - first : SEQUENCE;
            run(b, &f, y + first * D, n, alone);
            for (int p = 0; p < GYRE_PRODUCTS; p++) {
                const uint32_t width = gyre_product_width((gyre_product)p, &f.hp);
                close_to(tap[p] + first * width, alone[p], (uint64_t)n * width, limit);
            }
        }
        close_to(x, y, ROWS * D, limit);
        // The whole block is its parts.
        static float whole[ROWS * D];
        assert_int_equal(gyre_block_run(b, start, ROWS, whole, NULL), GYRE_OK);
        close_to(x, whole, ROWS * D, limit);
        gyre_block_destroy(b);
        // Without the borders between them it is something else.
        o.sequence = 0;
        b = make(device, &f, &o);
        memcpy(x, start, sizeof x);
        run(b, &f, x, ROWS, tap);
        assert_true(worst(x + SEQUENCE * D, y + SEQUENCE * D, (ROWS - SEQUENCE) * D) > 0.01);
        gyre_block_destroy(b);
        release(&f);
    }
    close_clean(device);
}

static const struct gyre_block_options coded = {
    .act_bits = 8, .kv_bits = 8, .max_rows = ROWS, .sequence = SEQUENCE, .act_clip = 1, .kv_clip = 1};

// Each part finds the weights before it as they come; a linear alone is refused, and so is a part whose weights are not
// there.
static void weights_come_part_by_part(void **state)
{
    (void)state;
    static struct fixture f;
    static float x[ROWS * D], y[ROWS * D], tap[ROWS * F];
    struct gyre_rng rng = gyre_rng_seed(5);
    gyre_device *device = quick();
    gyre_error err = {0};
    gyre_block *b, *whole;
    prepare(&f, true);
    for (int i = 0; i < ROWS * D; i++) x[i] = y[i] = draw(&rng, 3);
    assert_int_equal(gyre_block_create(device, &f.hp, &coded, &b, NULL), GYRE_OK);
    for (uint32_t p = 0; p <= GYRE_PRODUCTS; p++) {
        struct gyre_block_weights come = {0};
        for (int r = 0; r < GYRE_LINEARS; r++)
            if (gyre_roles[r].product + 1 == p) {
                come.linear[r] = f.w.linear[r];
                come.centre[r] = f.w.centre[r];
            }
        if (p < GYRE_PRODUCTS && gyre_products[p].norm != GYRE_ROLE_none)
            come.vector[gyre_products[p].norm] = f.w.vector[gyre_products[p].norm];
        assert_int_equal(gyre_block_part(b, p, x, tap, ROWS, tap, &err), GYRE_E_INVALID);
        assert_non_null(strstr(err.message, "no weights"));
        assert_int_equal(gyre_block_load(b, &come, NULL), GYRE_OK);
        assert_int_equal(gyre_block_part(b, p, x, tap, ROWS, tap, NULL), GYRE_OK);
    }
    whole = make(device, &f, &coded);
    assert_int_equal(gyre_block_run(whole, y, ROWS, y, NULL), GYRE_OK);
    close_to(x, y, ROWS * D, 2e-2);
    struct gyre_block_weights half = {.linear = {f.w.linear[GYRE_ROLE_q]}};
    assert_int_equal(gyre_block_load(b, &half, &err), GYRE_E_INVALID);
    assert_non_null(strstr(err.message, "of qkv a part is missing"));
    assert_int_equal(gyre_block_part(b, GYRE_PRODUCTS + 1, x, tap, ROWS, tap, &err), GYRE_E_INVALID);
    assert_int_equal(gyre_block_part(b, 0, x, tap, ROWS + 1, tap, &err), GYRE_E_INVALID);
    assert_int_equal(gyre_block_part(b, 0, x, tap, 0, tap, &err), GYRE_E_INVALID);
    gyre_block_destroy(b);
    gyre_block_destroy(whole);
    release(&f);
    close_clean(device);
}

// Values are the product itself; keys keep their norms under RoPE and R3, and at position 0 RoPE does nothing.
static void means_are_of_what_the_cache_takes(void **state)
{
    (void)state;
    static struct fixture f;
    static float in[ROWS * D], k[KV * HD], v[KV * HD], again[KV * HD];
    struct gyre_rng rng = gyre_rng_seed(6);
    gyre_device *device = quick();
    struct gyre_block_options o = coded;
    o.act_bits = 16;
    prepare(&f, false);
    for (int i = 0; i < ROWS * D; i++) in[i] = draw(&rng, 3);
    gyre_block *b = make(device, &f, &o);
    assert_int_equal(gyre_block_means(b, in, ROWS, k, v, NULL), GYRE_OK);
    for (int c = 0; c < KV * HD; c++) {
        double mean = 0;
        for (int r = 0; r < ROWS; r++)
            for (int i = 0; i < D; i++)
                mean += (double)in[r * D + i] * (double)f.w.linear[GYRE_ROLE_v].f32[c * D + i] / ROWS;
        assert_true(fabs(mean - (double)v[c]) < 1e-4);
    }
    assert_int_equal(gyre_block_means(b, in, 1, k, v, NULL), GYRE_OK); // position 0: R3 alone
    for (int h = 0; h < KV; h++) {
        double key[HD], turned[HD] = {0};
        for (int c = 0; c < HD; c++) {
            key[c] = 0;
            for (int i = 0; i < D; i++)
                key[c] += (double)in[i] * (double)f.w.linear[GYRE_ROLE_k].f32[(h * HD + c) * D + i];
        }
        memcpy(turned, key, sizeof key);
        assert_int_equal(gyre_hadamard_apply(&f.hp.rot.r3_had, turned, HD, 1, 1, HD, NULL, false, NULL), GYRE_OK);
        for (int c = 0; c < HD; c++) assert_true(fabs(turned[c] - (double)k[h * HD + c]) < 1e-4);
    }
    // What is centred already does not matter.
    struct gyre_block_weights none = {.centre = {[GYRE_ROLE_k] = v, [GYRE_ROLE_v] = k}};
    assert_int_equal(gyre_block_load(b, &none, NULL), GYRE_OK);
    assert_int_equal(gyre_block_means(b, in, 1, again, v, NULL), GYRE_OK);
    assert_memory_equal(again, k, sizeof k);
    gyre_block_destroy(b);
    release(&f);
    close_clean(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_do_not_see_each_other),
        cmocka_unit_test(weights_come_part_by_part),
        cmocka_unit_test(means_are_of_what_the_cache_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
