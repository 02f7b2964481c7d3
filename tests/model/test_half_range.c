// Which weights become halves: those that keep their meaning. Numbers beyond a half's range at either end stay
// binary32, one small number among large ones does not make a matrix twice as big.
#include "runtime/core/codec.h"
#include "runtime/model/half_range.h"
#include "runtime/model/weights.h"
#include "runtime/util/half.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 24, COLS = 768 }; // three strips of columns
static float x[ROWS * COLS];

static void fill(float scale)
{
    for (int i = 0; i < ROWS * COLS; i++) x[i] = scale * (0.1f + (float)((i * 7919) % 1000) / 1000) * (i % 3 ? 1 : -1);
}

static bool fits(void)
{
    struct gyre_half_range range = {0};
    for (int r = 0; r < ROWS; r += 8) assert_true(gyre_half_range_add(&range, x + r * COLS, 8, COLS)); // in pieces
    return gyre_half_range_end(&range, COLS);
}

static void ranges(void **state)
{
    (void)state;
    fill(0.02f);
    assert_true(fits());
    x[5] = 1e-7f; // lost among large ones
    assert_true(fits());
    x[COLS * ROWS - 1] = 65505;
    assert_false(fits());
    for (int row = 0; row < ROWS; row += ROWS - 1) { // a row, all of it small
        fill(0.02f);
        for (int i = 0; i < COLS; i++) x[row * COLS + i] *= 0x1p-12f;
        assert_false(fits());
        for (int i = 0; i < COLS; i++) x[row * COLS + i] = 0x1p-24f * (float)(i % 9); // small, and a half's own
        assert_true(fits());
        for (int i = 0; i < COLS; i++) x[row * COLS + i] = 0;
        assert_true(fits());
    }
    for (int column = 0; column < COLS; column += COLS - 1) {
        fill(0.02f);
        for (int r = 0; r < ROWS; r++) x[r * COLS + column] *= 0x1p-12f;
        assert_false(fits());
    }
    struct gyre_half_range none = {0};
    assert_true(gyre_half_range_end(&none, COLS));
}

static gyre_device *device;

static gyre_weight_kind kind_of(gyre_dtype type, float scale)
{
    uint64_t row_bytes = 0;
    assert_true(gyre_dtype_row_bytes(type, COLS, &row_bytes));
    unsigned char *data = calloc(ROWS, row_bytes);
    fill(scale);
    for (uint64_t i = 0; i < (uint64_t)ROWS * COLS; i++) {
        const uint32_t bits = gyre_f32_bits(x[i]);
        const uint16_t half = type == GYRE_DTYPE_F16 ? gyre_f16_from_f32(x[i]) : (uint16_t)(bits >> 16);
        if (gyre_dtype_info(type)->block_elements == 1) memcpy(data + 2 * i, &half, 2);
    }
    const uint16_t d = gyre_f16_from_f32(scale / 15), m = 0;
    const uint32_t block = (uint32_t)gyre_dtype_info(type)->block_bytes;
    for (uint64_t b = 0; gyre_dtype_info(type)->block_elements > 1 && b < ROWS * row_bytes / block; b++) {
        unsigned char *at = data + b * block;
        memset(at, 0x5A, block);
        if (type == GYRE_DTYPE_Q6_K) memcpy(at + block - 2, &d, 2);
        else memcpy(at, &d, 2);
        if (type == GYRE_DTYPE_Q4_1 || type == GYRE_DTYPE_Q4_K) memcpy(at + 2, &m, 2);
    }
    const struct gyre_tensor t = {.name = "w",
                                  .type = type,
                                  .n_dims = 2,
                                  .dims = {COLS, ROWS},
                                  .rows = ROWS,
                                  .cols = COLS,
                                  .data = data,
                                  .bytes = ROWS * row_bytes};
    struct gyre_linear part;
    gyre_linear_of(&t, &part);
    struct gyre_weight w;
    gyre_repacker *repacker = NULL;
    gyre_error err = {0};
    if (gyre_repacker_create(device, &repacker, &err) != GYRE_OK) fail_msg("%s", err.message);
    if (gyre_weight_load(device, repacker, &part, 1, "w", NULL, &w, &err) != GYRE_OK) fail_msg("%s", err.message);
    const gyre_weight_kind kind = w.kind;
    gyre_weight_destroy(device, &w);
    gyre_repacker_destroy(repacker);
    free(data);
    return kind;
}

static void weights(void **state)
{
    (void)state;
    static const gyre_dtype types[] = {GYRE_DTYPE_BF16, GYRE_DTYPE_Q4_1, GYRE_DTYPE_Q4_K, GYRE_DTYPE_Q6_K};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        assert_int_equal(kind_of(types[i], 0.02f), GYRE_WEIGHT_F16);
        // A block's numbers are whole multiples of its f16 scale: of 2^-24, as halves are.
        assert_int_equal(kind_of(types[i], 0x1p-18f), types[i] == GYRE_DTYPE_BF16 ? GYRE_WEIGHT_F32 : GYRE_WEIGHT_F16);
        assert_int_equal(kind_of(types[i], 9e5f), GYRE_WEIGHT_F32); // each with a finite scale
    }
    assert_int_equal(kind_of(GYRE_DTYPE_F16, 0x1p-20f), GYRE_WEIGHT_F16); // halves already
}

int main(void)
{
    if (gyre_device_open("cpu", NULL, &device, NULL) != GYRE_OK) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(ranges), cmocka_unit_test(weights)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    gyre_device_close(device);
    return failed;
}
