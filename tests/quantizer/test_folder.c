// A Hugging Face directory as output: what it holds is what a GGUF file of the same run holds, gyre reads it back,
// shards and their index are whole, what belongs to the tokenizer comes along, and a run that ends early leaves
// nothing under the final name.
#include "runtime/model/linear.h"
#include "runtime/source/quantization.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"
#include "tests/common/checkpoint.h"
#include "tests/common/comma.h"
#include "tests/common/files.h"
#include "tests/common/tiny.h"
#include "tests/quantizer/trust/folder.h"

#include <gyre/gyre.h>
#include <gyre/gyre_eval.h>
#include <gyre/gyre_quantize.h>
#include <jansson.h>

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct opened {
    gyre_source *source;
    struct gyre_hparams hp;
};

static struct opened opened(const char *path)
{
    struct opened o = {0};
    gyre_error err = {0};
    gyre_status st = gyre_source_open(path, &o.source, &err);
    if (st == GYRE_OK) st = gyre_hparams_read(o.source, &o.hp, &err);
    if (st == GYRE_OK) st = gyre_model_check(o.source, &o.hp, &err);
    if (st != GYRE_OK) fail_msg("%s: %s", path, err.message);
    return o;
}

static void closed(struct opened *o)
{
    gyre_hparams_free(&o->hp);
    gyre_source_close(o->source);
}

static bool exists(const char *path) { return access(path, F_OK) == 0; }

// Every linear of both as codes and scales, rows in the order of a directory.
static void same_integers(const struct opened *a, const struct opened *b)
{
    for (uint32_t i = 0; i < a->hp.n_layers * GYRE_LINEARS; i++) {
        struct gyre_linear l[2];
        const gyre_role role = (gyre_role)(i % GYRE_LINEARS);
        gyre_error err = {0};
        assert_int_equal(gyre_linear_find(a->source, &a->hp, role, i / GYRE_LINEARS, &l[0], &err), GYRE_OK);
        assert_int_equal(gyre_linear_find(b->source, &b->hp, role, i / GYRE_LINEARS, &l[1], &err), GYRE_OK);
        assert_int_equal(l[0].bits, l[1].bits);
        assert_int_equal(l[0].group, l[1].group);
        const uint64_t n = l[0].rows * l[0].cols, groups = l[0].cols / l[0].group;
        int8_t *codes = malloc(2 * n);
        uint16_t *scales = malloc(4 * n);
        assert_true(codes && scales);
        for (int k = 0; k < 2; k++)
            assert_int_equal(
                gyre_linear_codes(&l[k], 0, l[k].rows, codes + (uint64_t)k * n, scales + (uint64_t)k * n, NULL, &err),
                GYRE_OK);
        const bool paired = b->hp.rope_interleaved && gyre_role_is_turned(role);
        for (uint64_t r = 0; r < l[0].rows; r++) {
            const uint64_t from = paired ? gyre_paired_row(a->hp.head_dim, r) : r; // row r of the GGUF file
            assert_memory_equal(codes + from * l[0].cols, codes + n + r * l[0].cols, l[0].cols);
            assert_memory_equal(scales + from * groups, scales + n + r * groups, groups * sizeof *scales);
        }
        free(codes);
        free(scales);
    }
}

static void both_containers_hold_the_same(void **state)
{
    (void)state;
    static const char *const archs[] = {"llama", "qwen2", "qwen3", "phi3"}, *const profiles[] = {"portable", "full"};
    for (int i = 0; i < 16; i++) {
        const int full = i / 4 % 2;
        const struct tiny_options o = folder_shape(archs[i % 4]);
        const gyre_quantize_params p = {.recipe = "quarot-rtn",
                                        .profile = profiles[full],
                                        .wbits = 4,
                                        .wgroup = i < 8 ? 32 : GYRE_WGROUP_ROW,
                                        .seed = 3};
        const char *in = files_path("in"), *folder = files_path("out"), *file = files_path("out.gguf");
        gyre_quantize_params forced = p;
        gyre_error err = {0};
        forced.force = true;
        assert_int_equal(tiny_write_hf(in, &o), 0);
        if (folder_quantize(forced, in, folder, &err) != GYRE_OK) fail_msg("%s", err.message);
        if (folder_quantize(forced, in, file, &err) != GYRE_OK) fail_msg("%s", err.message);
        struct opened a = opened(folder), b = opened(file);
        assert_int_equal(gyre_source_container(a.source), GYRE_CONTAINER_HF);
        assert_int_equal(gyre_source_container(b.source), GYRE_CONTAINER_GGUF);
        assert_int_equal(a.hp.rot.r3, b.hp.rot.r3);
        assert_int_equal(a.hp.rot.r4.n, b.hp.rot.r4.n);
        assert_int_equal(a.hp.rot.r4.n, full ? 128 : 0);
        assert_int_equal(a.hp.act_bits, full ? 8 : 16); // portable: other tools would round what is only stored so
        assert_int_equal(a.hp.kv_bits, full ? 8 : 16);
        assert_int_equal(a.hp.rot.head.n, 0);
        if (a.hp.rope_scaling == GYRE_ROPE_LONG) // said, not left to the reader's own rule
            assert_true(gyre_source_has(b.source,
                                        full ? "gyre-phi3.rope.scaling.attn_factor" : "phi3.rope.scaling.attn_factor"));
        same_integers(&a, &b);
        closed(&a);
        closed(&b);
    }
}

