// See cells.h.
//
// The float model is evaluated once and its logits are stored, instead of running it beside every cell: a cell then
// costs one evaluation instead of two, one model at a time is in memory, and cells of interrupted runs compare with the
// very same numbers. All logits make the KL exact; where they take more room than is allowed the float model runs
// beside each cell after all.
#include "cli/compare/cells.h"
#include "cli/cli.h"
#include "runtime/util/base.h"
#include "runtime/util/clock.h"
#include "runtime/util/file.h"
#include "runtime/util/model_hash.h"
#include "runtime/util/text.h"

#include <gyre/gyre_quantize.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Raised where a cell holds figures that earlier ones lack: these are made anew.
enum { FIGURES = 3 };

// ---- digests ------------------------------------------------------------------------------------------------------

static gyre_status add_file(struct gyre_sha256 *sha, const char *path, gyre_error *err)
{
    struct gyre_file_map map;
    GYRE_TRY(gyre_file_map(path, &map, err));
    gyre_sha256_add(sha, map.data, (size_t)map.size);
    gyre_file_unmap(&map);
    return GYRE_OK;
}

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "cannot compare: out of memory"); }

// What every cell depends on; the float cell on nothing else.
static json_t *identity(const struct compare *c)
{
    json_t *out =
        json_pack("{s:s, s:i, s:s, s:i, s:i, s:i}", "gyre", GYRE_VERSION, "figures", FIGURES, "model", c->model_sha,
                  "ctx", (int)c->ctx, "windows", (int)c->windows, "reference_k", (int)c->reference_k);
    json_t *texts = json_array(), *tasks = json_array();
    for (uint32_t i = 0; i < c->texts.n; i++) json_array_append_new(texts, json_string(c->texts.text[i].sha256));
    for (uint32_t i = 0; i < c->task_paths.n; i++) json_array_append_new(tasks, json_string(c->task_sha[i]));
    json_object_set_new(out, "texts", texts);
    json_object_set_new(out, "tasks", tasks);
    return out;
}

// What quantized files depend on: without calibration not on the cache, and on activations where the recipe makes more
// of them than a width.
static json_t *weights_identity(const struct compare *c, const struct compare_recipe *r, const struct cli_setting *s)
{
    json_t *out =
        json_pack("{s:s, s:s, s:s, s:i, s:i, s:I, s:s}", "gyre", GYRE_VERSION, "model", c->model_sha, "recipe", r->key,
                  "wbits", (int)s->wbits, "wgroup", (int)s->wgroup, "seed", (json_int_t)c->seed, "profile", c->profile);
    if (r->calibrates)
        json_object_update_new(
            out, json_pack("{s:i, s:i, s:s}", "act", (int)s->act, "kv", (int)s->kv, "calib", c->calib_sha));
    else if (r->by_act) json_object_set_new(out, "act", json_integer((json_int_t)s->act));
    if (r->calibrates && s->kv_v != s->kv) json_object_set_new(out, "kv_v", json_integer((json_int_t)s->kv_v));
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
    for (uint32_t i = 0; i < c->task_paths.n; i++)
        GYRE_TRY(gyre_file_apart(output, c->task_paths.item[i], "a task", err));
    return GYRE_OK;
}

bool compare_calibrates(const struct compare *c)
{
    bool any = false;
    for (uint32_t i = 0; i < c->n_recipes; i++) any |= c->recipe[i].calibrates;
    return any;
}

