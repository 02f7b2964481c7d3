// Qwen2 and Qwen2.5: Llama's block with biases on q, k and v.
#include "runtime/model/arch.h"
#include "runtime/model/builder.h"
#include "runtime/model/hparams_impl.h"

static const char *const hf[] = {"qwen2", NULL};

const struct gyre_arch gyre_arch_qwen2 = {
    .name = "qwen2",
    .hf = hf,
    .roles = GYRE_PRE_NORM_ROLES,
    .biases = GYRE_ROLE_BIT(GYRE_ROLE_q) | GYRE_ROLE_BIT(GYRE_ROLE_k) | GYRE_ROLE_BIT(GYRE_ROLE_v),
    .version = 2,
    .read = gyre_hparams_cap_window,
    .block = gyre_b_pre_norm_block,
};
