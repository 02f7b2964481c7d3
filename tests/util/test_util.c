// The small helpers: status and log, checked sizes, hashes, the generator, the arena.
#include "runtime/util/arena.h"
#include "runtime/util/array.h"
#include "runtime/util/base.h"
#include "runtime/util/clock.h"
#include "runtime/util/json_wide.h"
#include "runtime/util/log.h"
#include "runtime/util/rng.h"
#include "runtime/util/sha256.h"
#include "runtime/util/status.h"
#include "runtime/util/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

// ---- status and log -------------------------------------------------------------------------------------

static void failures_carry_a_line(void **state)
{
    (void)state;
    gyre_error err = {0};
    char longer[600];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    assert_int_equal(gyre_fail(&err, GYRE_E_FORMAT, "cannot read (%s): %d", "a file", 7), GYRE_E_FORMAT);
    assert_string_equal(err.message, "cannot read (a file): 7");
    assert_int_equal(gyre_fail(&err, GYRE_E_IO, "%s", longer), GYRE_E_IO);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_int_equal(gyre_fail(&err, GYRE_E_IO, "cannot read (%s): it is empty; fill it", longer), GYRE_E_IO);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_int_equal(strncmp(err.message, "cannot read (xxx", 16), 0); // the middle goes, not the reason
    assert_non_null(strstr(err.message, "xxx...xxx"));
    assert_non_null(strstr(err.message, "xxx): it is empty; fill it"));
    char *path = malloc(20000);
    assert_non_null(path);
    memset(path, 'x', 19999);
    path[19999] = 0;
    assert_int_equal(gyre_fail(&err, GYRE_E_IO, "cannot read (%s): it is empty; fill it", path), GYRE_E_IO);
    assert_non_null(strstr(err.message, "xxx...xxx"));
    assert_non_null(strstr(err.message, "xxx): it is empty; fill it")); // however long
    free(path);
    for (size_t i = 0; i + 3 < sizeof longer; i += 3) memcpy(longer + i, "\xE2\x82\xAC", 3); // three bytes each
    for (size_t shift = 0; shift < 3; shift++) {
        assert_int_equal(gyre_fail(&err, GYRE_E_IO, "%s", longer + 3 * shift + shift), GYRE_E_IO);
        const size_t dots = (size_t)(strstr(err.message, "...") - err.message);
        assert_int_equal((dots + shift) % 3, 0);
        assert_int_equal((unsigned char)err.message[dots + 3], 0xE2);
    }
    assert_int_equal(gyre_fail(NULL, GYRE_E_NOMEM, "nobody listens"), GYRE_E_NOMEM);
    for (int i = 0; i < GYRE_STATUS_COUNT; i++) assert_true(strlen(gyre_status_text((gyre_status)i)) > 1);
    assert_string_equal(gyre_status_text((gyre_status)-1), "unknown status");
    assert_string_equal(gyre_status_text(GYRE_STATUS_COUNT), "unknown status");
}

static void collect(void *user, gyre_log_level level, const char *line)
{
    char *all = user;
    snprintf(all + strlen(all), 100 - strlen(all), "%d %s;", (int)level, line);
}

static void log_drops_what_nobody_wants(void **state)
{
    (void)state;
    char all[100] = "";
    const gyre_log log = {collect, all, GYRE_LOG_WARN}, silent = {NULL, NULL, GYRE_LOG_TRACE};
    gyre_logf(&log, GYRE_LOG_ERROR, "a: %d", 1);
    gyre_logf(&log, GYRE_LOG_INFO, "b");
    gyre_logf(&log, GYRE_LOG_WARN, "c");
    gyre_logf(NULL, GYRE_LOG_ERROR, "d");
    gyre_logf(&silent, GYRE_LOG_ERROR, "e");
    assert_string_equal(all, "0 a: 1;1 c;");
}

static void no_bytes_are_not_empty_ones(void **state)
{
    (void)state;
    assert_true(gyre_same_bytes("ab", 2, "abc", 2) && gyre_same_bytes("", 0, "", 0) &&
                gyre_same_bytes(NULL, 0, NULL, 0));
    assert_false(gyre_same_bytes("ab", 2, "ab", 1) || gyre_same_bytes("ab", 2, "ac", 2));
    assert_false(gyre_same_bytes(NULL, 0, "", 0) || gyre_same_bytes("", 0, NULL, 0));
}