// One text by its own bytes, the bundled one (also where none is named) by those that were built in. Of several each
// has its share of the windows, so that it counts where one ends and the next begins: the hashes of all.
static gyre_status hash_calib(struct compare *c, gyre_error *err)
{
    struct gyre_sha256 all, sha;
    gyre_sha256_init(&all);
    for (uint32_t i = 0; i < GYRE_MAX(c->calib.n, 1u); i++) {
        const char *item = c->calib.n ? c->calib.item[i] : GYRE_CALIB_BUNDLED;
        if (!strcmp(item, GYRE_CALIB_BUNDLED)) memcpy(c->calib_sha, GYRE_BUNDLED_SHA256, GYRE_SHA256_HEX);
        else if (!strcmp(item, GYRE_CALIB_SELF)) gyre_sha256_of(item, strlen(item), c->calib_sha);
        else {
            gyre_sha256_init(&sha);
            GYRE_TRY(add_file(&sha, item, err));
            gyre_sha256_end(&sha, c->calib_sha);
        }
        gyre_sha256_add(&all, c->calib_sha, GYRE_SHA256_HEX);
        for (uint32_t k = 0; k < c->texts.n; k++)
            c->flattered[k] |= compare_calibrates(c) && strcmp(c->texts.text[k].sha256, c->calib_sha) == 0;
    }
    if (c->calib.n > 1) gyre_sha256_end(&all, c->calib_sha);
    return GYRE_OK;
}

gyre_status compare_begin(struct compare *c, gyre_error *err)
{
    char key[GYRE_SHA256_HEX];
    struct gyre_model_hash hash;
    const gyre_status st = gyre_model_hash(c->model, &hash, err);
    memcpy(c->model_sha, hash.sha256, sizeof c->model_sha);
    gyre_model_hash_free(&hash);
    if (st != GYRE_OK) return st;
    struct gyre_sha256 sha;
    GYRE_TRY(hash_calib(c, err));
    for (uint32_t i = 0; i < c->task_paths.n; i++) {
        gyre_sha256_init(&sha);
        GYRE_TRY(add_file(&sha, c->task_paths.item[i], err));
        gyre_sha256_end(&sha, c->task_sha[i]);
    }
    c->made_work = !gyre_file_exists(c->work);
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
    for (uint32_t i = 0; i < CLI_LIST_MAX; i++) cli_task_free(&c->task[i]);
    if (c->made_work) rmdir(c->work); // stays where anything is in it
}

// ---- progress -----------------------------------------------------------------------------------------------------

