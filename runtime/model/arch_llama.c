// Llama and what computes the same: Mistral (its files differ in names of keys only, its sliding window in the longest
// text).
#include "runtime/model/arch.h"
#include "runtime/model/builder.h"
#include "runtime/model/hparams_impl.h"

static const char *const hf[] = {"llama", "mistral", NULL};

const struct gyre_arch gyre_arch_llama = {
    .name = "llama",
    .hf = hf,
    .roles = GYRE_PRE_NORM_ROLES,
    .paired_rows = true,
    .plain_divisors = true,
    .version = 1,
    .read = gyre_hparams_cap_window,
    .block = gyre_b_pre_norm_block,
};
