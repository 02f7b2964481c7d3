// Range-checked reading of single hyper-parameters, for those who read them all (hparams_read.c, rope.c, arch_*.c).
#include "runtime/model/hparams_impl.h"

#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>

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

// Flags of blocks: a list with one each, or (GGUF) the period after which the last block of each is not flagged.
gyre_status gyre_hparams_flags(const gyre_source *source, const char *key, uint32_t n_layers, uint32_t period,
                               bool *flag, gyre_error *err)
{
    bool *list = NULL;
    uint64_t n = 0;
    const bool each = gyre_source_is_list(source, key);
    if (each) GYRE_TRY(gyre_source_array_bool(source, key, &list, &n, err));
    else GYRE_TRY(gyre_hparam_u32(source, key, true, 0, GYRE_MAX_LAYERS, &period, err));
    const bool whole = !each || n >= n_layers;
    for (uint32_t i = 0; i < n_layers && whole; i++) flag[i] = each ? list[i] : period == 0 || i % period < period - 1;
    free(list);
    return whole ? GYRE_OK
                 : gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): %s has %llu values for %u blocks",
                             gyre_source_path(source), key, (unsigned long long)n, n_layers);
}

gyre_status gyre_hparams_windows(const gyre_source *source, struct gyre_hparams *hp, uint32_t period, gyre_error *err)
{
    char key[96];
    bool windowed[GYRE_MAX_LAYERS], any = false;
    gyre_hparam_key(hp, "attention.sliding_window", key);
    GYRE_TRY(gyre_hparam_u32(source, key, true, 0, UINT32_MAX, &hp->window, err));
    if (hp->window >= hp->context) hp->window = 0; // no text reaches beyond it
    gyre_hparam_key(hp, "attention.sliding_window_pattern", key);
    GYRE_TRY(gyre_hparams_flags(source, key, hp->n_layers, period, windowed, err));
    for (uint32_t i = 0; i < hp->n_layers && hp->window; i++) any |= hp->kind[i].windowed = windowed[i];
    if (!any) hp->window = 0;
    return GYRE_OK;
}

gyre_status gyre_hparams_all_windowed(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    return gyre_hparams_windows(source, hp, 0, err);
}

gyre_status gyre_hparams_multipliers(const gyre_source *source, struct gyre_hparams *hp, double embedding,
                                     double residual, double logits, gyre_error *err)
{
    double scores = 0;
    const struct {
        const char *name;
        double *value;
    } row[] = {{"embedding_scale", &embedding},
               {"residual_scale", &residual},
               {"logit_scale", &logits},
               {"attention.scale", &scores}};
    for (size_t i = 0; i < GYRE_COUNT(row); i++) {
        char key[96];
        gyre_hparam_key(hp, row[i].name, key);
        GYRE_TRY(gyre_hparam_f64(source, key, true, 1e-6, 1e6, row[i].value, err));
    }
    // x' = x + m f(norm(x)) with u = x / m is u' = u + f(norm(u)), if the norm adds eps / m^2 to the mean square.
    hp->embed_scale = (float)(embedding / residual);
    hp->stream_eps = (float)((double)hp->norm_eps / (residual * residual));
    hp->logit_divisor = (float)logits;
    hp->attn_scale = (float)scores;
    return GYRE_OK;
}
