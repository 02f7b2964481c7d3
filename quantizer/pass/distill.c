// See distill.h. Its steps and their state; the loop is gradient/steps.h's, gradients are of that folder too, what
// becomes of the parameters is distill_write.c's.
#include "quantizer/pass/distill.h"
#include "backends/cpu/fast.h"
#include "quantizer/gradient/adam.h"
#include "quantizer/gradient/steps.h"
#include "quantizer/pass/distill_impl.h"
#include "runtime/util/base.h"
#include "runtime/util/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEP_WORK = 4 }; // times a window's forward pass: with the way back, each block executed once more
enum { LOOK = 16, KEEP = 8, VERSION = 5, FEWEST = 64 }; // KEEP: windows of steps between states that are kept
static const char kept_name[] = "distill";

// ---- state ------------------------------------------------------------------------------------------------------

// The journal holds the head, then arrays: parameters, both moments, the best parameters, the base, what was before the
// last step (as the first three); [n] each.
struct run {
    const gyre_quantize_params *params;
    const struct gyre_plan *plan;
    uint32_t windows, tokens, batch; // that are read; windows a step
    uint32_t *token;                 // [windows][tokens]
    struct gyre_output *out;
    const struct gyre_ticker *ticker;
    uint64_t window_work;
    gyre_device *device;
    gyre_source *part;
    gyre_teacher *teacher;
    struct gyre_student student;
    struct gyre_adam adam;
    struct gyre_steps_head head;
    double *gradient, *best, *before_step; // [n], [n], [3n]
    float *rate;                           // [n]
};

static gyre_status keep(void *self, gyre_error *err)
{
    const struct run *r = self;
    const uint64_t n = r->student.n, bytes[2] = {sizeof r->head, 8 * n * sizeof(double)};
    double *all = malloc(bytes[1]);
    if (!all) return gyre_fail(err, GYRE_E_NOMEM, "out of memory for the journal");
    memcpy(all, r->adam.parameter, 3 * n * sizeof *all);
    memcpy(all + 3 * n, r->best, n * sizeof *all);
    memcpy(all + 4 * n, r->student.base, n * sizeof *all);
    memcpy(all + 5 * n, r->before_step, 3 * n * sizeof *all);
    const gyre_status st =
        gyre_journal_keep(&r->out->journal, kept_name, (const void *const[]){&r->head, all}, bytes, err);
    free(all);
    return st;
}

// What an interrupted run kept, if it is of this very student.
static gyre_status take_up(struct run *r, gyre_error *err)
{
    const uint64_t n = r->student.n;
    char *data;
    uint64_t bytes;
    struct gyre_steps_head head;
    GYRE_TRY(gyre_journal_kept(&r->out->journal, kept_name, &data, &bytes, err));
    if (!data && gyre_journal_replaces(&r->out->journal))
        return gyre_fail(err, GYRE_E_FORMAT,
                         "cannot resume (%s): what distillation left there is missing; start over with --force",
                         r->out->journal.folder);
    if (!data) return GYRE_OK;
    if (bytes == sizeof head + 8 * n * sizeof(double)) memcpy(&head, data, sizeof head);
    else head = (struct gyre_steps_head){0};
    const double *all = (const double *)(const void *)(data + sizeof head);
    const bool good = head.version == VERSION && head.n == n && head.steps == r->head.steps && head.step <= head.steps;
    if (good) {
        r->head = head;
        r->adam.step = (uint32_t)head.step;
        memcpy(r->adam.parameter, all, 3 * n * sizeof *all);
        memcpy(r->best, all + 3 * n, n * sizeof *all);
        memcpy(r->student.base, all + 4 * n, n * sizeof *all); // OUT.part may hold learned ones already
        memcpy(r->before_step, all + 5 * n, 3 * n * sizeof *all);
    }
    free(data);
    return good ? GYRE_OK
                : gyre_fail(err, GYRE_E_FORMAT,
                            "cannot resume (%s): what distillation left there is damaged; start over with --force",
                            r->out->journal.folder);
}

// ---- text -------------------------------------------------------------------------------------------------------

// Of the windows that the recipe allows: as many as the steps take besides those that are held out, FEWEST at least, so
// that these are a few too; all where there are not so many.
static uint32_t windows_read(const struct gyre_recipe *recipe, const struct gyre_calib_text *text)
{
    const uint64_t taken = (uint64_t)recipe->distill.steps * recipe->distill.batch;
    const uint32_t all = text->windows + text->more,
                   windows = recipe->distill.windows ? GYRE_MIN(recipe->distill.windows, all) : all;
    uint32_t n = GYRE_MIN(windows, (uint32_t)FEWEST);
    while (n < windows && n - gyre_steps_held(n) < taken) n++;
    return n;
}

