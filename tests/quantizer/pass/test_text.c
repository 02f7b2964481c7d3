// Texts into calibration windows: where the windows lie, how texts share them, and what is refused.
#include "quantizer/pass/text.h"
#include "quantizer/pass/bundled_text.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/rng.h"
#include "tests/common/tiny.h"
#include "tests/common/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static gyre_source *model;
static gyre_tokenizer *tokenizer;

static const char *written(const char *name, const char *text, uint64_t bytes)
{
    const char *path = files_path(name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(text, 1, bytes, f) != bytes || fclose(f)) abort();
    return path;
}

// `n` random digits: as many tokens, and no ten of them occur twice.
static const char *digits(const char *name, uint64_t n, uint64_t seed, uint32_t **token)
{
    char *text = malloc(n + 1);
    struct gyre_rng rng = gyre_rng_seed(seed);
    uint64_t got;
    for (uint64_t i = 0; i < n; i++) text[i] = (char)('0' + gyre_rng_below(&rng, 10));
    const char *path = written(name, text, n);
    assert_int_equal(gyre_tokenizer_encode(tokenizer, text, n, 0, token, &got, NULL), GYRE_OK);
    assert_int_equal(got, n);
    free(text);
    return path;
}

static void read_into(const char *const *paths, uint32_t n, uint32_t windows, uint32_t tokens,
                      struct gyre_calib_text *out)
{
    gyre_error err = {0};
    if (gyre_calib_text_read(model, paths, n, NULL, windows, 0, tokens, out, &err) != GYRE_OK)
        fail_msg("%s", err.message);
    assert_int_equal(out->tokens, tokens);
    assert_int_equal(out->n_sources, n ? n : 1);
}

// Windows first.. of `out` are `windows` pieces of the text's n tokens: from its start to its end, evenly, without
// overlap.
static void spread(const struct gyre_calib_text *out, uint32_t first, uint32_t windows, const uint32_t *token,
                   uint64_t n)
{
    uint64_t last = 0, least = n, most = 0;
    for (uint32_t w = 0; w < windows; w++) {
        const uint32_t *at = out->token + (uint64_t)(first + w) * out->tokens;
        uint64_t start = 0;
        while (start + out->tokens <= n && memcmp(token + start, at, out->tokens * sizeof *at)) start++;
        assert_true(start + out->tokens <= n);
        if (w == 0) assert_int_equal(start, 0);
        else {
            assert_true(start >= last + out->tokens);
            least = start - last < least ? start - last : least;
            most = start - last > most ? start - last : most;
        }
        last = start;
    }
    if (windows > 1) {
        assert_int_equal(last + out->tokens, n);
        assert_true(most - least <= 1);
    }
}

static void windows_are_spread_evenly(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, windows, tokens, want;
    } run[] = {{1000, 7, 40, 7}, {1001, 1, 40, 1}, {333, 8, 40, 8}, {320, 8, 40, 8},
               {319, 8, 40, 7},  {40, 8, 40, 1},   {79, 3, 40, 1}};
    for (size_t i = 0; i < sizeof run / sizeof *run; i++) {
        struct gyre_calib_text out;
        uint32_t *token;
        const char *path = digits("digits.txt", run[i].n, i, &token);
        read_into(&path, 1, run[i].windows, run[i].tokens, &out);
        assert_int_equal(out.windows, run[i].want); // fewer where the text is short
        spread(&out, 0, out.windows, token, run[i].n);
        gyre_calib_text_free(&out);
        assert_null(out.token);
        free(token);
    }
}

static void texts_share_the_windows(void **state)
{
    (void)state;
    static const uint32_t length[] = {900, 55, 701}, want[] = {3, 2, 4}; // shares of 10: 3, 3, 4; the second has two
    uint32_t *token[3], first = 0;
    struct gyre_calib_text out;
    const char *paths[3];
    char name[3][16], hex[GYRE_SHA256_HEX];
    for (int i = 0; i < 3; i++) {
        snprintf(name[i], sizeof name[i], "text-%d.txt", i);
        paths[i] = digits(name[i], length[i], 70 + (uint64_t)i, &token[i]);
    }
    read_into(paths, 3, 10, 25, &out);
    assert_int_equal(out.windows, 9);
    for (int i = 0; i < 3; i++) {
        uint64_t bytes;
        char *text = files_read(paths[i], &bytes);
        gyre_sha256_of(text, bytes, hex);
        spread(&out, first, want[i], token[i], length[i]);
        first += want[i];
        assert_string_equal(out.source[i].name, name[i]); // without its folders
        assert_int_equal(out.source[i].bytes, length[i]);
        assert_string_equal(out.source[i].sha256, hex);
        free(text);
        free(token[i]);
    }
    gyre_calib_text_free(&out);
}