// In a program whose locale writes numbers with a comma, a directory holds what it holds elsewhere, and is read.
static void numbers_have_a_point_in_every_locale(void **state)
{
    (void)state;
    const char *in = files_path("in"), *yaml = files_path("clips.yaml"), *file = "model.safetensors";
    const struct tiny_options o = folder_shape("llama");
    char path[300];
    uint64_t n[2];
    files_write(yaml, "name: c\nactivations: {clip: 0.95}\ncache: {clip: 0.98}\nrounding: [rtn]\n");
    assert_int_equal(tiny_write_hf(in, &o), 0);
    char *made[2];
    for (int comma = 0; comma < 2; comma++) {
        const char *folder = files_path(comma ? "with-comma" : "with-point");
        gyre_error err = {0};
        if (comma && !comma_set()) print_message("no locale with a comma can be made here\n");
        if (folder_quantize((gyre_quantize_params){.recipe = yaml}, in, folder, &err) != GYRE_OK)
            fail_msg("%s", err.message);
        struct opened a = opened(folder);
        assert_true(fabsf(a.hp.act_clip - 0.95f) < 1e-6f && fabsf(a.hp.kv_clip - 0.98f) < 1e-6f);
        closed(&a);
        snprintf(path, sizeof path, "%s/%s", folder, file);
        made[comma] = files_read(path, &n[comma]);
        assert_non_null(made[comma]);
    }
    comma_reset();
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(made[0], made[1], n[0]);
    free(made[0]);
    free(made[1]);
}

// A full directory says it where readers that know no groups refuse; a portable one where other tools do not look.
static void groups_of_activations_are_said(void **state)
{
    (void)state;
    static const char *const profiles[] = {"portable", "full"};
    const char *in = files_path("in"), *folder = files_path("out"), *yaml = files_path("groups.yaml");
    const struct tiny_options o = folder_shape("llama");
    files_write(yaml, "name: g\nrotate: true\nactivations: {group: 32}\nrounding: [rtn]\n");
    assert_int_equal(tiny_write_hf(in, &o), 0);
    for (int full = 0; full < 2; full++) {
        const gyre_quantize_params p = {.recipe = yaml, .profile = profiles[full], .act = 4, .force = true};
        gyre_error err = {0};
        if (folder_quantize(p, in, folder, &err) != GYRE_OK) fail_msg("%s", err.message);
        struct opened a = opened(folder);
        assert_int_equal(a.hp.act_bits, full ? 4 : 16);
        assert_int_equal(a.hp.act_group, 32);
        json_t *config = json_load_file(files_path("out/config.json"), 0, NULL);
        const json_t *of = json_object_get(json_object_get(config, "quantization_config"), "config_groups"),
                     *x = json_object_get(json_object_get(of, "group_0"), "input_activations");
        assert_int_equal(json_is_null(x), !full);
        if (full) assert_string_equal(json_string_value(json_object_get(x, "strategy")), "group");
        json_decref(config);
        closed(&a);
    }
}

static void count_warnings(void *user, gyre_log_level level, const char *text)
{
    if (level == GYRE_LOG_WARN && strstr(text, "centres the KV cache")) ++*(int *)user;
}

