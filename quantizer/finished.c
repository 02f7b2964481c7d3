// See finished.h.
#include "quantizer/finished.h"
#include "quantizer/file/rotations_file.h"
#include "runtime/util/base.h"
#include "runtime/source/json_file.h"
#include "runtime/util/model_hash.h"
#include "runtime/util/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROTATIONS = INT32_MAX };

static gyre_status no_memory(const struct gyre_finished *f, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_NOMEM, "cannot learn on file (%s): out of memory", f->path);
}

// ---- opening ----------------------------------------------------------------------------------------------

// Nobody needs to repeat a setting; who does, repeats the file's.
static gyre_status settings(const struct gyre_finished *f, gyre_quantize_params *p, gyre_error *err)
{
    const struct gyre_manifest *m = &f->manifest;
    const struct {
        const char *option;
        uint32_t *asked, is;
    } width[] = {{"--wbits", &p->wbits, m->wbits},
                 {"--act", &p->act, m->act},
                 {"--kv", &p->kv, m->kv},
                 {"--kv", &p->kv_v, m->kv_v},
                 {"--head", &p->head, m->head}};
    const int32_t group = m->wgroup ? (int32_t)m->wgroup : GYRE_WGROUP_ROW;
    for (size_t i = 0; i < GYRE_COUNT(width); i++) {
        if (*width[i].asked && *width[i].asked != width[i].is && (width[i].is || *width[i].asked != 8))
            return gyre_fail(err, GYRE_E_INVALID,
                             "cannot learn on file (%s): it was made for %s %u, not %u; leave the option out", f->path,
                             width[i].option, width[i].is ? width[i].is : 8, *width[i].asked);
        *width[i].asked = width[i].is;
    }
    if (p->wgroup && p->wgroup != group)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot learn on file (%s): it was made for --wgroup %u, not %u; leave the option out",
                         f->path, m->wgroup, p->wgroup == GYRE_WGROUP_ROW ? 0 : (unsigned)p->wgroup);
    if (p->profile && strcmp(p->profile, m->profile))
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot learn on file (%s): its profile is %s, not %.20s; leave the option out", f->path,
                         gyre_json_show(json_object_get(m->json, "profile")).text, p->profile);
    if (p->seed && p->seed != m->seed)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot learn on file (%s): it was made with --seed %llu, not %llu; leave the option out",
                         f->path, (unsigned long long)m->seed, (unsigned long long)p->seed);
    p->wgroup = group;
    p->profile = m->profile;
    p->seed = m->seed;
    if (m->wbits < 16) return GYRE_OK;
    return gyre_fail(err, GYRE_E_UNSUPPORTED,
                     "cannot learn on file (%s): its weights are floats of %u bits, and only scales of int4 and int8 "
                     "are learned; give a file that was rounded",
                     f->path, m->wbits);
}

// The file's recipe with what is learned behind it.
static gyre_status join_recipes(struct gyre_finished *f, const char *name, gyre_error *err)
{
    const char *text = f->manifest.recipe_text;
    struct gyre_recipe *own = malloc(sizeof *own);
    gyre_status st = GYRE_OK;
    gyre_error why = {0};
    if (!own) return no_memory(f, err);
    if (!name)
        GYRE_GO(gyre_fail(err, GYRE_E_INVALID,
                          "cannot learn on file (%s): no recipe says what; name one that has distill alone", f->path));
    GYRE_GO(gyre_recipe_find(name, own, err));
    if (own->n_stages)
        GYRE_GO(gyre_fail(err, GYRE_E_INVALID,
                          "cannot learn on file (%s): it is rounded already, and recipe %s rounds; name one that has "
                          "distill alone",
                          f->path, own->name));
    if (!text || gyre_recipe_parse(text, strlen(text), "recipe_text", &f->recipe, &why) != GYRE_OK)
        GYRE_GO(gyre_fail(err, GYRE_E_FORMAT,
                          "cannot learn on file (%s): its manifest carries no recipe%s%s; make it "
                          "again with this gyre",
                          f->path, text ? ": " : "", why.message));
    gyre_recipe_join_learning(&f->recipe, own);
done:
    free(own);
    return st;
}

