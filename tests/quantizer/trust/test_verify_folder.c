// Hugging Face directories against their manifest and their base model: whole ones of several families pass, what was
// changed is named, and tensors that several linears share are covered by every byte.
#include "runtime/source/source.h"
#include "runtime/util/base.h"
#include "tests/common/files.h"
#include "tests/common/tiny.h"
#include "tests/quantizer/trust/folder.h"

#include <gyre/gyre_quantize.h>
#include <jansson.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static gyre_status verify(const char *folder, const char *base, gyre_verify_result *result, gyre_error *err)
{
    const gyre_verify_params p = {.size = sizeof p, .file = folder, .base = base};
    return gyre_verify(&p, result, err);
}

static void verified(const char *folder, const char *base, bool rotated)
{
    gyre_verify_result r;
    gyre_error err = {0};
    if (verify(folder, base, &r, &err) != GYRE_OK) fail_msg("%s: %s", folder, err.message);
    assert_int_equal(r.n_checks, 10);
    assert_int_equal(r.rotated, rotated);
    assert_true(r.linears > 0 && r.worst_error >= 0);
}

static void directories_are_verified(void **state)
{
    (void)state;
    static const struct {
        const char *arch, *profile, *recipe;
        bool tied;
        uint64_t shard;
    } cases[] = {{"llama", "full", "quarot-rtn", false, 0},
                 {"llama", "portable", "quarot-rtn", true, 0},
                 {"qwen2", "portable", "quarot-rtn", false, 20000},
                 {"qwen3", "full", "quarot-rtn", true, 0},
                 {"llama", "full", "rtn", true, 0},
                 {"smollm3", "portable", "best", false, 0},
                 {"gemma3", "portable", "quarot-rtn", true, 0},
                 {"gemma3", "full", "rtn", true, 0},
                 {"gemma3", "full", "quarot-rtn", true, 0},
                 {"phi3", "portable", "quarot-rtn", true, 0},
                 {"phi3", "full", "best", false, 20000}};
    const char *in = files_path("in"), *folder = files_path("trusted");
    char slashed[512];
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        struct tiny_options o = folder_shape(cases[i].arch);
        gyre_error err = {0};
        o.tied = cases[i].tied;
        assert_int_equal(tiny_write_hf(in, &o), 0);
        const gyre_quantize_params p = {.recipe = cases[i].recipe,
                                        .profile = cases[i].profile,
                                        .seed = 5,
                                        .shard_bytes = cases[i].shard,
                                        .force = true};
        if (folder_quantize(p, in, folder, &err) != GYRE_OK) fail_msg("%s", err.message);
        verified(folder, in, strcmp(cases[i].recipe, "rtn") != 0);
    }
    // Learned rotations lie beside a directory, too, however it is named.
    const char *recipe = files_path("turned.yaml");
    struct tiny_options o = folder_shape("llama");
    gyre_error err = {0};
    files_write(recipe, "name: turned\nrotate: true\nlearn: {method: optrot, steps: 3}\nrounding: [rtn]\n");
    assert_int_equal(tiny_write_hf(in, &o), 0);
    if (folder_quantize((gyre_quantize_params){.recipe = recipe, .force = true}, in, folder, &err) != GYRE_OK)
        fail_msg("%s", err.message);
    verified(folder, in, true);
    snprintf(slashed, sizeof slashed, "%s//", folder);
    verified(slashed, in, true);
}

// Changes byte `at` from the end of a file of the folder.
static void damage(const char *folder, const char *name, long at)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, -at, SEEK_END), 0);
    const int c = fgetc(f);
    assert_int_equal(fseek(f, -at, SEEK_END), 0);
    fputc(c ^ 1, f);
    assert_int_equal(fclose(f), 0);
}

static void what_was_changed_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *file, *says, *check;
        bool in_base;
        long at;
    } cases[] = {{"model.safetensors", "SHA-256 differs from the manifest", "hashes", false, 1},
                 {"generation_config.json", "of the tokenizer's files", "metadata", false, 3},
                 {"model.safetensors", NULL, "base", true, 1}};
    const char *in = files_path("in"), *folder = files_path("changed"), *file = files_path("changed.gguf");
    const struct tiny_options o = folder_shape("llama");
    for (size_t i = 0; i < GYRE_COUNT(cases); i++) {
        gyre_verify_result r;
        gyre_error err = {0};
        char path[512];
        assert_int_equal(tiny_write_hf(in, &o), 0);
        snprintf(path, sizeof path, "%s/generation_config.json", in);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fputs("{\"temperature\": 1.1}", f);
        fclose(f);
        if (folder_quantize((gyre_quantize_params){.recipe = "quarot-rtn", .force = true}, in, folder, &err) != GYRE_OK)
            fail_msg("%s", err.message);
        verified(folder, in, true);
        damage(cases[i].in_base ? in : folder, cases[i].file, cases[i].at);
        assert_int_equal(verify(folder, in, &r, &err), GYRE_E_FORMAT);
        assert_string_equal(r.check[r.n_checks - 1].name, cases[i].check);
        if (cases[i].says && !strstr(err.message, cases[i].says)) fail_msg("%s", err.message);
    }
    // A manifest of the other container.
    gyre_error err = {0};
    gyre_verify_result r;
    char manifest[512];
    if (folder_quantize((gyre_quantize_params){.recipe = "rtn", .force = true}, in, file, &err) != GYRE_OK)
        fail_msg("%s", err.message);
    snprintf(manifest, sizeof manifest, "%s.manifest.json", folder);
    const gyre_verify_params p = {.size = sizeof p, .file = file, .manifest = manifest};
    assert_int_equal(gyre_verify(&p, &r, &err), GYRE_E_FORMAT);
    assert_non_null(strstr(err.message, "that of a Hugging Face directory"));
    snprintf(manifest, sizeof manifest, "%s.manifest.json", folder);
    unlink(manifest);
    assert_int_equal(verify(folder, NULL, &r, &err), GYRE_E_IO);
    assert_non_null(strstr(err.message, "its manifest"));
}