static void a_centre_that_is_left_out_is_told(void **state)
{
    (void)state;
    const char *in = files_path("in"), *recipe = files_path("centred.yaml");
    const struct tiny_options o = folder_shape("llama");
    FILE *f = fopen(recipe, "w");
    assert_non_null(f);
    fputs("name: centred\nrotate: true\nseeds: 1\ncalibration: {windows: 2, tokens: 32}\nrounding: [rtn]\ncache: "
          "{centre: true}\n",
          f);
    fclose(f);
    assert_int_equal(tiny_write_hf(in, &o), 0);
    for (int i = 0; i < 2; i++) {
        int warnings = 0;
        gyre_error err = {0};
        char path[512];
        const char *out = files_path(i ? "centre.gguf" : "centre");
        const gyre_quantize_params p = {.recipe = recipe, .kv = 4, .log = {count_warnings, &warnings, GYRE_LOG_WARN}};
        if (folder_quantize(p, in, out, &err) != GYRE_OK) fail_msg("%s", err.message);
        snprintf(path, sizeof path, "%s.manifest.json", out);
        json_t *manifest = json_load_file(path, 0, NULL);
        const json_t *left = json_array_get(json_object_get(manifest, "left_out"), 0);
        assert_int_equal(warnings, i ? 0 : 1);
        if (i) assert_null(left);
        else assert_string_equal(json_string_value(left), "kv_centre");
        json_decref(manifest);
    }
}

static json_t *config_of(const char *folder)
{
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", folder);
    json_t *config = json_load_file(path, 0, NULL);
    assert_non_null(config);
    return config;
}

static void the_container_is_the_sources_or_what_is_asked_for(void **state)
{
    (void)state;
    const struct tiny_options o = tiny_defaults();
    const gyre_quantize_params p = {.recipe = "rtn", .wbits = 8, .wgroup = GYRE_WGROUP_ROW};
    gyre_quantize_params hf = p, gguf = p, odd = p;
    gyre_error err = {0};
    hf.format = "hf", gguf.format = "gguf", odd.format = "zip";
    const char *folder = files_path("source"), *file = files_path("source.gguf");
    assert_int_equal(tiny_write_hf(folder, &o), 0);
    assert_int_equal(tiny_write_gguf(file, &o), 0);
    struct stat info;
    assert_int_equal(folder_quantize(p, folder, files_path("c1/"), &err), GYRE_OK);
    assert_true(!stat(files_path("c1"), &info) && S_ISDIR(info.st_mode) && exists(files_path("c1.manifest.json")));
    assert_int_equal(folder_quantize(p, folder, files_path("c2.gguf"), &err), GYRE_OK);
    assert_true(!stat(files_path("c2.gguf"), &info) && S_ISREG(info.st_mode));
    assert_int_equal(folder_quantize(gguf, folder, files_path("c3"), &err), GYRE_OK);
    assert_true(!stat(files_path("c3"), &info) && S_ISREG(info.st_mode));
    assert_int_equal(folder_quantize(p, file, files_path("c4"), &err), GYRE_OK);
    assert_true(!stat(files_path("c4"), &info) && S_ISREG(info.st_mode));
    assert_int_equal(folder_quantize(hf, folder, files_path("c5.gguf"), &err), GYRE_OK);
    assert_true(!stat(files_path("c5.gguf"), &info) && S_ISDIR(info.st_mode));
    assert_int_equal(folder_quantize(hf, file, files_path("c6"), &err), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "no config.json"));
    assert_int_equal(folder_quantize(odd, folder, files_path("c6"), &err), GYRE_E_INVALID);
    assert_non_null(strstr(err.message, "neither gguf nor hf"));
    assert_int_equal(folder_quantize(p, folder, files_path("c1"), &err), GYRE_E_IO);
    assert_non_null(strstr(err.message, "--force"));
    assert_int_equal(folder_quantize(gguf, folder, files_path("c1"), &err), GYRE_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "it is a folder"));
    hf.force = true; // only what gyre wrote is replaced
    assert_int_equal(folder_quantize(hf, file, folder, &err), GYRE_E_UNSUPPORTED);
    mkdir(files_path("mine"), 0777);
    assert_int_equal(folder_quantize(hf, folder, files_path("mine"), &err), GYRE_E_IO);
    assert_non_null(strstr(err.message, "no folder that gyre wrote"));
    files_write(files_path("c1/README.md"), "mine"); // nor what somebody put beside that
    assert_int_equal(folder_quantize(hf, folder, files_path("c1"), &err), GYRE_E_IO);
    assert_non_null(strstr(err.message, "README.md in it is nothing that gyre wrote"));
    assert_true(exists(files_path("c1/README.md")) && exists(files_path("c1/config.json")));
    unlink(files_path("c1/README.md"));
    assert_int_equal(folder_quantize(hf, folder, files_path("c1"), &err), GYRE_OK);
    assert_false(exists(files_path("c1.old")) || exists(files_path("c1.part")) || exists(files_path("c1.journal")));
    // What belongs to the tokenizer comes along.
    uint64_t n, m;
    char *before = files_read(files_path("source/tokenizer.json"), &n),
         *after = files_read(files_path("c1/tokenizer.json"), &m);
    assert_true(before && after && n == m && !memcmp(before, after, n));
    free(before);
    free(after);
}

