// SmolLM3: Llama with blocks that do not turn their heads, every fourth where the file does not say which.
#include "runtime/model/arch.h"
#include "runtime/model/builder.h"
#include "runtime/model/hparams_impl.h"

static const char *const hf[] = {"smollm3", NULL};

static gyre_status read(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    char key[96];
    bool turned[GYRE_MAX_LAYERS];
    GYRE_TRY(gyre_hparams_all_windowed(source, hp, err));
    gyre_hparam_key(hp, "attention.rope_pattern", key);
    GYRE_TRY(gyre_hparams_flags(source, key, hp->n_layers, 4, turned, err));
    for (uint32_t i = 0; i < hp->n_layers; i++) hp->kind[i].turn = turned[i] ? GYRE_TURN_ROPE : GYRE_TURN_NONE;
    return GYRE_OK;
}

const struct gyre_arch gyre_arch_smollm3 = {
    .name = "smollm3",
    .hf = hf,
    .roles = GYRE_PRE_NORM_ROLES,
    .may_bias = GYRE_ALL_LINEARS,
    .paired_rows = true,
    .plain = GYRE_PLAIN_FOLDER | GYRE_PLAIN_FOURTHS,
    .plain_biases = GYRE_QKV_LINEARS,
    .version = 3,
    .read = read,
    .block = gyre_b_pre_norm_block,
};
