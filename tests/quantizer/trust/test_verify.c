// Verifying: rotations can be undone, honest files pass in every form, and every lie is named: a flipped bit anywhere,
// tensors and keys that are missing or wrong, another base, and forgeries whose manifest was corrected to fit.
#include "quantizer/transform/rotate.h"
#include "tests/common/tiny.h"
#include "tests/quantizer/trust/forge.h"
#include "tests/common/files.h"

#include <gyre/gyre_quantize.h>
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

// ---- undoing ----------------------------------------------------------------------------------------------

static double noise(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (double)(*seed >> 8) / (1 << 24) - 0.5;
}

static double farthest(const double *a, const double *b, uint64_t n)
{
    double most = 0;
    for (uint64_t i = 0; i < n; i++) most = fmax(most, fabs(a[i] - b[i]));
    return most;
}

// 44 and 188 have Paley bases and segments, 40 = 20 x 2; heads wider than the model, grouped and single.
static const struct gyre_hparams shapes[] = {
    {.width = 40, .heads = 6, .kv_heads = 2, .head_dim = 8, .ffn = 76},
    {.width = 32, .heads = 4, .kv_heads = 4, .head_dim = 8, .ffn = 64},
    {.width = 44, .heads = 3, .kv_heads = 1, .head_dim = 24, .ffn = 188},
    {.width = 188, .heads = 4, .kv_heads = 2, .head_dim = 6, .ffn = 47},
};

static void check_site(const struct gyre_rotator *r, const struct gyre_hparams *hp, gyre_role site, bool changes)
{
    uint64_t rows, cols;
    uint32_t seed = 7 + (uint32_t)site;
    double gain[188];
    gyre_role_shape(site, hp, &rows, &cols);
    const uint64_t n = rows * cols;
    double *w = malloc(n * sizeof *w), *x = malloc(n * sizeof *x), *folded = malloc(n * sizeof *folded);
    for (int i = 0; i < 188; i++) gain[i] = 0.3 + fabs(noise(&seed)); // 0.3..0.8: dividing by it loses little
    const bool reads = gyre_products[gyre_roles[site].product].norm != GYRE_ROLE_none && r->fold;
    for (uint64_t i = 0; i < n; i++) {
        w[i] = noise(&seed);
        folded[i] = reads ? w[i] * gain[i % cols] : w[i];
    }
    for (int keep = 0; keep < 2; keep++) {
        memcpy(x, w, n * sizeof *w);
        assert_int_equal(gyre_rotate_linear(r, site, 3, gain, x, NULL), GYRE_OK);
        assert_int_equal(farthest(x, folded, n) > 1e-2, changes);
        assert_int_equal(gyre_unrotate_linear(r, site, 3, keep ? NULL : gain, x, NULL), GYRE_OK);
        assert_true(farthest(x, keep ? folded : w, n) < 1e-12);
    }
    free(w);
    free(x);
    free(folded);
}

static void rotations_are_undone(void **state)
{
    (void)state;
    static const unsigned which[] = {0, GYRE_ROTATE_R1, GYRE_ROTATE_R2, GYRE_ROTATE_R4,
                                     GYRE_ROTATE_R1 | GYRE_ROTATE_R2 | GYRE_ROTATE_R4};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t k = 0; k < 5; k++)
            for (int fold = 0; fold < 2; fold++) {
                struct gyre_rotator r;
                assert_int_equal(gyre_rotator_create(&shapes[s], 11, fold, which[k], &r, NULL), GYRE_OK);
                for (int site = 0; site < GYRE_LINEARS; site++) {
                    const bool r2 = (site == GYRE_ROLE_v || site == GYRE_ROLE_o) && r.r2.n > 1;
                    check_site(&r, &shapes[s], (gyre_role)site, r.r1.n || r2 || (site == GYRE_ROLE_down && r.r4.n > 1));
                }
                gyre_rotator_release(&r);
            }
}

