// A base model is read once: the hash of each file and of each tensor is what hashing them alone gives, whatever the
// container, every part of a model in several files counts, and values that are no numbers are named.
#include "quantizer/file/base.h"
#include "runtime/util/file.h"
#include "runtime/util/model_hash.h"
#include "tests/common/bytes.h"
#include "tests/common/comma.h"
#include "tests/common/files.h"
#include "tests/common/tiny.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { COLS = 32 };

// One of two parts, with a tensor of two rows from `first` on.
static void write_part(const char *path, unsigned no, float first)
{
    struct bytes b = {0};
    put_text(&b, "GGUF");
    put_u32(&b, 3);
    put_u64(&b, 1);
    put_u64(&b, 3);
    if (no == 0) put_meta_string(&b, "general.architecture", "llama");
    else put_meta_u32(&b, "split.tensors.count", 2);
    put_string(&b, "split.no");
    put_u32(&b, GYRE_META_U16);
    put(&b, &(uint16_t){(uint16_t)no}, 2);
    put_string(&b, "split.count");
    put_u32(&b, GYRE_META_U16);
    put(&b, &(uint16_t){2}, 2);
    put_tensor_info(&b, no ? "second" : "first", 2, (uint64_t[]){2, COLS}, 0, 0);
    put_align(&b, 32);
    for (unsigned i = 0; i < 2 * COLS; i++) put_f32(&b, first + (float)i);
    put_text(&b, "behind the last tensor");
    assert_int_equal(save_bytes(&b, path), 0);
    free(b.data);
}

static gyre_status read_base(const char *path, gyre_source **source, struct gyre_base *base, gyre_error *err)
{
    const gyre_status st = gyre_source_open(path, source, err);
    return st == GYRE_OK ? gyre_base_read(*source, base, err) : st;
}

static void drop(gyre_source *source, struct gyre_base *base)
{
    gyre_base_release(base);
    gyre_source_close(source);
}

// Against each file and tensor hashed alone.
static void expect_hashes(const char *path, bool several)
{
    gyre_source *source;
    struct gyre_base base;
    struct gyre_model_hash alone;
    gyre_error err = {0};
    if (read_base(path, &source, &base, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_int_equal(gyre_model_hash(path, &alone, &err), GYRE_OK);
    assert_int_equal(alone.several, several);
    const json_t *files = json_object_get(base.identity, "files");
    if (!several) {
        assert_string_equal(json_string_value(json_object_get(base.identity, "sha256")), alone.sha256);
        assert_string_equal(alone.sha256, alone.file[0].sha256);
    }
    assert_int_equal(json_object_size(files), several ? alone.n : 0);
    for (uint32_t i = 0; several && i < alone.n; i++) {
        char hex[GYRE_SHA256_HEX];
        assert_int_equal(gyre_model_hash_file(alone.file[i].path, hex, &err), GYRE_OK);
        assert_string_equal(json_string_value(json_object_get(files, alone.file[i].name)), hex);
    }
    assert_true(gyre_source_tensor_count(source) > 0);
    for (uint64_t i = 0; i < gyre_source_tensor_count(source); i++) {
        const struct gyre_tensor *t = gyre_source_tensor_at(source, i);
        char hex[GYRE_SHA256_HEX];
        gyre_sha256_of(t->data, t->bytes, hex);
        assert_string_equal(gyre_base_sha256(&base, t), hex);
    }
    gyre_model_hash_free(&alone);
    drop(source, &base);
}

static void files_and_folders(void **state)
{
    (void)state;
    const struct tiny_options options = tiny_defaults();
    assert_int_equal(tiny_write_gguf(files_path("one.gguf"), &options), 0);
    expect_hashes(files_path("one.gguf"), false);
    assert_int_equal(tiny_write_hf(files_path("hf"), &options), 0);
    expect_hashes(files_path("hf"), true);
}

static void every_part_counts(void **state)
{
    (void)state;
    const char *first = files_path("m-00001-of-00002.gguf"), *second = files_path("m-00002-of-00002.gguf");
    struct gyre_model_hash before, after;
    gyre_error err = {0};
    write_part(first, 0, 0);
    write_part(second, 1, 100);
    expect_hashes(first, true);
    assert_int_equal(gyre_model_hash(first, &before, &err), GYRE_OK);
    write_part(second, 1, 101);
    expect_hashes(first, true);
    assert_int_equal(gyre_model_hash(first, &after, &err), GYRE_OK);
    assert_string_not_equal(before.sha256, after.sha256);
    assert_string_equal(before.file[0].sha256, after.file[0].sha256);
    gyre_model_hash_free(&before);
    gyre_model_hash_free(&after);
}

static void weights_of_other_formats_count(void **state)
{
    (void)state;
    struct gyre_model_hash hash;
    gyre_error err = {0};
    assert_int_equal(gyre_make_dirs(files_path("meta"), &err), GYRE_OK);
    assert_int_equal(gyre_file_write(files_path("meta/params.json"), "{}", 2, &err), GYRE_OK);
    assert_int_equal(gyre_file_write(files_path("meta/consolidated.00.pth"), "weights", 7, &err), GYRE_OK);
    assert_int_equal(gyre_file_write(files_path("meta/notes.txt"), "no", 2, &err), GYRE_OK);
    assert_int_equal(gyre_model_hash(files_path("meta"), &hash, &err), GYRE_OK);
    assert_int_equal(hash.n, 2);
    assert_string_equal(hash.file[0].name, "consolidated.00.pth");
    gyre_model_hash_free(&hash);
}

// The hash is of files in an order, which is no locale's.
static void order_is_of_bytes(void **state)
{
    (void)state;
    static const char *const names[] = {"order/tokenizer_config.json", "order/tokenizer.json",
                                        "order/model.safetensors"};
    struct gyre_model_hash plain, there;
    gyre_error err = {0};
    assert_int_equal(gyre_make_dirs(files_path("order"), &err), GYRE_OK);
    for (size_t i = 0; i < 3; i++) assert_int_equal(gyre_file_write(files_path(names[i]), names[i], 9, &err), GYRE_OK);
    assert_int_equal(gyre_model_hash(files_path("order"), &plain, &err), GYRE_OK);
    assert_string_equal(plain.file[1].name, "tokenizer.json");
    const bool other = comma_set() && strcoll("tokenizer_config.json", "tokenizer.json") < 0;
    const gyre_status st = gyre_model_hash(files_path("order"), &there, &err);
    comma_reset();
    assert_int_equal(st, GYRE_OK);
    assert_string_equal(there.sha256, plain.sha256);
    gyre_model_hash_free(&plain);
    gyre_model_hash_free(&there);
    if (!other) skip();
}

static void no_numbers_are_named(void **state)
{
    (void)state;
    const char *first = files_path("n-00001-of-00002.gguf");
    gyre_source *source;
    struct gyre_base base;
    gyre_error err = {0};
    write_part(first, 0, 0);
    write_part(files_path("n-00002-of-00002.gguf"), 1, INFINITY);
    assert_int_equal(read_base(first, &source, &base, &err), GYRE_E_FORMAT);
    assert_non_null(strstr(err.message, "tensor second holds NaN or infinity"));
    drop(source, &base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(files_and_folders), cmocka_unit_test(every_part_counts),
                                       cmocka_unit_test(weights_of_other_formats_count),
                                       cmocka_unit_test(order_is_of_bytes), cmocka_unit_test(no_numbers_are_named)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
