// Typed access to metadata: absent, unreadable and a value are three answers, whatever width a writer chose.
#include "tests/common/bytes.h"

#include "runtime/source/source.h"
#include "runtime/util/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const path = "source.gguf";

static void put_scalar(struct bytes *b, gyre_meta_type type, double v)
{
    put_string(b, "k");
    put_u32(b, type);
    put_number(b, type, v);
}

static void put_list(struct bytes *b, gyre_meta_type type, uint64_t n, const double *v)
{
    put_meta_array(b, "k", type, n);
    for (uint64_t i = 0; i < n; i++) put_number(b, type, v[i]);
}

// A file whose only entry is what `b` holds.
static gyre_source *open_entry(struct bytes *entry)
{
    struct bytes b = {0};
    gyre_source *source;
    gyre_error err = {0};
    put_text(&b, "GGUF");
    put_u32(&b, 3);
    put_u64(&b, 0);
    put_u64(&b, 1);
    put(&b, entry->data, entry->size);
    assert_int_equal(save_bytes(&b, path), 0);
    if (gyre_source_open(path, &source, &err) != GYRE_OK) fail_msg("%s", err.message);
    free(b.data);
    free(entry->data);
    *entry = (struct bytes){0};
    return source;
}

static void names_the_key(const gyre_error *err)
{
    assert_true(strstr(err->message, "source.gguf") && strstr(err->message, "): k ") && !strchr(err->message, '\n'));
}

static void every_width_is_a_number(void **state)
{
    (void)state;
    static const gyre_meta_type types[] = {GYRE_META_U8,  GYRE_META_I8,  GYRE_META_U16, GYRE_META_I16, GYRE_META_U32,
                                           GYRE_META_I32, GYRE_META_U64, GYRE_META_I64, GYRE_META_F32, GYRE_META_F64};
    for (size_t i = 0; i < 3 * GYRE_COUNT(types); i++) {
        static const double list[] = {7, 7, 7};
        struct bytes entry = {0};
        uint64_t u = 0, n;
        int64_t whole = 0, *all;
        double real = 0;
        bool found;
        const gyre_meta_type type = types[i / 3];
        if (i % 3 == 0) put_scalar(&entry, type, 7);
        else put_list(&entry, type, i % 3 == 1 ? 1 : 3, list);
        gyre_source *s = open_entry(&entry);
        assert_int_equal(gyre_source_u64(s, "k", &u, &found, NULL), GYRE_OK);
        assert_true(found && u == 7);
        assert_int_equal(gyre_source_i64(s, "k", &whole, &found, NULL), GYRE_OK);
        assert_true(found && whole == 7);
        assert_int_equal(gyre_source_f64(s, "k", &real, &found, NULL), GYRE_OK);
        assert_true(found && real == 7);
        assert_int_equal(gyre_source_array_i64(s, "k", &all, &n, NULL), GYRE_OK);
        assert_true(n == (i % 3 == 2 ? 3 : 1) && all[0] == 7 && all[n - 1] == 7);
        free(all);
        gyre_source_close(s);
    }
}

static void absent_leaves_the_default(void **state)
{
    (void)state;
    struct bytes entry = {0};
    uint64_t u = 5, n = 5;
    int64_t whole = -5, *numbers;
    double real = 0.5;
    bool on = true, found = true;
    const char *text = "default";
    struct gyre_string *texts;
    put_scalar(&entry, GYRE_META_U32, 7);
    gyre_source *s = open_entry(&entry);
    assert_int_equal(gyre_source_u64(s, "other", &u, &found, NULL), GYRE_OK);
    assert_true(!found && u == 5);
    assert_int_equal(gyre_source_i64(s, "other", &whole, NULL, NULL), GYRE_OK);
    assert_int_equal(gyre_source_f64(s, "other", &real, NULL, NULL), GYRE_OK);
    assert_int_equal(gyre_source_bool(s, "other", &on, NULL, NULL), GYRE_OK);
    assert_int_equal(gyre_source_string(s, "other", &text, NULL), GYRE_OK);
    assert_true(whole == -5 && real == 0.5 && on && !strcmp(text, "default"));
    assert_int_equal(gyre_source_array_i64(s, "other", &numbers, &n, NULL), GYRE_OK);
    assert_true(!numbers && n == 0);
    assert_int_equal(gyre_source_array_strings(s, "other", &texts, &n, NULL), GYRE_OK);
    assert_true(!texts && n == 0);
    gyre_source_close(s);
}

