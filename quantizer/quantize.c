// The public entry: plan, then step by step through the model, then the names. See gyre_quantize.h.
// What is rounded how is layer.c's, what lies where plan.c's, what survives a kill output.c's.
#include "quantizer/check.h"
#include "quantizer/finished.h"
#include "quantizer/learn/learn.h"
#include "quantizer/pass/budget.h"
#include "quantizer/pass/distill.h"
#include "quantizer/pass/own_text.h"
#include "quantizer/pass/search.h"
#include "quantizer/file/journal.h"
#include "quantizer/file/rotations_file.h"
#include "quantizer/pass/layer.h"
#include "quantizer/file/manifest.h"
#include "quantizer/file/manifest_read.h"
#include "quantizer/report/note.h"
#include "quantizer/round/gemm.h"
#include "quantizer/recipe/fields.h"
#include "quantizer/run_report.h"
#include "quantizer/run_summary.h"
#include "quantizer/pass/summary.h"
#include "quantizer/pass/walk.h"
#include "runtime/util/base.h"
#include "runtime/util/clock.h"
#include "runtime/util/file.h"
#include "runtime/util/log.h"
#include "runtime/util/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- progress ---------------------------------------------------------------------------------------------

struct run {
    const gyre_quantize_params *params; // gyre_quantize's own copy
    gyre_quantize_summary *told;        // the caller's; NULL: nobody wants it
    struct gyre_ticker ticker;          // tick() below
    gyre_source *source;
    char *output;     // the output's name where the caller's had slashes behind it; params names it then
    json_t *identity; // what makes the run what it is
    struct gyre_plan plan;
    struct gyre_writer writer;
    struct gyre_output out;
    struct gyre_layer layer;
    gyre_device *device;                    // NULL: nothing is run
    char distills_on[GYRE_DISTILLS_ON];     // a device's id; empty: the host
    struct gyre_own_text own;               // token NULL: the model writes nothing
    struct gyre_finished finished;          // path NULL: the run begins with the model itself
    struct gyre_calib_text learns;          // what is distilled on where that is all that is done
    gyre_calibration *calibration;          // NULL: the recipe needs none
    gyre_summary *summary;                  // NULL: nothing is measured
    struct gyre_distilled distilled;        // steps 0: nothing was learned
    struct gyre_matrices rotations;         // learned ones; the plan's rotator borrows them
    struct gyre_learned_rotations learned;  // steps 0: there are none
    uint64_t started, total, done, resumed; // ns; weights
    char what[48];
};

static gyre_status tick(void *user, uint64_t weights, gyre_error *err)
{
    struct run *r = user;
    r->done += weights;
    if (!r->params->progress) return GYRE_OK;
    const double seconds = 1e-9 * (double)(gyre_clock_ns() - r->started), mine = (double)(r->done - r->resumed),
                 left = (double)(r->total - r->done);
    if (!r->params->progress(r->params->user, (double)r->done / (double)r->total, mine > 0 ? seconds / mine * left : -1,
                             r->what))
        return GYRE_OK;
    return gyre_fail(err, GYRE_E_CANCELLED, "quantizing stopped (%s): %u of %u blocks are kept; continue with --resume",
                     r->params->output, r->out.journal.steps ? r->out.journal.steps - 1 : 0, r->plan.hp.n_layers);
}

static uint64_t block_weights(const struct gyre_hparams *hp)
{
    uint64_t n = 0, rows, cols;
    for (int s = 0; s < GYRE_LINEARS; s++) {
        gyre_role_shape((gyre_role)s, hp, &rows, &cols);
        n += rows * cols;
    }
    return n;
}

static uint64_t table_weights(const struct gyre_plan *p)
{
    return (uint64_t)p->hp.vocab * p->hp.width * (p->write_head ? 2 : 1);
}

// What it calibrates or learns on; NULL: it reads none.
static const struct gyre_calib_text *text_of(const struct run *r)
{
    return r->calibration ? gyre_calibration_windows(r->calibration) : r->learns.token ? &r->learns : NULL;
}

// Tokens and outputs, for blocks to come.
static bool weighs(const struct run *r) { return r->calibration && r->out.journal.steps <= r->plan.hp.n_layers; }