// The file of learned rotations is there and whole; *data (malloc'd) is NULL where none were learned.
static gyre_status read_rotations(const struct gyre_finished *f, char **data, uint64_t *bytes, gyre_error *err)
{
    const json_t *told = json_object_get(f->manifest.json, "rotations");
    const char *want = json_string_value(json_object_get(told, "sha256"));
    char hex[GYRE_SHA256_HEX];
    *data = NULL;
    if (!told) return GYRE_OK;
    char *path = gyre_matrices_path(f->path);
    if (!path) return no_memory(f, err);
    gyre_status st = GYRE_OK;
    if (!gyre_file_exists(path))
        GYRE_GO(gyre_fail(err, GYRE_E_IO,
                          "cannot learn on file (%s): its rotations were learned, and their file (%s) is missing; "
                          "fetch it too",
                          f->path, path));
    GYRE_GO(gyre_file_read(path, MOST_ROTATIONS, data, bytes, err));
    gyre_sha256_of(*data, *bytes, hex);
    if (!want || strcmp(want, hex))
        st = gyre_fail(err, GYRE_E_FORMAT,
                       "cannot use rotations (%s): SHA-256 differs from the manifest; fetch them "
                       "again",
                       path);
done:
    free(path);
    if (st != GYRE_OK) {
        free(*data);
        *data = NULL;
    }
    return st;
}

gyre_status gyre_finished_open(gyre_quantize_params *p, struct gyre_finished *f, gyre_error *err)
{
    char *manifest = gyre_beside(p->from, ".manifest.json"), *data = NULL;
    uint64_t bytes;
    gyre_status st = GYRE_OK;
    *f = (struct gyre_finished){.path = p->from};
    if (!manifest) GYRE_GO(no_memory(f, err));
    GYRE_GO(gyre_source_open(p->from, &f->file, err));
    if (gyre_source_container(f->file) != GYRE_CONTAINER_GGUF)
        GYRE_GO(gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot learn on a folder (%s): give a GGUF file", p->from));
    if (!gyre_file_exists(manifest))
        GYRE_GO(gyre_fail(err, GYRE_E_IO,
                          "cannot learn on file (%s): the manifest that gyre wrote beside it (%s) is missing; fetch it "
                          "too, or give a file that gyre made",
                          p->from, manifest));
    GYRE_GO(gyre_manifest_read(manifest, &f->manifest, err));
    GYRE_GO(settings(f, p, err));
    GYRE_GO(join_recipes(f, p->recipe, err));
    GYRE_GO(read_rotations(f, &data, &bytes, err));
    GYRE_GO(gyre_model_hash_file(p->from, f->sha256, err));
    f->index = gyre_manifest_index(f->manifest.tensors, NULL);
    if (!f->index) st = no_memory(f, err);
done:
    free(data);
    free(manifest);
    return st;
}

void gyre_finished_close(struct gyre_finished *f)
{
    json_decref(f->index);
    gyre_manifest_free(&f->manifest);
    gyre_source_close(f->file);
    memset(f, 0, sizeof *f);
}

// ---- what is known of it ----------------------------------------------------------------------------------

json_t *gyre_finished_identity(const struct gyre_finished *f)
{
    json_t *known = (json_t *)(uintptr_t)f->manifest.calibration;
    return json_pack("{s:o, s:s, s:O*, s:O*}", "name", gyre_json_text(gyre_base_name(f->path)), "sha256", f->sha256,
                     "calibration", known, "from", json_object_get(f->manifest.json, "from"));
}

bool gyre_finished_choice(const struct gyre_finished *f, struct gyre_choice *out)
{
    const struct gyre_recipe *r = &f->recipe;
    if (!gyre_choice_read(json_object_get(f->manifest.json, "choice"), out)) return false;
    // What the recipe says itself it says in more digits than a manifest has.
    if (r->act_clip != GYRE_AUTO) out->act_clip = out->tap_clip = (float)r->act_clip;
    if (r->kv_clip != GYRE_AUTO) out->kv_clip = out->kv_clip_v = (float)r->kv_clip;
    return true;
}

gyre_status gyre_finished_rotations(const struct gyre_finished *f, json_t *told, char **data, uint64_t *bytes,
                                    gyre_error *err)
{
    GYRE_TRY(read_rotations(f, data, bytes, err));
    if (*data && json_object_set(told, "rotations", json_object_get(f->manifest.json, "rotations")))
        return no_memory(f, err);
    return GYRE_OK;
}

// ---- its tensors ------------------------------------------------------------------------------------------

static gyre_status differs(const struct gyre_finished *f, const char *name, const char *how, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_FORMAT, "cannot learn on file (%s): tensor %s %s; fetch file and manifest again",
                     f->path, name, how);
}

