// The same settings once more, and the hashes of both runs side by side. See gyre_quantize.h.

#include "quantizer/file/base.h"
#include "quantizer/file/manifest_read.h"
#include "quantizer/recipe/recipe.h"
#include "runtime/source/source.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/log.h"
#include "runtime/util/model_hash.h"
#include "runtime/util/sha256.h"
#include "runtime/util/text.h"

#include <gyre/gyre_quantize.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct reproduction {
    const gyre_reproduce_params *params;
    gyre_reproduce_result *result;
    struct gyre_manifest then, now;
    const char *calib[16]; // of the run, in the manifest's order
    uint32_t n_calib;      // 0: the bundled text or none
    char *work, *own;      // the folder; the same where it is ours to remove, else NULL
    char *output, *manifest, *recipe;
};

static gyre_status no_memory(const struct reproduction *r, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_NOMEM, "cannot reproduce (%s): out of memory", r->params->manifest);
}

// ---- before any work --------------------------------------------------------------------------------------

static gyre_status check_base(const struct reproduction *r, gyre_error *err)
{
    gyre_source *source;
    struct gyre_base base;
    GYRE_TRY(gyre_source_open(r->params->base, &source, err));
    gyre_status st = gyre_base_read(source, &base, err);
    if (st == GYRE_OK) st = gyre_manifest_check_base(&r->then, r->params->base, base.identity, err);
    gyre_base_release(&base);
    gyre_source_close(source);
    return st;
}

static gyre_status hash_text(const char *path, char hex[GYRE_SHA256_HEX], gyre_error *err)
{
    struct gyre_file_map map;
    GYRE_TRY(gyre_file_map(path, &map, err));
    gyre_sha256_of(map.data, map.size, hex);
    gyre_file_unmap(&map);
    return GYRE_OK;
}

static const json_t *text_with_hash(const json_t *texts, const char *hex)
{
    size_t i;
    json_t *text;
    json_array_foreach(texts, i, text)
    {
        const char *want = json_string_value(json_object_get(text, "sha256"));
        if (want && !strcmp(want, hex)) return text;
    }
    return NULL;
}

// A text that no file is needed for: `how` is "bundled" or "self".
static bool is_made(const json_t *text, const char *how) { return json_is_true(json_object_get(text, how)); }

static bool has_files(const json_t *texts)
{
    size_t i;
    json_t *text;
    json_array_foreach(texts, i, text) if (!is_made(text, "bundled") && !is_made(text, "self")) return true;
    return false;
}

// Every text that the manifest names is given, and nothing else; they go in the manifest's order.
static gyre_status check_calibration(struct reproduction *r, gyre_error *err)
{
    const gyre_reproduce_params *p = r->params;
    const json_t *texts = json_object_get(r->then.calibration, "texts");
    const size_t n = json_array_size(texts);
    if (n > GYRE_COUNT(r->calib))
        return gyre_fail(err, GYRE_E_UNSUPPORTED,
                         "cannot reproduce (%s): it was calibrated on %zu texts, more than %zu", p->manifest, n,
                         GYRE_COUNT(r->calib));
    for (uint32_t i = 0; i < p->n_calib; i++) {
        char hex[GYRE_SHA256_HEX];
        GYRE_TRY(hash_text(p->calib[i], hex, err));
        const json_t *text = text_with_hash(texts, hex);
        if (!has_files(texts))
            return gyre_fail(err, GYRE_E_INVALID, "calibration text (%s): the manifest names none; leave --calib out",
                             p->calib[i]);
        if (!text)
            return gyre_fail(err, GYRE_E_FORMAT,
                             "calibration text (%s): SHA-256 %.16s.. is not the %.16s.. of %s that the manifest names; "
                             "give that text",
                             p->calib[i], hex,
                             gyre_json_show(json_object_get(json_array_get(texts, 0), "sha256")).text + 1,
                             gyre_json_show(json_object_get(json_array_get(texts, 0), "name")).text);
        for (size_t k = 0; k < n; k++) { // it may have been named twice
            const char *want = json_string_value(json_object_get(json_array_get(texts, k), "sha256"));
            if (want && !strcmp(want, hex)) r->calib[k] = p->calib[i];
        }
    }
    for (size_t k = 0; k < n; k++) {
        const json_t *text = json_array_get(texts, k);
        if (is_made(text, "self")) r->calib[k] = GYRE_CALIB_SELF;
        else if (is_made(text, "bundled")) r->calib[k] = GYRE_CALIB_BUNDLED;
        if (!r->calib[k])
            return gyre_fail(err, GYRE_E_INVALID,
                             "cannot reproduce (%s): it was calibrated on %s; give that text with --calib", p->manifest,
                             gyre_json_show(json_object_get(text, "name")).text);
        r->n_calib = (uint32_t)k + 1;
    }
    return GYRE_OK;
}

