// The taps of a block: each against the one before it and the weights, composed here in double; the whole block from
// its taps; new weights under kept graphs; what is refused. Where a device is missing its tests are skipped, unless
// GYRE_TEST_REQUIRE names its backend.
#include "runtime/model/arch.h"
#include "runtime/core/hadamard.h"
#include "quantizer/round/rtn.h"
#include "runtime/model/block.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"
#include "runtime/util/rng.h"
#include "tests/common/device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

enum { D = 96, HD = 32, HEADS = 3, F = 224, MAX_ROWS = 37, Q = HEADS * HD, WIDEST = F };

struct shape {
    uint32_t rows, act, kv, wbits, group, kv_heads;
    bool rotated;
    float clip;
    double limit; // NMSE of one tap, given the one before it
};
// A quantizer whose input differs in the last bit may take the next code: the limits leave room for a few of those.
static const struct shape shapes[] = {
    {.rows = 1, .act = 16, .kv = 16, .wbits = 32, .kv_heads = 3, .clip = 1, .limit = 1e-8},
    {.rows = 7, .act = 16, .kv = 8, .wbits = 4, .group = 32, .kv_heads = 1, .rotated = true, .clip = 1, .limit = 1e-6},
    {.rows = 37, .act = 8, .kv = 8, .wbits = 4, .group = 32, .kv_heads = 1, .rotated = true, .clip = 1, .limit = 1e-6},
    {.rows = 19, .act = 8, .kv = 16, .wbits = 8, .kv_heads = 3, .rotated = true, .clip = 0.9f, .limit = 1e-6},
    {.rows = 5, .act = 4, .kv = 4, .wbits = 4, .kv_heads = 3, .clip = 1, .limit = 1e-3},
    {.rows = 33,
     .act = 4,
     .kv = 4,
     .wbits = 4,
     .group = 32,
     .kv_heads = 1,
     .rotated = true,
     .clip = 0.9f,
     .limit = 3e-4},
};

// ---- a block and its weights --------------------------------------------------------------------------------

enum { W_Q, W_K, W_V, W_O, W_GATE, W_UP, W_DOWN, LINEARS };

struct weights {
    float attn_norm[D], ffn_norm[D];
    float *f[LINEARS]; // what the codes stand for
    struct gyre_codes codes[LINEARS];
    struct gyre_block_weights given;
};

static void sizes(const struct shape *s, uint32_t out[LINEARS], uint32_t in[LINEARS])
{
    const uint32_t kv = s->kv_heads * HD;
    memcpy(out, (const uint32_t[]){Q, kv, kv, D, F, F, D}, LINEARS * sizeof *out);
    memcpy(in, (const uint32_t[]){D, D, D, Q, D, D, F}, LINEARS * sizeof *in);
}

static float bell(struct gyre_rng *rng)
{
    return 2 * (float)(gyre_rng_unit(rng) + gyre_rng_unit(rng) + gyre_rng_unit(rng) - 1.5);
}

static void weights_make(const struct shape *s, uint64_t seed, struct weights *w)
{
    struct gyre_rng rng = gyre_rng_seed(seed);
    uint32_t out[LINEARS], in[LINEARS];
    *w = (struct weights){0};
    w->given.vector[GYRE_ROLE_attn_norm] = w->attn_norm;
    w->given.vector[GYRE_ROLE_ffn_norm] = w->ffn_norm;
    sizes(s, out, in);
    for (int i = 0; i < D; i++) w->attn_norm[i] = 1 + 0.3f * bell(&rng), w->ffn_norm[i] = 1 + 0.3f * bell(&rng);
    struct gyre_block_linear *const to = w->given.linear;
    for (int i = 0; i < LINEARS; i++) {
        const size_t n = (size_t)out[i] * in[i];
        w->f[i] = malloc(n * sizeof(float));
        assert_non_null(w->f[i]);
        for (size_t j = 0; j < n; j++) w->f[i][j] = 1.5f * bell(&rng) / sqrtf((float)in[i]);
        if (s->wbits == 32) {
            to[i].f32 = w->f[i];
            continue;
        }
        struct gyre_codes *c = &w->codes[i];
        *c = (struct gyre_codes){
            .bits = s->wbits, .group = s->group ? s->group : in[i], .code = malloc(n), .scale = malloc(2 * n)};
        assert_true(c->code && c->scale);
        assert_int_equal(gyre_rtn(w->f[i], out[i], in[i], c, NULL), GYRE_OK);
        gyre_codes_expand(c, out[i], in[i], w->f[i]);
        to[i] = (struct gyre_block_linear){.codes = c->code, .scales = c->scale, .bits = c->bits, .group = c->group};
    }
}