static void table_rotations_are_undone(void **state)
{
    (void)state;
    enum { ROWS = 5, COLS = 188 };
    double x[ROWS * COLS], w[ROWS * COLS], folded[ROWS * COLS], gain[COLS];
    uint32_t seed = 3;
    struct gyre_rotator r;
    assert_int_equal(gyre_rotator_create(&shapes[3], 11, true, GYRE_ROTATE_R1, &r, NULL), GYRE_OK);
    for (int i = 0; i < COLS; i++) gain[i] = i == 9 ? 0 : 0.3 + fabs(noise(&seed));
    for (int i = 0; i < ROWS * COLS; i++) {
        x[i] = w[i] = noise(&seed);
        folded[i] = w[i] * gain[i % COLS];
    }
    assert_int_equal(gyre_rotate_rows(&r, gain, x, ROWS, NULL), GYRE_OK);
    assert_int_equal(gyre_unrotate_rows(&r, NULL, x, ROWS, NULL), GYRE_OK);
    assert_true(farthest(x, folded, ROWS * COLS) < 1e-12);
    memcpy(x, w, sizeof x);
    assert_int_equal(gyre_rotate_rows(&r, gain, x, ROWS, NULL), GYRE_OK);
    assert_int_equal(gyre_unrotate_rows(&r, gain, x, ROWS, NULL), GYRE_OK);
    for (int i = 0; i < ROWS; i++) w[i * COLS + 9] = x[i * COLS + 9]; // a gain of 0 hides its column: noise / 0 is 0
    for (int i = 0; i < ROWS; i++) assert_true(x[i * COLS + 9] == 0);
    assert_true(farthest(x, w, ROWS * COLS) < 1e-12);
    gyre_rotator_release(&r);
}

// ---- honest files -----------------------------------------------------------------------------------------

static const char *in, *out, *manifest;

static int setup(void **state)
{
    (void)state;
    omp_set_num_threads(1); // tiny matrices
    in = strdup(files_path("in.gguf"));
    out = strdup(files_path("out.gguf"));
    manifest = strdup(files_path("out.gguf.manifest.json"));
    return 0;
}

static int cleanup(void **state)
{
    (void)state;
    files_remove();
    free((char *)(uintptr_t)in);
    free((char *)(uintptr_t)out);
    free((char *)(uintptr_t)manifest);
    return 0;
}

static gyre_quantize_params settings(void)
{
    return (gyre_quantize_params){
        .source = in, .output = out, .recipe = "quarot-rtn", .wgroup = 32, .seed = 9, .force = true};
}

static void make(gyre_quantize_params p, bool untied)
{
    struct tiny_options shape = tiny_plain();
    shape.tied = !untied;
    assert_int_equal(tiny_write_gguf(in, &shape), 0);
    forge_make(&p);
}

static gyre_verify_result passes(const char *base)
{
    gyre_verify_result result;
    gyre_error err = {0};
    if (gyre_verify(&(gyre_verify_params){.file = out, .base = base}, &result, &err) != GYRE_OK)
        fail_msg("%s", err.message);
    for (uint32_t i = 0; i < result.n_checks; i++) assert_true(result.check[i].ok && *result.check[i].detail);
    return result;
}

// The message holds both words; the checks before the failed one passed and it tells the same.
static void fails_as(const gyre_verify_params *p, gyre_status status, const char *word, const char *also)
{
    gyre_verify_result result;
    gyre_error err = {0};
    assert_int_equal(gyre_verify(p, &result, &err), status);
    if (!strstr(err.message, word) || !strstr(err.message, also)) fail_msg("%s", err.message);
    assert_null(strchr(err.message, '\n'));
    for (uint32_t i = 0; i < result.n_checks; i++) assert_int_equal(result.check[i].ok, i + 1 < result.n_checks);
    assert_string_equal(result.check[result.n_checks - 1].detail, err.message);
}

static void fails(const char *base, const char *word, const char *also)
{
    fails_as(&(gyre_verify_params){.file = out, .base = base}, GYRE_E_FORMAT, word, also);
}

