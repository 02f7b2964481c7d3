// Block codecs: decoding against the `gguf` package's own (tests/data/make_codecs.py), encoding as its exact inverse.
#include "runtime/core/codec.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"
#include "runtime/util/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/data/codec_golden.inc"

static void expect_bits(gyre_dtype type, const uint8_t *blocks, size_t bytes, const uint32_t *values, size_t n)
{
    uint64_t due;
    assert_true(gyre_dtype_row_bytes(type, n, &due));
    assert_int_equal(due, bytes);
    // One byte off: files promise no alignment.
    uint8_t *moved = malloc(bytes + 1);
    float *out = malloc((n + 1) * sizeof *out);
    assert_true(moved && out);
    memcpy(moved + 1, blocks, bytes);
    out[n] = 123;
    gyre_decode_row(type, moved + 1, n, out);
    for (size_t i = 0; i < n; i++)
        if (gyre_f32_bits(out[i]) != values[i])
            fail_msg("%s value %zu: %a, not %a", gyre_dtype_info(type)->name, i, (double)out[i],
                     (double)gyre_f32_from_bits(values[i]));
    assert_true(out[n] == 123);
    free(moved);
    free(out);
}

static void decodes_as_gguf_does(void **state)
{
    (void)state;
#define CHECK(id, name)                                                                                                \
    expect_bits(GYRE_DTYPE_##id, name##_blocks, sizeof name##_blocks, name##_values, GYRE_COUNT(name##_values))
    CHECK(Q4_0, q4_0);
    CHECK(Q4_1, q4_1);
    CHECK(Q5_0, q5_0);
    CHECK(Q8_0, q8_0);
    CHECK(Q4_K, q4_k);
    CHECK(Q5_K, q5_k);
    CHECK(Q6_K, q6_k);
    CHECK(F16, f16);
    CHECK(BF16, bf16);
    CHECK(Q5_1, q5_1);
    CHECK(Q2_K, q2_k);
    CHECK(Q3_K, q3_k);
    CHECK(IQ4_NL, iq4_nl);
    CHECK(IQ4_XS, iq4_xs);
    CHECK(MXFP4, mxfp4);
    CHECK(TQ1_0, tq1_0);
    CHECK(TQ2_0, tq2_0);
}

static void encodes_the_grid_exactly(void **state)
{
    (void)state;
    enum { N = 32 * 9 };
    struct gyre_rng rng = gyre_rng_seed(1);
    int8_t q4[N], q8[N], back[N];
    uint16_t scales[N / 32];
    uint8_t blocks[N / 32 * 34], packed[N / 2];
    float out[N];
    for (int i = 0; i < N; i++) {
        q4[i] = (int8_t)((int)gyre_rng_below(&rng, 16) - 8);
        q8[i] = (int8_t)((int)gyre_rng_below(&rng, 256) - 128);
    }
    for (int i = 0; i < N / 32; i++) scales[i] = gyre_f16_from_f32((float)(0.001 + gyre_rng_unit(&rng)));
    gyre_encode_q4_0(q4, scales, N, blocks);
    gyre_decode_row(GYRE_DTYPE_Q4_0, blocks, N, out);
    for (int i = 0; i < N; i++) assert_true(out[i] == (float)q4[i] * gyre_f32_from_f16(scales[i / 32]));
    gyre_encode_q8_0(q8, scales, N, blocks);
    gyre_decode_row(GYRE_DTYPE_Q8_0, blocks, N, out);
    for (int i = 0; i < N; i++) assert_true(out[i] == (float)q8[i] * gyre_f32_from_f16(scales[i / 32]));
    gyre_decode_row(GYRE_DTYPE_I8, q8, N, out);
    for (int i = 0; i < N; i++) assert_true(out[i] == (float)q8[i]);
    gyre_pack_i4(q4, N, packed);
    assert_int_equal(packed[0], (q4[0] + 8) | (q4[1] + 8) << 4);
    gyre_unpack_i4(packed, N, back);
    assert_memory_equal(back, q4, N);
}

static void rounds_to_q8_0(void **state)
{
    (void)state;
    struct gyre_rng rng = gyre_rng_seed(2);
    float x[32], out[32];
    uint8_t block[34];
    for (int round = 0; round < 500; round++) {
        const float size = ldexpf(1, (int)gyre_rng_below(&rng, 36) - 20);
        float largest = 0;
        for (int i = 0; i < 32; i++) {
            x[i] = (float)(2 * gyre_rng_unit(&rng) - 1) * size;
            largest = fmaxf(largest, fabsf(x[i]));
        }
        gyre_quantize_q8_0(x, 32, block);
        gyre_decode_row(GYRE_DTYPE_Q8_0, block, 32, out);
        uint16_t scale;
        memcpy(&scale, block, 2);
        assert_int_equal(scale, gyre_f16_from_f32(largest / 127));
        const float d = gyre_f32_from_f16(scale);
        for (int i = 0; i < 32; i++) {
            const float bound = fmaxf(0.5001f * d, fabsf(x[i]) - 127 * d); // half a step, or clipped at the end
            assert_true(fabsf(out[i] - x[i]) <= bound);
        }
    }
    // Ties go to even codes; zeros and what is too small for a half stay zero; too large is clipped, not infinite.
    for (int i = 0; i < 32; i++) x[i] = (float)i - 0.5f;
    x[31] = 127;
    gyre_quantize_q8_0(x, 32, block);
    for (int i = 0; i < 31; i++) assert_int_equal((int8_t)block[2 + i], (int)rint(i - 0.5));
    const float specials[] = {0, 1e-9f, 3e38f};
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < 32; i++) x[i] = i % 2 ? specials[k] : -specials[k];
        gyre_quantize_q8_0(x, 32, block);
        gyre_decode_row(GYRE_DTYPE_Q8_0, block, 32, out);
        for (int i = 0; i < 32; i++) assert_true(k < 2 ? out[i] == 0 : isfinite(out[i]) && fabsf(out[i]) > 8e6f);
    }
}

static void knows_its_types(void **state)
{
    (void)state;
    uint64_t bytes;
    gyre_dtype type;
    assert_true(gyre_dtype_from_gguf(14, &type) && type == GYRE_DTYPE_Q6_K);
    assert_true(gyre_dtype_from_gguf(20, &type) && type == GYRE_DTYPE_IQ4_NL);
    assert_false(gyre_dtype_from_gguf(16, &type) || gyre_dtype_from_gguf(UINT32_MAX, &type));
    assert_string_equal(gyre_gguf_type_name(20), "IQ4_NL");
    assert_string_equal(gyre_gguf_type_name(39), "MXFP4");
    assert_string_equal(gyre_gguf_type_name(42), "Q2_0");
    assert_null(gyre_gguf_type_name(4));
    assert_null(gyre_gguf_type_name(43));
    for (uint32_t id = 0; id < 43; id++)
        if (gyre_dtype_from_gguf(id, &type)) assert_string_equal(gyre_gguf_type_name(id), gyre_dtype_info(type)->name);
    assert_true(gyre_dtype_row_bytes(GYRE_DTYPE_Q4_K, 512, &bytes) && bytes == 288);
    assert_false(gyre_dtype_row_bytes(GYRE_DTYPE_Q4_K, 288, &bytes));
    assert_false(gyre_dtype_row_bytes(GYRE_DTYPE_F32, UINT64_MAX / 2, &bytes));
    assert_null(gyre_dtype_info(GYRE_DTYPE_COUNT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_as_gguf_does),
        cmocka_unit_test(encodes_the_grid_exactly),
        cmocka_unit_test(rounds_to_q8_0),
        cmocka_unit_test(knows_its_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