static void weights_free(struct weights *w)
{
    for (int i = 0; i < LINEARS; i++) free(w->f[i]), free(w->codes[i].code), free(w->codes[i].scale);
}

static struct gyre_hparams hparams_make(const struct shape *s)
{
    struct gyre_hparams hp = {.family = &gyre_arch_llama,
                              .rope_mscale = 1,
                              .embed_scale = 1,
                              .logit_divisor = 1,
                              .rope_dims = HD,
                              .n_layers = 1,
                              .width = D,
                              .heads = HEADS,
                              .kv_heads = s->kv_heads,
                              .head_dim = HD,
                              .ffn = F,
                              .norm_eps = 1e-5f,
                              .stream_eps = 1e-5f,
                              .rope_base = 10000,
                              .rope_factor = 1,
                              .rope_interleaved = true,
                              .act_clip = 1,
                              .kv_clip = 1};
    if (s->rotated) {
        hp.rot.r3 = true;
        assert_int_equal(gyre_hadamard_create(HD, &hp.rot.r3_had, NULL), GYRE_OK);
        assert_int_equal(gyre_hadamard_create(F, &hp.rot.r4, NULL), GYRE_OK);
    }
    return hp;
}

static void hparams_free(struct gyre_hparams *hp)
{
    gyre_hadamard_release(&hp->rot.r3_had);
    gyre_hadamard_release(&hp->rot.r4);
}

// ---- the composition ------------------------------------------------------------------------------------------

static void norm(const double *x, const float *gain, double *y)
{
    double square = 0;
    for (int i = 0; i < D; i++) square += x[i] * x[i];
    for (int i = 0; i < D; i++) y[i] = x[i] / sqrt(square / D + 1e-5) * (double)gain[i];
}

// Codes and back: 8 bits symmetric; 4 bits, and the cache at any width, from the least to the greatest value.
static void quantize(double *x, uint32_t n, uint32_t bits, double clip, bool cache)
{
    double lo = 0, hi = 0;
    const bool symmetric = bits == 8 && !cache;
    for (uint32_t i = 0; i < n; i++) lo = fmin(lo, x[i]), hi = fmax(hi, x[i]);
    if (bits == 16) {
        for (uint32_t i = 0; cache && i < n; i++) x[i] = (double)gyre_round_to_f16((float)x[i]);
        return;
    }
    const double most = symmetric ? 127 : (1 << bits) - 1, least = symmetric ? -128 : 0;
    double scale = symmetric ? fmax(-lo, hi) * clip / 127 : (hi - lo) * clip / most;
    if (cache) scale = (double)gyre_round_to_f16((float)scale);
    const double zero = symmetric || scale == 0 ? 0 : fmin(rint(-lo * clip / scale), most);
    for (uint32_t i = 0; i < n; i++)
        x[i] = scale == 0 ? 0 : scale * (fmin(fmax(rint(x[i] / scale) + zero, least), most) - zero);
}

static void multiply(const double *x, const float *w, uint32_t out, uint32_t in, double *y)
{
    for (uint32_t o = 0; o < out; o++) {
        y[o] = 0;
        for (uint32_t i = 0; i < in; i++) y[o] += x[i] * (double)w[(size_t)o * in + i];
    }
}

static void read_tap(const float *tap, uint32_t n, const struct shape *s, double *y)
{
    for (uint32_t i = 0; i < n; i++) y[i] = (double)tap[i];
    quantize(y, n, s->act, (double)s->clip, false);
}