// The finished file that the run began with is given, and no other.
static gyre_status check_from(const struct reproduction *r, gyre_error *err)
{
    const gyre_reproduce_params *p = r->params;
    const json_t *from = json_object_get(r->then.json, "from");
    const char *want = json_string_value(json_object_get(from, "sha256"));
    char hex[GYRE_SHA256_HEX];
    if (!from && !p->from) return GYRE_OK;
    if (!from)
        return gyre_fail(err, GYRE_E_INVALID, "finished file (%s): the manifest names none; leave --from out", p->from);
    if (!p->from)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot reproduce (%s): it was learned on the finished file %s; give that file with --from "
                         "(its own manifest reproduces it)",
                         p->manifest, gyre_json_show(json_object_get(from, "name")).text);
    GYRE_TRY(gyre_model_hash_file(p->from, hex, err));
    if (want && !strcmp(want, hex)) return GYRE_OK;
    return gyre_fail(err, GYRE_E_FORMAT,
                     "finished file (%s): SHA-256 %.16s.. is not the %.16s.. that the manifest names; give the file "
                     "that was learned on",
                     p->from, hex, want ? want : "nothing");
}

// The manifest's recipe as the run was given it: the whole, or what was learned on a finished file. malloc'd.
static gyre_status given_recipe(const struct reproduction *r, char **text, gyre_error *err)
{
    const char *whole = r->then.recipe_text;
    struct gyre_recipe *recipe = r->params->from ? malloc(sizeof *recipe) : NULL;
    gyre_status st = GYRE_OK;
    if (r->params->from && !recipe) return no_memory(r, err);
    if (recipe) st = gyre_recipe_parse(whole, strlen(whole), "recipe_text", recipe, err);
    if (recipe && st == GYRE_OK) gyre_recipe_leave_learning(recipe);
    *text = st != GYRE_OK ? NULL : recipe ? gyre_recipe_text(recipe) : strdup(whole);
    if (st == GYRE_OK && !*text) st = no_memory(r, err);
    free(recipe);
    return st;
}

// A recipe's name leads to a text only where it is built in; else the manifest must carry the text.
static gyre_status check_recipe(const struct reproduction *r, gyre_error *err)
{
    if (r->then.recipe_text) return GYRE_OK;
    for (uint32_t i = 0; gyre_recipe_name(i); i++)
        if (!strcmp(gyre_recipe_name(i), r->then.recipe)) return GYRE_OK;
    return gyre_fail(
        err, GYRE_E_UNSUPPORTED,
        "cannot reproduce (%s): this gyre has no recipe %s and the manifest does not carry its text; use the "
        "gyre that made it",
        r->params->manifest, gyre_json_show(json_object_get(r->then.json, "recipe")).text);
}

// ---- the folder -------------------------------------------------------------------------------------------

static void remove_folder(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || !unlinkat(dirfd(dir), e->d_name, 0)) continue;
        char *inner = gyre_joined(path, "/", e->d_name); // the journal
        if (inner) remove_folder(inner);
        free(inner);
    }
    if (dir) closedir(dir);
    rmdir(path);
}

// "DIR/OUT.gguf.manifest.json" -> "OUT.gguf"
static char *output_name(const char *manifest)
{
    const char *slash = strrchr(manifest, '/'), *name = slash ? slash + 1 : manifest;
    const size_t n = strlen(name), m = strlen(".manifest.json");
    const bool usual = n > m && !strcmp(name + n - m, ".manifest.json");
    char *out = strdup(usual ? name : "reproduced.gguf");
    if (out && usual) out[n - m] = 0;
    return out;
}

static gyre_status make_folder(struct reproduction *r, gyre_error *err)
{
    const gyre_reproduce_params *p = r->params;
    if (p->work) {
        GYRE_TRY(gyre_make_dirs(p->work, err));
        r->work = strdup(p->work);
    } else {
        const char *slash = strrchr(p->manifest, '/');
        r->work = gyre_joined(slash ? p->manifest : "", "", slash ? "" : ".gyre-reproduce-XXXXXX");
        if (slash && r->work) {
            r->work[slash + 1 - p->manifest] = 0;
            char *whole = gyre_joined(r->work, ".gyre-reproduce-XXXXXX", "");
            free(r->work);
            r->work = whole;
        }
        if (r->work && !mkdtemp(r->work))
            return gyre_fail(err, GYRE_E_IO, "cannot create folder (%s): %s; name another one with --work", r->work,
                             strerror(errno));
        r->own = r->work;
    }
    char *name = output_name(p->manifest);
    if (name && r->work) r->output = gyre_joined(r->work, "/", name);
    if (r->output) r->manifest = gyre_joined(r->output, ".manifest.json", "");
    if (r->output) r->recipe = gyre_joined(r->output, ".recipe.yaml", "");
    free(name);
    if (!r->output || !r->manifest || !r->recipe) return no_memory(r, err);
    if (gyre_file_exists(r->output) || gyre_file_exists(r->manifest))
        return gyre_fail(err, GYRE_E_IO,
                         "cannot reproduce (%s): it exists; remove it or name another folder with --work",
                         gyre_file_exists(r->output) ? r->output : r->manifest);
    return GYRE_OK;
}