static void count_work(struct run *r)
{
    const struct gyre_hparams *hp = &r->plan.hp;
    const struct gyre_calib_text *text = text_of(r);
    const uint32_t windows = text ? text->windows : 0; // as many as the text gives
    const uint64_t tables = table_weights(&r->plan), block = block_weights(hp);
    r->total = tables + block * hp->n_layers + gyre_distill_work(&r->plan, text, block * hp->n_layers) +
               (r->finished.path ? 0 : gyre_learn_work(&r->plan, windows, block * hp->n_layers));
    if (weighs(r)) r->total += gyre_calibration_weigh_work(r->calibration, block);
    if (r->out.journal.steps) r->done = r->resumed = tables + block * (r->out.journal.steps - 1);
}

// ---- measuring ----------------------------------------------------------------------------------------------

// Ends a step with what is needed to go on after a resume: the calibration's streams, then the summary's.
static gyre_status end_step(struct run *r, json_t *note, gyre_error *err)
{
    uint64_t bytes[2] = {0};
    const void *streams[2] = {r->calibration ? gyre_calibration_streams(r->calibration, &bytes[0]) : NULL,
                              r->summary ? gyre_summary_streams(r->summary, &bytes[1]) : NULL};
    return gyre_output_step(&r->out, note, streams, bytes, err);
}

// A resumed run needs its calibration; it goes on measuring only where the interrupted one measured the same text.
static gyre_status resume_streams(struct run *r, gyre_error *err)
{
    char *streams = NULL;
    uint64_t bytes = 0, mine = 0;
    if ((!r->summary && !r->calibration) || r->out.journal.steps == 0) return GYRE_OK;
    GYRE_TRY(gyre_output_blob(&r->out, &streams, &bytes, err));
    if (r->calibration) (void)gyre_calibration_streams(r->calibration, &mine);
    if (r->calibration && (bytes < mine || !gyre_calibration_restore(r->calibration, streams, mine))) {
        free(streams);
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot resume (%s): its calibration streams are missing or damaged; start over with --force",
                         r->out.journal.folder);
    }
    if (r->summary && (bytes <= mine || !gyre_summary_restore(r->summary, streams + mine, bytes - mine))) {
        gyre_logf(&r->params->log, GYRE_LOG_WARN,
                  "quantize: no closing summary: the interrupted run measured another text, or none");
        gyre_summary_close(r->summary);
        r->summary = NULL;
    }
    free(streams);
    return GYRE_OK;
}

