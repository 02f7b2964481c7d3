// The bundled calibration text: that what is linked in is the file that its README describes, and that it is a text a
// model can be calibrated on: valid, long enough, without repetitions.
#include "quantizer/pass/bundled_text.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/utf8.h"
#include "runtime/util/sha256.h"
#include "tests/common/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define DATA GYRE_TEST_DATA "/../../quantizer/data/"

enum { CHUNK = 200, MIN_BYTES = 270000, MAX_BYTES = 300000, MAX_LINE = 4000, MIN_TOKENS = 128 * 512 };

static const char *const text = gyre_calibration_text;

static void size_is_in_range_and_ends_with_nul(void **state)
{
    (void)state;
    assert_in_range(gyre_calibration_text_bytes, MIN_BYTES, MAX_BYTES);
    assert_int_equal(strlen(text), gyre_calibration_text_bytes); // also: no NUL inside
    assert_int_equal(text[gyre_calibration_text_bytes - 1], '\n');
}

static void array_is_the_file(void **state)
{
    (void)state;
    uint64_t bytes = 0;
    char *file = files_read(DATA "calibration.txt", &bytes);
    assert_non_null(file);
    assert_int_equal(bytes, gyre_calibration_text_bytes);
    assert_memory_equal(file, text, bytes);
    free(file);
}

static void hash_is_the_readmes(void **state)
{
    (void)state;
    char hex[GYRE_SHA256_HEX];
    uint64_t bytes = 0;
    char *readme = files_read(DATA "README.md", &bytes);
    assert_non_null(readme);
    gyre_sha256_of(text, (size_t)gyre_calibration_text_bytes, hex);
    if (!strstr(readme, hex)) fail_msg("quantizer/data/README.md does not name the text's SHA-256, %s", hex);
    free(readme);
}

static void text_is_utf8_without_controls(void **state)
{
    (void)state;
    uint32_t code;
    for (uint64_t i = 0; i < gyre_calibration_text_bytes;) {
        const int n = gyre_utf8_look(text + i, gyre_calibration_text_bytes - i, &code);
        if (n <= 0) fail_msg("byte %llu is not UTF-8", (unsigned long long)i);
        if ((code < 32 && code != '\n' && code != '\t') || code == 0xFFFD || code == 0xFEFF)
            fail_msg("byte %llu is U+%04X", (unsigned long long)i, code);
        i += (uint64_t)n;
    }
}

static void lines_are_short(void **state)
{
    (void)state;
    for (const char *line = text, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        if (end - line > MAX_LINE) fail_msg("a line is too long: %.60s", line);
    }
}

static int by_chunk(const void *a, const void *b) { return memcmp(*(char *const *)a, *(char *const *)b, CHUNK); }

static void nothing_is_said_twice(void **state)
{
    (void)state;
    const uint64_t n = gyre_calibration_text_bytes - CHUNK + 1;
    const char **at = malloc(n * sizeof *at);
    assert_non_null(at);
    for (uint64_t i = 0; i < n; i++) at[i] = text + i;
    qsort(at, n, sizeof *at, by_chunk);
    for (uint64_t i = 1; i < n; i++)
        if (!by_chunk(&at[i - 1], &at[i])) fail_msg("occurs twice: %.*s", CHUNK, at[i]);
    free(at);
}

static void there_are_enough_tokens(void **state)
{
    (void)state;
    const char *model = getenv("GYRE_DEMO_MODEL");
    if (!model || !*model) skip();
    gyre_error err = {0};
    gyre_source *source;
    gyre_tokenizer *tokenizer;
    uint32_t *tokens;
    uint64_t n = 0;
    if (gyre_source_open(model, &source, &err) != GYRE_OK) fail_msg("%s", err.message);
    if (gyre_tokenizer_create(source, NULL, NULL, &tokenizer, &err) != GYRE_OK) fail_msg("%s", err.message);
    if (gyre_tokenizer_encode(tokenizer, text, gyre_calibration_text_bytes, 0, &tokens, &n, &err) != GYRE_OK)
        fail_msg("%s", err.message);
    print_message("%llu tokens\n", (unsigned long long)n);
    assert_true(n >= MIN_TOKENS);
    free(tokens);
    gyre_tokenizer_destroy(tokenizer);
    gyre_source_close(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(size_is_in_range_and_ends_with_nul),
        cmocka_unit_test(array_is_the_file),
        cmocka_unit_test(hash_is_the_readmes),
        cmocka_unit_test(text_is_utf8_without_controls),
        cmocka_unit_test(lines_are_short),
        cmocka_unit_test(nothing_is_said_twice),
        cmocka_unit_test(there_are_enough_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