enum { U64 = 1, F64 = 2, BOOL = 4, STRING = 8, NUMBERS = 16, STRINGS = 32 };

// Which getters refuse a value, with a line that names the key.
static void unreadable_is_refused(void **state)
{
    (void)state;
    static const struct {
        int list; // -1: a value; else the number of elements
        gyre_meta_type type;
        double v[2];
        unsigned readable;
    } cases[] = {
        {-1, GYRE_META_STRING, {0}, STRING | STRINGS},
        {0, GYRE_META_U32, {0}, NUMBERS},
        {0, GYRE_META_STRING, {0}, STRINGS},
        {1, GYRE_META_STRING, {0}, STRINGS},
        {2, GYRE_META_U32, {2, 3}, NUMBERS},
        {2, GYRE_META_F32, {2, 2.5}, 0},
        {2, GYRE_META_F32, {2.5, 2.5}, F64},
        {-1, GYRE_META_F32, {2.5}, F64},
        {-1, GYRE_META_F64, {1e300}, F64},
        {-1, GYRE_META_I32, {-1}, F64 | NUMBERS},
        {-1, GYRE_META_I8, {-7}, F64 | NUMBERS},
        {-1, GYRE_META_BOOL, {1}, BOOL},
        {2, GYRE_META_BOOL, {1, 1}, BOOL},
        {2, GYRE_META_BOOL, {1, 0}, 0},
        {-1, GYRE_META_BOOL, {2}, 0},
        {-1, GYRE_META_U8, {1}, U64 | F64 | BOOL | NUMBERS},
        {-1, GYRE_META_U32, {2}, U64 | F64 | NUMBERS},
    };
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        struct bytes entry = {0};
        uint64_t u, n;
        int64_t *numbers = NULL;
        double real;
        bool on;
        const char *text;
        struct gyre_string *texts = NULL;
        if (cases[i].type == GYRE_META_STRING) {
            if (cases[i].list < 0) put_meta_string(&entry, "k", "7");
            else put_meta_array(&entry, "k", GYRE_META_STRING, (uint64_t)cases[i].list);
            for (int k = 0; k < cases[i].list; k++) put_string(&entry, "7");
        } else if (cases[i].list < 0) {
            put_scalar(&entry, cases[i].type, cases[i].v[0]);
        } else {
            put_list(&entry, cases[i].type, (uint64_t)cases[i].list, cases[i].v);
        }
        gyre_source *s = open_entry(&entry);
        gyre_error err[6] = {{0}};
        const gyre_status st[6] = {gyre_source_u64(s, "k", &u, NULL, &err[0]),
                                   gyre_source_f64(s, "k", &real, NULL, &err[1]),
                                   gyre_source_bool(s, "k", &on, NULL, &err[2]),
                                   gyre_source_string(s, "k", &text, &err[3]),
                                   gyre_source_array_i64(s, "k", &numbers, &n, &err[4]),
                                   gyre_source_array_strings(s, "k", &texts, &n, &err[5])};
        for (int g = 0; g < 6; g++) {
            if ((st[g] == GYRE_OK) != ((cases[i].readable >> g & 1) != 0))
                fail_msg("case %zu, getter %d: status %d, \"%s\"", i, g, st[g], err[g].message);
            if (st[g] != GYRE_OK) names_the_key(&err[g]);
        }
        free(numbers);
        free(texts);
        gyre_source_close(s);
    }
}

static void above_64_bits_is_unreadable(void **state)
{
    (void)state;
    struct bytes entry = {0};
    uint64_t u;
    put_string(&entry, "k");
    put_u32(&entry, GYRE_META_U64);
    put_u64(&entry, UINT64_MAX);
    gyre_source *s = open_entry(&entry);
    assert_int_equal(gyre_source_u64(s, "k", &u, NULL, NULL), GYRE_E_FORMAT);
    gyre_source_close(s);
}

static int cleanup(void **state)
{
    (void)state;
    return remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_width_is_a_number),
        cmocka_unit_test(absent_leaves_the_default),
        cmocka_unit_test(unreadable_is_refused),
        cmocka_unit_test(above_64_bits_is_unreadable),
    };
    return cmocka_run_group_tests(tests, NULL, cleanup);
}