// q,k,v of all rows from the first tap, then causal attention.
static void compose_o(const struct shape *s, const struct gyre_hparams *hp, const struct weights *w, const float *tap,
                      double *y)
{
    static double qkv[3][MAX_ROWS][Q];
    float freqs[HD / 2];
    gyre_rope_freqs(hp, GYRE_TURN_ROPE, freqs);
    for (uint32_t r = 0; r < s->rows; r++) {
        double h[D];
        read_tap(tap + (size_t)r * D, D, s, h);
        for (int part = 0; part < 3; part++) {
            const uint32_t heads = part ? s->kv_heads : HEADS;
            double *at = qkv[part][r];
            multiply(h, w->f[part], heads * HD, D, at);
            for (uint32_t i = 0; part < 2 && i < heads * HD / 2; i++) {
                const double angle = r * (double)freqs[i % (HD / 2)], u = at[2 * i], v = at[2 * i + 1];
                at[2 * i] = u * cos(angle) - v * sin(angle), at[2 * i + 1] = u * sin(angle) + v * cos(angle);
            }
            if (part < 2 && s->rotated && s->kv < 16)
                assert_int_equal(gyre_hadamard_apply(&hp->rot.r3_had, at, HD, 1, heads, HD, NULL, false, NULL),
                                 GYRE_OK);
            for (uint32_t i = 0; part && i < heads; i++)
                quantize(at + (size_t)i * HD, HD, s->kv, (double)s->clip, true);
        }
    }
    for (uint32_t r = 0; r < s->rows; r++)
        for (uint32_t h = 0; h < HEADS; h++) {
            const uint32_t of = h / (HEADS / s->kv_heads) * HD;
            double p[MAX_ROWS], sum = 0, *to = y + (size_t)r * Q + (size_t)h * HD;
            for (uint32_t c = 0; c <= r; c++) {
                p[c] = 0;
                for (int i = 0; i < HD; i++) p[c] += qkv[0][r][h * HD + (uint32_t)i] * qkv[1][c][of + (uint32_t)i];
                sum += p[c] = exp(p[c] / sqrt(HD));
            }
            for (uint32_t i = 0; i < HD; i++) {
                to[i] = 0;
                for (uint32_t c = 0; c <= r; c++) to[i] += p[c] / sum * qkv[2][c][of + i];
            }
        }
}

// The residual stream between attention and ffn, from tap O.
static void compose_middle(const struct shape *s, const struct weights *w, const float *x, const float *tap, double *y)
{
    for (uint32_t r = 0; r < s->rows; r++) {
        double h[Q];
        read_tap(tap + (size_t)r * Q, Q, s, h);
        multiply(h, w->f[W_O], D, Q, y + (size_t)r * D);
        for (size_t i = 0; i < D; i++) y[r * D + i] += (double)x[r * D + i];
    }
}

static void compose_down(const struct shape *s, const struct gyre_hparams *hp, const struct weights *w,
                         const float *tap, double *y)
{
    for (uint32_t r = 0; r < s->rows; r++) {
        double h[D], gate[F], *up = y + (size_t)r * F;
        read_tap(tap + (size_t)r * D, D, s, h);
        multiply(h, w->f[W_GATE], F, D, gate);
        multiply(h, w->f[W_UP], F, D, up);
        for (int i = 0; i < F; i++) up[i] *= gate[i] / (1 + exp(-gate[i]));
        if (s->rotated) assert_int_equal(gyre_hadamard_apply(&hp->rot.r4, up, F, 1, 1, F, NULL, false, NULL), GYRE_OK);
    }
}

static double nmse(const float *a, const double *b, size_t n)
{
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) error += pow((double)a[i] - b[i], 2), power += b[i] * b[i];
    return isfinite(error) && power > 0 ? error / power : 1;
}

static void expect(const char *what, const struct shape *s, const float *got, const double *want, uint32_t width)
{
    const double e = nmse(got, want, (size_t)s->rows * width);
    if (!(e <= s->limit))
        fail_msg("shape %d: %s is off by an NMSE of %g, allowed %g", (int)(s - shapes), what, e, s->limit);
}

// ---- tests ------------------------------------------------------------------------------------------------------

static gyre_device *open_or_skip(const char *id)
{
    gyre_device *device = device_try(id, &(struct gyre_device_options){.validate = true});
    if (!device) skip();
    return device;
}

static gyre_block *block_make(gyre_device *device, const struct gyre_hparams *hp, const struct shape *s)
{
    const struct gyre_block_options options = {
        .act_bits = s->act, .kv_bits = s->kv, .max_rows = MAX_ROWS, .act_clip = s->clip, .kv_clip = s->clip};
    gyre_block *block;
    gyre_error err = {0};
    if (gyre_block_create(device, hp, &options, &block, &err)) fail_msg("%s", err.message);
    return block;
}

static const uint32_t widths[GYRE_PRODUCTS] = {D, Q, D, F};

