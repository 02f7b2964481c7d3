// Matrices whatever their encoding: numbers against the codec's expansion, codes and scales against the numbers, the
// forms that gyre's own quantizer writes, and files whose scales are damaged.
#include "runtime/core/codec.h"
#include "runtime/model/linear.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"
#include "tests/common/files.h"
#include "tests/common/tiny.h"

#include <gyre/gyre.h>
#include <gyre/gyre_quantize.h>
#include <jansson.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static gyre_source *opened(const char *path, struct gyre_hparams *hp)
{
    gyre_error err = {0};
    gyre_source *source = NULL;
    gyre_status st = gyre_source_open(path, &source, &err);
    if (st == GYRE_OK) st = gyre_hparams_read(source, hp, &err);
    if (st != GYRE_OK) fail_msg("%s: %s", path, err.message);
    return source;
}

static void closed(gyre_source *source, struct gyre_hparams *hp)
{
    gyre_hparams_free(hp);
    gyre_source_close(source);
}

static struct gyre_linear found(const gyre_source *source, const struct gyre_hparams *hp, gyre_role role,
                                uint32_t layer)
{
    struct gyre_linear l;
    gyre_error err = {0};
    if (gyre_linear_find(source, hp, role, layer, &l, &err) != GYRE_OK) fail_msg("%s", err.message);
    return l;
}

// Rows in any number and order are the same numbers, f64 is f32 wider, and codes times scales are they too.
static void check_itself(const struct gyre_linear *l)
{
    const uint64_t n = l->rows * l->cols;
    float *x = malloc(n * sizeof *x);
    double *wide = malloc(n * sizeof *wide), *one = malloc(l->cols * sizeof *one);
    assert_true(x && wide && one);
    gyre_linear_rows_f32(l, 0, l->rows, x);
    gyre_linear_rows_f64(l, 0, l->rows, wide);
    for (uint64_t i = 0; i < n; i++) assert_true(wide[i] == (double)x[i]);
    gyre_linear_rows_f64(l, l->rows - 1, 1, one);
    assert_memory_equal(one, wide + (l->rows - 1) * l->cols, l->cols * sizeof *one);
    int8_t *codes = malloc(n);
    uint16_t *scales = malloc(n * sizeof *scales);
    const gyre_status st = gyre_linear_codes(l, 0, l->rows, codes, scales, NULL, NULL);
    assert_int_equal(st, l->bits ? GYRE_OK : GYRE_E_UNSUPPORTED);
    for (uint64_t i = 0; l->bits && i < n; i++) {
        const uint64_t at = i / l->cols * (l->cols / l->group) + i % l->cols / l->group;
        assert_true(x[i] == (float)codes[i] * gyre_f32_from_f16(scales[at]));
        assert_true(l->bits == 8 || (codes[i] >= -8 && codes[i] <= 7));
    }
    free(codes);
    free(scales);
    free(x);
    free(wide);
    free(one);
}

static void every_file_type_is_the_codecs_numbers(void **state)
{
    (void)state;
    for (int type = 0; type < GYRE_DTYPE_I8; type++) {
        struct tiny_options o = tiny_defaults();
        struct gyre_hparams hp;
        const char *path = files_path("type.gguf");
        o.type = (gyre_dtype)type;
        if (gyre_dtype_info(o.type)->block_elements == 256) o.width = 256, o.head_dim = 64, o.ffn = 1280;
        assert_int_equal(tiny_write_gguf(path, &o), 0);
        gyre_source *source = opened(path, &hp);
        for (int r = 0; r < GYRE_LINEARS; r++) {
            const struct gyre_linear l = found(source, &hp, (gyre_role)r, 1);
            const struct gyre_tensor *t = gyre_role_tensor(source, (gyre_role)r, 1, "weight", NULL);
            float *due = malloc(t->rows * t->cols * sizeof *due), *x = malloc(t->rows * t->cols * sizeof *x);
            assert_true(l.weight == t && !l.scale && l.rows == t->rows && l.cols == t->cols);
            assert_int_equal(l.bits, t->type == GYRE_DTYPE_Q4_0 ? 4 : t->type == GYRE_DTYPE_Q8_0 ? 8 : 0);
            assert_int_equal(l.group, l.bits ? 32 : 0);
            gyre_decode_row(t->type, t->data, t->rows * t->cols, due);
            gyre_linear_rows_f32(&l, 0, l.rows, x);
            assert_memory_equal(x, due, t->rows * t->cols * sizeof *x);
            check_itself(&l);
            struct gyre_linear alone;
            gyre_linear_of(t, &alone);
            assert_true(alone.pack == l.pack && alone.bits == l.bits && alone.group == l.group);
            free(due);
            free(x);
        }
        closed(source, &hp);
    }
}

