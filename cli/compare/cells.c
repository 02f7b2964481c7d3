// See compare_cells.h.
//
// The float model is evaluated once and its largest logits are stored, instead of running it beside every cell: a cell then
// costs one evaluation instead of two, one model is in memory at a time, and cells of interrupted runs compare with the very
// same numbers. The price is that KL is a lower bound (gyre.h), a close one with many logits.
#include "cli/compare/cells.h"
#include "cli/cli.h"
#include "runtime/util/clock.h"
#include "runtime/util/file.h"

#include <gyre/gyre_quantize.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// ---- digests ------------------------------------------------------------------------------------------------------

static gyre_status add_file(struct gyre_sha256 *sha, const char *path, gyre_error *err)
{
    struct gyre_file_map map;
    GYRE_TRY(gyre_file_map(path, &map, err));
    gyre_sha256_add(sha, map.data, (size_t)map.size);
    gyre_file_unmap(&map);
    return GYRE_OK;
}

static int is_model_file(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot && (strcmp(dot, ".safetensors") == 0 || strcmp(dot, ".json") == 0);
}

// A file's bytes, or names and bytes of the files that make a Hugging Face folder a model.
static gyre_status hash_model(const char *path, char hex[GYRE_SHA256_HEX], gyre_error *err)
{
    struct gyre_sha256 sha;
    struct stat info;
    struct dirent **entries = NULL;
    gyre_status st = GYRE_OK;
    gyre_sha256_init(&sha);
    if (stat(path, &info) || !S_ISDIR(info.st_mode)) {
        GYRE_TRY(add_file(&sha, path, err));
        gyre_sha256_end(&sha, hex);
        return GYRE_OK;
    }
    const int n = scandir(path, &entries, is_model_file, alphasort);
    if (n < 0) st = gyre_fail(err, GYRE_E_IO, "cannot list folder (%s)", path);
    for (int i = 0; i < n; i++) {
        char file[4096];
        snprintf(file, sizeof file, "%.3700s/%.300s", path, entries[i]->d_name);
        gyre_sha256_add(&sha, entries[i]->d_name, strlen(entries[i]->d_name) + 1);
        if (st == GYRE_OK) st = add_file(&sha, file, err);
        free(entries[i]);
    }
    free(entries);
    gyre_sha256_end(&sha, hex);
    return st;
}

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "cannot compare: out of memory"); }

// What every cell depends on; the float cell on nothing else.
static json_t *identity(const struct compare *c)
{
    json_t *out = json_pack("{s:s, s:s, s:i, s:i, s:i}", "gyre", GYRE_VERSION, "model", c->model_sha, "ctx",
                            (int)c->ctx, "windows", (int)c->windows, "reference_k", (int)c->reference_k);
    json_t *texts = json_array();
    for (uint32_t i = 0; i < c->texts.n; i++) json_array_append_new(texts, json_string(c->texts.text[i].sha256));
    json_object_set_new(out, "texts", texts);
    return out;
}

// What quantized weights depend on: without calibration not on activations and cache.
static json_t *weights_identity(const struct compare *c, const struct compare_recipe *r, const struct cli_setting *s)
{
    json_t *out =
        json_pack("{s:s, s:s, s:s, s:i, s:i, s:I, s:s}", "gyre", GYRE_VERSION, "model", c->model_sha, "recipe", r->key,
                  "wbits", (int)s->wbits, "wgroup", (int)s->wgroup, "seed", (json_int_t)c->seed, "profile", c->profile);
    if (r->calibrates)
        json_object_update_new(
            out, json_pack("{s:i, s:i, s:s}", "act", (int)s->act, "kv", (int)s->kv, "calib", c->calib_sha));
    return out;
}

static gyre_status key_of(json_t *id, char key[GYRE_SHA256_HEX], gyre_error *err) // takes the reference
{
    const int good = id && cli_cells_key(id, key);
    json_decref(id);
    return good ? GYRE_OK : no_memory(err);
}

static gyre_status texts_apart(const struct compare *c, const char *output, gyre_error *err)
{
    for (uint32_t i = 0; i < c->texts.n; i++) GYRE_TRY(gyre_file_apart(output, c->texts.text[i].path, "a text", err));
    return GYRE_OK;
}

