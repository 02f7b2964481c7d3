// What the packs of other tools' checkpoints share. See pack.h.
#include "runtime/model/pack.h"
#include "runtime/source/quantization.h"
#include "runtime/util/base.h"
#include "runtime/util/half.h"

#include <string.h>

const struct gyre_tensor *gyre_linear_part(const struct gyre_linear_place *at, const struct gyre_linear *l,
                                           const char *part)
{
    uint64_t first, whole;
    if (l->whole == l->rows) return gyre_role_tensor(at->source, at->role, at->layer, part, NULL);
    return gyre_role_fused_part(at->source, at->hp, at->role, at->layer, part, &first, &whole);
}

gyre_status gyre_linear_need(const struct gyre_linear_place *at, const struct gyre_linear *l, const char *part,
                             const struct gyre_tensor **out, gyre_error *err)
{
    *out = gyre_linear_part(at, l, part);
    if (*out) return GYRE_OK;
    const char *dot = strrchr(l->weight->name, '.');
    return gyre_fail(err, GYRE_E_FORMAT, "cannot use model (%s): tensor %.*s.%s is missing",
                     gyre_source_path(at->source), (int)(dot ? dot - l->weight->name : 0), l->weight->name, part);
}

float gyre_float_at(const struct gyre_tensor *t, uint64_t index)
{
    uint32_t wide;
    uint16_t half; // a mapped tensor may be unaligned
    if (t->type == GYRE_DTYPE_F32) {
        memcpy(&wide, (const char *)t->data + index * sizeof wide, sizeof wide);
        return gyre_f32_from_bits(wide);
    }
    memcpy(&half, (const char *)t->data + index * sizeof half, sizeof half);
    return t->type == GYRE_DTYPE_F16 ? gyre_f32_from_f16(half) : gyre_f32_from_bf16(half);
}

gyre_status gyre_linear_declared(const gyre_source *source, const struct gyre_linear *l, gyre_error *err)
{
    const struct gyre_quantization *q = gyre_source_quantization(source);
    const uint64_t groups = l->cols / l->group;
    for (uint32_t i = 0; i < q->n_schemes && !q->exceptions; i++) {
        const struct gyre_scheme *s = &q->scheme[i];
        const uint64_t due = s->group ? gyre_div_up(l->cols, s->group) : 1;
        if (s->bits == l->bits && due == groups && (s->symmetric || l->zero)) return GYRE_OK;
    }
    if (q->exceptions) return GYRE_OK;
    const struct gyre_scheme *s = &q->scheme[0];
    return gyre_fail(
        err, GYRE_E_FORMAT,
        "cannot use model (%s): tensor %s has codes of %u bits in %llu groups%s a row; config.json declares "
        "%u bits, group_size %d%s",
        gyre_source_path(source), l->weight->name, l->bits, (unsigned long long)groups,
        l->zero ? " with zero points" : " without zero points", s->bits, s->group ? (int)s->group : -1,
        s->symmetric ? "" : ", not symmetric");
}