// More windows are of what the first ones leave, spread over that in the same way; the first ones stay what they are.
static void more_windows_are_of_what_is_left(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, windows, more, want, more_want;
    } run[] = {{1000, 7, 5, 7, 5}, {1000, 7, 100, 7, 18}, {401, 5, 5, 5, 5}, {1000, 1, 3, 1, 3},
               {319, 8, 4, 7, 0},  {400, 9, 9, 9, 1},     {80, 1, 1, 1, 1}};
    for (size_t i = 0; i < sizeof run / sizeof *run; i++) {
        struct gyre_calib_text few, all;
        uint32_t *token, n = run[i].n;
        const char *path = digits("digits.txt", n, 20 + i, &token);
        gyre_error err = {0};
        read_into(&path, 1, run[i].windows, 40, &few);
        assert_int_equal(few.more, 0);
        if (gyre_calib_text_read(model, &path, 1, NULL, run[i].windows, run[i].more, 40, &all, &err) != GYRE_OK)
            fail_msg("%s", err.message);
        assert_int_equal(all.windows, run[i].want);
        assert_int_equal(all.more, run[i].more_want);
        assert_memory_equal(few.token, all.token, (size_t)few.windows * 40 * sizeof *few.token);
        for (uint32_t w = 0; w < all.windows; w++) { // the text without them
            uint32_t at = 0;
            while (memcmp(token + at, all.token + (size_t)w * 40, 40 * sizeof *token)) at++;
            n -= 40;
            assert_true(at <= n);
            memmove(token + at, token + at + 40, (n - at) * sizeof *token);
        }
        spread(&all, all.windows, all.more, token, n);
        json_t *told = gyre_calib_text_identity(&all), *as_before = gyre_calib_text_identity(&few);
        assert_int_equal(json_integer_value(json_object_get(told, "more_windows")), all.more);
        assert_true(json_equal(told, as_before) == (all.more == 0));
        json_decref(told);
        json_decref(as_before);
        gyre_calib_text_free(&few);
        gyre_calib_text_free(&all);
        free(token);
    }
}