static gyre_status copy(const struct gyre_finished *f, const struct gyre_written *w, struct gyre_output *out,
                        gyre_error *err)
{
    const struct gyre_tensor *t = gyre_source_tensor(f->file, w->name);
    const json_t *row = gyre_manifest_row(f->index, w->name, w->first), *error = json_object_get(row, "error");
    char hex[GYRE_SHA256_HEX];
    if (!t || !row) return differs(f, w->name, t ? "is not in its manifest" : "is missing", err);
    bool same = t->type == w->type && t->n_dims == w->n_dims;
    for (uint32_t i = 0; same && i < w->n_dims; i++) same = t->dims[i] == (!i && w->whole ? w->whole : w->dims[i]);
    if (!same) return differs(f, w->name, "has another type or shape than its recipe makes", err);
    const char *data = (const char *)t->data + (w->whole ? t->bytes / w->whole * w->first : 0);
    gyre_sha256_of(data, w->bytes, hex);
    if (strcmp(hex, json_string_value(json_object_get(row, "sha256"))))
        return differs(f, w->name, "has another SHA-256 than its manifest says", err);
    GYRE_TRY(gyre_output_write(out, w->part, data, w->bytes, error ? json_number_value(error) : NAN, err));
    gyre_tensor_forget(t);
    return GYRE_OK;
}

// Of a file that was made before anything was learned.
static gyre_status first_clips(const struct gyre_finished *f, const struct gyre_written *w, struct gyre_output *out,
                               gyre_error *err)
{
    float *clip = malloc(w->bytes);
    if (!clip) return no_memory(f, err);
    gyre_plan_clips(out->plan, w->part.kind, clip);
    const gyre_status st = gyre_output_write(out, w->part, clip, w->bytes, NAN, err);
    free(clip);
    return st;
}

// What its run read.
static gyre_status sources(const struct gyre_finished *f, struct gyre_output *out, gyre_error *err)
{
    size_t i;
    json_t *row;
    json_array_foreach(f->manifest.sources, i, row)
    {
        const char *name = json_string_value(json_object_get(row, "name"));
        const struct gyre_tensor *t = gyre_source_tensor(out->plan->source, name);
        if (!t)
            return gyre_fail(err, GYRE_E_FORMAT,
                             "cannot learn on file (%s): its manifest names a source tensor (%s) that the model has "
                             "not; fetch it again",
                             f->path, gyre_json_show(json_object_get(row, "name")).text);
        GYRE_TRY(gyre_output_source(out, &t, 1, err));
    }
    return GYRE_OK;
}

gyre_status gyre_finished_step(const struct gyre_finished *f, struct gyre_output *out, gyre_error *err)
{
    const struct gyre_writer *w = out->writer;
    const uint32_t step = out->journal.steps;
    if (!step) GYRE_TRY(sources(f, out, err));
    for (uint64_t i = gyre_writer_tensors(w, step); i < gyre_writer_tensors(w, step + 1ull); i++) {
        const struct gyre_written *t = &w->tensor[i];
        const bool clips = t->part.kind == GYRE_PART_ACT_CLIPS || t->part.kind == GYRE_PART_KV_CLIPS;
        if (clips && !gyre_source_tensor(f->file, t->name)) GYRE_TRY(first_clips(f, t, out, err));
        else GYRE_TRY(copy(f, t, out, err));
    }
    json_t *diagonals = step ? json_array_get(json_object_get(f->manifest.json, "diagonals"), step - 1) : NULL;
    json_t *note = diagonals ? json_pack("{s:O}", "diagonals", diagonals) : NULL;
    if (diagonals && !note) return no_memory(f, err);
    const void *const blob[2] = {NULL, NULL};
    const uint64_t bytes[2] = {0, 0};
    return gyre_output_step(out, note, blob, bytes, err);
}
