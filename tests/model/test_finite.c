// The check for numbers that are not finite, held to the codecs, for every tensor type: whatever makes a block decode
// to a number that is not finite is found, wherever in the block it lies.
#include "runtime/core/codec.h"
#include "runtime/model/hparams.h"
#include "runtime/source/source_impl.h"
#include "runtime/util/base.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { BLOCKS = 3, MOST_BYTES = 256, MOST_ELEMENTS = 256 };

static bool is_found(gyre_dtype type, const unsigned char *bytes)
{
    char path[] = "test", name[] = "odd";
    const struct gyre_source source = {.path = path};
    const struct gyre_tensor t = {
        .name = name, .type = type, .data = bytes, .bytes = (uint64_t)BLOCKS * gyre_dtype_info(type)->block_bytes};
    gyre_error err = {0};
    return gyre_model_check_finite(&source, &t, &err) != GYRE_OK;
}

static bool is_odd(gyre_dtype type, const unsigned char *bytes)
{
    float out[BLOCKS * MOST_ELEMENTS];
    const uint64_t n = (uint64_t)BLOCKS * gyre_dtype_info(type)->block_elements;
    gyre_decode_row(type, bytes, n, out);
    for (uint64_t i = 0; i < n; i++)
        if (!isfinite(out[i])) return true;
    return false;
}

static void test_every_type(void **state)
{
    (void)state;
    static const unsigned char odd[][2] = {{0x00, 0x7C}, {0x01, 0xFC}, {0x80, 0x7F}, {0xF0, 0xFF}, {0xFF, 0xFF}};
    for (int type = 0; type < GYRE_DTYPE_COUNT; type++) {
        unsigned char bytes[BLOCKS * MOST_BYTES];
        const struct gyre_dtype_info *info = gyre_dtype_info((gyre_dtype)type);
        const bool integers = type == GYRE_DTYPE_I8 || type == GYRE_DTYPE_I32 || type == GYRE_DTYPE_I64;
        int made = 0;
        assert_true(info->block_bytes <= MOST_BYTES && info->block_elements <= MOST_ELEMENTS);
        memset(bytes, 0x11, sizeof bytes);
        if (is_odd((gyre_dtype)type, bytes) || is_found((gyre_dtype)type, bytes)) fail_msg("%s is odd", info->name);
        for (uint32_t at = 0; at + 1 < BLOCKS * info->block_bytes; at++)
            for (size_t k = 0; k < GYRE_COUNT(odd); k++) {
                memcpy(bytes + at, odd[k], 2);
                const bool is = is_odd((gyre_dtype)type, bytes);
                made += is;
                if (is && !is_found((gyre_dtype)type, bytes)) fail_msg("%s: byte %u, way %zu", info->name, at, k);
                memset(bytes + at, 0x11, 2);
            }
        if (integers ? made : made < BLOCKS) fail_msg("%s: %d", info->name, made);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_type)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
