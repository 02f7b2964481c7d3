// See manifest.h.
#include "quantizer/file/manifest.h"

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

gyre_status gyre_run_identity(const struct gyre_plan *p, json_t *texts, const char *device, const char *distill,
                              json_t *from, json_t **run, gyre_error *err)
{
    const struct gyre_settings *s = &p->set;
    char seed[24];
    *run = NULL;
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)s->seed); // a string: JSON numbers end at 2^53
    *run = json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:O}", "gyre", GYRE_VERSION, "recipe", s->recipe.name,
                     "profile", s->full ? "full" : "portable", "seed", seed, "wbits", (int)s->wbits, "wgroup",
                     (int)s->wgroup, "act_bits", (int)s->act, "kv_bits", (int)s->kv, "base", p->base.identity);
    if (s->kv_v != s->kv && *run) json_object_set_new(*run, "kv_bits_v", json_integer((json_int_t)s->kv_v));
    if (s->head4 && *run) json_object_set_new(*run, "head_bits", json_integer(4)); // else 8, or what floats have
    if (p->folder && *run) {                                                       // else a GGUF file
        json_object_set_new(*run, "format", json_string("hf"));
        json_object_set_new(*run, "shard_bytes", json_integer((json_int_t)p->shard_bytes));
    }
    if (from && *run) json_object_set(*run, "from", from);
    if (p->leaves_centre && *run) json_object_set_new(*run, "left_out", json_pack("[s]", "kv_centre"));
    char *recipe = gyre_recipe_text(&s->recipe);
    bool good = *run && recipe && !json_object_set_new(*run, "recipe_text", json_string(recipe));
    free(recipe);
    if (good && device) good = !json_object_set(*run, "calibration", texts);
    if (good && (device || s->recipe.learn.method)) // what the bytes depend on besides; rotations need no text for that
        good = !json_object_set_new(*run, "arithmetic",
                                    json_pack("{s:s, s:s, s:s*, s:s*}", "blas", openblas_get_config(), "core",
                                              openblas_get_corename(), "device", device, "distill", distill));
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

gyre_status gyre_manifest_text(const struct gyre_output *out, json_t *learned, char **text, gyre_error *err)
{
    json_t *manifest = json_pack("{s:i}", "manifest", 1);
    bool good = manifest && !json_object_update(manifest, json_object_get(out->journal.state, "run"));
    char front[GYRE_SHA256_HEX];
    gyre_writer_front_sha256(out->writer, front);
    good = good && !json_object_set_new(manifest, "front_sha256", json_string(front)) &&
           !json_object_set(manifest, "sources", json_object_get(out->journal.state, "sources")) &&
           !json_object_set(manifest, "tensors", json_object_get(out->journal.state, "tensors")) &&
           add_diagonals(out, manifest) && (!learned || !json_object_update(manifest, learned)) &&
           (!gyre_settings_undecided(&out->plan->set) ||
            !json_object_set(manifest, "choice", json_object_get(out->journal.state, "choice")));
    *text = good ? json_dumps(manifest, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(manifest);
    return *text ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "out of memory for the manifest");
}