static void shards_and_index_are_whole(void **state)
{
    (void)state;
    struct tiny_options o = folder_shape("llama");
    o.tied = true; // a portable directory has a head of its own: norms are folded
    const gyre_quantize_params p = {.recipe = "quarot-rtn", .profile = "portable", .wgroup = 32, .shard_bytes = 20000};
    const char *in = files_path("whole"), *out = files_path("shards");
    gyre_error err = {0};
    assert_int_equal(tiny_write_hf(in, &o), 0);
    if (folder_quantize(p, in, out, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_false(exists(files_path("shards/model.safetensors")));
    json_t *index = json_load_file(files_path("shards/model.safetensors.index.json"), 0, NULL);
    const json_t *map = json_object_get(index, "weight_map");
    struct opened a = opened(out);
    assert_int_equal(json_object_size(map), gyre_source_tensor_count(a.source));
    uint64_t total = 0;
    for (uint64_t i = 0; i < gyre_source_tensor_count(a.source); i++) {
        const struct gyre_tensor *t = gyre_source_tensor_at(a.source, i);
        assert_non_null(json_object_get(map, t->name));
        assert_int_equal((uintptr_t)t->data % gyre_dtype_info(t->type)->block_bytes, 0); // as PyTorch wants it
        total += t->bytes;
    }
    assert_int_equal(json_integer_value(json_object_get(json_object_get(index, "metadata"), "total_size")), total);
    json_t *config = config_of(out);
    const json_t *q = json_object_get(config, "quantization_config");
    assert_true(json_is_false(json_object_get(config, "tie_word_embeddings")) && !a.hp.tied);
    assert_string_equal(json_string_value(json_object_get(q, "format")), "pack-quantized");
    assert_int_equal(json_object_size(json_object_get(q, "transform_config")), 0);
    json_decref(config);
    json_decref(index);
    closed(&a);
}

// Floats of all widths: a plain directory.
static void floats_are_a_plain_directory(void **state)
{
    (void)state;
    for (uint32_t bits = 16; bits <= 32; bits += 16) {
        const struct tiny_options o = tiny_defaults();
        const gyre_quantize_params p = {.recipe = "rtn", .wbits = bits, .force = true};
        gyre_error err = {0};
        const char *in = files_path("floats"), *out = files_path("floats-out");
        assert_int_equal(tiny_write_hf(in, &o), 0);
        assert_int_equal(folder_quantize(p, in, out, &err), GYRE_OK);
        json_t *config = config_of(out);
        assert_null(json_object_get(config, "quantization_config"));
        json_decref(config);
        struct opened a = opened(in), b = opened(out);
        assert_null(gyre_source_quantization(b.source));
        for (uint64_t i = 0; bits == 32 && i < gyre_source_tensor_count(a.source); i++) {
            const struct gyre_tensor *t = gyre_source_tensor_at(a.source, i),
                                     *u = gyre_source_tensor(b.source, t->name);
            assert_true(u && u->bytes == t->bytes && !memcmp(u->data, t->data, t->bytes));
        }
        closed(&a);
        closed(&b);
    }
}

// Also where it was rotated: nothing in it says that a transform runs, so none may be merged that does not cancel.
static void rotated_floats_are_the_model(void **state)
{
    (void)state;
    uint32_t tokens[64];
    tiny_tokens(tokens, GYRE_COUNT(tokens), 3, tiny_defaults().vocab);
    for (int i = 0; i < 4; i++) {
        const struct tiny_options o = tiny_defaults();
        const gyre_quantize_params p = {
            .recipe = "quarot-rtn", .wbits = i % 2 ? 32 : 16, .profile = i < 2 ? NULL : "full", .force = true};
        const char *in = files_path("floats"), *out = files_path("floats-out");
        gyre_error err = {0};
        gyre_verify_result verified;
        gyre_engine *e = NULL, *f = NULL;
        gyre_eval_result r;
        const gyre_engine_params on = {.device = "cpu", .act = 16, .kv = 16, .cache_dir = ""};
        assert_int_equal(tiny_write_hf(in, &o), 0);
        if (folder_quantize(p, in, out, &err) != GYRE_OK) fail_msg("%s", err.message);
        if (gyre_verify(&(gyre_verify_params){.size = sizeof(gyre_verify_params), .file = out, .base = in}, &verified,
                        &err) != GYRE_OK)
            fail_msg("%s", err.message);
        assert_true(verified.rotated);
        if (gyre_engine_open(in, &on, &e, &err) != GYRE_OK || gyre_engine_open_beside(e, out, &on, &f, &err) != GYRE_OK)
            fail_msg("%s", err.message);
        if (gyre_eval(f, e, tokens, GYRE_COUNT(tokens), 32, 0, NULL, NULL, &r, &err) != GYRE_OK)
            fail_msg("%s", err.message);
        assert_true(r.kl < 1e-5);
        assert_int_equal(gyre_engine_close(f, NULL), GYRE_OK);
        assert_int_equal(gyre_engine_close(e, NULL), GYRE_OK);
    }
}

// Exceptions of a recipe: groups of their own, by name.
static void exceptions_have_groups_of_their_own(void **state)
{
    (void)state;
    const struct tiny_options o = folder_shape("llama");
    const char *recipe = files_path("mixed.yaml"), *in = files_path("mixed"), *out = files_path("mixed-out");
    files_write(recipe,
                "name: mixed\nrounding:\n  - rtn\nexceptions:\n  - {tensors: \"blk.*.ffn_down.weight\", wbits: 8}\n");
    const gyre_quantize_params p = {.recipe = recipe, .wgroup = 32};
    gyre_error err = {0};
    assert_int_equal(tiny_write_hf(in, &o), 0);
    if (folder_quantize(p, in, out, &err) != GYRE_OK) fail_msg("%s", err.message);
    json_t *config = config_of(out);
    const json_t *q = json_object_get(config, "quantization_config"), *groups = json_object_get(q, "config_groups");
    assert_string_equal(json_string_value(json_object_get(q, "format")), "mixed-precision");
    assert_int_equal(json_object_size(groups), 2);
    assert_int_equal(json_array_size(json_object_get(json_object_get(groups, "group_1"), "targets")), 2);
    json_decref(config);
    struct opened a = opened(out);
    struct gyre_linear l;
    assert_int_equal(gyre_linear_find(a.source, &a.hp, GYRE_ROLE_down, 1, &l, &err), GYRE_OK);
    assert_int_equal(l.bits, 8);
    assert_int_equal(gyre_linear_find(a.source, &a.hp, GYRE_ROLE_up, 1, &l, &err), GYRE_OK);
    assert_int_equal(l.bits, 4);
    closed(&a);
}

// ---- runs that end early ------------------------------------------------------------------------------------------

static int calls, stop_at;
static int on_progress(void *user, double fraction, double eta, const char *what)
{
    (void)user, (void)fraction, (void)eta, (void)what;
    return ++calls == stop_at;
}

static void an_interrupted_run_goes_on(void **state)
{
    (void)state;
    const struct tiny_options o = folder_shape("llama");
    gyre_quantize_params p = {.recipe = "quarot-rtn", .wgroup = 32, .shard_bytes = 20000, .progress = on_progress};
    const char *in = files_path("early"), *whole = files_path("early-whole"), *out = files_path("early-out");
    gyre_error err = {0};
    assert_int_equal(tiny_write_hf(in, &o), 0);
    stop_at = 0;
    assert_int_equal(folder_quantize(p, in, whole, &err), GYRE_OK);
    calls = 0, stop_at = 1; // before anything is worth keeping
    assert_int_equal(folder_quantize(p, in, out, &err), GYRE_E_CANCELLED);
    assert_false(exists(out) || exists(files_path("early-out.part")) || exists(files_path("early-out.journal")));
    calls = 0, stop_at = 14;
    assert_int_equal(folder_quantize(p, in, out, &err), GYRE_E_CANCELLED);
    assert_true(!exists(out) && exists(files_path("early-out.part")) && exists(files_path("early-out.journal")));
    calls = 0, stop_at = 0;
    p.resume = true;
    if (folder_quantize(p, in, out, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_false(exists(files_path("early-out.part")) || exists(files_path("early-out.journal")));
    json_t *index = json_load_file(files_path("early-out/model.safetensors.index.json"), 0, NULL);
    assert_non_null(index);
    const char *tensor;
    json_t *shard;
    json_object_foreach(json_object_get(index, "weight_map"), tensor, shard)
    {
        char a[256], b[256];
        uint64_t n, m;
        snprintf(a, sizeof a, "%s/%s", whole, json_string_value(shard));
        snprintf(b, sizeof b, "%s/%s", out, json_string_value(shard));
        char *x = files_read(a, &n), *y = files_read(b, &m);
        assert_true(x && y && n == m && !memcmp(x, y, n));
        free(x);
        free(y);
    }
    json_decref(index);
}

// Which was cut into other files.
static void what_another_run_left_is_no_part_of_the_output(void **state)
{
    (void)state;
    const struct tiny_options o = folder_shape("llama");
    gyre_quantize_params p = {.recipe = "quarot-rtn", .wgroup = 32, .shard_bytes = 20000, .progress = on_progress};
    const char *in = files_path("cut"), *out = files_path("cut-out");
    gyre_error err = {0};
    assert_int_equal(tiny_write_hf(in, &o), 0);
    calls = 0, stop_at = 14;
    assert_int_equal(folder_quantize(p, in, out, &err), GYRE_E_CANCELLED);
    files_write(files_path("cut-out.part/config.json.tmp-1"), "");
    stop_at = 0;
    p.force = true;
    p.shard_bytes = 0;
    if (folder_quantize(p, in, out, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_true(exists(files_path("cut-out/model.safetensors")));
    DIR *dir = opendir(out);
    int n = 0;
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        n += strstr(entry->d_name, ".safetensors") != NULL;
        assert_null(strstr(entry->d_name, ".tmp-"));
    }
    closedir(dir);
    assert_int_equal(n, 1);
    calls = 0, stop_at = 14; // nor where the run goes on, on another host
    assert_int_equal(folder_quantize(p, in, out, &err), GYRE_E_CANCELLED);
    files_write(files_path("cut-out.part/config.json.tmp-0badc0de-1"), "");
    stop_at = 0;
    p.resume = true;
    if (folder_quantize(p, in, out, &err) != GYRE_OK) fail_msg("%s", err.message);
    assert_false(exists(files_path("cut-out/config.json.tmp-0badc0de-1")));
}

// Checkpoints of other tools in, directories of floats out: the same numbers, and the same model, whether its products
// run on codes, on codes less zero points, on inputs in another order, or on floats because parts of one differ.
static void a_checkpoint_is_a_source(void **state)
{
    (void)state;
    static const struct checkpoint forms[] = {
        {.form = CHECKPOINT_GPTQ,
         .bits = 4,
         .group = 16,
         .asymmetric = true,
         .act_order = true,
         .scale = GYRE_DTYPE_F16},
        {.form = CHECKPOINT_WORDS, .bits = 4, .group = 32, .act_order = true, .scale = GYRE_DTYPE_BF16},
        {.form = CHECKPOINT_WORDS, .bits = 4, .scale = GYRE_DTYPE_F32, .float_part = "v_proj"},
        {.form = CHECKPOINT_BYTES, .bits = 8, .asymmetric = true, .scale = GYRE_DTYPE_F16},
        {.form = CHECKPOINT_AWQ, .bits = 4, .group = 32, .asymmetric = true, .scale = GYRE_DTYPE_F16},
    };
    const gyre_quantize_params p = {.recipe = "rtn", .wbits = 32, .force = true};
    const char *in = files_path("checkpoint"), *out = files_path("checkpoint-out");
    uint32_t tokens[64];
    tiny_tokens(tokens, GYRE_COUNT(tokens), 3, tiny_defaults().vocab);
    for (size_t i = 0; i < GYRE_COUNT(forms); i++) {
        const struct tiny_options o = tiny_defaults();
        gyre_error err = {0};
        assert_int_equal(checkpoint_write(in, &o, &forms[i]), 0);
        if (folder_quantize(p, in, out, &err) != GYRE_OK) fail_msg("form %zu: %s", i, err.message);
        struct opened a = opened(in), b = opened(out);
        struct gyre_linear x, y;
        assert_int_equal(gyre_linear_find(a.source, &a.hp, GYRE_ROLE_down, 1, &x, &err), GYRE_OK);
        assert_int_equal(gyre_linear_find(b.source, &b.hp, GYRE_ROLE_down, 1, &y, &err), GYRE_OK);
        float *u = malloc(x.rows * x.cols * sizeof *u), *v = malloc(x.rows * x.cols * sizeof *v);
        assert_true(u && v);
        gyre_linear_rows_f32(&x, 0, x.rows, u);
        gyre_linear_rows_f32(&y, 0, y.rows, v);
        assert_memory_equal(u, v, x.rows * x.cols * sizeof *u);
        free(u);
        free(v);
        closed(&a);
        closed(&b);
        gyre_engine *e = NULL, *f = NULL;
        gyre_eval_result r;
        const gyre_engine_params on = {.device = "cpu", .act = 16, .kv = 16, .cache_dir = ""};
        if (gyre_engine_open(in, &on, &e, &err) != GYRE_OK || gyre_engine_open_beside(e, out, &on, &f, &err) != GYRE_OK)
            fail_msg("form %zu: %s", i, err.message);
        if (gyre_eval(e, f, tokens, GYRE_COUNT(tokens), 32, 0, NULL, NULL, &r, &err) != GYRE_OK)
            fail_msg("form %zu: %s", i, err.message);
        if (!(r.kl < 1e-4)) fail_msg("form %zu: KL %g", i, r.kl);
        assert_int_equal(gyre_engine_close(f, &err), GYRE_OK);
        assert_int_equal(gyre_engine_close(e, &err), GYRE_OK);
    }
}

// What another run is writing stays as it is, and what it left beside the name is told before the work.
static void other_runs_files_are_theirs(void **state)
{
    (void)state;
    const char *from = files_path("theirs"), *folder = files_path("theirs-out"), *file = files_path("theirs.gguf");
    struct tiny_options o = folder_shape("llama");
    gyre_error err = {0};
    char path[256];
    uint64_t bytes;
    assert_int_equal(tiny_write_hf(from, &o), 0);
    for (int f = 0; f < 2; f++) {
        const char *out = f ? folder : file;
        snprintf(path, sizeof path, "%s.part", out);
        if (f) assert_int_equal(mkdir(path, 0777), 0);
        const int lock = open(path, f ? O_RDONLY | O_DIRECTORY : O_RDWR | O_CREAT, 0666);
        assert_true(lock >= 0 && flock(lock, LOCK_EX) == 0);
        snprintf(path, sizeof path, f ? "%s.part/model.safetensors" : "%s.part", out);
        files_write(path, "theirs");
        assert_int_equal(folder_quantize((gyre_quantize_params){0}, from, out, &err), GYRE_E_IO);
        assert_non_null(strstr(err.message, "another run"));
        char *text = files_read(path, &bytes);
        assert_string_equal(text ? text : "gone", "theirs");
        free(text);
        close(lock);
    }
    const char *again = files_path("again");
    assert_int_equal(folder_quantize((gyre_quantize_params){0}, from, again, &err), GYRE_OK);
    assert_int_equal(mkdir(files_path("again.old"), 0777), 0);
    assert_int_equal(folder_quantize((gyre_quantize_params){.force = true}, from, again, &err), GYRE_E_IO);
    assert_non_null(strstr(err.message, "again.old is left"));
    assert_true(exists(files_path("again/config.json")) && exists(files_path("again.manifest.json")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_runs_files_are_theirs),
        cmocka_unit_test(both_containers_hold_the_same),
        cmocka_unit_test(numbers_have_a_point_in_every_locale),
        cmocka_unit_test(groups_of_activations_are_said),
        cmocka_unit_test(a_centre_that_is_left_out_is_told),
        cmocka_unit_test(the_container_is_the_sources_or_what_is_asked_for),
        cmocka_unit_test(shards_and_index_are_whole),
        cmocka_unit_test(floats_are_a_plain_directory),
        cmocka_unit_test(rotated_floats_are_the_model),
        cmocka_unit_test(exceptions_have_groups_of_their_own),
        cmocka_unit_test(an_interrupted_run_goes_on),
        cmocka_unit_test(what_another_run_left_is_no_part_of_the_output),
        cmocka_unit_test(a_checkpoint_is_a_source),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    files_remove();
    return failed;
}
