// Qwen2 and Qwen2.5: Llama's block with biases on q, k and v.
#include "runtime/model/arch.h"
#include "runtime/model/builder.h"
#include "runtime/model/hparams_impl.h"

static const char *const hf[] = {"qwen2", NULL};

const struct gyre_arch gyre_arch_qwen2 = {
    .name = "qwen2",
    .hf = hf,
    .roles = GYRE_PRE_NORM_ROLES,
    .biases = GYRE_QKV_LINEARS,
    .plain = GYRE_PLAIN_FOLDER,
    .plain_biases = GYRE_QKV_LINEARS,
    .version = 2,
    .read = gyre_hparams_all_windowed,
    .block = gyre_b_pre_norm_block,
};
