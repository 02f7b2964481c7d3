// See learn.h. Opening and the journal; the loop is descend.c's, losses are objective_spin.c's, local.c's and taps.c's.
#include "quantizer/learn/learn.h"
#include "backends/cpu/fast.h"
#include "quantizer/learn/descend.h"
#include "quantizer/learn/folded.h"
#include "quantizer/learn/start.h"
#include "quantizer/recipe/fields.h"
#include "runtime/util/base.h"
#include "runtime/util/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 1 };
// A step is about this part of rounding the model, one that runs no model that; a look at a window of it.
enum { WORK = 8, WORK_LOCAL = 256, LOOKED = 4 };
static const char kept_name[] = "learn";

struct run {
    const gyre_quantize_params *params;
    const struct gyre_plan *plan;
    const struct gyre_calib_text *text; // NULL: none is needed
    struct gyre_output *out;
    const struct gyre_ticker *ticker;
    uint64_t step_work;
    gyre_device *device;
    struct gyre_objective objective;
    struct gyre_descent d;
};

// ---- state ------------------------------------------------------------------------------------------------------

// The journal holds the head, then the matrices: those that are learned, the best, those before the last step; then
// the moments and those before the last step, where there are any.
enum { PARTS = 5 };
static uint32_t parts_of(const struct run *r, double *part[PARTS], uint64_t n[PARTS])
{
    const struct gyre_descent *d = &r->d;
    double *const all[PARTS] = {gyre_matrices_data(&d->at), gyre_matrices_data(&d->best),
                                gyre_matrices_data(&d->before), d->moment, d->moment_before};
    for (int i = 0; i < PARTS; i++) {
        part[i] = all[i];
        n[i] = i < 3 ? d->head.n : 2 * d->head.n;
    }
    return d->moment ? PARTS : 3;
}

static gyre_status keep(void *user, gyre_error *err)
{
    const struct run *r = user;
    double *part[PARTS];
    uint64_t n[PARTS], total = 0;
    const uint32_t parts = parts_of(r, part, n);
    for (uint32_t i = 0; i < parts; i++) total += n[i];
    double *all = malloc(total * sizeof *all), *to = all;
    if (!all) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the journal");
    for (uint32_t i = 0; i < parts; to += n[i++]) memcpy(to, part[i], n[i] * sizeof *all);
    const uint64_t bytes[2] = {sizeof r->d.head, total * sizeof *all};
    const gyre_status st =
        gyre_journal_keep(&r->out->journal, kept_name, (const void *const[]){&r->d.head, all}, bytes, err);
    free(all);
    return st;
}

static gyre_status take_up(struct run *r, gyre_error *err)
{
    double *part[PARTS];
    uint64_t count[PARTS], total = 0, bytes;
    const uint32_t parts = parts_of(r, part, count);
    char *data;
    struct gyre_steps_head head = {0};
    for (uint32_t i = 0; i < parts; i++) total += count[i];
    GYRE_TRY(gyre_journal_kept(&r->out->journal, kept_name, &data, &bytes, err));
    if (!data) return GYRE_OK;
    if (bytes == sizeof head + total * sizeof(double)) memcpy(&head, data, sizeof head);
    const bool good = head.version == VERSION && head.n == r->d.head.n && head.method == r->d.head.method &&
                      head.steps == r->d.head.steps && head.step <= head.steps;
    const double *all = (const double *)(const void *)(data + sizeof head);
    if (good) {
        r->d.head = head;
        for (uint32_t i = 0; i < parts; all += count[i++]) memcpy(part[i], all, count[i] * sizeof *all);
        if (!head.done)
            gyre_logf(&r->params->log, GYRE_LOG_INFO, "learn: going on behind step %u of %u", (unsigned)head.step,
                      (unsigned)head.steps);
    }
    free(data);
    return good ? GYRE_OK
                : gyre_fail(err, GYRE_E_FORMAT,
                            "cannot resume (%s): the rotations there are damaged, or of another recipe; start over "
                            "with --force",
                            r->out->journal.folder);
}

