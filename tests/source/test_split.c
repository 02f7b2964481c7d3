// Models in several GGUF files: opened by the first, every tensor from its own part; parts that are missing, renamed,
// mixed or damaged are refused in one line that names them.
#include "tests/common/bytes.h"

#include "runtime/util/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { PARTS = 3, COLS = 32 };

static const char *name_of(unsigned part)
{
    static char name[2][64];
    static int turn;
    turn = !turn;
    snprintf(name[turn], sizeof name[turn], "split-%05u-of-%05u.gguf", part, PARTS);
    return name[turn];
}

struct part {
    const char *file; // NULL: its own name
    unsigned no, count, total;
    const char *tensor; // NULL: its own name
    unsigned cut;       // bytes missing at the end
};

// One tensor of two rows, whose values begin with 100 * no; the metadata of a model is in the first only.
static void write_part(unsigned index, const struct part *how)
{
    struct bytes b = {0};
    char tensor[16];
    snprintf(tensor, sizeof tensor, "t%u", index);
    put_text(&b, "GGUF");
    put_u32(&b, 3);
    put_u64(&b, 1);
    put_u64(&b, index ? 3 : 4);
    if (index == 0) put_meta_string(&b, "general.architecture", "llama");
    put_string(&b, "split.no");
    put_u32(&b, GYRE_META_U16);
    put(&b, &(uint16_t){(uint16_t)how->no}, 2);
    put_string(&b, "split.count");
    put_u32(&b, GYRE_META_U16);
    put(&b, &(uint16_t){(uint16_t)how->count}, 2);
    put_meta_u32(&b, "split.tensors.count", how->total);
    put_tensor_info(&b, how->tensor ? how->tensor : tensor, 2, (uint64_t[]){2, COLS}, 0, 0);
    put_align(&b, 32);
    for (unsigned i = 0; i < 2 * COLS; i++) put_f32(&b, (float)(100 * index + i));
    b.size -= how->cut;
    assert_int_equal(save_bytes(&b, how->file ? how->file : name_of(index + 1)), 0);
    free(b.data);
}

static void write_parts(void)
{
    for (unsigned i = 0; i < PARTS; i++) write_part(i, &(struct part){.no = i, .count = PARTS, .total = PARTS});
}

static void parts_are_one_model(void **state)
{
    (void)state;
    gyre_error err = {0};
    gyre_source *source = NULL;
    const char *architecture = NULL;
    float row[COLS];
    uint64_t bytes;
    write_parts();
    if (gyre_source_open(name_of(1), &source, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_int_equal(gyre_source_tensor_count(source), PARTS);
    assert_int_equal(gyre_source_string(source, "general.architecture", &architecture, &err), GYRE_OK);
    assert_string_equal(architecture, "llama");
    assert_null(gyre_source_bytes(source, &bytes)); // no one file
    for (unsigned i = 0; i < PARTS; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%u", i);
        const struct gyre_tensor *t = gyre_source_tensor(source, name);
        assert_non_null(t);
        gyre_tensor_rows_f32(t, 1, 1, row);
        for (unsigned k = 0; k < COLS; k++) assert_true(row[k] == (float)(100 * i + COLS + k));
    }
    assert_int_equal(gyre_source_unchanged(source, &err), GYRE_OK);
    write_part(2, &(struct part){.no = 2, .count = PARTS, .total = PARTS, .cut = 4}); // any part's change is one
    assert_int_not_equal(gyre_source_unchanged(source, &err), GYRE_OK);
    gyre_source_close(source);
}

static void refused(const char *file, const char *says, const char *names)
{
    gyre_error err = {0};
    gyre_source *source = NULL;
    const gyre_status st = gyre_source_open(file, &source, &err);
    if (st == GYRE_OK || !strstr(err.message, says) || !strstr(err.message, names) || strchr(err.message, '\n'))
        fail_msg("status %d, \"%s\" (due: %s, %s)", st, err.message, says, names);
    gyre_source_close(source);
    write_parts();
}

static void what_is_no_whole_model_is_refused(void **state)
{
    (void)state;
    const struct part good = {.no = 0, .count = PARTS, .total = PARTS};
    struct part p;
    write_parts();
    refused(name_of(2), "give the first", name_of(1));
    unlink(name_of(3));
    refused(name_of(1), "part 3 of 3 is missing", name_of(3));
    p = good, p.file = name_of(2);
    write_part(0, &p);
    refused(name_of(1), "part 1 of 3, where part 2 of 3 is due", name_of(2));
    p = good, p.no = 2;
    write_part(1, &p);
    refused(name_of(1), "part 3 of 3, where part 2 of 3 is due", name_of(2));
    p = good, p.no = 1, p.count = 4;
    write_part(1, &p);
    refused(name_of(1), "part 2 of 4, where part 2 of 3 is due", name_of(2));
    p = good, p.no = 1, p.tensor = "t0";
    write_part(1, &p);
    refused(name_of(1), "two tensor entries", "t0");
    p = good, p.total = 7;
    write_part(0, &p);
    refused(name_of(1), "hold 3 tensors and should hold 7", name_of(1));
    p = good, p.no = 9;
    write_part(0, &p);
    refused(name_of(1), "part 10 of 3", name_of(1));
    p = good, p.no = 1, p.cut = 1;
    write_part(1, &p);
    refused(name_of(1), "cut short", name_of(2));
    p = good, p.count = 65535;
    write_part(0, &p);
    refused(name_of(1), "of 65535 parts", "-00001-of-65535.gguf");
    static const char *const odd[] = {"split.gguf", "split-1-of-3.gguf", "split-00001-of-00004.gguf",
                                      "-00001-of-00003"};
    for (size_t i = 0; i < GYRE_COUNT(odd); i++) {
        p = good, p.file = odd[i];
        write_part(0, &p);
        refused(odd[i], "-00001-of-00003.gguf", odd[i]);
        unlink(odd[i]);
    }
    for (unsigned i = 1; i <= PARTS; i++) unlink(name_of(i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_one_model),
        cmocka_unit_test(what_is_no_whole_model_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
