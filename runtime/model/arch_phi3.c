// Phi-3, Phi-4 and Phi-4-mini: Llama's block with q, k, v and gate, up in one tensor each (roles.def: FUSED), RoPE over
// a part of each head, LongRoPE, windows.
#include "runtime/model/arch.h"
#include "runtime/model/builder.h"
#include "runtime/model/hparams_impl.h"

static const char *const hf[] = {"phi3", NULL};

const struct gyre_arch gyre_arch_phi3 = {
    .name = "phi3",
    .hf = hf,
    .roles = GYRE_PRE_NORM_ROLES,
    .may_bias = GYRE_ALL_LINEARS,
    .partial_rope = true,
    .plain = GYRE_PLAIN_FUSED | GYRE_PLAIN_FOLDER | GYRE_PLAIN_DIVISORS,
    .version = 3,
    .read = gyre_hparams_all_windowed,
    .block = gyre_b_pre_norm_block,
};