static gyre_status ticked(void *user, bool look, gyre_error *err)
{
    const struct run *r = user;
    return gyre_tick(r->ticker, look ? r->step_work / LOOKED : r->step_work, err);
}

// ---- opening ----------------------------------------------------------------------------------------------------

static gyre_status open_objective(struct run *r, gyre_error *err)
{
    const struct gyre_recipe *recipe = &r->plan->set.recipe;
    const struct gyre_objective_params params = {.device = r->device,
                                                 .plan = r->plan,
                                                 .source = r->plan->source,
                                                 .text = r->text,
                                                 .shape = &r->d.at,
                                                 .act = recipe->learn.act,
                                                 .kv = recipe->learn.kv,
                                                 .seed = r->plan->set.seed};
    switch (recipe->learn.method) {
    case GYRE_LEARN_OPTROT:
        return gyre_objective_optrot(&params, &r->objective, err);
    case GYRE_LEARN_WHIP:
    case GYRE_LEARN_KURTOSIS:
        return gyre_objective_taps(&params, recipe->learn.method == GYRE_LEARN_WHIP, &r->objective, err);
    default:
        return gyre_objective_spin(&params, recipe->learn.method, &r->objective, err);
    }
}

static gyre_status open_run(struct run *r, gyre_error *err)
{
    const struct gyre_recipe *recipe = &r->plan->set.recipe;
    const struct gyre_device_options options = {.log = &r->params->log};
    if (r->text && r->text->windows < 2)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot learn rotations: the calibration text has one window of %u tokens, and some must be "
                         "held out; give a longer text, or a recipe with more or shorter windows",
                         r->text->tokens);
    struct gyre_descent *d = &r->d;
    const bool pairs = recipe->learn.method == GYRE_LEARN_OSTQUANT;
    GYRE_TRY(gyre_folder_matrices(r->plan, pairs, &d->at, err));
    struct gyre_matrices *const all[] = {&d->best, &d->before, &d->gradient};
    for (int i = 0; i < 3; i++) GYRE_TRY(gyre_matrices_create_as(&d->at, all[i], err));
    const uint64_t n = gyre_matrices_count(&d->at);
    if (pairs) {
        GYRE_TRY(gyre_start_by_weights(r->plan, &d->at, err));
        d->moment = calloc(2 * n, sizeof *d->moment);
        d->moment_before = calloc(2 * n, sizeof *d->moment_before);
        if (!d->moment || !d->moment_before) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for learning");
    }
    memcpy(gyre_matrices_data(&d->best), gyre_matrices_data(&d->at), n * sizeof(double));
    memcpy(gyre_matrices_data(&d->before), gyre_matrices_data(&d->at), n * sizeof(double));
    d->objective = &r->objective;
    d->windows = r->text ? r->text->windows : 0;
    d->rate = recipe->learn.rate;
    d->log = &r->params->log;
    d->tick = ticked;
    d->keep = keep;
    d->user = r;
    d->head = (struct gyre_steps_head){
        .version = VERSION, .n = n, .method = (uint64_t)recipe->learn.method, .steps = recipe->learn.steps, .rate = 1};
    GYRE_TRY(take_up(r, err));
    if (d->head.done) return GYRE_OK;
    GYRE_TRY(gyre_fast_device_create(&options, &r->device, err));
    return open_objective(r, err);
}

static void close_run(struct run *r)
{
    if (r->objective.self) r->objective.close(r->objective.self);
    gyre_device_close(r->device);
    gyre_matrices_release(&r->d.at);
    gyre_matrices_release(&r->d.best);
    gyre_matrices_release(&r->d.before);
    gyre_matrices_release(&r->d.gradient);
    free(r->d.moment);
    free(r->d.moment_before);
}

// ---- entry ------------------------------------------------------------------------------------------------------

