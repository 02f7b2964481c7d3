// What an engine takes on its device. A plan is the same engine on the device that only records: it allocates what the
// real one would, in memory that nobody touches, so plan and truth come from the same calls.
#include "runtime/engine.h"

#include "runtime/util/base.h"

#include <string.h>

gyre_status gyre_engine_memory(const gyre_engine *e, gyre_memory *out, gyre_error *err)
{
    if (out->size < sizeof out->size)
        return gyre_fail(err, GYRE_E_INVALID, "cannot tell memory: the size of gyre_memory is %zu; set it to sizeof",
                         out->size);
    gyre_memory all = {.size = out->size,
                       .weights = e->model.weight_bytes,
                       .kv = e->kv.bytes,
                       .total = gyre_device_counters(e->device).bytes_live,
                       .rounded = e->model.rounding.rounded,
                       .weight_error = gyre_load_rounding_error(&e->model.rounding),
                       .host = gyre_engine_host_bytes(e)};
    all.rest = all.total - all.weights - all.kv;
    memcpy(out, &all, GYRE_MIN(out->size, sizeof all));
    return GYRE_OK;
}

static gyre_status plan(const char *name, bool shape, uint32_t wgroup, const gyre_engine_params *params,
                        gyre_memory *out, gyre_error *err)
{
    gyre_engine *e;
    gyre_graph *step;
    GYRE_TRY(gyre_engine_open_planned(name, shape, wgroup, params, &e, err));
    // What a step works in, it takes when it is recorded.
    gyre_status st = gyre_engine_step_graph(e, e->max_rows, GYRE_MIN(e->max_rows, e->sequences), 1, &step, err);
    if (st == GYRE_OK) st = gyre_engine_step_graph(e, 1, 1, 1, &step, err);
    if (st == GYRE_OK) st = gyre_engine_memory(e, out, err);
    (void)gyre_engine_close(e, NULL); // it has no children
    return st;
}

gyre_status gyre_plan(const char *model_path, const gyre_engine_params *params, gyre_memory *out, gyre_error *err)
{
    return plan(model_path, false, 0, params, out, err);
}

gyre_status gyre_plan_shape(const char *shape, uint32_t wgroup, const gyre_engine_params *params, gyre_memory *out,
                            gyre_error *err)
{
    return plan(shape, true, wgroup, params, out, err);
}
