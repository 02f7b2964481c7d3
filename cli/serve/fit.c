// See fit.h.
#include "cli/serve/fit.h"
#include "runtime/util/status.h"

enum { SEQUENCES = 4, LEAST_CONTEXT = 256 };

// Makes what may be smaller smaller until it fits, or cannot be. False: it still does not fit.
static gyre_status shrink(const char *model, gyre_engine_params *p, bool fewer, bool shorter, gyre_memory_plan *plan,
                          gyre_error *err)
{
    GYRE_TRY(gyre_plan_memory(model, p, plan, err));
    p->context = plan->context;
    while (!plan->fits && ((fewer && p->sequences > 1) || (shorter && p->context > LEAST_CONTEXT))) {
        if (fewer && p->sequences > 1) p->sequences /= 2;
        else p->context = p->context / 2 > LEAST_CONTEXT ? p->context / 2 : LEAST_CONTEXT;
        GYRE_TRY(gyre_plan_memory(model, p, plan, err));
    }
    return GYRE_OK;
}

gyre_status serve_fit(const char *model, gyre_engine_params *p, bool adapt, gyre_memory_plan *plan, gyre_error *err)
{
    const bool fewer = p->sequences == 0, shorter = p->context == 0;
    if (fewer) p->sequences = SEQUENCES;
    GYRE_TRY(shrink(model, p, adapt && fewer, adapt && shorter, plan, err));
    if (plan->fits || !adapt) return GYRE_OK;
    const double mib = 1048576.0, needs = (double)(plan->weights + plan->kv + plan->work) / mib;
    gyre_memory_plan other;
    gyre_engine_params q = *p;
    GYRE_TRY(shrink(model, &q, true, true, &other, err));
    if (other.fits)
        return gyre_fail(
            err, GYRE_E_DEVICE_MEM,
            "cannot serve (%s): %u sequences of %u tokens need %.0f MiB and %s has %.0f, or they do not fit one of "
            "its buffers; --slots %u --context %u would fit",
            model, p->sequences, p->context, needs, plan->device, (double)plan->memory / mib, q.sequences, q.context);
    return gyre_fail(
        err, GYRE_E_DEVICE_MEM,
        "cannot serve (%s): it needs %.0f MiB even with one sequence of %u tokens and %s has %.0f; take a smaller "
        "model, fewer --kv bits, or another device",
        model, (double)(other.weights + other.kv + other.work) / mib, q.context, plan->device,
        (double)plan->memory / mib);
}