static gyre_status no_memory(gyre_error *err) { return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the journal"); }

static gyre_status measure_block(struct run *r, json_t *note, gyre_error *err)
{
    gyre_quantize_layer errors;
    struct gyre_report_tap taps[GYRE_PRODUCTS];
    const bool look = r->params->report_dir != NULL;
    if (!r->summary) return GYRE_OK;
    GYRE_TRY(gyre_summary_block(r->summary, &r->layer, &errors, look ? taps : NULL, err));
    // A block that overflowed says so in the figures by their absence.
    const bool good = gyre_note_add(note, "rtn_error", errors.rtn_error) &&
                      gyre_note_add(note, "recipe_error", errors.recipe_error) &&
                      (!look || gyre_note_add_taps(note, taps));
    return good ? GYRE_OK : no_memory(err);
}

// ---- steps ------------------------------------------------------------------------------------------------

static double mean_error(const struct run *r, bool plain)
{
    double sum = 0;
    for (int s = 0; s < GYRE_LINEARS; s++)
        sum += plain ? gyre_layer_plain(&r->layer, &r->plan, (gyre_role)s)->error : r->layer.recipe[s].error;
    return sum / GYRE_LINEARS;
}

// Overflow is refused; too small is lost without a trace in the codes, and may matter where something large stands
// behind it.
static void warn_faint(const struct run *r)
{
    for (int s = 0; s < GYRE_LINEARS && r->plan.set.wbits < 16; s++) {
        const uint64_t faint = r->layer.recipe[s].faint;
        char name[64];
        gyre_role_name((gyre_role)s, r->layer.index, "weight", name);
        if (faint)
            gyre_logf(&r->params->log, GYRE_LOG_WARN,
                      "quantize: tensor %s: the weights of %llu rows are below what an f16 scale can hold and become "
                      "coarser or 0; --wbits 32 keeps them",
                      name, (unsigned long long)faint);
    }
}

// What the journal keeps of the block that was just made.
static gyre_status note_block(struct run *r, json_t *note, gyre_error *err)
{
    const struct gyre_recipe *recipe = &r->plan.set.recipe;
    const bool good =
        note && gyre_note_add(note, "rtn_weights", mean_error(r, true)) &&
        gyre_note_add(note, "recipe_weights", mean_error(r, false)) &&
        (!gyre_recipe_has_diagonals(recipe) ||
         !json_object_set_new(note, "diagonals", gyre_diagonals_json(&r->layer.diagonals))) &&
        (!r->calibration || r->plan.set.wbits >= 16 || gyre_note_add_linears(note, r->layer.note, recipe->n_stages));
    return good ? measure_block(r, note, err) : no_memory(err);
}

// What the finished file holds.
static gyre_status take_steps(struct run *r, gyre_error *err)
{
    const struct gyre_hparams *hp = &r->plan.hp;
    snprintf(r->what, sizeof r->what, "taking over the file");
    for (uint32_t l = r->out.journal.steps; l <= hp->n_layers; l++) {
        GYRE_TRY(gyre_finished_step(&r->finished, &r->out, err));
        GYRE_TRY(tick(r, l ? block_weights(hp) : table_weights(&r->plan), err));
    }
    return GYRE_OK;
}

static gyre_status make_steps(struct run *r, gyre_error *err)
{
    if (r->finished.path) return take_steps(r, err);
    if (r->out.journal.steps == 0) {
        snprintf(r->what, sizeof r->what, "embedding");
        GYRE_TRY(gyre_write_globals(&r->plan, &r->out, &r->ticker, err));
        if (r->calibration) GYRE_TRY(gyre_calibration_begin(r->calibration, err));
        if (r->summary) GYRE_TRY(gyre_summary_begin(r->summary, &r->out, err));
        GYRE_TRY(end_step(r, NULL, err));
    }
    GYRE_TRY(gyre_layer_create(&r->plan, &r->layer, err));
    for (uint32_t l = r->out.journal.steps - 1; l < r->plan.hp.n_layers; l++) {
        snprintf(r->what, sizeof r->what, "block %u of %u", l + 1, r->plan.hp.n_layers);
        GYRE_TRY(gyre_layer_make(&r->layer, &r->plan, l, r->calibration, &r->out, &r->ticker, err));
        warn_faint(r);
        json_t *note = json_object();
        const gyre_status st = note_block(r, note, err);
        if (st != GYRE_OK) {
            json_decref(note);
            return st;
        }
        GYRE_TRY(end_step(r, note, err));
    }
    return GYRE_OK;
}

// Before anything is merged.
static gyre_status learn(struct run *r, gyre_error *err)
{
    snprintf(r->what, sizeof r->what, "learning rotations");
    GYRE_TRY(gyre_learn(r->params, &r->plan, r->calibration ? gyre_calibration_windows(r->calibration) : NULL,
                        block_weights(&r->plan.hp) * r->plan.hp.n_layers, &r->out, &r->ticker, &r->rotations,
                        &r->learned, err));
    r->plan.rotator.learned = &r->rotations;
    return GYRE_OK;
}

static gyre_status distill(struct run *r, gyre_error *err)
{
    snprintf(r->what, sizeof r->what, "distilling");
    return gyre_distill(r->params, &r->plan, text_of(r), block_weights(&r->plan.hp) * r->plan.hp.n_layers, &r->out,
                        &r->ticker, &r->distilled, err);
}

// What the manifest tells of what was learned, and the content of the file of rotations (malloc'd; NULL: none).
static gyre_status tell_learned(const struct run *r, json_t **out, char **file, uint64_t *bytes, gyre_error *err)
{
    char hex[GYRE_SHA256_HEX];
    gyre_status st = GYRE_OK;
    json_t *told = json_object(), *rotations = NULL;
    bool good = told != NULL;
    if (r->distilled.steps) good = good && !json_object_set_new(told, "distilled", gyre_distilled_json(&r->distilled));
    if (r->finished.path && told) GYRE_GO(gyre_finished_rotations(&r->finished, told, file, bytes, err));
    if (r->learned.steps) {
        rotations = gyre_learned_json(&r->learned);
        if (!rotations) GYRE_GO(gyre_fail(err, GYRE_E_NOMEM, "out of memory for the manifest"));
        GYRE_GO(gyre_matrices_pack(&r->rotations, file, bytes, hex, err));
        const char *method = gyre_learn_name(r->plan.set.recipe.learn.method);
        good = good && !json_object_set_new(rotations, "method", json_string(method)) &&
               !json_object_set_new(rotations, "sha256", json_string(hex)) &&
               !json_object_set(told, "rotations", rotations);
    }
    if (!good) st = gyre_fail(err, GYRE_E_NOMEM, "out of memory for the manifest");
done:
    json_decref(rotations);
    *out = told;
    return st;
}

// ---- before the first step --------------------------------------------------------------------------------

// The text that the model writes for its own calibration, before anything is chosen on it.
static gyre_status write_own_text(struct run *r, gyre_error *err)
{
    const struct gyre_recipe *recipe = &r->plan.set.recipe;
    const uint32_t windows = gyre_own_text_windows(r->params, recipe->calibration.windows),
                   more = gyre_own_text_windows(r->params, gyre_recipe_more_windows(recipe));
    if (windows + more == 0 || !gyre_recipe_calibrates(recipe)) return GYRE_OK;
    if (!r->device) GYRE_TRY(gyre_walk_device(r->params, &r->device, err));
    snprintf(r->what, sizeof r->what, "writing its own text");
    r->total = 1; // nothing of what is counted is done yet
    return gyre_own_text_write(r->params, r->plan.source, r->device, windows, more, recipe->calibration.tokens,
                               &r->ticker, &r->own, err);
}

// Nothing of what is counted is done by it, but it can be stopped.
static gyre_status tick_budget(void *user, uint64_t blocks, gyre_error *err)
{
    (void)blocks;
    return tick(user, 0, err);
}

// Before anything else is chosen, so that the rest is as if the recipe had said the exceptions.
static gyre_status spend_budget(struct run *r, gyre_error *err)
{
    snprintf(r->what, sizeof r->what, "spending the budget");
    r->total = 1; // nothing of what is counted is done yet
    return gyre_budget_spend(r->params, &r->plan, &(struct gyre_ticker){tick_budget, r}, err);
}

// What the recipe leaves open: as the interrupted run chose, or from calibration data.
static gyre_status make_choice(struct run *r, gyre_error *err)
{
    const gyre_quantize_params *params = r->params;
    struct gyre_choice *choice = malloc(sizeof *choice);
    if (!choice) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the plan");
    snprintf(r->what, sizeof r->what, "choosing the rotation");
    r->total = 1; // nothing of what is counted is done yet
    gyre_status st = GYRE_OK;
    const bool known = (params->resume && gyre_journal_choice(params->output, choice)) ||
                       (r->finished.path && gyre_finished_choice(&r->finished, choice));
    if (!known && r->finished.path && gyre_settings_undecided(&r->plan.set))
        st = gyre_fail(err, GYRE_E_FORMAT,
                       "cannot learn on file (%s): its manifest does not say what was chosen; "
                       "fetch it again",
                       r->finished.path);
    else if (!known) st = gyre_search(params, &r->plan, &r->own, r->device, choice, &r->ticker, err);
    if (st == GYRE_OK) st = gyre_plan_finish(params, choice, &r->plan, err);
    if (st == GYRE_OK)
        st = gyre_writer_open(r->plan.folder ? &gyre_format_hf : &gyre_format_gguf, &r->plan, &r->writer, err);
    free(choice);
    return st;
}

static gyre_status weigh_rows(struct run *r, gyre_error *err)
{
    snprintf(r->what, sizeof r->what, "weighing tokens and outputs");
    return gyre_calibration_weigh(r->calibration, block_weights(&r->plan.hp), &r->ticker, err);
}

// A folder may be named with slashes behind it.
static gyre_status plain_name(struct run *r, gyre_quantize_params *params, gyre_error *err)
{
    if (!params->output) return GYRE_OK;
    r->output = gyre_beside(params->output, "");
    if (!r->output) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the output's name");
    params->output = r->output;
    return GYRE_OK;
}

// A run that begins with a finished file is of the model that this was made from, and reads its text alone.
static gyre_status begin_finished(struct run *r, gyre_error *err)
{
    const gyre_quantize_params *params = r->params;
    if (params->report_dir)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot report on a run that learns on file (%s): it rounds nothing; leave the report out",
                         params->from);
    if (params->device && !gyre_own_text_windows(params, r->plan.set.recipe.calibration.windows))
        return gyre_fail(
            err, GYRE_E_INVALID,
            "cannot calibrate on %.40s (%s): a run that learns on a file does not calibrate; leave --device "
            "out, --distill-device says where it learns",
            params->device, params->from);
    return gyre_manifest_check_base(&r->finished.manifest, params->source, r->plan.base.identity, err);
}

