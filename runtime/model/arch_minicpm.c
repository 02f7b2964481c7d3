// MiniCPM: Llama with multipliers of embeddings, branches and logits. GGUF files that leave them out mean those of the
// first models, a config.json means 1.
#include "runtime/model/arch.h"
#include "runtime/model/builder.h"
#include "runtime/model/hparams_impl.h"

#include <math.h>

static const char *const hf[] = {"minicpm", NULL};

static gyre_status read(const gyre_source *source, struct gyre_hparams *hp, gyre_error *err)
{
    const bool folder = gyre_source_container(source) == GYRE_CONTAINER_HF;
    return gyre_hparams_multipliers(source, hp, folder ? 1 : 12, (folder ? 1 : 1.4) / sqrt(hp->n_layers),
                                    hp->width / (folder ? 1.0 : 256.0), err);
}

const struct gyre_arch gyre_arch_minicpm = {
    .name = "minicpm",
    .hf = hf,
    .roles = GYRE_PRE_NORM_ROLES,
    .may_bias = GYRE_ALL_LINEARS,
    .paired_rows = true,
    .plain = GYRE_PLAIN_FOLDER | GYRE_PLAIN_DIVISORS,
    .plain_biases = GYRE_ALL_LINEARS,
    .version = 3,
    .read = read,
    .block = gyre_b_pre_norm_block,
};