// What is written here and is not the run's own business: its files beside the manifest, and the recipe's text.
static gyre_status check_apart(const struct reproduction *r, gyre_error *err)
{
    static const char *const beside[] = {".part", ".journal", ".journal/state.json", ".recipe.yaml"};
    const gyre_reproduce_params *p = r->params;
    GYRE_TRY(gyre_files_apart(r->output, beside, GYRE_COUNT(beside), p->manifest, "the manifest", err));
    GYRE_TRY(gyre_file_apart(r->recipe, p->base, "the base model", err));
    GYRE_TRY(gyre_file_apart(r->recipe, p->from, "the finished file", err));
    for (uint32_t i = 0; i < p->n_calib; i++)
        GYRE_TRY(gyre_file_apart(r->recipe, p->calib[i], "a calibration text", err));
    return GYRE_OK;
}

// ---- the run ----------------------------------------------------------------------------------------------

// Where it was calibrated, the host too: a machine with a GPU would take that. NULL: nothing was, or the run began with
// a finished file, for which the model at most writes a text.
static const char *device_of(const struct reproduction *r)
{
    bool runs = !r->params->from;
    for (uint32_t i = 0; i < r->n_calib; i++) runs |= !strcmp(r->calib[i], GYRE_CALIB_SELF);
    return runs ? json_string_value(json_object_get(r->then.arithmetic, "device")) : NULL;
}

static gyre_status quantize_again(struct reproduction *r, gyre_error *err)
{
    const struct gyre_manifest *m = &r->then;
    const char *distill = json_string_value(json_object_get(m->arithmetic, "distill"));
    const gyre_quantize_params q = {.size = sizeof q,
                                    .format = m->format ? m->format : "gguf",
                                    .shard_bytes = m->shard_bytes,
                                    .source = r->params->base,
                                    .output = r->output,
                                    .recipe = m->recipe_text ? r->recipe : m->recipe,
                                    .wbits = m->wbits,
                                    .wgroup = m->wgroup ? (int32_t)m->wgroup : GYRE_WGROUP_ROW,
                                    .act = m->act,
                                    .kv = m->kv,
                                    .kv_v = m->kv_v,
                                    .head = m->head,
                                    .profile = m->profile,
                                    .calib = r->calib,
                                    .n_calib = r->n_calib,
                                    .device = device_of(r),
                                    .distill_device = distill,
                                    .from = r->params->from,
                                    .seed = m->seed,
                                    .resume = true,
                                    .force = true, // nothing is there but what another build began, perhaps
                                    .log = r->params->log,
                                    .progress = r->params->progress,
                                    .user = r->params->user};
    char *text = NULL;
    if (m->recipe_text) GYRE_TRY(given_recipe(r, &text, err));
    gyre_status st = text ? gyre_file_write(r->recipe, text, strlen(text), err) : GYRE_OK;
    free(text);
    if (st == GYRE_OK) st = gyre_quantize(&q, NULL, err);
    unlink(r->recipe);
    if (st == GYRE_E_CANCELLED && r->own)
        return gyre_fail(err, st, "reproducing stopped (%s): nothing is kept; with --work DIR it can go on later",
                         r->params->manifest);
    if (st == GYRE_E_CANCELLED)
        return gyre_fail(err, st, "reproducing stopped (%s): the same command goes on where it stopped",
                         r->params->manifest);
    return st;
}

// ---- comparing --------------------------------------------------------------------------------------------

static void add_surrounding(struct reproduction *r, const char *key, const char *then, const char *now)
{
    char *out = r->result->surroundings;
    const size_t at = strlen(out), left = sizeof r->result->surroundings - at;
    snprintf(out + at, left, "%s%s %s, here %s", at ? "; " : "", key, then, now);
}

