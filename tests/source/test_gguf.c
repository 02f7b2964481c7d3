// GGUF files that lie: every truncation, impossible counts, types, names and offsets (of values and models:
// test_gguf_model.c). Each ends in the right status and one line that says what; none in a crash (run under the
// sanitizers too).
#include "tests/common/tiny.h"
#include "tests/source/lying.h"

#include "runtime/util/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const path = "lying.gguf";

static struct tiny_options smallest(void)
{
    struct tiny_options o = tiny_defaults();
    o.layers = 1, o.width = 8, o.heads = o.kv_heads = 1, o.head_dim = 8, o.ffn = 8, o.vocab = 259;
    return o;
}

static void every_truncation(void **state)
{
    (void)state;
    struct tiny_options o = smallest();
    struct bytes b;
    gyre_error err = {0};
    assert_int_equal(tiny_write_gguf(path, &o), 0);
    assert_int_equal(lying_open(path, &err), GYRE_OK);
    lying_load(path, &b);
    for (uint64_t n = b.size; n-- > 0;) {
        err = (gyre_error){0};
        assert_int_equal(truncate(path, (off_t)n), 0);
        lying_expect("truncated", lying_open(path, &err), &err, GYRE_E_FORMAT, path);
    }
    free(b.data);
}

static void missing_files(void **state)
{
    (void)state;
    gyre_source *source;
    gyre_error err = {0};
    assert_int_equal(gyre_source_open("no such file.gguf", &source, &err), GYRE_E_IO);
    assert_null(source);
    assert_int_equal(gyre_source_open("/dev/null", &source, &err), GYRE_E_IO);
    assert_int_equal(gyre_source_open(".", &source, &err), GYRE_E_IO);
    assert_non_null(strstr(err.message, "config.json"));
}

// ---- the container --------------------------------------------------------------------------------------

static void key(struct bytes *b, const char *name, uint32_t type)
{
    put_string(b, name);
    put_u32(b, type);
}

// Writes what is in the buffer, expects that it is refused, and empties the buffer.
static void refused(struct bytes *b, const char *what, gyre_status status, const char *says)
{
    gyre_error err = {0};
    assert_int_equal(save_bytes(b, path), 0);
    lying_expect(what, lying_open(path, &err), &err, status, says);
    b->size = 0;
}

static void lying_headers(void **state)
{
    (void)state;
    struct bytes b = {0};
    put_text(&b, "GGML");
    put_zeros(&b, 40);
    refused(&b, "another magic", GYRE_E_FORMAT, "GGUF");
    lying_begin(&b, 0, 0);
    b.data[4] = 1;
    refused(&b, "version 1", GYRE_E_UNSUPPORTED, "version 1");
    lying_begin(&b, 0, 0);
    b.data[4] = 0;
    b.data[7] = 3;
    refused(&b, "big-endian", GYRE_E_UNSUPPORTED, "big-endian");
    lying_begin(&b, 1ull << 62, 0);
    put_zeros(&b, 99);
    refused(&b, "2^62 tensors", GYRE_E_FORMAT, "cannot fit");
    lying_begin(&b, 0, 1ull << 63);
    put_zeros(&b, 99);
    refused(&b, "2^63 entries", GYRE_E_FORMAT, "cannot fit");
    lying_begin(&b, 0, 2);
    put_meta_string(&b, "general.name", "a name");
    refused(&b, "one entry too many", GYRE_E_FORMAT, "past the end");
    lying_begin(&b, 0, 1);
    put_meta_string(&b, "general.architecture", "mamba");
    refused(&b, "an unknown architecture", GYRE_E_UNSUPPORTED, "mamba");
    lying_begin(&b, 0, 0);
    refused(&b, "no architecture", GYRE_E_FORMAT, "general.architecture");
    lying_begin(&b, 0, 1);
    put_meta_u32(&b, "general.architecture", 3);
    refused(&b, "architecture as a number", GYRE_E_FORMAT, "general.architecture");
    free(b.data);
}

