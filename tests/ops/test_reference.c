// The references themselves, each against the plainest form of its formula: dense matrices, values written out,
// properties that a quantizer must have. What they share with the references are the layouts of shaders/params.h,
// spelled out anew.
#include "backends/cpu/ref.h"
#include "runtime/util/half.h"
#include "shaders/params.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t state = 7;
static uint32_t bits32(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}
static float uniform(float lo, float hi) { return lo + (hi - lo) * (float)(bits32() >> 8) / 16777216.0f; }

static void assert_near(double got, double want, double by)
{
    if (!(fabs(got - want) <= by)) fail_msg("%.9g is not within %g of %.9g", got, by, want);
}

static struct gyre_ref_args call(const char *kernel, const void *params, int n, void *const *bind)
{
    struct gyre_ref_args args = {.params = params, .source = gyre_kernel_source_find(kernel)};
    assert_non_null(args.source);
    assert_int_equal(args.source->n_bindings, n);
    memcpy(args.bind, bind, (size_t)n * sizeof *bind);
    args.spec = args.source->spec_defaults;
    args.n_spec = args.source->n_spec;
    return args;
}

// ---- Hadamard -----------------------------------------------------------------------------------------

// The 12 x 12 matrix of Paley's first construction over GF(11), whose squares are 1 3 4 5 9.
static int h12(int i, int j)
{
    if (i == j || i == 0) return 1;
    if (j == 0) return -1;
    const int d = (i - j + 11) % 11;
    return d == 1 || d == 3 || d == 4 || d == 5 || d == 9 ? 1 : -1;
}
static int h4(int i, int j) { return __builtin_parity((unsigned)(i & j)) ? -1 : 1; }

static void hadamard_is_a_kronecker_product(void **unused)
{
    (void)unused;
    enum { N = 12 * 12 * 4, ROWS = 2, WIDTH = N + 3 };
    static float x[ROWS * WIDTH], y[ROWS * WIDTH], scale[WIDTH];
    uint32_t base[24] = {0};
    for (int i = 0; i < 24; i++)
        for (int j = 0; j < 12; j++) base[i] |= (uint32_t)(h12(i % 12, j) < 0) << j;
    for (int i = 0; i < ROWS * WIDTH; i++) x[i] = uniform(-1, 1);
    for (int i = 0; i < WIDTH; i++) scale[i] = uniform(0.5f, 2);
    for (int t = 0; t < 2; t++) {
        const struct gyre_hadamard_params p = {N, 1, 12, 12, 1, 2, t, ROWS, WIDTH, t};
        const struct gyre_ref_args args = call("hadamard", &p, 4, (void *[]){y, x, base, scale});
        gyre_ref_op_hadamard(&args);
        for (int r = 0; r < ROWS; r++) {
            for (int c = 0; c < N; c++) {
                double sum = 0; // y_c = sum over e of x_e H(e, c), the indices split into 12, 12 and 4
                for (int e = 0; e < N; e++) {
                    const int a = t ? c : e, b = t ? e : c;
                    const int h = h12(a / 48, b / 48) * h12(a / 4 % 12, b / 4 % 12) * h4(a % 4, b % 4);
                    sum += (double)x[r * WIDTH + e] * (t ? (double)scale[e] : 1) * h;
                }
                assert_near(y[r * WIDTH + c], sum / sqrt(N), 1e-5);
            }
            for (int c = N; c < WIDTH; c++) assert_near(y[r * WIDTH + c], x[r * WIDTH + c] * (t ? scale[c] : 1), 1e-6);
        }
    }
}

// ---- quantizers ---------------------------------------------------------------------------------------