static gyre_status read_text(struct run *r, gyre_error *err)
{
    const gyre_quantize_params *params = r->params;
    const struct gyre_recipe *recipe = &r->plan.set.recipe;
    if (!r->finished.path) GYRE_TRY(gyre_calibration_open(params, &r->plan, &r->own, r->device, &r->calibration, err));
    else
        GYRE_TRY(gyre_calib_text_read(r->plan.source, params->calib, params->n_calib, &r->own,
                                      recipe->calibration.windows, gyre_recipe_more_windows(recipe),
                                      recipe->calibration.tokens, &r->learns, err));
    const struct gyre_calib_text *text = text_of(r);
    if (text && text->windows < recipe->calibration.windows)
        gyre_logf(&params->log, GYRE_LOG_INFO,
                  "calibration: %u windows of %u tokens, where the recipe has %u: the text gives no more",
                  text->windows, text->tokens, recipe->calibration.windows);
    if (text && text->more < gyre_recipe_more_windows(recipe))
        gyre_logf(&params->log, GYRE_LOG_INFO,
                  "distill: %u windows of %u tokens, where the recipe has %u: the text gives no more",
                  text->windows + text->more, text->tokens, recipe->distill.windows);
    return GYRE_OK;
}

static gyre_status identify(struct run *r, gyre_error *err)
{
    const struct gyre_calib_text *text = text_of(r);
    json_t *texts = text ? gyre_calib_text_identity(text) : NULL,
           *from = r->finished.path ? gyre_finished_identity(&r->finished) : NULL;
    const char *device = r->calibration ? gyre_calibration_device(r->calibration)
                         : r->device    ? gyre_device_info(r->device)->id
                                        : "host";
    const gyre_status st = r->finished.path && !from
                               ? no_memory(err)
                               : gyre_run_identity(&r->plan, texts, text ? device : NULL,
                                                   r->distills_on[0] ? r->distills_on : NULL, from, &r->identity, err);
    json_decref(texts);
    json_decref(from);
    return st;
}

