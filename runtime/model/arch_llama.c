// Llama and what computes the same: Mistral and Ministral, whose blocks may see a sliding window only, and Llama with
// biases.
#include "runtime/model/arch.h"
#include "runtime/model/builder.h"
#include "runtime/model/hparams_impl.h"

static const char *const hf[] = {"llama", "mistral", "ministral", NULL};

const struct gyre_arch gyre_arch_llama = {
    .name = "llama",
    .hf = hf,
    .roles = GYRE_PRE_NORM_ROLES,
    .may_bias = GYRE_ALL_LINEARS,
    .paired_rows = true,
    .plain = GYRE_PLAIN_FOLDER | GYRE_PLAIN_DIVISORS,
    .plain_biases = GYRE_ALL_LINEARS,
    .version = 1,
    .read = gyre_hparams_all_windowed,
    .block = gyre_b_pre_norm_block,
};
