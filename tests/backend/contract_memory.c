// Contract: buffers. Copies of any size at any offset, in order; refusals; many small buffers.
#include "runtime/util/base.h"
#include "runtime/util/rng.h"
#include "tests/backend/contract.h"

#include <stdlib.h>
#include <string.h>

static unsigned char *random_bytes(size_t size, uint64_t seed)
{
    unsigned char *data = malloc(size + 8);
    struct gyre_rng rng = gyre_rng_seed(seed);
    assert_non_null(data);
    for (size_t i = 0; i < size; i += 8) {
        const uint64_t v = gyre_rng_next(&rng);
        memcpy(data + i, &v, 8);
    }
    return data;
}

static void odd_sizes_and_offsets(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 2, 3, 4, 5, 255, 256, 257, 4095, 65537, (1 << 20) + 13};
    static const uint64_t offsets[] = {0, 1, 2, 3, 7, 255, 257};
    const uint64_t total = (1 << 20) + 1024 + 3;
    unsigned char *background = random_bytes(total, 1), *data = random_bytes(total, 2), *expected = malloc(total),
                  *got = malloc(total);
    assert_true(expected && got);
    gyre_buffer *buffer = contract_buffer(contract.device, total);
    for (size_t i = 0; i < GYRE_COUNT(sizes); i++) {
        for (size_t j = 0; j < GYRE_COUNT(offsets); j++) {
            const uint64_t size = sizes[i], at = offsets[j];
            // Only the surroundings need restoring; the whole buffer once per size.
            const uint64_t around = j ? GYRE_MIN(total, at + size + 300) : total;
            contract_write(buffer, 0, background, around);
            contract_write(buffer, at, data, size);
            memcpy(expected, background, around);
            memcpy(expected + at, data, size);
            memset(got, 0xEE, total);
            contract_read(buffer, 0, got, around);
            assert_memory_equal(got, expected, around);
            memset(got, 0xEE, total);
            contract_read(buffer, at, got + 1, size);
            assert_memory_equal(got + 1, data, size);
            assert_true(got[0] == 0xEE && got[1 + size] == 0xEE);
        }
    }
    gyre_buffer_destroy(contract.device, buffer);
    free(background);
    free(data);
    free(expected);
    free(got);
}

// Larger than any staging ring, so that the ring must wrap and wait for itself.
static void larger_than_staging(void **state)
{
    (void)state;
    const uint64_t size = (48 << 20) + 13;
    unsigned char *data = random_bytes(size, 3), *got = malloc(size);
    assert_non_null(got);
    gyre_buffer *buffer = contract_buffer(contract.device, size + 1);
    contract_write(buffer, 1, data, size);
    contract_read(buffer, 1, got, size);
    assert_memory_equal(got, data, size);
    // Many writes without a wait between them, together more than the ring.
    for (uint64_t at = 0, n; at < size; at += n) {
        n = GYRE_MIN(size - at, (uint64_t)3141593);
        contract_write(buffer, at, data + size - at - n, n);
        memcpy(got + at, data + size - at - n, n);
    }
    contract_read(buffer, 0, data, size);
    assert_memory_equal(got, data, size);
    gyre_buffer_destroy(contract.device, buffer);
    free(data);
    free(got);
}

static void overlapping_writes_in_order(void **state)
{
    (void)state;
    enum { SIZE = 5003 };
    unsigned char *data = random_bytes(SIZE, 4), expected[SIZE], got[SIZE];
    struct gyre_rng rng = gyre_rng_seed(5);
    gyre_buffer *buffer = contract_buffer(contract.device, SIZE);
    memset(expected, 0, SIZE);
    contract_write(buffer, 0, expected, SIZE);
    for (int i = 0; i < 300; i++) {
        const uint64_t at = gyre_rng_below(&rng, SIZE), n = 1 + gyre_rng_below(&rng, GYRE_MIN(SIZE - at, 700u));
        data[0] = (unsigned char)i;
        contract_write(buffer, at, data, n);
        memcpy(expected + at, data, n);
        data[0] = 0; // the source may be reused as soon as write has returned
        if (i % 60) continue;
        contract_read(buffer, 0, got, SIZE);
        assert_memory_equal(got, expected, SIZE);
    }
    contract_read(buffer, 0, got, SIZE);
    assert_memory_equal(got, expected, SIZE);
    gyre_buffer_destroy(contract.device, buffer);
    free(data);
}