// A batch has no window twice.
static uint32_t batch_of(const struct gyre_recipe *recipe, uint32_t windows_read)
{
    return GYRE_MIN(recipe->distill.batch, windows_read - gyre_steps_held(windows_read));
}

static gyre_status take_windows(struct run *r, const struct gyre_calib_text *text, gyre_error *err)
{
    r->tokens = text->tokens;
    r->windows = windows_read(&r->plan->set.recipe, text);
    const uint64_t each = r->tokens * sizeof *r->token;
    uint32_t *of = malloc(r->windows * sizeof *of);
    r->token = malloc(r->windows * each);
    if (of && r->token) gyre_steps_order(text->windows, text->more, r->windows, of);
    for (uint64_t w = 0; of && r->token && w < r->windows; w++)
        memcpy(r->token + w * r->tokens, text->token + (uint64_t)of[w] * r->tokens, each);
    const bool good = of && r->token;
    free(of);
    return good ? GYRE_OK : gyre_fail(err, GYRE_E_NOMEM, "out of memory for distillation");
}

// ---- opening ----------------------------------------------------------------------------------------------------

static gyre_status tick_block(void *user, uint64_t blocks, gyre_error *err)
{
    const struct run *r = user;
    return gyre_tick(r->ticker, blocks * (r->window_work / r->plan->hp.n_layers), err);
}

static gyre_status allocate(struct run *r, gyre_error *err)
{
    const struct gyre_recipe *recipe = &r->plan->set.recipe;
    const uint64_t n = r->student.n;
    const bool good = gyre_adam_create(n, recipe->distill.steps, &r->adam);
    r->gradient = malloc(n * sizeof *r->gradient);
    r->best = calloc(n, sizeof *r->best);
    r->before_step = calloc(3 * n, sizeof *r->before_step);
    r->rate = malloc(n * sizeof *r->rate);
    if (!good || !r->gradient || !r->best || !r->before_step || !r->rate)
        return gyre_fail(err, GYRE_E_NOMEM, "out of memory for distillation");
    for (uint32_t k = 0; k < r->student.n_learnt; k++) {
        const struct gyre_learnt *p = &r->student.learnt[k];
        const bool clip = p->kind == GYRE_LEARNT_CLIP || p->kind == GYRE_LEARNT_CACHE;
        for (uint64_t i = 0; i < p->n; i++)
            r->rate[p->first + i] = (float)(clip ? recipe->distill.clip_rate : recipe->distill.rate);
    }
    return GYRE_OK;
}

static gyre_status open_run(struct run *r, const struct gyre_calib_text *text, gyre_error *err)
{
    const struct gyre_device_options options = {.log = &r->params->log};
    const struct gyre_ticker blocks = {tick_block, r};
    GYRE_TRY(take_windows(r, text, err));
    r->batch = batch_of(&r->plan->set.recipe, r->windows);
    if (r->params->distill_device) GYRE_TRY(gyre_device_open(r->params->distill_device, &options, &r->device, err));
    else GYRE_TRY(gyre_fast_device_create(&options, &r->device, err));
    GYRE_TRY(gyre_teacher_open(r->device, r->plan->source, r->token, r->windows, r->tokens, &blocks, &r->teacher, err));
    GYRE_TRY(gyre_source_open(r->out->part, &r->part, err));
    GYRE_TRY(gyre_student_open(r->device, r->part, r->tokens, &r->student, err));
    GYRE_TRY(allocate(r, err));
    r->head = (struct gyre_steps_head){
        .version = VERSION, .n = r->student.n, .steps = r->plan->set.recipe.distill.steps, .rate = 1};
    return GYRE_OK;
}

static void close_run(struct run *r)
{
    gyre_student_close(&r->student);
    gyre_teacher_close(r->teacher);
    gyre_source_close(r->part);
    gyre_device_close(r->device);
    gyre_adam_free(&r->adam);
    free(r->token);
    free(r->gradient);
    free(r->best);
    free(r->before_step);
    free(r->rate);
}

// ---- steps ------------------------------------------------------------------------------------------------------

static gyre_status window(void *self, uint32_t w, double *kl, double *gradient, gyre_error *err)
{
    struct run *r = self;
    return gyre_student_window(&r->student, r->teacher, w, r->token + (uint64_t)w * r->tokens, kl, gradient, err);
}

static void best(void *self)
{
    struct run *r = self;
    memcpy(r->best, r->adam.parameter, r->student.n * sizeof *r->best);
}

// A clip that is at 1 goes no further.
static void bound_clips(struct run *r)
{
    for (uint32_t k = 0; k < r->student.n_learnt; k++) {
        const struct gyre_learnt *p = &r->student.learnt[k];
        for (uint64_t i = p->first; i < p->first + p->n; i++)
            if (p->kind == GYRE_LEARNT_CLIP || p->kind == GYRE_LEARNT_CACHE)
                r->adam.parameter[i] = fmin(r->adam.parameter[i], -log(r->student.base[i]));
    }
}

