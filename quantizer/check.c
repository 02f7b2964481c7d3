// See check.h.
#include "quantizer/check.h"
#include "backends/backend.h"
#include "quantizer/finished.h"
#include "quantizer/pass/own_text.h"
#include "runtime/text/tokenizer.h"
#include "runtime/util/base.h"
#include "runtime/util/log.h"

#include <stdio.h>
#include <string.h>

static gyre_status check_distilled(const gyre_quantize_params *params, const struct gyre_plan *p, gyre_error *err)
{
    if (!p->folder || !p->set.recipe.distill.steps) return GYRE_OK;
    return gyre_fail(err, GYRE_E_UNSUPPORTED,
                     "cannot distill into a folder (%s): its files are no model before the run ends; write a GGUF "
                     "file, or a recipe without distill",
                     params->output ? params->output : params->source);
}

static void ignore_entry(void *user, const struct gyre_meta *meta)
{
    (void)user;
    (void)meta;
}

// A file whose tokenizer nothing here can run is made all the same (the weights are what was asked for, and other
// programs may know it), but not without a word before the work. Its guesses are logged too.
static gyre_status check_tokenizer(const gyre_quantize_params *params, const struct gyre_plan *p, gyre_error *err)
{
    gyre_tokenizer *tokenizer = NULL;
    gyre_error why = {0};
    if (!p->folder) GYRE_TRY(gyre_tokenizer_write(p->source, p->hp.vocab, !p->set.full, ignore_entry, NULL, err));
    const gyre_status st = gyre_tokenizer_create(p->source, NULL, &params->log, &tokenizer, &why);
    gyre_tokenizer_destroy(tokenizer);
    if (st == GYRE_E_NOMEM) return gyre_fail(err, st, "%s", why.message);
    if (st != GYRE_OK)
        gyre_logf(&params->log, GYRE_LOG_WARN, "quantize: %s; the result will not run either", why.message);
    return GYRE_OK;
}

gyre_status gyre_check_run(const gyre_quantize_params *params, const struct gyre_plan *plan, gyre_error *err)
{
    GYRE_TRY(check_distilled(params, plan, err));
    return check_tokenizer(params, plan, err);
}

gyre_status gyre_check_distill_device(const gyre_quantize_params *params, const struct gyre_plan *p,
                                      char id[GYRE_DISTILLS_ON], gyre_error *err)
{
    const struct gyre_device_options options = {.log = &params->log};
    gyre_device *device;
    if (!params->distill_device) return GYRE_OK;
    if (!p->set.recipe.distill.steps)
        return gyre_fail(err, GYRE_E_INVALID,
                         "cannot distill on %s: recipe %s does not distill at these widths; leave the device out",
                         params->distill_device, p->set.recipe.name);
    if (strcmp(params->distill_device, "null") == 0)
        return gyre_fail(err, GYRE_E_NO_DEVICE,
                         "cannot distill (null): that device computes nothing; name another, or none for the host");
    GYRE_TRY(gyre_device_open(params->distill_device, &options, &device, err));
    snprintf(id, GYRE_DISTILLS_ON, "%s", gyre_device_info(device)->id);
    gyre_device_close(device);
    return GYRE_OK;
}

void gyre_warn_unused(const gyre_quantize_params *params, const struct gyre_plan *p)
{
    const struct gyre_recipe *r = &p->set.recipe;
    if (params->n_calib && !params->from && !gyre_recipe_calibrates(r) && r->budget.bits == 0 && r->budget.act == 0)
        gyre_logf(&params->log, GYRE_LOG_WARN,
                  "quantize: recipe %s reads no text%s: what is given to calibrate on changes nothing", r->name,
                  p->set.wbits >= 16 ? " at this width of weights" : "");
    const bool draws = r->rotate || r->budget.bits > 0 || r->budget.act > 0 || r->calibration.fisher ||
                       r->calibration.outputs || gyre_own_text_windows(params, r->calibration.windows);
    if (params->seed && !params->from && !draws)
        gyre_logf(&params->log, GYRE_LOG_INFO, "quantize: recipe %s draws nothing: a seed changes nothing", r->name);
    if (params->wgroup > 0 && p->set.wbits >= 16)
        gyre_logf(&params->log, GYRE_LOG_WARN,
                  "quantize: weights of %u bits are not rounded: a group for their scales changes nothing",
                  p->set.wbits);
    if (params->profile && !strcmp(params->profile, "full") && !p->set.full)
        gyre_logf(
            &params->log, GYRE_LOG_WARN,
            "quantize: a directory of floats cannot say that R3 and R4 run: it has profile portable; a .gguf file "
            "has both");
    if (params->shard_bytes && !p->folder)
        gyre_logf(&params->log, GYRE_LOG_WARN,
                  "quantize: %s is one file: only Hugging Face directories are cut into several", params->output);
}

gyre_status gyre_quantize_check(const gyre_quantize_params *given, gyre_error *err)
{
    gyre_quantize_params params;
    GYRE_TRY(gyre_params_take(given, &params, sizeof params, GYRE_QUANTIZE_PARAMS_FIRST, "gyre_quantize_params", err));
    gyre_source *source = NULL;
    struct gyre_plan plan = {0};
    struct gyre_finished finished = {0};
    gyre_status st = gyre_model_open(params.source, &source, err);
    if (st == GYRE_OK && params.from) st = gyre_finished_open(&params, &finished, err);
    if (st == GYRE_OK) st = gyre_plan_allow(&params, params.from ? &finished.recipe : NULL, source, &plan, err);
    if (st == GYRE_OK) st = gyre_check_run(&params, &plan, err);
    gyre_plan_release(&plan);
    gyre_finished_close(&finished);
    gyre_source_close(source);
    return st;
}