static void honest_files_pass(void **state)
{
    (void)state;
    static const struct {
        const char *recipe, *profile;
        uint32_t wbits;
        int32_t wgroup;
        bool untied;
        double least, most; // of the worst error
    } run[] = {
        {"rtn", "full", 4, 32, false, 1e-3, 0.02},
        {"rtn", "portable", 4, 0, false, 1e-3, 0.02},
        {"rtn", "portable", 8, 0, true, 1e-7, 1e-3},
        {"rtn", "full", 16, 0, true, 1e-9, 1e-7},
        {"rtn", "full", 32, 0, false, 0, 0},
        {"quarot-rtn", "full", 4, 32, false, 1e-3, 0.02},
        {"quarot-rtn", "full", 4, 0, true, 1e-3, 0.02},
        {"quarot-rtn", "full", 8, 32, true, 1e-7, 1e-3},
        {"quarot-rtn", "full", 16, 0, false, 1e-9, 1e-7},
        {"quarot-rtn", "full", 32, 0, false, 1e-18, 1e-12},
        {"quarot-rtn", "portable", 4, 32, true, 1e-3, 0.02},
        {"quarot-rtn", "portable", 4, 0, false, 1e-3, 0.02},
        {"quarot-rtn", "portable", 8, 32, false, 1e-7, 1e-3},
        {"quarot-rtn", "portable", 16, 0, false, 1e-9, 1e-7},
        {"quarot-rtn", "portable", 32, 0, true, 1e-18, 1e-12},
    };
    for (size_t i = 0; i < sizeof run / sizeof *run; i++) {
        gyre_quantize_params p = settings();
        p.recipe = run[i].recipe;
        p.profile = run[i].profile;
        p.wbits = run[i].wbits;
        p.wgroup = run[i].wgroup ? run[i].wgroup : GYRE_WGROUP_ROW;
        make(p, run[i].untied);
        gyre_verify_result r = passes(NULL);
        assert_true(r.n_checks == 6 && r.linears == 0 && r.tensors > 28);
        r = passes(in);
        assert_true(r.n_checks == 10 && r.linears == 21 && r.rotated == (run[i].recipe[0] == 'q'));
        if (!(r.worst_error >= run[i].least && r.worst_error <= run[i].most))
            fail_msg("row %zu: worst error %g", i, r.worst_error);
        assert_non_null(strstr(r.worst, "blk."));
    }
    // Where single linears have other groups, a portable file does not promise that scales repeat over a row.
    files_write(files_path("mixed.yaml"), "name: mixed\nrotate: true\nrounding: [rtn]\nexceptions:\n  - {tensors: "
                                          "\"blk.0.ffn_down.weight\", wbits: 8, wgroup: 32}\n");
    for (int portable = 0; portable < 2; portable++) {
        gyre_quantize_params p = settings();
        p.recipe = files_path("mixed.yaml");
        p.profile = portable ? "portable" : "full";
        p.wgroup = GYRE_WGROUP_ROW;
        make(p, false);
        assert_int_equal(passes(in).linears, 21);
    }
}

static void folders_are_bases_too(void **state)
{
    (void)state;
    struct tiny_options options = tiny_defaults();
    const char *folder = files_path("hf");
    options.scaling = GYRE_ROPE_LLAMA3; // portable: a tensor of divisors that the base does not have
    assert_int_equal(tiny_write_hf(folder, &options), 0);
    for (int portable = 0; portable < 2; portable++) { // portable: q and k rows in another order than the base's
        gyre_quantize_params p = settings();
        p.source = folder;
        p.profile = portable ? "portable" : "full";
        forge_make(&p);
        assert_int_equal(passes(folder).linears, 14);
    }
    FILE *f = fopen(files_path("hf/other.manifest.json"), "w"); // made from the folder into the folder: not part of it
    fclose(f);
    passes(folder);
    f = fopen(files_path("hf/extra.json"), "w");
    fclose(f);
    fails(folder, "hf/extra.json", "names no such file");
    remove(files_path("hf/extra.json"));
    forge_byte(files_path("hf/config.json"), forge_find(files_path("hf/config.json"), "{"), 0x2A,
               false); // blank or newline to another byte
    gyre_verify_result result;
    gyre_error err = {0};
    assert_int_equal(gyre_verify(&(gyre_verify_params){.file = out, .base = folder}, &result, &err), GYRE_E_FORMAT);
    assert_non_null(strstr(err.message, "config.json"));
    fails(in, "it is one file", "the manifest names several");
}

