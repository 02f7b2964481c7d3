// See manifest.h.
#include "quantizer/file/manifest.h"
#include "quantizer/pass/search.h"
#include "runtime/source/json_file.h"
#include "runtime/util/file.h"

#include <cblas.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Read, not mapped: a base of many gigabytes would count as memory of this process.
static gyre_status hash_file(const char *path, char hex[GYRE_SHA256_HEX], gyre_error *err)
{
    enum { PIECE = 1 << 20 };
    struct gyre_sha256 sha;
    FILE *f = fopen(path, "rb");
    if (!f) return gyre_fail(err, GYRE_E_IO, "cannot open file (%s): %s", path, strerror(errno));
    char *piece = malloc(PIECE);
    size_t n = 0;
    gyre_sha256_init(&sha);
    while (piece && (n = fread(piece, 1, PIECE, f)) > 0) gyre_sha256_add(&sha, piece, n);
    const bool failed = ferror(f) != 0;
    gyre_sha256_end(&sha, hex);
    fclose(f);
    const bool good = piece != NULL;
    free(piece);
    if (failed) return gyre_fail(err, GYRE_E_IO, "cannot read file (%s)", path);
    return good ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "out of memory for the manifest");
}

// The last component, also of "folder/".
static void base_name(const char *path, char *out, size_t size)
{
    size_t end = strlen(path), start;
    while (end > 1 && path[end - 1] == '/') end--;
    for (start = end; start > 0 && path[start - 1] != '/'; start--) {
    }
    snprintf(out, size, "%.*s", (int)(end - start), path + start);
}

static bool ends(const char *name, const char *with)
{
    const size_t n = strlen(name), m = strlen(with);
    return n >= m && !strcmp(name + n - m, with);
}

static int is_model_file(const struct dirent *entry)
{
    if (ends(entry->d_name, ".manifest.json")) return 0; // of a file that was made from the model and lies beside it
    return ends(entry->d_name, ".safetensors") || ends(entry->d_name, ".json");
}

static gyre_status add_file(json_t *files, const char *name, const char *hex, gyre_error *err)
{
    json_t *key = gyre_json_text(name);
    const char *text = json_string_value(key);
    gyre_status st = GYRE_OK;
    if (text && json_object_get(files, text))
        st = gyre_fail(err, GYRE_E_UNSUPPORTED,
                       "cannot list folder: two names (%s) differ only in bytes that are no UTF-8; rename one", text);
    else if (!text || json_object_set_new(files, text, json_string(hex)))
        st = gyre_fail(err, GYRE_E_NOMEM, "out of memory for the manifest");
    json_decref(key);
    return st;
}

static gyre_status hash_folder(const char *path, json_t *base, gyre_error *err)
{
    struct dirent **entries = NULL;
    const int n = scandir(path, &entries, is_model_file, alphasort);
    json_t *files = json_object();
    gyre_status st = n < 0 || !files ? gyre_fail(err, GYRE_E_IO, "cannot list folder (%s)", path) : GYRE_OK;
    for (int i = 0; i < n; i++) {
        char file[4096], hex[GYRE_SHA256_HEX];
        if (st == GYRE_OK && (size_t)snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name) >= sizeof file)
            st = gyre_fail(err, GYRE_E_IO, "cannot open file (%s): its name is too long", path);
        if (st == GYRE_OK) st = hash_file(file, hex, err);
        if (st == GYRE_OK) st = add_file(files, entries[i]->d_name, hex, err);
        free(entries[i]);
    }
    free(entries);
    json_object_set_new(base, "files", files);
    return st;
}

gyre_status gyre_base_identity(const char *path, bool folder, json_t **base, gyre_error *err)
{
    char name[256], hex[GYRE_SHA256_HEX];
    gyre_status st = GYRE_OK;
    base_name(path, name, sizeof name);
    *base = json_pack("{s:o}", "name", gyre_json_text(name));
    if (!*base) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the manifest");
    if (folder) st = hash_folder(path, *base, err);
    else if ((st = hash_file(path, hex, err)) == GYRE_OK) json_object_set_new(*base, "sha256", json_string(hex));
    if (st == GYRE_OK) return GYRE_OK;
    json_decref(*base);
    *base = NULL;
    return st;
}

gyre_status gyre_run_identity(const struct gyre_plan *p, const gyre_calibration *c, json_t **run, gyre_error *err)
{
    const struct gyre_settings *s = &p->set;
    char seed[24];
    json_t *base;
    *run = NULL;
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)s->seed); // a string: JSON numbers end at 2^53
    GYRE_TRY(gyre_base_identity(gyre_source_path(p->source), gyre_source_container(p->source) == GYRE_CONTAINER_HF,
                                &base, err));
    *run = json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:O}", "gyre", GYRE_VERSION, "recipe", s->recipe.name,
                     "profile", s->full ? "full" : "portable", "seed", seed, "wbits", (int)s->wbits, "wgroup",
                     (int)s->wgroup, "act_bits", (int)s->act, "kv_bits", (int)s->kv, "base", base);
    json_decref(base);
    char *recipe = gyre_recipe_text(&s->recipe);
    bool good = *run && recipe && !json_object_set_new(*run, "recipe_text", json_string(recipe));
    free(recipe);
    if (good && c) // what the bytes depend on besides
        good = !json_object_set_new(*run, "calibration", gyre_calibration_identity(c)) &&
               !json_object_set_new(*run, "arithmetic",
                                    json_pack("{s:s, s:s, s:s}", "blas", openblas_get_config(), "core",
                                              openblas_get_corename(), "device", gyre_calibration_device(c)));
    if (good) return GYRE_OK;
    json_decref(*run);
    *run = NULL;
    return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the manifest");
}

// What the blocks' notes say of their diagonals: [per block], or nothing.
static bool add_diagonals(const struct gyre_output *out, json_t *manifest)
{
    json_t *list = json_array();
    bool good = list != NULL;
    for (uint32_t l = 0; good && l < out->plan->hp.n_layers; l++) {
        json_t *d = json_object_get(gyre_output_note(out, l + 1), "diagonals");
        if (d) good = !json_array_append(list, d);
    }
    if (json_array_size(list)) return good && !json_object_set_new(manifest, "diagonals", list);
    json_decref(list);
    return good;
}

gyre_status gyre_manifest_text(const struct gyre_output *out, char **text, gyre_error *err)
{
    json_t *manifest = json_pack("{s:i}", "manifest", 1);
    bool good = manifest && !json_object_update(manifest, json_object_get(out->state, "run"));
    char front[GYRE_SHA256_HEX];
    gyre_sha256_of(out->plan->front, out->plan->front_bytes, front);
    good = good && !json_object_set_new(manifest, "front_sha256", json_string(front)) &&
           !json_object_set(manifest, "sources", json_object_get(out->state, "sources")) &&
           !json_object_set(manifest, "tensors", json_object_get(out->state, "tensors")) &&
           add_diagonals(out, manifest) &&
           (!gyre_choose_needed(&out->plan->set) ||
            !json_object_set(manifest, "choice", json_object_get(out->state, "choice")));
    *text = good ? json_dumps(manifest, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(manifest);
    return *text ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "out of memory for the manifest");
}