static void codes_stand_for_the_values(void **unused)
{
    (void)unused;
    enum { N = 36 };
    float x[N];
    uint32_t codes[N / 4], meta[2];
    for (int trial = 0; trial < 40; trial++) {
        const int bits = trial % 2 ? 8 : 4;
        const float shift = trial / 2 % 3 == 0 ? 0.0f : uniform(-4, 4), clip = trial % 5 == 4 ? 0.8f : 1;
        for (int i = 0; i < N; i++) x[i] = shift + uniform(-2, 2);
        if (trial % 7 == 6) memset(x, 0, sizeof x);
        const struct gyre_quantize_params p = {1, N, bits, clip, 0};
        const struct gyre_ref_args args = call("quantize", &p, 3, (void *[]){codes, meta, x});
        gyre_ref_op_quantize(&args);
        const double scale = (double)gyre_f32_from_bits(meta[0]);
        const int zero = (int)meta[1];
        double lo = 0, hi = 0;
        for (int i = 0; i < N; i++) {
            lo = fmin(lo, (double)x[i]);
            hi = fmax(hi, (double)x[i]);
        }
        assert_near(scale, (double)clip * (bits == 8 ? fmax(-lo, hi) / 127 : (hi - lo) / 15), 1e-6);
        assert_true(bits == 8 ? zero == 0 : zero >= 0 && zero <= 15);
        for (int i = 0; i < N; i++) {
            const int code = (int8_t)(codes[i / 4] >> 8 * (i % 4));
            assert_true(bits == 8 ? code >= -128 : code >= 0 && code <= 15);
            const double least = scale * ((bits == 8 ? -128 : 0) - zero),
                         most = scale * ((bits == 8 ? 127 : 15) - zero);
            const double want = fmin(fmax((double)x[i], least), most); // clipped to the grid, then to its nearest point
            assert_true(fabs(scale * (code - zero) - want) <= 0.5001 * scale);
        }
    }
}

static void rms_norm_has_unit_mean_square(void **unused)
{
    (void)unused;
    enum { ROWS = 3, D = 20 };
    float x[ROWS * D], y[ROWS * D], gain[D];
    uint32_t codes[ROWS * D / 4], meta[ROWS * 2];
    for (int i = 0; i < ROWS * D; i++) x[i] = uniform(-9, 5);
    for (int i = 0; i < D; i++) gain[i] = uniform(0.5f, 3);
    const struct gyre_rms_norm_params p = {ROWS, D, 0, 8, 1, 0};
    const struct gyre_ref_args plain = call("rms_norm", &p, 3, (void *[]){y, x, gain});
    gyre_ref_op_rms_norm(&plain);
    const struct gyre_ref_args quant = call("rms_norm_quant", &p, 4, (void *[]){codes, meta, x, gain});
    gyre_ref_op_rms_norm_quant(&quant);
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int i = 0; i < D; i++) {
            const double unit = (double)y[r * D + i] / (double)gain[i],
                         code = (int8_t)(codes[(r * D + i) / 4] >> 8 * (i % 4));
            const double scale = (double)gyre_f32_from_bits(meta[2 * r]);
            sum += unit * unit;
            assert_near(unit / (double)x[r * D + i], (double)(y[r * D] / gain[0] / x[r * D]), 1e-5); // one factor a row
            assert_true(fabs(scale * code - (double)y[r * D + i]) <= 0.5001 * scale);
        }
        assert_near(sum / D, 1, 1e-5);
    }
    const struct gyre_rms_norm_params eps = {ROWS, D, 1e6f, 8, 1, 0};
    const struct gyre_ref_args damped = call("rms_norm", &eps, 3, (void *[]){y, x, gain});
    gyre_ref_op_rms_norm(&damped);
    for (int i = 0; i < D; i++) assert_true(fabsf(y[i]) < 0.03f);
}

// ---- activations --------------------------------------------------------------------------------------

