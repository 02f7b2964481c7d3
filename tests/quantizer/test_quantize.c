// What a whole run writes: every tensor against rotations and rounding done here, in both profiles and all widths.
#include "quantizer/transform/rotate.h"
#include "quantizer/round/rtn.h"
#include "runtime/core/codec.h"
#include "runtime/util/half.h"
#include "runtime/util/sha256.h"
#include "tests/common/tiny.h"
#include "tests/common/files.h"

#include <gyre/gyre_quantize.h>

#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void quantize_ok(const gyre_quantize_params *p, gyre_quantize_summary *summary)
{
    gyre_error err = {0};
    if (gyre_quantize(p, summary, &err) != GYRE_OK) fail_msg("%s", err.message);
}

// The floats that a file's linear stands for.
static float *expanded(const gyre_source *s, const char *name)
{
    const struct gyre_tensor *t = gyre_source_tensor(s, name);
    char scale[80];
    uint64_t wbits = 0;
    assert_non_null(t);
    snprintf(scale, sizeof scale, "%s.scale", name);
    const struct gyre_tensor *sc = gyre_source_tensor(s, scale);
    assert_int_equal(gyre_source_u64(s, "gyre.wbits", &wbits, NULL, NULL), GYRE_OK);
    const uint64_t cols = sc && wbits == 4 ? 2 * t->cols : t->cols;
    float *out = malloc(t->rows * cols * sizeof *out);
    if (!sc) {
        gyre_tensor_rows_f32(t, 0, t->rows, out);
        return out;
    }
    int8_t *code = malloc(t->rows * cols);
    uint16_t *scales = malloc(sc->bytes);
    if (wbits == 4) gyre_unpack_i4(t->data, t->rows * cols, code);
    else memcpy(code, t->data, t->bytes);
    memcpy(scales, sc->data, sc->bytes);
    gyre_codes_expand(
        &(struct gyre_codes){
            .bits = (uint32_t)wbits, .group = (uint32_t)(cols / sc->cols), .code = code, .scale = scales},
        t->rows, cols, out);
    free(code);
    free(scales);
    return out;
}

// Relative errors allowed against exact rotation, by width.
static double bound(uint32_t wbits, int32_t group)
{
    return wbits == 32 ? 1e-14 : wbits == 16 ? 1e-7 : wbits == 8 ? 1e-4 : group <= 0 ? 0.016 : 0.013;
}

static void check_linears(const gyre_source *in, const gyre_source *out, const struct gyre_rotator *r,
                          const struct gyre_hparams *hp, double limit)
{
    char name[64];
    for (uint32_t l = 0; l < hp->n_layers; l++)
        for (int s = 0; s < GYRE_LINEARS; s++) {
            uint64_t rows, cols;
            double gain[256] = {0};
            gyre_role_name((gyre_role)s, l, "weight", name);
            gyre_role_shape((gyre_role)s, hp, &rows, &cols);
            const gyre_role norm = gyre_products[gyre_roles[s].product].norm;
            if (norm != GYRE_ROLE_none) gyre_tensor_rows_f64(gyre_role_tensor(in, norm, l, "weight", NULL), 0, 1, gain);
            double *w = malloc(rows * cols * sizeof *w);
            float *want = malloc(rows * cols * sizeof *want), *got = expanded(out, name);
            gyre_tensor_rows_f64(gyre_source_tensor(in, name), 0, rows, w);
            assert_int_equal(gyre_rotate_linear(r, (gyre_role)s, l, gain, w, NULL), GYRE_OK);
            for (uint64_t i = 0; i < rows * cols; i++) want[i] = (float)w[i];
            const double error = gyre_relative_error(want, got, NULL, rows, cols);
            if (!(error <= limit)) fail_msg("%s: error %g, allowed %g", name, error, limit);
            free(w);
            free(want);
            free(got);
        }
}

static void check_table(const gyre_source *in, const gyre_source *out, const char *from, const char *to,
                        const struct gyre_rotator *r, const double *gain, double limit)
{
    const struct gyre_tensor *a = gyre_source_tensor(in, from), *b = gyre_source_tensor(out, to);
    assert_non_null(b);
    double *w = malloc(a->rows * a->cols * sizeof *w);
    float *want = malloc(a->rows * a->cols * sizeof *want), *got = malloc(a->rows * a->cols * sizeof *got);
    gyre_tensor_rows_f64(a, 0, a->rows, w);
    assert_int_equal(gyre_rotate_rows(r, gain, w, a->rows, NULL), GYRE_OK);
    for (uint64_t i = 0; i < a->rows * a->cols; i++) want[i] = (float)w[i];
    gyre_tensor_rows_f32(b, 0, b->rows, got);
    assert_true(gyre_relative_error(want, got, NULL, a->rows, a->cols) <= limit);
    free(w);
    free(want);
    free(got);
}

