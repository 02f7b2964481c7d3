// The host block between taps: several sequences at once are what each is alone, and its quantizers are those of
// shaders/quantize.k.h and shaders/kv.k.h. test_summary holds the whole block against the device's.
#include "runtime/model/arch.h"
#include "quantizer/pass/host_block.h"
#include "quantizer/transform/rotate.h"
#include "runtime/util/half.h"
#include "runtime/util/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { D = 40, HEADS = 6, KV = 2, HD = 8, F = 76, ROWS = 23, SEQUENCE = 9 }; // sequences of 9, 9 and 5 rows

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
                                 .rope_base = 10000,
                                 .rope_factor = 1,
                                 .family = &gyre_arch_llama,
                                 .rope_mscale = 1,
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

// All parts with the quantizers between them; x changes, tap[p] [rows, width] is kept.
static void run(gyre_host_block *b, const struct fixture *f, const struct gyre_block_options *o, float *x,
                uint32_t rows, uint32_t sequence, float tap[GYRE_PRODUCTS][ROWS * F])
{
    for (uint32_t p = 0; p <= GYRE_PRODUCTS; p++) {
        float *const out = p < GYRE_PRODUCTS ? tap[p] : NULL;
        assert_int_equal(gyre_host_block_part(b, &f->w, p, x, p ? tap[p - 1] : NULL, rows, sequence, out, NULL),
                         GYRE_OK);
        if (out) gyre_quantize_rows(out, rows, gyre_product_width((gyre_product)p, &f->hp), o->act_bits, o->act_clip);
    }
}

static void close_to(const float *a, const float *b, uint64_t n, double limit)
{
    double size = 0, worst = 0;
    for (uint64_t i = 0; i < n; i++) {
        size = fmax(size, fabs((double)b[i]));
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    }
    if (!(worst <= limit * size)) fail_msg("%g of %g", worst, size);
}

static void sequences_do_not_see_each_other(void **state)
{
    (void)state;
    static const struct {
        uint32_t act, kv;
        bool interleaved;
    } options[] = {{16, 16, true}, {16, 8, false}, {16, 4, true}};
    for (size_t k = 0; k < sizeof options / sizeof *options; k++) {
        static struct fixture f;
        static float x[ROWS * D], y[ROWS * D], start[ROWS * D], tap[GYRE_PRODUCTS][ROWS * F],
            alone[GYRE_PRODUCTS][ROWS * F];
        const struct gyre_block_options o = {
            .act_bits = options[k].act, .kv_bits = options[k].kv, .max_rows = ROWS, .act_clip = 1, .kv_clip = 1};
        struct gyre_rng rng = gyre_rng_seed(4);
        gyre_host_block *b;
        prepare(&f, options[k].interleaved);
        for (int i = 0; i < ROWS * D; i++) start[i] = x[i] = y[i] = draw(&rng, 3);
        assert_int_equal(gyre_host_block_create(&f.hp, &o, &b, NULL), GYRE_OK);
        run(b, &f, &o, x, ROWS, SEQUENCE, tap);
        for (uint32_t first = 0; first < ROWS; first += SEQUENCE) {
            const uint32_t n = ROWS - first < SEQUENCE ? ROWS - first : SEQUENCE;
            run(b, &f, &o, y + first * D, n, n, alone);
            for (int p = 0; p < GYRE_PRODUCTS; p++) {
                const uint32_t width = gyre_product_width((gyre_product)p, &f.hp);
                // A cache code may move where products round otherwise with other shapes.
                close_to(tap[p] + first * width, alone[p], (uint64_t)n * width, o.kv_bits == 16 ? 1e-5 : 2e-2);
            }
        }
        close_to(x, y, ROWS * D, o.kv_bits == 16 ? 1e-5 : 2e-2);
        // Without the borders between them it is something else; and the whole block is its parts.
        memcpy(x, start, sizeof x);
        run(b, &f, &o, x, ROWS, ROWS + 5, tap);
        double moved = 0;
        for (int i = SEQUENCE * D; i < ROWS * D; i++) moved = fmax(moved, fabs((double)x[i] - (double)y[i]));
        assert_true(moved > 0.05);
        assert_int_equal(gyre_host_block_run(b, &f.w, start, ROWS, NULL), GYRE_OK);
        close_to(x, start, ROWS * D, 1e-6);
        gyre_error err = {0};
        assert_int_equal(gyre_host_block_part(b, &f.w, 0, x, NULL, ROWS + 1, 5, tap[0], &err), GYRE_E_INVALID);
        assert_int_equal(gyre_host_block_part(b, &f.w, 0, x, NULL, ROWS, 0, tap[0], &err), GYRE_E_INVALID);
        assert_int_equal(gyre_host_block_part(b, &f.w, GYRE_PRODUCTS + 1, x, NULL, ROWS, 5, tap[0], &err),
                         GYRE_E_INVALID);
        gyre_host_block_destroy(b);
        release(&f);
    }
}