static void many_small_buffers(void **state)
{
    (void)state;
    enum { N = 1500 }; // three times what drivers with few allocations allow, were each buffer its own
    static gyre_buffer *buffer[N];
    const uint64_t before = gyre_device_counters(contract.device).live_objects;
    unsigned char data[1024], got[1024];
    for (unsigned i = 0; i < N; i++) {
        const unsigned size = 1 + i * 37 % 777;
        buffer[i] = contract_buffer(contract.device, size);
        memset(data, (int)(i % 251), size);
        contract_write(buffer[i], 0, data, size);
    }
    for (unsigned i = 0; i < N; i += 3) gyre_buffer_destroy(contract.device, buffer[i]);
    for (unsigned i = 0; i < N; i += 3) { // into the holes
        const unsigned size = 1 + i * 41 % 999;
        buffer[i] = contract_buffer(contract.device, size);
        memset(data, (int)(i % 241), size);
        contract_write(buffer[i], 0, data, size);
    }
    for (unsigned i = N; i-- > 0;) {
        const unsigned size = i % 3 ? 1 + i * 37 % 777 : 1 + i * 41 % 999;
        memset(data, (int)(i % (i % 3 ? 251 : 241)), size);
        contract_read(buffer[i], 0, got, size);
        assert_memory_equal(got, data, size);
        gyre_buffer_destroy(contract.device, buffer[i]);
    }
    assert_int_equal(gyre_device_counters(contract.device).live_objects, before);
}

static void buffer_refusals(void **state)
{
    (void)state;
    gyre_error err = {0};
    gyre_device *d = contract.device;
    gyre_buffer *none, *buffer = contract_buffer(d, 100);
    unsigned char x[100] = {0};
    contract_refused(gyre_buffer_create(d, 0, "empty", &none, &err), GYRE_E_INVALID, &err);
    assert_null(none);
    contract_refused(gyre_buffer_create(d, UINT64_MAX, "huge", &none, &err), GYRE_E_DEVICE_MEM, &err);
    contract_refused(gyre_buffer_create(d, gyre_device_info(d)->max_buffer + 1, NULL, &none, &err), GYRE_E_DEVICE_MEM,
                     &err);
    assert_null(none);

    contract_refused(gyre_buffer_write(d, NULL, 0, x, 1, &err), GYRE_E_INVALID, &err);
    contract_refused(gyre_buffer_write(d, buffer, 0, NULL, 1, &err), GYRE_E_INVALID, &err);
    contract_refused(gyre_buffer_write(d, buffer, 0, x, 101, &err), GYRE_E_INVALID, &err);
    contract_refused(gyre_buffer_write(d, buffer, 100, x, 1, &err), GYRE_E_INVALID, &err);
    contract_refused(gyre_buffer_write(d, buffer, UINT64_MAX, x, 2, &err), GYRE_E_INVALID, &err);
    contract_refused(gyre_buffer_write(d, buffer, 2, x, UINT64_MAX, &err), GYRE_E_INVALID, &err);
    contract_refused(gyre_buffer_read(d, NULL, 0, x, 1, &err), GYRE_E_INVALID, &err);
    contract_refused(gyre_buffer_read(d, buffer, 0, NULL, 1, &err), GYRE_E_INVALID, &err);
    contract_refused(gyre_buffer_read(d, buffer, 99, x, 2, &err), GYRE_E_INVALID, &err);
    contract_refused(gyre_buffer_read(d, buffer, UINT64_MAX, x, 1, &err), GYRE_E_INVALID, &err);
    assert_int_equal(gyre_buffer_read(d, buffer, 101, x, 1, NULL), GYRE_E_INVALID); // err is optional

    contract_ok(gyre_buffer_write(d, buffer, 100, NULL, 0, &err), &err);
    contract_ok(gyre_buffer_read(d, buffer, 0, NULL, 0, &err), &err);
    gyre_buffer_destroy(d, buffer);
}

static void buffer_of_another_device(void **state)
{
    (void)state;
    gyre_error err = {0};
    unsigned char x = 0;
    gyre_device *other;
    contract_ok(gyre_device_open("null", NULL, &other, &err), &err);
    gyre_buffer *buffer = contract_buffer(other, 64);
    contract_refused(gyre_buffer_write(contract.device, buffer, 0, &x, 1, &err), GYRE_E_INVALID, &err);
    contract_refused(gyre_buffer_read(contract.device, buffer, 0, &x, 1, &err), GYRE_E_INVALID, &err);
    gyre_buffer_destroy(other, buffer);
    gyre_device_close(other);
}

const struct CMUnitTest contract_memory_tests[] = {
    cmocka_unit_test(odd_sizes_and_offsets),
    cmocka_unit_test(larger_than_staging),
    cmocka_unit_test(overlapping_writes_in_order),
    cmocka_unit_test(many_small_buffers),
    cmocka_unit_test(buffer_refusals),
    cmocka_unit_test(buffer_of_another_device),
};
const size_t contract_memory_count = GYRE_COUNT(contract_memory_tests);