// ---- accidents --------------------------------------------------------------------------------------------

static void flipped_bits_are_named(void **state)
{
    (void)state;
    static const char *const tensors[] = {"blk.1.attn_q.weight",    "blk.2.ffn_down.weight.scale",
                                          "blk.0.attn_norm.weight", "token_embd.weight",
                                          "gyre.r4.base.0",         "gyre.head_gain"};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        for (int end = 0; end < 2; end++) {
            char word[96];
            make(settings(), false);
            forge_tensor(out, tensors[i], end ? -1 : 0, 0x10, false);
            snprintf(word, sizeof word, "tensor %s: SHA-256 differs from the manifest", tensors[i]);
            fails(NULL, word, out);
        }
    make(settings(), false);
    forge_byte(out, forge_find(out, "general.name") + 4 + 8, 1, false); // "tiny" -> "uiny"
    fails(NULL, "metadata: SHA-256", "before the first tensor");
    make(settings(), false);
    forge_byte(out, forge_find(out, "gyre.seed") + 4, 1, false);
    fails(NULL, "metadata key gyre.seed is 8, the manifest says 9", out);
}

static void padding_and_ends_are_seen(void **state)
{
    (void)state;
    struct tiny_options shape = tiny_plain();
    shape.vocab = 51; // 51 rows of 2 Q8_0 blocks: 3468 bytes, 12 short of the next 32
    assert_int_equal(tiny_write_gguf(in, &shape), 0);
    gyre_quantize_params p = settings();
    forge_make(&p);
    passes(in);
    gyre_source *s;
    uint64_t size;
    assert_int_equal(gyre_source_open(out, &s, NULL), GYRE_OK);
    const struct gyre_tensor *t = gyre_source_tensor(s, "token_embd.weight");
    const long gap = (long)((const unsigned char *)t->data - gyre_source_bytes(s, &size)) + (long)t->bytes;
    gyre_source_close(s);
    forge_byte(out, gap + 5, 1, false);
    fails(NULL, "padding after tensor token_embd.weight", out);
    make(settings(), false);
    uint64_t bytes;
    free(files_read(out, &bytes));
    assert_int_equal(truncate(out, (off_t)bytes + 64), 0);
    fails(NULL, "64 bytes follow the last tensor", out);
    assert_int_equal(truncate(out, (off_t)bytes - 100), 0);
    fails(NULL, "cut short", "blk.2.ffn_down.weight.scale");
    assert_int_equal(truncate(out, 40), 0);
    fails(NULL, "cut short", out);
}

static void other_files_are_told(void **state)
{
    (void)state;
    make(settings(), false);
    fails_as(&(gyre_verify_params){.file = in}, GYRE_E_FORMAT, "gyre.version", "gyre quantize wrote");
    fails_as(&(gyre_verify_params){.file = files_path("none.gguf")}, GYRE_E_IO, "none.gguf", "cannot");
    FILE *f = fopen(files_path("noise.gguf"), "w");
    fputs("noise", f);
    fclose(f);
    fails_as(&(gyre_verify_params){.file = files_path("noise.gguf")}, GYRE_E_FORMAT, "noise.gguf", "GGUF");
    struct tiny_options options = tiny_defaults();
    assert_int_equal(tiny_write_hf(files_path("folder"), &options), 0);
    fails_as(&(gyre_verify_params){.file = files_path("folder")}, GYRE_E_IO, "its manifest", "is missing");
    rename(manifest, files_path("moved.json"));
    fails_as(&(gyre_verify_params){.file = out}, GYRE_E_IO, manifest, "--manifest");
    gyre_verify_result result;
    gyre_verify_params p = {.file = out, .manifest = files_path("moved.json")};
    assert_int_equal(gyre_verify(&p, &result, NULL), GYRE_OK);
    gyre_quantize_params q = settings(); // the manifest of another file of the same settings
    struct tiny_options other = tiny_plain();
    other.seed = 77;
    assert_int_equal(tiny_write_gguf(files_path("other-in.gguf"), &other), 0);
    q.source = files_path("other-in.gguf");
    q.output = files_path("other.gguf");
    forge_make(&q);
    p.manifest = files_path("other.gguf.manifest.json");
    fails_as(&p, GYRE_E_FORMAT, "tensor token_embd.weight: SHA-256", out);
}

