// See journal.h. state.json: {"run": {...}, "build": of gyre, "choice": {...}, "steps": n, "tensors": [{"name",
// "first", "type", "shape", "sha256", "error"}], "sources": [{...}], "notes": [per step]}; first: of a shared tensor,
// which of its rows these are. Besides, true where it is so: "replacing" (learned tensors are being written over
// rounded ones) and "aside" (OUT.old is this run's). It is replaced atomically after OUT.part was synced, so it never
// claims more than the file holds; on resuming, every hash is checked all the same.
#include "quantizer/file/journal.h"
#include "quantizer/file/build_identity.h"
#include "runtime/util/base.h"
#include "runtime/util/file.h"
#include "runtime/util/sha256.h"
#include "runtime/util/text.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_STATE = 256 << 20 };

static gyre_status no_memory(const struct gyre_journal *j, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_NOMEM, "cannot keep the journal (%s): out of memory", j->folder);
}

static gyre_status damaged(const struct gyre_journal *j, const char *why, gyre_error *err)
{
    return gyre_fail(err, GYRE_E_FORMAT, "cannot resume (%s): %s; start over with --force", j->folder, why);
}

static gyre_status save(const struct gyre_journal *j, gyre_error *err)
{
    char *text = json_dumps(j->state, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    if (!text) return no_memory(j, err);
    const gyre_status st = gyre_file_write(j->state_path, text, strlen(text), err);
    free(text);
    return st;
}

gyre_status gyre_journal_init(const char *output, struct gyre_journal *j, gyre_error *err)
{
    *j = (struct gyre_journal){.folder = gyre_joined(output, ".journal", ""),
                               .state_path = gyre_joined(output, ".journal", "/state.json")};
    if (!j->folder || !j->state_path) return gyre_fail(err, GYRE_E_NOMEM, "cannot write (%s): out of memory", output);
    return GYRE_OK;
}

void gyre_journal_free(struct gyre_journal *j)
{
    json_decref(j->state);
    free(j->folder);
    free(j->state_path);
    *j = (struct gyre_journal){0};
}

gyre_status gyre_journal_start(struct gyre_journal *j, json_t *run, const struct gyre_choice *choice, gyre_error *err)
{
    if (mkdir(j->folder, 0777) && errno != EEXIST)
        return gyre_fail(err, GYRE_E_IO, "cannot create folder (%s): %s", j->folder, strerror(errno));
    j->state = json_pack("{s:O, s:s, s:o, s:i, s:[], s:[], s:[]}", "run", run, "build", gyre_build_identity, "choice",
                         gyre_choice_json(choice), "steps", 0, "tensors", "sources", "notes");
    return j->state ? save(j, err) : no_memory(j, err);
}

void gyre_journal_remove(const struct gyre_journal *j)
{
    DIR *dir = opendir(j->folder);
    if (!dir) return;
    // First what makes it a journal: whoever is killed in between leaves none, not one that lacks something.
    unlink(j->state_path);
    fsync(dirfd(dir));
    for (struct dirent *entry; (entry = readdir(dir));)
        if (!strncmp(entry->d_name, "state.json", 10) || !strncmp(entry->d_name, "stream-", 7) ||
            !strncmp(entry->d_name, "kept-", 5))
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    rmdir(j->folder);
}

// ---- recording --------------------------------------------------------------------------------------------

static json_t *shape_of(uint32_t n_dims, const uint64_t *dims)
{
    json_t *shape = json_array();
    for (uint32_t i = 0; i < n_dims; i++) json_array_append_new(shape, json_integer((json_int_t)dims[i]));
    return shape;
}

gyre_status gyre_journal_tensor(struct gyre_journal *j, const struct gyre_written *t, const char *sha256, double error,
                                gyre_error *err)
{
    json_t *row = json_pack("{s:s, s:s, s:o, s:s}", "name", t->name, "type", gyre_dtype_info(t->type)->name, "shape",
                            shape_of(t->n_dims, t->dims), "sha256", sha256);
    if (row && t->whole) json_object_set_new(row, "first", json_integer((json_int_t)t->first));
    if (row && !isnan(error)) json_object_set_new(row, "error", json_real(error));
    return json_array_append_new(json_object_get(j->state, "tensors"), row) ? no_memory(j, err) : GYRE_OK;
}

gyre_status gyre_journal_source(struct gyre_journal *j, const struct gyre_tensor *t, const char *sha256,
                                gyre_error *err)
{
    json_t *row = json_pack("{s:s, s:s, s:o, s:s}", "name", t->name, "type", gyre_dtype_info(t->type)->name, "shape",
                            shape_of(t->n_dims, t->dims), "sha256", sha256);
    return json_array_append_new(json_object_get(j->state, "sources"), row) ? no_memory(j, err) : GYRE_OK;
}

static void stream_path(const struct gyre_journal *j, uint32_t step, char *path, size_t size)
{
    snprintf(path, size, "%s/stream-%u", j->folder, step);
}

gyre_status gyre_journal_step(struct gyre_journal *j, json_t *note, const void *const blob[2], const uint64_t bytes[2],
                              gyre_error *err)
{
    char path[4096];
    if (json_array_append_new(json_object_get(j->state, "notes"), note ? note : json_null())) return no_memory(j, err);
    if (json_object_set_new(j->state, "steps", json_integer(j->steps + 1))) return no_memory(j, err);
    stream_path(j, j->steps + 1, path, sizeof path);
    if (blob[0] || blob[1]) GYRE_TRY(gyre_file_write2(path, blob, bytes, err));
    GYRE_TRY(save(j, err));
    stream_path(j, j->steps, path, sizeof path);
    unlink(path);
    j->steps++;
    return GYRE_OK;
}

const json_t *gyre_journal_note(const struct gyre_journal *j, uint32_t step)
{
    const json_t *note = json_array_get(json_object_get(j->state, "notes"), step);
    return json_is_null(note) ? NULL : note;
}

gyre_status gyre_journal_blob(const struct gyre_journal *j, char **data, uint64_t *bytes, gyre_error *err)
{
    char path[4096];
    *data = NULL;
    *bytes = 0;
    stream_path(j, j->steps, path, sizeof path);
    return gyre_file_exists(path) ? gyre_file_read(path, UINT64_MAX - 1, data, bytes, err) : GYRE_OK;
}

gyre_status gyre_journal_keep(const struct gyre_journal *j, const char *name, const void *const data[2],
                              const uint64_t bytes[2], gyre_error *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/kept-%s", j->folder, name);
    return gyre_file_write2(path, data, bytes, err);
}

gyre_status gyre_journal_kept(const struct gyre_journal *j, const char *name, char **data, uint64_t *bytes,
                              gyre_error *err)
{
    char path[4096];
    *data = NULL;
    *bytes = 0;
    snprintf(path, sizeof path, "%s/kept-%s", j->folder, name);
    return gyre_file_exists(path) ? gyre_file_read(path, UINT64_MAX - 1, data, bytes, err) : GYRE_OK;
}

bool gyre_journal_is_empty(const struct gyre_journal *j)
{
    bool found = false;
    DIR *dir = j->steps ? NULL : opendir(j->folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) found |= !strncmp(entry->d_name, "kept-", 5);
    if (dir) closedir(dir);
    return !j->steps && !found;
}

static const char replacing[] = "replacing", aside[] = "aside";

static gyre_status mark(struct gyre_journal *j, const char *key, gyre_error *err)
{
    if (json_object_set_new(j->state, key, json_true())) return no_memory(j, err);
    return save(j, err);
}

gyre_status gyre_journal_replace(struct gyre_journal *j, gyre_error *err) { return mark(j, replacing, err); }

bool gyre_journal_replaces(const struct gyre_journal *j) { return json_is_true(json_object_get(j->state, replacing)); }

gyre_status gyre_journal_aside(struct gyre_journal *j, gyre_error *err) { return mark(j, aside, err); }

gyre_status gyre_journal_rehash(struct gyre_journal *j, uint64_t tensor, const char *sha256, gyre_error *err)
{
    json_t *row = json_array_get(json_object_get(j->state, "tensors"), tensor);
    return json_object_set_new(row, "sha256", json_string(sha256)) ? no_memory(j, err) : GYRE_OK;
}

// NULL where there is none that can be read.
static json_t *state_beside(const char *output)
{
    char path[4096], *text = NULL;
    uint64_t bytes;
    if ((size_t)snprintf(path, sizeof path, "%s.journal/state.json", output) >= sizeof path ||
        gyre_file_read(path, MAX_STATE, &text, &bytes, NULL) != GYRE_OK)
        return NULL;
    json_t *state = json_loadb(text, bytes, 0, NULL);
    free(text);
    return state;
}

bool gyre_journal_choice(const char *output, struct gyre_choice *choice)
{
    json_t *state = state_beside(output);
    const bool good = gyre_choice_read(json_object_get(state, "choice"), choice);
    json_decref(state);
    return good;
}

static bool of_this_build(const json_t *state)
{
    const char *build = json_string_value(json_object_get(state, "build"));
    return build && !strcmp(build, gyre_build_identity);
}

bool gyre_journal_is_foreign(const char *output)
{
    json_t *state = state_beside(output);
    const bool foreign = json_is_object(json_object_get(state, "run")) && !of_this_build(state);
    json_decref(state);
    return foreign;
}

bool gyre_journal_put_aside(const char *output)
{
    json_t *state = state_beside(output);
    const bool yes = json_is_true(json_object_get(state, aside));
    json_decref(state);
    return yes;
}

// ---- resuming ---------------------------------------------------------------------------------------------

// Names the first difference, so that the user sees which of the two runs is meant.
static gyre_status compare_runs(const struct gyre_journal *j, json_t *run, gyre_error *err)
{
    json_t *before = json_object_get(j->state, "run"), *now;
    const char *key;
    if (!json_is_object(before)) return damaged(j, "state.json says nothing of its run", err);
    if (json_equal(before, run) && !of_this_build(j->state))
        return gyre_fail(
            err, GYRE_E_IO,
            "cannot resume (%s): another build of gyre began it, whose numbers may differ; go on with that "
            "one, or start over with --force",
            j->folder);
    if (json_equal(before, run)) return GYRE_OK;
    json_object_foreach(run, key, now)
    {
        json_t *then = json_object_get(before, key);
        if (json_equal(then, now)) continue;
        char *a = then ? json_dumps(then, JSON_ENCODE_ANY | JSON_COMPACT) : NULL,
             *b = json_dumps(now, JSON_ENCODE_ANY | JSON_COMPACT);
        const gyre_status st = gyre_fail(err, GYRE_E_IO,
                                         "cannot resume (%s): it belongs to another run (%s %.80s, now %.80s); repeat "
                                         "that run, or start over with --force",
                                         j->folder, key, a ? a : "absent", b ? b : "?");
        free(a);
        free(b);
        return st;
    }
    return damaged(j, "it belongs to another version of gyre", err);
}

// File number `f` of OUT.part holds those of the first n tensors that lie in it.
static gyre_status verify_file(struct gyre_journal *j, const struct gyre_writer *w, const char *part, uint32_t f,
                               uint64_t n, gyre_error *err)
{
    const json_t *rows = json_object_get(j->state, "tensors");
    const struct gyre_written_file *file = &w->file[f];
    struct gyre_file_map map;
    char *path = gyre_writer_path(w, part, f);
    gyre_status st = path ? gyre_file_map(path, &map, err) : no_memory(j, err);
    free(path);
    if (st != GYRE_OK) return st;
    if (map.size != file->bytes || memcmp(map.data, file->front, file->front_bytes))
        st = damaged(j, "the .part file beside it is of another run", err);
    for (uint64_t i = 0; i < n && st == GYRE_OK; i++) {
        const struct gyre_written *t = &w->tensor[i];
        const json_t *row = json_array_get(rows, i), *first = json_object_get(row, "first");
        const char *name = json_string_value(json_object_get(row, "name")),
                   *want = json_string_value(json_object_get(row, "sha256"));
        char hex[GYRE_SHA256_HEX];
        if (t->file != f) continue;
        gyre_sha256_of(map.data + t->offset, t->bytes, hex);
        if (!name || strcmp(name, t->name) || json_integer_value(first) != (json_int_t)t->first || !want ||
            (strcmp(want, hex) && !gyre_journal_replaces(j)))
            st = damaged(j, "the .part file beside it does not hold what it says", err);
    }
    gyre_file_unmap(&map);
    return st;
}

// The tensors that the journal lists are the plan's first ones, and OUT.part holds them.
static gyre_status verify(struct gyre_journal *j, const struct gyre_writer *w, const char *part, uint64_t *next,
                          gyre_error *err)
{
    const uint64_t most = w->n_tensors ? (uint64_t)w->tensor[w->n_tensors - 1].part.layer + 2 : 0; // steps of a run
    const json_t *rows = json_object_get(j->state, "tensors"), *steps = json_object_get(j->state, "steps");
    const uint64_t n = json_array_size(rows);
    const json_int_t done = json_integer_value(steps);
    if (!json_is_array(rows) || !json_is_integer(steps) || !json_is_array(json_object_get(j->state, "sources")) ||
        json_array_size(json_object_get(j->state, "notes")) != (size_t)done)
        return damaged(j, "state.json lacks a part", err);
    if (done < 0 || (uint64_t)done > most || n != gyre_writer_tensors(w, (uint64_t)done))
        return damaged(j, "state.json contradicts itself", err);
    for (uint32_t f = 0; f < w->n_files; f++) GYRE_TRY(verify_file(j, w, part, f, n, err));
    *next = n;
    j->steps = j->resumed_steps = (uint32_t)done;
    return GYRE_OK;
}

gyre_status gyre_journal_resume(struct gyre_journal *j, json_t *run, const struct gyre_writer *writer, const char *part,
                                uint64_t *next, gyre_error *err)
{
    char *text;
    uint64_t bytes;
    json_error_t where;
    GYRE_TRY(gyre_file_read(j->state_path, MAX_STATE, &text, &bytes, err));
    json_t *state = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    free(text);
    if (!state) return damaged(j, "state.json is no JSON", err);
    j->state = state;
    gyre_status st =
        json_is_object(state) ? compare_runs(j, run, err) : damaged(j, "state.json is no JSON object", err);
    if (st == GYRE_OK) st = verify(j, writer, part, next, err);
    if (st != GYRE_OK) { // not ours to remove: close sees no state
        json_decref(j->state);
        j->state = NULL;
    }
    return st;
}
