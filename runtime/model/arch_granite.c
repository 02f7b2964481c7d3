// Granite 3 and the dense models of Granite 4: Llama with multipliers of embeddings, branches, scores and logits, which
// cost nothing (hparams_impl.h).
#include "runtime/model/arch.h"
#include "runtime/model/builder.h"
#include "runtime/model/hparams_impl.h"

static const char *const hf[] = {"granite", "granitemoehybrid", NULL};

static gyre_status read(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    char key[96];
    bool turned = true;
    GYRE_TRY(gyre_hparams_multipliers(source, hp, 1, 1, 1, err));
    gyre_hparam_key(hp, "rope.scaling.finetuned", key); // here: whether there is any RoPE
    GYRE_TRY(gyre_source_bool(source, key, &turned, NULL, err));
    for (uint32_t i = 0; i < hp->n_layers && !turned; i++) hp->kind[i].turn = GYRE_TURN_NONE;
    return GYRE_OK;
}

const struct gyre_arch gyre_arch_granite = {
    .name = "granite",
    .hf = hf,
    .roles = GYRE_PRE_NORM_ROLES,
    .may_bias = GYRE_ALL_LINEARS,
    .paired_rows = true,
    .plain = GYRE_PLAIN_FOLDER | GYRE_PLAIN_SCALE | GYRE_PLAIN_DIVISORS,
    .plain_biases = GYRE_ALL_LINEARS,
    .version = 3,
    .read = read,
    .block = gyre_b_pre_norm_block,
};