// ---- runs that were killed ----------------------------------------------------------------------------------

// Whoever replaces what is there may start over, where nothing can go on.
static void leave_foreign(gyre_quantize_params *p)
{
    if (!p->resume || !p->force || !gyre_journal_is_foreign(p->output)) return;
    p->resume = false;
    gyre_logf(&p->log, GYRE_LOG_WARN, "quantize: starting over (%s): another build of gyre began it", p->output);
}

static void clear_temps(const gyre_quantize_params *p)
{
    const char *const at[][2] = {{p->output, ".manifest.json"},
                                 {p->output, ".rotations.safetensors"},
                                 {p->report_dir, "/report.html"},
                                 {p->report_dir, "/report.md"}};
    for (size_t i = 0; i < GYRE_COUNT(at); i++) {
        char *path = at[i][0] ? gyre_joined(at[i][0], at[i][1], "") : NULL;
        if (path) gyre_file_clear_temps(path);
        free(path);
    }
}

// The output that is there is what this run would write: its manifest says the same, and it holds what that says.
static bool is_whole(const struct run *r)
{
    char *path = gyre_joined(r->params->output, ".manifest.json", ""), front[GYRE_SHA256_HEX];
    gyre_verify_result *result = malloc(sizeof *result);
    struct gyre_manifest m = {0};
    const char *key;
    json_t *value;
    bool same = path && result && gyre_manifest_read(path, &m, NULL) == GYRE_OK;
    gyre_writer_front_sha256(&r->writer, front);
    same = same && m.front_sha256 && !strcmp(m.front_sha256, front);
    json_object_foreach(r->identity, key, value) { same = same && json_equal(value, json_object_get(m.json, key)); }
    same = same && gyre_verify(&(gyre_verify_params){.size = sizeof(gyre_verify_params), .file = r->params->output},
                               result, NULL) == GYRE_OK;
    if (same && !json_object_get(m.json, "rotations")) gyre_matrices_remove(r->params->output);
    gyre_manifest_free(&m);
    free(result);
    free(path);
    return same;
}

