// Gemma 3: a norm before and one behind each branch, norms of q and k heads, GELU, embeddings times the root of the
// width. Most blocks see a window and turn their heads by a base of their own; the others see all and may scale theirs.
// Hugging Face's files hold every gain less 1.
#include "runtime/model/arch.h"
#include "runtime/model/builder.h"
#include "runtime/model/hparams_impl.h"

#include <math.h>

static const char *const hf[] = {"gemma3_text", NULL};

static gyre_status read(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    enum { PERIOD = 6, LAYERS_27B = 62 };
    char key[96];
    bool windowed[GYRE_MAX_LAYERS];
    uint32_t window = 0;
    double cap = 0;
    gyre_hparam_key(hp, "final_logit_softcapping", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 0, 0, &cap, err));
    gyre_hparam_key(hp, "attention.sliding_window", key);
    GYRE_TRY(gyre_hparam_u32(source, key, true, 0, UINT32_MAX, &window, err));
    gyre_hparam_key(hp, "attention.sliding_window_pattern", key);
    GYRE_TRY(gyre_hparams_flags(source, key, hp->n_layers, PERIOD, windowed, err));
    GYRE_TRY(gyre_hparams_windows(source, hp, PERIOD, err));
    for (uint32_t i = 0; i < hp->n_layers; i++) // also where no text reaches beyond the window
        hp->kind[i].turn = window && windowed[i] ? GYRE_TURN_LOCAL : GYRE_TURN_ROPE;
    hp->rope_local_base = 10000;
    gyre_hparam_key(hp, "rope.freq_base_swa", key);
    GYRE_TRY(gyre_hparam_f64(source, key, true, 1, 1e12, &hp->rope_local_base, err));
    GYRE_TRY(gyre_hparams_multipliers(source, hp, sqrt(hp->width), 1, 1, err));
    if (hp->attn_scale == 0 && hp->n_layers == LAYERS_27B) // GGUF files do not say it
        hp->attn_scale = (float)(1 / sqrt(hp->width / hp->heads));
    hp->norms_less_one = gyre_source_container(source) == GYRE_CONTAINER_HF;
    return GYRE_OK;
}

static void block(struct gyre_builder *b) { gyre_b_sandwich_block(b, GYRE_ACT_GELU); }

const struct gyre_arch gyre_arch_gemma3 = {
    .name = "gemma3",
    .hf = hf,
    .roles = GYRE_PRE_NORM_ROLES | GYRE_ROLE_BIT(GYRE_ROLE_q_norm) | GYRE_ROLE_BIT(GYRE_ROLE_k_norm) |
             GYRE_ROLE_BIT(GYRE_ROLE_attn_post_norm) | GYRE_ROLE_BIT(GYRE_ROLE_ffn_post_norm),
    .may_bias = GYRE_QKV_LINEARS | GYRE_ROLE_BIT(GYRE_ROLE_o),
    .act = "gelu_pytorch_tanh",
    .plain = GYRE_PLAIN_WINDOWS | GYRE_PLAIN_FOLDER,
    .version = 3,
    .read = read,
    .block = block,
};