static void quantize(const char *from, const char *to, const char *recipe, const char *profile, uint32_t wbits,
                     int32_t wgroup)
{
    gyre_error err = {0};
    const gyre_quantize_params p = {.source = from,
                                    .output = to,
                                    .recipe = recipe,
                                    .profile = profile,
                                    .wbits = wbits,
                                    .wgroup = wgroup ? wgroup : GYRE_WGROUP_ROW,
                                    .force = true};
    if (gyre_quantize(&p, NULL, &err) != GYRE_OK) fail_msg("%s", err.message);
}

// The same codes in both containers: integers beside scales, and blocks that repeat theirs.
static void both_profiles_hold_the_same_codes(void **state)
{
    (void)state;
    struct tiny_options o = tiny_plain();
    struct gyre_hparams ha, hb;
    const char *in = files_path("in.gguf"), *full = files_path("full.gguf"), *portable = files_path("portable.gguf");
    o.width = 128, o.heads = 8, o.kv_heads = 4, o.head_dim = 16, o.ffn = 256, o.layers = 1;
    assert_int_equal(tiny_write_gguf(in, &o), 0);
    for (uint32_t bits = 4; bits <= 8; bits += 4)
        for (int g = 0; g <= 4; g++) {
            const int32_t group = g ? 16 << g : 0;
            if (group == 256) continue;
            quantize(in, full, "rtn", "full", bits, group);
            quantize(in, portable, "rtn", "portable", bits, group);
            gyre_source *a = opened(full, &ha), *b = opened(portable, &hb);
            for (int r = 0; r < GYRE_LINEARS; r++) {
                const struct gyre_linear x = found(a, &ha, (gyre_role)r, 0), y = found(b, &hb, (gyre_role)r, 0);
                const uint64_t n = x.rows * x.cols, scales = x.cols / x.group;
                assert_true(x.scale && !y.scale && x.bits == bits && y.bits == bits && x.group == y.group);
                assert_int_equal(x.group, group ? (uint64_t)group : x.cols);
                int8_t *code = malloc(2 * n);
                uint16_t *scale = malloc(2 * x.rows * scales * sizeof *scale);
                assert_int_equal(gyre_linear_codes(&x, 0, x.rows, code, scale, NULL, NULL), GYRE_OK);
                assert_int_equal(gyre_linear_codes(&y, 0, x.rows, code + n, scale + x.rows * scales, NULL, NULL),
                                 GYRE_OK);
                assert_memory_equal(code, code + n, n);
                assert_memory_equal(scale, scale + x.rows * scales, x.rows * scales * sizeof *scale);
                check_itself(&x);
                check_itself(&y);
                free(code);
                free(scale);
            }
            closed(a, &ha);
            closed(b, &hb);
        }
}

// Rows that no block of 32 divides, one scale each: nibbles go back into the bytes that they came from.
static void odd_widths_are_read(void **state)
{
    (void)state;
    struct tiny_options o = tiny_plain();
    struct gyre_hparams hp;
    const char *in = files_path("odd-in.gguf"), *out = files_path("odd.gguf");
    o.width = 40, o.heads = 5, o.kv_heads = 1, o.head_dim = 8, o.ffn = 1096, o.layers = 1;
    assert_int_equal(tiny_write_gguf(in, &o), 0);
    for (uint32_t bits = 4; bits <= 8; bits += 4) {
        quantize(in, out, "rtn", "full", bits, 0);
        gyre_source *s = opened(out, &hp);
        for (int r = 0; r < GYRE_LINEARS; r++) {
            const struct gyre_linear l = found(s, &hp, (gyre_role)r, 0);
            const uint64_t n = l.rows * l.cols;
            int8_t *code = malloc(n);
            uint16_t *scale = malloc(l.rows * sizeof *scale);
            uint8_t *packed = malloc(n);
            assert_int_equal(gyre_linear_codes(&l, 0, l.rows, code, scale, NULL, NULL), GYRE_OK);
            if (bits == 4) gyre_pack_i4(code, n, packed);
            assert_memory_equal(bits == 4 ? packed : (uint8_t *)code, l.weight->data, l.weight->bytes);
            assert_memory_equal(scale, l.scale->data, l.scale->bytes);
            check_itself(&l);
            free(code);
            free(scale);
            free(packed);
        }
        closed(s, &hp);
    }
}