static void check_norms(const gyre_source *in, const gyre_source *out, const char *name, bool ones)
{
    float a[256], b[256];
    const struct gyre_tensor *t = gyre_source_tensor(out, name);
    gyre_tensor_rows_f32(gyre_source_tensor(in, name), 0, 1, a);
    gyre_tensor_rows_f32(t, 0, 1, b);
    for (uint64_t i = 0; i < t->cols; i++) assert_true(b[i] == (ones ? 1 : a[i]));
}

static void check_file(const char *from, const char *to, const gyre_quantize_params *p)
{
    gyre_source *in, *out;
    struct gyre_hparams a, b;
    struct gyre_rotator r;
    gyre_error err = {0};
    double gain[256];
    assert_int_equal(gyre_source_open(from, &in, NULL), GYRE_OK);
    if (gyre_source_open(to, &out, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_int_equal(gyre_hparams_read(in, &a, NULL), GYRE_OK);
    if (gyre_hparams_read(out, &b, &err) != GYRE_OK || gyre_model_check(out, &b, &err) != GYRE_OK)
        fail_msg("%s", err.message);
    const bool rotate = strcmp(p->recipe, "rtn") != 0, full = !strcmp(p->profile, "full");
    assert_string_equal(b.arch, full ? "gyre-llama" : "llama");
    assert_true(b.width == a.width && b.heads == a.heads && b.kv_heads == a.kv_heads && b.head_dim == a.head_dim &&
                b.ffn == a.ffn && b.vocab == a.vocab && b.context == a.context && b.rope_base == a.rope_base &&
                b.norm_eps == a.norm_eps);
    assert_true(b.act_bits == 8 && b.kv_bits == 4 &&
                b.wgroup == (p->wbits < 16 && p->wgroup > 0 ? (uint32_t)p->wgroup : 0) && b.wgroup_declared &&
                b.rope_interleaved);
    const char *name = NULL, *recipe = NULL;
    assert_int_equal(gyre_source_string(out, "general.name", &name, NULL), GYRE_OK);
    assert_int_equal(gyre_source_string(out, "gyre.recipe", &recipe, NULL), GYRE_OK);
    assert_string_equal(name, "tiny");
    assert_string_equal(recipe, p->recipe);
    assert_int_equal(gyre_rotator_create(&a, p->seed, rotate,
                                         !rotate ? 0 : GYRE_ROTATE_R1 | GYRE_ROTATE_R2 | (full ? GYRE_ROTATE_R4 : 0),
                                         &r, NULL),
                     GYRE_OK);
    check_linears(in, out, &r, &a, bound(p->wbits, p->wgroup));
    gyre_tensor_rows_f64(gyre_source_tensor(in, "output_norm.weight"), 0, 1, gain);
    const double table = p->wbits == 32 ? 1e-14 : p->wbits == 16 ? 1e-7 : 1e-4;
    check_table(in, out, "token_embd.weight", "token_embd.weight", &r, NULL, table);
    const bool constant = gain[0] == gain[1], head = !a.tied || (rotate && !full && !constant);
    assert_true(b.tied == !head);
    if (head) check_table(in, out, a.tied ? "token_embd.weight" : "output.weight", "output.weight", &r, gain, table);
    assert_true(b.rot.r3 == (rotate && full) && (b.rot.r4.n != 0) == (rotate && full) &&
                (b.rot.head.n != 0) == (rotate && full && a.tied));
    if (b.rot.head.n)
        for (uint32_t i = 0; i < a.width; i++) assert_true(b.rot.head_gain[i] == (float)gain[i]);
    check_norms(in, out, "blk.1.attn_norm.weight", rotate);
    check_norms(in, out, "blk.2.ffn_norm.weight", rotate);
    check_norms(in, out, "output_norm.weight", rotate && (head || b.rot.head.n));
    gyre_rotator_release(&r);
    gyre_hparams_free(&a);
    gyre_hparams_free(&b);
    gyre_source_close(in);
    gyre_source_close(out);
}

static void every_setting_writes_what_it_says(void **state)
{
    (void)state;
    static const struct {
        const char *recipe, *profile;
        uint32_t wbits;
        int32_t wgroup;
        bool untied, constant;
    } run[] = {
        {"rtn", "full", 4, 32, false, false},
        {"rtn", "portable", 4, 0, false, false},
        {"rtn", "full", 16, 0, true, false},
        {"rtn", "portable", 8, 0, true, false},
        {"quarot-rtn", "full", 4, 0, false, false},
        {"quarot-rtn", "full", 8, 32, true, false},
        {"quarot-rtn", "full", 32, 0, false, false},
        {"quarot-rtn", "full", 16, 0, false, true},
        {"quarot-rtn", "portable", 4, 32, false, false},
        {"quarot-rtn", "portable", 32, 0, true, false},
        {"quarot-rtn", "portable", 4, 0, false, true},
        {"quarot-rtn", "portable", 16, 0, false, false},
    };
    for (size_t i = 0; i < sizeof run / sizeof *run; i++) {
        struct tiny_options shape = tiny_plain();
        shape.tied = !run[i].untied;
        shape.constant_gain = run[i].constant;
        const char *from = files_path("in.gguf"), *to = files_path("out.gguf");
        assert_int_equal(tiny_write_gguf(from, &shape), 0);
        const gyre_quantize_params p = {.source = from,
                                        .output = to,
                                        .recipe = run[i].recipe,
                                        .profile = run[i].profile,
                                        .wbits = run[i].wbits,
                                        .wgroup = run[i].wgroup ? run[i].wgroup : GYRE_WGROUP_ROW,
                                        .kv = 4,
                                        .seed = 9,
                                        .force = true};
        gyre_quantize_summary summary;
        quantize_ok(&p, &summary);
        check_file(from, to, &p);
        assert_int_equal(summary.layers, 3);
        assert_true(summary.rtn_weight_error <= bound(run[i].wbits, run[i].wgroup) &&
                    summary.recipe_weight_error <= bound(run[i].wbits, run[i].wgroup));
        gyre_quantize_summary_free(&summary);
    }
}

static char *run_bytes(uint64_t seed, int threads, uint64_t *bytes)
{
    const char *from = files_path("in.gguf"), *to = files_path("same.gguf");
    const int before = omp_get_max_threads();
    const struct tiny_options plain = tiny_plain();
    assert_int_equal(tiny_write_gguf(from, &plain), 0);
    omp_set_num_threads(threads);
    quantize_ok(&(gyre_quantize_params){.source = from, .output = to, .wgroup = 0, .seed = seed, .force = true}, NULL);
    omp_set_num_threads(before);
    return files_read(to, bytes);
}

static void bytes_depend_on_the_seed_alone(void **state)
{
    (void)state;
    uint64_t na, nb, nc;
    char *a = run_bytes(3, 1, &na), *b = run_bytes(3, 5, &nb), *c = run_bytes(4, 5, &nc);
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    assert_true(na == nc && memcmp(a, c, na) != 0);
    free(a);
    free(b);
    free(c);
}

static void manifest_lists_what_is_in_the_file(void **state)
{
    (void)state;
    uint64_t bytes;
    free(run_bytes(3, 2, &bytes));
    char *text = files_read(files_path("same.gguf.manifest.json"), &bytes);
    assert_non_null(text);
    assert_null(strstr(text, "quantizer-test")); // no path
    json_t *m = json_loads(text, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(m, "recipe")), "quarot-rtn");
    assert_string_equal(json_string_value(json_object_get(m, "seed")), "3");
    assert_string_equal(json_string_value(json_object_get(json_object_get(m, "base"), "name")), "in.gguf");
    const char *files[] = {"same.gguf", "in.gguf"}, *lists[] = {"tensors", "sources"};
    for (int i = 0; i < 2; i++) {
        gyre_source *s;
        assert_int_equal(gyre_source_open(files_path(files[i]), &s, NULL), GYRE_OK);
        const json_t *list = json_object_get(m, lists[i]);
        assert_int_equal(json_array_size(list), gyre_source_tensor_count(s));
        for (size_t j = 0; j < json_array_size(list); j++) {
            const json_t *row = json_array_get(list, j);
            const struct gyre_tensor *t = gyre_source_tensor(s, json_string_value(json_object_get(row, "name")));
            char hex[GYRE_SHA256_HEX];
            assert_non_null(t);
            gyre_sha256_of(t->data, t->bytes, hex);
            assert_string_equal(json_string_value(json_object_get(row, "sha256")), hex);
        }
        gyre_source_close(s);
    }
    json_decref(m);
    free(text);
    assert_null(files_read(files_path("same.gguf.part"), &bytes));
    assert_null(files_read(files_path("same.gguf.journal/state.json"), &bytes));
}

// The same model as a Hugging Face folder: portable files are equal, tensor by tensor; a full one keeps half-split
// rows.
static void folders_give_the_same_model(void **state)
{
    (void)state;
    struct tiny_options options = tiny_defaults();
    const char *file = files_path("same-in.gguf"), *folder = files_path("hf");
    assert_int_equal(tiny_write_gguf(file, &options), 0);
    assert_int_equal(tiny_write_hf(folder, &options), 0);
    gyre_quantize_params p = {.output = files_path("a.gguf"), .wgroup = 0, .profile = "portable", .force = true};
    gyre_source *a, *b;
    struct gyre_hparams ha, hb;
    p.source = file;
    quantize_ok(&p, NULL);
    p.source = folder;
    p.output = files_path("b.gguf");
    quantize_ok(&p, NULL);
    assert_int_equal(gyre_source_open(files_path("a.gguf"), &a, NULL), GYRE_OK);
    assert_int_equal(gyre_source_open(files_path("b.gguf"), &b, NULL), GYRE_OK);
    assert_int_equal(gyre_source_tensor_count(a), gyre_source_tensor_count(b));
    for (uint64_t i = 0; i < gyre_source_tensor_count(a); i++) {
        const struct gyre_tensor *t = gyre_source_tensor_at(a, i), *u = gyre_source_tensor(b, t->name);
        assert_true(u && t->bytes == u->bytes && !memcmp(t->data, u->data, t->bytes));
    }
    assert_true(gyre_source_has(b, "tokenizer.ggml.tokens") && gyre_source_has(b, "tokenizer.ggml.merges"));
    gyre_source_close(b);
    p.profile = "full";
    p.wbits = 32;
    quantize_ok(&p, NULL); // the folder
    p.source = file;
    p.output = files_path("a.gguf");
    quantize_ok(&p, NULL);
    gyre_source_close(a);
    assert_int_equal(gyre_source_open(files_path("a.gguf"), &a, NULL), GYRE_OK);
    assert_int_equal(gyre_source_open(files_path("b.gguf"), &b, NULL), GYRE_OK);
    assert_true(gyre_hparams_read(a, &ha, NULL) == GYRE_OK && gyre_hparams_read(b, &hb, NULL) == GYRE_OK &&
                ha.rope_interleaved && !hb.rope_interleaved);
    float *x = expanded(a, "blk.1.attn_k.weight"), *y = expanded(b, "blk.1.attn_k.weight");
    const uint32_t hd = ha.head_dim, D = ha.width;
    for (uint32_t r = 0; r < ha.kv_heads * hd; r++) // (head, i, j) of GGUF is (head, j, i) of Hugging Face
        assert_memory_equal(x + r * D, y + (r - r % hd + r % 2 * hd / 2 + r % hd / 2) * D, D * sizeof *x);
    free(x);
    free(y);
    gyre_hparams_free(&ha);
    gyre_hparams_free(&hb);
    gyre_source_close(a);
    gyre_source_close(b);
}

// What gyre wrote without rotations is a model like any other: the floats that its codes stand for, rotated or not, and
// a base that verify knows.
static void integers_are_a_source(void **state)
{
    (void)state;
    const struct tiny_options plain = tiny_plain();
    const char *in = files_path("int-in.gguf"), *full = files_path("int.gguf"), *again = files_path("int-again.gguf");
    assert_int_equal(tiny_write_gguf(in, &plain), 0);
    for (int i = 0; i < 4; i++) {
        gyre_source *a, *b;
        gyre_verify_result result;
        gyre_error err = {0};
        gyre_quantize_params p = {.source = in,
                                  .output = full,
                                  .recipe = "rtn",
                                  .profile = i == 3 ? "portable" : "full",
                                  .wbits = i == 1 ? 8 : 4,
                                  .wgroup = i == 2 ? GYRE_WGROUP_ROW : 32,
                                  .force = true};
        quantize_ok(&p, NULL);
        p.source = full;
        p.output = again;
        p.profile = "portable";
        p.wbits = 32;
        p.wgroup = GYRE_WGROUP_ROW;
        quantize_ok(&p, NULL);
        assert_int_equal(gyre_source_open(full, &a, NULL), GYRE_OK);
        assert_int_equal(gyre_source_open(again, &b, NULL), GYRE_OK);
        for (int r = 0; r < GYRE_LINEARS; r++) {
            char name[GYRE_ROLE_NAME];
            gyre_role_name((gyre_role)r, 2, "weight", name);
            const struct gyre_tensor *t = gyre_source_tensor(b, name);
            float *x = expanded(a, name);
            assert_int_equal(t->type, GYRE_DTYPE_F32);
            assert_memory_equal(x, t->data, t->bytes);
            free(x);
        }
        gyre_source_close(a);
        gyre_source_close(b);
        p.recipe = "quarot-rtn";
        p.profile = "full";
        p.wbits = 4;
        quantize_ok(&p, NULL);
        const gyre_verify_params v = {.file = again, .base = full};
        if (gyre_verify(&v, &result, &err) != GYRE_OK) fail_msg("%s", err.message);
        assert_true(result.rotated);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_setting_writes_what_it_says),
        cmocka_unit_test(bytes_depend_on_the_seed_alone),
        cmocka_unit_test(manifest_lists_what_is_in_the_file),
        cmocka_unit_test(folders_give_the_same_model),
        cmocka_unit_test(integers_are_a_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