// Of several texts each gives its share, whatever the others lack.
static void texts_share_more_windows(void **state)
{
    (void)state;
    uint32_t *token[2];
    const char *const paths[] = {digits("short.txt", 130, 5, &token[0]), digits("long.txt", 2000, 6, &token[1])};
    struct gyre_calib_text few, all;
    gyre_error err = {0};
    read_into(paths, 2, 8, 40, &few);
    if (gyre_calib_text_read(model, paths, 2, NULL, 8, 8, 40, &all, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_true(all.windows == 3 + 4 && all.more == 4 && few.windows == all.windows);
    assert_memory_equal(few.token, all.token, (size_t)few.windows * 40 * sizeof *few.token);
    const uint32_t *second = all.token + (size_t)all.windows * 40; // its start was the first window's
    assert_memory_equal(second, token[1] + 40, 40 * sizeof *second);
    gyre_calib_text_free(&few);
    gyre_calib_text_free(&all);
    free(token[0]);
    free(token[1]);
}

static void the_bundled_text_is_used(void **state)
{
    (void)state;
    struct gyre_calib_text out;
    uint32_t *token;
    uint64_t n;
    char hex[GYRE_SHA256_HEX];
    assert_int_equal(
        gyre_tokenizer_encode(tokenizer, gyre_calibration_text, gyre_calibration_text_bytes, 0, &token, &n, NULL),
        GYRE_OK);
    gyre_sha256_of(gyre_calibration_text, gyre_calibration_text_bytes, hex);
    read_into(NULL, 0, 5, 128, &out);
    assert_int_equal(out.windows, 5);
    spread(&out, 0, 5, token, n);
    assert_string_equal(out.source[0].name, "");
    assert_int_equal(out.source[0].bytes, gyre_calibration_text_bytes);
    assert_string_equal(out.source[0].sha256, hex);
    gyre_calib_text_free(&out);
    free(token);
}

static void refused(const char *path, gyre_status status, const char *why)
{
    struct gyre_calib_text out;
    gyre_error err = {0};
    uint32_t *token;
    // The second of two: what the first one took is given back.
    const char *const both[] = {digits("good.txt", 400, 1, &token), path};
    free(token);
    for (uint32_t n = 1; n < 3; n++) {
        err = (gyre_error){0};
        assert_int_equal(gyre_calib_text_read(model, n == 1 ? &path : both, n, NULL, 8, 0, 40, &out, &err), status);
        if (!strstr(err.message, why) || !strstr(err.message, strrchr(path, '/') + 1)) fail_msg("%s", err.message);
        assert_null(strchr(err.message, '\n'));
        assert_true(!out.token && !out.source && !out.windows);
    }
}

static void bad_texts_are_refused(void **state)
{
    (void)state;
    uint32_t *token;
    refused(written("empty.txt", "", 0), GYRE_E_FORMAT, "the text is empty");
    refused(written("latin1.txt",
                    "Stra\xDF"
                    "e 1, 2, 3",
                    14),
            GYRE_E_FORMAT, "not UTF-8 at byte 4");
    refused(written("cut.txt", "12345\xE2\x82", 7), GYRE_E_FORMAT, "not UTF-8 at byte 5");
    refused(written("surrogate.txt", "1\xED\xA0\x80", 4), GYRE_E_FORMAT, "not UTF-8 at byte 1");
    refused(digits("short.txt", 39, 2, &token), GYRE_E_FORMAT, "39 tokens and one window is 40");
    free(token);
    refused(files_path("missing.txt"), GYRE_E_IO, "missing.txt");
}

// A tokenizer that knows more tokens than the model has rows is not asked for them.
static void a_tokenizer_of_another_model_is_refused(void **state)
{
    (void)state;
    struct tiny_options small = tiny_defaults(), large = tiny_defaults();
    struct gyre_calib_text out;
    gyre_source *mixed;
    gyre_error err = {0};
    uint64_t n;
    small.vocab = 260;
    assert_int_equal(tiny_write_hf(files_path("small"), &small), 0);
    assert_int_equal(tiny_write_hf(files_path("large"), &large), 0);
    char *json = files_read(files_path("large/tokenizer.json"), &n);
    assert_non_null(json);
    written("small/tokenizer.json", json, n);
    free(json);
    assert_int_equal(gyre_source_open(files_path("small"), &mixed, &err), GYRE_OK);
    assert_int_equal(gyre_calib_text_read(mixed, NULL, 0, NULL, 5, 0, 128, &out, &err), GYRE_E_FORMAT);
    if (!strstr(err.message, "the model's table has 260 rows")) fail_msg("%s", err.message);
    gyre_source_close(mixed);
}

static int prepare(void **state)
{
    (void)state;
    struct tiny_options options = tiny_defaults();
    const char *path = files_path("model.gguf");
    return tiny_write_gguf(path, &options) || gyre_source_open(path, &model, NULL) != GYRE_OK ||
           gyre_tokenizer_create(model, NULL, NULL, &tokenizer, NULL) != GYRE_OK;
}

static int cleanup(void **state)
{
    (void)state;
    gyre_tokenizer_destroy(tokenizer);
    gyre_source_close(model);
    files_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_are_spread_evenly),
        cmocka_unit_test(texts_share_the_windows),
        cmocka_unit_test(more_windows_are_of_what_is_left),
        cmocka_unit_test(texts_share_more_windows),
        cmocka_unit_test(the_bundled_text_is_used),
        cmocka_unit_test(bad_texts_are_refused),
        cmocka_unit_test(a_tokenizer_of_another_model_is_refused),
    };
    return cmocka_run_group_tests(tests, prepare, cleanup);
}