// What the linears of `tap` read: part after part up to there.
static gyre_status block_tap(gyre_block *block, const float *x, uint32_t rows, gyre_product tap, float *y,
                             gyre_error *err)
{
    static float stream[MAX_ROWS * D];
    memcpy(stream, x, GYRE_MIN(rows, (uint32_t)MAX_ROWS) * D * sizeof *x);
    for (uint32_t part = 0; part <= (uint32_t)tap; part++)
        GYRE_TRY(gyre_block_part(block, part, stream, y, rows, y, err));
    return GYRE_OK;
}

// Taps in an order in which none follows from the last call, the whole block between them.
static void check_taps(gyre_block *block, const struct shape *s, const struct gyre_hparams *hp, const struct weights *w,
                       const float *x)
{
    static float tap[GYRE_PRODUCTS][MAX_ROWS * WIDEST], y[MAX_ROWS * D];
    static double want[MAX_ROWS * WIDEST], middle[MAX_ROWS * D];
    static const int order[GYRE_PRODUCTS + 1] = {GYRE_PRODUCT_down, GYRE_PRODUCT_qkv, GYRE_PRODUCTS,
                                                 GYRE_PRODUCT_gate_up, GYRE_PRODUCT_o};
    gyre_error err = {0};
    for (size_t i = 0; i < GYRE_COUNT(order); i++) {
        const gyre_product at = (gyre_product)order[i];
        if (at == GYRE_PRODUCTS ? gyre_block_run(block, x, s->rows, y, &err)
                                : block_tap(block, x, s->rows, at, tap[at], &err))
            fail_msg("%s", err.message);
    }
    for (uint32_t r = 0; r < s->rows; r++) {
        double in[D];
        for (size_t i = 0; i < D; i++) in[i] = (double)x[r * D + i];
        norm(in, w->attn_norm, want + (size_t)r * D);
    }
    expect("q,k,v's input", s, tap[GYRE_PRODUCT_qkv], want, D);
    compose_o(s, hp, w, tap[GYRE_PRODUCT_qkv], want);
    expect("o's input", s, tap[GYRE_PRODUCT_o], want, Q);
    compose_middle(s, w, x, tap[GYRE_PRODUCT_o], middle);
    for (uint32_t r = 0; r < s->rows; r++) norm(middle + (size_t)r * D, w->ffn_norm, want + (size_t)r * D);
    expect("gate's and up's input", s, tap[GYRE_PRODUCT_gate_up], want, D);
    compose_down(s, hp, w, tap[GYRE_PRODUCT_gate_up], want);
    expect("down's input", s, tap[GYRE_PRODUCT_down], want, F);
    for (uint32_t r = 0; r < s->rows; r++) {
        double h[F];
        read_tap(tap[GYRE_PRODUCT_down] + (size_t)r * F, F, s, h);
        multiply(h, w->f[W_DOWN], D, F, want + (size_t)r * D);
        for (size_t i = 0; i < D; i++) want[r * D + i] += middle[r * D + i];
    }
    expect("the whole block", s, y, want, D);
}

static void taps_are_what_linears_read(void **state)
{
    gyre_device *device = open_or_skip(*state);
    for (size_t i = 0; i < GYRE_COUNT(shapes); i++) {
        struct shape s = shapes[i];
        struct gyre_hparams hp = hparams_make(&s);
        struct gyre_rng rng = gyre_rng_seed(i);
        struct weights w[2];
        static float x[MAX_ROWS * D];
        for (size_t j = 0; j < MAX_ROWS * D; j++) x[j] = 2 * bell(&rng);
        gyre_block *block = block_make(device, &hp, &s);
        for (int layer = 0; layer < 2; layer++) { // the second time, the graphs of the first are replayed
            weights_make(&s, 100 + i + 7 * (size_t)layer, &w[layer]);
            gyre_error err = {0};
            if (gyre_block_load(block, &w[layer].given, &err)) fail_msg("%s", err.message);
            check_taps(block, &shapes[i], &hp, &w[layer], x);
        }
        for (int layer = 0; layer < 2; layer++) weights_free(&w[layer]);
        gyre_block_destroy(block);
        hparams_free(&hp);
    }
    device_close_clean(device);
}