// Ends a run that was killed when its output had its name already; *ended: so it was.
static gyre_status end_left(struct run *r, bool *ended, gyre_error *err)
{
    const gyre_quantize_params *p = r->params;
    *ended = gyre_output_is_left(p) && is_whole(r);
    if (!*ended) return gyre_output_is_left(p) && !p->force ? gyre_output_exists(p->output, err) : GYRE_OK;
    gyre_output_clear_left(p->output);
    clear_temps(p);
    gyre_logf(&p->log, GYRE_LOG_INFO, "quantize: %s is whole already: the interrupted run had done all its work",
              p->output);
    if (!r->told) return GYRE_OK;
    r->out.plan = &r->plan;
    r->out.writer = &r->writer;
    const struct gyre_summary_run known = {&r->out, &r->distilled, NULL,
                                           block_weights(&r->plan.hp) * r->plan.hp.n_layers,
                                           false}; // its figures went with the journal
    return gyre_summary_fill(&known, r->told, err);
}

// ---- entry ------------------------------------------------------------------------------------------------

// What the run reads, and whether it may write where it is told to. `params`: r->params, which are made plain here.
static gyre_status open_run(struct run *r, gyre_quantize_params *params, gyre_error *err)
{
    bool folder;
    GYRE_TRY(gyre_model_open(params->source, &r->source, err));
    if (params->from) GYRE_TRY(gyre_finished_open(params, &r->finished, err));
    GYRE_TRY(gyre_plan_folder(params, r->source, &folder, err));
    if (folder) GYRE_TRY(plain_name(r, params, err));
    GYRE_TRY(gyre_output_check(params, folder, err));
    leave_foreign(params);
    if (gyre_source_note(r->source))
        gyre_logf(&params->log, GYRE_LOG_WARN, "quantize: %s: %s", params->source, gyre_source_note(r->source));
    return GYRE_OK;
}

// What is made of it: the plan with all choices, the texts, the run's identity. Nothing is written.
static gyre_status plan_run(struct run *r, gyre_error *err)
{
    const gyre_quantize_params *params = r->params;
    GYRE_TRY(gyre_plan_begin(params, params->from ? &r->finished.recipe : NULL, r->source, &r->plan, err));
    if (params->from) GYRE_TRY(begin_finished(r, err));
    GYRE_TRY(gyre_check_run(params, &r->plan, err));
    GYRE_TRY(gyre_check_distill_device(params, &r->plan, r->distills_on, err));
    gyre_warn_unused(params, &r->plan);
    const bool runs = r->told || gyre_recipe_calibrates(&r->plan.set.recipe) || gyre_settings_undecided(&r->plan.set);
    if (!params->from && runs) GYRE_TRY(gyre_walk_device(params, &r->device, err));
    GYRE_TRY(spend_budget(r, err));
    GYRE_TRY(write_own_text(r, err));
    GYRE_TRY(make_choice(r, err));
    GYRE_TRY(read_text(r, err));
    if (r->told && !params->from) GYRE_TRY(gyre_summary_open(params, &r->plan, r->device, &r->summary, err));
    return identify(r, err);
}

// Rotations before anything is merged, or why there are none.
static gyre_status learn_rotations(struct run *r, gyre_error *err)
{
    if (r->plan.set.recipe.learn.method && !r->params->from) return learn(r, err);
    if (r->plan.set.learn_auto)
        gyre_logf(&r->params->log, GYRE_LOG_INFO, "learn: none, auto is that for this model and these widths");
    return GYRE_OK;
}

