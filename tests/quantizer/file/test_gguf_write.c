// The writer of GGUF fronts: byte by byte on a small file, and everything again through gyre's own reader.
#include "quantizer/file/gguf_write.h"
#include "tests/common/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void front_is_the_format(void **state)
{
    (void)state;
    static const unsigned char want[] = {
        // version, tensors, pairs
        'G', 'G', 'U', 'F', 3, 0, 0,  0, 2,   0,   0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0,   0,
        0,   1,   0,   0,   0, 0, 0,  0, 0,   'a', 4, 0, 0, 0, 7, 0, 0, 0,                    // a: u32 7
        1,   0,   0,   0,   0, 0, 0,  0, 'b', 8,   0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 'x', 'y', // b: "xy"
        1,   0,   0,   0,   0, 0, 0,  0, 't', 2,   0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 3,   0,
        0,   0,   0,   0,   0, 0, 24, 0, 0,   0,   0, 0, 0, 0, 0, 0, 0, 0, // t [3, 5] I8 at 0
        1,   0,   0,   0,   0, 0, 0,  0, 'u', 1,   0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0,   0,
        0,   0,   32,  0,   0, 0, 0,  0, 0,   0, // u [9] F32 at 32
    };
    struct gyre_gguf g = {0};
    unsigned char *front;
    uint64_t front_bytes, file_bytes;
    gyre_gguf_u32(&g, "a", 7);
    gyre_gguf_string(&g, "b", "xy");
    gyre_gguf_u32(&g, "a", 8); // is there already
    gyre_gguf_add_tensor(&g, "t", GYRE_DTYPE_I8, 2, (const uint64_t[]){3, 5});
    gyre_gguf_add_tensor(&g, "u", GYRE_DTYPE_F32, 1, (const uint64_t[]){9});
    assert_int_equal(gyre_gguf_finish(&g, &front, &front_bytes, &file_bytes, NULL), GYRE_OK);
    assert_int_equal(front_bytes % 32, 0);
    assert_in_range(front_bytes, sizeof want, sizeof want + 31);
    assert_memory_equal(front, want, sizeof want);
    for (uint64_t i = sizeof want; i < front_bytes; i++) assert_int_equal(front[i], 0);
    assert_int_equal(g.tensors[0].offset, front_bytes);
    assert_int_equal(g.tensors[1].offset, front_bytes + 32);
    assert_int_equal(file_bytes, front_bytes + 32 + 64);
    free(front);
    gyre_gguf_free(&g);
}

static void what_gguf_cannot_hold_is_refused(void **state)
{
    (void)state;
    char name[80];
    memset(name, 'n', sizeof name);
    name[70] = 0;
    for (int i = 0; i < 2; i++) {
        struct gyre_gguf g = {0};
        unsigned char *front;
        uint64_t a, b;
        gyre_error err = {0};
        if (i) gyre_gguf_add_tensor(&g, name, GYRE_DTYPE_F32, 1, (const uint64_t[]){4});     // a name of 70
        else gyre_gguf_add_tensor(&g, "odd", GYRE_DTYPE_Q8_0, 2, (const uint64_t[]){2, 33}); // no whole blocks
        assert_int_equal(gyre_gguf_finish(&g, &front, &a, &b, &err), GYRE_E_INVALID);
        assert_null(front);
        assert_non_null(strstr(err.message, i ? "nnn" : "odd"));
        gyre_gguf_free(&g);
    }
}

static void own_reader_reads_it_back(void **state)
{
    (void)state;
    struct gyre_gguf g = {0};
    unsigned char *front;
    uint64_t front_bytes, file_bytes, n, value;
    gyre_gguf_u32_array(&g, "numbers", (const uint32_t[]){1, 4000000000u}, 2);
    gyre_gguf_u64(&g, "big", 1ull << 60);
    gyre_gguf_bool(&g, "yes", true);
    gyre_gguf_f32(&g, "half", 0.5f);
    gyre_gguf_f32(&g, "half", 2); // it is there already
    for (int i = 0; i < 70; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        gyre_gguf_add_tensor(&g, name, i % 2 ? GYRE_DTYPE_Q4_0 : GYRE_DTYPE_F16, 2,
                             (const uint64_t[]){(uint64_t)i + 1, 32});
    }
    assert_int_equal(gyre_gguf_finish(&g, &front, &front_bytes, &file_bytes, NULL), GYRE_OK);
    const char *path = files_path("front.gguf");
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(front, 1, front_bytes, f), front_bytes);
    for (uint64_t i = front_bytes; i < file_bytes; i++) fputc((int)(i & 255), f);
    fclose(f);
    gyre_source *s;
    assert_int_equal(gyre_source_open(path, &s, NULL), GYRE_OK);
    assert_int_equal(gyre_source_tensor_count(s), 70);
    for (uint64_t i = 0; i < 70; i++) {
        const struct gyre_tensor *t = gyre_source_tensor_at(s, i);
        assert_string_equal(t->name, g.tensors[i].name);
        assert_int_equal(t->rows, i + 1);
        assert_int_equal(*(const unsigned char *)t->data, g.tensors[i].offset & 255);
    }
    int64_t *numbers;
    assert_true(gyre_source_array_i64(s, "numbers", &numbers, &n, NULL) == GYRE_OK && n == 2 &&
                numbers[1] == 4000000000ll);
    free(numbers);
    assert_true(gyre_source_u64(s, "big", &value, NULL, NULL) == GYRE_OK && value == 1ull << 60);
    bool yes = false;
    double half = 0;
    assert_true(gyre_source_bool(s, "yes", &yes, NULL, NULL) == GYRE_OK && yes);
    assert_true(gyre_source_f64(s, "half", &half, NULL, NULL) == GYRE_OK && half == 0.5);
    gyre_source_close(s);
    free(front);
    gyre_gguf_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(front_is_the_format),
        cmocka_unit_test(what_gguf_cannot_hold_is_refused),
        cmocka_unit_test(own_reader_reads_it_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