static void rows_come_in_the_order_that_is_asked_for(void **state)
{
    (void)state;
    const struct tiny_options o = tiny_defaults();
    struct gyre_hparams a, b;
    const char *file = files_path("order.gguf"), *folder = files_path("order");
    assert_int_equal(tiny_write_gguf(file, &o), 0);
    assert_int_equal(tiny_write_hf(folder, &o), 0);
    gyre_source *gguf = opened(file, &a), *hf = opened(folder, &b);
    struct gyre_linear x = found(gguf, &a, GYRE_ROLE_k, 0), y = found(hf, &b, GYRE_ROLE_k, 0);
    float *p = malloc(x.rows * x.cols * sizeof *p), *q = malloc(x.rows * x.cols * sizeof *q);
    gyre_linear_rows_f32(&x, 0, x.rows, p);
    gyre_linear_rows_f32(&y, 0, y.rows, q);
    assert_memory_not_equal(p, q, x.rows * x.cols * sizeof *p);
    y.paired = b.head_dim;
    gyre_linear_rows_f32(&y, 0, y.rows, q);
    assert_memory_equal(p, q, x.rows * x.cols * sizeof *p);
    free(p);
    free(q);
    closed(gguf, &a);
    closed(hf, &b);
}

// ---- damage -------------------------------------------------------------------------------------------------

static char *image;
static uint64_t image_bytes;

// The file with `bytes` of `with` at `at` from the start of a tensor's data, or (text) instead of its first occurrence.
static gyre_source *changed(const char *from, const char *tensor, uint64_t at, const char *text, const void *with,
                            uint64_t bytes, struct gyre_hparams *hp)
{
    const char *path = files_path("changed.gguf");
    struct gyre_hparams old;
    uint64_t size;
    gyre_source *s = opened(from, &old);
    free(image);
    image = files_read(from, &image_bytes);
    assert_non_null(image);
    if (tensor)
        at += (uint64_t)((const unsigned char *)gyre_source_tensor(s, tensor)->data - gyre_source_bytes(s, &size));
    for (at = text ? 0 : at; text && memcmp(image + at, text, strlen(text)); at++) {
        if (at + bytes >= image_bytes) fail_msg("%s is not there", text);
    }
    closed(s, &old);
    memcpy(image + at, with, bytes);
    FILE *f = fopen(path, "wb");
    assert_true(f && fwrite(image, 1, image_bytes, f) == image_bytes && !fclose(f));
    return opened(path, hp);
}

