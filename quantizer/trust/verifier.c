// What the checks of a file share. See verify_impl.h.
#include "quantizer/trust/verify_impl.h"
#include "runtime/util/base.h"

#include <stdarg.h>
#include <stdio.h>

gyre_status gyre_verify_differs(const struct gyre_verifier *v, gyre_error *err, const char *format, ...)
{
    char why[256];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    return gyre_fail(err, GYRE_E_FORMAT, "not what its manifest claims (%s): %s; fetch or make it again",
                     v->params->file, why);
}

gyre_status gyre_verify_tick(struct gyre_verifier *v, uint64_t units, gyre_error *err)
{
    v->done += units;
    if (!v->params->progress) return GYRE_OK;
    const double fraction = v->total ? GYRE_MIN((double)v->done / (double)v->total, 1) : 0;
    if (!v->params->progress(v->params->user, fraction, -1, v->what)) return GYRE_OK;
    return gyre_fail(err, GYRE_E_CANCELLED, "verifying stopped (%s): not everything was compared", v->params->file);
}

gyre_status gyre_verify_linear(const struct gyre_verifier *v, gyre_role role, uint32_t layer, struct gyre_linear *out,
                               uint32_t *bits, gyre_error *err)
{
    GYRE_TRY(gyre_linear_find(v->file, &v->hp, role, layer, out, err));
    const gyre_dtype type = out->weight->type;
    *bits = out->bits ? out->bits : type == GYRE_DTYPE_F32 ? 32 : 16;
    if (out->bits || type == GYRE_DTYPE_F32 || type == GYRE_DTYPE_F16) return GYRE_OK;
    return gyre_verify_differs(v, err, "tensor %s: gyre writes no linear as %s", out->weight->name,
                               gyre_dtype_info(type)->name);
}

bool gyre_verify_is_learned(const struct gyre_verifier *v)
{
    return json_object_get(v->manifest.json, "distilled") != NULL;
}
