// See clips.h.
#include "runtime/model/clips.h"

#include <string.h>

static const char act_name[] = "gyre.act_clips", kv_name[] = "gyre.kv_clips";

static gyre_status read_some(const gyre_source *source, const struct gyre_hparams *hp, const char *name, uint32_t layer,
                             uint32_t each, float *out, gyre_error *err)
{
    const struct gyre_tensor *t = gyre_source_tensor(source, name);
    if (!t || t->type != GYRE_DTYPE_F32 || t->n_dims != 1 || t->cols != (uint64_t)hp->n_layers * each)
        return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): tensor %s is %s; %u F32 values are due",
                         gyre_source_path(source), name, t ? "of another shape or type" : "missing",
                         hp->n_layers * each);
    memcpy(out, (const char *)t->data + (uint64_t)layer * each * sizeof *out, each * sizeof *out);
    for (uint32_t i = 0; i < each; i++)
        if (!(out[i] >= 0.05f && out[i] <= 1))
            return gyre_fail(err, GYRE_E_FORMAT,
                             "cannot use model (%s): tensor %s has a clip of %g in block %u; 0.05 to 1 make sense",
                             gyre_source_path(source), name, (double)out[i], layer);
    return GYRE_OK;
}

gyre_status gyre_clips_read(const gyre_source *source, const struct gyre_hparams *hp, uint32_t layer,
                            float act[GYRE_PRODUCTS], float kv[GYRE_CACHED], gyre_error *err)
{
    memset(act, 0, GYRE_PRODUCTS * sizeof *act);
    memset(kv, 0, GYRE_CACHED * sizeof *kv);
    if (!hp->learned_clips) return GYRE_OK;
    GYRE_TRY(read_some(source, hp, act_name, layer, GYRE_PRODUCTS, act, err));
    return read_some(source, hp, kv_name, layer, GYRE_CACHED, kv, err);
}

bool gyre_clips_read_tensor(const struct gyre_hparams *hp, const char *name)
{
    return hp->learned_clips && (!strcmp(name, act_name) || !strcmp(name, kv_name));
}