gyre_status compare_begin(struct compare *c, gyre_error *err)
{
    char key[GYRE_SHA256_HEX];
    GYRE_TRY(hash_model(c->model, c->model_sha, err));
    struct gyre_sha256 sha;
    gyre_sha256_init(&sha);
    for (uint32_t i = 0; i < c->calib.n; i++) GYRE_TRY(add_file(&sha, c->calib.item[i], err));
    gyre_sha256_end(&sha, c->calib_sha);
    GYRE_TRY(gyre_make_dirs(c->work, err));
    GYRE_TRY(cli_cells_open(c->work, &c->cells, err));
    GYRE_TRY(key_of(identity(c), key, err));
    snprintf(c->reference_path, sizeof c->reference_path, "%.4000s/float-%.12s.logits", c->work, key);
    return texts_apart(c, c->reference_path, err);
}

void compare_end(struct compare *c)
{
    gyre_reference_close(c->stored);
    cli_cells_close(&c->cells);
    cli_texts_free(&c->texts);
}

// ---- progress -----------------------------------------------------------------------------------------------------

// A cell counts as two halves, quantizing and evaluating; the line tells where the whole comparison is.
struct tick {
    const struct compare *c;
    char what[160];
};

static double overall(const struct compare *c, double cell) { return (c->at - 1 + cell) / c->total; }

static int on_quantize(void *user, double fraction, double eta, const char *what)
{
    const struct tick *t = user;
    (void)what, (void)eta; // of this file alone
    cli_progress(overall(t->c, 0.5 * fraction), -1, t->what);
    return cli_interrupted();
}

static int on_eval(void *user, double fraction, double ppl)
{
    const struct tick *t = user;
    (void)ppl;
    cli_progress(overall(t->c, 0.5 + 0.5 * fraction), -1, t->what);
    return cli_interrupted();
}

static int on_load(void *user, double fraction, const char *what)
{
    (void)user, (void)fraction, (void)what;
    return cli_interrupted();
}

// ---- evaluating ---------------------------------------------------------------------------------------------------

static bool twice(const struct cli_texts *texts, uint32_t i)
{
    for (uint32_t k = 0; k < texts->n; k++) {
        if (k != i && strcmp(texts->text[k].name, texts->text[i].name) == 0) return true;
    }
    return false;
}

static json_t *add_results(const struct compare *c, const gyre_eval_result *each, const gyre_eval_result *all,
                           const char *device, json_t *row)
{
    json_t *texts = json_array(), *total = json_object();
    bool failed = !texts || !total || !row;
    for (uint32_t i = 0; i < c->texts.n && !failed; i++) {
        const struct cli_text *t = &c->texts.text[i];
        json_t *text = json_pack("{s:o}", "text", cli_json_text(twice(&c->texts, i) ? t->path : t->name));
        failed = !text || cli_eval_figures(text, &each[i]) || json_array_append(texts, text);
        json_decref(text);
    }
    failed = failed || cli_eval_figures(total, all) || json_object_set(row, "texts", texts) ||
             json_object_set(row, "all", total);
    failed = failed || json_object_set_new(row, "eval_seconds", json_real(all->seconds)) ||
             json_object_set_new(row, "device", json_string(device));
    json_decref(texts);
    json_decref(total);
    if (!failed) return row;
    json_decref(row);
    return NULL;
}

// Evaluates a file; takes the reference of *row and gives it back with the figures, or drops it.
static gyre_status evaluate(struct compare *c, const char *file, uint32_t act, uint32_t kv, const char *save,
                            json_t **row, gyre_error *err)
{
    gyre_engine *engine = NULL;
    gyre_engine_info info;
    gyre_eval_text texts[CLI_LIST_MAX];
    gyre_eval_result each[CLI_LIST_MAX], all;
    struct tick tick = {.c = c};
    gyre_status st = GYRE_OK;
    const gyre_engine_params params = {
        .device = c->device, .act = act, .kv = kv, .context = c->ctx, .log = cli_log(true), .progress = on_load};
    snprintf(tick.what, sizeof tick.what, "cell %u of %u: evaluating %.80s", c->at, c->total, cli_base_name(file));
    GYRE_GO(gyre_engine_open(file, &params, &engine, err));
    gyre_engine_describe(engine, &info);
    if (!c->texts.text[0].tokens)
        GYRE_GO(cli_texts_tokenize(&c->texts, engine, 0, err)); // quantizing keeps the tokenizer
    cli_texts_for_eval(&c->texts, texts);
    const uint32_t k = c->reference_k < info.vocab ? c->reference_k : info.vocab;
    const gyre_eval_params how = {.ctx = c->ctx,
                                  .windows = c->windows,
                                  .stored = save ? NULL : c->stored,
                                  .save = save,
                                  .save_k = k,
                                  .progress = on_eval,
                                  .user = &tick};
    GYRE_GO(gyre_eval_texts(engine, texts, c->texts.n, &how, each, &all, err));
    *row = add_results(c, each, &all, info.device, *row);
    if (!*row) st = no_memory(err);
done:
    gyre_engine_close(engine, NULL);
    if (st != GYRE_OK) {
        json_decref(*row);
        *row = NULL;
    }
    return st;
}