static void arrays_grow(void **state)
{
    (void)state;
    uint64_t *array = NULL;
    size_t cap = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        assert_true(GYRE_ROOM(array, i + 1, cap));
        assert_true(cap > i);
        array[i] = i;
    }
    for (uint64_t i = 0; i < 1000; i++) assert_int_equal(array[i], i);
    const size_t had = cap;
    uint64_t *const was = array;
    assert_false(GYRE_ROOM(array, SIZE_MAX / 8, cap)); // too many bytes: everything stays
    assert_false(GYRE_ROOM(array, SIZE_MAX, cap));
    assert_ptr_equal(array, was);
    assert_int_equal(cap, had);
    free(array);
}

static void sizes_do_not_overflow(void **state)
{
    (void)state;
    uint64_t v;
    assert_int_equal(gyre_round_up(0, 256), 0);
    assert_int_equal(gyre_round_up(1, 256), 256);
    assert_int_equal(gyre_round_up(256, 256), 256);
    assert_int_equal(gyre_round_up(34, 18), 36);
    assert_int_equal(gyre_div_up(65, 64), 2);
    assert_true(gyre_mul_u64(1u << 31, 1u << 31, &v) && v == 1ull << 62);
    assert_false(gyre_mul_u64(1ull << 32, 1ull << 32, &v));
    assert_true(gyre_add_u64(UINT64_MAX, 0, &v) && v == UINT64_MAX);
    assert_false(gyre_add_u64(UINT64_MAX, 1, &v));
}

// ---- hashes and numbers -----------------------------------------------------------------------------------