// Fewer rows give the first rows of more; a graph of other rows, or of other memory, takes the place of the kept one.
static void graphs_follow_rows_and_memory(void **state)
{
    gyre_device *device = open_or_skip(*state);
    const struct shape *coded = &shapes[1], *wide = &shapes[0];
    struct shape same = *wide;
    same.kv_heads = coded->kv_heads; // the block's shape; weights of another kind
    struct gyre_hparams hp = hparams_make(coded);
    struct weights codes, floats;
    static float x[MAX_ROWS * D], more[MAX_ROWS * WIDEST], fewer[MAX_ROWS * WIDEST], again[MAX_ROWS * WIDEST];
    struct gyre_rng rng = gyre_rng_seed(5);
    for (size_t i = 0; i < MAX_ROWS * D; i++) x[i] = bell(&rng);
    weights_make(coded, 1, &codes);
    weights_make(&same, 1, &floats); // what the codes were rounded from
    gyre_block *block = block_make(device, &hp, coded);
    assert_int_equal(gyre_block_load(block, &codes.given, NULL), GYRE_OK);
    for (int t = 0; t < GYRE_PRODUCTS; t++) {
        const gyre_product tap = (gyre_product)t;
        const size_t bytes = 5 * sizeof(float) * widths[t];
        assert_int_equal(gyre_product_width(tap, &hp), widths[t]);
        assert_int_equal(block_tap(block, x, 11, tap, more, NULL), GYRE_OK);
        assert_int_equal(block_tap(block, x, 5, tap, fewer, NULL), GYRE_OK);
        double as_double[5 * WIDEST];
        for (size_t i = 0; i < bytes / sizeof(float); i++) as_double[i] = (double)fewer[i];
        assert_true(nmse(more, as_double, bytes / sizeof(float)) <
                    1e-5); // another number of rows may be tiled otherwise
        assert_int_equal(block_tap(block, x, 5, tap, again, NULL), GYRE_OK);
        assert_memory_equal(fewer, again, bytes);
    }
    static float down[5 * F];
    memcpy(down, fewer, sizeof down);
    assert_int_equal(gyre_block_load(block, &floats.given, NULL), GYRE_OK);
    assert_int_equal(block_tap(block, x, 5, GYRE_PRODUCT_down, again, NULL), GYRE_OK);
    double as_double[5 * F];
    for (size_t i = 0; i < 5 * F; i++) as_double[i] = (double)down[i];
    const double e = nmse(again, as_double, 5 * F);
    if (!(e > 1e-4 && e < 0.2)) fail_msg("rounding the weights changed tap down by an NMSE of %g", e);
    gyre_block_destroy(block);
    weights_free(&codes);
    weights_free(&floats);
    hparams_free(&hp);
    device_close_clean(device);
}

static void refusals(void **state)
{
    gyre_device *device = open_or_skip(*state);
    const struct shape *s = &shapes[0];
    struct gyre_hparams hp = hparams_make(s);
    struct weights w;
    static float x[(MAX_ROWS + 1) * D], y[(MAX_ROWS + 1) * WIDEST];
    gyre_error err = {0};
    weights_make(s, 3, &w);
    gyre_block *block = block_make(device, &hp, s);
    assert_int_equal(block_tap(block, x, 1, GYRE_PRODUCT_qkv, y, &err), GYRE_E_INVALID);
    assert_non_null(strstr(err.message, "no weights"));
    assert_int_equal(gyre_block_load(block, &w.given, &err), GYRE_OK);
    assert_int_equal(block_tap(block, x, 0, GYRE_PRODUCT_qkv, y, &err), GYRE_E_INVALID);
    assert_int_equal(block_tap(block, x, MAX_ROWS + 1, GYRE_PRODUCT_qkv, y, &err), GYRE_E_INVALID);
    assert_non_null(strstr(err.message, "38 rows, it was made for 1..37"));
    assert_int_equal(gyre_block_part(block, GYRE_PRODUCTS + 1, x, y, 1, y, &err), GYRE_E_INVALID);
    assert_non_null(strstr(err.message, "no part 5"));
    assert_int_equal(block_tap(block, x, 1, GYRE_PRODUCT_qkv, y, &err), GYRE_OK); // and still works
    gyre_block_destroy(block);
    weights_free(&w);
    hparams_free(&hp);
    device_close_clean(device);
}

#define ON(test, id)                                                                                                   \
    {                                                                                                                  \
#test " on " id, test, NULL, NULL, id                                                                          \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON(taps_are_what_linears_read, "cpu"),
        ON(graphs_follow_rows_and_memory, "cpu"),
        ON(refusals, "cpu"),
        ON(taps_are_what_linears_read, "vulkan:0"),
        ON(graphs_follow_rows_and_memory, "vulkan:0"),
        ON(taps_are_what_linears_read, "opencl:0"),
        ON(graphs_follow_rows_and_memory, "opencl:0"),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