static void activations_have_known_values(void **unused)
{
    (void)unused;
    // g, g * sigmoid(g), and the tanh form of GELU, by Python's math module
    static const double known[][3] = {
        {-3, -0.14227761953270035, -0.0036373920817729943},
        {-0.5, -0.18877033439907270, -0.15428599017485606},
        {0, 0, 0},
        {1, 0.73105857863000490, 0.84119199060827680},
        {2.5, 2.3103545499468914, 2.4849157337300010},
        {40, 40, 40},
    };
    for (int act = 0; act < 2; act++)
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            float gate_up[8] = {0}, y[4];
            gate_up[1] = (float)known[i][0];
            gate_up[5] = -1.5f;
            const struct gyre_act_mul_params p = {.rows = 1, .width = 4, .act = act, .bits = 8, .clip = 1};
            const struct gyre_ref_args args = call("act_mul", &p, 2, (void *[]){y, gate_up});
            gyre_ref_op_act_mul(&args);
            assert_near(y[1], -1.5 * known[i][1 + act], 1e-6 + 1e-6 * fabs(known[i][0]));
            assert_true(y[0] == 0 && y[2] == 0 && y[3] == 0);
        }
}

// The fused forms are their parts, one after the other.
static void fused_activations_are_their_parts(void **unused)
{
    (void)unused;
    enum { ROWS = 2, F = 24 };
    float gate_up[ROWS * 2 * F], y[ROWS * F], z[ROWS * F], fused[ROWS * F], scratch[ROWS * F], scale[F];
    uint32_t base[12] = {0}, codes[2][ROWS * F / 4], meta[2][ROWS * 2];
    for (int i = 0; i < 12; i++)
        for (int j = 0; j < 12; j++) base[i] |= (uint32_t)(h12(i, j) < 0) << j;
    for (int i = 0; i < ROWS * 2 * F; i++) gate_up[i] = uniform(-3, 3);
    const struct gyre_act_mul_params p = {ROWS, F, 0, 4, 0.9f, 12, F, 1, 12, 1, 1, 1, 0};
    const struct gyre_hadamard_params h = {F, 1, 12, 1, 1, 1, 0, ROWS, F, 0};
    const struct gyre_quantize_params q = {ROWS, F, 4, 0.9f, 12};
    struct gyre_ref_args args = call("act_mul", &p, 2, (void *[]){y, gate_up});
    gyre_ref_op_act_mul(&args);
    args = call("act_mul_quant", &p, 3, (void *[]){codes[0], meta[0], gate_up});
    gyre_ref_op_act_mul_quant(&args);
    args = call("quantize", &q, 3, (void *[]){codes[1], meta[1], y});
    gyre_ref_op_quantize(&args);
    assert_memory_equal(codes[0], codes[1], sizeof codes[0]);
    assert_memory_equal(meta[0], meta[1], sizeof meta[0]);
    args = call("hadamard", &h, 4, (void *[]){z, y, base, scale});
    gyre_ref_op_hadamard(&args);
    args = call("act_mul_had", &p, 3, (void *[]){fused, gate_up, base});
    gyre_ref_op_act_mul_had(&args);
    for (int i = 0; i < ROWS * F; i++) assert_near(fused[i], z[i], 1e-6);
    args = call("act_mul_had_quant", &p, 4, (void *[]){codes[0], meta[0], gate_up, base});
    gyre_ref_op_act_mul_had_quant(&args);
    args = call("act_mul_had_quant_global", &p, 5, (void *[]){codes[1], meta[1], scratch, gate_up, base});
    gyre_ref_op_act_mul_had_quant(&args);
    assert_memory_equal(codes[0], codes[1], sizeof codes[0]);
    args = call("quantize", &q, 3, (void *[]){codes[1], meta[1], fused});
    gyre_ref_op_quantize(&args);
    assert_memory_equal(codes[0], codes[1], sizeof codes[0]);
    assert_memory_equal(meta[0], meta[1], sizeof meta[0]);
}

// ---- weights ------------------------------------------------------------------------------------------

enum { N = 43, N_PAD = 64, K = 40, GROUP = 20, GROUPS = K / GROUP, ROWS = 3, LDY = 46, N0 = 2 };

