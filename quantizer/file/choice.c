// See choice.h.
#include "quantizer/file/choice.h"
#include "runtime/util/base.h"

json_t *gyre_choice_json(const struct gyre_choice *c)
{
    json_t *list = json_array();
    for (uint32_t i = 0; list && c->n_seeds > 1 && i < c->n_seeds; i++)
        json_array_append_new(list, json_real((double)c->surrogate[i]));
    json_t *apart = c->kv_clip_v == c->kv_clip ? NULL : json_real((double)c->kv_clip_v);
    json_t *tap = c->tap_clip == c->act_clip ? NULL : json_real((double)c->tap_clip);
    return json_pack("{s:I, s:o, s:f, s:f, s:o*, s:o*}", "rotation_seed", (json_int_t)c->seed, "surrogates", list,
                     "act_clip", (double)c->act_clip, "kv_clip", (double)c->kv_clip, "kv_clip_v", apart, "tap_clip",
                     tap);
}

bool gyre_choice_read(const json_t *json, struct gyre_choice *out)
{
    const json_t *seed = json_object_get(json, "rotation_seed"), *list = json_object_get(json, "surrogates"),
                 *act = json_object_get(json, "act_clip"), *kv = json_object_get(json, "kv_clip"),
                 *apart = json_object_get(json, "kv_clip_v"), *kv_v = apart ? apart : kv,
                 *own = json_object_get(json, "tap_clip"), *tap = own ? own : act;
    if (!json_is_integer(seed) || !json_is_array(list) || !json_is_real(act) || !json_is_real(kv) ||
        !json_is_real(kv_v) || !json_is_real(tap) || json_array_size(list) > GYRE_MAX_SEEDS)
        return false;
    *out = (struct gyre_choice){.seed = (uint64_t)json_integer_value(seed),
                                .n_seeds = (uint32_t)GYRE_MAX(json_array_size(list), (size_t)1),
                                .act_clip = (float)json_real_value(act),
                                .kv_clip = (float)json_real_value(kv),
                                .kv_clip_v = (float)json_real_value(kv_v),
                                .tap_clip = (float)json_real_value(tap)};
    for (size_t i = 0; i < json_array_size(list); i++)
        out->surrogate[i] = (float)json_real_value(json_array_get(list, i));
    return true;
}