static int stop(void *user, double fraction, double eta, const char *what)
{
    (void)eta;
    assert_true(fraction >= 0 && fraction <= 1 && *what);
    int *left = user;
    return (*left)-- == 0;
}

static void can_be_stopped_anywhere(void **state)
{
    (void)state;
    make(settings(), false);
    for (int at = 0; at < 400; at++) {
        gyre_verify_result result;
        int left = at;
        gyre_verify_params p = {.file = out, .base = in, .progress = stop, .user = &left};
        const gyre_status st = gyre_verify(&p, &result, NULL);
        if (st == GYRE_OK) {
            assert_true(at > 40);
            return;
        }
        assert_int_equal(st, GYRE_E_CANCELLED);
    }
    fail_msg("it never ended");
}

// ---- manifests --------------------------------------------------------------------------------------------

static void set(const char *key, json_t *value)
{
    json_t *m = forge_manifest(manifest);
    if (value) json_object_set_new(m, key, value);
    else json_object_del(m, key);
    forge_save(manifest, m);
}

static void manifests_of_other_settings_are_named(void **state)
{
    (void)state;
    make(settings(), false);
    json_t *whole = forge_manifest(manifest);
    static const struct {
        const char *key, *word;
        int value;
    } row[] = {{"wbits", "gyre.wbits is 4, the manifest says 8", 8},
               {"wgroup", "gyre.wgroup", 64},
               {"act_bits", "gyre.act_bits", 4},
               {"kv_bits", "gyre.kv_bits", 16}};
    for (int i = 0; i < 4; i++) {
        set(row[i].key, json_integer(row[i].value));
        fails(NULL, row[i].word, out);
        forge_save(manifest, json_deep_copy(whole));
    }
    set("recipe", json_string("best\nof all"));
    fails(NULL, "gyre.recipe is \"quarot-rtn\", the manifest says \"best\\nof all\"", out);
    forge_save(manifest, json_deep_copy(whole));
    set("profile", json_string("portable"));
    fails(NULL, "gyre.profile", out);
    forge_save(manifest, json_deep_copy(whole));
    set("front_sha256", NULL); // older manifests: less is covered, and it says so
    gyre_verify_result r = passes(in);
    assert_non_null(strstr(r.check[2].detail, "no front_sha256"));
    json_decref(whole);
    gyre_quantize_params apart = settings();
    apart.kv_v = 4;
    make(apart, false);
    passes(in);
    set("kv_bits_v", json_integer(16));
    fails(NULL, "gyre.kv_bits_v is 4, the manifest says 16", out);
    set("kv_bits_v", NULL); // one width, says the manifest
    fails(NULL, "gyre.kv_bits_v is 4, the manifest says 8", out);
}