static uint64_t step_work(const struct gyre_recipe *recipe, uint64_t model_weights)
{
    const gyre_learn_method method = recipe->learn.method;
    const bool runs = method == GYRE_LEARN_SPINQUANT || method == GYRE_LEARN_KL || method == GYRE_LEARN_OSTQUANT;
    return model_weights / (runs ? WORK : WORK_LOCAL);
}

uint64_t gyre_learn_work(const struct gyre_plan *plan, uint32_t text_windows, uint64_t model_weights)
{
    const struct gyre_recipe *recipe = &plan->set.recipe;
    const uint64_t steps = recipe->learn.steps, held = gyre_learn_reads(recipe) ? gyre_steps_held(text_windows) : 0,
                   looks = 1 + steps / GYRE_DESCENT_LOOK + (steps % GYRE_DESCENT_LOOK != 0),
                   each = step_work(recipe, model_weights);
    return recipe->learn.method ? each * steps + each / LOOKED * held * looks : 0;
}

gyre_status gyre_learn(const gyre_quantize_params *params, const struct gyre_plan *plan,
                       const struct gyre_calib_text *text, uint64_t model_weights, struct gyre_output *out,
                       const struct gyre_ticker *ticker, struct gyre_matrices *matrices,
                       struct gyre_learned_rotations *result, gyre_error *err)
{
    const struct gyre_recipe *recipe = &plan->set.recipe;
    struct run r = {.params = params, .plan = plan, .out = out, .ticker = ticker};
    gyre_status st = GYRE_OK;
    r.text = gyre_learn_reads(recipe) ? text : NULL;
    r.step_work = step_work(&plan->set.recipe, model_weights);
    *matrices = (struct gyre_matrices){0};
    GYRE_GO(open_run(&r, err));
    if (!r.d.head.done) GYRE_GO(gyre_descend(&r.d, err));
    gyre_matrices_narrow(&r.d.best);
    *result = (struct gyre_learned_rotations){.steps = (uint32_t)r.d.head.step,
                                              .best = (uint32_t)r.d.head.best_step,
                                              .held = gyre_steps_held(r.d.windows),
                                              .halved = (uint32_t)r.d.head.halved,
                                              .before = r.d.head.before,
                                              .after = r.d.head.best,
                                              .drift = gyre_matrices_drift(&r.d.best),
                                              .widest = gyre_matrices_widest(&r.d.best),
                                              .diagonals = r.d.best.norm != NULL};
    if (!(result->drift <= GYRE_MOST_DRIFT))
        GYRE_GO(gyre_fail(err, GYRE_E_FORMAT,
                          "cannot merge the learned rotations: they are %.1e from orthogonal, and 1e-6 is allowed; "
                          "lower learn's rate",
                          result->drift));
    if (!isfinite(result->widest))
        GYRE_GO(gyre_fail(err, GYRE_E_FORMAT,
                          "cannot merge the learned diagonals: one has gone out of what a float holds; lower learn's "
                          "rate"));
    gyre_logf(&params->log, GYRE_LOG_INFO, "learn: %s, %u steps, best behind step %u: loss %.5f to %.5f, drift %.1e",
              gyre_learn_name(recipe->learn.method), result->steps, result->best, result->before, result->after,
              result->drift);
    if (result->diagonals)
        gyre_logf(&params->log, GYRE_LOG_INFO, "learn: diagonals up to a factor of %.3f", result->widest);
    *matrices = r.d.best;
    r.d.best = (struct gyre_matrices){0};
done:
    close_run(&r);
    return st;
}

json_t *gyre_learned_json(const struct gyre_learned_rotations *l)
{
    json_t *out = json_pack("{s:i, s:i, s:i, s:i, s:f, s:f, s:f}", "steps", (int)l->steps, "best_step", (int)l->best,
                            "held_out_windows", (int)l->held, "halved", (int)l->halved, "loss_before", l->before,
                            "loss_after", l->after, "drift", l->drift);
    if (!l->diagonals || !out) return out;
    if (!json_object_set_new(out, "diagonals", json_true()) &&
        !json_object_set_new(out, "widest", json_real(l->widest)))
        return out;
    json_decref(out);
    return NULL;
}