// ---- quantizers ---------------------------------------------------------------------------------------------

static float within(float x, float lo, float hi) { return x < lo ? lo : x > hi ? hi : x; }

// shaders/quantize.k.h, line by line; `slack` is what one code is worth.
static void quantize_row(const float *x, uint32_t n, uint32_t bits, float clip, float *y, float *slack)
{
    float lo = 0, hi = 0;
    for (uint32_t i = 0; i < n; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    const float scale = (bits == 8 ? fmaxf(-lo, hi) : hi - lo) * clip * (bits == 8 ? 1.0f / 127 : 1.0f / 15),
                inverse = scale > 0 ? 1 / scale : 0, zero = bits == 8 ? 0 : fminf(rintf(-lo * clip * inverse), 15);
    for (uint32_t i = 0; i < n; i++)
        y[i] = (within(rintf(x[i] * inverse) + zero, bits == 8 ? -128 : 0, bits == 8 ? 127 : 15) - zero) * scale;
    *slack = scale;
}

static void row_quantizer_is_the_shaders(void **state)
{
    (void)state;
    enum { N = 77, R = 200 };
    static const float clips[] = {1, 0.9f};
    static float x[R * N], y[R * N], want[N];
    for (uint32_t bits = 4; bits <= 8; bits += 4)
        for (int c = 0; c < 2; c++) {
            struct gyre_rng rng = gyre_rng_seed(bits);
            uint64_t ties = 0;
            for (int i = 0; i < R * N; i++) x[i] = draw(&rng, 2) + (i / N % 5 == 1 ? 3 : i / N % 5 == 2 ? -3 : 0);
            memset(x + 9 * N, 0, N * sizeof *x);                      // nothing
            for (int i = 0; i < N; i++) x[10 * N + i] *= i ? 0 : 100; // one outlier
            for (int i = 0; i < N; i++) x[11 * N + i] *= 1e-20f;
            memcpy(y, x, sizeof x);
            gyre_quantize_rows(y, R, N, bits, clips[c]);
            for (int r = 0; r < R; r++) {
                float slack;
                quantize_row(x + r * N, N, bits, clips[c], want, &slack);
                for (int i = 0; i < N; i++) {
                    const double off = fabs((double)y[r * N + i] - (double)want[i]);
                    ties += off > 1e-4 * (double)slack;
                    assert_true(off <= 1.01 * (double)slack);
                    if (clips[c] == 1) // and no further from the value than half a code, at A4 plus the zero's rounding
                        assert_true(fabs((double)y[r * N + i] - (double)x[r * N + i]) <=
                                    (bits == 8 ? 0.501 : 1.001) * (double)slack);
                }
            }
            assert_true(ties <= 2);
            for (int i = 0; i < N; i++) assert_true(y[9 * N + i] == 0);
        }
    memcpy(y, x, sizeof x);
    gyre_quantize_rows(y, R, N, 16, 0.5f);
    assert_memory_equal(x, y, sizeof x);
}

static void cache_quantizer_is_the_shaders(void **state)
{
    (void)state;
    enum { R = 300 };
    static const float clips[] = {1, 0.9f};
    static float x[R * HD], y[R * HD];
    for (uint32_t bits = 4; bits <= 16; bits *= 2)
        for (int c = 0; c < 2; c++) {
            struct gyre_rng rng = gyre_rng_seed(bits);
            for (int i = 0; i < R * HD; i++) x[i] = draw(&rng, 2) + (i / HD % 5 == 1 ? 3 : i / HD % 5 == 2 ? -3 : 0);
            memset(x + 9 * HD, 0, HD * sizeof *x);
            for (int i = 0; i < HD; i++) x[11 * HD + i] *= 1e-12f; // a scale below f16's least
            memcpy(y, x, sizeof x);
            gyre_quantize_cache(y, R, HD, bits, clips[c]);
            for (int r = 0; r < R; r++) {
                float lo = 0, hi = 0;
                for (int i = 0; i < HD; i++) {
                    lo = fminf(lo, x[r * HD + i]);
                    hi = fmaxf(hi, x[r * HD + i]);
                }
                const float most = bits == 8 ? 255 : 15, scale = gyre_round_to_f16((hi - lo) * clips[c] / most),
                            zero = scale > 0 ? within(rintf((0 - lo) * clips[c] / scale), 0, most) : 0;
                for (int i = 0; i < HD; i++) {
                    const float v = x[r * HD + i],
                                want = bits == 16  ? gyre_round_to_f16(v)
                                       : scale > 0 ? (within(rintf(v / scale) + zero, 0, most) - zero) * scale
                                                   : 0;
                    assert_true(y[r * HD + i] == want);
                }
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_do_not_see_each_other),
        cmocka_unit_test(row_quantizer_is_the_shaders),
        cmocka_unit_test(cache_quantizer_is_the_shaders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