static void lists_are_compared_both_ways(void **state)
{
    (void)state;
    make(settings(), false);
    json_t *whole = forge_manifest(manifest), *m = json_deep_copy(whole), *row;
    row = json_deep_copy(json_array_get(json_object_get(m, "tensors"), 3));
    json_object_set_new(row, "name", json_string("blk.9.attn_q.weight"));
    json_array_append_new(json_object_get(m, "tensors"), row);
    forge_save(manifest, m);
    fails(NULL, "tensor \"blk.9.attn_q.weight\" of the manifest is not in the file", out);
    m = json_deep_copy(whole);
    for (size_t i = 0; i < json_array_size(json_object_get(m, "tensors")); i++)
        if (json_array_get(json_object_get(m, "tensors"), i) == forge_row(m, "tensors", "blk.1.ffn_up.weight.scale")) {
            json_array_remove(json_object_get(m, "tensors"), i);
            break;
        }
    forge_save(manifest, m);
    fails(NULL, "tensor blk.1.ffn_up.weight.scale is in the file and not in the manifest", out);
    m = json_deep_copy(whole);
    json_object_set_new(forge_row(m, "tensors", "blk.1.ffn_up.weight"), "type", json_string("Q8_0"));
    forge_save(manifest, m);
    fails(NULL, "tensor blk.1.ffn_up.weight: type is I8", "Q8_0");
    m = json_deep_copy(whole);
    json_object_set_new(forge_row(m, "tensors", "blk.1.ffn_up.weight"), "shape", json_pack("[i, i]", 96, 64));
    forge_save(manifest, m);
    fails(NULL, "tensor blk.1.ffn_up.weight: shape is 96 x 32", "[96,64]");
    json_decref(whole);
}

static void damaged_manifests_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "", "{", "[1]", "{\"manifest\": \"1\"}", "{\"manifest\": 1, \"manifest\": 1}", "{\"manifest\": 1}"};
    make(settings(), false);
    json_t *whole = forge_manifest(manifest);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        FILE *f = fopen(manifest, "w");
        fputs(texts[i], f);
        fclose(f);
        fails(NULL, "cannot use manifest", manifest);
    }
    forge_save(manifest, json_deep_copy(whole));
    set("manifest", json_integer(2));
    fails_as(&(gyre_verify_params){.file = out}, GYRE_E_UNSUPPORTED, "version 2", "newer gyre");
    const struct {
        const char *key;
        json_t *value; // NULL: removed
    } wrong[] = {
        {"gyre", json_integer(1)},
        {"recipe", NULL},
        {"profile", json_true()},
        {"seed", json_integer(9)},
        {"seed", json_string("nine")},
        {"seed", json_string("99999999999999999999999")},
        {"wbits", json_string("4")},
        {"wgroup", json_integer(-1)},
        {"kv_bits", json_real(4.5)},
        {"front_sha256", json_string("12")},
        {"recipe_text", json_integer(1)},
        {"base", NULL},
        {"base", json_pack("{s:s}", "name", "x")},
        {"base", json_pack("{s:s, s:{s:s}}", "name", "x", "files", "a/b", "0")},
        {"tensors", NULL},
        {"sources", json_object()},
        {"tensors", json_pack("[i]", 3)},
        {"calibration", json_integer(1)},
        {"arithmetic", json_string("x")},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char word[64];
        forge_save(manifest, json_deep_copy(whole));
        set(wrong[i].key, wrong[i].value);
        snprintf(word, sizeof word, "\"%s\"", wrong[i].key);
        fails(NULL, "cannot use manifest", word);
    }
    json_t *m = json_deep_copy(whole);
    json_array_append(json_object_get(m, "tensors"), json_array_get(json_object_get(m, "tensors"), 0));
    forge_save(manifest, m);
    fails(NULL, "\"tensors\"", "there twice");
    json_decref(whole);
}

// ---- bases and forgeries ----------------------------------------------------------------------------------

static void wrong_bases_are_named(void **state)
{
    (void)state;
    struct tiny_options other = tiny_plain();
    make(settings(), false);
    other.seed = 2;
    assert_int_equal(tiny_write_gguf(files_path("other.gguf"), &other), 0);
    fails(files_path("other.gguf"), "base model (", "the manifest names; give the model that it was made from");
    fails_as(&(gyre_verify_params){.file = out, .base = files_path("none")}, GYRE_E_IO, "none", "cannot");
    fails(out, "base model (", "SHA-256");
    json_t *m = forge_manifest(manifest);
    json_object_set_new(forge_row(m, "sources", "blk.1.attn_v.weight"), "sha256",
                        json_object_get(json_array_get(json_object_get(m, "sources"), 0), "sha256"));
    json_incref(json_object_get(json_array_get(json_object_get(m, "sources"), 0), "sha256"));
    forge_save(manifest, m);
    passes(NULL);
    fails(in, "source tensor blk.1.attn_v.weight", "SHA-256 differs");
}