// The whole of OUT.part, from where the journal ends.
static gyre_status make_output(struct run *r, gyre_error *err)
{
    const gyre_quantize_params *params = r->params;
    GYRE_TRY(gyre_output_open(params, &r->plan, &r->writer, r->identity, &r->out, err));
    clear_temps(params);
    if (r->out.journal.resumed_steps)
        gyre_logf(&params->log, GYRE_LOG_INFO, "quantize: resuming after block %u of %u",
                  r->out.journal.resumed_steps - 1, r->plan.hp.n_layers);
    if (r->own.token) GYRE_TRY(gyre_own_text_keep(&r->out.journal, &r->own, err));
    GYRE_TRY(resume_streams(r, err));
    count_work(r);
    GYRE_TRY(learn_rotations(r, err));
    if (r->plan.set.distill_auto && !r->plan.set.recipe.distill.steps)
        gyre_logf(&params->log, GYRE_LOG_INFO, "distill: none, auto is that for %s",
                  r->plan.folder ? "a Hugging Face directory" : "these widths");
    if (weighs(r)) GYRE_TRY(weigh_rows(r, err));
    GYRE_TRY(make_steps(r, err));
    return r->plan.set.recipe.distill.steps ? distill(r, err) : GYRE_OK;
}

// What is told of the run, and the page of it.
static gyre_status report_run(struct run *r, gyre_error *err)
{
    if (!r->told) return GYRE_OK;
    const struct gyre_summary_run known = {&r->out, &r->distilled, r->summary,
                                           block_weights(&r->plan.hp) * r->plan.hp.n_layers, !r->finished.path};
    GYRE_TRY(gyre_summary_fill(&known, r->told, err));
    if (!r->params->report_dir) return GYRE_OK;
    const struct gyre_report_run page = {&r->out, r->calibration, &r->learned, r->told,
                                         r->summary ? gyre_summary_heat(r->summary) : NULL};
    return gyre_report_write(r->params->report_dir, &page, err);
}

// The manifest, and the names.
static gyre_status finish_output(struct run *r, gyre_error *err)
{
    json_t *learned = NULL;
    char *manifest = NULL, *rotations = NULL;
    uint64_t bytes = 0;
    gyre_status st = GYRE_OK;
    GYRE_GO(tell_learned(r, &learned, &rotations, &bytes, err));
    GYRE_GO(gyre_manifest_text(&r->out, learned, &manifest, err));
    GYRE_GO(gyre_source_unchanged(r->source, err));
    GYRE_GO(gyre_output_finish(&r->out, manifest, strlen(manifest), rotations, bytes, err));
done:
    json_decref(learned);
    free(manifest);
    free(rotations);
    return st;
}

static void close_run(struct run *r)
{
    free(r->output);
    free(r->own.token);
    gyre_layer_free(&r->layer);
    gyre_calibration_close(r->calibration);
    gyre_calib_text_free(&r->learns);
    gyre_summary_close(r->summary);
    gyre_device_close(r->device);
    gyre_output_close(&r->out);
    json_decref(r->identity);
    gyre_writer_close(&r->writer);
    gyre_plan_release(&r->plan);
    gyre_matrices_release(&r->rotations);
    gyre_finished_close(&r->finished);
    gyre_source_close(r->source);
}

gyre_status gyre_quantize(const gyre_quantize_params *given, gyre_quantize_summary *summary, gyre_error *err)
{
    gyre_quantize_params params;
    GYRE_TRY(gyre_params_take(given, &params, sizeof params, GYRE_QUANTIZE_PARAMS_FIRST, "gyre_quantize_params", err));
    struct run r = {.params = &params, .told = summary, .started = gyre_clock_ns(), .out.lock = -1};
    gyre_status st = GYRE_OK;
    bool ended;
    const int threads = gyre_gemm_begin();
    r.ticker = (struct gyre_ticker){tick, &r};
    if (summary) *summary = (gyre_quantize_summary){0};
    GYRE_GO(open_run(&r, &params, err));
    GYRE_GO(plan_run(&r, err));
    GYRE_GO(end_left(&r, &ended, err));
    if (ended) goto done;
    GYRE_GO(make_output(&r, err));
    GYRE_GO(report_run(&r, err));
    GYRE_GO(finish_output(&r, err));
    if (summary) summary->seconds = 1e-9 * (double)(gyre_clock_ns() - r.started);
done:
    if (st != GYRE_OK && summary) gyre_quantize_summary_free(summary);
    close_run(&r);
    gyre_gemm_end(threads);
    return st;
}