static void damaged_scales_are_named(void **state)
{
    (void)state;
    struct tiny_options o = tiny_plain();
    struct gyre_hparams hp;
    struct gyre_linear l;
    gyre_error err = {0};
    const uint16_t other = 0x2A55, nan = 0x7E01;
    int8_t codes[64 * 96];
    uint16_t scales[64 * 96 / 8];
    const char *in = files_path("damage-in.gguf"), *portable = files_path("p.gguf"), *full = files_path("f.gguf");
    o.no_tokenizer = false; // an engine asks for one
    o.vocab = 304;
    assert_int_equal(tiny_write_gguf(in, &o), 0);
    quantize(in, portable, "rtn", "portable", 4, 0);
    quantize(in, full, "rtn", "full", 4, 32);

    // Row 3, second block: the file declares one scale a row.
    gyre_source *s = changed(portable, "blk.1.ffn_down.weight", (3 * 3 + 1) * 18, NULL, &other, 2, &hp);
    l = found(s, &hp, GYRE_ROLE_down, 1);
    assert_int_equal(gyre_linear_codes(&l, 0, 3, codes, scales, NULL, &err), GYRE_OK);
    assert_int_equal(gyre_linear_codes(&l, 0, l.rows, codes, scales, NULL, &err), GYRE_E_FORMAT);
    assert_non_null(strstr(err.message, "blk.1.ffn_down.weight"));
    assert_non_null(strstr(err.message, "row 3 has different scales"));
    gyre_engine *engine = NULL;
    const gyre_engine_params on_cpu = {.device = "cpu", .cache_dir = ""};
    assert_int_equal(gyre_engine_open(files_path("changed.gguf"), &on_cpu, &engine, &err), GYRE_E_FORMAT);
    assert_non_null(strstr(err.message, "row 3 has different scales"));
    closed(s, &hp);

    s = changed(full, "blk.1.ffn_down.weight.scale", 4, NULL, &nan, 2, &hp);
    assert_int_equal(gyre_model_check(s, &hp, &err), GYRE_E_FORMAT);
    assert_non_null(strstr(err.message, "blk.1.ffn_down.weight.scale holds NaN"));
    closed(s, &hp);

    s = changed(full, NULL, 0, "blk.1.ffn_down.weight.scale", "blk.1.ffn_down.weight.scalp", 27, &hp);
    assert_int_equal(gyre_linear_find(s, &hp, GYRE_ROLE_down, 1, &l, &err), GYRE_E_FORMAT);
    assert_non_null(strstr(err.message, "blk.1.ffn_down.weight.scale is missing"));
    assert_int_equal(gyre_linear_find(s, &hp, GYRE_ROLE_down, 0, &l, &err), GYRE_OK);
    hp.ffn = 48; // the 48 bytes of a row would be its columns, but not the 3 scales
    assert_int_equal(gyre_linear_find(s, &hp, GYRE_ROLE_down, 0, &l, &err), GYRE_E_FORMAT);
    assert_non_null(strstr(err.message, "blk.0.ffn_down.weight.scale has shape 64 x 3"));
    hp.ffn = 32;
    assert_int_equal(gyre_linear_find(s, &hp, GYRE_ROLE_down, 0, &l, &err), GYRE_E_FORMAT);
    assert_non_null(strstr(err.message, "64 x 32 is due"));
    hp.ffn = 96;
    hp.full = false;
    assert_int_equal(gyre_linear_find(s, &hp, GYRE_ROLE_down, 0, &l, &err), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "has no scale there"));
    closed(s, &hp);
    free(image);
    image = NULL;
}

// ---- memory -------------------------------------------------------------------------------------------------

// What inspect says without a device is what the loader allocates on one: sums, scales and padding included.
static void inspect_knows_what_the_loader_takes(void **state)
{
    (void)state;
    static const struct {
        const char *profile;
        uint32_t wbits;
        int32_t wgroup;
        bool tied;
    } made[] = {{NULL, 0, 0, true},         {NULL, 0, 0, false},      {"full", 4, 0, true},
                {"full", 4, 32, false},     {"full", 8, 32, true},    {"portable", 4, 0, true},
                {"portable", 4, 32, false}, {"portable", 8, 0, true}, {"full", 16, 0, true}};
    for (size_t i = 0; i < GYRE_COUNT(made); i++) {
        struct tiny_options o = tiny_defaults();
        const char *in = files_path("memory-in.gguf"), *out = files_path("memory.gguf");
        gyre_error err = {0};
        gyre_engine *engine = NULL;
        gyre_engine_info info;
        char *text;
        o.tied = made[i].tied;
        o.ffn = 160;
        if (!made[i].profile) o.type = GYRE_DTYPE_Q4_1; // expanded
        assert_int_equal(tiny_write_gguf(in, &o), 0);
        if (made[i].profile) quantize(in, out, "rtn", made[i].profile, made[i].wbits, made[i].wgroup);
        const char *path = made[i].profile ? out : in;
        const gyre_engine_params on_cpu = {.device = "cpu", .cache_dir = ""};
        if (gyre_engine_open(path, &on_cpu, &engine, &err) != GYRE_OK) fail_msg("%s", err.message);
        gyre_engine_describe(engine, &info);
        assert_int_equal(gyre_engine_close(engine, NULL), GYRE_OK);
        assert_int_equal(gyre_inspect(path, &text, NULL), GYRE_OK);
        json_t *doc = json_loads(text, 0, NULL), *memory = json_object_get(doc, "memory");
        assert_int_equal(json_integer_value(json_object_get(memory, "weights_bytes")), info.weight_bytes);
        json_decref(doc);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_file_type_is_the_codecs_numbers),
        cmocka_unit_test(both_profiles_hold_the_same_codes),
        cmocka_unit_test(odd_widths_are_read),
        cmocka_unit_test(rows_come_in_the_order_that_is_asked_for),
        cmocka_unit_test(damaged_scales_are_named),
        cmocka_unit_test(inspect_knows_what_the_loader_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