// A cell counts as two halves, quantizing and evaluating; the line tells where the whole comparison is.
struct tick {
    const struct compare *c;
    char what[160];
    struct cli_cell *cell; // under evaluation
    bool lost;             // memory ran out for its blocks
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

static int on_token(void *user, const gyre_eval_token *t)
{
    struct tick *tick = user;
    struct cli_blocks *blocks = &tick->cell->text[t->text].blocks;
    blocks->ctx = tick->c->ctx;
    tick->lost = !cli_blocks_add(blocks, t);
    return tick->lost;
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

// What texts are called now: a cell of an earlier run may have other names for them.
static bool name_texts(const struct compare *c, struct cli_cell *cell)
{
    bool good = true;
    for (uint32_t i = 0; i < cell->n_texts && i < c->texts.n; i++) {
        const struct cli_text *t = &c->texts.text[i];
        free(cell->text[i].name);
        cell->text[i].name = strdup(twice(&c->texts, i) ? t->path : t->name);
        good &= cell->text[i].name != NULL;
    }
    return good;
}

static bool add_results(const struct compare *c, const gyre_eval_result *each, const gyre_eval_result *all,
                        const char *device, struct cli_cell *cell)
{
    cell->all = *all;
    cell->eval_seconds = all->seconds;
    snprintf(cell->device, sizeof cell->device, "%s", device);
    for (uint32_t i = 0; i < c->texts.n; i++) cell->text[i].result = each[i];
    return name_texts(c, cell);
}

// What is asked of every model, as tokens. Quantizing keeps the tokenizer: the first engine serves for all.
static gyre_status tokenize(struct compare *c, const gyre_engine *engine, gyre_error *err)
{
    const struct cli_tokens as_told = {0};
    if (c->texts.text[0].tokens) return GYRE_OK;
    for (uint32_t i = 0; i < c->task_paths.n; i++) {
        GYRE_TRY(cli_task_read(c->task_paths.item[i], engine, &as_told, c->ctx, &c->task[i], err));
        cli_task_warn(&c->task[i]);
    }
    return cli_texts_tokenize(&c->texts, engine, 0, err);
}

// Whether all logits of the float model fit where they may be stored: 4 bytes each, beside which all else is little.
static bool fits(const struct compare *c, uint32_t vocab)
{
    double rows = 0;
    for (uint32_t i = 0; i < c->texts.n; i++)
        rows += (double)(c->windows ? c->windows : c->texts.text[i].n_tokens / c->ctx) * (c->ctx - 1);
    return rows * vocab * 4 <= c->reference_mib * 1048576.0;
}

static gyre_status evaluate_texts(struct compare *c, gyre_engine *engine, gyre_engine *reference, const char *save,
                                  struct tick *tick, gyre_eval_result *each, gyre_eval_result *all, gyre_error *err)
{
    gyre_engine_info info;
    gyre_eval_text texts[CLI_LIST_MAX];
    gyre_engine_describe(engine, &info);
    cli_texts_for_eval(&c->texts, texts);
    const gyre_eval_params how = {.size = sizeof how,
                                  .ctx = c->ctx,
                                  .windows = c->windows,
                                  .reference = reference,
                                  .stored = save ? NULL : c->stored,
                                  .save = save,
                                  .save_k = c->reference_k && c->reference_k < info.vocab ? c->reference_k : info.vocab,
                                  .progress = on_eval,
                                  .user = tick,
                                  .token = on_token};
    const gyre_status st = gyre_eval_texts(engine, texts, c->texts.n, &how, each, all, err);
    return tick->lost ? no_memory(err) : st;
}

// Evaluates a file; the figures go into the cell, which has room for the texts and tasks. `is_float`: it is the model
// that all others are held against, whose logits are stored where there is room for them.
static gyre_status evaluate(struct compare *c, const char *file, bool is_float, struct cli_cell *cell, gyre_error *err)
{
    gyre_engine *engine = NULL, *reference = NULL;
    gyre_engine_info info;
    gyre_eval_result each[CLI_LIST_MAX], all;
    struct tick tick = {.c = c, .cell = cell};
    gyre_status st = GYRE_OK;
    gyre_engine_params params = {.size = sizeof params,
                                 .device = c->device,
                                 .act = cell->widths.act,
                                 .kv = cell->widths.kv,
                                 .kv_v = cell->widths.kv_v,
                                 .context = c->ctx,
                                 .sequences = c->task_paths.n ? CLI_TASK_SEQUENCES : 0,
                                 .logit_rows = c->task_paths.n ? CLI_TASK_ROWS : 0,
                                 .log = cli_log(true),
                                 .progress = on_load};
    snprintf(tick.what, sizeof tick.what, "cell %u of %u: evaluating %.80s", c->at, c->total, gyre_base_name(file));
    GYRE_GO(gyre_engine_open(file, &params, &engine, err));
    gyre_engine_describe(engine, &info);
    GYRE_GO(tokenize(c, engine, err));
    if (is_float) c->beside = cell->beside = !c->reference_k && !fits(c, info.vocab);
    if (c->beside && !is_float) {
        params.act = params.kv = params.kv_v = 16;
        GYRE_GO(gyre_engine_open_beside(engine, c->model, &params, &reference, err));
    }
    GYRE_GO(evaluate_texts(c, engine, reference, is_float && !c->beside ? c->reference_path : NULL, &tick, each, &all,
                           err));
    for (uint32_t i = 0; i < c->task_paths.n; i++)
        GYRE_GO(cli_task_answer(&c->task[i], engine, true, &cell->task[i], err));
    if (!add_results(c, each, &all, info.device, cell)) st = no_memory(err);
done:
    gyre_engine_close(reference, NULL);
    gyre_engine_close(engine, NULL);
    return st;
}

// ---- the float model ------------------------------------------------------------------------------------------------

static gyre_status make_float(struct compare *c, const char *key, struct cli_cell *out, gyre_error *err)
{
    gyre_model_size size;
    cli_cell_free(out);
    if (!cli_cell_create(c->texts.n, c->task_paths.n, out)) return no_memory(err);
    GYRE_TRY(gyre_model_weigh(c->model, &size, err));
    snprintf(out->recipe, sizeof out->recipe, "float");
    snprintf(out->setting, sizeof out->setting, "A16KV16");
    out->widths = (struct cli_setting){.act = 16, .kv = 16, .kv_v = 16};
    out->bits_per_weight = size.bits_per_weight;
    out->bytes = (double)size.bytes;
    GYRE_TRY(evaluate(c, c->model, true, out, err));
    return cli_cells_put(&c->cells, key, out, err);
}

gyre_status compare_float(struct compare *c, struct cli_cell *out, gyre_error *err)
{
    char key[GYRE_SHA256_HEX];
    GYRE_TRY(key_of(identity(c), key, err));
    if (cli_cells_find(&c->cells, key, out)) {
        c->beside = out->beside;
        return name_texts(c, out) ? GYRE_OK : no_memory(err);
    }
    c->made++;
    return make_float(c, key, out, err);
}

// Opens the stored logits; a file that was cleaned away or damaged is made anew.
static gyre_status need_reference(struct compare *c, gyre_error *err)
{
    char key[GYRE_SHA256_HEX];
    struct cli_cell cell = {0};
    if (c->stored || c->beside) return GYRE_OK;
    if (gyre_reference_open(c->reference_path, &c->stored, NULL) == GYRE_OK) return GYRE_OK;
    GYRE_TRY(key_of(identity(c), key, err));
    const gyre_status st = make_float(c, key, &cell, err);
    cli_cell_free(&cell);
    if (st != GYRE_OK || c->beside) return st;
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

// What gyre_quantize is asked for a cell, but for its file.
static gyre_quantize_params made_with(const struct compare *c, const struct compare_recipe *r,
                                      const struct cli_setting *s)
{
    return (gyre_quantize_params){.size = sizeof(gyre_quantize_params),
                                  .source = c->model,
                                  .recipe = r->arg,
                                  .wbits = s->wbits,
                                  .wgroup = s->wgroup ? (int32_t)s->wgroup : GYRE_WGROUP_ROW,
                                  .act = s->act,
                                  .kv = s->kv,
                                  .kv_v = s->kv_v,
                                  .profile = c->profile,
                                  .calib = c->calib.item,
                                  .n_calib = r->calibrates ? c->calib.n : 0,
                                  .seed = c->seed};
}

gyre_status compare_possible(const struct compare *c, gyre_error *err)
{
    gyre_error first = {0}, other;
    for (uint32_t i = 0; i < c->n_recipes * c->n_settings; i++) {
        gyre_quantize_params p = made_with(c, &c->recipe[i / c->n_settings], &c->setting[i % c->n_settings]);
        p.format = "gguf";
        if (gyre_quantize_check(&p, i ? &other : &first) == GYRE_OK) return GYRE_OK;
    }
    *err = first;
    return first.code;
}

// The quantized file, made where it is not there.
static gyre_status need_weights(struct compare *c, const struct compare_recipe *r, const struct cli_setting *s,
                                char *path, size_t size, struct cli_weights *out, gyre_error *err)
{
    char key[GYRE_SHA256_HEX], setting[CLI_SETTING_NAME];
    gyre_model_size made;
    struct tick tick = {.c = c};
    GYRE_TRY(key_of(weights_identity(c, r, s), key, err));
    if (r->calibrates) cli_setting_name(s, setting);
    else cli_setting_weights(s, setting);
    if ((size_t)snprintf(path, size, "%s/%s-%s-%.8s.gguf", c->work, r->stem, setting, key) >= size)
        return gyre_fail(err, GYRE_E_IO, "cannot use folder (%s): its name is too long", c->work);
    GYRE_TRY(texts_apart(c, path, err)); // gyre_quantize sees to what it reads itself
    if (cli_cells_find_weights(&c->cells, key, out) && gyre_file_exists(path)) return GYRE_OK;
    snprintf(tick.what, sizeof tick.what, "cell %u of %u: quantizing %.60s %s", c->at, c->total, r->label, setting);
    gyre_quantize_params p = made_with(c, r, s);
    p.output = path;
    p.resume = can_resume(path);
    p.force = true;
    p.log = cli_log(true);
    p.progress = on_quantize;
    p.user = &tick;
    const uint64_t start = gyre_clock_ns();
    const gyre_status st = gyre_quantize(&p, NULL, err);
    const double seconds = 1e-9 * (double)(gyre_clock_ns() - start);
    if (st != GYRE_OK) return st;
    GYRE_TRY(gyre_model_weigh(path, &made, err));
    *out = (struct cli_weights){
        .bits_per_weight = made.bits_per_weight, .bytes = (double)made.bytes, .quantize_seconds = seconds};
    snprintf(out->file, sizeof out->file, "%s", gyre_base_name(path));
    return cli_cells_put_weights(&c->cells, key, out, err);
}

static bool fatal(gyre_status st) { return st == GYRE_E_CANCELLED || st == GYRE_E_NO_DEVICE || st == GYRE_E_NOMEM; }

static gyre_status make_cell(struct compare *c, const struct compare_recipe *r, const struct cli_setting *s,
                             struct cli_cell *cell, gyre_error *err)
{
    char path[4096];
    struct cli_weights weights;
    GYRE_TRY(need_weights(c, r, s, path, sizeof path, &weights, err));
    cell->bits_per_weight = weights.bits_per_weight;
    cell->bytes = weights.bytes;
    cell->quantize_seconds = weights.quantize_seconds;
    return evaluate(c, path, false, cell, err);
}

gyre_status compare_cell(struct compare *c, const struct compare_recipe *r, const struct cli_setting *s,
                         struct cli_cell *out, gyre_error *err)
{
    char key[GYRE_SHA256_HEX];
    json_t *id = identity(c), *weights = weights_identity(c, r, s);
    json_object_update_new(id, json_pack("{s:o, s:i, s:i}", "weights", weights, "act", (int)s->act, "kv", (int)s->kv));
    if (s->kv_v != s->kv) json_object_set_new(id, "kv_v", json_integer((json_int_t)s->kv_v));
    GYRE_TRY(key_of(id, key, err));
    const bool found = cli_cells_find(&c->cells, key, out);
    if (!found && !cli_cell_create(c->texts.n, c->task_paths.n, out)) return no_memory(err);
    snprintf(out->recipe, sizeof out->recipe, "%s", r->label); // the label depends on the other recipes
    if (found) return name_texts(c, out) ? GYRE_OK : no_memory(err);
    c->made++;
    GYRE_TRY(need_reference(c, err));
    cli_setting_name(s, out->setting);
    out->widths = *s;
    const gyre_status st = make_cell(c, r, s, out, err);
    if (st == GYRE_OK) return cli_cells_put(&c->cells, key, out, err);
    if (fatal(st)) return st;
    cli_progress_end();
    char what[128];
    snprintf(what, sizeof what, "%.64s %s failed: ", r->label, out->setting);
    cli_say(what, err->message);
    snprintf(out->failed, sizeof out->failed, "%s", err->message);
    return GYRE_OK;
}

// ---- cleaning -------------------------------------------------------------------------------------------------------

void compare_clean(struct compare *c)
{
    struct cli_weights w;
    char path[4096];
    gyre_reference_close(c->stored);
    c->stored = NULL;
    unlink(c->reference_path);
    for (uint32_t i = 0; cli_cells_weights_at(&c->cells, i, &w); i++) {
        if ((size_t)snprintf(path, sizeof path, "%s/%s", c->work, w.file) < sizeof path) unlink(path);
        if ((size_t)snprintf(path, sizeof path, "%s/%s.manifest.json", c->work, w.file) < sizeof path) unlink(path);
    }
}