static gyre_status down(void *self, gyre_error *err)
{
    struct run *r = self;
    const uint64_t n = r->student.n;
    memcpy(r->before_step, r->adam.parameter, 3 * n * sizeof *r->before_step);
    if (r->head.rate < 1)
        for (uint64_t i = 0; i < n; i++) r->rate[i] *= (float)r->head.rate;
    gyre_adam_step(&r->adam, r->gradient, r->rate, r->plan->set.recipe.distill.pull);
    if (r->head.rate < 1)
        for (uint64_t i = 0; i < n; i++) r->rate[i] /= (float)r->head.rate;
    bound_clips(r);
    return gyre_student_set(&r->student, r->adam.parameter, err);
}

static gyre_status back(void *self, gyre_error *err)
{
    struct run *r = self;
    memcpy(r->adam.parameter, r->before_step, 3 * r->student.n * sizeof *r->before_step);
    r->adam.step++; // with the next windows
    return gyre_student_set(&r->student, r->adam.parameter, err);
}

static gyre_status ticked(void *self, bool look, gyre_error *err)
{
    const struct run *r = self;
    return gyre_tick(r->ticker, look ? r->window_work : STEP_WORK * r->window_work, err);
}

static gyre_status train(struct run *r, gyre_error *err)
{
    const struct gyre_steps steps = {.name = "distill",
                                     .what = "distill",
                                     .look = LOOK,
                                     .keep = GYRE_MAX(KEEP / r->batch, 1u),
                                     .windows = r->windows,
                                     .batch = r->batch,
                                     .log = &r->params->log,
                                     .head = &r->head,
                                     .gradient = r->gradient,
                                     .self = r,
                                     .loss = window,
                                     .down = down,
                                     .back = back,
                                     .best = best,
                                     .tick = ticked,
                                     .save = keep};
    GYRE_TRY(gyre_student_set(&r->student, r->adam.parameter, err));
    return gyre_steps_run(&steps, err);
}

// ---- entry ------------------------------------------------------------------------------------------------------

// About what a window's way through the model is of all the rounding.
static uint64_t work_of_window(uint64_t model_weights) { return model_weights / 64; }

uint64_t gyre_distill_work(const struct gyre_plan *plan, const struct gyre_calib_text *text, uint64_t model_weights)
{
    const struct gyre_recipe *r = &plan->set.recipe;
    const uint64_t steps = text ? r->distill.steps : 0, windows = text ? windows_read(r, text) : 0;
    if (!steps || windows < 2) return 0;
    const uint64_t each = work_of_window(model_weights);
    const uint64_t looks = 1 + steps / LOOK + (steps % LOOK != 0);
    return each / plan->hp.n_layers * plan->hp.n_layers * windows + // the teacher, block by block
           STEP_WORK * each * steps * batch_of(r, (uint32_t)windows) +
           each * gyre_steps_held((uint32_t)windows) * looks;
}

gyre_status gyre_distill(const gyre_quantize_params *params, const struct gyre_plan *plan,
                         const struct gyre_calib_text *text, uint64_t model_weights, struct gyre_output *out,
                         const struct gyre_ticker *ticker, struct gyre_distilled *result, gyre_error *err)
{
    struct run r = {.params = params, .plan = plan, .out = out, .ticker = ticker};
    *result = (struct gyre_distilled){0};
    r.window_work = work_of_window(model_weights);
    const uint32_t windows = text->windows + text->more;
    if (windows < 2 && params->from)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot distill: the text has one window of %u tokens, and some must be held out; give a "
                         "longer text, or a recipe with shorter windows",
                         text->tokens);
    if (windows < 2) {
        gyre_logf(&params->log, GYRE_LOG_WARN,
                  "distill: nothing is learned: the text has one window of %u tokens, and some must be held out",
                  text->tokens);
        return GYRE_OK;
    }
    gyre_status st = GYRE_OK;
    GYRE_GO(open_run(&r, text, err));
    GYRE_GO(take_up(&r, err));
    if (!r.head.done) GYRE_GO(train(&r, err));
    *result = (struct gyre_distilled){.steps = (uint32_t)r.head.step,
                                      .best = (uint32_t)r.head.best_step,
                                      .held = gyre_steps_held(r.windows),
                                      .halved = (uint32_t)r.head.halved,
                                      .before = r.head.before,
                                      .after = r.head.best};
    GYRE_GO(gyre_distill_write(plan, r.part, &r.student, r.best, out, err));
done:
    close_run(&r);
    return st;
}

json_t *gyre_distilled_json(const struct gyre_distilled *d)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:f, s:f}", "steps", (int)d->steps, "best_step", (int)d->best,
                     "held_out_windows", (int)d->held, "halved", (int)d->halved, "kl_before", d->before, "kl_after",
                     d->after);
}
