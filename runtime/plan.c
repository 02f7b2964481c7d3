// Whether an engine will fit its device, before it is opened.
#include "runtime/engine.h"

#include "runtime/util/base.h"

#include <stdio.h>
#include <string.h>

// Does every buffer of the cache, and that of the logits, fit one binding?
static bool binds(const struct gyre_hparams *hp, const gyre_memory_plan *plan, uint32_t rows, uint64_t binding)
{
    return gyre_kv_largest(hp, GYRE_MAX(plan->kv_bits, plan->kv_bits_v), plan->sequences, plan->context, rows) <=
               binding &&
           (uint64_t)plan->sequences * hp->vocab * sizeof(float) <= binding;
}

static gyre_status look(const char *path, const gyre_engine_params *p, uint64_t binding, gyre_memory_plan *out,
                        gyre_error *err)
{
    gyre_memory memory = {.size = sizeof memory};
    gyre_source *source = NULL;
    struct gyre_hparams hp = {0};
    gyre_status st = GYRE_OK;
    GYRE_TRY(gyre_model_open(path, &source, err));
    GYRE_GO(gyre_hparams_read(source, &hp, err));
    const uint32_t context = p->context ? p->context : (uint32_t)GYRE_DEFAULT_CONTEXT;
    out->context = GYRE_MIN(context, hp.context);
    out->sequences = p->sequences ? p->sequences : 1;
    const struct gyre_precision precision = gyre_engine_precision(p, &hp);
    out->kv_bits = precision.kv;
    out->kv_bits_v = precision.kv_v;
    gyre_engine_params whole = *p; // no test hook hinders the plan, and nobody sees it being made
    whole.context = out->context;
    whole.limit_binding = whole.limit_buffer = 0;
    whole.log = (gyre_log){0};
    whole.progress = NULL;
    GYRE_GO(gyre_plan(path, &whole, &memory, err));
    out->weights = memory.weights;
    out->kv = memory.kv;
    out->work = memory.rest;
    out->fits = memory.total <= out->memory / 10 * 9 && binds(&hp, out, gyre_engine_max_rows(p), binding);
done:
    gyre_hparams_free(&hp);
    gyre_source_close(source);
    return st;
}

gyre_status gyre_plan_memory(const char *path, const gyre_engine_params *given, gyre_memory_plan *out, gyre_error *err)
{
    gyre_engine_params p;
    gyre_device *device = NULL;
    *out = (gyre_memory_plan){0};
    GYRE_TRY(gyre_params_take(given, &p, sizeof p, GYRE_ENGINE_PARAMS_FIRST, "gyre_engine_params", err));
    GYRE_TRY(gyre_device_open(p.device, NULL, &device, err));
    const struct gyre_device_info info = *gyre_device_info(device);
    gyre_device_close(device);
    memcpy(out->device, info.id, sizeof out->device);
    out->memory = info.memory_bytes;
    const uint64_t binding = GYRE_MIN(info.max_binding, info.max_buffer);
    return look(path, &p, p.limit_binding ? GYRE_MIN(p.limit_binding, binding) : binding, out, err);
}
