// What an engine takes, before it is opened.
#include "runtime/engine.h"
#include "runtime/inspect.h"

#include "runtime/util/base.h"

#include <stdio.h>

static uint32_t at_most(uint32_t asked, uint32_t otherwise, uint32_t most)
{
    return GYRE_MIN(asked ? asked : otherwise, most);
}

// The widest values of a block that are alive together: the residual stream and its norm, gate and up, the product.
static uint64_t row_bytes(const struct gyre_hparams *hp)
{
    const uint64_t heads = (uint64_t)(hp->heads + 2 * hp->kv_heads) * hp->head_dim;
    return sizeof(float) * (3 * (uint64_t)hp->width + GYRE_MAX(heads, 3 * (uint64_t)hp->ffn));
}

gyre_status gyre_plan_memory(const char *path, const gyre_engine_params *given, gyre_memory_plan *out, gyre_error *err)
{
    gyre_engine_params p;
    gyre_device *device = NULL;
    struct gyre_inspection in = {0};
    gyre_status st = GYRE_OK;
    *out = (gyre_memory_plan){0};
    GYRE_TRY(
        gyre_params_take(given, &p, sizeof p, offsetof(gyre_engine_params, logit_rows), "gyre_engine_params", err));
    GYRE_TRY(gyre_device_open(p.device, NULL, &device, err));
    const struct gyre_device_info info = *gyre_device_info(device);
    gyre_device_close(device);
    GYRE_GO(gyre_inspection_open(path, &in, err));
    const struct gyre_hparams *hp = &in.hp;
    const uint32_t rows = at_most(p.max_rows, GYRE_DEFAULT_ROWS, 1u << (GYRE_BUCKETS - 1));
    const uint64_t binding = p.limit_binding ? GYRE_MIN(p.limit_binding, info.max_binding) : info.max_binding;
    const uint64_t logits_row = (uint64_t)hp->vocab * sizeof(float);
    snprintf(out->device, sizeof out->device, "%s", info.id);
    out->memory = info.memory_bytes;
    out->context = at_most(p.context, GYRE_DEFAULT_CONTEXT, hp->context);
    out->sequences = p.sequences ? p.sequences : 1;
    out->kv_bits = p.kv ? p.kv : hp->kv_bits;
    out->weights = in.weights;
    const uint64_t tokens = gyre_round_up(out->context, GYRE_PAGE) * out->sequences,
                   plane = tokens * hp->kv_heads * hp->head_dim * out->kv_bits / 8;
    out->kv = tokens * in.kv[out->kv_bits >= 16 ? 0 : out->kv_bits == 8 ? 1 : 2];
    out->work =
        rows * row_bytes(hp) + logits_row * GYRE_MAX(out->sequences, GYRE_MIN(p.logit_rows, binding / logits_row));
    out->fits = out->weights + out->kv + out->work <= out->memory / 10 * 9 &&
                plane <= GYRE_MIN(binding, info.max_buffer) && logits_row * out->sequences <= binding;
done:
    gyre_inspection_free(&in);
    return st;
}