// One matrix: codes, scales and values by (n, k), and the device words of one kind.
static struct {
    int code[N][K];
    float scale[N][GROUPS];
    double value[N][K];
    unsigned char words[K * N_PAD * 4];
    uint16_t scales[GROUPS][N_PAD];
    int32_t sums[GROUPS][N_PAD];
} w;

// Writes the element (n, k) where shaders/params.h says that it lies.
static void put_element(int kind, int n, int k)
{
    const float f = (float)w.value[n][k];
    const uint16_t h = gyre_f16_from_f32(f);
    const int block = (n / 32 * (K / 4) + k / 4) * 4 + n % 32 / 8; // of 4 K x 8 N, in tiles of 32 columns
    if (kind == 4) {                                               // 16 bytes; word n/2, byte k, low nibble for even n
        unsigned char *byte = &w.words[block * 16 + n % 8 / 2 * 4 + k % 4];
        *byte = (unsigned char)(n % 2 ? (*byte & 0x0F) | (w.code[n][k] + 8) << 4 : (*byte & 0xF0) | (w.code[n][k] + 8));
    } else if (kind == 8) {
        w.words[block * 32 + n % 8 * 4 + k % 4] = (unsigned char)w.code[n][k];
    } else if (kind == 16) {
        memcpy(&w.words[(k * N_PAD + n) * 2], &h, 2);
    } else {
        memcpy(&w.words[(k * N_PAD + n) * 4], &f, 4);
    }
}

static void make_weight(int kind)
{
    memset(&w, 0, sizeof w);
    memset(w.words, 0x88, sizeof w.words);
    for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++) {
            const int g = k / GROUP;
            if (k % GROUP == 0) {
                w.scale[n][g] = gyre_round_to_f16(uniform(0.01f, 0.1f));
                w.scales[g][n] = gyre_f16_from_f32(w.scale[n][g]);
            }
            w.code[n][k] = kind == 4 ? (int)(bits32() % 16) - 8 : (int)(bits32() % 256) - 128;
            w.value[n][k] =
                kind <= 8 ? w.code[n][k] * (double)w.scale[n][g] : (double)gyre_round_to_f16(uniform(-1, 1));
            w.sums[g][n] += w.code[n][k];
            put_element(kind, n, k);
        }
}

static const struct {
    int kind;
    const char *name;
} kinds[] = {{4, "w4"}, {8, "w8"}, {16, "f16"}, {32, "f32"}};

static void matmul_is_a_double_loop(void **unused)
{
    (void)unused;
    for (int i = 0; i < 4; i++)
        for (int bits = 0; bits <= 8; bits += 4)
            for (int add = 0; add < 3; add++) {
                make_weight(kinds[i].kind);
                float x[ROWS * K], y[ROWS * LDY], addend[ROWS * LDY];
                int8_t codes[ROWS * K];
                uint32_t meta[ROWS][2];
                double value[ROWS][K];
                for (int r = 0; r < ROWS; r++) {
                    const float scale = uniform(0.01f, 0.2f);
                    const int zero = bits == 4 ? (int)(bits32() % 16) : 0;
                    meta[r][0] = gyre_f32_bits(scale);
                    meta[r][1] = (uint32_t)zero;
                    for (int k = 0; k < K; k++) {
                        x[r * K + k] = uniform(-2, 2);
                        codes[r * K + k] = (int8_t)(bits == 4 ? (int)(bits32() % 16) : (int)(bits32() % 256) - 128);
                        value[r][k] = bits ? (double)scale * (codes[r * K + k] - zero) : (double)x[r * K + k];
                    }
                }
                for (int j = 0; j < ROWS * LDY; j++) y[j] = -77, addend[j] = uniform(-5, 5);
                char kernel[32];
                snprintf(kernel, sizeof kernel, "matmul_%s_%s_%s", kinds[i].name, bits ? "q" : "f", add ? "v" : "m");
                const struct gyre_matmul_params p = {ROWS, K, N, N_PAD, kinds[i].kind <= 8 ? GROUP : K, LDY, N0, add};
                void *bind[] = {y, bits ? (void *)codes : (void *)x, meta, w.words, w.scales, w.sums, addend};
                const struct gyre_ref_args args = call(kernel, &p, 7, bind);
                gyre_ref_op_matmul(&args);
                for (int r = 0; r < ROWS; r++)
                    for (int n = -N0; n < LDY - N0; n++) {
                        double sum = add ? (double)addend[(add == 1 ? r * LDY : 0) + N0 + n] : 0;
                        for (int k = 0; k < K && n >= 0 && n < N; k++) sum += value[r][k] * w.value[n][k];
                        assert_near(y[r * LDY + N0 + n], n >= 0 && n < N ? sum : -77, 1e-5 * (1 + fabs(sum)));
                    }
            }
}

