// Half conversions against a slow reference in double: every half, and every float that lies on, just below
// or just above a half or the middle between two. Both conversions are monotonic, so nothing lies between.
#include "runtime/util/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

// The definition: sign, 5 bits of exponent with bias 15, 10 bits of mantissa.
static double slow_value(uint16_t h)
{
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    const double sign = h & 0x8000 ? -1 : 1;
    if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24));
}

// Rounds in units of the last place with nearbyint (ties to even), then encodes.
static uint16_t slow_from(float f)
{
    const uint16_t sign = signbit(f) ? 0x8000 : 0;
    const double a = fabs((double)f);
    if (isnan(f)) return (uint16_t)(sign | 0x7E00);
    if (a >= 65520) return (uint16_t)(sign | 0x7C00);
    int exponent;
    frexp(a, &exponent);
    exponent = a > 0 && exponent > -13 ? exponent : -13; // a = m 2^exponent with m in [1/2, 1), or subnormal
    const double units = nearbyint(ldexp(a, 11 - exponent));
    // 2048 units carry into the exponent and 1024 leave the subnormals by themselves.
    const int code = (exponent + 13) * 1024 + (int)units;
    return (uint16_t)(sign | (code < 0 ? 0 : code));
}

static void every_half_widens_exactly(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const double slow = slow_value((uint16_t)h), fast = (double)gyre_f32_from_f16((uint16_t)h);
        if (isnan(slow) ? !isnan(fast) : fast != slow || signbit(fast) != signbit(slow)) fail_msg("half %04x", h);
        if (!isnan(slow) && gyre_f16_from_f32((float)slow) != h) fail_msg("half %04x does not come back", h);
    }
}

static void check(float f)
{
    const uint16_t fast = gyre_f16_from_f32(f), slow = slow_from(f);
    if (fast != slow) fail_msg("%a (bits %08x): %04x, not %04x", (double)f, gyre_f32_bits(f), fast, slow);
}

static void check_around(double value)
{
    const float f = (float)value; // halves and their middles are floats
    check(f);
    check(nextafterf(f, INFINITY));
    check(nextafterf(f, -INFINITY));
}

static void every_boundary_rounds_to_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7C00; h++) {
        const double here = slow_value((uint16_t)h), next = h == 0x7BFF ? 65536 : slow_value((uint16_t)(h + 1));
        for (int sign = -1; sign <= 1; sign += 2) {
            check_around(sign * here);
            check_around(sign * (here + next) / 2);
        }
    }
}

static void floats_at_large(void **state)
{
    (void)state;
    for (uint64_t bits = 0; bits < 0x100000000u; bits += 9973) check(gyre_f32_from_bits((uint32_t)bits));
    check(INFINITY);
    check(-INFINITY);
    check(3.4e38f);
    assert_true(isnan(gyre_f32_from_f16(gyre_f16_from_f32(NAN))));
    assert_true(gyre_round_to_f16(0.1f) == 0x1.998p-4f);
}

static void bfloat_is_the_upper_half(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) assert_int_equal(gyre_f32_bits(gyre_f32_from_bf16((uint16_t)h)), h << 16);
    assert_true(gyre_f32_from_bf16(0x3FC0) == 1.5f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_widens_exactly),
        cmocka_unit_test(every_boundary_rounds_to_even),
        cmocka_unit_test(floats_at_large),
        cmocka_unit_test(bfloat_is_the_upper_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
