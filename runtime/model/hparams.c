// Range-checked reading of single hyper-parameters, for those who read them all (hparams_read.c, rope.c, arch_*.c).
#include "runtime/model/hparams_impl.h"

#include "runtime/util/base.h"

#include <stdio.h>

void gyre_hparam_key(const struct gyre_hparams *hp, const char *name, char key[96])
{
    snprintf(key, 96, "%s.%s", hp->arch, name);
}

gyre_status gyre_hparam_u32(const gyre_source *source, const char *key, bool optional, uint32_t min, uint32_t max,
                            uint32_t *out, gyre_error *err)
{
    uint64_t value = 0;
    bool found;
    const char *path = gyre_source_path(source);
    GYRE_TRY(gyre_source_u64(source, key, &value, &found, err));
    if (!found && optional) return GYRE_OK;
    if (!found) return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): %s is missing", path, key);
    if (value < min || value > max)
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot use model (%s): %s is %llu; gyre supports %u to %u", path,
                         key, (unsigned long long)value, min, max);
    *out = (uint32_t)value;
    return GYRE_OK;
}

gyre_status gyre_hparam_f64(const gyre_source *source, const char *key, bool optional, double min, double max,
                            double *out, gyre_error *err)
{
    double value = 0;
    bool found;
    const char *path = gyre_source_path(source);
    GYRE_TRY(gyre_source_f64(source, key, &value, &found, err));
    if (!found && optional) return GYRE_OK;
    if (!found) return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): %s is missing", path, key);
    if (!(value >= min && value <= max)) // also catches NaN
        return gyre_fail(err, GYRE_E_UNSUPPORTED, "cannot use model (%s): %s is %g; gyre supports %g to %g", path, key,
                         value, min, max);
    *out = value;
    return GYRE_OK;
}

gyre_status gyre_hparams_cap_window(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    char key[96];
    uint32_t window = 0;
    gyre_hparam_key(hp, "attention.sliding_window", key);
    GYRE_TRY(gyre_hparam_u32(source, key, true, 0, UINT32_MAX, &window, err));
    if (!window || window >= hp->context) return GYRE_OK;
    hp->context = hp->window = window;
    return GYRE_OK;
}