static void compare_surroundings(struct reproduction *r)
{
    const json_t *a = r->then.arithmetic, *b = r->now.arithmetic;
    const char *key;
    json_t *value;
    if (strcmp(r->then.gyre, r->now.gyre))
        add_surrounding(r, "gyre", gyre_json_show(json_object_get(r->then.json, "gyre")).text,
                        gyre_json_show(json_object_get(r->now.json, "gyre")).text);
    json_object_foreach((json_t *)(uintptr_t)b, key, value)
    {
        if (!json_equal(value, json_object_get(a, key)))
            add_surrounding(r, key, gyre_json_show(json_object_get(a, key)).text, gyre_json_show(value).text);
    }
}

static bool same_row(const json_t *a, const json_t *b)
{
    static const char *const keys[] = {"name", "first", "type", "shape", "sha256"};
    for (size_t i = 0; i < GYRE_COUNT(keys); i++) {
        const json_t *x = json_object_get(a, keys[i]), *y = json_object_get(b, keys[i]);
        if ((x || y) && !json_equal(x, y)) return false; // both may lack it
    }
    return true;
}

static gyre_status compare(struct reproduction *r, gyre_error *err)
{
    gyre_reproduce_result *out = r->result;
    const size_t n = json_array_size(r->then.tensors), m = json_array_size(r->now.tensors);
    for (size_t i = 0; i < (n > m ? n : m); i++) {
        const json_t *a = json_array_get(r->then.tensors, i), *b = json_array_get(r->now.tensors, i);
        out->tensors += a && !json_integer_value(json_object_get(a, "first")); // of a shared one several rows tell
        if (same_row(a, b)) continue;
        const struct gyre_json_shown name = gyre_json_show(json_object_get(a ? a : b, "name")); // in quotes
        if (!out->differing++)
            snprintf(out->first, sizeof out->first, "%.*s", (int)strcspn(name.text + 1, "\""), name.text + 1);
    }
    out->metadata_differs = r->then.front_sha256 && strcmp(r->then.front_sha256, r->now.front_sha256) != 0;
    compare_surroundings(r);
    const json_t *rotations[2] = {json_object_get(json_object_get(r->then.json, "rotations"), "sha256"),
                                  json_object_get(json_object_get(r->now.json, "rotations"), "sha256")};
    const bool turned = (rotations[0] || rotations[1]) && !json_equal(rotations[0], rotations[1]);
    if (!out->differing && !out->metadata_differs && !turned) return GYRE_OK;
    char what[160];
    if (out->differing)
        snprintf(what, sizeof what, "tensor %s comes out different, the first of %llu", out->first,
                 (unsigned long long)out->differing);
    else if (turned) snprintf(what, sizeof what, "all tensors come out the same, the learned rotations different");
    else snprintf(what, sizeof what, "all tensors come out the same, the metadata before them different");
    return gyre_fail(err, GYRE_E_FORMAT, "not reproduced (%s): %s; %s", r->params->manifest, what,
                     *out->surroundings
                         ? out->surroundings
                         : "no difference of gyre or its arithmetic is known, so the manifest may be wrong");
}

// ---- entry ------------------------------------------------------------------------------------------------

gyre_status gyre_reproduce(const gyre_reproduce_params *given, gyre_reproduce_result *result, gyre_error *err)
{
    gyre_reproduce_params taken;
    GYRE_TRY(gyre_params_take(given, &taken, sizeof taken, offsetof(gyre_reproduce_params, from),
                              "gyre_reproduce_params", err));
    const gyre_reproduce_params *const params = &taken;
    struct reproduction r = {.params = params, .result = result};
    gyre_status st = GYRE_OK;
    *result = (gyre_reproduce_result){0};
    GYRE_GO(gyre_manifest_read(params->manifest, &r.then, err));
    GYRE_GO(check_recipe(&r, err));
    GYRE_GO(check_base(&r, err));
    GYRE_GO(check_from(&r, err));
    GYRE_GO(check_calibration(&r, err));
    if (strcmp(r.then.gyre, GYRE_VERSION))
        gyre_logf(&params->log, GYRE_LOG_WARN,
                  "reproduce: the manifest was made by gyre %s, this is %s: bytes may differ",
                  gyre_json_show(json_object_get(r.then.json, "gyre")).text, GYRE_VERSION);
    GYRE_GO(make_folder(&r, err));
    GYRE_GO(check_apart(&r, err));
    GYRE_GO(quantize_again(&r, err));
    GYRE_GO(gyre_manifest_read(r.manifest, &r.now, err));
    GYRE_GO(compare(&r, err));
done:
    if (r.own) remove_folder(r.own);
    gyre_manifest_free(&r.then);
    gyre_manifest_free(&r.now);
    free(r.work);
    free(r.output);
    free(r.manifest);
    free(r.recipe);
    return st;
}