static void lying_metadata(void **state)
{
    (void)state;
    struct bytes b = {0};
    lying_begin(&b, 0, 1);
    put_u64(&b, UINT64_MAX);
    put_zeros(&b, 40);
    refused(&b, "endless key", GYRE_E_FORMAT, "past the end");
    lying_begin(&b, 0, 1);
    put_meta_u32(&b, "", 1);
    refused(&b, "empty key", GYRE_E_FORMAT, "impossible metadata name");
    lying_begin(&b, 0, 1);
    put_meta_u32(&b, "a\nb", 1);
    refused(&b, "key of two lines", GYRE_E_FORMAT, "a?b");
    lying_begin(&b, 0, 1);
    put_meta_u32(&b, "a\xC3(", 1);
    refused(&b, "key that is no UTF-8", GYRE_E_FORMAT, "a?(");
    lying_begin(&b, 0, 1);
    put_meta_string(&b, "general.architecture", "x\xFF\xE2\x82y\n\xC3\xA9");
    refused(&b, "text that is no UTF-8", GYRE_E_UNSUPPORTED, "x???y?\xC3\xA9\"");
    char *long_key = calloc(1, 70001);
    assert_non_null(long_key);
    memset(long_key, 'k', 70000);
    lying_begin(&b, 0, 1);
    put_meta_u32(&b, long_key, 1);
    free(long_key);
    refused(&b, "key of 70000 bytes", GYRE_E_FORMAT, "impossible metadata name");
    lying_begin(&b, 0, 2);
    put_meta_u32(&b, "a.b", 1);
    put_meta_u32(&b, "a.b", 1);
    refused(&b, "a key twice", GYRE_E_FORMAT, "\"a.b\"");
    lying_begin(&b, 0, 1);
    key(&b, "k", 13);
    put_zeros(&b, 20);
    refused(&b, "unknown value type", GYRE_E_FORMAT, "type 13");
    lying_begin(&b, 0, 1);
    key(&b, "k", 8);
    put_u64(&b, 1ull << 40);
    put_zeros(&b, 9);
    refused(&b, "endless text", GYRE_E_FORMAT, "past the end");
    lying_begin(&b, 0, 1);
    put_meta_array(&b, "k", GYRE_META_ARRAY, 1);
    put_zeros(&b, 20);
    refused(&b, "array of arrays", GYRE_E_UNSUPPORTED, "array");
    lying_begin(&b, 0, 1);
    put_meta_array(&b, "k", (gyre_meta_type)99, 1);
    put_zeros(&b, 20);
    refused(&b, "array of nothing known", GYRE_E_FORMAT, "array");
    lying_begin(&b, 0, 1);
    put_meta_array(&b, "k", GYRE_META_U64, 1ull << 61);
    put_zeros(&b, 99);
    refused(&b, "2^61 numbers", GYRE_E_FORMAT, "past the end");
    lying_begin(&b, 0, 1);
    put_meta_array(&b, "k", GYRE_META_STRING, 1ull << 61);
    put_zeros(&b, 99);
    refused(&b, "2^61 texts", GYRE_E_FORMAT, "past the end");
    lying_begin(&b, 0, 1);
    put_meta_array(&b, "k", GYRE_META_STRING, 2);
    put_string(&b, "x");
    put_u64(&b, UINT64_MAX - 3);
    refused(&b, "endless text in an array", GYRE_E_FORMAT, "past the end");
    lying_begin(&b, 0, 1);
    put_meta_u32(&b, "general.alignment", 0);
    refused(&b, "alignment 0", GYRE_E_FORMAT, "alignment");
    lying_begin(&b, 0, 1);
    put_meta_u32(&b, "general.alignment", 24);
    refused(&b, "alignment 24", GYRE_E_FORMAT, "alignment");
    lying_begin(&b, 0, 1);
    put_meta_string(&b, "general.alignment", "32");
    refused(&b, "alignment as text", GYRE_E_FORMAT, "alignment");
    free(b.data);
}

static void lying_tensor_infos(void **state)
{
    (void)state;
    struct bytes b = {0};
    lying_begin(&b, 1, 0);
    put_tensor_info(&b, "t", 0, NULL, 0, 0);
    put_zeros(&b, 99);
    refused(&b, "no dimension", GYRE_E_FORMAT, "\"t\" has 0 dim");
    lying_begin(&b, 1, 0);
    put_tensor_info(&b, "t", 5, (uint64_t[]){1, 1, 1, 1, 1}, 0, 0);
    put_zeros(&b, 99);
    refused(&b, "five dimensions", GYRE_E_FORMAT, "\"t\" has 5 dim");
    lying_begin(&b, 1, 0);
    lying_tensor(&b, "t", 0, 8, 0, 0);
    put_zeros(&b, 99);
    refused(&b, "no rows", GYRE_E_FORMAT, "shape");
    lying_begin(&b, 1, 0);
    lying_tensor(&b, "t", 1ull << 32, 1ull << 32, 0, 0);
    put_zeros(&b, 99);
    refused(&b, "2^64 elements", GYRE_E_FORMAT, "shape");
    lying_begin(&b, 1, 0);
    lying_tensor(&b, "t", 1ull << 31, 1ull << 31, 0, 0);
    put_zeros(&b, 99);
    refused(&b, "2^62 elements", GYRE_E_FORMAT, NULL);
    lying_begin(&b, 1, 0);
    lying_tensor(&b, "t", 1, 32, 16, 0);
    put_zeros(&b, 99);
    refused(&b, "a type gyre does not read", GYRE_E_UNSUPPORTED, "\"t\" has type IQ2_XXS (16)");
    lying_begin(&b, 1, 0);
    lying_tensor(&b, "t", 1, 32, 999, 0);
    put_zeros(&b, 99);
    refused(&b, "a type nobody knows", GYRE_E_UNSUPPORTED, "type unknown (999)");
    lying_begin(&b, 1, 0);
    lying_tensor(&b, "t", 1, 48, 8, 0);
    put_zeros(&b, 199);
    refused(&b, "half a block", GYRE_E_FORMAT, "Q8_0 blocks of 32");
    lying_begin(&b, 2, 0);
    lying_tensor(&b, "t", 1, 8, 0, 0);
    lying_tensor(&b, "t", 1, 8, 0, 32);
    put_zeros(&b, 199);
    refused(&b, "a name twice", GYRE_E_FORMAT, "\"t\"");
    lying_begin(&b, 2, 0);
    lying_tensor(&b, "t", 1, 8, 0, 0);
    lying_tensor(&b, "u", 1, 8, 0, 64);
    put_zeros(&b, 199);
    refused(&b, "a gap", GYRE_E_FORMAT, "offset 64 where 32");
    lying_begin(&b, 2, 0);
    lying_tensor(&b, "t", 1, 8, 0, 0);
    lying_tensor(&b, "u", 1, 8, 0, 0);
    put_zeros(&b, 199);
    refused(&b, "an overlap", GYRE_E_FORMAT, "offset 0 where 32");
    lying_begin(&b, 1, 0);
    lying_tensor(&b, "t", 3, 8, 0, 0);
    put_align(&b, 32);
    put_zeros(&b, 95);
    refused(&b, "data of another length", GYRE_E_FORMAT, "cut short");
    free(b.data);
}

static int clean(void **state)
{
    (void)state;
    return remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_truncation), cmocka_unit_test(missing_files),      cmocka_unit_test(lying_headers),
        cmocka_unit_test(lying_metadata),   cmocka_unit_test(lying_tensor_infos),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