// ---- what files hold ------------------------------------------------------------------------------------------------

static double field(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

// Bits a weight of the blocks' linears, scales included, and the size of the whole.
static gyre_status weigh(const char *path, double *bits, double *bytes, gyre_error *err)
{
    char *text = NULL;
    size_t i;
    json_t *tensor;
    double stored = 0;
    GYRE_TRY(gyre_inspect(path, &text, err));
    json_t *file = json_loads(text, 0, NULL);
    const json_t *m = json_object_get(file, "model");
    free(text);
    if (!file) return no_memory(err);
    json_array_foreach(json_object_get(file, "tensors"), i, tensor)
    {
        const char *name = json_string_value(json_object_get(tensor, "name"));
        const bool block = name && (strncmp(name, "blk.", 4) == 0 || strstr(name, ".layers."));
        if (block && json_array_size(json_object_get(tensor, "shape")) == 2) stored += field(tensor, "bytes");
    }
    const double heads = (2 * field(m, "heads") + 2 * field(m, "kv_heads")) * field(m, "head_dim");
    const double weights = field(m, "layers") * field(m, "width") * (heads + 3 * field(m, "ffn"));
    *bits = weights > 0 ? 8 * stored / weights : 0;
    *bytes = field(file, "bytes");
    json_decref(file);
    return GYRE_OK;
}

// ---- the float model ------------------------------------------------------------------------------------------------

static gyre_status make_float(struct compare *c, const char *key, json_t **row, gyre_error *err)
{
    double bits, bytes;
    GYRE_TRY(weigh(c->model, &bits, &bytes, err));
    *row = json_pack("{s:s, s:s, s:i, s:i, s:f, s:f}", "recipe", "float", "setting", "A16KV16", "act", 16, "kv", 16,
                     "bits_per_weight", bits, "bytes", bytes);
    GYRE_TRY(evaluate(c, c->model, 16, 16, c->reference_path, row, err));
    return cli_cells_put(&c->cells, "cells", key, *row, err);
}

gyre_status compare_float(struct compare *c, json_t **row, gyre_error *err)
{
    char key[GYRE_SHA256_HEX];
    GYRE_TRY(key_of(identity(c), key, err));
    *row = json_incref(cli_cells_find(&c->cells, "cells", key));
    if (*row) return GYRE_OK;
    c->made++;
    return make_float(c, key, row, err);
}

// Opens the stored logits; a file that was cleaned away or damaged is made anew.
static gyre_status need_reference(struct compare *c, gyre_error *err)
{
    char key[GYRE_SHA256_HEX];
    json_t *row = NULL;
    if (c->stored) return GYRE_OK;
    if (gyre_reference_open(c->reference_path, &c->stored, NULL) == GYRE_OK) return GYRE_OK;
    GYRE_TRY(key_of(identity(c), key, err));
    GYRE_TRY(make_float(c, key, &row, err));
    json_decref(row);
    return gyre_reference_open(c->reference_path, &c->stored, err);
}

// ---- a cell ---------------------------------------------------------------------------------------------------------

// A run that was killed before its first step leaves a folder without a state: nothing to go on with.
static bool can_resume(const char *output)
{
    char state[4200];
    snprintf(state, sizeof state, "%s.journal/state.json", output);
    return gyre_file_exists(state);
}

// The quantized file and its record {file, bits_per_weight, bytes, quantize_seconds}: borrowed.
static gyre_status need_weights(struct compare *c, const struct compare_recipe *r, const struct cli_setting *s,
                                char *path, size_t size, json_t **record, gyre_error *err)
{
    char key[GYRE_SHA256_HEX], setting[CLI_SETTING_NAME];
    double bits, bytes;
    struct tick tick = {.c = c};
    GYRE_TRY(key_of(weights_identity(c, r, s), key, err));
    if (r->calibrates) cli_setting_name(s, setting);
    else cli_setting_weights(s, setting);
    if ((size_t)snprintf(path, size, "%s/%s-%s-%.8s.gguf", c->work, r->stem, setting, key) >= size)
        return gyre_fail(err, GYRE_E_IO, "cannot use folder (%s): its name is too long", c->work);
    GYRE_TRY(texts_apart(c, path, err)); // gyre_quantize sees to what it reads itself
    *record = cli_cells_find(&c->cells, "weights", key);
    if (*record && gyre_file_exists(path)) return GYRE_OK;
    snprintf(tick.what, sizeof tick.what, "cell %u of %u: quantizing %.60s %s", c->at, c->total, r->label, setting);
    const gyre_quantize_params p = {.source = c->model,
                                    .output = path,
                                    .recipe = r->arg,
                                    .wbits = s->wbits,
                                    .wgroup = (int32_t)s->wgroup,
                                    .act = s->act,
                                    .kv = s->kv,
                                    .profile = c->profile,
                                    .calib = c->calib.item,
                                    .n_calib = r->calibrates ? c->calib.n : 0,
                                    .seed = c->seed,
                                    .resume = can_resume(path),
                                    .force = true,
                                    .log = cli_log(true),
                                    .progress = on_quantize,
                                    .user = &tick};
    const uint64_t start = gyre_clock_ns();
    const gyre_status st = gyre_quantize(&p, NULL, err);
    const double seconds = 1e-9 * (double)(gyre_clock_ns() - start);
    if (st != GYRE_OK) return st;
    GYRE_TRY(weigh(path, &bits, &bytes, err));
    *record = json_pack("{s:o, s:f, s:f, s:f}", "file", cli_json_text(cli_base_name(path)), "bits_per_weight", bits,
                        "bytes", bytes, "quantize_seconds", seconds);
    if (!*record) return no_memory(err);
    const gyre_status put = cli_cells_put(&c->cells, "weights", key, *record, err);
    json_decref(*record); // the journal has it
    return put;
}

static bool fatal(gyre_status st) { return st == GYRE_E_CANCELLED || st == GYRE_E_NO_DEVICE || st == GYRE_E_NOMEM; }

static gyre_status make_cell(struct compare *c, const struct compare_recipe *r, const struct cli_setting *s,
                             json_t **row, gyre_error *err)
{
    char path[4096];
    json_t *record = NULL;
    GYRE_TRY(need_weights(c, r, s, path, sizeof path, &record, err));
    json_object_update(*row, record);
    json_object_del(*row, "file");
    json_incref(*row); // evaluate drops its own on failure
    return evaluate(c, path, s->act, s->kv, NULL, row, err);
}

gyre_status compare_cell(struct compare *c, const struct compare_recipe *r, const struct cli_setting *s, json_t **row,
                         gyre_error *err)
{
    char key[GYRE_SHA256_HEX], setting[CLI_SETTING_NAME];
    json_t *id = identity(c), *weights = weights_identity(c, r, s);
    json_object_update_new(id, json_pack("{s:o, s:i, s:i}", "weights", weights, "act", (int)s->act, "kv", (int)s->kv));
    GYRE_TRY(key_of(id, key, err));
    cli_setting_name(s, setting);
    json_t *old = cli_cells_find(&c->cells, "cells", key);
    if (old) {
        *row = json_deep_copy(old);
        if (!*row) return no_memory(err);
        json_object_set_new(*row, "recipe", json_string(r->label)); // the label depends on the other recipes
        return GYRE_OK;
    }
    c->made++;
    GYRE_TRY(need_reference(c, err));
    json_t *made = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i}", "recipe", r->label, "setting", setting, "wbits",
                             (int)s->wbits, "wgroup", (int)s->wgroup, "act", (int)s->act, "kv", (int)s->kv);
    if (!made) return no_memory(err);
    *row = made;
    const gyre_status st = make_cell(c, r, s, row, err);
    if (st == GYRE_OK) {
        json_decref(made); // the second reference
        return cli_cells_put(&c->cells, "cells", key, *row, err);
    }
    *row = made;
    if (fatal(st)) {
        json_decref(made);
        *row = NULL;
        return st;
    }
    cli_progress_end();
    fprintf(stderr, "%s %s failed: %s\n", r->label, setting, err->message);
    json_object_set_new(*row, "failed", cli_json_text(err->message));
    return GYRE_OK;
}

// ---- cleaning -------------------------------------------------------------------------------------------------------

void compare_clean(struct compare *c)
{
    const char *key;
    json_t *record;
    char path[4096];
    gyre_reference_close(c->stored);
    c->stored = NULL;
    unlink(c->reference_path);
    json_object_foreach(json_object_get(c->cells.root, "weights"), key, record)
    {
        const char *file = json_string_value(json_object_get(record, "file"));
        if (!file || strchr(file, '/')) continue;
        if ((size_t)snprintf(path, sizeof path, "%s/%s", c->work, file) < sizeof path) unlink(path);
        if ((size_t)snprintf(path, sizeof path, "%s/%s.manifest.json", c->work, file) < sizeof path) unlink(path);
    }
}