static void embed_takes_rows_of_its_range(void **unused)
{
    (void)unused;
    enum { FIRST = 50 };
    const int32_t rows[4][4] = {{FIRST + N - 1}, {FIRST - 1}, {FIRST}, {FIRST + N}};
    for (int i = 0; i < 4; i++) {
        make_weight(kinds[i].kind);
        float y[4 * K];
        for (int j = 0; j < 4 * K; j++) y[j] = -77;
        char kernel[32];
        snprintf(kernel, sizeof kernel, "embed_%s", kinds[i].name);
        const struct gyre_embed_params p = {4, K, FIRST, N, N_PAD, kinds[i].kind <= 8 ? GROUP : K, 2};
        const struct gyre_ref_args args = call(kernel, &p, 4, (void *[]){y, (void *)rows, w.words, w.scales});
        gyre_ref_op_embed(&args);
        for (int k = 0; k < K; k++) {
            assert_near(y[k], 2 * w.value[N - 1][k], 1e-6);
            assert_near(y[K + k], -77, 0);
            assert_near(y[2 * K + k], 2 * w.value[0][k], 1e-6);
            assert_near(y[3 * K + k], -77, 0);
        }
    }
}

// A draw is distributed as softmax(x / temperature): counts over many positions, within 5 standard deviations.
static void draws_follow_the_softmax(void **unused)
{
    (void)unused;
    enum { V = 7, DRAWS = 40000 };
    const float x[V] = {1, -2, 0.5f, 3, -8, 2.5f, 0}, heat = 1.7f;
    const struct gyre_topk_params p = {1, V, 1, 1};
    int32_t row[4] = {0};
    const uint32_t settings[4] = {gyre_f32_bits(heat), gyre_f32_bits(1), 12345, 0};
    float val;
    uint32_t id, count[V] = {0};
    void *bind[] = {&val, &id, (void *)(uintptr_t)x, row, (void *)(uintptr_t)settings};
    const struct gyre_ref_args args = call("draw", &p, 5, bind);
    for (row[2] = 0; row[2] < DRAWS; row[2]++) {
        gyre_ref_op_draw(&args);
        assert_true(id < V);
        count[id]++;
    }
    double sum = 0;
    for (int i = 0; i < V; i++) sum += exp((double)x[i] / (double)heat);
    for (int i = 0; i < V; i++) {
        const double share = exp((double)x[i] / (double)heat) / sum;
        assert_near(count[i], DRAWS * share, 5 * sqrt(DRAWS * share * (1 - share)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_follow_the_softmax),      cmocka_unit_test(hadamard_is_a_kronecker_product),
        cmocka_unit_test(codes_stand_for_the_values),    cmocka_unit_test(rms_norm_has_unit_mean_square),
        cmocka_unit_test(activations_have_known_values), cmocka_unit_test(fused_activations_are_their_parts),
        cmocka_unit_test(matmul_is_a_double_loop),       cmocka_unit_test(embed_takes_rows_of_its_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