static void sha256_vectors(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hex;
    } vectors[] = {
        // FIPS 180-4 examples; the first is of no bytes
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    char hex[GYRE_SHA256_HEX], block[1000];
    for (size_t i = 0; i < GYRE_COUNT(vectors); i++) {
        gyre_sha256_of(vectors[i].text, strlen(vectors[i].text), hex);
        assert_string_equal(hex, vectors[i].hex);
    }
    gyre_sha256_of(NULL, 0, hex);
    assert_string_equal(hex, vectors[0].hex);

    struct gyre_sha256 sha; // a million "a", in pieces of changing size
    memset(block, 'a', sizeof block);
    gyre_sha256_init(&sha);
    for (size_t left = 1000000, n = 1; left; left -= n, n = n % 997 + 1) {
        n = GYRE_MIN(n, left);
        gyre_sha256_add(&sha, block, n);
    }
    gyre_sha256_end(&sha, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    gyre_sha256_add(&sha, "abc", 3);
    gyre_sha256_end(&sha, hex);
    assert_string_equal(hex, vectors[1].hex);
}

// Integers beyond int64 become strings, and nothing else does.
static void integers_are_widened(void **state)
{
    (void)state;
    static const char *const same[] = {"",
                                       "5",
                                       "[9223372036854775807, -9223372036854775808]",
                                       "\"12345678901234567890\"",
                                       "1.5e400",
                                       "12345678901234567890.5",
                                       "12345678901234567890e1",
                                       "{\"a\\\"12345678901234567890\": 1}",
                                       "01234567890123456789012",
                                       "{12345678901234567890 : 1}",
                                       "-",
                                       "[\"\\\\\", \"12345678901234567890\"",
                                       "\"\\"};
    static const struct {
        const char *is, *made;
    } wide[] = {{"9223372036854775808", "\"\\u0000gyre integer 9223372036854775808\""},
                {"{\"a\\\\\":[-9223372036854775809,1], \"b\":123456789012345678901234567890}",
                 "{\"a\\\\\":[\"\\u0000gyre integer -9223372036854775809\",1], \"b\":\"\\u0000gyre integer "
                 "123456789012345678901234567890\"}"}};
    char *made;
    size_t n;
    for (size_t i = 0; i < GYRE_COUNT(same); i++) {
        assert_true(gyre_json_widen(same[i], strlen(same[i]), &made, &n));
        if (made) fail_msg("%s became %s", same[i], made);
    }
    for (size_t i = 0; i < GYRE_COUNT(wide); i++) {
        assert_true(gyre_json_widen(wide[i].is, strlen(wide[i].is), &made, &n));
        assert_string_equal(made, wide[i].made);
        assert_int_equal(n, strlen(made));
        free(made);
    }
    assert_string_equal(gyre_json_wide("\0gyre integer -9223372036854775809", 34), "-9223372036854775809");
    assert_null(gyre_json_wide("\0gyre integer 9223372036854775807", 33));
    assert_null(gyre_json_wide("\0gyre integer ", 14));
    assert_null(gyre_json_wide("a", 1));
    assert_null(gyre_json_wide("", 0));
}

static void rng_is_splitmix64(void **state)
{
    (void)state;
    // The published generator's first numbers for seed 1234567.
    static const uint64_t expected[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                        4593380528125082431u, 16408922859458223821u};
    struct gyre_rng rng = gyre_rng_seed(1234567);
    for (size_t i = 0; i < GYRE_COUNT(expected); i++) assert_true(gyre_rng_next(&rng) == expected[i]);
}

static void rng_ranges(void **state)
{
    (void)state;
    struct gyre_rng rng = gyre_rng_seed(0);
    int seen[7] = {0};
    double sum = 0;
    for (int i = 0; i < 70000; i++) {
        const uint64_t v = gyre_rng_below(&rng, 7);
        const double u = gyre_rng_unit(&rng);
        assert_true(v < 7 && u >= 0 && u < 1);
        seen[v]++;
        sum += u;
        assert_true(gyre_rng_below(&rng, 1) == 0);
        assert_true(gyre_rng_below(&rng, UINT64_MAX) < UINT64_MAX);
    }
    for (int i = 0; i < 7; i++) assert_true(seen[i] > 9600 && seen[i] < 10400);
    assert_true(sum > 34500 && sum < 35500);
}

static void clock_moves_forward(void **state)
{
    (void)state;
    const uint64_t start = gyre_clock_ns();
    uint64_t now = start;
    for (int i = 0; i < 1000000 && now == start; i++) {
        const uint64_t next = gyre_clock_ns();
        assert_true(next >= now);
        now = next;
    }
    assert_true(now > start);
}

// ---- arena ------------------------------------------------------------------------------------------------

static void arena_gives_zeroed_aligned_memory(void **state)
{
    (void)state;
    struct gyre_arena arena = {0};
    unsigned char *last = NULL;
    for (size_t i = 0; i < 3000; i++) {
        const size_t size = i * 7 % 1013;
        unsigned char *p = gyre_arena_alloc(&arena, size);
        assert_non_null(p);
        assert_true((uintptr_t)p % 16 == 0);
        for (size_t j = 0; j < size; j++) assert_int_equal(p[j], 0);
        memset(p, 0xAB, size);
        if (last) assert_true(last[0] == 0xAB); // what came before is untouched
        if (size) last = p;
    }
    unsigned char *big = gyre_arena_alloc(&arena, 5 << 20);
    assert_non_null(big);
    memset(big, 1, 5 << 20);
    assert_string_equal(gyre_arena_strdup(&arena, "text"), "text");
    assert_string_equal(gyre_arena_strdup(&arena, ""), "");
    gyre_arena_free(&arena);
    gyre_arena_free(&arena); // empty now, and usable again
    assert_non_null(gyre_arena_alloc(&arena, 1));
    gyre_arena_free(&arena);
}

static void arena_survives_refusals(void **state)
{
    (void)state;
    struct gyre_arena arena = {0};
    char *keep = gyre_arena_strdup(&arena, "keep");
    assert_null(gyre_arena_alloc(&arena, SIZE_MAX));
    assert_null(gyre_arena_alloc(&arena, SIZE_MAX - 40));
    assert_null(gyre_arena_alloc(&arena, SIZE_MAX / 2)); // more than malloc can give
    assert_null(gyre_arena_array(&arena, SIZE_MAX / 8, 16));
    assert_null(gyre_arena_array(&arena, 1ull << 33, 1ull << 33));
    int *numbers = gyre_arena_array(&arena, 5, sizeof *numbers);
    assert_true(numbers && numbers[4] == 0);
    assert_string_equal(keep, "keep");
    gyre_arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failures_carry_a_line),       cmocka_unit_test(log_drops_what_nobody_wants),
        cmocka_unit_test(no_bytes_are_not_empty_ones), cmocka_unit_test(arrays_grow),
        cmocka_unit_test(sizes_do_not_overflow),       cmocka_unit_test(sha256_vectors),
        cmocka_unit_test(rng_is_splitmix64),           cmocka_unit_test(rng_ranges),
        cmocka_unit_test(clock_moves_forward),         cmocka_unit_test(arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(arena_survives_refusals),     cmocka_unit_test(integers_are_widened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
