// Ministral 3 and the text part of Mistral 3: Llama with queries that grow with the position, in steps of the context
// that YaRN started from: 1 + beta ln(1 + floor(position / original context)).
#include "runtime/model/arch.h"
#include "runtime/model/builder.h"
#include "runtime/model/hparams_impl.h"

static const char *const hf[] = {"ministral3", NULL};

static gyre_status read(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    char key[96];
    double beta = 0, span = hp->context;
    GYRE_TRY(gyre_hparams_all_windowed(source, hp, err));
    GYRE_TRY(gyre_hparams_multipliers(source, hp, 1, 1, 1, err));
    gyre_hparam_key(hp, "attention.temperature_scale", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 0, 100, &beta, err));
    gyre_hparam_key(hp, "rope.scaling.original_context_length", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 1, 1e9, &span, err));
    hp->q_beta = (float)beta;
    hp->q_span = (uint32_t)span;
    return GYRE_OK;
}

const struct gyre_arch gyre_arch_mistral3 = {
    .name = "mistral3",
    .hf = hf,
    .roles = GYRE_PRE_NORM_ROLES,
    .may_bias = GYRE_ALL_LINEARS,
    .paired_rows = true,
    .plain = GYRE_PLAIN_FOLDER | GYRE_PLAIN_DIVISORS | GYRE_PLAIN_BETAS,
    .plain_biases = GYRE_ALL_LINEARS,
    .version = 3,
    .read = read,
    .block = gyre_b_pre_norm_block,
};
