// Qwen3, dense: Llama's block with an RMS norm over every q and k head before RoPE; heads * head size need not be the
// width.
#include "runtime/model/arch.h"
#include "runtime/model/builder.h"
#include "runtime/model/hparams_impl.h"

static const char *const hf[] = {"qwen3", NULL};

const struct gyre_arch gyre_arch_qwen3 = {
    .name = "qwen3",
    .hf = hf,
    .roles = GYRE_PRE_NORM_ROLES | GYRE_ROLE_BIT(GYRE_ROLE_q_norm) | GYRE_ROLE_BIT(GYRE_ROLE_k_norm),
    .may_bias = GYRE_QKV_LINEARS | GYRE_ROLE_BIT(GYRE_ROLE_o),
    .plain = GYRE_PLAIN_FOLDER,
    .plain_biases = GYRE_QKV_LINEARS,
    .version = 2,
    .read = gyre_hparams_all_windowed,
    .block = gyre_b_pre_norm_block,
};