// Phi-3's q, k and v are one tensor of a directory, gate and up another: each linear writes its rows, whose hashes
// stand apart in the manifest, and every byte is still covered.
static void tensors_of_several_linears_are_whole(void **state)
{
    (void)state;
    static const char *const names[] = {"self_attn.qkv_proj.weight_packed", "self_attn.qkv_proj.weight_scale",
                                        "mlp.gate_up_proj.weight_packed", "mlp.gate_up_proj.weight_scale"};
    const char *in = files_path("in"), *folder = files_path("fused");
    const struct tiny_options o = folder_shape("phi3");
    gyre_error err = {0};
    gyre_verify_result r;
    assert_int_equal(tiny_write_hf(in, &o), 0);
    if (folder_quantize((gyre_quantize_params){.recipe = "quarot-rtn", .profile = "portable", .force = true}, in,
                        folder, &err) != GYRE_OK)
        fail_msg("%s", err.message);
    verified(folder, in, true);
    gyre_source *source;
    assert_int_equal(gyre_source_open(folder, &source, &err), GYRE_OK);
    assert_null(gyre_source_tensor(source, "model.layers.0.self_attn.q_proj.weight_packed"));
    const struct gyre_tensor *shape_of = gyre_source_tensor(source, "model.layers.1.mlp.gate_up_proj.weight_shape");
    assert_non_null(shape_of);
    assert_memory_equal(shape_of->data, ((int64_t[]){2 * o.ffn, o.width}), shape_of->bytes);
    const char *end = NULL;
    for (uint64_t i = 0; i < gyre_source_tensor_count(source); i++) {
        const struct gyre_tensor *t = gyre_source_tensor_at(source, i);
        const char *to = (const char *)t->data + t->bytes;
        end = !end || to > end ? to : end;
    }
    long at[2 * GYRE_COUNT(names)]; // the first and the last byte of each, from the end of the file
    for (size_t i = 0; i < GYRE_COUNT(names); i++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.1.%s", names[i]);
        const struct gyre_tensor *t = gyre_source_tensor(source, name);
        assert_non_null(t);
        at[2 * i] = (long)(end - (const char *)t->data);
        at[2 * i + 1] = at[2 * i] - (long)t->bytes + 1;
    }
    gyre_source_close(source);
    for (size_t i = 0; i < GYRE_COUNT(at); i++) {
        damage(folder, "model.safetensors", at[i]);
        assert_int_equal(verify(folder, NULL, &r, &err), GYRE_E_FORMAT);
        if (!strstr(err.message, names[i / 2]) || !strstr(err.message, "SHA-256 differs")) fail_msg("%s", err.message);
        damage(folder, "model.safetensors", at[i]);
    }
    verified(folder, in, true);
    // A manifest that tells of some of the rows only.
    json_t *manifest = json_load_file(files_path("fused.manifest.json"), 0, NULL), *rows, *row;
    size_t i, cut = 0;
    rows = json_object_get(manifest, "tensors");
    json_array_foreach(rows, i, row) if (strstr(json_string_value(json_object_get(row, "name")), names[2]) &&
                                         json_integer_value(json_object_get(row, "first"))) cut = i;
    assert_true(cut > 0);
    json_array_remove(rows, cut);
    assert_int_equal(json_dump_file(manifest, files_path("fused.manifest.json"), 0), 0);
    json_decref(manifest);
    assert_int_equal(verify(folder, NULL, &r, &err), GYRE_E_FORMAT);
    if (!strstr(err.message, "not in the manifest, not all of it")) fail_msg("%s", err.message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directories_are_verified),
        cmocka_unit_test(tensors_of_several_linears_are_whole),
        cmocka_unit_test(what_was_changed_is_named),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    files_remove();
    return failed;
}