// The manifest was corrected after the change: only the base, or what the values must be, tells.
static void forgeries_are_found_with_the_base(void **state)
{
    (void)state;
    make(settings(), false);
    forge_tensor(out, "blk.1.attn_q.weight", 7, 0x80, true); // one code by 8
    passes(NULL);
    fails(in, "tensor blk.1.attn_q.weight: its error against the base model is", "the manifest says");
    make(settings(), false);
    forge_tensor(out, "blk.2.ffn_norm.weight", -1, 0x80, true);
    passes(NULL);
    fails(in, "tensor blk.2.ffn_norm.weight: value 63 is -1", "makes it 1");
    make(settings(), false);
    forge_tensor(out, "gyre.head_gain", 0, 1, true);
    fails(in, "tensor gyre.head_gain: value 0", out);
    make(settings(), false);
    forge_tensor(out, "token_embd.weight", 5, 0x40, true);
    fails(in, "tensor token_embd.weight: its error", out);
    make(settings(), false);
    forge_byte(out, forge_find(out, "general.name") + 4 + 8, 1, true);
    passes(NULL);
    fails(in, "metadata key general.name is not the base model's", out);
    for (int portable = 0; portable < 2; portable++) { // the seed of other signs
        gyre_quantize_params p = settings();
        p.profile = portable ? "portable" : "full";
        make(p, false);
        forge_byte(out, forge_find(out, "gyre.seed") + 4, 1, true);
        set("seed", json_string("8"));
        passes(NULL);
        fails(in, "tensor token_embd.weight: un-rotated", out);
    }
    make(settings(), false);
    json_t *m = forge_manifest(manifest);
    json_object_del(forge_row(m, "tensors", "blk.0.attn_k.weight"), "error");
    forge_save(manifest, m);
    fails(in, "tensor blk.0.attn_k.weight: the manifest tells no error", out);
}

static void impossible_values_are_found(void **state)
{
    (void)state;
    make(settings(), false);
    forge_tensor(out, "blk.1.attn_v.weight.scale", 3, 0x80, true);
    fails(NULL, "tensor blk.1.attn_v.weight.scale: scale 1 of row 0 is negative", out);
    make(settings(), false);
    forge_tensor(out, "gyre.r4.base.0", 2, 0xFE, true); // 1 <-> -1
    fails(NULL, "gyre.r4.base.0 is not a Hadamard matrix", out);
    gyre_quantize_params p = settings();
    p.profile = "portable";
    make(p, false);
    forge_tensor(out, "blk.1.attn_v.weight", 1, 0x80, true);
    fails(NULL, "tensor blk.1.attn_v.weight: scale 0 of row 0 is negative", out);
    p.wgroup = GYRE_WGROUP_ROW;
    make(p, false);
    passes(NULL);
    forge_tensor(out, "blk.1.attn_v.weight", 3 * 18, 1, true); // the second block of the second row
    fails(NULL, "tensor blk.1.attn_v.weight: row 1 does not repeat its scale", "gyre.wgroup");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rotations_are_undone),
        cmocka_unit_test(table_rotations_are_undone),
        cmocka_unit_test(honest_files_pass),
        cmocka_unit_test(folders_are_bases_too),
        cmocka_unit_test(flipped_bits_are_named),
        cmocka_unit_test(padding_and_ends_are_seen),
        cmocka_unit_test(other_files_are_told),
        cmocka_unit_test(can_be_stopped_anywhere),
        cmocka_unit_test(manifests_of_other_settings_are_named),
        cmocka_unit_test(lists_are_compared_both_ways),
        cmocka_unit_test(damaged_manifests_are_refused),
        cmocka_unit_test(wrong_bases_are_named),
        cmocka_unit_test(forgeries_are_found_with_the_base),
        cmocka_unit_test(impossible_values_are_found),
    };
    return cmocka_run_group_tests(tests, setup, cleanup);
}
